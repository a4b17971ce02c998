"""How fast we may send: a token bucket, and one that all processes of a host share. Time comes in."""

from __future__ import annotations

import fcntl
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from depthvault.durable import make_directories
from depthvault.exchanges.base import Exchange
from depthvault.layout import Layout

_STATE = struct.Struct("<dd")
_NOT_WORD = re.compile(r"[^A-Za-z0-9.-]+")


class Bucket(Protocol):
    """Permission to send."""

    def take(self, now: float) -> float:
        """Take one token; the seconds to wait before it may be used (0: at once). now: monotonic seconds."""


@dataclass(slots=True)
class TokenBucket:
    """Permission to send: `burst` at once, then `per_second`."""

    per_second: float
    burst: float
    tokens: float = -1.0
    updated: float = 0.0

    def take(self, now: float) -> float:
        """Take one token; the seconds to wait before it may be used (0: at once)."""
        if self.tokens < 0 and self.updated == 0.0:
            self.tokens = self.burst
        else:
            self.tokens = min(self.burst, self.tokens + (now - self.updated) * self.per_second)
        self.updated = now
        self.tokens -= 1.0
        return 0.0 if self.tokens >= 0 else -self.tokens / self.per_second


@dataclass(frozen=True, slots=True)
class SharedBucket:
    """The same for all processes of a host: its state is a file, locked for the microseconds of a `take`.

    Times are of the monotonic clock, which processes of a host share; what is later than now is of an earlier boot.
    """

    path: Path
    per_second: float
    burst: float

    def take(self, now: float) -> float:
        """Take one token; the seconds to wait before it may be used (0: at once). Raises OSError."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            held = os.pread(descriptor, _STATE.size, 0)
            bucket = TokenBucket(self.per_second, self.burst)
            if len(held) == _STATE.size:
                tokens, updated = _STATE.unpack(held)
                # Another process may have looked at the clock a moment later than we did.
                if updated <= now + 1.0:
                    bucket.tokens, bucket.updated = tokens, min(updated, now)
            wait = bucket.take(now)
            os.pwrite(descriptor, _STATE.pack(bucket.tokens, bucket.updated), 0)
            return wait
        finally:
            os.close(descriptor)


def bucket_of(exchange: Exchange, layout: Layout) -> SharedBucket | None:
    """The bucket of all our connections to a venue that limits messages by address; None: each has its own."""
    pacing = exchange.pacing
    if not pacing.per_address:
        return None
    folder = layout.run / "pacing"
    make_directories(folder)
    host = _NOT_WORD.sub("_", urlsplit(exchange.config.ws_url).netloc)
    return SharedBucket(folder / f"{exchange.name}-{host}", pacing.per_second, pacing.burst)
