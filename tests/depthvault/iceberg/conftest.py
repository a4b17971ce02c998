"""The archive's own object store, for tables over its objects."""

from ..archive.conftest import bucket, server, store

__all__ = ["bucket", "server", "store"]
