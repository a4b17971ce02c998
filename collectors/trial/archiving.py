"""What was recorded, through every step of the archive in one process: what Airflow does in one task each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish
from depthvault.archive.verify import verify
from depthvault.config import Config, Secrets
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.seal import Sealer, recorded_exchanges
from depthvault.seal.sealing import QUIET

Validate = Callable[[Layout, Config, str, Period], object]
"""`expectations.validate`: the collectors' room does not import that room, the command line does."""


@dataclass(slots=True)
class Archived:
    """How many receipts and entries were made, how many periods the checks called degraded, what `verify` found."""

    receipts: int
    units: int
    entries: int
    degraded: int
    findings: list[str]
    files: int
    bytes: int


def archive(config: Config, validate: Validate, tell: Callable[[str], None] = lambda text: None) -> Archived:
    """Seal all, also the period that the collectors were stopped in; compact, validate, publish, verify deeply."""
    layout = config.layout
    exchanges = recorded_exchanges(config)
    sealer = Sealer(layout, config.archive.seal_grace)
    # Nobody records any more: what the running period holds is all that it will ever hold.
    over = datetime.now(UTC) + config.archive.period + config.archive.seal_grace + QUIET
    receipts = 0
    for exchange, writer, period in sealer.due(exchanges, over):
        tell(f"sealing {exchange} {writer} {period}")
        receipts += sealer.seal(exchanges[exchange], writer, period) is not None
    done = Archived(receipts, 0, 0, 0, [], 0, 0)
    secrets = Secrets(_env_file=None, r2_bucket_name=None)  # a trial never touches a store
    while units := ready_units(layout, config):
        unit = units[0]
        tell(f"archiving {unit}")
        compact(layout, config, unit.exchange, unit.period)
        validate(layout, config, unit.exchange, unit.period)
        entries = publish(layout, config, secrets, unit).entries
        done.units += 1
        done.entries += len(entries)
        done.degraded += sum(entry.condition == "degraded" for entry in entries)
    tell("verifying")
    return verified(config, done)


def verified(config: Config, done: Archived) -> Archived:
    """Add what `verify --deep` says."""
    result = verify(config.layout, deep=True)
    done.findings = [str(finding) for finding in result.findings]
    done.files, done.bytes = result.checked, result.bytes
    return done
