"""Reads journals, whole or damaged: every good record once, every bad region declared, never an error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from depthvault.journal.record import HEADER, MAGIC, MAX_PAYLOAD, decode, is_intact
from depthvault.journal.rows import STOP, Kind, Row, parse_body

_SCAN_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one good record, which lies at `[start, end)` of the file.

    `rows` has the columns of `record.SCHEMA`. Its sequence numbers are `[first_sequence, first_sequence + num_rows)`.
    """

    path: Path
    start: int
    end: int
    first_sequence: int
    rows: pa.RecordBatch

    def __iter__(self) -> Iterator[Row]:
        return map(Row._make, zip(*(column.to_pylist() for column in self.rows.columns), strict=True))

    @property
    def last_sequence(self) -> int:
        return self.first_sequence + int(self.rows.num_rows) - 1


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes `[start, end)` that hold no good record.

    kind: `torn` (the file ends within a record: a crash, or a write still under way), `corrupt` (bytes changed),
    `missing` (no bad bytes, but sequence numbers are left out; then start == end) or `repeated` (a record holds rows
    that were there already: they are left out).
    last_sequence, next_sequence: the rows around it; None at the file's beginning and end. What lies between is lost.
    """

    path: Path
    start: int
    end: int
    kind: str
    reason: str
    last_sequence: int | None
    next_sequence: int | None

    @property
    def lost_rows(self) -> int | None:
        """How many rows are lost; None when nothing follows that would tell."""
        if self.next_sequence is None:
            return None
        if self.kind == "repeated":
            return 0
        return max(self.next_sequence - (-1 if self.last_sequence is None else self.last_sequence) - 1, 0)


class Source(Protocol):
    """Bytes at an offset, as far as there are any."""

    def pread(self, size: int, offset: int) -> bytes: ...


class BytesSource:
    """A journal in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def pread(self, size: int, offset: int) -> bytes:
        return self._data[offset : offset + size]


class FileSource:
    """A journal on disk. No memory map: the writer may cut a half-written record back while we read."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)

    def pread(self, size: int, offset: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def close(self) -> None:
        os.close(self._descriptor)


@contextmanager
def open_source(path: Path) -> Iterator[FileSource]:
    """The file's bytes."""
    source = FileSource(path)
    try:
        yield source
    finally:
        source.close()


def record_at(source: Source, offset: int) -> tuple[bytes, str]:
    """The payload of the intact record at `offset`, else b'' and why there is none."""
    header = source.pread(HEADER.size, offset)
    if len(header) < HEADER.size:
        return b"", "torn header" if header else "end"
    magic, length, _ = HEADER.unpack(header)
    if magic != MAGIC:
        return b"", "no record begins here"
    if length > MAX_PAYLOAD:
        return b"", "impossible length"
    payload = source.pread(length, offset + HEADER.size)
    if len(payload) < length:
        return b"", "torn record"
    if not is_intact(header, payload):
        return b"", "checksum does not hold"
    return payload, ""


def next_record(source: Source, offset: int, stop: int | None = None) -> tuple[int, int] | None:
    """Where the next intact record from `offset` on begins, and its first sequence number.

    None when there is none before `stop` or the end.
    """
    position = offset
    while True:
        chunk = source.pread(_SCAN_CHUNK, position)
        if stop is not None:
            chunk = chunk[: stop - position]
        found = chunk.find(MAGIC)
        while found >= 0:
            payload, _ = record_at(source, position + found)
            if payload and (batch := _batch(payload)) is not None:
                return position + found, int(batch.column(0)[0].as_py())
            found = chunk.find(MAGIC, found + 1)
        if len(chunk) < len(MAGIC):
            return None
        position += len(chunk) - len(MAGIC) + 1  # a magic may lie across two chunks


def _batch(payload: bytes, columns: tuple[str, ...] | None = None) -> pa.RecordBatch | None:
    """The batch of an intact payload; None when it is not one of ours."""
    try:
        batch = decode(payload, columns)
    except (pa.ArrowException, EOFError, ValueError, OSError):
        return None
    return batch if batch.num_rows else None


def scan(
    source: Source,
    path: Path,
    *,
    offset: int = 0,
    stop: int | None = None,
    last_sequence: int | None = None,
    columns: tuple[str, ...] | None = None,
    whole_from: int | None = None,
) -> Iterator[Batch | Damage]:
    """Every good record and every damaged region of `source` from `offset` on (a record's start) up to `stop`.

    `last_sequence`: of the row before `offset`; None at the beginning of the file (or when it does not matter).
    `columns`: the columns wanted (`sequence` among them); the others are not decompressed, but for records that begin
    at or behind `whole_from`.
    """
    expected = 0 if offset == 0 else None
    if last_sequence is not None:
        expected = last_sequence + 1
    while stop is None or offset < stop:
        payload, reason = record_at(source, offset)
        whole = whole_from is not None and offset >= whole_from
        batch = _batch(payload, None if whole else columns) if payload else None
        if batch is None:
            if reason == "end":
                return
            reason = reason or "not a batch"
            resumed = next_record(source, offset + 1, stop)
            if resumed is None:
                end = stop if stop is not None else _end(source, offset)
                kind = "torn" if reason.startswith("torn") else "corrupt"
                yield Damage(path, offset, end, kind, reason, last_sequence, None)
                return
            end, following = resumed
            yield Damage(path, offset, end, "corrupt", reason, last_sequence, following)
            # Rows before `expected` that come again behind the bad bytes are repeated, whatever brought them there.
            offset, expected = end, following if expected is None else max(expected, following)
            continue
        end = offset + HEADER.size + len(payload)
        first = int(batch.column(0)[0].as_py())
        if expected is not None and first > expected:
            yield Damage(path, offset, offset, "missing", f"expected row {expected}", last_sequence, first)
        elif expected is not None and first < expected:
            yield Damage(path, offset, end, "repeated", f"expected row {expected}", last_sequence, first)
            batch = batch.slice(expected - first)
            first = expected
        if batch.num_rows:
            yield Batch(path, offset, end, first, batch)
            last_sequence = first + int(batch.num_rows) - 1
            expected = last_sequence + 1
        offset = end


def _end(source: Source, offset: int) -> int:
    while chunk := source.pread(_SCAN_CHUNK, offset):
        offset += len(chunk)
    return offset


def read(path: Path, *, offset: int = 0, stop: int | None = None) -> Iterator[Batch | Damage]:
    """Every good record and every damaged region of the journal at `path`, in order.

    offset: where to begin, the start of a record. stop: where to end. Never raises on damaged bytes; OSError when the
    file cannot be opened or read.
    """
    with open_source(path) as source:
        yield from scan(source, path, offset=offset, stop=stop)


def read_rows(path: Path) -> Iterator[Row]:
    """Every row that can be read."""
    for part in read(path):
        if isinstance(part, Batch):
            yield from part


def tail(source: Source) -> tuple[int, int]:
    """Where the last record begins and where it ends, by the headers alone: a cheap guess that a reader must check."""
    last, end = 0, 0
    while True:
        header = source.pread(HEADER.size, end)
        if len(header) < HEADER.size or not header.startswith(MAGIC):
            return last, end
        following = end + HEADER.size + HEADER.unpack(header)[1]
        if not source.pread(1, following - 1):
            return last, end
        last, end = end, following


def stop_reason(path: Path) -> str | None:
    """Why the writer of the journal at `path` stopped, by its last row; None when there is no stop row."""
    with open_source(path) as source:
        parts = list(scan(source, path, offset=tail(source)[0]))
    return stop_reason_of(parts[-1]) if parts and isinstance(parts[-1], Batch) else None


def stop_reason_of(batch: Batch) -> str | None:
    """The reason in the stop row that ends `batch`; None when its last row is none."""
    rows = batch.rows
    if rows.column("kind")[-1].as_py() != Kind.EVENT or rows.column("stream")[-1].as_py() != STOP:
        return None
    return str(parse_body(rows.column("body")[-1].as_py()).get("reason", ""))
