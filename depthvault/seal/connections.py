"""A period's connections, folded from the rows of a journal: the few that are no frames, and which streams spoke.

Being subscribed is not listening: a venue may acknowledge a subscription and deliver nothing. So for each subscription
the first frame is told, and one that the watchdog found silent ends where its last frame came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from depthvault.journal import Kind, Row, parse_body
from depthvault.journal.rows import DROPPED, ROLL, STALE, STOP, SUBSCRIBE
from depthvault.seal.receipts import Connection, DroppedRows, StreamSpan
from depthvault.seal.spans import Window

Ints = npt.NDArray[np.int64]
_CAUSES = {"roll": "roll", "stop": "stop"}


@dataclass(slots=True)
class _Subscription:
    """heard_ns: its first frame. silent: the stream was found silent before it, and has not spoken since."""

    since_ns: int
    heard_ns: int | None = None
    silent: bool = False

    def span(self, stream: str, until_ns: int | None) -> StreamSpan:
        return StreamSpan(
            stream=stream, from_ns=self.since_ns, until_ns=until_ns, heard_ns=self.heard_ns, silent=self.silent
        )


@dataclass(slots=True)
class _Open:
    connection: int
    route: str
    opened_ns: int
    continues: bool
    closed_ns: int | None = None
    cause: str | None = None
    last_ns: int = 0
    renewed: bool = False  # rolled because a stream on it was silent
    spans: list[StreamSpan] = field(default_factory=list)
    active: dict[str, _Subscription] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)  # subscribed, and not heard yet

    def subscribe(self, stream: str, now: int, *, silent: bool, heard: bool = False) -> None:
        if stream not in self.active:
            self.active[stream] = _Subscription(now, now if heard else None, silent)
            if not heard:
                self.waiting.add(stream)

    def end(self, stream: str, until_ns: int) -> None:
        """The subscription ends, or is known to have heard nothing since."""
        self.waiting.discard(stream)
        if (one := self.active.pop(stream, None)) is not None:
            self.spans.append(one.span(stream, max(one.since_ns, one.heard_ns or 0, until_ns)))

    def lost(self) -> None:
        """The connection may have been dead when it ended: what it carried was heard until its last frame at most."""
        for stream in list(self.active):
            self.end(stream, self.last_ns or self.opened_ns)

    def all_spans(self) -> list[StreamSpan]:
        still = [one.span(stream, None) for stream, one in self.active.items()]
        return sorted((*self.spans, *still), key=lambda span: (span.stream, span.from_ns))


class ConnectionFold:
    """What one journal says about its connections up to the end of a window. Feed it the rows in order.

    speaks: whether a frame that bears a stream's name is data of it, not a mere answer.
    """

    def __init__(self, journal: str, window: Window, speaks: Callable[[bytes], bool] = lambda body: True) -> None:
        self._journal = journal
        self._window = window
        self._speaks = speaks
        self._connections: dict[int, _Open] = {}
        self._gone: list[_Open] = []
        self._silent: set[str] = set()
        self._last_ns = 0
        self._lost: dict[int, _Open] = {}  # connections that may have been dead when they ended
        self._fell_silent: dict[tuple[int, str], int] = {}  # streams silent since before this file began: since when
        self.stopped = False
        self.dropped: list[DroppedRows] = []

    @property
    def waits(self) -> bool:
        """Whether a subscription has not spoken yet, so that frames must be shown whole."""
        return any(one.waiting for one in self._connections.values())

    def saw(self, wall_ns: int) -> None:
        """Note the time of receipt of any row."""
        self._last_ns = wall_ns

    def take(self, batch: pa.RecordBatch) -> None:
        """Take a record with all of its columns."""
        walls, connections = batch.column("wall_ns").to_numpy(), batch.column("connection").to_numpy()
        others = np.flatnonzero(pc.not_equal(batch.column("kind"), Kind.FRAME.value).to_numpy(zero_copy_only=False))
        position = 0
        for index in others.tolist():
            self._frames(batch, walls, connections, position, index)
            self.add(Row(*(column[index].as_py() for column in batch.columns)))
            position = index + 1
        self._frames(batch, walls, connections, position, batch.num_rows)

    def saw_frames(self, walls: Ints, connections: Ints) -> None:
        """Take a record that has nothing but frames, while nobody waits for any."""
        inside = walls < self._window.high
        for number in np.unique(connections[inside]).tolist():
            if (one := self._connections.get(number)) is not None:
                one.last_ns = int(walls[inside & (connections == number)][-1])

    def _frames(self, batch: pa.RecordBatch, walls: Ints, connections: Ints, start: int, stop: int) -> None:
        if start == stop:
            return
        self.saw_frames(walls[start:stop], connections[start:stop])
        if not self.waits:
            return
        waiting = pa.array(sorted(set().union(*(one.waiting for one in self._connections.values()))), pa.utf8())
        part = batch.slice(start, stop - start)
        streams = part.column("stream")
        for index in np.flatnonzero(pc.is_in(streams, waiting).to_numpy(zero_copy_only=False)).tolist():
            stream, wall = streams[index].as_py(), int(walls[start + index])
            one = self._connections.get(int(connections[start + index]))
            if one is None or stream not in one.waiting or wall >= self._window.high:
                continue
            if self._speaks(part.column("body")[index].as_py()):
                one.active[stream].heard_ns = wall
                one.waiting.discard(stream)
                self._silent.discard(stream)

    def add(self, row: Row) -> None:
        """Take a row that is no frame."""
        if row.wall_ns >= self._window.high:
            return
        match row.kind:
            case Kind.OPENED:
                self._opened(row)
            case Kind.CLOSED:
                body = parse_body(row.body)
                cause = _CAUSES.get(str(body.get("initiator")), "closed")
                self._end(row.connection, row.wall_ns, cause, clean=bool(body.get("clean")))
            case Kind.EVENT if row.stream == SUBSCRIBE:
                self._subscribed(row)
            case Kind.EVENT if row.stream == STALE:
                self._stale(row)
            case Kind.EVENT if row.stream == ROLL:
                self._rolled(row)
            case Kind.EVENT if row.stream == STOP:
                self.stopped = True
                reason = parse_body(row.body).get("reason")
                self._end_all(row.wall_ns, "rotate" if reason == "rotate" else "stop")
            case Kind.EVENT if row.stream == DROPPED:
                self._dropped(row)
            case _:
                pass

    def crashed(self) -> None:
        """The journal ends here without a stop row, and its writer is gone."""
        self._end_all(self._last_ns, "crash")

    def goes_on_in(self, following: ConnectionFold) -> None:
        """Take in what the writer's next file tells of connections that were open when this one ended: that they, or
        streams on them, had been silent since before."""
        for one in self._gone:
            if one.cause != "rotate" or one.closed_ns is None:
                continue
            for stream in list(one.active):
                last = following._fell_silent.get((one.connection, stream))
                if last is not None and last < one.closed_ns:
                    one.end(stream, last)
            after = following._lost.get(one.connection)
            if after is not None and one.last_ns and not after.last_ns:  # dead before the turn, for all that is known
                for stream in list(one.active):
                    one.end(stream, one.last_ns)

    def connections(self) -> list[Connection]:
        """Those that were open at any moment of the period, by time of opening."""
        period = self._window.period
        found = [
            Connection(
                connection=one.connection,
                route=one.route,
                journal=self._journal,
                continues=one.continues,
                opened_ns=one.opened_ns,
                closed_ns=one.closed_ns,
                cause=one.cause,
                streams=one.all_spans(),
            )
            for one in (*self._gone, *self._connections.values())
            if one.opened_ns < period.end_ns and (one.closed_ns is None or one.closed_ns >= period.start_ns)
        ]
        return sorted(found, key=lambda one: (one.opened_ns, one.connection))

    def _opened(self, row: Row) -> None:
        body = parse_body(row.body)
        self._end(row.connection, row.wall_ns, "closed", clean=False)  # its `closed` row may lie in a damaged record
        one = _Open(row.connection, row.stream, row.wall_ns, bool(body.get("continues")))
        silent, unheard = set(_names(body, "silent")), set(_names(body, "unheard"))
        self._silent |= silent
        for stream in _names(body):
            heard = one.continues and stream not in silent and stream not in unheard
            one.subscribe(stream, row.wall_ns, silent=stream in self._silent, heard=heard)
        self._connections[row.connection] = one

    def _subscribed(self, row: Row) -> None:
        body = parse_body(row.body)
        one = self._connections.get(row.connection)
        if one is None:
            return
        for stream in _names(body):
            if body.get("active", True):
                one.subscribe(stream, row.wall_ns, silent=stream in self._silent)
            else:
                one.end(stream, row.wall_ns)

    def _stale(self, row: Row) -> None:
        """The watchdog found a stream, or all of a connection (`*`), silent for some time up to now."""
        body = parse_body(row.body)
        stream, seconds = body.get("stream"), body.get("silent_s")
        if not isinstance(stream, str) or not isinstance(seconds, int | float) or body.get("action") == "recovered":
            return
        last = row.wall_ns - round(seconds * 1e9)
        for one in self._connections.values():
            for name in [stream] if stream != "*" else list(one.active) if one.connection == row.connection else []:
                if name in one.active:
                    if one.continues and last < one.opened_ns:
                        self._fell_silent[one.connection, name] = last
                    one.end(name, last)
                    self._silent.add(name)
                    one.subscribe(name, row.wall_ns, silent=True)

    def _rolled(self, row: Row) -> None:
        body = parse_body(row.body)
        if body.get("reason") == STALE and (one := self._connections.get(int(body.get("from", 0)))) is not None:
            one.renewed = True

    def _dropped(self, row: Row) -> None:
        body = parse_body(row.body)
        if body.get("reason") != "memory_limit":
            return
        self.dropped.append(
            DroppedRows(
                journal=self._journal,
                sequence=row.sequence,
                rows=int(body.get("rows", 0)),
                connections=[int(number) for number in body.get("connections", ())],
                from_ns=int(body.get("from_ns", row.wall_ns)),
                until_ns=int(body.get("until_ns", row.wall_ns)),
            )
        )

    def _end(self, connection: int, now: int, cause: str, *, clean: bool) -> None:
        if (one := self._connections.pop(connection, None)) is not None:
            one.closed_ns, one.cause = now, cause
            # Where the venue closed it, or answered us, all that it had sent is here.
            if not clean or one.renewed:
                one.lost()
                self._lost[connection] = one
            self._gone.append(one)

    def _end_all(self, now: int, cause: str) -> None:
        for connection in list(self._connections):
            self._end(connection, now, cause, clean=cause != "crash")


def _names(body: dict[str, object], key: str = "streams") -> list[str]:
    names = body.get(key)
    return [str(name) for name in names] if isinstance(names, list) else []
