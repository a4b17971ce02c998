"""The archive's own object store, for imports into it."""

from ..archive.conftest import bucket, server, store

__all__ = ["bucket", "server", "store"]
