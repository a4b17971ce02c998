"""Grouping and rate limiting: pure, so that a bad night can be replayed in a test."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from depthvault.alerts.spool import Alert
from depthvault.clock import datetime_from_ns

_HOUR_NS = 3600 * 10**9
URGENT = frozenset({"fatal", "banned", "disk_full"})
"""Kinds that are not held back to be grouped with others."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: `title` in a few words, `body` some lines."""

    title: str
    body: str


@dataclass(slots=True)
class _Group:
    first_ns: int
    alerts: list[Alert] = field(default_factory=list)
    count: int = 0


class Grouper:
    """Turns alerts into few messages.

    Alerts of one kind and source within `group_seconds` become one message. No more than `max_per_hour` messages leave
    in any hour; what is held back is counted and told in the next one, so nothing vanishes silently.
    """

    SHOWN = 5

    def __init__(self, group_seconds: float, max_per_hour: int) -> None:
        self._group_ns = round(group_seconds * 1e9)
        self._max = max_per_hour
        self._groups: dict[tuple[str, str], _Group] = {}
        self._sent: deque[int] = deque()

    def add(self, alert: Alert, now_ns: int) -> None:
        """Take an alert."""
        group = self._groups.setdefault((alert.source, alert.kind), _Group(now_ns))
        group.count += 1
        if len(group.alerts) < self.SHOWN:
            group.alerts.append(alert)

    def due(self, now_ns: int) -> list[Message]:
        """The messages to send now."""
        messages = []
        for key, group in list(self._groups.items()):
            if key[1] not in URGENT and now_ns - group.first_ns < self._group_ns:
                continue
            while self._sent and now_ns - self._sent[0] >= _HOUR_NS:
                self._sent.popleft()
            if len(self._sent) >= self._max:
                # Held in its group: later alerts join it, and it leaves when the hour allows.
                continue
            del self._groups[key]
            self._sent.append(now_ns)
            messages.append(self._message(key, group))
        return messages

    @property
    def waiting(self) -> int:
        """Alerts taken but not yet in a message."""
        return sum(group.count for group in self._groups.values())

    def _message(self, key: tuple[str, str], group: _Group) -> Message:
        source, kind = key
        count = f" ×{group.count}" if group.count > 1 else ""
        lines = [f"{datetime_from_ns(alert.time_ns):%H:%M:%S} {alert.text}" for alert in group.alerts]
        if group.count > len(group.alerts):
            lines.append(f"… and {group.count - len(group.alerts)} more")
        return Message(f"{source}: {kind}{count}", "\n".join(lines))
