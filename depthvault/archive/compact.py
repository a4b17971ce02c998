"""Live files of all writers become one ZSTD Parquet file a channel and period, with its gaps and coverage, staged.

A pure function of receipts, live files and the chain's end before: the same input gives the same bytes, a second run
does nothing. Late or recovered rows make a new generation from the union of what is archived and what is new.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault import __version__
from depthvault.archive import inputs as sources
from depthvault.archive import log
from depthvault.archive.encoding import ArchiveWriter, Encoding
from depthvault.archive.inputs import ChannelInputs
from depthvault.archive.manifest import (
    ArchiveFile,
    ArchiveState,
    Conflict,
    Counts,
    Entry,
    InputFile,
    SymbolSpan,
    Tail,
    tails_digest,
)
from depthvault.archive.rows import by_symbol
from depthvault.archive.staging import Compacted, Staging, Unit
from depthvault.archive.stitch import REFILL, Stitched, codes, column, stitch
from depthvault.archive.store import Store
from depthvault.config import Config
from depthvault.durable import make_directories, sha256_file
from depthvault.errors import CorruptError
from depthvault.exchanges import exchange as exchange_named
from depthvault.exchanges.base import Exchange
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.polls import published_cadence
from depthvault.quality.coverage import (
    Listening,
    SymbolRows,
    coverage_row,
    gap_row,
    quality_table,
    skip_row,
    unprovable_rows,
)
from depthvault.quality.gaps import breaks, chain_of, ledger
from depthvault.quality.sessions import Span, clipped, covered, seconds
from depthvault.quality.steps import skips
from depthvault.schemas import CHANNELS, QUALITY, SCHEMA_VERSION, Channel

_SLACK = 2.0
"""Seconds between a journal's last row and its last write."""

MOST_CONFLICTS = 20
"""Conflicts whose payloads an entry tells in full; all are counted."""


@dataclass(slots=True)
class _Work:
    """One channel and period on its way through compaction."""

    layout: Layout
    exchange: str
    channel: Channel
    period: Period
    inputs: ChannelInputs
    before: Entry | None
    before_file: ArchiveFile | None
    listening: Listening
    store: Store | None
    counts: dict[str, int] = field(default_factory=dict)
    spans: dict[str, SymbolSpan] = field(default_factory=dict)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    coverage: list[dict[str, Any]] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    tails: dict[str, dict[str, Tail]] = field(default_factory=dict)

    def count(self, name: str, more: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + more


def ready_units(layout: Layout, config: Config, exchange: str | None = None) -> list[Unit]:
    """The units whose writers have all sealed and that the archive lacks, or lacks rows of; oldest first.

    Also those whose first events were judged against another end of the period before than it has now.
    """
    state = log.load(layout)
    units = []
    for name in [exchange] if exchange is not None else type(config.exchanges).model_fields:
        venue = exchange_named(name, config.exchanges[name])
        receipts = sources.sealed(layout, name)
        for label in sources.unpublished(receipts, state, layout, venue):
            period = Period.parse(label, layout.period)
            if not unsealed_writers(layout, name, period):
                units.append(Unit(name, period))
    return sorted(units, key=lambda unit: (unit.period, unit.exchange))


def unsealed_writers(layout: Layout, exchange: str, period: Period) -> list[str]:
    """Writers that recorded in `period` and whose receipt of it is still to come.

    Rows of the period that a writer received only after its end, or in the first moments of it, do not hold it up: they
    make a later generation.
    """
    last: dict[str, str] = {}
    done = set()
    for each in sources.sealed(layout, exchange):
        last[each.receipt.writer] = max(last.get(each.receipt.writer, ""), each.receipt.period)
        if each.receipt.period == period.label:
            done.add(each.receipt.writer)
    waiting = []
    for writer in layout.writers(exchange):
        if writer in done or last.get(writer, "") > period.label:  # the sealer goes by time
            continue
        for path in layout.journal_files(exchange, writer):
            if layout.journal_start(path) < period.end and path.stat().st_mtime > period.start.timestamp() + _SLACK:
                waiting.append(writer)
                break
    return waiting


def compact(layout: Layout, config: Config, exchange: str, period: Period, store: Store | None = None) -> Compacted:
    """Stage the archive files of one unit. Without anything new the result has no drafts, and nothing is staged.

    An archive file that is needed for the union and no longer here is fetched from `store`. Raises CorruptError when
    a live file is not what its receipt says.
    """
    unit = Unit(exchange, period)
    staging = Staging(layout, unit)
    with staging.locked():
        state = log.load(layout)
        venue = exchange_named(exchange, config.exchanges[exchange])
        receipts = sources.sealed(layout, exchange)
        channels = sources.channel_inputs(layout, receipts, period.label, venue)
        wanted = {
            name: inputs
            for name, inputs in sorted(channels.items())
            if name in CHANNELS and not sources.is_compacted(layout, state, exchange, name, period.label, inputs)
        }
        staged = staging.read()
        if staged is not None and _is_current(staged, staging, wanted, state):
            return staged
        staging.clear()
        make_directories(staging.folder)
        sessions, damage = sources.listening(layout, receipts, (period.previous().label, period.label), venue)
        drafts = []
        for name, inputs in wanted.items():
            heard = Listening(sessions, damage, _cadence(name, venue, layout, inputs))
            before = state.before(exchange, name, period.label)
            held = state.files_of(before.unit) if before else []
            before_file = next((file for file in held if file.table == name), None)
            work = _Work(layout, exchange, CHANNELS[name], period, inputs, before, before_file, heard, store)
            drafts.append(_compact_channel(work, state, staging, _encoding(config)))
        compacted = Compacted(exchange, period.label, int(period.length.total_seconds() // 60), drafts)
        if drafts:
            staging.write(compacted)
        else:
            staging.clear()
        return compacted


def _encoding(config: Config) -> Encoding:
    return Encoding(config.archive.compression_level, config.archive.row_group_rows)


def _cadence(channel: str, venue: Exchange, layout: Layout, inputs: ChannelInputs) -> int | None:
    """Nanoseconds for which one REST answer of a channel speaks.

    Snapshots rotate over the symbols within the weight budget: their cadence is the published one.
    """
    if channel == "depth_snapshot":
        paths = [layout.root / source.path for source in inputs.live]
        symbols = {name for path in paths for name in pc.unique(pq.read_table(path, columns=["symbol"])[0]).to_pylist()}
        return int(published_cadence(venue, len(symbols)).total_seconds() * 1e9)
    spans = {
        "open_interest": timedelta(minutes=5),
        "funding_rate": timedelta(hours=8),
        "instrument": venue.config.instrument_interval,
    }
    return int(spans[channel].total_seconds() * 1e9) if channel in spans else None


def _is_current(staged: Compacted, staging: Staging, wanted: Mapping[str, ChannelInputs], state: ArchiveState) -> bool:
    """Whether what is staged is what compaction would stage now."""
    if [draft.channel for draft in staged.drafts] != list(wanted):
        return False
    for draft in staged.drafts:
        inputs = wanted[draft.channel]
        before = state.before(draft.exchange, draft.channel, draft.period)
        current = state.entry(*draft.unit)
        if draft.receipts != (current.receipts if current else {}) | inputs.receipts:
            return False
        if draft.predecessor != (before.tails_sha256 if before else ""):
            return False
        if draft.generation != _generation(current):
            return False
        if any(not staging.path(file.path).exists() for file in draft.add):
            return False
    return True


def _generation(current: Entry | None) -> int:
    return 1 if current is None else current.generation + 1


def _compact_channel(work: _Work, state: ArchiveState, staging: Staging, encoding: Encoding) -> Entry:
    layout, channel, period = work.layout, work.channel, work.period
    current = state.entry("hour", work.exchange, channel.name, period.label)
    generation = _generation(current)
    held = {file.table: file for file in state.files_of(current.unit)} if current else {}
    paths, archived = _source_files(work, staging, current, held)
    work.tails = dict(work.before.tails) if work.before else {}

    files: list[ArchiveFile] = []
    key = layout.hour_key(work.exchange, channel.name, period, generation)
    if paths:
        target = staging.path(key)
        make_directories(target.parent)
        metadata = {"depthvault.exchange": work.exchange, "depthvault.period": period.label}
        with ArchiveWriter(target, channel.schema, encoding, metadata) as writer:
            for symbol, table in by_symbol(paths, channel.schema):
                _compact_symbol(work, symbol, table, writer)
        if writer.rows:
            files.append(_described(key, target, channel.name, writer, work.spans))
        else:
            target.unlink()
    _add_silent_symbols(work)
    files += _stage_quality(work, staging, generation, encoding)

    # What is byte by byte what the archive holds already stays under its old name.
    kept = {file.table for file in files if file.table in held and held[file.table].sha256 == file.sha256}
    replaced = {file.table for file in files} | ({"gaps", "coverage", channel.name} & held.keys())
    for file in files:
        if file.table in kept:
            staging.path(file.path).unlink()
    return Entry(
        number=0, previous=None, kind="hour", exchange=work.exchange, channel=channel.name, period=period.label,
        period_minutes=int(period.length.total_seconds() // 60), generation=generation, created="", publisher="",
        software=__version__, schema_version=SCHEMA_VERSION,
        libraries={"pyarrow": importlib.metadata.version("pyarrow")},
        inputs=work.inputs.live, archived_inputs=archived,
        receipts=dict(sorted(((current.receipts if current else {}) | work.inputs.receipts).items())),
        add=[file for file in files if file.table not in kept],
        remove=sorted(held[table].path for table in replaced - kept if table in held),
        counts=Counts(
            rejected=work.inputs.rejected, inexact=work.inputs.inexact, gaps=len(work.gaps), **work.counts
        ),
        predecessor=work.before.tails_sha256 if work.before else "",
        conflicts=work.conflicts, tails=work.tails, tails_sha256=tails_digest(work.tails),
    )  # fmt: skip


def _source_files(
    work: _Work, staging: Staging, current: Entry | None, held: Mapping[str, ArchiveFile]
) -> tuple[list[Path], list[InputFile]]:
    """The files to read, checked against what was recorded of them, and which of them are the archive's own."""
    paths: list[Path] = []
    archived: list[InputFile] = []
    live = work.inputs.live
    before = [] if current is None else [*current.inputs, *current.archived_inputs]
    present = {source.path for source in live}
    if work.inputs.gone or any(source.path not in present for source in before):
        # Live files of the current generation are no longer here: its rows are, in the archive.
        file = held.get(work.channel.name)
        if file is not None:
            paths.append(_archived_copy(work, staging, file))
            archived.append(InputFile(file.path, file.sha256, file.rows))
            live = [source for source in live if source not in before]
        elif work.inputs.gone:
            raise CorruptError(f"{work.inputs.gone[0].path}: a sealed file is gone before it was archived; seal again")
    for source in live:
        path = work.layout.root / source.path
        _check(path, source.sha256)
        paths.append(path)
    return paths, archived


def _archived_copy(work: _Work, staging: Staging, file: ArchiveFile) -> Path:
    path = work.layout.archived(file.path)
    if not path.exists():
        path = staging.path("fetched/" + file.path)
        make_directories(path.parent)
        if work.store is None or work.store.download(file.path, path) is None:
            raise CorruptError(f"{file.path}: is needed to add late rows and not here; restore the period first")
    _check(path, file.sha256)
    return path


def _check(path: Path, sha256: str) -> None:
    if sha256_file(path) != sha256:
        raise CorruptError(f"{path}: is not what was recorded of it; its journals are intact: seal it again")


def _described(key: str, path: Path, table: str, writer: ArchiveWriter, spans: Mapping[str, SymbolSpan]) -> ArchiveFile:
    first_ids = [span.first_id for span in spans.values() if span.first_id is not None]
    last_ids = [span.last_id for span in spans.values() if span.last_id is not None]
    return ArchiveFile(
        path=key, sha256=sha256_file(path), bytes=path.stat().st_size, rows=writer.rows,
        logical_sha256=writer.logical_sha256, table=table, symbols=dict(spans),
        first_us=min((span.first_us for span in spans.values()), default=None),
        last_us=max((span.last_us for span in spans.values()), default=None),
        first_id=min(first_ids, default=None), last_id=max(last_ids, default=None),
    )  # fmt: skip


def _compact_symbol(work: _Work, symbol: str, table: pa.Table, writer: ArchiveWriter) -> None:
    channel = work.channel
    rows_in = table.num_rows
    tails = work.tails.get(symbol, {})
    table, repeated = _without_repeated(work, symbol, table, tails.get(""))
    light = table.select([spec.name for spec in channel.columns if not pa.types.is_list(spec.type)])
    own = _own_rows(light, channel)
    result = stitch(table, channel, _breaks(work, symbol, own, tails))
    chosen = table.take(pa.array(result.chosen)) if len(result.chosen) else table.slice(0, 0)
    _note_conflicts(work, symbol, table, result)
    gaps, after = ledger(light.take(pa.array(result.chosen)), channel, own, tails)
    rows = [gap_row(work.exchange, channel, symbol, work.period, gap, work.listening) for gap in gaps]
    missing, stood = skips(light.take(pa.array(result.chosen)), channel, tails, _cadence_us(work))
    after |= {name: tail for name, tail in stood.items() if name.startswith("@")}
    rows += [skip_row(work.exchange, channel, symbol, work.period, skip, work.listening) for skip in missing]
    rows += _unlistened(work, symbol, tails)
    work.gaps += rows
    work.tails[symbol] = after
    received = codes(column(chosen, "received_time"))
    work.coverage.append(
        coverage_row(
            work.exchange, channel, work.period,
            SymbolRows(
                symbol, chosen.num_rows, result.duplicates,
                int(received.min()) if len(received) else None, int(received.max()) if len(received) else None,
            ),
            rows, work.listening, np.sort(received).tolist() if work.listening.cadence_ns else (),
        )
    )  # fmt: skip
    for name, more in (
        ("rows_in", rows_in), ("rows", chosen.num_rows), ("duplicates", result.duplicates), ("repeated", repeated),
        ("conflicts", len(result.clashes)), ("redundant", result.redundant), ("unchanged", result.unchanged),
    ):  # fmt: skip
        work.count(name, more)
    if chosen.num_rows:
        groups = writer.write(chosen)
        ids = codes(column(chosen, channel.id_column)) if channel.id_column else None
        work.spans[symbol] = SymbolSpan(
            rows=chosen.num_rows, first_us=int(received.min()), last_us=int(received.max()), row_groups=groups,
            first_id=None if ids is None else int(ids.min()), last_id=None if ids is None else int(ids.max()),
        )  # fmt: skip


def _unlistened(work: _Work, symbol: str, tails: Mapping[str, Tail]) -> list[dict[str, Any]]:
    """Times at which nobody listened to a stream that nothing else proves complete."""
    if work.channel.continuity in ("update_id", "trade_id", "minute") or work.channel.name == "collector_event":
        return []
    seen = tails[""].received_us if "" in tails else None
    return unprovable_rows(work.exchange, work.channel, symbol, work.period, work.listening, seen)


def _cadence_us(work: _Work) -> int | None:
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


def _breaks(work: _Work, symbol: str, own: Mapping[str, pa.Table], tails: Mapping[str, Tail]) -> dict[str, int]:
    """How often each writer's own chain broke, or where nothing proves a chain how often it did not listen."""
    if len(own) < 2:
        return dict.fromkeys(own, 0)
    chains = {name: chain_of(rows, work.channel) for name, rows in own.items()}
    result = {}
    window = Span(work.period.start_ns, work.period.end_ns)
    for name, chain in chains.items():
        if chain is None or not len(chain):
            listened = covered([s for s in work.listening.sessions if s.writer == name], work.channel.name, symbol)
            inside = clipped(listened, window)
            missing = work.period.length.total_seconds() - seconds(inside)
            result[name] = max(0, len(inside) - 1) + (missing > 0.001)
            continue
        others = [other for other in chains.values() if other is not None and len(other)]
        late = chain.start.min() > min(other.start.min() for other in others)
        early = chain.final.max() < max(other.final.max() for other in others)
        result[name] = len(breaks(chain, tails.get(name))) + int(late) + int(early)
    return result


def _note_conflicts(work: _Work, symbol: str, table: pa.Table, result: Stitched) -> None:
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


def _without_repeated(work: _Work, symbol: str, table: pa.Table, tail: Tail | None) -> tuple[pa.Table, int]:
    """Drop rows without venue time whose id the period before has: two writers received them on either side."""
    channel, before = work.channel, work.before_file
    if channel.id_column is None or not channel.time or before is None or tail is None or not table.num_rows:
        return table, 0
    timeless = np.ones(table.num_rows, np.bool_)
    for name in channel.time:
        timeless &= column(table, name).is_null().to_numpy(zero_copy_only=False)
    if not timeless.any():
        return table, 0
    known = _ids_before(work, symbol, before)
    ids = codes(column(table, channel.id_column))
    repeated = timeless & np.isin(ids, known)
    return (table.filter(pa.array(~repeated)), int(repeated.sum())) if repeated.any() else (table, 0)


def _ids_before(work: _Work, symbol: str, file: ArchiveFile) -> np.ndarray[Any, np.dtype[np.int64]]:
    path, name = work.layout.archived(file.path), work.channel.id_column
    if symbol not in file.symbols or not path.exists():
        return np.zeros(0, np.int64)
    groups = list(range(*file.symbols[symbol].row_groups))
    with pq.ParquetFile(path) as parquet:
        return codes(column(parquet.read_row_groups(groups, columns=[name]), str(name)))


def _add_silent_symbols(work: _Work) -> None:
    """Coverage, and holes, of streams that were subscribed to and brought nothing."""
    streams = {
        symbol
        for session in work.listening.sessions
        for channel, symbol in session.streams
        if channel == work.channel.name and symbol
    }
    window = Span(work.period.start_ns, work.period.end_ns)
    for symbol in sorted(streams - {row["symbol"] for row in work.coverage}):
        if not clipped(covered(work.listening.sessions, work.channel.name, symbol), window):
            continue
        tails = work.tails.get(symbol, {})
        rows = _unlistened(work, symbol, tails)
        work.gaps += rows
        empty = SymbolRows(symbol, 0, 0, None, None)
        work.coverage.append(coverage_row(work.exchange, work.channel, work.period, empty, rows, work.listening, ()))


def _stage_quality(work: _Work, staging: Staging, generation: int, encoding: Encoding) -> list[ArchiveFile]:
    files = []
    for name, rows in (("gaps", work.gaps), ("coverage", work.coverage)):
        if rows:
            files.append(stage_table(staging, name, quality_table(name, rows), work.channel.name, generation, encoding))
    return files


def stage_table(
    staging: Staging, name: str, table: pa.Table, channel: str, generation: int, encoding: Encoding
) -> ArchiveFile:
    """Stage a quality table of one channel under its key."""
    unit = staging.unit
    key = Layout.quality_key(name, unit.exchange, channel, unit.period, generation)
    path = staging.path(key)
    make_directories(path.parent)
    with ArchiveWriter(path, QUALITY[name], encoding) as writer:
        writer.write(table)
    return _described(key, path, name, writer, {})
