"""Silence is noticed: an acknowledged subscription that delivers nothing is found, repaired, or declared.

A stream is suspect when it says nothing for longer than streams of its class ever do (`expected_silence`). Then, one
step for each such span: it is subscribed again; its connection is replaced; it is declared stale, once. A frame ends
the matter. A connection on which nothing at all arrives is replaced at once.

Where a stream's first frame is the answer to its subscription, the lack of it is found sooner. After a refusal that
named nothing it was the refused one, and is sent again as it was. Else the venue took it and stays silent: to send it
again would be refused ("already subscribed") and change nothing, so that it is subscribed anew like any silent stream.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from collectors.recorder import Recorder, StreamState
from collectors.slot import Slot
from depthvault.clock import Clock
from depthvault.exchanges.base import Exchange, Stream

LOG = logging.getLogger("depthvault.collector")

_ANSWER_NS = 10_000_000_000  # an unanswered subscription is sent again after this
_RENEW_EVERY_NS = 600_000_000_000  # a connection is not replaced for one silent stream more often than this
_SILENT_AGAIN_NS = 60_000_000_000  # nor for being silent since it was replaced
_SCAN = 5.0  # seconds between two looks, unless streams are expected more often

_HEALTHY, _RESUBSCRIBED, _RENEWED, _DECLARED = range(4)
_ACTIONS = {_RESUBSCRIBED: "resubscribe", _RENEWED: "renew", _DECLARED: "declared"}


@dataclass(eq=False)
class Watchdog:
    """Looks at all streams of a process.

    resubscribe: subscribes to streams anew. ask_again: sends subscriptions once more that were not answered. renew:
    replaces the connection that carries a stream. slot: the place whose connection carries a stream; None while that
    connection is being opened, which is not silence.
    """

    exchange: Exchange
    recorder: Recorder
    clock: Clock
    resubscribe: Callable[[list[Stream]], None]
    ask_again: Callable[[list[Stream]], None]
    renew: Callable[[Stream], None]
    slot: Callable[[Stream], Slot | None]
    _renewed: dict[int, int] = field(default_factory=dict)  # slot: when replaced for one of its streams
    _replaced: dict[int, int] = field(default_factory=dict)  # slot: when replaced because nothing came at all

    def silence_ns(self, state: StreamState) -> float:
        """How long the stream may say nothing; inf: for ever."""
        return self.exchange.expected_silence(state.stream.channel, state.busy) * 1e9

    def look(self) -> None:
        """Act on every stream that is silent for too long."""
        now = self.clock.monotonic_ns()
        self._look_at_connections(now)
        again: list[Stream] = []
        unanswered: list[Stream] = []
        for state in self.recorder.states.values():
            limit = self.silence_ns(state)
            if not self.exchange.acknowledges and self._unanswered(state, now):
                if self._refused(state):
                    unanswered.append(state.stream)
                    continue
                limit = _ANSWER_NS
            if not state.subscribed_ns or math.isinf(limit):
                continue
            heard = max(state.last_ns, state.subscribed_ns)
            if state.last_ns > state.acted_ns:
                if state.stage:
                    self._report(state, now, "recovered")
                state.stage, state.acted_ns = _HEALTHY, 0
            if now - max(heard, state.acted_ns) <= limit or state.stage == _DECLARED:
                continue
            slot = self.slot(state.stream)
            if slot is None:
                continue
            state.stage += 1
            state.acted_ns = now
            if state.stage == _RENEWED and self._just_renewed(slot, now):
                state.stage = _DECLARED  # replacing the connection did not help a moment ago
            self._report(state, now, _ACTIONS[state.stage])
            if state.stage == _RESUBSCRIBED:
                again.append(state.stream)
            elif state.stage == _RENEWED:
                # All streams of the slot that are silent too get their chance by this one replacement.
                self._renewed[slot.index] = now
                self.renew(state.stream)
        if again:
            self.resubscribe(again)
        if unanswered:
            LOG.warning("%d subscriptions were not answered and are sent again", len(unanswered))
            self.ask_again(unanswered)

    def _just_renewed(self, slot: Slot, now: int) -> bool:
        return now - self._renewed.get(slot.index, -_RENEW_EVERY_NS) < _RENEW_EVERY_NS

    def _look_at_connections(self, now: int) -> None:
        """Replace a connection that brings nothing at all for longer than its liveliest stream may be silent."""
        slots: dict[int, tuple[Slot, float, list[StreamState]]] = {}
        for state in self.recorder.states.values():
            slot = self.slot(state.stream) if state.subscribed_ns else None
            if slot is not None:
                _, limit, states = slots.setdefault(slot.index, (slot, math.inf, []))
                states.append(state)
                slots[slot.index] = slot, min(limit, self.silence_ns(state)), states
        for slot, limit, states in slots.values():
            heard = max(slot.last_ns, max(max(state.subscribed_ns, state.acted_ns) for state in states))
            if now - heard <= limit:
                continue
            renewed = self._replaced.get(slot.index)
            if renewed is not None and slot.last_ns < renewed and now - renewed < _SILENT_AGAIN_NS:
                continue  # the last replacement brought nothing either
            self._replaced[slot.index] = now
            for state in states:  # the new connection gets its time
                state.acted_ns = now
            self.recorder.counters.stale += 1
            detail = {"action": "renew", "stream": "*", "streams": len(states), "silent_s": (now - heard) / 1e9}
            self.recorder.event("stale", detail, connection=slot.connections[-1].number)
            LOG.warning("connection %d: nothing for %.1f s: renewed", slot.connections[-1].number, detail["silent_s"])
            self.renew(states[0].stream)

    @staticmethod
    def _unanswered(state: StreamState, now: int) -> bool:
        """Whether the first frame, which answers a subscription, is overdue. Books see to theirs by themselves."""
        sent = state.subscribed_ns
        return bool(sent) and state.sync is None and not state.since_subscribe and now - sent > _ANSWER_NS

    def _refused(self, state: StreamState) -> bool:
        """Whether the venue has refused something since the subscription was sent."""
        slot = self.slot(state.stream)
        return slot is not None and slot.refused_ns >= state.subscribed_ns

    def _report(self, state: StreamState, now: int, action: str) -> None:
        counters = self.recorder.counters
        if action == "resubscribe":
            counters.stale += 1
        stream = state.stream
        silent = (now - max(state.last_ns, state.subscribed_ns)) / 1e9
        detail = {"stream": stream.name, "action": action, "silent_s": round(silent, 3), "ever": bool(state.last_ns)}
        self.recorder.event("stale", detail, channel=stream.channel, symbol=stream.symbol)
        level = logging.INFO if action == "recovered" else logging.WARNING
        LOG.log(level, "stream %s: silent for %.1f s: %s", stream.name, silent, action)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            limits = [limit for state in self.recorder.states.values() if (limit := self.silence_ns(state)) > 0]
            await asyncio.sleep(min(_SCAN, max(0.1, min(limits, default=1e10) / 4e9)))
            self.look()
