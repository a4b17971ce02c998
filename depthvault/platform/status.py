"""What runs: one table of programs, and where to look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from depthvault.config import Config
from depthvault.platform import airflow_api, control
from depthvault.platform.control import ProgramStatus
from depthvault.platform.site import Site

_COLOURS = {"RUNNING": "green", "STARTING": "yellow", "BACKOFF": "yellow", "STOPPED": "dim"}


@dataclass(frozen=True, slots=True)
class PlatformStatus:
    """The platform of one data directory. `supervisor_pid` is None when nothing runs."""

    supervisor_pid: int | None
    programs: tuple[ProgramStatus, ...]
    urls: dict[str, str]

    @property
    def healthy(self) -> bool:
        """Whether it runs and every program that was started is up."""
        return self.supervisor_pid is not None and all(
            program.state in {"RUNNING", "STARTING"} for program in self.programs
        )


def platform_status(config: Config) -> PlatformStatus:
    """What runs for `config`. Programs that are switched off for this platform are left out."""
    site = Site.of(config)
    supervisor = control.connect(site)
    if supervisor is None:
        return PlatformStatus(None, (), {})
    programs = tuple(
        program for program in supervisor.programs() if program.state != "STOPPED" or program.started is not None
    )
    names = {program.name for program in programs}
    urls = {}
    if "airflow-api-server" in names:
        urls["Airflow"] = (
            f"{site.airflow_url}  (user {airflow_api.ADMIN}, password in {site.secrets.folder}/airflow_admin_password)"
        )
    if "s3" in names:
        urls["S3"] = site.store_url
    if "simulator" in names:
        urls["simulator"] = f"http://127.0.0.1:{site.ports.get('simulator')}"
    return PlatformStatus(supervisor.pid(), programs, urls)


def program_table(found: PlatformStatus, now: datetime) -> Table:
    """The programs as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("program", "state", "pid", "up", ""):
        table.add_column(heading, justify="right" if heading in {"pid", "up"} else "left")
    for program in found.programs:
        running = program.state == "RUNNING" and program.started is not None
        since = str(now - program.started).partition(".")[0] if running and program.started else ""
        table.add_row(
            program.name, f"[{_COLOURS.get(program.state, 'red')}]{program.state}[/]", str(program.pid or ""), since,
            "" if running else program.description,
        )  # fmt: skip
    return table


Section = Callable[[Config], Table | str | None]
"""A further part of `depthvault status`: returns what to print, or nothing."""


def status(config: Config, sections: Sequence[Section] = (), console: Console | None = None) -> int:
    """Print what runs, then each of `sections`. Returns 0 when all that was started is up, else 1."""
    out = console or Console(highlight=False)
    found = platform_status(config)
    if found.supervisor_pid is None:
        out.print(f"nothing runs for {config.data_dir.absolute()}", soft_wrap=True)
    else:
        out.print(program_table(found, datetime.now(UTC)))
        for name, url in found.urls.items():
            out.print(f"{name}: {url}", soft_wrap=True)
    for section in sections:
        if (part := section(config)) is not None:
            out.print(part)
    return 0 if found.healthy else 1
