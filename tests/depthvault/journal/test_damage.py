"""Damage of every kind is detected, skipped and declared, and never yields a wrong row."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from depthvault.clock import ManualClock
from depthvault.config import JournalConfig
from depthvault.journal import Batch, Damage, JournalWriter, Row, read
from depthvault.journal.columns import batch_of
from depthvault.journal.reader import BytesSource, scan
from depthvault.journal.record import HEADER, MAGIC, RecordEncoder, checksum
from depthvault.layout import Layout

PATH = Path("small.journal")


def record(encoder: RecordEncoder, first: int, *bodies: bytes) -> bytes:
    rows: list[int | str | bytes] = []
    for number, body in enumerate(bodies, first):
        rows += [1_700_000_000_000_000_000 + number, number, 1, "frame", "btcusdt@trade", body]
    return b"".join(encoder.encode(batch_of(first, rows)))


@pytest.fixture(scope="module")
def records() -> list[bytes]:
    encoder = RecordEncoder(1)
    return [
        record(encoder, 0, b'{"a":1}', b'{"a":2}'),
        record(encoder, 2, b'{"a":3}' * 30),
        record(encoder, 3, b'{"a":4}', b'{"a":5}', b'{"a":6}'),
    ]


def rows_of(parts: list[Batch | Damage]) -> list[Row]:
    return [row for part in parts if isinstance(part, Batch) for row in part]


def damages(parts: list[Batch | Damage]) -> list[Damage]:
    return [part for part in parts if isinstance(part, Damage)]


def scan_bytes(data: bytes) -> list[Batch | Damage]:
    return list(scan(BytesSource(data), PATH))


def bounds(records: list[bytes]) -> Iterator[tuple[int, int]]:
    start = 0
    for one in records:
        yield start, start + len(one)
        start += len(one)


def test_an_undamaged_journal_reads_back_exactly(records: list[bytes]) -> None:
    parts = scan_bytes(b"".join(records))
    assert not damages(parts)
    assert [row.sequence for row in rows_of(parts)] == [0, 1, 2, 3, 4, 5]
    assert rows_of(parts)[2].body == b'{"a":3}' * 30
    assert [(part.start, part.end) for part in parts] == list(bounds(records))


@pytest.mark.parametrize("share", range(4))  # all four together flip every bit; apart, they can run side by side
def test_every_single_bit_flip_is_detected_skipped_and_declared(records: list[bytes], share: int) -> None:
    data = b"".join(records)
    good = [part for part in scan_bytes(data) if isinstance(part, Batch)]
    flipped = bytearray(data)
    for bit in range(share, len(data) * 8, 4):
        flipped[bit // 8] ^= 1 << (bit % 8)
        parts = scan_bytes(bytes(flipped))
        flipped[bit // 8] ^= 1 << (bit % 8)
        hit = next(number for number, batch in enumerate(good) if batch.start <= bit // 8 < batch.end)
        # The two other records are whole, the hit one is gone, and nothing else is.
        batches = [part for part in parts if isinstance(part, Batch)]
        assert [(batch.start, batch.end) for batch in batches] == [(b.start, b.end) for b in good if b is not good[hit]]
        assert all(batch.rows.equals(next(b for b in good if b.start == batch.start).rows) for batch in batches), bit
        [damage] = damages(parts)
        assert (damage.start, damage.end) == (good[hit].start, good[hit].end), bit
        assert damage.last_sequence == (good[hit - 1].last_sequence if hit else None), bit
        assert damage.next_sequence == (good[hit + 1].first_sequence if hit < 2 else None), bit
        assert damage.lost_rows == (good[hit].rows.num_rows if hit < 2 else None), bit
        # Only the last record's length can make a flip look like a torn tail.
        assert damage.kind == "corrupt" or (hit == 2 and damage.kind == "torn"), bit


def test_a_journal_cut_at_any_byte_gives_its_whole_records_and_declares_the_rest(records: list[bytes]) -> None:
    data = b"".join(records)
    good = rows_of(scan_bytes(data))
    ends = [end for _, end in bounds(records)]
    counts = {0: 0, ends[0]: 2, ends[1]: 3, ends[2]: 6}
    for length in range(len(data) + 1):
        parts = scan_bytes(data[:length])
        whole = max(end for end in counts if end <= length)
        assert rows_of(parts) == good[: counts[whole]], length
        if length in counts:
            assert not damages(parts), length
        else:
            [damage] = damages(parts)
            assert (damage.kind, damage.start, damage.end) == ("torn", whole, length)


def test_a_lost_record_shows_as_a_hole_in_the_sequence(records: list[bytes]) -> None:
    [damage] = damages(scan_bytes(records[0] + records[2]))
    assert (damage.kind, damage.start, damage.end) == ("missing", len(records[0]), len(records[0]))
    assert (damage.last_sequence, damage.next_sequence, damage.lost_rows) == (1, 3, 1)


def test_a_lost_first_record_is_declared(records: list[bytes]) -> None:
    [damage] = damages(scan_bytes(records[1] + records[2]))
    assert (damage.kind, damage.last_sequence, damage.next_sequence, damage.lost_rows) == ("missing", None, 2, 2)


def test_a_record_that_comes_twice_is_given_once_and_declared(records: list[bytes]) -> None:
    parts = scan_bytes(records[0] + records[1] + records[1] + records[2])
    assert [row.sequence for row in rows_of(parts)] == [0, 1, 2, 3, 4, 5]
    [damage] = damages(parts)
    assert damage.kind == "repeated"


@pytest.mark.parametrize("size", [1, 11, 12, 5000, (1 << 20) - 2, (1 << 20) + 3])
def test_reading_resumes_behind_garbage_of_any_size(records: list[bytes], size: int) -> None:
    garbage = (MAGIC + b"\xff\x00") * (size // 6 + 1)
    parts = scan_bytes(records[0] + garbage[:size] + records[1] + records[2])
    assert [row.sequence for row in rows_of(parts)] == [0, 1, 2, 3, 4, 5]
    [damage] = damages(parts)
    assert (damage.start, damage.end) == (len(records[0]), len(records[0]) + size)
    assert damage.lost_rows == 0


def test_a_good_checksum_over_something_else_than_a_batch_is_damage(records: list[bytes]) -> None:
    for payload in (b"", b"x", b"{}" * 100, b"\x00" * 64, b"\xff\xff\xff\xff\x00\x00\x00\x00"):
        header = HEADER.pack(MAGIC, len(payload), checksum(len(payload).to_bytes(4, "little"), payload))
        parts = scan_bytes(records[0] + header + payload + records[1])
        assert [row.sequence for row in rows_of(parts)] == [0, 1, 2]
        assert len(damages(parts)) == 1


def test_a_frame_that_holds_a_record_does_not_confuse_the_reader(tmp_path: Path, records: list[bytes]) -> None:
    writer = JournalWriter(Layout(tmp_path), "binance_spot", "a", clock=ManualClock(), config=JournalConfig(min_free=0))
    writer.append("frame", 1, "s", records[0])
    path = writer.path
    writer.close()
    parts = list(read(path))
    assert not damages(parts)
    assert [row.body for row in rows_of(parts)][1] == records[0]


def test_reading_a_file_of_noise_gives_one_declared_region(tmp_path: Path) -> None:
    path = tmp_path / "noise.journal"
    path.write_bytes(bytes(range(256)) * 40)
    [damage] = read(path)
    assert isinstance(damage, Damage)
    assert (damage.start, damage.end) == (0, 256 * 40)


def test_an_empty_journal_has_nothing_and_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "empty.journal"
    path.touch()
    assert list(read(path)) == []


@pytest.mark.parametrize("seed", range(4))
def test_no_mangling_yields_a_row_that_was_not_written(records: list[bytes], seed: int) -> None:
    chance = random.Random(seed)
    data = b"".join(records)
    good = {row.sequence: row for row in rows_of(scan_bytes(data))}
    for _ in range(300):
        mangled = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            start, length = chance.randrange(len(mangled)), chance.randrange(400)
            match chance.randrange(4):
                case 0:
                    del mangled[start : start + length]
                case 1:
                    mangled[start : start + length] = bytes(length)
                case 2:
                    mangled[start:start] = chance.randbytes(length)
                case _:
                    mangled[start:start] = data[start : start + chance.randrange(len(data))]
        parts = scan_bytes(bytes(mangled))
        found = rows_of(parts)
        assert all(good[row.sequence] == row for row in found)
        assert [row.sequence for row in found] == sorted({row.sequence for row in found})
        # What is not given is declared: by a region, or by the hole between two rows.
        assert len(found) == len(good) or damages(parts) or found == list(good.values())[: len(found)]
