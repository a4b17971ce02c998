from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from depthvault.clock import ManualClock
from depthvault.rest.weight import Priority, WeightBudget

HOST = "api.example"
MINUTE_START = 1_700_000_040_000_000_000  # a whole UTC minute


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(MINUTE_START)


@pytest.fixture
def budget(tmp_path: Path, clock: ManualClock) -> WeightBudget:
    return WeightBudget(tmp_path / "weight.sqlite", cap=0.8, clock=clock)


def test_no_more_than_the_cap_is_granted_and_the_rest_waits_for_the_next_minute(
    budget: WeightBudget, clock: ManualClock
) -> None:
    clock.advance(12)
    granted = sum(budget.reserve(HOST, 100, 20, Priority.RESYNC).granted for _ in range(10))
    assert granted == 4
    refused = budget.reserve(HOST, 100, 20, Priority.RESYNC)
    assert refused.wait == pytest.approx(48)
    clock.advance(49)
    assert budget.reserve(HOST, 100, 20, Priority.RESYNC).granted


def test_what_is_sent_at_the_turn_of_a_minute_fits_into_either(budget: WeightBudget, clock: ManualClock) -> None:
    clock.advance(50)
    assert sum(budget.reserve(HOST, 100, 20, Priority.RESYNC).granted for _ in range(3)) == 3
    clock.advance(10.4)
    assert budget.reserve(HOST, 100, 20, Priority.RESYNC).granted, "80 of 100, whichever minute the venue counts"
    refused = budget.reserve(HOST, 100, 20, Priority.RESYNC)
    assert refused.wait == pytest.approx(0.6)
    clock.advance(0.6)
    assert sum(budget.reserve(HOST, 100, 20, Priority.RESYNC).granted for _ in range(9)) == 3


def test_a_header_that_still_counts_the_minute_before_does_not_cost_the_new_one(
    budget: WeightBudget, clock: ManualClock
) -> None:
    clock.advance(60.2)
    grant = budget.reserve(HOST, 100, 10, Priority.RESYNC)
    budget.settle(grant, used=79)
    assert budget.usage(HOST).used == 10
    clock.advance(1)
    budget.settle(budget.reserve(HOST, 100, 10, Priority.RESYNC), used=33)
    assert budget.usage(HOST).used == 33


def test_what_is_not_urgent_leaves_room_for_resyncs(budget: WeightBudget) -> None:
    assert sum(budget.reserve(HOST, 100, 1, Priority.BACKFILL).granted for _ in range(200)) == 40
    assert sum(budget.reserve(HOST, 100, 1, Priority.PERIODIC).granted for _ in range(200)) == 28
    assert sum(budget.reserve(HOST, 100, 1, Priority.RESYNC).granted for _ in range(200)) == 12


def test_header_of_others_on_our_address_counts_with_what_is_under_way(
    budget: WeightBudget, clock: ManualClock
) -> None:
    clock.advance(12)
    first = budget.reserve(HOST, 100, 10, Priority.RESYNC)
    second = budget.reserve(HOST, 100, 10, Priority.RESYNC)
    budget.settle(first, used=55)
    assert budget.usage(HOST).used == 65, "55 by the venue's count and 10 that it has not seen"
    budget.settle(second, used=50)
    assert budget.usage(HOST).used == 55, "answers that overtake each other do not lower the count"
    assert not budget.reserve(HOST, 100, 30, Priority.RESYNC).granted


def test_header_read_after_the_turn_of_the_minute_is_not_believed(budget: WeightBudget, clock: ManualClock) -> None:
    grant = budget.reserve(HOST, 100, 10, Priority.RESYNC)
    clock.advance(60)
    budget.settle(grant, used=79)
    assert budget.usage(HOST).used == 10


def test_ban_binds_every_process_until_it_ends_and_the_longest_counts(
    budget: WeightBudget, clock: ManualClock, tmp_path: Path
) -> None:
    budget.ban(HOST, clock.wall_ns() + 90_000_000_000, "HTTP 418")
    budget.ban(HOST, clock.wall_ns() + 30_000_000_000, "HTTP 429")
    other = WeightBudget(tmp_path / "weight.sqlite", clock=clock)
    refused = other.reserve(HOST, 100, 1, Priority.RESYNC)
    assert (refused.granted, refused.wait, refused.banned) == (False, pytest.approx(90), "HTTP 418")
    assert other.reserve("elsewhere", 100, 1).granted
    clock.advance(91)
    assert other.reserve(HOST, 100, 1).granted
    assert other.usage(HOST).banned_until_ns == 0


def test_request_heavier_than_its_share_is_granted_in_an_empty_minute(budget: WeightBudget) -> None:
    assert budget.reserve(HOST, 100, 95, Priority.BACKFILL).granted
    assert not budget.reserve(HOST, 100, 95, Priority.RESYNC).granted


def _grab(path: Path, minute_start: int, results: multiprocessing.Queue[int]) -> None:
    budget = WeightBudget(path, cap=0.8, clock=ManualClock(minute_start))
    results.put(sum(budget.reserve(HOST, 1000, 5, Priority.RESYNC).granted for _ in range(120)))


def test_processes_together_never_exceed_the_cap(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[int] = context.Queue()
    path = tmp_path / "weight.sqlite"
    workers = [context.Process(target=_grab, args=(path, MINUTE_START, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    total = sum(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert total == 160
