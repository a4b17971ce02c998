"""Nothing local goes before the store proved, in this run, that it holds what was made of it."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from depthvault.archive.cleanup import CleanupResult, cleanup, cleanup_with
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.archive.staging import Unit
from depthvault.archive.store import Store
from depthvault.archive.verify import verify
from depthvault.config import Secrets
from depthvault.errors import StoreError

from .sealed import FUTURES, HOUR, Host, chain
from .seaweed import Server

LATER = HOUR.end + timedelta(days=9)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.seal("a", {"depth_diff": [event.row("a") for event in chain(30)]}, journal=b"all that was received")
    for path in host.layout.journals.rglob("*.journal"):
        os.utime(path, (HOUR.end.timestamp(), HOUR.end.timestamp()))
    return host


def archive(host: Host, store: Store | None) -> None:
    compact(host.layout, host.config, FUTURES, HOUR)
    publish_with(host.layout, store, Unit(FUTURES, HOUR))


def files(host: Host) -> set[str]:
    rooms = (host.layout.journals, host.layout.live, host.layout.archive)
    return {str(path) for room in rooms for path in room.rglob("*") if path.is_file()}


def clean(host: Host, store: Store, now: datetime = LATER) -> CleanupResult:
    return cleanup_with(host.layout, host.config, store, now=now)


def test_what_is_old_and_proved_goes_and_the_log_stays(host: Host, store: Store) -> None:
    archive(host, store)
    result = clean(host, store)
    assert len(result.journals) == 1
    assert len(result.archived) == 2
    assert len(result.live) == 2, "live file and receipt"
    left = {Path(name).relative_to(host.root).parts[0] for name in files(host)}
    assert left == {"archive"}
    assert {path.suffix for path in host.layout.archive.rglob("*") if path.is_file()} == {".json", ""}
    outcome = verify(host.layout, store)
    assert outcome.ok, outcome.findings
    assert ready_units(host.layout, host.config, FUTURES) == []
    assert clean(host, store) == CleanupResult(store=True)


def test_nothing_goes_before_its_time(host: Host, store: Store) -> None:
    archive(host, store)
    before = files(host)
    clean(host, store, HOUR.end + timedelta(days=6))
    assert files(host) == before


def test_a_full_disk_shortens_the_time_and_not_the_proof(host: Host, store: Store, server: Server, bucket: str) -> None:
    archive(host, store)
    soon = HOUR.end + timedelta(hours=30)
    key = next(host.layout.archive.rglob("hour/**/*.parquet")).relative_to(host.layout.archive).as_posix()
    whole = host.layout.archived(key).read_bytes()
    server.client().put_object(Bucket=bucket, Key=store.object_key(key), Body=whole + b"?")
    before = files(host)
    kept = cleanup_with(host.layout, host.config, store, now=soon, free=1 << 20)
    assert kept.pressure
    assert files(host) == before
    server.client().put_object(Bucket=bucket, Key=store.object_key(key), Body=whole)
    done = cleanup_with(host.layout, host.config, store, now=soon, free=1 << 20)
    assert len(done.journals) == 1
    assert len(done.archived) == 2


def test_without_a_store_nothing_is_deleted(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(host, None)
    before = files(host)
    for name in ("R2_BUCKET_NAME", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(host.root)
    assert cleanup(host.layout, host.config, Secrets(), now=LATER) == CleanupResult()
    assert files(host) == before


def test_a_store_that_corrupts_one_object_keeps_everything_made_of_it(
    host: Host, store: Store, server: Server, bucket: str
) -> None:
    archive(host, store)
    key = (
        next(path for path in host.layout.archive.rglob("hour/**/*.parquet"))
        .relative_to(host.layout.archive)
        .as_posix()
    )
    data = bytearray(host.layout.archived(key).read_bytes())
    data[-1] ^= 1
    server.client().put_object(Bucket=bucket, Key=store.object_key(key), Body=bytes(data))
    before = files(host)
    result = clean(host, store)
    assert files(host) == before
    assert result.journals == result.live == result.archived == []
    assert any(key in reason for reason in result.kept.values())


def test_a_lost_object_is_put_again_from_the_local_copy(host: Host, store: Store, server: Server, bucket: str) -> None:
    archive(host, store)
    key = (
        next(path for path in host.layout.archive.rglob("hour/**/*.parquet"))
        .relative_to(host.layout.archive)
        .as_posix()
    )
    server.client().delete_object(Bucket=bucket, Key=store.object_key(key))
    assert len(clean(host, store).archived) == 2
    assert verify(host.layout, store).ok


def test_a_store_that_refuses_deletes_nothing(host: Host, store: Store, server: Server, bucket: str) -> None:
    archive(host, store)
    before = files(host)
    refusing = Store(bucket, server.access_key, "wrong", endpoint=server.endpoint, sleep=lambda _: None)
    with pytest.raises(StoreError):
        clean(host, refusing)
    stopped = Store(bucket, "a", "b", endpoint="http://127.0.0.1:9", sleep=lambda _: None)
    with pytest.raises(StoreError):
        clean(host, stopped)
    assert files(host) == before


def test_a_store_that_forgot_a_manifest_keeps_everything(host: Host, store: Store, server: Server, bucket: str) -> None:
    """An object without the log that names it would not bring a lost host back."""
    archive(host, store)
    before = files(host)
    server.client().put_object(Bucket=bucket, Key=store.object_key("_manifests/00000001.json"), Body=b"{}")
    with pytest.raises(Exception, match="_manifests"):
        clean(host, store)
    assert files(host) == before


def test_a_journal_stays_while_one_of_its_periods_is_not_archived(host: Host, store: Store) -> None:
    late = {HOUR.previous(): {"depth_diff": [event.row("a", base=HOUR.previous()) for event in chain(3)]}}
    host.seal("a", {"depth_diff": [event.row("a") for event in chain(30)]}, late=late, journal=b"all")
    for path in host.layout.journals.rglob("*.journal"):
        os.utime(path, (HOUR.end.timestamp(), HOUR.end.timestamp()))
    archive(host, store)
    result = clean(host, store)
    assert result.journals == []
    assert result.live == []
    assert any("is not archived from it" in reason for reason in result.kept.values())


def test_a_journal_that_was_not_read_to_its_end_stays(host: Host, store: Store) -> None:
    archive(host, store)
    (path,) = host.layout.journals.rglob("*.journal")
    path.write_bytes(path.read_bytes() + b"more")
    os.utime(path, (HOUR.end.timestamp(), HOUR.end.timestamp()))
    result = clean(host, store)
    assert result.journals == []
    assert path.exists()


def test_replaced_files_leave_the_archive_once_the_store_has_the_new_ones(host: Host, store: Store) -> None:
    archive(host, store)
    host.seal("b", {"depth_diff": [event.row("b") for event in chain(40)]})
    archive(host, store)
    result = clean(host, store, HOUR.end + timedelta(days=1))
    assert [Path(path).name for path in result.superseded] == ["10.g1.parquet"] * len(result.superseded)
    assert result.superseded
    for path in result.superseded:
        assert (host.layout.superseded / path).exists()
        assert not host.layout.archived(path).exists()
    assert verify(host.layout, store).ok
