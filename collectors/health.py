"""What a collector tells about itself: `/healthz`, Prometheus `/metrics`, and a status file for `depthvault status`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as MetricsCollector

from collectors.counters import LAG_BUCKETS_MS
from depthvault import __version__
from depthvault.config import Config
from depthvault.durable import make_directories
from depthvault.errors import RestError

if TYPE_CHECKING:
    from collectors.collector import Collector

LOG = logging.getLogger("depthvault.collector")

_QUIET_NS = 60_000_000_000  # a process that heard nothing at all for so long is not healthy
_STATUS_INTERVAL = 1.0


def port_of(config: Config, exchange: str, instance: str, shard: int) -> int:
    """The metrics port of a collector: the first one plus its place among all configured collectors; 0: any."""
    first = config.platform.metrics_port
    if first == 0:
        return 0
    place = 0
    for name, settings in config.exchanges.enabled().items():
        for each in settings.instances:
            for index in range(settings.shards):
                if (name, each, index) == (exchange, instance, shard):
                    return first + place
                place += 1
    return 0


class Health:
    """Serves health and metrics of `collector` on loopback, and writes its status file each second."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._process = psutil.Process()
        self._started_ns = collector.clock.monotonic_ns()
        self._rate: tuple[float, int, float] = (time.monotonic(), 0, 0.0)
        self._registry = CollectorRegistry()
        self._registry.register(_Metrics(self))
        self._port: int | None = None

    @property
    def path(self) -> Path:
        """The status file."""
        collector = self._collector
        return collector.layout.run / "collectors" / f"{collector.name}-{collector.writer}.json"

    def problems(self) -> list[str]:
        """Why the process is not healthy; empty when it is."""
        collector = self._collector
        now = collector.clock.monotonic_ns()
        found = []
        if collector.journal.failure is not None:
            found.append(str(collector.journal.failure))
        slots = collector.feed.slots
        if down := sum(not slot.connections for slot in slots):
            found.append(f"{down} of {len(slots)} connections are down")
        last = max((state.last_ns for state in collector.recorder.states.values()), default=0) or self._started_ns
        if now - last > _QUIET_NS:
            found.append(f"no frame for {(now - last) / 1e9:.0f} s")
        return found

    def status(self) -> dict[str, Any]:
        """All figures."""
        collector = self._collector
        counters = collector.recorder.counters
        now, frames, rate = self._rate
        if (moment := time.monotonic()) - now >= 1.0:
            rate = (counters.frames - frames) / (moment - now)
            self._rate = (moment, counters.frames, rate)
        lag = counters.lag
        memory = self._process.memory_info()
        return {
            "exchange": collector.name,
            "writer": collector.writer,
            "pid": os.getpid(),
            "port": self._port,
            "version": __version__,
            "updated_ns": time.time_ns(),
            "uptime_s": round((collector.clock.monotonic_ns() - self._started_ns) / 1e9, 3),
            "problems": self.problems(),
            "journal": collector.journal.path.name,
            "symbols": len(collector.universe.symbols),
            "missing": list(collector.universe.missing),
            "streams": len(collector.recorder.states),
            "connections": sum(len(slot.connections) for slot in collector.feed.slots),
            "slots": len(collector.feed.slots),
            "books": {state.value: count for state, count in collector.books.states().items()},
            "frames_per_second": round(rate, 1),
            "buffered_rows": collector.journal.buffered_rows,
            "buffered_bytes": collector.journal.buffered_bytes,
            "oldest_buffered_s": round(self.oldest_buffered(), 3),
            "dropped_rows": collector.journal.dropped_rows,
            "rss_bytes": memory.rss,
            "anonymous_bytes": memory.rss - getattr(memory, "shared", 0),
            "cpu_s": round(sum(self._process.cpu_times()[:2]), 2),
            "lag_ms": round(lag.last_ms, 1),
            "lag_mean_ms": round(lag.total_ms / lag.count, 1) if lag.count else None,
            "account_frames": collector.accounts.frames,
            "flush_worst_ms": round(counters.flush_worst_ms, 1),
            "fsync_worst_ms": round(counters.fsync_worst_ms, 1),
            **{
                name: getattr(counters, name)
                for name in (
                    "frames", "bytes", "control", "malformed", "unknown_streams", "gaps", "late_closed", "resyncs",
                    "snapshots", "rest_errors", "connects", "disconnects", "rolls", "stale", "refused", "flush_errors",
                    "rotations",
                )
            },
        }  # fmt: skip

    def oldest_buffered(self) -> float:
        """Seconds since the last flush when rows wait, else 0: an upper bound for the oldest frame's wait."""
        collector = self._collector
        if not collector.journal.buffered_rows:
            return 0.0
        return max(0.0, time.monotonic() - collector.recorder.counters.flushed_at)

    async def run(self) -> None:
        """Until cancelled. Recording never depends on it: a busy port is reported, and another one taken."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        host = self._collector.config.platform.host
        try:
            try:
                await web.TCPSite(runner, host, self._collector.port).start()
            except OSError as error:
                LOG.warning("metrics: port %d: %s; taking a free one", self._collector.port, error.strerror)
                await web.TCPSite(runner, host, 0).start()
            self._port = runner.addresses[0][1]
            self._collector.port = self._port
            make_directories(self.path.parent)
            while True:
                await asyncio.to_thread(self._write, self.status())
                await asyncio.sleep(_STATUS_INTERVAL)
        finally:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            await runner.cleanup()

    def _write(self, status: dict[str, Any]) -> None:
        temporary = self.path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(status, ensure_ascii=False))
            temporary.replace(self.path)
        except OSError as error:  # a full disk: recording has its own, louder words for it
            LOG.debug("status file: %s", error)

    async def _healthz(self, _: web.Request) -> web.Response:
        problems = self.problems()
        return web.json_response({"healthy": not problems, "problems": problems}, status=503 if problems else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), content_type="text/plain", charset="utf-8")


_COUNTERS = {
    "frames": "Frames received.",
    "bytes": "Bytes received.",
    "malformed": "Frames that the venue's rules do not allow.",
    "gaps": "Breaks of a book's chain that no late frame closed.",
    "late_closed": "Breaks that a late frame closed in time.",
    "resyncs": "Books that were seeded.",
    "snapshots": "Snapshots fetched over REST.",
    "rest_errors": "REST answers other than 200.",
    "connects": "Connections opened.",
    "disconnects": "Connections lost.",
    "rolls": "Connections replaced with overlap.",
    "stale": "Streams found silent.",
    "refused": "Messages that the venue refused.",
    "flush_errors": "Writes that the disk refused.",
    "rotations": "Journal files begun after the first.",
    "account_frames": "Frames of account channels, which are kept apart.",
}
_GAUGES = {
    "symbols": "Symbols recorded.",
    "streams": "Streams subscribed.",
    "connections": "Connections open.",
    "buffered_rows": "Rows not yet in the file.",
    "buffered_bytes": "Bytes not yet in the file.",
    "oldest_buffered_s": "Seconds that the oldest frame in memory has waited at most.",
    "dropped_rows": "Rows refused because memory was full, not declared yet.",
    "rss_bytes": "Resident memory.",
    "anonymous_bytes": "Resident memory without pages of files, which the kernel drops and reads again at will.",
    "flush_worst_ms": "Longest flush.",
    "fsync_worst_ms": "Longest fsync.",
}


class _Metrics(MetricsCollector):
    """Turns the counters into Prometheus families when asked."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterable[Metric]:
        return self._families()

    def _families(self) -> Iterator[Metric]:
        status = self._health.status()
        labels = ["exchange", "writer"]
        values = [status["exchange"], status["writer"]]
        for name, meaning in _COUNTERS.items():
            counter = CounterMetricFamily(f"depthvault_{name}", meaning, labels=labels)
            counter.add_metric(values, status[name])
            yield counter
        for name, meaning in _GAUGES.items():
            gauge = GaugeMetricFamily(f"depthvault_{name}", meaning, labels=labels)
            gauge.add_metric(values, status[name])
            yield gauge
        books = GaugeMetricFamily("depthvault_books", "Books by state.", labels=[*labels, "state"])
        for state, count in status["books"].items():
            books.add_metric([*values, state], count)
        yield books
        collector = self._health._collector
        weight = GaugeMetricFamily("depthvault_used_weight", "REST weight used this minute.", labels=[*labels, "host"])
        with contextlib.suppress(RestError):  # a full disk: the other figures are needed all the more
            usage = collector.client.budget.usage(collector.client.host)
            weight.add_metric([*values, collector.client.host], usage.used)
        yield weight
        lag = collector.recorder.counters.lag
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip(LAG_BUCKETS_MS, lag.buckets, strict=False):
            total += count
            buckets.append((str(bound / 1000), total))
        buckets.append(("+Inf", lag.count))
        histogram = HistogramMetricFamily("depthvault_lag_seconds", "Receipt minus event time.", labels=labels)
        histogram.add_metric(values, buckets, lag.total_ms / 1000)
        yield histogram
