"""Candles are judged anew when their trades were refilled."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from depthvault.archive import log
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.archive.rollup import rollup_with
from depthvault.archive.verify import verify
from depthvault.period import Period
from expectations import validate
from tests.depthvault.archive.sealed import FUTURES, HOUR, Host, Link, trade_rows

STREAMS = ("btcusdt@aggTrade", "btcusdt@kline_1m")
LAST = 3_599
MISSING = {*range(130, 140), *range(LAST - 20, LAST - 10)}
"""Trades (one a second) that nobody heard: in the third minute and in the hour's last one."""


def candle(minute: int, base: Period) -> dict[str, Any]:
    opened = base.start + timedelta(minutes=minute)
    closed = opened + timedelta(seconds=59.999)
    return {
        "received_time": closed + timedelta(milliseconds=9), "event_time": closed, "symbol": "BTCUSDT", "instance": "a",
        "source": "stream", "interval": "1m", "open_time": opened, "close_time": closed, "open": 100.0, "high": 100.0,
        "low": 100.0, "close": 100.0, "volume": Decimal(30), "quote_volume": Decimal(3000), "trade_count": 60,
        "taker_buy_volume": Decimal(15), "taker_buy_quote_volume": Decimal(1500),
    }  # fmt: skip


def hour(ids: range, base: Period = HOUR) -> list[dict[str, Any]]:
    """A trade each second of `base`, ids as given."""
    rows = trade_rows(ids, "a")
    for number, row in enumerate(rows):
        moment = base.start + timedelta(seconds=number)
        row |= {"transaction_time": moment, "event_time": moment, "received_time": moment + timedelta(milliseconds=5)}
    return rows


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def archive(host: Host, *, rounds: int = 20) -> list[tuple[str, list[str]]]:
    """Take all that is ready into the archive; the units with the channels that each made anew."""
    made = []
    while units := ready_units(host.layout, host.config, FUTURES):
        assert len(made) < rounds, f"it does not come to an end: {made}"
        unit = units[0]
        drafts = compact(host.layout, host.config, FUTURES, unit.period).drafts
        validate(host.layout, host.config, FUTURES, unit.period)
        publish_with(host.layout, None, unit)
        made.append((unit.period.label, [draft.channel for draft in drafts]))
    return made


def judged(host: Host, period: Period) -> dict[str, float]:
    state = log.load(host.layout)
    (path,) = [
        file.path
        for file in state.files_of(("hour", FUTURES, "kline", period.label))
        if file.table == "hour_metrics"
    ]  # fmt: skip
    rows = pq.read_table(host.layout.archived(path)).to_pylist()
    return {
        row["metric"].removeprefix("candles_"): row["value"]
        for row in rows
        if row["symbol"] == "BTCUSDT" and row["metric"] in ("candles_judged", "candles_undecidable", "candles_waiting")
    }


def test_rows_that_come_after_the_roll_up_are_judged_with_those_of_the_day(host: Host) -> None:
    trades = hour(range(LAST + 1))
    heard = [row for row in trades if row["agg_trade_id"] not in MISSING]
    rows = {"agg_trade": heard, "kline": [candle(minute, HOUR) for minute in range(60)]}
    host.seal("a", rows, links=[Link(streams=STREAMS)])
    archive(host)
    rollup_with(host.layout, host.config, None, FUTURES, HOUR.start.date())
    filled = [row | {"source": "refill", "instance": "rest-h"} for row in trades if row["agg_trade_id"] in MISSING]
    host.seal("rest-h", {}, period=HOUR.next(), links=[], late={HOUR: {"agg_trade": filled}})
    assert archive(host)[0] == (HOUR.label, ["agg_trade", "kline"])
    state = log.load(host.layout)
    for channel in ("agg_trade", "kline"):
        entry = state.entry("hour", FUTURES, channel, HOUR.label)
        assert entry is not None
        assert (entry.condition, entry.failed, entry.generation) == ("available", [], 2), channel
    assert judged(host, HOUR) == {"judged": 58.0, "undecidable": 1.0, "waiting": 1.0}
    assert verify(host.layout, deep=True).findings == []
    assert compact(host.layout, host.config, FUTURES, HOUR, pending=True).drafts == []


def test_refilled_trades_have_the_candles_around_them_judged_anew(host: Host) -> None:
    following, links = HOUR.next(), [Link(streams=STREAMS)]
    trades = hour(range(LAST + 1))
    heard = [row for row in trades if row["agg_trade_id"] not in MISSING]
    host.seal("a", {"agg_trade": heard, "kline": [candle(minute, HOUR) for minute in range(60)]}, links=links)
    after = {"agg_trade": hour(range(LAST + 1, 2 * LAST + 2), following)}
    after["kline"] = [candle(minute, following) for minute in range(60)]
    host.seal("a", after, period=following, links=links)
    assert archive(host) == [(HOUR.label, ["agg_trade", "kline"]), (following.label, ["agg_trade", "kline"])]
    assert judged(host, HOUR)["undecidable"] >= 2
    assert judged(host, following)["undecidable"] == 1, "the last candle of the hour before"

    filled = [row | {"source": "refill", "instance": "rest-h"} for row in trades if row["agg_trade_id"] in MISSING]
    later = following.next()
    host.seal("rest-h", {}, period=later, links=[], late={HOUR: {"agg_trade": filled}})
    made = archive(host)
    assert made[0] == (HOUR.label, ["agg_trade", "kline"])
    assert (following.label, ["kline"]) in [(label, sorted(set(names) & {"kline"})) for label, names in made]
    assert judged(host, HOUR) == {"judged": 58.0, "undecidable": 1.0, "waiting": 1.0}, "of the first nobody can know"
    assert judged(host, following) == {"judged": 60.0, "undecidable": 0.0, "waiting": 1.0}
    rows = log.load(host.layout).entry("hour", FUTURES, "kline", HOUR.label)
    assert rows is not None
    assert rows.generation == 2
    assert (rows.condition, rows.failed) == ("available", [])
