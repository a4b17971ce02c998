"""A candle is the sum of its trades, exactly; what could not be compared is counted, what is wrong is named."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from depthvault.durable import sha256_file
from depthvault.schemas import CHANNELS, QUALITY
from expectations import Check, Judgement, Ledger, Subject, examine
from expectations.candles import AGGREGATIONS, MOST_NAMED, Aggregation, TradeFiles, _units
from simulator.config import SimulatorConfig
from simulator.testing import START_MS, running
from tests.depthvault.exchanges.recordings import frames_of, venue
from tests.expectations.healthy_periods import PERIOD, moment

SPOT, FUTURES = AGGREGATIONS["binance_spot"], AGGREGATIONS["binance_futures"]
SYMBOL = "1000币安USDT"
Rows = list[dict[str, Any]]


def trade(number: int, second: float, price: float, quantity: float, *, fills: int = 1, first: int = 0) -> Rows:
    """A list of one aggregate; `number` is odd where the taker sold."""
    first = first or 10 * number
    return [
        {
            "received_time": moment(second),
            "event_time": moment(second),
            "transaction_time": moment(second),
            "symbol": SYMBOL,
            "instance": "a",
            "source": "stream",
            "agg_trade_id": number,
            "first_trade_id": first,
            "last_trade_id": first + fills - 1,
            "price": price,
            "quantity": quantity,
            "is_buyer_maker": bool(number & 1),
        }
    ]


def trades(*told: tuple[float, float, float], start: int = 1, symbol: str = SYMBOL) -> Rows:
    """Aggregates of one fill each, from (second, price, quantity), without a hole in any ids."""
    rows = [trade(start + i, *one, first=100 + start + i)[0] for i, one in enumerate(told)]
    return [row | {"symbol": symbol} for row in rows]


# Sums that doubles get wrong: 0.1 + 0.2 and 0.7 + 0.1 are not what they look like.
USUAL = [(-1.5, 9.0, 4.0), (0.0, 10.0, 0.1), (20.0, 12.5, 0.2), (40.0, 8.25, 0.7), (57.5, 11.0, 0.1), (61.5, 9.0, 2.0)]


def candle(opened: float = 0, length: float = 60, **changes: Any) -> dict[str, Any]:
    """The candle of USUAL's minute."""
    start = moment(opened)
    return {
        "received_time": moment(opened + length),
        "event_time": moment(opened + length),
        "symbol": SYMBOL,
        "instance": "a",
        "source": "stream",
        "interval": f"{length / 60:g}m",
        "open_time": start,
        "close_time": start + timedelta(seconds=length) - timedelta(milliseconds=1),
        "open": 10.0,
        "high": 12.5,
        "low": 8.25,
        "close": 11.0,
        "volume": Decimal("1.1"),
        "quote_volume": Decimal("10.375"),
        "trade_count": 4,
        "taker_buy_volume": Decimal("0.8"),
        "taker_buy_quote_volume": Decimal("6.775"),
    } | changes


def write(path: Path, channel: str, rows: Rows) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=CHANNELS[channel].schema), path)
    return path


def judged(
    folder: Path,
    candles: Rows,
    tape: Rows | None,
    rule: Aggregation = SPOT,
    *,
    earlier_tape: Rows | None = None,
    earlier_candles: Rows | None = None,
    tails: Mapping[str, int] | None = None,
    since: datetime = PERIOD.start,
    inexact: bool = False,
) -> Judgement:
    path = write(folder / "kline.parquet", "kline", candles)
    tapes = [("earlier", earlier_tape), ("now", tape)]
    files = [write(folder / f"{name}.parquet", "agg_trade", rows) for name, rows in tapes if rows is not None]
    before = None
    if earlier_candles is not None:
        before = write(folder / "earlier-kline.parquet", "kline", earlier_candles)
    symbols = sorted({row["symbol"] for row in candles})
    coverage = [
        {"exchange": "", "channel": "kline", "symbol": symbol, "period": PERIOD.start, "duplicates": 0, "gaps": 0}
        | {"events": sum(row["symbol"] == symbol for row in candles), "covered_seconds": 60.0, "share": 1.0}
        for symbol in symbols
    ]
    ledger = Ledger(
        coverage=pa.Table.from_pylist(coverage, schema=QUALITY["coverage"]),
        trades=TradeFiles(rule, tuple(files), since, PERIOD.start, tails or {}, before, inexact),
    )
    subject = Subject("kline", path, len(candles), sha256_file(path), tuple(symbols))
    return examine("binance_spot", PERIOD, (subject,), ledger)


def counted(judgement: Judgement, symbol: str = SYMBOL) -> dict[str, float | None]:
    """Candles that were judged, wait for the next period, and cannot be judged."""
    names = ("candles_judged", "candles_waiting", "candles_undecidable", "candles_refuted")
    figures = {check.metric: check.value for check in judgement.checks if check.symbol == symbol}
    return {name.removeprefix("candles_"): figures.get(name) for name in names}


def ok(judged: int = 1, waiting: int = 0, undecidable: int = 0, refuted: int = 0) -> dict[str, float]:
    return {"judged": judged, "waiting": waiting, "undecidable": undecidable, "refuted": refuted}


def named(judgement: Judgement) -> list[Check]:
    return [check for check in judgement.failures if " " in check.metric]


@pytest.mark.parametrize("rule", [SPOT, FUTURES], ids=["spot", "futures"])
def test_a_candle_that_is_the_sum_of_its_trades_passes(rule: Aggregation, tmp_path: Path) -> None:
    judgement = judged(tmp_path, [candle()], trades(*USUAL), rule)
    assert counted(judgement) == ok()
    assert [str(check) for check in judgement.failures] == []


WRONG = [
    {"volume": Decimal("1.09999999")},
    {"volume": Decimal("1.10000001")},
    {"taker_buy_volume": Decimal("0.79999999")},
    {"trade_count": 3},
    {"trade_count": 5},
    {"high": 12.51},
    {"low": 8.26},
    {"low": 8.24},
    {"open": 10.01},
    {"close": 10.99},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_a_candle_that_its_trades_refute_is_named_and_degrades(change: dict[str, Any], tmp_path: Path) -> None:
    judgement = judged(tmp_path, [candle(**change)], trades(*USUAL))
    ((figure, value),) = change.items()
    assert counted(judgement) == ok(refuted=1)
    (check,) = named(judgement)
    assert (check.symbol, check.metric) == (SYMBOL, f"1m 2026-11-20T04:00:00Z {figure}")
    assert check.meaning.startswith(f"the candle says {value}, its trades ")
    assert {one.metric for one in judgement.failures} == {"candles_refuted", check.metric}
    assert judgement.condition == "degraded"
    evidence = [row for row in judgement.table().to_pylist() if row["metric"] == check.metric]
    assert [(row["symbol"], row["passed"]) for row in evidence] == [(SYMBOL, False)]
    difference = float(Decimal(str(value)) - Decimal(str(candle()[figure])))
    assert evidence[0]["value"] == pytest.approx(difference)


def test_a_lost_trade_refutes_its_candle_although_the_ids_are_consecutive(tmp_path: Path) -> None:
    judgement = judged(tmp_path, [candle()], trades(*USUAL[:2], *USUAL[3:]))
    assert counted(judgement) == ok(refuted=1)
    assert {check.metric.split()[-1] for check in named(judgement)} == {
        "volume", "taker_buy_volume", "trade_count", "high",
    }  # fmt: skip


def test_many_wrong_candles_are_counted_and_the_first_named(tmp_path: Path) -> None:
    symbols = [f"S{number:02}USDT" for number in range(MOST_NAMED + 5)]
    tape = [row for symbol in symbols for row in trades(*USUAL, symbol=symbol)]
    candles = [candle(symbol=symbol, volume=Decimal(7)) for symbol in symbols]
    judgement = judged(tmp_path, candles, tape)
    assert [check.symbol for check in named(judgement)] == symbols[:MOST_NAMED]
    assert sum(check.metric == "candles_refuted" for check in judgement.failures) == len(symbols)


@pytest.mark.parametrize("hole", [1, 2, 3, 4, 5])
def test_a_candle_is_not_judged_where_trades_are_missing(hole: int, tmp_path: Path) -> None:
    tape = trades(*USUAL)
    for row in tape[hole:]:
        row["agg_trade_id"] += 1
    judgement = judged(tmp_path, [candle(volume=Decimal(99))], tape)
    assert counted(judgement) == ok(0, undecidable=1)
    assert judgement.condition == "available"


def test_a_hole_spares_the_candles_beside_it(tmp_path: Path) -> None:
    tape = trades(*USUAL, (70, 3.0, 1.0), (190, 3.0, 5.0))
    tape[-1]["agg_trade_id"] += 7
    judgement = judged(tmp_path, [candle(), candle(60), candle(120)], tape)
    assert counted(judgement) == ok(1, undecidable=2)


def test_trades_are_needed_from_before_a_candle_to_after_it(tmp_path: Path) -> None:
    assert counted(judged(tmp_path, [candle()], trades(*USUAL[1:]))) == ok(0, undecidable=1)
    assert counted(judged(tmp_path, [candle()], trades(*USUAL[:-1]))) == ok(0, waiting=1)
    assert counted(judged(tmp_path, [candle()], None)) == ok(0, waiting=1)
    assert counted(judged(tmp_path, [candle()], trades(*USUAL, symbol="OTHER"))) == ok(0, waiting=1)


def test_the_last_id_of_the_period_before_says_that_nothing_is_missing_at_the_beginning(tmp_path: Path) -> None:
    tape = trades(*USUAL[1:], start=8)
    assert counted(judged(tmp_path, [candle()], tape, tails={SYMBOL: 7})) == ok()
    assert counted(judged(tmp_path, [candle()], tape, tails={SYMBOL: 6})) == ok(0, undecidable=1)
    assert counted(judged(tmp_path, [candle()], tape, tails={"OTHER": 7})) == ok(0, undecidable=1)


@pytest.mark.parametrize("rule", [SPOT, FUTURES], ids=["spot", "futures"])
def test_a_period_s_last_candle_is_judged_with_the_trades_after_it(rule: Aggregation, tmp_path: Path) -> None:
    before = [(second - 60, price, quantity) for second, price, quantity in USUAL[:-1]]
    wrong = candle(-60, volume=Decimal("1.2"))
    tape = trades((1.5, 5.0, 1.0), (30.0, 5.0, 1.0), (59.0, 5.0, 1.0), start=6)
    own = candle()
    since = PERIOD.previous().start
    judgement = judged(tmp_path, [own], tape, rule, earlier_tape=trades(*before), earlier_candles=[wrong], since=since)
    assert counted(judgement) == ok(1, waiting=1, refuted=1)
    assert [check.metric for check in named(judgement)] == ["1m 2026-11-20T03:59:00Z volume"]


def test_a_candle_that_its_own_period_could_judge_is_not_judged_again(tmp_path: Path) -> None:
    before = [(second - 120, price, quantity) for second, price, quantity in USUAL]
    wrong = candle(-120, volume=Decimal("1.2"))
    since = moment(-3600)
    judgement = judged(
        tmp_path, [candle()], trades((70.0, 5.0, 1.0), start=7), earlier_tape=trades(*before), earlier_candles=[wrong],
        since=since,
    )  # fmt: skip
    assert counted(judgement)["refuted"] == 1  # its own alone, which has no trades at all
    assert {check.metric.split()[1] for check in named(judgement)} == {"2026-11-20T04:00:00Z"}


def test_a_longer_candle_is_the_sum_over_several_periods(tmp_path: Path) -> None:
    before = [(second - 240, price, quantity) for second, price, quantity in USUAL]
    five: dict[str, Any] = candle(
        -240, 300, open=10.0, high=12.5, low=5.0, close=5.0, volume=Decimal("4.1"), trade_count=6
    )
    five |= {"taker_buy_volume": Decimal("2.8")}
    tape = trades((30.0, 5.0, 1.0), (61.0, 5.0, 1.0), start=7)
    judgement = judged(tmp_path, [five], tape, earlier_tape=trades(*before), since=moment(-240))
    assert counted(judgement) == ok()
    judgement = judged(tmp_path, [five | {"trade_count": 5}], tape, earlier_tape=trades(*before), since=moment(-240))
    assert [check.metric for check in named(judgement)] == ["5m 2026-11-20T03:56:00Z trade_count"]


def test_a_candle_without_trades_repeats_the_price_before(tmp_path: Path) -> None:
    empty: dict[str, Any] = {"volume": Decimal(0), "taker_buy_volume": Decimal(0), "trade_count": 0}
    flat: dict[str, Any] = {"open": 9.0, "high": 9.0, "low": 9.0, "close": 9.0}
    tape = trades((-1.5, 9.0, 4.0), (61.5, 9.0, 2.0))
    assert counted(judged(tmp_path, [candle(**empty, **flat)], tape)) == ok()
    assert counted(judged(tmp_path, [candle(**flat)], tape)) == ok(refuted=1)
    assert counted(judged(tmp_path, [candle(**empty, **flat)], trades(*USUAL))) == ok(refuted=1)


def test_on_futures_a_trade_near_the_edge_may_count_to_either_side(tmp_path: Path) -> None:
    told = [(-2, 9.0, 4.0), (-0.5, 9.5, 0.3), *USUAL[1:5], (60.3, 7.0, 5.0), (62, 9.0, 2.0)]
    tape = trades(*told, start=0)
    strict = candle()
    with_neighbour = candle(open=9.5, volume=Decimal("1.4"), trade_count=5)
    without_first = candle(open=12.5, volume=Decimal("1.0"), trade_count=3, taker_buy_volume=Decimal("0.7"))
    for one in (strict, with_neighbour, without_first):
        assert counted(judged(tmp_path, [one], tape, FUTURES)) == ok(), one
    assert counted(judged(tmp_path, [with_neighbour], tape, SPOT)) == ok(refuted=1)
    changes: Rows = [
        {"volume": Decimal("6.40000001")},
        {"volume": Decimal("0.99999999")},
        {"open": 8.25},
        {"high": 9.9},
    ]
    for change in changes:
        assert counted(judged(tmp_path, [candle(**change)], tape, FUTURES)) == ok(refuted=1), change


def test_on_futures_trade_ids_in_no_aggregate_may_be_more_than_the_sum(tmp_path: Path) -> None:
    tape = trades(*USUAL)
    for row in tape[3:]:
        row["first_trade_id"] += 1  # the insurance fund's, say
        row["last_trade_id"] += 1
    more: dict[str, Any] = {"volume": Decimal("50.5"), "trade_count": 5, "high": 13.1, "close": 13.1}
    assert counted(judged(tmp_path, [candle(**more)], tape, FUTURES)) == ok()
    assert counted(judged(tmp_path, [candle(**more)], tape, SPOT)) == ok(refuted=1)
    smaller: Rows = [{"volume": Decimal("0.8")}, {"trade_count": 8}, {"high": 12.4}, {"low": 8.26}]
    for less in smaller:
        assert counted(judged(tmp_path, [candle(**less)], tape, FUTURES)) == ok(refuted=1), less


def test_on_futures_a_candle_may_count_fewer_trades_than_its_aggregates_have_ids(tmp_path: Path) -> None:
    tape = trades(*USUAL[:2])
    tape += trade(3, 20.0, 12.5, 0.2, first=103, fills=5)
    tape += [row | {"first_trade_id": row["first_trade_id"] + 4, "last_trade_id": row["last_trade_id"] + 4}
             for row in trades(*USUAL[3:], start=4)]  # fmt: skip
    assert counted(judged(tmp_path, [candle(trade_count=8)], tape, FUTURES)) == ok()
    assert counted(judged(tmp_path, [candle(trade_count=6)], tape, FUTURES)) == ok()
    assert counted(judged(tmp_path, [candle(trade_count=6)], tape, SPOT)) == ok(refuted=1)
    assert counted(judged(tmp_path, [candle(trade_count=8)], tape, SPOT)) == ok()


def test_sums_of_great_and_of_tiny_quantities_are_exact(tmp_path: Path) -> None:
    quantities = [123456789012.345, 999999999999999.0, 0.00000001, 1234567.12345678, 1e12]
    exact = sum((Decimal(repr(quantity)) for quantity in quantities), Decimal(0))
    tape = trades((-1.0, 1e-8, 1.0), *((10.0 * i, 1e-8, one) for i, one in enumerate(quantities)), (60.0, 1e-8, 1.0))
    prices: dict[str, Any] = {"open": 1e-8, "high": 1e-8, "low": 1e-8, "close": 1e-8, "trade_count": 5}
    bought: dict[str, Any] = {"taker_buy_volume": sum(Decimal(repr(quantity)) for quantity in quantities[::2])}
    assert counted(judged(tmp_path, [candle(**prices, **bought, volume=exact)], tape)) == ok()
    wrong = exact + Decimal("0.00000001")
    assert counted(judged(tmp_path, [candle(**prices, **bought, volume=wrong)], tape)) == ok(refuted=1)


def test_quantities_of_more_than_fifteen_digits_leave_room_for_what_a_double_loses(tmp_path: Path) -> None:
    tape = trades((-1.0, 1.0, 1.0), (30.0, 1.0, 1234567890.12345678), (60.0, 1.0, 1.0))
    said: dict[str, Any] = {
        "open": 1.0,
        "high": 1.0,
        "low": 1.0,
        "close": 1.0,
        "trade_count": 1,
        "taker_buy_volume": Decimal("1234567890.12345678"),
    }
    exact = candle(**said, volume=Decimal("1234567890.12345678"))
    assert counted(judged(tmp_path, [exact], tape)) == ok(refuted=1)
    assert counted(judged(tmp_path, [exact], tape, inexact=True)) == ok()
    other = candle(**said, volume=Decimal("1234567890.1235"))
    assert counted(judged(tmp_path, [other], tape, inexact=True)) == ok(refuted=1)


def test_doubles_become_the_decimals_they_stand_for() -> None:
    random = np.random.default_rng(7)
    texts = []
    for digits in range(1, 16):
        for decimals in range(9):
            for number in (10**digits - 1, *random.integers(1, 10**digits, 20)):
                texts.append(str(Decimal(int(number)).scaleb(-decimals)))
    values = np.array([float(text) for text in texts])
    whole, fraction = _units(values)
    expected = [int(Decimal(text).scaleb(8)) for text in texts]
    assert [int(a) * 10**8 + int(b) for a, b in zip(whole, fraction, strict=True)] == expected


MINUTE_MS = 60_000


@pytest.mark.parametrize("name", AGGREGATIONS)
async def test_candles_of_a_simulated_market_are_the_sums_of_its_trades(name: str, tmp_path: Path) -> None:
    """Frames as a venue generates them, through its decoder: every candle holds, and a lost fill refutes its own."""
    start_ms = START_MS // MINUTE_MS * MINUTE_MS
    config = SimulatorConfig(
        symbols=3, truth=tmp_path / "truth", manual_clock=True, start_ms=start_ms, seed=5, venues=(name,)
    )
    async with running(config) as simulator:
        simulator.control.advance(190)
        truth = simulator.truth()
        generated = {"kline": list(truth.events(name, "kline_1m")), "agg_trade": list(truth.events(name, "aggTrade"))}
    exchange = venue(name)
    rows: dict[str, Rows] = {}
    for channel, events in generated.items():
        stream = "@kline_1m" if channel == "kline" else "@aggTrade"
        bodies = [
            b'{"stream":"' + (one.symbol.lower() + stream).encode() + b'","data":' + one.payload + b"}"
            for one in events
        ]
        decoded = exchange.decode(channel, frames_of(exchange, bodies)[channel], "a")
        assert decoded.rejected == []
        rows[channel] = sorted(decoded.rows.to_pylist(), key=lambda row: row["symbol"])
    symbols = {row["symbol"] for row in rows["kline"]}
    tails = {symbol: min(row["agg_trade_id"] for row in rows["agg_trade"] if row["symbol"] == symbol) - 1
             for symbol in symbols}  # fmt: skip
    rule, since = AGGREGATIONS[name], datetime.fromtimestamp(start_ms / 1000 - 60, UTC)

    def counts() -> dict[str, dict[str, float | None]]:
        judgement = judged(tmp_path, rows["kline"], rows["agg_trade"], rule, tails=tails, since=since)
        return {symbol: counted(judgement, symbol) for symbol in symbols}

    assert len(symbols) == 3
    assert counts() == dict.fromkeys(symbols, ok(3))
    # a trade in the middle of a minute is told with thrice its quantity
    victim = rows["kline"][0]["symbol"]
    mine = [row for row in rows["agg_trade"] if row["symbol"] == victim]
    middle = [row for row in mine if 70 <= row["transaction_time"].timestamp() - start_ms / 1000 < 110]
    wrong = max(middle, key=lambda row: row["quantity"])
    wrong["quantity"] *= 3
    assert counts() == dict.fromkeys(symbols - {victim}, ok(3)) | {victim: ok(3, refuted=1)}
