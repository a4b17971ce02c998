"""Everything at once: whatever the venue does, each missing event is declared and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.testing import running
from tests.collectors.session import (
    caught_up,
    collecting,
    configuration,
    events,
    frames,
    journal_rows,
    payload,
    simulated,
    subscribed,
    ticking,
    truth_of,
    until,
)

# Shares of events and mean simulated seconds between two faults of a kind.
FAULTS = "drop=0.01,duplicate=0.02,malformed=0.001,lag_snapshot=0.2,rest_5xx=0.1,disconnect=3,shutdown=4,stall=10"
SYMBOLS = 4


@pytest.mark.parametrize(("venue", "seed"), [("binance_spot", 3), ("binance_futures", 4)])
async def test_every_missing_event_is_declared_and_nothing_else(venue: str, seed: int, tmp_path: Path) -> None:
    options = {"symbols": SYMBOLS, "seed": seed, "faults": FAULTS, "message_limits": False}
    async with running(simulated(tmp_path, **options)) as sim:
        config = configuration(
            sim, venue, tmp_path / "data", symbols_per_connection=2, reset_reconnect_after="100ms",
            stale_after={"depth_diff": "3s"}, max_connection_age="5s",
        )  # fmt: skip
        async with collecting(config, venue) as collector:
            await subscribed(collector)
            async with ticking(sim):
                await until(lambda: collector.recorder.counters.gaps >= 15, "many gaps", timeout=60)
                await until(lambda: collector.recorder.counters.resyncs >= SYMBOLS + 5, "books are mended", timeout=60)
            await caught_up(collector, sim)
            collector.journal.flush()
    rows = journal_rows(tmp_path / "data", venue)
    declared: dict[str, list[tuple[int, int]]] = {}
    for gap in events(rows, "gap"):
        declared.setdefault(gap["symbol"], []).append((gap["last_id"], gap["first_id"]))
    kept_raw = {row.body for row in rows if row.kind == "frame" and row.stream == ""}
    missing_events = 0
    for stream, state in collector.recorder.states.items():
        if state.sync is None:
            continue
        symbol = state.stream.symbol
        received = frames(rows, stream)
        generated = truth_of(sim, venue, stream)
        assert set(received) <= set(generated), "nothing was invented"
        ids = [json.loads(body)["u"] for body in received]
        have, first, last = set(ids), min(ids), max(ids)
        missing = [final for body in generated if first < (final := json.loads(body)["u"]) < last and final not in have]
        missing_events += len(missing)
        gaps = declared.pop(symbol, [])
        open_gap = {final for final in missing if not any(low < final <= high for low, high in gaps)}
        assert not open_gap, f"{symbol}: undeclared"
        for low, high in gaps:
            assert any(low < final <= high for final in missing), f"{symbol}: a gap that is none"
    assert declared == {}
    assert missing_events >= 12
    assert all(
        b'"depthUpdate"' not in payload(body) or not body.endswith(b"}}") for body in kept_raw if b',"data":' in body
    )
