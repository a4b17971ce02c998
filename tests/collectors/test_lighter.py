"""Lighter: whole books in the stream, chained by nonce; a gap is mended by subscribing anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from collectors import watchdog
from depthvault.journal import parse_body
from simulator.testing import Running, running
from tests.collectors.session import (
    caught_up,
    collecting,
    configuration,
    events,
    journal_rows,
    simulated,
    ticking,
    until,
)

VENUE = "lighter"
CHANNELS = ("depth_diff", "trade", "mark_price", "open_interest")


def books(rows: list[Any], stream: str) -> list[dict[str, Any]]:
    return [json.loads(row.body) for row in rows if row.kind == "frame" and row.stream == stream]


def breaks(messages: list[dict[str, Any]]) -> int:
    """Updates that do not follow the message before, whole books aside."""
    found, last = 0, None
    for message in messages:
        book = message["order_book"]
        if message["type"] == "update/order_book" and last is not None and book["nonce"] > last:
            found += book["begin_nonce"] != last
        last = book["nonce"] if message["type"].startswith("subscribed") else max(last or 0, book["nonce"])
    return found


def missing(sim: Running, rows: list[Any], stream: str) -> list[bytes]:
    """What the simulator sent of a book or of trades, from the first that is held on, and the journal lacks."""
    channel = stream.partition(":")[0]
    if channel not in ("order_book", "trade"):
        return []
    held = {row.body for row in rows if row.kind == "frame" and row.stream == stream}
    name = f'"{stream}"'.encode()
    sent = [event.payload for event in sim.truth().events(VENUE, channel) if name in event.payload]
    first = next(place for place, body in enumerate(sent) if body in held)
    return [body for body in sent[first:] if body not in held]


async def test_books_come_in_the_stream_and_chain(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS)
        async with collecting(config, VENUE) as collector:
            async with ticking(sim):
                await until(lambda: collector.books.states()["live"] == 4, "all books are live")
                await until(lambda: collector.recorder.counters.frames > 300, "some hundred frames")
            await caught_up(collector, sim)
            depth = [name for name, state in collector.recorder.states.items() if state.sync is not None]
        rows = journal_rows(tmp_path / "data", VENUE)
        assert len(depth) == 4, "three perpetuals and a spot market"
        for stream in depth:
            messages = books(rows, stream)
            assert messages[0]["type"] == "subscribed/order_book"
            assert len(messages) > 20
            assert breaks(messages) == 0
        assert events(rows, "gap") == []
        assert not [row for row in rows if row.kind == "rest"], "nothing is fetched over REST to seed"
        assert any(row.kind == "catalogue" for row in rows)
        assert {row.stream.partition(":")[0] for row in rows if row.kind == "frame"} >= {
            "order_book", "trade", "market_stats",
        }  # fmt: skip


async def test_nonce_gap_is_mended_by_subscribing_that_market_anew(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS)
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 4, "all books are live")
            stream = next(name for name, state in collector.recorder.states.items() if state.sync is not None)
            symbol = collector.recorder.states[stream].stream.symbol
            sim.control.fault(VENUE, "drop", stream=stream)
            await until(lambda: collector.recorder.counters.gaps == 1, "the gap is declared")
            await until(lambda: collector.books.states()["live"] == 4, "the book is whole again")
        rows = journal_rows(tmp_path / "data", VENUE)
        (gap,) = events(rows, "gap")
        assert gap["symbol"] == symbol
        assert [each["symbol"] for each in events(rows, "resync") if each["reason"] == "gap"] == [symbol]
        market = stream.partition(":")[2]
        sent = [json.loads(row.body) for row in rows if row.kind == "sent" and row.stream == ""]
        unsubscribes = [each["channel"] for each in sent if each["type"] == "unsubscribe"]
        assert unsubscribes == [f"order_book/{market}"]


async def test_more_subscriptions_than_the_burst_limit_all_arrive(tmp_path: Path) -> None:
    """The venue refuses the 39th message of a second without naming it; pacing keeps below, over all connections."""
    async with running(simulated(tmp_path, symbols=14)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS, symbols_per_connection=7)
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(
                lambda: all(state.since_subscribe for state in collector.recorder.states.values()),
                "each stream delivers",
                timeout=40,
            )
            assert len(collector.recorder.states) > 40
            assert len(collector.feed.slots) > 1
            assert collector.recorder.counters.refused == 0


async def test_refused_subscriptions_are_sent_again_on_the_same_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30009 names no channel, and what it refused stays silent for ever; a new connection would meet the same limit."""
    monkeypatch.setattr(watchdog, "_ANSWER_NS", 1_000_000_000)
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS)
        sim.control.fault(VENUE, "too_many_messages", count=5)
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: collector.recorder.counters.refused >= 5, "the venue refuses")
            await until(
                lambda: all(state.since_subscribe for state in collector.recorder.states.values()),
                "each stream delivers all the same",
                timeout=40,
            )
            await until(lambda: collector.books.states()["live"] == 4, "all books are live")
            assert collector.recorder.counters.connects == 1
            assert collector.recorder.counters.gaps == 0


async def test_a_roll_waits_for_what_was_refused_on_the_new_connection(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS)
        async with collecting(config, VENUE) as collector:
            async with ticking(sim):
                await until(lambda: collector.books.states()["live"] == 4, "all books are live")
                await until(
                    lambda: all(state.since_subscribe for state in collector.recorder.states.values()), "all speak"
                )
                sim.control.fault(VENUE, "too_many_messages", count=5)
                collector.feed.slots[0].request_roll("age")
                await until(lambda: collector.recorder.counters.rolls == 1, "the connection is replaced", timeout=30)
                seen = collector.recorder.counters.frames
                await until(lambda: collector.recorder.counters.frames > seen + 100, "and goes on")
            await caught_up(collector, sim)
            assert collector.recorder.counters.refused == 5
            assert collector.recorder.counters.gaps == 0
        rows = journal_rows(tmp_path / "data", VENUE)
        (roll,) = events(rows, "roll")
        assert roll["unseen"] == []
        for stream in collector.recorder.states:
            assert missing(sim, rows, stream) == [], stream


async def test_fewer_markets_on_a_connection_are_taken_over_without_a_hole(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        before = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS)
        after = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS, symbols_per_connection=2)
        async with collecting(before, VENUE, reload=lambda: after) as collector:
            async with ticking(sim):
                await until(lambda: collector.books.states()["live"] == 4, "all books are live")
                await until(
                    lambda: all(state.since_subscribe for state in collector.recorder.states.values()), "all speak"
                )
                sim.control.fault(VENUE, "too_many_messages", count=3)
                collector.reload()
                await until(lambda: len(collector.feed.slots) == 2, "there is another connection")
                await until(
                    lambda: {len(slot.symbols) for slot in collector.feed.slots} == {2}, "each has its half", timeout=30
                )
                seen = collector.recorder.counters.frames
                await until(lambda: collector.recorder.counters.frames > seen + 100, "and goes on")
            await caught_up(collector, sim)
            assert collector.recorder.counters.refused == 3
            assert collector.recorder.counters.gaps == 0
        rows = journal_rows(tmp_path / "data", VENUE)
        for stream in collector.recorder.states:
            assert missing(sim, rows, stream) == [], stream


async def test_a_connection_paces_itself_where_the_common_bucket_cannot_be_had(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS)
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 4, "all books are live")
            shutil.rmtree(collector.layout.run / "pacing")
            collector.feed.slots[0].request_roll("age")
            await until(lambda: collector.recorder.counters.rolls == 1, "the connection is replaced", timeout=30)
            assert collector.books.states()["live"] == 4
        (roll,) = events(journal_rows(tmp_path / "data", VENUE), "roll")
        assert roll["unseen"] == []


async def test_a_subscription_that_is_taken_and_says_nothing_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To ask for it once more would be refused with 30003 and leave it silent for ever."""
    monkeypatch.setattr(watchdog, "_ANSWER_NS", 1_000_000_000)
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS)
        sim.control.fault(VENUE, "silent", stream="trade:0")
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: "trade:0" in collector.recorder.states, "the stream is subscribed")
            state = collector.recorder.states["trade:0"]
            await until(lambda: state.stage == 1, "its silence is found", timeout=30)
            await until(lambda: state.since_subscribe > 0 and not state.stage, "it speaks, and is well again")
            assert collector.recorder.counters.refused == 0
            assert collector.recorder.counters.connects == 1
        rows = journal_rows(tmp_path / "data", VENUE)
        told = [each["action"] for each in events(rows, "stale") if each["stream"] == "trade:0"]
        assert told == ["resubscribe", "recovered"]


async def test_a_refusal_that_names_another_stream_is_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_ANSWER_NS", 1_000_000_000)
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS)
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 4, "all books are live")
            slot = collector.feed.slots[0]
            slot.subscribe_again([collector.recorder.states["trade:0"].stream])
            await until(lambda: collector.recorder.counters.refused == 1, "the venue says 30003")
            assert slot.refused_ns == 0
            await until(lambda: collector.recorder.states["trade:0"].since_subscribe > 0, "it goes on")


async def test_listing_and_delisting_are_followed_without_a_restart(tmp_path: Path) -> None:
    """The venue announces neither: the catalogue is asked for again and again, within 60 requests a minute."""
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS, instrument_interval="1s")
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 4, "all books are live")
            sim.control.fault(VENUE, "list", symbol="NEW")
            sim.control.fault(VENUE, "delist", symbol="XRP")
            await until(lambda: "NEW" in collector.universe.symbols, "the new market is chosen")
            await until(lambda: "XRP" not in collector.universe.symbols, "the inactive one is not")
            market = {one.symbol: one.market_id for one in collector.universe.instruments}["NEW"]
            state = collector.recorder.states[f"order_book:{market}"]
            await until(lambda: state.frames > 20, "the new book is recorded")
            assert collector.recorder.counters.connects == 1
    messages = books(journal_rows(tmp_path / "data", VENUE), f"order_book:{market}")
    assert messages[0]["type"] == "subscribed/order_book"
    assert breaks(messages) == 0


async def test_a_new_file_does_not_say_of_streams_that_they_are_subscribed_before_they_were_asked_for(
    tmp_path: Path,
) -> None:
    """Asking for hundreds of streams takes long; an hour that turns meanwhile must not count those as listened to."""
    async with running(simulated(tmp_path, symbols=30)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS)
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: collector.recorder.counters.frames > 0, "the first streams are asked for")
            (connection,) = collector.feed.slots[0].connections
            connection.repeat_opened()
        rows = journal_rows(tmp_path / "data", VENUE)
        places = [number for number, row in enumerate(rows) if row.kind == "opened"]
        before = [row for row in rows[: places[1]] if row.stream == "subscribe"]
        asked = [name for row in before for name in parse_body(row.body)["streams"]]
        assert sorted(asked) == parse_body(rows[places[1]].body)["streams"]
        assert len(asked) < len(collector.recorder.states)
