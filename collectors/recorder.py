"""What happens to a frame: it is classified, its sequence is checked, and it is appended to the journal.

`Recorder.receive` is the hot path. It does no I/O and waits for nothing; whatever a frame calls for (a resync, a
roll, an answer) is left to others through callbacks that only take notes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from collectors.counters import Counters
from depthvault.book.sync import BookSync, Change
from depthvault.clock import Clock
from depthvault.errors import BannedError, MalformedFrameError, RateLimitedError, RestError
from depthvault.exchanges.base import Exchange, Frame, FrameKind, Stream
from depthvault.journal.rows import Kind, json_body
from depthvault.journal.writer import JournalWriter
from depthvault.rest.client import Answer

LOG = logging.getLogger("depthvault.collector")

_LAG_SAMPLE = 31  # every 32nd frame without a book head is asked for its event time
_FRAME = Kind.FRAME.value
_EVENT = Kind.EVENT.value
_REPORTS_PER_MINUTE = 10
_MINUTE_NS = 60_000_000_000


class Receiving(Protocol):
    """What the recorder needs to know of a connection."""

    number: int
    last_ns: int
    unheard: set[str]

    def control(self, frame: Frame) -> None:
        """Take note of an answer to something that was sent, of a shutdown notice or of a ping."""


@dataclass(slots=True, eq=False)
class StreamState:
    """What is known of one subscription. Times are monotonic ns; 0: never.

    busy: among the most active symbols. notice: its frames tell of listings. stage: what the watchdog has done about
    its silence.
    """

    stream: Stream
    sync: BookSync | None = None
    busy: bool = False
    notice: bool = False
    rank: int = 0
    subscribed_ns: int = 0
    last_ns: int = 0
    frames: int = 0
    since_subscribe: int = 0
    stage: int = 0
    acted_ns: int = 0


@dataclass(slots=True)
class _Reports:
    """At most so many event rows of a kind a minute: a flood of them must not become the data."""

    minute: int = 0
    count: int = 0
    suppressed: int = 0


@dataclass(eq=False)
class Recorder:
    """Frames and events of one collector process go through here into its journal.

    on_change: called when a book's chain or seed changed (rarely). on_event: called for each event row, with its kind,
    details, symbol and connection. on_notice: called when the venue says that a market was listed or changed.
    """

    exchange: Exchange
    journal: JournalWriter
    clock: Clock
    counters: Counters = field(default_factory=Counters)
    on_change: Callable[[StreamState, Change], None] = lambda state, change: None
    on_notice: Callable[[], None] = lambda: None
    on_event: Callable[[str, Mapping[str, Any], str | None, int], None] = lambda kind, detail, symbol, connection: None
    states: dict[str, StreamState] = field(default_factory=dict)
    _reports: dict[str, _Reports] = field(default_factory=dict)

    def receive(self, connection: Receiving, body: bytes, wall_ns: int, monotonic_ns: int) -> None:
        """Take a frame that was received at these times. Never raises for what a frame holds."""
        frame = self.exchange.classify(body)
        stream = frame.stream
        self.journal.append(_FRAME, connection.number, stream, body, wall_ns, monotonic_ns)
        connection.last_ns = monotonic_ns
        counters = self.counters
        counters.frames += 1
        counters.bytes += len(body)
        if frame.kind is not FrameKind.DATA:
            self._control(connection, frame, body)
            return
        state = self.states.get(stream)
        if state is None:  # unsubscribed a moment ago, or sent unasked: it is in the journal, and that is all
            counters.unknown_streams += 1
            return
        state.last_ns = monotonic_ns
        state.frames += 1
        state.since_subscribe += 1
        if connection.unheard:
            connection.unheard.discard(stream)
        sync = state.sync
        if sync is None:
            if state.notice:
                self.on_notice()
            if not counters.frames & _LAG_SAMPLE and (event_ms := self.exchange.event_ms(body)):
                counters.lag.observe(wall_ns / 1e6 - event_ms)
            return
        try:
            head = self.exchange.head(body)
        except MalformedFrameError as error:
            self._malformed(connection, str(error), body, stream)
            return
        if head.event_ms:
            counters.lag.observe(wall_ns / 1e6 - head.event_ms)
        change = sync.receive(head, monotonic_ns)
        if change is not None:
            self.on_change(state, change)

    def _control(self, connection: Receiving, frame: Frame, body: bytes) -> None:
        if frame.kind is FrameKind.MALFORMED:
            self._malformed(connection, frame.reason, body, frame.stream)
            return
        self.counters.control += 1
        connection.control(frame)

    def _malformed(self, connection: Receiving, reason: str, body: bytes, stream: str) -> None:
        """The frame itself is in the journal already, as it came."""
        self.counters.malformed += 1
        detail = {"reason": reason, "stream": stream, "bytes": len(body)}
        if self.event("malformed", detail, connection=connection.number):
            LOG.warning("connection %d: malformed frame (%s) kept raw", connection.number, reason)

    def event(
        self,
        kind: str,
        detail: Mapping[str, Any],
        *,
        channel: str | None = None,
        symbol: str | None = None,
        connection: int = 0,
    ) -> bool:
        """Write a row about the recorder itself. False: this minute had enough rows of the kind; it is counted."""
        reports = self._reports.setdefault(kind, _Reports())
        minute = self.clock.monotonic_ns() // _MINUTE_NS
        content: dict[str, Any] = {**detail, "channel": channel, "symbol": symbol}
        if kind == "malformed":
            if minute != reports.minute:
                reports.minute, reports.count = minute, 0
            reports.count += 1
            if reports.count > _REPORTS_PER_MINUTE:
                reports.suppressed += 1
                return False
            if reports.suppressed:
                content["suppressed"], reports.suppressed = reports.suppressed, 0
        self.journal.append(_EVENT, connection, kind, json_body(**content))
        self.on_event(kind, detail, symbol, connection)
        return True

    def answer(self, answer: Answer) -> None:
        """Write a REST answer, verbatim."""
        self.journal.append_rest(answer.request.line, answer.body, answer.sent_wall_ns, answer.received_wall_ns)

    def refusal(self, error: RestError | MalformedFrameError, what: str) -> None:
        """Take note that the venue did not answer a question about `what`; a limit or a ban becomes an event."""
        self.counters.rest_errors += 1
        if isinstance(error, BannedError):
            self.event("banned", {"what": what, "until": error.until, "reason": str(error)})
        elif isinstance(error, RateLimitedError):
            self.event("rate_limited", {"what": what, "retry_after": error.retry_after, "reason": str(error)})
        LOG.warning("%s: %s", what, error)
