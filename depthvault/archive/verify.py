"""The archive checked against its own log: chain, files, objects, SHA256SUMS; and what it is made from, as far as that
is kept. Each finding names what and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from depthvault.archive import checkpoint, log, recordings
from depthvault.archive.deep import deeply
from depthvault.archive.finding import PENDING, Finding
from depthvault.archive.manifest import ArchiveFile, ArchiveState
from depthvault.archive.store import Store
from depthvault.durable import sha256_file
from depthvault.errors import ChainError, StoreError
from depthvault.layout import Layout

_DERIVED = frozenset({log.SUMS_KEY, checkpoint.KEY})
_OTHERS = ("raw/", "accounts/", "iceberg/", "__r2_data_catalog/")
"""Folders of the store that are no part of the archive."""

_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification looked at and found. `checked`: files and objects whose bytes were hashed. `pending`: files
    and objects that no manifest names but that are younger than PENDING: a worker may be about to publish them.
    unread: files whose rows a deep verification did not see, because only the store has them."""

    findings: list[Finding]
    manifests: int
    checked: int
    bytes: int
    pending: int = 0
    unread: int = 0

    @property
    def ok(self) -> bool:
        return not self.findings


def verify(
    layout: Layout,
    store: Store | None = None,
    *,
    local: bool = True,
    deep: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Verification:
    """Check the local archive (unless `local` is False) and the store (when given).

    What was recorded is looked at as well: see `depthvault.archive.recordings`. `deep` reads the rows, too
    (`depthvault.archive.deep`), and every record of the journals.
    Where the log grew during the look and something seems wrong, it is looked at anew: a worker was publishing.
    """
    for _ in range(_LOOKS):
        before = _last_manifest(layout, store)
        found = _verify(layout, store, local, deep, now())
        if found.ok or _last_manifest(layout, store) == before:
            break
    return found


def _last_manifest(layout: Layout, store: Store | None) -> tuple[str, ...]:
    """The names of the last manifests, here and there; cheap."""
    local = max((path.name for path in layout.manifests.glob("*.json")), default="")
    if store is None:
        return (local,)
    try:
        return local, max((each.key for each in store.list_objects("_manifests/")), default="")
    except StoreError:
        return (local,)


def _verify(layout: Layout, store: Store | None, local: bool, deep: bool, now: datetime) -> Verification:
    findings: list[Finding] = []
    checked = size = manifests = pending = unread = 0
    state: ArchiveState | None = None
    if local:
        try:
            state = log.load_all(layout)
        except ChainError as error:
            findings.append(Finding("local", "chain", "_manifests", str(error)))
        if state is not None:
            manifests = state.number
            gone = log.evicted(layout)
            for file, finding in _local_files(layout, state, gone):
                checked += 1
                size += file.bytes
                findings += [finding] if finding is not None else []
            extras, young = _local_extras(layout, state, now)
            findings += extras
            pending += young
            findings += _local_sums(layout, state, log.evicted(layout))
            more, of = recordings.tally(recordings.sealed_findings(layout, state), findings)
            checked, size = checked + more, size + of
            if deep:
                rows = deeply(layout, state)
                findings += rows.findings
                unread = rows.unread
                more, of = recordings.tally(recordings.journal_findings(layout), findings)
                checked, size = checked + more, size + of
    if store is not None:
        try:
            remote = log.load_store(store)
        except (ChainError, StoreError) as error:
            kind = "chain" if isinstance(error, ChainError) else "unreachable"
            findings.append(Finding("store", kind, "_manifests", str(error)))
        else:
            manifests = max(manifests, remote.number)
            for file, finding in _objects(store, remote, deep):
                checked += 1
                size += file.bytes
                findings += [finding] if finding is not None else []
            extras, young = _store_extras(store, remote, now)
            findings += extras
            pending += young
            if state is not None:
                findings += _logs_differ(state, remote)
            try:
                looked = recordings.stored_journal_findings(layout, store, deep=deep, now=now)
                more, of = recordings.tally(looked, findings)
                checked, size = checked + more, size + of
            except StoreError as error:
                findings.append(Finding("store", "unreachable", "raw/", str(error)))
    return Verification(sorted(findings), manifests, checked, size, pending, unread)


def _local_files(layout: Layout, state: ArchiveState, gone: set[str]) -> Iterator[tuple[ArchiveFile, Finding | None]]:
    """Current files, and those that were replaced, as far as they are still here."""
    replaced = [
        (path, file, place)
        for path, file in state.superseded.items()
        for place in (layout.archived(path), layout.superseded / path)
    ]
    current = [(path, file, layout.archived(path)) for path, file in state.files.items()]
    for path, file, local in sorted([*current, *replaced], key=lambda item: (item[0], item[2])):
        if not local.exists():
            if path in state.files and path not in gone:
                yield file, Finding("local", "missing", path, f"{file.bytes} bytes, SHA-256 {file.sha256}")
            continue
        found = sha256_file(local)
        if found == file.sha256:
            yield file, None
        else:
            detail = f"{local.stat().st_size} bytes, SHA-256 {found}; recorded {file.bytes} bytes, {file.sha256}"
            yield file, Finding("local", "corrupt", path, detail)


def _local_extras(layout: Layout, state: ArchiveState, now: datetime) -> tuple[list[Finding], int]:
    known = state.files.keys() | state.superseded.keys() | {layout.sha256sums.name}
    findings, pending = [], 0
    for path in sorted(layout.archive.rglob("*")):
        name = path.relative_to(layout.archive).as_posix()
        if not path.is_file() or name in known or name.startswith("_manifests/"):
            continue
        if now - datetime.fromtimestamp(path.stat().st_mtime, UTC) < PENDING:
            pending += 1
        else:
            findings.append(Finding("local", "extra", name, "no manifest names it"))
    return findings, pending


def _local_sums(layout: Layout, state: ArchiveState, gone: set[str]) -> Iterator[Finding]:
    if not state.number:
        return
    if not layout.sha256sums.exists():
        yield Finding("local", "sums", log.SUMS_KEY, "is missing; `depthvault publish` writes it anew")
    else:
        yield from _sums_findings("local", layout.sha256sums.read_bytes(), state.sha256sums(gone))


def _sums_findings(where: str, found: bytes, expected: bytes) -> Iterator[Finding]:
    """The last manifest has no successor that names its bytes: SHA256SUMS is what tells when it was changed."""
    if found == expected:
        return
    said, should = _sums(found), _sums(expected)
    different = sorted(path for path in said.keys() | should.keys() if said.get(path) != should.get(path))
    for path in different or [log.SUMS_KEY]:
        detail = f"SHA256SUMS says {said.get(path, 'nothing')}, the manifests say {should.get(path, 'nothing')}"
        yield Finding(where, "sums", path, detail)


def _sums(text: bytes) -> dict[str, str]:
    lines = (line.partition("  ") for line in text.decode(errors="replace").splitlines())
    return {path: value for value, _, path in lines}


def _objects(store: Store, state: ArchiveState, deep: bool) -> Iterator[tuple[ArchiveFile, Finding | None]]:
    """Current objects; deep: those that were replaced as well, for they stay there."""

    def check(file: ArchiveFile) -> tuple[ArchiveFile, Finding | None]:
        try:
            held = store.held(file.path)
        except StoreError as error:
            return file, Finding("store", "unreachable", file.path, str(error))
        if held is None and file.path in state.superseded:
            return file, None
        if held is None:
            return file, Finding("store", "missing", file.path, f"{file.bytes} bytes, SHA-256 {file.sha256}")
        if held.sha256 != file.sha256:
            detail = f"{held.bytes} bytes, SHA-256 {held.sha256}; recorded {file.bytes} bytes, {file.sha256}"
            return file, Finding("store", "corrupt", file.path, detail)
        return file, None

    with ThreadPoolExecutor(4) as pool:
        wanted = state.files | state.superseded if deep else state.files
        yield from pool.map(check, [file for _, file in sorted(wanted.items())])


def _store_extras(store: Store, state: ArchiveState, now: datetime) -> tuple[list[Finding], int]:
    known = state.files.keys() | state.superseded.keys() | _DERIVED
    known |= {log.manifest_key(number) for number in range(1, state.number + 1)}
    findings, pending = [], 0
    try:
        for key, _, modified in store.list_objects():
            if key in known or key.startswith(_OTHERS):
                continue
            if now - modified < PENDING:
                pending += 1
            else:
                findings.append(Finding("store", "extra", key, "no manifest names it"))
        if state.number:
            findings += _sums_findings("store", store.get(log.SUMS_KEY) or b"", state.sha256sums())
    except StoreError as error:
        findings.append(Finding("store", "unreachable", "", str(error)))
    return findings, pending


def _logs_differ(local: ArchiveState, remote: ArchiveState) -> Iterator[Finding]:
    common = min(local.number, remote.number)
    if local.digests[:common] != remote.digests[:common]:
        number = next(n for n in range(common) if local.digests[n] != remote.digests[n]) + 1
        yield Finding("store", "chain", log.manifest_key(number), "differs from the local one")
    elif remote.number < local.number:
        yield Finding("store", "missing", log.manifest_key(common + 1), f"the local log has {local.number} entries")
