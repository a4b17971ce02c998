"""Live Parquet files: a writer's rows of one channel and period, in the order received, written as they come."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.durable import publish, sha256_file
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import CHANNELS
from depthvault.seal.receipts import LiveFile

ROW_GROUP_BYTES = 16 << 20
"""Arrow bytes that make a row group: what a channel takes in memory while an hour is sealed."""

COMPRESSION = "lz4"
"""A fast codec: these files live for hours, the archive's are written once more with ZSTD."""

_DICTIONARY = ("symbol", "instance", "source", "interval", "exchange", "kind", "channel", "trade_type", "status")


@dataclass(slots=True)
class _File:
    path: Path
    channel: str
    period: Period
    late: Period | None
    schema: pa.Schema
    rows: int = 0
    pending: list[pa.Table] = field(default_factory=list)
    pending_bytes: int = 0
    temporary: Path | None = None
    writer: pq.ParquetWriter | None = None


class LiveWriter:
    """Writes all files of one seal; they appear together in `publish`, or not at all.

    Use as a context manager: leaving it without `publish` removes what was written.
    """

    def __init__(self, layout: Layout, exchange: str, writer: str, unit: Period, software: str) -> None:
        self._layout = layout
        self._exchange = exchange
        self._writer = writer
        self._unit = unit
        self._software = software
        self._files: dict[tuple[str, Period], _File] = {}

    def __enter__(self) -> LiveWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            if file.writer is not None:
                file.writer.close()
            if file.temporary is not None:
                file.temporary.unlink(missing_ok=True)

    def add(self, channel: str, period: Period, table: pa.Table) -> None:
        """Append rows of `period`; those of another period than the unit's are its stragglers."""
        if not table.num_rows:
            return
        file = self._files.get((channel, period))
        if file is None:
            file = self._files[(channel, period)] = self._new(channel, period)
        file.rows += table.num_rows
        file.pending.append(table)
        file.pending_bytes += table.nbytes
        if file.pending_bytes >= ROW_GROUP_BYTES:
            self._write(file)

    def _new(self, channel: str, period: Period) -> _File:
        late = None if period == self._unit else self._unit
        path = self._layout.live_file(self._exchange, channel, period, self._writer, late)
        schema = CHANNELS[channel].schema
        metadata = {
            **schema.metadata,
            b"depthvault.exchange": self._exchange.encode(),
            b"depthvault.period": period.label.encode(),
            b"depthvault.software": self._software.encode(),
            b"depthvault.writer": self._writer.encode(),
        }
        return _File(path, channel, period, late, schema.with_metadata(metadata))

    def _write(self, file: _File) -> None:
        table = pa.concat_tables(file.pending).replace_schema_metadata(file.schema.metadata)
        file.pending, file.pending_bytes = [], 0
        if file.writer is None:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            file.temporary = file.path.with_name(f".{file.path.name}.sealing.tmp")
            file.writer = pq.ParquetWriter(
                file.temporary,
                file.schema,
                compression=COMPRESSION,
                use_dictionary=[name for name in _DICTIONARY if name in file.schema.names],
            )
        file.writer.write_table(table.combine_chunks(), row_group_size=max(table.num_rows, 1))

    def publish(self) -> list[LiveFile]:
        """Make every file appear, durable; by path."""
        published = []
        for file in sorted(self._files.values(), key=lambda one: one.path):
            if file.pending:
                self._write(file)
            assert file.writer is not None
            assert file.temporary is not None
            file.writer.close()
            with publish(file.path) as temporary:
                file.temporary.rename(temporary)
            published.append(
                LiveFile(
                    path=file.path.relative_to(self._layout.root).as_posix(),
                    channel=file.channel,
                    period=file.period.label,
                    late=None if file.late is None else file.late.label,
                    rows=file.rows,
                    sha256=sha256_file(file.path),
                    bytes=file.path.stat().st_size,
                )
            )
        return published
