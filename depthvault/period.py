"""The archive's unit of time: one hour, or for the demo and tests a shorter period that divides the hour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from depthvault.clock import EPOCH, ns_from_datetime

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """The half-open span `[start, start + length)` in UTC."""

    start: datetime
    length: timedelta = HOUR

    @classmethod
    def containing(cls, moment: datetime, length: timedelta = HOUR) -> Period:
        """The period of `length` that holds `moment`."""
        return cls(EPOCH + (moment - EPOCH) // length * length, length)

    @classmethod
    def parse(cls, label: str, length: timedelta = HOUR) -> Period:
        """The period that `label` (`YYYYMMDDTHHMM`) names; ValueError when none starts there."""
        start = datetime.strptime(label, "%Y%m%dT%H%M").replace(tzinfo=UTC)
        if cls.containing(start, length).start != start:
            raise ValueError(f"no period of {length} starts at {label}")
        return cls(start, length)

    @classmethod
    def from_parts(cls, date: str, name: str, length: timedelta = HOUR) -> Period:
        """The period of a path's `date` (`YYYY-MM-DD`) and file `name` (`HH` or `HHMM`)."""
        return cls.parse(date.replace("-", "") + "T" + name.ljust(4, "0"), length)

    @property
    def end(self) -> datetime:
        return self.start + self.length

    @property
    def start_ns(self) -> int:
        return ns_from_datetime(self.start)

    @property
    def end_ns(self) -> int:
        return ns_from_datetime(self.end)

    @property
    def label(self) -> str:
        """`YYYYMMDDTHHMM`: sorts by time."""
        return self.start.strftime("%Y%m%dT%H%M")

    @property
    def date(self) -> str:
        """`YYYY-MM-DD`, as in `date=…` of a path."""
        return self.start.strftime("%Y-%m-%d")

    @property
    def name(self) -> str:
        """`HH` for hours, `HHMM` for shorter periods, as in file names."""
        return self.start.strftime("%H" if self.length >= HOUR else "%H%M")

    def next(self) -> Period:
        return Period(self.end, self.length)

    def previous(self) -> Period:
        return Period(self.start - self.length, self.length)

    def contains(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M} UTC"


def periods_between(first: Period, last: Period) -> Iterator[Period]:
    """Every period from `first` to `last`, both included."""
    period = first
    while period <= last:
        yield period
        period = period.next()
