"""What Binance spot and USDⓈ-M futures have in common: names, envelopes, control messages, catalogue, decoding.

Facts are those of Binance's public documentation; "measured" marks what was seen on the live venue instead.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache, partial
from typing import ClassVar
from urllib.parse import parse_qs

import msgspec

from depthvault.clock import EPOCH
from depthvault.config import ExchangeConfig
from depthvault.errors import ConfigError, MalformedFrameError
from depthvault.exchanges import binance_rows as rows
from depthvault.exchanges import binance_shapes as shapes
from depthvault.exchanges.base import (
    Decoded,
    Exchange,
    Frame,
    FrameKind,
    Frames,
    Head,
    Instrument,
    KeepAlive,
    Request,
    Stream,
)
from depthvault.exchanges.binance_rows import ascii_lower, ascii_upper
from depthvault.exchanges.decode.books import Book, BookReader, Scanner, decode_books
from depthvault.exchanges.decode.events import decode_events
from depthvault.exchanges.decode.flat import FlatScanner
from depthvault.exchanges.decode.instruments import decode_instruments
from depthvault.exchanges.decode.rows import REJECTIONS, Reader, Row, read_each, reason_of
from depthvault.exchanges.decode.scan import BinanceScanner
from depthvault.exchanges.decode.values import Numbers

_ENVELOPE = b'{"stream":"'
_DEPTH_UPDATE = b'","data":{"e":"depthUpdate","E":'
_NAME_MOST = 160  # where an envelope's data begins at the latest; longer names are read all the same, slowly
_NAMES_REMEMBERED = 65_536
_MALFORMED = Frame(FrameKind.MALFORMED, reason="not a message of the combined stream form")
_SHUTDOWN = "serverShutdown"

_EVENT_MS = re.compile(rb'"E":(\d{13,16})')
_SERVER_TIME = re.compile(rb'"serverTime":(\d{13,16})')
_LAST_UPDATE_ID = re.compile(rb'"lastUpdateId":(-?\d{1,19})[,}]')

MOST_REFILLED = 1000
"""Rows of one aggTrades or klines answer that both venues allow."""

INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")

_SUFFIXES = {
    "bookTicker": "book_ticker",
    "aggTrade": "agg_trade",
    "trade": "trade",
    "forceOrder": "liquidation",
    "markPrice": "mark_price",
}
_ALL_MARKET = {
    "!forceOrder": "liquidation",
    "!markPrice": "mark_price",
    "!bookTicker": "book_ticker",
    "!contractInfo": "instrument",
}
_DEPTH = re.compile(r"depth(?P<levels>5|10|20)?(?:@\d+ms)?")


@lru_cache(maxsize=4096)
def request_parameters(line: str) -> Mapping[str, str]:
    """The query of a request line, decoded."""
    query = line.partition("?")[2]
    return {key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()}


def request_path(line: str) -> str:
    """The path of a request line; empty for a stream name."""
    return line.removeprefix("GET ").partition("?")[0] if line.startswith("GET ") else ""


def milliseconds(value: int) -> int:
    """A venue time of ms or µs digits as ms."""
    return value // 1000 if value >= 10**14 else value


class Binance(Exchange):
    """Both of Binance's market-data venues."""

    keep_alive: ClassVar[KeepAlive] = KeepAlive()  # the server pings
    api: ClassVar[str]  # "/api/v3" or "/fapi/v1"
    speeds: ClassVar[Mapping[str, str]]  # depth_speed -> suffix of the stream's name
    partial_speeds: ClassVar[Mapping[str, str]]
    intervals: ClassVar[frozenset[str]]
    snapshot_weights: ClassVar[tuple[tuple[int, int], ...]]  # (limit up to, weight)
    default_limit: ClassVar[int]
    head_pattern: ClassVar[re.Pattern[bytes]]  # the ids, from behind `"E":` on: time, U, u, pu
    rest_channels: ClassVar[Mapping[str, str]]  # path below `api` -> channel

    def __init__(self, config: ExchangeConfig) -> None:
        super().__init__(config)
        if config.depth_speed not in self.speeds:
            raise ConfigError(f"{self.name}.depth_speed: no {config.depth_speed!r}; there are {', '.join(self.speeds)}")
        for interval in config.kline_intervals:
            if interval not in self.intervals:
                raise ConfigError(f"{self.name}.kline_intervals: no {interval!r}")
        for channel in config.channels:
            if channel not in self.channels:
                raise ConfigError(f"{self.name}.channels: {channel} does not exist on this venue")
        self._frames: dict[bytes, Frame] = {}

    # Connecting and subscribing

    @abstractmethod
    def route_of(self, channel: str) -> str:
        """The path category that serves `channel`."""

    def url(self, route: str) -> str:
        base = self.config.ws_url.rstrip("/")
        return f"{base}/{route}/stream" if route else f"{base}/stream"

    def stream_names(self, channel: str, symbol: str) -> list[str]:
        """The names of `symbol`'s streams of `channel`. Upper-case names would be acknowledged and stay silent."""
        config, name = self.config, ascii_lower(symbol)
        match channel:
            case "depth_diff":
                return [f"{name}@depth{self.speeds[config.depth_speed]}"]
            case "depth_partial":
                suffix = self.partial_speeds.get(config.depth_speed, "@100ms")
                return [f"{name}@depth{config.depth_levels}{suffix}"]
            case "book_ticker":
                return [f"{name}@bookTicker"]
            case "agg_trade":
                return [f"{name}@aggTrade"]
            case "trade":
                return [f"{name}@trade"]
            case "kline":
                return [f"{name}@kline_{interval}" for interval in config.kline_intervals]
            case "liquidation" if config.liquidations == "symbol":
                return [f"{name}@forceOrder"]
            case "mark_price":
                return [f"{name}@markPrice@1s"]
        return []

    def market_streams(self, channel: str) -> list[str]:
        """The names of the streams of `channel` that cover the whole market."""
        return []

    def streams(self, instruments: Sequence[Instrument]) -> list[Stream]:
        found: list[Stream] = []
        for channel in self.config.channels:
            route = self.route_of(channel)
            found += [Stream(name, channel, "", route) for name in self.market_streams(channel)]
            for one in instruments:
                found += [Stream(name, channel, one.symbol, route) for name in self.stream_names(channel, one.symbol)]
        return found

    def subscribe(self, names: Sequence[str], request_id: int) -> bytes:
        return msgspec.json.encode({"method": "SUBSCRIBE", "params": list(names), "id": request_id})

    def unsubscribe(self, names: Sequence[str], request_id: int) -> bytes:
        return msgspec.json.encode({"method": "UNSUBSCRIBE", "params": list(names), "id": request_id})

    # Receiving

    def classify(self, frame: bytes) -> Frame:
        if frame.startswith(_ENVELOPE):
            end = frame.find(b'"', 11)
            known = self._frames.get(frame[11:end])
            if known is not None and frame.startswith(b',"data":', end + 1) and frame.endswith((b"}}", b"}]}")):
                return known
            return self._classify_name(frame, end)
        return self._classify_control(frame)

    def _classify_name(self, frame: bytes, end: int) -> Frame:
        """A stream name met for the first time, or an envelope that is none."""
        if end < 0 or not frame.startswith(b',"data":', end + 1) or not frame.endswith((b"}}", b"}]}")):
            return _MALFORMED
        try:
            name = msgspec.json.decode(frame[10 : end + 1], type=str)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return _MALFORMED
        if name == f"!{_SHUTDOWN}":
            known = Frame(FrameKind.SHUTDOWN, name)
        else:
            # Streams that we do not know (the venue adds some) are kept raw like all frames.
            known = Frame(FrameKind.DATA if self.channel_of(name)[0] else FrameKind.OTHER, name)
        if len(self._frames) >= _NAMES_REMEMBERED:
            self._frames.clear()
        self._frames[frame[11:end]] = known
        return known

    def _classify_control(self, frame: bytes) -> Frame:
        try:
            message: shapes.Control = shapes.decode_control(frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _MALFORMED
        request_id = message.id if isinstance(message.id, int) else None
        if message.error is not None:
            code, text = message.error.get("code"), message.error.get("msg")
            return Frame(FrameKind.ERROR, request_id=request_id, reason=f"{code} {text}")
        if message.code is not None:
            return Frame(FrameKind.ERROR, request_id=request_id, reason=f"{message.code} {message.msg or ''}".strip())
        if bytes(message.result):
            return Frame(FrameKind.ACK, request_id=request_id)
        if message.e == _SHUTDOWN:
            return Frame(FrameKind.SHUTDOWN)
        return Frame(FrameKind.OTHER) if message.e else _MALFORMED

    def head(self, frame: bytes) -> Head:
        start = frame.find(_DEPTH_UPDATE, 11, _NAME_MOST)
        match = self.head_pattern.match(frame, start + len(_DEPTH_UPDATE)) if start > 0 else None
        if match is None:
            return self._head_of_unusual(frame)
        event, first, final, previous = match.groups()
        begin, end = int(first), int(final)
        if begin > end:
            raise MalformedFrameError(f"first update id {begin} is above the final one {end}")
        ms = int(event)
        return Head(begin, end, int(previous) if previous else None, False, ms if ms < 10**14 else ms // 1000)

    def _head_of_unusual(self, frame: bytes) -> Head:
        """Fields in another order than ever seen are still fields."""
        try:
            data = shapes.decode_any_head(frame).data
        except REJECTIONS as error:
            raise MalformedFrameError(f"depth frame without ids: {reason_of(error)}") from error
        if data.u < data.U or (data.pu is None) == self.chained:
            raise MalformedFrameError(f"depth frame with ids U {data.U}, u {data.u}, pu {data.pu}")
        return Head(data.U, data.u, data.pu if self.chained else None, False, milliseconds(data.E))

    chained: ClassVar[bool]  # whether depth events carry `pu`

    def event_ms(self, frame: bytes) -> int:
        match = _EVENT_MS.search(frame, 0, 400)
        return milliseconds(int(match[1])) if match else 0

    # Names

    def channel_of(self, stream: str, symbols: Mapping[int, str] | None = None) -> tuple[str, str]:
        if stream.startswith("GET "):
            return self._channel_of_request(stream)
        symbol, at, rest = stream.partition("@")
        if symbol.startswith("!"):
            channel = _ALL_MARKET.get(symbol, "")
            return (channel, "") if channel in self.channels else ("", "")
        if not at or not symbol:
            return "", ""
        symbol = ascii_upper(symbol)
        kind, _, _ = rest.partition("@")
        channel = _SUFFIXES.get(kind, "")
        if kind.startswith("kline_"):
            channel = "kline"
        elif depth := _DEPTH.fullmatch(rest):
            channel = "depth_partial" if depth["levels"] else "depth_diff"
        return (channel, symbol) if channel in self.channels else ("", "")

    def _channel_of_request(self, line: str) -> tuple[str, str]:
        path = request_path(line)
        channel = self.rest_channels.get(path.removeprefix(self.api), "") if path.startswith(self.api) else ""
        return (channel, request_parameters(line).get("symbol", "")) if channel else ("", "")

    # REST

    def catalogue_request(self) -> Request:
        raise NotImplementedError

    def parse_catalogue(self, body: bytes) -> list[Instrument]:
        try:
            found: list[shapes.Symbol] = shapes.decode_catalogue(body).symbols
        except REJECTIONS as error:
            raise MalformedFrameError(f"exchangeInfo: {reason_of(error)}") from error
        return [self.instrument(one) for one in found]

    def instrument(self, one: shapes.Symbol) -> Instrument:
        """A symbol of `exchangeInfo`. Tick and lot come from the filters: `pricePrecision` is not the tick.

        A missing filter gives "0", which on Binance means that the rule is switched off.
        """
        filters = {each.filterType: each for each in one.filters}
        price, lot = filters.get("PRICE_FILTER"), filters.get("LOT_SIZE")
        return Instrument(
            symbol=one.symbol,
            status=one.status,
            trading=self.is_trading(one),
            base=one.baseAsset,
            quote=one.quoteAsset,
            tick_size=(price.tickSize if price else "") or "0",
            lot_size=(lot.stepSize if lot else "") or "0",
            contract_type=one.contractType,
            listed=EPOCH + timedelta(milliseconds=one.onboardDate) if one.onboardDate else None,
        )

    @abstractmethod
    def is_trading(self, one: shapes.Symbol) -> bool:
        """Whether the symbol belongs to the universe of `top:N` and `all`."""

    def time_request(self) -> Request:
        return Request(f"{self.api}/time", (), 1)

    def parse_time(self, body: bytes) -> int:
        match = _SERVER_TIME.search(body)
        if match is None:
            raise MalformedFrameError(f"time answer without serverTime: {body[:80]!r}")
        return milliseconds(int(match[1])) * 1_000_000

    def parse_volumes(self, body: bytes) -> dict[str, float]:
        try:
            return {one.symbol: float(one.quoteVolume) for one in shapes.decode_volumes(body)}
        except (*REJECTIONS, ValueError) as error:
            raise MalformedFrameError(f"24 h tickers: {reason_of(error)}") from error

    def snapshot_request(self, symbol: str, limit: int) -> Request:
        weight = next((cost for up_to, cost in self.snapshot_weights if limit <= up_to), None)
        if weight is None:
            raise ConfigError(f"{self.name}: a snapshot has at most {self.snapshot_weights[-1][0]} levels, not {limit}")
        parameters = (("symbol", symbol), ("limit", str(limit)))
        return Request(f"{self.api}/depth", parameters, weight, "depth_snapshot", symbol)

    def parse_snapshot_id(self, body: bytes) -> int:
        match = _LAST_UPDATE_ID.search(body, 0, 64) or _LAST_UPDATE_ID.search(body)
        if match is None:
            raise MalformedFrameError(f"depth answer without lastUpdateId: {body[:80]!r}")
        return int(match[1])

    trades_weight: ClassVar[int]  # of an aggTrades request
    candles_weight: ClassVar[int]  # of a klines request with MOST_REFILLED rows

    def refill_trades(self, symbol: str, first_id: int, count: int) -> Request | None:
        parameters = (("symbol", symbol), ("fromId", str(first_id)), ("limit", str(min(count, MOST_REFILLED))))
        return Request(f"{self.api}/aggTrades", parameters, self.trades_weight, "agg_trade", symbol)

    def refill_candles(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> Request | None:
        parameters = (
            ("symbol", symbol), ("interval", interval), ("startTime", str(start_ms)), ("endTime", str(end_ms)),
            ("limit", str(MOST_REFILLED)),
        )  # fmt: skip
        return Request(f"{self.api}/klines", parameters, self.candles_weight, "kline", symbol)

    # Decoding

    diff_reader: ClassVar[BookReader]
    partial_reader: ClassVar[BookReader]

    scanners: ClassVar[Mapping[str, Scanner]]  # by book channel

    def decode(self, channel: str, frames: Frames, instance: str) -> Decoded:
        match channel:
            case "collector_event":
                return decode_events(self.name, frames, instance)
            case "instrument":
                return decode_instruments(frames, instance, self.parse_catalogue, self.is_notice)
            case "depth_diff":
                return decode_books(channel, frames, instance, type(self).diff_reader, self.scanners[channel])
            case "depth_partial":
                reader = type(self).partial_reader
                return decode_books(channel, frames, instance, reader, self.scanners[channel], partial_levels)
            case "depth_snapshot":
                limit = partial(_limit_of, self.default_limit)
                return decode_books(channel, frames, instance, snapshot_reader, self.scanners[channel], limit)
            case "kline":
                return self._decode_klines(frames, instance)
        readers = self.readers()
        if channel not in readers or channel not in self.channels:
            raise NotImplementedError(f"{self.name} has no {channel}")
        return read_each(channel, frames, instance, readers[channel], self.flat_scanners.get(channel))

    flat_scanners: ClassVar[Mapping[str, FlatScanner]]  # by channel

    def readers(self) -> dict[str, Reader]:
        """A fresh reader for each channel that is no book."""
        return {
            "book_ticker": rows.book_ticker,
            "agg_trade": _agg_trades,
            "trade": rows.trade,
        }

    def is_notice(self, stream: str) -> bool:
        """Whether `stream` tells of listings without saying the rules, so that it only prompts a new catalogue."""
        return stream == "!contractInfo"

    def _decode_klines(self, frames: Frames, instance: str) -> Decoded:
        received = iter(frames.received_ns)  # read_each asks for each frame once, in order

        def reader(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
            received_us = next(received) // 1000
            if not stream.startswith("GET "):
                return rows.kline(stream, body, numbers)
            asked = request_parameters(stream)
            symbol, interval = asked.get("symbol", ""), asked.get("interval", "")
            return rows.rest_klines(symbol, interval, received_us, body, numbers)

        return read_each("kline", frames, instance, reader)


@lru_cache(maxsize=65_536)
def partial_levels(stream: str) -> int:
    """N of `<symbol>@depth<N>…`; 0 when the name has none."""
    match = _DEPTH.fullmatch(stream.partition("@")[2])
    return int(match["levels"] or 0) if match else 0


def _limit_of(default: int, line: str) -> int:
    limit = request_parameters(line).get("limit", "")
    return int(limit) if limit.isdecimal() else default


def symbol_of_request(line: str) -> str:
    """The symbol that a request line asks for."""
    return request_parameters(line).get("symbol", "")


SNAPSHOT_SCANNER = BinanceScanner(
    ("lastUpdateId", "b", "a"), ("E", "T"), is_snapshot=True, enveloped=False, symbol_of=symbol_of_request
)


def snapshot_reader(stream: str, body: bytes, numbers: Numbers) -> Book:
    return rows.snapshot(symbol_of_request(stream), body, numbers)


def _agg_trades(stream: str, body: bytes, numbers: Numbers) -> Sequence[Row]:
    if stream.startswith("GET "):
        return rows.rest_agg_trades(symbol_of_request(stream), body, numbers)
    return rows.agg_trade(stream, body, numbers)
