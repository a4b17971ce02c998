"""One journal file being written: whole records, or nothing of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depthvault.durable import fsync_directory
from depthvault.errors import JournalError
from depthvault.journal.columns import WIDTH, batch_of
from depthvault.journal.locks import create_locked
from depthvault.journal.record import RecordEncoder


class JournalFile:
    """Appends records to a new file that is locked for life. Not thread safe."""

    def __init__(self, path: Path, encoder: RecordEncoder) -> None:
        """Create `path`. Raises FileExistsError when the name is taken, OSError when the disk refuses."""
        self.path = path
        self.rows = 0
        """Rows in the file."""
        self._encoder = encoder
        self._end = 0  # of the last whole record
        self._synced_end = 0
        self._descriptor = create_locked(path)
        try:
            fsync_directory(path.parent)
        except OSError:
            path.unlink()
            self.release()
            raise

    def write(self, values: Sequence[Any]) -> None:
        """Write one record of the rows in `values` (see columns.WIDTH), numbered on from the last one.

        Raises JournalError naming the path when the disk refuses; the file then ends at its last whole record.
        """
        header, payload = self._encoder.encode(batch_of(self.rows, values))
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
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise JournalError(f"{self.path}: {'the disk is full' if full else error.strerror}") from error
        self._end = position
        self.rows += len(values) // WIDTH

    def take_back(self, rows: int, end: int) -> None:
        """Make the file end where it did when it had `rows` rows in `end` bytes."""
        self.rows, self._end = rows, end
        self._synced_end = min(self._synced_end, end)
        self._cut_back()

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError:
            pass  # the next record is written over the torn one all the same, and its checksum tells them apart

    @property
    def end(self) -> int:
        """Bytes of whole records."""
        return self._end

    def sync(self) -> None:
        """Make all records durable. Raises JournalError."""
        if self._synced_end == self._end:
            return
        end = self._end
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise JournalError(f"{self.path}: cannot make rows durable: {error.strerror}") from error
        self._synced_end = end

    def free_bytes(self) -> int:
        """Bytes of free disk."""
        status = os.fstatvfs(self._descriptor)
        return status.f_bavail * status.f_frsize

    def release(self) -> None:
        """Close the file and let its lock go. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
