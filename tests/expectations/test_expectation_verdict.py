"""The verdict: what it keeps, that it repeats byte for byte, and that it writes nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from healthy_periods import healthy, stage

from depthvault.durable import sha256_file
from depthvault.schemas import QUALITY
from expectations import examine, read_verdict


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    subject = stage(tmp_path / "in", healthy("depth_diff"), "depth_diff")
    examine(subject, tmp_path / "out")
    first = tree(tmp_path / "out")
    examine(subject, tmp_path / "out")
    examine(subject, tmp_path / "again")
    assert tree(tmp_path / "out") == tree(tmp_path / "again") == first
    assert set(first) == {
        "verdict.json",
        "quality/hour_metrics/exchange=binance_futures/channel=depth_diff/date=2026-11-20/0400.g1.parquet",
    }


def test_the_verdict_names_its_files_and_what_failed(tmp_path: Path) -> None:
    rows = healthy("agg_trade")
    del rows[7]
    verdict = examine(stage(tmp_path, rows, "agg_trade"), tmp_path)
    kept = read_verdict(tmp_path)
    assert kept is not None
    assert (kept["condition"], kept["passed"]) == ("degraded", False)
    assert [check["metric"] for check in kept["channels"]["agg_trade"]["failed"]] == ["breaks_undeclared"]
    (file,) = kept["files"]
    assert file["sha256"] == sha256_file(tmp_path / file["key"])
    assert json.loads((tmp_path / "verdict.json").read_bytes()) == kept
    assert "breaks_undeclared is 1, but every break of the chain is declared in gaps" in str(verdict)


def test_hour_metrics_hold_every_figure_with_its_judgement(tmp_path: Path) -> None:
    rows = healthy("agg_trade")
    del rows[7]
    verdict = examine(stage(tmp_path, rows, "agg_trade"), tmp_path)
    table = pq.read_table(tmp_path / verdict.files[0].key, partitioning=None)
    assert table.schema.equals(QUALITY["hour_metrics"])
    figures = {(row["symbol"], row["metric"]): (row["value"], row["passed"]) for row in table.to_pylist()}
    assert figures[("BTCUSDT", "breaks_undeclared")] == (1.0, False)
    assert figures[("BTCUSDT", "breaks")] == (1.0, None)  # a figure that no rule judges
    assert figures[("BTCUSDT", "rows")] == (49.0, True)
    assert figures[("币安人生USDT", "rows")] == (50.0, True)
    assert figures[("", "rows_difference")] == (0.0, True)


def test_nothing_is_written_outside_the_staging_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, home = tmp_path / "cwd", tmp_path / "home"
    elsewhere.mkdir()
    home.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(home))
    examine(stage(tmp_path / "in", healthy("trade"), "trade"), tmp_path / "out")
    assert tree(elsewhere) == {}
    assert tree(home) == {}
