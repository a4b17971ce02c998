"""Times at which nobody listened, between what is known of sessions and events."""

from __future__ import annotations

import pytest

from depthvault.quality.sessions import Span, holes_ending_in

PERIOD = Span(100, 200)


@pytest.mark.parametrize(
    ("spans", "last_seen", "holes"),
    [
        ([Span(120, 200)], None, []),
        ([Span(120, 200)], 90, [Span(90, 120)]),
        ([Span(50, 90), Span(120, 200)], None, [Span(90, 120)]),
        ([Span(50, 90), Span(120, 200)], 80, [Span(90, 120)]),
        ([Span(50, 90), Span(120, 200)], 121, [Span(90, 120)]),
        ([Span(10, 20), Span(50, 200)], None, []),
        ([Span(120, 200), Span(210, 300)], None, []),
    ],
    ids=[
        "a start-up", "nobody since the last event", "between two sessions", "an event within a session",
        "an event of before told again later", "it ended before", "it ends later",
    ],
)  # fmt: skip
def test_a_hole_is_told_in_the_period_it_ends_in(spans: list[Span], last_seen: int | None, holes: list[Span]) -> None:
    assert holes_ending_in(spans, PERIOD, last_seen) == holes
