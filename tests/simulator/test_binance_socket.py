"""The WebSocket rules of Binance: routes, silent acknowledgements, control messages, pings and limits."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from simulator.limits import TokenBucket
from simulator.testing import running
from tests.simulator.book_client import connect, manual

FUTURES, SPOT = "binance_futures", "binance_spot"


@pytest.mark.parametrize(
    ("path", "names", "heard"),
    [
        ("/public/stream", ["btcusdt@depth@100ms", "btcusdt@aggTrade"], {"btcusdt@depth@100ms"}),
        ("/market/stream", ["btcusdt@depth@100ms", "btcusdt@aggTrade"], {"btcusdt@aggTrade"}),
        ("/stream", ["btcusdt@bookTicker", "btcusdt@aggTrade", "btcusdt@markPrice@1s"], {"btcusdt@bookTicker"}),
        ("/public/stream", ["BTCUSDT@depth@100ms", "btcusdt@depth@250ms", "nopeusdt@depth"], set()),
        ("/public/stream", ["btcusdt@trade"], {"btcusdt@trade"}),
        ("/market/stream", ["btcusdt@trade"], {"btcusdt@trade"}),
    ],
)
async def test_a_subscription_is_always_acknowledged_and_delivers_on_the_right_path_alone(
    path: str, names: list[str], heard: set[str]
) -> None:
    async with running(manual()) as sim, connect(sim, FUTURES, path) as client:
        assert await client.subscribe(*names) == {"result": None, "id": 1}
        sim.control.advance(2)
        assert {message["stream"] for message in await client.drain()} == heard
        listed = await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 3})
        assert listed == {"result": names, "id": 3}


@pytest.mark.parametrize("name", ["BTCUSDT@depth@100ms", "btcusdt@depth@0ms", "btcusdt@depth@50ms", "btcusdt@depth30"])
async def test_spot_acknowledges_nonsense_and_stays_silent(name: str) -> None:
    async with running(manual()) as sim, connect(sim, SPOT, "/stream") as client:
        assert (await client.subscribe(name))["result"] is None
        sim.control.advance(2)
        assert await client.drain() == []


async def test_names_with_non_ascii_letters_work_in_the_url_and_in_messages() -> None:
    async with (
        running(manual(symbols=9)) as sim,
        connect(sim, SPOT, "/stream?streams=币安人生usdt@depth@100ms") as a,
        connect(sim, FUTURES, "/public/stream") as b,
    ):
        await b.subscribe("币安人生usdt@depth@100ms")
        sim.control.advance(0.5)
        for client in (a, b):
            messages = await client.drain()
            assert messages[0]["stream"] == "币安人生usdt@depth@100ms"
            assert messages[0]["data"]["s"] == "币安人生USDT"


async def test_control_messages_answer_as_measured() -> None:
    async with running(manual()) as sim, connect(sim, SPOT, "/ws") as client:
        assert await client.subscribe("btcusdt@trade") == {"result": None, "id": 1}
        assert await client.ask({"method": "GET_PROPERTY", "params": ["combined"], "id": "a"}) == {
            "result": False,
            "id": "a",
        }
        await client.ask({"method": "SET_PROPERTY", "params": ["combined", True], "id": 5})
        sim.control.advance(3)
        assert {message["stream"] for message in await client.drain()} == {"btcusdt@trade"}
        await client.ask({"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 6})
        sim.control.advance(3)
        assert await client.drain() == []
        reply = await client.ask({"method": "FOO", "id": 20})
        assert reply["error"]["code"] == 2
        assert reply["error"]["msg"].startswith("Invalid request: unknown variant `FOO`, expected one of `SUBSCRIBE`")
        assert (await client.ask({"method": "SUBSCRIBE", "params": [1], "id": 7}))["error"]["code"] == 2
        assert (await client.ask({"method": "GET_PROPERTY", "params": ["x"], "id": 8}))["error"]["code"] == 0
        await client.socket.send_str("no json")
        assert await client.closed() == 1008


async def test_the_1025th_stream_loses_the_connection() -> None:
    async with running(manual()) as sim, connect(sim, FUTURES, "/public/stream") as client:
        await client.subscribe(*(f"s{n}usdt@depth" for n in range(1024)))
        reply = await client.subscribe("btcusdt@depth")
        assert reply["error"] == {"code": 4, "msg": "Too many subscriptions"}
        assert await client.closed() == 1008


async def test_a_flood_of_messages_closes_with_1008() -> None:
    async with running(manual(message_limits=True)) as sim, connect(sim, FUTURES, "/public/stream") as client:
        for n in range(40):
            await client.socket.send_str(f'{{"method":"LIST_SUBSCRIPTIONS","id":{n}}}')
        assert await client.closed() == 1008
        assert 10 <= len(client.raw) <= 17


def test_the_message_bucket_lets_the_documented_rate_through() -> None:
    bucket = TokenBucket(5, 6)
    assert all(bucket.take(n / 5) for n in range(100))
    assert [bucket.take(20.0) for _ in range(8)].count(True) <= 6


async def test_pings_carry_a_payload_and_only_its_copy_keeps_the_connection() -> None:
    config = manual(ping_interval=0.05, pong_timeout=0.4)
    async with running(config) as sim, connect(sim, SPOT, "/stream", autoping=False) as client:
        started = time.monotonic()
        answered = 0
        while time.monotonic() - started < 0.8:
            message = await client.socket.receive(timeout=2)
            assert message.type is aiohttp.WSMsgType.PING
            assert message.data.isdigit()
            await client.socket.pong(message.data)
            answered += 1
        assert answered > 5
        while (message := await client.socket.receive(timeout=2)).type is aiohttp.WSMsgType.PING:
            await client.socket.pong(b"")  # allowed, but it does not keep the connection alive
        assert client.socket.close_code == 1008
        assert message.extra == "Pong timeout"


async def test_a_connection_ends_at_its_lifetime() -> None:
    async with running(manual(connection_lifetime=0.2)) as sim, connect(sim, SPOT, "/ws/btcusdt@trade") as client:
        async with asyncio.timeout(2):
            assert await client.closed() == 1001


async def test_a_shutdown_is_announced_without_subscription_and_then_done() -> None:
    async with (
        running(manual()) as sim,
        connect(sim, SPOT, "/ws") as raw,
        connect(sim, SPOT, "/stream") as combined,
        connect(sim, FUTURES, "/public/ws") as other,
    ):
        assert sim.control.fault(SPOT, "server_shutdown", grace=0.1) == 2
        assert (await raw.socket.receive_json())["e"] == "serverShutdown"
        notice = await combined.socket.receive_json()
        assert notice["stream"] == "!serverShutdown"
        assert notice["data"]["e"] == "serverShutdown"
        assert await raw.closed() == 1001
        assert await combined.closed() == 1001
        assert (await other.ask({"method": "LIST_SUBSCRIPTIONS", "id": 1}))["result"] == []


async def test_a_reconnect_storm_is_refused() -> None:
    async with running(manual(message_limits=True)) as sim:
        venue = sim.simulator.venues[SPOT]
        assert [venue.refuse_handshake() for _ in range(300)] == [None] * 300
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connect(sim, SPOT, "/stream"):
                pass
        assert refused.value.status == 429
        sim.control.advance(301)
        async with connect(sim, SPOT, "/stream"):
            pass


async def test_a_path_that_is_no_stream_is_refused() -> None:
    async with running(manual()) as sim:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with connect(sim, SPOT, "/public/ws"):
                pass
