"""Somebody who may type SQL may read the archive, and nothing else."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from depthvault import query
from depthvault.errors import UsageError
from depthvault.query import Vault

from .recording import HOUR_10, Recording, diff, table, trades


@pytest.fixture
def filled(vault: Vault, recording: Recording) -> Vault:
    recording.seal(HOUR_10, "a", {"trade": trades(0, HOUR_10, 150)})
    return vault


def ask(vault: Vault, sql: str, format: query.Format = "csv", **options: object) -> str:
    out = io.StringIO()
    query.run(vault, sql, format, out=out, **options)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM trade",
        "FROM trade LIMIT 1",
        "WITH t AS (FROM trade) SELECT count(*) FROM t;",
        "(SELECT 1)",
        "-- how many\nSELECT count(*) FROM trade",
        "/* how many */ SELECT count(*) FROM trade",
        "VALUES (1)",
        "DESCRIBE trade",
        "SHOW TABLES",
        "SUMMARIZE trade",
        "EXPLAIN SELECT * FROM trade",
        "PIVOT trade ON instance USING count(*) GROUP BY symbol",
    ],
)
def test_reading_is_allowed(filled: Vault, sql: str) -> None:
    assert ask(filled, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO trade SELECT * FROM trade",
        "CREATE TABLE x (i INTEGER)",
        "DROP VIEW trade",
        "/* SELECT */ DROP VIEW trade",
        "UPDATE trade SET price = 0",
        "DELETE FROM trade",
        "SELECT 1; SELECT 2",
        "PIVOT trade ON instance USING count(*); DROP VIEW trade",
        "SELECT 1 /* pivot */; DROP VIEW trade",
        "COPY trade TO 'out.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'out.csv'",
        "EXPORT DATABASE 'out'",
        "ATTACH 'other.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 1",
        "PRAGMA version",
        "CALL pragma_version()",
        "CHECKPOINT",
        "SET allowed_paths = ['/etc/passwd']",
        "RESET lock_configuration",
        "",
        ";",
        "SELEC 1",
    ],
)
def test_anything_else_is_one_clear_line(
    filled: Vault, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError) as caught:
        ask(filled, sql)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "source",
    [
        "read_csv('{other}')",
        "read_text('{other}')",
        "read_blob('{other}')",
        "'{other}'",
        "glob('{folder}/*')",
        "read_text('/proc/self/environ')",
        "sniff_csv('{other}')",
        "parquet_metadata('{live}x')",
        "read_json('http://127.0.0.1:1/x')",
        "read_parquet('s3://bucket/key')",
        "duckdb_secrets(redact=false)",
        "sqlite_scan('{other}', 't')",
    ],
)
def test_no_other_file_can_be_read(filled: Vault, tmp_path: Path, source: str) -> None:
    other = tmp_path / "private.csv"
    other.write_text("secret\n42\n")
    live = next(filled.catalog.sources.layout.live.rglob("*.parquet"))  # type: ignore[attr-defined]
    with pytest.raises(UsageError) as caught:
        ask(filled, f"SELECT * FROM {source.format(other=other, folder=tmp_path, live=live)}")
    assert "\n" not in str(caught.value)
    assert "42" not in str(caught.value)


def test_variables_of_the_program_cannot_be_read(filled: Vault) -> None:
    private = table("trade", [])  # noqa: F841 - would be found by DuckDB's replacement scans
    with pytest.raises(UsageError, match="private"):
        ask(filled, "SELECT * FROM private")


def test_a_wrong_name_is_answered_with_a_suggestion(filled: Vault) -> None:
    with pytest.raises(UsageError, match=r'trades does not exist! Did you mean "trade"'):
        ask(filled, "SELECT * FROM trades")
    with pytest.raises(UsageError, match=r'"prise" not found.*"price"'):
        ask(filled, "SELECT prise FROM trade")


def test_an_error_while_rows_are_read_is_one_line_too(filled: Vault) -> None:
    with pytest.raises(UsageError, match="cast") as caught:
        ask(filled, "SELECT symbol::INTEGER FROM trade")
    assert "\n" not in str(caught.value)


def test_csv_has_every_row_and_every_digit(filled: Vault) -> None:
    rows = list(csv.DictReader(io.StringIO(ask(filled, "SELECT * FROM trade ORDER BY trade_id"))))
    assert len(rows) == 150
    assert rows[0]["received_time"] == "2026-11-20T10:00:00.007000Z"
    assert [float(row["price"]) for row in rows[:2]] == [60000.1, 60001.1]


def test_json_is_one_object_a_line_with_lists_as_lists(vault: Vault, recording: Recording) -> None:
    row = diff(1, 2, HOUR_10, [(60000.1, 0.0)], [])
    recording.seal(HOUR_10, "a", {"depth_diff": table("depth_diff", [row])})
    (answer,) = [json.loads(line) for line in ask(vault, "FROM depth_diff", "json").splitlines()]
    assert answer["bid_prices"] == [60000.1]
    assert answer["ask_prices"] == []
    assert answer["prev_final_update_id"] is None


def test_a_table_shows_its_limit_and_says_so(filled: Vault) -> None:
    text = ask(filled, "SELECT trade_id, price FROM trade ORDER BY 1", "table", limit=100)
    assert "the first 100 rows; there are more" in text
    assert ask(filled, "SELECT 1 AS one", "table").splitlines()[-1] == "1 row"


def test_a_table_fits_eighty_columns_and_aligns_numbers(filled: Vault) -> None:
    for sql in (
        "FROM trade LIMIT 3",
        "SELECT symbol, price, (SELECT list(trade_id ORDER BY trade_id) FROM trade) AS ids FROM trade LIMIT 3",
    ):
        out = io.StringIO()
        query.run(filled, sql, out=out, console=Console(file=out, width=80))
        assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "[0, 1, 2, … 150]" in out.getvalue()
    narrow = ask(filled, "SELECT price FROM (VALUES (60000.1), (5.0)) t(price)", "table").splitlines()
    assert narrow[2].rstrip().endswith("60000.1")
    assert narrow[3].rstrip().endswith("      5")


def test_times_are_shown_in_utc_whatever_the_host_thinks(filled: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    text = ask(filled, "SELECT max(received_time) AS last FROM trade", "table")
    last = HOUR_10 + timedelta(seconds=149, milliseconds=7)
    assert f"{last:%Y-%m-%d %H:%M:%S}.007" in text
