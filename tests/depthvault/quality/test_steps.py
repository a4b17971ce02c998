"""Missing candles, settlements and answers are told by time, once, and closed by refilled rows."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pyarrow as pa

from depthvault.archive.manifest import Tail
from depthvault.quality.sessions import Span
from depthvault.quality.steps import interval_us, skips
from depthvault.schemas import CHANNELS

MINUTE = 60_000_000
BASE = 1_700_000_000_000_000 // MINUTE * MINUTE


def candles(minutes: Sequence[int], source: str = "stream", interval: str = "1m") -> list[dict[str, object]]:
    one = Decimal("1.00000000")
    return [
        {
            "received_time": BASE + (minute + 1) * MINUTE, "event_time": None, "symbol": "X", "instance": "a",
            "source": source, "interval": interval, "open_time": BASE + minute * MINUTE,
            "close_time": BASE + (minute + 1) * MINUTE - 1000, "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0,
            "volume": one, "quote_volume": one, "trade_count": 1, "taker_buy_volume": one,
            "taker_buy_quote_volume": one,
        }
        for minute in minutes
    ]  # fmt: skip


def table(channel: str, rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(rows, CHANNELS[channel].schema)


def told(
    rows: list[dict[str, object]], tails: dict[str, Tail] | None = None, listened: Sequence[Span] = ()
) -> list[tuple[int, int, int, str]]:
    found, _ = skips(table("kline", rows), CHANNELS["kline"], tails or {}, None, listened)
    return [((one.last - BASE) // MINUTE, (one.next - BASE) // MINUTE, one.missing, one.status) for one in found]


def test_intervals_have_a_length_but_months_do_not() -> None:
    assert interval_us("1m") == MINUTE
    assert interval_us("4h") == 240 * MINUTE
    assert interval_us("1M") is None


def test_consecutive_candles_have_no_gap() -> None:
    assert told(candles(range(10))) == []


def test_missing_candles_are_one_row() -> None:
    assert told(candles([0, 1, 5, 6])) == [(1, 5, 3, "open")]


def test_each_interval_is_a_series_of_its_own() -> None:
    assert told([*candles([0, 1, 2]), *candles([0, 5], interval="5m")]) == []


def minutes(start: float, end: float) -> Span:
    return Span(int((BASE + start * MINUTE) * 1000), int((BASE + end * MINUTE) * 1000))


def test_candles_that_closed_while_nobody_listened_are_missing_though_none_came_before() -> None:
    rows = [*candles([8, 9]), *candles([10], interval="5m")]
    listened = [minutes(4.3, 4.8), minutes(6.2, 6.5), minutes(7.1, 20)]
    assert told(rows, listened=listened) == [(3, 8, 4, "open"), (-5, 10, 2, "open")]
    refilled = [*candles([4, 5, 6, 7], source="refill"), *candles([8, 9])]
    assert told(refilled, listened=listened) == [(3, 8, 4, "refilled")]


def test_before_listening_began_nothing_is_missing() -> None:
    assert told(candles([8, 9]), listened=[minutes(8.3, 20)]) == []
    assert told(candles([8, 9]), listened=[minutes(8.3, 8.4), minutes(8.5, 20)]) == [], "no candle closed before"
    assert told(candles([8, 9]), listened=[minutes(2, 9.4), minutes(9.5, 20)]) == [], "it came on the first connection"
    known = {"@5m": Tail(BASE, BASE)}
    assert told(candles([8, 9]), known, [minutes(2, 4), minutes(5, 20)]) == [], "a series that was asked for later"


def test_candles_are_followed_across_the_period() -> None:
    _, after = skips(table("kline", candles([0, 1])), CHANNELS["kline"], {}, None)
    assert told(candles([2, 3]), after) == []
    assert told(candles([4]), after) == [(1, 4, 2, "open")]


def test_refilled_candles_close_a_gap_without_hiding_it() -> None:
    rows = sorted([*candles([0, 1, 5]), *candles([2, 3, 4], "refill")], key=lambda row: str(row["open_time"]))
    assert told(rows) == [(1, 5, 3, "refilled")]


def test_candles_refilled_over_several_periods_are_told_where_the_stream_comes_back() -> None:
    periods = [
        [*candles([0, 1]), *candles([2, 3], "refill")], candles([4, 5], "refill"),
        [*candles([6], "refill"), *candles([7, 8])], candles([9]),
    ]  # fmt: skip
    found, tails = [], {}
    for rows in periods:
        ordered = sorted(rows, key=lambda row: str(row["open_time"]))
        missing, tails = skips(table("kline", ordered), CHANNELS["kline"], tails, None)
        found.append([((one.last - BASE) // MINUTE, (one.next - BASE) // MINUTE, one.status) for one in missing])
    assert found == [[], [], [(1, 7, "refilled")], []]
    assert tails.keys() == {"@1m"}, "nothing is remembered any longer than needed"


def snapshots(seconds: Sequence[float]) -> pa.Table:
    return table(
        "depth_snapshot",
        [
            {
                "received_time": BASE + int(at * 1e6), "event_time": None, "symbol": "X", "instance": "rest-h",
                "source": "rest", "transaction_time": None, "request_time": BASE + int(at * 1e6) - 1000,
                "last_update_id": int(at), "limit": 1000, "bid_prices": [], "bid_sizes": [], "ask_prices": [],
                "ask_sizes": [],
            }
            for at in seconds
        ],
    )  # fmt: skip


def test_answers_may_be_late_by_the_patience_and_no_more() -> None:
    channel = CHANNELS["depth_snapshot"]
    assert skips(snapshots([0, 60, 200]), channel, {}, MINUTE)[0] == []
    (found,) = skips(snapshots([0, 60, 220]), channel, {}, MINUTE)[0]
    assert (found.status, found.start_us, found.end_us) == ("lost", BASE + MINUTE, BASE + 220_000_000)
    assert skips(snapshots([0, 600]), channel, {}, None)[0] == [], "without a promise there is nothing to break"


def test_settlements_follow_by_their_interval() -> None:
    hour = 60 * MINUTE
    rows = [
        {
            "received_time": BASE + at * hour, "event_time": None, "symbol": "X", "instance": "rest-h",
            "source": "rest", "funding_time": BASE + at * hour + at * 3000, "funding_rate": 0.0001,
            "interval_hours": 8, "mark_price": None,
        }
        for at in (0, 8, 24)
    ]  # fmt: skip
    (found,) = skips(table("funding_rate", rows), CHANNELS["funding_rate"], {}, None)[0]
    assert (found.missing, found.status) == (1, "open")
