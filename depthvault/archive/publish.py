"""The last step of a unit: its files into `archive/`, its entries into the log, SHA256SUMS anew.

With a store the order is: objects are in the store and were read back, then the manifest is created there, then
locally. Whoever is second finds the entry there and publishes nothing. A crash at any point leaves either no entry,
or one that the next run completes.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from depthvault.archive import log
from depthvault.archive.manifest import PENDING, ArchiveFile, ArchiveState, Entry
from depthvault.archive.staging import Staging, Unit, Verdict
from depthvault.archive.store import Store, open_store
from depthvault.archive.upload import files_of, prove, put_files
from depthvault.config import Config, Secrets
from depthvault.durable import fsync_directory, make_directories, sha256_file
from depthvault.errors import ArchiveError, StoreError
from depthvault.layout import Layout

METRICS = "hour_metrics"
"""The table that validation adds to a unit."""


@dataclass(slots=True)
class Published:
    """What a run of `publish` did: entries it made, and channels that somebody else had published (or superseded)."""

    entries: list[Entry] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def publish(
    layout: Layout,
    config: Config,
    secrets: Secrets,
    unit: Unit,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    checkpoint: Callable[[str], None] = lambda _: None,
) -> Published:
    """Publish what is staged for `unit`. Nothing happens when nothing is staged.

    With a store, objects that are missing there are put first, and all are read back: StoreError when one differs,
    and then nothing is published. `checkpoint` is called by name between the steps (tests kill there).
    """
    store = open_store(config.store, secrets)
    return publish_with(layout, store, unit, now=now, checkpoint=checkpoint)


def publish_with(
    layout: Layout,
    store: Store | None,
    unit: Unit,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    checkpoint: Callable[[str], None] = lambda _: None,
) -> Published:
    """`publish` with a given store."""
    staging = Staging(layout, unit)
    result = Published()
    with staging.locked():
        state = log.catch_up(layout, store)
        compacted = staging.read()
        if compacted is None:
            finish(layout, store, state)
            return result
        files = files_of(layout, unit)
        for file, path in files:
            if not path.exists() or sha256_file(path) != file.sha256:
                staging.clear()
                raise ArchiveError(f"{path}: is not what was compacted; compact {unit} again")
        if store is not None:
            store_and_prove(store, files)
        checkpoint("stored")
        validation = staging.read_validation()
        verdicts = {verdict.channel: verdict for verdict in (validation.verdicts if validation else [])}
        publisher = f"{platform.node()}:{os.getpid()}"
        for draft in compacted.drafts:
            entry = None
            while entry is None and _is_wanted(draft, state):
                judged = _judged(draft, verdicts.get(draft.channel), state)
                move_into_archive(layout, staging, judged.add)
                checkpoint("moved")
                created = now().isoformat(timespec="microseconds")
                entry = log.append(layout, store, state, judged, created, publisher)
                if entry is None:
                    state = log.catch_up(layout, store)
            if entry is None:
                _adopt(layout, staging, draft.add, state)
                result.skipped.append(draft.channel)
            else:
                result.entries.append(entry)
            checkpoint("entry")
        finish(layout, store, state)
        checkpoint("sums")
        staging.clear()
    return result


def store_and_prove(store: Store, files: list[tuple[ArchiveFile, Path]]) -> None:
    """Put files that the store lacks and read all back. Raises StoreError naming the first that differs."""
    uploaded = put_files(store, files)
    if uploaded.taken:
        raise StoreError(f"{store}/{uploaded.taken[0]}: holds other bytes than were staged for it")
    proof = prove(store, [file for file, _ in files])
    for key, problem in sorted(proof.problems.items()):
        raise StoreError(f"{store}/{key}: {problem}")


def _judged(draft: Entry, verdict: Verdict | None, state: ArchiveState) -> Entry:
    """The draft with what the expectations said; `pending` where they said nothing.

    Metrics of an earlier generation go: they judged other rows.
    """
    old = [file.path for file in state.files_of(draft.unit) if file.table == METRICS and file.path not in draft.remove]
    changed = msgspec.structs.replace(draft, condition=PENDING, remove=sorted([*draft.remove, *old]))
    if verdict is None:
        return changed
    return msgspec.structs.replace(
        changed, condition=verdict.condition, failed=list(verdict.failed), add=[*draft.add, *verdict.files]
    )


def _is_wanted(draft: Entry, state: ArchiveState) -> bool:
    """Whether `draft` still follows: nobody published this generation, and the files it replaces are current."""
    current = state.entry(*draft.unit)
    if (current.generation if current else 0) != draft.generation - 1:
        return False
    return all(path in state.files for path in draft.remove)


def move_into_archive(layout: Layout, staging: Staging, files: list[ArchiveFile]) -> None:
    """Give staged files their place in `archive/`, durably. No reader looks at them before a manifest names them."""
    for file in files:
        source, target = staging.path(file.path), layout.archived(file.path)
        if source.exists():
            make_directories(target.parent)
            descriptor = os.open(source, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            source.replace(target)
            fsync_directory(target.parent)


def _adopt(layout: Layout, staging: Staging, files: list[ArchiveFile], state: ArchiveState) -> None:
    """Another host published the same bytes: they are here as well."""
    same = [file for file in files if state.files.get(file.path) == file]
    move_into_archive(layout, staging, same)
    log.change_evicted(layout, remove=[file.path for file in same if layout.archived(file.path).exists()])


def finish(layout: Layout, store: Store | None, state: ArchiveState) -> None:
    """Bring what is derived from the log up to date: SHA256SUMS here and in the store."""
    if state.number:
        log.write_derived(layout, store, state, log.evicted(layout))
