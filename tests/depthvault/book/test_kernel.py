"""The compiled book is the same book as the plain one, whatever comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from depthvault.book.events import Levels
from depthvault.book.kernel import ASK, BID, Kernel, fitted, samples
from depthvault.book.reference import ReferenceBook

Event = list[tuple[float, float]]


def flat(events: list[Event]) -> Levels:
    offsets = np.cumsum([0, *(len(event) for event in events)]).astype(np.int64)
    levels = [level for event in events for level in event]
    return Levels(offsets, np.array([price for price, _ in levels]), np.array([size for _, size in levels]))


def random_events(seed: int, count: int, per_event: int, ticks: int, removal: float) -> tuple[list[Event], list[Event]]:
    """Events around a moving mid: bids below it, asks above; `removal` is the share of levels that are taken away."""
    rng = np.random.default_rng(seed)
    bids: list[Event] = []
    asks: list[Event] = []
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
        assert into.rows[i] == applied
        assert (into.bids(i), into.asks(i)) == expected
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
    assert into.bids(0) == reference.best_bids(depth)


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
    for i in range(moments.size):
        assert (pieces.bids(i), pieces.asks(i)) == (whole.bids(i), whole.asks(i))


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


def book_of(kernel: Kernel) -> tuple[Event, Event]:
    sides = (kernel.side(sign) for sign in (BID, ASK))
    bids, asks = (list(zip(prices.tolist(), sizes.tolist(), strict=True)) for prices, sizes in sides)
    return bids, asks


def sampled(kernel: Kernel, depth: int) -> tuple[Event, Event]:
    """The best levels as they stand."""
    into = samples(1, depth)
    kernel.sample(flat([]), flat([]), np.empty(0, np.int64), 0, np.array([0]), into, 0, final=True)
    return into.bids(0), into.asks(0)


def on_grid(ticks: st.SearchStrategy[int], decimals: int) -> st.SearchStrategy[float]:
    """Prices as the texts that venues send are parsed."""
    return ticks.map(lambda tick: float(f"{tick / 10**decimals:.{decimals}f}"))


PRICES = st.one_of(
    on_grid(st.integers(1, 60), 1),  # near the top, often the same
    on_grid(st.integers(1, 60), 3),  # finer than the grid that the first prices tell
    on_grid(st.integers(9_999_000, 10_001_000), 1),  # far outside a ladder
    on_grid(st.integers(1, 10**15), 8),
    st.sampled_from([1e-8, 0.1 + 0.2, 1e6, 1e300, 5e-324, 2.0**53 + 2]),
    st.floats(1e-9, 1e9),
)
SIZES = st.sampled_from([0.0, 0.0, 1.0, 2.5, 1e12, 1e-8])


@settings(max_examples=150, deadline=None)
@example([([(3.0, 1.0), (2.0, 1.0)], []), ([(3.0, 0.0), (2.0, 0.0)], [])], 1)  # a side is emptied
@example([([(1e6, 1.0)], [(0.1, 1.0)]), ([(2.0, 1.0), (1e6, 0.0)], [(0.1, 0.0), (5e5, 1.0)])], 3)  # crossed, then not
@given(
    st.lists(
        st.tuples(st.lists(st.tuples(PRICES, SIZES), max_size=5), st.lists(st.tuples(PRICES, SIZES), max_size=5)),
        max_size=30,
    ),
    st.integers(1, 7),
)
def test_prices_off_the_grid_and_far_away_are_the_plain_book_too(
    changes: list[tuple[Event, Event]], depth: int
) -> None:
    bids, asks = [bid for bid, _ in changes], [ask for _, ask in changes]
    times = np.arange(len(changes), dtype=np.int64)
    into = samples(times.size, depth)
    kernel, reference = Kernel(depth), ReferenceBook()
    kernel.sample(flat(bids), flat(asks), times, 0, times, into, 0, final=True)
    for i, (bid, ask) in enumerate(changes):
        reference.apply(bid, ask)
        assert (into.bids(i), into.asks(i)) == (reference.best_bids(depth), reference.best_asks(depth))
    assert_same(kernel, reference)


@pytest.mark.parametrize("step", [900, -900], ids=["up", "down"])
@pytest.mark.parametrize("decimals", [0, 2, 8])
def test_a_market_that_runs_away_is_followed(step: int, decimals: int) -> None:
    """Each event lies 900 ticks further: together many ladders away."""
    rng = np.random.default_rng(11)
    middle, count = 300_000_000, 600
    events: tuple[list[Event], list[Event]] = ([], [])
    for n in range(count):
        for side, sign in zip(events, (-1, 1), strict=True):
            ticks = middle + n * step + sign * rng.integers(1, 3000, 20)
            sizes = rng.integers(0, 4, 20)
            side.append(
                [(float(f"{t / 10**decimals:.{decimals}f}"), float(s)) for t, s in zip(ticks, sizes, strict=True)]
            )
    times = np.arange(count, dtype=np.int64)
    into = samples(count, 10)
    kernel, reference = Kernel(10), ReferenceBook()
    kernel.sample(flat(events[0]), flat(events[1]), times, 0, times, into, 0, final=True)
    for i in range(count):
        reference.apply(events[0][i], events[1][i])
        assert (into.bids(i), into.asks(i)) == (reference.best_bids(10), reference.best_asks(10))
    assert_same(kernel, reference)


def test_a_book_without_a_grid_is_kept_as_it_is() -> None:
    """No price is a decimal of few digits: all of them lie in the table, which has to grow and to forget."""
    rng = np.random.default_rng(2)
    pool = rng.random(9000) * 1000
    kernel, reference = Kernel(5), ReferenceBook()
    for _ in range(60):
        event = [(float(p), float(s)) for p, s in zip(rng.choice(pool, 700), rng.integers(0, 3, 700), strict=True)]
        kernel.apply(flat([event]), flat([[]]), 0, 1)
        reference.apply(event, [])
        assert sampled(kernel, 5)[0] == reference.best_bids(5)
    assert_same(kernel, reference)


def test_ticks_that_are_learnt_too_coarse_at_first_are_learnt_again() -> None:
    kernel, reference = Kernel(), ReferenceBook()
    kernel.apply(flat([[(100.0, 1.0)]]), flat([[]]), 0, 1)
    reference.apply([(100.0, 1.0)], [])
    rng = np.random.default_rng(9)
    for _ in range(20):
        event = [(t / 1000, float(s)) for t, s in zip(rng.integers(90_000, 99_999, 500).tolist(),
                                                      rng.integers(0, 3, 500), strict=True)]  # fmt: skip
        kernel.apply(flat([event]), flat([[]]), 0, 1)
        reference.apply(event, [])
    assert_same(kernel, reference)
    assert kernel._bid.scale == 1000.0
    assert kernel._bid.meta[1] == 0, "no stray is left"


@pytest.mark.parametrize(
    ("ticks", "decimals", "slots"),
    [
        (np.arange(618_000, 619_000), 1, 1 << 15),
        (np.arange(61_800_000, 61_800_999), 2, 1 << 15),
        (np.concatenate((np.arange(618_000, 618_900), np.arange(1_000, 300_000, 2_990))), 1, 1 << 20),
        (np.arange(1, 1000), 8, 1 << 15),
    ],
    ids=["futures", "cents", "far orders", "tiny"],
)
def test_a_ladder_is_no_finer_and_no_longer_than_the_prices_need(ticks: Any, decimals: int, slots: int) -> None:
    prices = ticks / 10**decimals
    fit = fitted(BID, prices)
    assert (fit.scale, fit.slots) == (10.0**decimals, slots)
    assert fit.strays(BID, prices) == 0


def test_a_few_prices_off_the_grid_do_not_make_it_finer() -> None:
    prices = np.concatenate((np.arange(6_000, 7_000) / 10, [600.123456789, 1e9]))
    fit = fitted(ASK, prices)
    assert (fit.scale, fit.strays(ASK, prices)) == (10.0, 2)


def test_a_cleared_book_is_empty_and_can_be_filled_again() -> None:
    kernel = Kernel(3)
    events = flat([[(100.5, 1.0), (99.0, 2.0), (1e9, 3.0), (0.1 + 0.2, 4.0)]])
    kernel.apply(events, events, 0, 1)
    filled = book_of(kernel)
    kernel.clear()
    assert book_of(kernel) == ([], [])
    assert sampled(kernel, 3) == ([], [])
    kernel.apply(events, events, 0, 1)
    assert book_of(kernel) == filled
    assert sampled(kernel, 3) == (filled[0][:3], filled[1][:3])


def test_a_book_is_not_asked_for_more_levels_than_it_ranks() -> None:
    kernel = Kernel(3)
    assert sampled(kernel, 3) == ([], [])
    with pytest.raises(ValueError, match="depth 3 is asked for 4 levels"):
        sampled(kernel, 4)
