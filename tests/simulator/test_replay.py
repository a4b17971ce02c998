"""A replay serves the recorded bytes, each once, and the snapshot where it stood."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from simulator.replay import BadRecording, load_recordings
from simulator.server import SimulatorConfig
from simulator.testing import Running, running
from tests.simulator.book_client import DEPTH_PATH, Book, connect, get

RECORDINGS = Path(__file__).parents[3] / "shared" / "data" / "hftbacktest"
FUTURES, SPOT = "binance_futures", "binance_spot"


def diff(first: int, final: int, previous: int, bid: str, size: str) -> str:
    return (
        '{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161256299,"T":1723161256298,'
        f'"s":"BTCUSDT","U":{first},"u":{final},"pu":{previous},"b":[["{bid}","{size}"]],"a":[]}}}}'
    )


TRADE = '{"stream":"btcusdt@trade","data":{"e":"trade",  "s":"BTCUSDT","t":%d}}'
SNAPSHOT = '{"lastUpdateId":12,"E":1,"T":1,"bids":[["100.00","1.000"]],"asks":[["101.50","2.000"]]}'
LINES = [
    diff(10, 11, 9, "99.50", "1.000"),
    TRADE % 1,
    diff(12, 13, 11, "99.00", "2.000"),
    SNAPSHOT,
    diff(15, 16, 13, "100.00", "0.000"),
    TRADE % 2,
]


def write(path: Path, lines: list[str], start: int = 1_723_161_255_000_000_000) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(f"{start + n * 50_000_000} {line}\n" for n, line in enumerate(lines))
    return path


def config(*files: Path, **options: Any) -> SimulatorConfig:
    return SimulatorConfig(replay=files, **{"speed": None, "message_limits": False, **options})


async def read(client: Any, count: int) -> list[str]:
    while len(client.raw) < count:
        client.raw.append(await client.socket.receive_str(timeout=5))
    return list(client.raw)


async def test_the_recorded_bytes_come_once_in_order_with_the_snapshot_in_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "one.gz", LINES)
    async with running(config(path)) as sim, connect(sim, FUTURES, "/public/stream") as client:
        await client.subscribe("btcusdt@depth@0ms")
        await client.subscribe("btcusdt@trade")
        before = await read(client, 3)
        assert before == LINES[:3]
        with pytest.raises(TimeoutError):  # held at the snapshot until somebody asks for it
            await client.socket.receive(timeout=0.2)
        _, body, _ = await get(sim, FUTURES, DEPTH_PATH[FUTURES], symbol="BTCUSDT", limit=1000)
        assert body["lastUpdateId"] == 12
        assert await read(client, 5) == [line for line in LINES if line != SNAPSHOT]
        # A later request gets the book as played: the recorded answer would be older than the stream.
        _, later, _ = await get(sim, FUTURES, DEPTH_PATH[FUTURES], symbol="BTCUSDT", limit=1000)
        assert later["lastUpdateId"] == 16
        assert later["bids"] == [["99.00", "2.000"]]
        book = Book(body)
        assert book.apply({"U": 12, "u": 13, "pu": 11, "b": [["99.00", "2.000"]], "a": []})


async def test_a_request_before_the_snapshot_waits_for_it(tmp_path: Path) -> None:
    path = write(tmp_path / "one.gz", LINES)
    async with running(config(path)) as sim:
        early = asyncio.create_task(get(sim, FUTURES, DEPTH_PATH[FUTURES], symbol="BTCUSDT"))
        await asyncio.sleep(0.05)
        assert not early.done()
        async with connect(sim, FUTURES, "/public/stream") as client:
            await client.subscribe("btcusdt@depth@0ms")
            await client.subscribe("btcusdt@trade")
            assert (await early)[1]["lastUpdateId"] == 12
            assert len(await read(client, 5)) == 5


async def test_raw_connections_get_the_data_alone_and_other_names_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "one.gz", LINES)
    options = {"replay_start_grace": 0.1, "replay_snapshot_hold": 0.1, "replay_then": "close"}
    async with (
        running(config(path, **options)) as sim,
        connect(sim, FUTURES, "/public/ws/btcusdt@depth@100ms") as other,
        connect(sim, FUTURES, "/public/ws/btcusdt@depth@0ms") as raw,
    ):
        assert await raw.closed() == 1000
        assert raw.raw == [line[len('{"stream":"btcusdt@depth@0ms","data":') : -1] for line in LINES if '"pu"' in line]
        await other.closed()
        assert other.raw == []
        assert sim.control.streams() == {FUTURES: ["btcusdt@depth@0ms", "btcusdt@trade"]}


async def test_the_timing_is_the_recorded_one_scaled(tmp_path: Path) -> None:
    path = write(tmp_path / "one.gz", [TRADE % n for n in range(21)])  # 1 s of recording
    options = {"speed": 4.0, "replay_venue": FUTURES}
    async with running(config(path, **options)) as sim, connect(sim, FUTURES, "/public/stream") as client:
        await client.subscribe("btcusdt@trade")
        await read(client, 1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await read(client, 21)
        assert 0.2 <= loop.time() - began < 0.6


async def test_the_catalogue_of_a_replay_knows_tick_and_lot(tmp_path: Path) -> None:
    path = write(tmp_path / "one.gz", LINES)
    async with running(config(path)) as sim:
        _, body, _ = await get(sim, FUTURES, "/fapi/v1/exchangeInfo")
        (row,) = body["symbols"]
        filters = {f["filterType"]: f for f in row["filters"]}
        assert (row["symbol"], filters["PRICE_FILTER"]["tickSize"]) == ("BTCUSDT", "0.5")
        assert filters["LOT_SIZE"]["stepSize"] == "1"
        assert (await get(sim, FUTURES, DEPTH_PATH[FUTURES], symbol="ETHUSDT"))[1]["code"] == -1121


@pytest.mark.parametrize("content", ["", "hello world\n", "12 [1]\n"])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.gz"
    path.write_bytes(gzip.compress(content.encode()))
    with pytest.raises(BadRecording):
        load_recordings([path])


def _recorded(name: str) -> Path:
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"recording {name} is not here")
    return path


async def _play(
    sim: Running, venue: str, path: str, names: list[str], symbol: str, count: int
) -> tuple[list[str], Any]:
    async with connect(sim, venue, path) as client:
        await client.subscribe(*names)
        snapshot = asyncio.create_task(get(sim, venue, DEPTH_PATH[venue], symbol=symbol, limit=1000))
        return await read(client, count), (await snapshot)[1]


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("venue", "path", "symbol", "depth", "files"),
    [
        (FUTURES, "/public/stream", "BTCUSDT", "depth@0ms", ["usdm_btcusdt_20240808.gz"]),
        (SPOT, "/stream", "ETHUSDT", "depth@100ms", ["spot_ethusdt_20240808.gz", "spot_ethusdt_20240809.gz"]),
    ],
)
async def test_whole_recordings_are_served_verbatim_and_chain_from_their_snapshot(
    venue: str, path: str, symbol: str, depth: str, files: list[str]
) -> None:
    paths = [_recorded(name) for name in files]
    lines = [line.split(b" ", 1)[1].decode() for p in paths for line in gzip.decompress(p.read_bytes()).splitlines()]
    frames = [line for line in lines if line.startswith('{"stream"')]
    names = [f"{symbol.lower()}@{channel}" for channel in (depth, "bookTicker", "trade")]
    async with running(config(*paths)) as sim:
        got, snapshot = await _play(sim, venue, path, names, symbol, len(frames))
        assert got == frames
        assert snapshot == json.loads(next(line for line in lines if line.startswith('{"last')))
        book = Book(snapshot)
        for line in frames:
            if f"@{depth}" in line[:40]:
                assert book.apply(json.loads(line)["data"])
        _, now, _ = await get(sim, venue, DEPTH_PATH[venue], symbol=symbol, limit=1000)
        assert now["lastUpdateId"] == book.id
        assert {p: book.bids[p] for p, _ in now["bids"]} == dict(now["bids"])
