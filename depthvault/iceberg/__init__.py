"""The archive as Iceberg tables: one for each exchange and channel, over the archive's own Parquet files.

Nothing is copied. A table's snapshot lists exactly the files that the manifests say are current.
"""

from depthvault.iceberg.sync import Synced, sync

__all__ = ["Synced", "sync"]
