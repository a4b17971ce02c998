"""A process that is killed within an upload in parts leaves nothing in the store for longer than a day."""

from __future__ import annotations

import hashlib
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from depthvault.archive.abandoned import STILL, abort_abandoned
from depthvault.archive.cleanup import cleanup_with
from depthvault.archive.store import Store

from .conftest import make_store
from .sealed import Host
from .seaweed import Server

KEY = "hour/exchange=binance_futures/channel=trade/date=2026-11-20/10.g1.parquet"
PART = 5 << 20


@pytest.fixture
def parts(server: Server, bucket: str) -> Store:
    return make_store(server, bucket, multipart_bytes=PART)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(3 * PART))
    return path


def kill_within(store: Store, key: str, path: Path, sha256: str) -> None:
    """Upload in a process that is killed when it sends its third part."""
    child = os.fork()
    if child == 0:
        sent: list[int] = []

        def third(**_: object) -> None:
            sent.append(1)
            if len(sent) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        store._client.meta.events.register("before-call.s3.UploadPart", third)
        store.put_file(key, path, sha256)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def left(server: Server, bucket: str) -> list[str]:
    return [upload["Key"] for upload in server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


def test_what_a_kill_left_is_taken_out_when_it_has_been_still_for_a_day(
    parts: Store, server: Server, bucket: str, large: Path, tmp_path: Path
) -> None:
    digest = hashlib.sha256(large.read_bytes()).hexdigest()
    kill_within(parts, KEY, large, digest)
    assert left(server, bucket) == [parts.object_key(KEY)]
    host = Host(tmp_path / "data")
    host.root.mkdir()
    now = datetime.now(UTC)
    for at, dry_run, found, rest in (
        (now, False, [], 1),  # it may be one that is under way
        (now + STILL + timedelta(hours=1), True, [KEY], 1),
        (now + STILL + timedelta(hours=1), False, [KEY], 0),
        (now + STILL + timedelta(hours=1), False, [], 0),
    ):
        assert cleanup_with(host.layout, host.config, parts, now=at, dry_run=dry_run).aborted == found
        assert len(left(server, bucket)) == rest
    assert parts.put_file(KEY, large, digest)
    held = parts.held(KEY)
    assert held is not None
    assert held.sha256 == digest


def test_the_next_upload_does_not_mind_what_a_kill_left(parts: Store, large: Path) -> None:
    digest = hashlib.sha256(large.read_bytes()).hexdigest()
    kill_within(parts, KEY, large, digest)
    assert parts.put_file(KEY, large, digest)
    assert abort_abandoned(parts, datetime.now(UTC) + 2 * STILL) == [KEY]
    held = parts.held(KEY)
    assert held is not None
    assert held.sha256 == digest


def test_a_part_that_came_lately_is_a_sign_of_life(
    parts: Store, server: Server, bucket: str, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_within(parts, KEY, large, hashlib.sha256(large.read_bytes()).hexdigest())
    (upload,) = parts.unfinished("hour/")
    begun = upload._replace(begun=upload.begun - 3 * STILL)
    monkeypatch.setattr(parts, "unfinished", lambda under: [begun] if under == "hour/" else [])
    assert abort_abandoned(parts, datetime.now(UTC)) == []
    assert len(left(server, bucket)) == 1


@pytest.mark.parametrize("prefix", ["vault", ""])
def test_uploads_of_others_are_left_alone(server: Server, bucket: str, prefix: str) -> None:
    store = make_store(server, bucket, prefix=prefix)
    client = server.client()
    for key in (f"other/{KEY}", "photos/holiday.mp4", store.object_key("photos/mine.mp4")):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    client.create_multipart_upload(Bucket=bucket, Key=store.object_key(KEY))
    assert abort_abandoned(store, datetime.now(UTC) + 2 * STILL) == [KEY]
    assert len(left(server, bucket)) == 3
