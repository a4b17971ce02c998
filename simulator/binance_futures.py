"""What only USDⓈ-M says: mark prices, funding, liquidations and the all-market arrays.

Funding is a function of seed, symbol and time alone, so REST tells the same past however often it is asked.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from simulator import binance_texts as texts
from simulator.binance_listing import Listed
from simulator.hub import Hub, Stream

HOUR_MS = 3_600_000


def _eight(value: int) -> str:
    """The text of an integer in units of 1e-8."""
    return f"{value // 10**8}.{value % 10**8:08d}"


class Derivatives:
    """Mark price, funding and liquidations of the listed symbols.

    ``arrays`` holds the all-market streams that somebody asked for, by name.
    """

    def __init__(
        self, seed: int, rate: float, hub: Hub, listed: Mapping[str, Listed], arrays: Mapping[str, Stream]
    ) -> None:
        self.seed = seed
        self.rate = rate
        self.hub = hub
        self.listed = listed
        self.arrays = arrays

    def mark_texts(self, listed: Listed) -> tuple[str, str, str]:
        """Mark, index and estimated settle price, with 8 decimals as the venue writes them."""
        i = listed.instrument
        scale = 10 ** (8 - i.price_decimals)
        middle = (listed.market.best_bid + listed.market.best_ask) * scale // 2
        index = middle + middle // 20_000
        return _eight(middle), _eight(index), _eight(index + index // 30_000)

    def funding_hours(self, symbol: str) -> int:
        return (8, 8, 4, 1)[zlib.crc32(symbol.encode()) % 4]

    def funding_rate(self, symbol: str, funding_ms: int) -> str:
        """The rate settled at ``funding_ms``: a function of seed, symbol and time alone."""
        chance = zlib.crc32(f"{self.seed}:{symbol}:{funding_ms}".encode())
        rate = chance % 30_001 - 10_000
        return f"{'-' if rate < 0 else ''}0.{abs(rate):08d}"

    def funding_mark(self, listed: Listed, funding_ms: int) -> str:
        """The mark price of a settlement: also a function of seed, symbol and time alone."""
        i = listed.instrument
        chance = zlib.crc32(f"{self.seed}:{i.symbol}:mark:{funding_ms}".encode())
        value = i.price * 10 ** (8 - i.price_decimals) * (99_000 + chance % 2_001) // 100_000
        return _eight(value)

    def next_funding_ms(self, symbol: str, now_ms: int) -> int:
        period = self.funding_hours(symbol) * HOUR_MS
        return (now_ms // period + 1) * period

    def _mark_row(self, listed: Listed, time_ms: int) -> str:
        symbol = listed.instrument.symbol
        mark, index, settle = self.mark_texts(listed)
        due = self.next_funding_ms(symbol, time_ms)
        return (
            f'{{"e":"markPriceUpdate","E":{time_ms},"s":"{symbol}","p":"{mark}","ap":"{mark}","P":"{settle}",'
            f'"i":"{index}","r":"{self.funding_rate(symbol, due)}","T":{due},"st":1}}'
        )

    def each_second(self, listed: Listed, time_ms: int) -> None:
        for seconds, stream in listed.mark_price:
            if time_ms // 1000 % seconds == 0:
                self.hub.publish(stream, self._mark_row(listed, time_ms).encode(), (time_ms, time_ms))
        if listed.market.rng.random() < 0.002 * self.rate:
            self.liquidate(listed, time_ms)

    def liquidate(self, listed: Listed, time_ms: int) -> None:
        """At most one message a second and symbol: the largest liquidation of the window."""
        i, market = listed.instrument, listed.market
        rng = market.rng
        sell = rng.random() < 0.5
        quantity = max(2 * i.lot, int(i.typical_size * rng.random() * 2))
        last = max(i.lot, int(quantity * rng.random()))
        price = (market.best_bid - 40 * i.tick) if sell else (market.best_ask + 40 * i.tick)
        average = market.best_bid if sell else market.best_ask
        payload = (
            f'{{"e":"forceOrder","E":{time_ms},"o":{{"s":"{i.symbol}","S":"{"SELL" if sell else "BUY"}","o":"LIMIT",'
            f'"f":"IOC","q":"{i.quantity_text(quantity)}","p":"{i.price_text(max(i.tick, price))}",'
            f'"ap":"{i.price_text(average)}","X":"FILLED","l":"{i.quantity_text(last)}",'
            f'"z":"{i.quantity_text(quantity)}","T":{time_ms - 5},"ps":"{i.symbol}","st":1}}}}'
        ).encode()
        for stream in (listed.force_order, self.arrays.get("!forceOrder@arr")):
            if stream is not None:
                self.hub.publish(stream, payload, (time_ms, time_ms))

    def arrays_each_second(self, time_ms: int) -> None:
        for name, seconds in (("!markPrice@arr@1s", 1), ("!markPrice@arr", 3)):
            stream = self.arrays.get(name)
            if stream is None or time_ms // 1000 % seconds:
                continue
            # Measured on the venue: two frames, the second holds the TradFi contracts; delisted contracts
            # stay in the first with rate zero and no next funding.
            rows = [self._mark_row(listed, time_ms) for listed in self.listed.values()]
            dead = (
                f'{{"e":"markPriceUpdate","E":{time_ms},"s":"OMGUSDT","p":"0.16420000","ap":"0.16420000",'
                f'"P":"0.00000000","i":"0.16420000","r":"0.00000000","T":0,"st":1}}'
            )
            gold = (
                f'{{"e":"markPriceUpdate","E":{time_ms},"s":"XAUUSDT","p":"4103.92233180","ap":"4103.92233180",'
                f'"P":"4098.72755326","i":"4100.14187735","r":"0.00019799",'
                f'"T":{self.next_funding_ms("XAUUSDT", time_ms)},"st":1}}'
            )
            self.hub.publish(stream, f"[{','.join([*rows, dead])}]".encode(), (time_ms, time_ms))
            self.hub.publish(stream, f"[{gold}]".encode(), (time_ms, time_ms))
        stream = self.arrays.get("!bookTicker")
        if stream is not None and time_ms // 1000 % 5 == 0:
            for listed in self.listed.values():
                if listed.trading:
                    m = listed.market
                    payload = texts.futures_book_ticker(m.instrument, m.last_id, m.last_time_ms, time_ms, m.top())
                    self.hub.publish(stream, payload, (m.last_id, m.last_id))

    def contract_info(self, symbol: str, status: str, now_ms: int) -> None:
        """``!contractInfo``: the push signal of a listing or delisting."""
        stream = self.hub.stream("!contractInfo")
        onboard = self.listed[symbol].listed_ms
        payload = (
            f'{{"e":"contractInfo","E":{now_ms},"s":"{symbol}","ps":"{symbol}","ct":"PERPETUAL",'
            f'"dt":4133404800000,"ot":{onboard},"cs":"{status}","bks":[{{"bs":1,"bnf":0,"bnc":5000,'
            f'"mmr":0.01,"cf":0,"mi":21,"ma":50}}],"st":1}}'
        )
        self.hub.publish(stream, payload.encode(), (now_ms, now_ms))
