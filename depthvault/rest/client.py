"""Asking a venue over REST: within the weight budget, with a timeout, and every refusal called what it is.

budget = WeightBudget(layout.run / "weight.sqlite", cap=config.weight_cap)
async with RestClient(exchange, budget) as client:
    answer = await client.get(exchange.snapshot_request("BTCUSDT", 1000), Priority.RESYNC)
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from depthvault import __version__
from depthvault.clock import Clock, SystemClock
from depthvault.errors import BannedError, RateLimitedError, RestError, RestrictedError
from depthvault.exchanges.base import Exchange, Request
from depthvault.rest.weight import Grant, Priority, WeightBudget

LOG = logging.getLogger("depthvault.rest")

USED_WEIGHT_HEADER = "X-MBX-USED-WEIGHT-1M"  # Binance REST docs; other venues send none
_BANNED_UNTIL = re.compile(rb"banned until (\d{13})")
_DEFAULT_RETRY_AFTER = 60.0
_DEFAULT_BAN = 120.0  # the shortest ban of Binance (spot REST docs: two minutes to three days)
_TEXT_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200. Times are wall clock in ns; round_trip is seconds on the monotonic clock. body: decompressed, verbatim."""

    request: Request
    status: int
    body: bytes
    sent_wall_ns: int
    received_wall_ns: int
    round_trip: float
    headers: Mapping[str, str]
    used_weight: int | None


class RestClient:
    """GETs to one venue. Not for use from several event loops.

    A request may take `open_timeout` of the exchange's configuration, from connecting to the last byte.
    """

    host: str
    """The account's name: the address asked, with its path, which tells venues behind one address apart."""

    def __init__(self, exchange: Exchange, budget: WeightBudget, *, clock: Clock | None = None) -> None:
        self.budget = budget
        self._clock = clock or SystemClock()
        self._session: aiohttp.ClientSession | None = None
        self.set_exchange(exchange)

    def set_exchange(self, exchange: Exchange) -> None:
        """Ask as another configuration says from now on; what is under way ends as it began."""
        self._exchange = exchange
        self._base = exchange.config.rest_url.rstrip("/")
        parts = urlsplit(self._base)
        self.host = parts.netloc + parts.path
        self._timeout = aiohttp.ClientTimeout(total=exchange.config.open_timeout.total_seconds())

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"User-Agent": f"depthvault/{__version__}"},
            connector=aiohttp.TCPConnector(limit=16),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(
        self, request: Request, priority: Priority = Priority.PERIODIC, *, max_wait: float | None = None
    ) -> Answer:
        """The answer to `request`, after waiting for its weight.

        max_wait: seconds to wait for weight at most (None: as long as it takes).
        Raises RateLimitedError (429, or the budget is spent for longer than `max_wait`), BannedError (418, or a ban
        stands for longer than that), RestrictedError (451), RestError (everything else that is not a 200;
        status 0: no answer in time, no connection, or no account of weight).
        """
        grant = await self._reserve(request, priority, max_wait)
        return await self._send(request, grant)

    async def _reserve(self, request: Request, priority: Priority, max_wait: float | None) -> Grant:
        waited = 0.0
        while True:
            grant = await asyncio.to_thread(
                self.budget.reserve, self.host, self._exchange.weight_limit, request.weight, priority
            )
            if grant.granted:
                return grant
            if max_wait is not None and waited + grant.wait > max_wait:
                if grant.banned:
                    raise BannedError(f"{self.host}: {grant.banned}", grant.until_ns / 1e9)
                raise RateLimitedError(f"{self.host}: the weight budget of this minute is spent", grant.wait, status=0)
            # A ban can be long: look again now and then. The surplus keeps us clear of the minute's turn.
            pause = min(grant.wait + 0.05, 30.0)
            waited += pause
            await asyncio.sleep(pause)

    async def _send(self, request: Request, grant: Grant) -> Answer:
        if self._session is None:
            raise RuntimeError("RestClient is used outside of its `async with`")
        query = "&".join(f"{quote(key)}={quote(value, safe='')}" for key, value in request.params)
        url = URL(self._base + request.path + (f"?{query}" if query else ""), encoded=True)
        used: int | None = None
        sent_wall, sent = self._clock.wall_ns(), self._clock.monotonic_ns()
        try:
            async with self._session.get(url, allow_redirects=False, timeout=self._timeout) as response:
                body = await response.read()
                received_wall, received = self._clock.wall_ns(), self._clock.monotonic_ns()
                header = response.headers.get(USED_WEIGHT_HEADER, "")
                used = int(header) if header.isdigit() else None
                status, headers = response.status, response.headers
        except TimeoutError as error:
            raise RestError(f"{self.host}: no answer to {request.path} in {self._timeout.total} s") from error
        except aiohttp.ClientError as error:
            raise RestError(f"{self.host}: {request.path}: {type(error).__name__}: {error}") from error
        finally:
            await asyncio.shield(asyncio.to_thread(self._settle, grant, used))
        if status == 200:
            return Answer(request, status, body, sent_wall, received_wall, (received - sent) / 1e9, dict(headers), used)
        raise await self._refusal(request, status, body, headers)

    def _settle(self, grant: Grant, used: int | None) -> None:
        try:
            self.budget.settle(grant, used)
        except RestError as error:  # the answer is worth more than the account, which counts it as under way
            LOG.warning("%s", error)

    async def _refusal(self, request: Request, status: int, body: bytes, headers: Mapping[str, str]) -> RestError:
        """The error that a refusal is; a limit or a ban is entered into the account for everybody."""
        now = self._clock.wall_ns()
        text = body[:_TEXT_LIMIT].decode("utf-8", "replace")
        message = f"{self.host}: {request.path}: HTTP {status} {text}".rstrip()
        if status in (418, 429):
            default = _DEFAULT_BAN if status == 418 else _DEFAULT_RETRY_AFTER
            wait = retry_after(headers)
            match = _BANNED_UNTIL.search(body)
            # The end of a ban may stand in the text alone; when both say one, the later counts.
            told = max(int(match[1]) * 1_000_000 if match else 0, now + round((wait or 0) * 1e9))
            until = told if told > now else now + round(default * 1e9)
            banned = status == 418 or match is not None
            reason = f"HTTP {status}: {'banned' if banned else 'rate limited'}"
            try:
                await asyncio.to_thread(self.budget.ban, self.host, until, reason)
            except RestError as error:
                LOG.error("%s; others do not know of: %s", error, message)
            if banned:
                return BannedError(message, until / 1e9)
            return RateLimitedError(message, max(0.0, (until - now) / 1e9))
        if status == 451:
            return RestrictedError(message, status)
        return RestError(message, status)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After` header; None when it is missing or no number."""
    try:
        return max(0.0, float(headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
