"""A saved DuckDB file answers what `depthvault sql` answers over the archive, to tools that know nothing of us."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

import depthvault
from depthvault.archive.compact import compact
from depthvault.archive.publish import publish_with
from depthvault.archive.staging import Unit
from depthvault.config import Secrets
from depthvault.errors import UsageError
from depthvault.query.saved import save_views

from ..archive.sealed import FUTURES, HOUR, Host, chain, trade_rows

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path / "vault")
    add_hour(host, 0)
    return host


def add_hour(host: Host, number: int) -> None:
    period = HOUR
    for _ in range(number):
        period = period.next()
    events = [event.row("a", base=period) for event in chain(5, first=100 + 50 * number)]
    host.seal("a", {"depth_diff": events, "agg_trade": trade_rows([number + 1], "a")}, period=period)
    compact(host.layout, host.config, FUTURES, period)
    publish_with(host.layout, None, Unit(FUTURES, period))


QUERIES = (
    "SELECT * FROM depth_diff ORDER BY ALL",
    "SELECT exchange, symbol, sum(events) FROM coverage GROUP BY ALL ORDER BY ALL",
    "SELECT best_bid(bid_prices), spread_percent(best_bid(bid_prices), best_ask(ask_prices)) FROM depth_diff LIMIT 1",
    "SELECT count(*) FROM top_of_book",
    f"SELECT count(*) FROM top_of_book('{FUTURES}', 'BTCUSDT', '2026-11-20 10:00', '2026-11-20 11:00')",
    f"SELECT * FROM book_at('{FUTURES}', 'BTCUSDT', TIMESTAMPTZ '2026-11-20 11:00:00Z')",
)


@pytest.mark.parametrize("query", QUERIES)
def test_it_answers_what_the_vault_answers(host: Host, tmp_path: Path, query: str) -> None:
    saved = save_views(host.layout, tmp_path / "archive.duckdb", NOW)
    vault = depthvault.open(host.root, config=host.config, secrets=Secrets(_env_file=None))  # type: ignore[call-arg]
    with duckdb.connect(str(saved.path), read_only=True) as connection:
        assert connection.execute(query).fetchall() == vault.sql(query).fetchall()


def test_it_says_what_it_shows_and_holds_no_rows_itself(host: Host, tmp_path: Path) -> None:
    saved = save_views(host.layout, tmp_path / "archive.duckdb", NOW)
    with duckdb.connect(str(saved.path), read_only=True) as connection:
        about = connection.execute("SELECT manifest, files, made_time FROM depthvault_archive").fetchall()
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    assert about == [(saved.manifest, saved.files, NOW)]
    assert tables == [("depthvault_archive",)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.duckdb", "vault"]


def test_made_again_it_shows_what_was_archived_since(host: Host, tmp_path: Path) -> None:
    save_views(host.layout, tmp_path / "archive.duckdb", NOW)
    add_hour(host, 1)
    save_views(host.layout, tmp_path / "archive.duckdb", NOW + timedelta(hours=1))
    with duckdb.connect(str(tmp_path / "archive.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM depth_diff").fetchone() == (10,)


def test_a_file_of_somebody_else_is_left_alone(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "theirs.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE precious AS SELECT 1 AS x")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is there and is no file that this command made"):
        save_views(host.layout, path, NOW)
    assert path.read_bytes() == before


def test_files_that_only_the_store_has_are_left_out_and_counted(host: Host, tmp_path: Path) -> None:
    add_hour(host, 1)
    [first, _] = sorted(host.layout.archive.rglob("channel=depth_diff/date=*/*.parquet"))[:2]
    first.unlink()
    saved = save_views(host.layout, tmp_path / "archive.duckdb", NOW)
    assert saved.absent == 1
    with duckdb.connect(str(saved.path), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM depth_diff").fetchone() == (5,)
