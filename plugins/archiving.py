"""The steps that take a sealed period into the archive. Each may be run again at any time and changes no byte then."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from plugins.schedules import config

if TYPE_CHECKING:
    from depthvault.period import Period


class Unit(TypedDict):
    """A venue and the label of one of its periods, as it travels between tasks."""

    exchange: str
    period: str


def find_hours() -> list[Unit]:
    """The periods that every writer has sealed and that the archive does not hold yet, oldest first."""
    from depthvault.archive.compact import ready_units

    settings = config()
    units = [Unit(exchange=unit.exchange, period=unit.period.label) for unit in ready_units(settings.layout, settings)]
    _say(f"{len(units)} periods are ready" + (": " if units else "") + ", ".join(map(_name, units)))
    return units


def compact(unit: Unit) -> Unit:
    """Stitch, deduplicate and write the period's files into the staging folder."""
    from depthvault.archive.compact import compact as run

    settings = config()
    _say(str(run(settings.layout, settings, unit["exchange"], _period(unit))))
    return unit


def validate(unit: Unit) -> Unit:
    """Judge the staged files. What fails is marked degraded and archived all the same."""
    from expectations import validate as run

    settings = config()
    _say(str(run(settings.layout, settings, unit["exchange"], _period(unit))))
    return unit


def upload(unit: Unit) -> Unit:
    """Put the staged files into the object store, when there is one."""
    from depthvault.archive.upload import upload as run

    from depthvault.config import Secrets

    settings = config()
    _say(str(run(settings.layout, settings, Secrets(), unit["exchange"], _period(unit))))
    return unit


def verify_store(unit: Unit) -> Unit:
    """Read every object back and compare its hash. Raises StoreError when one differs."""
    from depthvault.archive.upload import verify_store as run

    from depthvault.config import Secrets

    settings = config()
    _say(str(run(settings.layout, settings, Secrets(), unit["exchange"], _period(unit))))
    return unit


def publish(unit: Unit) -> str:
    """Append the manifest: from now on the period is in the archive."""
    from depthvault.archive.publish import publish as run

    from depthvault.config import Secrets

    settings = config()
    line = str(run(settings.layout, settings, Secrets(), unit["exchange"], _period(unit)))
    _say(line)
    return line


def cleanup() -> str:
    """Delete local files that are old enough and that the store has proved to hold."""
    from depthvault.archive.cleanup import cleanup as run

    from depthvault.config import Secrets

    settings = config()
    line = str(run(settings.layout, settings, Secrets()))
    _say(line)
    return line


def _period(unit: Unit) -> Period:
    from depthvault.period import Period

    return Period.parse(unit["period"], config().archive.period)


def _name(unit: Unit) -> str:
    return f"{unit['exchange']} {unit['period']}"


def _say(line: str) -> None:
    print(line)
