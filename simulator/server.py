"""The simulator process: one port, one path prefix per venue, one clock.

``http://host:port/spot``, ``/futures`` and ``/lighter`` stand for the REST hosts; ``ws://`` of the same stands
for the WebSocket hosts. ``/control`` (loopback clients only) orders faults and tells the state.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from aiohttp import web

from simulator import binance_ws, lighter_ws
from simulator.binance_futures_rest import FuturesRest
from simulator.binance_listing import TICK_MS
from simulator.binance_live import LiveBinance
from simulator.binance_live_rest import LiveRest
from simulator.binance_venue import BinanceVenue
from simulator.config import PREFIXES, SimulatorConfig
from simulator.control import Control
from simulator.lighter_live import LiveLighter
from simulator.lighter_rest import LighterRest
from simulator.replay import ReplayBinance, ReplayRest, load_recordings
from simulator.schedule import FaultSchedule
from simulator.truth import Ledger
from simulator.venue import Venue

__all__ = ["Simulator", "SimulatorConfig", "run", "serve"]

CATCH_UP_STEP_MS = 100
"""How much of missed time is made up for before the sockets are looked at again."""
MAX_CATCH_UP_MS = 5_000
"""A machine that was asleep longer than this does not generate the missed time."""


class Ticking(Protocol):
    """What the clock drives."""

    def tick(self, time_ms: int) -> None: ...


class RestFace(Protocol):
    """What answers the REST requests of a venue."""

    async def handle(self, request: web.Request, path: str) -> web.StreamResponse: ...


class Simulator:
    """A running simulator. Use :func:`serve` for a process, ``simulator.testing.running`` in tests."""

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        now_ms = int(time.time() * 1000)
        self.start_ms = (config.start_ms if config.start_ms is not None else now_ms) // 100 * 100
        self.ledger = Ledger(config.truth, f"{self.start_ms}-{config.seed}")
        self.venues: dict[str, Venue] = {}
        self.rest: dict[str, RestFace] = {}
        self.replays: list[ReplayBinance] = []
        self.schedules: list[FaultSchedule] = []
        self.port = config.port
        self.stopped = asyncio.Event()
        self._live: list[Ticking] = []
        self._build()
        self.control = Control(self)
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self._virtual_ms = self.start_ms

    def _build(self) -> None:
        config = self.config
        if config.replay:
            for key, recording in load_recordings(config.replay, config.replay_venue).items():
                replay = ReplayBinance(key, config, self.ledger, self.start_ms, recording)
                self.replays.append(replay)
                self.venues[key] = replay
                self.rest[key] = ReplayRest(replay)
        else:
            for key in ("binance_spot", "binance_futures"):
                if key in config.venues:
                    live = LiveBinance(key, config, self.ledger, self.start_ms)
                    self._live.append(live)
                    self.venues[key] = live
                    self.rest[key] = LiveRest(live) if live.is_spot else FuturesRest(live)
            if "lighter" in config.venues:
                lighter = LiveLighter(config, self.ledger, self.start_ms)
                self._live.append(lighter)
                self.venues["lighter"] = lighter
                self.rest["lighter"] = LighterRest(lighter)
        for venue in self.venues.values():
            self.schedules.append(FaultSchedule(venue, config.seed))

    # -- time ------------------------------------------------------------------------------------------

    def step_to(self, time_ms: int) -> None:
        """Run every tick up to ``time_ms`` and write what it brought."""
        while self._virtual_ms + TICK_MS <= time_ms:
            self._virtual_ms += TICK_MS
            for live in self._live:
                live.tick(self._virtual_ms)
        for venue in self.venues.values():
            venue.hub.flush()

    def leap(self, time_ms: int) -> None:
        """One single tick straight to ``time_ms``: nothing lies between. Frames wait in their connections."""
        self._virtual_ms = time_ms
        for live in self._live:
            live.tick(time_ms)

    def advance(self, seconds: float) -> None:
        """Move a manual clock forward."""
        self.step_to(self._virtual_ms + round(seconds * 1000))

    async def _run_clock(self) -> None:
        loop = asyncio.get_running_loop()
        origin_ms, origin, speed = self._virtual_ms, loop.time(), self.config.clock_speed
        while True:
            due = origin_ms + int((loop.time() - origin) * 1000 * speed)
            if due - self._virtual_ms > MAX_CATCH_UP_MS * max(1.0, speed):
                self._virtual_ms = due // TICK_MS * TICK_MS - TICK_MS
            # A little at a time: clients that come or go meanwhile must not wait until all is caught up with.
            self.step_to(min(due, self._virtual_ms + int(CATCH_UP_STEP_MS * max(1.0, speed))))
            next_tick = origin + (self._virtual_ms + TICK_MS - origin_ms) / 1000 / speed
            await asyncio.sleep(max(0.0, next_tick - loop.time()))

    async def _drain_ledger(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            # Compression releases the interpreter lock, so it costs the event loop nothing.
            await asyncio.to_thread(self.ledger.write, self.ledger.take())

    # -- life ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        app = web.Application(client_max_size=4 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._dispatch)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.config.host, self.config.port, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]
        if self.config.port_file is not None:
            await asyncio.to_thread(_write_port, self.config.port_file, self.port)
        if not self.config.manual_clock and self._live:
            self._tasks.append(asyncio.create_task(self._run_clock()))
        for replay in self.replays:
            self._tasks.append(asyncio.create_task(self._play(replay)))
        for schedule in self.schedules:
            if schedule.armed:
                self._tasks.append(asyncio.create_task(schedule.run()))
        if self.ledger.enabled:
            self._tasks.append(asyncio.create_task(self._drain_ledger()))

    async def _play(self, replay: ReplayBinance) -> None:
        await replay.play()
        if self.config.replay_then == "exit" and all(other.finished for other in self.replays):
            self.stopped.set()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for venue in self.venues.values():
            venue.hub.flush()
            for connection in list(venue.hub.connections.values()):
                connection.abort("simulator stopped")
        if self._runner is not None:
            await self._runner.cleanup()
        self.ledger.close()

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        prefix, _, path = request.path.lstrip("/").partition("/")
        if prefix == "control":
            return await self.control.handle(request, path)
        for key, venue in self.venues.items():
            if PREFIXES[key] != prefix:
                continue
            if request.headers.get("Upgrade", "").lower() == "websocket":
                status = venue.refuse_handshake()
                if status is not None:
                    venue.fault("refuse_handshake", path=request.path, status=status)
                    return web.Response(status=status)
                raw = request.rel_url.raw_path.lstrip("/").partition("/")[2]
                if isinstance(venue, LiveLighter):
                    return await lighter_ws.handle(venue, request, raw)
                assert isinstance(venue, BinanceVenue)
                return await binance_ws.handle(venue, request, raw)
            return await self.rest[key].handle(request, path)
        return web.Response(status=404, text="no such venue here")


def _write_port(path: Path, port: int) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(f"{port}\n")
    part.replace(path)


async def serve(config: SimulatorConfig, *, ready: Callable[[int], None] | None = None) -> None:
    """Run a simulator until cancelled, SIGTERM or SIGINT; ``ready`` gets the port once it listens."""
    simulator = Simulator(config)
    await simulator.start()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, simulator.stopped.set)
    if ready is not None:
        ready(simulator.port)
    try:
        await simulator.stopped.wait()
    finally:
        await simulator.stop()


def run(config: SimulatorConfig) -> int:
    """Serve on uvloop where it is installed; prints the port. Returns an exit code."""

    def tell(port: int) -> None:
        names = ", ".join(config.venues if not config.replay else [path.name for path in config.replay])
        print(f"simulator listening on http://{config.host}:{port} ({names})", flush=True)

    try:
        import uvloop
    except ImportError:
        runner = asyncio.run
    else:
        runner = uvloop.run
    try:
        runner(serve(config, ready=tell))
    except OSError as error:
        print(f"simulator: cannot listen on {config.host}:{config.port}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0
