"""Commands of those who use the data: book, replay, export, schema."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from depthvault.cli.options import ConfigFile, DataDir, ExchangeName, command, configuration, console, moment, seconds
from depthvault.cli.query import PANEL, Target
from depthvault.errors import UsageError

Symbol = Annotated[str, typer.Argument(help="The venue's own spelling: BTCUSDT.", metavar="SYMBOL")]
Start = Annotated[str, typer.Option("--start", help="Begin, as 2026-11-20T04:00 (UTC unless an offset is given).")]
End = Annotated[str, typer.Option("--end", help="End (excluded).")]


class Format(StrEnum):
    """What `export` writes."""

    CSV = "csv"
    PARQUET = "parquet"
    HFTBACKTEST = "hftbacktest"
    TARDIS_BOOK = "tardis-book"
    TARDIS_TRADES = "tardis-trades"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @command(app, "book", panel=PANEL, example="depthvault book binance_futures BTCUSDT --at 2026-11-20T04:00")
    def book(
        exchange: ExchangeName,
        symbol: Symbol,
        at: Annotated[str, typer.Option("--at", help="The moment, as 2026-11-20T04:00:00.5Z.")],
        depth: Annotated[int, typer.Option(min=1, help="Levels a side.")] = 10,
        json: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
        vault: Target = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Show an order book of the past, and where it comes from: snapshot, events applied, gaps, trusted range."""
        from depthvault import open as open_vault
        from depthvault.query.show import show_book

        opened = open_vault(vault, config=configuration(config, data_dir))
        show_book(opened, exchange, symbol, moment(at), console, depth=depth, as_json=json)

    @command(
        app,
        "replay",
        panel=PANEL,
        example="depthvault replay binance_futures/depth_diff/BTCUSDT binance_futures/trade/BTCUSDT "
        "--start 2026-11-20T04:00 --end 2026-11-20T04:01",
    )
    def replay(
        streams: Annotated[list[str], typer.Argument(help="Streams, as EXCHANGE/CHANNEL/SYMBOL.", metavar="STREAM…")],
        start: Annotated[str | None, typer.Option(help="Begin, as 2026-11-20T04:00; with --follow: now.")] = None,
        end: Annotated[str | None, typer.Option(help="End (excluded); with --follow: never.")] = None,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes in now.")] = False,
        duration: Annotated[str | None, typer.Option(help="With --follow: end after so long, as 90s.")] = None,
        timeout: Annotated[str | None, typer.Option(help="With --follow: end when nothing came for so long.")] = None,
        window: Annotated[
            str, typer.Option(help="With --follow: how long an event waits at most for other writers.")
        ] = "500ms",
        vault: Target = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Print events of many streams in the order received, one JSON object a line, gaps and disconnects in-band."""
        from depthvault import open as open_vault
        from depthvault.query.show import write_follow, write_replay

        opened = open_vault(vault, config=configuration(config, data_dir))
        if not follow:
            if start is None or end is None or duration is not None or timeout is not None:
                raise UsageError("a replay needs --start and --end; what comes in now needs --follow")
            write_replay(opened, streams, moment(start), moment(end), sys.stdout)
            return
        if end is not None and duration is not None:
            raise UsageError("--end and --duration exclude each other")
        since, until = (None if text is None else moment(text) for text in (start, end))
        if (length := seconds(duration)) is not None:
            until = datetime.now(UTC) + timedelta(seconds=length)
        write_follow(opened.follow(streams, since, until, window=window, timeout=timeout), sys.stdout)

    @command(
        app,
        "export",
        panel=PANEL,
        example="depthvault export hftbacktest binance_futures BTCUSDT --start 2026-11-20T04:00 "
        "--end 2026-11-20T05:00 -o btcusdt.npz",
    )
    def export(
        format: Annotated[Format, typer.Argument(help="What to write.")],
        exchange: ExchangeName,
        symbol: Symbol,
        start: Start,
        end: End,
        output: Annotated[Path, typer.Option("--output", "-o", help="The file; .csv.gz is compressed.")],
        channel: Annotated[str | None, typer.Option(help="The channel of csv and parquet.")] = None,
        force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
        vault: Target = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Write a symbol's data as CSV, Parquet, hftbacktest's .npz or CSV in the shape of Tardis' datasets."""
        from depthvault import open as open_vault
        from depthvault.query.show import run_export

        opened = open_vault(vault, config=configuration(config, data_dir))
        run_export(
            opened, format.value, exchange, symbol, moment(start), moment(end), output, console, channel=channel,
            overwrite=force,
        )  # fmt: skip

    @command(app, "schema", panel=PANEL, example="depthvault schema depth_diff")
    def schema(
        table: Annotated[str | None, typer.Argument(help="A table, view or macro; default: list them all.")] = None,
    ) -> None:
        """Print the data dictionary: every table, its columns and what they mean."""
        from depthvault.query.show import show_schema

        show_schema(console, table)
