"""A round of questions to one venue: a client, a journal of its own, and what came of it.

The journal's writer is `rest-<host>`: its files lie side by side, one a round, and are sealed like a collector's.
"""

from __future__ import annotations

import asyncio
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from depthvault.clock import Clock
from depthvault.config import Config
from depthvault.errors import BannedError, RateLimitedError, RestError, RestrictedError
from depthvault.exchanges.base import Exchange, Request
from depthvault.journal import JournalWriter, Kind, json_body
from depthvault.rest.client import Answer, RestClient
from depthvault.rest.weight import Priority, WeightBudget

PARALLEL = 8
_RETRIES = 1
_NOT_WORD = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(slots=True)
class Polled:
    """What one round did. failures: by symbol (or path) why there is no answer."""

    exchange: str
    channel: str
    asked: int = 0
    answered: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    cadence: timedelta | None = None
    seconds: float = 0.0
    used_weight: int | None = None

    @property
    def dead(self) -> bool:
        """Whether nothing at all was answered although something was asked."""
        return self.asked > 0 and self.answered == 0

    def __str__(self) -> str:
        """One line for people."""
        line = f"{self.exchange} {self.channel}: {self.answered} of {self.asked} answered in {self.seconds:.1f} s"
        if self.cadence is not None:
            line += f", each symbol every {self.cadence.total_seconds():g} s"
        if self.used_weight is not None:
            line += f", weight used this minute {self.used_weight}"
        if self.failures:
            some = "; ".join(f"{name or 'venue'}: {why}" for name, why in list(self.failures.items())[:3])
            line += f", {len(self.failures)} failed ({some})"
        return line


def rest_writer() -> str:
    """The journal writer of this host's REST answers."""
    return f"rest-{_NOT_WORD.sub('-', platform.node()) or 'host'}"


class Round:
    """A client and a journal for one round; refusals become rows, never a lost round."""

    def __init__(
        self,
        config: Config,
        exchange: Exchange,
        channel: str,
        clock: Clock,
        *,
        priority: Priority = Priority.PERIODIC,
        source: str | None = None,
    ) -> None:
        """source: `refill` when the answers close holes."""
        self.polled = Polled(exchange.name, channel)
        self._config = config
        self._exchange = exchange
        self._clock = clock
        self._priority = priority
        self._source = source
        budget = WeightBudget(config.layout.run / "weight.sqlite", cap=exchange.config.weight_cap, clock=clock)
        self.client = RestClient(exchange, budget, clock=clock)
        self._journal: JournalWriter | None = None
        self._requests = 0
        self._began = 0

    async def __aenter__(self) -> Round:
        self._began = self._clock.monotonic_ns()
        await self.client.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.client.__aexit__(None, None, None)
        if self._journal is not None:
            self._journal.close("stop" if kind is None else "error")
        self.polled.seconds = (self._clock.monotonic_ns() - self._began) / 1e9

    @property
    def journal(self) -> JournalWriter:
        """Opened with its first row, so that a round with nothing to say leaves no file."""
        if self._journal is None:
            self._journal = JournalWriter(
                self._config.layout,
                self._exchange.name,
                rest_writer(),
                config=self._config.journal,
                clock=self._clock,
                exclusive=False,
            )
        return self._journal

    def note(self, event: str, *, channel: str = "", symbol: str | None = None, **details: object) -> None:
        """Journal an event of `channel`, else of this round's."""
        body = json_body(channel=channel or self.polled.channel, symbol=symbol, **details)
        self.journal.append(Kind.EVENT, 0, event, body)

    async def ask(
        self, requests: Sequence[Request], max_wait: float | None = None, parallel: int = PARALLEL
    ) -> list[Answer]:
        """Send `requests`, `parallel` at a time (1 keeps their order); journal the answers as they come.

        The returned answers are in the order asked.
        """
        gate = asyncio.Semaphore(parallel)
        deadline = None if max_wait is None else self._clock.monotonic_ns() / 1e9 + max_wait
        stop: list[str] = []

        async def one(request: Request) -> Answer | None:
            async with gate:
                if stop:
                    self._refused(request, "skipped", stop[0])
                    return None
                return await self._one(request, deadline, stop)

        self.polled.asked += len(requests)
        return [answer for answer in await asyncio.gather(*map(one, requests)) if answer is not None]

    async def _one(self, request: Request, deadline: float | None, stop: list[str]) -> Answer | None:
        for attempt in range(_RETRIES + 1):
            left = None if deadline is None else max(0.0, deadline - self._clock.monotonic_ns() / 1e9)
            try:
                answer = await self.client.get(request, self._priority, max_wait=left)
            except (RestrictedError, BannedError, RateLimitedError) as error:
                # Nobody asks on: the account binds everybody, and a storm would turn a limit into a ban.
                stop.append(str(error))
                self._refused(request, "rate_limited" if isinstance(error, RateLimitedError) else "banned", str(error))
                return None
            except RestError as error:
                if attempt < _RETRIES and (error.status == 0 or error.status >= 500):
                    continue
                self._refused(request, "stale", str(error))
                return None
            self._keep(answer)
            return answer
        raise AssertionError("unreachable: the last attempt returns")

    async def ask_catalogue(self) -> Answer | None:
        """Ask what is listed; the answer is journaled as the catalogue that rows are decoded by. None: refused."""
        self.polled.asked += 1
        request = self._exchange.catalogue_request()
        try:
            answer = await self.client.get(request, Priority.CATALOGUE)
        except RestError as error:
            self._refused(request, "stale", str(error))
            return None
        self._requests += 1
        self.journal.set_catalogue(
            request.line, answer.body, answer.sent_wall_ns, answer.received_wall_ns, request=self._requests
        )
        self._count(answer)
        return answer

    def probed(self, line: str, body: bytes, sent_wall_ns: int, received_wall_ns: int) -> None:
        """Journal what a WebSocket answered to the question `line`."""
        self._requests += 1
        self.journal.append_rest(line, body, sent_wall_ns, received_wall_ns, request=self._requests)
        self.polled.answered += 1

    def failed(self, symbol: str, why: str) -> None:
        """Declare a question that found no answer."""
        self.polled.failures[symbol] = why
        self.note("stale", symbol=symbol, reason=why)

    def _keep(self, answer: Answer) -> None:
        self._requests += 1
        self.journal.append_rest(
            answer.request.line,
            answer.body,
            answer.sent_wall_ns,
            answer.received_wall_ns,
            request=self._requests,
            source=self._source,
        )
        self._count(answer)

    def _count(self, answer: Answer) -> None:
        self.polled.answered += 1
        if answer.used_weight is not None:
            self.polled.used_weight = max(self.polled.used_weight or 0, answer.used_weight)

    def _refused(self, request: Request, event: str, why: str) -> None:
        name = request.symbol or request.path
        self.polled.failures[name] = why
        if event != "skipped":
            self.note(event, channel=request.channel, symbol=request.symbol or None, request=request.line, reason=why)
