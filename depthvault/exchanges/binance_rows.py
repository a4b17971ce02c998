"""How Binance's frames and REST answers become rows: one function a shape."""

from __future__ import annotations

from collections.abc import Sequence

from depthvault.errors import MalformedFrameError
from depthvault.exchanges import binance_shapes as shapes
from depthvault.exchanges.decode.books import Book, levels
from depthvault.exchanges.decode.rows import Row
from depthvault.exchanges.decode.values import Numbers, micros, optional_micros

CLOSED_FOR_US = 5_000_000
"""A REST candle counts as closed when it ended so long before receipt: our clock and the venue's differ."""


def _symbol(text: str) -> str:
    if not text:
        raise MalformedFrameError("empty symbol")
    return text


def _ordered(first: int, final: int) -> None:
    if first > final:
        raise MalformedFrameError(f"first update id {first} is above the final one {final}")


def stream_symbol(stream: str) -> str:
    """`btcusdt@depth20@100ms` is of BTCUSDT. Upper-casing is ASCII alone: `ı` and the like must not change."""
    return ascii_upper(stream.partition("@")[0])


def ascii_upper(text: str) -> str:
    """`text` with a–z made A–Z and nothing else changed."""
    return text.upper() if text.isascii() else "".join(c.upper() if c.isascii() else c for c in text)


def ascii_lower(text: str) -> str:
    """`text` with A–Z made a–z and nothing else changed: stream names of non-ASCII symbols keep their letters."""
    return text.lower() if text.isascii() else "".join(c.lower() if c.isascii() else c for c in text)


def spot_diff(stream: str, body: bytes, numbers: Numbers) -> Book:
    """A spot `depthUpdate`: no engine time, no previous id."""
    data = shapes.decode_spot_diff(body).data
    _ordered(data.U, data.u)
    sides = (*levels(data.b, numbers), *levels(data.a, numbers))
    return Book(micros(data.E), _symbol(data.s), None, data.U, data.u, None, False, *sides)


def futures_diff(stream: str, body: bytes, numbers: Numbers) -> Book:
    """A futures `depthUpdate` with its chain id `pu`."""
    data = shapes.decode_futures_diff(body).data
    _ordered(data.U, data.u)
    sides = (*levels(data.b, numbers), *levels(data.a, numbers))
    return Book(micros(data.E), _symbol(data.s), micros(data.T), data.U, data.u, data.pu, False, *sides)


def futures_partial(stream: str, body: bytes, numbers: Numbers) -> Book:
    """As a diff, but the levels replace the top of the book."""
    return futures_diff(stream, body, numbers)._replace(is_snapshot=True)


def spot_partial(stream: str, body: bytes, numbers: Numbers) -> Book:
    """A spot partial book: no symbol, no time; the symbol stands in the stream's name alone."""
    data = shapes.decode_spot_partial(body).data
    sides = (*levels(data.bids, numbers), *levels(data.asks, numbers))
    symbol = _symbol(stream_symbol(stream))
    return Book(None, symbol, None, data.lastUpdateId, data.lastUpdateId, None, True, *sides)


def snapshot(symbol: str, body: bytes, numbers: Numbers) -> Book:
    """A REST snapshot; the symbol is the request's."""
    data = shapes.decode_snapshot(body)
    sides = (*levels(data.bids, numbers), *levels(data.asks, numbers))
    return Book(
        optional_micros(data.E),
        _symbol(symbol),
        optional_micros(data.T),
        data.lastUpdateId,
        data.lastUpdateId,
        None,
        True,
        *sides,
    )


def book_ticker(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """Best bid and ask; a side of price and size 0 is empty, hence null.

    COIN-M rows of the all-market stream are not ours.
    """
    data = shapes.decode_book_ticker(body).data
    if data.st != shapes.USD_MARGINED and stream.startswith("!"):
        return ()
    read = numbers.unsigned
    bid, bid_size, ask, ask_size = read(data.b), read(data.B), read(data.a), read(data.A)
    return (
        (
            micros(data.E) if data.E else None,
            _symbol(data.s),
            micros(data.T) if data.T else None,
            data.u,
            *((bid, bid_size) if bid or bid_size else (None, None)),
            *((ask, ask_size) if ask or ask_size else (None, None)),
        ),
    )


def agg_trade(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """An aggregated trade. On futures `q` counts RPI fills too (`nq` would not)."""
    data = shapes.decode_agg_trade(body).data
    price, quantity = numbers.unsigned(data.p), numbers.unsigned(data.q)
    return ((micros(data.E), _symbol(data.s), micros(data.T), data.a, data.f, data.l, price, quantity, data.m),)


def rest_agg_trades(symbol: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """REST aggregated trades, as fetched to close a hole; they carry no send time."""
    read = numbers.unsigned
    return [
        (None, _symbol(symbol), micros(one.T), one.a, one.f, one.l, read(one.p), read(one.q), one.m)
        for one in shapes.decode_rest_agg_trades(body)
    ]


def trade(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """A fill; futures say its kind in `X` (MARKET, INSURANCE_FUND, ADL, NA), spot says none."""
    data = shapes.decode_trade(body).data
    price, quantity = numbers.unsigned(data.p), numbers.unsigned(data.q)
    return ((micros(data.E), _symbol(data.s), micros(data.T), data.t, price, quantity, data.m, data.X),)


def kline(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """The candle of a frame that closes it (`x`); the running ones before it are no rows."""
    data = shapes.decode_kline(body).data
    candle = data.k
    if not candle.x:
        return ()
    prices = [numbers.unsigned(text) for text in (candle.o, candle.h, candle.l, candle.c)]
    volume, quote = numbers.volume(candle.v), numbers.volume(candle.q)
    taker, taker_quote = numbers.volume(candle.V), numbers.volume(candle.Q)
    times = (micros(candle.t), micros(candle.T))
    return ((micros(data.E), _symbol(data.s), candle.i, *times, *prices, volume, quote, candle.n, taker, taker_quote),)


def rest_klines(symbol: str, interval: str, received_us: int, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """REST candles that had closed a while before the answer arrived: the last of an answer is often still running."""
    rows: list[Row] = []
    for start, o, h, low, c, volume, end, quote, count, taker, taker_quote, _ in shapes.decode_rest_klines(body):
        if micros(end) + CLOSED_FOR_US >= received_us:
            continue
        prices = [numbers.unsigned(text) for text in (o, h, low, c)]
        volumes = [numbers.volume(text) for text in (volume, quote, taker, taker_quote)]
        times = (micros(start), micros(end))
        rows.append((None, _symbol(symbol), interval, *times, *prices, *volumes[:2], count, *volumes[2:]))
    return rows


def liquidation(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """A forced order: `z` filled so far, `ap` average price, `p` order price."""
    data = shapes.decode_force_order(body).data
    order = data.o
    if order.st != shapes.USD_MARGINED and stream.startswith("!"):
        return ()
    prices = (numbers.unsigned(order.p), numbers.optional(order.ap))
    sizes = (numbers.unsigned(order.q), numbers.optional(order.z))
    when = (micros(data.E), _symbol(order.s), micros(order.T))
    return ((*when, None, order.S, order.o, order.f, *prices, *sizes, order.X),)


def mark_price(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    """Mark prices, one or an array. `r` may be empty and `T` 0 for delivery and delisted contracts."""
    data = shapes.decode_mark_price(body).data
    read = numbers.optional
    return [
        (micros(one.E), _symbol(one.s), read(one.p), read(one.i), read(one.r), optional_micros(one.T))
        for one in (data if isinstance(data, list) else (data,))
        if one.st == shapes.USD_MARGINED or not stream.startswith("!")
    ]


def premium_index(body: bytes, numbers: Numbers) -> Sequence[Row]:
    """REST mark prices."""
    data = shapes.decode_premium_index(body)
    read = numbers.optional
    return [
        (
            micros(one.time),
            _symbol(one.symbol),
            read(one.markPrice),
            read(one.indexPrice),
            read(one.lastFundingRate),
            optional_micros(one.nextFundingTime),
        )
        for one in (data if isinstance(data, list) else (data,))
    ]


def funding_intervals(body: bytes) -> dict[str, int]:
    """Hours between settlements by symbol, of the symbols whose terms were ever adjusted; all others: 8."""
    return {one.symbol: one.fundingIntervalHours for one in shapes.decode_funding_info(body)}


def funding_rates(body: bytes, numbers: Numbers, intervals: dict[str, int] | None) -> Sequence[Row]:
    """Settled rates. The interval is null when no `fundingInfo` answer came before."""
    return [
        (
            None,
            _symbol(one.symbol),
            micros(one.fundingTime),
            numbers.signed(one.fundingRate),
            None if intervals is None else intervals.get(one.symbol, 8),
            numbers.optional(one.markPrice),
        )
        for one in shapes.decode_funding(body)
    ]


def open_interest(body: bytes, numbers: Numbers) -> Sequence[Row]:
    """Open interest of one symbol in base units."""
    one = shapes.decode_open_interest(body)
    return ((micros(one.time), _symbol(one.symbol), numbers.volume(one.openInterest), None),)
