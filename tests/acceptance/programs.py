"""The real programs, started as a user starts them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
RECORDINGS = REPOSITORY.parent / "shared" / "data"
PATIENCE = 60.0


def wait_for(condition: Any, what: str, timeout: float = PATIENCE) -> Any:
    """The first true value of `condition()`; fails saying `what` did not happen."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"within {timeout:g} s: {what}"
        time.sleep(0.02)
    return value


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulator process."""

    port: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url("control/status"), timeout=10) as answer:
            status: dict[str, Any] = json.load(answer)
        return status

    def fault(self, **fault: Any) -> None:
        request = urllib.request.Request(
            self.url("control/fault"), json.dumps(fault).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200


@contextlib.contextmanager
def simulator(folder: Path, *options: str | Path) -> Iterator[Simulated]:
    """Run the simulator on a port of the system's choice."""
    port_file = folder / "port"
    command = [sys.executable, "-m", "simulator", "--port", "0", "--port-file", str(port_file), *map(str, options)]
    with (folder / "simulator.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or (port_file.exists() and port_file.read_text()), "it listens")
        assert process.poll() is None, (folder / "simulator.log").read_text()
        yield Simulated(int(port_file.read_text()))
    finally:
        process.terminate()
        process.wait(10)


@dataclass(frozen=True, slots=True)
class Site:
    """A folder with a configuration, where `depthvault` is run."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def configure(self, sim: Simulated, venues: dict[str, dict[str, Any]], **top: Any) -> None:
        """Write a configuration that records `venues` of the simulator."""
        prefixes = {"binance_spot": "spot", "binance_futures": "futures", "lighter": "lighter"}
        exchanges: dict[str, Any] = {name: {"enabled": False} for name in prefixes}
        for name, settings in venues.items():
            exchanges[name] = {
                "enabled": True,
                "rest_url": sim.url(prefixes[name]),
                "ws_url": f"ws://127.0.0.1:{sim.port}/{prefixes[name]}" + ("/stream" if name == "lighter" else ""),
                **settings,
            }
        content = {"exchanges": exchanges, "platform": {"metrics_port": 0}, "journal": {"min_free": 0}, **top}
        (self.folder / "depthvault.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "depthvault.cli", *words]

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DEPTHVAULT_", "R2_"))}
        return kept | {"PYTHONPATH": str(REPOSITORY)}

    def run(self, *words: str, code: int = 0, timeout: float = 120.0, **environment: str) -> str:
        """Run a command to its end and return what it printed."""
        done = subprocess.run(
            self.command(*words), cwd=self.folder, env=self.environment | environment, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The rows that `depthvault sql` gives."""
        return [json.loads(line) for line in self.run("sql", sql, "--format", "json").splitlines()]

    def archive(self) -> None:
        """Seal what is over and take it through every step of the archive, until nothing is ready any more."""
        self.run("seal")
        done = subprocess.run(
            [sys.executable, "-m", "tests.acceptance.archiving"], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def sleep_until_over(self, moment: float, period: float = 60.0, grace: float = 1.0) -> None:
        """Let the archive period that holds `moment` end: the one thing here that only time can do."""
        time.sleep(max(0.0, moment // period * period + period + grace + 0.2 - time.time()))

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command in the background, its output in a log."""
        with (self.folder / f"{words[0]}.log").open("ab") as log:
            return subprocess.Popen(self.command(*words), cwd=self.folder, env=self.environment, stdout=log, stderr=log)

    def figures(self, exchange: str, writer: str = "a") -> dict[str, Any]:
        """What a running collector tells of itself; empty before it does."""
        try:
            text = (self.data / "run" / "collectors" / f"{exchange}-{writer}.json").read_text()
            figures: dict[str, Any] = json.loads(text)
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return figures


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    """End a process by a signal and return its exit code."""
    process.send_signal(number)
    return process.wait(30)


def replayed(names: Sequence[str]) -> list[Path]:
    """Recordings by name."""
    return [RECORDINGS / "hftbacktest" / name for name in names]
