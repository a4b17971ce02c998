"""Who writes what: each journal file is locked by its writer for life; a free lock means that the writer is gone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from depthvault.errors import JournalLockedError

_WRITER_LOCK = ".lock"


def lock_writer(folder: Path) -> int:
    """Become the only writer of `folder`; the returned descriptor holds the lock until it is closed.

    Raises JournalLockedError naming the folder when another live process is it.
    """
    descriptor = os.open(folder / _WRITER_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise JournalLockedError(f"{folder}: another live process writes this journal") from error
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def create_locked(path: Path) -> int:
    """Create `path`, exclusively and empty, locked from the first moment it can be seen.

    Raises FileExistsError when the name is taken.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.link(temporary, path)  # unlike rename, link fails when the name is taken
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether a live process still writes the journal at `path`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Shared, so that two readers who ask at once do not see each other as the writer's.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
