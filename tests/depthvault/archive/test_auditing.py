"""The book audit of the archive: right books match over the turn of the period, wrong rows are an incident."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from depthvault.archive import log
from depthvault.archive.compact import compact
from depthvault.archive.publish import publish_with
from depthvault.archive.staging import Unit
from depthvault.period import Period

from . import sealed
from .sealed import FUTURES, HOUR, Host


class Market:
    """A book of a few levels; every change is one event of the right symbol, snapshots can be taken at any time."""

    def __init__(self) -> None:
        self.bids = {100.0 - step: 1.0 for step in range(20)}
        self.asks = {101.0 + step: 1.0 for step in range(20)}
        self.final = 1000

    def change(self, at: float, base: Period = HOUR) -> dict[str, object]:
        previous, self.final = self.final, self.final + 10
        price = 100.0 - self.final // 10 % 20
        size = float(self.final % 7)
        if size:
            self.bids[price] = size
        else:
            self.bids.pop(price, None)
        moment = base.start + timedelta(seconds=at)
        return {
            "received_time": moment, "event_time": moment, "symbol": "BTCUSDT", "instance": "a", "source": "stream",
            "transaction_time": moment, "first_update_id": previous + 1, "final_update_id": self.final,
            "prev_final_update_id": previous, "is_snapshot": False, "epoch": 0, "bid_prices": [price],
            "bid_sizes": [size], "ask_prices": [], "ask_sizes": [],
        }  # fmt: skip

    def snapshot(self, at: float, base: Period = HOUR) -> dict[str, object]:
        moment = base.start + timedelta(seconds=at)
        bids, asks = sorted(self.bids.items(), reverse=True), sorted(self.asks.items())
        return {
            "received_time": moment, "event_time": moment, "symbol": "BTCUSDT", "instance": "rest-h", "source": "rest",
            "transaction_time": moment, "request_time": moment, "last_update_id": self.final, "limit": 1000,
            "bid_prices": [p for p, _ in bids], "bid_sizes": [s for _, s in bids],
            "ask_prices": [p for p, _ in asks], "ask_sizes": [s for _, s in asks],
        }  # fmt: skip


def record(market: Market, base: Period = HOUR) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    diffs, snapshots = [], []
    for second in range(1, 600):
        diffs.append(market.change(second, base))
        if second % 60 == 0:
            snapshots.append(market.snapshot(second + 0.5, base))
    return diffs, snapshots


def archive(host: Host, period: Period = HOUR, exchange: str = FUTURES) -> list[dict[str, Any]]:
    compact(host.layout, host.config, exchange, period)
    publish_with(host.layout, None, Unit(exchange, period))
    state = log.load(host.layout)
    rows: list[dict[str, Any]] = []
    for channel in ("depth_diff", "depth_snapshot"):
        for file in state.files_of(("hour", exchange, channel, period.label)):
            if file.table == "book_audit":
                rows += pq.read_table(host.layout.archived(file.path)).to_pylist()
    return rows


def test_right_books_match_over_the_turn_of_the_period(tmp_path: Path) -> None:
    host, market = Host(tmp_path), Market()
    diffs, snapshots = record(market)
    host.seal("a", {"depth_diff": diffs, "depth_snapshot": snapshots})
    first = archive(host)
    assert [row["to_update_id"] for row in first] == [snapshot["last_update_id"] for snapshot in snapshots[1:]]
    following = HOUR.next()
    diffs, more = record(market, following)
    host.seal("a", {"depth_diff": diffs, "depth_snapshot": more}, period=following)
    second = archive(host, following)
    assert second[0]["from_update_id"] == snapshots[-1]["last_update_id"]
    assert len(second) == len(more)
    for row in first + second:
        assert (row["missing"], row["extra"], row["different"], row["gap_crossed"]) == (0, 0, 0, False)
        assert row["matched"] > 20


def test_a_snapshot_that_the_period_does_not_reach_is_judged_in_the_next(tmp_path: Path) -> None:
    host, market = Host(tmp_path), Market()
    diffs, snapshots = record(market)
    host.seal("a", {"depth_diff": diffs[:-100], "depth_snapshot": snapshots})
    first = archive(host)
    following = HOUR.next()
    late = [{**row, "received_time": following.start} for row in diffs[-100:]]
    host.seal("a", {"depth_diff": late}, period=following)
    second = archive(host, following)
    assert [row["to_update_id"] for row in first + second] == [one["last_update_id"] for one in snapshots[1:]]
    host.seal("b", {"depth_diff": late, "depth_snapshot": [market.snapshot(1, following)]}, period=following)
    second = archive(host, following)
    judged = [row["to_update_id"] for row in first + second]
    assert judged == [snapshot["last_update_id"] for snapshot in snapshots[1:]] + [market.final]


def test_a_wrong_size_is_an_incident_with_the_levels_kept(tmp_path: Path) -> None:
    host, market = Host(tmp_path), Market()
    diffs, snapshots = record(market)
    diffs[100]["bid_sizes"] = [123.0]
    host.seal("a", {"depth_diff": diffs, "depth_snapshot": snapshots})
    rows = archive(host)
    wrong = [row for row in rows if row["different"] + row["missing"] + row["extra"]]
    assert len(wrong) == 1, "the next snapshot seeds a right book again"
    entry = log.load(host.layout).entry("hour", FUTURES, "depth_snapshot", HOUR.label)
    assert entry is not None
    (incident,) = entry.conflicts
    assert "123.0" in incident.kept


@pytest.mark.parametrize("changed", ["depth_diff", "depth_snapshot"])
def test_the_audit_is_made_anew_when_either_side_changes(tmp_path: Path, changed: str) -> None:
    host, market = Host(tmp_path), Market()
    diffs, snapshots = record(market)
    late = {
        "depth_diff": (diffs[:300] + diffs[310:], snapshots, {"depth_diff": diffs[300:310]}),
        "depth_snapshot": (diffs, snapshots[:4] + snapshots[5:], {"depth_snapshot": [snapshots[4]]}),
    }[changed]
    host.seal("a", {"depth_diff": late[0], "depth_snapshot": late[1]})
    before = archive(host)
    host.seal("b", {}, period=HOUR.next(), late={HOUR: late[2]})
    after = archive(host)
    assert before != after
    assert len(after) == len(snapshots) - 1
    assert not any(row["gap_crossed"] for row in after)
    state = log.load(host.layout)
    assert sum(file.table == "book_audit" for file in state.files.values()) == 1


def test_a_probe_whose_nonce_lies_inside_a_lighter_batch_leaves_that_batch_undecided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lighter names no first id of a batch: what it changes may have come anywhere after the batch before."""
    monkeypatch.setattr(sealed, "FUTURES", "lighter")
    host, market = Host(tmp_path), Market()
    diffs, probes = record(market)
    diffs = [{**row, "first_update_id": row["final_update_id"]} for row in diffs]
    probes = [{**row, "last_update_id": row["last_update_id"] - 5, "limit": 2**31 - 1} for row in probes]
    host.seal("a", {"depth_diff": diffs, "depth_snapshot": probes})
    rows = archive(host, exchange="lighter")
    assert len(rows) == len(probes) - 1
    for row in rows:
        assert (row["missing"], row["extra"], row["different"], row["gap_crossed"]) == (0, 0, 0, False)
        assert row["undecidable"] == 1
