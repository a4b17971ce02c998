"""The journal's writer: appending costs one list operation; a flush makes one record of all that has gathered.

`append`, `append_rest`, `set_catalogue`, `rotate_if_due` and `close` belong to one thread (a collector's event loop).
`flush` and `fsync` may be called from another one at the same time.

A full disk, or one below `journal.min_free`, fails the flush loudly and loses nothing: rows stay in memory and are
written when there is room again. Only when they exceed `journal.memory_limit` are further frames and answers refused;
how many, and from when to when, is then declared by an `event` row `gap` (reason `memory_limit`) behind the buffered.
"""

from __future__ import annotations

import os
import platform
import threading
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from depthvault.clock import Clock, SystemClock, datetime_from_ns
from depthvault.config import JournalConfig
from depthvault.durable import make_directories
from depthvault.errors import JournalError
from depthvault.journal.columns import BODY, KIND, WIDTH
from depthvault.journal.file import JournalFile
from depthvault.journal.locks import is_locked, lock_writer
from depthvault.journal.reader import stop_reason
from depthvault.journal.record import RecordEncoder
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
    pass False: their files lie side by side. Raises JournalError when no journal can be begun.
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
        clock = clock or SystemClock()
        self._wall = clock.wall_ns
        self._monotonic = clock.monotonic_ns
        self._encoder = RecordEncoder(self.config.compression_level)
        self._lock = threading.RLock()
        self._closed = False
        self._catalogue: tuple[str, bytes, int, int] | None = None

        # Buffered rows, WIDTH values each. The list is never replaced: the appending thread adds whole rows at the end,
        # the flushing one takes them from the front, and each of these is one atomic list operation.
        self._buffer: list[int | str | bytes] = []
        self._appended_bytes = 0  # counted by the appending thread
        self._flushed_bytes = 0  # counted by the flushing one
        self._limit = self.config.batch_bytes  # appended bytes at which append looks up
        self._dropped: Counter[str] = Counter()
        self._dropped_connections: set[int] = set()
        self._dropped_from_ns = 0
        self._dropped_until_ns = 0
        self._free_checked_ns: int | None = None
        self._failed_ns = 0
        self._next_sequence = 0
        self._period_end_ns = 0
        self._deadline_ns = 0

        folder = layout.journals / exchange / writer
        writer_lock: int | None = None
        try:
            make_directories(folder)
            writer_lock = lock_writer(folder) if exclusive else None
            self._file = self._begin(self._previous())
        except BaseException as error:
            if writer_lock is not None:
                os.close(writer_lock)
            if isinstance(error, OSError):
                raise JournalError(f"{folder}: {error.strerror}") from error
            raise
        self._writer_lock = writer_lock

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

        Never waits for the disk, but for the flush that `journal.batch_bytes` asks for; never raises for the disk
        either: see `failure`, and what `flush` raises. Raises JournalError when the journal is closed.
        """
        if self._appended_bytes >= self._limit and not self._make_room(kind, connection, wall_ns):
            return -1
        self._buffer += (
            self._wall() if wall_ns is None else wall_ns,
            self._monotonic() if monotonic_ns is None else monotonic_ns,
            connection,
            kind,
            stream,
            body,
        )
        self._appended_bytes += len(body) + _ROW_BYTES
        sequence = self._next_sequence
        self._next_sequence = sequence + 1
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
    ) -> int:
        """Buffer a REST answer with its request: a `sent` row and a `rest` row, always in the same record.

        line: `Request.line`. request: a number of the request within the journal. source: `refill` when the answer
        closes a hole. Returns the answer's sequence number, -1 when it was refused.
        """
        details = json_body(source=source) if source is not None else b""
        return self._append_pair(Kind.REST.value, request, line, body, sent_wall_ns, received_wall_ns, details)

    def set_catalogue(
        self, line: str, body: bytes, sent_wall_ns: int, received_wall_ns: int | None = None, *, request: int = 0
    ) -> int:
        """Buffer the answer that lists the markets, and repeat it at the start of each later file."""
        received_ns = self._wall() if received_wall_ns is None else received_wall_ns
        self._catalogue = (line, body, sent_wall_ns, received_ns)
        return self._append_pair(Kind.CATALOGUE.value, request, line, body, sent_wall_ns, received_ns, b"")

    def _append_pair(
        self, kind: str, request: int, line: str, body: bytes, sent_ns: int, received_ns: int | None, details: bytes
    ) -> int:
        if self._appended_bytes >= self._limit and not self._make_room(kind, request, received_ns):
            return -1
        now = self._monotonic()
        wall_ns = self._wall() if received_ns is None else received_ns
        sent = (sent_ns, now, request, Kind.SENT.value, line, details)
        self._buffer += (*sent, wall_ns, now, request, kind, line, body)
        self._appended_bytes += len(details) + len(body) + 2 * _ROW_BYTES
        self._next_sequence += 2
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
            self._dropped[kind] += 1
            self._dropped_connections.add(connection)
            return False
        if not full:
            self._declare_dropped()
        return True

    def _declare_dropped(self) -> None:
        if not self._dropped:
            return
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
    def path(self) -> Path:
        """The file that is written now."""
        return self._file.path

    @property
    def buffered_rows(self) -> int:
        """Rows that are not in the file yet."""
        return len(self._buffer) // WIDTH

    @property
    def buffered_bytes(self) -> int:
        """What they take, roughly."""
        return self._appended_bytes - self._flushed_bytes

    @property
    def dropped_rows(self) -> int:
        """Rows refused since memory was full, not declared yet."""
        return self._dropped.total()

    @property
    def written_bytes(self) -> int:
        """Bytes in the file that is written now."""
        return self._file.end

    # Writing

    def flush(self) -> int:
        """Write all buffered rows to the file (a later SIGKILL cannot take them); returns how many.

        Raises JournalError naming the path when the disk refuses or is below `journal.min_free`: the rows stay
        buffered and the file ends at its last whole record.
        """
        with self._lock:
            return 0 if self._closed else self._write_buffered(check_free=True)

    def fsync(self) -> None:
        """Make all flushed rows durable (a later power loss cannot take them). Raises JournalError."""
        with self._lock:
            if self._closed:
                return
            try:
                self._file.sync()
            except JournalError as error:
                self._note_failure(error)
                # The kernel may forget which pages failed, so this file is not trusted with more than need be.
                self._deadline_ns = 0
                raise

    def _write_buffered(self, *, check_free: bool) -> int:
        written = 0
        try:
            if check_free and self._buffer:
                self._check_free()
            while count := self._chunk():
                values = self._buffer[: count * WIDTH]
                self._file.write(values)
                del self._buffer[: count * WIDTH]
                self._flushed_bytes += sum(map(len, values[BODY::WIDTH])) + count * _ROW_BYTES  # type: ignore[arg-type]
                written += count
        except JournalError as error:
            self._note_failure(error)
            raise
        self.failure = None
        self._limit = 0 if self._dropped else self._flushed_bytes + self.config.batch_bytes
        return written

    def _chunk(self) -> int:
        """How many of the first buffered rows the next record takes: about `batch_bytes`, pairs never parted."""
        total = len(self._buffer) // WIDTH
        if self.buffered_bytes <= 2 * self.config.batch_bytes:
            return total
        size = 0
        for row in range(total):
            size += len(self._buffer[row * WIDTH + BODY]) + _ROW_BYTES  # type: ignore[arg-type]
            if size >= self.config.batch_bytes and self._buffer[row * WIDTH + KIND] != Kind.SENT:
                return row + 1
        return total

    def _check_free(self) -> None:
        now = self._monotonic()
        checked = self._free_checked_ns
        if self.failure is None and checked is not None and now - checked < _FREE_CHECK_NS:
            return
        self._free_checked_ns = now
        free = self._file.free_bytes()
        if free < self.config.min_free:
            raise JournalError(
                f"{self.path}: {free} bytes free, below journal.min_free = {self.config.min_free}; "
                f"{self.buffered_rows} rows wait in memory"
            )

    def _note_failure(self, error: JournalError) -> None:
        self.failure = error
        self._failed_ns = self._monotonic()

    # Files

    def rotate_if_due(self) -> bool:
        """Go on in a new file when the archive period of this one is over by the wall clock; whether it did.

        A wall clock that steps back keeps the file; if it stays behind, the file ends after two periods of monotonic
        time. The caller then appends an `opened` row (`rows.opened_body(..., continues=True)`) for each live
        connection. Raises JournalError, and stays in the old file, when the disk refuses.
        """
        if self._wall() < self._period_end_ns and self._monotonic() < self._deadline_ns:
            return False
        with self._lock:
            if self._closed:
                return False
            old = self._file
            if self._dropped:
                self._write_buffered(check_free=False)
                self._declare_dropped()
            self._write_buffered(check_free=False)
            rows, end = old.rows, old.end
            try:
                self._write_stop("rotate")
                old.sync()
                self._file = self._begin({"journal": old.path.name, "reason": "rotate"})
            except (OSError, JournalError) as error:
                old.take_back(rows, end)  # no stop row after all: the old file goes on
                failure = JournalError(f"{old.path}: cannot go on in a new file: {error}")
                self._note_failure(failure)
                raise failure from error
            old.release()
            if self._catalogue is not None:
                line, body, sent_ns, received_ns = self._catalogue
                # Stamped now, not then: a file's rows belong to the file's time. What was is in the `sent` row's body.
                now = self._wall()
                details = json_body(repeated=True, sent_ns=sent_ns, received_ns=received_ns)
                self._append_pair(Kind.CATALOGUE.value, 0, line, body, now, now, details)
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
                self._write_buffered(check_free=False)
                self._declare_dropped()
                self._write_buffered(check_free=False)
                self._write_stop(reason)
                self._file.sync()
            finally:
                self._closed = True
                self._limit = -1  # the next append looks up, and raises
                self._file.release()
                if self._writer_lock is not None:
                    os.close(self._writer_lock)

    def _begin(self, previous: dict[str, str] | None) -> JournalFile:
        """A new file; its start row is the next to be written."""
        now = self._wall()
        stamp = now
        while True:
            try:
                file = JournalFile(self._layout.journal(self.exchange, self.writer, stamp), self._encoder)
                break
            except FileExistsError:  # begun within the same microsecond, or before a clock step back
                stamp += 1000
        period = self._layout.period_of(datetime_from_ns(now))
        self._period_end_ns = period.end_ns
        self._deadline_ns = self._monotonic() + 2 * round(period.length.total_seconds() * 1e9)
        self._next_sequence = 0
        body = json_body(
            exchange=self.exchange,
            writer=self.writer,
            software=software_version(),
            schema_version=SCHEMA_VERSION,
            pid=os.getpid(),
            host=platform.node(),
            previous=previous,
        )
        self.append(Kind.EVENT.value, 0, START, body, now)
        return file

    def _previous(self) -> dict[str, str] | None:
        """How the writer's journal before this process ended: by its stop row, `crash`, or `running` beside us."""
        paths = self._layout.journal_files(self.exchange, self.writer)
        if not paths:
            return None
        reason = stop_reason(paths[-1]) or ("running" if is_locked(paths[-1]) else "crash")
        return {"journal": paths[-1].name, "reason": reason}

    def _write_stop(self, reason: str) -> None:
        body = json_body(reason=reason, rows=self._file.rows + 1)
        self._file.write((self._wall(), self._monotonic(), 0, Kind.EVENT.value, STOP, body))

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close("stop" if kind is None else "error")
