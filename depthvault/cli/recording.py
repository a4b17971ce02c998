"""Commands that record: collect, watch, probe, seal, simulate and their like."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthvault.cli.options import ConfigFile, DataDir, ExchangeName, command, configuration, console, seconds
from depthvault.errors import UsageError

if TYPE_CHECKING:
    from depthvault.config import Config

PANEL = "Recording"


class Mode(StrEnum):
    """How `record` runs."""

    REALTIME = "realtime"
    TEST = "test"


@contextmanager
def _scratch(wanted: bool) -> Iterator[Path | None]:
    """A folder that goes when done; None when none is wanted."""
    if not wanted:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="depthvault-") as folder:
        yield Path(folder)


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

    @command(app, "watch", panel=PANEL, example="depthvault watch binance_futures BTCUSDT --depth 10")
    def watch(
        exchange: ExchangeName,
        symbol: Annotated[str, typer.Argument(help="The venue's own spelling: BTCUSDT; on Lighter ETH.")],
        depth: Annotated[int, typer.Option(min=1, max=100, help="Levels a side.")] = 10,
        record: Annotated[bool, typer.Option("--record", help="Keep what is received, as instance `watch`.")] = False,
        duration: Annotated[str | None, typer.Option(help="Stop after this long: 60, 90s, 12h.")] = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Show a live order book in the terminal, with lag, gaps and load."""
        loaded = configuration(config, data_dir)
        loaded.exchanges[exchange]
        limit = seconds(duration)

        from collectors.watch import watch as show

        raise typer.Exit(show(loaded, exchange, symbol, depth=depth, record=record, duration=limit))

    @command(
        app, "record", panel=PANEL, example="depthvault record --exchanges binance_spot --symbols BTCUSDT --duration 12"
    )
    def record(
        exchanges: Annotated[list[str] | None, typer.Option(help="Which venues; default: the enabled ones.")] = None,
        symbols: Annotated[list[str] | None, typer.Option(help="Which symbols; default: as configured.")] = None,
        duration: Annotated[str | None, typer.Option(help="Hours, or 90s, 15m, 12h; default: until Ctrl-C.")] = None,
        mode: Annotated[
            Mode, typer.Option(help="`test`: two minutes into a scratch folder, ending with a verdict.")
        ] = Mode.REALTIME,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Record several venues at once, with a live summary and a final one."""
        limit = seconds(duration, "h")
        loaded = configuration(config, data_dir)

        from collectors import session

        with _scratch(mode is Mode.TEST) as folder:
            chosen = session.narrowed(loaded, folder or loaded.data_dir, exchanges or (), symbols or ())
            if mode is Mode.TEST and limit is None:
                limit = session.TEST_SECONDS
            outcome = session.record(chosen, limit, console)
            console.print(session.final(outcome))
        problems = outcome.problems()
        for problem in problems:
            console.print(f"[red]{problem}[/]")
        if mode is Mode.TEST:
            console.print("[bold red]not good[/]" if problems else "[bold green]good[/]: every channel arrived, no gap")
        else:
            console.print(f"kept in {chosen.data_dir}")
        raise typer.Exit(1 if problems and (mode is Mode.TEST or any(outcome.exits.values())) else 0)

    @command(app, "probe", panel=PANEL, example="depthvault probe lighter")
    def probe(
        exchange: ExchangeName,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Ask once for the whole book of every recorded market on a second connection: the book audit's witness.

        For venues whose books come in the stream (Lighter); Airflow does it each hour.
        """
        import asyncio

        from depthvault.exchanges import exchange as venue
        from depthvault.exchanges.base import Seed
        from depthvault.polls.probe import probe as ask

        loaded = configuration(config, data_dir)
        if venue(exchange, loaded.exchanges[exchange]).seed is not Seed.IN_BAND:
            raise UsageError(f"{exchange} answers for its books over REST: there is nothing to probe")
        polled = asyncio.run(ask(loaded, exchange))
        console.print(str(polled), soft_wrap=True)
        raise typer.Exit(1 if polled.dead or polled.failures else 0)

    @command(app, "quicktest", panel=PANEL, example="depthvault quicktest --minutes 5")
    def quicktest(
        minutes: Annotated[float, typer.Option(min=0.1, help="How long.")] = 5.0,
        output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the CSV files.")] = Path("data_test"),
        exchanges: Annotated[list[str] | None, typer.Option(help="Which venues; default: the enabled ones.")] = None,
        symbols: Annotated[list[str] | None, typer.Option(help="Which symbols; default: six big ones.")] = None,
        config: ConfigFile = None,
    ) -> None:
        """Record six symbols for some minutes to CSV, and say whether this machine, clock and network will do."""
        loaded = configuration(config)

        from collectors import quicktest as test
        from collectors import session

        with _scratch(True) as folder:
            assert folder is not None
            chosen = session.narrowed(loaded, folder, exchanges or (), symbols or test.symbols(loaded), test.CHANNELS)
            outcome = session.record(chosen, minutes * 60, console)
            console.print(session.final(outcome))
            files = test.write_csv(chosen, output)
            found = test.findings(chosen, outcome)
        console.print(f"{len(files)} CSV files in {output.resolve()}", soft_wrap=True)
        colours = {"good": "green", "fair": "yellow", "bad": "red"}
        for finding in found:
            console.print(f"[{colours[finding.verdict]}]{finding.verdict:>4}[/]  {finding.what}: {finding.text}")
        sentence, yes = test.conclusion(found)
        console.print(f"[bold]{sentence}[/]")
        raise typer.Exit(0 if yes else 1)

    @command(app, "trial", panel=PANEL, example="depthvault trial --minutes 1 --symbols 6")
    def trial(
        minutes: Annotated[float, typer.Option(min=0.1, help="How long the collectors record.")] = 30.0,
        symbols: Annotated[int, typer.Option(min=1, help="Symbols of each venue (Lighter: 10 at most).")] = 100,
        venues: Annotated[list[str] | None, typer.Option(help="Which venues; default: all three.")] = None,
        instances: Annotated[int, typer.Option(min=1, max=2, help="Collectors side by side on each venue.")] = 2,
        rate: Annotated[float, typer.Option(min=0.1, max=10, help="Book events a second and symbol.")] = 10.0,
        faults: Annotated[
            str | None, typer.Option(help="The simulator's faults, as drop=0.001,disconnect=30; default: all kinds.")
        ] = None,
        kill: Annotated[float, typer.Option(min=0, help="Mean seconds between SIGKILLs; 0: none.")] = 45.0,
        restart: Annotated[float, typer.Option(min=0, help="Mean seconds between SIGTERM restarts; 0: none.")] = 60.0,
        seed: Annotated[int, typer.Option(help="Of the market, the faults and the signals.")] = 1,
        folder: Annotated[
            Path | None, typer.Option(help="Keep everything here (new or empty); default: a scratch folder.")
        ] = None,
        again: Annotated[Path | None, typer.Option(help="Record nothing: judge the trial kept in this folder.")] = None,
        output: Annotated[Path, typer.Option("--output", "-o", help="All figures as JSON.")] = Path("trial.json"),
    ) -> None:
        """Put the whole system to the test: faults, kills, and a simulator that knows the truth. Exit code 1 says no.

        The real collectors record the simulator; what they recorded is sealed, archived and verified, and compared with
        the simulator's ledger event by event and number by number.
        """
        from collectors.trial.plan import FAULTS, VENUES, Plan
        from collectors.trial.run import again as judge_again
        from collectors.trial.run import run
        from collectors.trial.verdict import costs_of, sentences, table_of
        from expectations import validate

        if again is not None:
            verdict = judge_again(again, console)
        else:
            plan = Plan(
                seconds=minutes * 60, symbols=symbols, venues=tuple(venues or VENUES), instances=instances, rate=rate,
                faults=FAULTS if faults is None else faults, kill=kill, restart=restart, seed=seed,
            )  # fmt: skip
            with _scratch(folder is None) as scratch:
                verdict = run(plan, folder or scratch or Path(), validate, console)
        verdict.write(output)
        console.print(table_of(verdict))
        console.print(costs_of(verdict))
        for line in sentences(verdict):
            console.print(line, soft_wrap=True)
        problems = verdict.problems()
        for one in verdict.findings:
            for example in one.examples:
                console.print(f"[red]{one.venue} {one.channel}: {example}[/]", soft_wrap=True)
        for problem in problems:
            console.print(f"[bold red]{problem}[/]", soft_wrap=True)
        what = "the archive is what the venues said, and says where it is not"
        console.print(f"[bold red]no[/]: {len(problems)} problems" if problems else f"[bold green]yes[/]: {what}")
        console.print(f"figures: {output}", soft_wrap=True)
        raise typer.Exit(1 if problems else 0)

    @command(app, "seal", panel=PANEL, example="depthvault seal --all")
    def seal(
        everything: Annotated[bool, typer.Option("--all", help="The running period too.")] = False,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Turn journals of periods that are over into Parquet under `live/`, each closed by a receipt."""
        from depthvault.seal import seal_pending

        receipts = seal_pending(configuration(config, data_dir), everything=everything)
        for receipt in receipts:
            what = f"sealed {receipt.exchange} {receipt.writer} {receipt.period}"
            note = "" if receipt.complete else " (still running)"
            console.print(f"{what}: {receipt.rows:,} rows in {len(receipt.files)} files{note}")
            for channel, count in receipt.rejected.items():
                console.print(f"  [red]{count:,} frames of {channel} could not be decoded; they are kept raw[/]")
            for region in receipt.damage:
                console.print(f"  [red]{region.path}: bytes {region.start}–{region.end}: {region.reason}[/]")
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
