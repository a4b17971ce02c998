"""A right book matches everywhere it can be judged; a wrong level is found and named; doubt is told as doubt."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

from depthvault.book.events import Chain, Levels, Snapshot
from depthvault.quality.audit import Audited, audit


@dataclass
class Venue:
    """A book whose every change has an id; changes are published in batches, snapshots taken between any two."""

    seed: int
    bids: dict[float, float] = field(default_factory=dict)
    asks: dict[float, float] = field(default_factory=dict)
    events: list[tuple[int, int, int, dict[float, float], dict[float, float]]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def run(self, batches: int, limit: int | None = 10, gaps_in_ids: bool = True) -> None:
        randomness = random.Random(self.seed)
        identity, previous = 1000, 1000
        for step in range(60):
            self.bids[100.0 - step * 0.5] = 1.0
            self.asks[100.5 + step * 0.5] = 1.0
        self.snap(identity, limit)
        for _ in range(batches):
            if gaps_in_ids:
                identity += randomness.randint(0, 30)  # other symbols' changes
            first = identity + 1
            batch: tuple[dict[float, float], dict[float, float]] = ({}, {})
            for _ in range(randomness.randint(1, 8)):
                identity += 1
                side = randomness.randrange(2)
                offset = randomness.randrange(60) * 0.5
                price = 100.0 - offset if side == 0 else 100.5 + offset
                size = 0.0 if randomness.random() < 0.3 else float(randomness.randint(1, 99))
                book = (self.bids, self.asks)[side]
                if size:
                    book[price] = size
                else:
                    book.pop(price, None)
                batch[side][price] = size
                if randomness.random() < 0.05:
                    self.snap(identity, limit)
            self.events.append((first, identity, previous, *batch))
            previous = identity

    def snap(self, identity: int, limit: int | None) -> None:
        bids = sorted(self.bids.items(), reverse=True)[:limit]
        asks = sorted(self.asks.items())[:limit]
        self.snapshots.append(
            Snapshot(
                "depth_snapshot", identity, identity, limit,
                np.array([p for p, _ in bids]), np.array([s for _, s in bids]),
                np.array([p for p, _ in asks]), np.array([s for _, s in asks]),
            )
        )  # fmt: skip

    def arrays(self) -> tuple[Chain, Levels, Levels]:
        ids = np.array([event[:3] for event in self.events], np.int64)
        zeros = np.zeros(len(ids), np.int64)
        chain = Chain(zeros, ids[:, 0], ids[:, 1], ids[:, 2], zeros, np.zeros(len(ids), np.bool_))
        sides = []
        for side in (3, 4):
            offsets = np.cumsum([0, *(len(event[side]) for event in self.events)])  # type: ignore[arg-type]
            prices = np.array([price for event in self.events for price in event[side]])  # type: ignore[attr-defined]
            sizes = np.array([size for event in self.events for size in event[side].values()])  # type: ignore[attr-defined]
            sides.append(Levels(offsets, prices, sizes))
        return chain, sides[0], sides[1]

    def audit(self, after: int | None = None) -> list[Audited]:
        return list(audit(self.snapshots, *self.arrays(), after))


def venue(seed: int, limit: int | None = 10) -> Venue:
    made = Venue(seed)
    made.run(400, limit)
    return made


@pytest.mark.parametrize("limit", [10, 1000, None])
@pytest.mark.parametrize("seed", range(4))
def test_a_right_book_matches_wherever_it_can_be_judged(seed: int, limit: int | None) -> None:
    made = venue(seed, limit)
    outcomes = made.audit()
    assert len(outcomes) >= len(made.snapshots) - 2
    assert all(outcome.ok and not outcome.gap_crossed for outcome in outcomes)
    assert sum(outcome.matched for outcome in outcomes) > 10 * len(outcomes)
    assert sum(outcome.undecidable for outcome in outcomes) > 0, "ids of snapshots lie inside events"
    assert sum(outcome.undecidable for outcome in outcomes) < sum(outcome.matched for outcome in outcomes)


@pytest.mark.parametrize("seed", range(4))
def test_one_wrong_size_is_found_and_named(seed: int) -> None:
    made = venue(seed, None)
    target = made.snapshots[3]
    (untouched,) = [outcome for outcome in made.audit() if outcome.to_update_id == target.update_id][:1]
    assert untouched.ok
    event = next(e for e in made.events if e[0] <= target.update_id < e[1]) if untouched.undecidable else None
    free = [i for i, price in enumerate(target.bid_prices) if event is None or price not in event[3]]
    target.bid_sizes[free[0]] += 1.0
    wrong = next(outcome for outcome in made.audit() if outcome.to_update_id == target.update_id)
    assert (wrong.different, wrong.missing, wrong.extra) == (1, 0, 0)
    assert wrong.wrong[0][:2] == ("bid", float(target.bid_prices[free[0]]))
    assert wrong.wrong[0][3] == target.bid_sizes[free[0]]
    assert wrong.matched == untouched.matched - 1


def between(made: Venue, seed: Snapshot, target: Snapshot) -> list[int]:
    """Events wholly between two snapshots."""
    return [
        place for place, event in enumerate(made.events) if seed.update_id < event[0] and event[1] < target.update_id
    ]


def test_a_lost_event_is_a_gap_and_not_a_mismatch() -> None:
    made = venue(1)
    seed, target = next(pair for pair in pairwise(made.snapshots) if len(between(made, *pair)) >= 3)
    inside = between(made, seed, target)
    del made.events[inside[len(inside) // 2]]
    outcomes = {outcome.to_update_id: outcome for outcome in made.audit()}
    assert outcomes[target.update_id].gap_crossed
    assert outcomes[target.update_id].matched == 0
    assert sum(outcome.gap_crossed for outcome in outcomes.values()) == 1
    assert all(outcome.ok for outcome in outcomes.values())


def test_an_event_lost_right_before_the_snapshot_is_a_gap_too() -> None:
    """The event after the snapshot proves it: nothing else could."""
    made = venue(1)
    for seed, target in pairwise(made.snapshots):
        before = [place for place, event in enumerate(made.events) if event[1] <= target.update_id]
        if before and seed.update_id < made.events[before[-1]][0]:
            del made.events[before[-1]]
            outcome = next(one for one in made.audit() if one.to_update_id == target.update_id)
            assert outcome.gap_crossed
            return
    raise AssertionError("no such snapshot")


def test_an_event_lost_right_behind_the_snapshot_is_no_gap_before_it() -> None:
    """Where an event ends with the very id of the snapshot, all before it is known to be there."""
    for made in map(venue, range(8)):
        finals = [event[1] for event in made.events]
        for seed, target in pairwise(made.snapshots):
            if target.update_id not in finals[:-2] or not between(made, seed, target):
                continue
            del made.events[finals.index(target.update_id) + 1]
            outcomes = made.audit()
            outcome = next(one for one in outcomes if one.to_update_id == target.update_id)
            assert outcome.ok
            assert not outcome.gap_crossed
            assert outcome.matched > 0
            assert next(one for one in outcomes if one.from_update_id == target.update_id).gap_crossed
            return
    raise AssertionError("no such snapshot")


def test_an_event_that_vanished_without_a_trace_in_the_ids_is_a_mismatch() -> None:
    made = venue(2, None)
    seed, target = next(pair for pair in pairwise(made.snapshots) if len(between(made, *pair)) >= 3)
    for place in between(made, seed, target):
        made.events[place] = (*made.events[place][:3], {}, {})
    outcome = next(one for one in made.audit() if one.to_update_id == target.update_id)
    assert not outcome.gap_crossed
    assert not outcome.ok


def test_a_snapshot_is_judged_once_over_two_periods() -> None:
    """First with the events that reach it; the period after takes it up where the ids reach further."""
    made = venue(3)
    whole = made.audit()
    cut = 200
    first = Venue(3, events=made.events[:cut], snapshots=made.snapshots)
    judged = first.audit()
    reach = made.events[cut - 1][1]
    rest = made.audit(after=reach)
    assert [one.to_update_id for one in judged + rest] == [one.to_update_id for one in whole]
    assert judged + rest == whole


def test_the_state_hash_tells_equal_books() -> None:
    hashes = [outcome.state_hash for outcome in venue(5).audit()]
    assert hashes == [outcome.state_hash for outcome in venue(5).audit()]
    assert len(set(hashes)) > 1
