"""From sealed periods to an archive that can be proved: stitch, compact, publish, upload, verify, clean up."""
