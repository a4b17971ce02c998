"""A plain client for the simulator's tests: it keeps books by the venue's published procedure and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from simulator.server import SimulatorConfig
from simulator.testing import START_MS, Running


def manual(**options: Any) -> SimulatorConfig:
    """A small simulator of the two Binance venues whose clock moves only when told."""
    defaults: dict[str, Any] = {
        "symbols": 3,
        "venues": ("binance_spot", "binance_futures"),
        "manual_clock": True,
        "start_ms": START_MS,
        "message_limits": False,
    }
    return SimulatorConfig(**{**defaults, **options})


class Socket:
    """A WebSocket client that keeps every message."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.raw: list[str] = []

    async def ask(self, message: Any) -> Any:
        """Send a message and return the first reply that is no event."""
        await self.socket.send_str(message if isinstance(message, str) else json.dumps(message))
        while True:
            text = await self.socket.receive_str(timeout=5)
            reply = json.loads(text)
            if "id" in reply or "error" in reply:
                return reply
            self.raw.append(text)

    async def subscribe(self, *names: str) -> Any:
        return await self.ask({"method": "SUBSCRIBE", "params": list(names), "id": 1})

    async def drain(self) -> list[Any]:
        """Everything sent so far, as objects, invalid JSON as text; a ping-pong makes sure nothing is under way."""
        await self.socket.send_str('{"method":"LIST_SUBSCRIPTIONS","id":"drain"}')
        out: list[Any] = [json.loads(text) for text in self.raw]
        self.raw.clear()
        while True:
            message = await self.socket.receive(timeout=5)
            assert message.type is aiohttp.WSMsgType.TEXT, message
            try:
                data = json.loads(message.data)
            except ValueError:
                out.append(message.data)
                continue
            if isinstance(data, dict) and data.get("id") == "drain":
                return out
            out.append(data)

    async def closed(self) -> int | None:
        """Read until the connection ends; returns the close code."""
        while True:
            message = await self.socket.receive(timeout=5)
            if message.type is aiohttp.WSMsgType.TEXT:
                self.raw.append(message.data)
            elif message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
                return self.socket.close_code


@contextlib.asynccontextmanager
async def connect(sim: Running, venue: str, path: str, **options: Any) -> AsyncIterator[Socket]:
    hub = sim.simulator.venues[venue].hub
    known = set(hub.connections)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            sim.ws_url(venue) + path, max_msg_size=0, timeout=aiohttp.ClientWSTimeout(ws_close=0.5), **options
        ) as socket,
    ):
        # The handshake is answered before the connection is on the hub: what happens between would not reach it.
        async with asyncio.timeout(10):
            while not set(hub.connections) - known and not socket.closed:
                await asyncio.sleep(0)
        yield Socket(socket)


async def get(sim: Running, venue: str, path: str, **params: str | int) -> tuple[int, Any, dict[str, str]]:
    """``(status, JSON body or text, headers)`` of a REST request."""
    async with aiohttp.ClientSession() as session, session.get(sim.rest_url(venue) + path, params=params) as answer:
        text = await answer.text()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text), dict(answer.headers)
        return answer.status, text, dict(answer.headers)


async def get_while_ticking(sim: Running, venue: str, path: str, **params: str | int) -> Any:
    """A request whose answer waits for the market to move."""
    request = asyncio.create_task(get(sim, venue, path, **params))
    while not request.done():
        await asyncio.sleep(0.01)
        sim.control.advance(0.025)
    return request.result()[1]


DEPTH_PATH = {"binance_spot": "/api/v3/depth", "binance_futures": "/fapi/v1/depth"}


class Book:
    """A book as a client keeps it: price text to size text."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.id: int = snapshot["lastUpdateId"]
        self.bids: dict[str, str] = dict(snapshot["bids"])
        self.asks: dict[str, str] = dict(snapshot["asks"])
        self.applied = 0

    def apply(self, event: dict[str, Any]) -> bool:
        """Apply a diff by the documented rules; False where the chain is broken."""
        if "pu" in event:
            if event["u"] < self.id:
                return True
            follows = event["pu"] == self.id if self.applied else event["U"] <= self.id <= event["u"]
            if not follows and not (self.applied == 0 and event["pu"] == self.id):
                return False
        else:
            if event["u"] <= self.id:
                return True
            if event["U"] > self.id + 1:
                return False
        for side, changes in ((self.bids, event["b"]), (self.asks, event["a"])):
            for price, size in changes:
                if float(size):
                    side[price] = size
                else:
                    side.pop(price, None)
        self.id = event["u"]
        self.applied += 1
        return True

    def crossed(self) -> bool:
        return max(map(float, self.bids)) >= min(map(float, self.asks))
