"""One symbol of a live Binance venue: its book windows, its streams, and what REST can ask of its past."""

from __future__ import annotations

import asyncio
from collections import deque

from simulator.binance_texts import Aggregate, Candle
from simulator.hub import Stream
from simulator.market import Fill, Market, Snapshot

TICK_MS = 25
"""The step of every market. All cadences are multiples of it."""

_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_INTERVALS = frozenset(["1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d"])


def interval_ms(interval: str) -> int | None:
    """Length of a kline interval; None for one that is not served (3d, 1w and 1M are not simulated)."""
    return int(interval[:-1]) * _UNITS[interval[-1]] if interval in _INTERVALS else None


class DepthWindow:
    """What changed since the last message of one depth stream; ``levels`` > 0 makes it a partial stream."""

    __slots__ = ("asks", "bids", "first_id", "last_time_ms", "levels", "previous_id", "stream", "ticks")

    def __init__(self, stream: Stream, period_ms: int, levels: int, previous_id: int) -> None:
        self.stream = stream
        self.ticks = period_ms // TICK_MS
        self.levels = levels
        self.previous_id = previous_id
        self.first_id = 0
        self.last_time_ms = 0
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}


class Listed:
    """One listed symbol: its market, its streams, and what REST can ask of its past."""

    def __init__(self, market: Market, first_agg_id: int, history: int, now_ms: int) -> None:
        self.market = market
        self.instrument = market.instrument
        self.status = "TRADING"
        self.windows: list[DepthWindow] = []
        self.book_ticker: Stream | None = None
        self.trade: Stream | None = None
        self.agg_trade: Stream | None = None
        self.force_order: Stream | None = None
        self.mark_price: list[tuple[int, Stream]] = []
        self.klines: dict[str, tuple[int, Stream, Candle]] = {}
        self.quoted: tuple[int, int, int, int] = market.top()
        self.agg_id = first_agg_id
        self.open_aggregate: Aggregate | None = None
        self.open_order = -1
        self.trades: deque[Fill] = deque(maxlen=history)
        self.aggregates: deque[Aggregate] = deque(maxlen=history)
        self.candles: deque[Candle] = deque(maxlen=1500)
        self.checkpoints: deque[Snapshot] = deque([market.snapshot()], maxlen=3)
        self.waiters: list[tuple[str, asyncio.Future[Snapshot]]] = []
        self.must_move = False
        self.volume = self.quote_volume = 0
        self.open_interest = market.instrument.typical_size * 2_000
        self.open_price = market.last_price
        self.listed_ms = now_ms

    @property
    def trading(self) -> bool:
        return self.status == "TRADING"
