"""The steps that take a sealed period into the archive. Each may be run again at any time and changes no byte then."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from plugins.configuration import config

if TYPE_CHECKING:
    from depthvault.archive.staging import Unit


class Period(TypedDict):
    """A venue and the label of one of its periods, as it travels between tasks."""

    exchange: str
    period: str


class Day(TypedDict):
    """A venue and a day (`YYYY-MM-DD`), as it travels between tasks."""

    exchange: str
    date: str


def find_hours() -> list[Period]:
    """The oldest period of each venue that every writer has sealed and that the archive does not hold yet.

    One a venue: a period's first events are checked against the end of the period before, so that one must be
    published first. `more` says whether another run is due at once.
    """
    from depthvault.archive.compact import ready_units

    settings = config()
    units = ready_units(settings.layout, settings)
    oldest = {unit.exchange: unit for unit in reversed(units)}
    _say(f"{len(units)} periods are ready, oldest first: {', '.join(map(str, units[:10])) or 'none'}")
    return [Period(exchange=unit.exchange, period=unit.period.label) for unit in sorted(oldest.values())]


def more(done: list[Period]) -> bool:
    """Whether periods beside those of this run are ready: then another run is due at once."""
    from depthvault.archive.compact import ready_units

    settings = config()
    known = {(period["exchange"], period["period"]) for period in done}
    left = [
        unit
        for unit in ready_units(settings.layout, settings)
        if (unit.exchange, unit.period.label) not in known  # one that is still there did not get through: no hurry
    ]
    _say(f"{len(left)} more periods are ready")
    return bool(left)


def compact(period: Period) -> Period:
    """Stitch, deduplicate and write the period's files into the staging folder."""
    from depthvault.archive.compact import compact as run
    from depthvault.archive.store import open_store
    from depthvault.config import Secrets

    settings, unit = config(), _unit(period)
    store = open_store(settings.store, Secrets())
    compacted = run(settings.layout, settings, unit.exchange, unit.period, store)
    for draft in compacted.drafts:
        counts = draft.counts
        _say(
            f"{unit} {draft.channel} g{draft.generation}: {counts.rows} rows of {counts.rows_in} read, "
            f"{counts.duplicates} doubles merged, {counts.gaps} gaps, {sum(file.bytes for file in draft.add)} bytes"
        )
    if not compacted.drafts:
        _say(f"{unit}: the archive holds all of it already")
    return period


def validate(period: Period) -> Period:
    """Judge the staged files. What fails is marked degraded and archived all the same."""
    from expectations import validate as run

    settings, unit = config(), _unit(period)
    judgement = run(settings.layout, settings, unit.exchange, unit.period)
    _say(str(judgement))
    for line in [*judgement.summary(), *judgement.warned()]:
        _say(f"  {line}")
    return period


def upload(period: Period) -> Period:
    """Put the staged files into the object store, when there is one."""
    from depthvault.archive.upload import upload as run
    from depthvault.config import Secrets

    settings, unit, secrets = config(), _unit(period), Secrets()
    done = run(settings.layout, settings, secrets, unit)
    if secrets.has_store:
        _say(f"{unit}: {len(done.sent)} objects put ({done.bytes} bytes), {len(done.present)} were there already")
    else:
        _say(f"{unit}: no object store is configured, nothing to upload")
    return period


def verify_store(period: Period) -> Period:
    """Read every object back and compare its hash. Raises StoreError when one differs."""
    from depthvault.archive.upload import verify_store as run
    from depthvault.config import Secrets

    settings, unit, secrets = config(), _unit(period), Secrets()
    proof = run(settings.layout, settings, secrets, unit)
    if secrets.has_store:
        _say(f"{unit}: {len(proof.held)} objects read back, every SHA-256 is the recorded one")
    else:
        _say(f"{unit}: no object store is configured, nothing to read back")
    return period


def publish(period: Period) -> str:
    """Append the manifests: from now on the period is in the archive."""
    from depthvault.archive.publish import publish as run
    from depthvault.config import Secrets

    settings, unit = config(), _unit(period)
    done = run(settings.layout, settings, Secrets(), unit)
    numbers = ", ".join(f"{entry.channel} {entry.condition} (manifest {entry.number})" for entry in done.entries)
    line = f"{unit}: {len(done.entries)} channels published" + (f": {numbers}" if numbers else "")
    if done.skipped:
        line += f"; published by another worker before: {', '.join(done.skipped)}"
    _say(line)
    return line


def find_days() -> list[Day]:
    """The venues and days whose periods can become one file a symbol: over, settled, and nothing of them pending."""
    from datetime import UTC, datetime

    from depthvault.archive.rollup import rollable_days

    settings = config()
    days = rollable_days(settings.layout, settings, datetime.now(UTC))
    _say(f"{len(days)} days can be rolled up: {', '.join(f'{name} {day}' for name, day in days[:10]) or 'none'}")
    return [Day(exchange=name, date=day.isoformat()) for name, day in days]


def roll_up(day: Day) -> str:
    """Write one file a symbol of the day's periods, prove it equal, and supersede the periods' files."""
    from datetime import date

    from depthvault.archive.rollup import daily_rollup
    from depthvault.config import Secrets

    settings = config()
    done = daily_rollup(settings.layout, settings, Secrets(), day["exchange"], date.fromisoformat(day["date"]))
    files = sum(len(entry.add) for entry in done.entries)
    size = sum(file.bytes for entry in done.entries for file in entry.add)
    replaced = sum(len(entry.remove) for entry in done.entries)
    line = (
        f"{day['exchange']} {day['date']}: {files} files ({size} bytes) in place of {replaced}, every row proved equal"
    )
    if not done.entries:
        line = f"{day['exchange']} {day['date']}: is rolled up already"
    _say(line)
    return line


def sync_tables() -> str:
    """Bring the Iceberg tables to what the manifests say, where `iceberg.enabled` asks for them."""
    settings = config()
    if not settings.iceberg.enabled:
        line = "iceberg.enabled is false: no tables are kept"
    else:
        from depthvault.config import Secrets
        from depthvault.iceberg import sync

        tables = sync(settings.layout, settings, Secrets())
        added, removed = sum(table.added for table in tables), sum(table.removed for table in tables)
        line = f"{len(tables)} tables: {added} files registered, {removed} taken out"
    _say(line)
    return line


def cleanup() -> str:
    """Delete local files that are old enough and that the store has proved to hold."""
    from depthvault.archive.cleanup import cleanup as run
    from depthvault.config import Secrets

    settings = config()
    done = run(settings.layout, settings, Secrets())
    if not done.store:
        line = "no object store is configured: nothing is proved elsewhere, so nothing is deleted"
    else:
        line = (
            f"{len(done.archived)} archive files, {len(done.live)} live files and {len(done.journals)} journals "
            f"deleted, {len(done.superseded)} superseded files moved, {done.freed} bytes freed"
        )
    _say(line)
    for path, why in sorted(done.kept.items()):
        _say(f"  kept {path}: {why}")
    return line


def _unit(period: Period) -> Unit:
    from depthvault.archive.staging import Unit
    from depthvault.period import Period as ArchivePeriod

    return Unit(period["exchange"], ArchivePeriod.parse(period["period"], config().archive.period))


def _say(line: str) -> None:
    print(line)
