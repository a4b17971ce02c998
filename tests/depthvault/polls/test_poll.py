"""Rounds against a simulated venue: journaled verbatim, within the budget, refusals declared."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest

from depthvault.clock import SystemClock
from depthvault.config import Config, load_config
from depthvault.durable import write_atomic
from depthvault.journal import Kind, Row, parse_body, read_rows
from depthvault.polls import poll, poll_snapshots
from depthvault.polls.round import rest_writer
from simulator.config import SimulatorConfig
from simulator.testing import Running, running

SYMBOLS = 6


def configuration(tmp_path: Path, simulator: Running, **exchange: object) -> Config:
    options = {"symbols": "top:4", "snapshot_limit": 100, **exchange}
    return load_config(
        data_dir=tmp_path,
        archive={"period": "1m"},
        journal={"min_free": 0},
        exchanges={
            venue: options | {"rest_url": simulator.rest_url(venue)} for venue in ("binance_spot", "binance_futures")
        },
    )


def journal(config: Config, exchange: str) -> list[Row]:
    layout = config.layout
    return [row for path in layout.journal_files(exchange, rest_writer()) for row in read_rows(path)]


def answers(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.kind == Kind.REST]


@pytest.mark.parametrize("exchange", ["binance_spot", "binance_futures"])
async def test_a_round_of_snapshots_is_journaled_verbatim_with_its_requests(exchange: str, tmp_path: Path) -> None:
    async with running(SimulatorConfig(symbols=SYMBOLS, truth=tmp_path / "truth")) as simulator:
        config = configuration(tmp_path, simulator)
        polled = await poll_snapshots(config, exchange)
    assert (polled.asked, polled.answered, polled.failures) == (4, 4, {})
    assert "4 of 4 answered" in str(polled)
    assert "each symbol every 60 s" in str(polled)
    rows = journal(config, exchange)
    assert [row.kind for row in rows[:1]] == [Kind.EVENT]
    snapshots = answers(rows)
    assert len({row.stream for row in snapshots}) == 4
    for row in snapshots:
        book = json.loads(row.body)
        assert book["lastUpdateId"] > 0
        assert len(book["bids"]) == 100
        sent = rows[row.sequence - 1]
        assert (sent.kind, sent.stream, sent.connection) == (Kind.SENT, row.stream, row.connection)
        assert sent.wall_ns <= row.wall_ns
    (published,) = (parse_body(row.body) for row in rows if row.stream == "environment")
    assert published["cadence_seconds"] == 60
    assert rows[-1].stream == "stop"


async def test_a_named_list_needs_no_catalogue(tmp_path: Path) -> None:
    async with running(SimulatorConfig(symbols=SYMBOLS, truth=tmp_path / "truth")) as simulator:
        config = configuration(tmp_path, simulator, symbols=["BTCUSDT"])
        polled = await poll_snapshots(config, "binance_futures")
        assert polled.answered == 1
        assert polled.used_weight == 5


async def test_what_the_collectors_record_is_what_is_asked_for(tmp_path: Path) -> None:
    async with running(SimulatorConfig(symbols=SYMBOLS)) as simulator:
        config = configuration(tmp_path, simulator)
        path = config.layout.run / "universe" / "binance_spot-a.json"
        write_atomic(path, json.dumps({"symbols": ["ETHUSDT"]}).encode())
        polled = await poll_snapshots(config, "binance_spot")
    assert polled.asked == 1
    assert answers(journal(config, "binance_spot"))[0].stream.startswith("GET /api/v3/depth?symbol=ETHUSDT&")


async def test_beyond_the_budget_symbols_rotate_and_the_depth_stays(tmp_path: Path) -> None:
    async with running(SimulatorConfig(symbols=SYMBOLS)) as simulator:
        # 2400 · 0.01 · 0.75 = 18 a minute: three snapshots of 5
        config = configuration(
            tmp_path, simulator, weight_cap=0.01, symbols=["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"]
        )
        polled = await poll_snapshots(config, "binance_futures")
    assert polled.asked == 2
    assert polled.cadence == timedelta(minutes=2)
    assert all("limit=100" in row.stream for row in answers(journal(config, "binance_futures")))


async def test_a_limit_stops_the_round_and_is_declared(tmp_path: Path) -> None:
    async with running(SimulatorConfig(symbols=SYMBOLS)) as simulator:
        config = configuration(tmp_path, simulator, symbols=["BTCUSDT", "ETHUSDT"])
        simulator.control.fault("binance_futures", "rest_429", requests=10)
        polled = await poll_snapshots(config, "binance_futures")
        assert polled.dead
        again = await poll_snapshots(config, "binance_futures")  # the pause binds every process
        assert again.dead
    events = [row for row in journal(config, "binance_futures") if row.stream == "rate_limited"]
    assert events
    assert parse_body(events[0].body)["channel"] == "depth_snapshot"


async def test_a_server_error_is_asked_again_once(tmp_path: Path) -> None:
    async with running(SimulatorConfig(symbols=SYMBOLS)) as simulator:
        config = configuration(tmp_path, simulator, symbols=["BTCUSDT"])
        simulator.control.fault("binance_spot", "rest_5xx", status=503, endpoint="depth")
        polled = await poll_snapshots(config, "binance_spot")
    assert (polled.answered, polled.failures) == (1, {})


async def test_a_symbol_that_is_refused_spares_the_others(tmp_path: Path) -> None:
    async with running(SimulatorConfig(symbols=SYMBOLS)) as simulator:
        config = configuration(tmp_path, simulator, symbols=["BTCUSDT", "NOSUCHUSDT"])
        polled = await poll_snapshots(config, "binance_spot")
    assert (polled.answered, set(polled.failures)) == (1, {"NOSUCHUSDT"})
    (declared,) = (parse_body(row.body) for row in journal(config, "binance_spot") if row.stream == "stale")
    assert declared["symbol"] == "NOSUCHUSDT"


async def test_funding_and_open_interest_are_journaled_in_decoding_order(tmp_path: Path) -> None:
    async with running(SimulatorConfig(symbols=SYMBOLS)) as simulator:
        config = configuration(tmp_path, simulator)
        funding, interest = await asyncio.gather(
            poll(config, "binance_futures", "funding_rate"), poll(config, "binance_futures", "open_interest")
        )
    assert (funding.answered, interest.answered) == (2, 4)
    streams = [row.stream.partition("?")[0] for row in answers(journal(config, "binance_futures"))]
    assert streams.index("GET /fapi/v1/fundingInfo") < streams.index("GET /fapi/v1/fundingRate")
    assert streams.count("GET /fapi/v1/openInterest") == 4


async def test_a_catalogue_is_journaled_as_one(tmp_path: Path) -> None:
    async with running(SimulatorConfig(symbols=SYMBOLS)) as simulator:
        config = configuration(tmp_path, simulator)
        polled = await poll(config, "binance_spot", "instrument")
    assert polled.answered == 1
    (row,) = (row for row in journal(config, "binance_spot") if row.kind == Kind.CATALOGUE)
    assert json.loads(row.body)["symbols"]


async def test_a_venue_that_does_not_answer_is_said_so(tmp_path: Path) -> None:
    async with running(SimulatorConfig(symbols=SYMBOLS)) as simulator:
        config = configuration(tmp_path, simulator, symbols=["BTCUSDT"])
    polled = await poll_snapshots(config, "binance_spot", clock=SystemClock())  # it is gone now
    assert polled.dead
    assert "BTCUSDT" in polled.failures
