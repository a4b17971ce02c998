"""The compiled book is the same book as the plain one, whatever comes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthvault.book.events import Levels
from depthvault.book.kernel import ASK, BID, Kernel, samples
from depthvault.book.reference import ReferenceBook

Event = list[tuple[float, float]]


def flat(events: list[Event]) -> Levels:
    offsets = np.cumsum([0, *(len(event) for event in events)]).astype(np.int64)
    levels = [level for event in events for level in event]
    return Levels(offsets, np.array([price for price, _ in levels]), np.array([size for _, size in levels]))


def random_events(seed: int, count: int, per_event: int, ticks: int, removal: float) -> tuple[list[Event], list[Event]]:
    """Events around a moving mid: bids below it, asks above; `removal` is the share of levels that are taken away."""
    rng = np.random.default_rng(seed)
    bids, asks = [], []
    middle = 10_000
    for _ in range(count):
        middle += int(rng.integers(-5, 6))
        for side, sign in ((bids, -1), (asks, 1)):
            distances = rng.integers(1, ticks, rng.integers(0, per_event))
            sizes = np.where(rng.random(distances.size) < removal, 0.0, rng.integers(1, 999, distances.size) / 1000)
            side.append([((middle + sign * int(d)) / 100, float(s)) for d, s in zip(distances, sizes, strict=True)])
    return bids, asks


def assert_same(kernel: Kernel, reference: ReferenceBook) -> None:
    for sign, best in ((BID, reference.best_bids()), (ASK, reference.best_asks())):
        prices, sizes = kernel.side(sign)
        assert list(zip(prices.tolist(), sizes.tolist(), strict=True)) == best


@pytest.mark.parametrize(
    ("ticks", "removal"), [(40, 0.5), (40, 0.9), (5000, 0.3), (100_000, 0.05)], ids=["thin", "dying", "deep", "growing"]
)
def test_every_sample_equals_the_plain_book(ticks: int, removal: float) -> None:
    bids, asks = random_events(7, 600, 60, ticks, removal)
    times = np.arange(600, dtype=np.int64) * 10
    moments = np.arange(-5, 6200, 35, dtype=np.int64)
    into = samples(moments.size, 20)
    kernel = Kernel(20)
    row, at = kernel.sample(flat(bids), flat(asks), times, 0, moments, into, 0, final=True)
    assert at == moments.size
    assert row == 600

    reference, applied = ReferenceBook(), 0
    for i, moment in enumerate(moments):
        while applied < 600 and times[applied] <= moment:
            reference.apply(bids[applied], asks[applied])
            applied += 1
        expected = reference.best_bids(20), reference.best_asks(20)
        held = into.counts[i].tolist()
        assert held == [len(expected[0]), len(expected[1])]
        assert into.rows[i] == applied
        assert list(zip(into.bid_prices[i, : held[0]], into.bid_sizes[i, : held[0]], strict=True)) == expected[0]
        assert list(zip(into.ask_prices[i, : held[1]], into.ask_sizes[i, : held[1]], strict=True)) == expected[1]
    assert_same(kernel, reference)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 30), st.sampled_from([0.0, 0.0, 1.0, 2.5, 1e12, 1e-8])), max_size=6),
        max_size=40,
    ),
    st.integers(1, 7),
)
def test_any_sequence_of_changes_equals_the_plain_book(changes: list[list[tuple[int, float]]], depth: int) -> None:
    events = [[(price / 8, size) for price, size in event] for event in changes]
    kernel, reference = Kernel(depth), ReferenceBook()
    none: list[Event] = [[] for _ in events]
    kernel.apply(flat(events), flat(none), 0, len(events))
    for event in events:
        reference.apply(event, [])
    assert_same(kernel, reference)
    into = samples(1, depth)
    kernel.sample(flat([]), flat([]), np.empty(0, np.int64), 0, np.array([0]), into, 0, final=True)
    count = into.counts[0, 0]
    assert list(zip(into.bid_prices[0, :count], into.bid_sizes[0, :count], strict=True)) == reference.best_bids(depth)


def test_a_book_that_arrives_in_batches_is_the_same_as_in_one() -> None:
    bids, asks = random_events(3, 300, 40, 3000, 0.3)
    times = np.arange(300, dtype=np.int64)
    moments = np.arange(0, 300, 3, dtype=np.int64)
    whole, pieces = samples(moments.size, 5), samples(moments.size, 5)
    Kernel(5).sample(flat(bids), flat(asks), times, 0, moments, whole, 0, final=True)
    kernel, at = Kernel(5), 0
    for low in range(0, 300, 37):
        part = slice(low, low + 37)
        _, at = kernel.sample(
            flat(bids[part]), flat(asks[part]), times[part], 0, moments, pieces, at, final=low + 37 >= 300
        )
    assert at == moments.size
    for name in ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))


def test_prices_keep_every_bit() -> None:
    prices = [0.1 + 0.2, 0.3, 1e-8, 123456789.12345678, 5e-324]
    kernel = Kernel()
    kernel.apply(flat([[(price, 1.0) for price in prices]]), flat([[]]), 0, 1)
    held, _ = kernel.side(BID)
    assert held.tolist() == sorted(prices, reverse=True)


def test_removing_a_level_that_is_not_there_changes_nothing() -> None:
    kernel = Kernel()
    kernel.apply(flat([[(1.0, 2.0), (7.0, 0.0)]]), flat([[(9.0, 0.0)]]), 0, 1)
    assert kernel.side(BID)[0].tolist() == [1.0]
    assert kernel.side(ASK)[0].tolist() == []
