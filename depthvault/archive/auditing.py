"""The book audit of one unit: which files it reads, how it goes on from the period before, and what it stages.

A snapshot near the end of a period is judged with the period in which the diffs reach its id. So the audit begins with
the last snapshot judged before, and with the diffs of the period before that follow it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.archive.channel import settled, stage_table
from depthvault.archive.encoding import Encoding
from depthvault.archive.manifest import ArchiveFile, ArchiveState, Conflict, Entry
from depthvault.archive.staging import Staging
from depthvault.book.events import Snapshot, chain_of, levels_of
from depthvault.exchanges.base import Exchange, Seed
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.quality.coverage import quality_table
from depthvault.schemas import CHANNELS

if TYPE_CHECKING:
    from depthvault.quality.audit import Audited

BOOK_CHANNELS = frozenset({"depth_diff", "depth_snapshot"})
"""What the audit reads."""

MOST_MISMATCHES = 20
"""Mismatches whose levels an entry tells in full; all are counted in `book_audit`."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A data file of one channel and period, and where it lies."""

    file: ArchiveFile
    path: Path

    def rows(self, symbol: str, after: int | None = None, columns: list[str] | None = None) -> pa.Table | None:
        """The rows of a symbol; None when it has none. after: leave out row groups that end at or before this id."""
        span = self.file.symbols.get(symbol)
        if span is None:
            return None
        with pq.ParquetFile(self.path) as parquet:
            groups = [
                group for group in range(*span.row_groups) if after is None or _last_id(parquet, group) > after
            ]  # fmt: skip
            return parquet.read_row_groups(groups, columns=columns)


def _last_id(parquet: pq.ParquetFile, group: int) -> int:
    place = parquet.schema_arrow.get_field_index("final_update_id")
    return int(parquet.metadata.row_group(group).column(place).statistics.max)


def with_audit(
    layout: Layout, venue: Exchange, period: Period, state: ArchiveState, staging: Staging,
    drafts: list[Entry], encoding: Encoding,
) -> list[Entry]:  # fmt: skip
    """`drafts` with the book audit added to the one whose snapshots were judged, where there is one."""
    name = "depth_snapshot" if any(draft.channel == "depth_snapshot" for draft in drafts) else "depth_diff"
    draft = next((draft for draft in drafts if draft.channel == name), None)
    if draft is None:
        return drafts
    sources = _Sources(layout, venue, period, state, staging, drafts)
    rows: list[dict[str, Any]] = []
    mismatches: list[Conflict] = []
    for symbol, outcome in sources.audited():
        rows.append(_row(venue.name, symbol, period, outcome))
        if not outcome.ok and not outcome.gap_crossed and len(mismatches) < MOST_MISMATCHES:
            mismatches.append(_mismatch(symbol, outcome))
    files = []
    if rows:
        table = quality_table("book_audit", rows)
        files = [stage_table(staging, "book_audit", table, name, draft.generation, encoding)]
    return [
        _with_files(other, files if other is draft else [], mismatches if other is draft else [], state, staging)
        for other in drafts
    ]


def _with_files(
    draft: Entry, files: list[ArchiveFile], mismatches: list[Conflict], state: ArchiveState, staging: Staging
) -> Entry:
    """The draft with the audit that it has from now on; one that its channel had before goes."""
    held = {file.table: file for file in state.files_of(draft.unit) if file.table == "book_audit"}
    add, remove = settled(files, held, staging)
    return msgspec.structs.replace(
        draft,
        add=[*draft.add, *add],
        remove=sorted([*draft.remove, *remove]),
        conflicts=[*draft.conflicts, *mismatches],
    )


class _Sources:
    """Finds the files of this period and the one before, and audits one symbol after the other."""

    def __init__(
        self, layout: Layout, venue: Exchange, period: Period, state: ArchiveState, staging: Staging,
        drafts: list[Entry],
    ) -> None:  # fmt: skip
        self._layout, self._exchange, self._period, self._state = layout, venue.name, period, state
        self._in_band = venue.seed is Seed.IN_BAND
        self._staging = staging
        self._drafts = {draft.channel: draft for draft in drafts}
        self._before = state.before(venue.name, "depth_diff", period.label)
        self.diffs, self.snapshots = self._now("depth_diff"), self._now("depth_snapshot")
        self.diffs_before, self.snapshots_before = self._earlier("depth_diff"), self._earlier("depth_snapshot")

    def _now(self, channel: str) -> _Source | None:
        draft = self._drafts.get(channel)
        for file in draft.add if draft else []:
            if file.table == channel:
                return _Source(file, self._staging.path(file.path))
        return self._archived(channel, self._period.label)

    def _earlier(self, channel: str) -> _Source | None:
        return self._archived(channel, self._before.period) if self._before else None

    def _archived(self, channel: str, label: str) -> _Source | None:
        for file in self._state.files_of(("hour", self._exchange, channel, label)):
            if file.table == channel and self._layout.archived(file.path).exists():
                return _Source(file, self._layout.archived(file.path))
        return None

    def audited(self) -> Iterator[tuple[str, Audited]]:
        """Every comparison that can be made now and could not be before."""
        for symbol in sorted(self.diffs.file.symbols) if self.diffs else []:
            tail = self._before.tails.get(symbol, {}).get("") if self._before else None
            after = tail.final_id if tail else None
            snapshots = self._seeds(symbol, after)
            if len(snapshots) < 2:
                continue
            from depthvault.quality.audit import audit  # loads the compiler: only where there is something to judge

            table = self._events(symbol, snapshots[0].update_id)
            chain = chain_of(table)
            if self._in_band:  # the venue names no first id: an event's changes lie after the event before
                chain = chain._replace(first=chain.prev + 1)
            for outcome in audit(snapshots, chain, levels_of(table, "bid"), levels_of(table, "ask"), after):
                yield symbol, outcome

    def _seeds(self, symbol: str, after: int | None) -> list[Snapshot]:
        """Snapshots by id: the last one judged before, those not yet judged, and this period's."""
        earlier = [
            *_rest_snapshots(self.snapshots_before, symbol), *_in_band_snapshots(self.diffs_before, symbol)
        ]  # fmt: skip
        earlier.sort(key=_order)
        judged = [one for one in earlier if after is not None and one.update_id <= after]
        kept = judged[-1:] + earlier[len(judged) :]
        now = [*_rest_snapshots(self.snapshots, symbol), *_in_band_snapshots(self.diffs, symbol)]
        return sorted([*kept, *now], key=_order)

    def _events(self, symbol: str, since: int) -> pa.RecordBatch:
        """The diffs after id `since`, of both periods, in chain order."""
        parts = []
        for source in (self.diffs_before, self.diffs):
            table = source.rows(symbol, since) if source else None
            if table is not None:
                wanted = pc.greater(table.column("final_update_id"), since)
                parts.append(table.filter(pc.and_not(wanted, table.column("is_snapshot"))))
        merged = pa.concat_tables(parts).combine_chunks() if parts else CHANNELS["depth_diff"].schema.empty_table()
        batches = merged.to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], merged.schema)


def _order(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.update_id, snapshot.received


def _rest_snapshots(source: _Source | None, symbol: str) -> Iterable[Snapshot]:
    table = source.rows(symbol) if source else None
    return () if table is None else _snapshots(table, "depth_snapshot", "last_update_id")


def _in_band_snapshots(source: _Source | None, symbol: str) -> Iterable[Snapshot]:
    flags = source.rows(symbol, columns=["is_snapshot"]) if source else None
    if source is None or flags is None or not pc.any(flags.column(0)).as_py():
        return ()
    table = source.rows(symbol)
    assert table is not None
    return _snapshots(table.filter(table.column("is_snapshot")), "depth_diff", "final_update_id")


def _snapshots(table: pa.Table, channel: str, id_column: str) -> Iterator[Snapshot]:
    def numbers(row: int, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        values: np.ndarray[Any, np.dtype[np.float64]] = table.column(name)[row].values.to_numpy()
        return values

    ids = table.column(id_column).to_pylist()
    received = table.column("received_time").cast(pa.int64()).to_pylist()
    limits: Sequence[int | None] = (
        table.column("limit").to_pylist() if channel == "depth_snapshot" else [None] * table.num_rows
    )
    for row in range(table.num_rows):
        yield Snapshot(
            channel, ids[row], received[row], limits[row], numbers(row, "bid_prices"), numbers(row, "bid_sizes"),
            numbers(row, "ask_prices"), numbers(row, "ask_sizes"),
        )  # fmt: skip


def _row(exchange: str, symbol: str, period: Period, outcome: Audited) -> dict[str, Any]:
    names = (
        "from_update_id", "to_update_id", "diffs_applied", "matched", "missing", "extra", "different", "undecidable",
        "bid_low", "ask_high", "gap_crossed", "state_hash",
    )  # fmt: skip
    known = {"exchange": exchange, "symbol": symbol, "period": period.start}
    return known | {name: getattr(outcome, name) for name in names}


def _mismatch(symbol: str, outcome: Audited) -> Conflict:
    """The wrong levels, so that the incident can be looked into when the journals are gone."""
    key = {"from_update_id": outcome.from_update_id, "to_update_id": outcome.to_update_id}
    kept = [(side, price, replayed) for side, price, replayed, _ in outcome.wrong]
    other = [(side, price, shown) for side, price, _, shown in outcome.wrong]
    return Conflict(symbol, json.dumps(key), "replayed book", "snapshot", json.dumps(kept), json.dumps(other))
