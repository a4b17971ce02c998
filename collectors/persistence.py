"""From memory to the disk, on timers and off the event loop: flush, fsync, rotation."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from collectors.counters import Counters
from depthvault.errors import JournalError
from depthvault.journal.writer import JournalWriter

LOG = logging.getLogger("depthvault.collector")

_RETRY = 1.0


@dataclass(eq=False)
class Persistence:
    """Keeps a journal's promises: rows are in the file within `flush_interval`, on the disk within `fsync_interval`.

    on_rotate: called when a new file was begun, to say again in it what is open. on_disk: called with the reason when
    the disk begins to refuse, and with None and the seconds that it did when it takes again.
    """

    journal: JournalWriter
    counters: Counters
    on_rotate: Callable[[], None]
    on_disk: Callable[[str | None, float], None] = lambda refusal, seconds: None
    # One thread for all writes: Arrow keeps what was freed for each thread that ever made a record.
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "journal"))

    async def run(self) -> None:
        """Until cancelled. A disk that refuses is reported loudly and tried again: rows wait in memory."""
        try:
            await self._run()
        finally:
            self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        config = self.journal.config
        # The wait and the write itself must fit into the interval.
        pause = config.flush_interval.total_seconds() * 0.8
        fsync_every = config.fsync_interval.total_seconds() * 0.8
        loop = asyncio.get_running_loop()
        synced = loop.time()
        failing, refused_since = False, 0.0
        while True:
            await asyncio.sleep(_RETRY if failing else pause)
            try:
                await self._flush()
                if loop.time() + pause - synced >= fsync_every:
                    synced = loop.time()
                    await self._fsync()
                if self.journal.rotate_if_due():
                    self.counters.rotations += 1
                    LOG.info("journal goes on in %s", self.journal.path.name)
                    self.on_rotate()
                if failing:
                    failing = False
                    self.on_disk(None, loop.time() - refused_since)
                    LOG.warning("recording goes on: %s is written again", self.journal.path)
            except JournalError as error:
                self.counters.flush_errors += 1
                if not failing:
                    refused_since = loop.time()
                    self.on_disk(str(error), 0.0)
                    LOG.critical("NOTHING IS BEING RECORDED TO DISK: %s", error)
                failing = True

    async def _flush(self) -> None:
        started = time.perf_counter()
        await asyncio.get_running_loop().run_in_executor(self._thread, self.journal.flush)
        self.counters.flushes += 1
        self.counters.flushed_at = time.monotonic()
        self.counters.flush_worst_ms = max(self.counters.flush_worst_ms, (time.perf_counter() - started) * 1e3)

    async def _fsync(self) -> None:
        started = time.perf_counter()
        await asyncio.get_running_loop().run_in_executor(self._thread, self.journal.fsync)
        self.counters.fsyncs += 1
        self.counters.fsync_worst_ms = max(self.counters.fsync_worst_ms, (time.perf_counter() - started) * 1e3)
