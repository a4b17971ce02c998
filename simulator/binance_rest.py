"""The REST face of Binance: paths, weights, errors and the answers of a live venue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from simulator.binance_venue import BinanceVenue

FUTURES_DEPTH_LIMITS = (5, 10, 20, 50, 100, 500, 1000)
_FUNDING_PATHS = ("fundingRate", "fundingInfo")
_DAY_MS = 86_400_000


class ApiError(Exception):
    """A Binance error body with its HTTP status."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


INVALID_SYMBOL = (-1121, "Invalid symbol.")


@dataclass(slots=True)
class Answer:
    """A JSON body; ``facts`` go into the truth ledger."""

    body: bytes
    facts: Mapping[str, object]


def weight_of(name: str, query: Mapping[str, str], *, is_spot: bool) -> int:
    """Request weight by the documented tables (2026)."""
    limit = int(query["limit"]) if query.get("limit", "").isdigit() else None
    has_symbol = "symbol" in query
    if name == "depth":
        return _spot_depth_weight(limit or 100) if is_spot else _futures_depth_weight(limit)
    if is_spot:
        table = {"exchangeInfo": 20, "trades": 25, "historicalTrades": 25, "aggTrades": 4, "klines": 2}
        table |= {"ticker/bookTicker": 2 if has_symbol else 4, "ticker/24hr": 2 if has_symbol else 80}
    else:
        table = {"premiumIndex": 1 if has_symbol else 10, "aggTrades": 20, "trades": 5}
        table |= {"historicalTrades": 200, "klines": _futures_kline_weight(limit)}
        table |= {"ticker/bookTicker": 2 if has_symbol else 5, "ticker/24hr": 1 if has_symbol else 40}
        table |= {"fundingRate": 0, "fundingInfo": 0}
    return table.get(name, 1)


def _spot_depth_weight(limit: int) -> int:
    return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250


def _futures_depth_weight(limit: int | None) -> int:
    if limit is None:
        return 1  # measured: without a limit 500 levels cost 1
    if limit not in FUTURES_DEPTH_LIMITS:
        return 1
    return 2 if limit <= 50 else 5 if limit == 100 else 10 if limit == 500 else 20


def _futures_kline_weight(limit: int | None) -> int:
    if limit is None:
        return 5
    return 1 if limit <= 100 else 2 if limit <= 500 else 5 if limit <= 1000 else 10


class BinanceRest:
    """Answers the REST requests of one venue; subclasses know where the data comes from."""

    def __init__(self, venue: BinanceVenue) -> None:
        self.venue = venue

    async def handle(self, request: web.Request, path: str) -> web.StreamResponse:
        venue = self.venue
        prefix = "api/v3/" if venue.is_spot else "fapi/v1/"
        if not path.startswith(prefix):
            return web.Response(status=404, text="<html>404 Not Found</html>", content_type="text/html")
        name = path[len(prefix) :]
        query = request.rel_url.query
        weight = weight_of(name, query, is_spot=venue.is_spot)
        verdict = venue.limiter.request(weight, venue.now_ms())
        headers = {"Content-Type": "application/json;charset=UTF-8"}
        if name not in _FUNDING_PATHS:
            headers["X-MBX-USED-WEIGHT-1M"] = str(verdict.used)
            if venue.is_spot:
                headers["X-MBX-USED-WEIGHT"] = str(verdict.used)
        note: dict[str, object] = {"path": path, "query": dict(query), "weight": weight}
        if verdict.status == 200 and venue.desk.chance("rest_429"):
            venue.limiter.force(requests=1)
            verdict = venue.limiter.request(0, venue.now_ms())
        if verdict.status != 200:
            headers["Retry-After"] = str(verdict.retry_after)
            venue.rest_note(**note, status=verdict.status, used=verdict.used)
            return _error_response(verdict.status, -1003, self._limit_text(verdict.banned_until_ms), headers)
        ordered = await self._ordered_fault(name, note)
        if ordered is not None:
            return ordered
        try:
            answer = await self.answer(name, query)
        except ApiError as error:
            venue.rest_note(**note, status=error.status, used=verdict.used, code=error.code)
            return _error_response(error.status, error.code, error.message, headers)
        venue.rest_note(**note, status=200, used=verdict.used, **answer.facts)
        return web.Response(body=answer.body, headers=headers)

    def _limit_text(self, banned_until_ms: int) -> str:
        if banned_until_ms:
            return (
                f"Way too much request weight used; IP banned until {banned_until_ms}. "
                "Please use WebSocket Streams for live updates to avoid bans."
            )
        limit = self.venue.limiter.limit
        return (
            f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API."
        )

    async def _ordered_fault(self, name: str, note: dict[str, object]) -> web.StreamResponse | None:
        """A 5xx or a request that is never answered, by order or by schedule."""
        venue = self.venue
        found = venue.rest_fault(name)
        if found is None:
            return None
        kind, value = found
        venue.fault(kind, path=note["path"], value=value)
        if kind == "rest_timeout":
            await asyncio.sleep(value)
            venue.rest_note(**note, status=0)
            return _error_response(503, -1007, "Timeout waiting for response from backend server.", {})
        venue.rest_note(**note, status=int(value))
        if int(value) == 451:
            body = '{"code":0,"msg":"Service unavailable from a restricted location according to Terms."}'
            return web.Response(status=451, text=body)
        return web.Response(status=int(value), text="<html><body>Bad gateway</body></html>", content_type="text/html")

    async def answer(self, name: str, query: Mapping[str, str]) -> Answer:
        raise NotImplementedError


def _error_response(status: int, code: int, message: str, headers: Mapping[str, str]) -> web.Response:
    body = json.dumps({"code": code, "msg": message}, separators=(",", ":")).encode()
    return web.Response(status=status, body=body, headers=dict(headers))
