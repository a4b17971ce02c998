from __future__ import annotations

import asyncio
import json
import logging
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest

from collectors.counters import Counters
from collectors.persistence import Persistence
from depthvault.clock import SystemClock
from depthvault.config import Config, JournalConfig
from depthvault.errors import JournalError
from depthvault.journal import JournalWriter, read_rows
from depthvault.journal.file import JournalFile
from depthvault.journal.rows import Row
from depthvault.layout import Layout
from simulator.testing import running
from tests.collectors.session import collecting, configuration, events, journal_rows, simulated, ticking, until

HOUR_NS = 3_600_000_000_000


class ShiftedClock(SystemClock):
    """This host's clock, set ahead by `shift_ns`."""

    shift_ns = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.shift_ns


async def test_disk_that_refuses_is_loud_and_recording_resumes_when_it_takes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("collectors.persistence._RETRY", 0.05)
    config = JournalConfig.model_validate({"flush_interval": "20ms", "min_free": 0})
    journal = JournalWriter(Layout(tmp_path), "binance_spot", "a", config=config)
    real = JournalWriter.flush
    refusing = True

    def flush(self: JournalWriter) -> int:
        if refusing:
            raise JournalError("the disk is full")
        return real(self)

    monkeypatch.setattr(JournalWriter, "flush", flush)
    counters = Counters()
    with caplog.at_level(logging.WARNING):
        task = asyncio.create_task(Persistence(journal, counters, lambda: None).run())
        for number in range(50):
            journal.append("frame", 1, "btcusdt@trade", b"%d" % number)
        await until(lambda: counters.flush_errors >= 3, "the disk is asked again and again")
        assert [each.message for each in caplog.records if each.levelno == logging.CRITICAL] == [
            "NOTHING IS BEING RECORDED TO DISK: the disk is full"
        ], "said once, not at each try"
        refusing = False
        await until(lambda: journal.buffered_rows == 0, "the waiting rows are written")
        assert "recording goes on" in caplog.text
        task.cancel()
    journal.close()
    bodies = [row.body for row in read_rows(journal.path) if row.kind == "frame"]
    assert bodies == [b"%d" % number for number in range(50)]


def with_min_free(config: Config, size: int) -> Config:
    return config.model_copy(update={"journal": config.journal.model_copy(update={"min_free": size})})


async def test_a_refusing_disk_is_recorded_beside_the_data_and_told_to_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.persistence._RETRY", 0.05)
    venue, data = "binance_spot", tmp_path / "data"
    free = 1 << 40
    monkeypatch.setattr(JournalFile, "free_bytes", lambda self: free)
    async with (
        running(simulated(tmp_path)) as sim,
        collecting(with_min_free(configuration(sim, venue, data), 1 << 30), venue) as collector,
        ticking(sim),
    ):
        counters = collector.recorder.counters
        await until(lambda: counters.frames > 50, "frames come")
        free = 1 << 20
        await until(lambda: counters.flush_errors >= 3, "the disk refuses")
        async with aiohttp.ClientSession() as session:
            answer = await session.get(f"http://127.0.0.1:{collector.port}/healthz")
            assert answer.status == 503
        free = 1 << 40
        await until(lambda: collector.journal.failure is None and not collector.journal.buffered_rows, "all is written")
    rows = journal_rows(data, venue)
    begun, ended = events(rows, "flush")
    assert "1048576 bytes free, below journal.min_free" in begun["refused"]
    assert ended["refused_s"] > 0
    told = [json.loads(line) for path in (data / "run" / "alerts").glob("*.jsonl") for line in path.open()]
    assert [each["kind"] for each in told if each["kind"] in ("disk_full", "flush")] == ["disk_full", "flush"]


async def test_frames_are_in_the_file_within_the_flush_interval(tmp_path: Path) -> None:
    config = JournalConfig.model_validate({"flush_interval": "100ms", "min_free": 0})
    journal = JournalWriter(Layout(tmp_path), "binance_spot", "a", config=config)
    task = asyncio.create_task(Persistence(journal, Counters(), lambda: None).run())
    loop = asyncio.get_running_loop()
    waits = []
    for number in range(20):
        await asyncio.sleep(0.007 * (number % 5))
        journal.append("frame", 1, "btcusdt@trade", b"x")
        appended = loop.time()
        while journal.buffered_rows:
            await asyncio.sleep(0.002)
        waits.append(loop.time() - appended)
    task.cancel()
    journal.close()
    assert sorted(waits)[-2] < 0.15, waits  # one may meet a busy machine


async def test_new_file_says_again_which_connections_are_open_and_what_is_listed(tmp_path: Path) -> None:
    venue, data = "binance_futures", tmp_path / "data"
    clock = ShiftedClock()
    async with (
        running(simulated(tmp_path)) as sim,
        collecting(configuration(sim, venue, data), venue, clock=clock) as collector,
        ticking(sim),
    ):
        await until(lambda: collector.books.states()["live"] == 3, "all books are live")
        carried = {c.number: sorted(c.subscribed) for slot in collector.feed.slots for c in slot.connections}
        clock.shift_ns = HOUR_NS
        await until(lambda: collector.recorder.counters.rotations == 1, "the journal goes on in a new file")
        seen = collector.recorder.counters.frames
        await until(lambda: collector.recorder.counters.frames > seen + 50, "and so does the data")
    first, second = (list(read_rows(path)) for path in Layout(data).journal_files(venue, "a"))
    assert json.loads(first[-1].body)["reason"] == "rotate"
    opened = {row.connection: json.loads(row.body) for row in second if row.kind == "opened"}
    assert {number: body["streams"] for number, body in opened.items()} == carried
    assert all(body["continues"] for body in opened.values())

    def chain(rows: list[Row]) -> list[tuple[int, int]]:
        heads = [json.loads(row.body)["data"] for row in rows if row.stream == "btcusdt@depth@100ms"]
        return [(head["pu"], head["u"]) for head in heads]

    links = chain(first) + chain(second)
    assert all(after[0] == before[1] for before, after in pairwise(links)), "no event fell between"
    assert [row.kind for row in second if row.kind == "catalogue"] == ["catalogue"]
