"""Where the rows of one channel and period stand: in the period's own file, in files of its day, or in both.

After a roll-up they stand in one file a symbol and day; rows that came later stand in a file of the period until the
day is rolled up again. Who needs a period's rows asks here, and gets them in chain order wherever they are. No more
than what is asked for is in memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.archive.manifest import ArchiveFile, ArchiveState, Unit
from depthvault.archive.stitch import chain_order, codes
from depthvault.clock import datetime_from_ns
from depthvault.exchanges import channel_of
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import CHANNELS, Channel

_FOOTERS = 1024
"""Footers of day files that are kept in memory; they are small, for such a file has one symbol."""

Find = Callable[[ArchiveFile], Path | None]
"""A local copy of an archived file; None when there is none at hand."""


@dataclass(frozen=True, slots=True)
class Part:
    """Row groups of one file that hold rows of one symbol and period."""

    file: ArchiveFile
    path: Path
    footer: pq.FileMetaData
    groups: tuple[int, ...]

    def read(self, columns: list[str] | None = None, after: int | None = None) -> pa.Table:
        """The rows. after: leave out row groups of book events that end at or before this id."""
        with pq.ParquetFile(self.path, metadata=self.footer) as parquet:
            groups = [group for group in self.groups if after is None or _last_id(parquet, group) > after]
            return parquet.read_row_groups(groups, columns=columns).replace_schema_metadata(None)


def _last_id(parquet: pq.ParquetFile, group: int) -> int:
    place = parquet.schema_arrow.get_field_index("final_update_id")
    return int(parquet.metadata.row_group(group).column(place).statistics.max)


@dataclass(slots=True)
class PeriodRows:
    """One channel and period. missing: files with rows of it that are not at hand, so that `parts` is not all."""

    channel: Channel
    parts: dict[str, list[Part]] = field(default_factory=dict)
    missing: list[ArchiveFile] = field(default_factory=list)

    @property
    def symbols(self) -> list[str]:
        """The symbols with rows, ascending."""
        return sorted(self.parts)

    def rows(self, symbol: str, after: int | None = None, columns: list[str] | None = None) -> pa.Table | None:
        """The rows of a symbol in chain order; None when it has none. after: as for `Part.read`."""
        parts = self.parts.get(symbol)
        if not parts:
            return None
        if len(parts) == 1:
            return parts[0].read(columns, after)
        wanted = None if columns is None else sorted({*columns, *_ordering(self.channel)})
        table = pa.concat_tables([part.read(wanted, after) for part in parts]).combine_chunks()
        table = table.take(pa.array(chain_order(table, self.channel)))
        return table if columns is None else table.select(columns)


def _ordering(channel: Channel) -> set[str]:
    flag = {"is_snapshot"} if channel.name == "depth_diff" else set()
    return {*channel.order, *flag, "received_time"}


@dataclass(frozen=True, slots=True)
class _DayFooter:
    """The footer of a day's file, and the first time (µs) of each of its row groups, which never span periods."""

    footer: pq.FileMetaData
    times: tuple[int, ...]


class Places:
    """Finds the rows of the periods of `state`. `find` says where a file lies; by default only those here are found."""

    def __init__(self, layout: Layout, state: ArchiveState, find: Find | None = None) -> None:
        self._layout, self._state = layout, state
        self.find = find or self._here
        self._by_unit: dict[Unit, list[ArchiveFile]] = {}
        for path, unit in sorted(state.owner.items()):
            self._by_unit.setdefault(unit, []).append(state.files[path])
        self._footers: OrderedDict[str, _DayFooter] = OrderedDict()

    def _here(self, file: ArchiveFile) -> Path | None:
        path = self._layout.archived(file.path)
        return path if path.exists() else None

    def files(self, unit: Unit, table: str | None = None) -> list[ArchiveFile]:
        """The current files of a unit by path; of one table only, if that is named."""
        return [file for file in self._by_unit.get(unit, []) if table is None or file.table == table]

    def rows_of(
        self, exchange: str, channel: str, period: Period, staged: Iterable[tuple[ArchiveFile, Path]] | None = None
    ) -> PeriodRows:
        """The rows of a period. staged: files that are about to take the place of the period's own one.

        Raises pa.ArrowException or OSError when a file cannot be read.
        """
        result = PeriodRows(channel_of(exchange, channel))
        for file in self.files(("day", exchange, channel, period.date), channel):
            path = self.find(file)
            if path is None:
                result.missing.append(file)
                continue
            day = self._day_footer(file, path, result.channel)
            groups = tuple(
                number for number, time in enumerate(day.times) if period.start_ns <= time * 1000 < period.end_ns
            )
            if groups:
                (symbol,) = file.symbols
                result.parts.setdefault(symbol, []).append(Part(file, path, day.footer, groups))
        for file, path in self._own(exchange, channel, period, result) if staged is None else staged:
            footer = pq.read_metadata(path)
            for symbol, span in file.symbols.items():
                result.parts.setdefault(symbol, []).append(Part(file, path, footer, tuple(range(*span.row_groups))))
        return result

    def _own(
        self, exchange: str, channel: str, period: Period, result: PeriodRows
    ) -> Iterable[tuple[ArchiveFile, Path]]:
        for file in self.files(("hour", exchange, channel, period.label), channel):
            path = self.find(file)
            if path is None:
                result.missing.append(file)
            else:
                yield file, path

    def _day_footer(self, file: ArchiveFile, path: Path, channel: Channel) -> _DayFooter:
        known = self._footers.get(file.path)
        if known is None:
            with pq.ParquetFile(path) as parquet:
                times = tuple(_first_time(parquet, group, channel) for group in range(parquet.num_row_groups))
                known = _DayFooter(parquet.metadata, times)
            self._footers[file.path] = known
            if len(self._footers) > _FOOTERS:
                self._footers.popitem(last=False)
        self._footers.move_to_end(file.path)
        return known

    def strays(self, exchange: str, channel: str, date: str) -> list[ArchiveFile]:
        """Files of a day with rows of a period that the archive has no entry of."""
        labels = self._state.hours.get((exchange, channel), [])
        found = []
        for file in self.files(("day", exchange, channel, date), channel):
            path = self.find(file)
            if path is not None:
                times = self._day_footer(file, path, CHANNELS[channel]).times
                if any(self._label_of(time, labels) is None for time in times):
                    found.append(file)
        return found

    def _label_of(self, time_us: int, labels: list[str]) -> str | None:
        label = self._layout.period_of(datetime_from_ns(time_us * 1000)).label
        place = bisect_left(labels, label)
        return label if labels[place : place + 1] == [label] else None


def times_of(table: pa.Table, channel: Channel) -> pa.ChunkedArray:
    """The time that decides each row's period."""
    return pc.coalesce(*(table.column(name) for name in (*channel.time, "received_time")))


def _first_time(parquet: pq.ParquetFile, group: int, channel: Channel) -> int:
    """The least time of a row group in µs, by its statistics where they tell."""
    meta = parquet.metadata.row_group(group)
    for name in (*channel.time, "received_time"):
        statistics = meta.column(parquet.schema_arrow.get_field_index(name)).statistics
        if statistics is None or not statistics.has_null_count:
            break
        if statistics.null_count == 0 and statistics.has_min_max:
            return int(codes(pa.array([statistics.min], parquet.schema_arrow.field(name).type))[0])
        if statistics.null_count != meta.num_rows:
            break
    table = parquet.read_row_group(group, columns=[*channel.time, "received_time"])
    return int(pc.min(times_of(table, channel).cast(pa.int64())).as_py()) if table.num_rows else 0
