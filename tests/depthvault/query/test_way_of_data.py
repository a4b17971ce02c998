"""From journal to live to archive: at every step SQL sees each recorded event once, with the values of its text."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import depthvault
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish
from depthvault.clock import ManualClock, datetime_from_ns
from depthvault.config import Config, Secrets
from depthvault.exchanges import exchange
from depthvault.journal import JournalWriter
from depthvault.query import Vault
from depthvault.seal import seal

MINUTE = timedelta(minutes=1)
RECORDING = Path(__file__).parents[4] / "shared" / "data" / "hftbacktest" / "usdm_btcusdt_20240808.gz"

pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not RECORDING.exists(), reason=f"no recording at {RECORDING}"),
]


def recorded_depth() -> Iterator[tuple[int, bytes]]:
    """Receipt (ns) and body of each depth event and snapshot of the recording."""
    with gzip.open(RECORDING, "rb") as file:
        for line in file:
            received, body = line.rstrip(b"\n").split(b" ", 1)
            if b"@depth" in body[:40] or not body.startswith(b'{"stream"'):
                yield int(received), body


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("data")
    return Config.model_validate({"data_dir": folder, "archive": {"period": "1m", "seal_grace": "2s"}})


@pytest.fixture(scope="module")
def secrets() -> Secrets:
    return Secrets.model_construct(r2_bucket_name=None, r2_access_key_id=None, r2_secret_access_key=None)


@pytest.fixture(scope="module")
def journaled(config: Config) -> Config:
    """Two writers that received the same frames, the second 3 ms later."""
    venue = exchange("binance_futures", config.exchanges.binance_futures)
    for writer, lag in (("a", 0), ("b", 3_000_000)):
        rows = recorded_depth()
        first = next(rows)
        clock = ManualClock(first[0])
        with JournalWriter(config.layout, "binance_futures", writer, clock=clock) as journal:
            for received, body in (first, *rows):
                clock.wall = received + lag
                journal.rotate_if_due()
                if body.startswith(b'{"stream"'):
                    journal.append("frame", 1, "btcusdt@depth@0ms", body)
                elif writer == "a":
                    journal.append_rest(venue.snapshot_request("BTCUSDT", 1000).line, body, received - 50_000_000)
    return config


def counted(vault: Vault) -> tuple[int, int, int, int]:
    row = vault.sql("""
        SELECT count(*), count(DISTINCT final_update_id), sum(len(bid_prices) + len(ask_prices)),
               (SELECT count(*) FROM depth_snapshot)
        FROM depth_diff WHERE exchange = 'binance_futures'
    """).fetchall()[0]
    return tuple(int(value) for value in row)  # type: ignore[return-value]


def test_each_event_is_seen_once_at_every_step(journaled: Config, secrets: Secrets) -> None:
    config, layout = journaled, journaled.layout
    frames = [json.loads(body) for _, body in recorded_depth()]
    diffs = [frame["data"] for frame in frames if "stream" in frame]
    levels = sum(len(diff["b"]) + len(diff["a"]) for diff in diffs)
    expected = (len(diffs), len(diffs), levels, 1)
    vault = depthvault.open(layout.root, config=config, secrets=secrets)
    assert counted(vault) == expected, "journals alone"

    venue = exchange("binance_futures", config.exchanges.binance_futures)
    first, last = (datetime_from_ns(next(recorded_depth())[0]), datetime_from_ns(list(recorded_depth())[-1][0]))
    periods = []
    period = layout.period_of(first)
    while period.start <= last:
        periods.append(period)
        period = period.next()
    for position, period in enumerate(periods):
        for writer in ("a", "b"):
            seal(layout, venue, writer, period, grace=config.archive.seal_grace)
            assert counted(vault) == expected, f"{writer} sealed {period}"
        if position % 2:
            for unit in ready_units(layout, config):
                compact(layout, config, unit.exchange, unit.period)
                publish(layout, config, secrets, unit)
                assert counted(vault) == expected, f"archived {unit}"
    assert counted(depthvault.open(layout.root, config=config, secrets=secrets)) == expected

    rows = vault.depth_diff("binance_futures", "BTCUSDT", first, last + MINUTE).read_all().to_pylist()
    for row, diff in zip(rows, diffs, strict=True):
        assert (row["first_update_id"], row["final_update_id"]) == (diff["U"], diff["u"])
        assert row["bid_prices"] == [float(price) for price, _ in diff["b"]]
        assert row["ask_sizes"] == [float(size) for _, size in diff["a"]]


def test_the_book_is_the_recorded_one(journaled: Config, secrets: Secrets) -> None:
    """Against a book made from the recorded text with dicts alone."""
    vault = depthvault.open(journaled.layout.root, config=journaled, secrets=secrets)
    at = datetime.fromisoformat("2024-08-08T23:57:00Z")
    bids: dict[float, float] = {}
    asks: dict[float, float] = {}
    events = [(ns, json.loads(body)) for ns, body in recorded_depth()]
    (snapshot,) = [message for _, message in events if "stream" not in message]
    for side, levels in ((bids, snapshot["bids"]), (asks, snapshot["asks"])):
        side.update((float(price), float(size)) for price, size in levels)
    applied = 0
    for ns, message in events:
        if "stream" in message and datetime_from_ns(ns) <= at and message["data"]["u"] > snapshot["lastUpdateId"]:
            applied += 1
            for side, levels in ((bids, message["data"]["b"]), (asks, message["data"]["a"])):
                for price, size in levels:
                    if float(size):
                        side[float(price)] = float(size)
                    else:
                        side.pop(float(price), None)
    book = vault.book("binance_futures", "BTCUSDT", at=at)
    assert book.bids() == sorted(bids.items(), reverse=True)
    assert book.asks() == sorted(asks.items())
    assert book.provenance.diffs_applied == applied
    assert book.provenance.snapshot_update_id == snapshot["lastUpdateId"]
    assert not book.provenance.gap_crossed
    assert book.provenance.bid_low == min(float(price) for price, _ in snapshot["bids"])

    found = vault.sql(f"SELECT side, price, size, gap_crossed FROM book_at('binance_futures', 'BTCUSDT', '{at}')")
    answers = found.fetchall()
    assert [(price, size) for side, price, size, _ in answers if side == "bid"] == book.bids()
    assert [(price, size) for side, price, size, _ in answers if side == "ask"] == book.asks()
    assert not any(gap for *_, gap in answers)
