"""What came out of judging one period of a venue."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from depthvault.period import Period
from depthvault.schemas import QUALITY

AVAILABLE = "available"
DEGRADED = "degraded"

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One metric of one symbol (empty: the file as a whole). `passed` is None for figures that no rule judges.

    warns: worth a word, and no failure.
    """

    channel: str
    symbol: str
    metric: str
    value: float | None
    passed: bool | None
    meaning: str = ""
    warns: bool = False

    def __str__(self) -> str:
        return f"{self.symbol or 'file'}: {self.metric} is {_said(self.value)} ({self.meaning})"


def _said(value: float | None) -> str:
    return "absent" if value is None else f"{value:g}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a period of a venue holds what it must. `degraded` is archived too, and marked."""

    exchange: str
    period: Period
    channels: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def judged(self) -> int:
        """How many expectations were judged."""
        return sum(check.passed is not None for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def warnings(self) -> tuple[Check, ...]:
        """What degrades nothing and should be looked at."""
        return tuple(check for check in self.checks if check.warns)

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def condition(self) -> str:
        """`available` when every expectation held, else `degraded`."""
        return AVAILABLE if self.passed else DEGRADED

    def of(self, channel: str) -> Judgement:
        """The part that concerns `channel`."""
        checks = tuple(check for check in self.checks if check.channel == channel)
        return Judgement(self.exchange, self.period, (channel,), checks)

    def summary(self) -> list[str]:
        """A line for each expectation that failed, with the symbols of which it did."""
        return _grouped(self.failures, "not so")

    def warned(self) -> list[str]:
        """A line for each expectation whose failing degrades nothing, with the symbols of which it did."""
        return _grouped(self.warnings, "doubtful")

    def __str__(self) -> str:
        """One line for people."""
        line = f"{self.exchange} {self.period}: {self.condition}, {self.judged} expectations"
        return f"{line}, {len(self.failures)} failed" if self.failures else line

    def table(self) -> pa.Table:
        """Every figure as rows of `hour_metrics`."""
        schema = QUALITY["hour_metrics"]
        count = len(self.checks)
        start = pa.array([self.period.start_ns // 1000] * count, pa.int64())
        return pa.table(
            {
                "exchange": pa.array([self.exchange] * count, pa.string()),
                "channel": pa.array([check.channel for check in self.checks], pa.string()),
                "symbol": pa.array([check.symbol for check in self.checks], pa.string()),
                "period": start.cast(schema.field("period").type),
                "metric": pa.array([check.metric for check in self.checks], pa.string()),
                "value": pa.array([check.value for check in self.checks], pa.float64()),
                "passed": pa.array([check.passed for check in self.checks], pa.bool_()),
            },
            schema=schema,
        )


def _grouped(found: Iterable[Check], verdict: str) -> list[str]:
    groups: dict[tuple[str, str, str], list[Check]] = {}
    for check in found:
        groups.setdefault((check.channel, check.metric, check.meaning), []).append(check)
    lines = []
    for (channel, metric, meaning), checks in groups.items():
        shown = ", ".join(f"{check.symbol or 'file'} {_said(check.value)}" for check in checks[:_SHOWN])
        more = f" and {len(checks) - _SHOWN} more" if len(checks) > _SHOWN else ""
        lines.append(f"{channel}: {verdict}: {meaning} ({metric}: {shown}{more})")
    return lines
