"""An event finds its period by its own time; sealing is a pure function of the journals."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from depthvault.errors import ArchiveError, CorruptError
from depthvault.exchanges.base import Exchange
from depthvault.period import Period
from depthvault.seal import Sealer, live, read_receipt, receipts, seal, seal_all, seal_due, unsealed
from depthvault.seal import decoding as seal_decoding
from tests.depthvault.seal.conftest import GRACE, HOUR, Tape, at, put_trades, ticker, trade

BEFORE, AFTER = HOUR.previous(), HOUR.next()


def test_an_event_belongs_to_the_hour_of_its_own_time(tape: Tape) -> None:
    with tape.begin("11:59:00") as writer:
        put_trades(
            writer,
            (1, "11:59:59.999", "12:00:00.100"),  # the venue's time says the hour before
            (2, "12:00:00", "12:00:00.150"),
            (3, "12:59:59.999", "13:00:01"),
        )
        put_trades(writer, (4, "13:00:00", "12:59:59"))  # our clock is behind the venue's
    for period in (BEFORE, HOUR, AFTER):
        tape.seal(period)
    assert tape.ids(BEFORE) == [1]
    assert tape.ids(HOUR) == [2, 3]
    assert tape.ids(AFTER) == [4]


def test_the_grace_ends_exactly_where_it_says(tape: Tape) -> None:
    with tape.begin("11:00:00") as writer:
        put_trades(
            writer,
            (1, "12:59:59", "13:00:59.999999"),  # the last moment of the grace
            (2, "12:59:59", "13:01:00"),  # a moment later: late
            (3, "12:00:01", "11:59:00"),  # the first moment of the grace before
            (4, "12:00:01", "11:58:59.999999"),  # a moment earlier
        )
    for period in (BEFORE, HOUR, AFTER):
        tape.seal(period)
    assert tape.ids(HOUR) == [1, 3]
    assert tape.ids(HOUR, late=AFTER) == [2]
    assert tape.ids(HOUR, late=BEFORE) == [4]
    receipt = tape.seal(AFTER)
    [late] = [file for file in receipt.files if file.channel == "trade"]
    assert (late.period, late.late, late.rows) == (HOUR.label, AFTER.label, 1)


def test_channels_without_venue_time_go_by_their_receipt(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        for number, moment in enumerate(("12:59:59.999999", "13:00:00"), 1):
            writer.append("frame", 1, "btcusdt@bookTicker", ticker(number), at(moment))
    tape.seal(HOUR)
    tape.seal(AFTER)
    assert tape.rows("book_ticker", HOUR).column("update_id").to_pylist() == [1]
    assert tape.rows("book_ticker", AFTER).column("update_id").to_pylist() == [2]


@pytest.mark.parametrize("seed", range(3))
def test_every_event_is_in_exactly_one_unit_whatever_its_times(tape: Tape, seed: int) -> None:
    chance = random.Random(seed)
    with tape.begin("10:30:00") as writer:
        for number in range(3000):
            received = at("11:00:00") + chance.randrange(3 * 3600) * 10**9
            event = received - round(chance.choice((0, 1, 30, 61, 3599, 9000)) * chance.uniform(-0.1, 1) * 1e9)
            ms = event // 1_000_000
            body = trade(number, "12:00:00").replace(str(at("12:00:00") // 1_000_000).encode(), str(ms).encode())
            writer.append("frame", 1, "btcusdt@trade", body, received, 0)
    found: list[int] = []
    for receipt in seal_all(tape.layout, tape.config, {"binance_spot": tape.venue}, now=AFTER.next().end + GRACE * 3):
        for file in receipt.files:
            if file.channel == "trade":
                rows = pq.ParquetFile(tape.layout.root / file.path).read()
                found += rows.column("trade_id").to_pylist()
                assert {tape.layout.period_of(time).label for time in rows.column("transaction_time").to_pylist()} == {
                    file.period
                }
    assert sorted(found) == list(range(3000))


def test_the_same_journals_give_the_same_bytes_and_a_second_run_does_nothing(tape: Tape) -> None:
    with tape.begin("11:59:30") as writer:
        put_trades(writer, *((number, "12:10:00", "12:10:01") for number in range(1, 9)))
    first = tape.seal()
    files = tape.everything()
    stamps = {path: (tape.layout.root / path).stat().st_mtime_ns for path in files}
    assert tape.seal() == first
    assert {path: (tape.layout.root / path).stat().st_mtime_ns for path in files} == stamps
    again = seal(tape.layout, tape.venue, "a", HOUR, grace=GRACE, force=True)
    assert (again, tape.everything()) == (first, files)
    for path in files:
        (tape.layout.root / path).unlink()
    tape.seal()
    assert tape.everything() == files


def test_what_a_growing_journal_gets_later_does_not_change_a_sealed_hour(tape: Tape) -> None:
    writer = tape.begin("12:50:00")
    put_trades(writer, (1, "12:59:00", "12:59:00"))
    writer.flush()
    put_trades(writer, (2, "13:01:00", "13:01:00"))
    writer.flush()
    first = tape.seal()
    before = tape.everything()
    put_trades(writer, *((number, "13:30:00", "13:30:00") for number in range(3, 50)))
    tape.clock.wall = at("13:31:00")
    writer.close()
    assert tape.seal() == first
    assert seal(tape.layout, tape.venue, "a", HOUR, grace=GRACE, force=True) == first
    assert tape.everything() == before


def test_rows_of_a_clock_that_stepped_back_are_sealed_anew(tape: Tape) -> None:
    writer = tape.begin("12:50:00")
    put_trades(writer, (1, "12:59:00", "12:59:00"), (2, "13:02:00", "13:02:00"))
    writer.flush()
    assert tape.seal().rows == 2
    put_trades(writer, (3, "13:02:01", "12:58:00"))  # the clock was set back: by its receipt this is late in the hour
    writer.close()
    receipt = tape.seal()
    assert tape.ids(AFTER, late=HOUR) == [3]
    assert [file.rows for file in receipt.files if file.late] == [1]


def test_a_recovered_journal_is_sealed_anew_and_nothing_is_sealed_from_less(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        put_trades(writer, (1, "12:10:01", "12:10:01"))
    tape.seal()
    with tape.begin("12:20:00") as other:
        put_trades(other, (2, "12:20:01", "12:20:01"))
    tape.seal()
    assert tape.ids() == [1, 2]
    writer.path.unlink()  # the cleanup, after a week
    assert tape.seal() == read_receipt(tape.layout.receipt("binance_spot", HOUR, "a"))
    assert tape.ids() == [1, 2]
    with tape.begin("12:30:00") as late:
        put_trades(late, (3, "12:30:01", "12:30:01"))
    with pytest.raises(ArchiveError, match=writer.path.name):
        tape.seal()
    assert tape.ids() == [1, 2]


def test_the_running_hour_is_sealed_as_incomplete_and_later_for_good(tape: Tape) -> None:
    writer = tape.begin("12:10:00")
    put_trades(writer, (1, "12:10:01", "12:10:01"))
    writer.flush()
    venues = {"binance_spot": tape.venue}
    [receipt] = seal_all(tape.layout, tape.config, venues, now=HOUR.start + GRACE)
    assert not receipt.complete
    put_trades(writer, (2, "12:10:02", "12:10:02"))
    writer.close()
    [receipt] = seal_all(tape.layout, tape.config, venues, now=HOUR.end + GRACE)
    assert receipt.complete
    assert tape.ids() == [1, 2]
    assert seal_all(tape.layout, tape.config, venues, now=HOUR.end + GRACE) == []
    assert list(receipts(tape.layout, "binance_spot")) == [receipt]


def test_a_live_writers_hour_is_due_when_it_has_shown_a_later_row(tape: Tape) -> None:
    def due(after_grace: float) -> list[Period]:
        now = HOUR.end + GRACE * (1 + after_grace)
        return [period for _, _, period in seal_due(tape.layout, tape.config, ["binance_spot"], now)]

    writer = tape.begin("12:59:00")
    put_trades(writer, (1, "12:59:30", "12:59:30"))
    writer.flush()
    assert due(-0.01) == []
    assert due(0.0) == []
    put_trades(writer, (2, "13:00:59", "13:00:59"))
    writer.flush()
    assert due(0.5) == []
    put_trades(writer, (3, "13:01:00", "13:01:00"))
    writer.flush()
    assert due(0.0) == [HOUR]
    writer.close()


def test_a_quiet_live_writers_hour_is_due_after_a_while(tape: Tape) -> None:
    writer = tape.begin("12:59:00")
    writer.flush()
    names = ["binance_spot"]
    assert seal_due(tape.layout, tape.config, names, HOUR.end + GRACE) == []
    assert seal_due(tape.layout, tape.config, names, HOUR.end + GRACE * 2) == [("binance_spot", "a", HOUR)]
    writer.close()


def test_an_hour_waits_for_each_fetcher_that_may_still_have_rows_of_it(tape: Tape) -> None:
    def due() -> bool:
        return bool(seal_due(tape.layout, tape.config, ["binance_spot"], HOUR.end + GRACE))

    one = tape.begin("12:59:00", "rest-host", exclusive=False)
    other = tape.begin("12:59:01", "rest-host", exclusive=False)
    for writer, moment in ((one, "13:02:00"), (other, "13:00:30")):
        writer.append("event", 0, "clock", b"{}", at(moment))
        writer.flush()
    assert not due()
    tape.clock.wall = at("13:00:40")
    other.close()
    assert due()
    one.close()


def test_an_answer_after_the_grace_does_not_reopen_the_hour_of_its_request(tape: Tape) -> None:
    writer = tape.begin("12:59:00", "rest-host", exclusive=False)
    writer.append("event", 0, "clock", b"{}", at("13:01:00"))
    writer.flush()
    first = tape.seal(writer="rest-host")
    line = "GET /api/v3/depth?symbol=BTCUSDT&limit=5"
    writer.append_rest(line, b'{"lastUpdateId":1,"bids":[],"asks":[]}', at("13:00:59.9"), at("13:01:00.1"))
    tape.clock.wall = at("13:02:00")
    writer.close()
    sealer = Sealer(tape.layout, GRACE)
    assert sealer.due(["binance_spot"], HOUR.end + GRACE) == []
    assert tape.seal(writer="rest-host") == first


def test_what_a_dead_writer_left_is_due_at_once(tape: Tape) -> None:
    writer = tape.begin("12:10:00")
    put_trades(writer, (1, "12:10:01", "12:10:01"))
    writer.close()
    sealer = Sealer(tape.layout, GRACE)
    [unit] = sealer.due(["binance_spot"], HOUR.end + GRACE)
    assert unit == ("binance_spot", "a", HOUR)
    assert sealer.seal(tape.venue, "a", HOUR) is not None
    assert sealer.due(["binance_spot"], HOUR.end + GRACE) == []


def test_an_hour_that_only_its_neighbours_grace_touches_gets_no_receipt(tape: Tape) -> None:
    with tape.begin("13:00:10") as writer:
        put_trades(writer, (1, "13:00:11", "13:00:11"))
    sealer = Sealer(tape.layout, GRACE)
    now = AFTER.end + GRACE
    assert [period for _, _, period in sealer.due(["binance_spot"], now)] == [HOUR, AFTER]
    assert sealer.seal(tape.venue, "a", HOUR) is None
    assert sealer.due(["binance_spot"], now) == [("binance_spot", "a", AFTER)]
    assert not tape.layout.receipt("binance_spot", HOUR, "a").exists()


def test_a_seal_in_small_steps_gives_the_same_rows_in_received_order(
    tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tape.begin("12:00:00") as writer:
        for number in range(1, 3000):
            writer.append("frame", 1, "btcusdt@trade", trade(number, "12:20:00"), at("12:20:00") + number)
            if number % 50 == 0:
                writer.flush()
    tape.seal()
    whole = tape.rows("trade")
    monkeypatch.setattr(seal_decoding, "CHUNK_BYTES", 20_000)
    monkeypatch.setattr(live, "ROW_GROUP_BYTES", 30_000)
    seal(tape.layout, tape.venue, "a", HOUR, grace=GRACE, force=True)
    path = tape.layout.live_file("binance_spot", "trade", HOUR, "a")
    assert pq.ParquetFile(path).num_row_groups > 5
    assert tape.rows("trade").equals(whole)
    assert tape.ids() == list(range(1, 3000))


def test_live_files_say_what_they_are(tape: Tape) -> None:
    with tape.begin("12:00:00") as writer:
        put_trades(writer, (1, "12:10:01", "12:10:01"))
    receipt = tape.seal()
    [file] = [file for file in receipt.files if file.channel == "trade"]
    metadata = pq.ParquetFile(tape.layout.root / file.path).schema_arrow.metadata
    assert metadata[b"depthvault.exchange"] == b"binance_spot"
    assert metadata[b"depthvault.writer"] == b"a"
    assert metadata[b"depthvault.period"] == HOUR.label.encode()
    assert metadata[b"depthvault.schema_version"] == str(receipt.schema_version).encode()
    assert tape.rows("trade").column("instance").to_pylist() == ["a"]


def test_unsealed_rows_are_those_that_sealing_would_write(tape: Tape) -> None:
    with tape.begin("11:59:30") as writer:
        put_trades(writer, (1, "11:59:40", "11:59:40"), (2, "12:00:01", "12:00:01"), (3, "11:59:59", "12:00:02"))
    with tape.begin("12:00:00", "b") as other:
        put_trades(other, (2, "12:00:01", "12:00:03"))
    assert unsealed(tape.layout, tape.venue, "trade").column("trade_id").to_pylist() == [1, 3, 2, 2]
    tape.seal(BEFORE)
    rows = unsealed(tape.layout, tape.venue, "trade")
    assert rows.column("trade_id").to_pylist() == [2, 2]
    tape.seal(HOUR, final=False)
    assert unsealed(tape.layout, tape.venue, "trade").num_rows == 2
    tape.seal(HOUR)
    tape.seal(HOUR, writer="b")
    assert unsealed(tape.layout, tape.venue, "trade").num_rows == 0
    assert unsealed(tape.layout, tape.venue, "kline").num_rows == 0


def test_fetchers_journals_side_by_side_are_one_writers(tape: Tape) -> None:
    one = tape.begin("12:10:00", "rest-host", exclusive=False)
    two = tape.begin("12:10:01", "rest-host", exclusive=False)
    answer = b'{"lastUpdateId":%d,"bids":[["1.0","2.0"]],"asks":[]}'
    line = "GET /api/v3/depth?symbol=BTCUSDT&limit=5"
    for number, writer in enumerate((one, two, one), 1):
        moment = at("12:10:02") + number * 10**9
        writer.append_rest(line, answer % number, moment - 10**6, moment, request=number)
    one.close()
    two.close()
    receipt = tape.seal(writer="rest-host")
    assert len(receipt.journals) == 2
    rows = tape.rows("depth_snapshot", writer="rest-host")
    assert rows.column("last_update_id").to_pylist() == [1, 3, 2]  # journal by journal


def test_what_was_spanned_is_remembered_across_processes(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    from depthvault.seal import spans

    with tape.begin("12:10:00") as writer:
        put_trades(writer, (1, "12:10:01", "12:10:01"))
    expected = spans.SpanIndex(tape.layout, GRACE).periods("binance_spot", "a")
    monkeypatch.setattr(spans.SpanIndex, "_extend", lambda *_: pytest.fail("read again"))
    assert spans.SpanIndex(tape.layout, GRACE).periods("binance_spot", "a") == expected
    cache = next((tape.layout.run / "spans").rglob("*.json"))
    cache.write_bytes(b"{")
    monkeypatch.undo()
    assert spans.SpanIndex(tape.layout, GRACE).periods("binance_spot", "a") == expected


def test_a_receipt_that_is_none_is_said(tmp_path: Path) -> None:
    path = tmp_path / "20260301T1200-a.json"
    path.write_bytes(b'{"exchange":"binance_spot"}')
    with pytest.raises(CorruptError, match=path.name):
        read_receipt(path)


def test_a_seal_that_is_killed_leaves_nothing_that_counts(
    tape: Tape, spot: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tape.begin("12:00:00") as writer:
        put_trades(writer, (1, "12:10:01", "12:10:01"))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("depthvault.seal.sealing.write_receipt", die)
    with pytest.raises(KeyboardInterrupt):
        tape.seal()
    monkeypatch.undo()
    assert list(receipts(tape.layout, "binance_spot")) == []
    folder = tape.layout.live / "exchange=binance_spot/channel=trade/date=2026-03-01"
    assert [path.name for path in folder.iterdir() if path.suffix != ".parquet"] == []
    assert tape.seal().complete
    assert tape.ids() == [1]
