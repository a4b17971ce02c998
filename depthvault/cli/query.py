"""Commands that ask the archive."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthvault.cli.options import ConfigFile, DataDir, ExchangeOption, command, configuration, console, moment
from depthvault.errors import UsageError

if TYPE_CHECKING:
    from depthvault.config import Config

PANEL = "Query"
Target = Annotated[
    str | None, typer.Option("--vault", help="A data directory or s3://bucket/prefix; default: the configured data.")
]


class Picture(StrEnum):
    """What `plot` draws."""

    COVERAGE = "coverage"
    DEPTH = "depth"
    SPREAD = "spread"
    HEATMAP = "heatmap"


SymbolOption = Annotated[str | None, typer.Option("--symbol", "-s", help="One symbol; default: all.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @command(app, "sql", panel=PANEL, example='depthvault sql "SELECT symbol, count(*) FROM trade GROUP BY symbol"')
    def sql(
        statement: Annotated[str, typer.Argument(help="One reading statement; views are named after the channels.")],
        format: Annotated[str, typer.Option("--format", "-f", help="table, csv or json.")] = "table",
        limit: Annotated[int, typer.Option(min=1, help="Rows of a table; csv and json have all.")] = 100,
        vault: Target = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Answer SQL (DuckDB) over archive, live files and the running period. It can only read, and only this data."""
        from typing import cast

        from depthvault import open as open_vault
        from depthvault.query import Format, run

        if format not in {"table", "csv", "json"}:
            raise UsageError(f"no format {format!r}; there are table, csv and json")
        loaded = configuration(config, data_dir)
        run(open_vault(vault, config=loaded), statement, cast(Format, format), console=console, limit=limit)

    @command(app, "gaps", panel=PANEL, example="depthvault gaps --exchange binance_futures --all")
    def gaps(
        exchange: ExchangeOption = None,
        symbol: SymbolOption = None,
        everything: Annotated[bool, typer.Option("--all", help="Closed ones (bridged, refilled) too.")] = False,
        limit: Annotated[int, typer.Option(min=1)] = 100,
        vault: Target = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """List every break of a sequence, newest first, with its ids, times, cause and status.

        Holes in streams of the whole market bear no symbol, and are listed for each.
        """
        where = _where(exchange=exchange)
        if symbol is not None:  # what nobody heard of the whole market, nobody heard of this symbol
            where += f" AND ({_where(symbol=symbol)} OR symbol = '')"
        if not everything:
            where += " AND status NOT IN ('bridged', 'refilled')"
        _ask(  # the values are quoted by _where
            "SELECT exchange, channel, symbol, status, cause, start_time, end_time, last_id, first_id FROM gaps "
            f"WHERE {where} ORDER BY end_time DESC NULLS LAST, exchange, channel, symbol",
            limit, vault, configuration(config, data_dir),
        )  # fmt: skip

    @command(app, "coverage", panel=PANEL, example="depthvault coverage --symbol BTCUSDT")
    def coverage(
        exchange: ExchangeOption = None,
        symbol: SymbolOption = None,
        limit: Annotated[int, typer.Option(min=1)] = 100,
        vault: Target = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Show what was recorded of each period: events, merged doubles, gaps, and the share of time covered.

        `unusual`: of how many symbols there were more or fewer events than the periods before let expect.
        """
        _ask(
            "SELECT exchange, channel, period, count(nullif(symbol, '')) AS symbols, sum(events) AS events, "
            "sum(duplicates) AS doubles, sum(gaps) AS gaps, round(100 * avg(share), 2) AS covered_percent, "
            "count(*) FILTER (events < expected_low OR events > expected_high) AS unusual "
            f"FROM coverage WHERE {_where(exchange=exchange, symbol=symbol)} "
            "GROUP BY ALL ORDER BY period DESC, exchange, channel",
            limit, vault, configuration(config, data_dir),
        )  # fmt: skip

    @command(app, "report", panel=PANEL, example="depthvault report --date 2026-11-19")
    def report(
        date: Annotated[str | None, typer.Option(help="The day, as 2026-11-19; default: yesterday (UTC).")] = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Write the report of a day (HTML and text) under `reports/`, and print the text."""
        from datetime import UTC, datetime, timedelta

        from depthvault.config import Secrets
        from depthvault.report.write import write_report

        now = datetime.now(UTC)
        day = moment(date).date() if date is not None else (now - timedelta(days=1)).date()
        written = write_report(configuration(config, data_dir), day, now, store=Secrets().has_store)
        console.print(f"[bold]{written.title}[/]")
        console.print(written.text, markup=False, soft_wrap=True)
        console.print(f"{written.folder / 'report.html'}", soft_wrap=True)

    @command(
        app, "plot", panel=PANEL, example="depthvault plot heatmap binance_futures BTCUSDT --start 2026-11-20T04:00"
    )
    def plot(
        picture: Annotated[Picture, typer.Argument(help="What to draw.")],
        exchange: Annotated[str | None, typer.Argument(help="The venue (coverage: default all).")] = None,
        symbol: Annotated[str | None, typer.Argument(help="The symbol (not for coverage).")] = None,
        start: Annotated[str | None, typer.Option(help="Begin; default: an hour before the end.")] = None,
        end: Annotated[str | None, typer.Option(help="End, or the moment of `depth`; default: now.")] = None,
        channel: Annotated[str, typer.Option(help="The channel of `coverage`.")] = "depth_diff",
        output: Annotated[Path | None, typer.Option("--output", "-o", help="A .png, .svg or .html file.")] = None,
        vault: Target = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Draw the coverage of an archive, or a book's depth, spread or liquidity, as PNG, SVG or HTML."""
        from datetime import UTC, datetime, timedelta

        from depthvault import open as open_vault
        from depthvault import plot as plots

        until = moment(end) if end is not None else datetime.now(UTC)
        since = moment(start) if start is not None else until - timedelta(hours=1)
        opened = open_vault(vault, config=configuration(config, data_dir))
        if picture is Picture.COVERAGE:
            figure, title = plots.coverage(opened, channel, exchange)
        elif exchange is None or symbol is None:
            raise UsageError(f"`plot {picture}` needs an exchange and a symbol")
        elif picture is Picture.DEPTH:
            figure, title = plots.depth(opened.book(exchange, symbol, until))
        else:
            draw = plots.spread if picture is Picture.SPREAD else plots.heatmap
            figure, title = draw(opened, exchange, symbol, since, until)
        written = plots.write(figure, output or Path(f"{picture}.png"), title)
        console.print(f"{title}: {written}", soft_wrap=True)


def _where(**conditions: str | None) -> str:
    """A condition on columns; values are quoted, whatever they hold."""
    quoted = {name: value.replace("'", "''") for name, value in conditions.items() if value is not None}
    return " AND ".join([f"{name} = '{value}'" for name, value in quoted.items()] or ["true"])


def _ask(statement: str, limit: int, vault: str | None, config: Config) -> None:
    from depthvault import open as open_vault
    from depthvault.query import run

    run(open_vault(vault, config=config), statement, console=console, limit=limit)
