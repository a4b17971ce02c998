"""After a decoder was mended, kept journals give the period anew, and what changed is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from depthvault.archive import log
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.archive.rederive import Change, rederive
from depthvault.archive.staging import Unit
from depthvault.clock import ManualClock, ns_from_datetime
from depthvault.config import Config
from depthvault.exchanges import exchange
from depthvault.exchanges.base import Decoded, Frames
from depthvault.exchanges.binance import Binance
from depthvault.journal import JournalWriter
from depthvault.period import Period
from depthvault.seal import seal

MINUTE = Period(datetime(2026, 11, 20, 10, 3, tzinfo=UTC), timedelta(minutes=1))
FUTURES = "binance_futures"


def record(config: Config, writer: str, late: timedelta = timedelta(0)) -> None:
    """Book events of one minute as the venue sends them, received `late` by the writer's clock."""
    start = ns_from_datetime(MINUTE.start)
    clock = ManualClock(start)
    with JournalWriter(config.layout, FUTURES, writer, clock=clock) as journal:
        for number in range(1, 50):
            clock.wall = start + number * 1_000_000_000
            sent = clock.wall // 1_000_000
            clock.wall += late // timedelta(microseconds=1) * 1_000
            data = {
                "e": "depthUpdate", "E": sent, "T": sent, "s": "BTCUSDT", "U": number * 10 + 1, "u": number * 10 + 10,
                "pu": number * 10, "b": [["100.10", f"{number}.5"]], "a": [],
            }  # fmt: skip
            body = json.dumps({"stream": "btcusdt@depth@100ms", "data": data}, separators=(",", ":"))
            journal.append("frame", 1, "btcusdt@depth@100ms", body.encode())


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.model_validate({"data_dir": tmp_path, "archive": {"period": "1m", "seal_grace": "2s"}})


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that loses the last event and doubles a size."""
    right = Binance.decode

    def wrong(self: Binance, channel: str, frames: Frames, instance: str) -> Decoded:
        decoded = right(self, channel, frames, instance)
        if channel != "depth_diff":
            return decoded
        rows = decoded.rows.slice(0, max(0, decoded.rows.num_rows - 1))
        sizes = [[size * 2 if size == 7.5 else size for size in row] for row in rows.column("bid_sizes").to_pylist()]
        place = rows.schema.get_field_index("bid_sizes")
        rows = rows.set_column(place, rows.schema.field(place), pa.array(sizes, rows.schema.field(place).type))
        return Decoded(rows, decoded.index.slice(0, rows.num_rows), decoded.rejected, decoded.inexact)

    monkeypatch.setattr(Binance, "decode", wrong)


def seal_all(config: Config, writers: str) -> None:
    venue = exchange(FUTURES, config.exchanges.binance_futures)
    for writer in writers:
        assert seal(config.layout, venue, writer, MINUTE, grace=config.archive.seal_grace) is not None


def archived(config: Config) -> pa.Table:
    state = log.load(config.layout)
    files = state.files_of(("hour", FUTURES, "depth_diff", MINUTE.label))
    (path,) = [file.path for file in files if file.table == "depth_diff"]
    return pq.read_table(config.layout.archived(path))


def publish(config: Config) -> None:
    publish_with(config.layout, None, Unit(FUTURES, MINUTE))


@pytest.mark.parametrize("writers", ["a", "ab"])
@pytest.mark.parametrize("gone", [False, True], ids=["all here", "the other writer's file is gone"])
def test_a_mended_decoder_mends_the_archive_and_says_what_changed(
    config: Config, monkeypatch: pytest.MonkeyPatch, writers: str, gone: bool
) -> None:
    for writer in writers:
        record(config, writer)
    with monkeypatch.context() as patched:
        broken(patched)
        seal_all(config, writers)
        compact(config.layout, config, FUTURES, MINUTE)
        publish(config)
    assert archived(config).num_rows == 48
    if gone and writers == "ab":
        for path in [*config.layout.live.rglob("*-b.parquet"), *config.layout.journals.rglob("b/*.journal")]:
            path.unlink()
    result = rederive(config.layout, config, FUTURES, MINUTE)
    assert result.changes == [Change("depth_diff", 48, 49, 1, 2)]
    assert list(result.kept) == (["b"] if gone and writers == "ab" else [])
    publish(config)
    table = archived(config)
    assert table.num_rows == 49
    assert pc.list_flatten(table.column("bid_sizes")).to_pylist() == [number + 0.5 for number in range(1, 50)]
    entry = log.load(config.layout).entry("hour", FUTURES, "depth_diff", MINUTE.label)
    assert entry is not None
    assert entry.generation == 2
    assert ready_units(config.layout, config) == []


def test_stragglers_that_another_period_received_are_decoded_anew_too(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer's clock lets all of the minute arrive two minutes late: its rows stand in that receipt."""
    received = MINUTE.next().next()
    record(config, "a", late=timedelta(minutes=2))
    venue = exchange(FUTURES, config.exchanges.binance_futures)
    with monkeypatch.context() as patched:
        broken(patched)
        for period in (MINUTE, received):
            assert seal(config.layout, venue, "a", period, grace=config.archive.seal_grace) is not None
        while units := ready_units(config.layout, config):
            compact(config.layout, config, FUTURES, units[0].period)
            publish_with(config.layout, None, units[0])
    assert archived(config).num_rows == 48
    result = rederive(config.layout, config, FUTURES, MINUTE)
    assert result.changes == [Change("depth_diff", 48, 49, 1, 2)]
    assert (result.kept, result.others) == ({}, [Unit(FUTURES, received)])
    publish(config)
    assert archived(config).num_rows == 49
    assert [unit.period for unit in ready_units(config.layout, config)] == [received], "its receipt has changed"


def test_without_a_difference_nothing_changes(config: Config) -> None:
    record(config, "a")
    seal_all(config, "a")
    compact(config.layout, config, FUTURES, MINUTE)
    publish(config)
    result = rederive(config.layout, config, FUTURES, MINUTE)
    assert (result.changes, result.compacted.drafts) == ([], [])
