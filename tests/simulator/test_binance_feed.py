"""What a client hears from the live Binance venues agrees with itself and with the truth ledger."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from simulator.testing import running
from tests.simulator.book_client import DEPTH_PATH, Book, connect, get, get_while_ticking, manual

VENUES = ("binance_spot", "binance_futures")
PUBLIC = {"binance_spot": "", "binance_futures": "/public"}
MARKET = {"binance_spot": "", "binance_futures": "/market"}


def by_stream(messages: list[Any]) -> dict[str, list[Any]]:
    streams: dict[str, list[Any]] = defaultdict(list)
    for message in messages:
        streams[message["stream"]].append(message["data"])
    return streams


@pytest.mark.parametrize("venue", VENUES)
async def test_a_book_from_snapshot_and_diffs_equals_the_truth_at_every_id(venue: str, tmp_path: Path) -> None:
    async with running(manual(truth=tmp_path)) as sim:
        symbols = ["BTCUSDT", "XRPUSDT"]
        async with connect(sim, venue, PUBLIC[venue] + "/stream") as client:
            await client.subscribe(*(f"{s.lower()}@depth@100ms" for s in symbols))
            sim.control.advance(0.225)
            books = {s: Book((await get(sim, venue, DEPTH_PATH[venue], symbol=s, limit=1000))[1]) for s in symbols}
            starts = {s: book.id for s, book in books.items()}
            sim.control.advance(5)
            events = by_stream(await client.drain())
        truth = sim.truth()
        for symbol, book in books.items():
            mine = events[f"{symbol.lower()}@depth@100ms"]
            assert len(mine) >= 50
            for event in mine:
                assert book.apply(event)
                assert not book.crossed()
            at = truth.book(venue, symbol, book.id)
            assert (at.update_id, at.bids, at.asks) == (
                book.id,
                {p: book.bids[p] for p in at.bids},
                {p: book.asks[p] for p in at.asks},
            )
            assert len(at.bids) == len(book.bids)
            assert len(at.asks) == len(book.asks)
            generated = [event.decode() for event in truth.events(venue, "depth@100ms", symbol)]
            assert generated == mine
            assert starts[symbol] < book.id


@pytest.mark.parametrize("venue", VENUES)
async def test_the_ids_chain_as_the_venue_chains_them(venue: str) -> None:
    async with running(manual()) as sim, connect(sim, venue, PUBLIC[venue] + "/stream") as client:
        await client.subscribe("btcusdt@depth@100ms", "ethusdt@depth@100ms")
        sim.control.advance(4)
        for events in by_stream(await client.drain()).values():
            for before, after in itertools.pairwise(events):
                if venue == "binance_spot":
                    assert after["U"] == before["u"] + 1
                    assert "pu" not in after
                    assert "T" not in after
                else:
                    assert after["pu"] == before["u"]
                    assert after["st"] == 1
                    assert after["ps"] == after["s"]
                assert after["E"] > before["E"]
            if venue == "binance_futures":
                assert any(after["U"] > before["u"] + 1 for before, after in itertools.pairwise(events))


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("place", ["inside", "event_end"])
async def test_a_snapshot_can_be_ordered_inside_an_event_or_at_its_end(venue: str, place: str) -> None:
    async with running(manual()) as sim, connect(sim, venue, PUBLIC[venue] + "/stream") as client:
        await client.subscribe("xrpusdt@depth@100ms")
        sim.control.advance(0.3)
        sim.control.fault(venue, "snapshot", symbol="XRPUSDT", place=place)
        snapshot = await get_while_ticking(sim, venue, DEPTH_PATH[venue], symbol="XRPUSDT", limit=1000)
        sim.control.advance(1)
        events = by_stream(await client.drain())["xrpusdt@depth@100ms"]
        last = snapshot["lastUpdateId"]
        if place == "inside":
            assert any(event["U"] <= last < event["u"] for event in events)
        else:
            index = next(n for n, event in enumerate(events) if event["u"] == last)
            if venue == "binance_spot":
                assert events[index + 1]["U"] == last + 1
            else:
                assert events[index + 1]["pu"] == last
        book = Book(snapshot)
        assert all(book.apply(event) for event in events)


async def test_snapshots_at_ordinary_times_often_lie_inside_an_event() -> None:
    async with running(manual()) as sim, connect(sim, "binance_futures", "/public/stream") as client:
        await client.subscribe("xrpusdt@depth@100ms")
        ids = []
        for _ in range(20):
            sim.control.advance(0.125)
            _, body, _ = await get(sim, "binance_futures", DEPTH_PATH["binance_futures"], symbol="XRPUSDT", limit=5)
            ids.append(body["lastUpdateId"])
        sim.control.advance(0.2)
        events = by_stream(await client.drain())["xrpusdt@depth@100ms"]
        inside = sum(any(e["U"] <= last < e["u"] for e in events) for last in ids)
        assert inside >= 5


@pytest.mark.parametrize("venue", VENUES)
async def test_a_lagging_snapshot_is_older_than_the_stream(venue: str) -> None:
    async with running(manual()) as sim, connect(sim, venue, PUBLIC[venue] + "/stream") as client:
        sim.control.advance(7)
        await client.subscribe("btcusdt@depth@100ms")
        sim.control.advance(0.3)
        sim.control.fault(venue, "snapshot", symbol="BTCUSDT", place="lag")
        _, old, _ = await get(sim, venue, DEPTH_PATH[venue], symbol="BTCUSDT", limit=1000)
        _, new, _ = await get(sim, venue, DEPTH_PATH[venue], symbol="BTCUSDT", limit=1000)
        first = by_stream(await client.drain())["btcusdt@depth@100ms"][0]
        assert old["lastUpdateId"] < first["U"] - 1
        assert new["lastUpdateId"] >= first["u"]


@pytest.mark.parametrize("venue", VENUES)
async def test_trades_aggregates_and_candles_tell_the_same_story(venue: str) -> None:
    async with running(manual(symbols=2)) as sim, connect(sim, venue, MARKET[venue] + "/stream") as client:
        await client.subscribe("btcusdt@trade", "btcusdt@aggTrade", "btcusdt@kline_1m", "btcusdt@kline_3m")
        sim.control.advance(200)
        streams = by_stream(await client.drain())
        trades, aggregates = streams["btcusdt@trade"], streams["btcusdt@aggTrade"]
        assert [t["t"] for t in trades] == list(range(trades[0]["t"], trades[0]["t"] + len(trades)))
        assert [a["a"] for a in aggregates] == list(range(aggregates[0]["a"], aggregates[0]["a"] + len(aggregates)))
        by_id = {t["t"]: t for t in trades}
        covered = []
        for a in aggregates:
            parts = [by_id[n] for n in range(a["f"], a["l"] + 1)]
            covered += [part["t"] for part in parts]
            assert {(part["p"], part["m"]) for part in parts} == {(a["p"], a["m"])}
            assert sum(Decimal(part["q"]) for part in parts) == Decimal(a["q"])
            assert a["T"] == parts[0]["T"]
            assert a["T"] // 60_000 == parts[-1]["T"] // 60_000
        assert covered == sorted(set(covered))
        for name in ("btcusdt@kline_1m", "btcusdt@kline_3m"):
            closed = [k["k"] for k in streams[name] if k["k"]["x"]]
            assert len(closed) == (3 if name.endswith("1m") else 1)
            for k in closed:
                parts = [t for t in trades if k["t"] <= t["T"] <= k["T"]]
                assert parts
                assert (k["f"], k["L"], k["n"]) == (parts[0]["t"], parts[-1]["t"], len(parts))
                assert sum(Decimal(t["q"]) for t in parts) == Decimal(k["v"])
                assert sum(Decimal(t["q"]) * Decimal(t["p"]) for t in parts) == Decimal(k["q"])
                assert sum((Decimal(t["q"]) for t in parts if not t["m"]), Decimal(0)) == Decimal(k["V"])
                assert (k["o"], k["c"]) == (parts[0]["p"], parts[-1]["p"])
                assert Decimal(k["h"]) == max(Decimal(t["p"]) for t in parts)
                assert Decimal(k["l"]) == min(Decimal(t["p"]) for t in parts)
        running_updates = [k for k in streams["btcusdt@kline_1m"] if not k["k"]["x"]]
        assert running_updates


async def test_rest_rows_equal_the_stream() -> None:
    async with running(manual(symbols=1)) as sim, connect(sim, "binance_futures", "/market/stream") as client:
        await client.subscribe("btcusdt@aggTrade", "btcusdt@kline_1m")
        sim.control.advance(61)
        streams = by_stream(await client.drain())
        first = streams["btcusdt@aggTrade"][3]["a"]
        _, rows, headers = await get(
            sim, "binance_futures", "/fapi/v1/aggTrades", symbol="BTCUSDT", fromId=first, limit=5
        )
        keys = ("a", "p", "q", "nq", "f", "l", "T", "m")
        assert [[row[k] for k in keys] for row in rows] == [
            [event[k] for k in keys] for event in streams["btcusdt@aggTrade"][3:8]
        ]
        assert headers["X-MBX-USED-WEIGHT-1M"] == "20"
        k = next(event["k"] for event in streams["btcusdt@kline_1m"] if event["k"]["x"])
        _, candles, _ = await get(sim, "binance_futures", "/fapi/v1/klines", symbol="BTCUSDT", interval="1m")
        assert candles[0][:9] == [k["t"], k["o"], k["h"], k["l"], k["c"], k["v"], k["T"], k["q"], k["n"]]


async def test_partial_books_are_the_top_of_the_truth(tmp_path: Path) -> None:
    async with running(manual(truth=tmp_path)) as sim:
        async with (
            connect(sim, "binance_spot", "/stream") as spot,
            connect(sim, "binance_futures", "/public/stream") as futures,
        ):
            await spot.subscribe("xrpusdt@depth5@100ms")
            await futures.subscribe("xrpusdt@depth10@100ms", "xrpusdt@depth20")
            sim.control.advance(2)
            streams = by_stream(await spot.drain() + await futures.drain())
        truth = sim.truth()
        for name, venue, levels in (
            ("xrpusdt@depth5@100ms", "binance_spot", 5),
            ("xrpusdt@depth10@100ms", "binance_futures", 10),
            ("xrpusdt@depth20", "binance_futures", 20),
        ):
            assert len(streams[name]) >= (18 if "@100ms" in name else 7)
            last = streams[name][-1]
            book = truth.book(venue, "XRPUSDT", last.get("u") or last["lastUpdateId"])
            assert last.get("b", last.get("bids")) == [list(level) for level in book.bids.items()][:levels]
            assert last.get("a", last.get("asks")) == [list(level) for level in book.asks.items()][:levels]
        assert set(streams["xrpusdt@depth5@100ms"][0]) == {"lastUpdateId", "bids", "asks"}


async def test_book_tickers_are_the_top_of_the_truth(tmp_path: Path) -> None:
    async with running(manual(truth=tmp_path)) as sim:
        async with connect(sim, "binance_futures", "/public/ws/ethusdt@bookTicker") as client:
            sim.control.advance(2)
            tickers = await client.drain()
        truth = sim.truth()
        assert len(tickers) > 10
        for ticker in tickers[::10]:
            book = truth.book("binance_futures", "ETHUSDT", ticker["u"])
            assert (ticker["b"], ticker["B"]) == next(iter(book.bids.items()))
            assert (ticker["a"], ticker["A"]) == next(iter(book.asks.items()))


async def test_funding_marks_and_liquidations_come_as_documented() -> None:
    async with running(manual(rate=10)) as sim, connect(sim, "binance_futures", "/market/stream") as client:
        await client.subscribe("btcusdt@markPrice@1s", "ethusdt@markPrice", "!markPrice@arr@1s", "!forceOrder@arr")
        sim.control.advance(60)
        streams = by_stream(await client.drain())
        assert len(streams["btcusdt@markPrice@1s"]) == 60
        assert len(streams["ethusdt@markPrice"]) == 20
        arrays = streams["!markPrice@arr@1s"]
        assert len(arrays) == 120
        assert [row["s"] for row in arrays[1]] == ["XAUUSDT"]
        assert arrays[0][-1]["T"] == 0
        mark = streams["btcusdt@markPrice@1s"][0]
        assert mark["T"] > mark["E"]
        assert streams["!forceOrder@arr"][0]["o"]["X"] == "FILLED"
        _, rows, headers = await get(sim, "binance_futures", "/fapi/v1/fundingRate", symbol="BTCUSDT", limit=3)
        assert len(rows) == 3
        assert "X-MBX-USED-WEIGHT-1M" not in headers
        assert rows[0]["fundingTime"] < rows[1]["fundingTime"] < rows[2]["fundingTime"]
        sim.control.advance(1)
        assert rows == (await get(sim, "binance_futures", "/fapi/v1/fundingRate", symbol="BTCUSDT", limit=3))[1]


async def test_two_runs_of_one_seed_write_the_same_bytes(tmp_path: Path) -> None:
    async def run(name: str, seed: int) -> list[bytes]:
        async with running(manual(truth=tmp_path / name, seed=seed)) as sim:
            sim.control.advance(3)
            truth = sim.truth()
            return [event.payload for v in VENUES for c in truth.channels(v) for event in truth.events(v, c)]

    first = await run("one", 7)
    assert first == await run("two", 7)
    assert first != await run("three", 8)
    assert len(first) > 300


async def test_a_stream_nobody_hears_any_more_is_still_generated(tmp_path: Path) -> None:
    async with running(manual(truth=tmp_path)) as sim:
        async with connect(sim, "binance_futures", "/public/stream") as client:
            await client.subscribe("btcusdt@depth@0ms")
            sim.control.advance(1)
            await client.drain()
        sim.control.advance(1)
        async with connect(sim, "binance_futures", "/public/stream") as client:
            await client.subscribe("btcusdt@depth@0ms")
            sim.control.advance(1)
            heard = by_stream(await client.drain())["btcusdt@depth@0ms"]
        generated = [e.decode() for e in sim.truth().events("binance_futures", "depth@0ms", "BTCUSDT")]
        assert len(generated) >= 55
        assert heard == generated[-len(heard) :]
        assert all(b["pu"] == a["u"] for a, b in itertools.pairwise(generated))


async def test_every_subscriber_gets_the_same_bytes_raw_or_combined() -> None:
    async with running(manual()) as sim:
        async with (
            connect(sim, "binance_spot", "/ws/ethusdt@trade") as raw,
            connect(sim, "binance_spot", "/stream?streams=ethusdt@trade/btcusdt@trade") as combined,
        ):
            sim.control.advance(2)
            plain = await raw.drain()
            wrapped = by_stream(await combined.drain())["ethusdt@trade"]
        assert plain == wrapped
        assert json.dumps(plain).isascii()
