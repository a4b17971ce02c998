"""`depthvault record`: several venues at once, one collector process each, with a live summary and a final one.

Each child is `depthvault collect`, so what is recorded here is recorded the same way as under supervisor. `--mode test`
does the same for two minutes into a folder of its own and ends with a verdict.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table

from collectors.interruption import interruptible
from depthvault.config import FILE_VARIABLE, Config
from depthvault.errors import ConfigError
from depthvault.exchanges.base import Seed
from depthvault.seal import seal_pending

TEST_SECONDS = 120.0
INSTANCE = "a"
_STOP_SECONDS = 30.0
_START_SECONDS = 30.0


@dataclass(slots=True)
class Outcome:
    """What a session recorded. statuses: the last figures of each collector by exchange."""

    seconds: float
    statuses: dict[str, dict[str, Any]]
    exits: dict[str, int]
    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    bytes: dict[tuple[str, str], int] = field(default_factory=dict)
    rejected: int = 0
    damaged: int = 0

    def problems(self) -> list[str]:
        """Why the session cannot be called good; empty when it can."""
        found = [f"{name}: its collector ended with exit code {code}" for name, code in self.exits.items() if code]
        for name, status in self.statuses.items():
            found += [f"{name}: {status[key]} {key}" for key in ("gaps", "malformed", "refused") if status.get(key)]
            if missing := status.get("missing"):
                found.append(f"{name}: not listed there: {', '.join(missing)}")
        for (exchange, channel), rows in self.rows.items():
            if rows == 0:
                found.append(f"{exchange}: nothing on {channel}")
        if self.rejected:
            found.append(f"{self.rejected} frames could not be decoded (they are kept raw)")
        if self.damaged:
            found.append(f"{self.damaged} damaged places in journals")
        return found


def narrowed(
    config: Config,
    data_dir: Path,
    exchanges: Sequence[str] = (),
    symbols: Sequence[str] | Mapping[str, Sequence[str]] = (),
    channels: Sequence[str] = (),
) -> Config:
    """`config` for these exchanges alone (none: the enabled ones), symbols (of all, or by exchange) and
    channels."""
    names = list(exchanges) or list(config.exchanges.enabled())
    sections = config.exchanges.model_dump()
    for name in names:
        if name not in sections:
            raise ConfigError(f"no exchange {name!r}; there are {', '.join(sections)}")
    for name, section in sections.items():
        section["enabled"] = name in names
        wanted = symbols.get(name, ()) if isinstance(symbols, Mapping) else symbols
        if wanted and name in names:
            section["symbols"] = list(wanted)
        if channels:
            section["channels"] = [channel for channel in channels if channel in _channels_of(name, config)]
    return Config.model_validate({**config.model_dump(), "exchanges": sections, "data_dir": data_dir})


def _channels_of(name: str, config: Config) -> tuple[str, ...]:
    from depthvault.exchanges import exchange

    return exchange(name, config.exchanges[name]).channels


def record(config: Config, seconds: float | None, console: Console | None = None) -> Outcome:
    """Record what `config` enables for `seconds` (None: until SIGINT), seal it, and return what came of it.

    The time counts from when every venue delivers, or from half a minute after the start when one does not.
    """
    out = console or Console(highlight=False)
    spawned = begun = time.monotonic()
    statuses: dict[str, dict[str, Any]] = {}
    with _collectors(config) as children, interruptible() as interrupted:
        with Live(console=out, auto_refresh=False) as live:
            while any(child.poll() is None for child in children.values()):
                delivering = all(statuses.get(name, {}).get("frames") for name in children)
                if not delivering and time.monotonic() - spawned < _START_SECONDS:
                    begun = time.monotonic()
                elapsed = time.monotonic() - begun
                if interrupted or (seconds is not None and elapsed >= seconds):
                    break
                statuses |= _statuses(config)
                if out.is_terminal:
                    live.update(summary(statuses, elapsed, seconds), refresh=True)
                time.sleep(0.5)
        exits = _stop(children)
    outcome = Outcome(time.monotonic() - begun, statuses, exits)
    _count(config, outcome)
    return outcome


@contextlib.contextmanager
def _collectors(config: Config) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """One collector for each enabled exchange, all told the same configuration by a file."""
    config.layout.run.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="depthvault-record-") as folder:
        file = Path(folder) / "depthvault.yaml"
        file.write_text(yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True), encoding="utf-8")
        # The file says all: variables of the environment are in it already and must not win a second time.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DEPTHVAULT_")}
        environment[FILE_VARIABLE] = str(file)
        children = {
            name: subprocess.Popen(
                [sys.executable, "-m", "depthvault.cli", "collect", name, "--instance", INSTANCE],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # each has its own log under run/logs
                start_new_session=True,  # Ctrl-C reaches us, and we stop them in order
            )
            for name in config.exchanges.enabled()
        }
        try:
            yield children
        finally:
            for child in children.values():
                if child.poll() is None:
                    child.kill()
                    child.wait()


def _stop(children: dict[str, subprocess.Popen[bytes]]) -> dict[str, int]:
    for child in children.values():
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    return {name: child.wait(_STOP_SECONDS) for name, child in children.items()}


def _statuses(config: Config) -> dict[str, dict[str, Any]]:
    found = {}
    for name in config.exchanges.enabled():
        try:
            text = (config.layout.run / "collectors" / f"{name}-{INSTANCE}.json").read_text(encoding="utf-8")
            found[name] = json.loads(text)
        except (FileNotFoundError, json.JSONDecodeError):
            continue
    return found


def _count(config: Config, outcome: Outcome) -> None:
    """Seal everything and count what this session's journals gave."""
    from depthvault.exchanges import enabled_exchanges

    for name, venue in enabled_exchanges(config).items():
        # Silent for minutes, it may well be; and books that come in the stream are probed each hour, not here.
        unheard = {"funding_rate", "open_interest", "kline", "liquidation"}
        if venue.seed is Seed.IN_BAND:
            unheard.add("depth_snapshot")
        for channel in venue.config.channels:
            if channel not in unheard:
                outcome.rows[name, channel] = 0
    for receipt in seal_pending(config, everything=True):
        outcome.damaged += len(receipt.damage)
        outcome.rejected += sum(receipt.rejected.values())
        for file in receipt.files:
            key = (receipt.exchange, file.channel)
            outcome.rows[key] = outcome.rows.get(key, 0) + file.rows
            outcome.bytes[key] = outcome.bytes.get(key, 0) + file.bytes


def summary(statuses: dict[str, dict[str, Any]], elapsed: float, seconds: float | None) -> Table:
    """The live table."""
    left = "" if seconds is None else f" of {clock(seconds)}"
    table = Table(title=f"recording for {clock(elapsed)}{left}", title_justify="left", box=None, pad_edge=False)
    table.add_column("exchange")
    for heading in ("symbols", "frames", "frames/s", "lag", "gaps", "reconnects", "malformed", "memory", "CPU"):
        table.add_column(heading, justify="right")
    for name, status in statuses.items():
        gaps = f"[bold red]{status['gaps']}[/]" if status["gaps"] else "0"
        table.add_row(
            name, str(status["symbols"]), f"{status['frames']:,}", f"{status['frames_per_second']:,.0f}",
            f"{status['lag_ms']:,.0f} ms", gaps, str(status["disconnects"]), str(status["malformed"]),
            f"{status['rss_bytes'] / 2**20:,.0f} MB",
            f"{100 * status['cpu_s'] / max(status['uptime_s'], 1):.0f} %",
        )  # fmt: skip
    return table


def final(outcome: Outcome) -> Table:
    """The closing table: rows and bytes by exchange and channel."""
    table = Table(title=f"recorded in {clock(outcome.seconds)}", title_justify="left", box=None, pad_edge=False)
    for heading, side in (("exchange", "left"), ("channel", "left"), ("rows", "right"), ("size", "right")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for (exchange, channel), rows in sorted(outcome.rows.items()):
        table.add_row(exchange, channel, f"{rows:,}", f"{outcome.bytes.get((exchange, channel), 0) / 2**20:,.2f} MB")
    return table


def clock(seconds: float) -> str:
    """`1:02:03`."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
