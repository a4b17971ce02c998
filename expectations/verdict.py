"""What came out of judging one period of a venue."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from depthvault.period import Period
from depthvault.schemas import QUALITY

AVAILABLE = "available"
DEGRADED = "degraded"

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One metric of one symbol (empty: the file as a whole). `passed` is None for figures that no rule judges."""

    channel: str
    symbol: str
    metric: str
    value: float | None
    passed: bool | None
    meaning: str = ""

    def __str__(self) -> str:
        value = "absent" if self.value is None else f"{self.value:g}"
        return f"{self.symbol or 'file'}: {self.metric} is {value} ({self.meaning})"


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

    def __str__(self) -> str:
        """One line for people."""
        line = f"{self.exchange} {self.period}: {self.condition}, {self.judged} expectations"
        if failures := self.failures:
            shown = "; ".join(f"{check.channel} {check}" for check in failures[:_SHOWN])
            line += f", {len(failures)} failed: {shown}"
            if len(failures) > _SHOWN:
                line += f"; and {len(failures) - _SHOWN} more"
        return line

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
