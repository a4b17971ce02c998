"""One WebSocket: its frames, each taken as the socket gives it, and what is sent over it, paced."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import DATA_OPCODES
from websockets.frames import Frame as WireFrame
from websockets.protocol import Event

from collectors.recorder import Recorder
from depthvault.clock import Clock
from depthvault.errors import RestrictedError, VenueError
from depthvault.exchanges.base import Exchange, Frame, FrameKind, Stream
from depthvault.journal.rows import SUBSCRIBE, Kind, closed_body, opened_body, subscribed_body
from depthvault.pacing import Bucket, TokenBucket

LOG = logging.getLogger("depthvault.collector")

MAX_FRAME_BYTES = 32 << 20  # a whole Lighter book is 0.14 MB; nothing known comes near this


_ANSWER_NS = 1_000_000_000  # measured: half a second


_TURN_BYTES = 256 << 10  # taken at most before the others have their turn: half a millisecond or so


class OpenFailedError(VenueError):
    """A connection could not be opened. retry_after: seconds that the venue asks to wait, 0 if it does not say."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Message:
    """Something to send. names: the streams that it subscribes (`active`) or unsubscribes."""

    body: bytes
    request_id: int | None = None
    names: tuple[str, ...] = ()
    active: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended. initiator: `us`, `roll`, `stop`, `venue` or `network`. reason: ours, or the venue's.
    clean: whether the venue's close frame came."""

    code: int
    reason: str
    initiator: str
    clean: bool = False


def is_loopback(url: str) -> bool:
    """Whether `url` stays on this host; such connections never go through a proxy."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Socket(ClientConnection):
    """A connection that hands over each message at once, in the call in which its last byte arrived.

    So a frame costs no queue and no turn of the event loop (a third of its way through the process, measured), its
    receipt is stamped when it is received, and a slow process leaves the rest in the kernel, where TCP tells the venue.
    `recv` never gives a message: it ends when the connection does.
    """

    failure: Exception | None = None
    """What the taker raised; the connection was aborted for it."""
    _taker: Callable[[bytes], None] | None = None
    _early: list[bytes]
    _parts: list[bytes]
    _taken = 0

    def deliver(self, taker: Callable[[bytes], None]) -> None:
        """Give every message to `taker` from now on, those first that are here already."""
        for message in self._early:
            taker(message)
        self._early.clear()
        self._taker = taker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._early, self._parts = [], []
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # libuv reads a busy socket up to 32 times before it looks at anything else: a flood would hold up the timers.
        self._taken += len(data)
        if self._taken >= _TURN_BYTES:
            self._taken = 0
            self.transport.pause_reading()
            self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def process_event(self, event: Event) -> None:
        """Take a frame of the wire. The order of fragments was checked by the protocol."""
        if not isinstance(event, WireFrame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
            return
        message = bytes(event.data)
        if not event.fin or self._parts:
            self._parts.append(message)
            if not event.fin:
                return
            message = b"".join(self._parts)
            self._parts.clear()
        if self._taker is None:
            self._early.append(message)
        elif self.failure is None:
            try:
                self._taker(message)
            except Exception as error:  # noqa: BLE001 - kept for whoever waits for the end of the connection
                self.failure = error
                self.transport.abort()


class Connection:
    """An open WebSocket of a route. `number` is its name in the journal.

    on_shutdown: called when the server announces its end.
    """

    def __init__(
        self,
        number: int,
        route: str,
        socket: Socket,
        exchange: Exchange,
        recorder: Recorder,
        clock: Clock,
        on_shutdown: Callable[[], None],
        bucket: Bucket,
    ) -> None:
        self.number = number
        self.route = route
        self.path = urlsplit(exchange.url(route)).path or "/"
        self.opened_ns = clock.monotonic_ns()
        self.last_ns = 0
        self.refused_ns = 0
        """When the venue last refused something without saying what, monotonic; 0: never."""
        self._asked_ns: dict[str, int] = {}
        self.subscribed: dict[str, Stream] = {}
        self._carried: set[str] = set()  # those of which the venue was told: asking takes a while where it is paced
        self.unheard: set[str] = set()
        """Streams asked for that have not spoken since, on this connection: in a roll another one carries them too."""
        self.unanswered: dict[int, Message] = {}
        self.ending: Ending | None = None
        self._socket = socket
        self._exchange = exchange
        self._recorder = recorder
        self._clock = clock
        self._wall_ns, self._monotonic_ns = clock.wall_ns, clock.monotonic_ns
        self._on_shutdown = on_shutdown
        self._request_id = 0
        self._close_reason = ""
        self._bucket = bucket
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self.done: asyncio.Task[Ending] = asyncio.get_running_loop().create_task(
            self._run(), name=f"connection-{number}"
        )

    @property
    def round_trip(self) -> float:
        """Seconds of the last keep-alive ping; 0 before the first."""
        return self._socket.latency

    def subscribe(self, streams: Sequence[Stream]) -> None:
        """Subscribe, as fast as the venue's pacing allows, without waiting for it."""
        names = [stream.name for stream in streams]
        self.subscribed.update(zip(names, streams, strict=True))
        self.unheard.update(names)
        self._post(names, active=True)

    def take_refused(self, awaited: set[str]) -> list[Stream]:
        """Those that are still silent a second after they were asked for, with a refusal since that named none.

        Each is given once, until it has been asked for again.
        """
        until = min(self.refused_ns, self._clock.monotonic_ns() - _ANSWER_NS)
        names = sorted(name for name in awaited & self.unheard if self._asked_ns.get(name, until) < until)
        for name in names:
            del self._asked_ns[name]
        return [self.subscribed[name] for name in names if name in self.subscribed]

    def unsubscribe(self, streams: Sequence[Stream]) -> None:
        """Unsubscribe likewise. Frames may still come for a moment; they are kept."""
        for stream in streams:
            self.subscribed.pop(stream.name, None)
        self._post([stream.name for stream in streams], active=False)

    def _post(self, names: Sequence[str], *, active: bool) -> None:
        size = self._exchange.pacing.names_per_message
        make = self._exchange.subscribe if active else self._exchange.unsubscribe
        for start in range(0, len(names), size):
            part = names[start : start + size]
            self._request_id += 1
            message = Message(make(part, self._request_id), self._request_id, tuple(part), active)
            if self._exchange.acknowledges:
                self.unanswered[self._request_id] = message
            self._outbox.put_nowait(message)

    def control(self, frame: Frame) -> None:
        """Take note of an answer, of a shutdown notice, or of a ping that wants a reply."""
        request = None if frame.request_id is None else self.unanswered.pop(frame.request_id, None)
        if frame.kind is FrameKind.SHUTDOWN:
            self._on_shutdown()
        elif frame.kind is FrameKind.PING and frame.reply is not None:
            self._outbox.put_nowait(Message(frame.reply))
        elif frame.kind is FrameKind.ERROR:
            self._recorder.counters.refused += 1
            if not frame.about:
                self.refused_ns = self._clock.monotonic_ns()
            names = request.names if request is not None and request.active else ()
            self._event(subscribed_body(names, active=False, refused=frame.reason))
            LOG.warning("connection %d: the venue refused: %s", self.number, frame.reason)

    def _sent(self, message: Message) -> None:
        self._event(subscribed_body(message.names, active=message.active))
        if not message.active:
            self._carried.difference_update(message.names)
            self.unheard.difference_update(message.names)
        else:
            self._carried.update(message.names)
            self.unheard.update(message.names)
            now = self._clock.monotonic_ns()
            for name in message.names:
                self._asked_ns[name] = now
                if (state := self._recorder.states.get(name)) is not None:
                    state.subscribed_ns, state.since_subscribe = now, 0

    def _event(self, body: bytes) -> None:
        self._recorder.journal.append(Kind.EVENT.value, self.number, SUBSCRIBE, body)

    def repeat_opened(self) -> None:
        """Say again, in a new journal file, that this connection is open and what it carries; nothing once it ended."""
        if self.ending is not None:
            return
        states = [state for name in self._carried if (state := self._recorder.states.get(name)) is not None]
        body = opened_body(
            self._carried,
            continues=True,
            unheard=self.unheard & self._carried,
            silent=[state.stream.name for state in states if state.stage],
        )
        self._recorder.journal.append(Kind.OPENED.value, self.number, self.path, body)

    async def close(self, reason: str) -> None:
        """Close, and wait until the last frame is taken. `reason` goes into the journal."""
        self._close_reason = self._close_reason or reason
        await self._socket.close()
        await self.done

    async def _run(self) -> Ending:
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._send_loop()))
        if (interval := self._exchange.keep_alive.interval) is not None:
            self._tasks.append(loop.create_task(self._keep_alive(interval)))
        try:
            await self._receive_loop()
        except ConnectionClosed as error:
            self.ending = self._ended(error)
        except OSError as error:
            self.ending = Ending(1006, str(error), "network")
        finally:
            for task in self._tasks:
                task.cancel()
            if self.ending is None:
                self.ending = Ending(1006, "cancelled", "us")
                self._socket.transport.abort()
            ending = self.ending
            body = closed_body(ending.code, ending.reason, ending.initiator, clean=ending.clean)
            self._recorder.journal.append(Kind.CLOSED.value, self.number, "", body)
        return self.ending

    async def _receive_loop(self) -> None:
        """Until the connection ends. Raises ConnectionClosed then, or what taking a frame raised."""
        self._socket.deliver(self._take)
        try:
            while True:
                await self._socket.recv(decode=False)
        except ConnectionClosed as closed:
            if self._socket.failure is not None:
                raise self._socket.failure from closed
            raise

    def _take(self, frame: bytes) -> None:
        self._recorder.receive(self, frame, self._wall_ns(), self._monotonic_ns())

    def _ended(self, error: ConnectionClosed) -> Ending:
        if self._close_reason:
            initiator = self._close_reason if self._close_reason in ("roll", "stop") else "us"
            code = error.rcvd.code if error.rcvd is not None else 1006
            return Ending(code, self._close_reason, initiator, clean=error.rcvd is not None)
        if error.rcvd is not None and (error.rcvd_then_sent or error.sent is None):
            return Ending(error.rcvd.code, error.rcvd.reason, "venue", clean=True)
        if error.sent is not None:  # a keep-alive ping without answer, or a frame that broke the protocol
            return Ending(error.sent.code, error.sent.reason, "us")
        return Ending(1006, "no close frame", "network")

    def _wait_for(self, now: float) -> float:
        """Seconds until the next message may be sent."""
        try:
            return self._bucket.take(now)
        except OSError as error:  # the host's common bucket is a file: without it each connection keeps to the rate
            LOG.warning("connection %d paces itself: %s", self.number, error)
            self._bucket = TokenBucket(self._exchange.pacing.per_second, self._exchange.pacing.burst)
            return self._bucket.take(now)

    async def _send_loop(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                message = await self._outbox.get()
                if wait := self._wait_for(loop.time()):
                    await asyncio.sleep(wait)
                self._recorder.journal.append(Kind.SENT.value, self.number, "", message.body)
                await self._socket.send(message.body, text=True)
                if message.names:
                    self._sent(message)
        except ConnectionClosed:
            return  # the receive loop tells

    async def _keep_alive(self, interval: float) -> None:
        message = self._exchange.keep_alive.message
        while True:
            await asyncio.sleep(interval)
            if message is not None:
                self._outbox.put_nowait(Message(message))


async def open_connection(
    number: int,
    route: str,
    exchange: Exchange,
    recorder: Recorder,
    clock: Clock,
    on_shutdown: Callable[[], None],
    bucket: Bucket | None = None,
) -> Connection:
    """Connect and begin to receive. bucket: paces what is sent; without it the connection has its own.

    Raises OpenFailedError, or RestrictedError when this host may not use the venue.
    """
    url = exchange.url(route)
    timeout = exchange.config.open_timeout.total_seconds()
    try:
        socket = await connect(
            url,
            compression=None,  # inflating about doubles the CPU per message (measured)
            max_size=MAX_FRAME_BYTES,
            create_connection=Socket,
            open_timeout=timeout,
            close_timeout=5,
            ping_interval=20,
            ping_timeout=20,
            proxy=None if is_loopback(url) else True,
            process_exception=lambda error: error,  # retries are ours: counted, jittered, journaled
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status == 451:
            raise RestrictedError(f"{url}: HTTP 451: this host may not use {exchange.name}", 451) from error
        wait = error.response.headers.get("Retry-After", "")
        raise OpenFailedError(f"{url}: HTTP {status}", float(wait) if wait.isdigit() else 0.0) from error
    except (OSError, TimeoutError, WebSocketException) as error:
        raise OpenFailedError(f"{url}: {type(error).__name__}: {error}") from error
    bucket = bucket or TokenBucket(exchange.pacing.per_second, exchange.pacing.burst)
    assert isinstance(socket, Socket)
    connection = Connection(number, route, socket, exchange, recorder, clock, on_shutdown, bucket)
    recorder.journal.append(Kind.OPENED.value, number, connection.path, opened_body())
    return connection
