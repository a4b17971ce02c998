"""Each event is seen once, wherever it lies, and only files that can matter are read."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from depthvault.cli import app
from depthvault.errors import ArchiveError
from depthvault.query import Vault
from depthvault.query.catalog import TABLES, Catalog, columns, planner
from depthvault.query.sources import LocalSources
from depthvault.schemas import CHANNELS, QUALITY, SCHEMA_VERSION

from .recording import HOUR_10, Recording, diff, table, trades

HOUR_11 = HOUR_10 + timedelta(hours=1)
IDS = "SELECT trade_id FROM trade ORDER BY trade_id"


def ids(vault: Vault) -> list[int]:
    return [row[0] for row in vault.sql(IDS).fetchall()]


def read(vault: Vault, sql: str) -> list[str]:
    """The names of the files that a statement would open."""
    views = vault.catalog.views(planner().scans(sql))
    return sorted(file.location.rsplit("/", 1)[-1] for file in views.files)


def test_an_empty_directory_has_every_view_with_its_columns(vault: Vault) -> None:
    for name in TABLES:
        relation = vault.sql(f"FROM {name}")
        assert relation.fetchall() == []
        schema = CHANNELS[name].schema if name in CHANNELS else QUALITY[name]
        rest = [column for column in schema.names if column != "exchange"]
        assert relation.columns == ["exchange", *rest]
        assert [str(kind) for kind in relation.types] == [
            kind.replace("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE") for _, kind in columns(name)
        ]


def test_a_period_is_counted_once_on_its_way_from_live_to_archive(vault: Vault, recording: Recording) -> None:
    rows = trades(0, HOUR_10, 50)
    receipt = recording.seal(HOUR_10, "a", {"trade": rows})
    assert ids(vault) == list(range(50))
    recording.archive(HOUR_10, "trade", rows, [receipt])
    assert ids(vault) == list(range(50))
    for file in receipt.files:  # cleaned up
        (recording.layout.root / file.path).unlink()
    assert ids(vault) == list(range(50))


def test_two_writers_of_a_live_period_give_each_event_once(vault: Vault, recording: Recording) -> None:
    recording.seal(HOUR_10, "a", {"trade": trades(0, HOUR_10, 50)})
    recording.seal(HOUR_10, "b", {"trade": trades(30, HOUR_10 + timedelta(seconds=30), 50, instance="b")})
    assert ids(vault) == list(range(80))
    shared = vault.sql("SELECT DISTINCT instance FROM trade WHERE trade_id BETWEEN 30 AND 49").fetchall()
    assert shared == [("a",)]


def test_symbols_and_exchanges_with_the_same_ids_are_kept_apart(vault: Vault, recording: Recording) -> None:
    both = pa.concat_tables([trades(0, HOUR_10, 5), trades(0, HOUR_10, 5, symbol="币安人生USDT")])
    recording.seal(HOUR_10, "a", {"trade": both})
    Recording(recording.layout, "lighter").seal(HOUR_10, "a", {"trade": trades(0, HOUR_10, 5, symbol="BTCUSDT")})
    counted = vault.sql("SELECT exchange, symbol, count(*) FROM trade GROUP BY ALL ORDER BY ALL").fetchall()
    assert counted == [("binance_spot", "BTCUSDT", 5), ("binance_spot", "币安人生USDT", 5), ("lighter", "BTCUSDT", 5)]


def test_late_rows_of_an_archived_period_are_added_without_doubling_it(vault: Vault, recording: Recording) -> None:
    first = recording.seal(HOUR_10, "a", {"trade": trades(0, HOUR_10, 50)})
    recording.archive(HOUR_10, "trade", trades(0, HOUR_10, 50), [first])
    straggling = trades(45, HOUR_10 + timedelta(seconds=45), 10)  # five are there already
    second = recording.seal(HOUR_11, "a", {"trade": trades(55, HOUR_11, 5)}, late={HOUR_10: {"trade": straggling}})
    assert ids(vault) == list(range(60))

    whole = trades(0, HOUR_10, 55)
    old = recording.layout.hour_key("binance_spot", "trade", recording.layout.period_of(HOUR_10), 1)
    recording.archive(HOUR_10, "trade", whole, [first, second], generation=2, remove=[old])
    assert ids(vault) == list(range(60))


def test_a_filter_on_receipt_does_not_bring_a_hidden_duplicate_back(vault: Vault, recording: Recording) -> None:
    """`b` received two ms after `a`; asking for b's instant alone must not show the event a second time."""
    recording.seal(HOUR_10, "a", {"trade": trades(0, HOUR_10, 1)})
    recording.seal(HOUR_10, "b", {"trade": trades(0, HOUR_10, 1, instance="b")})
    late = f"received_time > TIMESTAMPTZ '{HOUR_10 + timedelta(milliseconds=8)}'"
    assert vault.sql(f"SELECT * FROM trade WHERE {late}").fetchall() == []


class Held:
    """Journals that hold given trades of binance_spot."""

    exchanges = ("binance_spot", "lighter")

    def __init__(self, rows: pa.Table) -> None:
        self.held, self.asked = rows, []

    def earliest(self, exchange: str) -> int | None:
        return self.held.column("received_time").cast(pa.int64())[0].as_py() if exchange == "binance_spot" else None

    def rows(self, exchange: str, channel: str) -> pa.Table:
        self.asked.append((exchange, channel))
        return self.held if channel == "trade" else CHANNELS[channel].schema.empty_table()


def test_a_running_period_that_was_sealed_for_now_is_read_from_its_journals(recording: Recording) -> None:
    recording.seal(HOUR_10, "a", {"trade": trades(0, HOUR_10, 20)}, complete=False)
    catalog = Catalog(LocalSources(recording.layout), Held(trades(0, HOUR_10, 30)))
    sql = "SELECT count(*) FROM trade"
    assert catalog.connect(sql).sql(sql).fetchall() == [(30,)]


@pytest.mark.parametrize(
    ("sql", "asked"),
    [
        ("SELECT * FROM trade t JOIN book_ticker b USING (symbol)", {"trade", "book_ticker"}),
        ("SELECT * FROM top_of_book", {"book_ticker"}),
        ("FROM top_of_book('binance_spot', 'BTCUSDT', '2026-11-20 11:00', '2026-11-20 12:00')", {"book_ticker"}),
        ("FROM top_of_book('binance_spot', 'BTCUSDT', '2026-11-20 10:00', '2026-11-20 10:59')", set()),
        ("FROM top_of_book('lighter', 'BTCUSDT', '2026-11-20 11:00', '2026-11-20 12:00')", set()),
        ("SELECT * FROM trade WHERE exchange = 'lighter'", set()),
        ("SELECT * FROM trade WHERE received_time < '2026-11-20 10:59:59'", set()),
        ("SELECT * FROM gaps", set()),
        ("SHOW TABLES", set()),
    ],
)
def test_journals_are_decoded_only_for_what_a_statement_can_want(
    recording: Recording, sql: str, asked: set[str]
) -> None:
    held = Held(trades(0, HOUR_11, 5))
    Catalog(LocalSources(recording.layout), held).connect(sql)
    assert held.asked == [] if not asked else set(held.asked) == {("binance_spot", name) for name in asked}


def test_journal_rows_hide_behind_the_archive_where_they_share_a_period(recording: Recording) -> None:
    """A venue replays its last trades on a reconnect: they are in a journal again, but archived already."""
    receipt = recording.seal(HOUR_10, "a", {"trade": trades(0, HOUR_10, 50)})
    recording.archive(HOUR_10, "trade", trades(0, HOUR_10, 50), [receipt])
    replayed = pa.concat_tables([trades(40, HOUR_10 + timedelta(seconds=40), 10), trades(50, HOUR_11, 5)])
    catalog = Catalog(LocalSources(recording.layout), Held(replayed))
    sql = "SELECT count(*), count(DISTINCT trade_id) FROM trade"
    assert catalog.connect(sql).sql(sql).fetchall() == [(55, 55)]


def test_a_state_that_comes_back_is_a_change_of_an_instrument(vault: Vault, recording: Recording) -> None:
    states = ["TRADING", "TRADING", "BREAK", "TRADING"]
    rows = [
        {
            "received_time": HOUR_10 + timedelta(minutes=i), "event_time": None, "symbol": "BTCUSDT", "instance": "a",
            "source": "rest", "status": status, "base": "BTC", "quote": "USDT", "market_id": None, "tick_size": 0.1,
            "lot_size": 0.001, "contract_type": None, "listed_time": None,
        }
        for i, status in enumerate(states)
    ]  # fmt: skip
    recording.seal(HOUR_10, "a", {"instrument": table("instrument", rows)})
    found = vault.sql("SELECT status FROM instrument ORDER BY received_time").fetchall()
    assert [status for (status,) in found] == ["TRADING", "BREAK", "TRADING"]


def test_quality_tables_are_views_too(vault: Vault, recording: Recording) -> None:
    gap = {
        "exchange": "binance_spot", "channel": "trade", "symbol": "BTCUSDT", "period": HOUR_10, "instance": "",
        "last_id": 4, "first_id": 9, "start_time": HOUR_10, "end_time": HOUR_10, "cause": "crash", "status": "open",
        "detail": "{}",
    }  # fmt: skip
    recording.archive(HOUR_10, "trade", trades(0, HOUR_10, 5), [], quality={"gaps": [gap]})
    assert vault.sql("SELECT channel, last_id, first_id, status FROM gaps").fetchall() == [("trade", 4, 9, "open")]


@pytest.mark.usefixtures("no_secrets")
def test_the_gaps_of_a_symbol_are_also_those_of_the_whole_market(recording: Recording) -> None:
    gap = {
        "exchange": "binance_futures", "channel": "liquidation", "period": HOUR_10, "instance": "", "last_id": None,
        "first_id": None, "start_time": HOUR_10, "end_time": HOUR_10, "cause": "crash", "status": "unprovable",
        "detail": "{}",
    }  # fmt: skip
    gaps = [gap | {"symbol": symbol} for symbol in ("BTCUSDT", "ETHUSDT", "")]
    recording.archive(HOUR_10, "trade", trades(0, HOUR_10, 5), [], quality={"gaps": gaps})
    done = CliRunner().invoke(app, ["gaps", "--symbol", "ETHUSDT", "--data-dir", str(recording.layout.root)])
    assert done.exit_code == 0, done.output
    assert done.output.count("liquidation") == 2
    assert "BTCUSDT" not in done.output


def test_files_of_an_earlier_schema_give_null_for_what_they_lack(vault: Vault, recording: Recording) -> None:
    """As the first archives wrote `coverage`, beside one of today."""
    said = {
        "exchange": "binance_spot", "channel": "trade", "symbol": "BTCUSDT", "first_time": None, "last_time": None,
        "events": 5, "duplicates": 0, "gaps": 0, "covered_seconds": 3600.0, "share": 1.0,
    }  # fmt: skip
    band = {"usual_events": 5.0, "expected_low": 0, "expected_high": 60}
    for hour, version in enumerate((1, SCHEMA_VERSION)):
        moment = HOUR_10 + timedelta(hours=hour)
        row = said | {"period": moment} | (band if version > 1 else {})
        recording.archive(moment, "trade", trades(0, moment, 5), [], quality={"coverage": [row]}, version=version)
    found = vault.sql("SELECT events, expected_low, expected_high FROM coverage ORDER BY period").fetchall()
    assert found == [(5, None, None), (5, 0, 60)]


@pytest.fixture
def two_days(recording: Recording) -> Recording:
    for hour in range(4):
        start = HOUR_10 + timedelta(hours=hour)
        rows = pa.concat_tables([trades(hour * 100, start, 10), trades(hour * 100, start, 10, symbol="ETHUSDT")])
        recording.archive(start, "trade", rows, [])
    recording.archive(HOUR_10 + timedelta(hours=5), "trade", trades(900, HOUR_10 + timedelta(hours=5), 3), [])
    return recording


@pytest.mark.parametrize(
    ("condition", "files"),
    [
        ("true", ["10", "11", "12", "13", "15"]),
        ("received_time >= TIMESTAMPTZ '2026-11-20 12:00'", ["12", "13", "15"]),
        ("received_time < '2026-11-20 11:00:00Z'", ["10"]),
        ("received_time BETWEEN '2026-11-20 11:00:00Z' AND '2026-11-20 11:59:00Z' AND symbol = 'BTCUSDT'", ["11"]),
        ("date_trunc('hour', received_time) = '2026-11-20 13:00:00Z'", ["13"]),
        ("transaction_time >= '2026-11-20 13:00:00Z'", ["13", "15"]),
        ("symbol = 'ETHUSDT' AND received_time > '2026-11-20 12:30:00Z'", ["13"]),
        ("symbol = 'NONE'", []),
        ("symbol IN ('ETHUSDT', 'NONE')", ["10", "11", "12", "13"]),
        ("exchange = 'lighter'", []),
        ("symbol LIKE 'ETH%'", ["10", "11", "12", "13"]),
        ("symbol = 'ETHUSDT' OR received_time > '2026-11-20 14:00:00Z'", ["10", "11", "12", "13", "15"]),
        ("upper(symbol) = 'ETHUSDT'", ["10", "11", "12", "13", "15"]),
        ("price > 1e9", ["10", "11", "12", "13", "15"]),
    ],
)
def test_only_files_that_can_hold_wanted_rows_are_opened(
    vault: Vault, two_days: Recording, condition: str, files: list[str]
) -> None:
    sql = f"SELECT count(*) FROM trade WHERE {condition}"
    assert read(vault, sql) == [f"{hour}.g1.parquet" for hour in files]
    unpruned = vault.connect().sql(sql).fetchall()
    assert vault.sql(sql).fetchall() == unpruned


def test_each_reading_of_a_table_keeps_the_files_that_it_needs(vault: Vault, two_days: Recording) -> None:
    sql = """
        SELECT (SELECT count(*) FROM trade WHERE received_time < '2026-11-20 11:00:00Z')
             + (SELECT count(*) FROM trade WHERE received_time >= '2026-11-20 15:00:00Z') AS n
    """
    assert read(vault, sql) == ["10.g1.parquet", "15.g1.parquet"]
    assert vault.sql(sql).fetchall() == [(23,)]


def test_a_relation_keeps_its_answer_when_another_is_asked_for(vault: Vault, two_days: Recording) -> None:
    first = vault.sql("SELECT count(*) FROM trade WHERE received_time < '2026-11-20 11:00:00Z'")
    second = vault.sql("SELECT count(*) FROM trade WHERE symbol = 'NONE'")
    assert second.fetchall() == [(0,)]
    assert first.fetchall() == [(20,)]


def test_a_file_that_is_gone_is_named(vault: Vault, two_days: Recording) -> None:
    key = two_days.layout.hour_key("binance_spot", "trade", two_days.layout.period_of(HOUR_10), 1)
    two_days.layout.archived(key).unlink()
    with pytest.raises(ArchiveError, match=r"10\.g1\.parquet.*no store is set up"):
        vault.sql("SELECT count(*) FROM trade")
    assert vault.sql("SELECT count(*) FROM trade WHERE received_time > '2026-11-20 15:00:00Z'").fetchall() == [(3,)]


def test_depth_rows_come_back_as_they_were(vault: Vault, recording: Recording) -> None:
    rows = table("depth_diff", [diff(1, 4, HOUR_10, [(60000.1, 0.0), (1e-8, 1e12)], [(60000.2, 3.5)])])
    recording.seal(HOUR_10, "a", {"depth_diff": rows})
    found = vault.depth_diff("binance_spot", "BTCUSDT", HOUR_10, HOUR_11).read_all()
    assert found.drop_columns(["exchange"]).to_pylist() == rows.to_pylist()


def test_top_of_book_between_two_moments_opens_the_files_of_its_symbol_and_time_alone(
    vault: Vault, recording: Recording
) -> None:
    def quotes(start: datetime, symbol: str) -> pa.Table:
        rows = [
            {
                "received_time": start + timedelta(seconds=n), "event_time": None, "symbol": symbol, "instance": "a",
                "source": "stream", "transaction_time": None, "update_id": n, "bid_price": 100.0, "bid_size": 3.0,
                "ask_price": 101.0, "ask_size": 1.0,
            }
            for n in range(5)
        ]  # fmt: skip
        return table("book_ticker", rows)

    for hour in range(4):
        start = HOUR_10 + timedelta(hours=hour)
        parts = [quotes(start, "BTCUSDT"), *([quotes(start, "ETHUSDT")] if hour % 2 else [])]
        recording.archive(start, "book_ticker", pa.concat_tables(parts), [])
    sql = "FROM top_of_book('binance_spot', 'ETHUSDT', '2026-11-20 11:00:01', TIMESTAMPTZ '2026-11-20 12:59:00Z')"
    assert read(vault, sql) == ["11.g1.parquet"]
    assert vault.sql(f"SELECT update_id, mid_price, spread, imbalance {sql}").fetchall() == [
        (n, 100.5, 1.0, 0.5) for n in range(1, 5)
    ]
    assert vault.sql("SELECT count(*) FROM top_of_book").fetchall() == [(30,)], "the view of the same name stays"
