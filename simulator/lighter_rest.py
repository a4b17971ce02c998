"""The REST face of Lighter: 60 requests a rolling minute, numbers and texts mixed as the venue mixes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from simulator.lighter_live import HOUR_MS, LighterMarket, LiveLighter, percent_text
from simulator.lighter_texts import trade_row


class Refused(Exception):
    """A Lighter error body: ``{"code":…,"message":…}`` with HTTP 400."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class LighterRest:
    """Answers the REST requests below ``/api/v1/``."""

    def __init__(self, venue: LiveLighter) -> None:
        self.venue = venue

    async def handle(self, request: web.Request, path: str) -> web.StreamResponse:
        venue = self.venue
        name = path.removeprefix("api/v1/")
        query = request.rel_url.query
        note = {"path": path, "query": dict(query)}
        if self._limited():
            venue.rest_note(**note, status=429)
            return _json(429, {"code": 23000, "message": "Too Many Requests!"}, {"Retry-After": "60"})
        fault = venue.rest_fault(name)
        if fault is not None:
            kind, value = fault
            venue.fault(kind, path=path, value=value)
            if kind == "rest_timeout":
                await asyncio.sleep(value)
            status = 503 if kind == "rest_timeout" else int(value)
            venue.rest_note(**note, status=status)
            return web.Response(status=status, text="<html></html>", content_type="text/html")
        methods: dict[str, Callable[[Mapping[str, str]], Any]] = {
            "orderBooks": self._order_books,
            "orderBookDetails": self._details,
            "orderBookOrders": self._orders,
            "recentTrades": self._recent_trades,
            "fundings": self._fundings,
            "funding-rates": self._funding_rates,
            "candles": self._candles,
            "status": lambda _: {"status": 1, "network_id": 1, "timestamp": venue.now_ms() // 1000},
            "info": lambda _: {"contract_address": "0x" + "0" * 40},
            "currentHeight": lambda _: {"code": 200, "height": venue.now_ms() // 100},
            "exchangeStats": self._exchange_stats,
        }
        if name not in methods or not path.startswith("api/v1/"):
            venue.rest_note(**note, status=404)
            return web.Response(status=404, text="404 page not found")
        try:
            body = methods[name](query)
        except Refused as refused:
            venue.rest_note(**note, status=400)
            return _json(400, {"code": refused.code, "message": refused.message}, {})
        venue.rest_note(**note, status=200)
        return _json(200, body, {})

    def _limited(self) -> bool:
        venue = self.venue
        now = venue.now_ms()
        while venue.requests and venue.requests[0] <= now - 60_000:
            venue.requests.popleft()
        if venue.refused_requests > 0:
            venue.refused_requests -= 1
            return True
        if venue.desk.chance("rest_429") or len(venue.requests) >= venue.request_limit:
            return True
        venue.requests.append(now)
        return False

    # -- markets ---------------------------------------------------------------------------------------

    def _chosen(self, query: Mapping[str, str]) -> list[LighterMarket]:
        market_id = query.get("market_id", "255")
        wanted = query.get("filter", "all")
        if market_id != "255":
            return [self._one(query)]
        return [
            entry
            for entry in self.venue.markets.values()
            if wanted == "all" or entry.instrument.is_spot == (wanted == "spot")
        ]

    def _one(self, query: Mapping[str, str]) -> LighterMarket:
        text = query.get("market_id", "")
        entry = self.venue.markets.get(int(text)) if text.isdigit() else None
        if entry is None:
            raise Refused(20001, "invalid param : market_id")
        return entry

    def _row(self, entry: LighterMarket) -> dict[str, Any]:
        i = entry.instrument
        return {
            "symbol": i.symbol,
            "market_id": i.market_id,
            "market_type": "spot" if i.is_spot else "perp",
            "base_asset_id": 0,
            "quote_asset_id": 0,
            "status": entry.status,
            "taker_fee": "0.0000",
            "is_taker_fee_enabled": True,
            "maker_fee": "0.0000",
            "is_maker_fee_enabled": True,
            "liquidation_fee": "1.0000",
            "min_base_amount": i.lot_text,
            "min_quote_amount": "10.000000",
            "order_quote_limit": "281474976.710655",
            "supported_size_decimals": i.quantity_decimals,
            "supported_price_decimals": i.price_decimals,
            "supported_quote_decimals": 6,
            "created_at": "1745443199889",
            "multiplier": "1.000000000000000000",
        }

    def _order_books(self, query: Mapping[str, str]) -> Any:
        return {"code": 200, "order_books": [self._row(entry) for entry in self._chosen(query)]}

    def _details(self, query: Mapping[str, str]) -> Any:
        rows: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for entry in self._chosen(query):
            i = entry.instrument
            stats = self.venue.stats(entry)
            rows[i.is_spot].append(
                {
                    **self._row(entry),
                    "price_decimals": i.price_decimals,
                    "size_decimals": i.quantity_decimals,
                    "quote_multiplier": 1,
                    "default_initial_margin_fraction": 1000,
                    "min_initial_margin_fraction": 500,
                    "maintenance_margin_fraction": 300,
                    "closeout_margin_fraction": 200,
                    "last_trade_price": entry.market.last_price / 10**i.price_decimals,
                    "daily_trades_count": len(entry.trades),
                    "daily_base_token_volume": stats["daily_base_token_volume"],
                    "daily_quote_token_volume": stats["daily_quote_token_volume"],
                    "daily_price_low": stats["daily_price_low"],
                    "daily_price_high": stats["daily_price_high"],
                    "daily_price_change": 0.0,
                    "open_interest": entry.open_interest / 10**i.quantity_decimals,
                    "market_config": {"trading_hours": "", "hidden": False, "force_reduce_only": False},
                }
            )
        return {"code": 200, "order_book_details": rows[False], "spot_order_book_details": rows[True]}

    def _orders(self, query: Mapping[str, str]) -> Any:
        """Individual orders without a nonce: they cannot be spliced with the stream."""
        entry = self._one(query)
        i = entry.instrument
        limit = min(int(query.get("limit", "100")), 250)
        book = entry.market.snapshot(limit)

        def rows(levels: list[tuple[int, int]]) -> list[dict[str, Any]]:
            return [
                {
                    "order_index": price,
                    "order_id": str(price),
                    "owner_account_index": 1,
                    "initial_base_amount": i.quantity_text(size),
                    "remaining_base_amount": i.quantity_text(size),
                    "price": i.price_text(price),
                    "order_expiry": self.venue.now_ms() + 86_400_000,
                    "transaction_time": 0,
                }
                for price, size in levels
            ]

        asks, bids = rows(book.asks), rows(book.bids)
        return {"code": 200, "total_asks": len(asks), "asks": asks, "total_bids": len(bids), "bids": bids}

    # -- the past --------------------------------------------------------------------------------------

    def _recent_trades(self, query: Mapping[str, str]) -> Any:
        entry = self._one(query)
        limit = min(int(query.get("limit", "100")), 100)
        last = list(entry.trades)[-limit:]
        return {
            "code": 200,
            "trades": [json.loads(trade_row(entry.instrument, fill, kind)) for fill, kind in reversed(last)],
        }

    def _fundings(self, query: Mapping[str, str]) -> Any:
        entry = self._one(query)
        symbol = entry.instrument.symbol
        resolution = query.get("resolution", "1h")
        period = HOUR_MS if resolution == "1h" else 24 * HOUR_MS
        end = min(_milliseconds(query.get("end_timestamp")) or self.venue.now_ms(), self.venue.now_ms())
        start = _milliseconds(query.get("start_timestamp")) or 0
        count = min(int(query.get("count_back", "0") or 0) or 750, 750)
        rows = []
        last = end // period * period
        for due in range(max(last - (count - 1) * period, -(-start // period) * period), last + 1, period):
            rate = self.venue.funding_rate(symbol, due)
            rows.append(
                {
                    "timestamp": due // 1000,
                    "value": f"0.{abs(rate):08d}",
                    "rate": percent_text(abs(rate)),
                    "direction": "short" if rate < 0 else "long",
                }
            )
        return {"code": 200, "resolution": resolution, "fundings": rows}

    def _funding_rates(self, query: Mapping[str, str]) -> Any:
        hour = self.venue.now_ms() // HOUR_MS * HOUR_MS
        rows = []
        for entry in self.venue.markets.values():
            i = entry.instrument
            if i.is_spot:
                continue
            # Percent an hour in 0.0001 to a fraction of eight hours.
            rate = self.venue.funding_rate(i.symbol, hour) * 8 / 1_000_000
            for exchange in ("binance", "bybit", "hyperliquid", "lighter"):
                rows.append({"market_id": i.market_id, "exchange": exchange, "symbol": i.symbol, "rate": rate})
        return {"code": 200, "funding_rates": rows}

    def _candles(self, query: Mapping[str, str]) -> Any:
        entry = self._one(query)
        i = entry.instrument
        count = min(int(query.get("count_back", "500") or 500), 500)
        start = _milliseconds(query.get("start_timestamp")) or 0
        end = _milliseconds(query.get("end_timestamp")) or 1 << 62
        price, size = 10**i.price_decimals, 10**i.quantity_decimals
        rows = [
            {
                "t": c.open_ms,
                "o": c.open / price,
                "h": c.high / price,
                "l": c.low / price,
                "c": c.close / price,
                "v": c.volume / size,
                "V": c.quote / (price * size),
                "i": max(c.last, 0),
            }
            for c in [*entry.candles, entry.candle]
            if start <= c.open_ms <= end
        ]
        return {"code": 200, "r": query.get("resolution", "1m"), "c": rows[-count:]}

    def _exchange_stats(self, query: Mapping[str, str]) -> Any:
        return {"code": 200, "total": len(self.venue.markets), "order_book_stats": []}


def _milliseconds(text: str | None) -> int | None:
    """Lighter takes seconds and milliseconds; ten digits are seconds."""
    if not text:
        return None
    value = int(text)
    return value * 1000 if value < 10**11 else value


def _json(status: int, body: Any, headers: Mapping[str, str]) -> web.Response:
    return web.Response(
        status=status,
        text=json.dumps(body, ensure_ascii=False, separators=(",", ":")),
        content_type="application/json",
        headers=dict(headers),
    )
