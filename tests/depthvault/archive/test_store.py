"""The store proves what it holds, refuses loudly, and sends requests in the form that R2 accepts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from pydantic import SecretStr

from depthvault.archive.store import Held, Store, open_store
from depthvault.config import Secrets, StoreConfig
from depthvault.errors import ConfigError, StoreError

from .conftest import make_store
from .seaweed import Server


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_was_put_is_held_and_a_taken_key_is_not_overwritten(store: Store) -> None:
    assert store.put("a/b 币=1.parquet", b"first")
    assert store.held("a/b 币=1.parquet") == Held(sha(b"first"), 5)
    assert store.put("a/b 币=1.parquet", b"first"), "the same bytes again are no conflict"
    assert not store.put("a/b 币=1.parquet", b"other")
    assert store.get("a/b 币=1.parquet") == b"first"
    assert store.held("missing") is None
    assert store.get("missing") is None
    assert [(each.key, each.size) for each in store.list_objects()] == [("a/b 币=1.parquet", 5)]


def test_large_files_go_in_equal_parts_once(server: Server, bucket: str, tmp_path: Path) -> None:
    store = make_store(server, bucket, multipart_bytes=5 << 20)
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (12 << 12))
    digest = sha(path.read_bytes())
    assert store.put_file("large", path, digest)
    assert store.held("large") == Held(digest, path.stat().st_size)
    assert store.put_file("large", path, digest)
    path.write_bytes(b"x" * path.stat().st_size)
    assert not store.put_file("large", path, sha(path.read_bytes()))
    target = tmp_path / "back"
    assert store.download("large", target) == Held(digest, target.stat().st_size)
    assert sha(target.read_bytes()) == digest


def test_a_file_that_is_not_what_was_recorded_is_not_sent(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"changed")
    with pytest.raises(StoreError, match="small is not what was recorded"):
        store.put_file("small", path, sha(b"recorded"))
    assert store.held("small") is None


def test_wrong_keys_are_refused_by_name_and_never_shown(server: Server, bucket: str) -> None:
    store = Store(bucket, server.access_key, "wrong-secret", endpoint=server.endpoint, sleep=lambda _: None)
    with pytest.raises(StoreError) as caught:
        store.put("key", b"data")
    assert f"{bucket}/key" in str(caught.value)
    assert "wrong-secret" not in str(caught.value)
    assert server.access_key not in str(caught.value)


def test_an_unreachable_store_is_tried_again_and_then_named(server: Server) -> None:
    waits: list[float] = []
    store = Store(
        "bucket", "a", "b", endpoint="http://127.0.0.1:9", config=StoreConfig(attempts=3), sleep=waits.append, seed=1
    )
    with pytest.raises(StoreError, match=r"GET bucket/key: EndpointConnectionError.*\(3 attempts\)"):
        store.get("key")
    assert len(waits) == 2
    assert waits[0] < waits[1]


def test_bandwidth_is_kept(server: Server, bucket: str) -> None:
    waits: list[float] = []
    store = Store(
        bucket, server.access_key, server.secret_key, endpoint=server.endpoint,
        config=StoreConfig(bandwidth=100_000), sleep=waits.append,
    )  # fmt: skip
    store.put("slow", b"x" * 200_000)
    assert sum(waits) > 1.5


def test_plain_http_is_for_loopback_only() -> None:
    with pytest.raises(ConfigError, match="use https"):
        Store("b", "k", "s", endpoint="http://storage.example.com")
    Store("b", "k", "s", endpoint="http://storage.example.com", allow_http=True)
    with pytest.raises(ConfigError, match="R2_ENDPOINT_URL"):
        Store("b", "k", "s", endpoint="storage.example.com")


def test_without_secrets_there_is_no_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("R2_BUCKET_NAME", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert open_store(StoreConfig(), Secrets()) is None


def test_a_store_that_is_believed_to_have_one_publisher_is_said_to_be_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    access = Secrets.model_construct(
        r2_endpoint_url="https://store.example.com", r2_bucket_name="drive", r2_access_key_id=SecretStr("key-id"),
        r2_secret_access_key=SecretStr("secret"),
    )  # fmt: skip
    for conditional in (True, False, False):
        assert open_store(StoreConfig(prefix="vault", conditional=conditional), access) is not None
    assert [record.getMessage() for record in caplog.records if record.name == "depthvault.archive.store"] == [
        "s3://drive/vault: store.conditional is false: that this host alone publishes into it is believed, not proved"
    ]


@pytest.mark.parametrize("exclusive", [True, False])
def test_over_https_nothing_is_sent_as_a_trailer(exclusive: bool) -> None:
    """R2 has been reported to refuse aws-chunked bodies; over plain http boto3 never sends them."""
    store = Store("bucket", "key-id", "secret", endpoint="https://store.example.com", sleep=lambda _: None)
    seen: list[AWSPreparedRequest] = []

    def capture(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        seen.append(request)
        raw = type("Raw", (), {"stream": lambda self, **_: iter([b""]), "headers": {}})()
        return AWSResponse(request.url, 200, {"ETag": '"e"'}, raw)

    store._client.meta.events.register("before-send.s3.PutObject", capture)
    store.put("k", b"data", exclusive=exclusive)
    headers = {name.lower(): value for name, value in seen[0].headers.items()}
    assert "x-amz-trailer" not in headers
    assert "aws-chunked" not in str(headers.get("content-encoding", ""))
    assert "x-amz-checksum-sha256" in headers
    assert int(headers["content-length"]) == 4
    assert ("if-none-match" in headers) is exclusive


def test_a_put_whose_answer_was_lost_is_not_a_conflict(store: Store) -> None:
    """The first attempt reaches the store, its answer does not reach us; the second is refused with 412."""
    lost: list[int] = []

    def break_once(answer: dict[str, object]) -> None:
        if not lost and answer["status_code"] == 200:
            lost.append(1)
            answer["status_code"] = 503
            answer["body"] = b"<Error><Code>SlowDown</Code></Error>"

    store._client.meta.events.register(
        "before-parse.s3.PutObject", lambda response_dict, **_: break_once(response_dict)
    )
    assert store.put("once", b"mine")
    assert lost
    assert store.get("once") == b"mine"
