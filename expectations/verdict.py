"""What came out of judging one period of a venue, and how it is kept."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from depthvault.durable import write_atomic
from depthvault.period import Period

AVAILABLE = "available"
DEGRADED = "degraded"

VERDICT_FILE = "verdict.json"


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
        return f"{self.channel} {self.symbol or '(file)'}: {self.metric} is {value}, but {self.meaning}"


@dataclass(frozen=True, slots=True)
class MetricsFile:
    """A staged `hour_metrics` file of one channel; `key` is its object key."""

    channel: str
    key: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a period of a venue holds what it must. `degraded` is archived too, and marked."""

    exchange: str
    period: Period
    judged: int
    failures: tuple[Check, ...]
    channels: dict[str, str]
    files: tuple[MetricsFile, ...]

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def condition(self) -> str:
        """`available` when every expectation held, else `degraded`."""
        return AVAILABLE if self.passed else DEGRADED

    def __str__(self) -> str:
        """One line for people."""
        line = f"{self.exchange} {self.period}: {self.condition}, {self.judged} expectations"
        if self.failures:
            line += f", {len(self.failures)} failed: " + "; ".join(str(check) for check in self.failures[:5])
            if len(self.failures) > 5:
                line += f"; and {len(self.failures) - 5} more"
        return line

    def to_json(self) -> dict[str, Any]:
        return {
            "exchange": self.exchange,
            "period": self.period.label,
            "period_minutes": int(self.period.length.total_seconds() // 60),
            "condition": self.condition,
            "passed": self.passed,
            "judged": self.judged,
            "channels": {
                channel: {
                    "condition": condition,
                    "failed": [asdict(check) for check in self.failures if check.channel == channel],
                }
                for channel, condition in sorted(self.channels.items())
            },
            "files": [asdict(file) for file in self.files],
        }


def write_verdict(folder: Path, verdict: Verdict) -> Path:
    """Keep `verdict` as `verdict.json` in `folder`; the same verdict gives the same bytes."""
    path = folder / VERDICT_FILE
    data = json.dumps(verdict.to_json(), indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    write_atomic(path, data)
    return path


def read_verdict(folder: Path) -> dict[str, Any] | None:
    """The verdict kept in `folder`, None when nobody has judged yet."""
    path = folder / VERDICT_FILE
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
