"""A live Binance venue: markets that move on a 25 ms tick and everything the venue says about them.

One engine serves spot and USDⓈ-M; what differs are the texts, the cadences and the ids: spot ids are +1 per
symbol, futures ids are one sequence with holes over all symbols, chained by ``pu``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from simulator import binance_texts as texts
from simulator.binance_futures import Derivatives
from simulator.binance_listing import TICK_MS, DepthWindow, Listed, interval_ms
from simulator.binance_venue import BinanceVenue
from simulator.config import SimulatorConfig
from simulator.hub import Stream
from simulator.instruments import Instrument, binance_futures_instrument, binance_spot_instrument
from simulator.market import Fill, IdSequence, Market
from simulator.truth import Ledger

MINUTE_MS = 60_000

SPOT_DEPTH_MS = {"depth": 1000, "depth@100ms": 100}
FUTURES_DEPTH_MS = {"depth": 250, "depth@500ms": 500, "depth@100ms": 100, "depth@0ms": 50}
"""Cadence of the diff streams. ``@depth@0ms`` is not documented; about 50 ms was measured."""

_PARTIAL_LEVELS = ("5", "10", "20")


class LiveBinance(BinanceVenue):
    """Spot or USDⓈ-M with a market model behind it."""

    def __init__(self, key: str, config: SimulatorConfig, ledger: Ledger, start_ms: int) -> None:
        super().__init__(key, config, ledger, start_ms)
        self.now = start_ms
        self.tick_count = 0
        self.listed: dict[str, Listed] = {}
        self._by_stream_name: dict[str, Listed] = {}
        self._arrays: dict[str, Stream] = {}
        self.derivatives = Derivatives(config.seed, config.rate, self.hub, self.listed, self._arrays)
        rate = min(max(config.rate, 0.0), 10.0) / 10.0
        self._activity = 1.0 - (1.0 - rate) ** 0.25
        # Ids grow with the clock, so that a restarted simulator goes on above the ids it used before.
        self._futures_ids = IdSequence(start_ms * 200, holes=5)
        self._history = max(1_000, config.history // max(1, config.symbols))
        self._depth_ms = SPOT_DEPTH_MS if self.is_spot else FUTURES_DEPTH_MS
        make = binance_spot_instrument if self.is_spot else binance_futures_instrument
        for rank in range(config.symbols):
            self.list_symbol(make(rank))

    def now_ms(self) -> int:
        return self.now

    # -- listing ---------------------------------------------------------------------------------------

    def list_symbol(self, instrument: Instrument) -> Listed:
        """Start trading in a symbol; streams that clients already asked for come alive."""
        seed = f"{self.config.seed}:{self.key}:{instrument.symbol}"
        ids = IdSequence(self.start_ms + instrument.rank * 1_000) if self.is_spot else self._futures_ids
        trade_base = self.start_ms // 10 + instrument.rank * 1_000
        market = Market(
            instrument,
            random.Random(seed),
            ids,
            levels=self.config.book_levels,
            first_trade_id=trade_base,
        )
        market.last_time_ms = self.now
        listed = Listed(market, trade_base // 2, self._history, self.now)
        self.listed[instrument.symbol] = listed
        lower = instrument.symbol.lower()
        self._by_stream_name[lower] = listed
        self._note_book(listed)
        for name, stream in list(self.hub.streams.items()):  # asked for before the listing
            if name.startswith(f"{lower}@"):
                self._attach(listed, stream)
        always = ["depth@100ms", "bookTicker", "trade", "aggTrade", "kline_1m"]
        if not self.is_spot:
            always += ["markPrice@1s", "forceOrder"]
        for channel in always:
            self.hub.stream(f"{lower}@{channel}").active = True
        return listed

    def _note_book(self, listed: Listed) -> None:
        i, m = listed.instrument, listed.market
        bids = ",".join(f"[{p},{q}]" for p, q in m.bids.items())
        asks = ",".join(f"[{p},{q}]" for p, q in m.asks.items())
        self.ledger.book(
            self.key,
            i.symbol,
            self.now,
            f'{{"id":{m.last_id},"price_decimals":{i.price_decimals},"price_pad":{i.price_pad},'
            f'"quantity_decimals":{i.quantity_decimals},"quantity_pad":{i.quantity_pad},'
            f'"bids":[{bids}],"asks":[{asks}]}}',
        )

    def make_stream(self, name: str) -> Stream:
        stream = super().make_stream(name)
        listed = self._by_stream_name.get(name.partition("@")[0])
        if listed is not None and not name.startswith("!"):
            self._attach(listed, stream)
        elif name.startswith("!"):
            self._arrays[name] = stream
        return stream

    def _attach(self, listed: Listed, stream: Stream) -> None:
        channel = stream.channel
        stream.symbol = listed.instrument.symbol
        if channel in self._depth_ms:
            self._add_window(listed, stream, self._depth_ms[channel], 0)
        elif channel.startswith("depth"):
            levels, _, speed = channel[5:].partition("@")
            period = self._depth_ms.get(f"depth@{speed}" if speed else "depth")
            if levels in _PARTIAL_LEVELS and period is not None and speed != "0ms":
                self._add_window(listed, stream, period, int(levels))
        elif channel == "bookTicker":
            listed.book_ticker = stream
        elif channel == "trade":
            listed.trade = stream
        elif channel == "aggTrade":
            listed.agg_trade = stream
        elif channel.startswith("kline_"):
            period = interval_ms(channel[6:])
            if period is not None and (self.is_spot or period >= MINUTE_MS):
                open_ms = self.now // period * period
                candle = texts.Candle(open_ms, listed.market.last_price)
                for fill in listed.trades:
                    if fill.time_ms >= open_ms:
                        candle.add(fill)
                listed.klines[channel[6:]] = (period, stream, candle)
        elif not self.is_spot and channel in ("markPrice", "markPrice@1s"):
            listed.mark_price.append((1 if channel == "markPrice@1s" else 3, stream))
        elif not self.is_spot and channel == "forceOrder":
            listed.force_order = stream

    def _add_window(self, listed: Listed, stream: Stream, period_ms: int, levels: int) -> None:
        listed.windows.append(DepthWindow(stream, period_ms, levels, listed.market.last_id))

    # -- time ------------------------------------------------------------------------------------------

    def tick(self, time_ms: int) -> None:
        """One step of 25 ms for every symbol; events are queued, not yet written."""
        self.now = time_ms
        self.tick_count += 1
        new_second = time_ms % 1000 < TICK_MS
        new_minute = time_ms % MINUTE_MS < TICK_MS
        for listed in list(self.listed.values()):
            if listed.trading:
                self._tick_symbol(listed, time_ms, new_minute)
                if new_second and not self.is_spot:
                    self.derivatives.each_second(listed, time_ms)
        if new_second and not self.is_spot:
            self.derivatives.arrays_each_second(time_ms)

    def _tick_symbol(self, listed: Listed, time_ms: int, new_minute: bool) -> None:
        market = listed.market
        rank = listed.instrument.rank
        phase = self.tick_count + rank
        if new_minute:
            self._close_aggregate(listed)
        if listed.klines:
            self._roll_candles(listed, time_ms)
        if listed.must_move or market.rng.random() < self._activity:
            listed.must_move = False
            busy = 4 if rank < 2 else 1
            market.step(time_ms, self.config.changes * busy, 0.08 * busy)
            self._changed(listed, time_ms)
        if listed.open_aggregate is not None and (self.is_spot or phase % 4 == 0):
            self._close_aggregate(listed)
        for window in listed.windows:
            if phase % window.ticks == 0 and window.first_id:
                self._emit_depth(listed, window)
        if listed.waiters:
            self._serve_waiters(listed, phase)
        if phase % 200 == 0:
            listed.checkpoints.append(market.snapshot())

    def _changed(self, listed: Listed, time_ms: int) -> None:
        market = listed.market
        if not market.first_id:
            return
        if self.ledger.enabled:
            text = ";".join([f"{n}:{side}:{p}:{q}" for n, side, p, q in market.mutations])
            self.ledger.book(self.key, listed.instrument.symbol, time_ms, text)
        for window in listed.windows:
            if not window.first_id:
                window.first_id = market.first_id
            window.last_time_ms = time_ms
            if not window.levels:
                window.bids.update(market.changed_bids)
                window.asks.update(market.changed_asks)
        for fill in market.fills:
            self._traded(listed, fill)
        top = market.top()
        if top != listed.quoted:
            listed.quoted = top
            if listed.book_ticker is not None:
                i, update_id = listed.instrument, market.last_id
                if self.is_spot:
                    payload = texts.spot_book_ticker(i, update_id, top)
                else:
                    payload = texts.futures_book_ticker(i, update_id, time_ms, time_ms, top)
                self.hub.publish(listed.book_ticker, payload, (update_id, update_id))

    def _traded(self, listed: Listed, fill: Fill) -> None:
        i = listed.instrument
        listed.trades.append(fill)
        listed.volume += fill.quantity
        listed.quote_volume += fill.price * fill.quantity
        signed = fill.quantity if fill.trade_id & 1 else -fill.quantity
        listed.open_interest = max(i.typical_size, listed.open_interest + signed)
        for _, _, candle in listed.klines.values():
            candle.add(fill)
        if listed.trade is not None:
            make = texts.spot_trade if self.is_spot else texts.futures_trade
            self.hub.publish(listed.trade, make(i, self.now, fill), (fill.trade_id, fill.trade_id))
        a = listed.open_aggregate
        if (
            a is not None
            and a.price == fill.price
            and a.buyer_is_maker == fill.buyer_is_maker
            and (not self.is_spot or listed.open_order == fill.order)
        ):
            listed.open_aggregate = a._replace(quantity=a.quantity + fill.quantity, last=fill.trade_id)
            return
        self._close_aggregate(listed)
        listed.agg_id += 1
        listed.open_order = fill.order
        listed.open_aggregate = texts.Aggregate(
            listed.agg_id,
            fill.price,
            fill.quantity,
            fill.trade_id,
            fill.trade_id,
            fill.time_ms,
            fill.buyer_is_maker,
        )

    def _close_aggregate(self, listed: Listed) -> None:
        a, listed.open_aggregate = listed.open_aggregate, None
        if a is None:
            return
        listed.aggregates.append(a)
        if listed.agg_trade is not None:
            make = texts.spot_agg_trade if self.is_spot else texts.futures_agg_trade
            self.hub.publish(listed.agg_trade, make(listed.instrument, self.now, a), (a.agg_id, a.agg_id))

    def _roll_candles(self, listed: Listed, time_ms: int) -> None:
        """Close candles whose time is over; tell of the running ones at the venue's cadence."""
        cadence = 80 if self.is_spot else 10
        speak = (self.tick_count + listed.instrument.rank) % cadence == 0
        for interval, (period, stream, candle) in list(listed.klines.items()):
            if time_ms >= candle.open_ms + period:
                payload = texts.kline(listed.instrument, time_ms, interval, period, candle, closed=True)
                self.hub.publish(stream, payload, (candle.first, candle.last))
                if interval == "1m":
                    listed.candles.append(candle)
                fresh = texts.Candle(time_ms // period * period, listed.market.last_price)
                listed.klines[interval] = (period, stream, fresh)
            elif speak and stream.subscribers and candle.count:
                payload = texts.kline(listed.instrument, time_ms, interval, period, candle, closed=False)
                self.hub.publish(stream, payload, (candle.first, candle.last))

    def _emit_depth(self, listed: Listed, window: DepthWindow) -> None:
        market, i = listed.market, listed.instrument
        first, final = window.first_id, market.last_id
        if window.levels:
            book = market.snapshot(window.levels)
            bids, asks = texts.levels(i, book.bids), texts.levels(i, book.asks)
        else:
            bids, asks = texts.levels(i, window.bids.items()), texts.levels(i, window.asks.items())
            window.bids, window.asks = {}, {}
        if not self.is_spot:
            payload = texts.futures_depth(
                i, self.now, window.last_time_ms, first, final, window.previous_id, bids, asks
            )
        elif window.levels:
            payload = texts.spot_partial(final, bids, asks)
        else:
            payload = texts.spot_depth(i, self.now, first, final, bids, asks)
        window.first_id = 0
        window.previous_id = final
        self.hub.publish(window.stream, payload, (first, final))

    def _serve_waiters(self, listed: Listed, phase: int) -> None:
        """Answer snapshot requests that wait for a certain place between two events of depth@100ms."""
        reference = next(w for w in listed.windows if w.stream.channel == "depth@100ms")
        inside = bool(reference.first_id)
        ended = phase % reference.ticks == 0 and reference.previous_id == listed.market.last_id
        for pair in list(listed.waiters):
            place, future = pair
            if future.done():
                listed.waiters.remove(pair)
            elif (place == "inside" and inside) or (place == "event_end" and ended):
                listed.waiters.remove(pair)
                future.set_result(listed.market.snapshot())
                listed.must_move = True
            elif place == "inside":
                listed.must_move = True

    def set_status(self, symbol: str, status: str) -> None:
        """Delist, halt or resume a symbol; the streams of one that does not trade fall silent."""
        self.listed[symbol].status = status
        if not self.is_spot:
            self.derivatives.contract_info(symbol, status, self.now)

    def known_streams(self) -> Iterator[str]:
        for lower in self._by_stream_name:
            for channel in self._depth_ms:
                yield f"{lower}@{channel}"
            for channel in ("bookTicker", "trade", "aggTrade", "kline_1m"):
                yield f"{lower}@{channel}"
