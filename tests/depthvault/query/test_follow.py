"""Following begins in the past and goes on with what comes in: nothing is lost or told twice on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import depthvault
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.clock import ManualClock, SystemClock, ns_from_datetime
from depthvault.config import Config, JournalConfig, Secrets
from depthvault.errors import UsageError
from depthvault.journal import JournalWriter
from depthvault.query import Event, Follow, Gap, Notice, Stream, Vault
from depthvault.query.vault import LiveJournals
from depthvault.seal import seal_pending

VENUE = "binance_spot"
DEPTH, TRADE = f"{VENUE}/depth_diff/BTCUSDT", f"{VENUE}/trade/BTCUSDT"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BRIEF = timedelta(milliseconds=200)
"""What a test waits for something that does not come."""


def at(seconds: float) -> int:
    return ns_from_datetime(NOON + timedelta(seconds=seconds))


def trade(number: int, seconds: float, symbol: str = "BTCUSDT") -> tuple[str, bytes]:
    ms = at(seconds) // 1_000_000
    data = {
        "e": "trade",
        "E": ms,
        "s": symbol,
        "t": number,
        "p": "61837.63",
        "q": "0.25",
        "T": ms,
        "m": True,
        "M": True,
    }
    stream = f"{symbol.lower()}@trade"
    return stream, json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()


def diff(first: int, final: int, seconds: float) -> tuple[str, bytes]:
    data = {
        "e": "depthUpdate", "E": at(seconds) // 1_000_000, "s": "BTCUSDT", "U": first, "u": final,
        "b": [["61837.00", f"{final}.5"]], "a": [],
    }  # fmt: skip
    return "btcusdt@depth@100ms", json.dumps(
        {"stream": "btcusdt@depth@100ms", "data": data}, separators=(",", ":")
    ).encode()


class Desk:
    """A data directory with writers whose clock stands where the test says."""

    def __init__(self, root: Path, secrets: Secrets) -> None:
        self.config = Config(data_dir=root)
        self.clock = ManualClock(at(0))
        self.vault = depthvault.open(root, config=self.config, secrets=secrets)
        self._writers: dict[str, JournalWriter] = {}

    def writer(self, name: str) -> JournalWriter:
        if name not in self._writers:
            self._writers[name] = JournalWriter(
                self.config.layout, VENUE, name, config=JournalConfig(min_free=0), clock=self.clock
            )
        return self._writers[name]

    def receive(self, name: str, *frames: tuple[float, tuple[str, bytes]], flush: bool = True) -> None:
        """`name` receives frames, each at its second past noon."""
        writer = self.writer(name)
        for seconds, (stream, body) in frames:
            writer.append("frame", 1, stream, body, at(seconds))
        if flush:
            writer.flush()

    def follow(self, *streams: str, start: float | None = None, end: float | None = None, timeout: timedelta = BRIEF,
               window: timedelta = timedelta(milliseconds=500)) -> Follow:  # fmt: skip
        moments = (None if each is None else NOON + timedelta(seconds=each) for each in (start, end))
        journals = LiveJournals(self.config.layout, self.config)
        wanted = map(Stream.parse, streams)
        return Follow(self.vault, journals, wanted, *moments, window=window, timeout=timeout, clock=self.clock)

    def archive(self, now: float) -> None:
        """Seal and archive what is due."""
        seal_pending(self.config, now=NOON + timedelta(seconds=now))
        layout = self.config.layout
        while units := ready_units(layout, self.config):
            compact(layout, self.config, units[0].exchange, units[0].period)
            publish_with(layout, None, units[0])

    def close(self, *names: str) -> None:
        for name in names or tuple(self._writers):
            self._writers.pop(name).close("sigterm")


@pytest.fixture
def desk(tmp_path: Path, no_secrets: Secrets) -> Iterator[Desk]:
    (tmp_path / "data").mkdir()
    desk = Desk(tmp_path / "data", no_secrets)
    yield desk
    desk.close()


def said(item: Any) -> str:
    if isinstance(item, Gap):
        return f"gap {item.last_id}..{item.next_id}"
    if isinstance(item, Notice):
        return item.kind
    assert isinstance(item, Event)
    return f"{item.stream.channel} {item['trade_id' if item.stream.channel == 'trade' else 'final_update_id']}"


def words(follow: Follow) -> list[str]:
    """What a follower says until nothing comes, but for starts and stops."""
    return [word for word in map(said, follow) if word not in ("start", "stop")]


def test_the_past_goes_over_into_what_comes_in(desk: Desk) -> None:
    """From the archive through a sealed hour and the running one to rows that are flushed while it is followed."""
    for second in range(-3600, 3, 600):
        desk.clock.wall = at(second)
        desk.writer("a").rotate_if_due()
        number = second + 10_000
        desk.receive("a", (second, trade(number, second)), (second, diff(number - 599, number, second)))
    desk.clock.wall = at(70)
    desk.receive("a", (70, trade(10_070, 70)))
    desk.archive(3)
    expected = [f"{channel} {n}" for n in range(6400, 10_001, 600) for channel in ("trade", "depth_diff")]
    with desk.follow(TRADE, DEPTH, start=-3600) as follow:
        heard = []
        for item in follow:
            if said(item) not in ("start", "stop"):
                heard.append(said(item))
            if heard and heard[-1] == "trade 10070":
                break
        desk.receive("a", (71, trade(10_071, 71)), (71, diff(10_001, 10_005, 71)))
        desk.archive(3700)
        desk.receive("a", (72, diff(10_006, 10_007, 72)))
        heard += words(follow)
    assert heard == [*expected, "trade 10070", "trade 10071", "depth_diff 10005", "depth_diff 10007"]
    assert words(desk.follow(TRADE, DEPTH, start=-3600)) == heard


def test_what_was_flushed_late_is_not_lost_at_the_seam(desk: Desk) -> None:
    desk.receive("a", (1, trade(1, 1)), (2, trade(2, 2)))
    desk.receive("b", (1.5, trade(3, 1.5)), flush=False)  # received before the seam, told after it
    desk.clock.wall = at(2.1)
    follow = desk.follow(TRADE, start=0)
    assert said(next(item for item in follow if isinstance(item, Event))) == "trade 1"
    desk.writer("b").flush()
    desk.receive("a", (3, trade(4, 3)))
    desk.clock.wall = at(4)
    assert words(follow) == ["trade 3", "trade 2", "trade 4"]


def test_what_two_instances_received_around_the_seam_is_told_once(desk: Desk) -> None:
    """Each event reaches `b` 30 ms after `a`, and the seam lies between the two."""
    events = [(n / 10, n) for n in range(1, 40)]
    desk.receive("a", *((t, trade(n, t)) for t, n in events), *((t + 0.001, diff(n, n, t)) for t, n in events))
    desk.receive("b", *((t + 0.03, trade(n, t)) for t, n in events[:20]))
    desk.receive("b", *((t + 0.03, diff(n, n, t)) for t, n in events[:20]))
    desk.clock.wall = at(2.04)
    follow = desk.follow(TRADE, DEPTH, start=0)
    heard = [said(next(follow)) for _ in range(10)]
    desk.receive("b", *((t + 0.03, trade(n, t)) for t, n in events[20:]))
    desk.receive("b", *((t + 0.03, diff(n, n, t)) for t, n in events[20:]))
    desk.clock.wall = at(10)
    heard = [word for word in heard if word != "start"] + words(follow)
    assert sorted(heard) == sorted(f"{channel} {n}" for _, n in events for channel in ("trade", "depth_diff"))
    for channel in ("trade", "depth_diff"):
        assert [word for word in heard if word.startswith(channel)] == [f"{channel} {n}" for _, n in events]


def test_another_instance_closes_a_gap_before_it_is_told(desk: Desk) -> None:
    desk.receive("a", (1, diff(1, 2, 1)))
    desk.receive("b", (1.01, diff(1, 2, 1)))
    desk.clock.wall = at(3)
    follow = desk.follow(DEPTH, start=0)
    assert said(next(item for item in follow if isinstance(item, Event))) == "depth_diff 2"
    desk.clock.wall = at(4.1)
    desk.receive("a", (4, diff(5, 6, 4)))  # 3 and 4 are missing
    desk.receive("b", (4.05, diff(3, 4, 4)), (4.06, diff(5, 6, 4)))
    items = [item for item in follow if isinstance(item, Event | Gap)]
    assert [said(item) for item in items] == ["depth_diff 4", "depth_diff 6"]
    assert items[1].received == at(4.05) // 1000, "it counts when all before it had been received"


def test_a_hole_in_one_instance_is_told_at_once_and_in_both_after_the_window(desk: Desk) -> None:
    desk.receive("a", (1, diff(1, 2, 1)), (1.5, diff(5, 6, 1.5)))
    desk.clock.wall = at(2)
    assert words(desk.follow(DEPTH, start=0)) == ["depth_diff 2", "gap 2..5", "depth_diff 6"]
    desk.receive("b", (1.51, diff(5, 6, 1.5)))
    follow = desk.follow(DEPTH, TRADE, start=0, timeout=timedelta(seconds=1))
    heard = [said(next(item for item in follow if not isinstance(item, Notice))) for _ in range(3)]
    assert heard == ["depth_diff 2", "gap 2..5", "depth_diff 6"]
    desk.clock.wall = at(3.1)
    desk.receive("a", (3, diff(9, 9, 3)), (3.01, trade(1, 3)))
    desk.receive("b", (3.02, diff(9, 9, 3)))
    later = threading.Timer(0.2, setattr, (desk.clock, "wall", at(4.2)))
    later.start()
    assert words(follow) == ["gap 6..9", "depth_diff 9", "trade 1"], "and what came after it waits, too"
    later.join()


def test_a_frame_that_is_torn_in_two_is_told_whole_and_damage_is_told(desk: Desk) -> None:
    desk.receive("a", (1, trade(1, 1)))
    desk.clock.wall = at(1.5)
    follow = desk.follow(TRADE, start=0)
    assert said(next(item for item in follow if isinstance(item, Event))) == "trade 1"
    path = desk.writer("a").path
    good = path.stat().st_size
    desk.receive("a", (2, trade(2, 2)))
    bad = path.stat().st_size
    desk.receive("a", (3, trade(3, 3)))
    with path.open("r+b") as file:
        file.seek((good + bad) // 2)
        byte = file.read(1)
        file.seek((good + bad) // 2)
        file.write(bytes([byte[0] ^ 1]))
    desk.clock.wall = at(4)
    damage, after = [item for item in follow if said(item) != "start"]
    assert isinstance(damage, Notice)
    assert (damage.kind, damage.instance, damage.detail["lost_rows"]) == ("damage", "a", 1)
    assert (damage.detail["start"], damage.detail["end"]) == (good, bad)
    assert said(after) == "trade 3"


def test_it_begins_now_and_ends_where_it_is_told_to(desk: Desk) -> None:
    desk.receive("a", (-1, trade(1, -1)))
    follow = desk.follow(TRADE, end=2, timeout=timedelta(minutes=1))
    desk.receive("a", (1, trade(2, 1)), (1.9, trade(3, 1.9)), (2, trade(4, 2)))
    desk.clock.wall = at(2.6)
    assert words(follow) == ["trade 2", "trade 3"]
    stopped = desk.follow(TRADE, start=3, timeout=timedelta(minutes=1))
    desk.receive("a", (3, trade(5, 3)), (4, trade(6, 4)))
    assert said(next(item for item in stopped if isinstance(item, Event))) == "trade 5"
    stopped.stop()
    assert words(stopped) == ["trade 6"], "what had been read is given"
    past = desk.follow(TRADE, start=0, timeout=timedelta(minutes=1))
    assert said(next(item for item in past if isinstance(item, Event))) == "trade 2"
    past.stop()
    assert words(past) == []


def test_a_writer_that_begins_later_is_followed(desk: Desk) -> None:
    desk.receive("a", (1, trade(1, 1)))
    follow = desk.follow(TRADE, start=0, timeout=timedelta(seconds=1))
    assert said(next(item for item in follow if isinstance(item, Event))) == "trade 1"
    desk.close("a")
    desk.clock.wall = at(5)
    desk.receive("c", (5, trade(2, 5)))
    assert words(follow) == ["trade 2"]


def test_streams_of_others_are_not_even_decoded(desk: Desk) -> None:
    desk.receive(
        "a", (1, trade(1, 1)), (1, ("ethusdt@trade", b"not json")), (1, trade(7, 1, "ETHUSDT")), (1, trade(2, 1))
    )
    desk.clock.wall = at(2)
    follow = desk.follow(TRADE)
    follow._start = at(0) // 1000
    assert words(follow) == ["trade 1", "trade 2"]


def test_the_command_goes_on_until_it_is_asked_to_end(desk: Desk) -> None:
    """`--follow` as a process of its own: lines come at once, and SIGTERM ends it in order."""
    desk.clock.wall = SystemClock().wall_ns()
    command = [
        sys.executable,
        "-m",
        "depthvault.cli",
        "replay",
        TRADE,
        "--follow",
        "--data-dir",
        str(desk.config.data_dir),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("R2_", "DEPTHVAULT_"))}
    desk.writer("a").flush()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=desk.config.data_dir
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            lines = map(json.loads, process.stdout)
            ended = threading.Event()
            thread = threading.Thread(target=receive_now, args=(desk.writer("a"), ended))
            thread.start()
            first = next(line for line in lines if line["type"] == "trade")
            ended.set()
            thread.join()
            process.send_signal(signal.SIGTERM)
            rest = [line["trade_id"] for line in lines if line["type"] == "trade"]
            assert process.wait(10) == 0
        finally:
            process.kill()
    numbers = [first["trade_id"], *rest]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def receive_now(writer: JournalWriter, ended: threading.Event) -> None:
    """Receive a trade now and then."""
    for number in range(10_000):
        stream, body = trade(number, 0)
        writer.append("frame", 1, stream, body, SystemClock().wall_ns())
        writer.flush()
        if ended.wait(0.02):
            return


def test_what_cannot_be_followed_is_said(desk: Desk) -> None:
    with pytest.raises(UsageError, match="at least one"):
        desk.vault.follow([])
    with pytest.raises(UsageError, match="no exchange 'x'"):
        desk.vault.follow(["x/trade/BTCUSDT"])
    with pytest.raises(UsageError, match="not a duration: 'soon'"):
        desk.vault.follow([TRADE], window="soon")
    with pytest.raises(UsageError, match="no journals"):
        Vault(desk.vault.catalog, "s3://bucket").follow([TRADE])
