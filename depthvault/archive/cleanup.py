"""Deleting local copies: only what the store proved in this run, by GET and hash, that it holds.

Without a store nothing is deleted. When the free disk falls below twice `journal.min_free`, keep times are not waited
for, but the proof is. A journal goes when every period that its rows are in is archived from the
receipts that read it, all files of these periods were read back, and `journal.keep` is over. An archive file goes
when it was read back and `archive.keep` is over; it is then only in the store, and `evicted.json` says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from depthvault.archive import inputs as sources
from depthvault.archive import log
from depthvault.archive.abandoned import abort_abandoned
from depthvault.archive.inputs import Sealed
from depthvault.archive.manifest import ArchiveFile, ArchiveState
from depthvault.archive.raw import upload_accounts, upload_raw
from depthvault.archive.store import Store, open_store
from depthvault.archive.upload import prove, upload_published
from depthvault.config import Config, Secrets
from depthvault.durable import fsync_directory, make_directories
from depthvault.exchanges import exchange as exchange_named
from depthvault.exchanges.base import Exchange
from depthvault.journal import is_locked
from depthvault.layout import Layout
from depthvault.period import Period


@dataclass(slots=True)
class CleanupResult:
    """What was deleted or moved (paths below data_dir), what was kept against the clock and why, and bytes freed.

    pressure: free disk was so low that keep times were not waited for. raw: journals put into the store. aborted: keys
    of uploads in parts that nobody will finish, taken out of the store.
    """

    journals: list[str] = field(default_factory=list)
    live: list[str] = field(default_factory=list)
    archived: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    freed: int = 0
    store: bool = False
    pressure: bool = False
    raw: list[str] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)


class _Prover:
    """Asks the store for each file at most once, in this run only."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, str | None] = {}

    def problem(self, files: Iterable[ArchiveFile]) -> str | None:
        """None when the store holds every file; else what is wrong with the first."""
        wanted = list(files)
        unknown = [file for file in wanted if file.path not in self._known]
        if unknown:
            proof = prove(self._store, unknown)
            self._known |= {file.path: proof.problems.get(file.path) for file in unknown}
        for file in wanted:
            if (problem := self._known[file.path]) is not None:
                return f"{file.path}: {problem}"
        return None


def cleanup(
    layout: Layout, config: Config, secrets: Secrets, *, now: datetime | None = None, dry_run: bool = False
) -> CleanupResult:
    """Delete what is old enough and proved. Raises StoreError or ChainError when the log itself cannot be proved."""
    store = open_store(config.store, secrets)
    if store is None:
        return CleanupResult()
    return cleanup_with(layout, config, store, now=now or datetime.now(UTC), dry_run=dry_run)


def cleanup_with(
    layout: Layout, config: Config, store: Store, *, now: datetime, dry_run: bool = False, free: int | None = None
) -> CleanupResult:
    """`cleanup` with a given store, time and count of free bytes on the disk."""
    result = CleanupResult(store=True)
    result.aborted = abort_abandoned(store, now, dry_run=dry_run)
    if not dry_run:
        result.raw = upload_raw(layout, config, store, now=now).sent + upload_accounts(layout, config, store).sent
    free = shutil.disk_usage(layout.root).free if free is None else free
    result.pressure = free < 2 * config.journal.min_free
    if result.pressure:
        at_once = {"keep": timedelta(0)}
        config = config.model_copy(
            update={
                "journal": config.journal.model_copy(update=at_once),
                "archive": config.archive.model_copy(update=at_once),
            }
        )
    state = log.catch_up(layout, store)
    remote = log.load_store(store)
    # The store's own log must tell the same: it is what a lost host is rebuilt from.
    if remote.digests != state.digests:
        result.kept["archive"] = "the store's manifests are not the local ones"
        return result
    if not dry_run:
        upload_published(layout, store, state, [path for path in state.files if layout.archived(path).exists()])
    prover = _Prover(store)
    for name in type(config.exchanges).model_fields:
        venue = exchange_named(name, config.exchanges[name])
        _clean_recordings(layout, config, venue, state, prover, now, result, dry_run)
    _clean_archive(layout, config, state, prover, now, result, dry_run)
    _move_superseded(layout, state, prover, result, dry_run)
    if not dry_run:
        log.write_derived(layout, store, state, log.evicted(layout))
    return result


def _is_over(period_end: datetime, keep: timedelta, now: datetime) -> bool:
    return now - period_end >= keep


def _clean_recordings(
    layout: Layout, config: Config, venue: Exchange, state: ArchiveState, prover: _Prover,
    now: datetime, result: CleanupResult, dry_run: bool,
) -> None:  # fmt: skip
    """Journals with their receipts and live files: they go together, when all they gave is in the store."""
    receipts = sources.sealed(layout, venue.name)
    proved = _proved_receipts(layout, venue, receipts, state, prover, now, config.journal.keep, result)
    read_by: dict[str, list[Sealed]] = {}
    for each in receipts:
        for journal in each.receipt.journals:
            read_by.setdefault(journal.path, []).append(each)
    kept_journals: set[str] = set()
    for writer in layout.writers(venue.name):
        for path in layout.journal_files(venue.name, writer):
            name = path.relative_to(layout.root).as_posix()
            reason = _why_keep_journal(layout, config, path, read_by.get(name, []), proved, now)
            if reason is None:
                _delete(layout, path, result.journals, result, dry_run)
            else:
                kept_journals.add(name)
                if reason:
                    result.kept[name] = reason
    for each in receipts:
        # A receipt outlives its journals: without it the sealer would seal the period again.
        if each.name in proved and not any(journal.path in kept_journals for journal in each.receipt.journals):
            for file in each.receipt.files:
                if (layout.root / file.path).exists():
                    _delete(layout, layout.root / file.path, result.live, result, dry_run)
            _delete(layout, layout.root / each.name, result.live, result, dry_run)


def _proved_receipts(
    layout: Layout, venue: Exchange, receipts: list[Sealed], state: ArchiveState, prover: _Prover,
    now: datetime, keep: timedelta, result: CleanupResult,
) -> set[str]:  # fmt: skip
    """Names of old receipts all of whose rows are archived in files that the store holds."""
    proved = set()
    for each in receipts:
        receipt = each.receipt
        if not _is_over(Period.parse(receipt.period, layout.period).end, keep, now):
            continue
        touched = {(file.period, file.channel) for file in receipt.files}
        problem = None
        for label, channel in sorted(touched):
            entry = state.entry("hour", venue.name, channel, label)
            if entry is None or entry.receipts.get(each.name) != each.sha256:
                problem = f"{channel} {label} is not archived from it"
            else:
                day = f"{label[:4]}-{label[4:6]}-{label[6:8]}"
                rolled = state.files_of(("day", venue.name, channel, day))
                problem = prover.problem([*state.files_of(entry.unit), *rolled])
            if problem is not None:
                break
        if problem is None:
            proved.add(each.name)
        else:
            result.kept[each.name] = problem
    return proved


def _why_keep_journal(
    layout: Layout, config: Config, path: Path, readers: list[Sealed], proved: set[str], now: datetime
) -> str | None:
    """None: delete it. Empty: it is too young to ask. Else what is missing."""
    state = path.stat()
    if now.timestamp() - state.st_mtime < config.journal.keep.total_seconds():
        return ""
    if is_locked(path):
        return "a process writes it"
    if not readers:
        return "no receipt has read it"
    for each in readers:
        if each.name not in proved:
            return f"{each.name} is not proved"
    name = path.relative_to(layout.root).as_posix()
    read = max(each.receipt.inputs[name] for each in readers)
    damaged = max((region.end for each in readers for region in each.receipt.damage if region.path == name), default=0)
    if max(read, damaged) < state.st_size:
        return f"the receipts read {read} of {state.st_size} bytes"
    return None


def _delete(layout: Layout, path: Path, listed: list[str], result: CleanupResult, dry_run: bool) -> None:
    result.freed += path.stat().st_size
    listed.append(path.relative_to(layout.root).as_posix())
    if not dry_run:
        path.unlink()
        fsync_directory(path.parent)


def _clean_archive(
    layout: Layout,
    config: Config,
    state: ArchiveState,
    prover: _Prover,
    now: datetime,
    result: CleanupResult,
    dry_run: bool,
) -> None:
    for unit, entry in sorted(state.current.items()):
        day = datetime.fromisoformat(entry.period[:8] if entry.kind == "hour" else entry.period).replace(tzinfo=UTC)
        if not _is_over(day + timedelta(days=1), config.archive.keep, now):
            continue
        files = [file for file in state.files_of(unit) if layout.archived(file.path).exists()]
        problem = prover.problem(files)
        if problem is not None:
            result.kept[f"{entry.channel} {entry.period}"] = problem
            continue
        if files and not dry_run:
            # First remember, then delete: a crash between leaves a file too many, never one unexplained.
            log.change_evicted(layout, add=[file.path for file in files])
        for file in files:
            _delete(layout, layout.archived(file.path), result.archived, result, dry_run)


def _move_superseded(
    layout: Layout, state: ArchiveState, prover: _Prover, result: CleanupResult, dry_run: bool
) -> None:
    """Files of earlier generations leave `archive/` once the store holds what replaced them."""
    for path in [path for path in sorted(state.superseded) if layout.archived(path).exists()]:
        problem = prover.problem(state.files_of(state.replaced_in[path]))
        if problem is not None:
            result.kept[path] = problem
            continue
        result.superseded.append(path)
        if not dry_run:
            target = layout.superseded / path
            make_directories(target.parent)
            layout.archived(path).replace(target)
            fsync_directory(target.parent)
            fsync_directory(layout.archived(path).parent)
