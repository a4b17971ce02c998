"""Publishing: once, whole, in an order that survives a kill at any point; the store is the authority."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest

from depthvault.archive import log
from depthvault.archive.compact import compact, pending_units, ready_units
from depthvault.archive.manifest import PENDING, digest
from depthvault.archive.publish import publish_with
from depthvault.archive.staging import Staging, Unit, Verdict
from depthvault.archive.store import Store
from depthvault.archive.verify import verify
from depthvault.errors import ChainError, StoreError
from expectations import validate

from .conftest import make_store
from .sealed import FUTURES, HOUR, Host, chain, trade_rows
from .seaweed import Server

UNIT = Unit(FUTURES, HOUR)
STEPS = ("stored", "moved", "entry", "sums")


def sealed(root: Path, writer: str = "a") -> Host:
    host = Host(root)
    rows = {"depth_diff": [event.row(writer) for event in chain(30)], "agg_trade": trade_rows(range(1, 20), writer)}
    host.seal(writer, rows)
    return host


def archive(host: Host, store: Store | None) -> None:
    compact(host.layout, host.config, FUTURES, HOUR)
    publish_with(host.layout, store, UNIT)


def test_without_a_store_the_local_archive_verifies_with_plain_sha256sum(tmp_path: Path) -> None:
    host = sealed(tmp_path)
    archive(host, None)
    outcome = verify(host.layout, deep=True)
    assert outcome.ok, outcome.findings
    assert outcome.manifests == 2
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=host.layout.archive, check=True)
    assert not host.layout.staging.joinpath(FUTURES, HOUR.label).exists()


def test_each_manifest_names_the_bytes_of_the_one_before(tmp_path: Path) -> None:
    host = sealed(tmp_path)
    archive(host, None)
    first, second = (host.layout.manifest(number).read_bytes() for number in (1, 2))
    state = log.load(host.layout)
    assert state.digests == [digest(first), digest(second)]
    assert f'"previous":"{digest(first)}"'.encode() in second
    host.layout.manifest(1).write_bytes(first.replace(b'"generation":1', b'"generation":2'))
    with pytest.raises(ChainError, match=r"00000002\.json"):
        log.load(host.layout)


def test_objects_and_manifests_reach_the_store_and_are_the_same_there(tmp_path: Path, store: Store) -> None:
    host = sealed(tmp_path)
    archive(host, store)
    for path in host.layout.archive.rglob("*"):
        if path.is_file():
            assert store.get(path.relative_to(host.layout.archive).as_posix()) == path.read_bytes()
    outcome = verify(host.layout, store)
    assert outcome.ok, outcome.findings


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("remote", [True, False])
def test_a_kill_at_any_step_is_repaired_by_the_next_run(tmp_path: Path, store: Store, step: str, remote: bool) -> None:
    target = store if remote else None
    host = sealed(tmp_path / "killed")
    compact(host.layout, host.config, FUTURES, HOUR)
    child = os.fork()
    if child == 0:
        publish_with(host.layout, target, UNIT, checkpoint=lambda name: os._exit(9) if name == step else None)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    for _ in ready_units(host.layout, host.config, FUTURES):
        compact(host.layout, host.config, FUTURES, HOUR)
    publish_with(host.layout, target, UNIT)
    whole = sealed(tmp_path / "whole")
    archive(whole, None)
    assert verify(host.layout, target, deep=True).findings == []
    assert ready_units(host.layout, host.config, FUTURES) == []
    assert _data(host) == _data(whole)


def _data(host: Host) -> dict[str, bytes]:
    root = host.layout.archive
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.parquet")}


def test_an_entry_that_only_the_store_has_is_taken_over_after_a_crash(tmp_path: Path, store: Store) -> None:
    host = sealed(tmp_path)
    archive(host, store)
    last = host.layout.manifest(2)
    before = last.read_bytes()
    last.unlink()
    host.layout.sha256sums.unlink()
    assert log.catch_up(host.layout, store).number == 2
    assert last.read_bytes() == before
    publish_with(host.layout, store, UNIT)
    assert verify(host.layout, store).ok


def _work(root: Path, server: tuple[str, str, str], bucket: str, barrier: object) -> None:
    store = Store(bucket, server[1], server[2], endpoint=server[0])
    host = Host(root)
    compact(host.layout, host.config, FUTURES, HOUR)
    barrier.wait()  # type: ignore[attr-defined]
    publish_with(host.layout, store, UNIT)


@pytest.mark.parametrize("shared", [True, False], ids=["one host", "two hosts"])
def test_two_workers_on_one_hour_publish_once(tmp_path: Path, server: Server, bucket: str, shared: bool) -> None:
    roots = [tmp_path / "one", tmp_path / ("one" if shared else "two")]
    for root in sorted(set(roots)):
        sealed(root)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    keys = (server.endpoint, server.access_key, server.secret_key)
    workers = [context.Process(target=_work, args=(root, keys, bucket, barrier)) for root in roots]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    store = Store(bucket, server.access_key, server.secret_key, endpoint=server.endpoint)
    state = log.load_store(store)
    assert state.number == 2, "one entry a channel"
    for root in roots:
        host = Host(root)
        assert verify(host.layout, store).findings == []
        assert ready_units(host.layout, host.config, FUTURES) == []


def test_hosts_with_a_writer_each_add_up_in_the_store(tmp_path: Path, store: Store) -> None:
    """Host two has only b's rows: it fetches what host one archived and publishes the union as the next generation."""
    one, two = Host(tmp_path / "one"), Host(tmp_path / "two")
    events = chain(30)
    one.seal("a", {"depth_diff": [event.row("a") for event in events[:20]]})
    two.seal("b", {"depth_diff": [event.row("b") for event in events[10:]]})
    archive(one, store)
    log.catch_up(two.layout, store)
    compact(two.layout, two.config, FUTURES, HOUR, store)
    publish_with(two.layout, store, UNIT)
    entry = log.load_store(store).entry("hour", FUTURES, "depth_diff", HOUR.label)
    assert entry is not None
    assert (entry.generation, entry.counts.rows) == (2, 30)
    assert log.catch_up(one.layout, store).number == 2


def test_a_store_that_refuses_leaves_nothing_published(tmp_path: Path, server: Server, bucket: str) -> None:
    host = sealed(tmp_path)
    compact(host.layout, host.config, FUTURES, HOUR)
    refusing = Store(bucket, server.access_key, "wrong", endpoint=server.endpoint, sleep=lambda _: None)
    with pytest.raises(StoreError):
        publish_with(host.layout, refusing, UNIT)
    assert log.load(host.layout).number == 0
    assert Staging(host.layout, UNIT).read() is not None
    publish_with(host.layout, make_store(server, bucket), UNIT)
    assert log.load(host.layout).number == 2


def test_an_object_that_was_tampered_with_before_the_read_back_stops_publishing(
    tmp_path: Path, server: Server, bucket: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = sealed(tmp_path)
    compact(host.layout, host.config, FUTURES, HOUR)
    put = Store.put_file

    def put_and_tamper(self: Store, key: str, path: Path, sha256: str) -> bool:
        done = put(self, key, path, sha256)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        server.client().put_object(Bucket=bucket, Key=self.object_key(key), Body=bytes(data))
        return done

    monkeypatch.setattr(Store, "put_file", put_and_tamper)
    with pytest.raises(StoreError, match="other bytes"):
        publish_with(host.layout, store, UNIT)
    assert log.load(host.layout).number == 0
    assert log.load_store(store).number == 0


def test_what_nobody_judged_can_be_judged_later_and_keeps_its_rows(tmp_path: Path) -> None:
    host = sealed(tmp_path)
    compact(host.layout, host.config, FUTURES, HOUR)
    publish_with(host.layout, None, UNIT)
    before = log.load(host.layout)
    assert {entry.condition for entry in before.current.values()} == {"pending"}
    assert pending_units(host.layout) == [UNIT]
    assert ready_units(host.layout, host.config) == [], "nobody does it unasked"
    drafts = compact(host.layout, host.config, FUTURES, HOUR, pending=True).drafts
    assert [(draft.channel, draft.generation, draft.add) for draft in drafts] == [
        ("agg_trade", 2, []), ("depth_diff", 2, []),
    ]  # fmt: skip
    validate(host.layout, host.config, FUTURES, HOUR)
    publish_with(host.layout, None, UNIT)
    after = log.load(host.layout)
    assert PENDING not in {entry.condition for entry in after.current.values()}
    assert before.files.items() <= after.files.items()
    assert {file.table for path, file in after.files.items() if path not in before.files} == {"hour_metrics"}
    assert pending_units(host.layout) == []
    assert compact(host.layout, host.config, FUTURES, HOUR, pending=True).drafts == []


def test_a_verdict_marks_the_hour_and_does_not_drop_it(tmp_path: Path) -> None:
    host = sealed(tmp_path)
    compact(host.layout, host.config, FUTURES, HOUR)
    Staging(host.layout, UNIT).write_validation([Verdict("agg_trade", "degraded", ["ids_are_consecutive"])])
    publish_with(host.layout, None, UNIT)
    state = log.load(host.layout)
    trades = state.entry("hour", FUTURES, "agg_trade", HOUR.label)
    book = state.entry("hour", FUTURES, "depth_diff", HOUR.label)
    assert trades is not None
    assert book is not None
    assert (trades.condition, trades.failed) == ("degraded", ["ids_are_consecutive"])
    assert book.condition == "pending", "nobody judged it"
