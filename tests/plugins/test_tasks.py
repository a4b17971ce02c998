"""What the functions behind the tasks promise beside their wiring."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from depthvault.errors import RestError
from depthvault.journal import read_rows
from depthvault.polls.round import rest_writer
from plugins import housekeeping, polling, reporting
from simulator.config import SimulatorConfig
from simulator.testing import Running, running
from tests.plugins.conftest import Configure


def venues(simulator: Running, *names: str) -> dict[str, object]:
    return {
        name: {"enabled": name in names, "rest_url": simulator.rest_url(name), "symbols": ["BTCUSDT"]}
        for name in ("binance_spot", "binance_futures")
    }


async def test_a_venue_that_is_down_fails_the_task_but_not_the_other_venue(configure: Configure) -> None:
    async with running(SimulatorConfig(symbols=2)) as simulator:
        exchanges = venues(simulator, "binance_spot", "binance_futures")
        data = configure(
            exchanges=exchanges | {"binance_futures": {"rest_url": "http://127.0.0.1:9", "symbols": ["B"]}}
        )
        with pytest.raises(RestError, match="binance_futures") as failure:
            await polling.depth_snapshots()
        assert "binance_spot" not in str(failure.value)
    (journal,) = (data / "journal" / "binance_spot" / rest_writer()).glob("*.journal")
    assert any(row.kind == "rest" for row in read_rows(journal))


async def test_a_venue_without_the_channel_is_not_asked(configure: Configure) -> None:
    async with running(SimulatorConfig(symbols=2)) as simulator:
        configure(exchanges=venues(simulator, "binance_spot"))
        assert await polling.open_interest() == []
        assert await polling.funding_rates() == []


async def test_only_books_that_come_in_the_stream_are_probed(configure: Configure) -> None:
    async with running(SimulatorConfig(symbols=2)) as simulator:
        lighter = {"enabled": True, "rest_url": simulator.rest_url("lighter"), "ws_url": simulator.ws_url("lighter")}
        data = configure(exchanges=venues(simulator, "binance_spot") | {"lighter": lighter | {"symbols": ["ETH"]}})
        (said,) = await polling.book_probes()
    assert said.startswith("lighter depth_snapshot: 1 of 1 answered")
    (journal,) = (data / "journal" / "lighter" / rest_writer()).glob("*.journal")
    assert [row.stream for row in read_rows(journal) if row.kind == "rest"] == ["SUBSCRIBE order_book:0"]


async def test_funding_is_asked_for_from_the_last_success_on(configure: Configure) -> None:
    async with running(SimulatorConfig(symbols=2)) as simulator:
        data = configure(exchanges=venues(simulator, "binance_futures"))
        before = datetime.now(UTC)
        await polling.funding_rates()
        mark = data / "run" / "polls" / "funding-binance_futures"
        assert before <= datetime.fromisoformat(mark.read_text()) <= datetime.now(UTC)
        missed = before - timedelta(hours=7)
        mark.write_text(missed.isoformat())
        await polling.funding_rates()
    folder = data / "journal" / "binance_futures" / rest_writer()
    asked = [row.stream for path in sorted(folder.glob("*.journal")) for row in read_rows(path) if row.kind == "rest"]
    starts = [int(line.partition("startTime=")[2].partition("&")[0]) for line in asked if "startTime" in line]
    assert len(starts) == 2
    assert starts[0] == int(before.replace(minute=0, second=0, microsecond=0).timestamp() * 1000)
    assert starts[1] == int((missed - timedelta(minutes=5)).timestamp() * 1000)


async def test_a_failed_round_does_not_move_the_mark(configure: Configure) -> None:
    data = configure(
        exchanges={
            "binance_spot": {"enabled": False},
            "binance_futures": {"rest_url": "http://127.0.0.1:9", "symbols": ["BTCUSDT"]},
        }
    )
    with pytest.raises(RestError):
        await polling.funding_rates()
    assert not (data / "run" / "polls" / "funding-binance_futures").exists()


def test_old_logs_go_and_young_ones_stay(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    for name, days in (("old/a.log", 8), ("old/deep/b.log", 30), ("young/c.log", 6), ("mixed/d.log", 9)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)
        os.utime(path, (now - days * 86400,) * 2)
    (tmp_path / "mixed" / "e.log").write_bytes(b"young")
    os.utime(tmp_path / "mixed" / "e.log", (now, now))
    (tmp_path / "outside").symlink_to("/etc")
    for folder in (tmp_path / "old" / "deep", tmp_path / "old"):
        os.utime(folder, (now - 40 * 86400,) * 2)
    said = housekeeping.prune_logs(tmp_path, now)
    assert said.startswith("3 logs deleted")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["mixed/e.log", "young/c.log"]
    assert Path("/etc").exists()


def test_the_report_is_of_yesterday_unless_a_day_is_named() -> None:
    now = datetime(2026, 11, 20, 0, 40, tzinfo=UTC)
    assert reporting.report_date(None, now).isoformat() == "2026-11-19"
    assert reporting.report_date("2026-11-01", now).isoformat() == "2026-11-01"
