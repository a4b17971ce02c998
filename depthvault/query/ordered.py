"""Rows of one symbol straight from Parquet, where the archive already has them in chain order: no sorting, no SQL.

Archived files are ordered by symbol and chain, and no row group spans symbols, so that reading a symbol's row groups in
the order of the periods is reading its chain. It is checked, not believed: ids are read first, and whatever is not in
order, not archived, or not on this disk, is left to DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.book.events import kept_rows
from depthvault.query.catalog import Catalog
from depthvault.query.pruning import Scan
from depthvault.schemas import CHANNELS

_BATCH_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is asked for: rows of `symbol` received in [low, high] µs; with `only`, those where that column is true."""

    symbol: str
    low: int
    high: int
    only: str | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """Row groups of a file. alone: every row in them is of the symbol. within: every row was received in the span."""

    path: str
    metadata: pq.FileMetaData
    groups: list[int]
    alone: bool
    within: bool


@dataclass(frozen=True, slots=True)
class _Span:
    """The rows of a part between which all wanted ones lie; whole: all of these are wanted."""

    part: _Part
    first: int
    last: int
    whole: bool


def ordered(
    catalog: Catalog,
    channel: str,
    exchange: str,
    symbol: str,
    low: int,
    high: int,
    columns: Sequence[str],
    only: str | None = None,
    most_files: int | None = None,
) -> Iterator[pa.RecordBatch] | None:
    """Rows of `channel` received in [low, high] µs, in chain order, no batch empty; None: DuckDB must sort them.

    `columns` must hold the channel's order columns. only: a column of flags; rows where it is false are left out.
    most_files: when more files may hold such rows, that is left to DuckDB, too.
    """
    files = catalog.settled(channel, _scan(channel, exchange, symbol, low, high))
    if files is None or any(file.startswith("s3:") for file in files):
        return None
    if most_files is not None and len(files) > most_files:
        return None
    wanted = _Wanted(symbol, low, high, only)
    try:
        parts = [part for file in files if (part := _part(file, wanted)).groups]
        spans = _in_order(parts, CHANNELS[channel].order, wanted)
    except FileNotFoundError:  # cleaned up or superseded meanwhile: DuckDB's way looks again
        return None
    return None if spans is None else _rows(spans, wanted, list(columns))


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


@lru_cache(maxsize=16)
def _footer(path: str, changed_ns: int) -> pq.FileMetaData:
    """A file's footer; with hundreds of symbols in a file, reading it takes as long as reading an hour of one."""
    del changed_ns
    return pq.read_metadata(path)


def _part(path: str, wanted: _Wanted) -> _Part:
    metadata = _footer(path, Path(path).stat().st_mtime_ns)
    groups, alone, within = [], True, True
    leaves = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if wanted.only is not None:
            flags = group.column(leaves[wanted.only]).statistics
            if flags is not None and flags.has_min_max and not flags.max:
                continue
        of_symbol, of_time = (group.column(leaves[name]).statistics for name in ("symbol", "received_time"))
        if of_symbol is None or of_time is None or not of_symbol.has_min_max or not of_time.has_min_max:
            groups.append(number)
            alone = within = False
            continue
        if not of_symbol.min <= wanted.symbol <= of_symbol.max:
            continue
        first, last = _micros(of_time.min), _micros(of_time.max)
        if last < wanted.low or first > wanted.high:
            continue
        groups.append(number)
        alone = alone and of_symbol.min == of_symbol.max == wanted.symbol
        within = within and wanted.low <= first and last <= wanted.high
    return _Part(path, metadata, groups, alone, within)


def _micros(value: object) -> int:
    moment: int = pa.scalar(value, pa.timestamp("us", tz="UTC")).cast(pa.int64()).as_py()
    return moment


def _batches(part: _Part, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(part.path, metadata=part.metadata) as file:
        names = list(dict.fromkeys(columns))
        yield from file.iter_batches(_BATCH_ROWS, row_groups=part.groups, columns=names, use_threads=False)


def _deciding(part: _Part, wanted: _Wanted) -> list[str]:
    """The columns that tell which rows of `part` are wanted."""
    named = ("symbol", not part.alone), ("received_time", not part.within), (wanted.only or "", wanted.only is not None)
    return [name for name, needed in named if needed]


def _mask(batch: pa.RecordBatch, part: _Part, wanted: _Wanted) -> npt.NDArray[np.bool_]:
    """Which rows of a batch of `part` are wanted."""
    mask = np.ones(batch.num_rows, np.bool_)
    if not part.within:
        received = batch.column("received_time").cast(pa.int64()).to_numpy()
        mask &= (received >= wanted.low) & (received <= wanted.high)
    if not part.alone:
        mask &= pc.equal(batch.column("symbol"), wanted.symbol).to_numpy(zero_copy_only=False)
    if wanted.only is not None:
        mask &= batch.column(wanted.only).to_numpy(zero_copy_only=False)
    return mask


def _rows(spans: Sequence[_Span], wanted: _Wanted, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for span in spans:
        names = columns if span.whole else [*columns, *_deciding(span.part, wanted)]
        offset = 0
        for batch in _batches(span.part, names):
            first, last = max(span.first - offset, 0), min(span.last - offset, batch.num_rows)
            offset += batch.num_rows
            if first < last:
                kept = batch if last - first == batch.num_rows else batch.slice(first, last - first)
                if not span.whole:
                    kept = kept_rows(kept, _mask(kept, span.part, wanted))
                if kept.num_rows:
                    yield kept.select(columns)
            if offset >= span.last:
                break


def _in_order(parts: Sequence[_Part], order: Sequence[str], wanted: _Wanted) -> list[_Span] | None:
    """Where the wanted rows lie; None when, taken as they lie, they do not rise strictly by `order`."""
    spans: list[_Span] = []
    end: tuple[int, ...] | None = None
    for part in parts:
        offset, first, last, count = 0, 0, 0, 0
        for batch in _batches(part, [*order, *_deciding(part, wanted)]):
            places = np.flatnonzero(_mask(batch, part, wanted))
            if places.size:
                ids = [batch.column(name).to_numpy(zero_copy_only=False).astype(np.int64)[places] for name in order]
                if end is not None and tuple(int(column[0]) for column in ids) <= end:
                    return None
                rises = np.zeros(places.size - 1, np.bool_)
                for column in reversed(ids):
                    step = np.diff(column)
                    rises = (step > 0) | ((step == 0) & rises)
                if not rises.all():
                    return None
                end = tuple(int(column[-1]) for column in ids)
                first = first if count else offset + int(places[0])
                last, count = offset + int(places[-1]) + 1, count + places.size
            offset += batch.num_rows
        if count:
            spans.append(_Span(part, first, last, whole=count == last - first))
    return spans
