"""A book kept from what a journal holds: diffs and snapshots of one symbol. For the eye only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pyarrow.compute as pc

from depthvault.book.reference import ReferenceBook
from depthvault.exchanges.base import Exchange, Frames, Head, Seed
from depthvault.journal.reader import Batch
from depthvault.journal.rows import Kind

_DIFF, _SNAPSHOT = "depth_diff", "depth_snapshot"
Levels = list[tuple[float, float]]


@dataclass(slots=True)
class _Event:
    head: Head
    bids: Levels
    asks: Levels


@dataclass(slots=True)
class LiveBook:
    """The book of `symbol` by the venue's own rules.

    seeded: False until a snapshot joined the stream, and again after a gap. updates, gaps: counted since the start.
    """

    exchange: Exchange
    symbol: str
    updates: int = 0
    gaps: int = 0
    connects: int = 0
    seeded: bool = False
    last_ns: int = 0
    _book: ReferenceBook = field(default_factory=ReferenceBook)
    _last: int = 0
    _markets: dict[int, str] = field(default_factory=dict)
    _recent: deque[_Event] = field(default_factory=lambda: deque(maxlen=20_000))

    def best(self, depth: int) -> tuple[Levels, Levels]:
        """The best `depth` bids and asks."""
        return self._book.best_bids(depth), self._book.best_asks(depth)

    def take(self, batch: Batch) -> None:
        """Apply what a journal record holds."""
        found: dict[tuple[str, str], Frames] = {}
        for row in batch:
            if row.kind == Kind.CATALOGUE:
                listed = self.exchange.parse_catalogue(row.body)
                self._markets = {each.market_id: each.symbol for each in listed if each.market_id is not None}
            elif row.kind == Kind.EVENT and row.stream == "connect":
                self.connects += 1
            elif row.kind in {Kind.FRAME, Kind.REST}:
                channel, _ = self.exchange.channel_of(row.stream)
                if channel in {_DIFF, _SNAPSHOT}:
                    frames = found.setdefault((channel, row.kind), Frames(symbols=self._markets))
                    frames.sequences.append(row.sequence)
                    frames.received_ns.append(row.wall_ns)
                    frames.request_ns.append(row.wall_ns)
                    frames.streams.append(row.stream)
                    frames.bodies.append(row.body)
        for (channel, _), frames in sorted(found.items()):  # diffs before the snapshots that join them
            rows = self.exchange.decode(channel, frames, "watch").rows
            rows = rows.filter(pc.equal(rows["symbol"], self.symbol))
            for record in rows.to_pylist():
                bids = list(zip(record["bid_prices"], record["bid_sizes"], strict=True))
                asks = list(zip(record["ask_prices"], record["ask_sizes"], strict=True))
                if channel == _SNAPSHOT:
                    self._seed(record["last_update_id"], bids, asks)
                else:
                    head = Head(
                        record["first_update_id"], record["final_update_id"], record["prev_final_update_id"],
                        record["is_snapshot"],
                    )  # fmt: skip
                    self.last_ns = frames.received_ns[-1]
                    self._event(_Event(head, bids, asks))

    def _event(self, event: _Event) -> None:
        self.updates += 1
        rule = self.exchange.continuity
        if event.head.is_snapshot:
            self._replace(event.head.final, event.bids, event.asks)
            return
        if self.exchange.seed is Seed.REST:
            self._recent.append(event)
        if not self.seeded or rule.is_old(self._last, event.head):
            return
        if not (rule.follows(self._last, event.head) or rule.joins(self._last, event.head)):
            self.gaps += 1
            self.seeded = False
            self._recent.clear()
            self._recent.append(event)
            return
        self._book.apply(event.bids, event.asks)
        self._last = event.head.final

    def _seed(self, last_update_id: int, bids: Levels, asks: Levels) -> None:
        if self.seeded:
            return
        rule = self.exchange.continuity
        later = [event for event in self._recent if not rule.precedes_snapshot(last_update_id, event.head)]
        if later and not rule.joins(last_update_id, later[0].head):
            return
        self._replace(last_update_id, bids, asks)
        for event in later:
            self._book.apply(event.bids, event.asks)
            self._last = event.head.final

    def _replace(self, last: int, bids: Levels, asks: Levels) -> None:
        self._book = ReferenceBook()
        self._book.apply(bids, asks)
        self._last, self.seeded = last, True
