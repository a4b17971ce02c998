"""What a live and a replayed Binance venue have in common: streams, routes, connections, limits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

from simulator.config import SimulatorConfig
from simulator.faults import FaultDesk, FaultSpec
from simulator.hub import Connection, Hub, Stream
from simulator.limits import WeightLimiter
from simulator.truth import CONNECTIONS, FAULTS, REST, Ledger

MAX_STREAMS = 1024


def futures_category(name: str) -> str:
    """The routed path that serves a stream: ``public``, ``market``, or ``both``.

    ``@trade`` is undocumented and reports of 2026 contradict each other; here it is served on both.
    """
    channel = name.partition("@")[2]
    if channel.startswith(("depth", "bookTicker", "rpiDepth")) or name == "!bookTicker":
        return "public"
    return "both" if channel == "trade" else "market"


class BinanceVenue:
    """State and rules of one Binance venue behind its prefix."""

    def __init__(self, key: str, config: SimulatorConfig, ledger: Ledger, start_ms: int) -> None:
        self.key = key
        self.config = config
        self.ledger = ledger
        self.start_ms = start_ms
        self.is_spot = key == "binance_spot"
        spec = FaultSpec.parse(config.faults)
        self.desk = FaultDesk(spec, random.Random(f"{config.seed}:{key}:faults"), self.now_ms)
        self.hub = Hub(key, ledger, self.desk, self.now_ms, self.make_stream)
        limit = config.spot_weight_limit if self.is_spot else config.futures_weight_limit
        self.limiter = WeightLimiter(limit, ban_seconds=config.ban_seconds)
        self.silent_subscribes: list[str] = []
        self.snapshot_orders: dict[str, list[str]] = {}
        self.rest_orders: list[tuple[str, str, float]] = []

    def now_ms(self) -> int:
        """The venue's clock in milliseconds."""
        raise NotImplementedError

    def make_stream(self, name: str) -> Stream:
        symbol, _, channel = name.partition("@")
        if name.startswith("!"):
            symbol, channel = "", name
        opening = b'{"stream":"' + name.encode() + b'","data":'
        return Stream(name, channel, symbol.upper(), opening, b"}")

    def known_streams(self) -> Iterator[str]:
        """Names that deliver something."""
        raise NotImplementedError

    def delivers(self, route: str, name: str) -> bool:
        """Whether a subscription on this route can ever bring data. Every subscription is acknowledged."""
        if name in self.silent_subscribes:
            self.silent_subscribes.remove(name)
            self.fault("silent", stream=name, cause="order")
            return False
        if self.desk.chance("silent"):
            self.fault("silent", stream=name, cause="schedule")
            return False
        if self.is_spot:
            return True
        category = futures_category(name)
        return category == "both" or category == ("public" if route == "legacy" else route)

    def fault(self, kind: str, **row: object) -> None:
        """Record a fault that was committed."""
        self.ledger.note(self.key, FAULTS, {"kind": kind, "time_ms": self.now_ms(), **row})

    def rest_note(self, **row: object) -> None:
        self.ledger.note(self.key, REST, {"time_ms": self.now_ms(), **row})

    def connection_note(self, **row: object) -> None:
        self.ledger.note(self.key, CONNECTIONS, {"time_ms": self.now_ms(), **row})

    # -- faults on whole connections -------------------------------------------------------------------

    def pick(self, connection_id: int | None) -> list[Connection]:
        """The connection of that id, or all."""
        if connection_id is None:
            return list(self.hub.connections.values())
        found = self.hub.connections.get(connection_id)
        return [found] if found is not None else []

    def disconnect(self, connection_id: int | None = None, cause: str = "order") -> int:
        """Cut connections without a close frame."""
        picked = self.pick(connection_id)
        for connection in picked:
            self.fault("disconnect", connection=connection.id, cause=cause)
            connection.flush()
            connection.abort("fault: disconnect")
        return len(picked)

    def lifetime_cut(self, connection_id: int | None = None, cause: str = "order") -> int:
        """The 24 h cut. The close code is not documented; 1001 (going away) is assumed."""
        picked = self.pick(connection_id)
        for connection in picked:
            self.fault("lifetime_cut", connection=connection.id, cause=cause)
            connection.close(1001, "connection lifetime reached")
        return len(picked)

    def go_half_open(self, connection_id: int | None = None, cause: str = "order") -> int:
        """The socket stays open and nothing comes any more, neither data nor pongs."""
        picked = self.pick(connection_id)
        for connection in picked:
            connection.flush()
            connection.half_open = True
            self.fault("half_open", connection=connection.id, cause=cause)
            self.hub.note("half_open", connection)
        return len(picked)

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
