"""Commands that ask the archive."""

from __future__ import annotations

from typing import Annotated

import typer

from depthvault.cli.options import ConfigFile, DataDir, command, configuration, console

PANEL = "Query"
Target = Annotated[
    str | None, typer.Option("--vault", help="A data directory or s3://bucket/prefix; default: the configured data.")
]


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
        from depthvault.errors import UsageError
        from depthvault.query import Format, run

        if format not in {"table", "csv", "json"}:
            raise UsageError(f"no format {format!r}; there are table, csv and json")
        loaded = configuration(config, data_dir)
        run(open_vault(vault, config=loaded), statement, cast(Format, format), console=console, limit=limit)
