"""A simulator inside the test's own event loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

from simulator.config import PREFIXES, SimulatorConfig
from simulator.control import Control
from simulator.server import Simulator
from simulator.truth import Truth

START_MS = 1_790_000_000_000
"""Where a manual clock starts in tests."""


@dataclass(frozen=True, slots=True)
class Running:
    """A simulator that listens: addresses for the configuration of a client, and the control handle."""

    host: str
    port: int
    control: Control
    simulator: Simulator
    truth_dir: Path | None

    def rest_url(self, venue: str) -> str:
        return f"http://{self.host}:{self.port}/{PREFIXES[venue]}"

    def ws_url(self, venue: str) -> str:
        """What stands for the WebSocket host (on Lighter with its ``/stream`` path)."""
        tail = "/stream" if venue == "lighter" else ""
        return f"ws://{self.host}:{self.port}/{PREFIXES[venue]}{tail}"

    def truth(self) -> Truth:
        """The ledger so far."""
        if self.truth_dir is None:
            raise ValueError("this simulator keeps no ledger; give SimulatorConfig.truth")
        self.control.flush_truth()
        return Truth(self.truth_dir)


@contextlib.asynccontextmanager
async def running(config: SimulatorConfig | None = None) -> AsyncIterator[Running]:
    """Run a simulator on a port the system chooses (unless one is given) and stop it at the end."""
    config = config or SimulatorConfig()
    if config.port == SimulatorConfig.port:
        config = replace(config, port=0)
    simulator = Simulator(config)
    await simulator.start()
    try:
        yield Running(config.host, simulator.port, simulator.control, simulator, config.truth)
    finally:
        await simulator.stop()
