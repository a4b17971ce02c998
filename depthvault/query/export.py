"""The archive in other formats: CSV, Parquet, hftbacktest `.npz`, and CSV in the shape of Tardis' datasets.

A file appears whole or not at all. Nothing is rounded: prices and sizes are the archive's doubles, times its
microseconds. What had to be changed or left out is said in `Exported.notes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from depthvault.durable import publish
from depthvault.errors import UsageError
from depthvault.query import hftbacktest, tardis
from depthvault.query.text import Moment, moment
from depthvault.query.vault import Vault, check_exchange
from depthvault.schemas import CHANNELS

ExportFormat = Literal["csv", "parquet", "hftbacktest", "tardis-book", "tardis-trades"]
FORMATS: dict[str, str] = {
    "csv": "one channel as it is, lists as JSON",
    "parquet": "one channel as it is, ZSTD",
    "hftbacktest": "book and trades as hftbacktest's event array (.npz)",
    "tardis-book": "book as Tardis' incremental_book_L2 (.csv or .csv.gz)",
    "tardis-trades": "trades as Tardis' trades (.csv or .csv.gz)",
}
Progress = Callable[[float, int], None]
"""Told the share of the time span that is done, 0 to 1, and the rows so far."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. notes: what a reader must know of it, one sentence each."""

    path: Path
    rows: int
    notes: list[str] = field(default_factory=list)


def export(
    vault: Vault,
    format: str,
    exchange: str,
    symbol: str,
    start: Moment,
    end: Moment,
    path: Path,
    *,
    channel: str | None = None,
    overwrite: bool = False,
    progress: Progress = lambda share, rows: None,
) -> Exported:
    """Write what was received in [start, end) of one symbol to `path`. `channel` is for csv and parquet.

    Raises UsageError for a format, channel or exchange that there is not, and when `path` is there already.
    """
    low, high = moment(start), moment(end)
    if format not in FORMATS:
        raise UsageError(f"no format {format!r}; there are {', '.join(FORMATS)}")
    if format in ("csv", "parquet") and channel not in CHANNELS:
        raise UsageError(f"{format} needs a channel: {', '.join(CHANNELS)}")
    if high <= low:
        raise UsageError(f"nothing lies between {low:%Y-%m-%d %H:%M:%S} and {high:%Y-%m-%d %H:%M:%S}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already")
    check_exchange(exchange)
    span = _Span(low, high, progress)
    with publish(path) as temporary:
        if format == "hftbacktest":
            result = hftbacktest.write(vault, exchange, symbol, low, high, temporary, span.reached)
            return Exported(path, result.rows, result.notes)
        if format == "parquet":
            assert channel is not None
            return Exported(path, _write_parquet(vault.channel(channel, exchange, symbol, low, high), temporary, span))
        notes: list[str] = []
        if format == "csv":
            assert channel is not None
            reader = vault.channel(channel, exchange, symbol, low, high)
            batches, schema = _plain(reader), _plain_schema(reader.schema)
        elif format == "tardis-book":
            batches, schema = tardis.book(vault, exchange, symbol, low, high, notes), tardis.BOOK_SCHEMA
        else:
            batches, schema = tardis.trades(vault, exchange, symbol, low, high), tardis.TRADES_SCHEMA
        rows = _write_csv(batches, schema, temporary, span, compress=path.suffix == ".gz")
    return Exported(path, rows, notes)


@dataclass(slots=True)
class _Span:
    """How far an export has come, by the time of receipt."""

    low: datetime
    high: datetime
    progress: Progress
    rows: int = 0

    def reached(self, received: int, rows: int) -> None:
        """`rows` more are written, the last one received at `received` µs."""
        self.rows += rows
        start, length = self.low.timestamp() * 1e6, (self.high - self.low).total_seconds() * 1e6
        self.progress(min(max((received - start) / length, 0.0), 1.0), self.rows)


def _last_received(batch: pa.RecordBatch) -> int:
    """When the last row was received, µs since the epoch: batches say it as Arrow time, as text or as a number."""
    for name in ("received_time", "local_timestamp"):
        if name in batch.schema.names:
            last = batch.column(name)[-1]
            if pa.types.is_string(last.type):
                last = pa.scalar(datetime.fromisoformat(last.as_py()), pa.timestamp("us", tz="UTC"))
            return int(last.cast(pa.int64()).as_py())
    return 0


def _write_parquet(reader: pa.RecordBatchReader, path: Path, span: _Span) -> int:
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            if batch.num_rows:
                writer.write_batch(batch)
                span.reached(_last_received(batch), batch.num_rows)
    return span.rows


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([(column.name, _plain_type(column.type)) for column in schema])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_list(kind) or pa.types.is_timestamp(kind) else kind


def _plain(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Batches that CSV can hold: lists as JSON, times in ISO 8601 with microseconds."""
    schema = _plain_schema(reader.schema)
    for batch in reader:
        columns = []
        for column in batch.columns:
            if pa.types.is_list(column.type):
                texts = [None if value is None else f"[{', '.join(map(repr, value))}]" for value in column.to_pylist()]
                columns.append(pa.array(texts, pa.string()))
            elif pa.types.is_timestamp(column.type):
                columns.append(pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ"))
            else:
                columns.append(column)
        yield pa.record_batch(columns, schema=schema)


def _write_csv(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path, span: _Span, *, compress: bool) -> int:
    with ExitStack() as stack:
        sink = stack.enter_context(pa.OSFile(str(path), "wb"))
        if compress:
            sink = stack.enter_context(pa.CompressedOutputStream(sink, "gzip"))
        options = pa_csv.WriteOptions(quoting_style="needed")
        writer = stack.enter_context(pa_csv.CSVWriter(sink, schema, write_options=options))
        for batch in batches:
            if batch.num_rows:
                writer.write_batch(batch)
                span.reached(_last_received(batch), batch.num_rows)
    return span.rows
