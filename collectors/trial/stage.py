"""The stage of a trial: simulator, collectors and sealer as processes, disturbed by signals, watched each second."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import yaml

from collectors.interruption import interruptible
from collectors.trial.plan import PROBING, Plan
from depthvault.config import FILE_VARIABLE
from depthvault.errors import DepthvaultError
from simulator.config import PREFIXES

SETTLED = 4.0
"""Seconds that a collector must have recorded before it is disturbed, or its partner is."""
CALM = 5.0
"""Seconds without signals before the end, so that what was broken can be seen to be mended."""
_STOP_SECONDS = 60.0
_START_SECONDS = 60.0


class Sample(msgspec.Struct, frozen=True):
    """What a collector told of itself at `seconds` after the trial's beginning."""

    exchange: str
    writer: str
    pid: int
    seconds: float
    uptime: float
    rss: int
    anonymous: int
    cpu: float
    frames: int
    bytes: int
    lag_ms: float


class Stroke(msgspec.Struct, frozen=True):
    """A signal that was sent: when (wall clock, ns), to whom."""

    time_ns: int
    exchange: str
    writer: str
    pid: int
    signal: str


class Recorded(msgspec.Struct):
    """What happened on the stage. exits: exit codes of collectors that were asked to stop, or stopped by themselves."""

    plan: dict[str, Any]
    seconds: float = 0.0
    samples: list[Sample] = []
    strokes: list[Stroke] = []
    exits: list[tuple[str, str, int]] = []
    simulator_cpu: float = 0.0
    last: dict[str, dict[str, Any]] = {}


@dataclass(eq=False)
class Player:
    """One collector: its process, and when it was started."""

    exchange: str
    writer: str
    process: subprocess.Popen[bytes]
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.exchange}-{self.writer}"

    @property
    def settled(self) -> bool:
        """Recording for a while, and not only just up."""
        return (
            self.process.poll() is None
            and self.status.get("pid") == self.process.pid
            and self.status.get("frames", 0) > 0
            and self.status.get("uptime_s", 0.0) >= SETTLED
        )


class Stage:
    """Runs `plan` in `folder`: `truth/`, `data/`, logs, and the configuration.

    Use as a context manager; whatever happens, no process outlives it.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.data = folder / "data"
        self.players: dict[tuple[str, str], Player] = {}
        self.recorded = Recorded(plan=msgspec.to_builtins(plan))
        self._rng = random.Random(f"{plan.seed}:strokes")  # noqa: S311 - who is struck when, not secrets
        self._processes: list[subprocess.Popen[bytes]] = []
        self._environment: dict[str, str] = {}
        self._probe: subprocess.Popen[bytes] | None = None
        self._begun = 0.0

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    # Processes

    def _start(self, name: str, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *words], stdout=log, stderr=log, env=self._environment | environment,
                start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def _collect(self, exchange: str, writer: str) -> None:
        name = f"{exchange}-{writer}"
        process = self._start(name, "depthvault.cli", "collect", exchange, "--instance", writer)
        self.players[exchange, writer] = Player(exchange, writer, process)

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def _simulate(self) -> tuple[subprocess.Popen[bytes], int]:
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        process = self._start("simulator", "simulator", *self.plan.simulator_options(self.folder / "truth", port_file))
        deadline = time.monotonic() + _START_SECONDS
        while not (port_file.exists() and (text := port_file.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DepthvaultError(f"the simulator did not start:\n{self._log('simulator')}")
            time.sleep(0.05)
        return process, int(text)

    # The play

    def run(self, tell: Callable[[dict[str, Player], float], None] = lambda players, elapsed: None) -> Recorded:
        """Record for `plan.seconds`, then stop everything in order. `tell` is called each second."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("DEPTHVAULT_")}
        simulator, port = self._simulate()
        file = self.folder / "depthvault.yaml"
        file.write_text(yaml.safe_dump(self.plan.configuration(self.data, port), allow_unicode=True), encoding="utf-8")
        self._environment[FILE_VARIABLE] = str(file)
        for exchange in self.plan.venues:
            for writer in self.plan.writers:
                self._collect(exchange, writer)
        sealer = self._start("sealer", "collectors.sealer")
        self._begun = time.monotonic()
        with interruptible() as interrupted:
            self._play(tell, interrupted, f"ws://127.0.0.1:{port}/{PREFIXES['lighter']}/stream{PROBING}")
        if self._probe is not None:
            self._probe.wait(_STOP_SECONDS)
        self.recorded.seconds = time.monotonic() - self._begun
        self._look()
        self._stop_collectors()
        self.recorded.simulator_cpu = sum(psutil.Process(simulator.pid).cpu_times()[:2])
        for process in (sealer, simulator):
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_SECONDS)
        return self.recorded

    def _play(self, tell: Callable[[dict[str, Player], float], None], interrupted: list[int], probe_url: str) -> None:
        probe = self.plan.probe_every / 2 if "lighter" in self.plan.venues else float("inf")
        kill, restart = self._pause(self.plan.kill), self._pause(self.plan.restart)
        begun = looked = self._begun
        while (elapsed := time.monotonic() - begun) < self.plan.seconds and not interrupted:
            if time.monotonic() - looked >= 1.0:
                looked = time.monotonic()
                self._look()
                self._revive()
                tell({player.name: player for player in self.players.values()}, elapsed)
            if elapsed >= probe and (self._probe is None or self._probe.poll() is not None):
                # What it is refused or cut off from it declares; its exit code says no more than that.
                probe = elapsed + self.plan.probe_every
                words = ("depthvault.cli", "probe", "lighter")
                self._probe = self._start("probe", *words, DEPTHVAULT_EXCHANGES__LIGHTER__WS_URL=probe_url)
            if elapsed < self.plan.seconds - CALM:
                if elapsed >= kill:
                    kill = elapsed + (self._pause(self.plan.kill) if self._strike(signal.SIGKILL) else 0.5)
                if elapsed >= restart:
                    restart = elapsed + (self._pause(self.plan.restart) if self._strike(signal.SIGTERM) else 0.5)
            time.sleep(0.05)

    def _pause(self, mean: float) -> float:
        return self._rng.expovariate(1 / mean) if mean else float("inf")

    def _strike(self, number: signal.Signals) -> bool:
        """Send a signal to a collector that has settled, and whose partner has; False when there is none.

        Struck is the first instance alone, which carries the archive by its name: the other one must bridge, and shows
        how much memory a long life takes.
        """
        able = [
            player
            for player in self.players.values()
            if player.settled
            and player.writer == self.plan.writers[0]
            and all(other.settled for other in self.players.values() if other.exchange == player.exchange)
        ]
        if not able:
            return False
        player = self._rng.choice(able)
        now, process = time.time_ns(), player.process
        process.send_signal(number)
        code = process.wait(_STOP_SECONDS)
        self.recorded.strokes.append(Stroke(now, player.exchange, player.writer, process.pid, number.name))
        if number == signal.SIGTERM:
            self.recorded.exits.append((player.exchange, player.writer, code))
        if number == signal.SIGKILL:
            # A dead collector leaves its last figures behind; they must not count for the next one.
            (self.data / "run" / "collectors" / f"{player.name}.json").unlink(missing_ok=True)
        self._collect(player.exchange, player.writer)
        return True

    def _revive(self) -> None:
        """Start what ended by itself again, as a supervisor does; its exit code is kept."""
        for (exchange, writer), player in list(self.players.items()):
            code = player.process.poll()
            if code is not None:
                self.recorded.exits.append((exchange, writer, code))
                self._collect(exchange, writer)

    def _look(self) -> None:
        for player in self.players.values():
            status = self._status(player.name)
            if status.get("pid") != player.process.pid:
                continue
            player.status = status
            self.recorded.last[player.name] = status
            self.recorded.samples.append(
                Sample(
                    player.exchange, player.writer, status["pid"], round(time.monotonic() - self._begun, 2),
                    status["uptime_s"], status["rss_bytes"], status["anonymous_bytes"], status["cpu_s"],
                    status["frames"], status["bytes"], status["lag_ms"],
                )
            )  # fmt: skip

    def _status(self, name: str) -> dict[str, Any]:
        try:
            status: dict[str, Any] = json.loads((self.data / "run" / "collectors" / f"{name}.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return status

    def _stop_collectors(self) -> None:
        for player in self.players.values():
            if player.process.poll() is None:
                player.process.send_signal(signal.SIGTERM)
        for player in self.players.values():
            code = player.process.wait(_STOP_SECONDS)
            self.recorded.exits.append((player.exchange, player.writer, code))
