"""Files into the store, and the proof that it holds them: GET and hash. Safe to run again and by several at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from depthvault.archive.manifest import ArchiveFile, ArchiveState
from depthvault.archive.staging import Staging, Unit
from depthvault.archive.store import Store, open_store
from depthvault.config import Config, Secrets
from depthvault.errors import StoreError
from depthvault.layout import Layout

_WORKERS = 4


@dataclass(slots=True)
class Uploaded:
    """What an upload did. `taken`: keys under which the store holds other bytes (made by another worker)."""

    sent: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Proof:
    """Keys whose objects were read back in this run and have the recorded SHA-256, and those that do not."""

    held: frozenset[str]
    problems: dict[str, str]


def files_of(layout: Layout, unit: Unit) -> list[tuple[ArchiveFile, Path]]:
    """The staged files of a unit, and where each lies now: staged, or already moved into the archive."""
    staging = Staging(layout, unit)
    compacted = staging.read()
    if compacted is None:
        return []
    validation = staging.read_validation()
    files = [file for draft in compacted.drafts for file in draft.add]
    files += [file for verdict in (validation.verdicts if validation else []) for file in verdict.files]
    places = []
    for file in files:
        staged = staging.path(file.path)
        places.append((file, staged if staged.exists() else layout.archived(file.path)))
    return places


def put_files(store: Store, files: Sequence[tuple[ArchiveFile, Path]]) -> Uploaded:
    """Put files that the store does not have yet. A key with other bytes is reported as taken, never overwritten."""
    result = Uploaded()

    def send(item: tuple[ArchiveFile, Path]) -> tuple[ArchiveFile, str]:
        file, path = item
        if store.exists(file.path):
            held = store.held(file.path)
            return file, "present" if held is not None and held.sha256 == file.sha256 else "taken"
        return file, "sent" if store.put_file(file.path, path, file.sha256) else "taken"

    with ThreadPoolExecutor(_WORKERS) as pool:
        for file, outcome in pool.map(send, files):
            getattr(result, outcome).append(file.path)
            if outcome == "sent":
                result.bytes += file.bytes
    return result


def prove(store: Store, files: Iterable[ArchiveFile]) -> Proof:
    """Read each object back and compare its hash and size with what was recorded."""
    held: set[str] = set()
    problems: dict[str, str] = {}

    def check(file: ArchiveFile) -> tuple[str, str | None]:
        try:
            found = store.held(file.path)
        except StoreError as error:
            return file.path, str(error)
        if found is None:
            return file.path, "the store does not have it"
        if found.sha256 != file.sha256:
            return file.path, f"the store returns other bytes: SHA-256 {found.sha256}, recorded {file.sha256}"
        return file.path, None

    with ThreadPoolExecutor(_WORKERS) as pool:
        for key, problem in pool.map(check, files):
            if problem is None:
                held.add(key)
            else:
                problems[key] = problem
    return Proof(frozenset(held), problems)


def upload(layout: Layout, config: Config, secrets: Secrets, unit: Unit) -> Uploaded:
    """Put the staged files of `unit` into the store. Nothing happens without a store.

    Raises StoreError when a key holds other bytes: another worker staged the same generation from other input and has
    not published it yet (then its entry comes first, and compaction makes the next generation), or the object was
    damaged.
    """
    store = open_store(config.store, secrets)
    if store is None:
        return Uploaded()
    result = put_files(store, files_of(layout, unit))
    if result.taken:
        raise StoreError(f"{store}/{result.taken[0]}: holds other bytes than were staged for it")
    return result


def verify_store(layout: Layout, config: Config, secrets: Secrets, unit: Unit) -> Proof:
    """Read the staged files of `unit` back from the store. Raises StoreError naming the first that differs."""
    store = open_store(config.store, secrets)
    if store is None:
        return Proof(frozenset(), {})
    proof = prove(store, [file for file, _ in files_of(layout, unit)])
    for key, problem in sorted(proof.problems.items()):
        raise StoreError(f"{store}/{key}: {problem}")
    return proof


def upload_published(layout: Layout, store: Store, state: ArchiveState, keys: Iterable[str] | None = None) -> Uploaded:
    """Put published files into the store that it lacks: made before a store was configured, or lost there."""
    wanted = state.files if keys is None else {key: state.files[key] for key in keys}
    files = [(file, layout.archived(file.path)) for file in wanted.values() if layout.archived(file.path).exists()]
    return put_files(store, files)
