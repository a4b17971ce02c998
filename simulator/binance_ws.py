"""The WebSocket face of Binance: paths, control messages, pings, limits and the end of a connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import unquote

from aiohttp import WSMsgType, web

from simulator.binance_venue import MAX_STREAMS, BinanceVenue
from simulator.frames import close_frame, pong_frame
from simulator.hub import Connection
from simulator.limits import TokenBucket

_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_UNKNOWN_METHOD = "Invalid request: unknown variant `%s`, expected one of " + ", ".join(
    f"`{name}`" for name in _METHODS
)


def split_path(path: str, query: str, *, is_spot: bool) -> tuple[str, bool, list[str]] | None:
    """``(route, combined, stream names)`` of a WebSocket path below the venue's prefix; None if it is none.

    ``/ws/<a>/<b>`` is raw, ``/stream?streams=a/b`` combined; futures put ``/public`` or ``/market`` before it,
    the unrouted form is ``legacy``.
    """
    parts = [unquote(part) for part in path.strip("/").split("/")]
    route = "spot" if is_spot else "legacy"
    if not is_spot and parts and parts[0] in ("public", "market", "private"):
        route = parts.pop(0)
    if not parts or parts[0] not in ("ws", "stream"):
        return None
    if parts[0] == "ws":
        return route, False, [name for name in parts[1:] if name]
    names: list[str] = []
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key == "streams":
            names += [name for name in unquote(value).split("/") if name]
    return route, True, names


class BinanceSocket:
    """One client on one connection."""

    def __init__(self, venue: BinanceVenue, connection: Connection, route: str) -> None:
        self.venue = venue
        self.connection = connection
        self.route = route
        self.bucket = TokenBucket(5, 6) if venue.is_spot else TokenBucket(10, 15)
        config = venue.config
        self.ping_interval = config.ping_interval or (20.0 if venue.is_spot else 180.0)
        self.pong_timeout = config.pong_timeout or (60.0 if venue.is_spot else 600.0)

    async def run(self, socket: web.WebSocketResponse, names: list[str]) -> None:
        loop = asyncio.get_running_loop()
        connection = self.connection
        if not self.subscribe(names):
            return
        connection.timers.append(loop.call_later(min(7.4, self.ping_interval), self._ping))
        if self.venue.config.connection_lifetime is not None:
            lifetime = self.venue.config.connection_lifetime
            connection.timers.append(loop.call_later(lifetime, self.venue.lifetime_cut, connection.id, "lifetime"))
        while True:
            message = await socket.receive()
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                self._client_left(message)
                return
            if connection.half_open:
                continue
            if self.venue.config.message_limits and not self.bucket.take(loop.time()):
                connection.close(1008, "Too many requests")
                continue
            if message.type is WSMsgType.PING:
                connection.queue(pong_frame(message.data))
                connection.flush()
            elif message.type is WSMsgType.PONG:
                self._pong(bytes(message.data))
            elif message.type is WSMsgType.TEXT:
                self._text(message.data)
                connection.flush()
            else:
                connection.close(1008, "Invalid request")

    def _client_left(self, message: Any) -> None:
        connection = self.connection
        if connection.closing:
            return
        code = message.data if isinstance(message.data, int) else 1006
        connection.closed_note = (code, "closed by client")
        if message.type is WSMsgType.CLOSE and not connection.half_open:
            connection.queue(close_frame(code if code >= 1000 else 1000, ""))
            connection.flush()

    # -- keep-alive ------------------------------------------------------------------------------------

    def _ping(self) -> None:
        connection = self.connection
        if connection.closing:
            return
        loop = asyncio.get_running_loop()
        connection.ping(str(self.venue.now_ms()).encode())
        if connection.pong_due is None and not connection.half_open:
            connection.pong_due = loop.call_later(self.pong_timeout, connection.close, 1008, "Pong timeout")
        connection.timers.append(loop.call_later(self.ping_interval, self._ping))
        if len(connection.timers) > 64:
            now = loop.time()
            connection.timers = [t for t in connection.timers if not t.cancelled() and t.when() > now]

    def _pong(self, payload: bytes) -> None:
        """Only a pong that copies the ping's payload keeps the connection alive."""
        connection = self.connection
        if payload == connection.last_ping and connection.pong_due is not None:
            connection.pong_due.cancel()
            connection.pong_due = None

    # -- control messages ------------------------------------------------------------------------------

    def subscribe(self, names: list[str]) -> bool:
        """Subscribe; over the stream limit everything is lost (measured): error 4, then 1008."""
        connection, venue = self.connection, self.venue
        if len(set(connection.names) | set(names)) > MAX_STREAMS:
            connection.send(b'{"error":{"code":4,"msg":"Too many subscriptions"}}')
            connection.close(1008, "Invalid request")
            return False
        venue.hub.subscribe(connection, names, lambda name: venue.delivers(self.route, name))
        return True

    def _text(self, text: str) -> None:
        connection = self.connection
        try:
            message = json.loads(text)
        except ValueError:
            connection.close(1008, "Invalid request")
            return
        if not isinstance(message, dict):
            self._error(3, "Invalid JSON: expected an object", None)
            return
        request_id = message.get("id")
        method, params = message.get("method"), message.get("params")
        if method not in _METHODS:
            text = "missing field `method`" if method is None else _UNKNOWN_METHOD % method
            self._error(2, text, request_id)
            return
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
                self._error(2, "Invalid request: params must be an array of strings", request_id)
                return
            if method == "UNSUBSCRIBE":
                self.venue.hub.unsubscribe(connection, params)
            elif not self.subscribe(params):
                return
            self._result(None, request_id)
        elif method == "LIST_SUBSCRIPTIONS":
            self._result(list(connection.names), request_id)
        elif not params or params[0] != "combined":
            self._error(0, "Unknown property", request_id)
        elif method == "GET_PROPERTY":
            self._result(connection.combined, request_id)
        elif len(params) != 2 or not isinstance(params[1], bool):
            self._error(1, "Invalid value type: expected Boolean", request_id)
        else:
            connection.combined = params[1]
            self._result(None, request_id)

    def _result(self, result: object, request_id: object) -> None:
        text = json.dumps({"result": result, "id": request_id}, ensure_ascii=False, separators=(",", ":"))
        self.connection.send(text.encode())

    def _error(self, code: int, message: str, request_id: object) -> None:
        body = {"error": {"code": code, "msg": message}, "id": request_id}
        self.connection.send(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


async def handle(venue: BinanceVenue, request: web.Request, path: str) -> web.StreamResponse:
    """Answer a WebSocket request below the venue's prefix."""
    split = split_path(path, request.rel_url.raw_query_string, is_spot=venue.is_spot)
    if split is None:
        return web.Response(status=404)
    route, combined, names = split
    socket = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, timeout=0.2)
    if not socket.can_prepare(request).ok:
        return web.Response(status=400, text="WebSocket upgrade expected")
    await socket.prepare(request)
    connection = venue.hub.open(request.raw_path, combined=combined)
    transport = request.transport
    connection.transport = transport
    try:
        await BinanceSocket(venue, connection, route).run(socket, names)
    finally:
        venue.hub.leave(connection)
        if transport is not None:
            # The close frame is already written; aiohttp must not send a second one.
            transport.close()
    return socket
