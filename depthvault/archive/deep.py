"""Deep verification: the rows themselves, in files of periods and of days alike.

Each file's values against their logical hash; each period's rows against what the log says of them: that they stand in
chain order, each once, in their period, where the manifest says they do; that their chain breaks where `gaps` declares
it and nowhere else, and ends where the next period was told it does; that there are as many as `coverage` counts. The
book audit is done again (`reaudit`). In memory is no more than one symbol's period.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.archive.encoding import LogicalHash
from depthvault.archive.finding import Finding
from depthvault.archive.manifest import ArchiveFile, ArchiveState, Entry
from depthvault.archive.places import Part, PeriodRows, Places, times_of
from depthvault.archive.reaudit import audit_findings
from depthvault.archive.stitch import Ints, chain_order, codes, column
from depthvault.errors import CorruptError
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.quality.gaps import Break, breaks, chain_of, tail_of
from depthvault.quality.steps import skips
from depthvault.schemas import Channel

MOST = 5
"""Findings told of one file, or of one symbol's period; more say nothing new."""


@dataclass(slots=True)
class Deep:
    """What was found in the rows. unread: files that only the store has. Their rows were not looked at, nor what can
    be judged only together with them."""

    findings: list[Finding] = field(default_factory=list)
    unread: int = 0


def deeply(layout: Layout, state: ArchiveState) -> Deep:
    """Look at the rows of all files that are here."""
    result, places = Deep(), Places(layout, state)
    for path, file in sorted(state.files.items()):
        if layout.archived(path).exists():
            result.findings += _value_findings(layout.archived(path), file)
        else:
            result.unread += 1
    days = sorted(unit for unit in state.current if unit[0] == "day")
    for _, exchange, name, date in days:
        result.findings += _stray_findings(places, exchange, name, date)
    for (exchange, name), labels in sorted(state.hours.items()):
        for label in labels:
            entry = state.current["hour", exchange, name, label]
            result.findings += _period_findings(places, state, entry)
            if name == "depth_diff":
                result.findings += audit_findings(places, state, entry)
    return result


def _value_findings(path: Path, file: ArchiveFile) -> Iterator[Finding]:
    try:
        with pq.ParquetFile(path) as parquet:
            digest = LogicalHash(parquet.schema_arrow)
            for group in range(parquet.num_row_groups):
                digest.update(parquet.read_row_group(group))
            rows = parquet.metadata.num_rows
    except (pa.ArrowException, OSError, CorruptError) as error:
        yield Finding("local", "corrupt", file.path, f"cannot be read: {' '.join(str(error).split())[:200]}")
        return
    if rows != file.rows:
        yield Finding("local", "corrupt", file.path, f"{rows} rows, recorded {file.rows}")
    if digest.hexdigest() != file.logical_sha256:
        yield Finding("local", "corrupt", file.path, "its values are not those recorded (logical hash)")
    if file.symbols and sum(span.rows for span in file.symbols.values()) != rows:
        yield Finding("local", "continuity", file.path, "its manifest places other rows than it has")


def _stray_findings(places: Places, exchange: str, name: str, date: str) -> Iterator[Finding]:
    try:
        for file in places.strays(exchange, name, date):
            yield Finding("local", "continuity", file.path, "has rows of a period that no manifest tells of")
    except (pa.ArrowException, OSError):
        return  # told with the values


@dataclass(frozen=True, slots=True)
class _Told:
    """What the archive says of one channel and period. None: that file is not here."""

    entry: Entry
    before: Entry | None
    gaps: dict[str, list[dict[str, Any]]] | None
    events: dict[str, int] | None

    @property
    def follows(self) -> bool:
        """Whether it was judged against the end of the period before as that is now. Until compaction has made it anew
        only what it does not declare is wrong."""
        return self.entry.predecessor == (self.before.tails_sha256 if self.before else "")


def _period_findings(places: Places, state: ArchiveState, entry: Entry) -> Iterator[Finding]:
    period = Period.parse(entry.period, timedelta(minutes=entry.period_minutes))
    try:
        rows = places.rows_of(entry.exchange, entry.channel, period)
        told = _Told(
            entry, state.before(entry.exchange, entry.channel, entry.period), _declared(places, entry),
            _counted(places, entry),
        )  # fmt: skip
    except (pa.ArrowException, OSError):
        return  # told with the values
    partial = {symbol for file in rows.missing for symbol in file.symbols}
    for symbol in rows.symbols:
        yield from _told_at_most(_symbol_findings(rows, symbol, period, None if symbol in partial else told))
    if told.follows:
        for symbol in sorted(entry.tails.keys() - rows.parts.keys() - partial):
            before = told.before.tails.get(symbol, {}).get("") if told.before else None
            if entry.tails[symbol].get("") != before and rows.channel.continuity in ("update_id", "trade_id"):
                where = f"{entry.channel} {entry.period}"
                yield Finding(
                    "local", "continuity", where, f"{symbol}: the rows that its chain ends with are not there"
                )
    for symbol, count in (told.events or {}).items():
        if count and symbol not in rows.parts and symbol not in partial:
            where = f"{entry.channel} {entry.period}"
            yield Finding("local", "continuity", where, f"{symbol}: no rows, `coverage` counts {count}")


def _told_at_most(findings: Iterator[Finding]) -> Iterator[Finding]:
    for count, finding in enumerate(findings):
        if count == MOST:
            return
        yield finding


def _table(places: Places, entry: Entry, name: str, columns: list[str]) -> list[dict[str, Any]] | None:
    """The rows of a quality table of the unit; None when its file is not here."""
    found: list[dict[str, Any]] = []
    for file in places.files(entry.unit, name):
        path = places.find(file)
        if path is None:
            return None
        rows = pq.read_table(path, columns=columns)
        for place, kind in enumerate(rows.schema.types):
            if pa.types.is_timestamp(kind):  # as µs since the epoch
                rows = rows.set_column(place, rows.schema.names[place], rows.column(place).cast(pa.int64()))
        found += rows.to_pylist()
    return found


def _declared(places: Places, entry: Entry) -> dict[str, list[dict[str, Any]]] | None:
    names = ["symbol", "instance", "last_id", "first_id", "start_time", "end_time", "status"]
    rows = _table(places, entry, "gaps", names)
    if rows is None:
        return None
    result: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        result.setdefault(row["symbol"], []).append(row)
    return result


def _counted(places: Places, entry: Entry) -> dict[str, int] | None:
    rows = _table(places, entry, "coverage", ["symbol", "events"])
    return None if rows is None else {row["symbol"]: row["events"] for row in rows}


def _columns(channel: Channel) -> list[str]:
    """All that is looked at: everything but the levels."""
    return [spec.name for spec in channel.columns if not pa.types.is_list(spec.type)]


def _symbol_findings(rows: PeriodRows, symbol: str, period: Period, told: _Told | None) -> Iterator[Finding]:
    """What is wrong with one symbol's period. told: None when not all of its rows are here."""
    channel, parts = rows.channel, rows.parts[symbol]
    path = parts[-1].file.path
    try:
        for part in parts:
            yield from _part_findings(part, symbol, period, channel)
        table = rows.rows(symbol, columns=_columns(channel))
        assert table is not None
        yield from _key_findings(path, symbol, table, channel)
        if told is not None:
            yield from _chain_findings(path, symbol, table, channel, told)
    except (pa.ArrowException, OSError):
        return  # told with the values
    except KeyError as error:
        yield Finding("local", "corrupt", path, f"lacks the column {error}")


def _part_findings(part: Part, symbol: str, period: Period, channel: Channel) -> Iterator[Finding]:
    table, path = part.read(_columns(channel)), part.file.path

    def wrong(what: str) -> Finding:
        return Finding("local", "continuity", path, f"{symbol}: {what}")

    if set(pc.unique(table.column("symbol")).to_pylist()) - {symbol}:
        yield wrong("its row groups hold other symbols")
    if not table.num_rows:
        return
    if not np.array_equal(chain_order(table, channel), np.arange(table.num_rows)):
        yield wrong("rows are not in chain order")
    times = times_of(table, channel).cast(pa.int64())
    if pc.min(times).as_py() * 1000 < period.start_ns or pc.max(times).as_py() * 1000 >= period.end_ns:
        yield wrong(f"rows of other periods stand in {period.label}")
    span, received = part.file.symbols[symbol], codes(column(table, "received_time"))
    ranges: list[tuple[int | None, int | None, Ints]] = [(span.first_us, span.last_us, received)]
    if channel.id_column is not None:
        ranges.append((span.first_id, span.last_id, codes(column(table, channel.id_column))))
    for first, last, values in ranges:
        if first is None or last is None or values.min() < first or values.max() > last:
            yield wrong("rows lie outside the range that the manifest names, where no query finds them")
    if part.groups == tuple(range(*span.row_groups)) and table.num_rows != span.rows:
        yield wrong(f"{table.num_rows} rows, its manifest says {span.rows}")


def _key_findings(path: str, symbol: str, table: pa.Table, channel: Channel) -> Iterator[Finding]:
    if channel.name == "instrument":
        return  # a state that comes back has the key that it had
    keys = [codes(column(table, name)) for name in channel.key]
    nameless = np.ones(table.num_rows, np.bool_)
    for name in channel.key:
        nameless &= column(table, name).is_null().to_numpy(zero_copy_only=False)
    together = np.lexsort(tuple(keys))
    same = ~nameless[together][1:]
    for key in keys:
        same &= key[together][1:] == key[together][:-1]
    if same.any():
        yield Finding("local", "continuity", path, f"{symbol}: {int(same.sum())} rows have the key of another row")


def _chain_findings(path: str, symbol: str, table: pa.Table, channel: Channel, told: _Told) -> Iterator[Finding]:
    def wrong(what: str) -> Finding:
        return Finding("local", "continuity", path, f"{symbol}: {what}")

    if told.events is not None and told.events.get(symbol, table.num_rows) != table.num_rows:
        yield wrong(f"{table.num_rows} rows, `coverage` counts {told.events[symbol]}")
    tails = told.before.tails.get(symbol, {}) if told.before else {}
    chain = chain_of(table, channel)
    if chain is None:
        if told.gaps is not None and told.follows:
            times = {(row["start_time"], row["end_time"]) for row in told.gaps.get(symbol, [])}
            for skip in skips(table, channel, tails, None)[0]:
                if (skip.start_us, skip.end_us) not in times:
                    yield wrong(f"undeclared gap in {skip.series}: {skip.missing} missing")
        return
    holes = {(hole.last_id, hole.first_id): hole for hole in breaks(chain, tails.get(""))}
    if told.gaps is not None:
        yield from map(wrong, _hole_findings(holes, told.gaps.get(symbol, []), told.follows))
    if told.follows:
        end, noted = tail_of(chain, tails.get("")), told.entry.tails.get(symbol, {}).get("")
        if end is not None and (noted is None or (noted.final_id, noted.epoch) != (end.final_id, end.epoch)):
            yield wrong(f"its chain ends at {end.final_id}, its manifest says {noted.final_id if noted else 'nowhere'}")


def _hole_findings(holes: dict[tuple[int, int], Break], declared: list[dict[str, Any]], follows: bool) -> Iterator[str]:
    for last_id, first_id in sorted(holes.keys() - {(row["last_id"], row["first_id"]) for row in declared}):
        yield f"undeclared gap from {last_id} to {first_id}"
    if follows:
        for row in declared:
            if row["instance"] or row["status"] == "refilled" or row["last_id"] is None:
                continue
            if (row["last_id"], row["first_id"]) not in holes:
                yield f"a gap is declared from {row['last_id']} to {row['first_id']}, and the rows have none"
