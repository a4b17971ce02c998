"""A real collector inside the test's event loop, recording a simulator whose clock runs faster than ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from collectors.collector import Collector
from depthvault.config import Config
from depthvault.journal import read_rows
from depthvault.journal.rows import Row
from depthvault.layout import Layout
from simulator.config import SimulatorConfig
from simulator.testing import START_MS, Running

STEP = 0.05
"""Simulated seconds in each step of the simulated clock."""


def simulated(tmp_path: Path, **options: Any) -> SimulatorConfig:
    """A small simulator with a ledger, whose clock moves only when told."""
    defaults: dict[str, Any] = {"symbols": 3, "manual_clock": True, "start_ms": START_MS, "truth": tmp_path / "truth"}
    return SimulatorConfig(**{**defaults, **options})


def configuration(sim: Running, venue: str, data_dir: Path, **exchange: Any) -> Config:
    """Fast retries and graces, no fixed port."""
    defaults: dict[str, Any] = {
        "ws_url": sim.ws_url(venue),
        "rest_url": sim.rest_url(venue),
        "symbols": "all",
        "channels": ("depth_diff", "agg_trade", "book_ticker"),
        "resync_grace": "200ms",
        "reconnect_backoff": "50ms",
        "enabled": True,
    }
    return Config.model_validate(
        {
            "data_dir": data_dir,
            "exchanges": {venue: {**defaults, **exchange}},
            "platform": {"metrics_port": 0},
            "journal": {"min_free": 0, "flush_interval": "50ms"},
        }
    )


async def until(condition: Callable[[], Any], what: str, timeout: float = 15.0) -> None:
    """Wait until `condition` holds; fail saying `what` did not happen."""
    try:
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"within {timeout} s: {what}") from None


@contextlib.asynccontextmanager
async def ticking(sim: Running, every: float = 0.01) -> AsyncIterator[None]:
    """Let simulated time pass, five times as fast as ours."""

    async def tick() -> None:
        while True:
            sim.control.advance(STEP)
            await asyncio.sleep(every)

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def collecting(config: Config, venue: str, **options: Any) -> AsyncIterator[Collector]:
    """A collector that has begun, and is stopped in the end as SIGTERM does it."""
    collector = Collector(
        config, venue, rng=random.Random(7), time_reference=lambda: {"source": "test", "offset_s": 0.0}, **options
    )
    task = asyncio.create_task(collector.run())
    started = asyncio.create_task(collector.started.wait())
    try:
        await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
        yield collector
    finally:
        started.cancel()
        collector.stop("sigterm")
        await task


async def subscribed(collector: Collector) -> None:
    """Every subscription is answered."""
    await until(
        lambda: all(
            slot.connections and not any(connection.unanswered for connection in slot.connections)
            for slot in collector.feed.slots
        ),
        "all subscriptions were answered",
    )


async def caught_up(collector: Collector, sim: Running) -> None:
    """All that the simulator sent so far is in the journal's memory or file."""
    before = -1
    while collector.recorder.counters.frames != before:
        before = collector.recorder.counters.frames
        for _ in range(5):
            await asyncio.sleep(0.01)


def journal_rows(data_dir: Path, exchange: str, writer: str = "a") -> list[Row]:
    """All rows of a writer's journals."""
    return [row for path in Layout(data_dir).journal_files(exchange, writer) for row in read_rows(path)]


def events(rows: list[Row], kind: str) -> list[dict[str, Any]]:
    """The bodies of the event rows of a kind."""
    return [json.loads(row.body) for row in rows if row.kind == "event" and row.stream == kind]


def events_of(collector: Collector, kind: str) -> list[dict[str, Any]]:
    """The bodies of the event rows of a kind that a running collector has written so far."""
    collector.journal.flush()
    return events(journal_rows(collector.layout.root, collector.name, collector.writer), kind)


def payload(body: bytes) -> bytes:
    """What stands in a combined envelope."""
    return body[body.index(b',"data":') + 8 : -1]


def frames(rows: list[Row], stream: str) -> list[bytes]:
    """Payloads of a stream in the order received."""
    return [payload(row.body) for row in rows if row.kind == "frame" and row.stream == stream]


def truth_of(sim: Running, venue: str, stream: str) -> list[bytes]:
    """Everything that the simulator generated for a stream."""
    symbol, _, channel = stream.partition("@")
    return [event.payload for event in sim.truth().events(venue, channel, symbol.upper())]


def missing_and_doubled(recorded: list[bytes], generated: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """What was generated but not recorded, and what was recorded more than once."""
    counts = Counter(recorded)
    return [each for each in generated if each not in counts], [each for each, count in counts.items() if count > 1]
