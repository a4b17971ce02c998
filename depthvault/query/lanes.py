"""One stream as several writers bring it: each event once, in its order, and what is missing told. Pure.

A chain (`depth_diff`, `agg_trade`) is given in the order of its ids. An event that continues it goes on at once; before
a hole the others that record the stream are waited for, `window` at most, and only then the `Gap` is told. Channels
without a chain are given in the order of receipt.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from depthvault.query.replay import Event, Gap, Notice, Stream

LATE = "late"
"""Kind of the notice about an event that came when its place in the chain had been passed."""

_MOST_SPANS = 256
REMEMBERED_US = 600_000_000
"""How long the key of an event without a chain is remembered, so that nobody brings it again."""

_MOST_REMEMBERED = 100_000
_FEEDS_US = 60_000_000

Item = Event | Gap | Notice


class Link(NamedTuple):
    """The ids of an event of a chain, so that links sort by their place in it."""

    epoch: int
    final: int
    whole: bool
    start: int


class _Candidate(NamedTuple):
    link: Link
    writer: str
    number: int  # so that events are never compared
    event: Event


class Lane:
    """What every stream needs: who feeds it, and what was given last."""

    def __init__(self, stream: Stream, window_us: int) -> None:
        self.stream = stream
        self._window = window_us
        self._feeders: dict[str, int] = {}

    def fed(self, writer: str, received: int) -> None:
        """`writer` delivered a row of this stream."""
        self._feeders[writer] = max(received, self._feeders.get(writer, received))

    def _others_told(self, writer: str, moment: int, told: Mapping[str, int], among: Mapping[str, Any]) -> bool:
        """Whether all others `among` the writers that live have told what they received up to `moment`."""
        return all(told[name] >= moment for name in among if name != writer and name in told)


class ChainLane(Lane):
    """A stream whose ids prove that it is complete."""

    def __init__(self, stream: Stream, window_us: int) -> None:
        super().__init__(stream, window_us)
        self._last: Link | None = None
        self._released = 0
        self._spans: list[tuple[int, int, int]] = []  # (epoch, after this id, up to this one) that was given
        self._whole: dict[tuple[int, int], None] = {}  # whole books that were given
        self._waiting: list[_Candidate] = []
        self._number = 0

    def given(self, event: Event, link: Link) -> None:
        """`event` was given: what follows continues from it."""
        last = self._last
        if link.whole:
            self._whole[link.epoch, link.final] = None
            if len(self._whole) > _MOST_SPANS:
                del self._whole[next(iter(self._whole))]
            if last is None or link[:2] > last[:2]:
                self._spans.append((link.epoch, link.final, link.final))
        else:
            epoch, start, final = self._spans[-1] if self._spans else (link.epoch, link.start, link.start)
            if epoch == link.epoch and start <= link.start <= final:
                self._spans[-1:] = [(epoch, start, max(final, link.final))]
            else:
                self._spans.append((link.epoch, link.start, link.final))
        del self._spans[:-_MOST_SPANS]
        if last is None or link > last:
            self._last = link
        self._released = max(self._released, event.received)

    def put(self, event: Event, link: Link, writer: str) -> None:
        """An event that `writer` received."""
        self.fed(writer, event.received)
        self._number += 1
        heapq.heappush(self._waiting, _Candidate(link, writer, self._number, event))

    @property
    def waits_since(self) -> int | None:
        """When the first event that waits was received, µs; None when none does."""
        return min((one.event.received for one in self._waiting), default=None)

    def take(self, told: Mapping[str, int]) -> Iterator[Item]:
        """What can be given now. told: up to when, in µs, each living writer has told all that it received.

        `received` of an event is when it and all before it had been received, as in a replay.
        """
        while self._waiting and (place := self._next(told)) is not None:
            one = self._pop(place)
            if place == 0 and self._is_past(one.link):
                if not self._is_known(one.link):
                    yield self._late(one)
                continue
            last, link = self._last, one.link
            self._released = max(self._released, one.event.received)
            one.event.received = self._released
            if last is not None and not link.whole and (link.start > last.final or link.epoch != last.epoch):
                yield Gap(self.stream, self._released, last.final, link.start + 1)
            self.given(one.event, link)
            yield one.event

    def _pop(self, place: int) -> _Candidate:
        if place == 0:
            return heapq.heappop(self._waiting)
        one = self._waiting.pop(place)
        heapq.heapify(self._waiting)
        return one

    def _next(self, told: Mapping[str, int]) -> int | None:
        """Where the event to look at next lies; None when the others must be waited for."""
        last, first = self._last, self._waiting[0]
        link = first.link
        if last is None:  # anybody may still bring what came before the first one
            return 0 if self._others_told(first.writer, first.event.received + self._window, told, told) else None
        if self._is_past(link) or self._follows(link, exactly=True):
            return 0
        # Others may bring what fits better: the wider batch that closes a hole, or the one that does not overlap.
        for exactly in (True, False):
            fitting = [
                place
                for place, one in enumerate(self._waiting)
                if not one.link.whole and self._follows(one.link, exactly=exactly) and not self._is_past(one.link)
            ]
            if fitting:
                place = min(fitting, key=lambda each: self._waiting[each][:3])
                if link.whole:
                    return 0  # the chain goes on beyond the whole book, whose place is here
                return place if exactly or self._waited(self._waiting[place], told) else None
        return 0 if self._waited(first, told) else None

    def _waited(self, one: _Candidate, told: Mapping[str, int]) -> bool:
        feeders = {name: 0 for name, seen in self._feeders.items() if seen >= one.event.received - _FEEDS_US}
        return self._others_told(one.writer, one.event.received + self._window, told, feeders)

    def _is_past(self, link: Link) -> bool:
        """Whether the chain has gone beyond the event's place."""
        last = self._last
        return last is not None and link[:3] <= last[:3]

    def _follows(self, link: Link, *, exactly: bool) -> bool:
        last = self._last
        if last is None or link.epoch != last.epoch:
            return False
        reached = link.final if link.whole else link.start
        return reached == last.final if exactly else reached <= last.final

    def _is_known(self, link: Link) -> bool:
        """Whether what the event holds was given, by itself or in another batch."""
        if link.whole:
            return (link.epoch, link.final) in self._whole
        return any(
            epoch == link.epoch and start <= link.start and link.final <= final for epoch, start, final in self._spans
        )

    def _late(self, one: _Candidate) -> Notice:
        detail = {"after_id": one.link.start, "last_id": one.link.final, "whole": one.link.whole}
        return Notice(
            self.stream.exchange, one.event.received, LATE, one.writer, self.stream.channel, self.stream.symbol, detail
        )


class StateLane(Lane):
    """A stream without a chain of ids: each key once, as it comes.

    A key is remembered for ten minutes after it came; what a writer that was stuck for longer brings may come twice.
    """

    def __init__(self, stream: Stream, window_us: int) -> None:
        super().__init__(stream, window_us)
        self._keys: dict[tuple[Any, ...], int] = {}
        self._states = stream.channel == "instrument"

    def is_new(self, key: tuple[Any, ...], now: int) -> bool:
        """Whether the key has not come yet; from now on it has. now: µs of a clock that never steps back.

        `instrument` is a state: new is what differs from the one before.
        """
        if self._states:
            known = key in self._keys
            self._keys = {key: now}
            return not known
        if key in self._keys:
            return False
        self._keys[key] = now
        while len(self._keys) > _MOST_REMEMBERED:
            del self._keys[next(iter(self._keys))]
        while now - self._keys[first := next(iter(self._keys))] > REMEMBERED_US:
            del self._keys[first]
        return True
