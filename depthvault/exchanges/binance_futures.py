"""Binance USDⓈ-M futures. Source: the venue's public documentation, its notices of 2026, and recordings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from depthvault.clock import ns_from_datetime
from depthvault.exchanges import binance_flat as flat
from depthvault.exchanges import binance_rows as rows
from depthvault.exchanges import binance_shapes as shapes
from depthvault.exchanges.base import Continuity, Head, Pacing, Request, Seed
from depthvault.exchanges.binance import INTERVALS, SNAPSHOT_SCANNER, Binance, request_path
from depthvault.exchanges.decode.books import BookReader, Scanner
from depthvault.exchanges.decode.flat import FlatScanner
from depthvault.exchanges.decode.rows import Reader, Row
from depthvault.exchanges.decode.scan import BinanceScanner
from depthvault.exchanges.decode.values import Numbers

PUBLIC = "public"
MARKET = "market"

_DIFF = ("e", "E", "T", "s", "U", "u", "pu", "b", "a")


class FuturesContinuity(Continuity):
    """Futures book ids are one sequence over all symbols, so they have holes: `pu` alone chains the events."""

    def follows(self, previous_final: int, event: Head) -> bool:
        return event.prev == previous_final

    def precedes_snapshot(self, last_update_id: int, event: Head) -> bool:
        # Below, not below or equal: an event that ends at L is applied as a no-op, or the next one has pu == L.
        return event.final < last_update_id

    def joins(self, last_update_id: int, event: Head) -> bool:
        return event.first <= last_update_id <= event.final or event.prev == last_update_id

    def snapshot_too_old(self, last_update_id: int, first_buffered: Head) -> bool:
        return last_update_id < first_buffered.first and first_buffered.prev != last_update_id


class BinanceFutures(Binance):
    """USDⓈ-M futures: streams routed by category, book seeded over REST, events chained by `pu`."""

    name = "binance_futures"
    seed = Seed.REST
    channels: ClassVar[tuple[str, ...]] = (
        "depth_diff",
        "depth_partial",
        "depth_snapshot",
        "book_ticker",
        "agg_trade",
        "trade",
        "kline",
        "liquidation",
        "mark_price",
        "funding_rate",
        "open_interest",
        "instrument",
        "collector_event",
    )
    # Documented 10 messages a second with pings and pongs within 5; measured: about 15 back to back, then close 1008.
    pacing = Pacing(per_second=5.0, burst=5, names_per_message=200, streams_per_connection=1024)
    weight_limit = 2400
    continuity = FuturesContinuity()
    chained = True

    api = "/fapi/v1"
    # `@250ms` is acknowledged and never delivers (measured): 250 ms is the bare name.
    speeds: ClassVar[dict[str, str]] = {"0ms": "@0ms", "100ms": "@100ms", "250ms": "", "500ms": "@500ms"}
    partial_speeds: ClassVar[dict[str, str]] = {"100ms": "@100ms", "250ms": "", "500ms": "@500ms"}
    intervals = frozenset(INTERVALS)
    snapshot_weights = ((50, 2), (100, 5), (500, 10), (1000, 20))
    trades_weight = 20
    candles_weight = 5
    default_limit = 500
    head_pattern = re.compile(
        rb'(\d{13,16}),"T":\d{13,16},"s":"[^"]*",(?:"ps":"[^"]*",)?'
        rb'"U":(\d{1,18}),"u":(\d{1,18}),"pu":(-?\d{1,18})[,}]'
    )
    rest_channels: ClassVar[dict[str, str]] = {
        "/depth": "depth_snapshot",
        "/exchangeInfo": "instrument",
        "/aggTrades": "agg_trade",
        "/klines": "kline",
        "/premiumIndex": "mark_price",
        "/fundingRate": "funding_rate",
        "/fundingInfo": "funding_rate",
        "/openInterest": "open_interest",
    }
    diff_reader: ClassVar[BookReader] = staticmethod(rows.futures_diff)
    partial_reader: ClassVar[BookReader] = staticmethod(rows.futures_partial)
    flat_scanners: ClassVar[dict[str, FlatScanner]] = {
        "book_ticker": flat.BOOK_TICKER,
        "agg_trade": flat.AGG_TRADE,
        "trade": flat.FUTURES_TRADE,
    }
    scanners: ClassVar[dict[str, Scanner]] = {
        "depth_diff": BinanceScanner(_DIFF, ("ps", "st")),
        "depth_partial": BinanceScanner(_DIFF, ("ps", "st"), is_snapshot=True),
        "depth_snapshot": SNAPSHOT_SCANNER,
    }

    def route_of(self, channel: str) -> str:
        # A wrong category is acknowledged and stays silent. `@trade` is undocumented: silent on /market since April
        # 2026, seen alive on /public.
        return PUBLIC if channel in ("depth_diff", "depth_partial", "book_ticker", "trade") else MARKET

    def market_streams(self, channel: str) -> list[str]:
        if channel == "liquidation" and self.config.liquidations == "all":
            return ["!forceOrder@arr"]
        return ["!contractInfo"] if channel == "instrument" else []

    def expected_silence(self, channel: str, busy: bool) -> float:
        if (configured := self.config.stale_after.get(channel)) is not None:
            return configured.total_seconds()
        match channel:
            case "depth_diff" | "depth_partial" | "book_ticker":
                return 10.0 if busy else 120.0
            case "agg_trade":
                return 60.0 if busy else 1800.0
            case "kline":
                return 60.0 if busy else 1800.0
            case "mark_price":
                return 15.0  # one a second, traded or not
        return float("inf")  # trades are best effort here, liquidations and notices may not come for hours

    def catalogue_request(self) -> Request:
        return Request(f"{self.api}/exchangeInfo", (), 1, "instrument")

    def is_trading(self, one: shapes.Symbol) -> bool:
        return one.status == "TRADING" and one.contractType == "PERPETUAL"

    def volume_request(self) -> Request | None:
        return Request(f"{self.api}/ticker/24hr", (), 40)

    def poll_requests(self, channel: str, symbols: Sequence[str], since: datetime) -> list[Request]:
        match channel:
            case "funding_rate":
                # One answer covers all symbols; the intervals come first, as the rates alone do not say theirs.
                # No weight: 500 requests in 5 minutes for both (documented).
                start = (("startTime", str(ns_from_datetime(since) // 1_000_000)), ("limit", "1000"))
                return [
                    Request(f"{self.api}/fundingInfo", (), 0, channel),
                    Request(f"{self.api}/fundingRate", start, 0, channel),
                ]
            case "open_interest":
                # No stream exists, and an answer holds one symbol.
                return [
                    Request(f"{self.api}/openInterest", (("symbol", symbol),), 1, channel, symbol) for symbol in symbols
                ]
        return []

    def readers(self) -> dict[str, Reader]:
        return super().readers() | {
            "liquidation": rows.liquidation,
            "mark_price": _mark_prices,
            "funding_rate": _FundingReader(),
            "open_interest": _open_interest,
        }


def _mark_prices(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    return rows.premium_index(body, numbers) if stream.startswith("GET ") else rows.mark_price(stream, body, numbers)


def _open_interest(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    return rows.open_interest(body, numbers)


class _FundingReader:
    """Settled rates, with the interval that the latest `fundingInfo` answer before them gave."""

    def __init__(self) -> None:
        self.intervals: dict[str, int] | None = None

    def __call__(self, stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
        if request_path(stream).endswith("/fundingInfo"):
            self.intervals = rows.funding_intervals(body)
            return ()
        return rows.funding_rates(body, numbers, self.intervals)
