"""A slot: the streams of one route that share a connection, and that connection kept alive, renewed and replaced."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from collectors.connection import Connection, Ending, OpenFailedError, open_connection
from collectors.pacing import backoff
from collectors.recorder import Recorder
from depthvault.clock import Clock
from depthvault.errors import ReconnectsExhaustedError
from depthvault.exchanges.base import Exchange, Stream
from depthvault.pacing import Bucket

LOG = logging.getLogger("depthvault.collector")

ROLL_TIMEOUT = 10.0  # seconds that a roll waits to see each active stream on the new connection
ROLL_SETTLE = 0.5  # seconds that both connections stay open once it has
ACTIVE_NS = 10_000_000_000  # a stream counts as active when it delivered within this time
AGE_SPREAD = 0.1  # connections are renewed at 90 to 100 % of the greatest age, so that they do not all go at once


@dataclass
class Opener:
    """Opens connections one after the other for all slots of a process, and numbers them.

    A mass reconnect must not look like an attack: Binance allows 300 attempts in 5 minutes an address.
    bucket: paces what all connections send together; None: each has its own.
    """

    exchange: Exchange
    recorder: Recorder
    clock: Clock
    rng: random.Random
    bucket: Bucket | None = None
    attempts_per_window: int = 150
    window: float = 300.0
    numbers: count[int] = field(default_factory=lambda: count(1))
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(3))
    _recent: deque[float] = field(default_factory=deque)

    async def open(self, route: str, on_shutdown: Callable[[], None]) -> Connection:
        async with self._gate:
            loop = asyncio.get_running_loop()
            while self._recent and self._recent[0] <= loop.time() - self.window:
                self._recent.popleft()
            if len(self._recent) >= self.attempts_per_window:
                await asyncio.sleep(self._recent[0] + self.window - loop.time())
            self._recent.append(loop.time())
            connection = await open_connection(
                next(self.numbers), route, self.exchange, self.recorder, self.clock, on_shutdown, self.bucket
            )
        self.recorder.counters.connects += 1
        self.recorder.event("connect", {"route": route}, connection=connection.number)
        return connection


class Slot:
    """Keeps `streams` of `route` subscribed on one connection; on two while one replaces the other.

    on_lost: called with the streams that no connection carries any more.
    """

    def __init__(self, index: int, route: str, opener: Opener, on_lost: Callable[[Iterable[Stream]], None]) -> None:
        self.index = index
        self.route = route
        self.streams: dict[str, Stream] = {}
        self.connections: list[Connection] = []
        self._opener = opener
        self._recorder = opener.recorder
        self._clock = opener.clock
        self._on_lost = on_lost
        self._roll_reason = ""
        self._roll = asyncio.Event()
        self._stopping = asyncio.Event()
        self._attempt = 0
        self._calm_since: float | None = None

    @property
    def symbols(self) -> set[str]:
        return {stream.symbol for stream in self.streams.values() if stream.symbol}

    @property
    def last_ns(self) -> int:
        """When anything arrived last, monotonic; 0: never."""
        return max((connection.last_ns for connection in self.connections), default=0)

    @property
    def refused_ns(self) -> int:
        """When the venue refused something last without saying what, monotonic; 0: never."""
        return max((connection.refused_ns for connection in self.connections), default=0)

    def add(self, streams: Iterable[Stream]) -> None:
        """Subscribe to more, on the live connections too."""
        new = [stream for stream in streams if stream.name not in self.streams]
        self.streams.update((stream.name, stream) for stream in new)
        for connection in self.connections:
            self._subscribe(connection, new)

    def remove(self, streams: Iterable[Stream]) -> None:
        """Subscribe to less."""
        old = [stream for stream in streams if self.streams.pop(stream.name, None) is not None]
        for connection in self.connections:
            connection.unsubscribe(old)

    def subscribe_again(self, streams: Iterable[Stream]) -> None:
        """Ask once more for streams whose subscription was not answered."""
        again = [stream for stream in streams if stream.name in self.streams]
        for connection in self.connections[-1:]:
            self._subscribe(connection, again)

    def resubscribe(self, streams: Iterable[Stream]) -> None:
        """Unsubscribe and subscribe again, back to back: an in-band book comes anew, a silent stream gets a chance."""
        again = [stream for stream in streams if stream.name in self.streams]
        for connection in self.connections[-1:]:
            connection.unsubscribe(again)
            self._subscribe(connection, again)

    async def heard(self, streams: Iterable[Stream]) -> None:
        """Until each active one of `streams` was heard on a connection of this slot and all subscriptions are answered.

        Without a connection it waits for one. Streams that stay silent on it are waited for as long as in a roll.
        """
        names = {stream.name for stream in streams}
        loop = asyncio.get_running_loop()
        watched, awaited, deadline = None, set[str](), 0.0
        while names & self.streams.keys() and not self._stopping.is_set():
            connection = self.connections[-1] if self.connections else None
            if connection is None or connection.done.done():
                pass
            elif connection is not watched:
                watched, awaited, deadline = connection, names & self._active(), loop.time() + self._patience()
            elif again := connection.take_refused(awaited):
                self._subscribe(connection, again)
                deadline = loop.time() + ROLL_TIMEOUT
            elif not (awaited & connection.unheard or connection.unanswered) or loop.time() >= deadline:
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(ROLL_SETTLE)

    def _active(self) -> set[str]:
        """Streams of which something will come soon: those that spoke lately, or whose first frame always comes."""
        now, states = self._clock.monotonic_ns(), self._recorder.states
        first_frame_answers = not self._opener.exchange.acknowledges
        return {
            name
            for name in self.streams
            if (state := states.get(name)) is not None
            and (first_frame_answers or (state.last_ns and now - state.last_ns < ACTIVE_NS))
        }

    def _patience(self) -> float:
        """Seconds to wait for streams on a new connection.

        Where one subscription is sent after the other, all of them must have had their turn.
        """
        pacing = self._opener.exchange.pacing
        return ROLL_TIMEOUT + len(self.streams) / pacing.names_per_message / pacing.per_second

    def request_roll(self, reason: str) -> None:
        """Replace the connection soon, with overlap."""
        if self.connections and not self._roll.is_set():
            self._roll_reason = reason
            self._roll.set()

    def _subscribe(self, connection: Connection, streams: Iterable[Stream]) -> None:
        wanted = list(streams)
        for stream in wanted:
            if (state := self._recorder.states.get(stream.name)) is not None:
                state.subscribed_ns = 0  # set when it is sent
        connection.subscribe(wanted)

    async def run(self) -> None:
        """Until `stop`. Raises ReconnectsExhaustedError, RestrictedError."""
        while not self._stopping.is_set():
            self._roll.clear()
            connection = await self._open(None)
            if connection is None:
                return
            await self._live(connection)

    async def stop(self, reason: str) -> None:
        """Close everything, and take the last frames."""
        self._stopping.set()
        await asyncio.gather(*(connection.close(reason) for connection in list(self.connections)))

    async def _open(self, predecessor: Connection | None) -> Connection | None:
        """A new connection with its subscriptions sent; tried until it is there. None: stopped, or no longer wanted."""
        config = self._opener.exchange.config
        loop = asyncio.get_running_loop()
        calm = config.reset_reconnect_after.total_seconds()
        if self._calm_since is not None and loop.time() - self._calm_since >= calm:
            self._attempt = 0
        # While the connection to be replaced still delivers, no attempt is the last one.
        attempt = self._attempt if predecessor is None else 0
        retry_after = 0.0
        while not self._stopping.is_set():
            wait = max(retry_after, self._wait(attempt))
            if await self._stopped_within(wait):
                return None
            if predecessor is not None and predecessor.done.done():
                return None
            attempt += 1
            if predecessor is None:
                self._attempt = attempt
            try:
                connection = await self._opener.open(self.route, lambda: self.request_roll("server_shutdown"))
            except OpenFailedError as error:
                self._failed(error, attempt, last=predecessor is None and attempt >= config.max_reconnect_attempts)
                retry_after = error.retry_after
                continue
            self._calm_since = loop.time()
            self.connections.append(connection)
            if self._stopping.is_set():
                await self._retire(connection, "stop")
                return None
            self._subscribe(connection, self.streams.values())
            return connection
        return None

    def _wait(self, attempt: int) -> float:
        config = self._opener.exchange.config
        first, longest = config.reconnect_backoff.total_seconds(), config.reconnect_backoff_max.total_seconds()
        return backoff(attempt, first, longest, self._opener.rng) if attempt else 0.0

    async def _stopped_within(self, seconds: float) -> bool:
        """Wait; whether a stop came meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
        return self._stopping.is_set()

    def _failed(self, error: OpenFailedError, attempt: int, *, last: bool) -> None:
        detail = {"route": self.route, "attempt": attempt, "reason": str(error), "exhausted": last}
        self._recorder.event("disconnect", detail)
        LOG.warning("route %r, attempt %d: %s", self.route, attempt, error)
        if last:
            raise ReconnectsExhaustedError(
                f"{self._opener.exchange.name}: {attempt} attempts to connect failed: {error}"
            )

    async def _live(self, connection: Connection) -> None:
        """Watch over `connection` and its successors until one is lost or all is stopped."""
        config = self._opener.exchange.config
        age = config.max_connection_age.total_seconds() * (1 - self._opener.rng.uniform(0, AGE_SPREAD))
        while True:
            rolled = asyncio.ensure_future(self._roll.wait())
            try:
                await asyncio.wait({connection.done, rolled}, timeout=age, return_when=asyncio.FIRST_COMPLETED)
            finally:
                rolled.cancel()
            if connection.done.done():
                self._lost(connection)
                return
            reason = self._roll_reason if self._roll.is_set() else "age"
            self._roll.clear()  # the successor may announce its end, too
            successor = await self._succeed(connection, reason)
            if successor is None:
                if connection.done.done():
                    self._lost(connection)
                    return
                continue
            connection = successor
            age = config.max_connection_age.total_seconds() * (1 - self._opener.rng.uniform(0, AGE_SPREAD))

    async def _succeed(self, old: Connection, reason: str) -> Connection | None:
        """Replace `old` so that no event is lost: it closes when each active stream was seen on the new connection."""
        new = await self._open(old)
        if new is None:
            return None
        awaited = self._active()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience()
        # An idle stream gets no proof but the subscription's answer; so all answers are waited for as well.
        while (awaited & new.unheard or new.unanswered) and loop.time() < deadline and not self._stopping.is_set():
            if new.done.done():
                self._lost(new)
                return None
            if again := new.take_refused(awaited):
                self._subscribe(new, again)
                deadline = loop.time() + ROLL_TIMEOUT
            await asyncio.sleep(0.05)
        unseen = sorted(awaited & new.unheard)
        await asyncio.sleep(ROLL_SETTLE)
        self._attempt = 0
        self._recorder.counters.rolls += 1
        detail = {
            "reason": reason, "route": self.route, "from": old.number, "to": new.number,
            "active": len(awaited), "unseen": unseen[:50],
        }  # fmt: skip
        self._recorder.event("roll", detail, connection=new.number)
        LOG.info("connection %d replaces %d (%s)", new.number, old.number, reason)
        if not old.done.done():
            await self._retire(old, "roll")
        elif old in self.connections:
            self.connections.remove(old)
        return new

    async def _retire(self, connection: Connection, reason: str) -> None:
        await connection.close(reason)
        if connection in self.connections:
            self.connections.remove(connection)

    def _lost(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
        ending: Ending = connection.done.result()
        if not self._stopping.is_set():
            self._recorder.counters.disconnects += 1
            detail = {
                "route": self.route, "code": ending.code, "reason": ending.reason, "initiator": ending.initiator,
                "streams": len(connection.subscribed),
            }  # fmt: skip
            self._recorder.event("disconnect", detail, connection=connection.number)
            LOG.warning(
                "connection %d of route %r lost: %d %s (%s)",
                connection.number, self.route, ending.code, ending.reason, ending.initiator,
            )  # fmt: skip
        carried = {name for other in self.connections for name in other.subscribed}
        self._on_lost(stream for name, stream in self.streams.items() if name not in carried)
