"""A small, real order book per symbol that lives on seeded chance.

Orders are added, changed, cancelled and hit; the book stays uncrossed and never runs empty. The model knows
nothing of venues: ids come from a sequence that is passed in, and what happened in a step is read from the
public fields afterwards.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from simulator.instruments import Instrument


class IdSequence:
    """Update ids. ``holes`` > 1 skips ids at random, as one engine serving many symbols does."""

    __slots__ = ("holes", "last")

    def __init__(self, last: int, holes: int = 1) -> None:
        self.last = last
        self.holes = holes

    def next(self, chance: float) -> int:
        self.last += 1 if self.holes == 1 else 1 + int(chance * self.holes)
        return self.last


@dataclass(frozen=True, slots=True)
class Fill:
    """One maker order hit by a taker: price and quantity in units."""

    trade_id: int
    price: int
    quantity: int
    buyer_is_maker: bool
    order: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole book at an update id: bids descending, asks ascending, in units."""

    update_id: int
    time_ms: int
    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]


class Market:
    """The book of one symbol.

    After :meth:`step`: ``changed_bids`` and ``changed_asks`` hold the absolute size of every level touched
    (0 = removed), ``first_id``/``last_id`` the ids used (``first_id`` 0: nothing happened), ``fills`` the
    trades and ``mutations`` every single change in order.
    """

    def __init__(
        self,
        instrument: Instrument,
        rng: random.Random,
        ids: IdSequence,
        *,
        levels: int,
        first_trade_id: int,
    ) -> None:
        self.instrument = instrument
        self.rng = rng
        self.ids = ids
        self.levels = levels
        self.trade_id = first_trade_id
        self.order = 0
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.changed_bids: dict[int, int] = {}
        self.changed_asks: dict[int, int] = {}
        self.mutations: list[tuple[int, int, int, int]] = []
        self.fills: list[Fill] = []
        self.first_id = 0
        self.last_id = ids.last
        self.last_time_ms = 0
        self.last_price = instrument.price
        self.floor = (0, 0)
        self._build()

    def _build(self) -> None:
        tick = self.instrument.tick
        middle = self.instrument.price // tick * tick
        bid, ask = middle, middle + tick
        self.best_bid, self.best_ask = bid, ask
        gap = max(1, min(4, middle // tick // (2 * self.levels)))
        for _ in range(self.levels):
            if bid > 0:
                self.bids[bid] = self._size()
            self.asks[ask] = self._size()
            bid -= tick * (1 + int(self.rng.random() * gap))
            ask += tick * (1 + int(self.rng.random() * gap))
        self.floor = (len(self.bids) // 2 + 2, len(self.asks) // 2 + 2)
        self.last_id = self.ids.next(self.rng.random())

    def _size(self) -> int:
        chance = self.rng.random()
        lot = self.instrument.lot
        return max(lot, int(self.instrument.typical_size * (0.01 + 3.0 * chance * chance * chance)) // lot * lot)

    def begin_step(self, time_ms: int) -> None:
        """Forget what the last step reported."""
        if self.first_id:
            self.changed_bids = {}
            self.changed_asks = {}
            self.mutations = []
            self.first_id = 0
        if self.fills:
            self.fills = []
        self.last_time_ms = time_ms

    def step(self, time_ms: int, changes: int, trade_chance: float) -> None:
        """Let ``changes`` orders come or go, and perhaps a taker."""
        self.begin_step(time_ms)
        for _ in range(changes):
            self._maker()
        if self.rng.random() < trade_chance:
            self.trade()

    def _set(self, side: int, price: int, size: int) -> None:
        update_id = self.ids.next(self.rng.random())
        self.last_id = update_id
        if not self.first_id:
            self.first_id = update_id
        self.mutations.append((update_id, side, price, size))
        if side == 0:
            self.changed_bids[price] = size
            book = self.bids
        else:
            self.changed_asks[price] = size
            book = self.asks
        if size:
            book[price] = size
            if side == 0:
                if price > self.best_bid:
                    self.best_bid = price
            elif price < self.best_ask:
                self.best_ask = price
        elif book.pop(price, None) is not None:
            if side == 0:
                if price == self.best_bid:
                    self.best_bid = self._next_best(book, price, -self.instrument.tick)
            elif price == self.best_ask:
                self.best_ask = self._next_best(book, price, self.instrument.tick)

    @staticmethod
    def _next_best(book: dict[int, int], price: int, step: int) -> int:
        for _ in range(64):
            price += step
            if price in book:
                return price
        return max(book) if step < 0 else min(book)

    def _maker(self) -> None:
        chance = self.rng.random()
        side = 0 if chance < 0.5 else 1
        tick = self.instrument.tick
        book = self.bids if side == 0 else self.asks
        depth = self.rng.random()
        distance = int(depth * depth * depth * 2 * self.levels)
        spread = (self.best_ask - self.best_bid) // tick
        if spread > 1 and depth < 0.35:
            distance = -1 - int(self.rng.random() * min(3, spread - 1))
        price = self.best_bid - distance * tick if side == 0 else self.best_ask + distance * tick
        if price <= 0:
            return
        count = len(book)
        if count > 2 * self.levels:  # a drifting price leaves far orders behind: somebody cancels them
            far = min(book) if side == 0 else max(book)
            self._set(side, far, 0)
        elif price in book:
            if count > self.floor[side] and self.rng.random() < 0.55:
                self._set(side, price, 0)
            else:
                self._set(side, price, self._size())
        else:
            self._set(side, price, self._size())

    def trade(self) -> None:
        """A taker hits one to three levels; each level pays one to three maker orders."""
        # The price is pulled back to where it began, so that a long run stays plausible.
        pull = 0.5 + max(-0.2, min(0.2, 6.0 * (self.instrument.price - self.best_bid) / self.instrument.price))
        buys = self.rng.random() < pull
        side = 1 if buys else 0
        book = self.asks if buys else self.bids
        self.order += 1
        lot = self.instrument.lot
        for _ in range(1 + int(self.rng.random() * 1.4)):
            if len(book) < self.floor[side]:
                return
            price = self.best_ask if buys else self.best_bid
            size = book[price]
            chance = self.rng.random()
            taken = size if chance < 0.3 else max(lot, int(size * chance) // lot * lot)
            left = taken
            for part in range(1 + int(self.rng.random() * 3)):
                quantity = left if part == 2 else max(lot, int(left * self.rng.random()) // lot * lot)
                self._fill(price, quantity, not buys)
                left -= quantity
                if left <= 0:
                    break
            if left > 0:
                self._fill(price, left, not buys)
            self._set(side, price, size - taken)
            if size != taken:
                return

    def _fill(self, price: int, quantity: int, buyer_is_maker: bool) -> None:
        self.trade_id += 1
        self.last_price = price
        self.fills.append(Fill(self.trade_id, price, quantity, buyer_is_maker, self.order, self.last_time_ms))

    def snapshot(self, limit: int | None = None) -> Snapshot:
        """The book now, truncated to ``limit`` levels a side."""
        bids = sorted(self.bids.items(), reverse=True)
        asks = sorted(self.asks.items())
        return Snapshot(self.last_id, self.last_time_ms, bids[:limit], asks[:limit])

    def top(self) -> tuple[int, int, int, int]:
        """Best bid, its size, best ask, its size."""
        return self.best_bid, self.bids[self.best_bid], self.best_ask, self.asks[self.best_ask]


def replay_mutations(book: tuple[dict[int, int], dict[int, int]], mutations: list[tuple[int, int, int, int]]) -> None:
    """Apply ``(update_id, side, price, size)`` changes to a pair of sides, in place."""
    for _, side, price, size in mutations:
        if size:
            book[side][price] = size
        else:
            book[side].pop(price, None)
