"""The terminal view fits 80 columns, says what it shows, and never invents a price."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from collectors.watch_view import Figures, number, render

FIGURES = Figures(
    exchange="binance_spot",
    symbol="币安人生USDT",
    bids=[(0.00001234, 1_000_000_000_000.0), (0.00001233, 5.5)],
    asks=[(0.00001236, 2.0)],
    seeded=True,
    updates=1234,
    updates_per_second=9.7,
    gaps=1,
    reconnects=2,
    lag_ms=94.2,
    rss=164 * 2**20,
    cpu=5.4,
    buffered_rows=17,
    journal="20261120T044149.528857Z.journal",
    recording=False,
)


def text(figures: Figures, depth: int = 3) -> str:
    console = Console(width=80, record=True, force_terminal=False, file=None, quiet=False)
    with console.capture() as capture:
        console.print(render(figures, depth))
    return capture.get()


def test_the_view_fits_eighty_columns_with_extreme_prices_and_sizes() -> None:
    shown = text(FIGURES)
    assert all(len(line) <= 80 for line in shown.splitlines())
    for part in ("0.00001234", "0.00001236", "1,000,000,000,000", "spread 0.00000002", "0.1619 %", "gaps 1",
                 "reconnects 2", "164 MB", "9.7/s", "17 rows", "not kept"):  # fmt: skip
        assert part in shown, part


@pytest.mark.parametrize(
    "figures", [replace(FIGURES, seeded=False), replace(FIGURES, bids=[]), replace(FIGURES, asks=[])]
)
def test_without_a_whole_book_there_is_no_mid_price(figures: Figures) -> None:
    shown = text(figures)
    assert "mid" not in shown
    assert "waiting" in shown


def test_rows_stay_the_same_number_when_levels_are_few() -> None:
    assert len(text(FIGURES, 10).splitlines()) == len(text(replace(FIGURES, bids=[], asks=[]), 10).splitlines())


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.1, "0.1"), (83092.95, "83,092.95"), (1e-8, "0.00000001"), (5.0, "5"), (1e12, "1,000,000,000,000")],
)
def test_numbers_are_shown_plainly(value: float, shown: str) -> None:
    assert number(value) == shown
