"""The band of events to expect: wide enough for markets, narrow enough for a stream that all but stopped."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from depthvault.quality.expected import add_expected, is_outside

HOUR = timedelta(hours=1)


def row(events: int, share: float = 1.0, symbol: str = "X") -> dict[str, Any]:
    return {"symbol": symbol, "events": events, "share": share}


def day(counts: list[tuple[int, float]]) -> list[dict[str, Any]]:
    """The rows of consecutive hours."""
    found: list[dict[str, Any]] = []
    before: dict[str, float | None] = {}
    for events, share in counts:
        one = row(events, share)
        add_expected([one], before, HOUR)
        before = {"X": one["usual_events"]}
        found.append(one)
    return found


def test_nothing_is_expected_of_the_first_period() -> None:
    (first,) = day([(5_000, 1.0)])
    assert (first["expected_low"], first["expected_high"], is_outside(first)) == (None, None, None)
    assert first["usual_events"] == 5_000


def test_hours_of_a_market_that_is_calm_or_wild_are_inside() -> None:
    chance = random.Random(1)
    rows = day([(round(36_000 * 2 ** chance.uniform(-2, 2)), 1.0) for _ in range(200)])
    assert not any(is_outside(one) for one in rows)


@pytest.mark.parametrize("usual", [400, 36_000, 2_000_000])
def test_a_stream_that_all_but_stops_or_bursts_is_outside(usual: int) -> None:
    for events, outside in ((usual // 50, True), (usual // 3, False), (usual * 4, False), (usual * 40, True)):
        assert is_outside(day([(usual, 1.0)] * 30 + [(events, 1.0)])[-1]) is outside, events


@pytest.mark.parametrize("counts", [[0, 0, 0, 3], [2, 0, 5, 1, 0], [30, 12, 0, 9]])
def test_few_events_scatter(counts: list[int]) -> None:
    assert not any(is_outside(one) for one in day([(events, 1.0) for events in counts]))


def test_what_nobody_listened_to_is_not_expected_and_spoils_no_mean() -> None:
    rows = day([(10_000, 1.0)] * 5 + [(500, 0.05), (10_000, 1.0)])
    assert not any(is_outside(one) for one in rows)
    assert rows[5]["expected_high"] < rows[6]["expected_low"] * 10
    assert rows[5]["usual_events"] == rows[4]["usual_events"] == 10_000


def test_the_mean_follows_a_market_that_changed_for_good() -> None:
    rows = day([(100_000, 1.0)] * 24 + [(5_000, 1.0)] * 48)
    assert is_outside(rows[24])
    assert not is_outside(rows[-1])


def test_answers_are_expected_at_their_cadence_without_an_upper_end() -> None:
    rows = [row(60), row(23), row(240)]
    add_expected(rows, {}, HOUR, timedelta(minutes=1))
    assert [(one["expected_low"], one["expected_high"]) for one in rows] == [(24, None)] * 3
    assert [is_outside(one) for one in rows] == [False, True, False]
