"""`coverage` and `gaps` as tables: what was recorded of each symbol in each period, and what was not. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from depthvault.clock import ns_from_datetime
from depthvault.period import Period
from depthvault.quality.gaps import Break, Gap
from depthvault.quality.sessions import (
    PROVED_BY_IDS,
    Damage,
    Ints,
    Session,
    Span,
    cause_of,
    clipped,
    covered,
    holes_ending_in,
    seconds,
    union,
)
from depthvault.quality.steps import Skip
from depthvault.schemas import QUALITY, Channel

CLOSED = frozenset({"bridged", "refilled"})
"""Statuses of gaps through which nothing is missing."""


@dataclass(frozen=True, slots=True)
class SymbolRows:
    """What compaction saw of one symbol: receipt of the first and last row (µs), rows, duplicates, gap rows."""

    symbol: str
    rows: int
    duplicates: int
    first_us: int | None
    last_us: int | None


@dataclass(frozen=True, slots=True)
class Listening:
    """Who listened when: sessions and damage of all writers around one period. `cadence_ns` of REST channels."""

    sessions: Sequence[Session]
    damage: Sequence[Damage] = ()
    cadence_ns: int | None = None

    def judged(self, channel: Channel, symbol: str, unheard: Callable[[str], Ints]) -> Listening:
        """With the doubts about a stream without ids settled; see `Session.judged`."""
        if channel.continuity in PROVED_BY_IDS:
            return self
        return replace(self, sessions=[each.judged(channel.name, symbol, unheard) for each in self.sessions])


def gap_row(
    exchange: str, channel: Channel, symbol: str, period: Period, gap: Gap, listening: Listening
) -> dict[str, Any]:
    """The ledger's row for a broken chain of ids."""
    hole = gap.hole
    window = Span(hole.start_us * 1000, hole.end_us * 1000)
    writers = [gap.instance] if gap.instance else sorted(gap.writers) or sorted({s.writer for s in listening.sessions})
    cause = cause_of(window, writers, listening.sessions, listening.damage, channel.name, symbol)
    detail: dict[str, Any] = {"causes": cause.writers}
    if gap.writers:
        detail["writers"] = {name: _evidence(other) for name, other in gap.writers.items()}
    if channel.continuity == "trade_id":
        detail["missing"] = hole.start - hole.last_id
    if hole.restarted:
        detail["restarted"] = True
    return {
        "exchange": exchange,
        "channel": channel.name,
        "symbol": symbol,
        "period": period.start,
        "instance": gap.instance,
        "last_id": hole.last_id,
        "first_id": hole.first_id,
        "start_time": min(hole.start_us, hole.end_us),  # what was refilled before it was received after it
        "end_time": hole.end_us,
        "cause": "venue" if hole.restarted else cause.cause,
        "status": gap.status,
        "detail": json.dumps(detail, sort_keys=True),
    }


def _evidence(hole: Break) -> dict[str, int]:
    return {"last_id": hole.last_id, "first_id": hole.first_id, "start_us": hole.start_us, "end_us": hole.end_us}


def skip_row(
    exchange: str, channel: Channel, symbol: str, period: Period, skip: Skip, listening: Listening
) -> dict[str, Any]:
    """The ledger's row for missing candles, settlements or answers."""
    window = Span(skip.start_us * 1000, skip.end_us * 1000)
    writers = sorted({session.writer for session in listening.sessions if session.subscribed(channel.name, symbol)})
    cause = cause_of(window, writers, listening.sessions, listening.damage, channel.name, symbol)
    detail = {
        "causes": cause.writers, "series": skip.series, "last_us": skip.last, "next_us": skip.next,
        "missing": skip.missing,
    }  # fmt: skip
    return {
        "exchange": exchange,
        "channel": channel.name,
        "symbol": symbol,
        "period": period.start,
        "instance": "",
        "last_id": None,
        "first_id": None,
        "start_time": skip.start_us,
        "end_time": skip.end_us,
        "cause": cause.cause,
        "status": skip.status,
        "detail": json.dumps(detail, sort_keys=True),
    }


def unprovable_rows(
    exchange: str, channel: Channel, symbol: str, period: Period, listening: Listening, last_seen_us: int | None
) -> list[dict[str, Any]]:
    """A row for each time at which nobody listened to a stream without a proof by ids, ending in `period`."""
    spans = covered(listening.sessions, channel.name, symbol)
    window = Span(period.start_ns, period.end_ns)
    rows = []
    for hole in holes_ending_in(spans, window, None if last_seen_us is None else last_seen_us * 1000):
        writers = sorted({s.writer for s in listening.sessions if s.subscribed(channel.name, symbol)})
        cause = cause_of(hole, writers, listening.sessions, listening.damage, channel.name, symbol)
        rows.append(
            {
                "exchange": exchange,
                "channel": channel.name,
                "symbol": symbol,
                "period": period.start,
                "instance": "",
                "last_id": None,
                "first_id": None,
                "start_time": hole.start // 1000,
                "end_time": hole.end // 1000,
                "cause": cause.cause,
                "status": "unprovable",
                "detail": json.dumps({"causes": cause.writers, "seconds": seconds([hole])}, sort_keys=True),
            }
        )
    return rows


def coverage_row(
    exchange: str,
    channel: Channel,
    period: Period,
    rows: SymbolRows,
    gaps: Sequence[Mapping[str, Any]],
    listening: Listening,
    received_us: Sequence[int],
) -> dict[str, Any]:
    """The coverage of one symbol. `received_us`: receipts of its rows, used for REST channels only, whose answers
    each cover the time until the next one is due."""
    window = Span(period.start_ns, period.end_ns)
    spans = covered(listening.sessions, channel.name, rows.symbol)
    if not spans and listening.cadence_ns is not None:
        spans = union(Span(value * 1000, value * 1000 + listening.cadence_ns) for value in received_us)
    time = min(seconds(clipped(spans, window)), period.length.total_seconds())
    return {
        "exchange": exchange,
        "channel": channel.name,
        "symbol": rows.symbol,
        "period": period.start,
        "first_time": rows.first_us,
        "last_time": rows.last_us,
        "events": rows.rows,
        "duplicates": rows.duplicates,
        "gaps": sum(1 for gap in gaps if gap["status"] not in CLOSED),
        "covered_seconds": time,
        "share": time / period.length.total_seconds(),
    }


def quality_table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows of a quality table in a fixed order."""
    schema = QUALITY[name]
    ordered = sorted(rows, key=lambda row: tuple(_sortable(row[field.name]) for field in schema))
    columns = {
        field.name: pa.array([_plain(row[field.name], field.type) for row in ordered], field.type) for field in schema
    }
    return pa.table(columns, schema=schema)


def _plain(value: Any, kind: pa.DataType) -> Any:
    return ns_from_datetime(value) // 1000 if pa.types.is_timestamp(kind) and hasattr(value, "tzinfo") else value


def _sortable(value: Any) -> tuple[bool, Any]:
    return (value is not None, "" if value is None else value)
