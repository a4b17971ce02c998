"""A drive behind `rclone serve s3`, as docs/deployment.md tells to set it up: what it proves, and what it cannot."""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

import depthvault
from depthvault.archive import log
from depthvault.archive.cleanup import cleanup_with
from depthvault.archive.compact import compact
from depthvault.archive.manifest import ArchiveState, Entry
from depthvault.archive.publish import publish_with
from depthvault.archive.restore import restore
from depthvault.archive.staging import Staging, Unit
from depthvault.archive.store import Held, Store
from depthvault.archive.verify import verify
from depthvault.config import Config, Secrets, StoreConfig
from depthvault.durable import sha256_file
from depthvault.errors import ChainError, StoreError
from tests.docs.pages import DOCS, blocks
from tests.side_environment import side_environment

from .sealed import FUTURES, HOUR, Host, chain, trade_rows

pytestmark = pytest.mark.timeout(300)  # the first run installs rclone

PAGE, HEADING = "deployment.md", "The object store"
ADDRESS, DRIVE = "127.0.0.1:9650", "/mnt/archive"  # of the page
KEYS = ("gateway", secrets.token_hex(8))


class Gateway:
    """The gateway's address and the folder of the bucket on the drive."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.folder = address, folder

    def store(self, *, conditional: bool) -> Store:
        config = StoreConfig(prefix="vault", attempts=2, conditional=conditional)
        return Store("depthvault", *KEYS, endpoint=f"http://{self.address}", config=config, sleep=lambda _: None)

    def object(self, key: str) -> Path:
        return self.folder / "vault" / key


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    [line] = [line for body in blocks(PAGE, "sh", HEADING) for line in body.splitlines() if line.startswith("rclone ")]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    drive = tmp_path / "drive"
    (drive / "depthvault").mkdir(parents=True)
    assert ADDRESS in line
    assert DRIVE in line
    words = shlex.split(line.replace(ADDRESS, address).replace(DRIVE, str(drive)))
    words[0] = str(side_environment("rclone") / "rclone")
    process = subprocess.Popen(
        words, env={**os.environ, "RCLONE_AUTH_KEY": f'"{",".join(KEYS)}"', "RCLONE_CONFIG": "/dev/null"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    found = Gateway(address, drive / "depthvault")
    try:
        _await(found, process)
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _await(gateway: Gateway, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            gateway.store(conditional=False).check()
            return
        except StoreError:
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < deadline, "rclone does not answer"
            time.sleep(0.1)  # it gives no event to wait for


def host_in(root: Path, writer: str = "a") -> Host:
    host = Host(root)
    rows = {"depth_diff": [event.row(writer) for event in chain(30)], "agg_trade": trade_rows(range(1, 20), writer)}
    host.seal(writer, rows)
    compact(host.layout, host.config, FUTURES, HOUR)
    return host


def test_a_store_that_overwrites_is_refused_before_it_can_do_harm(gateway: Gateway, tmp_path: Path) -> None:
    host = host_in(tmp_path / "host")
    with pytest.raises(StoreError, match=r"overwrites what is there .* store\.conditional"):
        publish_with(host.layout, gateway.store(conditional=True), Unit(FUTURES, HOUR))
    assert log.load(host.layout).number == 1, "the second manifest was not trusted to it"


def test_one_host_archives_to_a_drive_proves_it_and_comes_back_from_it(gateway: Gateway, tmp_path: Path) -> None:
    host, store = host_in(tmp_path / "host"), gateway.store(conditional=False)
    publish_with(host.layout, store, Unit(FUTURES, HOUR))
    assert verify(host.layout, store, deep=True).findings == []
    state = log.load(host.layout)
    damaged, *others = sorted(path for path in state.files if path.startswith("hour/"))
    whole = gateway.object(damaged).read_bytes()
    gateway.object(damaged).write_bytes(whole[:-1] + b"x")
    (finding,) = verify(host.layout, store).findings
    assert (finding.where, finding.kind, finding.path) == ("store", "corrupt", damaged)
    later = HOUR.end + timedelta(days=30)
    done = cleanup_with(host.layout, host.config, store, now=later)
    assert host.layout.archived(damaged).exists(), "what the drive does not hold is not deleted here"
    assert set(others) <= {path.removeprefix("archive/") for path in done.archived}
    gateway.object(damaged).write_bytes(whole)

    lost = Host(tmp_path / "new")
    restore(lost.layout, store)
    assert verify(lost.layout, store).findings == []
    assert log.load(lost.layout).digests == state.digests


def test_a_second_host_that_comes_later_is_noticed_but_not_one_at_the_same_moment(
    gateway: Gateway, tmp_path: Path
) -> None:
    """What the page says cannot be had of a gateway, and why it is for one host alone."""
    first, second = host_in(tmp_path / "one"), host_in(tmp_path / "two", "b")
    publish_with(second.layout, None, Unit(FUTURES, HOUR))  # it did not see the store
    store = gateway.store(conditional=False)
    publish_with(first.layout, store, Unit(FUTURES, HOUR))
    with pytest.raises(ChainError, match="differ"):
        log.catch_up(second.layout, store)
    key = log.manifest_key(9)
    assert store.put(key, b"one")
    assert not store.put(key, b"two"), "it looks first"
    raw = gateway.store(conditional=True)
    assert raw.put(key, b"two"), "the gateway itself takes it: between looking and putting nobody holds it back"
    assert "If-None-Match" in (DOCS / PAGE).read_text(encoding="utf-8")


def test_large_files_go_in_parts_and_questions_are_answered_from_the_drive(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = StoreConfig(prefix="vault", attempts=2, conditional=False, multipart_bytes=5 << 20)
    store = Store("depthvault", *KEYS, endpoint=f"http://{gateway.address}", config=config, sleep=lambda _: None)
    large = tmp_path / "large"
    large.write_bytes(os.urandom(12 << 20))
    digest = sha256_file(large)
    assert store.put_file("raw/large", large, digest)
    assert store.held("raw/large") == Held(digest, 12 << 20)
    large.write_bytes(os.urandom(12 << 20))
    assert not store.put_file("raw/large", large, sha256_file(large)), "it looks first"
    assert store.held("raw/large") == Held(digest, 12 << 20)

    host = host_in(tmp_path / "host")
    publish_with(host.layout, store, Unit(FUTURES, HOUR))
    given = {"endpoint_url": f"http://{gateway.address}", "access_key_id": KEYS[0], "secret_access_key": KEYS[1]}
    access = Secrets(_env_file=None, **{f"r2_{name}": value for name, value in given.items()})  # type: ignore[call-arg,arg-type]
    sql = "SELECT count(*), sum(len(bid_prices)) FROM depth_diff"
    there = depthvault.open("s3://depthvault/vault", config=Config(), secrets=access).sql(sql).fetchall()
    here = depthvault.open(host.root, config=host.config, secrets=Secrets(_env_file=None)).sql(sql).fetchall()  # type: ignore[call-arg]
    assert there == here
    assert here[0][0] > 0


def test_two_processes_of_one_host_do_not_overwrite_each_others_manifest(gateway: Gateway, tmp_path: Path) -> None:
    """Airflow publishes exchanges side by side: both look, and see that the number is free, before either puts."""
    host = host_in(tmp_path / "host")
    compacted = Staging(host.layout, Unit(FUTURES, HOUR)).read()
    assert compacted is not None
    first, second = compacted.drafts
    looked, done = threading.Event(), threading.Event()

    class Slow(Store):
        """Its put comes long after it looked."""

        def get(self, key: str) -> bytes | None:
            held = super().get(key)
            if key == log.manifest_key(1):
                looked.set()
                done.wait(0.5)
            return held

    def publish(store: Store, draft: Entry) -> Entry | None:
        return log.append(host.layout, store, ArchiveState(), draft, "2026-11-20T12:00:00Z", "test")

    config = StoreConfig(prefix="vault", attempts=2, conditional=False)
    slow = Slow("depthvault", *KEYS, endpoint=f"http://{gateway.address}", config=config, sleep=lambda _: None)
    with ThreadPoolExecutor(1) as pool:
        slower = pool.submit(publish, slow, first)
        assert looked.wait(10)
        faster = publish(gateway.store(conditional=False), second)
        done.set()
        made = [entry for entry in (slower.result(), faster) if entry is not None]
    assert len(made) == 1, "one of them was first"
    assert gateway.object(log.manifest_key(1)).read_bytes() == host.layout.manifest(1).read_bytes()
    assert log.load(host.layout).number == 1
