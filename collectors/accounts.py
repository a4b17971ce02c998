"""Account channels, where the configuration asks for them: on a connection of their own, into journals of their own.

They are no market data: their journals lie under `accounts/`, which nobody seals, archives or (unless `upload_accounts`
asks for it) uploads. Frames are kept as they came. Whatever goes wrong here never touches the recording of the market.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from collectors.connection import MAX_FRAME_BYTES, is_loopback
from collectors.counters import Counters
from collectors.pacing import backoff
from collectors.persistence import Persistence
from depthvault.clock import Clock
from depthvault.config import JournalConfig
from depthvault.durable import make_directories
from depthvault.errors import JournalError
from depthvault.exchanges.base import Exchange, FrameKind
from depthvault.journal.rows import Kind, closed_body, json_body, opened_body, subscribed_body
from depthvault.journal.writer import JournalWriter
from depthvault.layout import Layout
from depthvault.pacing import Bucket, TokenBucket

LOG = logging.getLogger("depthvault.collector")

ANSWER_SECONDS = 10.0
"""A subscription without an answer is sent again after this; the wait doubles each time."""

_LONGEST_WAIT = 600.0
_JOURNAL_RETRY = 30.0


class _Named(msgspec.Struct):
    channel: str = ""


_named = msgspec.json.Decoder(_Named).decode


def accounts_writer(writer: str) -> str:
    """The journal writer of what the collector `writer` records of accounts."""
    return f"accounts-{writer}"


@dataclass(eq=False)
class Accounts:
    """Records the account channels of `exchange`'s configuration; nothing as long as it names none.

    token: gives the credential of private channels anew for each connection, None without one. It is sent, and written
    nowhere.
    """

    exchange: Exchange
    layout: Layout
    writer: str
    config: JournalConfig
    clock: Clock
    rng: random.Random
    bucket: Bucket | None
    token: Callable[[], str | None]
    frames: int = 0
    heard: set[str] = field(default_factory=set)
    _number: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _journal: JournalWriter | None = None
    _open: tuple[int, str] | None = None

    def set_exchange(self, exchange: Exchange) -> None:
        """Go on with another configuration."""
        changed = exchange.account_streams() != self.exchange.account_streams()
        self.exchange = exchange
        if changed:
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        attempt = 0
        while True:
            self._changed.clear()
            streams = self.exchange.account_streams()
            if not streams:
                await self._changed.wait()
                continue
            try:
                make_directories(self.layout.accounts.root)
                self.layout.accounts.root.chmod(0o700)  # it is nobody else's business
                with JournalWriter(
                    self.layout.accounts, self.exchange.name, accounts_writer(self.writer), config=self.config,
                    clock=self.clock,
                ) as self._journal:  # fmt: skip
                    attempt = await self._record(self._journal, streams, attempt)
            except (JournalError, OSError) as error:
                LOG.critical("ACCOUNTS ARE NOT BEING RECORDED: %s", error)
                await asyncio.sleep(_JOURNAL_RETRY)

    async def _record(self, journal: JournalWriter, streams: Sequence[str], attempt: int) -> int:
        """Keep a connection, until the configuration names other channels."""
        keeper = asyncio.create_task(Persistence(journal, Counters(), self._repeat_opened).run())
        config = self.exchange.config
        first, longest = config.reconnect_backoff.total_seconds(), config.reconnect_backoff_max.total_seconds()
        try:
            while not self._changed.is_set():
                if attempt:
                    await asyncio.sleep(backoff(attempt, first, longest, self.rng))
                attempt = 0 if await self._connection(journal, streams) else attempt + 1
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        return attempt

    async def _connection(self, journal: JournalWriter, streams: Sequence[str]) -> bool:
        """Live through one connection; whether it brought anything."""
        url = self.exchange.url("")
        try:
            socket = await connect(
                url, compression=None, max_size=MAX_FRAME_BYTES, proxy=None if is_loopback(url) else True,
                open_timeout=self.exchange.config.open_timeout.total_seconds(), close_timeout=5,
                ping_interval=20, ping_timeout=20, process_exception=lambda error: error,
            )  # fmt: skip
        except (InvalidStatus, OSError, TimeoutError, WebSocketException) as error:
            LOG.warning("accounts: no connection: %s", error)
            journal.append(Kind.EVENT, 0, "disconnect", json_body(reason=str(error)))
            return False
        self._number += 1
        number, before = self._number, self.frames
        self._open = number, self.exchange.name
        self.heard.clear()
        journal.append(Kind.OPENED, number, "", opened_body())
        tasks = [
            asyncio.create_task(work)
            for work in (
                self._receive(journal, socket, number), self._subscribe(journal, socket, number, streams),
                self._keep_alive(socket), self._changed.wait(),
            )
        ]  # fmt: skip
        ended = closed_body(1006, "cancelled", "us", clean=False)
        try:
            # Only the end of receiving and a new configuration end it; the others may be done.
            await asyncio.wait((tasks[0], tasks[3]), return_when=asyncio.FIRST_COMPLETED)
            received = tasks[0].exception() if tasks[0].done() and not tasks[0].cancelled() else None
            if isinstance(received, ConnectionClosed):
                code = received.rcvd.code if received.rcvd is not None else 1006
                clean = received.rcvd is not None
                ended = closed_body(code, str(received), "venue" if clean else "network", clean=clean)
                LOG.warning("accounts: connection %d lost: %s", number, received)
            elif received is not None:
                raise received
            else:
                ended = closed_body(1000, "reload", "us", clean=False)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._open = None
            journal.append(Kind.CLOSED, number, "", ended)
            await socket.close()
        return self.frames > before

    async def _receive(self, journal: JournalWriter, socket: ClientConnection, number: int) -> None:
        while True:
            body = await socket.recv(decode=False)
            wall_ns, monotonic_ns = self.clock.wall_ns(), self.clock.monotonic_ns()
            stream = _stream(body)
            journal.append(Kind.FRAME, number, stream, body, wall_ns, monotonic_ns)
            self.frames += 1
            if stream:
                self.heard.add(stream)
                continue
            frame = self.exchange.classify(body)
            if frame.kind is FrameKind.ERROR:
                LOG.warning("accounts: the venue refused: %s", frame.reason)
            elif frame.reply is not None:
                await self._send(socket, frame.reply)

    async def _subscribe(
        self, journal: JournalWriter, socket: ClientConnection, number: int, streams: Sequence[str]
    ) -> None:
        """Subscribe to what has not answered, less and less often."""
        token, wait = self.token(), ANSWER_SECONDS
        while missing := [name for name in streams if name not in self.heard]:
            for name in missing:
                if self.exchange.is_private(name) and token is None:
                    LOG.error("accounts: %s needs a credential, and the environment has none", name)
                    journal.append(Kind.EVENT, number, "stale", json_body(stream=name, reason="no credential"))
                    continue
                await self._send(socket, self.exchange.subscribe_account(name, token))
                shown = self.exchange.subscribe_account(name, None if token is None else "***")
                journal.append(Kind.SENT, number, "", shown)
                journal.append(Kind.EVENT, number, "subscribe", subscribed_body([name]))
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _keep_alive(self, socket: ClientConnection) -> None:
        rule = self.exchange.keep_alive
        while rule.interval is not None and rule.message is not None:
            await asyncio.sleep(rule.interval)
            await self._send(socket, rule.message)

    async def _send(self, socket: ClientConnection, body: bytes) -> None:
        pacing = self.exchange.pacing
        self.bucket = self.bucket or TokenBucket(pacing.per_second, pacing.burst)
        if wait := self.bucket.take(asyncio.get_running_loop().time()):
            await asyncio.sleep(wait)
        await socket.send(body, text=True)

    def _repeat_opened(self) -> None:
        if self._open is not None and self._journal is not None:
            number, _ = self._open
            self._journal.append(Kind.OPENED, number, "", opened_body(self.heard, continues=True))


def _stream(body: bytes) -> str:
    try:
        return str(_named(body).channel)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
