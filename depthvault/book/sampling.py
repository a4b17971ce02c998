"""Best levels at many moments: what `vault.books` gives."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from depthvault.book.events import Chain, Flags, Floats, Integers, Levels, Snapshot, chain_of, levels_of
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


_MOMENTS_AT_ONCE = 8192


def _walk(
    archive: Archive, exchange: str, symbol: str, stretch: Stretch, seed: Snapshot, moments: Integers, depth: int
) -> Iterator[pa.RecordBatch]:
    from depthvault.book.kernel import Kernel, samples

    kernel = Kernel(depth)
    kernel.apply(*seed.levels(), 0, 1)
    reader = events(archive, exchange, symbol, seed, int(moments[-1]), LEVEL_COLUMNS)
    last_id, received = seed.update_id, seed.received
    batch = next(reader, None)
    chain, counted, row = _counted(batch, received)
    for low in range(0, moments.size, _MOMENTS_AT_ONCE):
        asked = moments[low : low + _MOMENTS_AT_ONCE]
        into = samples(asked.size, depth)
        ids, times = np.empty(asked.size, np.int64), np.empty(asked.size, np.int64)
        at = 0
        while at < asked.size:
            if batch is None:
                none = np.empty(0, np.int64)
                bid = ask = _nothing()
                _, done = kernel.sample(bid, ask, none, 0, asked, into, at, final=True)
                ids[at:done], times[at:done] = last_id, received
                at = done
                continue
            row, done = kernel.sample(
                levels_of(batch, "bid"), levels_of(batch, "ask"), counted, row, asked, into, at, final=False
            )
            rows = into.rows[at:done]
            ids[at:done] = np.where(rows > 0, chain.final[np.maximum(rows - 1, 0)], last_id)
            times[at:done] = np.where(rows > 0, counted[np.maximum(rows - 1, 0)], received)
            at = done
            if at < asked.size:
                last_id, received = int(chain.final[-1]), int(counted[-1])
                batch = next(reader, None)
                chain, counted, row = _counted(batch, received)
        broken = np.zeros(asked.size, np.bool_) if stretch.broken is None else asked >= stretch.broken
        yield _as_batch(asked, times, ids, seed.update_id, broken, into)


def _nothing() -> Levels:
    return Levels(np.zeros(1, np.int64), np.empty(0), np.empty(0))


def _counted(batch: pa.RecordBatch | None, received: int) -> tuple[Chain, Integers, int]:
    """The ids of a batch, and when each of its events counts: when it and all before it had been received."""
    none = np.empty(0, np.int64)
    if batch is None:
        return Chain(none, none, none, none, none, np.empty(0, np.bool_)), none, 0
    chain = chain_of(batch)
    return chain, np.maximum(np.maximum.accumulate(chain.received), received), 0


def _lists(values: Floats, counts: Integers) -> pa.ListArray:
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    filled = np.arange(values.shape[1]) < counts[:, None]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[filled]))


def _as_batch(
    asked: Integers, times: Integers, ids: Integers, snapshot_id: int, broken: Flags, into: Samples
) -> pa.RecordBatch:
    kind = BOOKS_SCHEMA.field("time").type
    bids, asks = into.counts[:, 0], into.counts[:, 1]
    return pa.record_batch(
        [
            pa.array(asked).cast(kind),
            pa.array(times).cast(kind),
            pa.array(ids),
            pa.array(np.full(asked.size, snapshot_id)),
            pa.array(broken),
            _lists(into.bid_prices, bids),
            _lists(into.bid_sizes, bids),
            _lists(into.ask_prices, asks),
            _lists(into.ask_sizes, asks),
        ],
        schema=BOOKS_SCHEMA,
    )
