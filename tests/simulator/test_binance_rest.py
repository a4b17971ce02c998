"""REST weights, refusals and errors of the simulated Binance."""

from __future__ import annotations

import pytest

from simulator.binance_rest import weight_of
from simulator.limits import WeightLimiter
from simulator.testing import running
from tests.simulator.book_client import DEPTH_PATH, get, manual

FUTURES, SPOT = "binance_futures", "binance_spot"


@pytest.mark.parametrize(
    ("limit", "spot", "futures"),
    [(5, 5, 2), (50, 5, 2), (100, 5, 5), (500, 25, 10), (1000, 50, 20), (5000, 250, 1), (None, 5, 1)],
)
def test_depth_weighs_by_limit(limit: int | None, spot: int, futures: int) -> None:
    query = {"symbol": "BTCUSDT"} | ({} if limit is None else {"limit": str(limit)})
    assert weight_of("depth", query, is_spot=True) == spot
    assert weight_of("depth", query, is_spot=False) == futures


async def test_the_used_weight_counts_per_utc_minute() -> None:
    async with running(manual()) as sim:
        for expected in (50, 100):
            _, _, headers = await get(sim, SPOT, DEPTH_PATH[SPOT], symbol="BTCUSDT", limit=1000)
            assert headers["X-MBX-USED-WEIGHT-1M"] == str(expected)
        sim.control.advance(60)
        _, _, headers = await get(sim, SPOT, "/api/v3/time")
        assert headers["X-MBX-USED-WEIGHT-1M"] == "1"


async def test_too_much_weight_brings_429_and_ignoring_it_a_ban() -> None:
    async with running(manual(futures_weight_limit=40, ban_seconds=30)) as sim:

        async def depth() -> tuple[int, dict[str, str], str]:
            status, body, headers = await get(sim, FUTURES, DEPTH_PATH[FUTURES], symbol="BTCUSDT", limit=1000)
            return status, headers, body.get("msg", "")

        assert [(await depth())[0] for _ in range(3)] == [200, 200, 429]
        status, headers, text = await depth()
        assert status == 429
        assert 1 <= int(headers["Retry-After"]) <= 60
        assert text.startswith("Too much request weight used; current limit is 40 request weight per 1 MINUTE.")
        statuses = [(await depth())[0] for _ in range(12)]
        assert statuses[-1] == 418
        status, headers, text = await depth()
        assert headers["Retry-After"] == "30"
        assert "IP banned until" in text
        sim.control.advance(61)
        assert (await depth())[0] == 200


def test_a_minute_of_patience_clears_the_limiter() -> None:
    limiter = WeightLimiter(100)
    assert limiter.request(100, 0).status == 200
    refused = limiter.request(1, 59_000)
    assert (refused.status, refused.retry_after) == (429, 1)
    assert limiter.request(1, 60_000).status == 200


@pytest.mark.parametrize(
    ("venue", "query", "code"),
    [
        (FUTURES, {"symbol": "NOPEUSDT"}, -1121),
        (FUTURES, {"symbol": "BTCUSDT", "limit": 7}, -4021),
        (FUTURES, {}, -1102),
        (SPOT, {"symbol": "btcusdt"}, -1121),
        (SPOT, {"symbol": "BTCUSDT", "limit": "x"}, -1100),
    ],
)
async def test_bad_requests_cost_weight_and_say_why(venue: str, query: dict[str, str | int], code: int) -> None:
    async with running(manual()) as sim:
        status, body, headers = await get(sim, venue, DEPTH_PATH[venue], **query)
        assert (status, body["code"]) == (400, code)
        assert int(headers["X-MBX-USED-WEIGHT-1M"]) >= 1


async def test_spot_takes_any_limit_and_cuts_at_5000() -> None:
    async with running(manual()) as sim:
        _, body, _ = await get(sim, SPOT, DEPTH_PATH[SPOT], symbol="BTCUSDT", limit=7)
        assert len(body["bids"]) == len(body["asks"]) == 7
        assert set(body) == {"lastUpdateId", "bids", "asks"}
        assert (await get(sim, SPOT, DEPTH_PATH[SPOT], symbol="BTCUSDT", limit=9999))[0] == 200


async def test_the_catalogue_holds_rows_a_client_must_leave_out() -> None:
    async with running(manual(symbols=10)) as sim:
        _, body, _ = await get(sim, FUTURES, "/fapi/v1/exchangeInfo")
        rows = {row["symbol"]: row for row in body["symbols"]}
        wanted = {
            name
            for name, row in rows.items()
            if (row["contractType"], row["quoteAsset"], row["status"]) == ("PERPETUAL", "USDT", "TRADING")
        }
        assert len(wanted) == 10
        assert {"OMGUSDT", "BTCUSDT_261225", "XAUUSDT", "BTCUSDC"} == set(rows) - wanted
        btc = {f["filterType"]: f for f in rows["BTCUSDT"]["filters"]}
        assert (rows["BTCUSDT"]["pricePrecision"], btc["PRICE_FILTER"]["tickSize"]) == (2, "0.10")
        _, body, _ = await get(sim, SPOT, "/api/v3/exchangeInfo")
        assert sum(row["status"] == "TRADING" and row["quoteAsset"] == "USDT" for row in body["symbols"]) == 10
        assert body["rateLimits"][0]["limit"] == 6000


async def test_ordered_refusals_hit_the_named_endpoint_once() -> None:
    async with running(manual()) as sim:
        sim.control.fault(SPOT, "rest_5xx", status=502, endpoint="depth")
        assert (await get(sim, SPOT, "/api/v3/time"))[0] == 200
        assert (await get(sim, SPOT, DEPTH_PATH[SPOT], symbol="BTCUSDT"))[0] == 502
        assert (await get(sim, SPOT, DEPTH_PATH[SPOT], symbol="BTCUSDT"))[0] == 200
        sim.control.fault(SPOT, "rest_429")
        status, _, headers = await get(sim, SPOT, "/api/v3/time")
        assert status == 429
        assert "Retry-After" in headers
        assert (await get(sim, SPOT, "/api/v3/time"))[0] == 200
        sim.control.fault(SPOT, "rest_ban", seconds=10)
        assert (await get(sim, SPOT, "/api/v3/time"))[0] == 418
        sim.control.advance(10)
        assert (await get(sim, SPOT, "/api/v3/time"))[0] == 200
        sim.control.fault(SPOT, "rest_timeout", seconds=0.05, endpoint="time")
        assert (await get(sim, SPOT, "/api/v3/time"))[0] == 503
