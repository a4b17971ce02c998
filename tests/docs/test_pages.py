"""What the pages on importing, restoring, Iceberg and DuckDB files tell people to type does what they say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from importlib import resources
from pathlib import Path

import duckdb
import pytest

from depthvault.archive import log
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.archive.rollup import rollup_with
from depthvault.archive.staging import Unit
from depthvault.archive.store import Store

from ..depthvault.archive.conftest import make_store
from ..depthvault.archive.sealed import FUTURES, HOUR, Host, chain, trade_rows
from ..depthvault.archive.seaweed import Server, running, weed_program
from ..depthvault.imports.earlier import s0, s1, s1_diffs, s1_snapshots, s2_all
from .pages import blocks, commands, run, works

SECRETS = ("R2_ENDPOINT_URL", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "R2_BUCKET_NAME", "ICEBERG_TOKEN")


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to type in, without keys or configuration."""
    for name in (*SECRETS, "DEPTHVAULT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if weed_program() is None:
        pytest.skip("SeaweedFS is not installed (extra `servers`)")
    with running(tmp_path_factory.mktemp("seaweed")) as running_server:
        yield running_server


def archive(root: Path, store: Store | None = None) -> Host:
    host, period = Host(root), HOUR
    for hour in range(2):
        events = [event.row("a", base=period) for event in chain(5, first=100 + 50 * hour)]
        host.seal("a", {"depth_diff": events, "agg_trade": trade_rows([hour + 1], "a", base=period)}, period=period)
        period = period.next()
    while units := ready_units(host.layout, host.config, FUTURES):
        compact(host.layout, host.config, FUTURES, units[0].period, store)
        publish_with(host.layout, store, Unit(FUTURES, units[0].period))
    return host


def test_import(desk: Path) -> None:
    s0(desk / "old" / "orderbook_data")
    for market in ("spot", "futures"):
        s1(desk / "old", "diff_orderbooks", s1_diffs(symbol="ETHUSDT"), market)
    s1(desk / "old", "orderbooks", s1_snapshots(symbol="ETHUSDT"))
    s2_all(desk / "old" / "collector")
    said = [works(line) for line in commands("import.md")]
    assert [text.splitlines()[-1] for text in said[:4]] == [
        "1 files, 3 new rows, 1 manifests", "2 files, 5 new rows, 2 manifests", "1 files, 4 new rows, 1 manifests",
        "5 files, 9 new rows, 5 manifests",
    ]  # fmt: skip
    assert "unprovable" in said[4]
    assert "all as recorded" in said[5]
    assert "5 files were imported before" in works(commands("import.md")[3])


def test_iceberg(desk: Path) -> None:
    host = archive(desk / "data")
    rollup_with(host.layout, host.config, None, FUTURES, HOUR.start.date(), now=lambda: HOUR.start + timedelta(days=2))
    said = [works(line) for line in commands("iceberg.md")]
    assert "binance_futures.depth_diff: 1 files, 10 rows; 1 registered, 0 taken out" in said[1]
    python, in_duckdb = blocks("iceberg.md", "python")
    names: dict[str, object] = {}
    exec(python, names)
    assert names["trades"].column("agg_trade_id").to_pylist() == [1, 2]  # type: ignore[attr-defined]
    for extension in ("avro", "iceberg"):
        package = pytest.importorskip(f"duckdb_extension_{extension}")
        path = resources.files(package) / "extensions" / f"v{duckdb.__version__}" / f"{extension}.duckdb_extension"
        duckdb.execute(f"LOAD '{path}'")  # as INSTALL iceberg does, but from the package
    exec(in_duckdb, names)
    assert names["rows"] == (2,)


def test_views(desk: Path) -> None:
    archive(desk / "data")
    [line] = commands("querying.md", "A DuckDB file for other tools")
    assert "as of manifest" in works(line)
    [python] = blocks("querying.md", "python", "A DuckDB file for other tools")
    names: dict[str, object] = {}
    exec(python, names)
    assert names["rows"] == [("BTCUSDT", 2)]


def test_restoring(desk: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.client().create_bucket(Bucket="lost")
    lost = archive(tmp_path / "lost", make_store(server, "lost", prefix=""))
    for name, value in zip(SECRETS, (server.endpoint, server.access_key, server.secret_key, "lost"), strict=False):
        monkeypatch.setenv(name, value)
    (desk / "data").mkdir()
    said = [works(line) for line in commands("restoring.md")]
    assert f"{len(log.load(lost.layout).files)} files fetched and verified" in said[0]
    assert "depth_diff" in said[2]
    # The last two commands, with a file that was damaged.
    host = Host(desk / "data")
    path = next(host.layout.archive.rglob("hour/**/channel=depth_diff/**/*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    named, mended = commands("restoring.md")[-2:]
    assert run(named).exit_code == 1
    assert "1 files fetched and verified" in works(mended)
    assert path.read_bytes() == whole
    works(named)
