"""Books of the past: right to the level, and open about what is missing."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import depthvault
from depthvault.book.events import Chain, Snapshot, breaks, state_hash
from depthvault.book.reference import ReferenceBook
from depthvault.config import Config, Secrets
from depthvault.errors import ArchiveError, UsageError
from depthvault.layout import Layout
from depthvault.query import Vault
from tests.depthvault.query.recording import HOUR_10, Recording, diff, snapshot, table

SECRETS = Secrets.model_construct(r2_bucket_name=None, r2_access_key_id=None, r2_secret_access_key=None)


def at(seconds: float) -> datetime:
    return HOUR_10 + timedelta(seconds=seconds)


def vault_of(tmp_path: Path, diffs: list[dict[str, Any]], snapshots: list[dict[str, Any]] | None = None,
             exchange: str = "binance_spot") -> Vault:  # fmt: skip
    layout = Layout(tmp_path)
    channels = {"depth_diff": table("depth_diff", diffs)}
    if snapshots:
        channels["depth_snapshot"] = table("depth_snapshot", snapshots)
    Recording(layout, exchange).seal(HOUR_10, "a", channels)
    return depthvault.open(tmp_path, config=Config(), secrets=SECRETS)


def test_a_spot_book_joins_its_snapshot_by_id_and_drops_what_it_holds(tmp_path: Path) -> None:
    vault = vault_of(
        tmp_path,
        [
            diff(1, 5, at(1), [(100.0, 9.0)], []),  # wholly in the snapshot
            diff(6, 12, at(2), [(99.0, 2.0)], [(101.0, 0.0)]),  # straddles its id
            diff(13, 14, at(3), [], [(102.0, 4.0)]),
            diff(15, 15, at(9), [(100.0, 0.0)], []),  # after the moment that is asked for
        ],
        [snapshot(10, at(2.5), [(100.0, 1.0)], [(101.0, 3.0)])],
    )
    book = vault.book("binance_spot", "BTCUSDT", at=at(5))
    assert book.bids() == [(100.0, 1.0), (99.0, 2.0)]
    assert book.asks() == [(102.0, 4.0)]
    assert (book.best_bid, book.best_ask, book.mid_price, book.spread) == (100.0, 102.0, 101.0, 2.0)
    told = book.provenance
    assert (told.snapshot_channel, told.snapshot_update_id, told.diffs_applied) == ("depth_snapshot", 10, 2)
    assert (told.last_update_id, told.last_received) == (14, at(3))
    assert not told.gap_crossed
    assert (told.bid_low, told.ask_high) == (None, None), "fewer levels than asked for: the snapshot is the whole book"


def test_the_trusted_range_ends_where_the_snapshot_was_cut(tmp_path: Path) -> None:
    whole = [snapshot(10, at(1), [(100.0, 1.0), (98.0, 1.0)], [(101.0, 3.0)], limit=2)]
    book = vault_of(tmp_path, [diff(11, 11, at(2), [(50.0, 1.0)], [])], whole).book("binance_spot", "BTCUSDT", at(3))
    assert (book.provenance.bid_low, book.provenance.ask_high) == (98.0, None)


@pytest.mark.parametrize(
    ("events", "gap"),
    [
        ([diff(11, 12, at(2), [], []), diff(13, 13, at(3), [], [])], None),
        ([diff(11, 12, at(2), [], []), diff(14, 14, at(3), [], [])], (12, 14)),
        ([diff(12, 13, at(2), [], [])], (10, 12)),
        ([diff(9, 13, at(2), [], [])], None),
        # Futures: ids have holes, the chain is told by the id of the event before.
        ([diff(20, 25, at(2), [], [], prev=10), diff(40, 45, at(3), [], [], prev=25)], None),
        ([diff(20, 25, at(2), [], [], prev=8), diff(40, 45, at(3), [], [], prev=25)], None),
        ([diff(20, 25, at(2), [], [], prev=12)], (10, 13)),
        ([diff(20, 25, at(2), [], [], prev=10), diff(40, 45, at(3), [], [], prev=30)], (25, 31)),
        # The venue began its ids anew: nothing tells how much is missing.
        ([diff(11, 90, at(2), [], [], prev=10), diff(13, 20, at(3), [], [], prev=12, epoch=1)], (90, 13)),
    ],
)
def test_a_break_in_the_chain_is_never_hidden(
    tmp_path: Path, events: list[dict[str, Any]], gap: tuple[int, int] | None
) -> None:
    vault = vault_of(tmp_path, events, [snapshot(10, at(1), [(100.0, 1.0)], [])])
    told = vault.book("binance_spot", "BTCUSDT", at=at(5)).provenance
    assert told.gap_crossed == (gap is not None)
    assert told.first_gap == gap
    in_sql = vault.sql(f"SELECT DISTINCT gap_crossed FROM book_at('binance_spot', 'BTCUSDT', '{at(5)}')").fetchall()
    assert in_sql == [(gap is not None,)]


def test_a_book_that_the_venue_sends_in_the_stream_replaces_what_was(tmp_path: Path) -> None:
    vault = vault_of(
        tmp_path,
        [
            diff(0, 100, at(1), [(9.0, 1.0)], [(11.0, 1.0)], prev=0, is_snapshot=True),
            diff(0, 105, at(2), [(8.0, 2.0)], [], prev=100),
            diff(0, 900, at(10), [(7.0, 3.0)], [(12.0, 1.0)], prev=0, is_snapshot=True),
            diff(0, 905, at(11), [(6.0, 1.0)], [], prev=900),
        ],
        exchange="lighter",
    )
    first = vault.book("lighter", "BTCUSDT", at=at(5))
    assert (first.bids(), first.provenance.snapshot_channel) == ([(9.0, 1.0), (8.0, 2.0)], "depth_diff")
    second = vault.book("lighter", "BTCUSDT", at=at(12))
    assert second.bids() == [(7.0, 3.0), (6.0, 1.0)]
    assert not second.provenance.gap_crossed
    rows = vault.books("lighter", "BTCUSDT", at(0), at(13), every="1s", depth=5).read_all().to_pylist()
    assert [row["snapshot_update_id"] for row in rows] == [None] + [100] * 9 + [900] * 3
    assert not any(row["gap_crossed"] for row in rows[1:])


def test_without_a_snapshot_there_is_no_book(tmp_path: Path) -> None:
    vault = vault_of(tmp_path, [diff(1, 1, at(1), [(1.0, 1.0)], [])], [snapshot(10, at(60), [], [])])
    with pytest.raises(ArchiveError, match=r"binance_spot BTCUSDT: no snapshot.*10:00:30"):
        vault.book("binance_spot", "BTCUSDT", at=at(30))
    rows = vault.books("binance_spot", "BTCUSDT", at(0), at(5)).read_all().to_pylist()
    assert [row["update_id"] for row in rows] == [None] * 5
    assert [row["bid_prices"] for row in rows] == [None] * 5


def test_books_after_a_gap_say_so_until_the_next_snapshot(tmp_path: Path) -> None:
    vault = vault_of(
        tmp_path,
        [
            diff(11, 11, at(2), [(100.0, 5.0)], []),
            diff(13, 13, at(4), [(99.0, 5.0)], []),  # 12 is missing
            diff(14, 14, at(6), [(98.0, 5.0)], []),
            diff(15, 15, at(8), [(97.0, 5.0)], []),
        ],
        [snapshot(10, at(1), [(100.0, 1.0)], [(101.0, 1.0)]), snapshot(14, at(7), [(96.0, 1.0)], [(101.0, 2.0)])],
    )
    rows = vault.books("binance_spot", "BTCUSDT", at(0), at(10), every="1s", depth=3).read_all().to_pylist()
    assert [row["gap_crossed"] for row in rows] == [None] + [False] * 3 + [True] * 3 + [False] * 3
    assert [row["update_id"] for row in rows] == [None, 10, 11, 11, 13, 13, 14, 14, 15, 15]
    assert rows[9]["bid_prices"] == [97.0, 96.0]
    assert rows[6]["bid_prices"] == [100.0, 99.0, 98.0]


def test_a_snapshot_that_came_late_is_caught_up_with_what_is_known(tmp_path: Path) -> None:
    """It speaks of id 13, but events up to 15 had been received when it came."""
    vault = vault_of(
        tmp_path,
        [diff(n, n, at(n - 10), [(float(n), 1.0)], []) for n in (11, 13, 14, 15, 16)],
        [snapshot(10, at(0.5), [], [(200.0, 1.0)]), snapshot(13, at(5.5), [(1.0, 1.0)], [(200.0, 2.0)])],
    )
    rows = vault.books("binance_spot", "BTCUSDT", at(5), at(7), every="500ms", depth=9).read_all().to_pylist()
    assert [row["gap_crossed"] for row in rows] == [True, False, False, False]
    assert rows[1]["bid_prices"] == [15.0, 14.0, 1.0]
    assert rows[2]["bid_prices"] == [16.0, 15.0, 14.0, 1.0]


def test_books_equal_the_book_at_each_moment(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    diffs = []
    for n in range(400):
        bids = [
            (round(100 - int(k) / 10, 1), float(s))
            for k, s in zip(rng.integers(0, 90, 6), rng.integers(0, 3, 6), strict=True)
        ]
        asks = [
            (round(101 + int(k) / 10, 1), float(s))
            for k, s in zip(rng.integers(0, 90, 6), rng.integers(0, 3, 6), strict=True)
        ]
        diffs.append(diff(11 + n, 11 + n, at(1 + n / 7), bids, asks))
    vault = vault_of(tmp_path, diffs, [snapshot(10, at(0.5), [(99.0, 1.0)], [(102.0, 1.0)])])
    rows = vault.books("binance_spot", "BTCUSDT", at(1), at(58), every="1700ms", depth=4).read_all().to_pylist()
    assert len(rows) == 34
    reference, applied = ReferenceBook(), 0
    reference.apply([(99.0, 1.0)], [(102.0, 1.0)])
    for row in rows:
        while applied < 400 and diffs[applied]["received_time"] <= row["time"]:
            event = diffs[applied]
            reference.apply(zip(event["bid_prices"], event["bid_sizes"], strict=True),
                            zip(event["ask_prices"], event["ask_sizes"], strict=True))  # fmt: skip
            applied += 1
        assert list(zip(row["bid_prices"], row["bid_sizes"], strict=True)) == reference.best_bids(4)
        assert list(zip(row["ask_prices"], row["ask_sizes"], strict=True)) == reference.best_asks(4)
        assert row["update_id"] == 10 + applied
    whole = vault.book("binance_spot", "BTCUSDT", at=rows[-1]["time"])
    assert whole.bids() == reference.best_bids()


def test_bridged_events_count_once_all_before_them_are_there(tmp_path: Path) -> None:
    """12 came from the other instance after 13: nobody knew the book with 13 before 12 had come."""
    vault = vault_of(
        tmp_path,
        [diff(11, 11, at(2), [(1.0, 1.0)], []), diff(12, 12, at(6), [(2.0, 1.0)], [], instance="b"),
         diff(13, 13, at(4), [(3.0, 1.0)], [])],
        [snapshot(10, at(1), [], [])],
    )  # fmt: skip
    rows = vault.books("binance_spot", "BTCUSDT", at(3), at(8), every="1s").read_all().to_pylist()
    assert [row["update_id"] for row in rows] == [11, 11, 11, 13, 13]
    assert not any(row["gap_crossed"] for row in rows)


@pytest.mark.parametrize(("every", "depth", "span"), [("0s", 5, 10), ("1s", 0, 10), ("1s", 5, 0), ("soon", 5, 10)])
def test_a_question_that_makes_no_sense_is_refused(tmp_path: Path, every: str, depth: int, span: int) -> None:
    vault = vault_of(tmp_path, [diff(1, 1, at(1), [], [])])
    with pytest.raises(UsageError):
        vault.books("binance_spot", "BTCUSDT", at(0), at(span), every=every, depth=depth)
    with pytest.raises(UsageError, match="no exchange 'nowhere'"):
        vault.book("nowhere", "BTCUSDT", at=at(0))


def test_the_state_hash_tells_books_apart_and_not_their_order() -> None:
    def of(bids: list[tuple[float, float]], asks: list[tuple[float, float]]) -> str:
        b, a = np.array(bids).reshape(-1, 2), np.array(asks).reshape(-1, 2)
        return state_hash(b[:, 0], b[:, 1], a[:, 0], a[:, 1])

    base = of([(2.0, 1.0), (1.0, 5.0)], [(3.0, 1.0)])
    assert of([(1.0, 5.0), (2.0, 1.0)], [(3.0, 1.0)]) == base
    assert of([(2.0, 1.0)], [(1.0, 5.0), (3.0, 1.0)]) != base
    assert of([(2.0, 1.0), (1.0, 5.0)], [(3.0, 1.0 + 3e-16)]) != base


def test_no_break_is_found_in_nothing() -> None:
    none = np.empty(0, np.int64)
    assert breaks(Chain(none, none, none, none, none, np.empty(0, np.bool_)), 5).size == 0
    whole = Snapshot("depth_diff", 1, 0, None, np.array([1.0]), np.array([1.0]), np.empty(0), np.empty(0))
    assert (whole.bid_low, whole.ask_high) == (None, None)
