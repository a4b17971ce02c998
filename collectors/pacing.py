"""How fast we may send, and how long we wait before we try again. Pure: time and randomness come in."""

from __future__ import annotations

import random
from dataclasses import dataclass


def backoff(attempt: int, first: float, longest: float, rng: random.Random) -> float:
    """Seconds to wait before attempt number `attempt` (1, 2, …): full jitter under a doubling ceiling.

    The ceiling is `first` · 2^(attempt-1), at most `longest`. Full jitter, so that many connections that died
    together do not come back together.
    """
    ceiling = min(longest, first * 2.0 ** min(attempt - 1, 60))
    return rng.uniform(0, ceiling)


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
