"""Uploads in parts that nobody will finish: a process that is killed within one leaves its parts in the store, where
they cost and no listing shows them. Those of ours that have been still for a day are aborted by `cleanup`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from depthvault.archive.raw import ACCOUNTS, PREFIX
from depthvault.archive.store import Store

STILL = timedelta(days=1)
"""How long an upload may be without a new part before it counts as abandoned."""

_OURS = ("day/", "hour/", "import/", "quality/", PREFIX, ACCOUNTS)
"""Where we put files; whatever else is in a bucket is somebody else's."""


def abort_abandoned(store: Store, now: datetime, *, dry_run: bool = False) -> list[str]:
    """Abort our abandoned uploads; returns their keys. Raises StoreError.

    An upload under way is never touched: each of its parts is a sign of life.
    """
    found = []
    for folder in _OURS:
        for upload in list(store.unfinished(folder)):
            if now - upload.begun < STILL or now - store.last_part(upload) < STILL:
                continue
            found.append(upload.key)
            if not dry_run:
                store.abort(upload)
    return found
