"""Live files of all writers become one ZSTD Parquet file a channel and period, with its gaps and coverage, staged.

A pure function of receipts, live files and the chain's end before: the same input gives the same bytes, a second run
does nothing. Late or recovered rows make a new generation from the union of what is archived and what is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.archive import inputs as sources
from depthvault.archive import log
from depthvault.archive.auditing import BOOK_CHANNELS, with_audit
from depthvault.archive.channel import compact_channel, generation_after
from depthvault.archive.encoding import Encoding
from depthvault.archive.inputs import ChannelInputs
from depthvault.archive.manifest import PENDING, ArchiveState
from depthvault.archive.staging import Compacted, Staging, Unit
from depthvault.archive.store import Store
from depthvault.archive.symbol import Work
from depthvault.config import Config
from depthvault.durable import make_directories
from depthvault.exchanges import channel_of
from depthvault.exchanges import exchange as exchange_named
from depthvault.exchanges.base import Exchange
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.quality.coverage import Listening
from depthvault.schemas import CHANNELS

_SLACK = 2.0
"""Seconds between a journal's last row and its last write."""


def ready_units(layout: Layout, config: Config, exchange: str | None = None) -> list[Unit]:
    """The units whose writers have all sealed and that the archive lacks, or lacks rows of; oldest first.

    Also those whose first events were judged against another end of the period before than it has now, or whose candles
    against other trades.
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


def pending_units(layout: Layout, exchange: str | None = None) -> list[Unit]:
    """The units of which something was published without being judged, oldest first."""
    found = {
        Unit(name, Period.parse(label, layout.period))
        for (kind, name, _, label), entry in log.load(layout).current.items()
        if kind == "hour" and entry.condition == PENDING and exchange in (None, name)
    }
    return sorted(found, key=lambda unit: (unit.period, unit.exchange))


def compact(
    layout: Layout, config: Config, exchange: str, period: Period, store: Store | None = None, *, pending: bool = False
) -> Compacted:
    """Stage the archive files of one unit. Without anything new the result has no drafts, and nothing is staged.

    An archive file that is needed for the union and no longer here is fetched from `store`. pending: also channels that
    were published without being judged. Raises CorruptError when a live file is not what its receipt says.
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
            if name in CHANNELS
            and not (
                sources.is_compacted(layout, state, exchange, name, period.label, inputs)
                and not (pending and _is_pending(state, exchange, name, period))
            )
        }
        # The book audit needs both: when one changed, it is judged anew.
        if wanted.keys() & BOOK_CHANNELS:
            wanted |= {name: channels[name] for name in BOOK_CHANNELS & channels.keys()}
        for name, witness in sources.JUDGED_BY.items():
            if witness in wanted and name in channels:
                wanted[name] = channels[name]
        wanted = dict(sorted(wanted.items()))
        staged = staging.read()
        if staged is not None and _is_current(staged, staging, wanted, state):
            return staged
        staging.clear()
        make_directories(staging.folder)
        sessions, damage = sources.listening(layout, receipts, sources.told_in(receipts, period), venue)
        encoding, drafts = Encoding.of_periods(config.archive), []
        for name, inputs in wanted.items():
            heard = Listening(sessions, damage, _cadence(name, venue, layout, inputs))
            before = state.before(exchange, name, period.label)
            held = state.files_of(before.unit) if before else []
            before_file = next((file for file in held if file.table == name), None)
            work = Work(layout, exchange, channel_of(exchange, name), period, inputs, before, before_file, heard, store)
            drafts.append(compact_channel(work, state, staging, encoding))
        drafts = with_audit(layout, venue, period, state, staging, drafts, encoding, store)
        compacted = Compacted(exchange, period.label, int(period.length.total_seconds() // 60), drafts)
        if drafts:
            staging.write(compacted)
        else:
            staging.clear()
        return compacted


def _is_pending(state: ArchiveState, exchange: str, channel: str, period: Period) -> bool:
    entry = state.entry("hour", exchange, channel, period.label)
    return entry is not None and entry.condition == PENDING


def _cadence(channel: str, venue: Exchange, layout: Layout, inputs: ChannelInputs) -> int | None:
    """Nanoseconds for which one REST answer of a channel speaks.

    Snapshots rotate over the symbols within the weight budget: their cadence is the published one.
    """
    if channel == "depth_snapshot":
        from depthvault.polls.rotation import published_cadence  # brings the HTTP client with it

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
        if draft.generation != generation_after(current):
            return False
        if any(not staging.path(file.path).exists() for file in draft.add):
            return False
    return True
