"""What is asked on a cadence: full-depth snapshots, funding, open interest, listings. One round a call."""

from __future__ import annotations

from datetime import datetime, timedelta

from depthvault.clock import Clock, SystemClock, datetime_from_ns
from depthvault.config import Config
from depthvault.exchanges import exchange as venue
from depthvault.polls.rotation import snapshot_rotation
from depthvault.polls.round import PARALLEL, Polled, Round
from depthvault.polls.universe import symbols_of

_ORDERED = frozenset({"funding_rate"})
"""Channels of which one answer is read in the light of the answer before."""


async def poll_snapshots(config: Config, name: str, *, clock: Clock | None = None) -> Polled:
    """Fetch the full-depth snapshots that are due in this minute and journal them.

    A round that starts late does not run into the next minute: what finds no weight in time is declared, and
    its symbol waits for its next turn.
    """
    clock = clock or SystemClock()
    exchange = venue(name, config.exchanges[name])
    async with Round(config, exchange, "depth_snapshot", clock) as round_:
        symbols = await symbols_of(config.layout, exchange, round_.client, clock)
        rotation = snapshot_rotation(exchange, symbols)
        round_.polled.cadence = rotation.cadence
        minute, into = divmod(clock.wall_ns() // 1_000_000_000, 60)
        due = rotation.due(minute)
        round_.note("environment", cadence_seconds=rotation.cadence.total_seconds(), symbols=len(symbols), due=len(due))
        requests = [exchange.snapshot_request(symbol, exchange.config.snapshot_limit) for symbol in due]
        await round_.ask(requests, max_wait=max(1.0, 50.0 - into))
    return round_.polled


async def poll(
    config: Config, name: str, channel: str, *, since: datetime | None = None, clock: Clock | None = None
) -> Polled:
    """Ask what the venue says for `channel` (`funding_rate`, `open_interest`, `instrument`) and journal the answers.

    since: for history, from when on.
    """
    clock = clock or SystemClock()
    exchange = venue(name, config.exchanges[name])
    async with Round(config, exchange, channel, clock) as round_:
        if channel == "instrument":
            await round_.ask_catalogue()
        else:
            symbols = await symbols_of(config.layout, exchange, round_.client, clock)
            now = datetime_from_ns(clock.wall_ns())
            requests = exchange.poll_requests(channel, symbols, since or now - timedelta(hours=1))
            await round_.ask(requests, parallel=1 if channel in _ORDERED else PARALLEL)
    return round_.polled
