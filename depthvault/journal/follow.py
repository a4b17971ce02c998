"""Follows a writer's journals as they grow, a few milliseconds behind, and on from file to file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from depthvault.clock import ns_from_datetime
from depthvault.journal.locks import is_locked
from depthvault.journal.reader import Batch, Damage, FileSource, scan, stop_reason_of, tail
from depthvault.layout import Layout

POLL_INTERVAL = 0.002
"""Seconds between two looks at a quiet journal: a look is one read at its end, about a microsecond."""

_LOOK_AROUND = 0.25  # seconds between looks for new files and for writers that are gone


class _Cursor:
    """How far one file has been read."""

    def __init__(self, path: Path, *, at_end: bool = False, offset: int = 0) -> None:
        self.path = path
        self.stop: str | None = None
        """Why the writer stopped: the stop row's reason, `crash` when it is gone without one; None while it lives."""
        self._source = FileSource(path)
        self._offset = tail(self._source)[1] if at_end else offset
        self._last_sequence: int | None = None
        self._bad_until = 0

    def advance(self, *, look: bool = False, final: bool = False) -> Iterator[Batch | Damage]:
        """What has been written since. A bad tail is a write under way, until good records follow it or `final`.

        look: read a bad tail again although the file has not grown (a full disk makes the writer write it anew).
        """
        seen = self._offset if look or final else max(self._offset, self._bad_until)
        if not self._source.pread(1, seen):
            return
        for part in scan(self._source, self.path, offset=self._offset, last_sequence=self._last_sequence):
            if isinstance(part, Damage) and part.next_sequence is None and not final:
                self._bad_until = part.end
                return
            self._offset = part.end
            if isinstance(part, Batch):
                self._last_sequence = part.last_sequence
                self.stop = stop_reason_of(part)
            yield part

    def finish_if_abandoned(self) -> Iterator[Batch | Damage]:
        """The rest of a file whose writer is gone without a stop row."""
        if self.stop is None and not is_locked(self.path):
            yield from self.advance(final=True)  # what came between the last look and the end of the lock
            self.stop = self.stop or "crash"

    def close(self) -> None:
        self._source.close()


class Follower:
    """Reads what a writer has written since the last `poll`. Not thread safe; `close` it.

    since_ns: begin with the file that holds this wall time (0: with the oldest one); None: with what comes from now on.
    positions: begin there instead: for each file that is known the record to go on with, None for one that is done.
    Files side by side (REST fetchers) are followed all at once; those of a collector one after the other.
    """

    def __init__(
        self,
        layout: Layout,
        exchange: str,
        writer: str,
        *,
        since_ns: int | None = None,
        positions: Mapping[Path, int | None] | None = None,
    ) -> None:
        self._layout = layout
        self._exchange = exchange
        self._writer = writer
        self._cursors: list[_Cursor] = []
        self._looked = 0.0
        self.last_stop: str | None = None
        """Why the last file that ended did so (`crash` when its writer is gone without a word)."""
        self.behind = False
        """Whether the last `poll` left something that was there."""
        if positions is not None:
            self._cursors = [_Cursor(path, offset=at) for path, at in positions.items() if at is not None]
            self._seen = set(positions)
            return
        paths = layout.journal_files(exchange, writer)
        if since_ns is None:
            begun = paths
            self._cursors = [_Cursor(path, at_end=True) for path in paths if is_locked(path)]
        else:
            later = [path for path in paths if ns_from_datetime(Layout.journal_start(path)) > since_ns]
            begun = paths[: max(len(paths) - len(later) - 1, 0)]
        self._seen = set(begun)

    @property
    def ended(self) -> bool:
        """Whether nothing is written now, and the last file did not end for a rotation."""
        return not self._cursors and self.last_stop is not None and self.last_stop != "rotate"

    @property
    def files(self) -> list[Path]:
        """The files whose end has not been seen."""
        return [cursor.path for cursor in self._cursors]

    def poll(self, limit: int | None = None) -> list[Batch | Damage]:
        """What is new, in the order written; empty when nothing is. limit: about so many rows at most; see `behind`."""
        parts: list[Batch | Damage] = []
        self.behind = self._advance(parts, limit=limit)
        if self.behind:
            return parts
        now = time.monotonic()
        if not self._cursors or now - self._looked >= _LOOK_AROUND:
            self._looked = now
            new = [path for path in self._layout.journal_files(self._exchange, self._writer) if path not in self._seen]
            # The old files again, for rows that they got before the new ones were begun.
            self._advance(parts, look=True)
            for cursor in self._cursors:
                parts.extend(cursor.finish_if_abandoned())
            self._seen.update(new)
            self._cursors += [_Cursor(path) for path in new]
            self.behind = self._advance(parts, limit=limit)
        return parts

    def _advance(self, parts: list[Batch | Damage], *, look: bool = False, limit: int | None = None) -> bool:
        """Read on. Returns whether `limit` rows were read before the end."""
        rows = 0
        for cursor in self._cursors:
            for part in cursor.advance(look=look):
                parts.append(part)
                rows += part.rows.num_rows if isinstance(part, Batch) else 0
                if limit is not None and rows >= limit:
                    return True
        for cursor in self._cursors:
            if cursor.stop is not None:
                self.last_stop = cursor.stop
                cursor.close()
        self._cursors = [cursor for cursor in self._cursors if cursor.stop is None]
        return False

    def close(self) -> None:
        """Let the files go."""
        for cursor in self._cursors:
            cursor.close()
        self._cursors = []


def follow(
    layout: Layout,
    exchange: str,
    writer: str,
    *,
    since_ns: int | None = None,
    until_stopped: bool = False,
    poll_interval: float = POLL_INTERVAL,
) -> Iterator[Batch | Damage]:
    """Yield what the writer writes, blocking between.

    until_stopped: end when the writer stopped for another reason than a rotation; else wait for its next start.
    """
    follower = Follower(layout, exchange, writer, since_ns=since_ns)
    try:
        while True:
            parts = follower.poll()
            yield from parts
            if parts:
                continue
            if until_stopped and follower.ended:
                return
            time.sleep(poll_interval)
    finally:
        follower.close()


async def follow_async(
    layout: Layout,
    exchange: str,
    writer: str,
    *,
    since_ns: int | None = None,
    until_stopped: bool = False,
    poll_interval: float = POLL_INTERVAL,
) -> AsyncIterator[Batch | Damage]:
    """`follow` for an event loop: gives way between two polls and after each part."""
    follower = Follower(layout, exchange, writer, since_ns=since_ns)
    try:
        while True:
            parts = follower.poll()
            for part in parts:
                yield part
                await asyncio.sleep(0)
            if parts:
                continue
            if until_stopped and follower.ended:
                return
            await asyncio.sleep(poll_interval)
    finally:
        follower.close()
