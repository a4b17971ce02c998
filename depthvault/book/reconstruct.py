"""Books of the past, with their provenance: which snapshot they start from, what was applied, what can be trusted.

`book` is the state at one moment, `books` the best levels at many. Both count an event when it and all events before it
in the chain had been received. A break in the chain is never hidden: the state after it says `gap_crossed`, until the
next snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from depthvault.book.events import (
    Chain,
    Flags,
    Floats,
    Integers,
    Levels,
    Snapshot,
    breaks,
    chain_of,
    levels_of,
    state_hash,
)
from depthvault.clock import datetime_from_ns, ns_from_datetime
from depthvault.errors import ArchiveError, UsageError

if TYPE_CHECKING:
    from depthvault.book.kernel import Samples

_LOOKBACKS = (timedelta(minutes=10), timedelta(hours=3), timedelta(hours=30), timedelta(days=370))
_AHEAD = timedelta(minutes=2)
"""How much earlier than the snapshot's receipt its first diff may have been received: the fetch takes its time."""
_LEVEL_COLUMNS = "bid_prices, bid_sizes, ask_prices, ask_sizes"
_CHAIN_COLUMNS = "received_time, first_update_id, final_update_id, prev_final_update_id, is_snapshot, epoch"


class Archive(Protocol):
    """What a replay reads from."""

    def arrow(self, query: str) -> pa.RecordBatchReader:
        """The answer of one statement."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a book comes from.

    snapshot_*: what it starts from. diffs_applied: events after it. gap_crossed: events are missing on the way, so the
    levels cannot be trusted; `first_gap` is the (last id before, first id after) of the first break. bid_low, ask_high:
    the prices down and up to which the snapshot was complete; levels beyond are known only as far as they changed since
    (None: complete all the way). last_update_id, last_received: the last event in it.
    """

    snapshot_channel: str
    snapshot_update_id: int
    snapshot_received: datetime
    diffs_applied: int
    last_update_id: int
    last_received: datetime
    gap_crossed: bool
    first_gap: tuple[int, int] | None
    bid_low: float | None
    ask_high: float | None
    state_hash: str


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """A whole book at one moment: all known levels, best first, as arrays of doubles."""

    exchange: str
    symbol: str
    at: datetime
    bid_prices: Floats
    bid_sizes: Floats
    ask_prices: Floats
    ask_sizes: Floats
    provenance: Provenance

    @property
    def best_bid(self) -> float | None:
        return float(self.bid_prices[0]) if self.bid_prices.size else None

    @property
    def best_ask(self) -> float | None:
        return float(self.ask_prices[0]) if self.ask_prices.size else None

    @property
    def mid_price(self) -> float | None:
        """Halfway between the best prices; None when a side is empty."""
        return None if self.best_bid is None or self.best_ask is None else (self.best_bid + self.best_ask) / 2

    @property
    def spread(self) -> float | None:
        """Best ask less best bid; None when a side is empty."""
        return None if self.best_bid is None or self.best_ask is None else self.best_ask - self.best_bid

    def bids(self, depth: int | None = None) -> list[tuple[float, float]]:
        """Price and size from the best bid down."""
        return list(zip(self.bid_prices[:depth].tolist(), self.bid_sizes[:depth].tolist(), strict=True))

    def asks(self, depth: int | None = None) -> list[tuple[float, float]]:
        """Price and size from the best ask up."""
        return list(zip(self.ask_prices[:depth].tolist(), self.ask_sizes[:depth].tolist(), strict=True))


def _literal(microseconds: int) -> str:
    return f"make_timestamptz({microseconds})"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _micros(value: datetime) -> int:
    return ns_from_datetime(value) // 1000


def _of(exchange: str, symbol: str) -> str:
    return f"exchange = {_text(exchange)} AND symbol = {_text(symbol)}"


def _between(low: int, high: int) -> str:
    return f"received_time >= {_literal(low)} AND received_time <= {_literal(high)}"


def _seeds(exchange: str, symbol: str, low: int, high: int) -> str:
    """All snapshots received in [low, high], both kinds."""
    where = f"{_of(exchange, symbol)} AND {_between(low, high)}"
    return (
        f"SELECT 'depth_snapshot' AS channel, received_time, last_update_id AS update_id, \"limit\", {_LEVEL_COLUMNS} "
        f"FROM depth_snapshot WHERE {where} UNION ALL "
        f"SELECT 'depth_diff', received_time, final_update_id, NULL::INTEGER, {_LEVEL_COLUMNS} "
        f"FROM depth_diff WHERE is_snapshot AND {where}"
    )


def _snapshot(rows: pa.Table) -> Snapshot | None:
    if rows.num_rows == 0:
        return None
    row = rows.slice(0, 1)
    limit = row.column("limit")[0].as_py()

    def numbers(name: str) -> Floats:
        values: Floats = row.column(name).chunk(0).flatten().to_numpy()
        return values

    return Snapshot(
        channel=row.column("channel")[0].as_py(),
        update_id=row.column("update_id")[0].as_py(),
        received=row.column("received_time").cast(pa.int64())[0].as_py(),
        limit=limit,
        bid_prices=numbers("bid_prices"),
        bid_sizes=numbers("bid_sizes"),
        ask_prices=numbers("ask_prices"),
        ask_sizes=numbers("ask_sizes"),
    )


def _latest(archive: Archive, exchange: str, symbol: str, at: int) -> Snapshot | None:
    """The newest snapshot received by `at`, sought further and further back."""
    high = at
    for lookback in _LOOKBACKS:
        low = at - round(lookback.total_seconds() * 1e6)
        query = (
            f"SELECT * FROM ({_seeds(exchange, symbol, low, high)}) ORDER BY received_time DESC, update_id DESC LIMIT 1"
        )
        if (found := _snapshot(archive.arrow(query).read_all())) is not None:
            return found
        high = low
    return None


def _next(archive: Archive, exchange: str, symbol: str, low: int, high: int) -> Snapshot | None:
    """The first snapshot received in [low, high]."""
    query = f"SELECT * FROM ({_seeds(exchange, symbol, low, high)}) ORDER BY received_time, update_id LIMIT 1"
    return _snapshot(archive.arrow(query).read_all())


def _diffs(exchange: str, symbol: str, seed: Snapshot, until: int, columns: str) -> str:
    """The events after `seed` received by `until`, in chain order."""
    low = seed.received - round(_AHEAD.total_seconds() * 1e6)
    return (
        f"SELECT {columns} FROM depth_diff WHERE {_of(exchange, symbol)} AND {_between(low, until)} "
        f"AND NOT is_snapshot AND final_update_id > {seed.update_id} ORDER BY epoch, final_update_id"
    )


def book(archive: Archive, exchange: str, symbol: str, at: datetime, seed: Snapshot | None = None) -> Book:
    """The book as it was known at `at`: the newest snapshot received by then, and every later event received by then.

    `seed`: start from this snapshot instead. Raises ArchiveError when there is no snapshot to start from.
    """
    from depthvault.book.kernel import ASK, BID, Kernel

    moment = _micros(at)
    seed = seed or _latest(archive, exchange, symbol, moment)
    if seed is None:
        raise ArchiveError(f"{exchange} {symbol}: no snapshot of its book was received by {at:%Y-%m-%d %H:%M:%S}")
    kernel = Kernel()
    kernel.apply(*seed.levels(), 0, 1)
    applied, last_id, last_received, gap = 0, seed.update_id, seed.received, None
    epoch = None
    for batch in archive.arrow(_diffs(exchange, symbol, seed, moment, f"{_CHAIN_COLUMNS}, {_LEVEL_COLUMNS}")):
        if batch.num_rows == 0:
            continue
        chain = chain_of(batch)
        if gap is None:
            broken = breaks(chain, last_id)
            if epoch is not None and chain.epoch[0] != epoch:
                broken = np.concatenate(([0], broken))
            if broken.size:
                row = int(broken[0])
                gap = (int(chain.final[row - 1]) if row else last_id, int(chain.prev[row]) + 1)
        kernel.apply(levels_of(batch, "bid"), levels_of(batch, "ask"), 0, batch.num_rows)
        applied += batch.num_rows
        last_id, epoch = int(chain.final[-1]), int(chain.epoch[-1])
        last_received = max(last_received, int(chain.received.max()))
    (bid_prices, bid_sizes), (ask_prices, ask_sizes) = kernel.side(BID), kernel.side(ASK)
    provenance = Provenance(
        snapshot_channel=seed.channel,
        snapshot_update_id=seed.update_id,
        snapshot_received=datetime_from_ns(seed.received * 1000),
        diffs_applied=applied,
        last_update_id=last_id,
        last_received=datetime_from_ns(last_received * 1000),
        gap_crossed=gap is not None,
        first_gap=gap,
        bid_low=seed.bid_low,
        ask_high=seed.ask_high,
        state_hash=state_hash(bid_prices, bid_sizes, ask_prices, ask_sizes),
    )
    return Book(exchange, symbol, at, bid_prices, bid_sizes, ask_prices, ask_sizes, provenance)


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


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Moments that one snapshot answers: from `first` to `last` (excluded). `broken`: µs from which events miss."""

    seed: Snapshot | None
    first: int
    last: int
    broken: int | None = None


def _stretches(archive: Archive, exchange: str, symbol: str, moments: Integers) -> Iterator[_Stretch]:
    """Which snapshot answers which moments: the newest one at the start, and another one only where the chain breaks
    or the venue itself sent the book anew."""
    end = int(moments[-1])
    seed = _latest(archive, exchange, symbol, int(moments[0])) or _next(archive, exchange, symbol, int(moments[0]), end)
    if seed is None:
        yield _Stretch(None, 0, moments.size)
        return
    first = int(np.searchsorted(moments, seed.received))
    if first:
        yield _Stretch(None, 0, first)
    while seed is not None and first < moments.size:
        broken = _first_break(archive, exchange, symbol, seed, end)
        following = _following(archive, exchange, symbol, seed, broken, end)
        last = moments.size if following is None else int(np.searchsorted(moments, following.received))
        if last > first:
            yield _Stretch(seed, first, last, broken)
        seed, first = following, max(first, last)


def _first_break(archive: Archive, exchange: str, symbol: str, seed: Snapshot, end: int) -> int | None:
    """When the first event after a hole in the chain that begins at `seed` was received."""
    last_id, epoch = seed.update_id, None
    for batch in archive.arrow(_diffs(exchange, symbol, seed, end, _CHAIN_COLUMNS)):
        if batch.num_rows == 0:
            continue
        chain = chain_of(batch)
        if epoch is not None and int(chain.epoch[0]) != epoch:
            return int(chain.received[0])
        if (broken := breaks(chain, last_id)).size:
            return int(chain.received[broken[0]])
        last_id, epoch = int(chain.final[-1]), int(chain.epoch[-1])
    return None


def _following(
    archive: Archive, exchange: str, symbol: str, seed: Snapshot, broken: int | None, end: int
) -> Snapshot | None:
    """The snapshot that takes over from `seed`: the next one in the stream, or any after a break."""
    where = f"{_of(exchange, symbol)} AND {_between(seed.received + 1, end)}"
    rows = archive.arrow(
        f"SELECT received_time FROM depth_diff WHERE is_snapshot AND {where} ORDER BY received_time LIMIT 1"
    ).read_all()
    in_band = rows.column(0).cast(pa.int64())[0].as_py() if rows.num_rows else None
    if broken is None:
        return None if in_band is None else _next(archive, exchange, symbol, in_band, in_band)
    low = max(seed.received + 1, broken if in_band is None else min(broken, in_band))
    return _next(archive, exchange, symbol, low, end)


def books(
    archive: Archive, exchange: str, symbol: str, start: datetime, end: datetime, every: timedelta, depth: int
) -> pa.RecordBatchReader:
    """The best `depth` levels at `start`, `start + every`, … before `end`, as Arrow batches with `BOOKS_SCHEMA`.

    Raises UsageError for a span, step or depth that makes no sense.
    """
    step = round(every.total_seconds() * 1e6)
    if step <= 0 or depth <= 0 or end <= start:
        raise UsageError("books need start < end, every > 0 and depth > 0")
    moments = np.arange(_micros(start), _micros(end), step, dtype=np.int64)

    def batches() -> Iterator[pa.RecordBatch]:
        for stretch in _stretches(archive, exchange, symbol, moments):
            if stretch.seed is None:
                yield _unseeded(moments[stretch.first : stretch.last])
            else:
                yield from _walk(archive, exchange, symbol, stretch, stretch.seed, moments, depth)

    return pa.RecordBatchReader.from_batches(BOOKS_SCHEMA, batches())


def _unseeded(moments: Integers) -> pa.RecordBatch:
    times = pa.array(moments).cast(BOOKS_SCHEMA.field("time").type)
    nulls = [pa.nulls(moments.size, field.type) for field in BOOKS_SCHEMA][1:]
    return pa.record_batch([times, *nulls], schema=BOOKS_SCHEMA)


_MOMENTS_AT_ONCE = 8192


def _walk(
    archive: Archive, exchange: str, symbol: str, stretch: _Stretch, seed: Snapshot, moments: Integers, depth: int
) -> Iterator[pa.RecordBatch]:
    from depthvault.book.kernel import Kernel, samples

    kernel = Kernel(depth)
    kernel.apply(*seed.levels(), 0, 1)
    until = int(moments[stretch.last - 1])
    reader = iter(archive.arrow(_diffs(exchange, symbol, seed, until, f"{_CHAIN_COLUMNS}, {_LEVEL_COLUMNS}")))
    last_id, received = seed.update_id, seed.received
    batch = next(reader, None)
    chain, counted, row = _counted(batch, received)
    for low in range(stretch.first, stretch.last, _MOMENTS_AT_ONCE):
        asked = moments[low : min(low + _MOMENTS_AT_ONCE, stretch.last)]
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
