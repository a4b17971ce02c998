"""Two writers record a simulated market and lose what chance takes; the archive agrees with the market's truth."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from depthvault.archive import log
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.archive.staging import Unit
from depthvault.archive.verify import verify
from depthvault.period import Period
from simulator.instruments import Instrument, binance_futures_instrument
from simulator.market import IdSequence, Market, replay_mutations

from .sealed import FUTURES, HOUR, Host

PERIODS = [HOUR, HOUR.next()]
EVENTS = 350  # an hour
SNAPSHOT_LIMIT = 40


@dataclass
class Truth:
    """What the market did: events by final id and in order, snapshots at any change."""

    symbol: str
    seed: int
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    previous: dict[int, int] = field(default_factory=dict)
    snapshots: list[dict[str, Any]] = field(default_factory=list)

    def run(self, instrument: Instrument) -> None:
        chance = random.Random(f"{self.seed}{self.symbol}")
        market = Market(instrument, chance, IdSequence(1000, holes=9), levels=120, first_trade_id=1)
        shadow = (dict(market.bids), dict(market.asks))
        last = market.last_id
        for period in PERIODS:
            for number in range(EVENTS):
                at = period.start + timedelta(seconds=1 + number * 10)
                market.step(int(at.timestamp() * 1000), chance.randint(1, 12), 0.5)
                if not market.first_id:
                    continue
                self.rows[market.last_id] = {
                    "event_time": at, "transaction_time": at, "symbol": self.symbol, "source": "stream",
                    "first_update_id": market.first_id, "final_update_id": market.last_id,
                    "prev_final_update_id": last, "is_snapshot": False, "epoch": 0,
                    **_sides("bid", list(market.changed_bids.items())),
                    **_sides("ask", list(market.changed_asks.items())),
                }  # fmt: skip
                self.previous[market.last_id], last = last, market.last_id
                cut = chance.randrange(len(market.mutations)) if chance.random() < 0.15 else -1
                for place, mutation in enumerate(market.mutations):
                    replay_mutations(shadow, [mutation])
                    if place == cut:  # in the middle of an event, as a REST answer does
                        self.snapshots.append(self._snapshot(shadow, mutation[0], at))
            assert shadow == (market.bids, market.asks)

    def _snapshot(self, book: tuple[dict[int, int], dict[int, int]], update_id: int, at: Any) -> dict[str, Any]:
        return {
            "received_time": at, "event_time": at, "symbol": self.symbol, "instance": "rest-h", "source": "rest",
            "transaction_time": at, "request_time": at, "last_update_id": update_id, "limit": SNAPSHOT_LIMIT,
            **_sides("bid", sorted(book[0].items(), reverse=True)[:SNAPSHOT_LIMIT]),
            **_sides("ask", sorted(book[1].items())[:SNAPSHOT_LIMIT]),
        }  # fmt: skip


def _sides(side: str, levels: list[tuple[int, int]]) -> dict[str, list[float]]:
    return {
        f"{side}_prices": [float(price) for price, _ in levels],
        f"{side}_sizes": [float(size) for _, size in levels],
    }


def _lossy(truth: Truth, writer: str, chance: random.Random) -> list[int]:
    """The ids that a writer has: some runs are lost, some events come twice, some late and out of order."""
    finals = list(truth.rows)
    lost: set[int] = set()
    for _ in range(6):
        start = chance.randrange(1, len(finals) - 30)
        lost.update(finals[start : start + chance.choice((1, 2, 5, 20))])
    kept = [final for final in finals if final not in lost]
    again = chance.sample(kept, 20)
    return kept + again


def _row(truth: Truth, final: int, writer: str, delay: float) -> dict[str, Any]:
    row = truth.rows[final]
    return {**row, "received_time": row["event_time"] + timedelta(seconds=delay), "instance": writer}


def _runs(wanted: list[bool], values: list[int]) -> list[list[int]]:
    """The stretches of `values` that are wanted."""
    pairs = groupby(zip(wanted, values, strict=True), lambda pair: pair[0])
    return [[value for _, value in group] for key, group in pairs if key]


def _period(row: dict[str, Any]) -> Period:
    return Period.containing(row["transaction_time"])


@pytest.fixture(scope="module")
def instruments() -> dict[str, Instrument]:
    return {item.symbol: item for item in map(binance_futures_instrument, (0, 1))}


def _tables(host: Host, table: str) -> list[dict[str, Any]]:
    state = log.load(host.layout)
    return [
        row
        for path, file in sorted(state.files.items())
        if file.table == table
        for row in pq.read_table(host.layout.archived(path)).to_pylist()
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_archive_agrees_with_the_truth(tmp_path: Path, seed: int, instruments: dict[str, Instrument]) -> None:
    host, chance = Host(tmp_path), random.Random(seed)
    truths = {symbol: Truth(symbol, seed) for symbol in instruments}
    for symbol, truth in truths.items():
        truth.run(instruments[symbol])
    have: dict[tuple[str, str], set[int]] = {}
    for writer, delay in (("a", 0.01), ("b", 0.02)):
        rows: list[dict[str, Any]] = []
        for symbol, truth in truths.items():
            ids = _lossy(truth, writer, chance)
            have[symbol, writer] = set(ids)
            rows += [_row(truth, final, writer, delay) for final in ids]
        for period in PERIODS:
            own = [row for row in rows if _period(row) == period]
            late = {}
            if period != PERIODS[0]:  # a straggler of the hour before that came with this hour's receipt
                late = {PERIODS[0]: {"depth_diff": [row for row in rows if _period(row) == PERIODS[0]][-5:]}}
            else:
                own = own[:-5]
            snapshots = [
                row for truth in truths.values() for row in truth.snapshots if _period(row) == period and writer == "a"
            ]
            host.seal(writer, {"depth_diff": own, "depth_snapshot": snapshots}, period=period, late=late)
    while units := ready_units(host.layout, host.config, FUTURES):
        compact(host.layout, host.config, FUTURES, units[0].period)
        publish_with(host.layout, None, Unit(FUTURES, units[0].period))
    assert verify(host.layout, deep=True).findings == []

    archived = _tables(host, "depth_diff")
    gaps = _tables(host, "gaps")
    audits = _tables(host, "book_audit")
    for symbol, truth in truths.items():
        union = have[symbol, "a"] | have[symbol, "b"]
        rows = [row for row in archived if row["symbol"] == symbol]
        assert [row["final_update_id"] for row in rows] == sorted(union)
        for row in rows:
            true = truth.rows[row["final_update_id"]]
            assert {name: row[name] for name in true} == true

        finals = list(truth.rows)
        first = min(union)
        expected = {
            (truth.previous[run[0]], run[-1])
            for run in _runs([final not in union for final in finals], finals)
            if run[0] > first and run[-1] < max(union)
        }
        lost = {
            (row["last_id"], row["first_id"])
            for row in gaps
            if row["symbol"] == symbol and row["channel"] == "depth_diff" and row["status"] == "lost"
        }
        assert lost == expected
        bridged = [row for row in gaps if row["symbol"] == symbol and row["status"] == "bridged"]
        for row in bridged:
            hole = {final for final in finals if row["last_id"] < final <= row["first_id"]}
            assert hole
            assert not hole & have[symbol, row["instance"]]
            assert hole <= union

        judged = [row for row in audits if row["symbol"] == symbol]
        assert len(judged) >= len(truth.snapshots) - 3
        assert sum(row["undecidable"] for row in judged) > 0, "snapshots lie inside events"
        for row in judged:
            assert (row["missing"], row["extra"], row["different"]) == (0, 0, 0)
            straddled = next(final for final in finals if final >= row["to_update_id"])
            between = [
                final for final in finals
                if row["from_update_id"] < final <= straddled and final not in union
            ]  # fmt: skip
            assert row["gap_crossed"] == bool(between)
            assert row["gap_crossed"] or row["matched"] > SNAPSHOT_LIMIT
