"""What every simulated venue has: streams, connections, faults and notes in the ledger."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from simulator.config import SimulatorConfig
from simulator.faults import FaultDesk, FaultSpec
from simulator.hub import Connection, Hub, Stream
from simulator.truth import FAULTS, REST, Ledger

CONNECTION_LIMITS = {
    "binance_spot": (300, 300_000),
    "binance_futures": (300, 300_000),
    "lighter": (255, 60_000),
}
"""New connections of one IP and the milliseconds in which they count (that of futures is taken from spot)."""


class Venue:
    """State of one venue behind its prefix; what it says is up to the subclasses."""

    def __init__(self, key: str, config: SimulatorConfig, ledger: Ledger, start_ms: int) -> None:
        self.key = key
        self.config = config
        self.ledger = ledger
        self.start_ms = start_ms
        spec = FaultSpec.parse(config.faults)
        self.desk = FaultDesk(spec, random.Random(f"{config.seed}:{key}:faults"), self.now_ms)
        self.hub = Hub(key, ledger, self.desk, self.now_ms, self.make_stream)
        self.silent_subscribes: list[str] = []
        self.rest_orders: list[tuple[str, str, float]] = []
        self.handshake_refusals: list[int] = []
        self._handshakes: deque[int] = deque()

    def now_ms(self) -> int:
        """The venue's clock in milliseconds."""
        raise NotImplementedError

    def make_stream(self, name: str) -> Stream:
        """A stream of this name; called once for each name that is ever asked for."""
        raise NotImplementedError

    def known_streams(self) -> Iterator[str]:
        """Names that deliver something."""
        raise NotImplementedError

    def limit_requests(self, count: int) -> None:
        """Set how much REST weight (or how many requests) a minute allows."""
        raise NotImplementedError

    def refuse_requests(self, count: int) -> None:
        """Answer the next requests with 429."""
        raise NotImplementedError

    @property
    def used_weight(self) -> int:
        raise NotImplementedError

    def refuse_handshake(self) -> int | None:
        """The HTTP status with which this handshake is refused; None lets it in.

        The limits on new connections are documented (``CONNECTION_LIMITS``), the status 429 is assumed.
        """
        if self.handshake_refusals:
            return self.handshake_refusals.pop(0)
        limit, window_ms = CONNECTION_LIMITS[self.key]
        now = self.now_ms()
        while self._handshakes and self._handshakes[0] <= now - window_ms:
            self._handshakes.popleft()
        self._handshakes.append(now)
        return 429 if self.config.message_limits and len(self._handshakes) > limit else None

    def is_silenced(self, name: str) -> bool:
        """True when this subscription, by order or by schedule, is acknowledged and never delivers."""
        if name in self.silent_subscribes:
            self.silent_subscribes.remove(name)
            self.fault("silent", stream=name, cause="order")
            return True
        if self.desk.chance("silent"):
            self.fault("silent", stream=name, cause="schedule")
            return True
        return False

    def rest_fault(self, name: str) -> tuple[str, float] | None:
        """``("rest_5xx", status)`` or ``("rest_timeout", seconds)`` when this request shall fail."""
        for order in self.rest_orders:
            kind, wanted, value = order
            if wanted in ("", name):
                self.rest_orders.remove(order)
                return kind, value
        if self.desk.chance("rest_5xx"):
            return "rest_5xx", float(self.desk.rng.choice((500, 502, 503)))
        if self.desk.chance("rest_timeout"):
            return "rest_timeout", 60.0
        return None

    def fault(self, kind: str, **row: object) -> None:
        """Record a fault that was committed."""
        self.ledger.note(self.key, FAULTS, {"kind": kind, "time_ms": self.now_ms(), **row})

    def rest_note(self, **row: object) -> None:
        self.ledger.note(self.key, REST, {"time_ms": self.now_ms(), **row})

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
