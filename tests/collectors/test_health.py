"""A collector that is not well says so, and why: over `/healthz`, and in its status file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from collectors.collector import Collector
from depthvault.book.sync import State
from depthvault.clock import SystemClock
from depthvault.journal.file import JournalFile
from simulator.testing import running
from tests.collectors.session import collecting, configuration, simulated, subscribed, ticking, until

VENUE = "binance_futures"


class LateClock(SystemClock):
    """A clock that can be set ahead."""

    ahead_ns = 0

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self.ahead_ns


async def health(collector: Collector) -> tuple[int, list[str]]:
    """Status and problems that `/healthz` answers with."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{collector.port}/healthz") as answer,
    ):
        body: dict[str, Any] = await answer.json()
        assert body["healthy"] is (answer.status == 200)
        return answer.status, body["problems"]


async def says(collector: Collector, *problems: str) -> None:
    """Wait until `/healthz` answers with these problems, and then the status file, which is written each second."""
    expected = (503 if problems else 200, list(problems))
    async with asyncio.timeout(15):
        while await health(collector) != expected:
            await asyncio.sleep(0.02)
    path = collector.layout.run / "collectors" / f"{collector.name}-{collector.writer}.json"
    await until(lambda: path.exists(), "there is a status file")
    await until(lambda: json.loads(path.read_text())["problems"] == list(problems), f"the status file says {problems}")


async def test_lost_connections_are_told_until_they_are_back(tmp_path: Path) -> None:
    async with (
        running(simulated(tmp_path)) as sim,
        ticking(sim),
        collecting(configuration(sim, VENUE, tmp_path / "data"), VENUE) as collector,
    ):
        await until(lambda: collector.books.states()[State.LIVE] == 3, "all books are live")
        await says(collector)
        sim.control.fault(VENUE, "refuse_handshake", status=503, count=1000)
        sim.control.fault(VENUE, "disconnect")
        await says(collector, "2 of 2 connections are down")
        sim.simulator.venues[VENUE].handshake_refusals.clear()
        await says(collector)


async def test_a_market_that_is_not_heard_is_told(tmp_path: Path) -> None:
    clock = LateClock()
    async with (
        running(simulated(tmp_path)) as sim,
        collecting(configuration(sim, VENUE, tmp_path / "data"), VENUE, clock=clock) as collector,
    ):
        await subscribed(collector)
        async with ticking(sim):
            await until(lambda: collector.books.states()[State.LIVE] == 3, "all books are live")
        assert await health(collector) == (200, [])
        clock.ahead_ns = 75_000_000_000
        status, (problem,) = await health(collector)
        assert status == 503
        assert problem.startswith("no frame for 7")
        async with ticking(sim):
            await says(collector)


async def test_a_disk_that_refuses_is_told_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.persistence._RETRY", 0.05)
    async with (
        running(simulated(tmp_path)) as sim,
        ticking(sim),
        collecting(configuration(sim, VENUE, tmp_path / "data"), VENUE) as collector,
    ):
        await until(lambda: collector.books.states()[State.LIVE] == 3, "all books are live")
        monkeypatch.setattr(JournalFile, "free_bytes", lambda self: -1)
        await until(lambda: collector.journal.failure, "the disk refuses")
        status, (problem,) = await health(collector)
        assert status == 503
        assert problem.startswith(f"{collector.journal.path}: -1 bytes free, below journal.min_free")
        monkeypatch.undo()
        await says(collector)
