"""Every expectation holds of a healthy period, and each one fails when data with its fault is put in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from depthvault.schemas import CHANNELS
from expectations import Judgement, rules
from expectations.continuity import Predecessor
from expectations.suites import FILE_RULES
from tests.expectations.healthy_periods import EVENTS, SYMBOLS, healthy, judged, moment

Rows = list[dict[str, Any]]
INF, NAN = float("inf"), float("nan")


def failed(judgement: Judgement) -> set[tuple[str, str]]:
    return {(check.symbol, check.metric) for check in judgement.failures}


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_healthy_period_passes(channel: str, tmp_path: Path) -> None:
    judgement = judged(tmp_path, healthy(channel), channel)
    assert [str(check) for check in judgement.failures] == []
    assert judgement.condition == "available"
    assert judgement.judged == len(SYMBOLS) * len(rules(channel)) + len(FILE_RULES)


def test_a_healthy_spot_chain_counts_on_without_naming_its_predecessor(tmp_path: Path) -> None:
    assert failed(judged(tmp_path, healthy("depth_diff", chained=False), "depth_diff")) == set()


def put(position: int, **values: Any) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        rows[position] |= values
        return rows

    return change


def drop(position: int) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        del rows[position]
        return rows

    return change


def double(position: int) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        rows.insert(position, dict(rows[position]))
        return rows

    return change


def swap(position: int) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        rows[position], rows[position + 1] = rows[position + 1], rows[position]
        return rows

    return change


def stretch_snapshots(rows: Rows) -> Rows:
    for i, row in enumerate(rows):
        row["request_time"] = moment(i * 151)
    return rows


def slow_clock(rows: Rows) -> Rows:
    for row in rows:
        row["received_time"] = row["event_time"] - timedelta(seconds=3)
    return rows


BTC = SYMBOLS[0]
# (channel, the fault, the expectation that must fail, of which symbol)
FAULTS: list[tuple[str, Callable[[Rows], Rows], str]] = [
    *((channel, double(5), "duplicates") for channel in CHANNELS if channel not in {"kline", "instrument"}
      and channel not in {"funding_rate", "open_interest"}),
    *((channel, double(1), "duplicates") for channel in ("kline", "instrument", "funding_rate", "open_interest")),
    *((channel, swap(0), "order_violations") for channel in CHANNELS),
    *((channel, put(0, instance=None), "nulls") for channel in CHANNELS),
    *((channel, put(0, source="guess"), "unknown_sources") for channel in CHANNELS),
    ("depth_diff", put(-1, transaction_time=moment(60)), "outside_period"),
    ("depth_diff", put(0, transaction_time=moment(-0.000001)), "outside_period"),
    ("book_ticker", put(0, event_time=moment(61)), "outside_period"),
    ("kline", put(0, close_time=moment(60)), "outside_period"),
    ("instrument", put(-1, received_time=moment(60)), "outside_period"),
    ("depth_diff", put(4, bid_prices=[100.0, 0.0]), "bad_prices"),
    ("depth_diff", put(4, ask_prices=[100.0, NAN]), "bad_prices"),
    ("depth_diff", put(4, bid_sizes=[-1.0, 1.0]), "bad_sizes"),
    ("depth_diff", put(4, ask_sizes=[INF, 1.0]), "bad_sizes"),
    ("depth_snapshot", put(4, bid_prices=[-1.0, -2.0]), "bad_prices"),
    ("book_ticker", put(4, bid_price=0.0), "bad_prices"),
    ("book_ticker", put(4, ask_size=-1.0), "bad_sizes"),
    ("agg_trade", put(4, price=NAN), "bad_prices"),
    ("agg_trade", put(4, quantity=-0.5), "bad_sizes"),
    ("trade", put(4, price=-1.0), "bad_prices"),
    ("kline", put(0, low=0.0), "bad_prices"),
    ("kline", put(0, volume=Decimal(-1)), "bad_sizes"),
    ("liquidation", put(0, price=0.0), "bad_prices"),
    ("mark_price", put(0, mark_price=-1.0), "bad_prices"),
    ("open_interest", put(0, open_interest=Decimal(-1)), "bad_sizes"),
    ("instrument", put(0, tick_size=-1.0), "bad_sizes"),
    ("depth_diff", drop(7), "breaks_undeclared"),
    ("depth_diff", put(7, epoch=1), "breaks_undeclared"),
    ("agg_trade", drop(7), "breaks_undeclared"),
    ("kline", put(1, open_time=moment(31)), "breaks_undeclared"),
    ("depth_diff", put(9, transaction_time=moment(1)), "time_regression_ms"),
    ("agg_trade", put(9, transaction_time=moment(1)), "time_regression_ms"),
    ("depth_diff", put(4, bid_sizes=[1.0]), "uneven_levels"),
    ("depth_partial", put(4, ask_sizes=[1.0]), "uneven_levels"),
    ("depth_snapshot", put(4, ask_sizes=[1.0]), "uneven_levels"),
    *((channel, slow_clock, "lag_mean_ms") for channel in ("depth_diff", "book_ticker", "agg_trade", "trade")),
    ("depth_diff", put(4, first_update_id=5000), "ids_reversed"),
    ("depth_partial", put(4, first_update_id=5000), "ids_reversed"),
    ("agg_trade", put(4, first_trade_id=5000), "ids_reversed"),
    ("depth_partial", put(4, bid_prices=[100.5, 99.0]), "crossed"),
    ("depth_snapshot", put(4, bid_prices=[100.5, 99.0]), "crossed"),
    ("book_ticker", put(4, bid_price=100.5), "crossed"),
    ("depth_snapshot", put(4, bid_prices=[], bid_sizes=[]), "one_sided"),
    ("depth_snapshot", put(4, limit=1), "over_limit"),
    ("depth_snapshot", stretch_snapshots, "cadence_exceeded"),
    ("kline", put(0, high=99.5), "candles_impossible"),
    ("kline", put(0, taker_buy_volume=Decimal(6)), "candles_impossible"),
    ("kline", put(0, close_time=moment(0)), "times_reversed"),
    ("liquidation", put(0, side="LONG"), "unknown_sides"),
    ("mark_price", put(0, funding_rate=-0.6), "rates_impossible"),
    ("mark_price", put(0, funding_rate=NAN), "rates_impossible"),
    ("funding_rate", put(0, funding_rate=0.6), "rates_impossible"),
    ("funding_rate", put(0, interval_hours=0), "intervals_impossible"),
    ("collector_event", put(0, kind="surprise"), "unknown_kinds"),
    ("collector_event", put(0, detail="{"), "malformed_details"),
    ("collector_event", put(0, kind="malformed"), "malformed_frames"),
]  # fmt: skip


@pytest.mark.parametrize("channel", CHANNELS)
def test_each_fault_fails_its_expectation_and_spares_the_others(channel: str, tmp_path: Path) -> None:
    good = healthy(channel)
    rows: Rows = [row for row in good if row["symbol"] == SYMBOLS[1]]
    faults = [(fault, metric) for name, fault, metric in FAULTS if name == channel]
    for number, (fault, _) in enumerate(faults):
        # one symbol a fault: all of them are judged in one run, and none may blame another
        rows += fault([row | {"symbol": f"FAULT{number}"} for row in good if row["symbol"] == BTC])
    schema = pa.schema([field.with_nullable(True) for field in CHANNELS[channel].schema])
    judgement = judged(tmp_path, rows, channel, schema=schema)
    found = {(check.symbol, check.metric) for check in judgement.failures}
    assert {(f"FAULT{number}", metric) for number, (_, metric) in enumerate(faults)} <= found
    assert not {(symbol, metric) for symbol, metric in found if not symbol.startswith("FAULT")}
    assert judgement.condition == "degraded"
    assert judgement.channels == (channel,)


@pytest.mark.parametrize("channel", ["depth_diff", "collector_event"])
def test_a_symbol_whose_rows_are_torn_apart_fails(channel: str, tmp_path: Path) -> None:
    rows = healthy(channel)
    rows.append(rows.pop(0))
    assert (BTC, "symbol_runs") in failed(judged(tmp_path, rows, channel))


def test_every_rule_is_broken_by_some_test() -> None:
    ledger = {
        "rows",
        "coverage_events_difference",
        "share",
        "gaps_unfounded",
        "gaps_open",
        "symbol_runs",
        "audit_mismatched",
    }
    broken = {(channel, metric) for channel, _, metric in FAULTS}
    shared = {"bad_prices", "bad_sizes", "outside_period"}  # the same code for all channels, broken in several
    missing = {
        (channel, rule.metric)
        for channel in CHANNELS
        for rule in rules(channel)
        if rule.metric not in ledger | shared and (channel, rule.metric) not in broken
    }
    assert missing == set()


def test_a_declared_break_is_only_what_it_is_declared_to_be_missing(tmp_path: Path) -> None:
    rows = drop(7)(healthy("depth_diff"))
    judgement = judged(tmp_path, rows, "depth_diff", gaps=[{"last_id": rows[6]["final_update_id"]}])
    assert failed(judgement) == {(BTC, "gaps_open")}


@pytest.mark.parametrize("status", ["bridged", "refilled"])
def test_a_break_that_gaps_calls_closed_is_a_failure(status: str, tmp_path: Path) -> None:
    rows = drop(7)(healthy("agg_trade"))
    judgement = judged(tmp_path, rows, "agg_trade", gaps=[{"last_id": 76, "status": status}])
    assert failed(judgement) == {(BTC, "breaks_undeclared")}


def test_a_break_declared_for_another_symbol_does_not_excuse_it(tmp_path: Path) -> None:
    rows = drop(7)(healthy("agg_trade"))
    judgement = judged(tmp_path, rows, "agg_trade", gaps=[{"last_id": 76, "symbol": SYMBOLS[1]}])
    # … and the gap that is declared for the other one is refuted by its whole chain
    assert failed(judgement) == {
        (BTC, "breaks_undeclared"),
        (SYMBOLS[1], "gaps_unfounded"),
        (SYMBOLS[1], "gaps_open"),
    }


@pytest.mark.parametrize("channel", ["depth_diff", "agg_trade"])
def test_a_gap_declared_where_the_chain_is_whole_is_a_failure(channel: str, tmp_path: Path) -> None:
    rows = healthy(channel)
    last_id = rows[3]["final_update_id" if channel == "depth_diff" else "agg_trade_id"]
    judgement = judged(tmp_path, rows, channel, gaps=[{"last_id": last_id, "status": "open"}])
    assert failed(judgement) == {(BTC, "gaps_unfounded"), (BTC, "gaps_open")}


def test_an_in_band_snapshot_neither_makes_nor_mends_a_break(tmp_path: Path) -> None:
    rows = healthy("depth_diff")
    snapshot = rows[3] | {
        "is_snapshot": True,
        "prev_final_update_id": 0,
        "final_update_id": rows[3]["final_update_id"] + 1,
    }
    rows.insert(4, snapshot)
    assert failed(judged(tmp_path, rows, "depth_diff")) == set()
    del rows[5]
    assert failed(judged(tmp_path, rows, "depth_diff")) == {(BTC, "breaks_undeclared")}


def test_overlapping_batches_are_no_break(tmp_path: Path) -> None:
    rows = put(7, prev_final_update_id=1067)(healthy("depth_diff"))
    assert failed(judged(tmp_path, rows, "depth_diff")) == set()


def test_a_missing_candle_is_only_missing_once_declared(tmp_path: Path) -> None:
    rows = put(1, open_time=moment(31))(healthy("kline"))
    assert failed(judged(tmp_path, rows, "kline", gaps=[{}])) == {(BTC, "gaps_open")}


@pytest.mark.parametrize(
    ("before", "holds"),
    [(Predecessor(999), True), (Predecessor(1005), True), (Predecessor(998), False), (Predecessor(999, -1), False)],
)
def test_the_first_event_must_continue_the_period_before(before: Predecessor, holds: bool, tmp_path: Path) -> None:
    paper = {"predecessors": {BTC: before}}
    judgement = judged(tmp_path, healthy("depth_diff"), "depth_diff", paper=paper)
    assert failed(judgement) == (set() if holds else {(BTC, "breaks_undeclared")})


def test_a_break_at_the_turn_of_the_period_is_declared_by_the_last_id_before(tmp_path: Path) -> None:
    paper = {"predecessors": {BTC: Predecessor(60), SYMBOLS[1]: Predecessor(69)}}
    judgement = judged(tmp_path, healthy("agg_trade"), "agg_trade", paper=paper, gaps=[{"last_id": 60}])
    assert failed(judgement) == {(BTC, "gaps_open")}


@pytest.mark.parametrize("channel", ["depth_diff", "book_ticker", "agg_trade", "trade", "kline", "mark_price"])
def test_a_stream_that_was_down_for_too_long_fails(channel: str, tmp_path: Path) -> None:
    judgement = judged(tmp_path, healthy(channel), channel, coverage={BTC: {"share": 0.9}})
    assert failed(judgement) == {(BTC, "share")}


def test_a_symbol_without_events_fails(tmp_path: Path) -> None:
    judgement = judged(tmp_path, healthy("depth_diff"), "depth_diff", coverage={"ETHUSDT": {"events": 0}})
    assert failed(judgement) == {("ETHUSDT", "rows")}


def test_a_quiet_liquidation_stream_is_no_failure(tmp_path: Path) -> None:
    judgement = judged(tmp_path, healthy("liquidation"), "liquidation", coverage={"ETHUSDT": {"events": 0}})
    assert failed(judgement) == set()


def test_a_coverage_table_that_counts_otherwise_fails(tmp_path: Path) -> None:
    judgement = judged(tmp_path, healthy("trade"), "trade", coverage={BTC: {"events": EVENTS + 1}})
    assert failed(judgement) == {(BTC, "coverage_events_difference")}


@pytest.mark.parametrize(
    ("paper", "metric"),
    [
        ({"rows": 1}, "rows_difference"),
        ({"sha256": "0" * 64}, "sha256_difference"),
        ({"symbols": ("BTCUSDT",)}, "symbols_difference"),
        ({"conflicts": 1}, "conflicts"),
        ({"rejected": 1}, "rejected_frames"),
    ],
)
def test_a_file_that_is_not_what_compaction_wrote_down_fails(
    paper: dict[str, Any], metric: str, tmp_path: Path
) -> None:
    assert failed(judged(tmp_path, healthy("trade"), "trade", paper=paper)) == {("", metric)}


def test_a_file_with_a_wrong_column_type_fails_without_being_measured(tmp_path: Path) -> None:
    schema = pa.schema(
        [field.with_type(pa.float32()) if field.name == "price" else field for field in CHANNELS["trade"].schema]
    )
    assert ("", "schema_faults") in failed(judged(tmp_path, healthy("trade"), "trade", schema=schema))


@pytest.mark.parametrize("channel", ["depth_diff", "depth_snapshot"])
@pytest.mark.parametrize("kind", ["missing", "extra", "different"])
def test_a_book_that_the_next_snapshot_refutes_fails(channel: str, kind: str, tmp_path: Path) -> None:
    judgement = judged(tmp_path, healthy(channel), channel, audits=[{}, {kind: 1}])
    assert failed(judgement) == {(BTC, "audit_mismatched")}


def test_an_audit_that_can_say_nothing_fails_nothing(tmp_path: Path) -> None:
    audits = [{"undecidable": 40}, {"gap_crossed": True, "missing": 9}]
    judgement = judged(tmp_path, healthy("depth_diff"), "depth_diff", audits=audits)
    assert failed(judgement) == set()
    figures = {(check.symbol, check.metric): check.value for check in judgement.checks}
    assert figures[(BTC, "audit_undecidable")] == 40
    assert figures[(SYMBOLS[1], "audit_matched")] is None


def test_the_recorder_s_own_events_need_no_coverage(tmp_path: Path) -> None:
    told = {symbol: {"events": 0} for symbol in SYMBOLS}
    assert failed(judged(tmp_path, healthy("collector_event"), "collector_event", coverage=told)) == set()
    assert failed(judged(tmp_path, healthy("instrument"), "instrument", coverage=told)) != set()
