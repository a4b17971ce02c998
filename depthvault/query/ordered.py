"""Rows of one symbol straight from Parquet, where the archive already has them in chain order: no sorting, no SQL.

Archived files are ordered by symbol and chain, and no row group spans symbols, so that reading a symbol's row groups in
the order of the periods is reading its chain. It is checked, not believed: ids are read first, and whatever is not in
order, not archived, or not on this disk, is left to DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.query.catalog import Catalog
from depthvault.query.pruning import Range, Scan
from depthvault.schemas import CHANNELS

_BATCH_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class _Part:
    """Row groups of a file. whole: every row in them is of the symbol and received in the span."""

    path: str
    groups: list[int]
    whole: bool


def ordered(
    catalog: Catalog, channel: str, exchange: str, symbol: str, low: int, high: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch] | None:
    """Rows of `channel` received in [low, high] µs, in chain order, no batch empty; None: DuckDB must sort them.

    `columns` must hold the channel's order columns.
    """
    files = catalog.settled(channel, _scan(channel, exchange, symbol, low, high))
    if files is None or any(file.startswith("s3:") for file in files):
        return None
    try:
        parts = [part for file in files if (part := _part(file, symbol, low, high)).groups]
        if not _in_order(parts, CHANNELS[channel].order, symbol, low, high):
            return None
    except FileNotFoundError:  # cleaned up or superseded meanwhile: DuckDB's way looks again
        return None
    return _batches(parts, symbol, low, high, list(columns))


def _scan(channel: str, exchange: str, symbol: str, low: int, high: int) -> Scan:
    """The reading in the form of DuckDB's plan."""

    def compare(operator: str, value: str | int) -> dict[str, object]:
        constant = {"is_null": False, "value": value}
        return {"filter_type": "CONSTANT_COMPARISON", "comparison_type": operator, "constant": constant}

    within = [compare("COMPARE_GREATERTHANOREQUALTO", low), compare("COMPARE_LESSTHANOREQUALTO", high)]
    return Scan(
        channel,
        {
            "exchange": compare("COMPARE_EQUAL", exchange),
            "symbol": compare("COMPARE_EQUAL", symbol),
            "received_time": {"filter_type": "CONJUNCTION_AND", "child_filters": within},
        },
    )


def _part(path: str, symbol: str, low: int, high: int) -> _Part:
    metadata = pq.read_metadata(path)
    groups, whole = [], True
    leaves = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        of_symbol, of_time = (group.column(leaves[name]).statistics for name in ("symbol", "received_time"))
        if of_symbol is None or of_time is None or not of_symbol.has_min_max or not of_time.has_min_max:
            groups.append(number)
            whole = False
            continue
        first, last = _micros(of_time.min), _micros(of_time.max)
        if not of_symbol.min <= symbol <= of_symbol.max or last < low or first > high:
            continue
        groups.append(number)
        whole = whole and of_symbol.min == of_symbol.max == symbol and low <= first and last <= high
    return _Part(path, groups, whole)


def _micros(value: object) -> int:
    moment: int = pa.scalar(value, pa.timestamp("us", tz="UTC")).cast(pa.int64()).as_py()
    return moment


def _batches(parts: Sequence[_Part], symbol: str, low: int, high: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    needed = list(dict.fromkeys((*columns, "symbol", "received_time")))
    span: Range = low, high
    for part in parts:
        with pq.ParquetFile(part.path) as file:
            read = columns if part.whole else needed
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=part.groups, columns=read, use_threads=False):
                kept = batch if part.whole else _filtered(batch, symbol, span)
                if kept.num_rows:
                    yield kept.select(columns)


def _filtered(batch: pa.RecordBatch, symbol: str, span: Range) -> pa.RecordBatch:
    received = batch.column("received_time").cast(pa.int64())
    inside = pc.and_(pc.greater_equal(received, span[0]), pc.less_equal(received, span[1]))
    return batch.filter(pc.and_(inside, pc.equal(batch.column("symbol"), symbol)))


def _in_order(parts: Sequence[_Part], order: Sequence[str], symbol: str, low: int, high: int) -> bool:
    """Whether the rows, taken as they lie, rise strictly by `order`."""
    last: tuple[int, ...] | None = None
    for batch in _batches(parts, symbol, low, high, list(order)):
        ids = [batch.column(name).to_numpy(zero_copy_only=False).astype(np.int64) for name in order]
        if last is not None and tuple(int(column[0]) for column in ids) <= last:
            return False
        rises = np.zeros(batch.num_rows - 1, np.bool_)
        for column in reversed(ids):
            step = np.diff(column)
            rises = (step > 0) | ((step == 0) & rises)
        if not rises.all():
            return False
        last = tuple(int(column[-1]) for column in ids)
    return True
