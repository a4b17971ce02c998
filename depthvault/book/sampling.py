"""Best levels at many moments: what `vault.books` gives."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from depthvault.book.events import Flags, Floats, Integers, Levels, Snapshot, levels_of
from depthvault.book.seeds import LEVEL_COLUMNS, Archive, Stretch, events, microseconds, stretches
from depthvault.errors import UsageError

if TYPE_CHECKING:
    from depthvault.book.kernel import Samples

BOOKS_SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("received_time", pa.timestamp("us", tz="UTC")),
        pa.field("update_id", pa.int64()),
        pa.field("snapshot_update_id", pa.int64()),
        pa.field("gap_crossed", pa.bool_()),
        *(pa.field(name, pa.list_(pa.float64())) for name in ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")),
    ]
)
"""Columns of `books`: time asked for; receipt and id of the last event in the book; the snapshot it starts from;
whether events are missing since; the best levels. All but `time` are null while there is no snapshot yet."""


def books(
    archive: Archive, exchange: str, symbol: str, start: datetime, end: datetime, every: timedelta, depth: int
) -> pa.RecordBatchReader:
    """The best `depth` levels at `start`, `start + every`, … before `end`, as Arrow batches with `BOOKS_SCHEMA`.

    Raises UsageError for a span, step or depth that makes no sense.
    """
    step = round(every.total_seconds() * 1e6)
    if step <= 0 or depth <= 0 or end <= start:
        raise UsageError("books need start < end, every > 0 and depth > 0")
    moments = np.arange(microseconds(start), microseconds(end), step, dtype=np.int64)

    def batches() -> Iterator[pa.RecordBatch]:
        for stretch in stretches(archive, exchange, symbol, int(moments[0]), int(moments[-1]) + 1):
            asked = moments[np.searchsorted(moments, stretch.start) : np.searchsorted(moments, stretch.end)]
            if asked.size == 0:
                continue
            if stretch.seed is None:
                yield _unseeded(asked)
            else:
                yield from _walk(archive, exchange, symbol, stretch, stretch.seed, asked, depth)

    return pa.RecordBatchReader.from_batches(BOOKS_SCHEMA, batches())


def _unseeded(moments: Integers) -> pa.RecordBatch:
    times = pa.array(moments).cast(BOOKS_SCHEMA.field("time").type)
    nulls = [pa.nulls(moments.size, field.type) for field in BOOKS_SCHEMA][1:]
    return pa.record_batch([times, *nulls], schema=BOOKS_SCHEMA)


_LEVELS_AT_ONCE = 32_768 * 20
"""How many levels a side one batch of the answer has room for."""


class _Events(NamedTuple):
    """Events as they are applied. counted: when each was in the book, when it and all before it had been received."""

    ids: Integers
    counted: Integers
    bid: Levels
    ask: Levels


def _next_events(reader: Iterator[pa.RecordBatch], received: int) -> _Events | None:
    """The next events; `received`: when the last one before them counted."""
    if (batch := next(reader, None)) is None:
        return None
    times = batch.column("received_time").cast(pa.int64()).to_numpy()
    counted = np.maximum(np.maximum.accumulate(times), received)
    ids = batch.column("final_update_id").to_numpy()
    return _Events(ids, counted, levels_of(batch, "bid"), levels_of(batch, "ask"))


def _no_events() -> _Events:
    none = Levels(np.zeros(1, np.int64), np.empty(0), np.empty(0))
    return _Events(np.empty(0, np.int64), np.empty(0, np.int64), none, none)


def _walk(
    archive: Archive, exchange: str, symbol: str, stretch: Stretch, seed: Snapshot, moments: Integers, depth: int
) -> Iterator[pa.RecordBatch]:
    from depthvault.book.kernel import Kernel, samples

    kernel = Kernel(depth)
    kernel.apply(*seed.levels(), 0, 1)
    reader = events(archive, exchange, symbol, seed, int(moments[-1]), LEVEL_COLUMNS)
    last_id, received, row = seed.update_id, seed.received, 0
    coming = _next_events(reader, received)
    at_once = max(1, _LEVELS_AT_ONCE // depth)
    for low in range(0, moments.size, at_once):
        asked = moments[low : low + at_once]
        into = samples(asked.size, depth)
        ids, times = np.empty(asked.size, np.int64), np.empty(asked.size, np.int64)
        at = 0
        while at < asked.size:
            now = coming or _no_events()
            row, done = kernel.sample(now.bid, now.ask, now.counted, row, asked, into, at, final=coming is None)
            before = into.rows[at:done]
            ids[at:done] = np.concatenate(([last_id], now.ids))[before]
            times[at:done] = np.concatenate(([received], now.counted))[before]
            at = done
            if at < asked.size:
                last_id, received, row = int(now.ids[-1]), int(now.counted[-1]), 0
                coming = _next_events(reader, received)
        broken = np.zeros(asked.size, np.bool_) if stretch.broken is None else asked >= stretch.broken
        yield _as_batch(asked, times, ids, seed.update_id, broken, into)


def _lists(values: Floats, offsets: npt.NDArray[np.int32]) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[: offsets[-1]]))


def _as_batch(
    asked: Integers, times: Integers, ids: Integers, snapshot_id: int, broken: Flags, into: Samples
) -> pa.RecordBatch:
    kind = BOOKS_SCHEMA.field("time").type
    return pa.record_batch(
        [
            pa.array(asked).cast(kind),
            pa.array(times).cast(kind),
            pa.array(ids),
            pa.array(np.full(asked.size, snapshot_id)),
            pa.array(broken),
            _lists(into.bid_prices, into.bid_offsets),
            _lists(into.bid_sizes, into.bid_offsets),
            _lists(into.ask_prices, into.ask_offsets),
            _lists(into.ask_sizes, into.ask_offsets),
        ],
        schema=BOOKS_SCHEMA,
    )
