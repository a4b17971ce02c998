"""The live Lighter venue: markets in batches of about 50 ms, chained by nonces.

Nonces are one sequence over all markets. A batch carries the nonce of the batch before as ``begin_nonce``; the
``offset`` grows without being contiguous and says nothing about gaps.
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any

from simulator import lighter_texts as texts
from simulator.binance_texts import Candle
from simulator.config import SimulatorConfig
from simulator.hub import Connection, Stream
from simulator.instruments import Instrument, lighter_instrument, lighter_spot_instrument
from simulator.limits import TokenBucket
from simulator.market import Fill, IdSequence, Market
from simulator.truth import Ledger
from simulator.venue import Venue

BATCH_TICKS = 2
REPLAYED_TRADES = 50
HOUR_MS = 3_600_000
ACCOUNT_CHANNELS = ("account_all", "user_stats")
PRIVATE_CHANNELS = (
    "account_tx",
    "account_all_orders",
    "account_all_trades",
    "account_all_positions",
    "account_all_assets",
    "notification",
)


class LighterMarket:
    """One market: its book, the batch in the making, its past trades."""

    def __init__(self, market: Market, streams: dict[str, Stream], history: int) -> None:
        self.market = market
        self.instrument = market.instrument
        self.status = "active"
        self.streams = streams
        self.nonce = market.last_id
        self.offset = 1_000 + self.instrument.rank * 7
        self.batch_us = market.last_time_ms * 1000
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.dirty = False
        self.waiting: list[Connection] = []
        self.fills: list[tuple[Fill, str]] = []
        self.trades: deque[tuple[Fill, str]] = deque(maxlen=history)
        self.candle = Candle(market.last_time_ms // 60_000 * 60_000, market.last_price)
        self.candles: deque[Candle] = deque(maxlen=1500)
        self.quoted = market.top()
        self.open_interest = market.instrument.typical_size * 2_000
        self.jump_offset = False
        self.wrong_book = False

    @property
    def active(self) -> bool:
        return self.status == "active"


class LiveLighter(Venue):
    """Lighter with a market model behind it."""

    def __init__(self, config: SimulatorConfig, ledger: Ledger, start_ms: int) -> None:
        super().__init__("lighter", config, ledger, start_ms)
        self.now = start_ms
        self.tick_count = 0
        self.markets: dict[int, LighterMarket] = {}
        self.nonces = IdSequence(start_ms * 50, holes=8)
        self.requests: deque[int] = deque()
        self.request_limit = config.lighter_rest_limit
        self.refused_requests = 0
        self.refused_messages = 0
        self.buckets: dict[str, TokenBucket] = {}
        rate = min(max(config.rate, 0.0), 10.0) / 10.0
        self._activity = 1.0 - (1.0 - rate) ** 0.25
        self._history = max(500, config.history // 4 // max(1, config.symbols))
        self.height = self.hub.stream("height")
        self.all_stats = self.hub.stream("market_stats:all")
        for rank in range(config.symbols):
            self.list_market(lighter_instrument(rank))
        self.list_market(lighter_spot_instrument())

    def now_ms(self) -> int:
        return self.now

    def limit_requests(self, count: int) -> None:
        self.request_limit = count

    def refuse_requests(self, count: int) -> None:
        self.refused_requests += count

    @property
    def used_weight(self) -> int:
        return len(self.requests)

    def make_stream(self, name: str) -> Stream:
        channel, _, market_id = name.partition(":")
        market = self.markets.get(int(market_id)) if market_id.isdigit() else None
        return Stream(name, channel, "" if market is None else market.instrument.symbol, b"", b"")

    def known_streams(self) -> Iterator[str]:
        yield from self.hub.streams

    def list_market(self, instrument: Instrument) -> LighterMarket:
        market = Market(
            instrument,
            random.Random(f"{self.config.seed}:lighter:{instrument.symbol}"),
            self.nonces,
            levels=self.config.book_levels,
            first_trade_id=self.start_ms // 100 + instrument.rank * 10**11,
        )
        market.last_time_ms = self.now
        key = instrument.market_id
        entry = LighterMarket(market, {}, self._history)
        self.markets[key] = entry
        for channel in ("order_book", "trade", "ticker", "market_stats"):
            stream = self.hub.stream(f"{channel}:{key}")
            stream.symbol = instrument.symbol
            stream.active = True
            entry.streams[channel] = stream
        self._note_book(entry)
        return entry

    def _note_book(self, entry: LighterMarket) -> None:
        i, m = entry.instrument, entry.market
        start = {
            "id": m.last_id,
            "price_decimals": i.price_decimals,
            "price_pad": i.price_pad,
            "quantity_decimals": i.quantity_decimals,
            "quantity_pad": i.quantity_pad,
            "bids": list(m.bids.items()),
            "asks": list(m.asks.items()),
        }
        self.ledger.book(self.key, i.symbol, self.now, texts.dumps(start).decode())

    # -- time ------------------------------------------------------------------------------------------

    def tick(self, time_ms: int) -> None:
        """One step of 25 ms for every market; events are queued, not yet written."""
        self.now = time_ms
        self.tick_count += 1
        new_second = time_ms % 1000 < 25
        changed: dict[str, Any] = {}
        for key, entry in list(self.markets.items()):
            if entry.active:
                self._tick_market(entry, time_ms)
                if new_second:
                    stats = self.stats(entry)
                    changed[str(key)] = stats
                    payload = texts.market_stats(str(key), stats, "update", time_ms)
                    self.hub.publish(entry.streams["market_stats"], payload, (time_ms, time_ms))
        if new_second:
            if changed:
                payload = texts.market_stats("all", changed, "update", time_ms)
                self.hub.publish(self.all_stats, payload, (time_ms, time_ms))
            text = f'{{"channel":"height","height":{time_ms // 100},"timestamp":{time_ms},"type":"update/height"}}'
            self.hub.publish(self.height, text.encode(), (time_ms, time_ms))

    def _tick_market(self, entry: LighterMarket, time_ms: int) -> None:
        market = entry.market
        rank = entry.instrument.rank
        if time_ms >= entry.candle.open_ms + 60_000:
            entry.candles.append(entry.candle)
            entry.candle = Candle(time_ms // 60_000 * 60_000, market.last_price)
        if market.rng.random() < self._activity:
            busy = 4 if rank < 2 else 1
            market.step(time_ms, self.config.changes * busy, 0.08 * busy)
            if market.first_id:
                self._changed(entry, time_ms)
        if (self.tick_count + rank) % BATCH_TICKS == 0:
            if entry.dirty:
                self._emit_batch(entry)
            for connection in entry.waiting:
                self._begin_book(entry, connection)
            entry.waiting.clear()
            if entry.fills:
                self._emit_trades(entry)

    def _changed(self, entry: LighterMarket, time_ms: int) -> None:
        market = entry.market
        if self.ledger.enabled:
            text = ";".join([f"{n}:{side}:{p}:{q}" for n, side, p, q in market.mutations])
            self.ledger.book(self.key, entry.instrument.symbol, time_ms, text)
        entry.bids.update(market.changed_bids)
        entry.asks.update(market.changed_asks)
        entry.dirty = True
        if market.fills:
            kind = "liquidation" if market.rng.random() < 0.02 else "trade"
            for fill in market.fills:
                entry.candle.add(fill)
                entry.fills.append((fill, kind))
                signed = fill.quantity if fill.trade_id & 1 else -fill.quantity
                entry.open_interest = max(entry.instrument.typical_size, entry.open_interest + signed)
        top = market.top()
        if top != entry.quoted:
            entry.quoted = top
            payload = texts.ticker(entry.instrument, top, market.last_id, market.last_time_ms * 1000, time_ms)
            self.hub.publish(entry.streams["ticker"], payload, (market.last_id, market.last_id))

    def _emit_batch(self, entry: LighterMarket) -> None:
        market, i = entry.market, entry.instrument
        begin, entry.nonce = entry.nonce, market.last_id
        jump = entry.jump_offset or self.desk.chance("offset_jump")
        if jump:
            entry.jump_offset = False
            self.fault("offset_jump", symbol=i.symbol, nonce=entry.nonce, offset=entry.offset)
        entry.offset += 5_000 if jump else 1 + int(market.rng.random() * 1.3)
        entry.batch_us = market.last_time_ms * 1000 + entry.nonce % 1000
        payload = texts.order_book(
            i,
            "update",
            asks=texts.levels(i, sorted(entry.asks.items())),
            bids=texts.levels(i, sorted(entry.bids.items(), reverse=True)),
            offset=entry.offset,
            nonce=entry.nonce,
            begin=begin,
            at_us=entry.batch_us,
            now_ms=self.now,
        )
        entry.bids, entry.asks, entry.dirty = {}, {}, False
        self.hub.publish(entry.streams["order_book"], payload, (begin, entry.nonce))

    def _emit_trades(self, entry: LighterMarket) -> None:
        """Liquidations stand in a second array; no trade is in both."""
        fills, entry.fills = entry.fills, []
        entry.trades.extend(fills)
        i = entry.instrument
        ordinary = [texts.trade_row(i, fill, kind) for fill, kind in fills if kind == "trade"]
        liquidations = [texts.trade_row(i, fill, kind) for fill, kind in fills if kind != "trade"]
        payload = texts.trades(i, "update", entry.market.last_id, ordinary, liquidations)
        self.hub.publish(entry.streams["trade"], payload, (fills[0][0].trade_id, fills[-1][0].trade_id))

    # -- subscriptions ---------------------------------------------------------------------------------

    def subscribe(self, connection: Connection, name: str) -> None:
        """Subscribe to a valid name; the first data frame is the acknowledgement.

        A book begins at the next end of a batch, so that its nonce is the ``begin_nonce`` of what follows.
        """
        channel, _, key = name.partition(":")
        if self.is_silenced(name):
            self.hub.subscribe(connection, [name], lambda _: False)
            return
        entry = self.markets.get(int(key)) if key.isdigit() else None
        if channel == "order_book" and entry is not None:
            if entry.dirty:
                connection.names[name] = False
                entry.waiting.append(connection)
            else:
                self._begin_book(entry, connection)
            return
        self.hub.subscribe(connection, [name], lambda _: True)
        if channel == "trade" and entry is not None:
            self._replay_trades(entry, connection)
        elif channel == "market_stats":
            chosen = self.markets if entry is None else {entry.instrument.market_id: entry}
            stats: Any = {str(k): self.stats(e) for k, e in chosen.items() if e.active}
            payload = texts.market_stats(key, stats if entry is None else stats.get(key, {}), "subscribed", self.now)
            connection.send(payload)
        elif channel in ACCOUNT_CHANNELS or channel in PRIVATE_CHANNELS:
            connection.send(self._account(channel, key))
        elif channel == "ticker" and entry is not None:
            at_us = entry.market.last_time_ms * 1000  # as the update of this nonce said
            payload = texts.ticker(entry.instrument, entry.quoted, entry.market.last_id, at_us, self.now)
            connection.send(payload.replace(b'"update/ticker"', b'"subscribed/ticker"'))
        elif channel == "height":
            connection.send(
                f'{{"channel":"height","height":{self.now // 100},"timestamp":{self.now},'
                f'"type":"subscribed/height"}}'.encode()
            )

    def unsubscribe(self, connection: Connection, name: str) -> None:
        for entry in self.markets.values():
            if connection in entry.waiting and name == entry.streams["order_book"].name:
                entry.waiting.remove(connection)
        self.hub.unsubscribe(connection, [name])

    def _begin_book(self, entry: LighterMarket, connection: Connection) -> None:
        name = entry.streams["order_book"].name
        if connection.id not in self.hub.connections:
            return
        connection.names.pop(name, None)
        i = entry.instrument
        if not entry.active and not entry.market.bids:
            payload = texts.empty_order_book(i, self.now)
        else:
            book = entry.market.snapshot()
            bids = book.bids
            if entry.wrong_book:
                entry.wrong_book = False
                (price, size), *others = bids
                bids = [(price, size + 1), *others]
                self.fault("wrong_book", symbol=i.symbol, nonce=entry.nonce, price=i.price_text(price))
            payload = texts.order_book(
                i,
                "subscribed",
                asks=texts.levels(i, book.asks),
                bids=texts.levels(i, bids),
                offset=entry.offset,
                nonce=entry.nonce,
                begin=0,
                at_us=entry.batch_us,
                now_ms=self.now,
            )
        connection.send(payload)
        self.hub.note("snapshot", connection, stream=name, nonce=entry.nonce)
        self.hub.subscribe(connection, [name], lambda _: True)

    def _replay_trades(self, entry: LighterMarket, connection: Connection) -> None:
        """Every subscribe replays the last 50 trades."""
        i = entry.instrument
        last = list(entry.trades)[-REPLAYED_TRADES:]
        ordinary = [texts.trade_row(i, fill, kind) for fill, kind in reversed(last) if kind == "trade"]
        liquidations = [texts.trade_row(i, fill, kind) for fill, kind in reversed(last) if kind != "trade"]
        connection.send(texts.trades(i, "subscribed", entry.market.last_id, ordinary, liquidations))

    def _account(self, channel: str, key: str) -> bytes:
        """The first frame of an account channel: an account without anything."""
        body: dict[str, Any] = {"account": int(key), "channel": f"{channel}:{key}"}
        if channel == "user_stats":
            body = {"channel": f"{channel}:{key}", "stats": {"collateral": "0.000000", "leverage": "0.00"}}
        elif channel == "account_all":
            body |= {"positions": {}, "trades": {}}
        body |= {"timestamp": self.now, "type": f"subscribed/{channel}"}
        return texts.dumps(body)

    # -- figures ---------------------------------------------------------------------------------------

    def funding_rate(self, symbol: str, hour_ms: int) -> int:
        """Percent per hour in units of 0.0001, paid at ``hour_ms``: a function of seed, symbol and time."""
        return zlib.crc32(f"{self.config.seed}:{symbol}:{hour_ms}".encode()) % 61 - 30

    def stats(self, entry: LighterMarket) -> dict[str, Any]:
        i, market = entry.instrument, entry.market
        bid, _, ask, _ = entry.quoted
        hour = self.now // HOUR_MS * HOUR_MS
        middle = i.price_text((bid + ask) // 2)
        quote = entry.open_interest * market.last_price
        paid, running = self.funding_rate(i.symbol, hour), self.funding_rate(i.symbol, hour + HOUR_MS)
        price = market.last_price / 10**i.price_decimals
        return {
            "symbol": i.symbol,
            "market_id": i.market_id,
            "index_price": middle,
            "mark_price": middle,
            "mid_price": middle,
            "best_ask_price": i.price_text(ask),
            "best_bid_price": i.price_text(bid),
            "open_interest": quote_text(quote, i.value_decimals),
            "open_interest_limit": "72057594037927936.000000",
            "funding_clamp_small": "0.0500",
            "funding_clamp_big": "4.0000",
            "last_trade_price": i.price_text(market.last_price),
            "current_funding_rate": percent_text(running),
            "funding_rate": percent_text(paid),
            "funding_timestamp": hour + 1,
            "daily_base_token_volume": float(sum(c.volume for c in entry.candles)) / 10**i.quantity_decimals,
            "daily_quote_token_volume": round(1e9 / (i.rank + 1), 6),
            "daily_price_low": round(price * 0.98, i.price_decimals),
            "daily_price_high": round(price * 1.02, i.price_decimals),
            "daily_price_change": 0.0,
            "base_interest_rate": "0.0100",
        }


def percent_text(value: int) -> str:
    return f"{'-' if value < 0 else ''}0.{abs(value):04d}"


def quote_text(value: int, decimals: int) -> str:
    """A quote amount with the 6 decimals Lighter writes, cut, not rounded."""
    micro = value * 10**6 // 10**decimals
    return f"{micro // 10**6}.{micro % 10**6:06d}"
