"""Periods made anew from kept journals, after a decoder was mended: a new generation, and what it changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from depthvault.archive import log
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.day import at_hand
from depthvault.archive.inputs import sealed
from depthvault.archive.manifest import ArchiveFile, ArchiveState, Entry
from depthvault.archive.staging import Compacted, Staging, Unit
from depthvault.archive.store import Store
from depthvault.config import Config
from depthvault.errors import ArchiveError
from depthvault.exchanges import exchange as exchange_named
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import CHANNELS
from depthvault.seal import seal


@dataclass(frozen=True, slots=True)
class Change:
    """What a channel's new generation differs in. only_before, only_after: rows that the other does not have; a row
    whose value changed counts in both."""

    channel: str
    rows_before: int
    rows_after: int
    only_before: int
    only_after: int


@dataclass(slots=True)
class Rederived:
    """What was made: `compacted` is staged and still to be validated and published.

    changes: of the channels that differ. kept: writers whose journals are gone, so that their rows stay as archived (of
    a straggler's receipt with its period: `rest-h 20261120T1200`). others: archived units that were sealed anew with
    it, since they sent rows here or received rows from here, and that now hold something else: compact them next.
    """

    unit: Unit
    compacted: Compacted
    changes: list[Change] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    others: list[Unit] = field(default_factory=list)


def rederive(layout: Layout, config: Config, exchange: str, period: Period, store: Store | None = None) -> Rederived:
    """Seal and compact one period anew, and say what differs. Nothing is published.

    Rows of it that were received in other periods (late, replayed, refilled) come from the receipts of those: they are
    sealed anew, too.
    """
    venue = exchange_named(exchange, config.exchanges[exchange])
    kept: dict[str, str] = {}
    touched: set[str] = set()
    for writer, received in _receipts(layout, exchange, period):
        try:
            receipt = seal(layout, venue, writer, received, grace=config.archive.seal_grace, force=True)
        except ArchiveError as error:
            kept[writer if received == period else f"{writer} {received.label}"] = str(error)
        else:
            touched |= {received.label, *(file.period for file in (receipt.files if receipt else ()))}
    unit = Unit(exchange, period)
    staging = Staging(layout, unit)
    state = log.load(layout)
    compacted = compact(layout, config, exchange, period, store)
    result = Rederived(unit, compacted, kept=kept)
    archived = {label for (kind, name, _, label) in state.current if (kind, name) == ("hour", exchange)}
    result.others = [
        other
        for other in ready_units(layout, config, exchange)
        if other.period != period and other.period.label in touched & archived
    ]
    for draft in compacted.drafts:
        change = _change(layout, store, staging, state, draft)
        if change is not None:
            result.changes.append(change)
    return result


def _receipts(layout: Layout, exchange: str, period: Period) -> list[tuple[str, Period]]:
    """Who holds rows of `period`: every writer, and the (writer, period of receipt) of its stragglers."""
    late = {
        (each.receipt.writer, Period.parse(each.receipt.period, layout.period))
        for each in sealed(layout, exchange)
        if any(file.period == period.label for file in each.receipt.files)
    }
    return sorted(late | {(writer, period) for writer in layout.writers(exchange)})


def _change(layout: Layout, store: Store | None, staging: Staging, state: ArchiveState, draft: Entry) -> Change | None:
    def data(files: list[ArchiveFile]) -> ArchiveFile | None:
        return next((file for file in files if file.table == draft.channel), None)

    before, after = data(state.files_of(draft.unit)), data(draft.add)
    if before is not None and after is None and before.path not in draft.remove:
        return None  # the same bytes
    if before is not None and after is not None and before.logical_sha256 == after.logical_sha256:
        return None  # the same values
    if before is None or after is None:
        lost, new = (before.rows if before else 0), (after.rows if after else 0)
        return Change(draft.channel, lost, new, lost, new) if lost or new else None
    old, made = at_hand(layout, store, before, staging.path("fetched")), staging.path(after.path)
    columns = ", ".join(f'"{column.name}"' for column in CHANNELS[draft.channel].columns)
    with duckdb.connect() as connection:
        only_before = _only_in(connection, old, made, columns)
        only_after = _only_in(connection, made, old, columns)
    return Change(draft.channel, before.rows, after.rows, only_before, only_after)


def _only_in(connection: duckdb.DuckDBPyConnection, left: Path, right: Path, columns: str) -> int:
    query = (
        f"SELECT count(*) FROM (SELECT {columns} FROM read_parquet(?) "  # noqa: S608 - names of our own schema
        f"EXCEPT ALL SELECT {columns} FROM read_parquet(?))"
    )
    row = connection.execute(query, [str(left), str(right)]).fetchone()
    assert row is not None
    return int(row[0])
