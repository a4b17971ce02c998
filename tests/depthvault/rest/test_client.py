"""The client against a real HTTP server that answers as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from depthvault.clock import ManualClock
from depthvault.config import BinanceSpotConfig
from depthvault.errors import BannedError, RateLimitedError, RestError, RestrictedError
from depthvault.exchanges.base import Request
from depthvault.exchanges.binance_spot import BinanceSpot
from depthvault.rest.client import RestClient
from depthvault.rest.weight import Priority, WeightBudget

NOW = 1_700_000_040_000_000_000
REQUEST = Request("/api/v3/depth", (("symbol", "币安人生USDT"), ("limit", "1000")), 50)
Answering = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def client_of(answer: Answering, tmp_path: Path, clock: ManualClock | None = None) -> AsyncIterator[RestClient]:
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = BinanceSpotConfig(
        rest_url=f"http://127.0.0.1:{runner.addresses[0][1]}", open_timeout=timedelta(milliseconds=500)
    )
    budget = WeightBudget(tmp_path / "weight.sqlite", clock=clock)
    try:
        async with RestClient(BinanceSpot(config), budget, clock=clock) as client:
            yield client
    finally:
        await runner.cleanup()


def saying(status: int, text: str = "{}", **headers: str) -> Answering:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


async def test_answer_is_verbatim_with_times_and_used_weight(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.query == {"symbol": "币安人生USDT", "limit": "1000"}
        response = web.Response(text='{"lastUpdateId":1, "bids":[] }', headers={"X-MBX-USED-WEIGHT-1M": "321"})
        response.enable_compression()
        return response

    async with client_of(answer, tmp_path) as client:
        got = await client.get(REQUEST)
        assert got.body == b'{"lastUpdateId":1, "bids":[] }'
        assert got.used_weight == 321
        assert got.sent_wall_ns < got.received_wall_ns
        assert 0 < got.round_trip < 5
        assert client.budget.usage(client.host).observed in (321, 0)  # 0: the minute turned meanwhile


async def test_429_pauses_everybody_for_the_time_it_says(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    async with client_of(saying(429, Retry_After="7"), tmp_path, clock) as client:
        with pytest.raises(RateLimitedError) as caught:
            await client.get(REQUEST)
        assert caught.value.retry_after == pytest.approx(7)
        assert client.budget.reserve(client.host, 6000, 1).wait == pytest.approx(7)
        with pytest.raises(BannedError):
            await client.get(REQUEST, max_wait=1)


@pytest.mark.parametrize(
    ("text", "headers", "seconds"),
    [
        ('{"code":-1003,"msg":"Way too much; IP banned until %d. Use streams."}', {}, 300),
        ('{"code":-1003,"msg":"Way too much; IP banned until %d."}', {"Retry_After": "20"}, 300),
        ("{}", {"Retry_After": "450"}, 450),
        ("{}", {}, 120),
    ],
)
async def test_418_is_a_ban_until_what_header_or_text_says(
    text: str, headers: dict[str, str], seconds: int, tmp_path: Path
) -> None:
    clock = ManualClock(NOW)
    body = text % (NOW // 10**6 + 300_000) if "%d" in text else text
    async with client_of(saying(418, body, **headers), tmp_path, clock) as client:
        with pytest.raises(BannedError) as caught:
            await client.get(REQUEST)
        assert caught.value.until == pytest.approx(NOW / 1e9 + seconds)
        assert client.budget.reserve(client.host, 6000, 1).wait == pytest.approx(seconds)


async def test_451_is_a_restriction(tmp_path: Path) -> None:
    async with client_of(saying(451, "not from here"), tmp_path) as client:
        with pytest.raises(RestrictedError, match="HTTP 451 not from here"):
            await client.get(REQUEST)


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
async def test_other_refusals_keep_their_status(status: int, tmp_path: Path) -> None:
    async with client_of(saying(status, '{"code":-1121,"msg":"Invalid symbol."}'), tmp_path) as client:
        with pytest.raises(RestError, match="Invalid symbol") as caught:
            await client.get(REQUEST)
        assert caught.value.status == status
        assert client.budget.reserve(client.host, 6000, 1).granted


async def test_silence_is_a_timeout_and_its_weight_stays_counted(tmp_path: Path) -> None:
    async def never(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with client_of(never, tmp_path) as client:
        with pytest.raises(RestError, match=r"no answer to /api/v3/depth in 0\.5 s") as caught:
            await client.get(REQUEST)
        assert caught.value.status == 0
        assert client.budget.usage(client.host).reserved in (50, 0)


async def test_nobody_there_is_a_rest_error(tmp_path: Path) -> None:
    config = BinanceSpotConfig(rest_url="http://127.0.0.1:1")
    async with RestClient(BinanceSpot(config), WeightBudget(tmp_path / "weight.sqlite")) as client:
        with pytest.raises(RestError, match=r"127\.0\.0\.1:1"):
            await client.get(REQUEST)


async def test_spent_budget_is_told_without_asking_the_venue(tmp_path: Path) -> None:
    asked = 0

    async def count(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(text="{}")

    clock = ManualClock(NOW)
    async with client_of(count, tmp_path, clock) as client:
        client.budget.reserve(client.host, 6000, 4800, Priority.RESYNC)
        with pytest.raises(RateLimitedError, match="budget of this minute is spent"):
            await client.get(REQUEST, Priority.RESYNC, max_wait=5)
    assert asked == 0
