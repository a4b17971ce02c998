"""The simulator as a process: options, the port it tells, signals, real time."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from simulator.__main__ import config_from, main
from simulator.server import SimulatorConfig
from simulator.testing import running
from simulator.truth import Truth
from tests.simulator.book_client import connect, get


async def test_a_process_tells_its_port_serves_in_real_time_and_ends_on_sigterm(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulator", "--port", "0", "--port-file", str(port_file), "--symbols", "2"),
        *("--truth", str(tmp_path / "truth")),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        port = int(port_file.read_text())
        assert f"http://127.0.0.1:{port}" in line
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://127.0.0.1:{port}/spot/ws/btcusdt@depth@100ms") as socket,
        ):
            events = [json.loads(await socket.receive_str(timeout=5)) for _ in range(5)]
        assert abs(events[-1]["E"] - time.time() * 1000) < 2_000
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
    kept = [event.decode() for event in Truth(tmp_path / "truth").events("binance_spot", "depth@100ms", "BTCUSDT")]
    assert [event for event in kept if event in events] == events


async def test_a_killed_process_leaves_a_ledger_that_can_be_read(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulator", "--port", "0", "--symbols", "2", "--truth", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readline(), 20)
    path = None
    for _ in range(100):
        path = next(tmp_path.rglob("depth@100ms.gz"), None)
        if path is not None and path.stat().st_size > 1000:
            break
        await asyncio.sleep(0.05)
    process.kill()
    await process.wait()
    events = [event.decode() for event in Truth(tmp_path).events("binance_spot", "depth@100ms", "BTCUSDT")]
    assert len(events) >= 3
    assert all(after["U"] == before["u"] + 1 for before, after in itertools.pairwise(events))


async def test_the_clock_can_run_faster_than_the_wall() -> None:
    config = SimulatorConfig(symbols=1, clock_speed=10.0, venues=("binance_spot",))
    async with running(config) as sim, connect(sim, "binance_spot", "/ws/btcusdt@depth@100ms") as client:
        _, before, _ = await get(sim, "binance_spot", "/api/v3/time")
        began = time.monotonic()
        for _ in range(20):
            await client.socket.receive_str(timeout=5)
        ours = time.monotonic() - began
        _, after, _ = await get(sim, "binance_spot", "/api/v3/time")
        # Ours lies within the venue's, so this holds however slow the machine is.
        assert after["serverTime"] - before["serverTime"] >= 10 * 1000 * ours - 1


def test_options_become_a_configuration() -> None:
    config = config_from(["--symbols", "7", "--speed", "max", "--replay", "a.gz", "b.gz", "--faults", "drop=0.1"])
    assert (config.symbols, config.speed, config.replay) == (7, None, (Path("a.gz"), Path("b.gz")))
    assert config_from(["--speed", "10"]).speed == 10
    assert config_from([]) == SimulatorConfig()


@pytest.mark.parametrize(("arguments", "code"), [(["--faults", "nonsense=1"], 2), (["--replay", "/nowhere.gz"], 2)])
def test_bad_options_give_one_line_and_a_code(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--port", "0"]) == code
    assert capsys.readouterr().err.count("\n") == 1


async def test_a_busy_port_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(SimulatorConfig(symbols=1)) as sim:
        code = await asyncio.to_thread(main, ["--port", str(sim.port), "--symbols", "1"])
        assert code == 1
        assert "cannot listen" in capsys.readouterr().err
