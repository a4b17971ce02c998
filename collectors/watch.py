"""`depthvault watch`: records one symbol and shows its book as the journal has it. With `--record` the data is kept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import tempfile
import time
from pathlib import Path

import psutil
import uvloop
from rich.console import Console
from rich.live import Live

from collectors.collector import Collector
from collectors.live_book import LiveBook
from collectors.watch_view import Figures, render
from depthvault.config import Config
from depthvault.exchanges import exchange as exchange_named
from depthvault.exchanges.base import Seed
from depthvault.journal.follow import follow_async
from depthvault.journal.reader import Batch

_FRAMES_PER_SECOND = 5
_FLUSH = "50ms"  # the view is as old as the journal's last flush


def watch(
    config: Config,
    exchange: str,
    symbol: str,
    *,
    depth: int = 10,
    record: bool = False,
    duration: float | None = None,
    console: Console | None = None,
) -> int:
    """Show the book of `symbol` until SIGINT, SIGTERM or `duration` seconds. Returns the exit code.

    Without `record` the journal lies in a temporary folder and goes with it.
    """
    out = console or Console()
    with contextlib.ExitStack() as stack:
        if not record:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="depthvault-watch-"))
            config = config.model_copy(update={"data_dir": Path(folder)})
        settings = config.exchanges[exchange]
        seed = exchange_named(exchange, settings).seed
        channels = ("depth_diff", "depth_snapshot") if seed is Seed.REST else ("depth_diff",)
        update = {"enabled": True, "symbols": (symbol,), "channels": channels, "accounts": ()}
        narrowed = settings.model_copy(update=update)
        config = type(config).model_validate({
            **config.model_dump(),
            "exchanges": {**config.exchanges.model_dump(), exchange: narrowed.model_dump()},
            "journal": {**config.journal.model_dump(), "flush_interval": _FLUSH},
            "platform": {**config.platform.model_dump(), "metrics_port": 0},
        })  # fmt: skip
        _log_to_file(config)
        uvloop.run(_watch(config, exchange, symbol, depth, record, duration, out))
    return 0


def _log_to_file(config: Config) -> None:
    config.layout.logs.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    logging.basicConfig(filename=config.layout.logs / "watch.log", level=logging.INFO)
    _last.text, _last.at = "", 0.0
    root.addHandler(_last)


class _LastWarning(logging.Handler):
    """Keeps the newest warning for the view: what keeps a book from coming must not hide in a file."""

    SHOWN_SECONDS = 15.0

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text, self.at = "", 0.0

    def emit(self, record: logging.LogRecord) -> None:
        self.text, self.at = record.getMessage(), time.monotonic()

    def recent(self) -> str:
        return self.text if time.monotonic() - self.at < self.SHOWN_SECONDS else ""


_last = _LastWarning()


async def _watch(
    config: Config, exchange: str, symbol: str, depth: int, record: bool, duration: float | None, out: Console
) -> None:
    collector = Collector(config, exchange, instance="watch")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, collector.stop, "watch ended")
    running = asyncio.create_task(collector.run(duration))
    begun = asyncio.create_task(collector.started.wait())
    await asyncio.wait([running, begun], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        begun.cancel()
        await running
        return
    book = LiveBook(collector.exchange, symbol)
    reading = asyncio.create_task(_read(config, exchange, book))
    process = psutil.Process()
    process.cpu_percent()
    try:
        with Live(console=out, screen=out.is_terminal, auto_refresh=False, transient=False) as live:
            since, updates, rate = time.monotonic(), 0, 0.0
            figures = _figures(collector, book, process, exchange, symbol, depth, rate, record)
            while not running.done():
                pause = 1 / _FRAMES_PER_SECOND if out.is_terminal else 1.0
                await asyncio.wait([running, reading], timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    collector.stop("watch failed")
                    await running
                    reading.result()
                if (now := time.monotonic()) - since >= 1.0:
                    rate, since, updates = (book.updates - updates) / (now - since), now, book.updates
                figures = _figures(collector, book, process, exchange, symbol, depth, rate, record)
                live.update(render(figures, depth), refresh=True)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await running
    if out.is_terminal:  # what was seen last stays on the screen
        out.print(render(figures, depth))


async def _read(config: Config, exchange: str, book: LiveBook) -> None:
    async for part in follow_async(config.layout, exchange, "watch", since_ns=time.time_ns(), poll_interval=0.02):
        if isinstance(part, Batch):
            book.take(part)


def _figures(
    collector: Collector, book: LiveBook, process: psutil.Process, exchange: str, symbol: str, depth: int, rate: float,
    record: bool,
) -> Figures:  # fmt: skip
    bids, asks = book.best(depth)
    counters = collector.recorder.counters
    return Figures(
        exchange=exchange,
        symbol=symbol,
        bids=bids,
        asks=asks,
        seeded=book.seeded,
        updates=book.updates,
        updates_per_second=rate,
        gaps=counters.gaps,
        reconnects=counters.disconnects,
        lag_ms=counters.lag.last_ms if counters.lag.count else None,
        rss=process.memory_info().rss,
        cpu=process.cpu_percent(),
        buffered_rows=collector.journal.buffered_rows,
        journal=collector.journal.path.name,
        recording=record,
        trouble=_last.recent(),
    )
