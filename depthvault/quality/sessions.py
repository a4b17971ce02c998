"""When which stream was being listened to, by whom, and why a connection ended. Pure.

A session is one connection of one writer with the streams it subscribed to. From sessions follow the seconds covered,
the cause of a gap, and the holes of channels that have no ids: times at which nobody listened.

Being subscribed is not listening: a venue may acknowledge a subscription and deliver nothing. Where ids prove what is
there, that shows. Where they do not, a subscription is doubted until its first frame: it listened, unless another one
of the same stream heard something meanwhile, or it ended without a word although the stream speaks often. It did not
listen while the watchdog found it silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

FOREVER = 1 << 62
PROVED_BY_IDS = frozenset({"update_id", "trade_id", "minute"})
"""Rules of continuity under which what is missing shows by itself, whoever listened."""

EVIDENCE_AFTER_NS = 1_000_000_000
"""A subscription takes a moment to take effect; what others hear sooner says nothing against it."""


class Span(NamedTuple):
    """A half-open span of time, ns since the epoch."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Session:
    """One connection, as far as it is known. `streams`: when each (channel, symbol) was listened to on it; an empty
    symbol is the whole market. `doubts`: when it was subscribed, and had not spoken yet. `silences`: when it was
    subscribed, and did not speak.

    ended: why it closed (`closed`, `crash`, `stop`, `rotate`, `roll`); None when it was still open at `closed_ns`, the
    end of what was read.
    """

    writer: str
    opened_ns: int
    closed_ns: int
    ended: str | None
    streams: Mapping[tuple[str, str], tuple[Span, ...]]
    doubts: Mapping[tuple[str, str], tuple[Span, ...]] = field(default_factory=dict)
    silences: Mapping[tuple[str, str], tuple[Span, ...]] = field(default_factory=dict)

    @property
    def subscriptions(self) -> frozenset[tuple[str, str]]:
        """Every (channel, symbol) that was subscribed on it."""
        return frozenset((*self.streams, *self.doubts, *self.silences))

    def subscribed(self, channel: str, symbol: str) -> bool:
        """Whether the stream was subscribed on this connection, heard or not."""
        return any(
            (channel, symbol) in spans or (channel, "") in spans for spans in (self.streams, self.doubts, self.silences)
        )

    def listened(self, channel: str, symbol: str) -> list[Span]:
        """When the stream was listened to on this connection, for all that is known."""
        return [*_of(self.streams, channel, symbol), *_of(self.doubts, channel, symbol)]

    def asked(self, channel: str, symbol: str) -> list[Span]:
        """When the stream was subscribed on this connection, heard or not; where it fell silent, up to then."""
        return [*self.listened(channel, symbol), *self.silent(channel, symbol)]

    def silent(self, channel: str, symbol: str) -> list[Span]:
        """When the stream was subscribed and did not speak, although it should have."""
        return _of(self.silences, channel, symbol)

    def judged(self, channel: str, symbol: str, unheard: Callable[[str], Ints]) -> Session:
        """The session with its doubts about the stream settled by what others received of it and its writer did not.

        unheard: the receipts of that (ns, ascending), by writer.
        """
        doubts = [span for span in _of(self.doubts, channel, symbol) if span.end - span.start > EVIDENCE_AFTER_NS]
        if not doubts:
            return self
        receipts = unheard(self.writer)
        first = np.searchsorted(receipts, [span.start + EVIDENCE_AFTER_NS for span in doubts], side="right")
        last = np.searchsorted(receipts, [span.end for span in doubts])
        against = tuple(span for span, low, high in zip(doubts, first, last, strict=True) if low < high)
        if not against:
            return self
        left = {
            name: tuple(span for span in spans if span not in against) if name in ((channel, symbol), (channel, ""))
            else spans for name, spans in self.doubts.items()
        }  # fmt: skip
        return replace(
            self, doubts=left, silences={**self.silences, (channel, symbol): (*self.silent(channel, symbol), *against)}
        )


def _of(spans: Mapping[tuple[str, str], tuple[Span, ...]], channel: str, symbol: str) -> list[Span]:
    return [*spans.get((channel, symbol), ()), *(spans.get((channel, ""), ()) if symbol else ())]


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
_STRENGTH = ("damaged", "malformed", "crash", "stop", "disconnect", "silent", "venue", "unknown")


def _cause_of_writer(
    window: Span, sessions: Sequence[Session], damage: Sequence[Damage], channel: str, symbol: str
) -> str:
    near = [record for record in damage if record.span.start <= window.end and record.span.end >= window.start]
    if any(record.kind == "damaged" for record in near):
        return "damaged"
    heard = [session for session in sessions if session.subscribed(channel, symbol)]
    ends = [
        _CAUSE_OF_END[session.ended]
        for session in heard
        if session.ended in _CAUSE_OF_END and window.start <= session.closed_ns <= window.end
    ]
    if ends:
        return min(ends, key=_STRENGTH.index)
    if any(one.start < window.end and one.end > window.start for each in heard for one in each.silent(channel, symbol)):
        return "silent"
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
    it the first session is a start-up and no hole. Later than that it says nothing: an event of the period before may
    be told again by the answer to a subscription.
    """
    holes = []
    end = last_seen_ns if last_seen_ns is not None and spans and last_seen_ns <= spans[0].start else None
    for span in spans:
        if end is not None and span.start > end and window.start <= span.start < window.end:
            holes.append(Span(end, span.start))
        end = span.end if end is None else max(end, span.end)
    return holes
