"""Lighter (zkLighter). Source: the venue's API documentation and recorded frames of July 2026."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import ClassVar

import msgspec

from depthvault.clock import EPOCH
from depthvault.config import ExchangeConfig
from depthvault.errors import ConfigError, MalformedFrameError
from depthvault.exchanges import lighter_rows as rows
from depthvault.exchanges.base import (
    PROBE,
    Continuity,
    Decoded,
    Exchange,
    Frame,
    FrameKind,
    Frames,
    Head,
    Instrument,
    KeepAlive,
    Pacing,
    Request,
    Seed,
    Stream,
)
from depthvault.exchanges.decode.books import decode_books
from depthvault.exchanges.decode.events import decode_events
from depthvault.exchanges.decode.instruments import decode_instruments
from depthvault.exchanges.decode.rows import REJECTIONS, Reader, read_each, reason_of
from depthvault.exchanges.decode.scan import LighterScanner

_CHANNEL = b'{"channel":"'
_PONG = b'{"type":"pong"}'
_TAIL = 320  # the ids stand behind the levels
_IDS = re.compile(
    rb'"nonce":(\d{1,18}),"last_updated_at":\d{1,18},"begin_nonce":(\d{1,18})\},'
    rb'"timestamp":(\d{13}),"type":"(subscribed|update)/order_book"\}$'
)
_TIMESTAMP = re.compile(rb'"timestamp":(\d{13})[,}]')
_NAMED = re.compile(r"Already Subscribed to : (\S+)")  # 30003, the only refusal that names a channel
_NAMES_REMEMBERED = 65_536
_MALFORMED = Frame(FrameKind.MALFORMED, reason="not a message that the venue documents")

# The venue's channel -> ours. Several of ours may come out of one of the venue's.
_KINDS = {"order_book": "depth_diff", "trade": "trade", "ticker": "book_ticker", "market_stats": "mark_price"}
_SOURCES = {
    "depth_diff": "order_book",
    "trade": "trade",
    "liquidation": "trade",
    "book_ticker": "ticker",
    "mark_price": "market_stats",
    "open_interest": "market_stats",
    "funding_rate": "market_stats",
}


PUBLIC_ACCOUNT_CHANNELS = frozenset({"account_all", "user_stats"})
"""What everybody may see of an account. Source: the venue's WebSocket reference."""

PRIVATE_ACCOUNT_CHANNELS = frozenset(
    {
        "account_tx", "account_all_orders", "account_all_trades", "account_all_positions", "account_all_assets",
        "notification",
    }
)  # fmt: skip
"""What takes the account's auth token. Source: the same; not measured."""


class _Refusal(msgspec.Struct):
    code: int | None = None
    message: str = ""


class _Control(msgspec.Struct):
    type: str = ""
    channel: str = ""
    error: _Refusal | None = None


class _Market(msgspec.Struct):
    symbol: str
    market_id: int
    market_type: str
    status: str
    supported_size_decimals: int
    supported_price_decimals: int
    created_at: str = ""


class _Markets(msgspec.Struct):
    code: int
    order_books: list[_Market]


class _Detail(msgspec.Struct):
    symbol: str
    daily_quote_token_volume: float = 0.0


class _Details(msgspec.Struct):
    code: int
    order_book_details: list[_Detail] | None = None
    spot_order_book_details: list[_Detail] | None = None


_control = msgspec.json.Decoder(_Control).decode
_markets = msgspec.json.Decoder(_Markets).decode
_details = msgspec.json.Decoder(_Details).decode
_book = msgspec.json.Decoder(rows.BookMessage).decode


class LighterContinuity(Continuity):
    """`begin_nonce` of a batch is the `nonce` of the one before; any whole book starts a new chain."""

    restart = 1_000_000_000
    """An id that falls by more is no late duplicate: the venue counts anew (nonces rise by thousands a second)."""

    def follows(self, previous_final: int, event: Head) -> bool:
        return event.is_snapshot or event.prev == previous_final

    def is_old(self, previous_final: int, event: Head) -> bool:
        return not event.is_snapshot and previous_final - self.restart < event.final <= previous_final

    def precedes_snapshot(self, last_update_id: int, event: Head) -> bool:
        return event.final <= last_update_id

    def joins(self, last_update_id: int, event: Head) -> bool:
        return event.prev == last_update_id

    def snapshot_too_old(self, last_update_id: int, first_buffered: Head) -> bool:
        return False  # the whole book comes in the stream itself, before its updates


class Lighter(Exchange):
    """Lighter: one endpoint, whole books in band, chained by nonce.

    Streams are named as in frames (`order_book:36`); subscriptions spell them with a slash. Market numbers become
    symbols by the catalogue, which the decoder is given (`Frames.symbols`).
    """

    name = "lighter"
    seed = Seed.IN_BAND
    channels: ClassVar[tuple[str, ...]] = (
        "depth_diff",
        "depth_snapshot",
        "book_ticker",
        "trade",
        "liquidation",
        "mark_price",
        "open_interest",
        "funding_rate",
        "instrument",
        "collector_event",
    )
    derived: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "trade": ("liquidation",),
        "mark_price": ("open_interest", "funding_rate"),
    }
    # Measured: 38 messages are taken in the first second, the rest refused (30009). Documented: 200 a minute and
    # address, so 2.8 a second after the burst keep below it; one channel a message; 500 subscriptions a connection.
    pacing = Pacing(per_second=2.8, burst=30, names_per_message=1, streams_per_connection=500, per_address=True)
    acknowledges = False
    # The client must send something every two minutes.
    keep_alive = KeepAlive(interval=50.0, message=b'{"type":"ping"}')
    weight_limit = 60  # requests a minute without an account
    continuity = LighterContinuity()

    def __init__(self, config: ExchangeConfig) -> None:
        super().__init__(config)
        for channel in config.channels:
            if channel not in self.channels:
                raise ConfigError(f"lighter.channels: {channel} does not exist on this venue")
        for channel in config.account_channels:
            if channel not in PUBLIC_ACCOUNT_CHANNELS | PRIVATE_ACCOUNT_CHANNELS:
                raise ConfigError(f"lighter.account_channels: {channel} does not exist on this venue")
        self._frames: dict[bytes, tuple[Frame, tuple[bytes, bytes]]] = {}

    def streams(self, instruments: Sequence[Instrument]) -> list[Stream]:
        kinds = dict.fromkeys(_SOURCES[channel] for channel in self.config.channels if channel in _SOURCES)
        return [
            Stream(f"{kind}:{one.market_id}", _KINDS[kind], one.symbol, "")
            for kind in kinds
            for one in instruments
            if one.market_id is not None
        ]

    def url(self, route: str) -> str:
        return self.config.ws_url

    def subscribe(self, names: Sequence[str], request_id: int) -> bytes:
        return self._message("subscribe", names)

    def unsubscribe(self, names: Sequence[str], request_id: int) -> bytes:
        return self._message("unsubscribe", names)

    @staticmethod
    def _message(kind: str, names: Sequence[str]) -> bytes:
        if len(names) != 1:
            raise ValueError(f"one channel a message, not {len(names)}")
        return msgspec.json.encode({"type": kind, "channel": names[0].replace(":", "/", 1)})

    def spelling(self, base: str, quote: str) -> str:
        """Perpetuals are named after their base and settled in USDC."""
        return base

    def account_streams(self) -> list[str]:
        return [f"{channel}:{account}" for account in self.config.accounts for channel in self.config.account_channels]

    def is_private(self, stream: str) -> bool:
        return stream.partition(":")[0] not in PUBLIC_ACCOUNT_CHANNELS

    def subscribe_account(self, stream: str, token: str | None) -> bytes:
        """A private channel's message holds the token in `auth`, as the venue's WebSocket reference says."""
        message = {"type": "subscribe", "channel": stream.replace(":", "/", 1)}
        if token is not None and self.is_private(stream):
            message["auth"] = token
        return msgspec.json.encode(message)

    # Receiving

    def classify(self, frame: bytes) -> Frame:
        if frame.startswith(_CHANNEL):
            known = self._frames.get(frame[12 : frame.find(b'"', 12)])
            if known is not None and frame.endswith(known[1]):
                return known[0]
        return self._classify_slowly(frame)

    def _classify_slowly(self, frame: bytes) -> Frame:
        try:
            message: _Control = _control(frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _MALFORMED
        if message.error is not None:
            about = _NAMED.search(message.error.message)
            reason = f"{message.error.code} {message.error.message}"
            return Frame(FrameKind.ERROR, reason=reason, about=about[1] if about else "")
        match message.type:
            case "ping":
                return Frame(FrameKind.PING, reply=_PONG)
            case "pong" | "connected":
                return Frame(FrameKind.OTHER)
            case "unsubscribed":
                return Frame(FrameKind.ACK, message.channel)
            case "":
                return _MALFORMED
        kind = message.channel.partition(":")[0]
        if message.type not in (f"update/{kind}", f"subscribed/{kind}"):
            return _MALFORMED
        known = Frame(FrameKind.DATA if self.channel_of(message.channel)[0] else FrameKind.OTHER, message.channel)
        if frame.startswith(_CHANNEL) and kind.isascii():
            if len(self._frames) >= _NAMES_REMEMBERED:
                self._frames.clear()
            ends = (f'"type":"update/{kind}"}}'.encode(), f'"type":"subscribed/{kind}"}}'.encode())
            self._frames[message.channel.encode()] = known, ends
        return known

    def head(self, frame: bytes) -> Head:
        match = _IDS.search(frame, max(0, len(frame) - _TAIL))
        if match is None:
            return self._head_of_unusual(frame)
        final, begin, ms, kind = match.groups()
        whole = kind == b"subscribed"
        return Head(int(final), int(final), None if whole else int(begin), whole, int(ms))

    @staticmethod
    def _head_of_unusual(frame: bytes) -> Head:
        """Fields in another order than ever seen are still fields."""
        try:
            message: rows.BookMessage = _book(frame)
        except REJECTIONS as error:
            raise MalformedFrameError(f"order_book frame without ids: {reason_of(error)}") from error
        state = message.order_book
        whole = message.type == "subscribed/order_book"
        return Head(state.nonce, state.nonce, None if whole else state.begin_nonce, whole, message.timestamp)

    def event_ms(self, frame: bytes) -> int:
        match = _TIMESTAMP.search(frame, max(0, len(frame) - 96))
        return int(match[1]) if match else 0

    def expected_silence(self, channel: str, busy: bool) -> float:
        if (configured := self.config.stale_after.get(channel)) is not None:
            return configured.total_seconds()
        match channel:
            case "depth_diff" | "book_ticker":
                return 10.0 if busy else 300.0
            case "trade":
                return 300.0 if busy else 7200.0
            case "mark_price":
                return 30.0 if busy else 300.0
        return float("inf")

    def channel_of(self, stream: str, symbols: Mapping[int, str] | None = None) -> tuple[str, str]:
        if stream.startswith("GET "):
            path = stream.removeprefix("GET ").partition("?")[0]
            return ("instrument", "") if path == "/api/v1/orderBooks" else ("", "")
        if stream.startswith(PROBE):
            channel, symbol = self.channel_of(stream.removeprefix(PROBE), symbols)
            return ("depth_snapshot", symbol) if channel == "depth_diff" else ("", "")
        kind, _, market = stream.partition(":")
        channel = _KINDS.get(kind, "")
        if not channel:
            return "", ""
        if kind == "market_stats" and market == "all":
            return channel, ""
        if not (market.isascii() and market.isdigit()):
            return "", ""
        return channel, (symbols or {}).get(int(market), market)

    # REST

    def catalogue_request(self) -> Request:
        return Request("/api/v1/orderBooks", (), 1, "instrument")

    def parse_catalogue(self, body: bytes) -> list[Instrument]:
        try:
            answer: _Markets = _markets(body)
            if answer.code != 200:
                raise MalformedFrameError(f"code {answer.code}")
            return [_instrument(one) for one in answer.order_books]
        except (*REJECTIONS, ValueError) as error:
            raise MalformedFrameError(f"orderBooks: {reason_of(error)}") from error

    def volume_request(self) -> Request | None:
        return Request("/api/v1/orderBookDetails", (), 1)

    def parse_volumes(self, body: bytes) -> dict[str, float]:
        try:
            answer: _Details = _details(body)
        except REJECTIONS as error:
            raise MalformedFrameError(f"orderBookDetails: {reason_of(error)}") from error
        found = [*(answer.order_book_details or ()), *(answer.spot_order_book_details or ())]
        return {one.symbol: one.daily_quote_token_volume for one in found}

    # Decoding

    def decode(self, channel: str, frames: Frames, instance: str) -> Decoded:
        match channel:
            case "collector_event":
                return decode_events(self.name, frames, instance)
            case "instrument":
                return decode_instruments(frames, instance, self.parse_catalogue, lambda stream: False)
            case "depth_diff":
                reader = partial(rows.book, frames.symbols)
                return decode_books(channel, frames, instance, reader, LighterScanner(frames.symbols))
            case "depth_snapshot":
                reader = partial(rows.whole_book, frames.symbols)
                return decode_books(channel, frames, instance, reader, None, lambda line: rows.ALL_LEVELS)
        readers: dict[str, Reader] = {
            "trade": partial(rows.trades, frames.symbols),
            "liquidation": partial(rows.liquidations, frames.symbols),
            "book_ticker": rows.tickers,
            "mark_price": rows.mark_prices,
            "open_interest": rows.open_interests,
            "funding_rate": rows.FundingReader(),
        }
        if channel not in readers:
            raise NotImplementedError(f"{self.name} has no {channel}")
        return read_each(channel, frames, instance, readers[channel])


def _instrument(one: _Market) -> Instrument:
    # Perpetuals are named after their base and valued in USD; spot markets are named BASE/QUOTE.
    base, slash, quote = one.symbol.partition("/")
    perpetual = one.market_type != "spot"
    return Instrument(
        symbol=one.symbol,
        status=one.status,
        trading=one.status == "active",
        base=base,
        quote=quote if slash else "USD",
        tick_size=_step(one.supported_price_decimals),
        lot_size=_step(one.supported_size_decimals),
        market_id=one.market_id,
        contract_type=one.market_type if perpetual else None,
        listed=EPOCH + timedelta(milliseconds=int(one.created_at)) if one.created_at.isdecimal() else None,
    )


def _step(decimals: int) -> str:
    if not 0 <= decimals <= 18:
        raise MalformedFrameError(f"{decimals} decimals")
    return f"{Decimal(1).scaleb(-decimals):f}"


def markets(instruments: Sequence[Instrument]) -> dict[int, str]:
    """Market number to symbol, as `Frames.symbols` wants it."""
    return {one.market_id: one.symbol for one in instruments if one.market_id is not None}
