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
    with duckdb.connect() as connection:
        connection.register("coverage", pa.Table.from_pylist(coverage, QUALITY["coverage"]))
        connection.register("hour_metrics", pa.Table.from_pylist(metrics, QUALITY["hour_metrics"]))
        connection.execute(f"CREATE VIEW conditions AS {VIEWS['conditions']}")
        rows = connection.execute("SELECT symbol, day, condition FROM conditions").fetchall()
    found: dict[tuple[str, date], str] = {(symbol, day): condition for symbol, day, condition in rows}
    assert [found["GOOD", day.date()] for day in (first, second, third, TODAY)] == ["available"] * 3 + ["pending"]
    assert found["GAP", first.date()] == "degraded"
    assert found["FAILED", second.date()] == "degraded"
    assert (found["SHORT", first.date()], found["SHORT", second.date()]) == ("available", "degraded")
    assert [found["HOLE", day.date()] for day in (first, second, third)] == ["available", "missing", "available"]
    assert found["HOLE", TODAY.date()] == "pending"
