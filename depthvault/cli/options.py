"""Options that several commands share, and where they print."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from depthvault.durations import parse_duration
from depthvault.errors import UsageError
from depthvault.period import Period

if TYPE_CHECKING:
    from depthvault.config import Config

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file (default: $DEPTHVAULT_CONFIG, else ./depthvault.yaml)."),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the data lies (default: ./data).")]
ExchangeName = Annotated[str, typer.Argument(help="binance_spot, binance_futures or lighter.", metavar="EXCHANGE")]
PeriodOption = Annotated[
    str | None, typer.Option("--period", "-p", help="One period, as 2026-11-20T04:00; default: all that are ready.")
]
ExchangeOption = Annotated[str | None, typer.Option("--exchange", "-e", help="One exchange; default: all.")]


def configuration(config: Path | None, data_dir: Path | None = None, **flags: Any) -> Config:
    """The configuration with the flags that were given on the command line."""
    from depthvault.config import load_config  # which `--help` does without

    if data_dir is not None:
        flags["data_dir"] = data_dir
    return load_config(config, **flags)


def moment(text: str) -> datetime:
    """An ISO time; without an offset it is UTC. Raises UsageError naming the text."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"not a time: {text!r} (write 2026-11-20T04:00 or 2026-11-20T04:00:00.5Z)") from error
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def one_period(text: str | None, config: Config) -> Period | None:
    """The archive period that starts at `text`, None for None. Raises UsageError when none starts there."""
    if text is None:
        return None
    period = config.layout.period_of(moment(text))
    if period.start != moment(text):
        raise UsageError(f"no period starts at {text}: periods are {config.archive.period} long")
    return period


def seconds(text: str | None, unit: str = "s") -> float | None:
    """A duration option in seconds; a bare number counts in `unit`. Raises UsageError naming the text."""
    if text is None:
        return None
    try:
        value: timedelta = parse_duration(text, unit)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return value.total_seconds()


def command(app: typer.Typer, name: str, *, panel: str, example: str) -> Callable[[Callable[..., Any]], Any]:
    """Register a command whose help ends in an example."""
    return app.command(name, rich_help_panel=panel, epilog=f"Example: `{example}`")
