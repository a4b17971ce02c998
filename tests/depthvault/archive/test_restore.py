"""A lost host comes back from the bucket, byte by byte; wrong objects are refused."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from depthvault.archive import log
from depthvault.archive.cleanup import cleanup_with
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.archive.restore import restore
from depthvault.archive.staging import Unit
from depthvault.archive.store import Store
from depthvault.archive.verify import verify
from depthvault.errors import ArchiveError, CorruptError

from .sealed import FUTURES, HOUR, Host, chain, trade_rows
from .seaweed import Server


def contents(host: Host) -> dict[str, bytes]:
    root = host.layout.archive
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def host(tmp_path: Path, store: Store) -> Host:
    host = Host(tmp_path / "here")
    for period, first in ((HOUR, 100), (HOUR.next(), 400)):
        rows = {"depth_diff": [event.row("a", base=period) for event in chain(30, first=first)]}
        host.seal("a", rows | ({"agg_trade": trade_rows(range(1, 9), "a")} if period == HOUR else {}), period=period)
        compact(host.layout, host.config, FUTURES, period)
        publish_with(host.layout, store, Unit(FUTURES, period))
    return host


def test_a_lost_host_is_rebuilt_byte_by_byte(tmp_path: Path, host: Host, store: Store) -> None:
    new = Host(tmp_path / "new")
    result = restore(new.layout, store)
    assert contents(new) == contents(host)
    assert (len(result.present), result.manifests) == (0, log.load(host.layout).number)
    assert verify(new.layout, store, deep=True).ok
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=new.layout.archive, check=True)
    assert restore(new.layout, store).fetched == []


def test_the_new_host_goes_on_where_the_lost_one_stopped(tmp_path: Path, host: Host, store: Store) -> None:
    """The chain's end travels with the manifests, so that the break is told although no journal is left."""
    new = Host(tmp_path / "new")
    restore(new.layout, store)
    third = HOUR.next().next()
    new.seal("a", {"depth_diff": [event.row("a", base=third) for event in chain(5, first=900)]}, period=third)
    compact(new.layout, new.config, FUTURES, third)
    (entry,) = publish_with(new.layout, store, Unit(FUTURES, third)).entries
    assert entry.counts.gaps == 1
    assert entry.number == log.load(host.layout).number + 1


def test_hours_come_back_after_cleanup(host: Host, store: Store) -> None:
    before = contents(host)
    cleanup_with(host.layout, host.config, store, now=HOUR.end + timedelta(days=30))
    assert len(contents(host)) < len(before)
    result = restore(host.layout, store, exchange=FUTURES, channel="depth_diff", since=HOUR.start, until=HOUR.end)
    assert {path.split("/")[0] for path in result.fetched} == {"hour", "quality"}
    assert all("/10.g1" in path for path in result.fetched)
    assert verify(host.layout, store).ok
    restore(host.layout, store)
    assert contents(host) == before
    assert ready_units(host.layout, host.config, FUTURES) == []


def test_a_damaged_local_file_is_replaced(host: Host, store: Store) -> None:
    before = contents(host)
    victim = next(host.layout.archive.rglob("hour/**/*.parquet"))
    victim.write_bytes(b"damaged")
    assert len(restore(host.layout, store).fetched) == 1
    assert contents(host) == before


def test_a_wrong_object_is_refused(tmp_path: Path, host: Host, store: Store, server: Server, bucket: str) -> None:
    key = next(path for path in log.load(host.layout).files if path.startswith("hour/"))
    server.client().put_object(Bucket=bucket, Key=store.object_key(key), Body=b"other")
    new = Host(tmp_path / "new")
    with pytest.raises(CorruptError, match=key):
        restore(new.layout, store)
    assert not new.layout.archived(key).exists()


def test_without_a_store_there_is_nothing_to_restore_from(host: Host) -> None:
    with pytest.raises(ArchiveError, match="R2_BUCKET_NAME"):
        restore(host.layout, None)
