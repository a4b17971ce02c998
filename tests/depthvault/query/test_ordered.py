"""A chain is read without sorting only where it lies in order, and then it is the same chain."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from depthvault.query import Vault
from depthvault.schemas import CHANNELS

from .recording import HOUR_10, Recording, diff, snapshot, table

HOUR_11 = HOUR_10 + timedelta(hours=1)
COLUMNS = CHANNELS["depth_diff"].schema.names


def micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def chain(first: int, count: int, start: datetime, symbol: str) -> list[dict[str, Any]]:
    return [
        diff(n, n, start + timedelta(seconds=n - first), [(float(n), 1.0)], [], symbol=symbol)
        for n in range(first, first + count)
    ]


def read(vault: Vault, symbol: str, low: datetime, high: datetime) -> list[dict[str, Any]] | None:
    batches = vault.ordered("depth_diff", "binance_spot", symbol, micros(low), micros(high) - 1, COLUMNS)
    return None if batches is None else pa.Table.from_batches(batches, CHANNELS["depth_diff"].schema).to_pylist()


@pytest.fixture
def archived(recording: Recording) -> Recording:
    for hour, first in ((HOUR_10, 1), (HOUR_11, 51)):
        rows = [*chain(first, 50, hour, "BTCUSDT"), *chain(first, 50, hour, "ETHUSDT")]
        recording.archive(hour, "depth_diff", table("depth_diff", rows), [])
    return recording


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT", "NONE"])
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (HOUR_10, HOUR_11 + timedelta(hours=1)),
        (HOUR_10 + timedelta(seconds=7), HOUR_11 + timedelta(seconds=9)),
        (HOUR_11, HOUR_11 + timedelta(seconds=1)),
        (HOUR_10 - timedelta(hours=2), HOUR_10),
    ],
)
def test_it_is_what_sql_gives(vault: Vault, archived: Recording, symbol: str, low: datetime, high: datetime) -> None:
    expected = vault.depth_diff("binance_spot", symbol, low, high).read_all().drop_columns(["exchange"]).to_pylist()
    assert read(vault, symbol, low, high) == expected


def test_rows_that_are_not_archived_are_left_to_sql(vault: Vault, archived: Recording) -> None:
    assert read(vault, "BTCUSDT", HOUR_10, HOUR_11) is not None
    later = HOUR_11 + timedelta(hours=1)
    archived.seal(later, "a", {"depth_diff": table("depth_diff", chain(101, 5, later, "BTCUSDT"))})
    assert read(vault, "BTCUSDT", HOUR_11, later + timedelta(hours=1)) is None
    assert read(vault, "BTCUSDT", HOUR_10, HOUR_11) is not None
    straggling = {HOUR_10: {"depth_diff": table("depth_diff", chain(48, 2, HOUR_10, "BTCUSDT"))}}
    archived.seal(later + timedelta(hours=1), "a", {}, late=straggling)
    assert read(vault, "BTCUSDT", HOUR_10, HOUR_11) is None
    assert read(vault, "BTCUSDT", HOUR_11, later) is not None


@pytest.mark.parametrize(
    "rows",
    [
        [diff(2, 2, HOUR_10, [], []), diff(1, 1, HOUR_10, [], [])],
        [diff(2, 2, HOUR_10, [], []), diff(2, 2, HOUR_10, [], [])],
        [diff(1, 1, HOUR_10, [], [], epoch=1), diff(2, 2, HOUR_10, [], [], epoch=0)],
    ],
    ids=["falling", "twice", "epoch falling"],
)
def test_rows_that_do_not_lie_in_order_are_left_to_sql(
    vault: Vault, recording: Recording, rows: list[dict[str, Any]]
) -> None:
    recording.archive(HOUR_10, "depth_diff", table("depth_diff", rows), [])
    assert read(vault, "BTCUSDT", HOUR_10, HOUR_11) is None


def test_periods_whose_ids_fall_are_left_to_sql(vault: Vault, recording: Recording) -> None:
    for hour, first in ((HOUR_10, 50), (HOUR_11, 1)):
        recording.archive(hour, "depth_diff", table("depth_diff", chain(first, 5, hour, "BTCUSDT")), [])
    assert read(vault, "BTCUSDT", HOUR_10, HOUR_11 + timedelta(hours=1)) is None
    assert read(vault, "BTCUSDT", HOUR_11, HOUR_11 + timedelta(hours=1)) is not None


def test_books_are_the_same_both_ways(vault: Vault, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    rows = [diff(0, 10, HOUR_10, [(100.0, 1.0)], [(101.0, 1.0)], prev=0, is_snapshot=True)]
    for n in range(11, 300):
        levels = [(float(price), float(size)) for price, size in rng.integers(0, 5, (4, 2))]
        rows.append(diff(0, n, HOUR_10 + timedelta(seconds=n), levels, [], prev=n - 1 - (n == 200)))
    recording.archive(HOUR_10, "depth_diff", table("depth_diff", rows), [])
    end = HOUR_10 + timedelta(seconds=310)
    fast = vault.books("binance_spot", "BTCUSDT", HOUR_10, end, depth=5).read_all().to_pylist()
    book = vault.book("binance_spot", "BTCUSDT", end)
    monkeypatch.setattr(type(vault), "ordered", lambda *_: None)
    assert vault.books("binance_spot", "BTCUSDT", HOUR_10, end, depth=5).read_all().to_pylist() == fast
    assert vault.book("binance_spot", "BTCUSDT", end).provenance == book.provenance


def test_what_lies_in_too_many_files_is_left_to_sql(vault: Vault, archived: Recording) -> None:
    def few(high: datetime) -> bool:
        question = ("depth_diff", "binance_spot", "BTCUSDT", micros(HOUR_10), micros(high) - 1, COLUMNS)
        return vault.ordered(*question, most_files=1) is not None

    assert few(HOUR_11)
    assert not few(HOUR_11 + timedelta(hours=1))


def test_a_book_whose_snapshot_is_hours_old_is_found_without_sql(
    vault: Vault, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [snapshot(n, HOUR_10 + timedelta(seconds=n), [(float(n), 1.0)], [(100.0, 1.0)]) for n in (1, 2)]
    recording.archive(HOUR_10, "depth_snapshot", table("depth_snapshot", old), [])
    later = HOUR_10 + timedelta(hours=6)
    recording.archive(later, "depth_diff", table("depth_diff", chain(3, 5, later, "BTCUSDT")), [])
    with monkeypatch.context() as patched:
        patched.setattr(type(vault), "ordered", lambda *_: None)
        by_sql = vault.book("binance_spot", "BTCUSDT", later + timedelta(seconds=2))
    monkeypatch.setattr(type(vault), "arrow", lambda *_: pytest.fail("SQL was asked"))
    found = vault.book("binance_spot", "BTCUSDT", later + timedelta(seconds=2))
    assert (found.provenance.snapshot_update_id, found.provenance.diffs_applied) == (2, 3)
    assert found.provenance == by_sql.provenance
