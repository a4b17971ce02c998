"""One symbol of one channel and period: stitched, written, and its gaps and coverage told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.archive.encoding import ArchiveWriter
from depthvault.archive.inputs import ChannelInputs
from depthvault.archive.manifest import ArchiveFile, Conflict, Entry, SymbolSpan, Tail
from depthvault.archive.stitch import REFILL, Stitched, codes, column, stitch
from depthvault.archive.store import Store
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.quality.coverage import (
    Listening,
    SymbolRows,
    coverage_row,
    gap_row,
    skip_row,
    unprovable_rows,
)
from depthvault.quality.gaps import breaks, chain_of, ledger
from depthvault.quality.sessions import PROVED_BY_IDS, Ints, Span, clipped, covered, seconds
from depthvault.quality.steps import skips
from depthvault.quality.witness import unheard
from depthvault.schemas import Channel

MOST_CONFLICTS = 20
"""Conflicts whose payloads an entry tells in full; all are counted."""


_ALSO_ASKED = frozenset({"instrument"})
"""Channels whose stream of the whole market only hastens what is asked for all the time: no hole of theirs."""


@dataclass(slots=True)
class Work:
    """One channel and period on its way through compaction.

    in_day: when the day was rolled up before these rows came, how many rows of each symbol its day file has of this
    period. They come first in what is read, and are not written again. unheard: by writer, what others received and it
    did not (`quality.witness`), of each symbol in turn where a stream of the whole market brings them.
    """

    layout: Layout
    exchange: str
    channel: Channel
    period: Period
    inputs: ChannelInputs
    before: Entry | None
    before_file: ArchiveFile | None
    listening: Listening
    store: Store | None
    in_day: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    spans: dict[str, SymbolSpan] = field(default_factory=dict)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    coverage: list[dict[str, Any]] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    tails: dict[str, dict[str, Tail]] = field(default_factory=dict)
    unheard: dict[str, list[Ints]] = field(default_factory=dict)

    def count(self, name: str, more: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + more


def compact_symbol(work: Work, symbol: str, table: pa.Table, writer: ArchiveWriter) -> None:
    """Write the chain of `symbol` from `table`, its rows of all writers, and note in `work` what became of them."""
    channel = work.channel
    tails = work.tails.get(symbol, {})
    work.count("rows_in", table.num_rows)
    table, repeated = _without_repeated(work, symbol, table, tails.get(""))
    light = table.select([spec.name for spec in channel.columns if not pa.types.is_list(spec.type)])
    own = _own_rows(light, channel)
    heard = _judged(work, symbol, light)
    in_day = work.in_day.get(symbol, 0)
    result = stitch(table, channel, _breaks(work, symbol, own, tails, heard), in_day)
    _note_conflicts(work, symbol, table, result)
    stitched = light.take(pa.array(result.chosen))
    gaps, after = ledger(stitched, channel, own, tails)
    rows = [gap_row(work.exchange, channel, symbol, work.period, gap, heard) for gap in gaps]
    listened = covered(heard.sessions, channel.name, symbol)
    missing, stood = skips(stitched, channel, tails, _cadence_us(work), listened)
    after = {name: tail for name, tail in after.items() if not name.startswith("@")}
    after |= {name: tail for name, tail in stood.items() if name.startswith("@")}
    rows += [skip_row(work.exchange, channel, symbol, work.period, skip, heard) for skip in missing]
    rows += _unlistened(work, symbol, tails, heard)
    work.gaps += rows
    work.tails[symbol] = after
    for name, more in (
        ("rows", stitched.num_rows), ("duplicates", result.duplicates), ("repeated", repeated),
        ("conflicts", len(result.clashes)), ("redundant", result.redundant), ("unchanged", result.unchanged),
    ):  # fmt: skip
        work.count(name, more)
    received = codes(column(stitched, "received_time"))
    fresh = result.chosen >= in_day
    if fresh.any():
        ids = codes(column(stitched, channel.id_column))[fresh] if channel.id_column else None
        work.spans[symbol] = SymbolSpan(
            rows=int(fresh.sum()), first_us=int(received[fresh].min()), last_us=int(received[fresh].max()),
            row_groups=writer.write(table, result.chosen[fresh]),
            first_id=None if ids is None else int(ids.min()), last_id=None if ids is None else int(ids.max()),
        )  # fmt: skip
    if channel.name == "collector_event":
        return  # what happened to the recorder has no coverage
    first, last = (int(received.min()), int(received.max())) if len(received) else (None, None)
    told = SymbolRows(symbol, stitched.num_rows, result.duplicates, first, last)
    answers = np.sort(received).tolist() if work.listening.cadence_ns else ()
    work.coverage.append(coverage_row(work.exchange, channel, work.period, told, rows, heard, answers))


def _judged(work: Work, symbol: str, rows: pa.Table) -> Listening:
    """Who listened to the symbol's stream, in the light of what was received of it."""
    if work.channel.continuity in PROVED_BY_IDS:
        return work.listening
    by = unheard(rows, work.channel)
    if any(session.subscribed(work.channel.name, "") for session in work.listening.sessions):
        for writer in {session.writer for session in work.listening.sessions}:
            work.unheard.setdefault(writer, []).append(by(writer))
    return work.listening.judged(work.channel, symbol, by)


def _unlistened(work: Work, symbol: str, tails: Mapping[str, Tail], heard: Listening) -> list[dict[str, Any]]:
    """Times at which nobody listened to a stream that nothing else proves complete."""
    if work.channel.continuity in PROVED_BY_IDS or work.channel.name == "collector_event":
        return []
    seen = tails[""].received_us if "" in tails else None
    return unprovable_rows(work.exchange, work.channel, symbol, work.period, heard, seen)


def _cadence_us(work: Work) -> int | None:
    """The cadence that answers are judged against; `instrument` changes when it changes."""
    cadence = work.listening.cadence_ns
    return None if cadence is None or work.channel.name in ("instrument", "funding_rate") else cadence // 1000


def _own_rows(light: pa.Table, channel: Channel) -> dict[str, pa.Table]:
    """Each writer's own rows in chain order; refilled rows are nobody's."""
    streamed = light.filter(pc.not_equal(light.column("source"), REFILL))
    names = pc.unique(streamed.column("instance")).to_pylist()
    result = {}
    for name in sorted(names):
        rows = streamed if len(names) == 1 else streamed.filter(pc.equal(streamed.column("instance"), name))
        result[name] = rows.take(pa.array(stitch(rows, channel, {}).chosen))
    return result


def _breaks(
    work: Work, symbol: str, own: Mapping[str, pa.Table], tails: Mapping[str, Tail], heard: Listening
) -> dict[str, int]:
    """How often each writer's own chain broke, or where nothing proves a chain how often it did not listen."""
    if len(own) < 2:
        return dict.fromkeys(own, 0)
    chains = {name: chain_of(rows, work.channel) for name, rows in own.items()}
    result = {}
    window = Span(work.period.start_ns, work.period.end_ns)
    for name, chain in chains.items():
        if chain is None or not len(chain):
            listened = covered([s for s in heard.sessions if s.writer == name], work.channel.name, symbol)
            inside = clipped(listened, window)
            missing = work.period.length.total_seconds() - seconds(inside)
            result[name] = max(0, len(inside) - 1) + (missing > 0.001)
            continue
        others = [other for other in chains.values() if other is not None and len(other)]
        late = chain.start.min() > min(other.start.min() for other in others)
        early = chain.final.max() < max(other.final.max() for other in others)
        result[name] = len(breaks(chain, tails.get(name))) + int(late) + int(early)
    return result


def _note_conflicts(work: Work, symbol: str, table: pa.Table, result: Stitched) -> None:
    for clash in result.clashes[: max(0, MOST_CONFLICTS - len(work.conflicts))]:
        kept = table.slice(clash.kept, 1).to_pylist()[0]
        other = table.slice(clash.other, 1).to_pylist()[0]
        key = {name: kept[name] for name in work.channel.key}
        work.conflicts.append(
            Conflict(
                symbol, json.dumps(key, default=str), kept["instance"], other["instance"],
                json.dumps(kept, default=str), json.dumps(other, default=str),
            )
        )  # fmt: skip


def _without_repeated(work: Work, symbol: str, table: pa.Table, tail: Tail | None) -> tuple[pa.Table, int]:
    """Drop rows without venue time whose key the period before has: two writers received them on either side."""
    channel, before = work.channel, work.before_file
    if channel.id_column is None or not channel.time or before is None or tail is None or not table.num_rows:
        return table, 0
    timeless = np.ones(table.num_rows, np.bool_)
    for name in channel.time:
        timeless &= column(table, name).is_null().to_numpy(zero_copy_only=False)
    if not timeless.any():
        return table, 0
    known = _keys_before(work, symbol, before)
    ids = codes(column(table, channel.id_column))
    repeated = timeless & np.isin(ids, codes(column(known, channel.id_column)))
    repeated[: work.in_day.get(symbol, 0)] = False
    if len(channel.key) > 1 and repeated.any():
        # The id alone does not tell: of a quiet book two snapshots, a minute apart, bear the same one.
        keys = set(_keys(known, channel.key))
        candidates = np.flatnonzero(repeated)
        own = _keys(table.take(pa.array(candidates)), channel.key)
        repeated[candidates] = [key in keys for key in own]
    return (table.filter(pa.array(~repeated)), int(repeated.sum())) if repeated.any() else (table, 0)


def _keys(table: pa.Table, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return list(zip(*(column(table, name).to_pylist() for name in names), strict=True))


def _keys_before(work: Work, symbol: str, file: ArchiveFile) -> pa.Table:
    path, names = work.layout.archived(file.path), list(work.channel.key)
    if symbol not in file.symbols or not path.exists():
        return work.channel.schema.empty_table().select(names)
    groups = list(range(*file.symbols[symbol].row_groups))
    with pq.ParquetFile(path) as parquet:
        return parquet.read_row_groups(groups, columns=names)


def add_silent_symbols(work: Work) -> None:
    """Coverage, and holes, of streams that were subscribed to and brought nothing.

    A stream of the whole market is told of under the empty symbol, whatever it brought: which symbols it had nothing of
    nobody can list.
    """
    streams = {
        symbol
        for session in work.listening.sessions
        for channel, symbol in session.subscriptions
        if channel == work.channel.name and (symbol or channel not in _ALSO_ASKED)
    }
    window = Span(work.period.start_ns, work.period.end_ns)
    for symbol in sorted(streams - {row["symbol"] for row in work.coverage}):
        heard = work.listening
        if not symbol and work.unheard:
            heard = heard.judged(work.channel, symbol, lambda name: np.sort(np.concatenate(work.unheard[name])))
        asked = [span for session in heard.sessions for span in session.asked(work.channel.name, symbol)]
        if not clipped(asked, window):
            continue
        tails = work.tails.get(symbol, {})
        rows = _unlistened(work, symbol, tails, heard)
        work.gaps += rows
        empty = SymbolRows(symbol, 0, 0, None, None)
        work.coverage.append(coverage_row(work.exchange, work.channel, work.period, empty, rows, heard, ()))
        listened = [span for span in covered(heard.sessions, work.channel.name, symbol) if span.start < window.end]
        if listened and work.channel.continuity not in PROVED_BY_IDS:
            # Where nothing is received, listening itself is what a later hole begins after.
            until = max(min(listened[-1].end, window.end) // 1000, tails[""].received_us if "" in tails else 0)
            work.tails[symbol] = {**tails, "": Tail(until)}
