"""Every example of docs/querying.md runs."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from depthvault.cli import app
from depthvault.clock import ManualClock, ns_from_datetime
from depthvault.layout import Layout
from depthvault.query import Vault
from depthvault.query.saved import save_views

from .recording import HOUR_10, Recording, diff, snapshot, table, trades

HOUR_NS = 3_600_000_000_000
PAGE = Path(__file__).parents[3] / "docs" / "querying.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = [
    line for language, block in BLOCKS if language == "sh" for line in block.splitlines() if "s3://" not in line
]


@pytest.fixture
def filled(layout: Layout, vault: Vault, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> Vault:
    ticker = {
        "received_time": HOUR_10, "event_time": HOUR_10, "symbol": "BTCUSDT", "instance": "a", "source": "stream",
        "transaction_time": None, "update_id": 1, "bid_price": 100.0, "bid_size": 1.0, "ask_price": 101.0,
        "ask_size": 3.0,
    }  # fmt: skip
    recording.seal(
        HOUR_10,
        "a",
        {
            "trade": trades(0, HOUR_10, 200),
            "book_ticker": table("book_ticker", [ticker]),
            "depth_snapshot": table(
                "depth_snapshot", [snapshot(10, HOUR_10 + timedelta(seconds=1), [(100.0, 1.0)], [(101.0, 3.0)])]
            ),
            "depth_diff": table(
                "depth_diff",
                [diff(n, n, HOUR_10 + timedelta(seconds=n - 9), [(99.0, float(n))], []) for n in (11, 12, 14)],
            ),
        },
    )
    monkeypatch.chdir(layout.root.parent)
    monkeypatch.delenv("DEPTHVAULT_CONFIG", raising=False)
    monkeypatch.setattr("depthvault.query.follow.SystemClock", lambda: ManualClock(ns_from_datetime(HOUR_10) + HOUR_NS))
    save_views(layout, Path("archive.duckdb"), HOUR_10)
    return vault


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "sql"])
def test_sql(filled: Vault, block: str) -> None:
    relation = filled.sql(block)
    rows = relation.fetchall()
    assert rows or "FROM gaps" in block
    if "top_of_book" in block:
        assert rows[0][1] == pytest.approx(100 / 100.5)
        assert "top_of_book(" not in block or rows[0][2] == -0.5


def test_python(filled: Vault, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out
    assert "missing: events after 12 and before 14" in printed
    assert names["spreads"] == [1.0] * 59
    assert names["price"] == 60059.1
    mean = pytest.approx(sum(60000.1 + n for n in range(200)) / 200)
    assert names["frame"].to_dict("records") == [{"symbol": "BTCUSDT", "price": mean}]  # type: ignore[attr-defined]
    assert names["lazy"].collect().rows() == [("BTCUSDT", mean)]  # type: ignore[attr-defined]
    assert names["arrow"].to_pylist() == [{"symbol": "BTCUSDT", "price": mean}]  # type: ignore[attr-defined]
    assert names["last"] == HOUR_10 + timedelta(seconds=199, milliseconds=7)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(filled: Vault, line: str) -> None:
    words = shlex.split(line.split(" > ")[0])
    assert words[0] == "depthvault"
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    if "-o" in words:
        assert Path(words[words.index("-o") + 1]).stat().st_size > 0
    elif "schema" not in words:
        assert "BTCUSDT" in result.output
