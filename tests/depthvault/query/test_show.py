"""What people see: fits the terminal, hides no doubt."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from depthvault.errors import UsageError
from depthvault.query import Vault, show
from depthvault.query.catalog import TABLES, columns

from .recording import HOUR_10, Recording, diff, snapshot, table, trades


def printed(width: int = 80) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, highlight=False), out


@pytest.fixture
def broken(vault: Vault, recording: Recording) -> Vault:
    """A book whose snapshot was cut at two levels, with a gap after it."""
    start = HOUR_10 + timedelta(seconds=1)
    recording.seal(
        HOUR_10,
        "a",
        {
            "depth_snapshot": table(
                "depth_snapshot",
                [snapshot(10, start, [(100.0, 1.0), (99.5, 40.0)], [(101.0, 3.0), (102.0, 1e-8)], limit=2)],
            ),
            "depth_diff": table("depth_diff", [diff(15, 16, start + timedelta(seconds=1), [(98.0, 2.5)], [])]),
            "trade": trades(0, HOUR_10, 3),
        },
    )
    return vault


def test_a_book_shows_both_sides_and_its_doubts(broken: Vault) -> None:
    console, out = printed()
    show.show_book(broken, "binance_spot", "BTCUSDT", HOUR_10 + timedelta(seconds=9), console, depth=2)
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "spread 1 (0.9950 %), mid 100.5" in text
    assert "3 bids and 2 asks are known" in text
    assert "complete from 99.5 to 102" in text
    assert "gap: events between 10 and 15 are missing" in text
    assert "0.00000001" in text
    assert "98" not in text.split("spread")[0], "only the levels that were asked for"


def test_a_book_as_json_has_its_provenance(broken: Vault) -> None:
    console, out = printed()
    at = HOUR_10 + timedelta(seconds=9)
    show.show_book(broken, "binance_spot", "BTCUSDT", at, console, depth=1, as_json=True)
    record = json.loads(out.getvalue())
    assert record["bids"] == [[100.0, 1.0]]
    assert record["provenance"]["gap_crossed"] is True
    assert record["provenance"]["first_gap"] == [10, 15]


def test_a_replay_is_one_object_a_line(broken: Vault) -> None:
    out = io.StringIO()
    streams = ["binance_spot/depth_diff/BTCUSDT", "binance_spot/trade/BTCUSDT"]
    counted = show.write_replay(broken, streams, HOUR_10, HOUR_10 + timedelta(hours=1), out)
    records = [json.loads(line) for line in out.getvalue().splitlines()]
    assert counted == (4, 0)
    assert [record["type"] for record in records] == ["trade", "trade", "depth_diff", "trade"]
    assert records[2]["bid_prices"] == [98.0]


def test_an_export_says_what_was_written(broken: Vault, tmp_path: Path) -> None:
    console, out = printed(200)
    show.run_export(
        broken, "tardis-book", "binance_spot", "BTCUSDT", HOUR_10, HOUR_10 + timedelta(hours=1), tmp_path / "b.csv",
        console,
    )  # fmt: skip
    assert "b.csv: 5 rows" in out.getvalue()


@pytest.mark.parametrize("name", TABLES)
def test_the_dictionary_tells_every_column(name: str) -> None:
    console, out = printed()
    show.show_schema(console, name)
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    first_words = {line.split(" ", 1)[0] for line in text.splitlines()}
    assert {column for column, _ in columns(name)} <= first_words


def test_the_dictionary_lists_every_table_and_view() -> None:
    console, out = printed()
    show.show_schema(console)
    for name in (*TABLES, "top_of_book", "depth_summary", "book_at"):
        assert name in out.getvalue()
    for name in ("top_of_book", "book_at", "imbalance"):
        show.show_schema(console, name)
    with pytest.raises(UsageError, match="no table 'trades'"):
        show.show_schema(console, "trades")
