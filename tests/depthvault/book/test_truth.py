"""A recorded simulator: every book of the past is the one that the simulator had, level by level."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import depthvault
from depthvault.config import Config, Secrets
from depthvault.query import Event, Gap, Vault
from simulator.testing import Running, running
from simulator.truth import TrueBook
from tests.collectors.session import caught_up, collecting, configuration, simulated, subscribed, ticking, until

VENUES = {"binance_spot": 3, "binance_futures": 3, "lighter": 4}
"""How many books there are; on Lighter a spot market, too."""
NO_STORE = Secrets.model_construct(r2_bucket_name=None, r2_access_key_id=None, r2_secret_access_key=None)


def opened(config: Config) -> Vault:
    return depthvault.open(config.data_dir, config=config, secrets=NO_STORE)


def spans(vault: Vault, venue: str) -> dict[str, tuple[datetime, datetime]]:
    """For each symbol from when on its book is known, and when its last event was received."""
    rows = vault.sql(f"""
        WITH seeds AS (
            SELECT symbol, received_time FROM depth_snapshot WHERE exchange = '{venue}' UNION ALL
            SELECT symbol, received_time FROM depth_diff WHERE exchange = '{venue}' AND is_snapshot)
        SELECT symbol, min(seeds.received_time), max(depth_diff.received_time)
        FROM seeds JOIN depth_diff USING (symbol) GROUP BY symbol
    """).fetchall()
    return {symbol: (first, last) for symbol, first, last in rows}


def levels(book: TrueBook) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    return tuple([(float(price), float(size)) for price, size in side.items()] for side in (book.bids, book.asks))  # type: ignore[return-value]


async def record(sim: Running, venue: str, tmp_path: Path, frames: int) -> Config:
    channels: dict[str, Any] = {"channels": ("depth_diff",)}
    config = configuration(sim, venue, tmp_path / "data", **channels)
    async with collecting(config, venue) as collector:
        if venue != "lighter":  # it answers a subscription with the book, which comes as time passes
            await subscribed(collector)
        async with ticking(sim):
            await until(lambda: collector.books.states()["live"] == VENUES[venue], "all books are live")
            await until(lambda: collector.recorder.counters.frames > frames, f"{frames} frames")
        await caught_up(collector, sim)
    return config


@pytest.mark.parametrize("venue", VENUES)
async def test_books_of_the_past_are_the_true_ones(venue: str, tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        vault = opened(await record(sim, venue, tmp_path, 300))
        compared = 0
        for symbol, (first, last) in spans(vault, venue).items():
            for share in (0.0, 0.31, 0.77, 1.0):
                book = vault.book(venue, symbol, at=first + (last - first) * share)
                true = sim.truth().book(venue, symbol, book.provenance.last_update_id)
                assert (book.bids(), book.asks()) == levels(true), (symbol, share)
                assert not book.provenance.gap_crossed
                compared += 1
            rows = vault.books(venue, symbol, first, last, every="50ms", depth=7).read_all().to_pylist()
            truths = sim.truth().books(venue, {symbol: {row["update_id"] for row in rows}})
            for row in rows:
                bids, asks = levels(truths[symbol, row["update_id"]])
                assert list(zip(row["bid_prices"], row["bid_sizes"], strict=True)) == bids[:7]
                assert list(zip(row["ask_prices"], row["ask_sizes"], strict=True)) == asks[:7]
                compared += 1
        assert compared > 60


async def test_a_replay_of_what_was_received_has_no_gap_and_every_event(tmp_path: Path) -> None:
    venue = "binance_futures"
    async with running(simulated(tmp_path)) as sim:
        vault = opened(await record(sim, venue, tmp_path, 300))
        found = spans(vault, venue)
        start = min(first for first, _ in found.values()) - timedelta(minutes=1)
        end = max(last for _, last in found.values()) + timedelta(seconds=1)
        items = list(vault.replay([(venue, "depth_diff", symbol) for symbol in found], start, end))
        assert not [item for item in items if isinstance(item, Gap)]
        events = [item for item in items if isinstance(item, Event)]
        assert [event.received for event in events] == sorted(event.received for event in events)
        for symbol in found:
            sent = [event.decode() for event in sim.truth().events(venue, "depth@100ms", symbol)]
            got = [event["final_update_id"] for event in events if event.stream.symbol == symbol]
            assert got == [message["u"] for message in sent]
