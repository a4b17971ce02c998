"""The rules of the chains, as the venues state them and as real data showed them."""

from __future__ import annotations

import pytest

from depthvault.exchanges.base import Head
from depthvault.exchanges.binance_futures import FuturesContinuity
from depthvault.exchanges.binance_spot import SpotContinuity
from depthvault.exchanges.lighter import LighterContinuity

SPOT, FUTURES, LIGHTER = SpotContinuity(), FuturesContinuity(), LighterContinuity()


@pytest.mark.parametrize(
    ("first", "final", "follows", "old"),
    [
        (101, 110, True, False),
        (100, 110, True, False),  # overlaps, yet nothing is missing
        (101, 101, True, False),
        (102, 110, False, False),  # 101 is missing
        (90, 100, False, True),
        (90, 99, False, True),
    ],
)
def test_spot_events_after_100(first: int, final: int, follows: bool, old: bool) -> None:
    event = Head(first, final, None)
    assert (SPOT.follows(100, event), SPOT.is_old(100, event)) == (follows, old)


@pytest.mark.parametrize(
    ("first", "final", "dropped", "joins", "too_old"),
    [
        (90, 99, True, False, False),
        (90, 100, True, False, False),  # ends exactly at the snapshot: real data has it
        (101, 105, False, True, False),  # and this is the event that joins then, although 100 is not inside it
        (95, 105, False, True, False),
        (102, 105, False, False, True),
    ],
)
def test_spot_events_and_a_snapshot_at_100(first: int, final: int, dropped: bool, joins: bool, too_old: bool) -> None:
    event = Head(first, final, None)
    assert SPOT.precedes_snapshot(100, event) is dropped
    assert SPOT.joins(100, event) is joins
    assert SPOT.snapshot_too_old(100, event) is too_old


def test_futures_events_chain_by_the_previous_id_alone() -> None:
    assert FUTURES.follows(100, Head(150, 160, 100)), "holes between final and first are normal"
    assert not FUTURES.follows(100, Head(101, 110, 99))
    assert not FUTURES.follows(100, Head(101, 110, None))


@pytest.mark.parametrize(
    ("event", "dropped", "joins", "too_old"),
    [
        (Head(90, 99, 80), True, False, False),
        (Head(90, 100, 80), False, True, False),  # ends at the snapshot: applied, changing nothing
        (Head(95, 105, 80), False, True, False),
        (Head(110, 120, 100), False, True, False),  # begins right after the snapshot by `pu`
        (Head(110, 120, 105), False, False, True),
    ],
)
def test_futures_events_and_a_snapshot_at_100(event: Head, dropped: bool, joins: bool, too_old: bool) -> None:
    assert FUTURES.precedes_snapshot(100, event) is dropped
    assert FUTURES.joins(100, event) is joins
    assert FUTURES.snapshot_too_old(100, event) is too_old


def test_lighter_chains_by_nonce_and_any_whole_book_starts_anew() -> None:
    assert LIGHTER.follows(100, Head(120, 120, 100))
    assert not LIGHTER.follows(100, Head(120, 120, 110))
    assert LIGHTER.follows(100, Head(50, 50, None, is_snapshot=True))
    assert LIGHTER.is_old(100, Head(90, 90, 80))
    assert not LIGHTER.is_old(100, Head(90, 90, None, is_snapshot=True))


def test_a_lighter_that_counts_anew_is_a_gap_not_an_endless_duplicate() -> None:
    event = Head(120, 120, 100)
    assert not LIGHTER.is_old(18_032_384_006, event)
    assert not LIGHTER.follows(18_032_384_006, event)
