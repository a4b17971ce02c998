"""The real hftbacktest reads what we export, and its book is ours at every moment that is asked for."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import depthvault
from depthvault.clock import datetime_from_ns, ns_from_datetime
from depthvault.config import Config, Secrets
from depthvault.query import Vault
from depthvault.query.export import export
from depthvault.query.hftbacktest import LOCAL

from ...side_environment import side_environment
from .recording import HOUR_10, Recording, diff, snapshot, table, trades
from .test_way_of_data import RECORDING, config, journaled, recorded_depth  # noqa: F401 - fixtures

PROGRAM = Path(__file__).with_name("backtest_program.py")
TOP = 60
"""Ticks from the best price that are compared; as in `backtest_program`."""

pytestmark = pytest.mark.timeout(600)  # the first run installs hftbacktest


def backtest(path: Path, moments: Sequence[int], tick: float, lot: float) -> list[dict[str, Any]]:
    """What hftbacktest's engine shows at each local time (ns)."""
    done = subprocess.run(
        [str(side_environment("hftbacktest") / "python"), str(PROGRAM), str(path), str(tick), str(lot)],
        input=json.dumps(moments), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def shown(bids: list[tuple[float, float]], asks: list[tuple[float, float]], tick: float) -> dict[str, Any]:
    """A book, best first, as the program tells it."""
    result: dict[str, Any] = {}
    for name, sign, levels in (("bid", -1, bids), ("ask", 1, asks)):
        sizes = {round(price / tick): size for price, size in levels}
        best = round(levels[0][0] / tick)
        result[name] = pytest.approx(levels[0][0], rel=1e-12)
        result[f"{name}_size"] = levels[0][1]
        result[f"{name}_ticks"] = [sizes.get(best + sign * step, 0.0) for step in range(TOP)]
    return result


def differences(engine: dict[str, Any], book: dict[str, Any]) -> list[str]:
    """What differs, in words: pytest's own comparison of such long lists takes minutes."""
    assert engine.keys() == book.keys()
    found = []
    for name, value in engine.items():
        if isinstance(value, list):
            found += [
                f"{name}[{step}]: {one} instead of {other}"
                for step, (one, other) in enumerate(zip(value, book[name], strict=True))
                if one != other
            ]
        elif value != book[name]:
            found.append(f"{name}: {value} instead of {book[name]}")
    return found


class Market:
    """A random book with a seed: what is sent, and what the book is after it."""

    def __init__(self, seed: int, tick: float) -> None:
        self.chance, self.tick = random.Random(seed), tick
        self.middle = 1000
        self.bids = {self.middle - step: float(step) for step in range(1, 40)}
        self.asks = {self.middle + step: float(step) for step in range(1, 40)}

    def prices(self, levels: dict[int, float]) -> list[tuple[float, float]]:
        return [(tick * self.tick, size) for tick, size in levels.items()]

    def step(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """A change that may move the best prices by several ticks; never leaves a crossed book."""
        self.middle += self.chance.randint(-3, 3)
        changed: tuple[dict[int, float], dict[int, float]] = ({}, {})
        for side, sign, change in ((self.bids, -1, changed[0]), (self.asks, 1, changed[1])):
            for tick in side:
                if sign * (tick - self.middle) <= 0:  # traded away
                    change[tick] = 0.0
            for _ in range(self.chance.randint(1, 5)):
                tick = self.middle + sign * self.chance.randint(1, 12)
                change[tick] = self.chance.choice((0.0, self.chance.randint(1, 9_999) / 1000))
            change[self.middle + sign * self.chance.randint(1, 3)] = self.chance.randint(1, 9_999) / 1000
            for tick, size in change.items():
                side[tick] = size
            for tick in [tick for tick, size in side.items() if not size]:
                del side[tick]
        return self.prices(changed[0]), self.prices(changed[1])

    def copy(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        return sorted(self.prices(self.bids), reverse=True), sorted(self.prices(self.asks))


@pytest.mark.parametrize("behind", [0.0, 0.75], ids=["clock right", "clock behind the venue"])
def test_a_random_market_with_a_gap_is_the_same_book(
    vault: Vault, recording: Recording, tmp_path: Path, behind: float
) -> None:
    """Snapshots, a gap with its new seed, events of another route that overtake, and receipts before the event."""
    market, late = Market(5, 0.1), timedelta(seconds=-behind)
    truth: list[tuple[datetime, tuple[list[tuple[float, float]], list[tuple[float, float]]]]] = []
    rows, wholes = [], [snapshot(10, HOUR_10 + timedelta(seconds=1) + late, *market.copy())]
    for number in range(400):
        sent = HOUR_10 + timedelta(seconds=2 + number * 0.1)
        bids, asks = market.step()
        received = sent + timedelta(milliseconds=3 + number % 7) + late
        if not 200 <= number < 235:  # these are lost; then a snapshot comes
            rows.append(diff(11 + number, 11 + number, received, bids, asks) | {"transaction_time": sent})
        if number == 235:
            wholes.append(snapshot(11 + number, received + timedelta(milliseconds=40), *market.copy()))
        truth.append((received, market.copy()))
    fills = trades(0, HOUR_10 + timedelta(seconds=2), 38).to_pylist()
    for row in fills:
        row["received_time"] += late + timedelta(milliseconds=market.chance.choice((2, 150)))
    recording.seal(
        HOUR_10, "a",
        {"depth_diff": table("depth_diff", rows), "depth_snapshot": table("depth_snapshot", wholes),
         "trade": table("trade", sorted(fills, key=lambda row: row["received_time"]))},
    )  # fmt: skip
    path = tmp_path / "market.npz"
    end = HOUR_10 + timedelta(minutes=5)
    notes = export(vault, "hftbacktest", "binance_spot", "BTCUSDT", HOUR_10 - timedelta(minutes=1), end, path).notes
    moved = _moved(path, min(row["received_time"] for row in (*rows, *wholes, *fills)))
    assert (moved > 0) == (behind > 0) == any("receipts were moved" in note for note in notes)

    asked = [number for number in range(5, 395, 13) if not 200 <= number <= 236]
    moments = [truth[number][0] + timedelta(milliseconds=50) for number in asked]
    found = backtest(path, [ns_from_datetime(moment) + moved for moment in moments], 0.1, 0.001)
    for number, moment, engine in zip(asked, moments, found, strict=True):
        heard = sum(row["received_time"] <= moment for row in fills)
        assert differences(engine, {**shown(*truth[number][1], 0.1), "trades": heard}) == [], f"event {number}"
        own = vault.book("binance_spot", "BTCUSDT", at=moment)
        assert differences(engine, {**shown(own.bids(), own.asks(), 0.1), "trades": heard}) == [], f"event {number}"
        assert not own.provenance.gap_crossed


def _moved(path: Path, first_received: datetime) -> int:
    """By how much (ns) the export moved all receipts, as the file itself tells."""
    events = np.load(path)["data"]
    return int(events["local_ts"][events["ev"] & LOCAL > 0].min()) - ns_from_datetime(first_received)


@pytest.mark.recorded
@pytest.mark.skipif(not RECORDING.exists(), reason=f"no recording at {RECORDING}")
def test_the_recorded_market_is_the_same_book(
    journaled: Config,  # noqa: F811
    no_secrets: Secrets,
    tmp_path: Path,
) -> None:
    vault = depthvault.open(journaled.layout.root, config=journaled, secrets=no_secrets)
    frames = [received for received, _ in recorded_depth()]
    start, end = datetime_from_ns(frames[0]), datetime_from_ns(frames[-1]) + timedelta(seconds=1)
    path = tmp_path / "btcusdt.npz"
    export(vault, "hftbacktest", "binance_futures", "BTCUSDT", start, end, path)
    seeded = vault.sql("SELECT min(received_time) FROM depth_snapshot").fetchall()[0][0]
    moved = _moved(path, seeded)
    assert moved > 1_000_000_000, "the recorder's clock was 1.27 s behind"
    span = (end - timedelta(seconds=2) - seeded) / 13
    moments = [seeded + number * span for number in range(1, 13)]
    found = backtest(path, [ns_from_datetime(moment) + moved for moment in moments], 0.1, 0.001)
    for moment, engine in zip(moments, found, strict=True):
        book = vault.book("binance_futures", "BTCUSDT", at=moment)
        assert differences(engine, {**shown(book.bids(), book.asks(), 0.1), "trades": 0}) == [], moment
