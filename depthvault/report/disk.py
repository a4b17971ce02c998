"""How much the data takes, how fast it grows, and how many days are left."""

from __future__ import annotations

import shutil
import stat
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from depthvault.layout import Layout

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes. `a_day`: what was written within the last day, scaled up when recording began later than that."""

    free: int
    total: int
    journal: int
    live: int
    archive: int
    a_day: int

    @property
    def days_left(self) -> float | None:
        """Days until the disk is full when nothing is deleted; None when nothing grows."""
        return self.free / self.a_day if self.a_day else None


def measure(layout: Layout, now: datetime) -> Disk:
    """Look at the folders of `layout`."""
    usage = shutil.disk_usage(layout.root if layout.root.exists() else Path.cwd())
    fresh, oldest = 0, now.timestamp()
    since = (now - DAY).timestamp()
    sizes = {}
    for folder in (layout.journals, layout.live, layout.archive):
        size = 0
        for path in folder.rglob("*"):
            try:
                state = path.stat()
            except FileNotFoundError:  # deleted, or renamed into place, while we look
                continue
            if not stat.S_ISREG(state.st_mode):
                continue
            size += state.st_size
            if state.st_mtime >= since:
                fresh += state.st_size
            oldest = min(oldest, state.st_mtime)
        sizes[folder] = size
    # With less than a day on record the rate is scaled up; below a minute it would be a guess.
    span = min(DAY.total_seconds(), max(60.0, now.timestamp() - oldest))
    return Disk(
        usage.free,
        usage.total,
        sizes[layout.journals],
        sizes[layout.live],
        sizes[layout.archive],
        round(fresh * DAY.total_seconds() / span),
    )
