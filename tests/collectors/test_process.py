"""The collector as a process: signals, kill -9, replay of recordings, health."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from depthvault.journal import read
from depthvault.layout import Layout
from simulator.config import SimulatorConfig
from simulator.testing import Running, running
from tests.collectors.session import collecting, configuration, events, frames, journal_rows, simulated, ticking, until

RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "hftbacktest"

_PROGRAM = """
import json, sys
from collectors.collector import main
from depthvault.config import Config
options = json.loads(sys.argv[1])
sys.exit(main(Config.model_validate(options["config"]), options["venue"], duration=options["duration"]))
"""


@asynccontextmanager
async def process(
    sim: Running, venue: str, data_dir: Path, *, duration: float | None = None, **exchange: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    config = configuration(sim, venue, data_dir, **exchange).model_dump(mode="json")
    arguments = json.dumps({"config": config, "venue": venue, "duration": duration})
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, arguments, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    try:
        yield started
    finally:
        if started.returncode is None:
            os.killpg(started.pid, signal.SIGKILL)
        await started.communicate()


def status_of(data_dir: Path, venue: str) -> dict[str, Any]:
    path = data_dir / "run" / "collectors" / f"{venue}-a.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_stop_gracefully(number: signal.Signals, tmp_path: Path) -> None:
    venue, data = "binance_spot", tmp_path / "data"
    async with running(simulated(tmp_path)) as sim, ticking(sim), process(sim, venue, data) as collector:
        await until(lambda: status_of(data, venue).get("books", {}).get("live") == 3, "all books are live", 60)
        collector.send_signal(number)
        assert await asyncio.wait_for(collector.wait(), 15) == 0
    rows = journal_rows(data, venue)
    assert json.loads(rows[-1].body)["reason"] == number.name.lower()
    assert not status_of(data, venue), "a process that is gone has no status"
    assert [json.loads(row.body)["initiator"] for row in rows if row.kind == "closed"] == ["stop"]
    log = (data / "run" / "logs" / f"collector-{venue}-a.log").read_text()
    assert "3 symbols on 1 connections" in log


async def test_kill_9_and_restart_lose_and_double_nothing_of_what_the_journal_held(tmp_path: Path) -> None:
    venue, data = "binance_futures", tmp_path / "data"
    stream = "btcusdt@depth@100ms"
    async with running(simulated(tmp_path)) as sim, ticking(sim):
        async with process(sim, venue, data) as first:
            await until(lambda: status_of(data, venue).get("books", {}).get("live") == 3, "all books are live", 60)
            os.kill(first.pid, signal.SIGKILL)
            await first.wait()
        held = journal_rows(data, venue)
        assert held
        assert not any(row.stream == "stop" for row in held)
        async with process(sim, venue, data, duration=4) as second:
            assert await asyncio.wait_for(second.wait(), 60) == 0
        paths = Layout(data).journal_files(venue, "a")
        assert len(paths) == 2
        rows = journal_rows(data, venue)
        assert rows[: len(held)] == held, "the first journal is untouched"
        assert json.loads(rows[len(held)].body)["previous"]["reason"] == "crash"
        generated = [event.payload for event in sim.truth().events(venue, "depth@100ms", "BTCUSDT")]
    before, after = frames(held, stream), frames(rows[len(held) :], stream)
    start = generated.index(before[0])
    assert before == generated[start : start + len(before)]
    resume = generated.index(after[0])
    assert after == generated[resume : resume + len(after)]
    assert resume > start + len(before)
    damage = [each for path in paths for each in read(path) if type(each).__name__ == "Damage"]
    assert all(each.kind == "torn" for each in damage)


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("venue", "files", "speed"),
    [
        ("binance_futures", ["usdm_btcusdt_20240808.gz"], "0ms"),
        ("binance_spot", ["spot_ethusdt_20240808.gz", "spot_ethusdt_20240809.gz"], "100ms"),
    ],
)
async def test_each_recorded_depth_frame_is_journaled_once(
    venue: str, files: list[str], speed: str, tmp_path: Path
) -> None:
    paths = [RECORDINGS / name for name in files]
    if not all(path.exists() for path in paths):
        pytest.skip("no recordings")
    simulator = SimulatorConfig(replay=tuple(paths), speed=None)
    expected: dict[str, list[bytes]] = {}
    for path in paths:
        with gzip.open(path, "rb") as file:
            for line in file:
                body = line.partition(b" ")[2].rstrip(b"\n")
                if body.startswith(b'{"stream":"'):
                    expected.setdefault(body[11 : body.index(b'"', 11)].decode(), []).append(body)
    total = sum(map(len, expected.values()))
    async with running(simulator) as sim:
        config = configuration(
            sim, venue, tmp_path / "data", channels=("depth_diff", "trade", "book_ticker"), depth_speed=speed
        )
        async with collecting(config, venue) as collector:
            heard = lambda: sum(state.frames for state in collector.recorder.states.values())  # noqa: E731
            await until(lambda: heard() == total, f"all {total} frames are received", 90)
            await until(lambda: collector.books.states()["live"] == 1, "the book is live")
    rows = journal_rows(tmp_path / "data", venue)
    recorded: dict[str, list[bytes]] = {}
    for row in rows:
        if row.kind == "frame" and row.stream:
            recorded.setdefault(row.stream, []).append(row.body)
    assert recorded == expected
    assert events(rows, "gap") == []
    assert events(rows, "malformed") == []


async def test_health_and_metrics_tell_how_it_is(tmp_path: Path) -> None:
    venue, data = "binance_spot", tmp_path / "data"
    async with (
        running(simulated(tmp_path)) as sim,
        ticking(sim),
        collecting(configuration(sim, venue, data), venue) as collector,
    ):
        await until(lambda: collector.books.states()["live"] == 3, "all books are live")
        await until(lambda: status_of(data, venue).get("frames"), "the status file is written")
        base = f"http://127.0.0.1:{collector.port}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/healthz") as answer:
                assert (answer.status, await answer.json()) == (200, {"healthy": True, "problems": []})
            async with session.get(f"{base}/metrics") as answer:
                text = await answer.text()
            labels = '{exchange="binance_spot",writer="a"}'
            lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
            assert float(lines[f"depthvault_frames_total{labels}"]) > 0
            assert float(lines[f"depthvault_connections{labels}"]) == 1
            assert float(lines['depthvault_books{exchange="binance_spot",state="live",writer="a"}']) == 3
            assert float(lines[f"depthvault_lag_seconds_count{labels}"]) > 0
            weight = next(value for name, value in lines.items() if name.startswith("depthvault_used_weight"))
            assert float(weight) >= 3 * 50
        status = status_of(data, venue)
        assert status["pid"] == os.getpid()
        assert status["port"] == collector.port
