"""When which stream was being listened to, by whom, and why a connection ended. Pure.

A session is one connection of one writer with the streams it subscribed to. From sessions follow the seconds covered,
the cause of a gap, and the holes of channels that have no ids: times at which nobody listened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

FOREVER = 1 << 62


class Span(NamedTuple):
    """A half-open span of time, ns since the epoch."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Session:
    """One connection, as far as it is known. `streams`: when each (channel, symbol) was subscribed on it; an empty
    symbol is the whole market.

    ended: why it closed (`closed`, `crash`, `stop`, `rotate`, `roll`); None when it was still open at `closed_ns`, the
    end of what was read.
    """

    writer: str
    opened_ns: int
    closed_ns: int
    ended: str | None
    streams: Mapping[tuple[str, str], tuple[Span, ...]]

    def listened(self, channel: str, symbol: str) -> list[Span]:
        """When the stream was subscribed on this connection."""
        return [*self.streams.get((channel, symbol), ()), *(self.streams.get((channel, ""), ()) if symbol else ())]


@dataclass(frozen=True, slots=True)
class Damage:
    """Journal records of one writer that could not be read, or frames that could not be decoded.

    kind: `damaged` or `malformed`. The span is when they were received, as far as their neighbours tell. channel: of
    malformed frames; empty when it is not known.
    """

    writer: str
    kind: str
    span: Span
    channel: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why events are missing, with the evidence by writer."""

    cause: str
    writers: dict[str, str]


def union(spans: Iterable[Span]) -> list[Span]:
    """The spans joined where they touch or overlap, ascending."""
    joined: list[Span] = []
    for span in sorted(spans):
        if joined and span.start <= joined[-1].end:
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, span.end))
        elif span.end > span.start:
            joined.append(span)
    return joined


def clipped(spans: Iterable[Span], window: Span) -> list[Span]:
    """What of `spans` lies inside `window`."""
    cut = (Span(max(span.start, window.start), min(span.end, window.end)) for span in spans)
    return [span for span in cut if span.end > span.start]


def seconds(spans: Iterable[Span]) -> float:
    """The length of disjoint spans."""
    return sum(span.end - span.start for span in spans) / 1e9


_CAUSE_OF_END = {"closed": "disconnect", "roll": "disconnect", "crash": "crash", "stop": "stop"}
_STRENGTH = ("damaged", "malformed", "crash", "stop", "disconnect", "venue", "unknown")


def _cause_of_writer(
    window: Span, sessions: Sequence[Session], damage: Sequence[Damage], channel: str, symbol: str
) -> str:
    near = [record for record in damage if record.span.start <= window.end and record.span.end >= window.start]
    if any(record.kind == "damaged" for record in near):
        return "damaged"
    heard = [session for session in sessions if session.listened(channel, symbol)]
    ends = [
        _CAUSE_OF_END[session.ended]
        for session in heard
        if session.ended in _CAUSE_OF_END and window.start <= session.closed_ns <= window.end
    ]
    if ends:
        return min(ends, key=_STRENGTH.index)
    spans = union(span for session in heard for span in session.listened(channel, symbol))
    if any(span.start <= window.start and span.end >= window.end for span in spans):
        # Connected throughout: either we could not read what came, or a healthy connection skipped ids.
        malformed = any(record.kind == "malformed" and record.channel in ("", channel) for record in near)
        return "malformed" if malformed else "venue"
    return "unknown"


def cause_of(
    window: Span,
    writers: Sequence[str],
    sessions: Sequence[Session],
    damage: Sequence[Damage],
    channel: str,
    symbol: str,
) -> Cause:
    """Why none of `writers` has what the stream sent in `window` (receipt of the neighbours), the strongest first."""
    found = {}
    for writer in writers:
        own = [session for session in sessions if session.writer == writer]
        own_damage = [record for record in damage if record.writer == writer]
        found[writer] = _cause_of_writer(window, own, own_damage, channel, symbol)
    return Cause(min(found.values(), key=_STRENGTH.index, default="unknown"), found)


def covered(sessions: Iterable[Session], channel: str, symbol: str) -> list[Span]:
    """When anybody listened to the stream."""
    return union(span for session in sessions for span in session.listened(channel, symbol))


def holes_ending_in(spans: Sequence[Span], window: Span, last_seen_ns: int | None) -> list[Span]:
    """Spans between sessions in which nobody listened, and that end inside `window`.

    last_seen_ns: receipt of the last event known from before, for a hole that began before the first span; without
    it the first session is a start-up and no hole.
    """
    holes = []
    end = last_seen_ns
    for span in spans:
        if end is not None and span.start > end and window.start <= span.start < window.end:
            holes.append(Span(end, span.start))
        end = span.end if end is None else max(end, span.end)
    return holes
