"""The one place where time comes from. Pure parts take a `Clock`, so that a run can be repeated."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Where a component reads the time."""

    def wall_ns(self) -> int:
        """Nanoseconds since the epoch, UTC. May step."""

    def monotonic_ns(self) -> int:
        """Nanoseconds of a clock that never steps back; only differences mean anything."""


class SystemClock:
    """The clock of this host."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class ManualClock:
    """A clock that stands still until told otherwise (tests and simulation)."""

    def __init__(self, wall_ns: int = 1_700_000_000_000_000_000) -> None:
        self.wall = wall_ns
        self.monotonic = 0

    def wall_ns(self) -> int:
        return self.wall

    def monotonic_ns(self) -> int:
        return self.monotonic

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks."""
        self.wall += round(seconds * 1e9)
        self.monotonic += round(seconds * 1e9)

    def step(self, seconds: float) -> None:
        """Set the wall clock by `seconds`, as NTP or an operator does; the monotonic clock is untouched."""
        self.wall += round(seconds * 1e9)


def datetime_from_ns(ns: int) -> datetime:
    """The UTC time of `ns` nanoseconds since the epoch, cut to whole microseconds."""
    return EPOCH + timedelta(microseconds=ns // 1000)


def ns_from_datetime(value: datetime) -> int:
    """Nanoseconds since the epoch of an aware `value`, exactly."""
    delta = value - EPOCH
    return ((delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000
