"""Pictures show what is there, leave blank what is not, and are the same for the same data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from depthvault import plot
from depthvault.book.reconstruct import Book, Provenance
from depthvault.errors import ArchiveError, UsageError

T = datetime(2026, 11, 20, 4, tzinfo=UTC)


class FakeVault:
    """Answers with given tables: what is drawn is tested here, what is asked is tested where it is answered."""

    def __init__(self, coverage: list[tuple[Any, ...]] = (), books: pa.Table | None = None) -> None:  # type: ignore[assignment]
        self.coverage, self.table = coverage, books

    def sql(self, _: str) -> Any:
        rows = self.coverage

        class Relation:
            def fetchall(self) -> list[tuple[Any, ...]]:
                return list(rows)

        return Relation()

    def books(self, *_: Any) -> pa.RecordBatchReader:
        assert self.table is not None
        return self.table.to_reader()


def book(bids: list[tuple[float, float]], asks: list[tuple[float, float]]) -> Book:
    provenance = Provenance("depth_snapshot", 1, T, 0, 1, T, False, None, 99.0, None, "")
    (bid_prices, bid_sizes), (ask_prices, ask_sizes) = (
        (np.array([price for price, _ in side]), np.array([size for _, size in side])) for side in (bids, asks)
    )
    return Book("binance_spot", "BTCUSDT", T, bid_prices, bid_sizes, ask_prices, ask_sizes, provenance)


def table(rows: list[tuple[list[float], list[float]]]) -> pa.Table:
    """Best-level books, a second apart; an empty list where nothing is known."""
    bids, asks = [list(row[0]) for row in rows], [list(row[1]) for row in rows]
    return pa.table({
        "time": pa.array([T + timedelta(seconds=i) for i in range(len(rows))], pa.timestamp("us", "UTC")),
        "bid_prices": bids, "bid_sizes": [[1.0] * len(each) for each in bids],
        "ask_prices": asks, "ask_sizes": [[1.0] * len(each) for each in asks],
    })  # fmt: skip


def test_depth_accumulates_from_the_mid_outwards() -> None:
    figure, _ = plot.depth(book([(100.0, 2.0), (99.5, 3.0), (50.0, 1000.0)], [(101.0, 1.0)]))
    bids, asks = figure.axes[0].lines[:2]
    assert list(bids.get_ydata()) == [2.0, 5.0], "what is far from the mid is not drawn"
    assert list(asks.get_ydata()) == [1.0]


def test_a_one_sided_book_has_no_depth_picture() -> None:
    with pytest.raises(ArchiveError, match="a side of the book is empty"):
        plot.depth(book([(100.0, 2.0)], []))


def test_time_without_a_book_stays_blank() -> None:
    books = table([([100.0], [101.0]), ([], []), ([100.0], [102.0])])
    figure, _ = plot.spread(FakeVault(books=books), "binance_spot", "BTCUSDT", T, T + timedelta(seconds=3))  # type: ignore[arg-type]
    mid = figure.axes[0].lines[0].get_ydata()
    assert np.isnan(mid[1])
    assert [mid[0], mid[2]] == [100.5, 101.0]


def test_a_span_without_any_book_says_so() -> None:
    vault = FakeVault(books=table([([], []), ([], [])]))
    with pytest.raises(ArchiveError, match="no book between"):
        plot.heatmap(vault, "binance_spot", "BTCUSDT", T, T + timedelta(seconds=2))  # type: ignore[arg-type]


def test_coverage_marks_gaps_and_spells_what_no_font_can_show() -> None:
    rows = [("binance_spot BTCUSDT", T, 1.0, 0), ("binance_spot 币安人生USDT", T, 0.5, 2)]
    figure, _ = plot.coverage(FakeVault(rows))  # type: ignore[arg-type]
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "binance_spot BTCUSDT"
    assert labels[1] in {"binance_spot 币安人生USDT", "binance_spot %E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT"}
    assert axes.collections[0].get_offsets().tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("ending", ["png", "svg", "html"])
def test_the_same_data_gives_the_same_file(tmp_path: Path, ending: str) -> None:
    written = []
    for name in ("a", "b"):
        figure, title = plot.depth(book([(100.0, 2.0)], [(101.0, 1.0)]))
        written.append(plot.write(figure, tmp_path / f"{name}.{ending}", title).read_bytes())
    assert written[0] == written[1]
    assert b"http-equiv" not in written[0]


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    figure, title = plot.depth(book([(100.0, 2.0)], [(101.0, 1.0)]))
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.html"):
        plot.write(figure, tmp_path / "a.jpg", title)
