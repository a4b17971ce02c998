# mypy: disable-error-code="untyped-decorator"
"""The compiled book: applies level changes to a book held in flat arrays, and reads the best levels off it.

A side is a hash table from price to size (exact: the key is the double's bits, so no tick size is needed) and a window
of the best prices. Changing the size of a level touches the table alone; a level that appears or vanishes touches the
window only when it lies within. So the cost of a change does not depend on how deep the book is. Importing this module
loads Numba; compiled code is cached on disk.

Arrays of a side: `keys` int64 (bits of the price, 0 = free slot), `sizes` float64 (0 = level gone, slot kept), `window`
float64 (sign x price, ascending, so the best comes first), `meta` int64: slots used, live levels, window length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from depthvault.book.events import Floats, Integers, Levels

BID, ASK = -1.0, 1.0
USED, LIVE, SEEN = 0, 1, 2


class Side(NamedTuple):
    """The arrays of one side; `sign` is BID or ASK."""

    keys: Integers
    sizes: Floats
    window: Floats
    meta: Integers
    sign: float


@njit(cache=True, inline="always")
def _slot(keys: Any, bits: Any) -> Any:
    """Where `bits` is, or where it would go."""
    mask = keys.size - 1
    mixed = np.uint64(bits) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(mixed >> np.uint64(32)) & mask
    while keys[slot] != 0 and keys[slot] != bits:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, inline="always")
def _place(window: Any, length: Any, ranked: Any) -> Any:
    """The first position of `window[:length]` whose value is not below `ranked`."""
    low, high = 0, length
    while low < high:
        middle = (low + high) >> 1
        if window[middle] < ranked:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def _appear(window: Any, meta: Any, ranked: Any) -> None:
    """A level appeared; `meta[LIVE]` does not count it yet. The window goes on holding exactly the best levels."""
    length = meta[SEEN]
    complete = length == meta[LIVE]
    if length > 0 and ranked < window[length - 1]:
        at = _place(window, length, ranked)
        last = length if length < window.size else length - 1
        for i in range(last, at, -1):
            window[i] = window[i - 1]
        window[at] = ranked
        meta[SEEN] = last + 1
    elif complete and length < window.size:
        window[length] = ranked
        meta[SEEN] = length + 1


@njit(cache=True)
def _vanish(window: Any, meta: Any, ranked: Any) -> None:
    """A level vanished."""
    length = meta[SEEN]
    if length > 0 and ranked <= window[length - 1]:
        at = _place(window, length, ranked)
        for i in range(at, length - 1):
            window[i] = window[i + 1]
        meta[SEEN] = length - 1


@njit(cache=True)
def _apply(keys: Any, sizes: Any, window: Any, meta: Any, sign: Any, bits: Any, prices: Any, values: Any,
           first: Any, last: Any) -> None:  # fmt: skip
    for i in range(first, last):
        slot = _slot(keys, bits[i])
        size = values[i]
        if keys[slot] == 0:
            if size == 0.0:
                continue  # removing a level that one does not have is normal
            keys[slot] = bits[i]
            meta[USED] += 1
        before = sizes[slot]
        sizes[slot] = size
        if before == 0.0:
            if size != 0.0:
                _appear(window, meta, sign * prices[i])
                meta[LIVE] += 1
        elif size == 0.0:
            meta[LIVE] -= 1
            _vanish(window, meta, sign * prices[i])


@njit(cache=True)
def _refill(keys: Any, sizes: Any, window: Any, meta: Any, sign: Any, prices: Any) -> None:
    """Fill the window anew from the table. `prices` is the table's keys as doubles."""
    length = 0
    room = window.size
    for slot in range(keys.size):
        if sizes[slot] != 0.0:
            ranked = sign * prices[slot]
            if length < room or ranked < window[length - 1]:
                at = _place(window, length, ranked)
                last = length if length < room else length - 1
                for i in range(last, at, -1):
                    window[i] = window[i - 1]
                window[at] = ranked
                length = last + 1
    meta[SEEN] = length


@njit(cache=True)
def _rehash(keys: Any, sizes: Any, new_keys: Any, new_sizes: Any) -> Any:
    used = 0
    for slot in range(keys.size):
        if sizes[slot] != 0.0:
            at = _slot(new_keys, keys[slot])
            new_keys[at] = keys[slot]
            new_sizes[at] = sizes[slot]
            used += 1
    return used


@njit(cache=True)
def _best(keys: Any, sizes: Any, window: Any, meta: Any, sign: Any, table: Any, depth: Any, out_prices: Any,
          out_sizes: Any, ranked_bits: Any, ranked: Any) -> Any:  # fmt: skip
    """Write the best `depth` levels; returns how many there are. `ranked` is one double, `ranked_bits` its bits."""
    if meta[SEEN] < min(depth, meta[LIVE]):
        _refill(keys, sizes, window, meta, sign, table)
    count = min(depth, meta[SEEN])
    for i in range(count):
        ranked[0] = sign * window[i]
        out_prices[i] = ranked[0]
        out_sizes[i] = sizes[_slot(keys, ranked_bits[0])]
    return count


@njit(cache=True)
def _advance(b: Any, a: Any, bid: Any, ask: Any, times: Any, row: Any, stop: Any, until: Any) -> Any:
    """Apply rows from `row` on while they lie before `stop` and their time is at most `until`.

    Stops early before a row for which a table has no room. Returns the next row.
    """
    bk, bs, bw, bm, bsign = b
    ak, az, aw, am, asign = a
    b_offsets, b_bits, b_prices, b_sizes = bid
    a_offsets, a_bits, a_prices, a_sizes = ask
    b_room = bk.size * 5 // 8
    a_room = ak.size * 5 // 8
    while row < stop and times[row] <= until:
        b_first, b_last = b_offsets[row], b_offsets[row + 1]
        a_first, a_last = a_offsets[row], a_offsets[row + 1]
        if bm[USED] + b_last - b_first > b_room or am[USED] + a_last - a_first > a_room:
            break
        _apply(bk, bs, bw, bm, bsign, b_bits, b_prices, b_sizes, b_first, b_last)
        _apply(ak, az, aw, am, asign, a_bits, a_prices, a_sizes, a_first, a_last)
        row += 1
    return row


@njit(cache=True)
def _sample(b: Any, a: Any, bid: Any, ask: Any, times: Any, row: Any, stop: Any, final: Any, moments: Any, at: Any,
            end: Any, depth: Any, tables: Any, out: Any, counts: Any, rows: Any, scratch: Any) -> Any:  # fmt: skip
    """Walk rows and moments together: at each moment write the best levels that rows up to it make.

    `final`: no rows follow `stop`. Returns the next row and moment, earlier ones when more rows or room is needed.
    """
    out_bp, out_bs, out_ap, out_as = out
    ranked, ranked_bits = scratch
    while at < end:
        row = _advance(b, a, bid, ask, times, row, stop, moments[at])
        if row < stop:
            if times[row] <= moments[at]:
                break  # no room
        elif not final:
            break
        counts[at, 0] = _best(
            b[0], b[1], b[2], b[3], b[4], tables[0], depth, out_bp[at], out_bs[at], ranked_bits, ranked
        )
        counts[at, 1] = _best(
            a[0], a[1], a[2], a[3], a[4], tables[1], depth, out_ap[at], out_as[at], ranked_bits, ranked
        )
        rows[at] = row
        at += 1
    return row, at


def new_side(sign: float, window: int, slots: int = 1 << 12) -> Side:
    """An empty side whose window holds `window` levels; `slots` is a power of two."""
    meta = np.zeros(3, np.int64)
    return Side(np.zeros(slots, np.int64), np.zeros(slots), np.empty(window), meta, sign)


def grown(side: Side, incoming: int) -> Side:
    """`side` in a table with room for `incoming` more prices; slots of vanished levels are freed."""
    slots = side.keys.size
    while (int(side.meta[LIVE]) + incoming) * 2 > slots * 5 // 8:
        slots *= 2
    keys, sizes = np.zeros(slots, np.int64), np.zeros(slots)
    meta = side.meta.copy()
    meta[USED] = _rehash(side.keys, side.sizes, keys, sizes)
    return Side(keys, sizes, side.window, meta, side.sign)


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
        self._window = max(64, 4 * depth)
        self.clear()

    def clear(self) -> None:
        """Forget all levels."""
        self._bid, self._ask = new_side(BID, self._window), new_side(ASK, self._window)

    def _make_room(self, bid: Levels, ask: Levels, row: int) -> None:
        self._bid = grown(self._bid, int(bid.offsets[row + 1] - bid.offsets[row]))
        self._ask = grown(self._ask, int(ask.offsets[row + 1] - ask.offsets[row]))

    def apply(self, bid: Levels, ask: Levels, first: int, last: int) -> None:
        """Apply events `first` to `last` (excluded), each wholly."""
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
        views = _viewed(bid), _viewed(ask)
        scratch = np.empty(1)
        out = into[:4]
        depth = into.bid_prices.shape[1]
        row, stop = first, times.size
        while at < moments.size:
            tables = self._bid.keys.view(np.float64), self._ask.keys.view(np.float64)
            row, at = _sample(
                self._bid, self._ask, *views, times, row, stop, final, moments, at, moments.size, depth, tables, out,
                into.counts, into.rows, (scratch, scratch.view(np.int64)),
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
