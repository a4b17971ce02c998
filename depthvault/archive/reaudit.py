"""The book audit of a published period done again, and compared with what `book_audit` stores of it.

Replayed from one snapshot to the next, the rows must give the numbers and the state hash that compaction found: who
changes a level inside the compared range, a snapshot, or the stored outcome is found, whatever hashes were made to fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.archive.auditing import Sources, audit_row, earlier
from depthvault.archive.finding import Finding
from depthvault.archive.manifest import ArchiveState, Entry
from depthvault.archive.places import Places
from depthvault.config import Config
from depthvault.errors import ConfigError
from depthvault.exchanges import exchange as exchange_named
from depthvault.period import Period

_WRONG = ("missing", "extra", "different")
_MOST = 5
Row = Mapping[str, Any]


def audit_findings(places: Places, state: ArchiveState, entry: Entry) -> Iterator[Finding]:
    """How the audit of the period of `entry` (a `depth_diff` one) differs from the stored one.

    Symbols not all of whose rows are here are left out. So is what was judged from a snapshot of the period before,
    when that period has changed since: it told no more then than it could.
    """
    try:
        venue = exchange_named(entry.exchange, Config().exchanges[entry.exchange])
    except (ConfigError, KeyError):
        return  # a venue that this version does not know
    period = Period.parse(entry.period, timedelta(minutes=entry.period_minutes))
    before = state.before(entry.exchange, "depth_diff", entry.period)
    try:
        stored = _stored(places, entry)
        if stored is None:
            return
        diffs, snapshots = (
            places.rows_of(entry.exchange, name, period) for name in ("depth_diff", "depth_snapshot")
        )  # fmt: skip
        sources = Sources(venue.seed, diffs, snapshots, *earlier(places, before))
        yield from _compared(sources, stored, entry, period, is_seam_known=not _is_stale(state, entry, before))
    except (pa.ArrowException, OSError, KeyError):
        return  # told with the values


def _stored(places: Places, entry: Entry) -> dict[str, list[Row]] | None:
    """The stored comparisons by symbol; None when the file is not here."""
    found: dict[str, list[Row]] = {}
    for channel in ("depth_diff", "depth_snapshot"):
        for file in places.files(("hour", entry.exchange, channel, entry.period), "book_audit"):
            path = places.find(file)
            if path is None:
                return None
            for row in pq.read_table(path).to_pylist():
                found.setdefault(row["symbol"], []).append(row)
    return found


def _is_stale(state: ArchiveState, entry: Entry, before: Entry | None) -> bool:
    """Whether the period before was published anew after the audit was made."""

    def number(period: str) -> int:
        units = (("hour", entry.exchange, channel, period) for channel in ("depth_diff", "depth_snapshot"))
        return max((state.current[unit].number for unit in units if unit in state.current), default=0)

    return before is not None and number(before.period) > number(entry.period)


def _compared(
    sources: Sources, stored: dict[str, list[Row]], entry: Entry, period: Period, *, is_seam_known: bool
) -> Iterator[Finding]:
    def partial(*parts: Any) -> set[str]:
        return {symbol for part in parts if part for file in part.missing for symbol in file.symbols}

    where = f"book_audit {entry.exchange} {entry.period}"
    unknown = partial(sources.diffs, sources.snapshots)
    seamless = partial(sources.diffs_before, sources.snapshots_before)
    for symbol in sorted({*sources.symbols, *stored} - unknown):
        redone: list[Row] = [
            audit_row(entry.exchange, symbol, period, outcome) for _, outcome in sources.audited([symbol])
        ]
        told = list(stored.get(symbol, []))
        if symbol in seamless or not is_seam_known:
            own = sources.own_seeds(symbol)
            told, redone = ([row for row in rows if row["from_update_id"] in own] for rows in (told, redone))
        for count, what in enumerate(_differences(told, redone)):
            if count < _MOST:
                yield Finding("local", "audit", where, f"{symbol}: {what}")


def _differences(stored: list[Row], redone: list[Row]) -> Iterator[str]:
    left = list(stored)
    for row in redone:
        ids = row["from_update_id"], row["to_update_id"]
        same = [other for other in left if (other["from_update_id"], other["to_update_id"]) == ids]
        equal = next((other for other in same if not _differing(other, row)), None)
        kept = equal or (same[0] if same else None)
        if kept is not None:
            left.remove(kept)
        if equal is not None:
            continue
        book = f"the book replayed from {ids[0]} to {ids[1]}"
        if kept is None:
            yield f"{book} is not in the stored audit: {_summary(row)}"
        else:
            names = _differing(kept, row)
            yield f"{book} is another than was stored: " + ", ".join(
                f"{name} {kept[name]} then, {row[name]} now" for name in names
            )
    for row in left:
        ids = row["from_update_id"], row["to_update_id"]
        yield f"the stored audit has the book from {ids[0]} to {ids[1]}, and the rows do not give it"


def _differing(stored: Row, redone: Row) -> list[str]:
    return [name for name in redone if name not in ("exchange", "symbol", "period") and stored[name] != redone[name]]


def _summary(row: Row) -> str:
    wrong = sum(row[name] for name in _WRONG)
    return f"{row['matched']} levels match, {wrong} do not"
