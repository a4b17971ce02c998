"""The journal's writer: appending costs a few list appends; a flush makes one record of all that has gathered.

`append`, `append_rest`, `rotate_if_due` and `close` belong to one thread (a collector's event loop). `flush` and
`fsync` may be called from another one at the same time.

A full disk, or one below `journal.min_free`, fails the flush loudly and loses nothing: rows stay in memory and are
written when there is room again. Only when they exceed `journal.memory_limit` are further frames and answers refused;
how many, and from when to when, is then the first row (`event`, `gap`, reason `memory_limit`) after the buffered ones.
"""

from __future__ import annotations

import errno
import os
import platform
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pyarrow as pa

from depthvault.clock import Clock, SystemClock, datetime_from_ns
from depthvault.config import JournalConfig
from depthvault.durable import fsync_directory, make_directories
from depthvault.errors import JournalError
from depthvault.journal.locks import create_locked, is_locked, lock_writer
from depthvault.journal.reader import stop_reason
from depthvault.journal.record import SCHEMA, RecordEncoder
from depthvault.journal.rows import DROPPED, START, STOP, Kind, json_body
from depthvault.layout import Layout
from depthvault.schemas import SCHEMA_VERSION

_ROW_BYTES = 64
"""What a row costs in memory beside its body, roughly; counted so that empty bodies cannot fill it either."""

_DROPPABLE = frozenset((Kind.FRAME, Kind.REST, Kind.CATALOGUE))
"""Rows that may be refused when memory is full; the rare others say what happened and are always kept."""

_FREE_CHECK_NS = 1_000_000_000
_RETRY_NS = 250_000_000


def software_version() -> str:
    """The version of this package."""
    try:
        return version("depthvault")
    except PackageNotFoundError:
        return "unknown"


class JournalWriter:
    """Writes the journals of one writer, one file a process start and archive period.

    exclusive: be the only process that writes as `writer` (JournalLockedError otherwise). Short-lived REST fetchers
    pass False: their files lie side by side.
    """

    def __init__(
        self,
        layout: Layout,
        exchange: str,
        writer: str,
        *,
        config: JournalConfig | None = None,
        clock: Clock | None = None,
        exclusive: bool = True,
    ) -> None:
        self.exchange = exchange
        self.writer = writer
        self.config = config or JournalConfig()
        self.failure: JournalError | None = None
        """Why the last flush failed; None when it did not."""
        self._layout = layout
        self._clock = clock or SystemClock()
        self._wall = self._clock.wall_ns
        self._monotonic = self._clock.monotonic_ns
        self._encoder = RecordEncoder(self.config.compression_level)
        self._lock = threading.RLock()
        self._closed = False
        self._catalogue: tuple[str, bytes, int, int] | None = None

        # Buffered rows. The lists are never replaced: the appending thread adds at the end (bodies last), the flushing
        # one takes from the front, and each of these is one atomic list operation.
        self._walls: list[int] = []
        self._monotonics: list[int] = []
        self._connections: list[int] = []
        self._kinds: list[str] = []
        self._streams: list[str] = []
        self._bodies: list[bytes] = []
        self._appended_bytes = 0  # counted by the appending thread
        self._flushed_bytes = 0  # counted by the flushing one
        self._limit = self.config.batch_bytes  # appended bytes at which append looks up
        self._dropped: Counter[str] = Counter()
        self._dropped_connections: set[int] = set()
        self._dropped_from_ns = 0
        self._dropped_until_ns = 0
        self._free_checked_ns: int | None = None
        self._failed_ns = 0

        # The file: see _open.
        self.path: Path
        self._descriptor = -1
        self._end = 0  # of the last whole record
        self._synced_end = 0
        self._written_rows = 0
        self._next_sequence: int = 0
        self._period_end_ns = 0
        self._deadline_ns = 0

        folder = layout.journals / exchange / writer
        self._writer_lock: int | None = None
        try:
            make_directories(folder)
            self._writer_lock = lock_writer(folder) if exclusive else None
            self._open(self._previous(folder))
        except OSError as error:
            self._release()
            raise JournalError(f"{folder}: {error.strerror}") from error
        except JournalError:
            self._release()
            raise

    # Appending

    def append(
        self,
        kind: str,
        connection: int,
        stream: str,
        body: bytes,
        wall_ns: int | None = None,
        monotonic_ns: int | None = None,
    ) -> int:
        """Buffer one row and return its sequence number in the file; -1 when memory is full and it was refused.

        Never blocks on the disk, but for the flush that `journal.batch_bytes` asks for; never raises for the disk
        either: see `failure`, and what `flush` raises.
        """
        if self._appended_bytes >= self._limit and not self._make_room(kind, connection, wall_ns):
            return -1
        self._walls.append(self._wall() if wall_ns is None else wall_ns)
        self._monotonics.append(self._monotonic() if monotonic_ns is None else monotonic_ns)
        self._connections.append(connection)
        self._kinds.append(kind)
        self._streams.append(stream)
        self._appended_bytes += len(body) + _ROW_BYTES
        sequence = self._next_sequence
        self._next_sequence = sequence + 1
        self._bodies.append(body)  # last: now the row counts
        return sequence

    def append_rest(
        self,
        line: str,
        body: bytes,
        sent_wall_ns: int,
        received_wall_ns: int | None = None,
        *,
        request: int = 0,
        source: str | None = None,
        kind: str = Kind.REST,
    ) -> int:
        """Buffer a REST answer with its request: a `sent` row and a `rest` row, always in the same record.

        line: `Request.line`. request: a number of the request within the journal. source: `refill` when the answer
        closes a hole. Returns the answer's sequence number, -1 when it was refused.
        """
        details = json_body(source=source) if source is not None else b""
        return self._append_pair(kind, request, line, body, sent_wall_ns, received_wall_ns, details)

    def set_catalogue(
        self, line: str, body: bytes, sent_wall_ns: int, received_wall_ns: int | None = None, *, request: int = 0
    ) -> int:
        """Buffer the answer that lists the markets, and repeat it at the start of each later file."""
        received_ns = self._wall() if received_wall_ns is None else received_wall_ns
        self._catalogue = (line, body, sent_wall_ns, received_ns)
        return self._append_pair(Kind.CATALOGUE, request, line, body, sent_wall_ns, received_ns, b"")

    def _append_pair(
        self,
        kind: str,
        request: int,
        line: str,
        body: bytes,
        sent_ns: int,
        received_ns: int | None,
        details: bytes,
    ) -> int:
        if self._appended_bytes >= self._limit and not self._make_room(kind, request, received_ns):
            return -1
        monotonic_ns = self._monotonic()
        self._walls.extend((sent_ns, self._wall() if received_ns is None else received_ns))
        self._monotonics.extend((monotonic_ns, monotonic_ns))
        self._connections.extend((request, request))
        self._kinds.extend((Kind.SENT.value, str(kind)))
        self._streams.extend((line, line))
        self._appended_bytes += len(body) + 2 * _ROW_BYTES
        self._next_sequence += 2
        self._bodies.extend((details, body))
        return self._next_sequence - 1

    def _make_room(self, kind: str, connection: int, wall_ns: int | None) -> bool:
        """Flush what has gathered; whether the row may be buffered."""
        if self._closed:
            raise JournalError(f"{self.path}: the journal is closed")
        full = self.buffered_bytes >= self.config.memory_limit
        # Another thread that is flushing right now is waited for only when memory is full. A disk that refused is
        # not asked again at each append.
        if self.failure is None or (full and self._monotonic() - self._failed_ns >= _RETRY_NS):
            if self._lock.acquire(blocking=full):
                try:
                    self._write_buffered(check_free=True)
                except JournalError:
                    pass  # kept in self.failure; the next explicit flush raises it
                finally:
                    self._lock.release()
            full = self.buffered_bytes >= self.config.memory_limit
        if full and kind in _DROPPABLE:
            now = self._wall() if wall_ns is None else wall_ns
            if not self._dropped:
                self._dropped_from_ns = now
            self._dropped_until_ns = now
            self._dropped[str(kind)] += 1
            self._dropped_connections.add(connection)
            return False
        if self._dropped and not full:
            self._declare_dropped()
        return True

    def _declare_dropped(self) -> None:
        body = json_body(
            reason="memory_limit",
            rows=self._dropped.total(),
            kinds=dict(self._dropped),
            connections=sorted(self._dropped_connections),
            from_ns=self._dropped_from_ns,
            until_ns=self._dropped_until_ns,
        )
        self._dropped.clear()
        self._dropped_connections.clear()
        self._limit = self._flushed_bytes + self.config.batch_bytes
        self.append(Kind.EVENT.value, 0, DROPPED, body)

    @property
    def buffered_rows(self) -> int:
        """Rows that are not in the file yet."""
        return len(self._bodies)

    @property
    def buffered_bytes(self) -> int:
        """What they take, roughly."""
        return self._appended_bytes - self._flushed_bytes

    @property
    def dropped_rows(self) -> int:
        """Rows refused since memory was full, not declared yet."""
        return self._dropped.total()

    # Writing

    def flush(self) -> int:
        """Write all buffered rows to the file (a later SIGKILL cannot take them); returns how many.

        Raises JournalError naming the path when the disk refuses or is below `journal.min_free`: the rows stay
        buffered and the file ends at its last whole record.
        """
        with self._lock:
            if self._closed:
                return 0
            return self._write_buffered(check_free=True)

    def fsync(self) -> None:
        """Make all flushed rows durable (a later power loss cannot take them). Raises JournalError."""
        with self._lock:
            if self._closed or self._synced_end == self._end:
                return
            end = self._end
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:
                raise self._fail(f"cannot make rows durable: {error.strerror}") from error
            self._synced_end = end

    def _write_buffered(self, *, check_free: bool) -> int:
        if check_free and self._bodies:
            self._check_free()
        written = 0
        while count := self._chunk():
            self._write(count)
            written += count
        self.failure = None
        self._limit = 0 if self._dropped else self._flushed_bytes + self.config.batch_bytes
        return written

    def _chunk(self) -> int:
        """How many of the first buffered rows the next record takes: about `batch_bytes`, pairs never parted."""
        total = len(self._bodies)
        if self.buffered_bytes <= 2 * self.config.batch_bytes:
            return total
        size = 0
        for count in range(total):
            size += len(self._bodies[count]) + _ROW_BYTES
            if size >= self.config.batch_bytes and self._kinds[count] != Kind.SENT:
                return count + 1
        return total

    def _write(self, count: int) -> None:
        bodies = self._bodies[:count]
        self._put(
            self._written_rows,
            self._walls[:count],
            self._monotonics[:count],
            self._connections[:count],
            self._kinds[:count],
            self._streams[:count],
            bodies,
        )
        for column in (self._walls, self._monotonics, self._connections, self._kinds, self._streams, self._bodies):
            del column[:count]
        self._flushed_bytes += sum(map(len, bodies)) + count * _ROW_BYTES

    def _put(
        self,
        first_sequence: int,
        walls: Sequence[int],
        monotonics: Sequence[int],
        connections: Sequence[int],
        kinds: Sequence[str],
        streams: Sequence[str],
        bodies: Sequence[bytes],
    ) -> None:
        """Write one record behind the last whole one; when that fails, cut back to it and raise JournalError."""
        count = len(bodies)
        # One join is half the cost of Arrow's own conversion of a list of bytes (measured).
        offsets = np.zeros(count + 1, np.int32)
        np.cumsum(np.fromiter(map(len, bodies), np.int32, count), out=offsets[1:])
        joined = pa.Array.from_buffers(
            pa.binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(bodies))], null_count=0
        )
        columns = [
            pa.array(np.arange(first_sequence, first_sequence + count, dtype=np.int64)),
            pa.array(np.fromiter(walls, np.int64, count)),
            pa.array(np.fromiter(monotonics, np.int64, count)),
            pa.array(np.fromiter(connections, np.int64, count)),
            pa.array(kinds, pa.utf8()),
            pa.array(streams, pa.utf8()),
            joined,
        ]
        header, payload = self._encoder.encode(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
        parts = [memoryview(header), memoryview(payload)]
        position = self._end
        try:
            while parts:
                done = os.pwritev(self._descriptor, parts, position)
                position += done
                while parts and done >= len(parts[0]):
                    done -= len(parts.pop(0))
                if parts:
                    parts[0] = parts[0][done:]
        except OSError as error:
            self._cut_back()
            what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
            raise self._fail(f"{what}; {len(self._bodies)} rows wait in memory") from error
        self._end = position
        self._written_rows = first_sequence + count

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError:
            pass  # the next record is written over the torn one all the same, and its checksum tells them apart

    def _check_free(self) -> None:
        now = self._monotonic()
        checked = self._free_checked_ns
        if self.failure is None and checked is not None and now - checked < _FREE_CHECK_NS:
            return
        self._free_checked_ns = now
        status = os.fstatvfs(self._descriptor)
        free = status.f_bavail * status.f_frsize
        if free < self.config.min_free:
            raise self._fail(
                f"{free} bytes free, below journal.min_free = {self.config.min_free}; "
                f"{len(self._bodies)} rows wait in memory"
            )

    def _fail(self, what: str) -> JournalError:
        self.failure = JournalError(f"{self.path}: {what}")
        self._failed_ns = self._monotonic()
        return self.failure

    # Files

    def rotate_if_due(self) -> bool:
        """Go on in a new file when the archive period of this one is over by the wall clock; whether it did.

        A wall clock that steps back keeps the file; if it stays behind, the file ends after two periods of monotonic
        time. The caller then appends an `opened` row (`rows.opened_body(..., continues=True)`) for each live
        connection. Raises JournalError, and stays in the old file, when the disk refuses.
        """
        with self._lock:
            if self._closed or (self._wall() < self._period_end_ns and self._monotonic() < self._deadline_ns):
                return False
            self._declare_if_dropped()
            self._write_buffered(check_free=False)
            old, path = self._descriptor, self.path
            rows, end = self._written_rows, self._end
            self._write_stop("rotate")
            try:
                os.fsync(old)
                self._open({"journal": path.name, "reason": "rotate"})
            except OSError as error:
                # The stop row is taken back: the old file goes on.
                self._written_rows, self._end = rows, end
                self._cut_back()
                raise self._fail(f"cannot rotate: {error.strerror}") from error
            os.close(old)
            self._repeat_catalogue()
            self._write_buffered(check_free=False)
            return True

    def close(self, reason: str = "stop") -> None:
        """Write everything, the stop row with `reason`, make it durable, and let the locks go. Idempotent.

        Raises JournalError when the disk refuses; the locks are released all the same.
        """
        with self._lock:
            if self._closed:
                return
            try:
                self._declare_if_dropped()
                self._write_buffered(check_free=False)
                self._write_stop(reason)
                os.fsync(self._descriptor)
            except OSError as error:
                raise JournalError(f"{self.path}: cannot make rows durable: {error.strerror}") from error
            finally:
                self._closed = True
                self._limit = -1  # the next append looks up, and raises
                os.close(self._descriptor)
                self._release()

    def _declare_if_dropped(self) -> None:
        if self._dropped:
            self._write_buffered(check_free=False)
            self._declare_dropped()

    def _open(self, previous: dict[str, str] | None) -> None:
        """Begin a new file with its start row."""
        now = self._wall()
        stamp = now
        while True:
            path = self._layout.journal(self.exchange, self.writer, stamp)
            try:
                descriptor = create_locked(path)
                break
            except FileExistsError:  # begun within the same microsecond, or before a clock step back
                stamp += 1000
        try:
            fsync_directory(path.parent)
        except OSError:
            path.unlink()
            os.close(descriptor)
            raise
        self.path = path
        self._descriptor = descriptor
        self._end = 0
        self._synced_end = 0
        self._written_rows = 0
        self._next_sequence = 0
        period = self._layout.period_of(datetime_from_ns(now))
        self._period_end_ns = period.end_ns
        self._deadline_ns = self._monotonic() + 2 * _nanoseconds(period.length)
        self.append(
            Kind.EVENT.value,
            0,
            START,
            json_body(
                exchange=self.exchange,
                writer=self.writer,
                software=software_version(),
                schema_version=SCHEMA_VERSION,
                pid=os.getpid(),
                host=platform.node(),
                previous=previous,
            ),
            now,
        )

    def _previous(self, folder: Path) -> dict[str, str] | None:
        """How the writer's journal before this process ended: by its stop row, `crash`, or `running` beside us."""
        names = self._layout.journal_files(self.exchange, self.writer)
        if not names:
            return None
        last = names[-1]
        reason = stop_reason(last) or ("running" if is_locked(last) else "crash")
        return {"journal": last.name, "reason": reason}

    def _repeat_catalogue(self) -> None:
        if self._catalogue is None:
            return
        line, body, sent_ns, received_ns = self._catalogue
        # Stamped now, not then: the file's rows belong to the file's time. What was is in the `sent` row's body.
        now = self._wall()
        details = json_body(repeated=True, sent_ns=sent_ns, received_ns=received_ns)
        self._append_pair(Kind.CATALOGUE, 0, line, body, now, now, details)

    def _write_stop(self, reason: str) -> None:
        body = json_body(reason=reason, rows=self._written_rows + 1)
        self._put(self._written_rows, [self._wall()], [self._monotonic()], [0], [Kind.EVENT.value], [STOP], [body])

    def _release(self) -> None:
        if self._writer_lock is not None:
            os.close(self._writer_lock)
            self._writer_lock = None

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close("stop" if kind is None else "error")


def _nanoseconds(length: timedelta) -> int:
    return round(length.total_seconds() * 1e9)
