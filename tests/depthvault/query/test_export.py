"""Exports hold what the archive holds, in the shape that others read."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthvault.errors import UsageError
from depthvault.query import Vault
from depthvault.query.export import FORMATS, export
from depthvault.query.hftbacktest import (
    BUY,
    CLEAR,
    DEPTH,
    EVENT,
    EXCHANGE,
    LOCAL,
    SELL,
    SNAPSHOT,
    TRADE,
    in_both_orders,
)

from .recording import HOUR_10, Recording, diff, snapshot, table, trades

END = HOUR_10 + timedelta(hours=1)


def at(seconds: float) -> datetime:
    return HOUR_10 + timedelta(seconds=seconds)


def micros(seconds: float) -> int:
    return round(at(seconds).timestamp() * 1e6)


@pytest.fixture
def filled(vault: Vault, recording: Recording) -> Vault:
    recording.seal(
        HOUR_10,
        "a",
        {
            "trade": trades(0, HOUR_10, 5),
            "depth_snapshot": table(
                "depth_snapshot",
                [
                    snapshot(10, at(1), [(100.0, 1.0)], [(101.0, 3.0)]),
                    snapshot(20, at(8), [(90.0, 7.0)], [(111.0, 1e-8)]),
                ],
            ),
            "depth_diff": table(
                "depth_diff",
                [
                    diff(9, 10, at(0.5), [(1.0, 1.0)], []),
                    diff(11, 11, at(2), [(99.0, 2.0)], [(101.0, 0.0)]),
                    diff(12, 12, at(3), [], [(102.0, 0.00001234)]),
                    diff(18, 20, at(6), [(98.0, 1.0)], []),  # 13 to 17 are missing
                    diff(21, 21, at(9), [(97.0, 1.0)], []),
                ],
            ),
        },
    )
    return vault


def written(vault: Vault, format: str, path: Path, **options: object) -> list[str]:
    result = export(vault, format, "binance_spot", "BTCUSDT", HOUR_10, END, path, **options)  # type: ignore[arg-type]
    return result.notes


def test_parquet_and_csv_hold_the_channel(filled: Vault, tmp_path: Path) -> None:
    expected = filled.depth_diff("binance_spot", "BTCUSDT", HOUR_10, END).read_all()
    written(filled, "parquet", tmp_path / "out.parquet", channel="depth_diff")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == expected.to_pylist()
    written(filled, "csv", tmp_path / "out.csv", channel="depth_diff")
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [json.loads(row["ask_sizes"]) for row in rows] == expected.column("ask_sizes").to_pylist()
    assert rows[0]["received_time"] == "2026-11-20T10:00:00.500000Z"
    assert rows[0]["prev_final_update_id"] == ""


def test_a_book_in_the_shape_of_tardis(filled: Vault, tmp_path: Path) -> None:
    notes = written(filled, "tardis-book", tmp_path / "book.csv.gz")
    with gzip.open(tmp_path / "book.csv.gz", "rt") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["exchange", "symbol", "timestamp", "local_timestamp", "is_snapshot", "side", "price", "amount"]
    assert [(int(row[3]), row[4], row[5], float(row[6]), float(row[7])) for row in rows[1:]] == [
        (micros(1), "true", "bid", 100.0, 1.0),
        (micros(1), "true", "ask", 101.0, 3.0),
        (micros(2), "false", "bid", 99.0, 2.0),
        (micros(2), "false", "ask", 101.0, 0.0),
        (micros(3), "false", "ask", 102.0, 0.00001234),
        (micros(6), "false", "bid", 98.0, 1.0),
        (micros(8), "true", "bid", 90.0, 7.0),
        (micros(8), "true", "ask", 111.0, 1e-8),
        (micros(9), "false", "bid", 97.0, 1.0),
    ]
    assert notes == ["the book was seeded 2 times: each is_snapshot block replaces what was before"]


def test_trades_in_the_shape_of_tardis(filled: Vault, tmp_path: Path) -> None:
    written(filled, "tardis-trades", tmp_path / "trades.csv")
    with (tmp_path / "trades.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["exchange", "symbol", "timestamp", "local_timestamp", "id", "side", "price", "amount"]
    assert [(row["id"], row["side"]) for row in rows] == [
        ("0", "sell"), ("1", "buy"), ("2", "sell"), ("3", "buy"), ("4", "sell"),
    ]  # fmt: skip
    assert int(rows[1]["timestamp"]) == micros(1)
    assert int(rows[1]["local_timestamp"]) == micros(1.007)


def test_hftbacktest_gets_book_and_trades_in_both_orders(filled: Vault, tmp_path: Path) -> None:
    written(filled, "hftbacktest", tmp_path / "out.npz")
    events = np.load(tmp_path / "out.npz")["data"]
    assert events.dtype == EVENT
    assert EVENT.itemsize == 64
    here = events[events["ev"] & LOCAL > 0]
    told = [(int(event["ev"]) & 0xFF, int(event["local_ts"]) // 1000 - micros(0)) for event in here]
    assert told == [
        (TRADE, 7_000), (CLEAR, 1_000_000), (CLEAR, 1_000_000), (SNAPSHOT, 1_000_000), (SNAPSHOT, 1_000_000),
        (TRADE, 1_007_000), (DEPTH, 2_000_000), (DEPTH, 2_000_000), (TRADE, 2_007_000), (DEPTH, 3_000_000),
        (TRADE, 3_007_000), (TRADE, 4_007_000), (DEPTH, 6_000_000), (CLEAR, 8_000_000), (CLEAR, 8_000_000),
        (SNAPSHOT, 8_000_000), (SNAPSHOT, 8_000_000), (DEPTH, 9_000_000),
    ]  # fmt: skip
    fills = here[here["ev"] & 0xFF == TRADE]
    assert [bool(kind & SELL) for kind in fills["ev"]] == [True, False, True, False, True]
    cleared = here[here["ev"] & 0xFF == CLEAR][2:]
    assert cleared["px"].tolist() == [90.0, 111.0], "all prices that were ever told are wiped"
    assert [bool(kind & BUY) for kind in cleared["ev"]] == [True, False]


def test_receipts_before_the_event_are_moved_together_and_said(
    vault: Vault, recording: Recording, tmp_path: Path
) -> None:
    early = trades(0, HOUR_10, 3).to_pylist()
    for row in early:
        row["received_time"] -= timedelta(seconds=1.272)
    recording.seal(HOUR_10, "a", {"trade": table("trade", early)})
    notes = export(
        vault, "hftbacktest", "binance_spot", "BTCUSDT", at(-60), END, tmp_path / "out.npz"
    ).notes  # fmt: skip
    assert any("receipts were moved by 1,265.000 ms" in note for note in notes)
    events = np.load(tmp_path / "out.npz")["data"]
    assert (events["local_ts"] - events["exch_ts"]).tolist() == [0, 0, 0]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=40))
def test_any_events_come_out_in_both_orders_and_each_once(times: list[tuple[int, int]]) -> None:
    events = np.zeros(len(times), EVENT)
    events["exch_ts"] = [venue for venue, _ in times]
    events["local_ts"] = sorted(here for _, here in times)
    events["order_id"] = np.arange(len(times))
    out = in_both_orders(events)
    for flag, column in ((EXCHANGE, "exch_ts"), (LOCAL, "local_ts")):
        marked = out[out["ev"] & flag > 0]
        assert (np.diff(marked[column]) >= 0).all()
        assert sorted(marked["order_id"].tolist()) == list(range(len(times)))


def test_progress_ends_and_counts_rows(filled: Vault, tmp_path: Path) -> None:
    seen: list[tuple[float, int]] = []
    written(filled, "tardis-book", tmp_path / "o.csv", progress=lambda share, rows: seen.append((share, rows)))
    assert [rows for _, rows in seen] == sorted(rows for _, rows in seen)
    assert seen[-1][1] == 9
    assert all(0 <= share <= 1 for share, _ in seen)


@pytest.mark.parametrize("format", list(FORMATS))
def test_a_file_that_is_there_is_not_overwritten_unasked(filled: Vault, tmp_path: Path, format: str) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="is there already"):
        written(filled, format, path, channel="trade")
    assert path.read_bytes() == b"mine"
    written(filled, format, path, channel="trade", overwrite=True)
    assert path.read_bytes() != b"mine"


def test_an_export_that_fails_leaves_nothing(filled: Vault, tmp_path: Path) -> None:
    def fail(share: float, rows: int) -> None:
        raise RuntimeError("stopped")

    folder = tmp_path / "folder"
    with pytest.raises(RuntimeError):
        written(filled, "csv", folder / "out.csv", channel="trade", progress=fail)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "channel"), [("xls", "trade"), ("csv", None), ("parquet", "trades")], ids=["format", "none", "channel"]
)
def test_what_there_is_not_is_refused(filled: Vault, tmp_path: Path, format: str, channel: str | None) -> None:
    with pytest.raises(UsageError):
        written(filled, format, tmp_path / "out", channel=channel)
    with pytest.raises(UsageError, match="nothing lies between"):
        export(filled, "csv", "binance_spot", "BTCUSDT", END, HOUR_10, tmp_path / "out", channel="trade")


def test_a_book_without_a_snapshot_is_said(vault: Vault, recording: Recording, tmp_path: Path) -> None:
    recording.seal(HOUR_10, "a", {"depth_diff": table("depth_diff", [diff(1, 1, at(1), [(1.0, 1.0)], [])])})
    assert "there is no book" in written(vault, "tardis-book", tmp_path / "book.csv")[0]
    assert "trades alone" in written(vault, "hftbacktest", tmp_path / "book.npz")[0]
