"""Iceberg tables show exactly the files that the manifests say are current, to pyiceberg and to DuckDB."""

from __future__ import annotations

from datetime import date, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pydantic import SecretStr
from pyiceberg.table import Table

from depthvault.archive import log
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.archive.rollup import rollup_with
from depthvault.archive.staging import Unit
from depthvault.archive.store import Store
from depthvault.archive.verify import verify
from depthvault.config import Secrets
from depthvault.errors import ArchiveError, ConfigError
from depthvault.iceberg import Synced, sync
from depthvault.iceberg.catalog import open_catalog, properties
from depthvault.iceberg.sync import schema_of
from depthvault.imports.run import import_with
from depthvault.schemas import CHANNELS

from ..archive.sealed import FUTURES, HOUR, Host, chain, trade_rows
from ..archive.seaweed import Server
from ..imports.earlier import s1, s1_diffs, s2_all

NOBODY = Secrets(_env_file=None)  # type: ignore[call-arg]
DAY = date(2026, 11, 20)
SYMBOLS = ("BTCUSDT", "币安人生USDT")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "vault")


def archive(host: Host, hours: range = range(2), store: Store | None = None) -> None:
    period = HOUR
    for hour in range(hours.stop):
        if hour in hours:
            events = [
                event.row("a", base=period) for s in SYMBOLS for event in chain(5, first=100 + 50 * hour, symbol=s)
            ]
            host.seal("a", {"depth_diff": events, "agg_trade": trade_rows([hour + 1], "a")}, period=period)
        period = period.next()
    while units := ready_units(host.layout, host.config, FUTURES):
        compact(host.layout, host.config, FUTURES, units[0].period, store)
        publish_with(host.layout, store, Unit(FUTURES, units[0].period))


def roll(host: Host, store: Store | None = None) -> None:
    rollup_with(host.layout, host.config, store, FUTURES, DAY, now=lambda: HOUR.start + timedelta(days=2))


def table(host: Host, channel: str = "depth_diff", secrets: Secrets = NOBODY) -> Table:
    return open_catalog(host.layout, host.config, secrets).load_table((FUTURES, channel))


def truth(host: Host, channel: str = "depth_diff") -> list[tuple[Any, ...]]:
    """The rows of the current files by the manifests, read without Iceberg."""
    state = log.load(host.layout)
    paths = [str(host.layout.archived(path)) for path, file in state.files.items() if file.table == channel]
    sql = f"SELECT * FROM read_parquet({paths!r}, hive_partitioning = false) ORDER BY ALL"
    return duckdb.sql(sql).fetchall()


def scanned(table: Table) -> list[tuple[Any, ...]]:
    arrow: pa.Table = table.scan().to_arrow()
    assert arrow.num_rows
    return duckdb.sql("SELECT * FROM arrow ORDER BY ALL").fetchall()


def in_duckdb(table: Table) -> list[tuple[Any, ...]]:
    """What DuckDB's own reader of Iceberg finds."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for name in ("avro", "iceberg"):
        package = pytest.importorskip(f"duckdb_extension_{name}")
        path = resources.files(package) / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        connection.execute(f"LOAD '{path}'")
    return connection.execute(f"SELECT * FROM iceberg_scan('{table.metadata_location}') ORDER BY ALL").fetchall()


def test_days_are_registered_and_read_as_they_are_by_pyiceberg_and_duckdb(host: Host) -> None:
    archive(host)
    roll(host)
    assert sync(host.layout, host.config, NOBODY) == [
        Synced(FUTURES, "agg_trade", 1, 2, 1, 0), Synced(FUTURES, "depth_diff", 2, 20, 2, 0)]  # fmt: skip
    assert scanned(table(host)) == truth(host) == in_duckdb(table(host))
    assert verify(host.layout).ok


def test_a_second_run_commits_nothing(host: Host) -> None:
    archive(host)
    roll(host)
    sync(host.layout, host.config, NOBODY)
    before = table(host).metadata_location
    assert [(each.added, each.removed) for each in sync(host.layout, host.config, NOBODY)] == [(0, 0), (0, 0)]
    assert table(host).metadata_location == before


def test_periods_can_be_registered_before_their_day_is_rolled_up_and_leave_when_it_is(host: Host) -> None:
    archive(host, range(1))
    assert sync(host.layout, host.config, NOBODY) == []
    sync(host.layout, host.config, NOBODY, hours=True)
    archive(host, range(1, 2))
    [_, diffs] = sync(host.layout, host.config, NOBODY, hours=True)
    assert (diffs.files, diffs.added, diffs.removed) == (2, 1, 0)
    roll(host)
    [_, diffs] = sync(host.layout, host.config, NOBODY, hours=True)
    assert (diffs.files, diffs.added, diffs.removed, diffs.rows) == (2, 2, 2, 20)
    assert scanned(table(host)) == truth(host) == in_duckdb(table(host))
    operations = [str(snapshot.summary.operation.value) for snapshot in table(host).snapshots() if snapshot.summary]
    assert operations == ["append", "append", "overwrite"]


def test_a_superseded_generation_leaves_the_table(host: Host, tmp_path: Path) -> None:
    s1(tmp_path, "diff_orderbooks", s1_diffs(2), market="futures", name="a")
    import_with(host.layout, host.config, None, tmp_path / "data", "s1", FUTURES)
    sync(host.layout, host.config, NOBODY)
    s1(tmp_path, "diff_orderbooks", s1_diffs(4), market="futures", name="b")
    import_with(host.layout, host.config, None, tmp_path / "data", "s1", FUTURES)
    assert sync(host.layout, host.config, NOBODY) == [Synced(FUTURES, "depth_diff", 1, 4, 1, 1)]
    assert scanned(table(host)) == truth(host)


def test_every_kind_of_column_is_read_as_it_is(host: Host, tmp_path: Path) -> None:
    s2_all(tmp_path / "old")
    import_with(host.layout, host.config, None, tmp_path / "old", "s2", FUTURES)
    tables = sync(host.layout, host.config, NOBODY)
    assert [each.channel for each in tables] == ["agg_trade", "depth_partial", "kline", "liquidation", "mark_price"]
    for each in tables:
        assert scanned(table(host, each.channel)) == truth(host, each.channel) == in_duckdb(table(host, each.channel))


@pytest.mark.parametrize("channel", CHANNELS)
def test_every_channel_can_be_a_table(host: Host, channel: str) -> None:
    catalog = open_catalog(host.layout, host.config, NOBODY)
    catalog.create_namespace("any")
    made = catalog.create_table(("any", channel), schema_of(channel))
    assert [each.name for each in made.schema().fields] == [each.name for each in CHANNELS[channel].columns]
    assert not any(each.required for each in made.schema().fields)


def test_a_snapshot_names_the_manifest_that_it_shows(host: Host) -> None:
    archive(host)
    roll(host)
    sync(host.layout, host.config, NOBODY)
    snapshot = table(host).current_snapshot()
    state = log.load(host.layout)
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary["depthvault.manifest"] == str(state.number)
    assert snapshot.summary["depthvault.sha256"] == state.head


def test_a_filter_on_the_symbol_reads_that_symbols_file_alone(host: Host) -> None:
    archive(host)
    roll(host)
    sync(host.layout, host.config, NOBODY)
    tasks = list(table(host).scan(row_filter="symbol = 'BTCUSDT'").plan_files())
    assert [task.file.file_path.split("/")[-2] for task in tasks] == ["symbol=BTCUSDT"]


def test_a_file_that_is_not_here_is_named_and_nothing_is_committed(host: Host) -> None:
    archive(host)
    roll(host)
    [path] = [path for path in log.load(host.layout).files if "/channel=depth_diff/symbol=BTC" in path]
    host.layout.archived(path).unlink()
    with pytest.raises(ArchiveError, match=f"Iceberg table {FUTURES}.depth_diff: .*{path}"):
        sync(host.layout, host.config, NOBODY)
    assert table(host).current_snapshot() is None


def keys(server: Server, bucket: str) -> Secrets:
    return Secrets(
        _env_file=None, r2_endpoint_url=server.endpoint, r2_access_key_id=SecretStr(server.access_key),  # type: ignore[call-arg]
        r2_secret_access_key=SecretStr(server.secret_key), r2_bucket_name=bucket,
    )  # fmt: skip


def test_a_rest_catalog_holds_tables_over_the_store(host: Host, store: Store, server: Server, bucket: str) -> None:
    host.options |= {
        "store": {"prefix": "vault", "region": "us-east-1"},
        "iceberg": {
            "uri": server.catalog, "warehouse": "s3://tables",
            "properties": {"rest.sigv4-enabled": "true", "rest.signing-region": "us-east-1"},
        },
    }  # fmt: skip
    archive(host, range(1), store)
    secrets = keys(server, bucket)
    sync(host.layout, host.config, secrets, hours=True)
    archive(host, range(1, 2), store)
    roll(host, store)
    [_, diffs] = sync(host.layout, host.config, secrets)
    assert (diffs.files, diffs.added, diffs.removed, diffs.rows) == (2, 2, 1, 20)
    assert [(each.added, each.removed) for each in sync(host.layout, host.config, secrets)] == [(0, 0), (0, 0)]
    assert scanned(table(host, secrets=secrets)) == truth(host)


def test_tables_over_the_store_name_its_objects(host: Host, store: Store, server: Server, bucket: str) -> None:
    archive(host, store=store)
    roll(host, store)
    host.options["store"] = {"prefix": "vault"}
    secrets = keys(server, bucket)
    sync(host.layout, host.config, secrets)
    tasks = list(table(host, secrets=secrets).scan().plan_files())
    assert {task.file.file_path.split("/day/")[0] for task in tasks} == {f"s3://{bucket}/vault"}
    assert scanned(table(host, secrets=secrets)) == truth(host)
    assert verify(host.layout, store).ok


def test_asking_for_the_store_without_one_is_a_wrong_configuration(host: Host) -> None:
    host.options["iceberg"] = {"files": "store"}
    with pytest.raises(ConfigError, match="no object store"):
        sync(host.layout, host.config, NOBODY)


def test_a_rest_catalog_that_does_not_answer_is_one_clear_error(host: Host) -> None:
    host.options["iceberg"] = {"uri": "http://127.0.0.1:9/catalog", "warehouse": "w"}
    archive(host)
    roll(host)
    with pytest.raises(ArchiveError, match=r"http://127.0.0.1:9/catalog: cannot be opened"):
        sync(host.layout, host.config, NOBODY)


def test_a_rest_catalogs_token_comes_from_the_environment(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICEBERG_TOKEN", "t0ken")
    host.options["iceberg"] = {"uri": "https://catalog.example/x", "warehouse": "account_bucket"}
    given = properties(host.layout, host.config, Secrets(_env_file=None))  # type: ignore[call-arg]
    assert (given["type"], given["uri"], given["warehouse"], given["token"]) == (
        "rest", "https://catalog.example/x", "account_bucket", "t0ken")  # fmt: skip
