"""What the archive is made from, checked: receipts, live files and journals here, and journals in the store.

They stand in no manifest, and each proves itself: a receipt by its last line, a live file and a journal by the receipts
that name them, a record by its checksum, an object under `raw/` or `accounts/` by the `.sha256` beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import google_crc32c

from depthvault.archive.finding import PENDING, Finding
from depthvault.archive.manifest import ArchiveState
from depthvault.archive.raw import ACCOUNTS, PREFIX, PROOF
from depthvault.archive.store import Store
from depthvault.durable import sha256_file
from depthvault.errors import CorruptError, StoreError
from depthvault.journal import is_locked
from depthvault.journal.reader import Damage, open_source, scan
from depthvault.journal.record import HEADER
from depthvault.layout import JOURNAL_SUFFIX, Layout
from depthvault.seal.receipts import JournalInput, LiveFile, Receipt, read_receipt

_SEQUENCE = ("sequence",)

Looked = tuple[int, list[Finding]]
"""Bytes that were read, and what is wrong with them."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What the receipts say of one journal. damage: where it was damaged when they read it."""

    read: list[JournalInput]
    damage: set[int]


def receipts_here(layout: Layout) -> Iterator[tuple[Path, Receipt | CorruptError]]:
    """Every receipt, by path."""
    for path in sorted(layout.live.glob("exchange=*/_receipts/*.json")):
        try:
            yield path, read_receipt(path)
        except CorruptError as error:
            yield path, error
        except FileNotFoundError:
            continue  # cleanup was here


def sealed_findings(layout: Layout, state: ArchiveState) -> Iterator[Looked]:
    """Receipts by their checksums, live files by the receipts that name them."""
    for path, receipt in receipts_here(layout):
        name = path.relative_to(layout.root).as_posix()
        if isinstance(receipt, CorruptError):
            yield 0, [Finding("local", "corrupt", name, str(receipt).removeprefix(f"{path}: "))]
            continue
        yield 0, []
        for file in receipt.files:
            yield file.bytes, [*_live_findings(layout, path, file, state)]


def _live_findings(layout: Layout, receipt: Path, file: LiveFile, state: ArchiveState) -> Iterator[Finding]:
    path = layout.root / file.path
    found = sha256_file(path) if path.exists() else None
    if found == file.sha256 or (found is None and (file.path, file.sha256) in state.inputs):
        return
    try:
        if file not in read_receipt(receipt).files:
            return  # sealed anew meanwhile
    except (CorruptError, FileNotFoundError):
        return  # as well, or cleaned up
    if found is None:
        yield Finding("local", "missing", file.path, f"{file.bytes} bytes, SHA-256 {file.sha256}, and not archived")
    else:
        yield Finding("local", "corrupt", file.path, f"SHA-256 {found}; {receipt.name} says {file.sha256}")


def _told_of_journals(layout: Layout) -> dict[str, _Told]:
    """By path below data_dir."""
    told: dict[str, _Told] = {}
    for _, receipt in receipts_here(layout):
        if isinstance(receipt, CorruptError):
            continue
        for part in receipt.journals:
            told.setdefault(part.path, _Told([], set())).read.append(part)
        for region in receipt.damage:
            told.setdefault(region.path, _Told([], set())).damage.add(region.start)
    return told


def journal_findings(layout: Layout) -> Iterator[Looked]:
    """Closed journals, record by record, and as the receipts that read them say."""
    told = _told_of_journals(layout)
    folders = (layout.journals, layout.accounts.journals)
    for path in sorted(path for folder in folders for path in folder.glob(f"*/*/*{JOURNAL_SUFFIX}")):
        name = path.relative_to(layout.root).as_posix()
        if not is_locked(path):
            yield path.stat().st_size, [*_journal_findings(path, name, "local", told.get(name, _Told([], set())))]


def _journal_findings(path: Path, name: str, where: str, told: _Told) -> Iterator[Finding]:
    """Undeclared damage, and records that are not those that a receipt read. A torn end is that of a crash."""
    waiting = sorted(told.read, key=lambda part: part.bytes_read)
    crc = rows = 0

    def differing(start: int | None) -> Iterator[Finding]:
        """Compare with the receipts that read no further than `start`."""
        while waiting and (start is None or waiting[0].bytes_read <= start):
            part = waiting.pop(0)
            if (part.crc32c, part.rows) != (f"{crc:08x}", rows):
                what = f"{rows} rows with CRC32C {crc:08x} in its first {part.bytes_read} bytes"
                yield Finding(where, "corrupt", name, f"{what}, its receipt says {part.rows} with {part.crc32c}")

    with open_source(path) as source:
        for part in scan(source, path, columns=_SEQUENCE):
            yield from differing(part.start)
            if not isinstance(part, Damage):
                crc = google_crc32c.extend(crc, source.pread(HEADER.size, part.start))
                rows += part.rows.num_rows
            elif part.kind != "torn" and part.start not in told.damage:
                yield Finding(where, "corrupt", name, f"bytes {part.start} to {part.end}: {part.reason}")
        yield from differing(None)


def stored_journal_findings(layout: Layout, store: Store, *, deep: bool, now: datetime) -> Iterator[Looked]:
    """Journals in the store by GET and hash against what stands beside them, and against the copy here, if there is
    one; deep: record by record as well."""
    told = _told_of_journals(layout) if deep else {}
    for prefix, folder in ((PREFIX, layout.journals), (ACCOUNTS, layout.accounts.journals)):
        listed = {key: (size, modified) for key, size, modified in store.list_objects(prefix)}
        for key in sorted({key.removesuffix(PROOF) for key in listed}):
            size, _ = listed.get(key, (0, now))
            there = [listed[each][1] for each in (key, key + PROOF) if each in listed]
            if len(there) == 1 and now - there[0] < PENDING:
                continue  # on its way
            try:
                local = folder / key.removeprefix(prefix)
                declared = told.get(local.relative_to(layout.root).as_posix(), _Told([], set()))
                yield size, [*_stored_findings(store, key, local, declared if deep else None)]
            except StoreError as error:
                yield 0, [Finding("store", "unreachable", key, str(error))]


def _stored_findings(store: Store, key: str, local: Path, told: _Told | None) -> Iterator[Finding]:
    """told: what receipts say of it, for its records to be looked at; None: they are not."""
    proof, held = store.get(key + PROOF), store.held(key)
    if proof is None and held is None:
        return  # its time was over meanwhile
    if proof is None or held is None:
        gone, left = (key + PROOF, key) if proof is None else (key, key + PROOF)
        yield Finding("store", "missing", gone, f"{left} is there without it; `depthvault cleanup` puts it if it can")
        return
    said = proof.decode(errors="replace")
    if held.sha256 != said:
        yield Finding("store", "corrupt", key, f"{held.bytes} bytes, SHA-256 {held.sha256}; {key}{PROOF} says {said}")
        return
    if local.exists() and not is_locked(local) and (here := sha256_file(local)) != said:
        yield Finding("store", "corrupt", key, f"SHA-256 {said}; the journal here has {here}")
    if told is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / local.name
            if store.download(key, path) is not None:
                yield from _journal_findings(path, key, "store", told)


def tally(looked: Iterable[Looked], findings: list[Finding]) -> tuple[int, int]:
    """Add all findings to `findings`; returns how many things were looked at, and their bytes."""
    count = size = 0
    for each, found in looked:
        count += 1
        size += each
        findings += found
    return count, size
