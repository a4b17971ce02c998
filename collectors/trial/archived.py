"""The archive, read as a stranger would: the manifests say which files are current, Parquet says the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.archive import log
from depthvault.layout import Layout
from depthvault.schemas import CHANNELS, QUALITY


class ArchivedFiles:
    """The current files of one venue, by table (a channel, or `gaps`) and channel."""

    def __init__(self, layout: Layout, venue: str) -> None:
        self._files: dict[tuple[str, str], list[Path]] = {}
        self.bytes = 0
        marker, prefix = f"exchange={venue}/channel=", "channel="
        for key, file in sorted(log.load(layout).files.items()):
            if marker in key:
                channel = next(part for part in key.split("/") if part.startswith(prefix)).removeprefix(prefix)
                self._files.setdefault((file.table, channel), []).append(layout.archived(key))
                self.bytes += file.bytes

    def rows(self, channel: str, symbol: str, columns: Sequence[str]) -> pa.Table:
        """All rows of a symbol, in the order of the files."""
        tables = [
            pq.read_table(path, columns=list(columns), filters=[("symbol", "=", symbol)])
            for path in self._files.get((channel, channel), ())
        ]
        if not tables:
            schema = CHANNELS[channel].schema
            return pa.table({name: pa.array([], schema.field(name).type) for name in columns})
        bare = [table.replace_schema_metadata(None) for table in tables]
        return pa.concat_tables(bare, promote_options="permissive").combine_chunks()

    def count(self, channel: str) -> int:
        """Rows of a channel in all files."""
        return sum(pq.read_metadata(path).num_rows for path in self._files.get((channel, channel), ()))

    def gaps(self, channel: str) -> pa.Table:
        """The declared gaps of a channel."""
        return self._quality("gaps", [channel])

    def audits(self) -> pa.Table:
        """What the books replayed from one whole book to the next were compared with."""
        return self._quality("book_audit", ["depth_diff", "depth_snapshot"])

    def _quality(self, name: str, channels: Sequence[str]) -> pa.Table:
        tables = [pq.read_table(path) for channel in channels for path in self._files.get((name, channel), ())]
        return pa.concat_tables(tables, promote_options="permissive") if tables else QUALITY[name].empty_table()
