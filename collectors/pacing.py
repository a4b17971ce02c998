"""How long we wait before we try again. Pure: randomness comes in."""

from __future__ import annotations

import random


def backoff(attempt: int, first: float, longest: float, rng: random.Random) -> float:
    """Seconds to wait before attempt number `attempt` (1, 2, …): full jitter under a doubling ceiling.

    The ceiling is `first` · 2^(attempt-1), at most `longest`. Full jitter, so that many connections that died
    together do not come back together.
    """
    ceiling = min(longest, first * 2.0 ** min(attempt - 1, 60))
    return rng.uniform(0, ceiling)
