"""Getting things back: hours from the store, a whole host, periods made anew from journals; and the daily roll-up."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

import typer

from depthvault.cli.options import (
    ConfigFile,
    DataDir,
    ExchangeOption,
    command,
    configuration,
    console,
    moment,
    one_period,
)
from depthvault.errors import UsageError

PANEL = "Archive"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @command(app, "restore", panel=PANEL, example="depthvault restore --all")
    def restore(
        everything: Annotated[bool, typer.Option("--all", help="The whole archive: rebuilds a lost host.")] = False,
        exchange: ExchangeOption = None,
        channel: Annotated[str | None, typer.Option("--channel", help="One channel; default: all.")] = None,
        since: Annotated[str | None, typer.Option("--from", help="UTC time, as 2026-11-20T04:00.")] = None,
        until: Annotated[str | None, typer.Option("--to", help="UTC time; excluded.")] = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Fetch archive files back from the object store and verify each. Run again, it goes on where it stopped."""
        from depthvault.archive.restore import restore as run
        from depthvault.archive.store import open_store
        from depthvault.config import Secrets

        chosen = exchange or channel or since or until
        if everything == bool(chosen):
            raise UsageError("say what: --all, or an --exchange, --channel, --from or --to")
        loaded = configuration(config, data_dir)
        done = run(
            loaded.layout,
            open_store(loaded.store, Secrets()),
            exchange=exchange,
            channel=channel,
            since=moment(since) if since else None,
            until=moment(until) if until else None,
        )
        console.print(
            f"{len(done.fetched)} files fetched and verified ({done.bytes:,} bytes), {len(done.present)} were here; "
            f"the archive has {done.manifests} manifests"
        )

    @command(app, "rederive", panel=PANEL, example="depthvault rederive -e binance_spot -p 2026-11-20T04:00")
    def rederive(
        exchange: Annotated[str, typer.Option("--exchange", "-e", help="The exchange.")],
        period: Annotated[str, typer.Option("--period", "-p", help="The period, as 2026-11-20T04:00.")],
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Make a period anew from kept journals, after a decoder was mended, and say what changes.

        The result is staged: `validate`, `upload` and `publish` take it into the archive as a new generation.
        """
        from depthvault.archive.rederive import rederive as run
        from depthvault.archive.store import open_store
        from depthvault.config import Secrets

        loaded = configuration(config, data_dir)
        chosen = one_period(period, loaded)
        assert chosen is not None
        done = run(loaded.layout, loaded, exchange, chosen, open_store(loaded.store, Secrets()))
        for change in done.changes:
            console.print(
                f"{change.channel}: {change.rows_before:,} rows before, {change.rows_after:,} now; "
                f"{change.only_before:,} go, {change.only_after:,} come (a changed row counts in both)"
            )
        for writer, why in sorted(done.kept.items()):
            console.print(f"[yellow]{writer} stays as archived:[/] {why}", soft_wrap=True)
        if not done.changes:
            console.print("nothing changes")
        for unit in done.others:
            console.print(f"{unit}: shares receipts with it and changes, too; `depthvault compact` takes it next")

    @command(app, "rollup", panel=PANEL, example="depthvault rollup --date 2026-11-19")
    def rollup(
        day: Annotated[str | None, typer.Option("--date", help="A UTC day; default: all that are over.")] = None,
        exchange: ExchangeOption = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Turn the periods of a day into one file a symbol, proved equal before the periods are superseded."""
        from depthvault.archive.rollup import daily_rollup, rollable_days
        from depthvault.config import Secrets

        loaded = configuration(config, data_dir)
        try:
            wanted = date.fromisoformat(day) if day else None
        except ValueError as error:
            raise UsageError(f"not a day: {day!r} (write 2026-11-19)") from error
        days = [
            (name, each)
            for name, each in rollable_days(loaded.layout, loaded, datetime.now(UTC))
            if wanted in (None, each) and exchange in (None, name)
        ]
        for name, each in days:
            for entry in daily_rollup(loaded.layout, loaded, Secrets(), name, each).entries:
                console.print(
                    f"{name} {each} {entry.channel}: {entry.counts.rows:,} rows of {len(entry.archived_inputs)} files "
                    f"in {len(entry.add)} files, manifest {entry.number}"
                )
        if not days:
            console.print("no day is to be rolled up")
