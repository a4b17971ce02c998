"""The whole book at one moment of the past, with its provenance: where it starts, what was applied, what is certain.

An event counts when it had been received. A break in the chain is never hidden: the state after it says `gap_crossed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from depthvault.book.events import Floats, Snapshot, breaks, chain_of, levels_of, state_hash
from depthvault.book.seeds import CHAIN_COLUMNS, LEVEL_COLUMNS, Archive, events, latest, microseconds
from depthvault.clock import datetime_from_ns
from depthvault.errors import ArchiveError


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


def book(archive: Archive, exchange: str, symbol: str, at: datetime, seed: Snapshot | None = None) -> Book:
    """The book as it was known at `at`: the newest snapshot received by then, and every later event received by then.

    `seed`: start from this snapshot instead. Raises ArchiveError when there is no snapshot to start from.
    """
    from depthvault.book.kernel import ASK, BID, Kernel

    moment = microseconds(at)
    seed = seed or latest(archive, exchange, symbol, moment)
    if seed is None:
        raise ArchiveError(f"{exchange} {symbol}: no snapshot of its book was received by {at:%Y-%m-%d %H:%M:%S}")
    kernel = Kernel()
    kernel.apply(*seed.levels(), 0, 1)
    applied, last_id, last_received, gap = 0, seed.update_id, seed.received, None
    epoch = None
    for batch in events(archive, exchange, symbol, seed, moment, (*CHAIN_COLUMNS, *LEVEL_COLUMNS)):
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
