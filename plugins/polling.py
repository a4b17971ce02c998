"""Tasks that ask venues over REST and journal the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from depthvault.errors import DepthvaultError, RestError
from plugins.configuration import config

if TYPE_CHECKING:
    from depthvault.polls import Polled

_CATCH_UP = timedelta(days=2)
"""How far back funding is asked for when the last success is older."""

_OVERLAP = timedelta(minutes=5)
"""A settlement is stamped milliseconds after the hour and shows a little later; what comes twice is merged by key."""


def venues_with(channel: str) -> list[str]:
    """The enabled venues whose configuration asks for `channel`, where they have it."""
    from depthvault.exchanges import enabled_exchanges

    return [
        name
        for name, exchange in enabled_exchanges(config()).items()
        if channel in exchange.config.channels and channel in exchange.channels
    ]


async def depth_snapshots() -> list[str]:
    """Fetch and journal the full-depth snapshots that are due in this minute, of all venues at once."""
    from depthvault.polls import poll_snapshots

    settings = config()
    return await _all(
        (name, poll_snapshots(settings, name)) for name in venues_with("depth_snapshot") if _has_rest_book(name)
    )


async def book_probes() -> list[str]:
    """Ask for the whole book of every recorded market on a second connection, where books come in the stream."""
    from depthvault.polls.probe import probe

    settings = config()
    return await _all(
        (name, probe(settings, name)) for name in venues_with("depth_snapshot") if not _has_rest_book(name)
    )


async def open_interest() -> list[str]:
    """Ask and journal the open interest of every recorded symbol."""
    from depthvault.polls import poll

    settings = config()
    return await _all((name, poll(settings, name, "open_interest")) for name in _polled("open_interest"))


async def symbol_universe() -> list[str]:
    """Ask and journal what every enabled venue lists."""
    from depthvault.polls import poll

    settings = config()
    return await _all((name, poll(settings, name, "instrument")) for name in settings.exchanges.enabled())


async def funding_rates() -> list[str]:
    """Ask and journal the funding that was settled since the last success."""
    from depthvault.durable import write_atomic
    from depthvault.polls import poll

    settings = config()
    now = datetime.now(UTC)
    lines = []
    for name in _polled("funding_rate"):
        mark = settings.layout.run / "polls" / f"funding-{name}"
        since = now.replace(minute=0, second=0, microsecond=0)
        if mark.exists():
            since = min(since, datetime.fromisoformat(mark.read_text(encoding="ascii")) - _OVERLAP)
        lines += await _all([(name, poll(settings, name, "funding_rate", since=max(since, now - _CATCH_UP)))])
        write_atomic(mark, now.isoformat().encode())
    return lines


async def trade_backfill() -> list[str]:
    """Fetch missing aggregated trades and candles again, of every venue that serves them."""
    from depthvault.polls import refill

    settings = config()
    return await _all((name, refill(settings, name)) for name in settings.exchanges.enabled())


def _has_rest_book(name: str) -> bool:
    from depthvault.exchanges import exchange
    from depthvault.exchanges.base import Seed

    return exchange(name, config().exchanges[name]).seed is Seed.REST


def _polled(channel: str) -> list[str]:
    """The venues of `channel` that have to be asked: others stream it."""
    from depthvault.exchanges import exchange

    settings = config().exchanges
    now = datetime.now(UTC)
    return [
        name for name in venues_with(channel) if exchange(name, settings[name]).poll_requests(channel, ["BTCUSDT"], now)
    ]


async def _all(rounds: Iterable[tuple[str, Awaitable[Polled]]]) -> list[str]:
    """Wait for all `rounds`; a venue that fails does not keep another from its answers. Says what each one did.

    Raises RestError when a venue answered nothing at all, naming each.
    """
    named = list(rounds)
    outcomes = await asyncio.gather(*(one for _, one in named), return_exceptions=True)
    lines, dead = [], []
    for (name, _), outcome in zip(named, outcomes, strict=True):
        if isinstance(outcome, DepthvaultError):
            line = f"{name}: {outcome}"
            dead.append(line)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            line = str(outcome)
            if outcome.dead:
                dead.append(line)
        print(line)
        lines.append(line)
    if dead:
        raise RestError("; ".join(dead))
    return lines
