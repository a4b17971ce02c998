"""The book audit of one unit: which files it reads, how it goes on from the period before, and what it stages.

A snapshot near the end of a period is judged with the period in which the diffs reach its id. So the audit begins with
the last snapshot judged before, and with the diffs of the period before that follow it. Where a day was rolled up, the
rows of its periods are read from its files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from depthvault.archive.channel import settled, stage_table
from depthvault.archive.day import at_hand
from depthvault.archive.encoding import Encoding
from depthvault.archive.manifest import ArchiveFile, ArchiveState, Conflict, Entry
from depthvault.archive.places import PeriodRows, Places
from depthvault.archive.staging import Staging
from depthvault.archive.store import Store
from depthvault.book.events import Snapshot, chain_of, levels_of
from depthvault.errors import CorruptError
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


def with_audit(
    layout: Layout, venue: Exchange, period: Period, state: ArchiveState, staging: Staging,
    drafts: list[Entry], encoding: Encoding, store: Store | None = None,
) -> list[Entry]:  # fmt: skip
    """`drafts` with the book audit added to the one whose snapshots were judged, where there is one.

    Files of a day that are needed and no longer here are fetched from `store`.
    """
    name = "depth_snapshot" if any(draft.channel == "depth_snapshot" for draft in drafts) else "depth_diff"
    draft = next((draft for draft in drafts if draft.channel == name), None)
    if draft is None:
        return drafts
    sources = _sources_of(layout, venue, period, state, staging, drafts, store)
    rows: list[dict[str, Any]] = []
    mismatches: list[Conflict] = []
    for symbol, outcome in sources.audited():
        rows.append(audit_row(venue.name, symbol, period, outcome))
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


def _sources_of(
    layout: Layout, venue: Exchange, period: Period, state: ArchiveState, staging: Staging, drafts: list[Entry],
    store: Store | None,
) -> Sources:  # fmt: skip
    """What is audited once `drafts` are published."""

    def find(file: ArchiveFile) -> Path | None:
        """Here, else fetched. What cannot be had is not judged; that it is missing is for `verify` to tell."""
        fetched = staging.path("fetched/" + file.path)
        if fetched.exists():
            return fetched
        try:
            return at_hand(layout, store, file, staging.path("fetched"))
        except CorruptError:
            return None

    places = Places(layout, state, find)
    by_channel = {draft.channel: draft for draft in drafts}

    def now(channel: str) -> PeriodRows:
        draft = by_channel.get(channel)
        staged = [(file, staging.path(file.path)) for file in draft.add if file.table == channel] if draft else []
        held = places.files(("hour", venue.name, channel, period.label), channel)
        is_replaced = draft is not None and all(file.path in draft.remove for file in held)
        return places.rows_of(venue.name, channel, period, staged if staged or is_replaced else None)

    before = state.before(venue.name, "depth_diff", period.label)
    return Sources(venue.seed, now("depth_diff"), now("depth_snapshot"), *earlier(places, before))


def earlier(places: Places, before: Entry | None) -> tuple[Entry | None, PeriodRows | None, PeriodRows | None]:
    """The diffs and snapshots of the period before, whose `depth_diff` entry is `before`."""
    if before is None:
        return None, None, None
    period = Period.parse(before.period, timedelta(minutes=before.period_minutes))
    diffs, snapshots = (places.rows_of(before.exchange, name, period) for name in ("depth_diff", "depth_snapshot"))
    return before, diffs, snapshots


@dataclass(frozen=True, slots=True)
class Sources:
    """What the audit of one period reads: its diffs and snapshots, and those of the period before.

    before: the `depth_diff` entry of that period.
    """

    seed: Seed
    diffs: PeriodRows
    snapshots: PeriodRows
    before: Entry | None
    diffs_before: PeriodRows | None
    snapshots_before: PeriodRows | None

    @property
    def symbols(self) -> list[str]:
        """The symbols with diffs."""
        return self.diffs.symbols

    def audited(self, symbols: Iterable[str] | None = None) -> Iterator[tuple[str, Audited]]:
        """Every comparison that can be made now and could not be before, of all symbols or some."""
        for symbol in self.symbols if symbols is None else symbols:
            tail = self.before.tails.get(symbol, {}).get("") if self.before else None
            after = tail.final_id if tail else None
            snapshots = self._seeds(symbol, after)
            if len(snapshots) < 2:
                continue
            from depthvault.quality.audit import audit  # loads the compiler: only where there is something to judge

            table = self._events(symbol, snapshots[0].update_id)
            chain = chain_of(table)
            if self.seed is Seed.IN_BAND:  # the venue names no first id: an event's changes lie after the one before
                chain = chain._replace(first=chain.prev + 1)
            for outcome in audit(snapshots, chain, levels_of(table, "bid"), levels_of(table, "ask"), after):
                yield symbol, outcome

    def own_seeds(self, symbol: str) -> set[int]:
        """The ids of the snapshots of this period itself."""
        now = [*_rest_snapshots(self.snapshots, symbol), *_in_band_snapshots(self.diffs, symbol)]
        return {one.update_id for one in now}

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


def _rest_snapshots(source: PeriodRows | None, symbol: str) -> Iterable[Snapshot]:
    table = source.rows(symbol) if source else None
    return () if table is None else _snapshots(table, "depth_snapshot", "last_update_id")


def _in_band_snapshots(source: PeriodRows | None, symbol: str) -> Iterable[Snapshot]:
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


def audit_row(exchange: str, symbol: str, period: Period, outcome: Audited) -> dict[str, Any]:
    """The comparison as `book_audit` stores it."""
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
