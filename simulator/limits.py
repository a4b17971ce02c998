"""Request weight and client-message limits, as the venues enforce them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a request may do: ``status`` 200, 429 or 418; ``used`` goes into the header."""

    status: int
    used: int
    retry_after: int = 0
    banned_until_ms: int = 0


class WeightLimiter:
    """Request weight of one IP per UTC clock minute (Binance documentation; measured on USDⓈ-M).

    Over ``limit`` a request gets 429 and ``Retry-After`` to the end of the minute. After ``patience`` further
    requests in that state the IP is banned: 418 for ``ban_seconds``.
    """

    def __init__(self, limit: int, *, patience: int = 10, ban_seconds: float = 120.0) -> None:
        self.limit = limit
        self.patience = patience
        self.ban_seconds = ban_seconds
        self.used = 0
        self.banned_until_ms = 0
        self._minute = 0
        self._refused = 0
        self._forced_429 = 0

    def force(self, *, requests: int = 0, ban_seconds: float = 0.0, now_ms: int = 0) -> None:
        """Answer the next ``requests`` with 429, or ban for ``ban_seconds`` at once."""
        self._forced_429 += requests
        if ban_seconds:
            self.banned_until_ms = now_ms + int(ban_seconds * 1000)

    def request(self, weight: int, now_ms: int) -> Verdict:
        minute = now_ms // 60_000
        if minute != self._minute:
            self._minute, self.used, self._refused = minute, 0, 0
        if now_ms < self.banned_until_ms:
            left = -(-(self.banned_until_ms - now_ms) // 1000)
            return Verdict(418, self.used, left, self.banned_until_ms)
        self.used += weight
        forced = self._forced_429 > 0
        if forced:
            self._forced_429 -= 1
        if not forced and self.used <= self.limit:
            return Verdict(200, self.used)
        self._refused += 1
        if self._refused > self.patience:
            self.banned_until_ms = now_ms + int(self.ban_seconds * 1000)
            return Verdict(418, self.used, int(self.ban_seconds), self.banned_until_ms)
        return Verdict(429, self.used, max(1, 60 - now_ms // 1000 % 60))


class TokenBucket:
    """Client messages: ``burst`` at once, then ``rate`` a second."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """True when a message at ``now`` (seconds) is within the limit."""
        if self._at is not None:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
