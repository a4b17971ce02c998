"""What an earlier recorder wrote comes in with every value, marked and unproved; nothing is made up."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import depthvault
from depthvault.archive import log
from depthvault.archive.cleanup import cleanup_with
from depthvault.archive.compact import compact
from depthvault.archive.publish import publish_with
from depthvault.archive.staging import Unit
from depthvault.archive.store import Store
from depthvault.archive.verify import verify
from depthvault.config import Config, Secrets, load_config
from depthvault.errors import ArchiveError, ConfigError, UsageError
from depthvault.imports import Imported, Options
from depthvault.imports.run import import_with

from ...docs.pages import run
from ..archive.sealed import FUTURES, HOUR, Host, chain
from . import earlier
from .earlier import START, s0, s0_rows, s1, s1_diffs, s1_snapshots, s2_all, us

SPOT = "binance_spot"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "vault").mkdir()
    return load_config(None, data_dir=tmp_path / "vault")


def bring(
    config: Config, root: Path, how: str, exchange: str = SPOT, store: Store | None = None, **options: Any
) -> Imported:
    return import_with(config.layout, config, store, root, how, exchange, Options(**options))


def ask(config: Config, sql: str) -> list[tuple[Any, ...]]:
    vault = depthvault.open(config.data_dir, config=config, secrets=Secrets(_env_file=None))  # type: ignore[call-arg]
    return vault.sql(sql).fetchall()


def held(config: Config) -> dict[str, bytes]:
    root = config.layout.archive
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_s0_events_keep_their_values_and_have_no_invented_first_id(tmp_path: Path, config: Config) -> None:
    s0(tmp_path / "orderbook_data")
    done = bring(config, tmp_path / "orderbook_data", "s0")
    assert (done.rows, done.files, done.inexact) == (3, 1, 0)
    assert ask(
        config,
        "SELECT exchange, symbol, instance, source, received_time, event_time, first_update_id, final_update_id, "
        "prev_final_update_id, is_snapshot, bid_prices, bid_sizes, ask_prices, ask_sizes FROM depth_diff "
        "ORDER BY final_update_id LIMIT 1 OFFSET 1",
    ) == [
        (SPOT, "BTCUSDT", "import", "import", START + timedelta(seconds=1, microseconds=123456), None, None, 1010, None,
         False, [43000.0, 42999.1], [0.5, 1.2], [43001.0], [0.8]),
    ]  # fmt: skip


def test_files_whose_name_tells_another_venue_are_left_alone(tmp_path: Path, config: Config) -> None:
    s0(tmp_path / "old")
    s0(tmp_path / "old", exchange="lighter", symbol="market1")
    name = "lighter/market1/lighter_orderbook_market1_2024_01_01_12.parquet"
    assert bring(config, tmp_path / "old", "s0").left == {name: "belongs to lighter"}


def test_s0_times_without_offset_are_read_in_the_time_zone_that_the_user_names(tmp_path: Path, config: Config) -> None:
    s0(tmp_path / "old")
    bring(config, tmp_path / "old", "s0", timezone=ZoneInfo("Asia/Taipei"))
    [(first,)] = ask(config, "SELECT min(received_time) FROM depth_diff")
    assert first == START - timedelta(hours=8) + timedelta(microseconds=123456)


def test_s0_states_are_tops_of_the_book(tmp_path: Path, config: Config) -> None:
    s0(tmp_path / "old")
    bring(config, tmp_path / "old", "s0", states=True, levels=5)
    rows = ask(config, "SELECT final_update_id, first_update_id, levels, is_snapshot FROM depth_partial ORDER BY 1")
    assert rows == [(1000 + 10 * n, 1000 + 10 * n, 5, True) for n in range(3)]


def test_a_book_over_s0_changes_says_that_its_chain_is_not_proved(tmp_path: Path, config: Config) -> None:
    s1(tmp_path, "orderbooks", s1_snapshots((1000,)))
    s0(tmp_path / "old", s0_rows(first=1005))
    bring(config, tmp_path / "data", "s1")
    bring(config, tmp_path / "old", "s0")
    vault = depthvault.open(config.data_dir, config=config, secrets=Secrets(_env_file=None))  # type: ignore[call-arg]
    book = vault.book(SPOT, "BTCUSDT", START + timedelta(minutes=5))
    assert book.provenance.gap_crossed
    [(crossed,)] = ask(
        config, "SELECT DISTINCT gap_crossed FROM book_at('binance_spot', 'BTCUSDT', '2024-01-01 12:05:00Z')"
    )
    assert crossed


def test_s1_days_come_in_as_diffs_partials_and_snapshots(tmp_path: Path, config: Config) -> None:
    s1(tmp_path, "diff_orderbooks", s1_diffs() + s1_diffs(2, "ETHUSDT"))
    s1(tmp_path, "partial_orderbooks", s1_diffs(2))
    s1(tmp_path, "orderbooks", s1_snapshots((110, 120)))
    s1(tmp_path, "diff_orderbooks", s1_diffs(), market="futures")
    done = bring(config, tmp_path / "data", "s1")
    assert done.left == {"futures/diff_orderbooks/2024-01-01.parquet": "belongs to binance_futures"}
    assert {(e.kind, e.channel, e.condition, e.counts.rows) for e in done.entries} == {
        ("import", "depth_diff", "imported", 6), ("import", "depth_partial", "imported", 2),
        ("import", "depth_snapshot", "imported", 2),
    }  # fmt: skip
    [row] = ask(
        config,
        "SELECT received_time, event_time, first_update_id, bid_sizes, ask_prices FROM depth_diff "
        "WHERE symbol = 'BTCUSDT' AND final_update_id = 120",
    )
    received = START + timedelta(seconds=1, milliseconds=7)
    assert row == (received, START + timedelta(seconds=1), 111, [2.0, 0.0], [100.5])
    [row] = ask(
        config, 'SELECT request_time, received_time, "limit", bid_prices FROM depth_snapshot WHERE last_update_id = 120'
    )
    assert row == (START + timedelta(seconds=1.4), START + timedelta(seconds=1.5), 1000, [100.0, 99.0])


def test_a_book_is_rebuilt_from_s1_snapshots_and_changes(tmp_path: Path, config: Config) -> None:
    s1(tmp_path, "diff_orderbooks", s1_diffs(4))
    s1(tmp_path, "orderbooks", s1_snapshots((110,)))
    bring(config, tmp_path / "data", "s1")
    vault = depthvault.open(config.data_dir, config=config, secrets=Secrets(_env_file=None))  # type: ignore[call-arg]
    book = vault.book(SPOT, "BTCUSDT", START + timedelta(minutes=1))
    assert not book.provenance.gap_crossed
    assert book.bids()[0] == (100.0, 4.0)


def test_s2_files_come_in_as_what_they_are(tmp_path: Path, config: Config) -> None:
    s2_all(tmp_path / "old")
    done = bring(config, tmp_path / "old", "s2")
    assert done.files == 5
    at = START + timedelta(milliseconds=250)
    assert ask(config, "SELECT * EXCLUDE (received_time) FROM kline") == [
        (SPOT, None, "BTCUSDT", "import", "import", "1m", START, START + timedelta(milliseconds=59_999), 1.0, 2.5, 0.5,
         2.0, Decimal("12345678901.12345678"), Decimal("9.50000000"), 42, None, None)
    ]  # fmt: skip
    assert ask(config, "SELECT agg_trade_id, first_trade_id, last_trade_id, price, quantity, is_buyer_maker "
                       "FROM agg_trade ORDER BY 1") == [
        (n, 2 * n, 2 * n + 1, 43000.12345678, 0.1, n % 2 == 0) for n in (7, 8, 11)]  # fmt: skip
    assert ask(config, "SELECT exchange, side, price, quantity, trade_id, received_time FROM liquidation") == [
        (FUTURES, "SELL", 42000.0, 0.014, None, at)]  # fmt: skip
    assert ask(config, "SELECT exchange, funding_rate, next_funding_time, mark_price FROM mark_price") == [
        (FUTURES, -0.0001, START + timedelta(hours=4), None)]  # fmt: skip
    assert ask(config, "SELECT levels, final_update_id, bid_prices, ask_sizes FROM depth_partial LIMIT 1") == [
        (20, 500, [43000.1, 43000.0], [0.00001])]  # fmt: skip


def test_every_imported_day_is_declared_unprovable_and_missing_ids_are_lost(tmp_path: Path, config: Config) -> None:
    s2_all(tmp_path / "old")
    s1(tmp_path, "diff_orderbooks", s1_diffs(5, skip=range(2, 3)))
    bring(config, tmp_path / "old", "s2")
    bring(config, tmp_path / "data", "s1")
    rows = ask(config, "SELECT channel, status, cause, instance, last_id, first_id FROM gaps ORDER BY 1, 2 DESC")
    unproved = [("unprovable", "unknown", "import", None, None)]
    assert rows == [
        ("agg_trade", *unproved[0]), ("agg_trade", "lost", "unknown", "import", 8, 11),
        ("depth_diff", *unproved[0]), ("depth_diff", "lost", "unknown", "import", 120, 131),
        *((channel, *unproved[0]) for channel in ("depth_partial", "kline", "liquidation", "mark_price")),
    ]  # fmt: skip


def test_changes_of_futures_without_pu_prove_no_chain_and_are_no_loss_either(tmp_path: Path, config: Config) -> None:
    s1(tmp_path, "diff_orderbooks", s1_diffs(5, skip=range(2, 3)), market="futures")
    bring(config, tmp_path / "data", "s1", FUTURES)
    [(status, detail)] = ask(config, "SELECT status, detail FROM gaps")
    assert status == "unprovable"
    assert json.loads(detail)["why"] == "no ids that prove a chain"


def test_a_second_run_changes_no_byte(tmp_path: Path, config: Config) -> None:
    s2_all(tmp_path / "old")
    bring(config, tmp_path / "old", "s2")
    before = held(config)
    again = bring(config, tmp_path / "old", "s2")
    assert not again.entries
    assert len(again.known) == 5
    assert held(config) == before
    assert verify(config.layout, deep=True).ok


def test_a_second_file_of_a_day_makes_a_new_generation_of_its_symbol_alone(tmp_path: Path, config: Config) -> None:
    s1(tmp_path, "diff_orderbooks", s1_diffs(2) + s1_diffs(2, "ETHUSDT"))
    bring(config, tmp_path / "data", "s1")
    s1(tmp_path, "diff_orderbooks", s1_diffs(4), name="2024-01-01b")
    done = bring(config, tmp_path / "data", "s1")
    [entry] = done.entries
    assert (entry.generation, entry.counts.duplicates, entry.counts.rows) == (2, 2, 4)
    current = sorted(path for path in log.load(config.layout).files if path.startswith("import/exchange"))
    assert [path[-21:] for path in current] == ["date=2024-01-01.g2.parquet"[-21:], "date=2024-01-01.g1.parquet"[-21:]]
    assert ask(config, "SELECT symbol, count(*) FROM depth_diff GROUP BY 1 ORDER BY 1") == [
        ("BTCUSDT", 4),
        ("ETHUSDT", 2),
    ]
    assert ask(config, "SELECT symbol, count(*) FROM gaps GROUP BY 1 ORDER BY 1") == [("BTCUSDT", 1), ("ETHUSDT", 1)]
    assert verify(config.layout, deep=True).ok


def test_the_same_key_with_another_payload_is_told_with_both(tmp_path: Path, config: Config) -> None:
    other = s1_diffs(2)
    other[1]["bid_sizes"] = [77.0, 0.0]
    s1(tmp_path, "diff_orderbooks", s1_diffs(2), name="a")
    s1(tmp_path, "diff_orderbooks", other, name="b")
    done = bring(config, tmp_path / "data", "s1")
    [entry] = done.entries
    assert (done.conflicts, entry.counts.duplicates, entry.counts.rows) == (1, 1, 2)
    assert json.loads(entry.conflicts[0].kept)["bid_sizes"] == [2.0, 0.0]
    assert json.loads(entry.conflicts[0].other)["bid_sizes"] == [77.0, 0.0]


def test_a_day_is_cut_at_midnight_by_the_venues_time(tmp_path: Path, config: Config) -> None:
    midnight = (datetime(2024, 1, 2, tzinfo=UTC) - START).total_seconds()
    s1(tmp_path, "diff_orderbooks", s1_diffs(4, start=midnight - 2))
    done = bring(config, tmp_path / "data", "s1")
    assert [(e.period, e.counts.rows) for e in done.entries] == [("20240101T0000", 2), ("20240102T0000", 2)]


def broken(change: dict[str, Any]) -> Any:
    rows = s0_rows(2)
    rows[1] |= change
    return rows


@pytest.mark.parametrize(
    ("change", "column", "says"),
    [
        ({"sequence_id": 0}, "sequence_id", "no id of a venue"),
        ({"bids": [["43000.00"]]}, "bids", "not [price, size]"),
        ({"bids": [["43000.00", "x"]]}, "bids", "no number"),
        ({"asks": [["-1", "2"]]}, "asks", "below zero"),
        ({"asks": [["nan", "2"]]}, "asks", "not finite"),
        ({"timestamp": "yesterday"}, "timestamp", "no time"),
        ({"symbol": None}, "symbol", "no value"),
        ({"exchange": "binance_futures"}, "exchange", "says binance_futures"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_file_and_column_and_nothing_is_published(
    tmp_path: Path, config: Config, change: dict[str, Any], column: str, says: str
) -> None:
    s0(tmp_path / "old", symbol="AAA")
    s0(tmp_path / "old", broken(change))
    name = "binance_spot_orderbook_BTCUSDT_2024_01_01_12.parquet"
    with pytest.raises(ArchiveError, match=rf"{name}: column {column}: .*{says.replace('[', r'.')}"):
        bring(config, tmp_path / "old", "s0")
    assert not config.layout.manifests.exists()


@pytest.mark.parametrize(("how", "column"), [("s0", "sequence_id"), ("s1", "final_update_id"), ("s2", "trade_id")])
def test_a_missing_column_is_named(tmp_path: Path, config: Config, how: str, column: str) -> None:
    if how == "s0":
        path = s0(tmp_path / "old", [{k: v for k, v in row.items() if k != column} for row in s0_rows()])
    elif how == "s1":
        path = earlier._pandas(tmp_path / "diff_orderbooks" / "2024-01-01.parquet", [
            {k: v for k, v in row.items() if k != column} for row in s1_diffs()])  # fmt: skip
    else:
        path = earlier._pandas(tmp_path / "BTCUSDT_trade_20240101_1200.parquet", [
            {"symbol": "BTCUSDT", "price": "1", "recv_time": 1704110400.5, "trade_time": 1704110400000}])  # fmt: skip
    with pytest.raises(ArchiveError, match=f"{path.name}: column {column}: the layout has it, this file does not"):
        bring(config, path, how)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, config: Config) -> None:
    path = s0(tmp_path / "old")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ArchiveError, match=f"{path.name}: cannot be read as Parquet"):
        bring(config, tmp_path / "old", "s0")


def test_numbers_that_a_double_rounds_are_counted(tmp_path: Path, config: Config) -> None:
    s0(tmp_path / "old", broken({"bids": [["0.1234567890123456789", "1000000000000000"]]}))
    assert bring(config, tmp_path / "old", "s0").inexact == 1


def test_a_path_without_such_files_is_bad_use(tmp_path: Path, config: Config) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(UsageError, match="no file of layout s2"):
        bring(config, tmp_path / "old", "s2")
    with pytest.raises(UsageError, match="no such file"):
        bring(config, tmp_path / "nothing", "s2")


def recorded_host(tmp_path: Path) -> Host:
    host = Host(tmp_path / "vault")
    host.seal("a", {"depth_diff": [event.row("a") for event in chain(3)]})
    return host


def beside(tmp_path: Path) -> None:
    """An earlier recorder's changes: two in the hour that the host recorded, two in the hour before."""
    hour = (HOUR.start - START).total_seconds()
    s1(tmp_path, "diff_orderbooks", s1_diffs(4, start=hour - 2), market="futures")


def test_periods_that_were_recorded_here_take_no_imported_rows(tmp_path: Path) -> None:
    host = recorded_host(tmp_path)
    compact(host.layout, host.config, FUTURES, HOUR)
    publish_with(host.layout, None, Unit(FUTURES, HOUR))
    beside(tmp_path)
    done = bring(host.config, tmp_path / "data", "s1", FUTURES)
    assert (done.rows, done.recorded) == (2, 2)
    assert "2 rows left out" in done.entries[0].note
    rows = ask(host.config, "SELECT source, count(*) FROM depth_diff GROUP BY 1 ORDER BY 1")
    assert rows == [("import", 2), ("stream", 3)]


def test_a_period_that_is_recorded_but_not_archived_yet_comes_first(tmp_path: Path) -> None:
    host = recorded_host(tmp_path)
    beside(tmp_path)
    with pytest.raises(ArchiveError, match="is not archived yet: seal, compact and publish it, then import"):
        bring(host.config, tmp_path / "data", "s1", FUTURES)


def test_imports_go_to_the_store_and_are_proved_there(tmp_path: Path, config: Config, store: Store) -> None:
    s1(tmp_path, "diff_orderbooks", s1_diffs())
    bring(config, tmp_path / "data", "s1", store=store)
    assert verify(config.layout, store).ok


def test_symbols_can_be_renamed_to_the_venues_own(tmp_path: Path, config: Config) -> None:
    s0(tmp_path / "old", s0_rows(exchange="lighter", symbol="market1"), "lighter", "market1")
    bring(config, tmp_path / "old", "s0", "lighter", rename={"market1": "BTC"})
    assert ask(config, "SELECT DISTINCT symbol FROM depth_diff") == [("BTC",)]


def test_microsecond_receipts_stay_exact(tmp_path: Path, config: Config) -> None:
    s1(tmp_path, "diff_orderbooks", [s1_diffs(1)[0] | {"received_time": us(0) + 123_457}])
    bring(config, tmp_path / "data", "s1")
    assert ask(config, "SELECT received_time FROM depth_diff") == [(START + timedelta(microseconds=123_457),)]


def test_a_run_that_was_killed_on_its_way_is_completed_by_the_next(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    s2_all(tmp_path / "old")
    whole = load_config(None, data_dir=tmp_path / "whole")
    bring(whole, tmp_path / "old", "s2")
    append, calls = log.append, []

    def killed(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return append(*arguments)

    monkeypatch.setattr(log, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        bring(config, tmp_path / "old", "s2")
    monkeypatch.setattr(log, "append", append)
    assert log.load(config.layout).number == 2
    assert len(bring(config, tmp_path / "old", "s2").entries) == 3
    assert log.load(config.layout).files == log.load(whole.layout).files
    assert verify(config.layout, deep=True).ok


def test_a_day_that_only_the_store_still_has_is_fetched_to_be_added_to(
    tmp_path: Path, config: Config, store: Store
) -> None:
    s1(tmp_path, "diff_orderbooks", s1_diffs(2))
    bring(config, tmp_path / "data", "s1", store=store)
    cleaned = cleanup_with(config.layout, config, store, now=START + timedelta(days=30))
    assert len(cleaned.archived) == 2
    s1(tmp_path, "diff_orderbooks", s1_diffs(4), name="2024-01-01b")
    done = bring(config, tmp_path / "data", "s1", store=store)
    assert (done.entries[0].counts.rows, done.entries[0].counts.duplicates) == (4, 2)
    assert verify(config.layout, store, deep=True).ok


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--exchange nasdaq", "no exchange 'nasdaq'"),
        ("--exchange lighter --rename market1", "OLD=NEW"),
        ("--exchange lighter --rename a=b --rename a=c", "OLD=NEW"),
        ("--exchange lighter --timezone Taipei", "no time zone 'Taipei'"),
    ],
)
def test_bad_use_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    s0(tmp_path / "old")
    result = run(f"depthvault import old --layout s0 {options}")
    assert isinstance(result.exception, UsageError | ConfigError)
    assert says in str(result.exception)
    assert not (tmp_path / "data").exists()
