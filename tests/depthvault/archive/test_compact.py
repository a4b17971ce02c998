"""Compaction: each event once, in chain order, from the best writer; gaps and coverage told; same input, same bytes."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from depthvault.archive import log
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.archive.staging import Compacted, Staging, Unit
from depthvault.errors import CorruptError
from depthvault.period import Period
from depthvault.schemas import SCHEMA_VERSION

from .sealed import FUTURES, HOUR, Host, Link, chain, trade_rows


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def run(host: Host, period: Period = HOUR) -> Compacted:
    return compact(host.layout, host.config, FUTURES, period)


def publish(host: Host, period: Period = HOUR) -> list[str]:
    result = publish_with(host.layout, None, Unit(FUTURES, period))
    return [entry.channel for entry in result.entries]


def table(host: Host, name: str, period: Period = HOUR, channel: str = "depth_diff") -> list[dict[str, Any]]:
    """Rows of a current file of the archive."""
    state = log.load(host.layout)
    for file in state.files_of(("hour", FUTURES, channel, period.label)):
        if file.table == name:
            rows: list[dict[str, Any]] = pq.read_table(host.layout.archived(file.path)).to_pylist()
            return rows
    return []


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_events_of_two_writers_are_archived_once_in_order(host: Host) -> None:
    events = chain(50)
    host.seal("a", {"depth_diff": [event.row("a") for event in events if event.final != 200]})
    host.seal("b", {"depth_diff": [event.row("b", 0.02) for event in reversed(events)]})
    compacted = run(host)
    publish(host)
    rows = table(host, "depth_diff")
    assert [row["final_update_id"] for row in rows] == [event.final for event in events]
    assert {row["instance"] for row in rows} == {"b"}, "the writer without a break carries the hour"
    counts = compacted.drafts[0].counts
    assert (counts.rows_in, counts.rows, counts.duplicates, counts.conflicts) == (99, 50, 49, 0)
    gaps = table(host, "gaps")
    assert [(gap["instance"], gap["status"], gap["last_id"], gap["first_id"]) for gap in gaps] == [
        ("a", "bridged", 190, 200)
    ]


def test_where_the_carrier_breaks_another_fills_at_shared_ids(host: Host) -> None:
    events = chain(60)
    a = [event.row("a") for event in events if not 200 < event.final <= 300]
    b = [event.row("b") for event in events if not (400 < event.final <= 450 or 600 < event.final <= 650)]
    host.seal("a", {"depth_diff": a})
    host.seal("b", {"depth_diff": b})
    run(host)
    publish(host)
    rows = table(host, "depth_diff")
    assert [row["final_update_id"] for row in rows] == [event.final for event in events]
    assert {row["final_update_id"] for row in rows if row["instance"] == "b"} == set(range(210, 301, 10))
    assert [gap["status"] for gap in table(host, "gaps")] == ["bridged"] * 3


def test_a_break_of_all_is_one_row_with_ids_times_and_cause(host: Host) -> None:
    events = chain(100)
    links = [Link(end=20.5, cause="crash"), Link(start=30.0, number=2)]
    host.seal("a", {"depth_diff": [event.row("a") for event in events if not 20 < event.at < 31]}, links=links)
    run(host)
    publish(host)
    (gap,) = table(host, "gaps")
    assert (gap["last_id"], gap["first_id"], gap["cause"], gap["status"]) == (300, 400, "crash", "lost")
    assert gap["start_time"] == HOUR.start + timedelta(seconds=20, milliseconds=10)
    assert gap["end_time"] == HOUR.start + timedelta(seconds=31, milliseconds=10)
    (coverage,) = table(host, "coverage")
    assert coverage["gaps"] == 1
    assert coverage["events"] == 90
    assert coverage["covered_seconds"] == pytest.approx(3600 - 9.5)
    assert coverage["share"] == pytest.approx((3600 - 9.5) / 3600)


def test_the_chain_is_checked_across_the_hour(host: Host) -> None:
    host.seal("a", {"depth_diff": [event.row("a") for event in chain(5, start=3590)]})
    run(host)
    publish(host)
    following = HOUR.next()
    host.seal("a", {"depth_diff": [event.row("a", base=following) for event in chain(5, first=170)]}, period=following)
    run(host, following)
    publish(host, following)
    (gap,) = table(host, "gaps", following)
    assert (gap["last_id"], gap["first_id"], gap["status"]) == (150, 170, "lost")
    assert gap["period"] == following.start
    assert table(host, "gaps") == []


def test_the_hour_after_is_judged_anew_when_the_hour_before_comes_late(host: Host) -> None:
    following = HOUR.next()
    host.seal("a", {"depth_diff": [event.row("a", base=following) for event in chain(5, first=170)]}, period=following)
    run(host, following)
    publish(host, following)
    assert table(host, "gaps", following) == []
    host.seal("a", {"depth_diff": [event.row("a") for event in chain(5, start=3590)]})
    assert [unit.period for unit in ready_units(host.layout, host.config, FUTURES)] == [HOUR]
    run(host)
    publish(host)
    assert [unit.period for unit in ready_units(host.layout, host.config, FUTURES)] == [following]
    run(host, following)
    publish(host, following)
    assert [gap["last_id"] for gap in table(host, "gaps", following)] == [150]
    assert ready_units(host.layout, host.config, FUTURES) == []
    state = log.load(host.layout)
    data = [path for path in state.files if path.startswith("hour/")]
    assert len(data) == 2
    assert not any(path.startswith("hour/") for path in state.superseded), "unchanged rows keep their file"


def test_the_same_input_gives_the_same_bytes_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    outcomes = []
    for name in ("one", "two"):
        host = Host(tmp_path / name)
        host.seal("b", {"depth_diff": [event.row("b") for event in chain(40)]})
        host.seal(
            "a", {"depth_diff": [event.row("a") for event in chain(40)], "agg_trade": trade_rows(range(1, 30), "a")}
        )
        run(host)
        staged = snapshot(host.layout.staging)
        run(host)
        assert snapshot(host.layout.staging) == staged
        publish(host)
        done = snapshot(host.layout.archive)
        assert ready_units(host.layout, host.config, FUTURES) == []
        assert run(host).drafts == []
        assert publish(host) == []
        assert snapshot(host.layout.archive) == done
        outcomes.append({path: data for path, data in done.items() if path.endswith(".parquet")})
    assert outcomes[0] == outcomes[1]


def test_a_late_file_makes_a_new_generation_of_the_union(host: Host) -> None:
    events = chain(50)
    host.seal("a", {"depth_diff": [event.row("a") for event in events[:40]]})
    run(host)
    publish(host)
    following = HOUR.next()
    host.seal("a", {}, period=following, late={HOUR: {"depth_diff": [event.row("a") for event in events[35:]]}})
    assert HOUR in [unit.period for unit in ready_units(host.layout, host.config, FUTURES)]
    run(host)
    publish(host)
    assert [row["final_update_id"] for row in table(host, "depth_diff")] == [event.final for event in events]
    state = log.load(host.layout)
    entry = state.entry("hour", FUTURES, "depth_diff", HOUR.label)
    assert entry is not None
    assert entry.generation == 2
    assert entry.remove
    assert host.layout.archived(entry.remove[0]).exists(), "nothing is overwritten or deleted in place"
    assert entry.counts.duplicates == 5


def test_late_rows_join_the_archive_when_the_live_files_are_gone(host: Host) -> None:
    events = chain(50)
    host.seal("a", {"depth_diff": [event.row("a") for event in events[:40]]})
    run(host)
    publish(host)
    for path in host.layout.live.rglob("*.parquet"):
        path.unlink()
    host.seal("b", {"depth_diff": [event.row("b") for event in events[30:]]})
    run(host)
    publish(host)
    assert [row["final_update_id"] for row in table(host, "depth_diff")] == [event.final for event in events]


def test_the_same_key_with_another_payload_is_an_incident_with_both_payloads(host: Host) -> None:
    events = chain(10)
    other = [event.row("b") for event in events]
    other[4]["bid_sizes"] = [7.0, 8.0]
    host.seal("a", {"depth_diff": [event.row("a") for event in events]})
    host.seal("b", {"depth_diff": other})
    draft = run(host).drafts[0]
    assert draft.counts.conflicts == 1
    assert draft.counts.duplicates == 9
    (conflict,) = draft.conflicts
    assert (conflict.kept_instance, conflict.other_instance) == ("a", "b")
    assert json.loads(conflict.kept)["bid_sizes"] == [1.0, 150.0]
    assert json.loads(conflict.other)["bid_sizes"] == [7.0, 8.0]
    publish(host)
    assert [row["bid_sizes"][0] for row in table(host, "depth_diff")] == [1.0] * 10


def test_row_groups_never_span_symbols(tmp_path: Path) -> None:
    host = Host(tmp_path, {"archive": {"row_group_rows": 1024}})
    symbols = ["BTCUSDT", "币安人生USDT", "ETHUSDT"]
    rows = [event.row("a") for symbol in symbols for event in chain(1500, step=0.1, symbol=symbol)]
    host.seal("a", {"depth_diff": sorted(rows, key=lambda row: str(row["received_time"]))})
    draft = run(host).drafts[0]
    file = next(file for file in draft.add if file.table == "depth_diff")
    with pq.ParquetFile(Staging(host.layout, Unit(FUTURES, HOUR)).path(file.path)) as parquet:
        assert parquet.num_row_groups == 6
        for symbol, span in file.symbols.items():
            for group in range(*span.row_groups):
                assert set(parquet.read_row_group(group).column("symbol").to_pylist()) == {symbol}
        assert list(file.symbols) == sorted(symbols)
        assert parquet.schema_arrow.metadata[b"depthvault.schema_version"] == str(SCHEMA_VERSION).encode()
        assert parquet.metadata.metadata[b"depthvault.logical_sha256"].decode() == file.logical_sha256


def test_a_live_file_that_is_not_what_its_receipt_says_is_refused(host: Host) -> None:
    receipt = host.seal("a", {"depth_diff": [event.row("a") for event in chain(5)]})
    path = host.root / receipt.files[0].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError, match=r"10-a\.parquet"):
        run(host)


def test_a_stream_without_ids_that_nobody_listened_to_is_unprovable(host: Host) -> None:
    streams = ("btcusdt@bookTicker", "btcusdt@depth@100ms", "btcusdt@trade")
    links = [Link(end=100.0, cause="closed", streams=streams), Link(start=130.0, number=2, streams=streams)]
    host.seal("a", {"depth_diff": [event.row("a") for event in chain(5)]}, links=links)
    run(host)
    publish(host)
    assert table(host, "gaps") == []
    for channel in ("trade", "book_ticker"):
        (gap,) = table(host, "gaps", channel=channel)
        assert (gap["symbol"], gap["status"], gap["cause"]) == ("BTCUSDT", "unprovable", "disconnect")
        assert gap["end_time"] - gap["start_time"] == timedelta(seconds=30)
        (coverage,) = table(host, "coverage", channel=channel)
        assert coverage["events"] == 0
        assert coverage["covered_seconds"] == pytest.approx(3570)


def test_a_disconnect_that_another_writer_covered_leaves_no_row(host: Host) -> None:
    streams = ("btcusdt@trade",)
    host.seal(
        "a", {}, links=[Link(end=100.0, cause="closed", streams=streams), Link(start=130.0, number=2, streams=streams)]
    )
    host.seal("b", {}, links=[Link(start=90.0, end=140.0, cause="stop", streams=streams)])
    run(host)
    publish(host)
    assert table(host, "gaps", channel="trade") == []


def test_an_outage_over_several_periods_has_the_cause_that_ended_the_last_session(host: Host) -> None:
    """The writer crashed in one hour and came back three hours later."""
    streams, back = ("btcusdt@depth@100ms", "btcusdt@trade"), HOUR.next().next().next()
    host.seal(
        "a", {"depth_diff": [event.row("a") for event in chain(5)]},
        links=[Link(end=100.0, cause="crash", streams=streams)],
    )  # fmt: skip
    run(host)
    publish(host)
    rows = [event.row("a", base=back) for event in chain(5, first=900, start=60.0)]
    host.seal("a", {"depth_diff": rows}, period=back, links=[Link(start=50.0, number=2, streams=streams)])
    run(host, back)
    publish(host, back)
    for channel, status in (("depth_diff", "lost"), ("trade", "unprovable")):
        (gap,) = table(host, "gaps", back, channel)
        assert (gap["status"], gap["cause"]) == (status, "crash"), channel
    assert gap["start_time"] == HOUR.start + timedelta(seconds=100)
    assert gap["end_time"] == back.start + timedelta(seconds=50)


def test_a_hole_among_rows_that_came_late_has_the_cause_of_when_they_came(host: Host) -> None:
    """The venue is behind: the last events of an hour come in the next one, and the writer crashes among them."""
    events, following = chain(60, start=3_540.0), HOUR.next()
    late = [event.row("a", delay=40) for event in (*events[40:45], *events[50:])]
    host.seal("a", {"depth_diff": [event.row("a") for event in events[:40]]})
    host.seal(
        "a", {}, period=following, late={HOUR: {"depth_diff": late}},
        links=[Link(end=25.5, cause="crash", continues=True), Link(start=28.0, number=2)],
    )  # fmt: skip
    run(host)
    publish(host)
    (gap,) = table(host, "gaps")
    assert (gap["status"], gap["cause"]) == ("lost", "crash")


def test_coverage_says_how_many_events_were_to_be_expected(host: Host) -> None:
    period = HOUR
    told = []
    for hour, count in enumerate((300, 300, 20, 300)):
        rows = [event.row("a", base=period) for event in chain(count, first=100 + 4_000 * hour)]
        host.seal("a", {"depth_diff": rows}, period=period)
        run(host, period)
        publish(host, period)
        (row,) = table(host, "coverage", period)
        told.append((row["expected_low"], row["expected_high"], row["usual_events"]))
        period = period.next()
    assert told[0] == (None, None, 300.0)
    low, high, usual = told[1]
    assert (low, high, usual) == (13, 3_175, 300.0)
    assert told[3][2] == pytest.approx(usual + (20 - usual) / 8 * 7 / 8)


def test_many_symbols_are_read_in_batches_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for limit in (1, 1 << 30):
        monkeypatch.setattr("depthvault.archive.rows.BATCH_BYTES", limit)
        monkeypatch.setattr("depthvault.archive.rows.by_symbol.__defaults__", (limit,))
        host = Host(tmp_path / str(limit))
        rows = [event.row("a") for name in ("A", "B", "C", "D") for event in chain(100, symbol=name + "USDT")]
        host.seal("a", {"depth_diff": sorted(rows, key=lambda row: str(row["received_time"]))})
        results.append([file.sha256 for file in run(host).drafts[0].add])
    assert results[0] == results[1]


def timeless_snapshot(period: Period, requested: timedelta, last_update_id: int, writer: str) -> dict[str, object]:
    """A whole book as spot gives it: without a time of the venue's."""
    return {
        "received_time": period.start + requested + timedelta(milliseconds=40), "event_time": None, "symbol": "BTCUSDT",
        "instance": writer, "source": "rest", "transaction_time": None, "request_time": period.start + requested,
        "last_update_id": last_update_id, "limit": 100, "bid_prices": [1.0], "bid_sizes": [1.0], "ask_prices": [2.0],
        "ask_sizes": [1.0],
    }  # fmt: skip


def test_every_snapshot_of_a_book_that_stands_still_is_kept(host: Host) -> None:
    following = HOUR.next()
    for period in (HOUR, following):
        row = timeless_snapshot(period, timedelta(seconds=2), 7, "rest-x")
        host.seal("rest-x", {"depth_snapshot": [row]}, period=period)
        run(host, period)
        publish(host, period)
    kept = [table(host, "depth_snapshot", period, "depth_snapshot") for period in (HOUR, following)]
    assert [[row["request_time"] for row in rows] for rows in kept] == [
        [period.start + timedelta(seconds=2)] for period in (HOUR, following)
    ]


def test_a_row_without_venue_time_that_two_writers_received_in_two_hours_is_kept_once(host: Host) -> None:
    following = HOUR.next()
    ticker = {
        "event_time": None, "symbol": "BTCUSDT", "source": "stream", "transaction_time": None, "update_id": 5,
        "bid_price": 1.0, "bid_size": 1.0, "ask_price": 2.0, "ask_size": 1.0,
    }  # fmt: skip
    early = ticker | {"instance": "a", "received_time": following.start - timedelta(milliseconds=1)}
    late = ticker | {"instance": "b", "received_time": following.start + timedelta(milliseconds=1)}
    host.seal("a", {"book_ticker": [early]})
    run(host)
    publish(host)
    host.seal("b", {"book_ticker": [late, late | {"update_id": 6}]}, period=following)
    run(host, following)
    publish(host, following)
    assert [row["update_id"] for row in table(host, "book_ticker", HOUR, "book_ticker")] == [5]
    assert [row["update_id"] for row in table(host, "book_ticker", following, "book_ticker")] == [6]
