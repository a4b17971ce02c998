"""Faults: what can go wrong, by a seeded schedule or one at a time on order.

``--faults`` takes ``name=value`` pairs. Shares are chances between 0 and 1, times are mean seconds between two
faults of that kind on a venue:

==================  ==================================================================================
``drop``            share of depth events not delivered (each connection decides for itself)
``duplicate``       share of depth events delivered twice
``malformed``       share of all events cut off in the middle of their JSON
``silent``          share of subscribed streams that are acknowledged and never deliver
``lag_snapshot``    share of REST depth answers that are older than the stream
``rest_5xx``        share of REST answers that are a 500, 502 or 503
``rest_429``        share of REST answers that are a 429
``rest_timeout``    share of REST requests never answered
``disconnect``      mean seconds between cut connections
``half_open``       mean seconds between connections that stay open and go dead
``stall``           mean seconds between streams that fall silent for 5 to 20 s (their events are dropped)
``shutdown``        mean seconds between ``serverShutdown`` notices, each followed by a close
``nonce_gap``       share of Lighter book batches not delivered (as ``drop``)
``offset_jump``     share of Lighter book batches at which ``offset`` jumps without a break in the nonces
``too_many``        share of messages to Lighter that are refused with 30009, which names no channel
==================  ==================================================================================
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.hub import Stream

SHARES = (
    "drop",
    "duplicate",
    "malformed",
    "silent",
    "lag_snapshot",
    "rest_5xx",
    "rest_429",
    "rest_timeout",
    "nonce_gap",
    "offset_jump",
    "too_many",
)
INTERVALS = ("disconnect", "half_open", "stall", "shutdown")


def is_depth_diff(channel: str) -> bool:
    """True for the channels whose events form a chain of ids."""
    return channel in ("depth", "order_book") or channel.startswith("depth@")


class BadFaultSpec(ValueError):
    """A ``--faults`` text that names an unknown fault or a bad value."""


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """A parsed ``--faults`` text: shares by name and mean seconds by name."""

    values: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> FaultSpec:
        values: list[tuple[str, float]] = []
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, _, value = part.partition("=")
            if name not in SHARES and name not in INTERVALS:
                raise BadFaultSpec(f"unknown fault {name!r}; known: {', '.join((*SHARES, *INTERVALS))}")
            try:
                number = float(value)
            except ValueError:
                raise BadFaultSpec(f"{name} needs a number, not {value!r}") from None
            if number < 0 or (name in SHARES and number > 1):
                raise BadFaultSpec(f"{name}={value} is out of range")
            values.append((name, number))
        return cls(tuple(values))

    def get(self, name: str) -> float:
        return dict(self.values).get(name, 0.0)


@dataclass(slots=True)
class Rule:
    """One ordered fault on the events of a stream.

    ``count`` events (per connection) are hit, after which the rule is spent; ``until`` (loop-independent
    milliseconds) ends a stall; ``connection`` None means every connection.
    """

    kind: str
    cause: str
    count: int = 1
    connection: int | None = None
    until_ms: int | None = None
    hits: dict[int, int] = field(default_factory=dict)


class FaultDesk:
    """Decides, for one venue, which deliveries go wrong.

    Chances come from a seeded generator, rules from the control interface. ``per_event`` is true when events
    must be judged one by one.
    """

    def __init__(self, spec: FaultSpec, rng: random.Random, now_ms: Callable[[], int]) -> None:
        self.rng = rng
        self.now_ms = now_ms
        self.shares = {name: spec.get(name) for name in SHARES}
        self.intervals = {name: spec.get(name) for name in INTERVALS}
        self.per_event = any(self.shares[name] for name in ("drop", "duplicate", "malformed", "nonce_gap"))
        self._waiting: list[tuple[str, Rule]] = []

    def chance(self, name: str) -> bool:
        share = self.shares[name]
        return share > 0 and self.rng.random() < share

    def arm(self, streams: dict[str, Stream], name: str, rule: Rule) -> None:
        """Put a rule on a stream, now or when the stream first appears."""
        stream = streams.get(name)
        if stream is None:
            self._waiting.append((name, rule))
        else:
            stream.rules.append(rule)

    def adopt(self, stream: Stream) -> None:
        """Give a new stream the rules that wait for it."""
        for name, rule in [pair for pair in self._waiting if pair[0] == stream.name]:
            stream.rules.append(rule)
            self._waiting.remove((name, rule))

    def judge(self, stream: Stream, connections: list[int]) -> dict[int, tuple[str, str]]:
        """``{connection: (kind, cause)}`` for the deliveries of the next event that go wrong."""
        verdicts: dict[int, tuple[str, str]] = {}
        for rule in list(stream.rules):
            if rule.until_ms is not None and self.now_ms() >= rule.until_ms:
                stream.rules.remove(rule)
                continue
            for connection in connections:
                if connection in verdicts or rule.connection not in (None, connection):
                    continue
                hits = rule.hits.get(connection, 0)
                if rule.until_ms is None and hits >= rule.count:
                    continue
                rule.hits[connection] = hits + 1
                if rule.kind == "late":  # the first event is held, the next lets it follow
                    verdicts[connection] = ("late" if hits == 0 else "release", rule.cause)
                else:
                    verdicts[connection] = (rule.kind, rule.cause)
            if rule.until_ms is None and rule.hits and min(rule.hits.values()) >= rule.count:
                stream.rules.remove(rule)
        if self.per_event:
            is_depth = is_depth_diff(stream.channel)
            for connection in connections:
                if connection in verdicts:
                    continue
                if is_depth and (self.chance("drop") or self.chance("nonce_gap")):
                    verdicts[connection] = ("drop", "schedule")
                elif is_depth and self.chance("duplicate"):
                    verdicts[connection] = ("duplicate", "schedule")
                elif self.chance("malformed"):
                    verdicts[connection] = ("malformed", "schedule")
        return verdicts
