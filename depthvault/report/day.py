"""The facts of one day, gathered from the manifests and the quality tables. Nothing is measured anew here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.archive.manifest import ArchiveState, Entry
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.report.disk import Disk
from depthvault.report.outages import WHOLE_MARKET
from depthvault.schemas import QUALITY, completed

UNTIMED = frozenset({"collector_event", "instrument"})
"""Channels that come when something happens: a share of time says nothing of them."""

POLLED = frozenset({"depth_snapshot", "funding_rate", "open_interest"}) | UNTIMED
"""Channels that need not have something in every archive period; the others are expected in each."""

CLOSED = frozenset({"bridged", "refilled"})
"""Statuses of gaps through which nothing is missing."""


@dataclass(slots=True)
class Cell:
    """One hour of a venue's channel. `share`: mean over symbols and periods of the time that was listened to.

    expected: periods of the hour that are over and that somebody should have recorded. condition: `available`,
    `degraded`, `pending` (published without being judged), `missing` (expected and not archived), or empty before the
    first and after the last expected period.
    """

    expected: int = 0
    archived: int = 0
    degraded: int = 0
    pending: int = 0
    shares: list[float] = field(default_factory=list)

    @property
    def share(self) -> float | None:
        return sum(self.shares) / len(self.shares) if self.shares else None

    @property
    def condition(self) -> str:
        if self.archived < self.expected:
            return "missing"
        if self.degraded:
            return "degraded"
        if self.pending:
            return "pending"
        return "available" if self.archived else ""


@dataclass(slots=True)
class ChannelDay:
    """One channel of a venue over the day. `gaps`: by status."""

    exchange: str
    channel: str
    hours: list[Cell] = field(default_factory=lambda: [Cell() for _ in range(24)])
    symbols: set[str] = field(default_factory=set)
    rows: int = 0
    bytes: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    worst: list[tuple[float, str]] = field(default_factory=list)

    @property
    def share(self) -> float | None:
        """Mean share over all symbols and periods."""
        shares = [share for cell in self.hours for share in cell.shares]
        return sum(shares) / len(shares) if shares else None

    @property
    def expected(self) -> int:
        return sum(cell.expected for cell in self.hours)

    @property
    def archived(self) -> int:
        return sum(cell.archived for cell in self.hours)

    @property
    def degraded(self) -> int:
        return sum(cell.degraded for cell in self.hours)

    @property
    def open_gaps(self) -> int:
        return sum(count for status, count in self.gaps.items() if status not in CLOSED)


@dataclass(slots=True)
class Day:
    """All that the report says. Times are UTC. failures: by expectation, venue and channel, how often it failed."""

    date: date
    made: datetime
    period: timedelta
    channels: list[ChannelDay]
    gaps: list[dict[str, Any]]
    failures: Counter[tuple[str, str, str]]
    number: int
    head: str | None
    store: bool
    disk: Disk
    unread: int = 0

    @property
    def is_over(self) -> bool:
        return self.made.date() > self.date

    @property
    def expected(self) -> int:
        return sum(one.expected for one in self.channels)

    @property
    def archived(self) -> int:
        return sum(one.archived for one in self.channels)

    @property
    def degraded(self) -> int:
        return sum(one.degraded for one in self.channels)

    @property
    def pending(self) -> int:
        return sum(cell.pending for one in self.channels for cell in one.hours)

    @property
    def missing(self) -> int:
        return max(0, self.expected - self.archived)

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.channels)

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.channels)

    @property
    def open_gaps(self) -> int:
        return sum(one.open_gaps for one in self.channels)

    @property
    def verdict(self) -> str:
        """`complete`, `degraded`, `pending`, `incomplete`, or `empty`: the day in a word."""
        if not self.archived:
            return "empty"
        if self.missing:
            return "incomplete"
        if self.degraded or self.open_gaps:
            return "degraded"
        return "pending" if self.pending else "complete"


def day_of(
    layout: Layout,
    state: ArchiveState,
    day: date,
    made: datetime,
    disk: Disk,
    *,
    enabled: Collection[str],
    store: bool,
    grace: timedelta,
) -> Day:
    """The facts of `day` as they stood at `made`.

    enabled: venues that are recorded, so that periods of theirs are expected.
    grace: how long after a period's end its archive is waited for before it counts as missing.
    """
    entries = [entry for unit, entry in sorted(state.current.items()) if unit[0] == "hour" and _date(unit[3]) == day]
    channels: dict[tuple[str, str], ChannelDay] = {}
    for key, first in _first_periods(state).items():
        one = ChannelDay(*key)
        if one.channel in POLLED or one.exchange not in enabled:
            continue
        for period in _periods(layout, day):
            if first <= period.label and period.end + grace <= made:
                one.hours[period.start.hour].expected += 1
        if one.expected:
            channels[key] = one
    failures: Counter[tuple[str, str, str]] = Counter()
    for entry in entries:
        one = channels.setdefault((entry.exchange, entry.channel), ChannelDay(entry.exchange, entry.channel))
        _add(one, entry, layout, state)
        failures.update((_expectation(text), entry.exchange, entry.channel) for text in entry.failed)
    coverage, unread = _quality(layout, state, entries, "coverage")
    gaps, more_unread = _quality(layout, state, entries, "gaps")
    _add_coverage(channels, coverage)
    for row in gaps:
        channels[row["exchange"], row["channel"]].gaps[row["status"]] += 1
    return Day(
        date=day,
        made=made,
        period=layout.period,
        channels=[one for _, one in sorted(channels.items())],
        gaps=sorted((row for row in gaps if row["status"] not in CLOSED), key=_gap_order),
        failures=failures,
        number=state.number,
        head=state.head,
        store=store,
        disk=disk,
        unread=unread + more_unread,
    )


def _date(label: str) -> date:
    return datetime.strptime(label, "%Y%m%dT%H%M").replace(tzinfo=UTC).date()


def _periods(layout: Layout, day: date) -> Iterable[Period]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    for number in range(timedelta(days=1) // layout.period):
        yield Period(start + number * layout.period, layout.period)


def _first_periods(state: ArchiveState) -> dict[tuple[str, str], str]:
    """By venue and channel the first archived period: from then on each is expected."""
    first: dict[tuple[str, str], str] = {}
    for kind, exchange, channel, period in state.current:
        if kind == "hour":
            first[exchange, channel] = min(period, first.get((exchange, channel), period))
    return first


def _add(one: ChannelDay, entry: Entry, layout: Layout, state: ArchiveState) -> None:
    cell = one.hours[Period.parse(entry.period, layout.period).start.hour]
    cell.archived += 1
    cell.pending += entry.condition == "pending"
    cell.degraded += entry.condition not in ("available", "pending")
    cell.expected = max(cell.expected, cell.archived)
    one.duplicates += entry.counts.duplicates
    one.conflicts += entry.counts.conflicts
    one.rejected += entry.counts.rejected
    one.rows += entry.counts.rows  # counts stay when the roll-up takes the file itself into the day's
    one.bytes += sum(file.bytes for file in entry.add)


def _expectation(text: str) -> str:
    """The meaning out of `SYMBOL: metric is value (meaning)`, so that symbols are counted together."""
    opened = text.find("(")
    return text[opened + 1 : -1] if opened >= 0 and text.endswith(")") else text


def _quality(
    layout: Layout, state: ArchiveState, entries: Sequence[Entry], table: str
) -> tuple[list[dict[str, Any]], int]:
    """The rows of a quality table for `entries`, and how many of its files are not on this host any more."""
    parts, unread = [QUALITY[table].empty_table()], 0
    for entry in entries:
        for file in state.files_of(entry.unit):
            if file.table == table:
                path = layout.archived(file.path)
                if path.exists():
                    parts.append(completed(pq.read_table(path, partitioning=None), table))
                else:
                    unread += 1
    return pa.concat_tables(parts, promote_options="permissive").to_pylist(), unread


def _add_coverage(channels: dict[tuple[str, str], ChannelDay], coverage: Iterable[dict[str, Any]]) -> None:
    by_symbol: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in coverage:
        key = row["exchange"], row["channel"]
        if row["channel"] in UNTIMED:
            continue
        channels[key].hours[row["period"].hour].shares.append(row["share"])
        if row["symbol"]:
            channels[key].symbols.add(row["symbol"])
        by_symbol[key][row["symbol"] or WHOLE_MARKET].append(row["share"])
    for key, shares in by_symbol.items():
        means = sorted((sum(values) / len(values), symbol) for symbol, values in shares.items())
        channels[key].worst = [(share, symbol) for share, symbol in means if share < 1.0]


def _gap_order(row: dict[str, Any]) -> tuple[Any, ...]:
    start, end = row["start_time"], row["end_time"]
    length = (end - start).total_seconds() if start is not None and end is not None else 0.0
    return (-length, row["exchange"], row["channel"], row["symbol"], row["last_id"] or 0)
