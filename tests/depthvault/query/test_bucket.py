"""Straight from a bucket of a real S3 server: the same answers, by the manifests alone, and no key is ever shown."""

from __future__ import annotations

import secrets as tokens
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import SecretStr

import depthvault
from depthvault import query
from depthvault.config import Config, Secrets
from depthvault.errors import ConfigError, DepthvaultError, UsageError
from depthvault.layout import Layout
from depthvault.query import Vault
from tests.depthvault.archive.seaweed import Server, running, weed_program

from .recording import HOUR_10, Recording, trades

HOUR_11 = HOUR_10 + timedelta(hours=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if weed_program() is None:
        pytest.skip("SeaweedFS is not installed (extra `servers`)")
    with running(tmp_path_factory.mktemp("seaweed")) as running_server:
        yield running_server


@pytest.fixture
def secrets(server: Server) -> Secrets:
    bucket = f"t{tokens.token_hex(8)}"
    server.client().create_bucket(Bucket=bucket)
    return Secrets.model_construct(
        r2_endpoint_url=server.endpoint, r2_bucket_name=bucket, r2_access_key_id=SecretStr(server.access_key),
        r2_secret_access_key=SecretStr(server.secret_key),
    )  # fmt: skip


CONFIG = Config.model_validate({"store": {"prefix": "vault"}})


@pytest.fixture
def uploaded(server: Server, secrets: Secrets, recording: Recording) -> Layout:
    """Two archived hours, all of whose files and manifests are in the bucket."""
    for hour, first in ((HOUR_10, 0), (HOUR_11, 100)):
        receipt = recording.seal(hour, "a", {"trade": trades(first, hour, 40)})
        recording.archive(hour, "trade", trades(first, hour, 40), [receipt])
    client = server.client()
    for path in recording.layout.archive.rglob("*"):
        if path.is_file():
            key = f"vault/{path.relative_to(recording.layout.archive).as_posix()}"
            client.put_object(Bucket=secrets.r2_bucket_name, Key=key, Body=path.read_bytes())
    return recording.layout


def of_bucket(secrets: Secrets) -> Vault:
    return depthvault.open(f"s3://{secrets.r2_bucket_name}/vault", config=CONFIG, secrets=secrets)


COUNT = "SELECT count(*), min(trade_id), max(trade_id), sum(price::DECIMAL(18, 4)) FROM trade"


def test_a_bucket_gives_the_same_answer_as_the_directory(uploaded: Layout, secrets: Secrets, vault: Vault) -> None:
    local = vault.sql(COUNT).fetchall()
    assert local[0][0] == 80
    assert of_bucket(secrets).sql(COUNT).fetchall() == local
    rows = of_bucket(secrets).trade("binance_spot", "BTCUSDT", HOUR_11, HOUR_11 + timedelta(hours=1)).read_all()
    assert rows.column("trade_id").to_pylist() == list(range(100, 140))


def test_files_that_were_cleaned_up_here_come_from_the_bucket(uploaded: Layout, secrets: Secrets) -> None:
    key = Layout.hour_key("binance_spot", "trade", uploaded.period_of(HOUR_10), 1)
    uploaded.archived(key).unlink()
    vault = depthvault.open(uploaded.root, config=CONFIG, secrets=secrets)
    assert vault.sql(COUNT).fetchall()[0][:3] == (80, 0, 139)
    assert [file.location[:5] for file in vault.catalog.sources.files().archived] == ["s3://", str(uploaded.root)[:5]]


def test_only_the_archives_own_objects_can_be_read(
    server: Server, uploaded: Layout, secrets: Secrets, capsys: pytest.CaptureFixture[str]
) -> None:
    server.client().put_object(Bucket=secrets.r2_bucket_name, Key="private.csv", Body=b"a\n42\n")
    vault = of_bucket(secrets)
    query.run(vault, COUNT, "csv")
    assert capsys.readouterr().out.splitlines()[1].startswith("80,0,139,")
    for source in (f"'s3://{secrets.r2_bucket_name}/private.csv'", f"'s3://{secrets.r2_bucket_name}/vault/*/*'"):
        with pytest.raises(UsageError):
            query.run(vault, f"SELECT * FROM trade, {source}")


def test_no_key_is_ever_shown(server: Server, uploaded: Layout, secrets: Secrets) -> None:
    vault = of_bucket(secrets)
    shown = [repr(vault), repr(vault.catalog), repr(secrets)]
    for sql in ("FROM duckdb_secrets()", "FROM duckdb_settings()", "FROM duckdb_logs()", "FROM duckdb_views()"):
        connection = query.statement.execute(vault.catalog, f"SELECT *, (SELECT count(*) FROM trade) {sql}")
        shown.append(str(connection.fetchall()))
    wrong = secrets.model_copy(update={"r2_secret_access_key": SecretStr("wrong" * 8)})
    with pytest.raises(DepthvaultError) as caught:
        of_bucket(wrong).sql(COUNT).fetchall()
    shown.append(str(caught.value))
    for text in shown:
        assert server.secret_key not in text
        assert "wrongwrong" not in text


def test_missing_keys_are_one_clear_line(no_secrets: Secrets) -> None:
    with pytest.raises(ConfigError, match="R2_ACCESS_KEY_ID"):
        depthvault.open("s3://bucket/vault", config=CONFIG, secrets=no_secrets)
