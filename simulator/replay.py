"""Recorded feeds, played back byte for byte.

A recording is gzip text, one message a line: ``<receive time ns> <raw JSON>``. WebSocket lines are combined
envelopes ``{"stream":…,"data":…}``; REST depth answers stand between them as bare ``{"lastUpdateId":…}``.

* Playback starts when every recorded stream has a subscriber, or ``replay_start_grace`` seconds after a
  recorded depth stream has one, or after ``replay_start_after`` subscriptions when that is given.
* At a recorded snapshot the playback waits up to ``replay_snapshot_hold`` seconds for a client to ask for it,
  and answers with the recorded bytes; a request that comes before waits. So the snapshot is served exactly
  where it stood in the feed. A request later on (a resync) gets the book made from that snapshot and the
  depth events played since: the recorded bytes would be older than the stream.
* Names are matched exactly: a client that asks ``btcusdt@depth@100ms`` of a recording with
  ``btcusdt@depth@0ms`` is acknowledged and hears nothing, as on the venue.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from simulator.binance_rest import FUTURES_DEPTH_LIMITS, INVALID_SYMBOL, Answer, ApiError, BinanceRest
from simulator.binance_venue import BinanceVenue
from simulator.config import SimulatorConfig
from simulator.faults import is_depth_diff
from simulator.hub import Stream
from simulator.truth import Ledger

_CHUNK = 256
_BACKLOG_BYTES = 1 << 20


class BadRecording(ValueError):
    """A file that is no recording, or one whose venue cannot be told."""


@dataclass(slots=True)
class Recording:
    """Messages of one venue in the order received.

    ``messages`` holds ``(receive ns, stream, raw line)``; the stream of a REST snapshot is ``""``.
    ``snapshots`` maps the index of a REST snapshot to its symbol.
    """

    messages: list[tuple[int, str, bytes]] = field(default_factory=list)
    streams: dict[str, int] = field(default_factory=dict)
    snapshots: dict[int, str] = field(default_factory=dict)
    symbols: dict[str, Decimals] = field(default_factory=dict)


@dataclass(slots=True)
class Decimals:
    """Tick and lot as found in the texts of a recording: the greatest common divisors of all prices and sizes."""

    price: Decimal = Decimal(0)
    size: Decimal = Decimal(0)
    last_price: str = "0"

    def add(self, levels: Iterable[tuple[str, str]]) -> None:
        for price, size in levels:
            self.price = _common(self.price, Decimal(price))
            self.size = _common(self.size, Decimal(size))
            self.last_price = price


def _common(a: Decimal, b: Decimal) -> Decimal:
    scale = 10**12
    return Decimal(math.gcd(int(a * scale), int(b * scale))) / scale


def _stream_of(raw: bytes) -> str:
    if not raw.startswith(b'{"stream":"'):
        return ""
    return raw[11 : raw.index(b'"', 11)].decode()


def data_of(raw: bytes) -> bytes:
    """The payload of a combined envelope, byte for byte."""
    return raw[raw.index(b',"data":') + 8 : -1]


def load_recordings(paths: Iterable[Path], venue: str | None = None) -> dict[str, Recording]:
    """Read recordings; files of the same venue are consecutive parts of one feed.

    The venue is told from the content (``pu`` or ``T`` in a depth event means futures) unless given.
    Raises :class:`BadRecording`.
    """
    found: dict[str, Recording] = {}
    for path in paths:
        lines = _read(path)
        key = venue or _venue_of(lines, path)
        recording = found.setdefault(key, Recording())
        for received, raw in lines:
            name = _stream_of(raw)
            if name:
                recording.streams[name] = recording.streams.get(name, 0) + 1
            recording.messages.append((received, name, raw))
    for recording in found.values():
        _describe(recording)
    return found


def _read(path: Path) -> list[tuple[int, bytes]]:
    opener = gzip.open if path.suffix == ".gz" else open
    lines: list[tuple[int, bytes]] = []
    try:
        with opener(path, "rb") as file:
            for number, line in enumerate(file, 1):
                received, _, raw = line.rstrip(b"\n").partition(b" ")
                if not received.isdigit() or not raw.startswith(b"{"):
                    raise BadRecording(f"{path}:{number}: not '<receive ns> <JSON>'")
                lines.append((int(received), raw))
    except (OSError, EOFError) as error:
        raise BadRecording(f"{path}: {error}") from error
    if not lines:
        raise BadRecording(f"{path}: empty")
    return lines


def _venue_of(lines: list[tuple[int, bytes]], path: Path) -> str:
    for _, raw in lines:
        if b'"depthUpdate"' in raw[:160]:
            return "binance_futures" if b'"pu":' in raw[:260] else "binance_spot"
    raise BadRecording(f"{path}: no depth event tells the venue; name it with --replay-venue")


def _describe(recording: Recording) -> None:
    """Find the symbols, their ticks and lots, and to which symbol each snapshot belongs."""
    sampled = dict.fromkeys(recording.streams, 0)
    for index, (_, name, raw) in enumerate(recording.messages):
        if not name:
            recording.snapshots[index] = ""
            continue
        channel = name.partition("@")[2]
        if is_depth_diff(channel) and sampled[name] < 400:
            sampled[name] += 1
            data = json.loads(data_of(raw))
            known = recording.symbols.setdefault(data["s"], Decimals())
            known.add(data["b"])
            known.add(data["a"])
    for index in recording.snapshots:
        body = json.loads(recording.messages[index][2])
        price = Decimal(body["bids"][0][0])
        symbol = min(
            recording.symbols,
            key=lambda name: abs(Decimal(recording.symbols[name].last_price) - price),
            default="",
        )
        recording.snapshots[index] = symbol
        if symbol:
            recording.symbols[symbol].add(body["bids"] + body["asks"])
            recording.symbols[symbol].last_price = body["bids"][0][0]


class _ReplayedBook:
    """The book as the playback left it, for resyncs: texts, in the order of the venue."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.update_id = int(body["lastUpdateId"])
        self.time_ms = int(body.get("T", 0))
        self.sides: tuple[dict[str, str], dict[str, str]] = (dict(body["bids"]), dict(body["asks"]))

    def apply(self, data: Mapping[str, Any]) -> None:
        if data["u"] <= self.update_id:
            return
        self.update_id = data["u"]
        self.time_ms = data.get("T", data["E"])
        for side, changes in zip(self.sides, (data["b"], data["a"]), strict=True):
            for price, size in changes:
                if Decimal(size):
                    side[price] = size
                else:
                    side.pop(price, None)

    def body(self, limit: int, *, is_spot: bool) -> bytes:
        bids = sorted(self.sides[0].items(), key=lambda level: Decimal(level[0]), reverse=True)[:limit]
        asks = sorted(self.sides[1].items(), key=lambda level: Decimal(level[0]))[:limit]
        times = {} if is_spot else {"E": self.time_ms, "T": self.time_ms}
        return json.dumps(
            {"lastUpdateId": self.update_id, **times, "bids": bids, "asks": asks}, separators=(",", ":")
        ).encode()


class ReplayBinance(BinanceVenue):
    """A venue whose every event comes from a recording."""

    def __init__(self, key: str, config: SimulatorConfig, ledger: Ledger, start_ms: int, recording: Recording) -> None:
        super().__init__(key, config, ledger, start_ms)
        self.recording = recording
        self.position = 0
        self.finished = False
        self.started = asyncio.Event()
        self._requested: dict[str, asyncio.Event] = {name: asyncio.Event() for name in recording.symbols}
        self._waiting: dict[str, list[asyncio.Future[bytes]]] = {name: [] for name in recording.symbols}
        self._books: dict[str, tuple[int, _ReplayedBook]] = {}
        self._streams = {name: self.hub.stream(name) for name in recording.streams}

    def now_ms(self) -> int:
        """The venue's clock is today's, though the events are of another day."""
        return int(time.time() * 1000)

    def known_streams(self) -> Iterator[str]:
        yield from self.recording.streams

    def delivers(self, route: str, name: str) -> bool:
        return name in self.recording.streams and super().delivers("spot" if self.is_spot else route, name)

    # -- playing ---------------------------------------------------------------------------------------

    def _ready(self, waited: float | None) -> bool:
        after = self.config.replay_start_after
        heard = [name for name, stream in self._streams.items() if stream.subscribers]
        if after is not None:
            return sum(len(self._streams[name].subscribers) for name in heard) >= after
        return len(heard) == len(self._streams) or (waited is not None and waited >= self.config.replay_start_grace)

    async def _wait_for_clients(self) -> None:
        loop = asyncio.get_running_loop()
        depth = [s for s in self._streams.values() if is_depth_diff(s.channel)] or list(self._streams.values())
        since: float | None = None
        while True:
            if since is None and any(stream.subscribers for stream in depth):
                since = loop.time()
            if self._ready(None if since is None else loop.time() - since):
                self.started.set()
                return
            await asyncio.sleep(0.01)

    async def play(self) -> None:
        """Send the whole recording, then end as ``replay_then`` says."""
        await self._wait_for_clients()
        loop = asyncio.get_running_loop()
        messages, speed = self.recording.messages, self.config.speed
        began, origin_ns = loop.time(), messages[0][0]
        queued = 0
        while self.position < len(messages):
            received, name, raw = messages[self.position]
            if speed is not None:
                ahead = (received - origin_ns) / 1e9 / speed - (loop.time() - began)
                if ahead > 0.001:
                    self.hub.flush()
                    queued = 0
                    await asyncio.sleep(ahead)
            if name:
                self._send(self._streams[name], raw)
            else:
                self.hub.flush()
                held = await self._hold(self.position)
                began += held
            self.position += 1
            queued += 1
            if queued >= _CHUNK:
                queued = 0
                self.hub.flush()
                await asyncio.sleep(0)
                while self.hub.backlog() > _BACKLOG_BYTES:  # noqa: ASYNC110 - a transport has no event for it
                    await asyncio.sleep(0.001)
        self.hub.flush()
        self.finished = True
        if self.config.replay_then == "close":
            for connection in list(self.hub.connections.values()):
                connection.close(1000, "end of the recording")

    def _send(self, stream: Stream, raw: bytes) -> None:
        self.hub.publish(stream, data_of(raw))

    async def _hold(self, index: int) -> float:
        """At a recorded snapshot: wait for a request, answer it; returns the seconds waited."""
        symbol = self.recording.snapshots[index]
        if not symbol:
            return 0.0
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await asyncio.wait_for(self._requested[symbol].wait(), self.config.replay_snapshot_hold)
        except TimeoutError:
            pass
        raw = self.recording.messages[index][2]
        # From the first message on: events newer than the snapshot may stand before it.
        self._books[symbol] = (0, _ReplayedBook(json.loads(raw)))
        for future in self._waiting[symbol]:
            if not future.done():
                future.set_result(raw)
        self._waiting[symbol].clear()
        return loop.time() - began

    # -- snapshots -------------------------------------------------------------------------------------

    async def depth(self, symbol: str, limit: int) -> bytes:
        """The recorded snapshot where it stands, or the book as played so far."""
        ahead = any(name == symbol and index >= self.position for index, name in self.recording.snapshots.items())
        if ahead and symbol not in self._books:
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._waiting[symbol].append(future)
            self._requested[symbol].set()
            return await future
        if symbol not in self._books:
            raise ApiError(-1000, "this recording holds no snapshot of the symbol", 503)
        index, book = self._books[symbol]
        name = symbol.lower()
        for _, stream, raw in self.recording.messages[index : self.position]:
            head, _, channel = stream.partition("@")
            if head == name and is_depth_diff(channel):
                book.apply(json.loads(data_of(raw)))
        self._books[symbol] = (self.position, book)
        return book.body(limit, is_spot=self.is_spot)


class ReplayRest(BinanceRest):
    """REST of a replayed venue: snapshots, time, the recorded symbols; nothing else is known."""

    def __init__(self, venue: ReplayBinance) -> None:
        super().__init__(venue)
        self.replay = venue

    async def answer(self, name: str, query: Mapping[str, str]) -> Answer:
        replay = self.replay
        symbols = replay.recording.symbols
        if name == "ping":
            return Answer(b"{}", {})
        if name == "time":
            return Answer(f'{{"serverTime":{replay.now_ms()}}}'.encode(), {})
        if name == "exchangeInfo":
            return Answer(self._exchange_info(), {})
        if "symbol" in query and query["symbol"] not in symbols:
            raise ApiError(*INVALID_SYMBOL)
        if name == "depth":
            symbol = query.get("symbol", "")
            if symbol not in symbols:
                raise ApiError(*INVALID_SYMBOL)
            limit = int(query.get("limit", "100" if replay.is_spot else "500"))
            if not replay.is_spot and limit not in FUTURES_DEPTH_LIMITS:
                raise ApiError(-4021, f"{limit} is not valid depth limit")
            body = await replay.depth(symbol, limit)
            update_id = json.loads(body)["lastUpdateId"]
            return Answer(body, {"symbol": symbol, "last_update_id": update_id, "limit": limit})
        if name == "ticker/24hr":
            rows = [
                {"symbol": symbol, "lastPrice": known.last_price, "volume": "0", "quoteVolume": "1000000", "count": 1}
                for symbol, known in symbols.items()
                if query.get("symbol", symbol) == symbol
            ]
            body = json.dumps(rows[0] if "symbol" in query else rows, separators=(",", ":")).encode()
            return Answer(body, {})
        if name in ("aggTrades", "trades", "klines", "fundingRate", "fundingInfo"):
            return Answer(b"[]", {})
        raise ApiError(-1000, "not in this recording", 404)

    def _exchange_info(self) -> bytes:
        replay = self.replay
        rows = []
        for symbol, known in replay.recording.symbols.items():
            tick, lot = format(known.price.normalize(), "f"), format(known.size.normalize(), "f")
            row: dict[str, Any] = {
                "symbol": symbol,
                "status": "TRADING",
                "baseAsset": symbol.removesuffix("USDT"),
                "quoteAsset": "USDT",
                "filters": [
                    {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "100000000", "tickSize": tick},
                    {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "100000000", "stepSize": lot},
                ],
            }
            if replay.is_spot:
                row["isSpotTradingAllowed"] = True
            else:
                row |= {"pair": symbol, "contractType": "PERPETUAL", "onboardDate": 1_567_965_300_000}
                row |= {"deliveryDate": 4_133_404_800_000, "marginAsset": "USDT"}
            rows.append(row)
        weight = {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": replay.limiter.limit,
        }
        head: dict[str, Any] = {"timezone": "UTC", "serverTime": replay.now_ms(), "rateLimits": [weight]}
        if not replay.is_spot:
            head["futuresType"] = "U_MARGINED"
        return json.dumps(
            {**head, "exchangeFilters": [], "symbols": rows}, ensure_ascii=False, separators=(",", ":")
        ).encode()
