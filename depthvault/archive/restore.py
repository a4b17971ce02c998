"""Archive files back from the store, verified: a few hours, or all of a host that was lost."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from depthvault.archive import log
from depthvault.archive.manifest import ArchiveFile, ArchiveState, Entry
from depthvault.archive.store import Store
from depthvault.durable import publish, sha256_file
from depthvault.errors import ArchiveError, CorruptError
from depthvault.layout import Layout
from depthvault.period import Period

_WORKERS = 4


@dataclass(slots=True)
class Restored:
    """What a restore did: paths it fetched, paths that were here already, bytes fetched, manifests of the archive."""

    fetched: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    bytes: int = 0
    manifests: int = 0


def span_of(entry: Entry) -> tuple[datetime, datetime]:
    """The time that an entry is about, `[start, end)`."""
    if entry.kind != "hour":
        start = Period.parse(entry.period.replace("-", "") + "T0000").start
        return start, start + timedelta(days=1)
    start = Period.parse(entry.period, timedelta(minutes=entry.period_minutes)).start
    return start, start + timedelta(minutes=entry.period_minutes)


def chosen_files(
    state: ArchiveState, exchange: str | None = None, channel: str | None = None,
    since: datetime | None = None, until: datetime | None = None,
) -> list[ArchiveFile]:  # fmt: skip
    """The current files, quality tables included, of an exchange, a channel, and the time `[since, until)`."""
    chosen = []
    for path, file in sorted(state.files.items()):
        entry = state.current[state.owner[path]]
        start, end = span_of(entry)
        if exchange not in (None, entry.exchange) or channel not in (None, entry.channel):
            continue
        if (until is None or start < until) and (since is None or end > since):
            chosen.append(file)
    return chosen


def restore(
    layout: Layout, store: Store | None, *, exchange: str | None = None, channel: str | None = None,
    since: datetime | None = None, until: datetime | None = None,
) -> Restored:  # fmt: skip
    """Fetch the manifests and the chosen files that are not here, or not intact, and verify each.

    Without a choice all of it: that rebuilds a host that was lost, and an interrupted run goes on where it stopped. A
    local file with other bytes is replaced only by one that has the recorded ones. Raises CorruptError when the store
    returns other bytes than the manifest records.
    """
    if store is None:
        raise ArchiveError("there is no object store to restore from: set R2_BUCKET_NAME and the keys")
    state = log.catch_up(layout, store)
    result = Restored(manifests=state.number)
    files = chosen_files(state, exchange, channel, since, until)
    with ThreadPoolExecutor(_WORKERS) as pool:
        for file, fetched in pool.map(lambda file: (file, _fetch(layout, store, file)), files):
            (result.fetched if fetched else result.present).append(file.path)
            result.bytes += file.bytes if fetched else 0
    finish(layout, store, state, [file.path for file in files])
    return result


def finish(layout: Layout, store: Store, state: ArchiveState, here: Iterable[str]) -> None:
    """Note that files are here again."""
    log.change_evicted(layout, remove=here)
    if state.number:
        log.write_derived(layout, store, state, log.evicted(layout))


def _fetch(layout: Layout, store: Store, file: ArchiveFile) -> bool:
    target = layout.archived(file.path)
    if target.exists() and sha256_file(target) == file.sha256:
        return False
    with publish(target) as temporary:
        held = store.download(file.path, temporary)
        if held is None:
            raise CorruptError(f"{store}/{file.path}: the store does not have it")
        if held.sha256 != file.sha256:
            raise CorruptError(f"{store}/{file.path}: SHA-256 {held.sha256}, recorded {file.sha256}")
    return True
