"""Every expectation holds of a healthy period, and each one fails when data with its fault is put in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from depthvault.schemas import CHANNELS
from expectations import Judgement, rules
from expectations.continuity import Predecessor
from expectations.metrics import schema_faults
from expectations.suites import DEFAULT_BOUNDS, FILE_RULES, Bounds
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
    assert [str(check) for check in judgement.warnings] == []
    judging = [rule for rule in rules(CHANNELS[channel]) if not rule.warns]
    assert judgement.judged == len(SYMBOLS) * len(judging) + len(FILE_RULES)


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


def late(seconds: float) -> Callable[[Rows], Rows]:
    """All frames are received that much after they were sent; before, when negative."""

    def change(rows: Rows) -> Rows:
        for row in rows:
            row["received_time"] = row["event_time"] + timedelta(seconds=seconds)
        return rows

    return change


def clock(offset_s: float, **more: float) -> Callable[[Rows], Rows]:
    reference = {"source": "time.example", "offset_s": offset_s, **more}
    return put(7, kind="clock", detail=json.dumps({"reference": reference, "venue": None}))


def sent_late(channel: str) -> tuple[tuple[str, Callable[[Rows], Rows], str], ...]:
    early: Callable[[Rows], Rows] = late(-1.2)
    return ((channel, early, "lag_p01_ms"), (channel, late(11), "lag_mean_ms"))


def bad_columns() -> Iterator[tuple[str, Callable[[Rows], Rows], str]]:
    """Every price and size of every channel, put beyond its bounds."""
    for channel, definition in CHANNELS.items():
        for column in definition.columns:
            name, decimal = column.name, pa.types.is_decimal(column.type)
            if name.endswith("_prices"):
                yield from ((channel, put(1, **{name: [100.0, value]}), "bad_prices") for value in (0.0, -1.0, NAN))
            elif name.endswith("_sizes"):
                yield from ((channel, put(1, **{name: [1.0, value]}), "bad_sizes") for value in (-1.0, INF))
            elif name in PRICES:
                yield from ((channel, put(1, **{name: value}), "bad_prices") for value in (-0.01, NAN, INF))
            elif name in SIZES:
                yield channel, put(1, **{name: Decimal("-0.00000001") if decimal else -1}), "bad_sizes"


BTC = SYMBOLS[0]
LAGGING = ("depth_diff", "book_ticker", "agg_trade", "trade", "liquidation", "mark_price")
PRICES = {"price", "bid_price", "ask_price", "open", "high", "low", "close", "mark_price", "index_price"}
SIZES = {
    "quantity", "filled_quantity", "average_price", "bid_size", "ask_size", "volume", "quote_volume", "trade_count",
    "taker_buy_volume", "taker_buy_quote_volume", "open_interest", "quote_value", "tick_size", "lot_size",
}  # fmt: skip
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
    *(fault for channel in LAGGING for fault in sent_late(channel)),
    *bad_columns(),
    *((channel, put(-1, **{CHANNELS[channel].time[0] if CHANNELS[channel].time else "received_time": moment(60)}),
       "outside_period") for channel in CHANNELS),
    ("depth_diff", put(4, bid_prices=[100.5, 99.0], bid_sizes=[1.0, 1.0]), "crossed"),
    ("book_ticker", put(9, transaction_time=moment(1)), "time_regression_ms"),
    ("open_interest", put(1, received_time=moment(30 * 60)), "cadence_exceeded"),
    ("collector_event", clock(1.001), "clock_worst_ms"),
    ("collector_event", clock(-1.001), "clock_worst_ms"),
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
        "steps_missing",
        "candles_refuted",  # tests/expectations/test_candles.py
    }
    broken = {(channel, metric) for channel, _, metric in FAULTS}
    missing = {
        (channel, rule.metric)
        for channel in CHANNELS
        for rule in rules(CHANNELS[channel])
        if rule.metric not in ledger and not rule.warns and (channel, rule.metric) not in broken
    }
    # what has no price, or no size, of its own
    missing -= {(channel, "bad_prices") for channel in ("funding_rate", "open_interest", "instrument")}
    missing -= {("collector_event", "bad_prices"), ("collector_event", "bad_sizes")}
    missing -= {("funding_rate", "bad_sizes"), ("mark_price", "bad_sizes")}
    assert missing == set()


@pytest.mark.parametrize(("exchange", "found"), [("binance_spot", {(BTC, "breaks_undeclared")}), ("lighter", set())])
def test_single_trades_are_a_chain_where_the_venue_counts_them(
    exchange: str, found: set[tuple[str, str]], tmp_path: Path
) -> None:
    rows = drop(7)(healthy("trade"))
    assert failed(judged(tmp_path, rows, "trade", exchange=exchange)) == found


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


@pytest.mark.parametrize(
    "channel", [channel for channel in CHANNELS if any(rule.metric == "share" for rule in rules(CHANNELS[channel]))]
)
def test_a_stream_that_was_down_for_too_long_fails(channel: str, tmp_path: Path) -> None:
    judgement = judged(
        tmp_path, healthy(channel), channel, coverage={BTC: {"share": 0.98}, SYMBOLS[1]: {"share": 0.99}}
    )
    assert failed(judgement) == {(BTC, "share")}


def test_a_symbol_without_events_fails(tmp_path: Path) -> None:
    judgement = judged(tmp_path, healthy("depth_diff"), "depth_diff", coverage={"ETHUSDT": {"events": 0}})
    assert failed(judgement) == {("ETHUSDT", "rows")}


@pytest.mark.parametrize("channel", ["funding_rate", "open_interest"])
@pytest.mark.parametrize("status", ["open", "lost"])
def test_a_settlement_or_answer_that_the_ledger_misses_fails(channel: str, status: str, tmp_path: Path) -> None:
    judgement = judged(tmp_path, healthy(channel), channel, gaps=[{"status": status}])
    assert failed(judgement) == {(BTC, "steps_missing")}
    refilled = judged(tmp_path, healthy(channel), channel, gaps=[{"status": "refilled"}])
    assert failed(refilled) == set()


def test_a_quiet_liquidation_stream_is_no_failure(tmp_path: Path) -> None:
    judgement = judged(tmp_path, healthy("liquidation"), "liquidation", coverage={"ETHUSDT": {"events": 0}})
    assert failed(judgement) == set()


def test_a_coverage_table_that_counts_otherwise_fails(tmp_path: Path) -> None:
    judgement = judged(tmp_path, healthy("trade"), "trade", coverage={BTC: {"events": EVENTS + 1}})
    assert failed(judgement) == {(BTC, "coverage_events_difference")}


@pytest.mark.parametrize("channel", [channel for channel in CHANNELS if channel != "collector_event"])
def test_every_channel_is_counted_against_its_coverage(channel: str, tmp_path: Path) -> None:
    judgement = judged(tmp_path, healthy(channel), channel, coverage={BTC: {"events": 1}})
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


@pytest.mark.parametrize("channel", CHANNELS)
def test_the_file_of_every_channel_is_held_to_what_compaction_wrote_down(channel: str, tmp_path: Path) -> None:
    paper = {"rows": 1, "sha256": "", "symbols": (), "conflicts": 1, "rejected": 1}
    judgement = judged(tmp_path, healthy(channel), channel, paper=paper)
    assert failed(judgement) == {("", rule.metric) for rule in FILE_RULES if rule.metric != "schema_faults"}


def column_faults(channel: str) -> Iterator[tuple[str, pa.Schema]]:
    """The schema of `channel` with one column of another type, or without it; each column once."""
    schema = CHANNELS[channel].schema
    for position, field in enumerate(schema):
        kinds = {"string": pa.large_binary(), "double": pa.float32(), "int64": pa.int32(), "int32": pa.int64()}
        if pa.types.is_timestamp(field.type):
            other: pa.DataType = pa.timestamp("ms", tz="UTC")
        elif pa.types.is_decimal(field.type):
            other = pa.decimal128(38, 6)
        elif pa.types.is_list(field.type):
            other = pa.list_(pa.field("element", pa.float32()))
        else:
            other = kinds.get(str(field.type), pa.string())
        yield f"{field.name}: {other} instead of {field.type}", schema.set(position, field.with_type(other))
        yield f"{field.name}: missing", schema.remove(position)


@pytest.mark.parametrize("channel", CHANNELS)
def test_every_column_of_every_channel_is_held_to_its_type(channel: str, tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(CHANNELS[channel].schema.empty_table(), path)
    assert schema_faults(path, channel) == []
    for fault, schema in column_faults(channel):
        pq.write_table(schema.empty_table(), path)
        assert schema_faults(path, channel) == [fault]


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_file_with_a_wrong_column_fails_without_being_measured(channel: str, tmp_path: Path) -> None:
    schema = CHANNELS[channel].schema
    schema = schema.remove(schema.get_field_index("instance"))
    rows = [{name: value for name, value in row.items() if name != "instance"} for row in healthy(channel)]
    judgement = judged(tmp_path, rows, channel, schema=schema)
    assert ("", "schema_faults") in failed(judgement)
    assert {check.symbol for check in judgement.checks} == {""}


@pytest.mark.parametrize("channel", ["depth_diff", "mark_price"])
def test_a_clock_that_is_a_little_behind_is_worth_a_word(channel: str, tmp_path: Path) -> None:
    judgement = judged(tmp_path, late(-0.06)(healthy(channel)), channel)
    assert failed(judgement) == set()
    assert {(check.symbol, check.metric) for check in judgement.warnings} == {(s, "lag_p01_early_ms") for s in SYMBOLS}
    (line,) = judgement.warned()
    assert line.startswith(f"{channel}: doubtful: our clock is not behind the venue's (lag_p01_early_ms: BTCUSDT 60")
    assert judgement.condition == "available"
    # the figures stand in hour_metrics, without a judgement
    rows = {row["metric"]: row for row in judgement.table().to_pylist() if row["symbol"] == BTC}
    assert (rows["lag_p01_early_ms"]["value"], rows["lag_p01_early_ms"]["passed"]) == (60.0, None)


def test_a_few_early_frames_are_a_clock_s_and_one_is_not(tmp_path: Path) -> None:
    rows = healthy("book_ticker")
    rows = [row for row in rows if row["symbol"] == BTC] * 4
    for position, row in enumerate(rows):
        rows[position] = row | {"update_id": position, "event_time": moment(position / 10)}
        rows[position]["received_time"] = moment(position / 10 + 0.005)
    rows[3]["received_time"] = moment(0.3 - 5)
    assert failed(judged(tmp_path, rows, "book_ticker")) == set()
    for position in range(3, 6):
        rows[position]["received_time"] = moment(position / 10 - 5)
    assert failed(judged(tmp_path, rows, "book_ticker")) == {(BTC, "lag_p01_ms")}


def test_a_clock_that_is_measured_to_be_off_is_worth_a_word_and_then_a_failure(tmp_path: Path) -> None:
    def told(offset_s: float, bounds: Bounds = DEFAULT_BOUNDS, **more: float) -> tuple[set[str], set[str]]:
        rows = [clock(offset_s, **more)([dict(row) for row in healthy("collector_event")])[7] | {"symbol": ""}]
        judgement = judged(tmp_path, rows, "collector_event", bounds=bounds)
        return {check.metric for check in judgement.failures}, {check.metric for check in judgement.warnings}

    assert told(0.05) == (set(), set())
    assert told(-0.051) == (set(), {"clock_mean_ms"})
    assert told(1.0) == (set(), {"clock_mean_ms"})
    assert told(-1.5) == ({"clock_worst_ms"}, {"clock_mean_ms"})
    # an answer that took three seconds may be off by one and a half
    assert told(-1.5, round_trip_s=3.0) == told(1.5, round_trip_s=9.0) == (set(), set())
    assert told(-1.5, round_trip_s=2.0) == (set(), {"clock_mean_ms"})
    assert told(-1.5, Bounds(clock_warn_ms=2_000, clock_fail_ms=3_000)) == (set(), set())
    assert told(0.02, Bounds(clock_warn_ms=1, clock_fail_ms=10)) == ({"clock_worst_ms"}, {"clock_mean_ms"})


def test_a_clock_that_nobody_could_be_asked_about_is_no_failure(tmp_path: Path) -> None:
    rows = [row for row in healthy("collector_event") if row["kind"] == "clock" and "null" in row["detail"]]
    judgement = judged(tmp_path, rows, "collector_event")
    assert failed(judgement) == set()
    assert {check.value for check in judgement.checks if check.metric == "clock_checks"} == {0.0}


def test_fills_whose_times_step_back_are_worth_a_word(tmp_path: Path) -> None:
    judgement = judged(tmp_path, put(9, transaction_time=moment(1))(healthy("trade")), "trade")
    assert failed(judgement) == set()
    assert [(check.symbol, check.metric) for check in judgement.warnings] == [(BTC, "time_regression_ms")]


def test_a_level_that_is_taken_away_crosses_nothing(tmp_path: Path) -> None:
    levels = {"bid_prices": [101.0, 100.0], "bid_sizes": [0.0, 1.0], "ask_prices": [100.5, 99.0], "ask_sizes": [1.0, 0]}
    assert failed(judged(tmp_path, put(4, **levels)(healthy("depth_diff")), "depth_diff")) == set()


def test_a_book_that_was_asked_for_whole_may_have_an_empty_side(tmp_path: Path) -> None:
    empty = put(4, bid_prices=[], bid_sizes=[], limit=2**31 - 1)(healthy("depth_snapshot"))
    assert failed(judged(tmp_path, empty, "depth_snapshot")) == set()


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


@pytest.mark.parametrize(("band", "said"), [((EVENTS + 1, 900), True), ((10, EVENTS), False), ((0, EVENTS - 1), True)])
def test_far_more_or_fewer_events_than_of_late_are_worth_a_word(
    band: tuple[int, int], said: bool, tmp_path: Path
) -> None:
    told = {BTC: {"expected_low": band[0], "expected_high": band[1]}}
    judgement = judged(tmp_path, healthy("book_ticker"), "book_ticker", coverage=told)
    assert failed(judgement) == set()
    assert [(check.symbol, check.metric) for check in judgement.warnings] == [(BTC, "events_outside_band")] * said
