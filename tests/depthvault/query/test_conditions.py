"""`conditions` calls a day what it is."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from depthvault.query.derived import VIEWS
from depthvault.schemas import QUALITY

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
HOUR = timedelta(hours=1)


def covered(symbol: str, day: datetime, hours: int = 2, gaps: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "exchange": "binance_spot", "channel": "depth_diff", "symbol": symbol, "period": day + hour * HOUR,
            "first_time": None, "last_time": None, "events": 10, "duplicates": 0, "gaps": gaps,
            "covered_seconds": 3600.0, "share": 1.0,
        }
        for hour in range(hours)
    ]  # fmt: skip


def judged(symbol: str, period: datetime, passed: bool) -> dict[str, Any]:
    return {
        "exchange": "binance_spot", "channel": "depth_diff", "symbol": symbol, "period": period,
        "metric": "nulls", "value": 0.0, "passed": passed,
    }  # fmt: skip


def test_every_condition_is_told() -> None:
    first, second, third = (TODAY - timedelta(days=3 - each) for each in range(3))
    coverage = [
        *covered("GOOD", first), *covered("GOOD", second), *covered("GOOD", third), *covered("GOOD", TODAY),
        *covered("GAP", first, gaps=1),
        *covered("FAILED", second),
        *covered("SHORT", first), *covered("SHORT", second, hours=1),
        *covered("HOLE", first), *covered("HOLE", third),
    ]  # fmt: skip
    metrics = [judged("FAILED", second, True), judged("FAILED", second + HOUR, False), judged("GOOD", first, True)]
    metrics += [judged("", day + hour * HOUR, True) for day in (first, second, third) for hour in range(2)]
    found = conditions(coverage, metrics)
    assert [found["GOOD", day.date()] for day in (first, second, third, TODAY)] == ["available"] * 3 + ["pending"]
    assert found["GAP", first.date()] == "degraded"
    assert found["FAILED", second.date()] == "degraded"
    assert (found["SHORT", first.date()], found["SHORT", second.date()]) == ("available", "degraded")
    assert [found["HOLE", day.date()] for day in (first, second, third)] == ["available", "missing", "available"]
    assert found["HOLE", TODAY.date()] == "pending"


def test_what_nobody_judged_is_pending_unless_it_is_known_to_be_degraded() -> None:
    first, second = TODAY - timedelta(days=2), TODAY - timedelta(days=1)
    coverage = [*covered("GOOD", first), *covered("GOOD", second), *covered("GAP", first, gaps=1)]
    metrics = [judged("", first, True), judged("GOOD", first, True), judged("", second, True)]
    metrics += [judged("", second + HOUR, True)]
    found = conditions(coverage, metrics)
    assert found["GOOD", first.date()] == "pending", "its second hour was published without a verdict"
    assert found["GAP", first.date()] == "degraded"
    assert found["GOOD", second.date()] == "available", "judged, and nothing to say of this symbol"


def test_a_failure_of_the_file_as_a_whole_is_one_of_each_symbol_in_it() -> None:
    day = TODAY - timedelta(days=1)
    metrics = [judged("", day, True), judged("", day + HOUR, False)]
    metrics += [judged(symbol, day + hour * HOUR, True) for symbol in ("A", "B") for hour in range(2)]
    found = conditions([*covered("A", day), *covered("B", day)], metrics)
    assert {found[symbol, day.date()] for symbol in ("A", "B")} == {"degraded"}


def test_a_stream_of_the_whole_market_listened_for_every_symbol_of_its_venue() -> None:
    """Of few symbols there is a liquidation in an hour: the others were listened to all the same."""
    first, second = TODAY - timedelta(days=2), TODAY - timedelta(days=1)
    books = [row for day in (first, second) for symbol in ("BUSY", "QUIET") for row in covered(symbol, day)]
    market = [row | {"channel": "liquidation", "events": 0} for day in (first, second) for row in covered("", day)]
    busy = covered("BUSY", first, hours=1)[0] | {"channel": "liquidation", "events": 3}
    metrics = [
        judged("", day + hour * HOUR, True) | {"channel": channel}
        for channel in ("depth_diff", "liquidation") for day in (first, second) for hour in range(2)
    ]  # fmt: skip

    def liquidations(rows: list[dict[str, Any]]) -> dict[tuple[str, date], tuple[str, int]]:
        told = queried([*books, *rows], metrics, "symbol, day, condition, events", "channel = 'liquidation'")
        return {(symbol, day): (condition, events) for symbol, day, condition, events in told}

    found = liquidations([*market, busy])
    assert {key: value for key, value in found.items() if key[1] != TODAY.date()} == {
        ("BUSY", first.date()): ("available", 3), ("BUSY", second.date()): ("available", 0),
        ("QUIET", first.date()): ("available", 0), ("QUIET", second.date()): ("available", 0),
    }  # fmt: skip
    broken = [market[0] | {"gaps": 1}, *market[1:], busy]
    assert liquidations(broken)["QUIET", first.date()] == ("degraded", 0), "what nobody heard may have been of it"


def conditions(coverage: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> dict[tuple[str, date], str]:
    rows = queried(coverage, metrics, "symbol, day, condition")
    return {(symbol, day): condition for symbol, day, condition in rows}


def queried(
    coverage: list[dict[str, Any]], metrics: list[dict[str, Any]], columns: str, where: str = "true"
) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        connection.register("coverage", pa.Table.from_pylist(coverage, QUALITY["coverage"]))
        connection.register("hour_metrics", pa.Table.from_pylist(metrics, QUALITY["hour_metrics"]))
        connection.execute(f"CREATE VIEW conditions AS {VIEWS['conditions']}")
        return connection.execute(f"SELECT {columns} FROM conditions WHERE {where}").fetchall()
