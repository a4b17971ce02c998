"""The independent witness of books that come in the stream: a second connection asks for each whole book once.

Venues such as Lighter give no REST book with an id. But the answer to a subscription is the whole book with its nonce,
so a probe subscribes on a connection of its own, takes that answer, and unsubscribes. It is journaled like a REST
answer (request line `SUBSCRIBE order_book:36`) and becomes a row of `depth_snapshot`; the book audit replays the
recorded diffs up to its nonce and compares level by level.

The venue's message limit binds all connections of an address (`depthvault.pacing`), and the collectors go first: a
probe sends at most a message a second. Updates that come between the book and the end of the subscription are what the
collectors record anyhow; they are counted, not kept.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import aiohttp

from depthvault.clock import Clock, SystemClock
from depthvault.config import Config
from depthvault.errors import MalformedFrameError
from depthvault.exchanges import exchange as venue
from depthvault.exchanges.base import PROBE, Exchange, Frame, FrameKind, Seed, Stream
from depthvault.pacing import Bucket, TokenBucket, bucket_of
from depthvault.polls.round import Polled, Round
from depthvault.polls.universe import symbols_of

SECONDS_A_MESSAGE = 1.0
ANSWER_SECONDS = 10.0
"""How long a book may take. Measured: half a second."""

REFUSED_PAUSE = 5.0
"""Messages' time for which a refused subscription, or a lost connection, is let be."""

ATTEMPTS = 2
MOST_CONNECTIONS = 5
"""Of one round: a venue that keeps dropping us is left alone until the next one."""

_MAX_FRAME_BYTES = 32 << 20


async def probe(config: Config, name: str, *, clock: Clock | None = None, every: float = SECONDS_A_MESSAGE) -> Polled:
    """Ask for the whole book of every market that is recorded, one after the other, and journal the answers.

    every: seconds between two messages. What is not answered is declared, and asked for again in the next round.
    """
    clock = clock or SystemClock()
    exchange = venue(name, config.exchanges[name])
    async with Round(config, exchange, "depth_snapshot", clock) as round_:
        if exchange.seed is not Seed.IN_BAND:
            raise ValueError(f"{name} answers for its books over REST")
        catalogue = await round_.ask_catalogue()
        if catalogue is None:
            return round_.polled
        listed = {one.symbol: one for one in exchange.parse_catalogue(catalogue.body) if one.trading}
        symbols = await symbols_of(config.layout, exchange, round_.client, clock)
        streams = [
            stream
            for stream in exchange.streams([listed[symbol] for symbol in symbols if symbol in listed])
            if stream.channel == "depth_diff"
        ]
        round_.polled.cadence = exchange.config.snapshot_cadence
        round_.polled.asked, round_.polled.answered = len(streams), 0  # the catalogue is no book
        bucket = bucket_of(exchange, config.layout) or TokenBucket(exchange.pacing.per_second, exchange.pacing.burst)
        prober = _Prober(round_, exchange, clock, bucket, every)
        try:
            await prober.ask(streams)
        finally:
            await prober.close()
        cadence = exchange.config.snapshot_cadence.total_seconds()
        round_.note(
            "environment", cadence_seconds=cadence, symbols=len(streams), updates_not_kept=prober.passed_over
        )  # fmt: skip
    return round_.polled


class _LostError(Exception):
    """The connection is gone."""


@dataclass(slots=True)
class _Prober:
    """Asks over one connection, and over another when it is lost."""

    round: Round
    exchange: Exchange
    clock: Clock
    bucket: Bucket
    every: float
    passed_over: int = 0
    _session: aiohttp.ClientSession | None = None
    _socket: aiohttp.ClientWebSocketResponse | None = None
    _connections: int = 0
    _requests: int = 0
    _next: float = 0.0

    async def ask(self, streams: list[Stream]) -> None:
        """Probe each of `streams`."""
        for place, stream in enumerate(streams):
            try:
                await self._ask(stream)
            except _LostError as error:  # no more connections
                for other in streams[place:]:
                    self.round.failed(other.symbol, str(error))
                return

    async def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            await self._socket.close()
        if self._session is not None:
            await self._session.close()

    async def _ask(self, stream: Stream) -> None:
        why = ""
        for _ in range(ATTEMPTS):
            try:
                why = await self._attempt(stream)
            except _LostError as error:
                await self._drop()
                why = str(error)
                continue
            if not why:
                return
        if self._connections >= MOST_CONNECTIONS and self._socket is None:
            raise _LostError(why)
        self.round.failed(stream.symbol, why)

    async def _attempt(self, stream: Stream) -> str:
        """Subscribe, take the book, unsubscribe; why there is none, or empty."""
        self._requests += 1
        sent_ns = await self._send(self.exchange.subscribe([stream.name], self._requests))
        why = await self._answer(stream, sent_ns)
        try:
            await self._send(self.exchange.unsubscribe([stream.name], self._requests))
        except _LostError:
            if why:
                raise
            await self._drop()  # nothing is left to unsubscribe from
        return why

    async def _answer(self, stream: Stream, sent_ns: int) -> str:
        deadline = time.monotonic() + ANSWER_SECONDS
        why = f"no book within {ANSWER_SECONDS:g} s"
        while (left := deadline - time.monotonic()) > 0:
            try:
                body = await self._receive(left)
            except TimeoutError:
                break
            received_ns = self.clock.wall_ns()
            frame = self.exchange.classify(body)
            if frame.kind is FrameKind.ERROR:
                # It names no channel: the refusal may be of something sent before. Then the book still comes.
                why = f"refused: {frame.reason}"
                deadline = min(deadline, time.monotonic() + REFUSED_PAUSE * self.every)
                continue
            if frame.kind is FrameKind.DATA and self._is_book(stream, frame, body):
                self.round.probed(f"{PROBE}{stream.name}", body, sent_ns, received_ns)
                return ""
            if frame.reply is not None:
                await self._send(frame.reply)
            self.passed_over += frame.kind is FrameKind.DATA
        return why

    def _is_book(self, stream: Stream, frame: Frame, body: bytes) -> bool:
        if frame.stream != stream.name:
            return False
        try:
            return self.exchange.head(body).is_snapshot
        except MalformedFrameError:
            return False

    async def _receive(self, within: float) -> bytes:
        message = await (await self._connected()).receive(within)
        if message.type is aiohttp.WSMsgType.TEXT:
            return str(message.data).encode()
        if message.type is aiohttp.WSMsgType.BINARY:
            return bytes(message.data)
        raise _LostError(f"the connection ended: {message.type.name} {message.data or ''}".rstrip())

    async def _send(self, body: bytes) -> int:
        """Send within the limits; returns when, wall clock in ns."""
        socket = await self._connected()
        now = time.monotonic()
        wait = max(self._next - now, self.bucket.take(now))
        if wait > 0:
            await asyncio.sleep(wait)
        self._next = time.monotonic() + self.every
        sent_ns = self.clock.wall_ns()
        try:
            await socket.send_str(body.decode())
        except (ConnectionError, aiohttp.ClientError) as error:
            raise _LostError(f"the connection ended: {error}") from error
        return sent_ns

    async def _connected(self) -> aiohttp.ClientWebSocketResponse:
        if self._socket is not None:
            return self._socket
        if self._connections >= MOST_CONNECTIONS:
            raise _LostError(f"{self._connections} connections were lost")
        if self._connections:
            await asyncio.sleep(REFUSED_PAUSE * self.every)
        self._connections += 1
        timeout = aiohttp.ClientTimeout(total=self.exchange.config.open_timeout.total_seconds())
        self._session = self._session or aiohttp.ClientSession(timeout=timeout)
        try:
            self._socket = await self._session.ws_connect(
                self.exchange.url(""), max_msg_size=_MAX_FRAME_BYTES, heartbeat=20, compress=0
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _LostError(f"no connection: {type(error).__name__}: {error}") from error
        return self._socket

    async def _drop(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()
