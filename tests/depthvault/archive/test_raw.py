"""Closed journals in the store: only when asked, read back, and gone when their time is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from depthvault.archive.raw import RawUploaded, raw_key, upload_accounts, upload_raw
from depthvault.archive.store import Store
from depthvault.clock import ManualClock, ns_from_datetime
from depthvault.config import Config
from depthvault.errors import StoreError
from depthvault.journal import JournalWriter

from .seaweed import Server

BEGUN = datetime(2026, 11, 20, 10, tzinfo=UTC)


def config(root: Path, upload: bool = True) -> Config:
    return Config.model_validate({"data_dir": root, "raw": {"upload": upload}})


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    layout = config(tmp_path).layout
    with JournalWriter(layout, "lighter", "a", clock=ManualClock(ns_from_datetime(BEGUN))) as writer:
        writer.append("frame", 1, "s", b"what was received")
    (path,) = layout.journal_files("lighter", "a")
    return path


def test_closed_journals_are_put_once_and_read_back(tmp_path: Path, journal: Path, store: Store) -> None:
    settings = config(tmp_path)
    key = raw_key(settings.layout, journal)
    assert upload_raw(settings.layout, settings, store, now=BEGUN).sent == [key]
    assert store.get(key) == journal.read_bytes()
    assert upload_raw(settings.layout, settings, store, now=BEGUN) == RawUploaded(present=[key])


def test_nothing_is_put_unless_asked(tmp_path: Path, journal: Path, store: Store) -> None:
    settings = config(tmp_path, upload=False)
    assert upload_raw(settings.layout, settings, store, now=BEGUN) == RawUploaded()
    assert list(store.list_objects()) == []


def test_a_journal_that_is_being_written_stays_here(tmp_path: Path, store: Store) -> None:
    settings = config(tmp_path)
    with JournalWriter(settings.layout, "lighter", "a", clock=ManualClock(ns_from_datetime(BEGUN))) as writer:
        writer.append("frame", 1, "s", b"more to come")
        writer.flush()
        assert upload_raw(settings.layout, settings, store, now=BEGUN).sent == []


def test_old_ones_leave_the_store(tmp_path: Path, journal: Path, store: Store) -> None:
    settings = config(tmp_path)
    upload_raw(settings.layout, settings, store, now=BEGUN)
    journal.unlink()
    later = BEGUN + timedelta(days=31)
    assert len(upload_raw(settings.layout, settings, store, now=later).deleted) == 2
    assert list(store.list_objects()) == []


def test_a_wrong_object_is_named(tmp_path: Path, journal: Path, store: Store, server: Server, bucket: str) -> None:
    settings = config(tmp_path)
    key = raw_key(settings.layout, journal)
    server.client().put_object(Bucket=bucket, Key=store.object_key(key), Body=b"other")
    with pytest.raises(StoreError, match=key):
        upload_raw(settings.layout, settings, store, now=BEGUN)


@pytest.mark.parametrize("wanted", [False, True])
def test_accounts_are_put_only_when_that_is_asked_for(wanted: bool, tmp_path: Path, store: Store) -> None:
    asked = {"data_dir": tmp_path, "raw": {"upload": True}, "exchanges": {"lighter": {"upload_accounts": wanted}}}
    settings = Config.model_validate(asked)
    clock = ManualClock(ns_from_datetime(BEGUN))
    with JournalWriter(settings.layout.accounts, "lighter", "accounts-a", clock=clock) as writer:
        writer.append("frame", 1, "account_all:17", b"{}")
    assert upload_raw(settings.layout, settings, store, now=BEGUN).sent == [], "they are no market data"
    sent = upload_accounts(settings.layout, settings, store).sent
    assert [key.rsplit("/", 1)[0] for key in sent] == (["accounts/lighter/accounts-a"] if wanted else [])
    assert [key for key, _, _ in store.list_objects()] == [name for key in sent for name in (key, f"{key}.sha256")]
    assert upload_accounts(settings.layout, settings, store).sent == []
