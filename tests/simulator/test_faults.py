"""Every fault does what its name says, and the ledger tells exactly what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from simulator.control import BadOrder
from simulator.faults import BadFaultSpec, FaultSpec
from simulator.testing import Running, running
from simulator.truth import Truth
from tests.simulator.book_client import Socket, connect, get, manual

FUTURES, SPOT = "binance_futures", "binance_spot"
STREAM = "btcusdt@depth@100ms"


def generated(truth: Truth, venue: str = FUTURES) -> list[Any]:
    return [event.decode() for event in truth.events(venue, "depth@100ms", "BTCUSDT")]


async def heard(client: Socket) -> list[Any]:
    return [m["data"] if isinstance(m, dict) else m for m in await client.drain()]


async def test_a_dropped_event_is_missing_from_one_connection_and_named_in_the_ledger(tmp_path: Path) -> None:
    async with (
        running(manual(truth=tmp_path)) as sim,
        connect(sim, FUTURES, f"/public/stream?streams={STREAM}") as one,
        connect(sim, FUTURES, f"/public/stream?streams={STREAM}") as two,
    ):
        sim.control.advance(1)
        sim.control.fault(FUTURES, "drop", stream=STREAM, connection=1)
        sim.control.advance(1)
        first, second = await heard(one), await heard(two)
        truth = sim.truth()
        everything = generated(truth)
        assert second == everything
        (fault,) = truth.faults(FUTURES)
        lost = [event for event in everything if event not in first]
        assert [(event["U"], event["u"]) for event in lost] == [(fault["first_id"], fault["final_id"])]
        assert (fault["kind"], fault["connection"], fault["stream"]) == ("drop", 1, STREAM)


async def test_a_duplicate_and_a_cut_frame_arrive_as_ordered(tmp_path: Path) -> None:
    async with (
        running(manual(truth=tmp_path)) as sim,
        connect(sim, SPOT, f"/stream?streams={STREAM}") as client,
    ):
        sim.control.fault(SPOT, "duplicate", stream=STREAM, count=2)
        sim.control.advance(1)
        events = await heard(client)
        assert len(events) == len(generated(sim.truth(), SPOT)) + 2
        assert events[0] == events[1]
        assert events[2] == events[3]
        sim.control.fault(SPOT, "malformed", stream=STREAM)
        sim.control.advance(1)
        broken = [m for m in await client.drain() if isinstance(m, str)]
        assert len(broken) == 1
        assert broken[0].startswith('{"stream":"btcusdt@depth@100ms"')
        assert [fault["kind"] for fault in sim.truth().faults()] == ["duplicate", "duplicate", "malformed"]


async def test_a_stall_silences_one_stream_for_its_time() -> None:
    async with (
        running(manual()) as sim,
        connect(sim, SPOT, f"/stream?streams={STREAM}/ethusdt@depth@100ms") as client,
    ):
        sim.control.fault(SPOT, "stall", stream=STREAM, seconds=2)
        sim.control.advance(1.9)
        assert {m["stream"] for m in await client.drain()} == {"ethusdt@depth@100ms"}
        sim.control.advance(1)
        assert {m["stream"] for m in await client.drain()} == {STREAM, "ethusdt@depth@100ms"}


async def test_a_late_event_comes_after_its_successor(tmp_path: Path) -> None:
    async with (
        running(manual(truth=tmp_path)) as sim,
        connect(sim, SPOT, f"/stream?streams={STREAM}") as client,
    ):
        sim.control.fault(SPOT, "late", stream=STREAM)
        sim.control.advance(1)
        events, everything = await heard(client), generated(sim.truth(), SPOT)
        assert events == [everything[1], everything[0], *everything[2:]]
        (fault,) = sim.truth().faults(SPOT)
        assert (fault["kind"], fault["final_id"]) == ("late", everything[0]["u"])


async def test_a_refused_handshake_has_the_ordered_status() -> None:
    async with running(manual()) as sim:
        sim.control.fault(SPOT, "refuse_handshake", status=451)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connect(sim, SPOT, "/stream"):
                pass
        assert refused.value.status == 451
        async with connect(sim, SPOT, "/stream") as client:
            assert (await client.subscribe(STREAM))["result"] is None


async def test_a_silent_subscription_is_acknowledged_and_dead_until_asked_again() -> None:
    async with running(manual()) as sim, connect(sim, SPOT, "/stream") as client:
        sim.control.fault(SPOT, "silent", stream=STREAM)
        assert (await client.subscribe(STREAM))["result"] is None
        sim.control.advance(1)
        assert await client.drain() == []
        await client.ask({"method": "UNSUBSCRIBE", "params": [STREAM], "id": 2})
        await client.subscribe(STREAM)
        sim.control.advance(1)
        assert await client.drain()


async def test_disconnected_clients_see_no_close_frame(tmp_path: Path) -> None:
    async with (
        running(manual(truth=tmp_path)) as sim,
        connect(sim, SPOT, "/stream") as one,
        connect(sim, SPOT, "/stream") as two,
    ):
        assert sim.control.fault(SPOT, "disconnect", connection=1) == 1
        assert await one.closed() == 1006
        assert sim.control.fault(SPOT, "disconnect") == 1
        assert await two.closed() == 1006
        rows = [row for row in sim.truth().connections(SPOT) if row["kind"] == "close"]
        assert [(row["connection"], row["reason"]) for row in rows] == [
            (1, "fault: disconnect"),
            (2, "fault: disconnect"),
        ]


async def test_a_half_open_socket_gives_nothing_and_does_not_close() -> None:
    async with running(manual()) as sim, connect(sim, SPOT, f"/stream?streams={STREAM}") as client:
        sim.control.fault(SPOT, "half_open")
        sim.control.advance(2)
        await client.socket.send_str('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        with pytest.raises(TimeoutError):
            await client.socket.receive(timeout=0.3)
        assert not client.socket.closed


async def test_a_delisted_symbol_falls_silent_and_a_listed_one_comes_alive() -> None:
    async with (
        running(manual()) as sim,
        connect(sim, FUTURES, "/public/stream") as public,
        connect(sim, FUTURES, "/market/stream?streams=!contractInfo") as market,
    ):
        await public.subscribe("ethusdt@depth@100ms", "newusdt@depth@100ms")
        sim.control.advance(1)
        assert {m["stream"] for m in await public.drain()} == {"ethusdt@depth@100ms"}
        sim.control.fault(FUTURES, "delist", symbol="ETHUSDT")
        sim.control.fault(FUTURES, "list", symbol="NEWUSDT")
        sim.control.advance(1)
        assert {m["stream"] for m in await public.drain()} == {"newusdt@depth@100ms"}
        assert [(m["data"]["s"], m["data"]["cs"]) for m in await market.drain()] == [
            ("ETHUSDT", "SETTLING"),
            ("NEWUSDT", "TRADING"),
        ]
        _, body, _ = await get(sim, FUTURES, "/fapi/v1/exchangeInfo")
        status = {row["symbol"]: row["status"] for row in body["symbols"]}
        assert (status["ETHUSDT"], status["NEWUSDT"]) == ("SETTLING", "TRADING")
        _, error, _ = await get(sim, FUTURES, "/fapi/v1/depth", symbol="ETHUSDT")
        assert error["code"] == -1121
        assert (await get(sim, FUTURES, "/fapi/v1/depth", symbol="NEWUSDT"))[0] == 200


async def test_a_forced_order_comes_when_ordered_and_on_both_streams() -> None:
    async with (
        running(manual(rate=0.0)) as sim,
        connect(sim, FUTURES, "/market/stream?streams=!forceOrder@arr/btcusdt@forceOrder") as client,
    ):
        assert sim.control.fault(FUTURES, "liquidate", symbol="BTCUSDT") == 1
        sim.control.advance(0.1)
        one, two = await heard(client)
        assert one == two
        assert (one["e"], one["o"]["s"]) == ("forceOrder", "BTCUSDT")
        for venue, symbol in ((SPOT, "BTCUSDT"), (FUTURES, "NOSUCH")):
            with pytest.raises(BadOrder):
                sim.control.fault(venue, "liquidate", symbol=symbol)


async def test_scheduled_drops_leave_exactly_the_declared_holes(tmp_path: Path) -> None:
    async with (
        running(manual(truth=tmp_path, faults="drop=0.1,duplicate=0.1,malformed=0.05")) as sim,
        connect(sim, FUTURES, f"/public/stream?streams={STREAM}") as client,
    ):
        sim.control.advance(20)
        events = [m for m in await heard(client) if isinstance(m, dict)]
        truth = sim.truth()
        faults = truth.faults(FUTURES)
        everything = generated(truth)
        lost = {f["final_id"] for f in faults if f["kind"] in ("drop", "malformed")}
        twice = {f["final_id"] for f in faults if f["kind"] == "duplicate"}
        assert len(lost) > 10
        assert len(twice) > 10
        assert {e["u"] for e in everything} - {e["u"] for e in events} == lost
        assert len(events) == len(everything) - len(lost) + len(twice)


async def test_deliveries_of_a_connection_are_told_exactly(tmp_path: Path) -> None:
    async with running(manual(truth=tmp_path, faults="drop=0.2")) as sim:
        async with connect(sim, FUTURES, "/public/stream") as client:
            sim.control.advance(1)
            await client.subscribe(STREAM)
            sim.control.advance(2)
            first = await heard(client)
            await client.ask({"method": "UNSUBSCRIBE", "params": [STREAM], "id": 2})
            sim.control.advance(1)
            await client.subscribe(STREAM)
            sim.control.advance(1)
            first += await heard(client)
        sim.control.advance(1)
        truth = sim.truth()
        assert [e.decode() for e in truth.delivered(FUTURES, 1, STREAM)] == first
        assert len(first) < len(generated(truth))


async def test_faults_can_be_ordered_over_http(tmp_path: Path) -> None:
    async with (
        running(manual(truth=tmp_path)) as sim,
        connect(sim, SPOT, f"/stream?streams={STREAM}") as client,
        aiohttp.ClientSession() as session,
    ):
        base = f"http://{sim.host}:{sim.port}/control"

        async def post(path: str, **order: Any) -> tuple[int, Any]:
            async with session.post(f"{base}/{path}", json=order) as answer:
                return answer.status, await answer.json()

        assert await post("fault", venue=SPOT, kind="drop", stream=STREAM) == (200, {"done": 1})
        assert (await post("advance", seconds=1))[0] == 200
        assert len(await heard(client)) == len(generated(sim.truth(), SPOT)) - 1
        for bad in (
            {"venue": SPOT, "kind": "nonsense"},
            {"venue": "mars", "kind": "drop", "stream": STREAM},
            {"venue": SPOT, "kind": "drop", "stream": STREAM, "cuont": 2},
            {"venue": SPOT, "kind": "snapshot", "symbol": "BTCUSDT", "place": "nowhere"},
            {"venue": SPOT, "kind": "delist", "symbol": "NOPE"},
        ):
            status, body = await post("fault", **bad)
            assert status == 400, bad
            assert body["error"]
        async with session.get(f"{base}/streams") as answer:
            assert STREAM in (await answer.json())[SPOT]
        async with session.get(f"{base}/status") as answer:
            status = await answer.json()
        assert status[SPOT]["connections"][0]["streams"] == [STREAM]


@pytest.mark.parametrize("text", ["drop", "drop=2", "drop=-1", "nonsense=1", "disconnect=x"])
def test_a_bad_spec_is_refused(text: str) -> None:
    with pytest.raises(BadFaultSpec):
        FaultSpec.parse(text)


async def test_scheduled_disconnects_happen(tmp_path: Path) -> None:
    async with (
        running(manual(truth=tmp_path, faults="disconnect=0.05")) as sim,
        connect(sim, SPOT, f"/stream?streams={STREAM}") as client,
    ):
        assert await client.closed() == 1006
        assert sim.truth().faults(SPOT)[0]["kind"] == "disconnect"


async def test_the_clock_of_a_live_simulator_cannot_be_pushed() -> None:
    async with running(manual(manual_clock=False)) as sim:
        with pytest.raises(BadOrder):
            sim.control.advance(1)
        assert isinstance(sim, Running)
