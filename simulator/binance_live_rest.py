"""REST answers of a live Binance venue, made from the market model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import islice

from simulator import binance_texts as texts
from simulator.binance_catalogue import exchange_info
from simulator.binance_listing import Listed, interval_ms
from simulator.binance_live import LiveBinance
from simulator.binance_rest import FUTURES_DEPTH_LIMITS, INVALID_SYMBOL, Answer, ApiError, BinanceRest
from simulator.market import Snapshot

_DAY_MS = 86_400_000


def number(query: Mapping[str, str], name: str, default: int | None = None) -> int | None:
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
        limit = number(query, "limit")
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
        limit = min(number(query, "limit", 500) or 500, 1000)
        rows = list(listed.trades)[-limit:]
        return f"[{','.join(texts.trade_row(listed.instrument, fill) for fill in rows)}]"

    def _agg_trades(self, query: Mapping[str, str]) -> str:
        listed = self._listed(query)
        limit = min(number(query, "limit", 500) or 500, 1000)
        from_id, start, end = (number(query, key) for key in ("fromId", "startTime", "endTime"))
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
        limit = min(number(query, "limit", 500) or 500, 1000 if self.live.is_spot else 1500)
        start, end = number(query, "startTime", 0) or 0, number(query, "endTime", 1 << 62) or 1 << 62
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
