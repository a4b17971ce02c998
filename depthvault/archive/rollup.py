"""The daily roll-up: the periods of a day become one file a symbol, proved equal before the periods are superseded.

This is the layout that research reads. Quality tables stay with their periods. Rows keep the order of the periods and
their chain order in it, a row group never spans periods, and no more than a row group is in memory.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from depthvault import __version__
from depthvault.archive import log
from depthvault.archive.channel import described
from depthvault.archive.compact import ready_units
from depthvault.archive.day import at_hand, period_of_rows
from depthvault.archive.encoding import ArchiveWriter, Encoding, LogicalHash
from depthvault.archive.manifest import ArchiveFile, ArchiveState, Counts, Entry, InputFile, SymbolSpan, worst
from depthvault.archive.publish import move_into_archive, store_and_prove
from depthvault.archive.staging import Staging, day_staging
from depthvault.archive.stitch import chain_order
from depthvault.archive.store import Store, open_store
from depthvault.config import Config, Secrets
from depthvault.durable import make_directories
from depthvault.errors import ArchiveError
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import CHANNELS, SCHEMA_VERSION, Channel

SETTLING = timedelta(hours=2)
"""How long after its end a day is left alone, for rows that come late."""


@dataclass(slots=True)
class RolledUp:
    """What was rolled up: the entries made."""

    entries: list[Entry] = field(default_factory=list)


def rollable_days(layout: Layout, config: Config, now: datetime) -> list[tuple[str, date]]:
    """The exchange and day of all periods that can be rolled up: the day is over and nothing of it is on its way."""
    state = log.load(layout)
    waiting = {(unit.exchange, unit.period.date) for unit in ready_units(layout, config)}
    days = {
        (unit[1], datetime.strptime(unit[3][:8], "%Y%m%d").replace(tzinfo=UTC).date())
        for unit in {owner for path, owner in state.owner.items() if path.startswith("hour/")}
        if unit[2] not in _LEFT
    }
    return sorted(
        (exchange, day)
        for exchange, day in days
        if datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1) + SETTLING <= now
        and (exchange, day.isoformat()) not in waiting
    )


_LEFT = frozenset({"collector_event"})
"""Channels whose rows belong to no symbol."""


def daily_rollup(
    layout: Layout, config: Config, secrets: Secrets, exchange: str, day: date,
    *, now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RolledUp:  # fmt: skip
    """Roll up one exchange and day. A second run does nothing."""
    return rollup_with(layout, config, open_store(config.store, secrets), exchange, day, now=now)


def rollup_with(
    layout: Layout, config: Config, store: Store | None, exchange: str, day: date,
    *, now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RolledUp:  # fmt: skip
    """`daily_rollup` with a given store."""
    result = RolledUp()
    encoding = Encoding.of_days(config.archive)
    staging = day_staging(layout, exchange, day.isoformat())
    with staging.locked():
        state = log.catch_up(layout, store)
        for channel in sorted({unit[2] for unit in state.current if unit[:2] == ("hour", exchange)} - _LEFT):
            hours = _hours(state, exchange, channel, day)
            if not hours:
                continue
            staging.clear()
            draft = _roll(layout, store, staging, state, exchange, channel, day, hours, encoding)
            files = [(file, staging.path(file.path)) for file in draft.add]
            if store is not None:
                store_and_prove(store, files)
            entry = None
            while entry is None and all(state.files.get(file.path) == file for _, file in hours):
                move_into_archive(layout, staging, draft.add)
                publisher = f"{platform.node()}:{os.getpid()}"
                entry = log.append(layout, store, state, draft, now().isoformat(timespec="microseconds"), publisher)
                if entry is None:
                    state = log.catch_up(layout, store)
            if entry is not None:
                result.entries.append(entry)
        if result.entries:
            log.write_derived(layout, store, state, log.evicted(layout))
        staging.clear()
    return result


def _hours(state: ArchiveState, exchange: str, channel: str, day: date) -> list[tuple[str, ArchiveFile]]:
    """The current data files of the day's periods, by period."""
    found = [
        (owner[3], state.files[path])
        for path, owner in state.owner.items()
        if owner[:3] == ("hour", exchange, channel) and owner[3].startswith(day.strftime("%Y%m%d"))
        and state.files[path].table == channel
    ]  # fmt: skip
    return sorted(found, key=lambda item: item[0])


def _roll(
    layout: Layout, store: Store | None, staging: Staging, state: ArchiveState, exchange: str, channel: str, day: date,
    hours: list[tuple[str, ArchiveFile]], encoding: Encoding,
) -> Entry:  # fmt: skip
    """The draft of a day's entry, its files staged.

    Rows that came after an earlier roll-up are merged into the files of their symbols; those of other symbols stay.
    """
    before = state.entry("day", exchange, channel, day.isoformat())
    symbols = sorted({symbol for _, file in hours for symbol in file.symbols})
    days = {
        symbol: file for file in (state.files_of(before.unit) if before else []) for symbol in file.symbols
    }  # fmt: skip
    replaced = [days[symbol] for symbol in symbols if symbol in days]
    sources = [*(file for _, file in hours), *replaced]
    paths = {file.path: at_hand(layout, store, file, staging.path("fetched")) for file in sources}
    generation = 1 if before is None else before.generation + 1
    work = _Day(
        layout, staging, exchange, CHANNELS[channel], day, generation, [file for _, file in hours], paths, encoding
    )
    added = [work.write(symbol, days.get(symbol)) for symbol in symbols]
    if sum(file.rows for file in added) != sum(file.rows for file in sources):
        raise ArchiveError(f"{exchange} {channel} {day}: the day has other rows than its periods")
    return Entry(
        number=0, previous=None, kind="day", exchange=exchange, channel=channel, period=day.isoformat(),
        period_minutes=1440, generation=generation, created="", publisher="", software=__version__,
        schema_version=SCHEMA_VERSION, libraries={"pyarrow": importlib.metadata.version("pyarrow")}, inputs=[],
        archived_inputs=[InputFile(file.path, file.sha256, file.rows) for file in sources],
        add=added, remove=sorted(file.path for file in sources),
        counts=Counts(rows_in=sum(file.rows for file in sources), rows=sum(file.rows for file in added)),
        condition=worst(*_conditions(state, exchange, channel, day)),
    )  # fmt: skip


def _conditions(state: ArchiveState, exchange: str, channel: str, day: date) -> Iterator[str]:
    labels = (label for label in state.hours[exchange, channel] if label.startswith(day.strftime("%Y%m%d")))
    return (state.current["hour", exchange, channel, label].condition for label in labels)


@dataclass(frozen=True, slots=True)
class _Day:
    """One channel and day on its way into files of its symbols."""

    layout: Layout
    staging: Staging
    exchange: str
    channel: Channel
    day: date
    generation: int
    hours: list[ArchiveFile]
    paths: dict[str, Path]
    encoding: Encoding

    def write(self, symbol: str, before: ArchiveFile | None) -> ArchiveFile:
        """Stage the day of one symbol and prove that it holds what its sources hold."""
        key = self.layout.day_key(self.exchange, self.channel.name, symbol, self.day.isoformat(), self.generation)
        target = self.staging.path(key)
        make_directories(target.parent)
        schema = self.channel.schema
        sources = [file for file in (*self.hours, *([before] if before else [])) if symbol in file.symbols]
        spans = [file.symbols[symbol] for file in sources]
        metadata = {"depthvault.exchange": self.exchange, "depthvault.date": self.day.isoformat()}
        told = LogicalHash(schema)
        tables = self._row_groups(self.hours, symbol) if before is None else self._merged(symbol, before)
        with ArchiveWriter(target, schema, self.encoding, metadata) as writer:
            for table in tables:
                told.update(table)
                writer.write(table)
        _prove_equal(target, schema, told.hexdigest(), sum(span.rows for span in spans), key)
        first_ids = [span.first_id for span in spans if span.first_id is not None]
        last_ids = [span.last_id for span in spans if span.last_id is not None]
        span = SymbolSpan(
            rows=writer.rows, first_us=min(one.first_us for one in spans), last_us=max(one.last_us for one in spans),
            row_groups=(0, writer.groups), first_id=min(first_ids, default=None), last_id=max(last_ids, default=None),
        )  # fmt: skip
        return described(key, target, self.channel.name, writer, {symbol: span})

    def _row_groups(self, files: list[ArchiveFile], symbol: str) -> Iterator[pa.Table]:
        for file in files:
            if symbol in file.symbols:
                with pq.ParquetFile(self.paths[file.path]) as parquet:
                    for group in range(*file.symbols[symbol].row_groups):
                        yield parquet.read_row_group(group)

    def _merged(self, symbol: str, before: ArchiveFile) -> Iterator[pa.Table]:
        """The rows of the day and of the late files, period by period, each in chain order."""
        parts: dict[Period, list[tuple[ArchiveFile, int]]] = {}
        for file in (before, *(file for file in self.hours if symbol in file.symbols)):
            with pq.ParquetFile(self.paths[file.path]) as parquet:
                for group in range(*file.symbols[symbol].row_groups):
                    names = [*self.channel.time, "received_time"]
                    period = period_of_rows(parquet.read_row_group(group, columns=names), self.channel, self.layout)
                    parts.setdefault(period, []).append((file, group))
        for _, groups in sorted(parts.items()):
            tables = []
            for file, group in groups:
                with pq.ParquetFile(self.paths[file.path]) as parquet:
                    tables.append(parquet.read_row_group(group).replace_schema_metadata(None))
            table = pa.concat_tables(tables).combine_chunks()
            if len({file.path for file, _ in groups}) > 1:
                table = table.take(pa.array(chain_order(table, self.channel)))
            yield table


def _prove_equal(path: Path, schema: pa.Schema, told: str, rows: int, key: str) -> None:
    """Read the day back: it must have the values that the periods have, in their order."""
    found = LogicalHash(schema)
    with pq.ParquetFile(path) as parquet:
        for group in range(parquet.num_row_groups):
            found.update(parquet.read_row_group(group))
        count = parquet.metadata.num_rows
    if (found.hexdigest(), count) != (told, rows):
        raise ArchiveError(f"{key}: {count} rows that are not the {rows} of its periods; nothing was superseded")
