# mypy: disable-error-code="untyped-decorator"
"""The compiled book: applies level changes to a book held in flat arrays, and reads the best levels off it.

A side is a hash table from price to size (exact: the key is the double's bits, so no tick size is needed) and a list of
the slots whose price is at least as good as a threshold. A change costs one look into the table, and an entry in the
list when a level appears near the top; levels that vanished are swept from the list when the best are asked for, and
the threshold is set anew when too few or too many are left. So nothing costs more in a deeper book but a sweep over the
table now and then. Importing this module loads Numba; compiled code is cached on disk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from depthvault.book.events import Flags, Floats, Integers, Levels

BID, ASK = -1.0, 1.0
USED, LIVE, NEAR = 0, 1, 2
FREE = -1
RELISTED = 8


class Side(NamedTuple):
    """The arrays of one side, as the compiled functions take them.

    keys: bits of the price, FREE (a NaN) = free slot. sizes: by slot, 0 = level gone, slot kept. listed: by slot,
    whether it stands in `near`. near: the slots of all levels whose `sign` x price is at most `threshold[0]`, in no
    order, with vanished ones among them. meta: slots used, live levels, length of `near`. sign: BID or ASK.
    scale: ticks that make one unit of price, about.
    """

    keys: Integers
    sizes: Floats
    listed: Flags
    near: Integers
    threshold: Floats
    meta: Integers
    sign: float
    scale: float


@njit(cache=True, inline="always")
def _slot(keys: Any, bits: Any, price: Any, scale: Any) -> Any:
    """Where `bits` is, or where it would go. Prices of neighbouring ticks lie side by side, so that the part of the
    table around the best prices stays in the cache; where two meet, the second goes elsewhere by its hash."""
    mask = keys.size - 1
    slot = np.int64(price * scale + 0.5) & mask
    if keys[slot] == FREE or keys[slot] == bits:
        return slot
    mixed = np.uint64(bits) * np.uint64(0x9E3779B97F4A7C15)
    step = (np.int64(mixed >> np.uint64(33)) | 1) & mask
    while keys[slot] != FREE and keys[slot] != bits:
        slot = (slot + step) & mask
    return slot


@njit(cache=True)
def _forget_near(listed: Any, near: Any, threshold: Any, meta: Any) -> None:
    for i in range(meta[NEAR]):
        listed[near[i]] = False
    meta[NEAR] = 0
    threshold[0] = -np.inf


@njit(cache=True)
def _sweep(sizes: Any, listed: Any, near: Any, meta: Any) -> None:
    """Drop vanished levels from `near`."""
    kept = 0
    for i in range(meta[NEAR]):
        slot = near[i]
        if sizes[slot] == 0.0:
            listed[slot] = False
        else:
            near[kept] = slot
            kept += 1
    meta[NEAR] = kept


@njit(cache=True)
def _apply(side: Any, bits: Any, prices: Any, values: Any, first: Any, last: Any) -> None:
    keys, sizes, listed, near, threshold, meta, sign, scale = side
    for i in range(first, last):
        slot = _slot(keys, bits[i], prices[i], scale)
        size = values[i]
        if keys[slot] == FREE:
            if size == 0.0:
                continue  # removing a level that one does not have is normal
            keys[slot] = bits[i]
            meta[USED] += 1
        before = sizes[slot]
        sizes[slot] = size
        if before == 0.0:
            if size != 0.0:
                meta[LIVE] += 1
                if sign * prices[i] <= threshold[0] and not listed[slot]:
                    if meta[NEAR] == near.size:
                        _sweep(sizes, listed, near, meta)
                    if meta[NEAR] == near.size:
                        _forget_near(listed, near, threshold, meta)
                    else:
                        listed[slot] = True
                        near[meta[NEAR]] = slot
                        meta[NEAR] += 1
        elif size == 0.0:
            meta[LIVE] -= 1


@njit(cache=True, inline="always")
def _insert(ranked: Any, best: Any, slots: Any, count: Any, value: Any, slot: Any) -> Any:
    """Put `value` into the ascending `ranked[:count]`, which keeps its best `best`. Returns the new length."""
    if count == best:
        if value >= ranked[count - 1]:
            return count
        count -= 1
    at = count
    while at > 0 and ranked[at - 1] > value:
        ranked[at] = ranked[at - 1]
        slots[at] = slots[at - 1]
        at -= 1
    ranked[at] = value
    slots[at] = slot
    return count + 1


@njit(cache=True)
def _list_anew(side: Any, prices: Any, ranked: Any, slots: Any) -> None:
    """List the best levels of the table, an eighth of what `near` holds. `prices`: the table's keys as doubles."""
    keys, sizes, listed, near, threshold, meta, sign, _ = side
    _forget_near(listed, near, threshold, meta)
    best = near.size // RELISTED
    count = 0
    for slot in range(keys.size):
        if sizes[slot] != 0.0:
            count = _insert(ranked, best, slots, count, sign * prices[slot], slot)
    for i in range(count):
        near[i] = slots[i]
        listed[slots[i]] = True
    meta[NEAR] = count
    threshold[0] = np.inf if count == meta[LIVE] else ranked[count - 1]


@njit(cache=True)
def _best(side: Any, prices: Any, depth: Any, ranked: Any, slots: Any, out_prices: Any, out_sizes: Any) -> Any:
    """Write the best `depth` levels; returns how many there are."""
    _, sizes, listed, near, _, meta, sign, _ = side
    for attempt in range(2):
        _sweep(sizes, listed, near, meta)
        count = 0
        for i in range(meta[NEAR]):
            count = _insert(ranked, depth, slots, count, sign * prices[near[i]], near[i])
        if attempt == 1 or count == min(depth, meta[LIVE]):
            break
        _list_anew(side, prices, ranked, slots)
    for i in range(count):
        out_prices[i] = prices[slots[i]]
        out_sizes[i] = sizes[slots[i]]
    return count


@njit(cache=True)
def _rehash(keys: Any, sizes: Any, prices: Any, new_keys: Any, new_sizes: Any, scale: Any) -> Any:
    used = 0
    for slot in range(keys.size):
        if sizes[slot] != 0.0:
            at = _slot(new_keys, keys[slot], prices[slot], scale)
            new_keys[at] = keys[slot]
            new_sizes[at] = sizes[slot]
            used += 1
    return used


@njit(cache=True)
def _advance(bids: Any, asks: Any, bid: Any, ask: Any, times: Any, row: Any, stop: Any, until: Any) -> Any:
    """Apply rows from `row` on while they lie before `stop` and their time is at most `until`.

    Stops early before a row for which a table has no room. Returns the next row.
    """
    b_offsets, b_bits, b_prices, b_sizes = bid
    a_offsets, a_bits, a_prices, a_sizes = ask
    b_room = bids[0].size * 5 // 8
    a_room = asks[0].size * 5 // 8
    while row < stop and times[row] <= until:
        b_first, b_last = b_offsets[row], b_offsets[row + 1]
        a_first, a_last = a_offsets[row], a_offsets[row + 1]
        if bids[5][USED] + b_last - b_first > b_room or asks[5][USED] + a_last - a_first > a_room:
            break
        _apply(bids, b_bits, b_prices, b_sizes, b_first, b_last)
        _apply(asks, a_bits, a_prices, a_sizes, a_first, a_last)
        row += 1
    return row


@njit(cache=True)
def _sample(bids: Any, asks: Any, bid: Any, ask: Any, times: Any, row: Any, stop: Any, final: Any, moments: Any,
            at: Any, depth: Any, tables: Any, scratch: Any, out: Any, counts: Any, rows: Any) -> Any:  # fmt: skip
    """Walk rows and moments together: at each moment write the best levels that rows up to it make.

    final: no rows follow `stop`. Returns the next row and moment, earlier ones when more rows or room is needed.
    """
    out_bid_prices, out_bid_sizes, out_ask_prices, out_ask_sizes = out
    ranked, slots = scratch
    while at < moments.size:
        row = _advance(bids, asks, bid, ask, times, row, stop, moments[at])
        if row < stop:
            if times[row] <= moments[at]:
                break  # no room
        elif not final:
            break
        counts[at, 0] = _best(bids, tables[0], depth, ranked, slots, out_bid_prices[at], out_bid_sizes[at])
        counts[at, 1] = _best(asks, tables[1], depth, ranked, slots, out_ask_prices[at], out_ask_sizes[at])
        rows[at] = row
        at += 1
    return row, at


def new_side(sign: float, near: int, slots: int = 1 << 12, scale: float = 1.0) -> Side:
    """An empty side that lists up to `near` levels; `slots` is a power of two."""
    return Side(
        np.full(slots, FREE, np.int64), np.zeros(slots), np.zeros(slots, np.bool_), np.zeros(near, np.int64),
        np.array([np.inf]), np.zeros(3, np.int64), sign, scale,
    )  # fmt: skip


def grown(side: Side, incoming: int) -> Side:
    """`side` in a table with room for `incoming` more prices; slots of vanished levels are freed."""
    slots = side.keys.size
    while (int(side.meta[LIVE]) + incoming) * 2 > slots * 5 // 8:
        slots *= 2
    larger = new_side(side.sign, side.near.size, slots, side.scale)
    larger.threshold[0] = -np.inf  # nothing is listed, so that the best are sought anew
    larger.meta[:] = (
        _rehash(side.keys, side.sizes, side.keys.view(np.float64), larger.keys, larger.sizes, side.scale),
        side.meta[LIVE],
        0,
    )
    return larger


def _viewed(levels: Levels) -> tuple[Integers, Integers, Floats, Floats]:
    return levels.offsets, levels.prices.view(np.int64), levels.prices, levels.sizes


class Samples(NamedTuple):
    """Best levels at many moments, arrays of shape [moments, depth]; `counts` [moments, 2] says how many are filled.

    rows: how many events had been applied by each moment.
    """

    bid_prices: Floats
    bid_sizes: Floats
    ask_prices: Floats
    ask_sizes: Floats
    counts: Integers
    rows: Integers


class Kernel:
    """A book in compiled form. Not safe to use from two threads at once."""

    def __init__(self, depth: int = 20) -> None:
        self._near = max(512, 3 * RELISTED * depth)
        self._scratch = np.empty(self._near), np.empty(self._near, np.int64)
        self.clear()

    def clear(self) -> None:
        """Forget all levels."""
        self._bid, self._ask = new_side(BID, self._near), new_side(ASK, self._near)
        self._scaled = False

    def _scale(self, bid: Levels, ask: Levels) -> None:
        """Learn from the first prices how fine their ticks are. That decides where prices lie, not what the book is."""
        prices = np.concatenate((bid.prices[:256], ask.prices[:256]))
        if not self._scaled and prices.size:
            scale = next(
                (10.0**d for d in range(9) if np.all(np.abs(np.rint(prices * 10**d) / 10**d - prices) < 1e-12)), 1.0
            )
            self._bid, self._ask = self._bid._replace(scale=scale), self._ask._replace(scale=scale)
            self._scaled = True

    def _make_room(self, bid: Levels, ask: Levels, row: int) -> None:
        self._bid = grown(self._bid, int(bid.offsets[row + 1] - bid.offsets[row]))
        self._ask = grown(self._ask, int(ask.offsets[row + 1] - ask.offsets[row]))

    def apply(self, bid: Levels, ask: Levels, first: int, last: int) -> None:
        """Apply events `first` to `last` (excluded), each wholly."""
        self._scale(bid, ask)
        times = np.zeros(last, np.int64)
        row = first
        views = _viewed(bid), _viewed(ask)
        while row < last:
            row = _advance(self._bid, self._ask, *views, times, row, last, 0)
            if row < last:
                self._make_room(bid, ask, row)

    def sample(self, bid: Levels, ask: Levels, times: Integers, first: int, moments: Integers, into: Samples,
               at: int, *, final: bool) -> tuple[int, int]:  # fmt: skip
        """Apply events from `first` on, and at each of `moments` from `at` on write the book of the events until then.

        times: when each event counts, never falling. final: no events follow these, so that all moments are answered.
        Returns the next event and the next moment.
        """
        self._scale(bid, ask)
        views = _viewed(bid), _viewed(ask)
        out = into[:4]
        depth = into.bid_prices.shape[1]
        row, stop = first, times.size
        while at < moments.size:
            tables = self._bid.keys.view(np.float64), self._ask.keys.view(np.float64)
            row, at = _sample(
                self._bid, self._ask, *views, times, row, stop, final, moments, at, depth, tables, self._scratch,
                out, into.counts, into.rows,
            )  # fmt: skip
            if row == stop:
                break
            if at < moments.size:
                self._make_room(bid, ask, row)
        return row, at

    def side(self, sign: float, depth: int | None = None) -> tuple[Floats, Floats]:
        """Prices and sizes of a side, best first: all levels, or the best `depth`."""
        side = self._bid if sign == BID else self._ask
        live = side.sizes != 0.0
        prices, sizes = side.keys[live].view(np.float64), side.sizes[live]
        order = np.argsort(sign * prices)[:depth]
        return prices[order], sizes[order]


def samples(moments: int, depth: int) -> Samples:
    """Room for the best `depth` levels at `moments` moments."""
    bid_prices, bid_sizes, ask_prices, ask_sizes = (np.full((moments, depth), np.nan) for _ in range(4))
    counts, rows = np.zeros((moments, 2), np.int64), np.zeros(moments, np.int64)
    return Samples(bid_prices, bid_sizes, ask_prices, ask_sizes, counts, rows)
