"""Waiting for the demo's first periods, and showing what happens meanwhile."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from depthvault.archive.manifest import ArchiveState
from depthvault.errors import PlatformError
from depthvault.journal.reader import Batch, read
from depthvault.platform import airflow_api, control
from depthvault.platform.airflow_api import AirflowApi, DagRun
from depthvault.platform.control import ProgramFailedError, Supervisor, tail
from depthvault.platform.site import Site

ARCHIVE_DAG = "archive_hour"
_POLL = 1.0
_AIRFLOW_POLL = 4.0
_PLAIN_INTERVAL = 10.0
"""Seconds between lines where there is no terminal."""


class FrameCounter:
    """Counts what the collectors have journaled, reading each byte once."""

    def __init__(self, journals: Path) -> None:
        self._journals = journals
        self._read: dict[Path, int] = {}
        self.frames = 0

    def update(self) -> int:
        """Take in what was appended since; returns all frames so far."""
        for path in self._journals.glob("*/*/*.journal"):
            try:
                for found in read(path, offset=self._read.get(path, 0)):
                    if not isinstance(found, Batch):
                        continue
                    self._read[path] = found.end
                    kinds = found.rows.column("kind").to_pylist()
                    self.frames += kinds.count("frame")
            except FileNotFoundError:  # cleaned up meanwhile
                continue
        return self.frames


@dataclass(slots=True)
class Progress:
    """What has happened so far.

    rate: frames a second over the last ten. closed, archived: periods that all venues have sealed, published.
    confirmed: those of them whose archive run Airflow calls a success. runs: archive runs by state.
    """

    frames: int = 0
    rate: float = 0.0
    rows: int = 0
    closed: int = 0
    archived: int = 0
    confirmed: int = 0
    runs: dict[str, int] = field(default_factory=dict)
    _seen: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=11))

    def frames_at(self, now: float, frames: int) -> None:
        self._seen.append((now, frames))
        (then, before), self.frames = self._seen[0], frames
        self.rate = (frames - before) / (now - then) if now > then else 0.0

    def line(self, wanted: int) -> str:
        runs = ", ".join(f"{count} {state}" for state, count in sorted(self.runs.items())) or "none yet"
        return (
            f"{self.rate:,.0f} frames/s, {self.frames:,} frames · {self.closed} periods sealed, "
            f"{min(self.archived, wanted)} of {wanted} archived with {self.rows:,} rows · {ARCHIVE_DAG} runs: {runs}"
        )


def archive_state(site: Site) -> ArchiveState:
    """The archive as its local manifests add up."""
    state = ArchiveState()
    for path in sorted(site.config.layout.manifests.glob("*.json")):
        state.append(path.read_bytes(), path.name)
    return state


def archived_periods(state: ArchiveState, exchanges: set[str]) -> list[str]:
    """The periods that are in the archive for all of `exchanges`, oldest first."""
    by_period: dict[str, set[str]] = {}
    for kind, exchange, _channel, period in state.current:
        if kind == "hour":
            by_period.setdefault(period, set()).add(exchange)
    return sorted(period for period, found in by_period.items() if found >= exchanges)


def sealed_periods(site: Site, exchanges: set[str]) -> int:
    """How many periods have receipts of all of `exchanges`."""
    layout = site.config.layout
    sealed = [
        {path.name.rpartition("-")[0] for path in layout.receipts(exchange).glob("*-a.json")} for exchange in exchanges
    ]
    return len(set.intersection(*sealed)) if sealed else 0


def watch(site: Site, out: Console, wanted: int, timeout: float) -> Progress:
    """Return when `wanted` periods of all venues are archived and as many archive runs have succeeded.

    Raises PlatformError when a program gives up, a DAG cannot be read, a run fails for good, or time is over.
    """
    progress, frames = Progress(), FrameCounter(site.config.layout.journals)
    exchanges = set(site.config.exchanges.enabled())
    server = airflow_api.api(site)
    supervisor = control.connect(site)
    if supervisor is None:
        raise PlatformError("supervisord has ended")
    began = asked = told = time.monotonic()
    with Live(console=out, refresh_per_second=4, transient=True, auto_refresh=out.is_terminal) as live:
        while True:
            now = time.monotonic()
            progress.frames_at(now, frames.update())
            state = archive_state(site)
            progress.archived = len(archived_periods(state, exchanges))
            progress.rows = sum(entry.counts.rows for entry in state.current.values())
            progress.closed = sealed_periods(site, exchanges)
            if now - asked >= _AIRFLOW_POLL:
                asked = now
                _look_after(supervisor)
                progress.runs, progress.confirmed = _runs(server, archived_periods(state, exchanges), exchanges)
            line = f"{now - began:4.0f} s  {progress.line(wanted)}"
            if out.is_terminal:
                live.update(Text(f"{line}\n{_clock(site)}", no_wrap=True, overflow="ellipsis"))
            elif now - told >= _PLAIN_INTERVAL:
                told = now
                out.print(f"  {line}", soft_wrap=True)
            if progress.confirmed >= wanted:
                out.print(f"  {line}", soft_wrap=True)
                return progress
            if now - began > timeout:
                raise _late(site, server, wanted, timeout)
            time.sleep(_POLL)


def _clock(site: Site) -> str:
    period = site.config.layout.period_of(datetime.now(UTC))
    left = (period.end - datetime.now(UTC)).total_seconds() + site.config.archive.seal_grace.total_seconds()
    return f"        the running period {period.label} is sealed in {left:.0f} s"


def _look_after(supervisor: Supervisor) -> None:
    for program in supervisor.programs():
        if program.state == "FATAL":
            raise supervisor.failure(program, f"{program.name} does not stay up ({program.description})")


def _runs(server: AirflowApi, archived: list[str], exchanges: set[str]) -> tuple[dict[str, int], int]:
    """Archive runs by state, and how many of the `archived` periods were published by runs that succeeded.

    A DAG that cannot be read, or a run that failed for good, is an error.
    """
    if errors := server.import_errors():
        raise PlatformError(f"Airflow cannot read a DAG: {errors[0]}")
    if ARCHIVE_DAG not in server.dags():
        return {}, 0
    found: list[DagRun] = server.runs(ARCHIVE_DAG)
    for run in found:
        if run.state == "failed":
            raise ProgramFailedError(
                f"the Airflow run {run.dag_id} {run.run_id} failed", run.dag_id, server.failed_task_log(run)
            )
    states = [run.state for run in found]
    good = {run.run_id for run in found if run.state == "success"}
    published = [what for run_id, what in server.finished(ARCHIVE_DAG, "publish") if run_id in good]
    confirmed = sum(
        all(any(exchange in what and period in what for what in published) for exchange in exchanges)
        for period in archived
    )
    return {state: states.count(state) for state in set(states)}, confirmed


def _late(site: Site, server: AirflowApi, wanted: int, timeout: float) -> PlatformError:
    """Why it may have taken too long: the last words of the first part of the way that has not done its work."""
    exchanges = set(site.config.exchanges.enabled())
    message = f"{wanted} periods were not archived within {timeout:g} s"
    if sealed_periods(site, exchanges) < wanted:
        log = site.logs / "sealer.log"
        return ProgramFailedError(f"{message}: too few were sealed", "sealer", tail(log))
    if ARCHIVE_DAG not in server.dags():
        return ProgramFailedError(
            f"{message}: Airflow has no DAG {ARCHIVE_DAG}",
            "airflow-dag-processor",
            tail(site.logs / "airflow-dag-processor.log"),
        )
    return ProgramFailedError(message, "airflow-scheduler", tail(site.logs / "airflow-scheduler.log"))
