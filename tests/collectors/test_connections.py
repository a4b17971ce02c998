"""Connections that are cut, renewed, refused or silent, against the simulator's truth."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedOK

from collectors.collector import Collector
from collectors.connection import Socket
from depthvault.errors import ReconnectsExhaustedError, RestrictedError
from depthvault.exchanges.binance_spot import BinanceSpot
from depthvault.journal import parse_body
from depthvault.rest.client import RestClient
from depthvault.rest.weight import WeightBudget
from simulator.testing import running
from tests.collectors.session import (
    caught_up,
    collecting,
    configuration,
    events,
    events_of,
    frames,
    journal_rows,
    missing_and_doubled,
    simulated,
    subscribed,
    ticking,
    truth_of,
    until,
)

VENUES = ("binance_spot", "binance_futures")


async def test_cut_connection_comes_back_and_what_it_missed_is_declared(tmp_path: Path) -> None:
    venue = "binance_futures"
    async with running(simulated(tmp_path)) as sim:
        async with collecting(configuration(sim, venue, tmp_path / "data"), venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 3, "all books are live")
            sim.control.fault(venue, "disconnect")
            sim.control.advance(0.5)  # however soon they are back, something was missed
            await until(lambda: collector.recorder.counters.disconnects == 2, "both connections are lost")
            await until(lambda: collector.recorder.counters.connects == 4, "both come back")
            await until(lambda: collector.recorder.counters.resyncs == 6, "each book is seeded anew")
            await until(lambda: collector.books.states()["live"] == 3, "all books are live again")
        rows = journal_rows(tmp_path / "data", venue)
        lost = events(rows, "disconnect")
        assert {each["route"] for each in lost} == {"public", "market"}
        assert {each["initiator"] for each in lost} == {"network"}
        for symbol in collector.universe.symbols:
            stream = f"{symbol.lower()}@depth@100ms"
            recorded, generated = frames(rows, stream), truth_of(sim, venue, stream)
            holes = [
                (json.loads(before)["u"], json.loads(after)["pu"])
                for before, after in pairwise(recorded)
                if json.loads(after)["pu"] != json.loads(before)["u"]
            ]
            declared = [(each["last_id"], each["first_id"]) for each in events(rows, "gap") if each["symbol"] == symbol]
            assert declared == holes
            assert len(holes) == 1
            assert missing_and_doubled(recorded, generated)[1] == []


async def test_lifetime_cut_is_recorded_with_the_code_of_the_venue(tmp_path: Path) -> None:
    venue = "binance_spot"
    async with running(simulated(tmp_path)) as sim:
        async with collecting(configuration(sim, venue, tmp_path / "data"), venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 3, "all books are live")
            sim.control.fault(venue, "lifetime_cut")
            await until(lambda: collector.recorder.counters.connects == 2, "the connection comes back")
        rows = journal_rows(tmp_path / "data", venue)
        closed = [json.loads(row.body) for row in rows if row.kind == "closed"]
        assert (closed[0]["initiator"], closed[0]["clean"]) == ("venue", True)
        assert (closed[1]["initiator"], closed[1]["clean"]) == ("stop", True)


@pytest.mark.parametrize("venue", VENUES)
async def test_server_shutdown_rolls_without_losing_an_event(venue: str, tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        async with collecting(configuration(sim, venue, tmp_path / "data"), venue) as collector:
            await subscribed(collector)
            slots = len(collector.feed.slots)
            async with ticking(sim):
                await until(lambda: collector.books.states()["live"] == 3, "all books are live")
                sim.control.fault(venue, "server_shutdown", grace=30)
                await until(lambda: collector.recorder.counters.rolls == slots, "all connections are replaced")
                seen = collector.recorder.counters.frames
                await until(lambda: collector.recorder.counters.frames > seen + 50, "and go on")
            await caught_up(collector, sim)
            assert collector.recorder.counters.disconnects == 0
        rows = journal_rows(tmp_path / "data", venue)
        for stream in collector.recorder.states:
            missing, _ = missing_and_doubled(frames(rows, stream), truth_of(sim, venue, stream))
            assert missing == [], stream
        assert events(rows, "gap") == []
        rolls = events(rows, "roll")
        assert {each["reason"] for each in rolls} == {"server_shutdown"}
        assert all(each["unseen"] == [] and each["active"] for each in rolls)
        assert [json.loads(row.body)["initiator"] for row in rows if row.kind == "closed"][:slots] == ["roll"] * slots


async def test_old_connections_are_renewed_before_the_venue_cuts_them(tmp_path: Path) -> None:
    venue = "binance_spot"
    async with running(simulated(tmp_path)) as sim:
        config = configuration(
            sim,
            venue,
            tmp_path / "data",
            max_connection_age="1s",
            symbols_per_connection=1,
            symbols=("BTCUSDT", "XRPUSDT"),
        )
        async with collecting(config, venue) as collector:
            await subscribed(collector)
            async with ticking(sim):
                await until(lambda: collector.recorder.counters.rolls >= 4, "each connection is replaced twice")
            await caught_up(collector, sim)
        rows = journal_rows(tmp_path / "data", venue)
        for stream in collector.recorder.states:
            assert missing_and_doubled(frames(rows, stream), truth_of(sim, venue, stream))[0] == []
        assert events(rows, "gap") == []
        assert {each["reason"] for each in events(rows, "roll")} == {"age"}


async def test_acknowledged_but_silent_subscription_is_found_and_repaired(tmp_path: Path) -> None:
    venue = "binance_futures"
    async with running(simulated(tmp_path)) as sim:
        sim.control.fault(venue, "silent", stream="btcusdt@depth@100ms")
        config = configuration(sim, venue, tmp_path / "data", stale_after={"depth_diff": "500ms"})
        async with collecting(config, venue) as collector, ticking(sim):
            await until(lambda: collector.recorder.states["btcusdt@depth@100ms"].stage, "the silent stream is found")
            await until(lambda: collector.books.states()["live"] == 3, "its book is live after all")
            await until(
                lambda: any(
                    state.last_ns and not state.stage
                    for name, state in collector.recorder.states.items()
                    if name == "btcusdt@depth@100ms"
                ),
                "it has recovered",
            )
        rows = journal_rows(tmp_path / "data", venue)
        stale = [(each["action"], each["ever"]) for each in events(rows, "stale") if each["symbol"] == "BTCUSDT"]
        assert stale[:2] == [("resubscribe", False), ("recovered", True)]
        assert frames(rows, "btcusdt@depth@100ms")


async def test_stream_that_stays_silent_is_declared_after_its_connection_was_renewed(tmp_path: Path) -> None:
    venue = "binance_futures"
    async with running(simulated(tmp_path)) as sim:
        config = configuration(
            sim, venue, tmp_path / "data", symbols=("BTCUSDT",), channels=("depth_diff", "trade"),
            stale_after={"depth_diff": "60s", "trade": "300ms"},
        )  # fmt: skip
        sim.control.fault(venue, "stall", stream="btcusdt@trade", seconds=3600)
        async with collecting(config, venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 1, "the book is live")
            await until(
                lambda: collector.recorder.states["btcusdt@trade"].stage == 3,
                "the silent stream is declared",
                timeout=30,
            )
            await until(lambda: collector.recorder.counters.rolls == 1, "the connection is replaced")
        rows = journal_rows(tmp_path / "data", venue)
        assert [each["action"] for each in events(rows, "stale")] == ["resubscribe", "renew", "declared"]
        assert [each["reason"] for each in events(rows, "roll")] == ["stale"]
        assert events(rows, "gap") == [], "the renewal cost no depth event"


async def test_half_open_connection_is_noticed_by_its_silence(tmp_path: Path) -> None:
    venue = "binance_spot"
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, venue, tmp_path / "data", stale_after={"depth_diff": "1500ms"})
        async with collecting(config, venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 3, "all books are live")
            sim.control.fault(venue, "half_open")
            await until(lambda: collector.recorder.counters.rolls == 1, "the dead connection is replaced", timeout=30)
            await until(lambda: collector.recorder.counters.gaps == 3, "what it missed is declared")
            await until(lambda: collector.books.states()["live"] == 3, "all books are live again")
        rows = journal_rows(tmp_path / "data", venue)
        closed = [json.loads(row.body) for row in rows if row.kind == "closed"]
        assert [(each["initiator"], each["clean"]) for each in closed] == [("roll", False), ("stop", True)]
        told = events(rows, "stale")
        (stale,) = [each for each in told if each["stream"] == "*"]  # a busy machine may be silent, too, for a moment
        assert (stale["action"], stale["streams"]) == ("renew", 9)


async def test_exhausted_attempts_end_the_process_with_an_event(tmp_path: Path) -> None:
    venue = "binance_spot"
    async with running(simulated(tmp_path)) as sim:
        config = configuration(
            sim, venue, tmp_path / "data", ws_url="ws://127.0.0.1:1", max_reconnect_attempts=3, reconnect_backoff="10ms"
        )
        collector = Collector(config, venue, time_reference=lambda: None)
        with pytest.raises(ReconnectsExhaustedError, match="3 attempts"):
            await asyncio.wait_for(collector.run(), 20)
        rows = journal_rows(tmp_path / "data", venue)
        assert [(each["attempt"], each["exhausted"]) for each in events(rows, "disconnect")] == [
            (1, False), (2, False), (3, True),
        ]  # fmt: skip
        assert json.loads(rows[-1].body)["reason"] == "ReconnectsExhaustedError"


@pytest.mark.parametrize("calm", ["1h", "100ms"])
async def test_attempts_count_anew_after_a_calm_time_and_not_before(calm: str, tmp_path: Path) -> None:
    """A venue that cuts once a day must not use them up in a month, and one that flaps must."""
    venue = "binance_spot"
    cuts = 0
    async with running(simulated(tmp_path)) as sim:
        config = configuration(
            sim, venue, tmp_path / "data", symbols=("BTCUSDT",), max_reconnect_attempts=5, reconnect_backoff="1ms",
            reset_reconnect_after=calm,
        )  # fmt: skip
        collector = Collector(config, venue, time_reference=lambda: None)
        recording = asyncio.create_task(collector.run())
        await collector.started.wait()
        while cuts < 6 and not recording.done():
            cuts += 1
            connects = collector.recorder.counters.connects
            await until(lambda: collector.feed.slots[0].connections or recording.done(), "the connection is up")
            await asyncio.sleep(0.15)  # calm, or not calm enough
            sim.control.fault(venue, "refuse_handshake", status=503, count=1)
            sim.control.fault(venue, "disconnect")
            await until(
                lambda before=connects: collector.recorder.counters.connects > max(before, 1) or recording.done(),
                "it is up again, or given up",
            )
        collector.stop("sigterm")
        if calm == "1h":
            with pytest.raises(ReconnectsExhaustedError):
                await recording
        else:
            await recording
    failed = [
        each["attempt"] for each in events(journal_rows(tmp_path / "data", venue), "disconnect") if "attempt" in each
    ]
    assert failed == ([2, 4, 6] if calm == "1h" else [1] * 6)
    assert cuts == (3 if calm == "1h" else 6)


async def test_restricted_host_is_told_so_and_not_retried(tmp_path: Path) -> None:
    venue = "binance_spot"
    asked = 0

    async def refuse(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=451, text="Service unavailable from a restricted location")

    app = web.Application()
    app.router.add_get("/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with running(simulated(tmp_path)) as sim:
            config = configuration(sim, venue, tmp_path / "data", ws_url=f"ws://127.0.0.1:{port}")
            collector = Collector(config, venue, time_reference=lambda: None)
            with pytest.raises(RestrictedError, match="may not use binance_spot"):
                await asyncio.wait_for(collector.run(), 20)
        assert asked == 1
    finally:
        await runner.cleanup()


async def test_ban_is_obeyed_by_everybody_and_ends(tmp_path: Path) -> None:
    venue = "binance_spot"
    async with running(simulated(tmp_path)) as sim:
        async with collecting(configuration(sim, venue, tmp_path / "data"), venue) as collector:
            await subscribed(collector)
            sim.control.fault(venue, "rest_ban", seconds=2)
            async with ticking(sim):
                await until(lambda: events_of(collector, "banned"), "the ban is recorded")
                requests = len([each for each in sim.truth().rest(venue) if each["status"] == 418])
                budget = collector.client.budget
                assert not budget.reserve(collector.client.host, 6000, 1).granted
                await until(lambda: collector.books.states()["live"] == 3, "the books are seeded after the ban", 30)
        after = [each for each in sim.truth().rest(venue) if each["status"] == 418]
        assert len(after) <= requests + 3, "no storm against a ban"


async def test_429_is_obeyed(tmp_path: Path) -> None:
    venue = "binance_futures"
    async with (
        running(simulated(tmp_path)) as sim,
        collecting(configuration(sim, venue, tmp_path / "data"), venue) as collector,
    ):
        await subscribed(collector)
        sim.control.fault(venue, "rest_429", requests=1)
        async with ticking(sim):
            await until(lambda: events_of(collector, "rate_limited"), "the limit is recorded")
            assert not collector.client.budget.reserve(collector.client.host, 2400, 1).granted
            held = collector.recorder.counters.frames
            await until(lambda: collector.recorder.counters.frames > held + 50, "the streams go on meanwhile")


@pytest.mark.parametrize("fault", ["rest_5xx", "rest_timeout"])
async def test_failed_snapshots_are_tried_again(fault: str, tmp_path: Path) -> None:
    venue = "binance_spot"
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, venue, tmp_path / "data", open_timeout="500ms")
        async with collecting(config, venue) as collector:
            await subscribed(collector)
            sim.control.fault(venue, fault, endpoint="depth", count=2)
            async with ticking(sim):
                await until(lambda: collector.books.states()["live"] == 3, "all books are live", 30)
            assert collector.recorder.counters.rest_errors == 2


async def test_streams_begin_while_rest_is_down(tmp_path: Path) -> None:
    venue = "binance_spot"
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, venue, tmp_path / "data", symbols=("BTCUSDT",), rest_url="http://127.0.0.1:1")
        async with collecting(config, venue) as collector, ticking(sim):
            await until(lambda: collector.recorder.counters.frames > 20, "frames are recorded")
            assert collector.books.states()["seeding"] == 1
        rows = journal_rows(tmp_path / "data", venue)
        assert frames(rows, "btcusdt@depth@100ms")


async def test_connection_that_cannot_be_replaced_yet_goes_on(tmp_path: Path) -> None:
    """Attempts to replace a connection that still delivers are never the last ones."""
    venue = "binance_spot"
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, venue, tmp_path / "data", max_reconnect_attempts=2, reconnect_backoff="20ms")
        async with collecting(config, venue) as collector:
            await subscribed(collector)
            async with ticking(sim):
                await until(lambda: collector.books.states()["live"] == 3, "all books are live")
                away = collector.exchange.config.model_copy(update={"ws_url": "ws://127.0.0.1:1"})
                here, collector.exchange.config = collector.exchange.config, away
                sim.control.fault(venue, "server_shutdown", grace=60)
                await until(lambda: len(events_of(collector, "disconnect")) >= 4, "several attempts failed")
                assert not collector.feed.failed.done()
                collector.exchange.config = here
                await until(lambda: collector.recorder.counters.rolls == 1, "the connection is replaced")
            await caught_up(collector, sim)
        rows = journal_rows(tmp_path / "data", venue)
        for stream in collector.recorder.states:
            assert missing_and_doubled(frames(rows, stream), truth_of(sim, venue, stream))[0] == []


async def test_streams_begin_under_a_ban_that_stands_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venue = "binance_spot"
    monkeypatch.setattr("collectors.listings.FIRST_WAIT", 0.1)
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, venue, tmp_path / "data", symbols=("BTCUSDT",))
        budget = WeightBudget(config.layout.run / "weight.sqlite")
        budget.ban(RestClient(BinanceSpot(config.exchanges[venue]), budget).host, time.time_ns() + 10**12, "HTTP 418")
        async with collecting(config, venue) as collector, ticking(sim):
            await until(lambda: collector.recorder.counters.frames > 20, "frames are recorded")
        assert sim.truth().rest(venue) == [], "nothing was asked under the ban"
        assert "catalogue" in [each["what"] for each in events(journal_rows(tmp_path / "data", venue), "banned")]


async def test_fragments_and_what_comes_with_the_handshake_are_taken_whole_and_in_order() -> None:
    taken: list[bytes] = []

    async def blurts(server: ServerConnection) -> None:
        await server.send("first")  # before the client had time to say who takes it
        await server.send(["sec", "o", "nd"])
        await server.send("third")
        await server.recv()
        await server.send(["four", "th"])

    async with serve(blurts, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        socket = await connect(f"ws://127.0.0.1:{port}", create_connection=Socket, proxy=None)
        assert isinstance(socket, Socket)
        await until(lambda: len(socket._early) == 3, "three messages are here already")
        socket.deliver(taken.append)
        assert len(taken) == 3
        await socket.send("go on")
        with pytest.raises(ConnectionClosedOK):
            await socket.recv(decode=False)
    assert taken == [b"first", b"second", b"third", b"fourth"]


async def test_what_cannot_be_taken_ends_the_process_and_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = "binance_futures"

    def refuse(*_: object) -> None:
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        async with (
            running(simulated(tmp_path)) as sim,
            collecting(configuration(sim, venue, tmp_path / "data"), venue) as collector,
            ticking(sim),
        ):
            await until(lambda: collector.recorder.counters.frames > 20, "frames come")
            monkeypatch.setattr(collector.recorder, "receive", refuse)
            await until(collector.feed.failed.done, "the failure is known")


def test_a_flood_on_one_connection_leaves_the_others_their_turn() -> None:
    message, count = b"x" * 4096, 4096  # 16 MB
    turns = 0

    async def flood(server: ServerConnection) -> None:
        await server.recv()
        for _ in range(count):
            server.protocol.send_text(message)
        server.transport.writelines(server.protocol.data_to_send())
        await server.wait_closed()

    async def receive() -> list[int]:
        nonlocal turns
        taken: list[int] = []
        loop = asyncio.get_running_loop()

        def turn() -> None:
            nonlocal turns
            turns += 1
            loop.call_soon(turn)

        async with serve(flood, "127.0.0.1", 0, compression=None) as server:
            port = server.sockets[0].getsockname()[1]
            socket = await connect(f"ws://127.0.0.1:{port}", create_connection=Socket, proxy=None)
            assert isinstance(socket, Socket)
            socket.deliver(lambda _: taken.append(turns))
            turn()
            await socket.send("go on")
            await until(lambda: len(taken) == count, "the flood is over")
            await socket.close()
        return taken

    taken = uvloop.run(receive())
    most = max(Counter(taken).values()) * len(message)
    assert most < 2 << 20, f"{most} bytes were taken in one turn of the loop"


async def test_a_new_file_tells_of_each_connection_what_it_has_not_heard(tmp_path: Path) -> None:
    """While two connections carry a stream, what one of them hears says nothing of the other."""
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, "binance_spot", tmp_path / "data")
        async with collecting(config, "binance_spot") as collector:
            async with ticking(sim):
                await until(
                    lambda: all(state.since_subscribe for state in collector.recorder.states.values()),
                    "each stream delivers",
                )
            (slot,) = collector.feed.slots
            (old,) = slot.connections
            slot.request_roll("test")  # nothing ticks: the new connection is subscribed and hears nothing
            await until(lambda: len(slot.connections) == 2 and not slot.connections[1].unanswered, "both carry all")
            collector._repeat_opened()
        rows = journal_rows(tmp_path / "data", "binance_spot")
        opened = [(row.connection, parse_body(row.body)) for row in rows if row.kind == "opened"]
        bodies = {number: body for number, body in opened if body["continues"]}
        assert bodies[old.number].get("unheard") is None
        assert bodies[old.number + 1]["unheard"] == bodies[old.number]["streams"] != []


async def test_a_new_file_does_not_tell_of_a_connection_that_broke_while_it_was_replaced(tmp_path: Path) -> None:
    """Its end stands in the file before: told again, it would count as listening for the rest of the new one."""
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, "binance_spot", tmp_path / "data")
        async with collecting(config, "binance_spot") as collector:
            await until(lambda: len(collector.feed.slots[0].connections) == 1, "connected")
            (slot,) = collector.feed.slots
            (old,) = slot.connections
            slot.request_roll("test")
            await until(lambda: len(slot.connections) == 2 and not slot.connections[1].unanswered, "both carry all")
            old._socket.transport.abort()
            await asyncio.wait_for(asyncio.shield(old.done), 5)
            assert old in slot.connections, "the roll has not noticed yet"
            collector._repeat_opened()
        rows = journal_rows(tmp_path / "data", "binance_spot")
        told = [row.connection for row in rows if row.kind == "opened" and parse_body(row.body)["continues"]]
        assert told == [old.number + 1]
