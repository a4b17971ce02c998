"""A follower sees every row once, in order, from file to file, whatever tail it meets."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from depthvault.clock import ManualClock
from depthvault.config import JournalConfig
from depthvault.journal import Batch, Damage, Follower, JournalWriter, follow, follow_async, read
from depthvault.layout import Layout
from depthvault.period import Period

VENUE = "binance_spot"


@pytest.fixture(autouse=True)
def look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for new files at each poll, so that no test waits."""

    monkeypatch.setattr(sys.modules[Follower.__module__], "_LOOK_AROUND", 0.0)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def begin(layout: Layout, clock: ManualClock, *, exclusive: bool = True) -> JournalWriter:
    return JournalWriter(layout, VENUE, "a", config=JournalConfig(min_free=0), clock=clock, exclusive=exclusive)


def bodies(parts: list[Batch | Damage]) -> list[bytes]:
    return [row.body for part in parts if isinstance(part, Batch) for row in part if row.kind == "frame"]


def put(writer: JournalWriter, *numbers: int) -> None:
    for number in numbers:
        writer.append("frame", 1, "s", b"%d" % number)
    writer.flush()


def test_rows_come_once_as_they_are_flushed(layout: Layout, clock: ManualClock) -> None:
    follower = Follower(layout, VENUE, "a", since_ns=0)
    assert follower.poll() == []
    writer = begin(layout, clock)
    seen = []
    for number in range(5):
        put(writer, number)
        seen.append(bodies(follower.poll()))
        assert follower.poll() == []
    assert seen == [[b"0"], [b"1"], [b"2"], [b"3"], [b"4"]]
    writer.close()
    assert not follower.ended
    follower.poll()
    assert follower.ended
    assert follower.last_stop == "stop"
    follower.close()


def test_it_goes_on_in_the_next_file_and_waits_for_the_next_start(layout: Layout, clock: ManualClock) -> None:
    follower = Follower(layout, VENUE, "a", since_ns=0)
    writer = begin(layout, clock)
    put(writer, 1)
    clock.step((Period.containing(layout.journal_start(writer.path)).end_ns - clock.wall_ns()) / 1e9)
    assert writer.rotate_if_due()
    put(writer, 2)
    assert bodies(follower.poll()) == [b"1", b"2"]
    assert not follower.ended
    writer.close()
    follower.poll()
    assert follower.ended
    clock.advance(1)
    writer = begin(layout, clock)
    put(writer, 3)
    assert bodies(follower.poll()) == [b"3"]
    assert not follower.ended
    writer.close()
    follower.close()


def test_from_now_on_leaves_out_what_is_there(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)
    put(writer, 1, 2)
    follower = Follower(layout, VENUE, "a")
    assert bodies(follower.poll()) == []
    put(writer, 3)
    assert bodies(follower.poll()) == [b"3"]
    writer.close()
    follower.close()


def test_since_a_time_begins_with_the_file_that_holds_it(layout: Layout, clock: ManualClock) -> None:
    starts = []
    for number in range(3):
        starts.append(clock.wall_ns())
        with begin(layout, clock) as writer:
            put(writer, number)
        clock.advance(100)
    for since, expected in (
        (0, [b"0", b"1", b"2"]),
        (starts[1] + 50 * 10**9, [b"1", b"2"]),
        (clock.wall_ns(), [b"2"]),
    ):
        follower = Follower(layout, VENUE, "a", since_ns=since)
        assert bodies(follower.poll()) == expected
        follower.close()


def test_a_record_under_way_is_waited_for_byte_by_byte(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)
    put(writer, 1)
    whole = writer.path.read_bytes()
    put(writer, 2)
    grown = writer.path.read_bytes()
    with writer.path.open("r+b") as file:
        file.truncate(len(whole))
    follower = Follower(layout, VENUE, "a", since_ns=0)
    assert bodies(follower.poll()) == [b"1"]
    for length in range(len(whole) + 1, len(grown)):
        with writer.path.open("r+b") as file:
            file.seek(length - 1)
            file.write(grown[length - 1 : length])
        assert follower.poll() == []
    writer.path.write_bytes(grown)
    assert bodies(follower.poll()) == [b"2"]
    writer.close()
    follower.close()


def test_a_record_cut_back_by_a_full_disk_and_written_anew_is_seen(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)
    put(writer, 1)
    follower = Follower(layout, VENUE, "a", since_ns=0)
    assert bodies(follower.poll()) == [b"1"]
    size = writer.path.stat().st_size
    with writer.path.open("ab") as file:
        file.write(writer.path.read_bytes()[: size // 2] + bytes(5000))
    assert follower.poll() == []
    with writer.path.open("r+b") as file:
        file.truncate(size)
    put(writer, 2)
    assert bodies(follower.poll()) == [b"2"]
    writer.close()
    follower.close()


def test_the_tail_of_a_killed_writer_is_declared_and_its_end_is_known(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)
    put(writer, 1)
    whole = writer.path.stat().st_size
    with writer.path.open("ab") as file:
        file.write(writer.path.read_bytes()[:50])
    follower = Follower(layout, VENUE, "a", since_ns=0)
    assert bodies(follower.poll()) == [b"1"]
    assert not follower.ended
    writer._file.release()  # what the end of a process does to its locks
    [damage] = follower.poll()
    assert isinstance(damage, Damage)
    assert (damage.kind, damage.start, damage.end) == ("torn", whole, whole + 50)
    assert follower.ended
    assert follower.last_stop == "crash"
    follower.close()


def test_damage_before_good_records_is_declared_at_once(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)
    for number in range(3):
        put(writer, number)
    first, second, _ = [part for part in read(writer.path) if isinstance(part, Batch)]
    data = bytearray(writer.path.read_bytes())
    data[second.start + 40] ^= 4
    writer.path.write_bytes(data)
    follower = Follower(layout, VENUE, "a", since_ns=0)
    parts = follower.poll()
    assert bodies(parts) == [b"0", b"2"]
    [damage] = [part for part in parts if isinstance(part, Damage)]
    assert (damage.start, damage.end, damage.lost_rows) == (second.start, second.end, 1)
    assert first.end == second.start
    writer.close()
    follower.close()


def test_fetchers_side_by_side_are_followed_together(layout: Layout, clock: ManualClock) -> None:
    one, two = begin(layout, clock, exclusive=False), begin(layout, clock, exclusive=False)
    follower = Follower(layout, VENUE, "a", since_ns=0)
    put(one, 1)
    put(two, 2)
    put(one, 3)
    assert sorted(bodies(follower.poll())) == [b"1", b"2", b"3"]
    one.close()
    put(two, 4)
    assert bodies(follower.poll()) == [b"4"]
    assert not follower.ended
    two.close()
    follower.poll()
    assert follower.ended
    follower.close()


def test_following_blocks_until_the_writer_has_stopped(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)

    def write() -> None:
        for number in range(200):
            put(writer, number)
        writer.close("sigterm")

    thread = threading.Thread(target=write)
    thread.start()
    parts = list(follow(layout, VENUE, "a", since_ns=0, until_stopped=True))
    thread.join()
    assert bodies(parts) == [b"%d" % number for number in range(200)]


async def test_an_event_loop_can_follow(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)

    async def write() -> None:
        for number in range(20):
            put(writer, number)
            await asyncio.sleep(0)
        writer.close("sigterm")

    task = asyncio.create_task(write())
    parts = [part async for part in follow_async(layout, VENUE, "a", since_ns=0, until_stopped=True)]
    await task
    assert bodies(parts) == [b"%d" % number for number in range(20)]


def test_a_backlog_is_read_in_parts(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)
    for number in range(10):
        put(writer, number)
    follower = Follower(layout, VENUE, "a", since_ns=0)
    seen = bodies(follower.poll(limit=4))
    assert follower.behind
    assert 0 < len(seen) <= 4
    while follower.behind:
        seen += bodies(follower.poll(limit=4))
    assert seen == [b"%d" % number for number in range(10)]
    assert follower.poll(limit=4) == []


def test_it_goes_on_at_a_position_in_the_files_that_are_known(layout: Layout, clock: ManualClock) -> None:
    first = begin(layout, clock)
    put(first, 1)
    first.close()
    clock.advance(1)
    second = begin(layout, clock)
    put(second, 2)
    position = second.path.stat().st_size
    put(second, 3)
    follower = Follower(layout, VENUE, "a", positions={first.path: None, second.path: position})
    assert bodies(follower.poll()) == [b"3"]
    second.close()
    clock.advance(1)
    put(begin(layout, clock), 4)
    assert bodies(follower.poll()) == [b"4"], "and on into files that were not known"
