"""Book frames (diffs, partial books, snapshots) as columns.

A venue gives a `BookReader`, the reference that reads one frame simply, and may name a layout of the compiled scanner
(`scan.py`). A frame that the scanner does not take is read by the reference; one that the reference rejects is
rejected. Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import pyarrow as pa

from depthvault.exchanges.base import Decoded, Frames, Rejected
from depthvault.exchanges.decode.arrays import Integers, scan_pays
from depthvault.exchanges.decode.rows import REJECTIONS, reason_of
from depthvault.exchanges.decode.values import Numbers
from depthvault.schemas import CHANNELS, LEVELS, TIME

BOOK_SCHEMA = pa.schema(
    [
        pa.field("event_time", TIME),
        pa.field("symbol", pa.string()),
        pa.field("transaction_time", TIME),
        pa.field("first_update_id", pa.int64()),
        pa.field("final_update_id", pa.int64()),
        pa.field("prev_final_update_id", pa.int64()),
        pa.field("is_snapshot", pa.bool_()),
        pa.field("bid_prices", LEVELS),
        pa.field("bid_sizes", LEVELS),
        pa.field("ask_prices", LEVELS),
        pa.field("ask_sizes", LEVELS),
    ]
)
"""What every book frame holds, whatever the channel."""

CHUNK_BYTES = 4 << 20


class Book(NamedTuple):
    """One book frame, read. Times in µs; sides in the venue's order."""

    event_time: int | None
    symbol: str
    transaction_time: int | None
    first_update_id: int
    final_update_id: int
    prev_final_update_id: int | None
    is_snapshot: bool
    bid_prices: list[float]
    bid_sizes: list[float]
    ask_prices: list[float]
    ask_sizes: list[float]


BookReader: TypeAlias = Callable[[str, bytes, Numbers], Book]
"""The book in a frame, given its stream name and body; raises one of REJECTIONS."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a scanner took of a run of frames: `books` (BOOK_SCHEMA) row by row for the frames at `taken`."""

    books: pa.Table
    taken: Integers
    inexact: int


class Scanner(Protocol):
    """Reads many bodies at once; leaves out every frame it does not like."""

    def __call__(self, streams: Sequence[str], bodies: Sequence[bytes]) -> Scanned: ...


def levels(side: Sequence[tuple[str, str]], numbers: Numbers) -> tuple[list[float], list[float]]:
    """Prices and sizes of a side."""
    read = numbers.unsigned
    return [read(price) for price, _ in side], [read(size) for _, size in side]


def _chunks(bodies: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for position, body in enumerate(bodies):
        size += len(body)
        if size >= CHUNK_BYTES:
            yield start, position + 1
            start, size = position + 1, 0
    if start < len(bodies):
        yield start, len(bodies)


def _book_table(books: Sequence[Book]) -> pa.Table:
    if not books:
        return BOOK_SCHEMA.empty_table()
    columns = zip(*books, strict=True)
    return pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, BOOK_SCHEMA, strict=True)], schema=BOOK_SCHEMA
    )


@dataclass(slots=True)
class BookRows:
    """Book frames read: `books` in the order received, `index` the position of each one's frame."""

    books: pa.Table
    index: Integers
    rejected: list[Rejected]
    inexact: int


def read_books(frames: Frames, reader: BookReader, scanner: Scanner | None) -> BookRows:
    """All frames through `scanner`, what it leaves through `reader`."""
    numbers = Numbers()
    rejected: list[Rejected] = []
    tables: list[pa.Table] = []
    indexes: list[Integers] = []
    inexact = 0
    for start, end in _chunks(frames.bodies):
        streams, bodies = frames.streams[start:end], frames.bodies[start:end]
        left: Sequence[int] = range(end - start)
        parts: list[pa.Table] = []
        places: list[Integers] = []
        if scanner is not None:
            scanned = scanner(streams, bodies)
            inexact += scanned.inexact
            parts.append(scanned.books)
            places.append(scanned.taken)
            missed = np.ones(end - start, np.bool_)
            missed[scanned.taken] = False
            left = np.flatnonzero(missed).tolist()
        books: list[Book] = []
        kept: list[int] = []
        for position in left:
            counted = numbers.inexact
            try:
                book = reader(streams[position], bodies[position], numbers)
            except REJECTIONS as error:
                numbers.inexact = counted
                rejected.append(Rejected(start + position, reason_of(error)))
                continue
            books.append(book)
            kept.append(position)
        if books:
            parts.append(_book_table(books))
            places.append(np.array(kept, np.int64))
        place = np.concatenate(places) if places else np.empty(0, np.int64)
        part = pa.concat_tables(parts) if parts else BOOK_SCHEMA.empty_table()
        if len(parts) > 1 and len(books):
            order = np.argsort(place, kind="stable")
            place, part = place[order], part.take(pa.array(order))
        tables.append(part)
        indexes.append(place + start)
    index = np.concatenate(indexes) if indexes else np.empty(0, np.int64)
    books_table = pa.concat_tables(tables) if tables else BOOK_SCHEMA.empty_table()
    return BookRows(books_table, index, rejected, inexact + numbers.inexact)


def decode_books(
    channel: str,
    frames: Frames,
    instance: str,
    reader: BookReader,
    scanner: Scanner | None,
    size_of: Callable[[str], int] | None = None,
) -> Decoded:
    """Rows of `depth_diff`, `depth_partial` or `depth_snapshot`.

    size_of: for a stream name or request line its `levels` (partial books) or `limit` (snapshots). Rejected frames
    are listed in the order received. `epoch` is 0: a decoder sees one run of frames and cannot know how often the
    venue restarted its ids before; stitching raises it, where the whole chain is at hand.
    """
    if scanner is not None and not scan_pays(sum(map(len, frames.bodies))):
        scanner = None
    read = read_books(frames, reader, scanner)
    schema = CHANNELS[channel].schema
    index, books = read.index, read.books
    count = len(index)
    received = np.array(frames.received_ns, np.int64)[index] // 1000
    columns: dict[str, pa.Array | pa.ChunkedArray] = {name: books[name] for name in BOOK_SCHEMA.names}
    columns["received_time"] = pa.array(received).view(TIME)
    columns["instance"] = pa.repeat(pa.scalar(instance, pa.string()), count)
    columns["source"] = pa.repeat(pa.scalar(frames.source, pa.string()), count)
    columns["epoch"] = pa.array(np.zeros(count, np.int32))
    if channel == "depth_snapshot":
        requested = np.array(frames.request_ns, np.int64)[index] // 1000
        columns["request_time"] = pa.array(requested).view(TIME)
        columns["last_update_id"] = books["final_update_id"]
    if size_of is not None:
        sizes = np.array([size_of(frames.streams[position]) for position in index.tolist()], np.int32)
        columns["levels"] = columns["limit"] = pa.array(sizes)
    rows = pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
    return Decoded(rows, pa.array(index), sorted(read.rejected, key=lambda one: one.index), read.inexact)
