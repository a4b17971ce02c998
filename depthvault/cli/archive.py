"""The steps of the archive, each runnable by hand and safe to run again."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from depthvault.cli.options import (
    ConfigFile,
    DataDir,
    ExchangeOption,
    PeriodOption,
    command,
    configuration,
    console,
    one_period,
)
from depthvault.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from depthvault.archive.staging import Unit
    from depthvault.config import Config

PANEL = "Archive"


class OldLayout(StrEnum):
    """What an earlier recorder wrote."""

    S0 = "s0"
    S1 = "s1"
    S2 = "s2"


class Where(StrEnum):
    """What `verify` looks at."""

    LOCAL = "local"
    STORE = "store"
    BOTH = "both"


def _ready(config: Config, exchange: str | None, period: str | None) -> list[Unit]:
    """The units to compact: the one that was named, else all that are ready."""
    from depthvault.archive.compact import ready_units
    from depthvault.archive.staging import Unit

    chosen = one_period(period, config)
    if exchange is not None:
        config.exchanges[exchange]
    if chosen is not None:
        names = [exchange] if exchange is not None else list(config.exchanges.enabled())
        return [Unit(name, chosen) for name in names]
    return ready_units(config.layout, config, exchange)


def _staged(config: Config, exchange: str | None, period: str | None) -> list[Unit]:
    """The units that are compacted and not yet published, oldest first."""
    from depthvault.archive.staging import staged_units

    chosen = one_period(period, config)
    return [
        unit
        for unit in staged_units(config.layout)
        if (exchange is None or unit.exchange == exchange) and (chosen is None or unit.period == chosen)
    ]


def _stage_pending(config: Config, exchange: str | None, period: str | None) -> None:
    """Stage what was published without being judged once more; its rows stay the same."""
    from depthvault.archive.compact import compact, pending_units
    from depthvault.archive.store import open_store
    from depthvault.config import Secrets

    chosen, store = one_period(period, config), open_store(config.store, Secrets())
    for unit in pending_units(config.layout, exchange):
        if chosen in (None, unit.period):
            compact(config.layout, config, unit.exchange, unit.period, store, pending=True)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @command(app, "compact", panel=PANEL, example="depthvault compact --exchange binance_spot")
    def compact(
        exchange: ExchangeOption = None,
        period: PeriodOption = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Stitch and deduplicate sealed periods into ZSTD Parquet, with gaps and coverage; nothing is published yet.

        Of each venue the oldest ready period is taken: the next one continues its chains, so it waits until that one is
        published.
        """
        from depthvault.archive.compact import compact as run
        from depthvault.archive.store import open_store
        from depthvault.config import Secrets

        loaded = configuration(config, data_dir)
        store = open_store(loaded.store, Secrets())
        units = _ready(loaded, exchange, period)
        oldest = {unit.exchange: unit for unit in reversed(units)}
        for unit in sorted(oldest.values()):
            for draft in run(loaded.layout, loaded, unit.exchange, unit.period, store).drafts:
                counts, size = draft.counts, sum(file.bytes for file in draft.add)
                console.print(
                    f"{unit} {draft.channel} g{draft.generation}: {counts.rows:,} rows, "
                    f"{counts.duplicates:,} doubles merged, {counts.gaps:,} gaps, {size:,} bytes"
                )
        if left := len(units) - len(oldest):
            console.print(f"{left} later periods wait: publish these first")
        if not units:
            console.print("nothing to compact")

    @command(app, "validate", panel=PANEL, example="depthvault validate")
    def validate(
        exchange: ExchangeOption = None,
        period: PeriodOption = None,
        pending: Annotated[
            bool, typer.Option("--pending", help="Also what was published without being judged: `publish` says so.")
        ] = False,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Judge compacted periods with Great Expectations. What fails is marked degraded, and archived all the same."""
        from expectations import validate as run

        loaded = configuration(config, data_dir)
        if pending:
            _stage_pending(loaded, exchange, period)
        units = _staged(loaded, exchange, period)
        for unit in units:
            judgement = run(loaded.layout, loaded, unit.exchange, unit.period)
            console.print(str(judgement), soft_wrap=True)
            for check in judgement.failures:
                console.print(f"  [yellow]{check.channel} {check}[/]", soft_wrap=True)
            for line in judgement.warned():
                console.print(f"  {line}", soft_wrap=True, markup=False)
        if not units:
            console.print("nothing to validate")

    @command(app, "upload", panel=PANEL, example="depthvault upload")
    def upload(
        exchange: ExchangeOption = None,
        period: PeriodOption = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Put compacted periods into the object store, and published ones that it lacks; read all of them back."""
        from depthvault.archive import log
        from depthvault.archive.store import open_store
        from depthvault.archive.upload import prove, upload_published, verify_store
        from depthvault.archive.upload import upload as run
        from depthvault.config import Secrets
        from depthvault.errors import StoreError

        loaded, secrets = configuration(config, data_dir), Secrets()
        store = open_store(loaded.store, secrets)
        if store is None:
            raise ConfigError("no object store is configured: set R2_BUCKET_NAME, R2_ACCESS_KEY_ID and the rest")
        for unit in _staged(loaded, exchange, period):
            done = run(loaded.layout, loaded, secrets, unit)
            proof = verify_store(loaded.layout, loaded, secrets, unit)
            console.print(
                f"{unit}: {len(done.sent)} put, {len(done.present)} present, {len(proof.held)} read back",
                soft_wrap=True,
            )
        state = log.catch_up(loaded.layout, store)
        done = upload_published(loaded.layout, store, state)
        held = prove(store, [state.files[key] for key in done.sent])
        for key, problem in sorted(held.problems.items()):
            raise StoreError(f"{store}/{key}: {problem}")
        console.print(
            f"published files: {len(done.sent)} put and read back, {len(done.present)} present in {store}",
            soft_wrap=True,
        )

    @command(app, "publish", panel=PANEL, example="depthvault publish")
    def publish(
        exchange: ExchangeOption = None,
        period: PeriodOption = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Append manifests for compacted periods: from then on they are in the archive."""
        from depthvault.archive.publish import publish as run
        from depthvault.config import Secrets

        loaded = configuration(config, data_dir)
        units = _staged(loaded, exchange, period)
        for unit in units:
            done = run(loaded.layout, loaded, Secrets(), unit)
            for entry in done.entries:
                console.print(f"{unit} {entry.channel} g{entry.generation}: manifest {entry.number}, {entry.condition}")
            for channel in done.skipped:
                console.print(f"{unit} {channel}: published by another worker before")
        if not units:
            console.print("nothing to publish")

    @command(app, "verify", panel=PANEL, example="depthvault verify both --deep")
    def verify(
        where: Annotated[Where | None, typer.Argument(help="Default: both when a store is configured.")] = None,
        deep: Annotated[
            bool, typer.Option("--deep", help="Read the rows too: values, order, continuity, the book audit.")
        ] = False,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Check the chain of manifests and the bytes of every file and object. Exit code 1 names what is wrong."""
        from depthvault.archive.store import open_store
        from depthvault.archive.verify import verify as run
        from depthvault.config import Secrets

        loaded = configuration(config, data_dir)
        store = open_store(loaded.store, Secrets()) if where is not Where.LOCAL else None
        if store is None and where in {Where.STORE, Where.BOTH}:
            raise ConfigError("no object store is configured: set R2_BUCKET_NAME, R2_ACCESS_KEY_ID and the rest")
        result = run(loaded.layout, store, local=where is not Where.STORE, deep=deep)
        for finding in result.findings:
            console.print(f"[red]{finding}[/]", soft_wrap=True)
        verdict = "[green]all as recorded[/]" if result.ok else f"[bold red]{len(result.findings)} findings[/]"
        looked_at = f"{result.manifests:,} manifests chained, {result.checked:,} files hashed ({result.bytes:,} bytes)"
        waiting = f"; {result.pending:,} new ones wait for their manifest" if result.pending else ""
        unread = f"; {result.unread:,} files are only in the store, restore them to have their rows looked at"
        console.print(f"{looked_at}: {verdict}{waiting}{unread if result.unread else ''}")
        raise typer.Exit(0 if result.ok else 1)

    @command(app, "cleanup", panel=PANEL, example="depthvault cleanup --dry-run")
    def cleanup(
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Delete local files that are old enough and that the store has proved to hold, by GET and hash in this run."""
        from depthvault.archive.cleanup import cleanup as run
        from depthvault.config import Secrets

        loaded = configuration(config, data_dir)
        done = run(loaded.layout, loaded, Secrets(), dry_run=dry_run)
        if not done.store:
            console.print("no object store is configured: nothing is proved elsewhere, so nothing is deleted")
            return
        verb = "would be deleted" if dry_run else "deleted"
        console.print(
            f"{len(done.archived)} archive files, {len(done.live)} live files and {len(done.journals)} journals "
            f"{verb}, {len(done.superseded)} superseded files moved, {done.freed:,} bytes freed"
        )
        if done.aborted:
            console.print(f"{len(done.aborted)} uploads that a killed process had left in the store {verb}")
        for path, why in sorted(done.kept.items()):
            console.print(f"kept {path}: {why}", soft_wrap=True)

    @command(app, "import", panel=PANEL, example="depthvault import old/data --layout s1 --exchange binance_spot")
    def import_(
        path: Annotated[Path, typer.Argument(help="A Parquet file, or a folder of them.")],
        layout: Annotated[OldLayout, typer.Option(help="Which recorder wrote them: docs/import.md shows each.")],
        exchange: Annotated[str, typer.Option("--exchange", "-e", help="The venue that they are of.")],
        timezone: Annotated[str, typer.Option(help="Of times without an offset, as Asia/Taipei.")] = "UTC",
        levels: Annotated[int, typer.Option(min=1, help="Levels a side of a stored top of book.")] = 20,
        states: Annotated[bool, typer.Option("--states", help="s0: rows are tops of the book, not changes.")] = False,
        rename: Annotated[list[str] | None, typer.Option(help="OLD=NEW: a symbol as the venue spells it.")] = None,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Take in Parquet that an earlier recorder wrote, marked as imported and unproved. A second run does nothing.

        All files are checked before anything is published. Periods that were recorded here keep their own rows alone.
        """
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        from depthvault.config import Secrets
        from depthvault.imports import Options, import_files

        renamed = dict(pair.split("=", 1) for pair in rename or [] if "=" in pair)
        if len(renamed) != len(rename or []):
            raise UsageError("--rename takes OLD=NEW, each old name once")
        try:
            zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise UsageError(f"no time zone {timezone!r}") from error
        loaded, options = configuration(config, data_dir), Options(zone, levels, renamed, states)
        with console.status("reading") as status:
            done = import_files(
                loaded.layout, loaded, Secrets(), path, layout.value, exchange, options,
                progress=lambda step: status.update(escape(step)),
            )  # fmt: skip
        for entry in done.entries:
            counts = entry.counts
            console.print(
                f"{entry.exchange} {entry.channel} {entry.period[:8]} g{entry.generation}: {counts.rows:,} rows, "
                f"{counts.duplicates:,} doubles merged, {counts.conflicts:,} conflicts, {counts.gaps:,} gap rows"
            )
        for name, reason in sorted(done.left.items()):
            console.print(f"[yellow]left alone[/] {escape(name)}: {reason}", soft_wrap=True)
        for number, what in (
            (len(done.known), "files were imported before"),
            (done.recorded, "rows lie in periods that were recorded here, and were left out"),
            (done.inexact, "numbers have more digits than a double keeps, and were rounded"),
        ):
            if number:
                console.print(f"{number:,} {what}")
        console.print(f"{done.files:,} files, {done.rows:,} new rows, {len(done.entries):,} manifests")

    iceberg = typer.Typer(
        help="Iceberg tables over the archive's own files.",
        no_args_is_help=True,
        epilog="Example: `depthvault iceberg sync`",
    )
    app.add_typer(iceberg, name="iceberg", rich_help_panel=PANEL)

    @command(iceberg, "sync", panel=PANEL, example="depthvault iceberg sync")
    def iceberg_sync(
        hours: Annotated[bool, typer.Option("--hours", help="Also periods whose day is not rolled up yet.")] = False,
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Bring the Iceberg tables to what the manifests say: new files in, superseded ones out. Nothing is copied."""
        from depthvault.config import Secrets
        from depthvault.iceberg import sync

        loaded = configuration(config, data_dir)
        tables = sync(loaded.layout, loaded, Secrets(), hours=hours)
        for table in tables:
            console.print(
                f"{table.table}: {table.files:,} files, {table.rows:,} rows; {table.added:,} registered, "
                f"{table.removed:,} taken out"
            )
        if not tables:
            console.print("nothing to register: no day is rolled up yet (`--hours` takes periods as they are)")

    @command(app, "views", panel=PANEL, example="depthvault views --output archive.duckdb")
    def views(
        output: Annotated[Path, typer.Option("--output", "-o", help="The DuckDB file.")] = Path("archive.duckdb"),
        config: ConfigFile = None,
        data_dir: DataDir = None,
    ) -> None:
        """Write a DuckDB file with views over the archived files of this host, for other tools. Open it read-only."""
        from datetime import UTC, datetime

        from depthvault.query.saved import save_views

        saved = save_views(configuration(config, data_dir).layout, output, datetime.now(UTC))
        console.print(f"{saved.path}: {saved.files:,} files, as of manifest {saved.manifest:,}", soft_wrap=True)
        if saved.absent:
            console.print(f"[yellow]{saved.absent:,} files are only in the store and left out[/]; `depthvault restore`")
