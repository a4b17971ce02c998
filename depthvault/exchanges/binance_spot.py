"""Binance spot. Source: the venue's public documentation (github binance/binance-spot-api-docs) and recordings."""

from __future__ import annotations

import re
from typing import ClassVar

from depthvault.exchanges import binance_flat as flat
from depthvault.exchanges import binance_rows as rows
from depthvault.exchanges import binance_shapes as shapes
from depthvault.exchanges.base import Continuity, Head, Pacing, Request, Seed
from depthvault.exchanges.binance import SNAPSHOT_SCANNER, Binance
from depthvault.exchanges.decode.books import BookReader, Scanner
from depthvault.exchanges.decode.flat import FlatScanner
from depthvault.exchanges.decode.scan import BinanceScanner


class SpotContinuity(Continuity):
    """Spot book ids count without holes: an event begins right after the one before ends."""

    def follows(self, previous_final: int, event: Head) -> bool:
        return event.first <= previous_final + 1 <= event.final

    def precedes_snapshot(self, last_update_id: int, event: Head) -> bool:
        return event.final <= last_update_id

    def joins(self, last_update_id: int, event: Head) -> bool:
        # The documentation asks for L inside [U, u]. An event that ends exactly at L occurs on the live venue; the
        # next one then begins at L + 1, and this is the predicate that takes it.
        return event.first <= last_update_id + 1 <= event.final

    def snapshot_too_old(self, last_update_id: int, first_buffered: Head) -> bool:
        return last_update_id + 1 < first_buffered.first


class BinanceSpot(Binance):
    """Binance spot: one endpoint, book seeded over REST, ids without holes."""

    name = "binance_spot"
    seed = Seed.REST
    channels: ClassVar[tuple[str, ...]] = (
        "depth_diff",
        "depth_partial",
        "depth_snapshot",
        "book_ticker",
        "agg_trade",
        "trade",
        "kline",
        "instrument",
        "collector_event",
    )
    # 5 messages a second, our pongs among them; 1024 streams a connection.
    pacing = Pacing(per_second=3.0, burst=3, names_per_message=100, streams_per_connection=1024)
    weight_limit = 6000
    continuity = SpotContinuity()
    # The ids of single trades count on by one: they are what `f` and `l` of an aggregate count.
    proofs: ClassVar[dict[str, str]] = {"trade": "trade_id"}
    chained = False

    api = "/api/v3"
    speeds: ClassVar[dict[str, str]] = {"100ms": "@100ms", "1000ms": ""}
    partial_speeds: ClassVar[dict[str, str]] = speeds
    intervals = frozenset(
        ["1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M"]
    )
    snapshot_weights = ((100, 5), (500, 25), (1000, 50), (5000, 250))
    trades_weight = 4
    candles_weight = 2
    default_limit = 100
    head_pattern = re.compile(rb'(\d{13,16}),"s":"[^"]*","U":(\d{1,18}),"u":(\d{1,18})()[,}]')
    rest_channels: ClassVar[dict[str, str]] = {
        "/depth": "depth_snapshot",
        "/exchangeInfo": "instrument",
        "/aggTrades": "agg_trade",
        "/klines": "kline",
    }
    diff_reader: ClassVar[BookReader] = staticmethod(rows.spot_diff)
    partial_reader: ClassVar[BookReader] = staticmethod(rows.spot_partial)
    flat_scanners: ClassVar[dict[str, FlatScanner]] = {
        "book_ticker": flat.BOOK_TICKER,
        "agg_trade": flat.AGG_TRADE,
        "trade": flat.SPOT_TRADE,
    }
    scanners: ClassVar[dict[str, Scanner]] = {
        "depth_diff": BinanceScanner(("e", "E", "s", "U", "u", "b", "a")),
        "depth_partial": BinanceScanner(("lastUpdateId", "b", "a"), is_snapshot=True, symbol_of=rows.stream_symbol),
        "depth_snapshot": SNAPSHOT_SCANNER,
    }

    def route_of(self, channel: str) -> str:
        return ""

    def expected_silence(self, channel: str, busy: bool) -> float:
        if (configured := self.config.stale_after.get(channel)) is not None:
            return configured.total_seconds()
        # Quiet books send nothing at all; busy ones change many times a second.
        match channel:
            case "depth_diff" | "depth_partial" | "book_ticker":
                return 10.0 if busy else 300.0
            case "agg_trade" | "trade":
                return 60.0 if busy else 3600.0
            case "kline":
                return 60.0 if busy else 3600.0
        return float("inf")

    def catalogue_request(self) -> Request:
        return Request(f"{self.api}/exchangeInfo", (), 20, "instrument")

    def is_trading(self, one: shapes.Symbol) -> bool:
        return one.status == "TRADING" and one.isSpotTradingAllowed

    def volume_request(self) -> Request | None:
        return Request(f"{self.api}/ticker/24hr", (), 80)
