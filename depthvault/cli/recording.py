"""Commands that record: collect, seal, simulate."""

from __future__ import annotations

from typing import Annotated

import typer

from depthvault.cli.options import ConfigFile, DataDir, ExchangeName, command, configuration, console, seconds
from depthvault.config import Config
from depthvault.errors import UsageError

PANEL = "Recording"


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    index, slash, count = text.partition("/")
    if not slash or not index.isdigit() or not count.isdigit() or not int(index) < int(count):
        raise UsageError(f"not a shard: {text!r} (write 0/2 for the first of two)")
    return int(index), int(count)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @command(app, "collect", panel=PANEL, example="depthvault collect binance_futures --duration 60")
    def collect(
        exchange: ExchangeName,
        instance: Annotated[str, typer.Option(help="a, b, …: collectors of one venue side by side.")] = "a",
        shard: Annotated[str | None, typer.Option(help="I/N: the I-th of N parts of the symbols.")] = None,
        duration: Annotated[str | None, typer.Option(help="Stop after this long: 60, 90s, 12h.")] = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Record one venue into journals until SIGINT, SIGTERM or the end of `--duration`."""
        loaded = configuration(config, data_dir)
        loaded.exchanges[exchange]  # a wrong name is an error before anything starts
        part, limit = _shard(shard), seconds(duration)

        from collectors.collector import main

        def reload() -> Config:
            return configuration(config, data_dir)

        raise typer.Exit(main(loaded, exchange, instance=instance, shard=part, duration=limit, reload=reload))

    @command(app, "seal", panel=PANEL, example="depthvault seal --all")
    def seal(
        everything: Annotated[bool, typer.Option("--all", help="The running period too.")] = False,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Turn journals of periods that are over into Parquet under `live/`, each closed by a receipt."""
        from depthvault.seal import seal_pending

        loaded = configuration(config, data_dir)
        receipts = seal_pending(loaded, everything=everything)
        for receipt in receipts:
            rows = sum(file.rows for file in receipt.files)
            what = f"sealed {receipt.exchange} {receipt.writer} {receipt.period}"
            note = "" if receipt.complete else " (still running)"
            console.print(f"{what}: {rows:,} rows in {len(receipt.files)} files{note}")
        if not receipts:
            console.print("nothing to seal")

    @app.command(
        "simulate",
        rich_help_panel=PANEL,
        epilog="Example: `depthvault simulate --symbols 8 --rate 10 --seed 1`",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )
    def simulate(context: typer.Context) -> None:
        """Run the exchange simulator: Binance spot and futures and Lighter on one loopback port (`--help` for more)."""
        from simulator.__main__ import main

        raise typer.Exit(main(context.args))
