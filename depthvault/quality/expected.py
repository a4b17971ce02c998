"""How many events a period should have brought: the band beside what it did. Pure: rows of `coverage` in, and out.

A REST channel is asked at its cadence. What a stream sends depends on the market, so it is held to its own past: from
a tenth to ten times the mean of late, each wider by three times its square root, for few events scatter. Of a share of
the period that nobody listened to nothing is expected. Quiet and wild hours pass, a stream that all but stopped not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import timedelta
from typing import Any

from depthvault.quality.steps import PATIENCE

FACTOR = 10.0
SCATTER = 3.0
WEIGHT = 1 / 8
"""Of the newest period in the mean of late: after a day of hours what was before has faded."""

LEAST_SHARE = 0.5
"""A period that was listened to for less says too little of the mean."""


def add_expected(
    rows: Iterable[MutableMapping[str, Any]],
    before: Mapping[str, float | None],
    period: timedelta,
    cadence: timedelta | None = None,
) -> None:
    """Set `usual_events`, `expected_low` and `expected_high` to each row of one channel and period.

    before: `usual_events` of the period before, by symbol. cadence: of REST channels; several hosts may ask, so these
    have no upper end.
    """
    for row in rows:
        usual = before.get(row["symbol"])
        low: int | None
        high: int | None
        if cadence is not None:
            low, high = math.floor(period / cadence / PATIENCE), None
        else:
            low, high = _band(usual, row["share"])
        row["usual_events"] = _usual(usual, row["events"], row["share"])
        row["expected_low"], row["expected_high"] = low, high


def _band(usual: float | None, share: float) -> tuple[int | None, int | None]:
    if usual is None:
        return None, None
    least, most = usual * share / FACTOR, usual * share * FACTOR
    low, high = least - SCATTER * math.sqrt(least), most + SCATTER * math.sqrt(most) + FACTOR
    return max(0, math.floor(low)), math.ceil(high)


def _usual(before: float | None, events: int, share: float) -> float | None:
    """The mean of late with this period in it."""
    if share < LEAST_SHARE:
        return before
    whole = events / share
    return whole if before is None else before + WEIGHT * (whole - before)


def is_outside(row: Mapping[str, Any]) -> bool | None:
    """Whether a row of `coverage` has more or fewer events than expected; None where nothing is expected yet."""
    low, high = row["expected_low"], row["expected_high"]
    if low is None and high is None:
        return None
    return (low is not None and row["events"] < low) or (high is not None and row["events"] > high)
