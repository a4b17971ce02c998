"""Any wrong byte is found and named, here and in the store."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from depthvault.archive.compact import compact
from depthvault.archive.finding import PENDING
from depthvault.archive.publish import publish_with
from depthvault.archive.staging import Unit
from depthvault.archive.store import Store
from depthvault.archive.verify import verify

from .sealed import FUTURES, HOUR, Host, chain, trade_rows
from .seaweed import Server


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.seal("a", {"depth_diff": [event.row("a") for event in chain(30)], "agg_trade": trade_rows(range(1, 20), "a")})
    compact(host.layout, host.config, FUTURES, HOUR)
    return host


def test_any_flipped_bit_of_any_file_is_named(host: Host) -> None:
    publish_with(host.layout, None, Unit(FUTURES, HOUR))
    randomness = random.Random(7)
    for path in sorted(path for path in host.layout.archive.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        name = path.relative_to(host.layout.archive).as_posix()
        for position in randomness.sample(range(len(whole)), 6):
            data = bytearray(whole)
            data[position] ^= 1 << randomness.randrange(8)
            path.write_bytes(data)
            findings = verify(host.layout).findings
            assert findings, f"{name} byte {position}"
            named = {finding.path for finding in findings}
            assert named & {name, "_manifests"} or name in str(findings), f"{name} byte {position}: {findings}"
        path.write_bytes(whole)
    assert verify(host.layout).ok


def later() -> datetime:
    """When nothing that lies around can be on its way into the archive any more."""
    return datetime.now(UTC) + PENDING


def test_what_a_worker_has_put_and_not_published_yet_is_pending_and_no_finding(
    host: Host, store: Store, server: Server, bucket: str
) -> None:
    publish_with(host.layout, store, Unit(FUTURES, HOUR))
    server.client().put_object(Bucket=bucket, Key=store.object_key("hour/on its way"), Body=b"?")
    (host.layout.archive / "hour" / "on its way").write_bytes(b"?")
    result = verify(host.layout, store)
    assert (result.findings, result.pending) == ([], 2)


def test_missing_and_extra_files_are_named(host: Host) -> None:
    publish_with(host.layout, None, Unit(FUTURES, HOUR))
    victim = next(host.layout.archive.rglob("hour/**/*.parquet"))
    victim.rename(victim.with_name("10.g9.parquet"))
    kinds = {(finding.kind, Path(finding.path).name) for finding in verify(host.layout, now=later).findings}
    assert kinds == {("missing", victim.name), ("extra", "10.g9.parquet")}


def test_wrong_missing_and_extra_objects_are_named(host: Host, store: Store, server: Server, bucket: str) -> None:
    publish_with(host.layout, store, Unit(FUTURES, HOUR))
    client = server.client()
    keys = sorted(
        path.relative_to(host.layout.archive).as_posix() for path in host.layout.archive.rglob("hour/**/*.parquet")
    )
    wrong, gone = keys
    data = bytearray(host.layout.archived(wrong).read_bytes())
    data[100] ^= 1
    client.put_object(Bucket=bucket, Key=store.object_key(wrong), Body=bytes(data))
    client.delete_object(Bucket=bucket, Key=store.object_key(gone))
    client.put_object(Bucket=bucket, Key=store.object_key("hour/stray"), Body=b"?")
    findings = {
        (finding.where, finding.kind, finding.path) for finding in verify(host.layout, store, now=later).findings
    }
    assert findings == {("store", "corrupt", wrong), ("store", "missing", gone), ("store", "extra", "hour/stray")}


def test_a_changed_manifest_in_the_store_breaks_its_chain(
    host: Host, store: Store, server: Server, bucket: str
) -> None:
    publish_with(host.layout, store, Unit(FUTURES, HOUR))
    data = host.layout.manifest(1).read_bytes().replace(b"test", b"Test")
    server.client().put_object(Bucket=bucket, Key=store.object_key("_manifests/00000001.json"), Body=data + b" ")
    (finding,) = [finding for finding in verify(host.layout, store).findings if finding.kind == "chain"]
    assert "00000002.json" in finding.detail
