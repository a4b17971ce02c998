"""The task: judge what compaction staged for one venue and period, and keep the verdicts beside it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.archive import log
from depthvault.archive.channel import stage_table
from depthvault.archive.day import extracted
from depthvault.archive.encoding import Encoding
from depthvault.archive.manifest import ArchiveFile, ArchiveState, Entry
from depthvault.archive.rows import by_symbol
from depthvault.archive.staging import Compacted, Staging, Unit, Verdict
from depthvault.archive.stitch import chain_order
from depthvault.config import Config
from depthvault.durable import publish, sha256_file
from depthvault.exchanges import exchange as exchange_named
from depthvault.exchanges.base import Seed
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.polls.rotation import published_cadence
from depthvault.schemas import CHANNELS, QUALITY, completed
from expectations.candles import AGGREGATIONS, TradeFiles
from expectations.continuity import Predecessor
from expectations.examine import Ledger, Subject, examine
from expectations.suites import Bounds
from expectations.verdict import Judgement

_FARTHEST = timedelta(hours=25)
"""How far back trades are read: candles of up to a day are compared with them."""


def validate(layout: Layout, config: Config, exchange: str, period: Period) -> Judgement:
    """Judge the staged files of `exchange` and `period`; record a verdict and `hour_metrics` for each channel.

    Idempotent: the same staged files give the same bytes. With nothing staged there is nothing to judge, and the
    judgement is empty. Nothing is ever refused: what fails is `degraded`.
    """
    staging = Staging(layout, Unit(exchange, period))
    with staging.locked():
        compacted = staging.read()
        if compacted is None:
            return Judgement(exchange, period, (), ())
        state = log.load(layout)
        subjects = tuple(_subject(staging, layout, state, draft) for draft in compacted.drafts)
        quality = config.quality
        bounds = Bounds(_ms(quality.clock_warn), _ms(quality.clock_fail), _ms(quality.lag))
        ledger = Ledger(
            _table(staging, layout, state, compacted, "gaps"),
            _table(staging, layout, state, compacted, "coverage"),
            _cadence(config, exchange, subjects),
            _table(staging, layout, state, compacted, "book_audit"),
            _trades(staging, layout, state, compacted, period),
        )
        spill = layout.run / "spill" / f"{exchange}-{period.label}"
        try:
            judgement = examine(exchange, period, subjects, ledger, spill, bounds)
        finally:
            shutil.rmtree(spill, ignore_errors=True)
        encoding = Encoding.of_periods(config.archive)
        staging.write_validation([_verdict(staging, judgement, draft, encoding) for draft in compacted.drafts])
        return judgement


def _subject(staging: Staging, layout: Layout, state: ArchiveState, draft: Entry) -> Subject:
    before = state.before(draft.exchange, draft.channel, draft.period)
    file = _file(state, draft, draft.channel)
    path = _locate(staging, layout, state, draft, draft.channel)
    rows, sha256, symbols = (file.rows, file.sha256, tuple(file.symbols)) if file else (0, "", ())
    if path is not None and path == _whole_of(staging, draft.channel):
        rows, sha256 = pq.read_metadata(path).num_rows, sha256_file(path)
        symbols = tuple(sorted(pc.unique(pq.read_table(path, columns=["symbol"], partitioning=None)[0]).to_pylist()))
    return Subject(
        draft.channel,
        path,
        rows=rows,
        sha256=sha256,
        symbols=symbols,
        conflicts=draft.counts.conflicts,
        rejected=draft.counts.rejected,
        predecessors={
            symbol: Predecessor(tails[""].final_id, tails[""].epoch)
            for symbol, tails in (before.tails if before else {}).items()
            if "" in tails and tails[""].final_id is not None
        },
    )


def _file(state: ArchiveState, draft: Entry, table: str) -> ArchiveFile | None:
    """The file of `table` as it will stand once `draft` is published: staged, or kept from the generation before."""
    for file in draft.add:
        if file.table == table:
            return file
    for file in state.files_of(draft.unit):
        if file.table == table and file.path not in draft.remove:
            return file
    return None


def _locate(staging: Staging, layout: Layout, state: ArchiveState, draft: Entry, table: str) -> Path | None:
    file, path = _file(state, draft, table), None
    if file is not None:
        path = staging.path(file.path) if file in draft.add else layout.archived(file.path)
    if table == draft.channel and extracted(staging, table).exists():
        return _whole(staging, table, path)
    return path


def _whole_of(staging: Staging, channel: str) -> Path:
    return staging.path(f"fetched/{channel}-whole.parquet")


def _whole(staging: Staging, channel: str, fresh: Path | None) -> Path | None:
    """A period whose day was rolled up, as one file to judge: the rows that the day has of it, and the `fresh` ones."""
    target, paths = _whole_of(staging, channel), [extracted(staging, channel), *([fresh] if fresh else [])]
    if target.exists():
        return target
    definition = CHANNELS[channel]
    with publish(target) as temporary, pq.ParquetWriter(temporary, definition.schema, compression="lz4") as writer:
        for _, rows in by_symbol(paths, definition.schema):
            ordered = rows.take(pa.array(chain_order(rows, definition)))
            writer.write_table(ordered.replace_schema_metadata(None).cast(definition.schema))
    return target if pq.read_metadata(target).num_rows else None


def _table(staging: Staging, layout: Layout, state: ArchiveState, compacted: Compacted, table: str) -> pa.Table:
    """A quality table over all channels of the unit."""
    paths = [_locate(staging, layout, state, draft, table) for draft in compacted.drafts]
    parts = [completed(pq.read_table(path, partitioning=None), table) for path in paths if path is not None]
    return pa.concat_tables([QUALITY[table].empty_table(), *parts])


def _trades(
    staging: Staging, layout: Layout, state: ArchiveState, compacted: Compacted, period: Period
) -> TradeFiles | None:
    """The trades that the period's candles are compared with, back to where its first candle opens; None without any.

    Earlier periods are read as they are published; one whose file is no longer here ends the way back.
    """
    exchange = compacted.exchange
    rule, draft = AGGREGATIONS.get(exchange), compacted.draft("kline")
    if rule is None or draft is None:
        return None
    candles = _locate(staging, layout, state, draft, "kline")
    if candles is None:
        return None
    before = state.before(exchange, "kline", period.label)
    earlier = _published(layout, state, before, "kline") if before and _adjoins(layout, before, period) else None
    opened = min(_first_opening(path) for path in (candles, earlier) if path is not None)
    needed = max(opened, period.start - _FARTHEST) - 2 * rule.border
    fresh, own = compacted.draft("agg_trade"), state.entry("hour", exchange, "agg_trade", period.label)
    path = None
    if fresh is not None:
        path = _locate(staging, layout, state, fresh, "agg_trade")
    elif own is not None:
        path = _published(layout, state, own, "agg_trade")
    paths = [path] if path is not None else []
    inexact = sum(entry.counts.inexact for entry in (fresh, own) if entry is not None)
    since = period.start
    former = state.before(exchange, "agg_trade", period.label)
    while former is not None and since > needed:
        path = _published(layout, state, former, "agg_trade")
        if path is None:
            break
        paths.insert(0, path)
        inexact += former.counts.inexact
        since = Period.parse(former.period, timedelta(minutes=former.period_minutes)).start
        former = state.before(exchange, "agg_trade", former.period)
    tails = {
        symbol: ends[""].final_id
        for symbol, ends in (former.tails if former else {}).items()
        if "" in ends and ends[""].final_id is not None
    }
    return TradeFiles(rule, tuple(paths), since, period.start, tails, earlier, bool(inexact))


def _published(layout: Layout, state: ArchiveState, entry: Entry, table: str) -> Path | None:
    """The file of `table` of a published period; None when it has none, or when it is not here."""
    for file in state.files_of(entry.unit):
        if file.table == table and layout.archived(file.path).exists():
            return layout.archived(file.path)
    return None


def _adjoins(layout: Layout, entry: Entry, period: Period) -> bool:
    return Period.parse(entry.period, timedelta(minutes=entry.period_minutes)).end == period.start


def _first_opening(path: Path) -> datetime:
    earliest: datetime | None = pc.min(pq.read_table(path, columns=["open_time"], partitioning=None)[0]).as_py()
    return earliest or datetime.max.replace(tzinfo=UTC)


def _ms(duration: timedelta) -> float:
    return duration / timedelta(milliseconds=1)


def _cadence(config: Config, exchange: str, subjects: tuple[Subject, ...]) -> timedelta | None:
    venue = exchange_named(exchange, config.exchanges[exchange])
    symbols = max((len(subject.symbols) for subject in subjects if subject.channel == "depth_snapshot"), default=0)
    return published_cadence(venue, symbols) if symbols and venue.seed is Seed.REST else None


def _verdict(staging: Staging, judgement: Judgement, draft: Entry, encoding: Encoding) -> Verdict:
    part = judgement.of(draft.channel)
    file = stage_table(staging, "hour_metrics", part.table(), draft.channel, draft.generation, encoding)
    return Verdict(draft.channel, part.condition, [str(check) for check in part.failures], [file])
