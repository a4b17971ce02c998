"""Gaps that belong together: one lost connection breaks the chains of all its symbols. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

_TOGETHER = timedelta(seconds=2)
"""Gaps that begin and end within this much of each other are told as one."""

WHOLE_MARKET = "the whole market"
"""How the empty symbol is called: a stream that carries all symbols."""


@dataclass(slots=True)
class Outage:
    """Gaps of one venue, channel, cause and status at the same time. Times are those of the longest."""

    exchange: str
    channel: str
    cause: str
    status: str
    start: datetime | None
    end: datetime | None
    gaps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def symbols(self) -> list[str]:
        return sorted({gap["symbol"] or WHOLE_MARKET for gap in self.gaps})

    @property
    def seconds(self) -> float | None:
        """How long it lasted; None when one of its ends is not known."""
        return (self.end - self.start).total_seconds() if self.start is not None and self.end is not None else None


def outages(gaps: Iterable[dict[str, Any]]) -> list[Outage]:
    """The outages that `gaps` (rows of the quality table) make up, longest first."""
    found: dict[tuple[str, str, str, str], list[Outage]] = {}
    for gap in gaps:
        key = (gap["exchange"], gap["channel"], gap["cause"], gap["status"])
        for outage in found.setdefault(key, []):
            if _close(outage.start, gap["start_time"]) and _close(outage.end, gap["end_time"]):
                break
        else:
            outage = Outage(*key, gap["start_time"], gap["end_time"])
            found[key].append(outage)
        outage.gaps.append(gap)
        if outage.start is not None and outage.end is not None:
            outage.start = min(outage.start, gap["start_time"])
            outage.end = max(outage.end, gap["end_time"])
    everything = [outage for group in found.values() for outage in group]
    everything.sort(key=lambda one: (-(one.seconds or 0.0), one.exchange, one.channel, one.symbols))
    return everything


def _close(left: datetime | None, right: datetime | None) -> bool:
    if left is None or right is None:
        return left is right
    return abs(left - right) <= _TOGETHER
