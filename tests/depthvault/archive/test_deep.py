"""Deep verification finds what somebody changed who made every hash fit: in the files of periods and of days."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from depthvault.archive import log
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.manifest import ArchiveFile, Entry
from depthvault.archive.publish import publish_with
from depthvault.archive.rollup import rollup_with
from depthvault.archive.staging import Unit
from depthvault.archive.verify import verify
from depthvault.schemas import CHANNELS

from .forgery import Change, forge, rewrite
from .sealed import FUTURES, HOUR, Host, trade_rows
from .test_auditing import Market, record

DAY = date(2026, 11, 20)
SECOND = HOUR.next()


def klines(count: int) -> list[dict[str, Any]]:
    rows = []
    for minute in range(count):
        opened = HOUR.start + timedelta(minutes=minute)
        closed = opened + timedelta(minutes=1) - timedelta(milliseconds=1)
        prices = dict.fromkeys(("open", "high", "low", "close"), 100.0)
        volumes = {
            spec.name: 1 for spec in CHANNELS["kline"].columns if pa.types.is_decimal(spec.type)
        }  # fmt: skip
        rows.append(
            {
                "received_time": closed, "event_time": closed, "symbol": "BTCUSDT", "instance": "a",
                "source": "stream", "interval": "1m", "open_time": opened, "close_time": closed, "trade_count": 1,
                **prices, **volumes,
            }
        )  # fmt: skip
    return rows


def archived(root: Path) -> Host:
    """Two hours of a book with its snapshots and a real gap, of trades and of candles."""
    host, market = Host(root), Market()
    for period in (HOUR, SECOND):
        diffs, snapshots = record(market, period)
        rows: dict[str, list[dict[str, object]]] = {"depth_diff": diffs, "depth_snapshot": snapshots}
        if period == HOUR:
            rows |= {"agg_trade": trade_rows(range(1, 60), "a"), "kline": klines(30)}
            rows["depth_diff"] = [row for number, row in enumerate(diffs) if number not in range(400, 405)]
        host.seal("a", rows, period=period)
        archive(host)
    return host


def archive(host: Host) -> None:
    while units := ready_units(host.layout, host.config, FUTURES):
        compact(host.layout, host.config, FUTURES, units[0].period)
        publish_with(host.layout, None, Unit(FUTURES, units[0].period))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    hour, day = tmp_path_factory.mktemp("hour"), tmp_path_factory.mktemp("day") / "data"
    archived(hour)
    shutil.copytree(hour, day)
    rolled = Host(day)
    assert rollup_with(rolled.layout, rolled.config, None, FUTURES, DAY).entries
    return {"hour": hour, "day": day}


@pytest.fixture(params=["hour", "day"])
def host(request: pytest.FixtureRequest, originals: dict[str, Path], tmp_path: Path) -> Host:
    shutil.copytree(originals[request.param], tmp_path / "data")
    return Host(tmp_path / "data")


def key_of(host: Host, table: str) -> str:
    """The file of a channel that holds its first period, or of a quality table of it."""
    files = log.load_all(host.layout).files
    return min(path for path, file in files.items() if file.table == table)


def details(host: Host) -> list[tuple[str, str]]:
    """What deep verification finds, where all hashes fit."""
    assert verify(host.layout).ok, "the forger left a trace that needs no look at the rows"
    return [(finding.kind, finding.detail) for finding in verify(host.layout, deep=True).findings]


def without(*numbers: int) -> Change:
    """Leave rows of the first row group out."""
    once: list[int] = []

    def change(table: pa.Table) -> pa.Table:
        once.append(1)
        if len(once) > 1:
            return table
        return table.filter(pa.array([row not in numbers for row in range(table.num_rows)]))

    return change


def altered(column: str, row: int, value: Callable[[Any], Any]) -> Change:
    """Another value in one row of the first row group."""
    once: list[int] = []

    def change(table: pa.Table) -> pa.Table:
        once.append(1)
        if len(once) > 1:
            return table
        values = table.column(column).to_pylist()
        values[row] = value(values[row])
        place = table.schema.get_field_index(column)
        return table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))

    return change


def test_what_was_archived_is_right(host: Host) -> None:
    assert details(host) == []
    state = log.load_all(host.layout)
    assert sum(file.rows for file in state.files.values() if file.table == "book_audit") > 15
    assert state.files[key_of(host, "gaps")].rows == 1


def test_a_row_left_out_is_an_undeclared_gap_and_not_what_coverage_counts(host: Host) -> None:
    forge(host.layout, key_of(host, "depth_diff"), without(200))
    found = details(host)
    assert ("continuity", "BTCUSDT: undeclared gap from 3000 to 3010") in found
    assert any("`coverage` counts 594" in detail for _, detail in found)
    assert any(kind == "audit" for kind, _ in found)


def test_rows_left_out_at_the_end_are_missed_by_the_manifests_tail(host: Host) -> None:
    forge(host.layout, key_of(host, "agg_trade"), without(58))
    assert ("continuity", "BTCUSDT: its chain ends at 58, its manifest says 59") in details(host)


def test_a_candle_left_out_is_an_undeclared_gap(host: Host) -> None:
    forge(host.layout, key_of(host, "kline"), without(10))
    assert ("continuity", "BTCUSDT: undeclared gap in 1m: 1 missing") in details(host)


def test_rows_in_another_order_are_found(host: Host) -> None:
    forge(host.layout, key_of(host, "depth_diff"), lambda table: table.take(pa.array(range(table.num_rows)[::-1])))
    assert ("continuity", "BTCUSDT: rows are not in chain order") in details(host)


def test_a_row_that_is_there_twice_is_found(host: Host) -> None:
    def twice(table: pa.Table) -> pa.Table:
        return table.take(pa.array(sorted([*range(table.num_rows), 7])))

    forge(host.layout, key_of(host, "agg_trade"), twice)
    assert any(detail.endswith("rows have the key of another row") for _, detail in details(host))


def test_a_row_of_another_period_is_found(host: Host) -> None:
    forge(host.layout, key_of(host, "agg_trade"), altered("transaction_time", 5, lambda at: at + timedelta(hours=5)))
    assert any("rows of other periods" in detail for _, detail in details(host))


def test_a_level_of_another_size_is_found_by_the_audit(host: Host) -> None:
    forge(host.layout, key_of(host, "depth_diff"), altered("bid_sizes", 100, lambda sizes: [sizes[0] + 1]))
    found = details(host)
    assert {kind for kind, _ in found} == {"audit"}
    assert "different 0 then, 1 now" in found[0][1]


def test_a_snapshot_with_another_size_is_found_by_the_audit(host: Host) -> None:
    forge(host.layout, key_of(host, "depth_snapshot"), altered("ask_sizes", 3, lambda sizes: [9.0, *sizes[1:]]))
    assert {kind for kind, _ in details(host)} == {"audit"}


@pytest.mark.parametrize("column", ["", "matched", "state_hash"])
def test_an_audit_that_was_made_to_look_better_is_found(host: Host, column: str) -> None:
    other = {"matched": lambda count: count + 1, "state_hash": lambda _: "0" * 64}
    forge(host.layout, key_of(host, "book_audit"), altered(column, 2, other[column]) if column else without(2))
    assert {kind for kind, _ in details(host)} == {"audit"}


def test_a_gap_that_was_taken_out_of_the_ledger_is_found(host: Host) -> None:
    forge(host.layout, key_of(host, "gaps"), without(0))
    assert ("continuity", "BTCUSDT: undeclared gap from 5000 to 5050") in details(host)


def test_rows_made_up_to_fill_a_declared_gap_are_found(host: Host) -> None:
    def filled(table: pa.Table) -> pa.Table:
        ids = table.column("final_update_id").to_pylist()
        if 5050 + 10 not in ids:
            return table
        place = ids.index(5060)
        row = table.slice(place, 1).to_pylist()[0] | {"prev_final_update_id": 5000, "first_update_id": 5001}
        made = pa.Table.from_pylist([row | {"final_update_id": 5050}], table.schema)
        table = altered("prev_final_update_id", place, lambda _: 5050)(table)
        return pa.concat_tables([table.slice(0, place), made, table.slice(place)]).combine_chunks()

    forge(host.layout, key_of(host, "depth_diff"), filled)
    assert ("continuity", "BTCUSDT: a gap is declared from 5000 to 5050, and the rows have none") in details(host)


def test_a_range_in_the_manifest_that_hides_rows_from_queries_is_found(host: Host) -> None:
    key = key_of(host, "agg_trade")

    def narrowed(entry: Entry) -> Entry:
        def file(one: ArchiveFile) -> ArchiveFile:
            spans = {name: msgspec.structs.replace(span, last_us=span.first_us) for name, span in one.symbols.items()}
            return msgspec.structs.replace(one, symbols=spans) if one.path == key else one

        return msgspec.structs.replace(entry, add=[file(one) for one in entry.add])

    rewrite(host.layout, narrowed)
    assert any("outside the range" in detail for _, detail in details(host))


def test_a_symbol_taken_out_with_all_its_rows_is_missed(host: Host) -> None:
    key = key_of(host, "agg_trade")
    rewrite(
        host.layout,
        lambda entry: msgspec.structs.replace(
            entry,
            add=[file for file in entry.add if file.path != key],
            remove=[path for path in entry.remove if path != key],
        ),
    )
    host.layout.archived(key).unlink()
    found = details(host)
    assert any("`coverage` counts 59" in detail for _, detail in found)
    assert any("that its chain ends with are not there" in detail for _, detail in found)


def test_what_only_the_store_has_is_counted_and_not_called_right(host: Host) -> None:
    keys = [key_of(host, name) for name in ("depth_snapshot", "gaps")]
    for key in keys:
        host.layout.archived(key).unlink()
    log.change_evicted(host.layout, add=keys)
    log.write_derived(host.layout, None, log.load_all(host.layout), log.evicted(host.layout))
    result = verify(host.layout, deep=True)
    assert (result.findings, result.unread) == ([], 2)


def test_late_rows_of_a_day_that_was_rolled_up_leave_its_audit_whole(
    originals: dict[str, Path], tmp_path: Path
) -> None:
    """Rows that fill the gap make the comparison across it possible, and leave all others."""
    shutil.copytree(originals["day"], tmp_path / "data")
    host = Host(tmp_path / "data")
    before = audits(host)
    market = Market()
    diffs, _ = record(market, HOUR)
    host.seal(
        "b", {}, period=SECOND.next(), late={HOUR: {"depth_diff": [row | {"instance": "b"} for row in diffs[400:405]]}}
    )
    archive(host)
    after = audits(host)
    assert len(after) == len(before)
    assert sum(row["gap_crossed"] for row in before) == 1
    assert not any(row["gap_crossed"] or row["different"] or row["missing"] or row["extra"] for row in after)
    assert details(host) == []
    rollup_with(host.layout, host.config, None, FUTURES, DAY)
    assert audits(host) == after
    assert details(host) == []


def audits(host: Host) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    files = log.load_all(host.layout).files
    paths = [host.layout.archived(path) for path, file in sorted(files.items()) if file.table == "book_audit"]
    rows: list[dict[str, Any]] = pa.concat_tables([pq.read_table(path) for path in paths]).to_pylist()
    return rows


def test_a_column_that_is_gone_is_named(host: Host) -> None:
    """A forger who is careless about the schema must not stop the look at the rest."""
    key = key_of(host, "agg_trade")
    import pyarrow.parquet as pq

    from depthvault.archive.encoding import logical_sha256
    from depthvault.durable import sha256_file

    path = host.layout.archived(key)
    table = pq.read_table(path).drop_columns(["agg_trade_id"])
    pq.write_table(table, path)

    def changed(entry: Entry) -> Entry:
        def file(one: ArchiveFile) -> ArchiveFile:
            if one.path != key:
                return one
            return msgspec.structs.replace(
                one, sha256=sha256_file(path), bytes=path.stat().st_size, logical_sha256=logical_sha256(table)
            )

        return msgspec.structs.replace(entry, add=[file(one) for one in entry.add])

    rewrite(host.layout, changed)
    assert any("agg_trade_id" in detail for kind, detail in details(host) if kind == "corrupt")
    assert pc.sum(table.column("quantity")).as_py() > 0
