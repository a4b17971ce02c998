"""The day holds exactly what its periods held, also when rows come after it was made; no reader sees a row twice."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from depthvault.archive import log
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.archive.rollup import rollable_days, rollup_with
from depthvault.archive.staging import Staging, Unit, Verdict
from depthvault.archive.store import Store
from depthvault.archive.verify import verify
from depthvault.errors import ArchiveError
from depthvault.period import Period

from .sealed import FUTURES, HOUR, Host, chain, trade_rows

DAY = date(2026, 11, 20)
LATER = HOUR.start + timedelta(days=2)


def archive(host: Host, store: Store | None = None) -> None:
    while units := ready_units(host.layout, host.config, FUTURES):
        compact(host.layout, host.config, FUTURES, units[0].period, store)
        publish_with(host.layout, store, Unit(FUTURES, units[0].period))


def seal_hours(host: Host, count: int = 3, skip: range = range(0)) -> None:
    period = HOUR
    for hour in range(count):
        rows = [
            event.row("a", base=period)
            for symbol in ("BTCUSDT", "币安人生USDT")
            for number, event in enumerate(chain(40, first=100 + 400 * hour, symbol=symbol))
            if not (hour == 1 and number in skip)
        ]
        trades = trade_rows(range(1, 20), "a") if hour == 0 else []
        host.seal("a", {"depth_diff": rows, "agg_trade": trades}, period=period)
        period = period.next()


def rows(host: Host, channel: str = "depth_diff") -> list[dict[str, Any]]:
    """What a reader of the current files sees, by symbol and chain order."""
    state = log.load(host.layout)
    tables = [
        pq.read_table(host.layout.archived(path)).replace_schema_metadata(None)
        for path, file in sorted(state.files.items())
        if file.table == channel
    ]
    found: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    key = "final_update_id" if channel == "depth_diff" else "agg_trade_id"
    return sorted(found, key=lambda row: (row["symbol"], row[key]))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_day_holds_what_its_periods_held(host: Host, store: Store) -> None:
    seal_hours(host)
    archive(host, store)
    before = rows(host), rows(host, "agg_trade")
    assert rollable_days(host.layout, host.config, LATER) == [(FUTURES, DAY)]
    result = rollup_with(host.layout, host.config, store, FUTURES, DAY)
    assert [entry.channel for entry in result.entries] == ["agg_trade", "depth_diff"]
    assert (rows(host), rows(host, "agg_trade")) == before
    state = log.load(host.layout)
    assert not any(path.startswith("hour/") for path in state.files)
    assert any("symbol=%E5%B8%81" in path for path in state.files)
    assert any(path.startswith("quality/coverage/") for path in state.files), "the proof stays with its periods"
    assert verify(host.layout, store, deep=True).findings == []
    assert rollable_days(host.layout, host.config, LATER) == []
    assert rollup_with(host.layout, host.config, store, FUTURES, DAY).entries == []
    assert ready_units(host.layout, host.config, FUTURES) == []


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["available"] * 3, "available"),
        (["available", None, "available"], "pending"),
        ([None, "degraded", "available"], "degraded"),
    ],
)
def test_a_day_is_in_the_worst_condition_of_its_periods(host: Host, verdicts: list[str | None], expected: str) -> None:
    seal_hours(host)
    period = HOUR
    for verdict in verdicts:
        compact(host.layout, host.config, FUTURES, period)
        if verdict is not None:
            Staging(host.layout, Unit(FUTURES, period)).write_validation([Verdict("depth_diff", verdict)])
        publish_with(host.layout, None, Unit(FUTURES, period))
        period = period.next()
    entries = rollup_with(host.layout, host.config, None, FUTURES, DAY).entries
    assert {entry.condition for entry in entries if entry.channel == "depth_diff"} == {expected}


def test_a_running_day_and_one_with_periods_on_their_way_are_left_alone(host: Host) -> None:
    seal_hours(host)
    archive(host)
    assert rollable_days(host.layout, host.config, HOUR.end) == []
    host.seal("b", {"depth_diff": [event.row("b") for event in chain(50)]})
    assert rollable_days(host.layout, host.config, LATER) == []


def test_rows_that_come_after_the_roll_up_are_added_and_merged_once(host: Host) -> None:
    seal_hours(host, skip=range(10, 20))
    archive(host)
    rollup_with(host.layout, host.config, None, FUTURES, DAY)
    before = rows(host)
    state = log.load(host.layout)
    untouched = {file.sha256 for path, file in state.files.items() if "agg_trade" in path and path.startswith("day/")}
    second = HOUR.next()
    late = [event.row("b", base=second) for event in chain(40, first=500)]
    host.seal("b", {"depth_diff": late}, period=second)
    archive(host)
    after = rows(host)
    assert len(after) == len(before) + 10
    assert [row for row in after if row in before] == before, "what was archived stays as it was"
    gaps = [
        row
        for path, file in log.load(host.layout).files.items()
        if file.table == "gaps" and "/11.g" in path
        for row in pq.read_table(host.layout.archived(path)).to_pylist()
        if row["symbol"] == "BTCUSDT"
    ]
    assert [row["status"] for row in gaps] == ["bridged"]
    assert rollable_days(host.layout, host.config, LATER) == [(FUTURES, DAY)]
    result = rollup_with(host.layout, host.config, None, FUTURES, DAY)
    assert [(entry.channel, entry.generation) for entry in result.entries] == [("depth_diff", 2)]
    assert rows(host) == after
    state = log.load(host.layout)
    (day,) = [path for path in state.files if "symbol=BTCUSDT/" in path and "depth_diff" in path]
    ids = pq.read_table(host.layout.archived(day)).column("final_update_id").to_pylist()
    assert ids == sorted(ids)
    assert untouched <= {file.sha256 for file in state.files.values()}
    assert verify(host.layout, deep=True).findings == []


def test_a_day_that_is_not_equal_supersedes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    seal_hours(host)
    archive(host)
    number = log.load(host.layout).number
    read = pq.ParquetFile.read_row_group
    calls: list[int] = []

    def lossy(self: pq.ParquetFile, *args: Any, **options: Any) -> pa.Table:
        table = read(self, *args, **options)
        calls.append(1)
        return table.slice(1) if len(calls) == 2 else table

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lossy)
    with pytest.raises(ArchiveError, match=r"nothing was superseded|other rows"):
        rollup_with(host.layout, host.config, None, FUTURES, DAY)
    assert log.load(host.layout).number == number


def test_periods_that_only_the_store_has_are_fetched(host: Host, store: Store) -> None:
    seal_hours(host)
    archive(host, store)
    before = rows(host)
    for path in host.layout.archive.rglob("hour/**/*.parquet"):
        log.change_evicted(host.layout, add=[path.relative_to(host.layout.archive).as_posix()])
        path.unlink()
    rollup_with(host.layout, host.config, store, FUTURES, DAY)
    assert rows(host) == before
    assert Period(HOUR.start) == HOUR


def test_day_files_are_compressed_as_hard_as_asked_for_and_hold_the_same(tmp_path: Path) -> None:
    found = []
    for level in (1, 19):
        host = Host(tmp_path / str(level), {"archive": {"day_compression_level": level}})
        seal_hours(host)
        archive(host)
        rollup_with(host.layout, host.config, None, FUTURES, DAY)
        files = [file for file in log.load(host.layout).files.values() if file.table == "depth_diff"]
        found.append((sum(file.bytes for file in files), sorted(file.logical_sha256 for file in files)))
    assert found[0][0] > found[1][0]
    assert found[0][1] == found[1][1]
