"""Values read as they are: nothing rounded, nothing in scientific notation that people would not write."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from depthvault.query.render import cell, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (60000.1, "60000.1"), (5.0, "5"), (1e-8, "0.00000001"), (1e12, "1000000000000"),
        (0.1 + 0.2, "0.30000000000000004"),
        (-2.5, "-2.5"), (float("nan"), "nan"), (1e300, "1e+300"), (0.0, "0"),
    ],
)  # fmt: skip
def test_numbers_keep_every_digit(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (datetime(2026, 11, 20, 4, 5, 6, 789999, tzinfo=UTC), "2026-11-20 04:05:06.789"),
        (Decimal("12.50000000"), "12.5"),
        (Decimal("100"), "100"),
        ([1.5, 2.0], "[1.5, 2]"),
        ([1, 2, 3, 4, 5], "[1, 2, 3, … 5]"),
        ("币安人生USDT", "币安人生USDT"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text


def test_a_dictionary_is_json() -> None:
    assert json.loads(cell({"a": 1})) == {"a": 1}
