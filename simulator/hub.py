"""Streams, subscribers and the way of an event to its connections.

An event is published once: it is written to the ledger, framed once for combined and once for raw
connections, and queued. :meth:`Hub.flush` writes what each connection has queued in one go.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

from simulator.faults import FaultDesk, Rule
from simulator.frames import close_frame, ping_frame, text_frame
from simulator.truth import CONNECTIONS, FAULTS, Ledger

SLOW_READER_BYTES = 64 * 1024 * 1024
"""A client that lets this much pile up is disconnected, as the venues do with slow readers."""


def ids_of(payload: bytes) -> tuple[int, int]:
    """First and last id of a Binance event, (0, 0) where it has none."""
    try:
        data = json.loads(payload)
    except ValueError:
        return 0, 0
    if not isinstance(data, dict):
        return 0, 0
    final = data.get("u") or data.get("a") or data.get("t") or 0
    return (data.get("U", final), final) if isinstance(final, int) else (0, 0)


class Stream:
    """One stream name of one venue and who listens to it.

    ``active`` is set by the first subscription and never reset: from then on every event of the stream is
    generated and in the ledger, so a client that comes back can be compared with what it missed.
    """

    __slots__ = ("active", "channel", "closing", "name", "opening", "rules", "subscribers", "symbol")

    def __init__(self, name: str, channel: str, symbol: str, opening: bytes, closing: bytes) -> None:
        self.name = name
        self.channel = channel
        self.symbol = symbol
        self.opening = opening
        self.closing = closing
        self.subscribers: list[Connection] = []
        self.rules: list[Rule] = []
        self.active = False


class Connection:
    """One WebSocket connection: what it asked for, and what waits to be written."""

    def __init__(self, hub: Hub, number: int, path: str, *, combined: bool) -> None:
        self.hub = hub
        self.id = number
        self.path = path
        self.combined = combined
        self.names: dict[str, bool] = {}
        self.out: list[bytes] = []
        self.held: dict[str, bytes] = {}
        self.transport: asyncio.Transport | None = None
        self.half_open = False
        self.closing = False
        self.closed_note: tuple[int, str] = (1006, "transport lost")
        self.last_ping: bytes | None = None
        self.pong_due: asyncio.TimerHandle | None = None
        self.timers: list[asyncio.TimerHandle] = []

    def send(self, payload: bytes) -> None:
        """Queue a control reply."""
        if not self.half_open:
            self.out.append(text_frame(payload))
            self.hub.dirty.add(self)

    def queue(self, frame: bytes) -> None:
        if not self.half_open:
            self.out.append(frame)
            self.hub.dirty.add(self)

    def flush(self) -> None:
        out = self.out
        if not out:
            return
        self.out = []
        transport = self.transport
        if transport is None or self.closing or transport.is_closing():
            return
        transport.write(out[0] if len(out) == 1 else b"".join(out))
        if transport.get_write_buffer_size() > SLOW_READER_BYTES:
            self.abort("slow reader")

    def backlog(self) -> int:
        """Bytes that the kernel did not take yet."""
        transport = self.transport
        return 0 if transport is None or transport.is_closing() else transport.get_write_buffer_size()

    def ping(self, payload: bytes) -> None:
        self.last_ping = payload
        self.queue(ping_frame(payload))
        self.flush()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame; the transport follows half a second later."""
        if self.closing or self.half_open:
            return
        self.queue(close_frame(code, reason))
        self.flush()
        self.closing = True
        self.closed_note = (code, reason)
        self.hub.leave(self)
        transport = self.transport
        if transport is not None:
            self.timers.append(asyncio.get_running_loop().call_later(0.5, transport.close))

    def abort(self, reason: str) -> None:
        """Cut the TCP connection without a word."""
        self.closing = True
        self.closed_note = (1006, reason)
        self.hub.leave(self)
        if self.transport is not None:
            self.transport.abort()


class Hub:
    """All streams and connections of one venue."""

    def __init__(
        self,
        venue: str,
        ledger: Ledger,
        desk: FaultDesk,
        now_ms: Callable[[], int],
        make_stream: Callable[[str], Stream],
    ) -> None:
        self.venue = venue
        self.ledger = ledger
        self.desk = desk
        self.now_ms = now_ms
        self.streams: dict[str, Stream] = {}
        self.connections: dict[int, Connection] = {}
        self.dirty: set[Connection] = set()
        self.published = 0
        self._make_stream = make_stream
        self._numbers = itertools.count(1)

    def stream(self, name: str) -> Stream:
        known = self.streams.get(name)
        if known is None:
            known = self.streams[name] = self._make_stream(name)
            self.desk.adopt(known)
        return known

    def note(self, kind: str, connection: Connection, **row: Any) -> None:
        self.ledger.note(
            self.venue,
            CONNECTIONS,
            {"kind": kind, "connection": connection.id, "time_ms": self.now_ms(), **row},
        )

    def open(self, path: str, *, combined: bool) -> Connection:
        connection = Connection(self, next(self._numbers), path, combined=combined)
        self.connections[connection.id] = connection
        self.note("open", connection, path=path, combined=combined)
        return connection

    def leave(self, connection: Connection) -> None:
        """Stop all deliveries to a connection and note its end."""
        if self.connections.pop(connection.id, None) is None:
            return
        for name in connection.names:
            stream = self.streams.get(name)
            if stream is not None and connection in stream.subscribers:
                stream.subscribers.remove(connection)
        for timer in connection.timers:
            timer.cancel()
        if connection.pong_due is not None:
            connection.pong_due.cancel()
        self.dirty.discard(connection)
        code, reason = connection.closed_note
        self.note("close", connection, code=code, reason=reason)

    def subscribe(self, connection: Connection, names: Iterable[str], delivers: Callable[[str], bool]) -> None:
        """Subscribe; names for which ``delivers`` is false are listed and stay silent."""
        for name in names:
            if name in connection.names:
                continue
            speaks = delivers(name)
            connection.names[name] = speaks
            if speaks:
                stream = self.stream(name)
                stream.active = True
                stream.subscribers.append(connection)
            self.note("subscribe", connection, stream=name, delivers=speaks)

    def unsubscribe(self, connection: Connection, names: Iterable[str]) -> None:
        for name in names:
            if connection.names.pop(name, False):
                self.stream(name).subscribers.remove(connection)
            self.note("unsubscribe", connection, stream=name)

    def publish(self, stream: Stream, payload: bytes, ids: tuple[int, int] = (0, 0)) -> None:
        """Record an event and queue it for every subscriber. ``ids``: its first and last id."""
        self.published += 1
        n = self.ledger.event(self.venue, stream.channel, stream.symbol, self.now_ms(), payload)
        subscribers = stream.subscribers
        if not subscribers:
            return
        if stream.rules or self.desk.per_event:
            self._publish_with_faults(stream, payload, ids, n)
            return
        combined = raw = None
        dirty = self.dirty
        for connection in subscribers:
            if connection.half_open:
                continue
            if connection.combined:
                if combined is None:
                    combined = text_frame(stream.opening + payload + stream.closing)
                connection.out.append(combined)
            else:
                if raw is None:
                    raw = text_frame(payload)
                connection.out.append(raw)
            dirty.add(connection)

    def _publish_with_faults(self, stream: Stream, payload: bytes, ids: tuple[int, int], n: int) -> None:
        verdicts = self.desk.judge(stream, [connection.id for connection in stream.subscribers])
        for connection in list(stream.subscribers):
            if connection.half_open:
                continue
            text = stream.opening + payload + stream.closing if connection.combined else payload
            kind, cause = verdicts.get(connection.id, ("", ""))
            if kind == "late":
                connection.held[stream.name] = text_frame(text)
            elif kind != "drop":
                connection.queue(text_frame(text if kind != "malformed" else text[: len(text) * 2 // 3]))
            if kind == "duplicate":
                connection.queue(text_frame(text))
            elif kind == "release":
                connection.queue(connection.held.pop(stream.name))
            if kind and kind != "release":
                ids = ids if ids[1] else ids_of(payload)
                self.ledger.note(
                    self.venue,
                    FAULTS,
                    {
                        "kind": kind,
                        "cause": cause,
                        "connection": connection.id,
                        "stream": stream.name,
                        "channel": stream.channel,
                        "symbol": stream.symbol,
                        "event_n": n,
                        "first_id": ids[0],
                        "final_id": ids[1],
                        "time_ms": self.now_ms(),
                    },
                )

    def broadcast(self, combined: bytes, raw: bytes) -> None:
        """To every connection, subscribed to anything or not."""
        for connection in self.connections.values():
            connection.send(combined if connection.combined else raw)

    def flush(self) -> None:
        dirty, self.dirty = self.dirty, set()
        for connection in dirty:
            connection.flush()

    def backlog(self) -> int:
        """The largest write backlog of any connection, in bytes."""
        return max((connection.backlog() for connection in self.connections.values()), default=0)
