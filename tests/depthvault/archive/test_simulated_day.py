"""A simulated day with faults through the whole archive: the simulator's truth agrees with every table of it.

Some hours of a venue run by default. DEPTHVAULT_DAY_HOURS=24 runs whole days, DEPTHVAULT_DAY_VENUES other venues,
DEPTHVAULT_DAY_SEED other faults; DEPTHVAULT_DAY_VALIDATED says how many hours Great Expectations judges (a second or
more each and channel: by default the first).
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from collectors.trial.held import Held, held
from collectors.trial.oracle import judge
from collectors.trial.plan import CHANNELS, Plan
from depthvault.archive import log
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.archive.rederive import rederive
from depthvault.archive.rollup import rollup_with
from depthvault.archive.staging import Unit
from depthvault.archive.verify import verify
from depthvault.config import Config
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import CHANNELS as DICTIONARY
from depthvault.seal import Sealer, recorded_exchanges
from expectations import validate
from simulator.config import SimulatorConfig
from simulator.testing import running
from simulator.truth import Truth

from .day_oracle import CLOSED, Expected, table, told, told_candles
from .simulated_day import HOUR_MS, SNAPSHOT_MS, Day, record

START_MS = 1_741_046_400_000  # 2025-03-04 00:00
HOURS = int(os.environ.get("DEPTHVAULT_DAY_HOURS", "2"))
VENUES = tuple(os.environ.get("DEPTHVAULT_DAY_VENUES", "binance_futures,lighter").split(","))
SEED = int(os.environ.get("DEPTHVAULT_DAY_SEED", "1"))
VALIDATED = int(os.environ.get("DEPTHVAULT_DAY_VALIDATED", "1"))
TIMED = ("trade", "book_ticker", "mark_price")

pytestmark = pytest.mark.timeout(120 + 60 * HOURS)


@dataclass
class Archived:
    """A recorded and archived day of one venue, and the oracle's two halves."""

    venue: str
    plan: Plan
    config: Config
    day: Day
    truth: Truth
    journals: Held
    expected: Expected

    @property
    def layout(self) -> Layout:
        return self.config.layout

    def rows(self, name: str, channel: str = "") -> list[dict[str, Any]]:
        return table(self.layout, self.venue, name, channel)


@pytest.fixture(scope="module", params=VENUES)
def archived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Archived:
    venue, folder = request.param, tmp_path_factory.mktemp("day")
    plan = Plan(venues=(venue,), symbols=2, rate=2.0)
    config, day = asyncio.run(_recorded(venue, plan, folder))
    _archive(config)
    truth = Truth(folder / "truth")
    journals = held(config.layout, venue)
    expected = Expected(day, truth, venue, journals, plan.symbols_of(venue), folder)
    return Archived(venue, plan, config, day, truth, journals, expected)


async def _recorded(venue: str, plan: Plan, folder: Path) -> tuple[Config, Day]:
    simulator = SimulatorConfig(
        venues=(venue,), symbols=2, rate=2.0, book_levels=60, manual_clock=True, start_ms=START_MS,
        truth=folder / "truth", message_limits=False, seed=SEED,
    )  # fmt: skip
    async with running(simulator) as sim:
        raw = plan.configuration(folder / "data", sim.port)
        raw["archive"] = {"period": "1h"}
        raw["exchanges"][venue]["snapshot_cadence"] = f"{SNAPSHOT_MS // 1000}s"
        config = Config.model_validate(raw)
        day = await record(sim, config, (venue,), START_MS, HOURS, SEED)
    assert min(day.kinds[kind] for kind in ("drop", "duplicate", "disconnect", "roll", "crash", "clock", "damage")) > 0
    return config, day


def _archive(config: Config) -> None:
    """Every step that the sealer and Airflow take."""
    layout = config.layout
    exchanges = recorded_exchanges(config)
    sealer = Sealer(layout, config.archive.seal_grace)
    over = datetime.fromtimestamp(START_MS / 1000, UTC) + timedelta(hours=HOURS + 2)
    for exchange, writer, period in sealer.due(exchanges, over):
        sealer.seal(exchanges[exchange], writer, period)
    while units := ready_units(layout, config):
        unit = units[0]
        compact(layout, config, unit.exchange, unit.period)
        if unit.period.start < _hour(VALIDATED):
            validate(layout, config, unit.exchange, unit.period)
        publish_with(layout, None, unit)


def _hour(number: int) -> datetime:
    return datetime.fromtimestamp(START_MS / 1000, UTC) + timedelta(hours=number)


def test_every_value_is_the_venues_and_every_fault_came_to_pass(archived: Archived) -> None:
    judged = judge(archived.plan, archived.layout, archived.truth, archived.venue)
    assert {one.channel: (one.problems, one.examples) for one in judged.findings if one.problems} == {}
    assert judged.held.damage == len(archived.day.damaged)
    assert all(one.archived for one in judged.findings if one.channel != "liquidation")
    assert sum(one.missing for one in judged.findings) > 0
    kinds = judged.deliveries.kinds
    assert kinds["drop"] > HOURS
    assert kinds["duplicate"]
    assert kinds["malformed"]
    assert kinds["late"]


def test_gaps_are_those_that_were_made_each_once_with_its_cause(archived: Archived) -> None:
    rows = archived.rows("gaps")
    expected = Counter(archived.expected.chains())
    causes = {key[5] for key in expected}
    assert {"crash", "disconnect", "damaged", "malformed", "venue"} <= causes
    found = told(rows, {key[0] for key in expected})
    assert found - expected == Counter(), "told, and not so"
    assert expected - found == Counter(), "so, and not told"


def test_times_without_a_listener_are_told_once(archived: Archived) -> None:
    rows = archived.rows("gaps")
    for channel in set(TIMED) & set(CHANNELS[archived.venue]):
        for symbol in archived.plan.symbols_of(archived.venue):
            found = [row for row in rows if (row["channel"], row["symbol"]) == (channel, symbol)]
            spans = archived.expected.silences(channel, symbol)
            assert len(found) == len(spans) > 0
            for row, (start, end) in zip(sorted(found, key=lambda row: row["start_time"]), spans, strict=True):
                assert abs(row["start_time"].timestamp() * 1e6 - start) < 1e3
                assert abs(row["end_time"].timestamp() * 1e6 - end) < 1e3
                assert (row["cause"], row["status"]) == ("disconnect", "unprovable")


def test_candles_and_polls_that_nobody_has_are_told_once(archived: Archived) -> None:
    if "kline" not in CHANNELS[archived.venue]:
        assert archived.rows("gaps", "kline") == []
        return
    rows = archived.rows("gaps")
    assert told_candles(rows) == archived.expected.candles()
    polls = [row for row in rows if row["channel"] == "depth_snapshot"]
    since, until = archived.day.missed_polls[archived.venue]
    assert Counter(row["symbol"] for row in polls) == Counter(archived.plan.symbols_of(archived.venue))
    for row in polls:
        assert row["status"] == "lost"
        assert row["start_time"].timestamp() * 1000 == pytest.approx(since - SNAPSHOT_MS, abs=2_100)
        assert row["end_time"].timestamp() * 1000 == pytest.approx(until, abs=2_100)


def test_coverage_is_what_was_listened_and_counts_what_is_there(archived: Archived) -> None:
    gaps, coverage = archived.rows("gaps"), archived.rows("coverage")
    for channel in set(CHANNELS[archived.venue]) - {"depth_snapshot"}:
        events = Counter((row["symbol"], _place(row, channel)) for row in archived.rows(channel, channel))
        for symbol in archived.plan.symbols_of(archived.venue):
            for hour in range(HOURS):
                (row,) = [
                    one for one in coverage
                    if (one["channel"], one["symbol"], one["period"]) == (channel, symbol, _hour(hour))
                ]  # fmt: skip
                assert row["events"] == events[symbol, hour]
                assert row["gaps"] == sum(
                    (gap["channel"], gap["symbol"], gap["period"]) == (channel, symbol, _hour(hour))
                    and gap["status"] not in CLOSED
                    for gap in gaps
                )
                seconds = archived.expected.covered(channel, symbol, hour)
                assert row["covered_seconds"] == pytest.approx(seconds, abs=0.1), (channel, symbol, hour)
                assert row["share"] == pytest.approx(row["covered_seconds"] / 3600)


def _place(row: dict[str, Any], channel: str) -> int:
    """The hour of the day that an event belongs to by its own time."""
    moment = next(row[name] for name in (*DICTIONARY[channel].time, "received_time") if row[name] is not None)
    return int((moment.timestamp() * 1000 - START_MS) // HOUR_MS)


def test_books_replayed_from_snapshot_to_snapshot_agree_level_by_level(archived: Archived) -> None:
    audits = archived.rows("book_audit")
    crossed = 0
    for row in audits:
        assert (row["missing"], row["extra"], row["different"]) == (0, 0, 0), row
        whole = archived.expected.complete_between(row["symbol"], row["from_update_id"], row["to_update_id"])
        assert row["gap_crossed"] != whole, row
        crossed += row["gap_crossed"]
        assert row["gap_crossed"] or row["matched"] > 40
    assert crossed < len(audits)
    assert len(audits) > HOURS * 2
    if archived.journals.snapshots:
        assert crossed >= HOURS
        assert HOURS < 6 or sum(row["undecidable"] for row in audits) > 0  # some snapshots lie inside an event
        answers = sum(map(len, archived.journals.snapshots.values()))
        assert answers - 2 * HOURS - 2 <= len(audits) <= answers


def test_a_period_is_degraded_where_something_is_missing_and_nowhere_else(archived: Archived) -> None:
    state = log.load(archived.layout)
    gaps = archived.rows("gaps")
    missing = {(gap["channel"], gap["period"]) for gap in gaps if gap["status"] in ("lost", "open")}
    judged = 0
    for unit in state.current:
        entry = state.entry(*unit)
        if entry is None or entry.kind != "hour" or entry.channel not in CHANNELS[archived.venue]:
            continue
        start = Period.parse(entry.period, timedelta(hours=1)).start
        if start >= _hour(VALIDATED):
            assert entry.condition == "pending"
            continue
        judged += 1
        hour = int((start - _hour(0)) / timedelta(hours=1))
        shares = [
            archived.expected.covered(entry.channel, symbol, hour) / 3600
            for symbol in archived.plan.symbols_of(archived.venue)
            if entry.channel != "depth_snapshot"
        ]
        is_whole = (entry.channel, start) not in missing and min(shares, default=1.0) >= 0.99
        # Every hour has a clock step; one of seconds back, on the writer that carries the hour, is told as what it is.
        is_early = bool(entry.failed) and all("lag_p01_ms is -" in failure for failure in entry.failed)
        expected = "available" if is_whole and not is_early else "degraded"
        assert entry.condition == expected, (entry.channel, entry.period, entry.failed)
    assert judged


def test_rederived_and_rolled_up_the_day_is_the_same(archived: Archived) -> None:
    layout, config, venue = archived.layout, archived.config, archived.venue
    for hour in {0, HOURS - 1}:
        period = layout.period_of(_hour(hour))
        again = rederive(layout, config, venue, period)
        assert (again.changes, again.kept) == ([], {})
        publish_with(layout, None, Unit(venue, period))
    assert [str(finding) for finding in verify(layout, deep=True).findings] == []
    before = _content(archived)
    rollup_with(layout, config, None, venue, _hour(0).date())
    state = log.load(layout)
    left = {file.table for path, file in state.files.items() if path.startswith("hour/")}
    assert not left & set(before), "every hour is in its day"
    assert _content(archived) == before
    assert [str(finding) for finding in verify(layout, deep=True).findings] == []


def _content(archived: Archived) -> dict[str, list[str]]:
    """The rows of each channel and symbol in order, as text digests of Arrow tables."""
    state = log.load(archived.layout)
    found: dict[str, dict[str, list[pa.Table]]] = {}
    for path, file in sorted(state.files.items()):
        if file.table in CHANNELS[archived.venue]:
            rows = pq.read_table(archived.layout.archived(path)).replace_schema_metadata(None)
            for symbol in sorted(pc.unique(rows["symbol"]).to_pylist()):
                found.setdefault(file.table, {}).setdefault(symbol, []).append(
                    rows.filter(pc.equal(rows["symbol"], symbol))
                )
    return {
        name: [str(row) for symbol in sorted(parts) for row in pa.concat_tables(parts[symbol]).to_pylist()]
        for name, parts in found.items()
    }
