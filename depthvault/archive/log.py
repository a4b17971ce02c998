"""The manifests on disk and in the store: read, append exclusively, catch up with what others wrote.

When a store is configured it is the authority: an entry exists once the store took it under its number
(`If-None-Match: *`), and the local folder follows. A crash between the two is repaired by the next `catch_up`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from depthvault.archive import checkpoint
from depthvault.archive.manifest import ArchiveState, Entry, decode, digest, encode
from depthvault.durable import create_exclusive, make_directories, write_atomic
from depthvault.errors import ChainError
from depthvault.layout import Layout

if TYPE_CHECKING:
    from depthvault.archive.store import Store  # it loads boto3, which most who read the log do without

_READERS = 8
SUMS_KEY = "SHA256SUMS"


def manifest_key(number: int) -> str:
    """Object key of an entry."""
    return f"_manifests/{number:08d}.json"


def load(layout: Layout) -> ArchiveState:
    """The state of the local archive: its checkpoint, and every manifest since.

    ChainError naming the first manifest that does not follow, or is missing. That manifests under the checkpoint have
    their old bytes is not looked at here: see `load_all`.
    """
    path = checkpoint.path_of(layout)
    state = checkpoint.read(path, manifests(layout))
    since = state.number
    try:
        _read_on(layout, state)
    except ChainError:
        if not since:
            raise
        return load_all(layout)  # which tells where it begins
    checkpoint.write_if_worth(path, state, since)
    return state


def load_all(layout: Layout) -> ArchiveState:
    """As `load`, from the bytes of every manifest: for those who prove the archive."""
    state = ArchiveState()
    _read_on(layout, state)
    return state


def manifests(layout: Layout) -> Callable[[int], bytes | None]:
    """The bytes of a manifest of the local archive by number, None when there is none (yet)."""
    folder = str(layout.manifests)

    def fetch(number: int) -> bytes | None:
        try:
            with open(f"{folder}/{number:08d}.json", "rb") as file:  # noqa: PTH123 - a Path takes as long as the reading
                return file.read()
        except FileNotFoundError:
            return None

    return fetch


def _read_on(layout: Layout, state: ArchiveState) -> None:
    """Take every manifest after `state` in. ChainError when one before the last is missing."""
    fetch, folder = manifests(layout), layout.manifests
    before = -1
    while state.number > before:  # again when others published while the names were counted
        before = state.number
        while (data := fetch(state.number + 1)) is not None:
            state.append(data, f"{folder}/{state.number + 1:08d}.json")
        if _names(layout) == state.number:
            return
    first = next(number for number in count(1) if not layout.manifest(number).exists())
    raise ChainError(f"{layout.manifest(first)}: is missing, later manifests are there")


def _names(layout: Layout) -> int:
    """How many manifests lie there, as far as their names tell."""
    try:
        names = os.listdir(layout.manifests)  # noqa: PTH208 - names alone are wanted, and there may be many
    except FileNotFoundError:
        return 0
    return sum(name.endswith(".json") and name[:-5].isdigit() for name in names)


def load_store(store: Store) -> ArchiveState:
    """The state of the archive as the store tells it. ChainError as `load`."""
    state = ArchiveState()
    names = (key.removeprefix("_manifests/").removesuffix(".json") for key, _, _ in store.list_objects("_manifests/"))
    last = max((int(name) for name in names if name.isdigit()), default=0)
    keys = [manifest_key(number) for number in range(1, last + 1)]
    with ThreadPoolExecutor(_READERS) as pool:
        for key, data in zip(keys, pool.map(store.get, keys), strict=True):
            if data is None:
                raise ChainError(f"{store}/{key}: is missing, later manifests are there")
            state.append(data, f"{store}/{key}")
    return state


def catch_up(layout: Layout, store: Store | None) -> ArchiveState:
    """Bring the local manifests and the store's to the same state, and return it.

    Entries that only the store has are written locally; entries that only this host has (made before a store was
    configured) are put into the store. ChainError when both have an entry of the same number with other bytes.
    """
    state = load(layout)
    if store is None:
        return state
    if state.number:
        last = layout.manifest(state.number).read_bytes()
        held = store.get(manifest_key(state.number))
        if held is None:
            _push(layout, store, state.number)
        elif held != last:
            raise ChainError(f"{store}/{manifest_key(state.number)} and {layout.manifest(state.number)} differ")
    while (data := store.get(manifest_key(state.number + 1))) is not None:
        number = state.number + 1
        entry = state.append(data, f"{store}/{manifest_key(number)}")
        # Files that another host made are in the store alone, and known as such before their entry is.
        change_evicted(layout, add=[file.path for file in entry.add if not layout.archived(file.path).exists()])
        if not create_exclusive(layout.manifest(number), data) and layout.manifest(number).read_bytes() != data:
            raise ChainError(f"{store}/{manifest_key(number)} and {layout.manifest(number)} differ")
    return state


def evicted(layout: Layout) -> set[str]:
    """Published files that only the store has: cleanup removed them here after proof, or another host made them."""
    path = layout.run / "evicted.json"
    return set(json.loads(path.read_bytes())) if path.exists() else set()


def change_evicted(layout: Layout, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
    """Note which published files only the store has, or no longer. Safe between processes."""
    add, remove = set(add), set(remove)
    if not add and not remove:
        return
    make_directories(layout.run)
    with (layout.run / ".evicted.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = evicted(layout)
        changed = (known | add) - remove
        if changed != known:
            write_atomic(layout.run / "evicted.json", json.dumps(sorted(changed), indent=0).encode())


def _push(layout: Layout, store: Store, last: int) -> None:
    """Put the local entries that the store lacks, oldest first."""
    first = last
    while first > 1 and store.get(manifest_key(first - 1)) is None:
        first -= 1
    for number in range(first, last + 1):
        if not store.put(manifest_key(number), layout.manifest(number).read_bytes()):
            raise ChainError(f"{store}/{manifest_key(number)} and {layout.manifest(number)} differ")


def append(
    layout: Layout, store: Store | None, state: ArchiveState, draft: Entry, created: str, publisher: str
) -> Entry | None:
    """Publish `draft` as the next entry after `state` and take it in; None when somebody else was first.

    After None, call `catch_up` and look whether the draft is still wanted.
    """
    entry = msgspec.structs.replace(
        draft, number=state.number + 1, previous=state.head, created=created, publisher=publisher
    )
    data = encode(entry)
    decode(data)
    with _alone_on_this_host(layout, store):
        if store is not None:
            if state.number:
                store.require_exclusive(manifest_key(state.number), layout.manifest(state.number).read_bytes())
            if not store.put(manifest_key(entry.number), data):
                return None
        path = layout.manifest(entry.number)
        if not create_exclusive(path, data):
            if store is None:
                return None
            if path.read_bytes() != data:
                raise ChainError(f"{store}/{manifest_key(entry.number)} and {path} differ")
    return state.append(data, str(path))


@contextlib.contextmanager
def _alone_on_this_host(layout: Layout, store: Store | None) -> Iterator[None]:
    """Where the store would overwrite, between looking and putting no other process of this host may put."""
    if store is None or store.conditional:
        yield
        return
    make_directories(layout.run)
    with (layout.run / ".manifest.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_derived(layout: Layout, store: Store | None, state: ArchiveState, evicted: Iterable[str]) -> None:
    """Derive SHA256SUMS anew: locally without the files that only the store still has, in the store of all. The store
    also gets the checkpoint, when there is a new one."""
    local = state.sha256sums(evicted)
    if not layout.sha256sums.exists() or layout.sha256sums.read_bytes() != local:
        write_atomic(layout.sha256sums, local)
    if store is not None:
        whole = state.sha256sums()
        if store.get(SUMS_KEY) != whole:
            store.put(SUMS_KEY, whole, exclusive=False)
        _store_checkpoint(layout, store)


def _store_checkpoint(layout: Layout, store: Store) -> None:
    path = checkpoint.path_of(layout)
    if not path.exists():
        return
    data = path.read_bytes()
    noted, mark = path.with_name("stored"), f"{store} {digest(data)}".encode()
    if not noted.exists() or noted.read_bytes() != mark:
        store.put(checkpoint.KEY, data, exclusive=False)
        write_atomic(noted, mark)
