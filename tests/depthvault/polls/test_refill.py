"""A hole in trades is fetched again by id, and the archive's next generation is whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from depthvault.archive import log
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.clock import ManualClock, datetime_from_ns
from depthvault.config import Config, load_config
from depthvault.exchanges import exchange as venue
from depthvault.journal import JournalWriter
from depthvault.polls import refill
from depthvault.polls.refill import Hole, hole_of, open_holes
from depthvault.rest.client import RestClient
from depthvault.rest.weight import WeightBudget
from depthvault.seal import seal_pending
from simulator.config import SimulatorConfig
from simulator.testing import START_MS, Running, running

SYMBOL = "BTCUSDT"
MINUTE_MS = 60_000
BEGIN_MS = START_MS // MINUTE_MS * MINUTE_MS + 5_000


def configuration(tmp_path: Path, simulator: Running, exchange: str) -> Config:
    return load_config(
        data_dir=tmp_path,
        archive={"period": "1m", "seal_grace": "1s"},
        journal={"min_free": 0},
        exchanges={exchange: {"rest_url": simulator.rest_url(exchange), "symbols": [SYMBOL]}},
    )


async def trades(config: Config, name: str, clock: ManualClock) -> list[dict[str, int]]:
    """What the venue has of the symbol, by id."""
    exchange = venue(name, config.exchanges[name])
    request = exchange.refill_trades(SYMBOL, 0, 1000)
    assert request is not None
    request = replace(request, params=tuple(one for one in request.params if one[0] != "fromId"))
    async with RestClient(exchange, WeightBudget(config.layout.run / "weight.sqlite", clock=clock)) as client:
        found: list[dict[str, int]] = json.loads((await client.get(request)).body)
    return found


def record(config: Config, name: str, rows: Sequence[dict[str, int]], clock: ManualClock) -> None:
    """Journal trades as a collector that heard only these would have them archived."""
    line = f"GET {'/api/v3' if name == 'binance_spot' else '/fapi/v1'}/aggTrades?symbol={SYMBOL}"
    with JournalWriter(config.layout, name, "a", config=config.journal, clock=clock) as journal:
        journal.append_rest(line, json.dumps(rows).encode(), clock.wall, clock.wall)


def archive(config: Config, now: datetime) -> None:
    seal_pending(config, now=now)
    while units := ready_units(config.layout, config):  # a period that was refilled has the next one judged anew
        compact(config.layout, config, units[0].exchange, units[0].period)
        publish_with(config.layout, None, units[0])


@pytest.mark.parametrize("name", ["binance_spot", "binance_futures"])
async def test_missing_trades_are_fetched_by_id_and_the_gap_is_closed(name: str, tmp_path: Path) -> None:
    async with running(SimulatorConfig(symbols=3, manual_clock=True, start_ms=BEGIN_MS)) as simulator:
        await asyncio.to_thread(simulator.control.advance, 30)
        config = configuration(tmp_path, simulator, name)
        clock = ManualClock((BEGIN_MS + 31_000) * 1_000_000)
        heard = await trades(config, name, clock)
        missing = heard[5:-5]
        record(config, name, [*heard[:5], *heard[-5:]], clock)
        later = datetime_from_ns(clock.wall) + timedelta(minutes=5)
        await asyncio.to_thread(archive, config, later)
        (hole,) = open_holes(config.layout, log.load(config.layout), name, later - timedelta(hours=1))
        assert hole == Hole("agg_trade", SYMBOL, "", missing[0]["a"], missing[-1]["a"])

        clock.advance(300)
        polled = await refill(config, name, clock=clock)
        assert (polled.asked, polled.answered) == (1, 1)
        assert (await refill(config, name, clock=clock)).asked == 0  # it is on its way
        await asyncio.to_thread(archive, config, later + timedelta(minutes=10))
    state = log.load(config.layout)
    assert open_holes(config.layout, state, name, later - timedelta(hours=1)) == []
    (entry,) = (entry for unit, entry in state.current.items() if unit[2] == "agg_trade")
    assert (entry.generation, entry.counts.rows) == (2, len(heard))


@pytest.mark.parametrize("name", ["binance_spot", "binance_futures"])
@pytest.mark.parametrize("channel", ["agg_trade", "kline"])
async def test_a_hole_over_several_periods_is_closed_and_told_once(name: str, channel: str, tmp_path: Path) -> None:
    """Nobody recorded for minutes: the periods between exist by what was fetched again alone."""
    async with running(SimulatorConfig(symbols=3, manual_clock=True, start_ms=BEGIN_MS)) as simulator:
        await asyncio.to_thread(simulator.control.advance, 6 * 60)
        config = configuration(tmp_path, simulator, name)
        clock = ManualClock((BEGIN_MS + 6 * MINUTE_MS + 1_000) * 1_000_000)
        line, all_of_it = await answers(config, name, channel, clock)
        assert len(all_of_it) > 5
        heard = [*all_of_it[:2], *all_of_it[-2:]]
        with JournalWriter(config.layout, name, "a", config=config.journal, clock=clock) as journal:
            journal.append_rest(line, json.dumps(heard).encode(), clock.wall, clock.wall)
        later = datetime_from_ns(clock.wall) + timedelta(minutes=5)
        await asyncio.to_thread(archive, config, later)
        assert [row["status"] for row in ledger(config, name, channel)] == ["open"]

        clock.advance(300)
        await refill(config, name, clock=clock)
        await asyncio.to_thread(archive, config, later + timedelta(minutes=10))
    (row,) = ledger(config, name, channel)
    assert row["status"] == "refilled"
    assert row["start_time"] <= row["end_time"]
    if channel == "agg_trade":
        assert (row["last_id"], row["first_id"]) == (heard[1]["a"], heard[2]["a"])
    state = log.load(config.layout)
    assert open_holes(config.layout, state, name, later - timedelta(hours=1)) == []
    rows = [entry.counts.rows for unit, entry in state.current.items() if unit[2] == channel]
    assert sum(rows) == len(all_of_it)


async def answers(config: Config, name: str, channel: str, clock: ManualClock) -> tuple[str, list[Any]]:
    """All that the venue has of the symbol that has closed, and the request line that asks for it."""
    exchange = venue(name, config.exchanges[name])
    if channel == "agg_trade":
        found: list[Any] = await trades(config, name, clock)
        return f"GET {'/api/v3' if name == 'binance_spot' else '/fapi/v1'}/aggTrades?symbol={SYMBOL}", found
    request = exchange.refill_candles(SYMBOL, "1m", BEGIN_MS - MINUTE_MS, BEGIN_MS + 6 * MINUTE_MS)
    assert request is not None
    async with RestClient(exchange, WeightBudget(config.layout.run / "weight.sqlite", clock=clock)) as client:
        candles = json.loads((await client.get(request)).body)
    return request.line, [candle for candle in candles if candle[6] < BEGIN_MS + 6 * MINUTE_MS]


def ledger(config: Config, name: str, channel: str) -> list[dict[str, Any]]:
    """The rows of `gaps` of the channel, over all periods."""
    state = log.load(config.layout)
    paths = [path for path, file in state.files.items() if file.table == "gaps" and state.owner[path][2] == channel]
    return [row for path in sorted(paths) for row in pq.read_table(config.layout.archived(path)).to_pylist()]


def test_a_large_hole_is_asked_for_in_pages() -> None:
    exchange = venue("binance_futures", load_config().exchanges["binance_futures"])
    lines = [request.line for request in Hole("agg_trade", SYMBOL, "", 10, 2_509).requests(exchange)]
    assert [line.partition("?")[2] for line in lines] == [
        "symbol=BTCUSDT&fromId=10&limit=1000",
        "symbol=BTCUSDT&fromId=1010&limit=1000",
        "symbol=BTCUSDT&fromId=2010&limit=500",
    ]


def test_missing_candles_are_asked_for_by_time() -> None:
    exchange = venue("binance_spot", load_config().exchanges["binance_spot"])
    opened = datetime(2026, 11, 20, 4, tzinfo=UTC)
    before, after = (int((opened + timedelta(minutes=at)).timestamp()) * 10**6 for at in (0, 3))
    detail = json.dumps({"series": "1m", "last_us": before, "next_us": after, "missing": 2})
    row = {"channel": "kline", "symbol": SYMBOL, "status": "open", "last_id": None, "first_id": None, "detail": detail}
    hole = hole_of(row)
    assert hole is not None
    (request,) = hole.requests(exchange)
    asked = dict(request.params)
    assert int(asked["startTime"]) == before // 1000 + 60_000
    assert int(asked["endTime"]) == after // 1000 - 1


@pytest.mark.parametrize(
    ("channel", "status"), [("depth_diff", "open"), ("agg_trade", "lost"), ("agg_trade", "refilled")]
)
def test_what_cannot_be_fetched_again_is_left_declared(channel: str, status: str) -> None:
    row = {"channel": channel, "symbol": SYMBOL, "status": status, "last_id": 1, "first_id": 9, "detail": "{}"}
    assert hole_of(row) is None
