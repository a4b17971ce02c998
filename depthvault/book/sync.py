"""When a book's stream is whole, and what must be done when it is not. Pure: no I/O, no levels, no clock of its own.

A `BookSync` watches the ids of one symbol's depth events. It keeps two things apart:

* the **chain**: does each event follow the one before (the venue's continuity rule)? A break opens a gap; a late
  frame may close it within the grace period, else the gap is declared and the chain begins anew;
* the **seed**: does the chain join a known whole book, a REST snapshot or one that came in the stream?

So a gap costs one new seed of one symbol, and never stops the stream: every frame is journaled whatever is said here.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter

from depthvault.exchanges.base import Continuity, Head, Seed

RESTART_MS = 5_000
"""An event with an old id but an event time this much newer than the newest one: the venue restarted its ids."""

UNJOINED_MS = 30_000
"""Event time that may pass on events older than the snapshot before the snapshot is given up."""


class State(StrEnum):
    """Where a book stands."""

    UNSEEDED = "unseeded"  # nothing is known of it yet
    SEEDING = "seeding"  # events arrive, the whole book is still wanted
    LIVE = "live"  # the chain joins a whole book
    GAP = "gap"  # an event is missing; a late frame may still bring it


class Outcome(StrEnum):
    """What a step brought that somebody should know."""

    OPENED = "opened"  # an event is missing; `due` must be called at `deadline_ns`
    GAP = "gap"  # events are missing for good; a new seed is wanted
    CLOSED = "closed"  # a late frame closed a gap in time
    LIVE = "live"  # the chain joined a whole book
    TOO_OLD = "too_old"  # the snapshot does not reach the stream: fetch another one
    RESTART = "restart"  # the venue began its ids anew


@dataclass(frozen=True, slots=True)
class Change:
    """A step's outcome. breaks: pairs (last id before, first id after) of the gaps that it declares."""

    outcome: Outcome
    breaks: tuple[tuple[int, int], ...] = ()
    last_update_id: int | None = None


class BookSync:
    """The state of one symbol's book stream.

    continuity, seed: the venue's rules. grace_ns: how long a late frame may close a gap.
    capacity: events remembered while a seed is wanted; when more come, the oldest are forgotten, which can only make
    a snapshot count as too old, never join wrongly. Snapshots are seconds old, seeds are waited for much longer where
    the weight budget is short: what is remembered must reach behind a snapshot, not back to when it was first wanted.

    Feed it `receive` for each event, `snapshot` for each REST answer, `due` when time passes, `interrupted` when the
    connection that carried the stream was lost.
    """

    __slots__ = (
        "_awaiting",
        "_capacity",
        "_continuity",
        "_event_ms",
        "_heads",
        "_in_band",
        "_interrupted",
        "_pending",
        "_snapshot_ms",
        "duplicates",
        "events",
        "final",
        "gaps",
        "grace_ns",
        "seeded",
    )

    def __init__(self, continuity: Continuity, seed: Seed, *, grace_ns: int, capacity: int = 512) -> None:
        self._continuity = continuity
        self._in_band = seed is Seed.IN_BAND
        self.grace_ns = grace_ns
        self._capacity = capacity
        self._heads: deque[Head] = deque(maxlen=capacity)  # the chain since it began, while a seed is wanted
        self._pending: list[tuple[int, int, Head]] = []  # beyond an open gap: final id, arrival, event; by id
        self._awaiting: int | None = None  # id of a snapshot that no event has joined yet
        self._snapshot_ms = 0
        self._event_ms = 0
        self._interrupted = False
        self.final: int | None = None
        """Id at which the chain stands; None before its first event."""
        self.seeded = False
        self.events = 0
        self.duplicates = 0
        self.gaps = 0

    @property
    def state(self) -> State:
        if self._pending:
            return State.GAP
        if self.seeded:
            return State.LIVE
        return State.SEEDING if self.final is not None else State.UNSEEDED

    @property
    def wants_seed(self) -> bool:
        """Whether a whole book must be had: by REST, or by subscribing anew where it comes in the stream."""
        return not self.seeded

    @property
    def deadline_ns(self) -> int | None:
        """When `due` must be called, on the clock of `now_ns`; None while no gap is open."""
        # A gap is known since the first event beyond it arrived.
        return min(arrived for _, arrived, _ in self._pending) + self.grace_ns if self._pending else None

    def receive(self, event: Head, now_ns: int) -> Change | None:
        """Take the next event as it arrives, from whichever connection. None: nothing to tell."""
        final = self.final
        if event.is_snapshot:
            return self._replace(event)
        if final is None:
            if not self._in_band:  # an update before the first whole book of the stream says nothing
                self._begin([event])
                return self._join(event)
            return None
        continuity = self._continuity
        if continuity.is_old(final, event):
            return self._old(event)
        if not continuity.follows(final, event):
            return self._break(event, now_ns)
        change = self._advance(event)
        if self._pending:
            change = change or self._drain()
        return change

    def snapshot(self, last_update_id: int) -> Change:
        """Take a REST snapshot. Its outcome is LIVE, or TOO_OLD when another one must be fetched."""
        continuity = self._continuity
        heads = self._heads
        if heads and continuity.snapshot_too_old(last_update_id, heads[0]):
            return Change(Outcome.TOO_OLD, last_update_id=last_update_id)
        joining = next((head for head in heads if not continuity.precedes_snapshot(last_update_id, head)), None)
        if joining is not None and not continuity.joins(last_update_id, joining):
            return Change(Outcome.TOO_OLD, last_update_id=last_update_id)
        # Without a joining event the book is valid at the snapshot; the next event must join it.
        self._awaiting = last_update_id if joining is None else None
        self._snapshot_ms = self._event_ms
        self.seeded = True
        heads.clear()
        return Change(Outcome.LIVE, last_update_id=last_update_id)

    def due(self, now_ns: int) -> Change | None:
        """Declare an open gap whose grace is over."""
        deadline_ns = self.deadline_ns
        return None if deadline_ns is None or now_ns < deadline_ns else self._declare(now_ns)

    def interrupted(self) -> None:
        """The only connection of this stream was lost: no late frame can come, so a break needs no grace.

        Where books come in the stream, the next whole one is taken whatever its id.
        """
        self._interrupted = True

    def _advance(self, event: Head) -> Change | None:
        self.final = event.final
        self.events += 1
        self._interrupted = False
        if event.event_ms > self._event_ms:
            self._event_ms = event.event_ms
        if self.seeded and self._awaiting is None:
            return None
        return self._join(event)

    def _join(self, event: Head) -> Change | None:
        """Look whether `event`, now the chain's last one, joins the snapshot that waits for it."""
        if not self.seeded:
            if not self._in_band:
                self._heads.append(event)
            return None
        awaiting = self._awaiting
        if awaiting is None:
            return None
        if self._continuity.precedes_snapshot(awaiting, event):
            if event.event_ms <= self._snapshot_ms + UNJOINED_MS or not self._snapshot_ms:
                self._snapshot_ms = self._snapshot_ms or event.event_ms
                return None
        elif self._continuity.joins(awaiting, event):
            self._awaiting = None
            return None
        self._unseed([event])
        return Change(Outcome.TOO_OLD, last_update_id=awaiting)

    def _begin(self, chain: Iterable[Head]) -> None:
        """Let the chain consist of `chain`, and nothing before it."""
        for event in chain:
            self.final = event.final
            self.events += 1
            self._event_ms = event.event_ms
        self._interrupted = False

    def _unseed(self, chain: Iterable[Head]) -> None:
        self.seeded = False
        self._awaiting = None
        self._heads.clear()
        self._heads.extend(chain)

    def _old(self, event: Head) -> Change | None:
        if event.event_ms <= self._event_ms + RESTART_MS or not self._event_ms:
            self.duplicates += 1
            return None
        breaks = ((self.final or 0, event.first),)
        self.gaps += 1
        self._pending.clear()
        if self._in_band:
            self.final = None
            self._unseed(())
        else:
            self._begin([event])
            self._unseed([event])
        return Change(Outcome.RESTART, breaks)

    def _break(self, event: Head, now_ns: int) -> Change | None:
        pending = self._pending
        opened = not pending
        if any(final == event.final for final, _, _ in pending):
            self.duplicates += 1
        else:
            insort(pending, (event.final, now_ns, event), key=itemgetter(0))
        if self._interrupted or len(pending) >= self._capacity:
            return self._declare(now_ns)
        if not opened and (change := self.due(now_ns)) is not None:
            return change
        return Change(Outcome.OPENED) if opened else None

    def _drain(self) -> Change | None:
        """Take what now follows of the events beyond the gap."""
        continuity = self._continuity
        pending = self._pending
        change = None
        taken = 0
        for _, _, event in pending:
            assert self.final is not None
            if continuity.is_old(self.final, event):
                self.duplicates += 1
            elif continuity.follows(self.final, event):
                change = self._advance(event) or change
            else:
                break
            taken += 1
        del pending[:taken]
        if pending:
            return change
        return change or Change(Outcome.CLOSED)

    def _declare(self, now_ns: int) -> Change:
        """The missing events will not come: begin anew behind them. A younger gap behind keeps its own grace."""
        breaks: list[tuple[int, int]] = []
        everything = self._interrupted or len(self._pending) >= self._capacity
        while self._pending and (everything or (deadline := self.deadline_ns) is None or deadline <= now_ns):
            _, _, event = self._pending.pop(0)
            breaks.append((self.final or 0, event.prev if event.prev is not None else event.first))
            if self._in_band:  # what comes before the next whole book cannot be used
                self._pending.clear()
                self.final = None
                self._unseed(())
                break
            self._begin([event])
            self._unseed([event])
            self._drain()
        self.gaps += len(breaks)
        return Change(Outcome.GAP, tuple(breaks))

    def _replace(self, event: Head) -> Change | None:
        """A whole book in the stream. One that the chain has passed already (an overlap) changes nothing."""
        final = self.final
        if self.seeded and final is not None and event.final <= final and not self._interrupted and not self._pending:
            self.duplicates += 1
            return None
        breaks: tuple[tuple[int, int], ...] = ()
        if self._pending and final is not None:
            breaks = ((final, self._pending[0][2].first),)
            self.gaps += 1
            beyond = [head for last, _, head in self._pending if last > event.final]
        else:
            beyond = []
        self._pending.clear()
        self._begin([event])
        self.seeded = True
        self._awaiting = None
        for head in beyond:  # frames of another connection that are ahead of this book
            if self._continuity.follows(event.final, head):
                self._advance(head)
                event = head
        return Change(Outcome.GAP, breaks) if breaks else Change(Outcome.LIVE, last_update_id=event.final)
