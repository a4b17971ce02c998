"""What a collector writes, against what the simulator knows it sent."""

from __future__ import annotations

import json
from itertools import dropwhile
from pathlib import Path

import pytest

from collectors.collector import Collector
from collectors.universe import Shard
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


def depth_streams(rows_or_states: object) -> list[str]:
    return [name for name in rows_or_states if "@depth" in name]  # type: ignore[attr-defined]


@pytest.mark.parametrize("venue", VENUES)
async def test_every_frame_is_journaled_once_in_order_and_all_books_are_seeded(
    venue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Simulated time stands still until all is subscribed, however long that takes here: nobody asks for a book sooner.
    monkeypatch.setattr("collectors.books.FIRST_EVENT_WAIT_NS", 1 << 62)
    async with running(simulated(tmp_path)) as sim:
        async with collecting(configuration(sim, venue, tmp_path / "data"), venue) as collector:
            await subscribed(collector)
            async with ticking(sim):
                await until(lambda: collector.books.states()["live"] == 3, "all books are live")
                await until(lambda: collector.recorder.counters.frames > 400, "some hundred frames")
            await caught_up(collector, sim)
            await until(lambda: events_of(collector, "clock"), "the clock is measured, by threads and a question")
            streams = list(collector.recorder.states)
        rows = journal_rows(tmp_path / "data", venue)
        assert len(streams) == 9
        for stream in streams:
            assert frames(rows, stream) == truth_of(sim, venue, stream), stream
        assert events(rows, "gap") == []
        assert len(events(rows, "resync")) == 3
        snapshots = [row for row in rows if row.kind == "rest"]
        assert len(snapshots) == 3
        for row in snapshots:
            assert "lastUpdateId" in json.loads(row.body)
            (sent,) = [each for each in rows if each.sequence == row.sequence - 1]
            assert (sent.kind, sent.stream) == ("sent", row.stream)
            assert sent.wall_ns < row.wall_ns
        assert [row.sequence for row in rows] == list(range(len(rows)))
        assert (rows[0].stream, rows[-1].stream) == ("start", "stop")
        assert json.loads(rows[-1].body) == {"reason": "sigterm", "rows": len(rows)}
        opened = [row.connection for row in rows if row.kind == "opened"]
        closed = [row.connection for row in rows if row.kind == "closed"]
        assert sorted(opened) == sorted(closed)
        assert len(opened) == (1 if venue == "binance_spot" else 2)
        assert {row.kind for row in rows} >= {"frame", "sent", "opened", "closed", "rest", "catalogue", "event"}
        assert events(rows, "environment")[0]["packages"]["websockets"]
        assert events(rows, "clock")[0]["reference"] == {"source": "test", "offset_s": 0.0}
        assert events(rows, "clock")[0]["venue"]["round_trip_s"] > 0
        recorded = json.loads((tmp_path / "data" / "run" / "universe" / f"{venue}-a.json").read_text())
        assert sorted(recorded["symbols"]) == sorted(collector.universe.symbols)


@pytest.mark.parametrize("venue", VENUES)
async def test_one_lost_event_is_one_gap_and_resyncs_one_symbol(venue: str, tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        async with collecting(configuration(sim, venue, tmp_path / "data"), venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 3, "all books are live")
            sim.control.fault(venue, "drop", stream="btcusdt@depth@100ms")
            await until(lambda: collector.recorder.counters.gaps == 1, "the gap is declared")
            await until(lambda: collector.books.states()["live"] == 3, "all books are live again")
        rows = journal_rows(tmp_path / "data", venue)
        (gap,) = events(rows, "gap")
        assert (gap["symbol"], gap["channel"]) == ("BTCUSDT", "depth_diff")
        held = {json.loads(body)["u"] for body in frames(rows, "btcusdt@depth@100ms")}
        generated = [json.loads(body) for body in truth_of(sim, venue, "btcusdt@depth@100ms")]
        # What was generated while the subscription was under way is not missing.
        generated = list(dropwhile(lambda event: event["u"] not in held, generated))
        (lost,) = [event for event in generated if event["u"] not in held]
        before = generated[generated.index(lost) - 1]
        after = generated[generated.index(lost) + 1]
        assert (gap["last_id"], gap["first_id"]) == (before["u"], after.get("pu", after["U"]))
        resyncs = [(each["symbol"], each["reason"]) for each in events(rows, "resync")]
        assert sorted(resyncs) == [("BTCUSDT", "gap"), *sorted((s, "start") for s in collector.universe.symbols)]
        for stream in depth_streams(collector.recorder.states):
            if not stream.startswith("btcusdt"):
                assert missing_and_doubled(frames(rows, stream), truth_of(sim, venue, stream))[1] == []


async def test_duplicate_is_no_gap(tmp_path: Path) -> None:
    venue = "binance_futures"
    async with running(simulated(tmp_path)) as sim:
        async with collecting(configuration(sim, venue, tmp_path / "data"), venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 3, "all books are live")
            sim.control.fault(venue, "duplicate", stream="btcusdt@depth@100ms", count=3)
            sync = collector.books.books["BTCUSDT"].sync
            await until(lambda: sync.duplicates == 3, "the duplicates are seen")
            assert collector.books.states()["live"] == 3
        rows = journal_rows(tmp_path / "data", venue)
        assert events(rows, "gap") == []


async def test_malformed_frame_is_kept_raw_counted_and_leaves_a_declared_gap(tmp_path: Path) -> None:
    venue = "binance_spot"
    async with running(simulated(tmp_path)) as sim:
        async with collecting(configuration(sim, venue, tmp_path / "data"), venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 3, "all books are live")
            sim.control.fault(venue, "malformed", stream="btcusdt@depth@100ms")
            await until(lambda: collector.recorder.counters.malformed == 1, "the frame is counted")
            await until(lambda: collector.recorder.counters.gaps == 1, "the hole it leaves is declared")
            await until(lambda: collector.books.states()["live"] == 3, "all books are live again")
        rows = journal_rows(tmp_path / "data", venue)
        assert len(events(rows, "malformed")) == 1
        (raw,) = [row.body for row in rows if row.kind == "frame" and row.stream == "" and b"depthUpdate" in row.body]
        with pytest.raises(json.JSONDecodeError):
            json.loads(raw)
        assert any(
            each.startswith(raw[raw.index(b',"data":') + 8 :]) for each in truth_of(sim, venue, "btcusdt@depth@100ms")
        )


@pytest.mark.parametrize("place", ["lag", "inside", "event_end"])
async def test_books_are_seeded_wherever_the_snapshot_falls(place: str, tmp_path: Path) -> None:
    venue = "binance_futures"
    async with running(simulated(tmp_path)) as sim:
        for symbol in ("BTCUSDT", "XRPUSDT"):
            sim.control.fault(venue, "snapshot", symbol=symbol, place=place)
        async with collecting(configuration(sim, venue, tmp_path / "data"), venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 3, "all books are live")
            seen = collector.recorder.counters.frames
            await until(lambda: collector.recorder.counters.frames > seen + 50, "and go on")
            assert collector.books.states()["live"] == 3
        assert events(journal_rows(tmp_path / "data", venue), "gap") == []


@pytest.mark.parametrize("venue", VENUES)
async def test_listing_and_delisting_are_followed_without_a_restart(venue: str, tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, venue, tmp_path / "data", instrument_interval="300ms")
        async with collecting(config, venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 3, "all books are live")
            sim.control.fault(venue, "list", symbol="NEWUSDT")
            sim.control.fault(venue, "delist", symbol="XRPUSDT")
            await until(lambda: "NEWUSDT" in collector.universe.symbols, "the new symbol is chosen")
            await until(lambda: "XRPUSDT" not in collector.universe.symbols, "the delisted one is not")
            await until(lambda: collector.books.states()["live"] == 3, "the new book is seeded")
            carried = {name for slot in collector.feed.slots for c in slot.connections for name in c.subscribed}
            assert "newusdt@depth@100ms" in carried
            assert "xrpusdt@depth@100ms" not in carried
            connects = collector.recorder.counters.connects
        assert connects == (1 if venue == "binance_spot" else 2)
        rows = journal_rows(tmp_path / "data", venue)
        stream = "newusdt@depth@100ms"
        recorded, generated = frames(rows, stream), truth_of(sim, venue, stream)
        first = generated.index(recorded[0])
        assert recorded == generated[first : first + len(recorded)]


async def test_reload_adds_a_symbol_and_loses_nothing_of_the_others(tmp_path: Path) -> None:
    venue = "binance_spot"
    async with running(simulated(tmp_path)) as sim:
        narrow = configuration(sim, venue, tmp_path / "data", symbols=("BTCUSDT",))
        wide = configuration(sim, venue, tmp_path / "data", symbols=("BTCUSDT", "XRPUSDT"))
        async with collecting(narrow, venue, reload=lambda: wide) as collector:
            await subscribed(collector)
            async with ticking(sim):
                await until(lambda: collector.books.states()["live"] == 1, "the first book is live")
                collector.reload()
                await until(lambda: collector.books.states()["live"] == 2, "the second book is live")
            await caught_up(collector, sim)
        rows = journal_rows(tmp_path / "data", venue)
        stream = "btcusdt@depth@100ms"
        assert frames(rows, stream) == truth_of(sim, venue, stream)
        assert frames(rows, "xrpusdt@depth@100ms")


@pytest.mark.parametrize(("venue", "speed"), [("binance_spot", "1000ms"), ("binance_futures", "500ms")])
async def test_another_cadence_is_taken_over_without_a_hole(venue: str, speed: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running(simulated(tmp_path)) as sim:
        options = {"channels": ("depth_diff", "book_ticker")}
        before = configuration(sim, venue, data, depth_speed="100ms", **options)
        after = configuration(sim, venue, data, depth_speed=speed, **options)
        async with collecting(before, venue, reload=lambda: after) as collector:
            await subscribed(collector)
            async with ticking(sim):
                await until(lambda: collector.books.states()["live"] == 3, "all books are live")
                collector.reload()
                await until(lambda: not any("@100ms" in name for name in collector.recorder.states), "it is taken over")
                carried = lambda: {n for slot in collector.feed.slots for c in slot.connections for n in c.subscribed}  # noqa: E731
                await until(lambda: not any("@100ms" in name for name in carried()), "the old streams end")
                await until(lambda: collector.books.states()["live"] == 3, "all books are live again")
                seen = collector.recorder.counters.frames
                await until(lambda: collector.recorder.counters.frames > seen + 200, "and go on")
            await caught_up(collector, sim)
            assert collector.recorder.counters.connects == len(collector.feed.slots)
        rows = journal_rows(data, venue)
        assert events(rows, "gap") == []
        suffix = "" if speed == "1000ms" else f"@{speed}"
        for symbol in collector.universe.symbols:
            old, new = (f"{symbol.lower()}@depth{part}" for part in ("@100ms", suffix))
            assert frames(rows, old)
            assert frames(rows, new)
            heads = sorted(
                (json.loads(body) for body in frames(rows, old) + frames(rows, new)), key=lambda one: one["u"]
            )
            reach = heads[0]["u"]
            for head in heads[1:]:
                assert head.get("pu", head["U"] - 1) <= reach, f"{symbol}: nothing covers what is before {head['u']}"
                reach = max(reach, head["u"])
            ticker = f"{symbol.lower()}@bookTicker"
            assert frames(rows, ticker) == truth_of(sim, venue, ticker), "what stays is not touched"


def carriers(collector: Collector) -> dict[str, list[int]]:
    """By stream, the connections that carry it."""
    found: dict[str, list[int]] = {}
    for slot in collector.feed.slots:
        for connection in slot.connections:
            for name in connection.subscribed:
                found.setdefault(name, []).append(connection.number)
    return found


@pytest.mark.parametrize("venue", VENUES)
async def test_fewer_symbols_on_a_connection_are_taken_over_without_a_hole(venue: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running(simulated(tmp_path, symbols=5)) as sim:
        before = configuration(sim, venue, data)
        after = configuration(sim, venue, data, symbols_per_connection=2)
        async with collecting(before, venue, reload=lambda: after) as collector:
            await subscribed(collector)
            routes = len(collector.feed.slots)
            async with ticking(sim):
                await until(lambda: collector.books.states()["live"] == 5, "all books are live")
                collector.reload()
                await until(lambda: len(collector.feed.slots) == 3 * routes, "there are more connections")
                await until(
                    lambda: max(len(slot.symbols) for slot in collector.feed.slots) == 2, "the first ones carry less"
                )
                assert collector.books.states()["live"] == 5, "no book had to be seeded anew"
                collector.listings.refresh.set()
                seen = collector.recorder.counters.frames
                await until(lambda: collector.recorder.counters.frames > seen + 200, "and go on")
            await caught_up(collector, sim)
            carried = carriers(collector)
            assert carried.keys() == collector.recorder.states.keys()
            assert {len(numbers) for numbers in carried.values()} == {1}
            assert collector.recorder.counters.connects == 3 * routes
        rows = journal_rows(data, venue)
        assert events(rows, "gap") == []
        for stream in collector.recorder.states:
            assert missing_and_doubled(frames(rows, stream), truth_of(sim, venue, stream))[0] == [], stream


async def test_another_address_is_taken_over_with_overlap(tmp_path: Path) -> None:
    venue, data = "binance_spot", tmp_path / "data"
    async with running(simulated(tmp_path)) as sim:
        before = configuration(sim, venue, data)
        after = configuration(sim, venue, data, ws_url=sim.ws_url(venue).replace("127.0.0.1", "localhost"))
        async with collecting(before, venue, reload=lambda: after) as collector:
            await subscribed(collector)
            async with ticking(sim):
                await until(lambda: collector.books.states()["live"] == 3, "all books are live")
                collector.reload()
                await until(lambda: collector.recorder.counters.rolls == 1, "the connection is replaced")
            await caught_up(collector, sim)
        rows = journal_rows(data, venue)
        assert [each["reason"] for each in events(rows, "roll")] == ["settings"]
        for stream in collector.recorder.states:
            assert missing_and_doubled(frames(rows, stream), truth_of(sim, venue, stream))[0] == []


async def test_what_concerns_rest_and_graces_is_taken_over_too(tmp_path: Path) -> None:
    venue, data = "binance_spot", tmp_path / "data"
    async with running(simulated(tmp_path)) as sim:
        before = configuration(sim, venue, data, resync_grace="1h")
        elsewhere = sim.rest_url(venue).replace("127.0.0.1", "localhost")
        after = configuration(sim, venue, data, rest_url=elsewhere, weight_cap=0.5, resync_grace="100ms")
        async with collecting(before, venue, reload=lambda: after) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 3, "all books are live")
            budget = collector.client.budget
            collector.reload()
            await until(lambda: budget.usage(elsewhere.removeprefix("http://")).used, "the new address is asked")
            assert budget.cap == 0.5
            resyncs = collector.recorder.counters.resyncs
            sim.control.fault(venue, "drop", stream="btcusdt@depth@100ms")
            await until(lambda: collector.recorder.counters.resyncs > resyncs, "the grace of an hour is over soon")


async def test_symbol_that_is_not_listed_is_declared(tmp_path: Path) -> None:
    venue = "binance_spot"
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, venue, tmp_path / "data", symbols=("BTCUSDT", "NOSUCHUSDT"))
        async with collecting(config, venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 1, "the book is live")
            assert collector.universe.missing == ("NOSUCHUSDT",)
        (declared,) = [
            each for each in events(journal_rows(tmp_path / "data", venue), "subscribe") if "not_listed" in each
        ]
        assert declared["not_listed"] == ["NOSUCHUSDT"]


async def test_notice_of_a_listing_is_acted_on_at_once(tmp_path: Path) -> None:
    venue = "binance_futures"
    async with running(simulated(tmp_path)) as sim:
        config = configuration(
            sim, venue, tmp_path / "data", instrument_interval="1h", channels=("depth_diff", "instrument")
        )
        async with collecting(config, venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 3, "all books are live")
            sim.control.fault(venue, "list", symbol="NEWUSDT")
            await until(lambda: "NEWUSDT" in collector.universe.symbols, "the new symbol is chosen")
            await until(lambda: collector.books.states()["live"] == 4, "its book is seeded")


async def test_gap_that_is_open_at_the_stop_is_declared(tmp_path: Path) -> None:
    venue = "binance_futures"
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, venue, tmp_path / "data", resync_grace="1h")
        async with collecting(config, venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 3, "all books are live")
            sim.control.fault(venue, "drop", stream="btcusdt@depth@100ms")
            await until(lambda: collector.books.states()["gap"] == 1, "the gap is open")
        (gap,) = events(journal_rows(tmp_path / "data", venue), "gap")
        assert gap["symbol"] == "BTCUSDT"


async def test_shards_record_disjoint_parts_that_make_the_whole(tmp_path: Path) -> None:
    venue = "binance_futures"
    async with running(simulated(tmp_path, symbols=8)) as sim:
        config = configuration(sim, venue, tmp_path / "data", channels=("depth_diff", "liquidation"))
        async with (
            collecting(config, venue, shard=Shard(0, 2)) as first,
            collecting(config, venue, shard=Shard(1, 2)) as second,
            ticking(sim),
        ):
            await until(lambda: first.books.states()["live"] + second.books.states()["live"] == 8, "all books are live")
            parts = [set(each.universe.symbols) for each in (first, second)]
            assert len(parts[0] | parts[1]) == 8
            assert not parts[0] & parts[1]
            market = [
                [s.stream.name for s in each.recorder.states.values() if not s.stream.symbol]
                for each in (first, second)
            ]
            assert market == [["!forceOrder@arr"], []], "a stream of the whole market is recorded once"
        for index, part in enumerate(parts):
            rows = journal_rows(tmp_path / "data", venue, f"a.{index}-of-2")
            recorded = {row.stream.partition("@")[0] for row in rows if row.kind == "frame" and "@depth" in row.stream}
            assert recorded == {symbol.lower() for symbol in part}


async def test_connections_hold_no_more_symbols_than_configured(tmp_path: Path) -> None:
    venue = "binance_futures"
    async with running(simulated(tmp_path, symbols=8)) as sim:
        config = configuration(sim, venue, tmp_path / "data", symbols_per_connection=3)
        async with collecting(config, venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 8, "all books are live")
            sizes = sorted((slot.route, len(slot.symbols)) for slot in collector.feed.slots)
            assert sizes == [(route, size) for route in ("market", "public") for size in (2, 3, 3)]
