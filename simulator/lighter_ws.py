"""The WebSocket face of Lighter: slash in, colon out, a burst limiter, and clients that must speak."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from aiohttp import WSMsgType, web

from simulator.frames import close_frame, pong_frame
from simulator.hub import Connection
from simulator.lighter_live import ACCOUNT_CHANNELS, PRIVATE_CHANNELS, LiveLighter
from simulator.limits import TokenBucket

BURST, PER_SECOND = 38, 200 / 60
"""Measured: 38 messages in the first second, the rest refused; documented: 200 a minute and address."""

MAX_SUBSCRIPTIONS = 500
QUIET_SECONDS = 120.0
_MARKET_CHANNELS = ("order_book", "trade", "ticker", "market_stats")


class LighterSocket:
    """One client on one connection."""

    def __init__(self, venue: LiveLighter, connection: Connection, address: str) -> None:
        self.venue = venue
        self.connection = connection
        self.bucket = venue.buckets.setdefault(address, TokenBucket(PER_SECOND, BURST))
        self.quiet = venue.config.pong_timeout or QUIET_SECONDS

    async def run(self, socket: web.WebSocketResponse) -> None:
        loop = asyncio.get_running_loop()
        connection, config = self.connection, self.venue.config
        connection.send(f'{{"session_id":"{uuid.uuid4()}","type":"connected"}}'.encode())
        connection.flush()
        connection.timers.append(loop.call_later(config.ping_interval or 60.0, self._ping))
        if config.connection_lifetime is not None:
            connection.timers.append(
                loop.call_later(config.connection_lifetime, self.venue.lifetime_cut, connection.id, "lifetime")
            )
        self._heard()
        while True:
            message = await socket.receive()
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                self._client_left(message)
                return
            if connection.half_open:
                continue
            self._heard()
            if message.type is WSMsgType.PING:
                connection.queue(pong_frame(message.data))
            elif message.type is WSMsgType.TEXT:
                self._text(message.data, loop.time())
            connection.flush()

    def _client_left(self, message: Any) -> None:
        connection = self.connection
        if connection.closing:
            return
        code = message.data if isinstance(message.data, int) else 1006
        connection.closed_note = (code, "closed by client")
        if message.type is WSMsgType.CLOSE and not connection.half_open:
            connection.queue(close_frame(code if code >= 1000 else 1000, ""))
            connection.flush()

    def _heard(self) -> None:
        """A client that sends no frame for two minutes is cut."""
        connection = self.connection
        if connection.pong_due is not None:
            connection.pong_due.cancel()
        connection.pong_due = asyncio.get_running_loop().call_later(
            self.quiet, connection.close, 1001, "no client frame"
        )

    def _ping(self) -> None:
        """The application ping that the official client answers."""
        connection = self.connection
        if connection.closing:
            return
        connection.send(b'{"type":"ping"}')
        connection.flush()
        interval = self.venue.config.ping_interval or 60.0
        timer = asyncio.get_running_loop().call_later(interval, self._ping)
        connection.timers = [*(t for t in connection.timers[-8:] if not t.cancelled()), timer]

    # -- messages --------------------------------------------------------------------------------------

    def _text(self, text: str, now: float) -> None:
        venue = self.venue
        if venue.refused_messages > 0 or venue.desk.chance("too_many"):
            venue.refused_messages = max(0, venue.refused_messages - 1)
            venue.fault("too_many_messages", connection=self.connection.id, message=text[:200])
            self._error(30009, "Too Many Websocket Messages!")
            return
        if venue.config.message_limits and not self.bucket.take(now):
            self._error(30009, "Too Many Websocket Messages!")
            return
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        kind = message.get("type") if isinstance(message, dict) else None
        if kind == "ping":
            self.connection.send(b'{"type":"pong"}')
        elif kind == "pong":
            return
        elif kind in ("subscribe", "unsubscribe"):
            self._channel(kind, message.get("channel"), message.get("auth"))
        else:
            self._error(30005, "Invalid Channel")

    def _channel(self, kind: str, channel: object, auth: object) -> None:
        venue, connection = self.venue, self.connection
        if not isinstance(channel, str):
            self._error(30005, "Invalid Channel")
            return
        head, _, key = channel.partition("/")
        name = channel.replace("/", ":")
        if head in _MARKET_CHANNELS:
            known = (head == "market_stats" and key == "all") or (key.isdigit() and int(key) in venue.markets)
            if not known:
                self._error(30005, "Invalid Channel:  (marketId)")
                return
        elif head in PRIVATE_CHANNELS and key.isdigit():
            if kind == "subscribe" and not (isinstance(auth, str) and auth):
                # The text is the venue's; its code is not documented.
                self._error(30005, "auth field is required")
                return
        elif (head not in ACCOUNT_CHANNELS and channel != "height") or (head in ACCOUNT_CHANNELS and not key.isdigit()):
            self._error(30005, "Invalid Channel")
            return
        if kind == "unsubscribe":
            venue.unsubscribe(connection, name)
            connection.send(f'{{"type": "unsubscribed", "channel": "{name}"}}'.encode())
        elif name in connection.names:
            self._error(30003, f"Already Subscribed to : {name}")
        elif len(connection.names) >= MAX_SUBSCRIPTIONS:
            # The code of this refusal is not documented; the limiter's is assumed.
            self._error(30009, "Too Many Websocket Messages!")
        else:
            venue.subscribe(connection, name)

    def _error(self, code: int, message: str) -> None:
        self.connection.send(f'{{"error":{{"code":{code},"message":"{message}"}}}}'.encode())


async def handle(venue: LiveLighter, request: web.Request, path: str) -> web.StreamResponse:
    """Answer a WebSocket request below the venue's prefix."""
    socket = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, timeout=0.2)
    if path.strip("/") != "stream":
        return web.Response(status=404)
    if not socket.can_prepare(request).ok:
        return web.Response(status=400, text="WebSocket upgrade expected")
    await socket.prepare(request)
    connection = venue.hub.open(request.raw_path, combined=False)
    transport = request.transport
    connection.transport = transport
    try:
        await LighterSocket(venue, connection, request.remote or "").run(socket)
    finally:
        for entry in venue.markets.values():
            if connection in entry.waiting:
                entry.waiting.remove(connection)
        venue.hub.leave(connection)
        if transport is not None:
            transport.close()
    return socket
