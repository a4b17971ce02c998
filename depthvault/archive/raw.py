"""Closed journals in the store, under `raw/`: what was received, byte by byte, for `raw.keep`.
Those of account channels lie under `accounts/`, only where a venue's `upload_accounts` asks for it.

They are no part of the archive and stand in no manifest. Each object lies beside `<key>.sha256`, put after it was read
back: an object without one is not proved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from depthvault.archive.store import Store
from depthvault.config import Config
from depthvault.durable import sha256_file
from depthvault.errors import StoreError
from depthvault.journal import is_locked
from depthvault.layout import JOURNAL_SUFFIX, Layout

PREFIX = "raw/"
ACCOUNTS = "accounts/"
PROOF = ".sha256"


@dataclass(slots=True)
class RawUploaded:
    """Journals put and read back, those that were there already, those deleted from the store for their age."""

    sent: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


def raw_key(layout: Layout, journal: Path) -> str:
    """Object key of a journal."""
    return PREFIX + journal.relative_to(layout.journals).as_posix()


def upload_raw(layout: Layout, config: Config, store: Store, *, now: datetime) -> RawUploaded:
    """Put closed journals that the store has no proof of, read them back, and delete those older than `raw.keep`.

    Nothing happens unless `raw.upload` is set. Raises StoreError when an object comes back otherwise.
    """
    result = RawUploaded()
    if not config.raw.upload:
        return result
    for journal in sorted(layout.journals.glob(f"*/*/*{JOURNAL_SUFFIX}")):
        _put(store, raw_key(layout, journal), journal, result)
    for key, _, _ in list(store.list_objects(PREFIX)):
        name = Path(key.removesuffix(PROOF))
        if name.suffix == JOURNAL_SUFFIX and now - _begun(name) > config.raw.keep:
            store.delete(key)
            result.deleted.append(key)
    return result


def upload_accounts(layout: Layout, config: Config, store: Store) -> RawUploaded:
    """Put closed journals of account channels under `accounts/`, for the venues whose `upload_accounts` is set.

    Nothing of them is ever deleted, here or there. Raises StoreError when an object comes back otherwise.
    """
    result = RawUploaded()
    for name in type(config.exchanges).model_fields:
        if config.exchanges[name].upload_accounts:
            for journal in sorted(layout.accounts.journals.glob(f"{name}/*/*{JOURNAL_SUFFIX}")):
                _put(store, ACCOUNTS + journal.relative_to(layout.accounts.journals).as_posix(), journal, result)
    return result


def _put(store: Store, key: str, journal: Path, result: RawUploaded) -> None:
    if is_locked(journal):
        return
    digest = sha256_file(journal)
    if store.get(key + PROOF) == digest.encode():
        result.present.append(key)
        return
    if not store.put_file(key, journal, digest):
        raise StoreError(f"{store}/{key}: holds other bytes than {journal}")
    held = store.held(key)
    if held is None or held.sha256 != digest:
        raise StoreError(f"{store}/{key}: comes back with other bytes than {journal}")
    store.put(key + PROOF, digest.encode(), exclusive=False)
    result.sent.append(key)


def _begun(path: Path) -> datetime:
    return Layout.journal_start(path).astimezone(UTC)
