"""The simulated Lighter: snapshots in band, the nonce chain, the limiter and the odd answers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from simulator.server import SimulatorConfig
from simulator.testing import Running, running
from tests.simulator import book_client
from tests.simulator.book_client import get

LIGHTER = "lighter"


def manual(**options: Any) -> SimulatorConfig:
    return book_client.manual(venues=(LIGHTER,), **options)


class Client:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, kind: str, channel: str) -> None:
        await self.socket.send_json({"type": kind, "channel": channel})

    async def drain(self) -> list[Any]:
        """Everything sent so far; the pong marks the end."""
        await self.socket.send_json({"type": "ping"})
        out = []
        while (message := await self.socket.receive_json(timeout=5)) != {"type": "pong"}:
            out.append(message)
        return out


@contextlib.asynccontextmanager
async def connect(sim: Running) -> AsyncIterator[Client]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            sim.ws_url(LIGHTER), max_msg_size=0, timeout=aiohttp.ClientWSTimeout(ws_close=0.5)
        ) as socket,
    ):
        first = await socket.receive_json()
        assert first["type"] == "connected"
        assert first["session_id"]
        yield Client(socket)


def apply(book: dict[str, dict[str, str]], frame: dict[str, Any]) -> None:
    for side in ("bids", "asks"):
        for level in frame["order_book"][side]:
            if Decimal(level["size"]):
                book[side][level["price"]] = level["size"]
            else:
                book[side].pop(level["price"], None)


async def test_the_snapshot_is_the_acknowledgement_and_the_nonces_chain_to_the_truth(tmp_path: Path) -> None:
    async with running(manual(truth=tmp_path)) as sim, connect(sim) as client:
        sim.control.advance(0.525)  # one book stands inside a batch, so its snapshot waits for the end
        await client.send("subscribe", "order_book/1")
        await client.send("subscribe", "order_book/0")
        seen = await client.drain()
        assert len(seen) == 1
        sim.control.advance(4)
        await client.send("subscribe", "order_book/42")
        seen += await client.drain()
        sim.control.advance(1)
        seen += await client.drain()
        frames: dict[str, list[Any]] = {}
        for frame in seen:
            frames.setdefault(frame["channel"], []).append(frame)
        assert set(frames) == {"order_book:0", "order_book:1", "order_book:42"}
        for channel, chain in frames.items():
            first, *updates = chain
            assert first["type"] == "subscribed/order_book"
            assert first["order_book"]["begin_nonce"] == 0
            book: dict[str, dict[str, str]] = {"bids": {}, "asks": {}}
            apply(book, first)
            nonce = first["order_book"]["nonce"]
            for update in updates:
                assert update["type"] == "update/order_book"
                assert update["order_book"]["begin_nonce"] == nonce
                nonce = update["order_book"]["nonce"]
                apply(book, update)
            symbol = {"order_book:1": "BTC", "order_book:0": "ETH", "order_book:42": "XRP"}[channel]
            true = sim.truth().book(LIGHTER, symbol, nonce)
            assert (true.bids, true.asks) == (
                {p: book["bids"][p] for p in true.bids},
                {p: book["asks"][p] for p in true.asks},
            )
            assert len(true.bids) == len(book["bids"])
            assert len(updates) > 15


async def test_nonces_are_one_sequence_and_offsets_are_not_contiguous() -> None:
    async with running(manual()) as sim, connect(sim) as client:
        await client.send("subscribe", "order_book/0")
        await client.send("subscribe", "order_book/1")
        await client.drain()
        sim.control.advance(5)
        frames = [frame for frame in await client.drain() if frame["type"] == "update/order_book"]
        nonces = [frame["order_book"]["nonce"] for frame in frames]
        assert len(set(nonces)) == len(nonces)
        offsets = [frame["offset"] for frame in frames if frame["channel"] == "order_book:0"]
        steps = {after - before for before, after in itertools.pairwise(offsets)}
        assert steps == {1, 2}


async def test_an_offset_jump_breaks_no_chain_and_a_drop_does(tmp_path: Path) -> None:
    async with running(manual(truth=tmp_path)) as sim, connect(sim) as client:
        await client.send("subscribe", "order_book/0")
        await client.drain()

        async def breaks() -> list[tuple[int, int]]:
            chain = [f["order_book"] for f in await client.drain() if f["type"] == "update/order_book"]
            return [
                (before["nonce"], after["begin_nonce"])
                for before, after in itertools.pairwise(chain)
                if before["nonce"] != after["begin_nonce"]
            ]

        sim.control.fault(LIGHTER, "offset_jump", symbol="ETH")
        sim.control.advance(1)
        assert await breaks() == []
        sim.control.advance(1)
        await client.drain()
        sim.control.advance(0.5)
        sim.control.fault(LIGHTER, "drop", stream="order_book:0")
        sim.control.advance(1)
        (gap,) = await breaks()
        jump, drop = sim.truth().faults(LIGHTER)
        assert jump["kind"] == "offset_jump"
        assert (drop["first_id"], drop["final_id"]) == gap


async def test_a_resync_is_unsubscribe_and_subscribe_on_the_live_connection() -> None:
    async with running(manual()) as sim, connect(sim) as client:
        await client.send("subscribe", "order_book/0")
        await client.drain()
        sim.control.advance(0.425)
        await client.send("unsubscribe", "order_book/0")
        await client.send("subscribe", "order_book/0")
        await client.drain()
        sim.control.advance(0.5)
        types = [frame["type"] for frame in await client.drain()]
        assert types.count("subscribed/order_book") <= 1
        assert "update/order_book" in types


async def test_the_control_frames_are_the_captured_ones() -> None:
    async with running(manual()) as sim, connect(sim) as client:
        await client.send("subscribe", "order_book/0")
        await client.drain()
        await client.send("subscribe", "order_book/0")
        await client.send("subscribe", "order_book/777")
        await client.send("subscribe", "nonsense/0")
        await client.send("unsubscribe", "order_book/0")
        assert await client.socket.receive_str() == (
            '{"error":{"code":30003,"message":"Already Subscribed to : order_book:0"}}'
        )
        assert await client.socket.receive_str() == '{"error":{"code":30005,"message":"Invalid Channel:  (marketId)"}}'
        assert await client.socket.receive_str() == '{"error":{"code":30005,"message":"Invalid Channel"}}'
        assert await client.socket.receive_str() == '{"type": "unsubscribed", "channel": "order_book:0"}'


async def test_the_39th_message_of_a_burst_is_refused_and_stays_silent() -> None:
    async with running(manual(symbols=60, book_levels=20, message_limits=True)) as sim:
        _, body, _ = await get(sim, LIGHTER, "/api/v1/orderBooks", filter="perp")
        ids = [row["market_id"] for row in body["order_books"]][:45]
        async with connect(sim) as client:
            for market_id in ids:
                await client.send("subscribe", f"order_book/{market_id}")
            frames = [await client.socket.receive_json() for _ in ids]
            accepted = [frame for frame in frames if frame.get("type") == "subscribed/order_book"]
            refused = [frame for frame in frames if frame.get("error", {}).get("code") == 30009]
            assert len(accepted) in (38, 39)
            assert len(accepted) + len(refused) == 45
            assert not client.socket.closed


async def test_ordered_refusals_answer_30009() -> None:
    async with running(manual()) as sim, connect(sim) as client:
        sim.control.fault(LIGHTER, "too_many_messages", count=2)
        for _ in range(3):
            await client.send("subscribe", "trade/0")
        frames = [await client.socket.receive_json() for _ in range(3)]
        assert [frame.get("error", {}).get("code") for frame in frames] == [30009, 30009, None]
        assert frames[2]["type"] == "subscribed/trade"


async def test_scheduled_refusals_are_in_the_ledger(tmp_path: Path) -> None:
    async with running(manual(symbols=1, faults="too_many=0.5", truth=tmp_path)) as sim, connect(sim) as client:
        codes = []
        for _ in range(40):
            await client.socket.send_json({"type": "ping"})
            codes.append((await client.socket.receive_json()).get("error", {}).get("code"))
        assert set(codes) == {None, 30009}
        told = [fault for fault in sim.truth().faults(LIGHTER) if fault["kind"] == "too_many_messages"]
        assert len(told) == codes.count(30009)


async def test_trades_are_replayed_on_every_subscribe_and_liquidations_stand_apart() -> None:
    async with running(manual(symbols=2)) as sim, connect(sim) as client:
        await client.send("subscribe", "trade/1")
        (empty,) = await client.drain()
        assert (empty["type"], empty["trades"]) == ("subscribed/trade", [])
        sim.control.advance(120)
        updates = await client.drain()
        plain = [trade["trade_id"] for frame in updates for trade in frame["trades"]]
        forced = [trade["trade_id"] for frame in updates for trade in frame["liquidation_trades"]]
        assert forced
        assert not set(plain) & set(forced)
        everything = sorted(plain + forced)
        assert everything == list(range(everything[0], everything[0] + len(everything)))
        await client.send("unsubscribe", "trade/1")
        await client.send("subscribe", "trade/1")
        _, again = await client.drain()
        replayed = [t["trade_id"] for t in again["trades"] + again["liquidation_trades"]]
        assert sorted(replayed) == everything[-50:]
        assert {t["type"] for frame in updates for t in frame["liquidation_trades"]} == {"liquidation"}
        trade = updates[0]["trades"][0]
        assert trade["ask_id"] > 2**53
        assert trade["ask_id_str"] == str(trade["ask_id"])
        assert trade["transaction_time"] // 1000 == trade["timestamp"]


async def test_market_stats_and_the_rest_of_the_channels_speak() -> None:
    async with running(manual()) as sim, connect(sim) as client:
        for channel in ("market_stats/1", "market_stats/all", "ticker/1", "height", "account_all/7"):
            await client.send("subscribe", channel)
        await client.drain()
        sim.control.advance(3)
        frames = await client.drain()
        stats = next(frame for frame in frames if frame["channel"] == "market_stats:1")
        assert stats["market_stats"]["symbol"] == "BTC"
        assert isinstance(stats["market_stats"]["daily_price_low"], float)
        assert isinstance(stats["market_stats"]["open_interest"], str)
        every = next(frame for frame in frames if frame["channel"] == "market_stats:all")
        assert {"0", "1", "2048"} <= set(every["market_stats"])
        assert {frame["type"] for frame in frames} >= {"update/ticker", "update/height"}


async def test_rest_answers_and_throttles_hard() -> None:
    async with running(manual(lighter_rest_limit=8)) as sim:
        sim.control.advance(70)
        for path, key in (
            ("orderBooks", "order_books"),
            ("orderBookDetails", "order_book_details"),
            ("recentTrades?market_id=1", "trades"),
            ("fundings?market_id=1&resolution=1h&count_back=5", "fundings"),
            ("funding-rates", "funding_rates"),
            ("candles?market_id=1&resolution=1m", "c"),
            ("orderBookOrders?market_id=1&limit=5", "bids"),
        ):
            status, body, _ = await get(sim, LIGHTER, f"/api/v1/{path}")
            assert status == 200
            assert body["code"] == 200
            assert body[key], path
        status, body, _ = await get(sim, LIGHTER, "/api/v1/recentTrades?market_id=9999")
        assert (status, body["code"]) == (400, 20001)
        assert (await get(sim, LIGHTER, "/api/v1/status"))[0] == 429
        sim.control.advance(61)
        assert (await get(sim, LIGHTER, "/api/v1/status"))[0] == 200


async def test_a_market_can_be_halted_and_another_listed() -> None:
    async with running(manual()) as sim, connect(sim) as client:
        await client.send("subscribe", "order_book/0")
        await client.drain()
        sim.control.fault(LIGHTER, "delist", symbol="ETH")
        sim.control.advance(1)
        assert [f for f in await client.drain() if f["type"] == "update/order_book"] == []
        sim.control.fault(LIGHTER, "list", symbol="NEW")
        _, body, _ = await get(sim, LIGHTER, "/api/v1/orderBooks")
        rows = {row["symbol"]: row for row in body["order_books"]}
        assert rows["ETH"]["status"] == "inactive"
        await client.send("subscribe", f"order_book/{rows['NEW']['market_id']}")
        await client.drain()
        sim.control.advance(1)
        assert any(f["type"] == "update/order_book" for f in await client.drain())


async def test_a_client_that_says_nothing_is_cut() -> None:
    async with running(manual(pong_timeout=0.2)) as sim, connect(sim) as client:
        async with asyncio.timeout(3):
            message = await client.socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE


@pytest.mark.recorded
def test_every_frame_has_the_fields_of_the_captured_ones() -> None:
    captured = Path(__file__).parents[3] / "shared" / "data" / "lighter_captured"
    if not captured.exists():
        pytest.skip("the Lighter captures are not here")
    real: dict[str, Any] = {}
    for name in ("order_book_crv_20260729.jsonl", "trades.jsonl", "control_and_other.jsonl"):
        for line in (captured / name).read_text(encoding="utf-8").splitlines():
            frame = json.loads(line)
            real.setdefault(frame.get("type", "error"), frame)

    async def collect() -> dict[str, Any]:
        async with running(manual()) as sim, connect(sim) as client:
            for channel in ("order_book/0", "trade/1", "ticker/1", "height", "market_stats/1"):
                await client.send("subscribe", channel)
            await client.drain()
            sim.control.advance(60)
            return {frame["type"]: frame for frame in await client.drain() if frame.get("trades") != []}

    mine = asyncio.run(collect())
    for kind in ("update/order_book", "update/ticker", "update/height", "update/market_stats", "update/trade"):
        assert list(mine[kind]) == list(real[kind]), kind
    assert list(mine["update/order_book"]["order_book"]) == list(real["update/order_book"]["order_book"])
    assert list(mine["update/market_stats"]["market_stats"]) == list(real["update/market_stats"]["market_stats"])
    assert list(mine["update/trade"]["trades"][0]) == list(real["update/trade"]["trades"][0])
