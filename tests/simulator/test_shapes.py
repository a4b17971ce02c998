"""Messages have exactly the fields, in the order, that the venue sent in 2026."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.testing import running
from tests.simulator.book_client import connect, get, manual

CAPTURED = Path(__file__).parents[3] / "shared" / "data" / "binance_captured_2026"
FUTURES, SPOT = "binance_futures", "binance_spot"


def captured(name: str) -> list[Any]:
    path = CAPTURED / name
    if not path.exists():
        pytest.skip(f"the captured frames {name} are not here")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shape(value: Any) -> Any:
    """Keys in order and the kinds of values; the first element stands for a list."""
    if isinstance(value, dict):
        return [(key, shape(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


@pytest.mark.recorded
async def test_futures_events_have_the_captured_fields() -> None:
    real = {frame["stream"]: frame["data"] for frame in captured("usdm_ws_frames.jsonl") if "stream" in frame}
    async with (
        running(manual(symbols=2)) as sim,
        connect(sim, FUTURES, "/public/stream") as public,
        connect(sim, FUTURES, "/market/stream") as market,
    ):
        await public.subscribe(*(name for name in real if "depth" in name or "bookTicker" in name))
        await market.subscribe(*(name for name in real if "depth" not in name and "bookTicker" not in name))
        sim.control.advance(130)
        mine = {frame["stream"]: frame["data"] for frame in await public.drain() + await market.drain()}
    assert len(real) >= 6
    for stream, data in real.items():
        if stream == "!forceOrder@arr" and stream not in mine:
            continue
        assert shape(mine[stream]) == shape(data), stream


@pytest.mark.recorded
async def test_spot_events_have_the_captured_fields() -> None:
    frames = [frame for frame in captured("spot_ws_frames.jsonl") if "stream" in frame]
    real = {frame["stream"]: frame["data"] for frame in frames if "referencePrice" not in frame["stream"]}
    async with running(manual(symbols=1)) as sim, connect(sim, SPOT, "/stream") as client:
        await client.subscribe(*real)
        sim.control.advance(2)
        mine = {frame["stream"]: frame["data"] for frame in await client.drain()}
    for stream, data in real.items():
        assert shape(mine[stream]) == shape(data), stream


@pytest.mark.recorded
async def test_futures_rest_rows_have_the_captured_fields() -> None:
    rows = captured("usdm_rest_rows.jsonl")
    async with running(manual(symbols=9)) as sim:
        sim.control.advance(10)
        for row in rows:
            path = row.pop("_endpoint").partition(" ")[0]
            if "?" not in path and not path.endswith("fundingInfo"):
                path += "?symbol=BTCUSDT"
            status, body, _ = await get(sim, FUTURES, path)
            assert status == 200, path
            mine = body[0] if isinstance(body, list) else body
            if path.endswith("fundingInfo"):
                assert list(mine) == list(row)
            else:
                assert shape(mine) == shape(row), path
