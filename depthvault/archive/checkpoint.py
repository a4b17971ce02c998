"""A snapshot of the archive's log, so that not every process reads every manifest: derived, never authoritative.

`run/log-cache/checkpoint` holds what the first N manifests add up to, and the digest of each. It is believed only when
its own SHA-256 is right, when it was made by this version of the code, and when the bytes of manifest N are still those
whose digest it names: that digest chains all manifests before it. Else it is as if it were not there. `verify` never
looks at it. It may be deleted at any time. The archive's writers put it into the store as well (`_checkpoint`), so that
who reads a bucket for the first time need not fetch every manifest of years.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from depthvault.archive.manifest import (
    ArchiveFile,
    ArchiveState,
    Conflict,
    Counts,
    Entry,
    InputFile,
    SymbolSpan,
    Tail,
    digest,
)
from depthvault.durable import write_atomic
from depthvault.layout import Layout

KEY = "_checkpoint"
"""Object key of the store's copy."""
FEWEST = 512
"""A checkpoint is not worth its bytes for fewer new manifests than this."""
_SHARE = 8  # nor before the log grew by this part of itself: so all checkpoints together cost a constant share
_MAGIC = b"depthvault log checkpoint\n"
_STRUCTS = (Entry, ArchiveFile, SymbolSpan, Tail, InputFile, Conflict, Counts)
_SHAPE = hashlib.sha256(repr([(kind.__name__, kind.__struct_fields__) for kind in _STRUCTS]).encode()).digest()
"""Changes with the fields of a manifest, so that a checkpoint of another version is not misread."""
_DIGEST = 32


class _Content(msgspec.Struct, array_like=True, gc=False):
    """current: the latest entry of each unit. Files that they do not add themselves stand in `older`, and removed ones
    in `superseded`, each with its unit's place in `current`. digests: of all entries, one after the other.
    former_inputs: what entries that are no longer the latest were made of."""

    digests: bytes
    current: list[Entry]
    older: list[tuple[int, ArchiveFile]]
    superseded: list[tuple[int, ArchiveFile]]
    former_inputs: list[tuple[str, str]]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Content)


def path_of(layout: Layout) -> Path:
    """Where the checkpoint of a data directory lies."""
    return layout.run / "log-cache" / "checkpoint"


def encode(state: ArchiveState) -> bytes:
    """The checkpoint of `state`."""
    import pyarrow as pa  # only where there is a checkpoint: loading it takes as long as folding 5,000 manifests

    places = {unit: place for place, unit in enumerate(state.current)}
    added = {file.path for entry in state.current.values() for file in entry.add}
    inputs = {(source.path, source.sha256) for entry in state.current.values() for source in entry.inputs}
    content = _Content(
        digests=bytes.fromhex("".join(state.digests)),
        current=list(state.current.values()),
        older=[(places[state.owner[path]], file) for path, file in state.files.items() if path not in added],
        superseded=[(places[state.replaced_in[path]], file) for path, file in state.superseded.items()],
        former_inputs=sorted(state.inputs - inputs),
    )
    plain = _ENCODER.encode(content)
    body: bytes = _SHAPE + len(plain).to_bytes(8, "little") + pa.compress(plain, codec="zstd", asbytes=True)
    return _MAGIC + hashlib.sha256(body).digest() + body


def decode(data: bytes) -> ArchiveState | None:
    """The state that a checkpoint tells; None when it is damaged, or of another version."""
    start = len(_MAGIC) + _DIGEST
    body = data[start:]
    if not data.startswith(_MAGIC) or data[len(_MAGIC) : start] != hashlib.sha256(body).digest():
        return None
    if body[:_DIGEST] != _SHAPE:
        return None
    import pyarrow as pa

    size = int.from_bytes(body[_DIGEST : _DIGEST + 8], "little")
    plain = pa.decompress(body[_DIGEST + 8 :], decompressed_size=size, codec="zstd", asbytes=True)
    with _without_collector():
        return _restored(_DECODER.decode(plain))


@contextmanager
def _without_collector() -> Iterator[None]:
    """A million new objects, none of them garbage: looking for cycles among them takes twice as long as making them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _restored(content: _Content) -> ArchiveState:
    state = ArchiveState()
    digests = content.digests.hex()
    state.digests = [digests[start : start + 2 * _DIGEST] for start in range(0, len(digests), 2 * _DIGEST)]
    state.superseded = {file.path: file for _, file in content.superseded}
    units = [entry.unit for entry in content.current]
    state.replaced_in = {file.path: units[place] for place, file in content.superseded}
    for place, file in content.older:
        state.files[file.path] = file
        state.owner[file.path] = units[place]
    for unit, entry in zip(units, content.current, strict=True):
        state.current[unit] = entry
        for file in entry.add:
            if file.path not in state.superseded:
                state.files[file.path] = file
                state.owner[file.path] = unit
        if entry.kind == "hour":
            state.hours.setdefault((entry.exchange, entry.channel), []).append(entry.period)
        state.inputs.update((source.path, source.sha256) for source in entry.inputs)
    for periods in state.hours.values():
        periods.sort()
    state.inputs.update(content.former_inputs)
    return state


def read(path: Path, fetch: Callable[[int], bytes | None]) -> ArchiveState:
    """The state at the checkpoint `path`; an empty one when there is none that can be believed.

    fetch: the bytes of a manifest by number, None when there is none.
    """
    try:
        return believed(path.read_bytes(), fetch)
    except OSError:
        return ArchiveState()


def believed(data: bytes, fetch: Callable[[int], bytes | None]) -> ArchiveState:
    """The state that the checkpoint `data` tells; an empty one when it cannot be believed. fetch: as for `read`."""
    state = decode(data)
    if state is not None and state.number and (last := fetch(state.number)) is not None and digest(last) == state.head:
        return state
    return ArchiveState()


def write_if_worth(path: Path, state: ArchiveState, since: int) -> bool:
    """Make the checkpoint `path` of `state` when the log grew enough since manifest `since`, where the last one stands.

    Whether it was made.
    """
    if state.number - since < max(FEWEST, state.number // _SHARE):
        return False
    return keep(path, encode(state))


def keep(path: Path, data: bytes) -> bool:
    """Make `data` the checkpoint `path`. Whether it was made: who may only read the directory makes none."""
    try:
        write_atomic(path, data)
    except OSError:
        return False
    return True
