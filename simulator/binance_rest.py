"""The REST face of Binance: paths, weights, errors and the answers of a live venue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from aiohttp import web

from simulator import binance_texts as texts
from simulator.binance_catalogue import exchange_info
from simulator.binance_live import Listed, LiveBinance, interval_ms
from simulator.binance_venue import BinanceVenue
from simulator.market import Snapshot

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
        self.funding_calls: list[int] = []

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
        for order in venue.rest_orders:
            kind, wanted, value = order
            if wanted in ("", name):
                venue.rest_orders.remove(order)
                break
        else:
            kind, value = "", 0.0
            if venue.desk.chance("rest_5xx"):
                kind, value = "rest_5xx", float(venue.desk.rng.choice((500, 502, 503)))
            elif venue.desk.chance("rest_timeout"):
                kind, value = "rest_timeout", 60.0
        if not kind:
            return None
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


def _number(query: Mapping[str, str], name: str, default: int | None = None) -> int | None:
    text = query.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise ApiError(-1100, f"Illegal characters found in parameter '{name}'.") from None


class LiveRest(BinanceRest):
    """Answers from the market model."""

    def __init__(self, venue: LiveBinance) -> None:
        super().__init__(venue)
        self.live = venue

    async def answer(self, name: str, query: Mapping[str, str]) -> Answer:
        method = {
            "ping": self._ping,
            "time": self._time,
            "exchangeInfo": self._exchange_info,
            "trades": self._trades,
            "aggTrades": self._agg_trades,
            "klines": self._klines,
            "ticker/24hr": self._day_ticker,
            "ticker/bookTicker": self._book_ticker,
        }.get(name)
        if name == "depth":
            return await self._depth(query)
        if method is None and not self.live.is_spot:
            method = {
                "openInterest": self._open_interest,
                "premiumIndex": self._premium_index,
                "fundingRate": self._funding_rate,
                "fundingInfo": self._funding_info,
            }.get(name)
        if method is None:
            raise ApiError(-1000, "Path not found", 404)
        return Answer(method(query).encode(), {})

    def _listed(self, query: Mapping[str, str]) -> Listed:
        symbol = query.get("symbol")
        if symbol is None:
            raise ApiError(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        listed = self.live.listed.get(symbol)
        if listed is None or not listed.trading:
            raise ApiError(*INVALID_SYMBOL)
        return listed

    def _ping(self, query: Mapping[str, str]) -> str:
        return "{}"

    def _time(self, query: Mapping[str, str]) -> str:
        return f'{{"serverTime":{self.live.now_ms()}}}'

    def _exchange_info(self, query: Mapping[str, str]) -> str:
        return exchange_info(self.live, query)

    # -- depth -----------------------------------------------------------------------------------------

    async def _depth(self, query: Mapping[str, str]) -> Answer:
        live = self.live
        limit = _number(query, "limit")
        if live.is_spot:
            limit = 100 if limit is None else min(limit, 5000)
            if limit < 1:
                raise ApiError(-1130, "Data sent for parameter 'limit' is not valid.")
        elif limit is None:
            limit = 500
        elif limit not in FUTURES_DEPTH_LIMITS:
            raise ApiError(-4021, f"{limit} is not valid depth limit")
        listed = self._listed(query)
        symbol = listed.instrument.symbol
        orders = live.snapshot_orders.get(symbol)
        place = orders.pop(0) if orders else ""
        if not place and live.desk.chance("lag_snapshot"):
            place = "lag"
        snapshot = await self._snapshot(listed, place)
        i = listed.instrument
        bids = texts.levels(i, snapshot.bids[:limit])
        asks = texts.levels(i, snapshot.asks[:limit])
        times = "" if live.is_spot else f'"E":{live.now_ms()},"T":{snapshot.time_ms},'
        body = f'{{"lastUpdateId":{snapshot.update_id},{times}"bids":[{bids}],"asks":[{asks}]}}'
        if place:
            live.fault(f"snapshot_{place}", symbol=symbol, last_update_id=snapshot.update_id)
        return Answer(body.encode(), {"symbol": symbol, "last_update_id": snapshot.update_id, "limit": limit})

    async def _snapshot(self, listed: Listed, place: str) -> Snapshot:
        if place == "lag":
            return listed.checkpoints[0]
        if place in ("inside", "event_end"):
            future: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
            listed.waiters.append((place, future))
            listed.must_move = True
            return await future
        return listed.market.snapshot()

    # -- trades and candles ----------------------------------------------------------------------------

    def _trades(self, query: Mapping[str, str]) -> str:
        listed = self._listed(query)
        limit = min(_number(query, "limit", 500) or 500, 1000)
        rows = list(listed.trades)[-limit:]
        return f"[{','.join(texts.trade_row(listed.instrument, fill) for fill in rows)}]"

    def _agg_trades(self, query: Mapping[str, str]) -> str:
        listed = self._listed(query)
        limit = min(_number(query, "limit", 500) or 500, 1000)
        from_id, start, end = (_number(query, key) for key in ("fromId", "startTime", "endTime"))
        if from_id is not None:
            rows = list(islice((a for a in listed.aggregates if a.agg_id >= from_id), limit))
        elif start is not None or end is not None:
            low, high = start or 0, end if end is not None else 1 << 62
            rows = list(islice((a for a in listed.aggregates if low <= a.time_ms <= high), limit))
        else:
            rows = list(listed.aggregates)[-limit:]
        return f"[{','.join(texts.agg_trade_row(listed.instrument, a) for a in rows)}]"

    def _klines(self, query: Mapping[str, str]) -> str:
        listed = self._listed(query)
        interval = query.get("interval", "")
        period = interval_ms(interval)
        if period is None:
            raise ApiError(-1120, "Invalid interval.")
        limit = min(_number(query, "limit", 500) or 500, 1000 if self.live.is_spot else 1500)
        start, end = _number(query, "startTime", 0) or 0, _number(query, "endTime", 1 << 62) or 1 << 62
        running = listed.klines["1m"][2]
        candles = [*listed.candles, running] if running.count else list(listed.candles)
        if period > 60_000:
            candles = _merge(candles, period)
        rows = [c for c in candles if start <= c.open_ms <= end]
        rows = rows[:limit] if start else rows[-limit:]
        return f"[{','.join(texts.kline_row(listed.instrument, max(period, 60_000), c) for c in rows)}]"

    # -- tickers ---------------------------------------------------------------------------------------

    def _chosen(self, query: Mapping[str, str]) -> list[Listed]:
        if "symbol" in query:
            return [self._listed(query)]
        return [listed for listed in self.live.listed.values() if listed.trading]

    def _day_ticker(self, query: Mapping[str, str]) -> str:
        rows = [self._day_row(listed) for listed in self._chosen(query)]
        return rows[0] if "symbol" in query else f"[{','.join(rows)}]"

    def _day_row(self, listed: Listed) -> str:
        i, now = listed.instrument, self.live.now_ms()
        bid, bid_size, ask, ask_size = listed.market.top()
        # A day's volume that falls with the rank, so that "top by volume" has a stable answer.
        base_quote = (20_000_000_000 // (i.rank + 1)) * 10**i.value_decimals
        quote = base_quote + listed.quote_volume
        volume = base_quote // max(1, i.price) + listed.volume
        last, first = listed.market.last_price, listed.open_price
        sign = "-" if last < first else ""
        ends = listed.trades[-1].trade_id if listed.trades else listed.market.trade_id
        top = "" if not i.is_spot else (
            f'"bidPrice":"{i.price_text(bid)}","bidQty":"{i.quantity_text(bid_size)}",'
            f'"askPrice":"{i.price_text(ask)}","askQty":"{i.quantity_text(ask_size)}",'
        )  # fmt: skip
        return (
            f'{{"symbol":"{i.symbol}","priceChange":"{sign}{i.price_text(abs(last - first))}",'
            f'"priceChangePercent":"{100 * (last - first) / first:.3f}","weightedAvgPrice":"{i.price_text(last)}",'
            f'"lastPrice":"{i.price_text(last)}","lastQty":"{i.quantity_text(i.lot)}",{top}'
            f'"openPrice":"{i.price_text(first)}","highPrice":"{i.price_text(max(first, last))}",'
            f'"lowPrice":"{i.price_text(min(first, last))}","volume":"{i.quantity_text(volume)}",'
            f'"quoteVolume":"{texts.value_text(i, quote)}","openTime":{now - _DAY_MS},"closeTime":{now},'
            f'"firstId":{ends - 1000},"lastId":{ends},"count":1001}}'
        )

    def _book_ticker(self, query: Mapping[str, str]) -> str:
        rows = []
        for listed in self._chosen(query):
            i = listed.instrument
            bid, bid_size, ask, ask_size = listed.market.top()
            tail = "" if i.is_spot else f',"time":{self.live.now_ms()},"lastUpdateId":{listed.market.last_id}'
            rows.append(
                f'{{"symbol":"{i.symbol}","bidPrice":"{i.price_text(bid)}","bidQty":"{i.quantity_text(bid_size)}",'
                f'"askPrice":"{i.price_text(ask)}","askQty":"{i.quantity_text(ask_size)}"{tail}}}'
            )
        return rows[0] if "symbol" in query else f"[{','.join(rows)}]"

    # -- futures only ----------------------------------------------------------------------------------

    def _open_interest(self, query: Mapping[str, str]) -> str:
        listed = self._listed(query)
        text = listed.instrument.quantity_text(listed.open_interest)
        symbol, now = listed.instrument.symbol, self.live.now_ms()
        body = f'{{"symbol":"{symbol}","openInterest":"{text}","time":{now}}}'
        self.live.hub.ledger.event(self.live.key, "openInterest", symbol, now, body.encode())
        return body

    def _premium_index(self, query: Mapping[str, str]) -> str:
        rows = []
        live = self.live
        for listed in self._chosen(query):
            symbol = listed.instrument.symbol
            mark, index, settle = live.mark_texts(listed)
            due = live.next_funding_ms(symbol)
            rows.append(
                f'{{"symbol":"{symbol}","markPrice":"{mark}","indexPrice":"{index}","estimatedSettlePrice":"{settle}",'
                f'"lastFundingRate":"{live.funding_rate(symbol, due)}","interestRate":"0.00010000",'
                f'"nextFundingTime":{due},"time":{live.now_ms()}}}'
            )
        return rows[0] if "symbol" in query else f"[{','.join(rows)}]"

    def _funding_rate(self, query: Mapping[str, str]) -> str:
        self._funding_budget()
        live = self.live
        limit = min(_number(query, "limit", 100) or 100, 1000)
        start, end = _number(query, "startTime"), _number(query, "endTime") or live.now_ms()
        symbols = [self._listed(query)] if "symbol" in query else list(live.listed.values())
        rows: list[tuple[int, str]] = []
        for listed in symbols:
            symbol = listed.instrument.symbol
            period = live.funding_hours(symbol) * 3_600_000
            last = min(end, live.now_ms()) // period * period
            first = max(last - (limit - 1) * period, -(-start // period) * period if start is not None else 0)
            for due in range(first, last + 1, period):
                # The venue stamps funding a few milliseconds after the hour.
                rate, mark = live.funding_rate(symbol, due), live.funding_mark(listed, due)
                row = (
                    f'{{"symbol":"{symbol}","fundingTime":{due + 2},"fundingRate":"{rate}",'
                    f'"markPrice":"{mark}","rateType":"Regular"}}'
                )
                rows.append((due, row))
        rows.sort(key=lambda row: row[0])
        kept = rows[:limit] if start is not None else rows[-limit:]
        return f"[{','.join(row for _, row in kept)}]"

    def _funding_info(self, query: Mapping[str, str]) -> str:
        """Only symbols whose interval is not 8 hours, as the documentation says."""
        self._funding_budget()
        rows = [
            f'{{"symbol":"{symbol}","adjustedFundingRateCap":"0.02000000","adjustedFundingRateFloor":"-0.02000000",'
            f'"fundingIntervalHours":{self.live.funding_hours(symbol)},"disclaimer":false,"updateTime":null}}'
            for symbol in self.live.listed
            if self.live.funding_hours(symbol) != 8
        ]
        return f"[{','.join(rows)}]"

    def _funding_budget(self) -> None:
        """500 calls in 5 minutes, shared by the two funding endpoints."""
        now = self.live.now_ms()
        self.funding_calls = [at for at in self.funding_calls if at > now - 300_000]
        self.funding_calls.append(now)
        if len(self.funding_calls) > 500:
            raise ApiError(-1003, "Too many requests; current limit is 500 requests per 5 MINUTE.", 429)


def _merge(candles: list[texts.Candle], period: int) -> list[texts.Candle]:
    """One-minute candles joined to longer ones."""
    merged: dict[int, texts.Candle] = {}
    for c in candles:
        open_ms = c.open_ms // period * period
        m = merged.get(open_ms)
        if m is None:
            m = merged[open_ms] = texts.Candle(open_ms, c.open)
            m.high, m.low = c.high, c.low
        m.high, m.low, m.close = max(m.high, c.high), min(m.low, c.low), c.close
        if c.count:
            m.first = c.first if m.first < 0 else m.first
            m.last = c.last
        m.count += c.count
        m.volume += c.volume
        m.quote += c.quote
        m.taker += c.taker
        m.taker_quote += c.taker_quote
    return list(merged.values())
