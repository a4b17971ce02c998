"""The compiled book: applies level changes to a book held in flat arrays, and reads the best levels off it.

Each side is a ladder of ticks with a table for what has no place on it (`ladder`). Where the ladder lies and how fine
it is, is learnt from the prices that come, and learnt anew when too many of them have no place: that decides how fast
the book is, never what it is. Importing this module loads Numba; compiled code is cached on disk.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from depthvault.book import ladder
from depthvault.book.events import Floats, Integers, Levels
from depthvault.book.ladder import ASK, AT, BID, BLOCK, CREDIT, LIVE, PATIENCE, PIECE, READY, USED, WAITING, Side

__all__ = ["ASK", "BID", "Kernel", "Samples", "samples"]

Offsets = npt.NDArray[np.int32]

_FEWEST_SLOTS, _MOST_SLOTS = 1 << 15, 1 << 20
_DECIMALS = 13
_ENOUGH = 0.98
"""What share of the prices that come a ladder should hold."""
_SEEN, _FEW_SEEN = 1024, 256
"""How many of them are looked at; when fewer come, the book's own prices are as well."""
_SMALLEST_TABLE = 1 << 10
_NEVER = np.empty(0, np.int64)
_NOWHERE = np.empty(0), np.empty(0), np.empty(0, np.int32)
_UNRANKED = np.empty(0), np.empty(0, np.int64)


class Fit(NamedTuple):
    """Where a ladder lies: ticks in one unit of price, `sign` x tick of slot 0, and how many slots there are."""

    scale: float
    base: float
    slots: int

    def strays(self, sign: float, prices: Floats) -> int:
        """How many of `prices` have no place on it."""
        with np.errstate(over="ignore", invalid="ignore"):
            ticks = np.rint(prices * self.scale)
            slots = sign * ticks - self.base
            placed = (ticks / self.scale == prices) & (slots >= 0) & (slots < self.slots)
        return prices.size - int(np.count_nonzero(placed))


def fitted(sign: float, prices: Floats) -> Fit:
    """The coarsest grid and shortest ladder that hold nearly all of `prices` (else the most), with as much room again.

    A quarter of the ladder lies on the better side of their median: books reach further away from the market.
    """
    best, most = Fit(1.0, np.inf, BLOCK), 0
    for decimals in range(_DECIMALS):
        scale = 10.0**decimals
        with np.errstate(over="ignore", invalid="ignore"):
            ticks = np.rint(prices * scale)
            ticks = sign * ticks[(ticks / scale == prices) & (np.abs(ticks) < 2.0**53)]
        if ticks.size <= most:
            continue
        middle = np.floor(np.median(ticks))
        away = ticks - middle
        needed = np.sort(np.maximum(away * -4.0, away * (4.0 / 3.0))) + 1.0
        slots = _FEWEST_SLOTS
        while slots < _MOST_SLOTS and np.searchsorted(needed, slots / 2, "right") < _ENOUGH * prices.size:
            slots *= 2
        fit = Fit(scale, float(middle - slots // 4), slots)
        held = prices.size - fit.strays(sign, prices)
        if held > most:
            best, most = fit, held
        if held >= _ENOUGH * prices.size:
            break
    return best


def _whole(side: Side) -> tuple[Floats, Floats]:
    """Prices and sizes of all levels, those on the ladder first, best first; then the strays."""
    prices, sizes = ladder.levels_on_ladder(side)
    live = side.values != 0.0
    return np.concatenate((prices, side.keys[live].view(np.float64))), np.concatenate((sizes, side.values[live]))


def with_room(side: Side, incoming: int) -> Side:
    """`side` with a table with room for `incoming` more strays; places of vanished ones are freed."""
    places = max(_SMALLEST_TABLE, side.keys.size)
    while (int(side.meta[LIVE]) + incoming) * 2 > places * 5 // 8:
        places *= 2
    live = side.values != 0.0
    keys, values = side.keys[live], side.values[live]
    larger = side._replace(
        keys=np.full(places, ladder.FREE, np.int64), values=np.zeros(places), listed=np.zeros(places, np.bool_)
    )
    larger.meta[[USED, LIVE, ladder.NEAR]] = 0
    # With none of them listed, the best are sought anew when they are asked for: often they are not.
    larger.limits[:] = np.inf if keys.size == 0 else -np.inf, np.inf
    ladder.set_strays(larger, np.full(keys.size, -1, np.int32), *_viewed(keys.view(np.float64), values))
    return larger


def _viewed(prices: Floats, sizes: Floats) -> tuple[Integers, Floats, Floats]:
    """Levels as compiled code takes them: as Arrow's arrays are read-only, all are, or it would be compiled twice."""
    bits, prices, sizes = views = prices.view(np.int64), prices.view(), sizes.view()
    for view in views:
        view.flags.writeable = False
    return bits, prices, sizes


def moved(side: Side, fit: Fit) -> Side:
    """The same levels on a ladder that lies as `fit` says."""
    prices, sizes = _whole(side)
    other = ladder.empty_side(side.sign, side.near.size, scale=fit.scale, base=fit.base, slots=fit.slots)
    other = with_room(other, fit.strays(side.sign, prices))
    other.meta[CREDIT] = other.meta[PATIENCE] = prices.size
    _, done = ladder.run(other, _viewed(prices, sizes), _NEVER, 0, prices.size, 0, _UNRANKED, _NOWHERE)
    assert done, "there is room and credit for all"
    return other


def relieved(side: Side, coming: Floats) -> Side:
    """`side` so that it can go on where it waits: with credit and room for the strays among the levels that come."""
    if side.meta[CREDIT] < 0:
        at, patience, waiting = int(side.meta[AT]), int(side.meta[PATIENCE]), int(side.meta[WAITING])
        seen = coming[:: max(1, coming.size // _SEEN)]
        if seen.size < _FEW_SEEN:
            seen = np.concatenate((seen, _whole(side)[0]))
        fit = fitted(side.sign, seen)
        before = Fit(side.scale, side.base, side.sizes.size).strays(side.sign, seen)
        if fit.strays(side.sign, seen) * 2 < before:
            side = moved(side, fit)
            patience = max(PIECE, int(side.meta[PATIENCE]))  # moving may cost as much as the strays before it did
        else:
            patience = max(PIECE, 4 * patience)
        side.meta[[AT, READY, CREDIT, PATIENCE, WAITING]] = at, at, patience, patience, waiting
    side = with_room(side, int(side.meta[WAITING]))
    side.meta[WAITING] = 0
    return side


class Samples(NamedTuple):
    """Best levels at many moments: those of moment `i` are `offsets[i]` to `offsets[i + 1]` of prices and sizes.

    rows: how many events had been applied by each moment.
    """

    bid_prices: Floats
    bid_sizes: Floats
    ask_prices: Floats
    ask_sizes: Floats
    bid_offsets: Offsets
    ask_offsets: Offsets
    rows: Integers
    depth: int

    def bids(self, moment: int) -> list[tuple[float, float]]:
        """Price and size from the best bid down."""
        return _pairs(self.bid_prices, self.bid_sizes, self.bid_offsets, moment)

    def asks(self, moment: int) -> list[tuple[float, float]]:
        """Price and size from the best ask up."""
        return _pairs(self.ask_prices, self.ask_sizes, self.ask_offsets, moment)


def _pairs(prices: Floats, sizes: Floats, offsets: Offsets, moment: int) -> list[tuple[float, float]]:
    part = slice(int(offsets[moment]), int(offsets[moment + 1]))
    return list(zip(prices[part].tolist(), sizes[part].tolist(), strict=True))


def samples(moments: int, depth: int) -> Samples:
    """Room for the best `depth` levels at `moments` moments."""
    # One piece of memory: the operating system hands out few large pages for it instead of many small ones.
    bid_prices, bid_sizes, ask_prices, ask_sizes = np.empty((4, moments * depth))
    bid_offsets, ask_offsets = (np.zeros(moments + 1, np.int32) for _ in range(2))
    rows = np.zeros(moments, np.int64)
    return Samples(bid_prices, bid_sizes, ask_prices, ask_sizes, bid_offsets, ask_offsets, rows, depth)


class Kernel:
    """A book in compiled form, which is asked for at most `depth` levels at a time. Not for two threads at once.

    Memory: a ladder of 256 KiB to 8 MiB a side, as far as the symbol's prices need it.
    """

    def __init__(self, depth: int = 20) -> None:
        self._depth = depth
        near = max(512, 3 * ladder.RELISTED * depth)
        self._scratch = np.empty(near), np.empty(near, np.int64)
        self._bid, self._ask = (ladder.empty_side(sign, near) for sign in (BID, ASK))

    def clear(self) -> None:
        """Forget all levels, but not where they lay: for another book of the same symbol this is quicker."""
        ladder.wipe(self._bid)
        ladder.wipe(self._ask)

    def _run(self, side: Side, levels: Levels, first: int, last: int, rows: Integers, depth: int,
             out: tuple[Floats, Floats, Offsets]) -> Side:  # fmt: skip
        """Apply events `first` to `last`; for each of `rows` write the best `depth` levels of the events before it."""
        side.meta[AT] = side.meta[READY] = levels.offsets[first]
        views = _viewed(levels.prices, levels.sizes)
        ends, end = levels.offsets[rows], int(levels.offsets[last])
        at = 0
        while True:
            at, done = ladder.run(side, views, ends, at, end, depth, self._scratch, out)
            if done:
                return side
            side = relieved(side, levels.prices[side.meta[AT] :])

    def apply(self, bid: Levels, ask: Levels, first: int, last: int) -> None:
        """Apply events `first` to `last` (excluded), each wholly."""
        self._bid = self._run(self._bid, bid, first, last, _NEVER, 0, _NOWHERE)
        self._ask = self._run(self._ask, ask, first, last, _NEVER, 0, _NOWHERE)

    def sample(self, bid: Levels, ask: Levels, times: Integers, first: int, moments: Integers, into: Samples,
               at: int, *, final: bool) -> tuple[int, int]:  # fmt: skip
        """Apply events from `first` on, and at each of `moments` from `at` on write the book of the events until then.

        times: when each event counts, never falling. final: no events follow these, so that all moments are answered.
        Returns the next event and the next moment. Raises ValueError when `into` has room for more levels than the book
        was made for.
        """
        if into.depth > self._depth:
            raise ValueError(f"a book of depth {self._depth} is asked for {into.depth} levels")
        rows = np.maximum(np.searchsorted(times, moments[at:], "right"), first)
        if not final:  # events that follow may count by the same moment
            rows = rows[: np.searchsorted(rows, times.size)]
        done = at + rows.size
        last = times.size
        if done == moments.size:
            last = int(rows[-1]) if rows.size else first
        into.rows[at:done] = rows
        out = into.bid_prices, into.bid_sizes, into.bid_offsets[at:]
        self._bid = self._run(self._bid, bid, first, last, rows, into.depth, out)
        out = into.ask_prices, into.ask_sizes, into.ask_offsets[at:]
        self._ask = self._run(self._ask, ask, first, last, rows, into.depth, out)
        return last, done

    def side(self, sign: float, depth: int | None = None) -> tuple[Floats, Floats]:
        """Prices and sizes of a side, best first: all levels, or the best `depth`."""
        side = self._bid if sign == BID else self._ask
        prices, sizes = _whole(side)
        if side.meta[LIVE]:
            order = np.argsort(sign * prices)
            prices, sizes = prices[order], sizes[order]
        return prices[:depth], sizes[:depth]
