"""Binance message bodies, byte for byte as the venue writes them (field order and padding of 2026).

Sources: Binance spot and USDⓈ-M documentation and frames captured between July and October 2026.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from simulator.instruments import Instrument
from simulator.market import Fill


class Candle:
    """A candle in the making; ``volume`` and its kin are exact integers in units."""

    __slots__ = (
        "close", "count", "first", "high", "last", "low", "open", "open_ms", "quote", "taker", "taker_quote",
        "volume",
    )  # fmt: skip

    def __init__(self, open_ms: int, price: int) -> None:
        self.open_ms = open_ms
        self.open = self.high = self.low = self.close = price
        self.first = self.last = -1
        self.count = self.volume = self.quote = self.taker = self.taker_quote = 0

    def add(self, fill: Fill) -> None:
        price, quantity = fill.price, fill.quantity
        if not self.count:
            self.first = fill.trade_id
            self.open = self.high = self.low = price
        elif price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close = price
        self.last = fill.trade_id
        self.count += 1
        self.volume += quantity
        self.quote += price * quantity
        if not fill.buyer_is_maker:
            self.taker += quantity
            self.taker_quote += price * quantity


class Aggregate(NamedTuple):
    """One aggregate trade: same price, same taker side; ids of its first and last fill."""

    agg_id: int
    price: int
    quantity: int
    first: int
    last: int
    time_ms: int
    buyer_is_maker: bool


def levels(i: Instrument, changes: Iterable[tuple[int, int]]) -> str:
    price, quantity = i.price_text, i.quantity_text
    return ",".join([f'["{price(p)}","{quantity(q)}"]' for p, q in changes])


def value_text(i: Instrument, value: int) -> str:
    """A price times quantity, with all its decimals and padded to 8 on spot."""
    decimals = i.value_decimals
    if decimals == 0:
        return str(value)
    whole, fraction = divmod(value, 10**decimals)
    text = f"{whole}.{fraction:0{decimals}d}"
    return text + "0" * (8 - decimals) if i.is_spot and decimals < 8 else text


def boolean(value: bool) -> str:
    return "true" if value else "false"


def spot_depth(i: Instrument, event_ms: int, first: int, final: int, bids: str, asks: str) -> bytes:
    return (
        f'{{"e":"depthUpdate","E":{event_ms},"s":"{i.symbol}","U":{first},"u":{final},"b":[{bids}],"a":[{asks}]}}'
    ).encode()


def futures_depth(
    i: Instrument, event_ms: int, time_ms: int, first: int, final: int, previous: int, bids: str, asks: str
) -> bytes:
    return (
        f'{{"e":"depthUpdate","E":{event_ms},"T":{time_ms},"s":"{i.symbol}","ps":"{i.symbol}",'
        f'"U":{first},"u":{final},"pu":{previous},"b":[{bids}],"a":[{asks}],"st":1}}'
    ).encode()


def spot_partial(update_id: int, bids: str, asks: str) -> bytes:
    return f'{{"lastUpdateId":{update_id},"bids":[{bids}],"asks":[{asks}]}}'.encode()


def spot_book_ticker(i: Instrument, update_id: int, top: tuple[int, int, int, int]) -> bytes:
    price, quantity = i.price_text, i.quantity_text
    return (
        f'{{"u":{update_id},"s":"{i.symbol}","b":"{price(top[0])}","B":"{quantity(top[1])}",'
        f'"a":"{price(top[2])}","A":"{quantity(top[3])}"}}'
    ).encode()


def futures_book_ticker(
    i: Instrument, update_id: int, time_ms: int, event_ms: int, top: tuple[int, int, int, int]
) -> bytes:
    price, quantity = i.price_text, i.quantity_text
    return (
        f'{{"e":"bookTicker","u":{update_id},"s":"{i.symbol}","ps":"{i.symbol}","b":"{price(top[0])}",'
        f'"B":"{quantity(top[1])}","a":"{price(top[2])}","A":"{quantity(top[3])}","T":{time_ms},'
        f'"E":{event_ms},"st":1}}'
    ).encode()


def spot_trade(i: Instrument, event_ms: int, fill: Fill) -> bytes:
    return (
        f'{{"e":"trade","E":{event_ms},"s":"{i.symbol}","t":{fill.trade_id},"p":"{i.price_text(fill.price)}",'
        f'"q":"{i.quantity_text(fill.quantity)}","T":{fill.time_ms},"m":{boolean(fill.buyer_is_maker)},"M":true}}'
    ).encode()


def futures_trade(i: Instrument, event_ms: int, fill: Fill) -> bytes:
    return (
        f'{{"e":"trade","E":{event_ms},"T":{fill.time_ms},"s":"{i.symbol}","t":{fill.trade_id},'
        f'"p":"{i.price_text(fill.price)}","q":"{i.quantity_text(fill.quantity)}","X":"MARKET",'
        f'"m":{boolean(fill.buyer_is_maker)},"st":1}}'
    ).encode()


def spot_agg_trade(i: Instrument, event_ms: int, a: Aggregate) -> bytes:
    return (
        f'{{"e":"aggTrade","E":{event_ms},"s":"{i.symbol}","a":{a.agg_id},"p":"{i.price_text(a.price)}",'
        f'"q":"{i.quantity_text(a.quantity)}","f":{a.first},"l":{a.last},"T":{a.time_ms},'
        f'"m":{boolean(a.buyer_is_maker)},"M":true}}'
    ).encode()


def futures_agg_trade(i: Instrument, event_ms: int, a: Aggregate) -> bytes:
    quantity = i.quantity_text(a.quantity)
    return (
        f'{{"e":"aggTrade","E":{event_ms},"a":{a.agg_id},"s":"{i.symbol}","p":"{i.price_text(a.price)}",'
        f'"q":"{quantity}","nq":"{quantity}","f":{a.first},"l":{a.last},"T":{a.time_ms},'
        f'"m":{boolean(a.buyer_is_maker)},"st":1}}'
    ).encode()


def agg_trade_row(i: Instrument, a: Aggregate) -> str:
    """A row of REST ``aggTrades``."""
    quantity = i.quantity_text(a.quantity)
    tail = ',"M":true' if i.is_spot else ""
    net = "" if i.is_spot else f'"nq":"{quantity}",'
    return (
        f'{{"a":{a.agg_id},"p":"{i.price_text(a.price)}","q":"{quantity}",{net}"f":{a.first},"l":{a.last},'
        f'"T":{a.time_ms},"m":{boolean(a.buyer_is_maker)}{tail}}}'
    )


def trade_row(i: Instrument, fill: Fill) -> str:
    """A row of REST ``trades``."""
    tail = '"isBestMatch":true' if i.is_spot else '"isRPITrade":false'
    return (
        f'{{"id":{fill.trade_id},"price":"{i.price_text(fill.price)}","qty":"{i.quantity_text(fill.quantity)}",'
        f'"quoteQty":"{value_text(i, fill.price * fill.quantity)}","time":{fill.time_ms},'
        f'"isBuyerMaker":{boolean(fill.buyer_is_maker)},{tail}}}'
    )


def kline(i: Instrument, event_ms: int, interval: str, period_ms: int, c: Candle, closed: bool) -> bytes:
    p, q = i.price_text, i.quantity_text
    return (
        f'{{"e":"kline","E":{event_ms},"s":"{i.symbol}","k":{{"t":{c.open_ms},"T":{c.open_ms + period_ms - 1},'
        f'"s":"{i.symbol}","i":"{interval}","f":{c.first},"L":{c.last},"o":"{p(c.open)}","c":"{p(c.close)}",'
        f'"h":"{p(c.high)}","l":"{p(c.low)}","v":"{q(c.volume)}","n":{c.count},"x":{boolean(closed)},'
        f'"q":"{value_text(i, c.quote)}","V":"{q(c.taker)}","Q":"{value_text(i, c.taker_quote)}","B":"0"}}}}'
    ).encode()


def kline_row(i: Instrument, period_ms: int, c: Candle) -> str:
    """A row of REST ``klines``."""
    p, q = i.price_text, i.quantity_text
    return (
        f'[{c.open_ms},"{p(c.open)}","{p(c.high)}","{p(c.low)}","{p(c.close)}","{q(c.volume)}",'
        f'{c.open_ms + period_ms - 1},"{value_text(i, c.quote)}",{c.count},"{q(c.taker)}",'
        f'"{value_text(i, c.taker_quote)}","0"]'
    )
