"""What a live and a replayed Binance venue have in common: streams, routes, limits, the shutdown notice."""

from __future__ import annotations

import asyncio

from simulator.config import SimulatorConfig
from simulator.hub import Stream
from simulator.limits import WeightLimiter
from simulator.truth import Ledger
from simulator.venue import Venue

MAX_STREAMS = 1024


def futures_category(name: str) -> str:
    """The routed path that serves a stream: ``public``, ``market``, or ``both``.

    ``@trade`` is undocumented and reports of 2026 contradict each other; here it is served on both.
    """
    channel = name.partition("@")[2]
    if channel.startswith(("depth", "bookTicker", "rpiDepth")) or name == "!bookTicker":
        return "public"
    return "both" if channel == "trade" else "market"


class BinanceVenue(Venue):
    """State and rules of one Binance venue behind its prefix."""

    def __init__(self, key: str, config: SimulatorConfig, ledger: Ledger, start_ms: int) -> None:
        super().__init__(key, config, ledger, start_ms)
        self.is_spot = key == "binance_spot"
        limit = config.spot_weight_limit if self.is_spot else config.futures_weight_limit
        self.limiter = WeightLimiter(limit, ban_seconds=config.ban_seconds)
        self.snapshot_orders: dict[str, list[str]] = {}

    def make_stream(self, name: str) -> Stream:
        symbol, _, channel = name.partition("@")
        if name.startswith("!"):
            symbol, channel = "", name
        opening = b'{"stream":"' + name.encode() + b'","data":'
        return Stream(name, channel, symbol.upper(), opening, b"}")

    def limit_requests(self, count: int) -> None:
        self.limiter.limit = count

    def refuse_requests(self, count: int) -> None:
        self.limiter.force(requests=count)

    @property
    def used_weight(self) -> int:
        return self.limiter.used

    def delivers(self, route: str, name: str) -> bool:
        """Whether a subscription on this route can ever bring data. Every subscription is acknowledged."""
        if self.is_silenced(name):
            return False
        if self.is_spot:
            return True
        category = futures_category(name)
        return category == "both" or category == ("public" if route == "legacy" else route)

    def server_shutdown(self, grace: float | None = None, cause: str = "order") -> int:
        """``serverShutdown`` to all, then a close after the grace time."""
        picked = list(self.hub.connections.values())
        text = f'{{"e":"serverShutdown","E":{self.now_ms()}}}'.encode()
        self.hub.broadcast(b'{"stream":"!serverShutdown","data":' + text + b"}", text)
        self.hub.flush()
        loop = asyncio.get_running_loop()
        for connection in picked:
            self.fault("server_shutdown", connection=connection.id, cause=cause)
            delay = self.config.shutdown_grace if grace is None else grace
            connection.timers.append(loop.call_later(delay, connection.close, 1001, "server shutdown"))
        return len(picked)
