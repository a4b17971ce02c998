"""When DAGs run, and what they have in common. Imported by every DAG file, so it imports next to nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from depthvault.period import HOUR

START = datetime(2026, 1, 1, tzinfo=UTC)
"""Before any run; nothing is caught up."""

ARCHIVE = "depthvault://archive"
"""The asset that `archive_hour` updates and `cleanup_local` waits for."""
ARCHIVED = "depthvault://archive/hours"
"""The asset whose partitions are the archived periods, one a venue and period: what is done, for the eye alone."""


def probe_schedule(cadence: timedelta) -> str | timedelta:
    """How often books are probed: away from the full hour, when everybody asks, where the cadence is one."""
    return "17 * * * *" if cadence == HOUR else cadence


def archive_schedule(period: timedelta) -> str | timedelta:
    """How often to look for periods that are ready.

    An hour is sealed a minute after its end, so its first chance is two minutes past; a sealer or store that was
    late is met ten minutes later. Looking costs a directory listing. Short periods (demo, tests) are looked for
    several times each.
    """
    if period >= HOUR:
        return "2-59/10 * * * *"
    return max(timedelta(seconds=20), period / 3)


def defaults(*, retries: int = 3, timeout: timedelta = timedelta(minutes=30), **more: Any) -> dict[str, Any]:
    """`default_args` of our DAGs: retried with growing pauses, never hanging, and heard when they fail for good."""
    from plugins.notifiers import AlertNotifier

    return {
        "owner": "depthvault",
        "retries": retries,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timeout,
        "on_failure_callback": AlertNotifier(),
        **more,
    }
