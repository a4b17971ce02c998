"""A disk that is really full: recording stops loudly, waits in memory, and goes on when there is room."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.alerting import Listener
from depthvault.alerts import Alert, Grouper, Message, Sender, Spool, SpoolReader
from depthvault.book.sync import State
from depthvault.clock import ManualClock
from depthvault.config import environment_config
from simulator.testing import running
from tests.collectors.session import (
    caught_up,
    collecting,
    configuration,
    events,
    frames,
    journal_rows,
    simulated,
    subscribed,
    ticking,
    truth_of,
    until,
)

BALLAST = "ballast"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=12m", "none", str(folder)]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here (needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with (disk / BALLAST).open("wb", buffering=0) as ballast:
        for size in (1 << 16, 1):
            try:
                while ballast.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def told(disk: Path) -> list[str]:
    return [
        json.loads(line)["kind"]
        for path in sorted((disk / "run" / "alerts").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


async def test_recording_outlives_a_full_disk_and_loses_nothing(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.persistence._RETRY", 0.05)
    monkeypatch.setattr("collectors.books.FIRST_EVENT_WAIT_NS", 1 << 62)
    venue = "binance_futures"
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, venue, disk, instrument_interval="200ms")
        async with collecting(config, venue) as collector:
            await subscribed(collector)
            async with ticking(sim):
                counters = collector.recorder.counters
                await until(lambda: collector.books.states()[State.LIVE] == 3, "all books are live")
                fill(disk)
                await until(lambda: counters.flush_errors >= 5, "the disk refuses")
                assert "the disk is full" in str(collector.journal.failure)
                sim.control.fault(venue, "drop", stream="btcusdt@depth@100ms")
                await until(lambda: counters.gaps == 1, "a book breaks meanwhile")
                seen = counters.frames
                await until(lambda: counters.frames > seen + 200, "frames come, and the catalogue is due")
                (disk / BALLAST).unlink()
                await until(lambda: collector.journal.failure is None, "the disk takes again")
                await until(lambda: collector.books.states()[State.LIVE] == 3, "the book is whole again")
                await until(lambda: "flush" in told(disk), "people are told of both")
            await caught_up(collector, sim)
            streams = list(collector.recorder.states)
        rows = journal_rows(disk, venue)
        assert [row.sequence for row in rows] == list(range(len(rows)))
        for stream in streams:
            missing = len(truth_of(sim, venue, stream)) - len(frames(rows, stream))
            assert missing == (1 if stream == "btcusdt@depth@100ms" else 0), "what the simulator dropped, and no more"
        begun, ended = events(rows, "flush")
        assert "the disk is full" in begun["refused"]
        assert ended["refused_s"] > 0
        assert [kind for kind in told(disk) if kind in ("disk_full", "flush")] == ["disk_full", "flush"]


def test_an_alert_that_does_not_fit_is_raised_whole_later(disk: Path) -> None:
    spool, reader = Spool(disk / "alerts", "binance_spot-a"), SpoolReader(disk / "alerts")
    alerts = [Alert(number, "gap", "binance_spot a", "x" * 3000, str(number)) for number in range(40)]
    spool.raise_alert(alerts[0])
    fill(disk)
    raised = 1
    with pytest.raises(OSError, match="No space left"):
        for alert in alerts[1:]:
            spool.raise_alert(alert)
            raised += 1
    read = reader.read()
    reader.done()  # it cannot be written down how far, but is known
    assert reader.read() == []
    (disk / BALLAST).unlink()
    for alert in alerts[raised:]:
        spool.raise_alert(alert)
    read += reader.read()
    reader.done()
    assert read == alerts


class Kept(Sender):
    name = "kept"

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message, html: str | None = None) -> None:
        self.sent.append(message)


def test_the_listener_tells_of_a_disk_on_which_nobody_can_raise_an_alert(disk: Path) -> None:
    clock, sender = ManualClock(), Kept()
    config = environment_config(data_dir=disk)
    listener = Listener(config, [sender], clock, lambda program: None, SpoolReader(disk / "alerts"), Grouper(60, 10))
    Spool(disk / "alerts", "x").raise_alert(Alert(clock.wall_ns(), "banned", "binance_spot a", "banned until noon"))
    fill(disk)
    for _ in range(3):
        listener.on_occasion()
        clock.advance(2)
    assert [message.title for message in sender.sent] == ["supervisor: disk_full", "binance_spot a: banned"]
    assert "the disk is full" in sender.sent[0].body
    (disk / BALLAST).unlink()
    listener.on_occasion()
    fill(disk)
    listener.on_occasion()
    assert len(sender.sent) == 3, "full again"
