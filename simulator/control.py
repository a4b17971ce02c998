"""Orders to a running simulator: one exact fault, a look at the state, a step of a manual clock.

In process use :class:`Control`; over HTTP ``POST /control/fault`` with ``{"venue":…,"kind":…,…}``,
``POST /control/advance`` with ``{"seconds":…}``, ``GET /control/streams`` and ``GET /control/status``.

====================  ==================================================================================
kind                  parameters (``venue`` always; ``connection`` None means all)
====================  ==================================================================================
drop                  stream, count = 1, connection (a pu, U or nonce gap)
duplicate             stream, count = 1, connection
malformed             stream, count = 1, connection (the JSON is cut off)
late                  stream, connection (the next event comes after its successor)
stall                 stream, seconds, connection (events are dropped until then)
silent                stream (its next subscribe is acknowledged and delivers nothing)
disconnect            connection (cut without a close frame)
lifetime_cut          connection (the 24 h close)
refuse_handshake      status = 451, count = 1 (of the next WebSocket handshakes)
half_open             connection (open, and dead)
server_shutdown       grace (seconds between the notice and the close)
snapshot              symbol, place = lag | inside | event_end (of the next depth answer), count = 1
rest_429              requests = 1
rest_ban              seconds (418)
rest_5xx              status = 503, endpoint = "" (any), count = 1
rest_timeout          seconds = 60, endpoint = "", count = 1
delist                symbol
resume                symbol
list                  symbol
liquidate             symbol (Binance futures: a forced order now)
rate_limit            weight (the limit a minute; requests on Lighter)
offset_jump           symbol (Lighter: the next batch's offset jumps, its nonces chain)
wrong_book            symbol (Lighter: the next whole book has one more lot at its best bid)
too_many_messages     count = 1 (Lighter: the next client messages are refused with 30009)
====================  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from simulator.binance_live import LiveBinance
from simulator.binance_venue import BinanceVenue
from simulator.faults import Rule
from simulator.instruments import binance_futures_instrument, binance_spot_instrument, lighter_instrument
from simulator.lighter_live import LighterMarket, LiveLighter
from simulator.venue import Venue

if TYPE_CHECKING:
    from simulator.server import Simulator

LOOPBACK = frozenset(("127.0.0.1", "::1", "::ffff:127.0.0.1"))
_EVENT_KINDS = ("drop", "duplicate", "malformed")
_PLACES = ("lag", "inside", "event_end")


class BadOrder(ValueError):
    """An order that names an unknown venue, kind, stream or value."""


class Control:
    """Faults and state of one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    # -- state -----------------------------------------------------------------------------------------

    def venue(self, key: str) -> Venue:
        try:
            return self._simulator.venues[key]
        except KeyError:
            raise BadOrder(f"no venue {key!r}; here are {', '.join(self._simulator.venues)}") from None

    def _binance(self, venue: Venue) -> BinanceVenue:
        if not isinstance(venue, BinanceVenue):
            raise BadOrder(f"{venue.key} knows no such fault")
        return venue

    def _lighter(self, venue: Venue) -> LiveLighter:
        if not isinstance(venue, LiveLighter):
            raise BadOrder(f"{venue.key} knows no such fault")
        return venue

    def advance(self, seconds: float) -> None:
        """Move a manual clock forward and write what happened."""
        if not self._simulator.config.manual_clock:
            raise BadOrder("the clock is not manual")
        self._simulator.advance(seconds)

    def flush_truth(self) -> None:
        """Bring the ledger to disk now (else it is at most a second behind)."""
        self._simulator.ledger.flush()

    def status(self) -> dict[str, Any]:
        return {
            key: {
                "now_ms": venue.now_ms(),
                "published": venue.hub.published,
                "used_weight": venue.used_weight,
                "connections": [
                    {
                        "connection": connection.id,
                        "path": connection.path,
                        "streams": list(connection.names),
                        "half_open": connection.half_open,
                        "backlog": connection.backlog(),
                    }
                    for connection in venue.hub.connections.values()
                ],
                "replay": None if not hasattr(venue, "recording") else self._replay_state(venue),
            }
            for key, venue in self._simulator.venues.items()
        }

    @staticmethod
    def _replay_state(venue: Any) -> dict[str, Any]:
        total = len(venue.recording.messages)
        return {"position": venue.position, "messages": total, "finished": venue.finished}

    def streams(self) -> dict[str, list[str]]:
        """Stream names that deliver something, by venue."""
        return {key: sorted(set(venue.known_streams())) for key, venue in self._simulator.venues.items()}

    # -- orders ----------------------------------------------------------------------------------------

    def fault(self, venue: str, kind: str, **parameters: Any) -> int:
        """Order one fault; returns how many connections or rules it concerns. Raises :class:`BadOrder`."""
        target = self.venue(venue)
        if kind in _EVENT_KINDS:
            rule = Rule(kind, "order", parameters.pop("count", 1), parameters.pop("connection", None))
            target.desk.arm(target.hub.streams, parameters.pop("stream"), rule)
            self._none_left(kind, parameters)
            return 1
        method: Callable[..., int] | None = getattr(self, f"_order_{kind}", None)
        if method is None:
            raise BadOrder(f"unknown fault {kind!r}")
        try:
            return method(target, **parameters)
        except TypeError as error:
            raise BadOrder(f"{kind}: {error}") from error

    @staticmethod
    def _none_left(kind: str, parameters: dict[str, Any]) -> None:
        if parameters:
            raise BadOrder(f"{kind} does not know {', '.join(parameters)}")

    def _order_stall(self, venue: Venue, stream: str, seconds: float, connection: int | None = None) -> int:
        until = venue.now_ms() + int(seconds * 1000)
        venue.desk.arm(venue.hub.streams, stream, Rule("drop", "stall", 1, connection, until))
        venue.fault("stall", stream=stream, until_ms=until, cause="order")
        return 1

    def _order_late(self, venue: Venue, stream: str, connection: int | None = None) -> int:
        venue.desk.arm(venue.hub.streams, stream, Rule("late", "order", 2, connection))
        return 1

    def _order_refuse_handshake(self, venue: Venue, status: int = 451, count: int = 1) -> int:
        venue.handshake_refusals += [status] * count
        return count

    def _order_silent(self, venue: Venue, stream: str) -> int:
        venue.silent_subscribes.append(stream)
        return 1

    def _order_disconnect(self, venue: Venue, connection: int | None = None) -> int:
        return venue.disconnect(connection)

    def _order_lifetime_cut(self, venue: Venue, connection: int | None = None) -> int:
        return venue.lifetime_cut(connection)

    def _order_half_open(self, venue: Venue, connection: int | None = None) -> int:
        return venue.go_half_open(connection)

    def _order_server_shutdown(self, venue: Venue, grace: float | None = None) -> int:
        return self._binance(venue).server_shutdown(grace)

    def _order_snapshot(self, venue: Venue, symbol: str, place: str, count: int = 1) -> int:
        if place not in _PLACES:
            raise BadOrder(f"place must be one of {', '.join(_PLACES)}")
        self._binance(venue).snapshot_orders.setdefault(symbol, []).extend([place] * count)
        return count

    def _order_rest_429(self, venue: Venue, requests: int = 1) -> int:
        venue.refuse_requests(requests)
        return requests

    def _order_rest_ban(self, venue: Venue, seconds: float) -> int:
        self._binance(venue).limiter.force(ban_seconds=seconds, now_ms=venue.now_ms())
        return 1

    def _order_rest_5xx(self, venue: Venue, status: int = 503, endpoint: str = "", count: int = 1) -> int:
        venue.rest_orders += [("rest_5xx", endpoint, float(status))] * count
        return count

    def _order_rest_timeout(self, venue: Venue, seconds: float = 60.0, endpoint: str = "", count: int = 1) -> int:
        venue.rest_orders += [("rest_timeout", endpoint, seconds)] * count
        return count

    def _order_rate_limit(self, venue: Venue, weight: int) -> int:
        venue.limit_requests(weight)
        return 1

    def _order_delist(self, venue: Venue, symbol: str) -> int:
        return self._status(venue, symbol, trading=False)

    def _order_resume(self, venue: Venue, symbol: str) -> int:
        return self._status(venue, symbol, trading=True)

    def _status(self, venue: Venue, symbol: str, *, trading: bool) -> int:
        if isinstance(venue, LiveLighter):
            self._market(venue, symbol).status = "active" if trading else "inactive"
        elif isinstance(venue, LiveBinance):
            if symbol not in venue.listed:
                raise BadOrder(f"{symbol} is not listed")
            gone = "BREAK" if venue.is_spot else "SETTLING"
            venue.set_status(symbol, "TRADING" if trading else gone)
        else:
            raise BadOrder(f"{venue.key} is replayed, not live")
        venue.fault("resume" if trading else "delist", symbol=symbol)
        return 1

    def _order_list(self, venue: Venue, symbol: str) -> int:
        if isinstance(venue, LiveLighter):
            if any(entry.instrument.symbol == symbol for entry in venue.markets.values()):
                raise BadOrder(f"{symbol} is listed already")
            perps = [key for key in venue.markets if key < 2048]
            venue.list_market(lighter_instrument(len(perps), symbol=symbol, market_id=max(perps, default=-1) + 1))
        elif isinstance(venue, LiveBinance):
            if symbol in venue.listed:
                raise BadOrder(f"{symbol} is listed already")
            make = binance_spot_instrument if venue.is_spot else binance_futures_instrument
            venue.list_symbol(make(len(venue.listed), symbol=symbol))
            if not venue.is_spot:
                venue.derivatives.contract_info(symbol, "TRADING", venue.now_ms())
        else:
            raise BadOrder(f"{venue.key} is replayed, not live")
        venue.fault("list", symbol=symbol)
        return 1

    def _order_liquidate(self, venue: Venue, symbol: str) -> int:
        if not isinstance(venue, LiveBinance) or venue.is_spot:
            raise BadOrder(f"{venue.key} knows no such fault")
        if symbol not in venue.listed:
            raise BadOrder(f"{symbol} is not listed")
        venue.derivatives.liquidate(venue.listed[symbol], venue.now_ms())
        return 1

    @staticmethod
    def _market(venue: LiveLighter, symbol: str) -> LighterMarket:
        for entry in venue.markets.values():
            if entry.instrument.symbol == symbol:
                return entry
        raise BadOrder(f"{symbol} is not listed")

    def _order_offset_jump(self, venue: Venue, symbol: str) -> int:
        self._market(self._lighter(venue), symbol).jump_offset = True
        return 1

    def _order_wrong_book(self, venue: Venue, symbol: str) -> int:
        self._market(self._lighter(venue), symbol).wrong_book = True
        return 1

    def _order_too_many_messages(self, venue: Venue, count: int = 1) -> int:
        self._lighter(venue).refused_messages += count
        return count

    # -- HTTP ------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request, path: str) -> web.Response:
        if request.remote not in LOOPBACK:
            return web.Response(status=403, text="loopback only")
        if request.method == "GET" and path == "streams":
            return web.json_response(self.streams())
        if request.method == "GET" and path == "status":
            return web.json_response(self.status())
        if request.method != "POST" or path not in ("fault", "advance", "flush"):
            return web.Response(status=404, text="unknown control path")
        try:
            order = await request.json() if path != "flush" else {}
            if path == "advance":
                self.advance(float(order["seconds"]))
                return web.json_response({"done": True})
            if path == "flush":
                self.flush_truth()
                return web.json_response({"done": True})
            return web.json_response({"done": self.fault(**order)})
        except (BadOrder, KeyError, TypeError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
