"""Compacted but not yet published files: `run/staging/<exchange>/<period>/`, one worker at a time.

`compacted.json` lists a draft entry for each channel; `validation.json` what the expectations said of it. Everything
here can be deleted at any time: compaction makes it again, byte by byte.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from depthvault.archive.manifest import ArchiveFile, Entry
from depthvault.durable import make_directories, sha256_file, write_atomic
from depthvault.layout import Layout
from depthvault.period import Period


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """What is compacted, checked and published together: one exchange and period."""

    exchange: str
    period: Period

    def __str__(self) -> str:
        return f"{self.exchange} {self.period}"


class Compacted(msgspec.Struct, frozen=True):
    """The staged result: draft entries (number 0) whose files lie in the staging folder under their keys."""

    exchange: str
    period: str
    period_minutes: int
    drafts: list[Entry]

    def draft(self, channel: str) -> Entry | None:
        """The draft of a channel."""
        return next((draft for draft in self.drafts if draft.channel == channel), None)


class Verdict(msgspec.Struct, frozen=True):
    """What validation says of one channel: `condition`, the expectations that failed, and metric files it staged."""

    channel: str
    condition: str
    failed: list[str] = []
    files: list[ArchiveFile] = []


class Validation(msgspec.Struct, frozen=True):
    """Verdicts on exactly the staged result whose drafts have this digest."""

    compacted_sha256: str
    verdicts: list[Verdict]


class Staging:
    """The staging folder of one unit, or of a day's roll-up (`name`)."""

    def __init__(self, layout: Layout, unit: Unit, name: str | None = None) -> None:
        name = name or unit.period.label
        self.unit = unit
        self.folder = layout.staging / unit.exchange / name
        self._lock = layout.staging / unit.exchange / f".{name}.lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the unit on this host; a second worker waits until the first is done."""
        make_directories(self._lock.parent)
        with self._lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def path(self, key: str) -> Path:
        """Where the file of an object key is staged."""
        return self.folder / key

    @property
    def compacted_path(self) -> Path:
        return self.folder / "compacted.json"

    @property
    def validation_path(self) -> Path:
        return self.folder / "validation.json"

    def read(self) -> Compacted | None:
        """The staged result; None when nothing is staged."""
        try:
            return msgspec.json.decode(self.compacted_path.read_bytes(), type=Compacted)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def write(self, compacted: Compacted) -> None:
        """Declare the staged files complete."""
        write_atomic(self.compacted_path, msgspec.json.encode(compacted, order="sorted"))

    def read_validation(self) -> Validation | None:
        """The verdicts on what is staged now; None when there are none, or on another result."""
        try:
            validation = msgspec.json.decode(self.validation_path.read_bytes(), type=Validation)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        return validation if validation.compacted_sha256 == self.digest() else None

    def write_validation(self, verdicts: list[Verdict]) -> None:
        """Record what the expectations said of what is staged now."""
        write_atomic(self.validation_path, msgspec.json.encode(Validation(self.digest(), verdicts), order="sorted"))

    def digest(self) -> str:
        """Identifies the staged result."""
        return sha256_file(self.compacted_path) if self.compacted_path.exists() else ""

    def clear(self) -> None:
        """Forget what is staged."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


def staged_units(layout: Layout) -> list[Unit]:
    """What is compacted and not yet published, oldest first."""
    return sorted(
        (
            Unit(path.parent.parent.name, Period.parse(path.parent.name, layout.period))
            for path in layout.staging.glob("*/*/compacted.json")
        ),
        key=lambda unit: (unit.period, unit.exchange),
    )


def day_staging(layout: Layout, exchange: str, day: str) -> Staging:
    """The staging folder of a day's roll-up (`YYYY-MM-DD`)."""
    period = Period.parse(day.replace("-", "") + "T0000", layout.period)
    return Staging(layout, Unit(exchange, period), f"day-{day}")
