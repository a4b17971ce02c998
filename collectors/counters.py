"""What a collector counts. Plain attributes: the receive path adds to them, health and metrics read them."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field

LAG_BUCKETS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


@dataclass(slots=True)
class Lag:
    """Receipt minus the venue's event time, in ms; negative when a clock is wrong."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(LAG_BUCKETS_MS) + 1))
    count: int = 0
    total_ms: float = 0.0
    last_ms: float = 0.0
    worst_ms: float = 0.0
    """The largest since `take_worst` was called last."""

    def observe(self, lag_ms: float) -> None:
        self.buckets[bisect_left(LAG_BUCKETS_MS, lag_ms)] += 1
        self.count += 1
        self.total_ms += lag_ms
        self.last_ms = lag_ms
        if lag_ms > self.worst_ms:
            self.worst_ms = lag_ms

    def take_worst(self) -> float:
        worst, self.worst_ms = self.worst_ms, 0.0
        return worst


@dataclass(slots=True)
class Counters:
    """Since the process began."""

    frames: int = 0
    bytes: int = 0
    control: int = 0
    malformed: int = 0
    unknown_streams: int = 0
    gaps: int = 0
    late_closed: int = 0
    resyncs: int = 0
    snapshots: int = 0
    rest_errors: int = 0
    connects: int = 0
    disconnects: int = 0
    rolls: int = 0
    stale: int = 0
    refused: int = 0
    flushes: int = 0
    flush_errors: int = 0
    fsyncs: int = 0
    rotations: int = 0
    flushed_at: float = field(default_factory=time.monotonic)
    flush_worst_ms: float = 0.0
    fsync_worst_ms: float = 0.0
    lag: Lag = field(default_factory=Lag)
