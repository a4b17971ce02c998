"""How Lighter's frames become rows. Source of the shapes: the venue's API docs and recorded frames of July 2026.

Times come in ms (`timestamp`) and µs (`last_updated_at`, `transaction_time`); rates in percent per hour; open interest
in quote units. Unknown fields are ignored; a known field of another type rejects the frame.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from depthvault.errors import MalformedFrameError
from depthvault.exchanges.decode.books import Book
from depthvault.exchanges.decode.rows import Row
from depthvault.exchanges.decode.values import Numbers, micros, optional_micros

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

FUNDING_HOURS = 1
ALL_LEVELS = 2**31 - 1
"""`limit` of a book that was asked for whole."""
_BOOK_CHANNEL = re.compile(r"order_book:(\d{1,18})").fullmatch
_TRADE_CHANNEL = re.compile(r"trade:(\d{1,18})").fullmatch


class Level(msgspec.Struct):
    price: str
    size: str


class OrderBook(msgspec.Struct):
    asks: list[Level]
    bids: list[Level]
    nonce: Id
    begin_nonce: Id
    last_updated_at: int


class BookMessage(msgspec.Struct):
    channel: str
    order_book: OrderBook
    timestamp: int
    type: str


class Trade(msgspec.Struct):
    trade_id: Id
    type: str
    size: str
    price: str
    is_maker_ask: bool
    timestamp: int
    transaction_time: int | None = None


class TradeMessage(msgspec.Struct):
    channel: str
    trades: list[Trade] | None = None
    liquidation_trades: list[Trade] | None = None


class Quote(msgspec.Struct):
    price: str
    size: str


class Ticker(msgspec.Struct):
    s: str
    a: Quote
    b: Quote
    last_updated_at: int = 0


class TickerMessage(msgspec.Struct):
    nonce: Id
    ticker: Ticker
    timestamp: int


class Stats(msgspec.Struct):
    symbol: str
    index_price: str = ""
    mark_price: str = ""
    open_interest: str = ""
    current_funding_rate: str = ""
    funding_rate: str = ""
    funding_timestamp: int = 0


class StatsMessage(msgspec.Struct):
    """`market_stats` is one object, or for the channel of all markets an object of them."""

    channel: str
    market_stats: msgspec.Raw
    timestamp: int


_book = msgspec.json.Decoder(BookMessage).decode
_trades = msgspec.json.Decoder(TradeMessage).decode
_ticker = msgspec.json.Decoder(TickerMessage).decode
_stats = msgspec.json.Decoder(StatsMessage).decode
_one = msgspec.json.Decoder(Stats).decode
_all = msgspec.json.Decoder(dict[str, Stats]).decode


def symbol_of(symbols: Mapping[int, str], channel: str, match: re.Match[str] | None) -> str:
    """The symbol of a channel's market number. Raises MalformedFrameError when the catalogue has none."""
    if match is None:
        raise MalformedFrameError(f"another channel: {channel[:60]!r}")
    symbol = symbols.get(int(match[1]))
    if not symbol:
        raise MalformedFrameError(f"market {match[1]} is not in the catalogue")
    return symbol


def book(symbols: Mapping[int, str], stream: str, body: bytes, numbers: Numbers) -> Book:
    """An `order_book` frame: `nonce` ends the batch, `begin_nonce` ended the one before; a whole book has none before.

    The venue names no first id of a batch: the last stands for it. `offset` belongs to one API server and is ignored.
    """
    message = _book(body)
    whole = message.type == "subscribed/order_book"
    if not whole and message.type != "update/order_book":
        raise MalformedFrameError(f"another type: {message.type[:60]!r}")
    state = message.order_book
    symbol = symbol_of(symbols, message.channel, _BOOK_CHANNEL(message.channel))
    read = numbers.unsigned
    return Book(
        micros(message.timestamp),
        symbol,
        optional_micros(state.last_updated_at),
        state.nonce,
        state.nonce,
        None if whole else state.begin_nonce,
        whole,
        [read(level.price) for level in state.bids],
        [read(level.size) for level in state.bids],
        [read(level.price) for level in state.asks],
        [read(level.size) for level in state.asks],
    )


def whole_book(symbols: Mapping[int, str], line: str, body: bytes, numbers: Numbers) -> Book:
    """The book that answered a probe. It shows the book when it was sent, however long ago that last changed."""
    found = book(symbols, line, body, numbers)
    if not found.is_snapshot:
        raise MalformedFrameError("an update is no answer to a probe")
    return found._replace(transaction_time=None)


def _when(trade: Trade) -> tuple[int, int]:
    event = micros(trade.timestamp)
    return event, micros(trade.transaction_time) if trade.transaction_time else event


def trades(symbols: Mapping[int, str], stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """All fills of a frame, those of `liquidation_trades` too: the venue keeps the two lists disjoint.

    Each (re)subscription replays the last 50 trades: they come with their own ids and times and are merged by id.
    """
    message = _trades(body)
    symbol = symbol_of(symbols, message.channel, _TRADE_CHANNEL(message.channel))
    found = [*(message.trades or ()), *(message.liquidation_trades or ())]
    rows: list[Row] = []
    for one in found:
        event, transaction = _when(one)
        price, size = numbers.unsigned(one.price), numbers.unsigned(one.size)
        rows.append((event, symbol, transaction, one.trade_id, price, size, not one.is_maker_ask, one.type))
    return rows


def liquidations(symbols: Mapping[int, str], stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """The fills of `liquidation_trades`. The forced order is the taker: it buys when the maker asked."""
    message = _trades(body)
    symbol = symbol_of(symbols, message.channel, _TRADE_CHANNEL(message.channel))
    rows: list[Row] = []
    for one in message.liquidation_trades or ():
        event, transaction = _when(one)
        price, size = numbers.unsigned(one.price), numbers.unsigned(one.size)
        side = "BUY" if one.is_maker_ask else "SELL"
        rows.append((event, symbol, transaction, one.trade_id, side, one.type, None, price, None, size, size, None))
    return rows


def tickers(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """Best bid and ask; the texts of an empty side are empty, hence null."""
    message = _ticker(body)
    ticker = message.ticker
    if not ticker.s:
        raise MalformedFrameError("ticker without a symbol")
    read = numbers.optional
    bid = (read(ticker.b.price), read(ticker.b.size)) if ticker.b.price else (None, None)
    ask = (read(ticker.a.price), read(ticker.a.size)) if ticker.a.price else (None, None)
    updated = optional_micros(ticker.last_updated_at)
    return ((micros(message.timestamp), ticker.s, updated, message.nonce, *bid, *ask),)


def _markets(message: StatsMessage) -> list[Stats]:
    raw = message.market_stats
    found = list(_all(raw).values()) if message.channel == "market_stats:all" else [_one(raw)]
    if not all(one.symbol for one in found):
        raise MalformedFrameError("market_stats without a symbol")
    return found


def mark_prices(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """Mark and index price; the rate is the estimate for the running hour, a fraction per hour."""
    message = _stats(body)
    event, read = micros(message.timestamp), numbers.optional
    return [
        (event, one.symbol, read(one.mark_price), read(one.index_price), _rate(one.current_funding_rate, numbers), None)
        for one in _markets(message)
    ]


def open_interests(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """Open interest in quote units; the stream gives no base amount."""
    message = _stats(body)
    event = micros(message.timestamp)
    return [
        (event, one.symbol, None, numbers.volume(one.open_interest)) for one in _markets(message) if one.open_interest
    ]


class FundingReader:
    """Settled rates out of `market_stats`: each symbol's last payment, once for each settlement."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def __call__(self, stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
        rows: list[Row] = []
        fresh: dict[str, int] = {}
        for one in _markets(_stats(body)):
            if not one.funding_timestamp or not one.funding_rate:
                continue
            paid = micros(one.funding_timestamp)
            if self._seen.get(one.symbol) != paid:
                rows.append((None, one.symbol, paid, _rate(one.funding_rate, numbers), FUNDING_HOURS, None))
                fresh[one.symbol] = paid
        self._seen |= fresh  # only now: a frame that is rejected has paid nothing
        return rows


def _rate(text: str, numbers: Numbers) -> float | None:
    return numbers.percent(text) if text else None
