"""What the writer promises: nothing lost silently, whole records only, one writer, files by period."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from depthvault.clock import ManualClock
from depthvault.config import JournalConfig
from depthvault.errors import JournalError, JournalLockedError
from depthvault.journal import (
    Batch,
    JournalWriter,
    Row,
    is_locked,
    opened_body,
    parse_body,
    read,
    read_rows,
    stop_reason,
)
from depthvault.layout import Layout
from depthvault.period import Period

CONFIG = JournalConfig(min_free=0)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def begin(layout: Layout, clock: ManualClock, config: JournalConfig = CONFIG, **options: bool) -> JournalWriter:
    return JournalWriter(layout, "binance_spot", "a", config=config, clock=clock, **options)


def kept(path: Path) -> list[Row]:
    return [row for row in read_rows(path) if not (row.kind == "event" and row.stream in ("start", "stop"))]


def files(layout: Layout) -> list[Path]:
    return layout.journal_files("binance_spot", "a")


def test_every_row_reads_back_as_it_was_given(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)
    given = [
        (1, 2, 3, "frame", "btcusdt@trade", b'{"a":1}'),
        (5, 6, -7, "frame", "币安人生usdt@trade", "{'s':'币安人生USDT'}".encode()),
        (8, 9, 10, "frame", "", b""),
        (2**62, 0, 2**40, "sent", "x" * 3000, bytes(range(256)) * 300),
    ]
    for wall, monotonic, connection, kind, stream, body in given:
        writer.append(kind, connection, stream, body, wall, monotonic)
    writer.flush()
    writer.append("frame", 1, "later", b"unflushed until close")
    writer.close("sigterm")
    rows = list(read_rows(writer.path))
    assert [tuple(row)[1:] for row in rows[1:5]] == given
    assert [row.sequence for row in rows] == list(range(7))
    assert rows[5] == (5, clock.wall_ns(), clock.monotonic_ns(), 1, "frame", "later", b"unflushed until close")
    assert parse_body(rows[-1].body) == {"reason": "sigterm", "rows": 7}
    assert stop_reason(writer.path) == "sigterm"


def test_the_start_row_tells_who_writes_and_how_the_journal_before_ended(layout: Layout, clock: ManualClock) -> None:
    begin(layout, clock).close("duration")
    clock.advance(1)
    crashed = begin(layout, clock)
    crashed.flush()
    crashed._file.release()  # what the end of a process does to its locks
    shutil.move(layout.journals / "binance_spot" / "a" / ".lock", layout.root / "gone")
    clock.advance(1)
    with begin(layout, clock) as writer:
        writer.append("frame", 1, "s", b"x")
    starts = [parse_body(next(read_rows(path)).body) for path in files(layout)]
    assert [start["exchange"] + start["writer"] for start in starts] == ["binance_spota"] * 3
    assert {"host", "pid", "schema_version", "software"} < set(starts[0])
    assert [start.get("previous", {}).get("reason") for start in starts] == [None, "duration", "crash"]


def test_append_returns_consecutive_sequence_numbers_of_the_file(layout: Layout, clock: ManualClock) -> None:
    with begin(layout, clock) as writer:
        numbers = [writer.append("frame", 1, "s", b"") for _ in range(3)]
        numbers.append(writer.append_rest("GET /x", b"{}", 5))
        numbers.append(writer.append("frame", 1, "s", b""))
    assert numbers == [1, 2, 3, 5, 6]
    assert [row.sequence for row in kept(writer.path)] == [1, 2, 3, 4, 5, 6]


def test_a_rest_answer_stands_in_one_record_with_its_request(layout: Layout, clock: ManualClock) -> None:
    chance = random.Random(5)
    writer = begin(layout, clock, JournalConfig(min_free=1 << 60, batch_bytes=4096))
    for number in range(200):
        body = b"x" * chance.randrange(5000)
        writer.append_rest(f"GET /{number}", body, 77, 99, request=number, source="refill" if number else None)
    writer.config = JournalConfig(min_free=0, batch_bytes=4096)
    writer.close()
    records = list(read(writer.path))
    assert len(records) > 80
    for part in records:
        assert isinstance(part, Batch)
        rows = [row for row in part if row.kind in ("sent", "rest")]
        for sent, rest in zip(rows[::2], rows[1::2], strict=True):
            assert (sent.kind, rest.kind, sent.stream, sent.connection) == (
                "sent",
                "rest",
                rest.stream,
                rest.connection,
            )
            assert (sent.wall_ns, rest.wall_ns) == (77, 99)
            assert sent.body == (b'{"source":"refill"}' if sent.connection else b"")
    assert [row.connection for row in kept(writer.path) if row.kind == "rest"] == list(range(200))


def test_rows_are_in_the_file_after_a_flush_and_not_before(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)
    writer.append("frame", 1, "s", b"x")
    assert list(read_rows(writer.path)) == []
    assert writer.flush() == 2
    assert [row.body for row in kept(writer.path)] == [b"x"]
    assert writer.flush() == 0
    writer.fsync()
    writer.close()


def test_a_full_batch_is_written_without_being_asked(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock, JournalConfig(min_free=0, batch_bytes=4096))
    for _ in range(100):
        writer.append("frame", 1, "s", b"x" * 100)
    assert len(kept(writer.path)) > 70
    assert writer.buffered_bytes < 4096 + 200
    writer.close()
    assert len(kept(writer.path)) == 100


def test_flushing_in_another_thread_neither_loses_nor_doubles_rows(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock, JournalConfig(min_free=0, batch_bytes=1 << 16))
    done = threading.Event()

    def flush() -> None:
        while not done.is_set():
            writer.flush()
            writer.fsync()

    thread = threading.Thread(target=flush)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # give way between any two steps
    try:
        thread.start()
        for number in range(60_000):
            assert writer.append("frame", 1, "s", b"%d" % number) == number + 1
    finally:
        sys.setswitchinterval(before)
        done.set()
        thread.join()
    writer.close()
    assert [row.body for row in kept(writer.path)] == [b"%d" % number for number in range(60_000)]


# Files


def test_a_new_file_begins_with_the_period_and_repeats_the_catalogue(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)
    writer.set_catalogue("GET /exchangeInfo", b'{"symbols":[]}', clock.wall_ns() - 5, request=1)
    writer.append("frame", 1, "s", b"before")
    assert not writer.rotate_if_due()
    end = Period.containing(layout.journal_start(writer.path)).end_ns
    clock.step((end - clock.wall_ns()) / 1e9)
    first = writer.path
    assert writer.rotate_if_due()
    assert not writer.rotate_if_due()
    writer.append("opened", 1, "/stream", opened_body(["s"], continues=True))
    writer.append("frame", 1, "s", b"after")
    writer.close()
    assert stop_reason(first) == "rotate"
    assert [row.body for row in kept(first)] == [b"", b'{"symbols":[]}', b"before"]
    start, sent, catalogue, opened, frame, _ = read_rows(writer.path)
    assert start.sequence == 0
    assert parse_body(start.body)["previous"] == {"journal": first.name, "reason": "rotate"}
    assert (catalogue.kind, catalogue.stream, catalogue.body) == ("catalogue", "GET /exchangeInfo", b'{"symbols":[]}')
    assert (sent.kind, sent.stream, sent.wall_ns) == ("sent", "GET /exchangeInfo", clock.wall_ns())
    assert parse_body(sent.body)["repeated"] is True
    assert (parse_body(opened.body), frame.body) == ({"continues": True, "streams": ["s"]}, b"after")


def test_a_clock_that_steps_back_keeps_the_file(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)
    clock.step(-7200)
    assert not writer.rotate_if_due()
    writer.append("frame", 1, "s", b"x")
    clock.step(7200)
    assert not writer.rotate_if_due()
    writer.close()
    assert len(files(layout)) == 1


def test_a_file_ends_after_two_periods_although_the_wall_clock_stands_behind(
    layout: Layout, clock: ManualClock
) -> None:
    writer = begin(layout, clock)
    clock.advance(7200)
    clock.step(-2 * 86400)
    assert writer.rotate_if_due()
    writer.close()
    assert len(files(layout)) == 2


def test_a_restart_within_the_same_microsecond_takes_another_file(layout: Layout, clock: ManualClock) -> None:
    for _ in range(3):
        begin(layout, clock).close()
    assert [len(list(read_rows(path))) for path in files(layout)] == [2, 2, 2]


def test_only_one_process_writes_as_a_writer(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)
    with pytest.raises(JournalLockedError, match="binance_spot/a"):
        begin(layout, clock)
    assert len(files(layout)) == 1
    assert is_locked(writer.path)
    writer.close()
    assert not is_locked(writer.path)
    begin(layout, clock).close()


def test_fetchers_write_side_by_side_when_they_say_so(layout: Layout, clock: ManualClock) -> None:
    with begin(layout, clock, exclusive=False) as one, begin(layout, clock, exclusive=False) as other:
        assert one.path != other.path
        assert is_locked(one.path)


def test_a_closed_journal_refuses_rows(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock)
    writer.close()
    writer.close()
    with pytest.raises(JournalError, match="closed"):
        writer.append("frame", 1, "s", b"x")
    with pytest.raises(JournalError, match="closed"):
        writer.append_rest("GET /x", b"x", 1)


# Disks


@pytest.fixture
def limit() -> Iterator[None]:
    """The kernel cuts writes short and then refuses them, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("limit")
def test_a_write_cut_short_leaves_whole_records_and_loses_nothing(layout: Layout, clock: ManualClock) -> None:
    noise = random.Random(1).randbytes
    bodies = [noise(2000) for _ in range(20)]
    writer = begin(layout, clock)
    writer.append("frame", 1, "s", bodies[0])
    writer.flush()
    size = writer.path.stat().st_size
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5000, hard))
    for body in bodies[1:]:
        writer.append("frame", 1, "s", body)
    for _ in range(2):
        with pytest.raises(JournalError, match=writer.path.name):
            writer.flush()
        assert writer.failure is not None
        assert writer.path.stat().st_size == size
        assert [row.body for row in kept(writer.path)] == bodies[:1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY if hard < 0 else hard, hard))
    assert writer.flush() == 19
    assert writer.failure is None
    writer.close()
    assert [row.body for row in kept(writer.path)] == bodies


def test_a_full_disk_is_said_and_recording_resumes_when_there_is_room(tmp_path: Path, clock: ManualClock) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=256k", "none", disk], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("cannot mount a small disk here (needs root)")
    try:
        noise = random.Random(2).randbytes
        bodies = [noise(4000) for _ in range(30)]
        (disk / "ballast").write_bytes(b"x" * 100_000)
        writer = begin(Layout(disk), clock)
        sizes = []
        for body in bodies:
            writer.append("frame", 1, "s", body)
        writer.flush()
        sizes.append(writer.path.stat().st_size)
        for body in bodies:
            writer.append("frame", 1, "s", body)
        with pytest.raises(JournalError, match="the disk is full"):
            writer.flush()
        assert writer.path.stat().st_size == sizes[0]
        (disk / "ballast").unlink()
        writer.flush()
        writer.close()
        assert [row.body for row in kept(writer.path)] == bodies + bodies
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_recording_stops_loudly_below_min_free_and_nothing_is_lost(layout: Layout, clock: ManualClock) -> None:
    writer = begin(layout, clock, JournalConfig(min_free=1 << 60))
    writer.append("frame", 1, "s", b"x")
    with pytest.raises(JournalError, match=r"below journal\.min_free"):
        writer.flush()
    assert writer.path.stat().st_size == 0
    writer.config = CONFIG
    assert writer.flush() == 2
    writer.config = JournalConfig(min_free=1 << 60)
    writer.append("frame", 1, "s", b"y")
    writer.close()  # what is in memory is written all the same: the room kept free is for this
    assert [row.body for row in kept(writer.path)] == [b"x", b"y"]


@pytest.mark.parametrize("resume", [True, False])
def test_rows_refused_for_want_of_memory_are_counted_and_declared(
    layout: Layout, clock: ManualClock, *, resume: bool
) -> None:
    writer = begin(layout, clock, JournalConfig(min_free=1 << 60, memory_limit=1 << 20))
    taken, refused = [], []
    times = []
    for number in range(700):
        clock.advance(0.001)
        body = b"%05d" % number + b"x" * 2000
        if writer.append("frame", 4, "s", body) < 0:
            refused.append(body)
            times.append(clock.wall_ns())
        else:
            taken.append(body)
    assert refused
    assert taken
    assert writer.dropped_rows == len(refused)
    # What happened to the connection is never refused.
    assert writer.append("closed", 4, "", b"{}") >= 0
    after = []
    if resume:
        writer.config = JournalConfig(min_free=0, memory_limit=1 << 20)
        writer.flush()
        assert writer.append("frame", 4, "s", b"after") >= 0
        after = [b"after"]
    writer.close()
    rows = kept(writer.path)
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
    assert [row.body for row in rows if row.kind == "frame"] == taken + after
    [declared] = [row for row in rows if row.kind == "event"]
    assert declared.stream == "gap"
    assert parse_body(declared.body) == {
        "reason": "memory_limit",
        "rows": len(refused),
        "kinds": {"frame": len(refused)},
        "connections": [4],
        "from_ns": times[0],
        "until_ns": times[-1],
    }


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "journal").write_text("a file where a folder must be")
    with pytest.raises(JournalError, match="journal"):
        begin(Layout(tmp_path), clock)


# Crashes

_CHILD = """
import os, random, sys
from pathlib import Path
from depthvault.config import JournalConfig
from depthvault.journal import JournalWriter
from depthvault.layout import Layout

seed = int(sys.argv[2])
random.seed(seed)
config = JournalConfig(min_free=0, batch_bytes=8192)
writer = JournalWriter(Layout(Path(sys.argv[1])), "binance_spot", "a", config=config)
number = 0
while True:
    for _ in range(random.randrange(1, 60)):
        writer.append("frame", 1, "s", b"%d:" % number + random.randbytes(random.randrange(400)))
        number += 1
    writer.flush()
    if random.random() < 0.1:
        writer.fsync()
    os.write(1, b"%d\\n" % number)
"""


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_writer_leaves_every_flushed_row_once(layout: Layout, seed: int) -> None:
    chance = random.Random(seed)
    child = subprocess.Popen([sys.executable, "-c", _CHILD, layout.root, str(seed)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    acknowledged = 0
    for _ in range(chance.randrange(1, 400)):
        acknowledged = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split()
    child.stdout.close()
    child.wait()
    acknowledged = int(rest[-1]) if rest and rest[-1:] else acknowledged
    [path] = files(layout)
    numbers = [int(row.body.partition(b":")[0]) for row in kept(path)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= acknowledged
    assert not is_locked(path)
    assert stop_reason(path) is None
    # Its next life takes a new file and does not touch the old one.
    before = path.read_bytes()
    with JournalWriter(layout, "binance_spot", "a", config=CONFIG) as writer:
        assert writer.path != path
    assert path.read_bytes() == before
    assert json.loads(next(read_rows(writer.path)).body)["previous"] == {"journal": path.name, "reason": "crash"}
