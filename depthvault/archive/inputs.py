"""What a period is compacted from: complete receipts, the live files they name, and the connections behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from depthvault.archive.manifest import ArchiveState, Entry, InputFile
from depthvault.clock import ns_from_datetime
from depthvault.durable import sha256_file
from depthvault.exchanges import channel_of
from depthvault.exchanges.base import Exchange
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.quality.sessions import FOREVER, PROVED_BY_IDS, Damage, Session, Span
from depthvault.seal.receipts import NOT_TOLD, Connection, Receipt, StreamSpan, read_receipt


@dataclass(frozen=True, slots=True)
class Sealed:
    """A complete receipt. `name` is its path relative to `data_dir`; `sha256` of its bytes."""

    name: str
    sha256: str
    receipt: Receipt


@dataclass(slots=True)
class ChannelInputs:
    """What one channel and period is made of.

    live: the live files, in a fixed order. gone: input files of which only the archive still holds the rows.
    receipts: SHA-256 of each receipt by name.
    """

    live: list[InputFile] = field(default_factory=list)
    gone: list[InputFile] = field(default_factory=list)
    receipts: dict[str, str] = field(default_factory=dict)
    rejected: int = 0
    inexact: int = 0


@lru_cache(maxsize=4096)
def _read(path: Path, mtime_ns: int, size: int) -> tuple[Receipt, str]:
    del mtime_ns, size  # they make the cache forget a receipt that was written anew
    return read_receipt(path), sha256_file(path)


def sealed(layout: Layout, exchange: str) -> list[Sealed]:
    """The complete receipts of an exchange, by name."""
    found = []
    folder = layout.receipts(exchange)
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        state = path.stat()
        receipt, digest = _read(path, state.st_mtime_ns, state.st_size)
        if receipt.complete:
            found.append(Sealed(path.relative_to(layout.root).as_posix(), digest, receipt))
    return found


def periods_of(sealed_receipts: Iterable[Sealed]) -> list[str]:
    """Labels of all periods that the receipts are about, late files included, ascending."""
    labels = set()
    for each in sealed_receipts:
        labels.add(each.receipt.period)
        labels.update(file.period for file in each.receipt.files)
    return sorted(labels)


def channel_inputs(
    layout: Layout, sealed_receipts: Iterable[Sealed], label: str, exchange: Exchange
) -> dict[str, ChannelInputs]:
    """For each channel, what the period `label` is made of: its own receipts, and later ones with files for it.

    A channel that was subscribed but brought nothing has inputs without files: its coverage is still to be told.
    """
    result: dict[str, ChannelInputs] = {}
    for each in sealed_receipts:
        receipt = each.receipt
        own = receipt.period == label
        channels = {file.channel for file in receipt.files if file.period == label}
        if own:
            channels |= {
                channel
                for link in receipt.connections
                for span in link.streams
                for channel, _ in _channels(exchange, span.stream, {})
            }
        for channel in channels:
            inputs = result.setdefault(channel, ChannelInputs())
            inputs.receipts[each.name] = each.sha256
            if own:
                inputs.rejected += receipt.rejected.get(channel, 0)
                inputs.inexact += receipt.inexact.get(channel, 0)
        for file in receipt.files:
            if file.period == label:
                source = InputFile(file.path, file.sha256, file.rows)
                place = result[file.channel].live if (layout.root / file.path).exists() else result[file.channel].gone
                place.append(source)
    for inputs in result.values():
        inputs.live.sort()
        inputs.gone.sort()
    return result


def is_compacted(
    layout: Layout, state: ArchiveState, exchange: str, channel: str, label: str, inputs: ChannelInputs
) -> bool:
    """Whether the archive holds all of these inputs, judged against the end of the period before as it is now."""
    entry = state.entry("hour", exchange, channel, label)
    if entry is None or any(entry.receipts.get(name) != digest for name, digest in inputs.receipts.items()):
        return False
    before = state.before(exchange, channel, label)
    follows = entry.predecessor == (before.tails_sha256 if before else "")
    if follows and not _is_outdated(layout, state, entry):
        return True
    # The period before came later or changed its end, or what it is judged by did. Judge anew, unless the rows are no
    # longer here.
    files = [file for file in state.files_of(entry.unit) if file.table == channel]
    return bool(inputs.gone) and not all(layout.archived(file.path).exists() for file in files)


JUDGED_BY = {"kline": "agg_trade"}
"""Channels whose rows are judged by the rows of another one, of their own period and of the one before."""


def _is_outdated(layout: Layout, state: ArchiveState, entry: Entry) -> bool:
    """Whether what the entry's rows are judged by was published since."""
    witness = JUDGED_BY.get(entry.channel)
    if witness is None:
        return False
    period = Period.parse(entry.period, layout.period)
    entries = (state.entry("hour", entry.exchange, witness, each.label) for each in (period, period.previous()))
    return any(each is not None and each.number > entry.number for each in entries)


def told_in(sealed_receipts: Iterable[Sealed], period: Period) -> set[str]:
    """Labels of the periods whose receipts tell of the sessions around `period`: it, the one before, of each writer
    the last one that it has before, so that a long outage has its cause, and those in which rows of it came late."""
    last: dict[str, str] = {}
    late = set()
    for each in sealed_receipts:
        receipt = each.receipt
        if receipt.period < period.label:
            last[receipt.writer] = max(receipt.period, last.get(receipt.writer, ""))
        elif any(file.period == period.label for file in receipt.files):
            late.add(receipt.period)
    return {period.previous().label, period.label, *last.values(), *late}


def _journals_begun(layout: Layout, sealed_receipts: Iterable[Sealed]) -> dict[str, list[int]]:
    """When (ns) the journals of each writer were begun that writes one after the other."""
    names: dict[str, set[str]] = {}
    for each in sealed_receipts:
        receipt = each.receipt
        if not receipt.writer.startswith("rest-"):  # those write side by side
            paths = (*receipt.inputs, *(link.journal for link in receipt.connections))
            names.setdefault(receipt.writer, set()).update(paths)
    return {
        writer: sorted(ns_from_datetime(layout.journal_start(layout.root / name)) for name in found)
        for writer, found in names.items()
    }


def listening(
    layout: Layout, sealed_receipts: Iterable[Sealed], labels: Iterable[str], exchange: Exchange
) -> tuple[list[Session], list[Damage]]:
    """The sessions and the damage that the receipts of the periods `labels` tell of."""
    wanted, sealed_receipts = set(labels), list(sealed_receipts)
    journals = _journals_begun(layout, sealed_receipts)
    found: dict[tuple[str, str, int], tuple[Receipt, Connection]] = {}
    damage: list[Damage] = []
    for each in sealed_receipts:  # by period: a later receipt of the same connection knows more
        receipt = each.receipt
        if receipt.period not in wanted:
            continue
        period = Period.parse(receipt.period, layout.period)
        whole = Span(period.start_ns, period.end_ns)
        found |= {(receipt.writer, link.journal, link.connection): (receipt, link) for link in receipt.connections}
        for region in receipt.damage:
            if region.kind == "torn":
                continue  # the last write of a process that was killed: that its connections ended in a crash says it
            begun = ns_from_datetime(layout.journal_start(layout.root / region.path))
            start = begun if region.from_ns is None else region.from_ns
            end = region.until_ns
            if end is None:  # the last of its journal: over when the writer began the next one, if it did
                following = next((at for at in journals.get(receipt.writer, ()) if at > begun), whole.end)
                end = max(start, following)
            damage.append(Damage(receipt.writer, "damaged", Span(start, end)))
        for rows in receipt.dropped:
            damage.append(Damage(receipt.writer, "damaged", Span(rows.from_ns, rows.until_ns)))
        for frame in receipt.malformed:
            damage.append(Damage(receipt.writer, "malformed", Span(frame.at_ns, frame.at_ns), frame.channel))
        rejected = {name: count for name, count in receipt.rejected.items() if name != "collector_event"}
        if len(receipt.malformed) < sum(rejected.values()):  # more than a receipt tells one by one
            for channel in rejected:
                damage.append(Damage(receipt.writer, "malformed", whole, "" if channel == "frame" else channel))
    resumed = {  # a connection goes on in the next journal file of its writer
        (receipt.writer, link.connection, link.journal): link.opened_ns
        for receipt, link in found.values()
        if link.continues
    }
    doubts = {  # where a stream had not spoken when its connection went on in the next file: what became of it there
        (receipt.writer, link.connection, link.journal, part.stream): _after(link, part, exchange)
        for receipt, link in found.values()
        if link.continues
        for part in link.streams
        if part.from_ns == link.opened_ns and part.heard_ns != part.from_ns and part.heard_ns != NOT_TOLD
    }
    sessions = [_session(layout, receipt, link, resumed, doubts, exchange) for receipt, link in found.values()]
    return sorted(sessions, key=lambda session: (session.writer, session.opened_ns, session.closed_ns)), damage


def _is_over(link: Connection, part: StreamSpan) -> bool:
    return part.until_ns is not None or (link.closed_ns is not None and link.cause != "rotate")


def _is_silent(link: Connection, part: StreamSpan, exchange: Exchange) -> bool:
    """Whether a subscription delivered nothing although it should have."""
    return part.silent or (part.heard_ns is None and _is_over(link, part) and speaks_often(exchange, part.stream))


def _after(link: Connection, part: StreamSpan, exchange: Exchange) -> tuple[int, bool]:
    """Until when a subscription that was in doubt as its file began had not spoken, and whether it should have."""
    end = part.heard_ns if part.heard_ns is not None else part.until_ns
    if end is None:
        end = FOREVER if link.closed_ns is None else link.closed_ns
    return end, _is_silent(link, part, exchange)


def _session(
    layout: Layout,
    receipt: Receipt,
    link: Connection,
    resumed: dict[tuple[str, int, str], int],
    doubts: dict[tuple[str, int, str, str], tuple[int, bool]],
    exchange: Exchange,
) -> Session:
    end = link.closed_ns
    if end is None:
        end = max(link.opened_ns, Period.parse(receipt.period, layout.period).end_ns)
    following = ""
    if link.cause == "rotate":
        later = [
            (opened, journal)
            for (writer, number, journal), opened in resumed.items()
            if writer == receipt.writer and number == link.connection and journal > link.journal and opened >= end
        ]
        end, following = min(later, default=(end, ""))
    heard: dict[tuple[str, str], list[Span]] = {}
    doubted: dict[tuple[str, str], list[Span]] = {}
    silent: dict[tuple[str, str], list[Span]] = {}
    for part in link.streams:
        until = end if part.until_ns is None else part.until_ns
        spoke = part.from_ns if part.heard_ns == NOT_TOLD else part.heard_ns
        is_silent = _is_silent(link, part, exchange)
        waited = Span(part.from_ns, until if spoke is None else min(spoke, until))
        if spoke is None and not _is_over(link, part):
            doubt = doubts.get((receipt.writer, link.connection, following, part.stream))
            if doubt is not None:
                waited, is_silent = Span(waited.start, doubt[0]), is_silent or doubt[1]
        for name in _channels(exchange, part.stream, receipt.symbols):
            if channel_of(exchange.name, name[0]).continuity in PROVED_BY_IDS:
                heard.setdefault(name, []).append(Span(part.from_ns, until))
                continue
            if spoke is not None:
                heard.setdefault(name, []).append(Span(waited.end, until))
            (silent if is_silent else doubted).setdefault(name, []).append(waited)
    return Session(
        receipt.writer, link.opened_ns, end, link.cause, _tuples(heard), _tuples(doubted), _tuples(silent)
    )  # fmt: skip


def _tuples(spans: dict[tuple[str, str], list[Span]]) -> dict[tuple[str, str], tuple[Span, ...]]:
    return {name: tuple(found) for name, found in spans.items()}


def speaks_often(exchange: Exchange, stream: str) -> bool:
    """Whether any silence of the stream is told as one: not of liquidations, say, which may not come for hours."""
    channel, _ = exchange.channel_of(stream)
    return bool(channel) and math.isfinite(exchange.expected_silence(channel, busy=False))


def _channels(exchange: Exchange, stream: str, symbols: Mapping[int, str]) -> list[tuple[str, str]]:
    """Every (channel, symbol) that a stream's frames have rows of, the derived ones too."""
    channel, symbol = exchange.channel_of(stream, symbols)
    return [(name, symbol) for name in (channel, *exchange.derived.get(channel, ()))] if channel else []


def unpublished(sealed_receipts: list[Sealed], state: ArchiveState, layout: Layout, exchange: Exchange) -> list[str]:
    """Labels of periods that the archive does not hold yet, or not from all of their receipts."""
    labels = []
    for label in periods_of(sealed_receipts):
        channels = channel_inputs(layout, sealed_receipts, label, exchange)
        if not all(
            is_compacted(layout, state, exchange.name, name, label, inputs) for name, inputs in channels.items()
        ):
            labels.append(label)
    return labels
