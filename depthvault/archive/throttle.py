"""A limit on the bytes a second that pass to and from a store, over all of its files and threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import IO


class Throttle:
    """Lets `rate` bytes a second pass; all when it is None."""

    def __init__(self, rate: int | None, sleep: Callable[[float], None]) -> None:
        self._rate, self._sleep = rate, sleep
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def take(self, count: int) -> None:
        """Wait until `count` more bytes may pass."""
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + count / self._rate
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)


class Throttled:
    """A file or buffer whose reads pass through a throttle."""

    def __init__(self, file: IO[bytes], throttle: Throttle) -> None:
        self._file, self._throttle = file, throttle

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._throttle.take(len(data))
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
