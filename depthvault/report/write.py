"""Writing the report of a day under `reports/YYYY-MM-DD/`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from depthvault.archive import log
from depthvault.archive.manifest import ArchiveState
from depthvault.config import Config
from depthvault.durable import write_atomic
from depthvault.report.day import Day, day_of
from depthvault.report.disk import measure
from depthvault.report.html import html_report
from depthvault.report.text import text_report, title

_PATIENCE = timedelta(minutes=15)
"""How long after a period is sealed its archive is waited for before it counts as missing."""


@dataclass(frozen=True, slots=True)
class Report:
    """A written report: `title` and `text` for chat, `html` for mail and browsers, `folder` where both lie."""

    day: Day
    title: str
    text: str
    html: str
    folder: Path


def facts_of(config: Config, state: ArchiveState, day: date, now: datetime, *, store: bool) -> Day:
    """The facts of `day` as `state` has them at `now`. store: whether an object store is configured."""
    layout = config.layout
    return day_of(
        layout,
        state,
        day,
        now,
        measure(layout, now),
        enabled=config.exchanges.enabled().keys(),
        store=store,
        grace=min(_PATIENCE, 3 * config.archive.period) + config.archive.seal_grace,
    )


def write_report(config: Config, day: date, now: datetime, *, store: bool) -> Report:
    """Write `report.html` and `report.txt` of `day` as it stands at `now`; a second run replaces them.

    store: whether an object store is configured.
    """
    facts = facts_of(config, log.load(config.layout), day, now, store=store)
    folder = config.layout.reports / day.isoformat()
    report = Report(facts, title(facts), text_report(facts), html_report(facts), folder)
    write_atomic(folder / "report.html", report.html.encode())
    write_atomic(folder / "report.txt", f"{report.title}\n{report.text}\n".encode())
    return report
