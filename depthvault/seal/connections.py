"""A period's connections, folded from the few rows of a journal that are no frames."""

from __future__ import annotations

from dataclasses import dataclass, field

from depthvault.journal import Kind, Row, parse_body
from depthvault.journal.rows import DROPPED, STOP, SUBSCRIBE
from depthvault.seal.receipts import Connection, DroppedRows, StreamSpan
from depthvault.seal.spans import Window

_CAUSES = {"roll": "roll", "stop": "stop"}


@dataclass(slots=True)
class _Open:
    connection: int
    route: str
    opened_ns: int
    continues: bool
    closed_ns: int | None = None
    cause: str | None = None
    spans: list[StreamSpan] = field(default_factory=list)
    active: dict[str, int] = field(default_factory=dict)

    def subscribe(self, streams: list[str], now: int) -> None:
        for stream in streams:
            self.active.setdefault(stream, now)

    def unsubscribe(self, streams: list[str], now: int) -> None:
        for stream in streams:
            if (since := self.active.pop(stream, None)) is not None:
                self.spans.append(StreamSpan(stream=stream, from_ns=since, until_ns=now))

    def all_spans(self) -> list[StreamSpan]:
        still = [StreamSpan(stream=stream, from_ns=since, until_ns=None) for stream, since in self.active.items()]
        return sorted((*self.spans, *still), key=lambda span: (span.stream, span.from_ns))


class ConnectionFold:
    """What one journal says about its connections up to the end of a window. Feed it the rows in order."""

    def __init__(self, journal: str, window: Window) -> None:
        self._journal = journal
        self._window = window
        self._connections: dict[int, _Open] = {}
        self._gone: list[_Open] = []
        self._last_ns = 0
        self.stopped = False
        self.dropped: list[DroppedRows] = []

    def saw(self, wall_ns: int) -> None:
        """Note the time of receipt of any row."""
        self._last_ns = wall_ns

    def add(self, row: Row) -> None:
        """Take a row that is no frame."""
        if row.wall_ns >= self._window.high:
            return
        match row.kind:
            case Kind.OPENED:
                self._opened(row)
            case Kind.CLOSED:
                initiator = str(parse_body(row.body).get("initiator", ""))
                self._end(row.connection, row.wall_ns, _CAUSES.get(initiator, "closed"))
            case Kind.EVENT if row.stream == SUBSCRIBE:
                self._subscribed(row)
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
        self._end(row.connection, row.wall_ns, "closed")  # its `closed` row may lie in a damaged record
        one = _Open(row.connection, row.stream, row.wall_ns, bool(body.get("continues")))
        one.subscribe(_names(body), row.wall_ns)
        self._connections[row.connection] = one

    def _subscribed(self, row: Row) -> None:
        body = parse_body(row.body)
        one = self._connections.get(row.connection)
        if one is None:
            return
        if body.get("active", True):
            one.subscribe(_names(body), row.wall_ns)
        else:
            one.unsubscribe(_names(body), row.wall_ns)

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

    def _end(self, connection: int, now: int, cause: str) -> None:
        if (one := self._connections.pop(connection, None)) is not None:
            one.closed_ns, one.cause = now, cause
            self._gone.append(one)

    def _end_all(self, now: int, cause: str) -> None:
        for connection in list(self._connections):
            self._end(connection, now, cause)


def _names(body: dict[str, object]) -> list[str]:
    names = body.get("streams")
    return [str(name) for name in names] if isinstance(names, list) else []
