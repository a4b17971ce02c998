"""Reads a writer's journals for one period: rows to the decoder, connections to the fold, damage to the receipt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import google_crc32c
import pyarrow as pa

from depthvault.journal import Batch, Damage, Kind, Row, is_locked
from depthvault.journal.reader import Source, open_source, record_at, scan
from depthvault.journal.record import HEADER, decode
from depthvault.seal.connections import ConnectionFold
from depthvault.seal.decoding import Piece, WindowDecoder
from depthvault.seal.receipts import Connection, DamagedRegion, DroppedRows, JournalInput
from depthvault.seal.spans import Window

_KINDS = ("sequence", "wall_ns", "connection", "kind")


@dataclass(slots=True)
class Reading:
    """What a period's journals said, beside their rows."""

    journals: list[JournalInput] = field(default_factory=list)
    damage: list[DamagedRegion] = field(default_factory=list)
    dropped: list[DroppedRows] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    rows_in_period: int = 0
    """Journal rows received within the period itself."""


def read_window(
    inputs: dict[Path, tuple[int, int]], root: Path, window: Window, decoder: WindowDecoder, reading: Reading
) -> Iterator[Piece]:
    """Every row of the window from the journals in `inputs`, decoded; `reading` is filled on the way.

    inputs: for each journal where the first record with a row in the window begins, and where the last one ends.
    """
    folds: list[ConnectionFold] = []
    for path, (first, stop) in sorted(inputs.items(), key=lambda one: one[0].name):
        name = path.relative_to(root).as_posix()
        fold = ConnectionFold(name, window, decoder.speaks)
        decoder.begin_journal(path.name)
        with open_source(path) as source:
            yield from _read_one(path, name, source, first, stop, window, decoder, fold, reading)
        yield from decoder.end_journal()
        folds.append(fold)
    for fold, following in pairwise(folds):
        fold.goes_on_in(following)
    for fold in folds:
        reading.connections += fold.connections()
        reading.dropped += fold.dropped


def _read_one(
    path: Path,
    name: str,
    source: Source,
    first: int,
    stop: int,
    window: Window,
    decoder: WindowDecoder,
    fold: ConnectionFold,
    reading: Reading,
) -> Iterator[Piece]:
    crc, rows = 0, 0
    last_ns: int | None = None
    pending: list[Damage] = []
    goes_on = False
    for part in scan(source, path, columns=_KINDS, whole_from=first):
        if isinstance(part, Damage):
            pending.append(part)
            continue
        walls = part.rows.column("wall_ns")
        for damage in pending:
            _declare(damage, name, last_ns, walls[0].as_py(), window, reading)
        pending.clear()
        if part.start >= stop:  # only read to know where damage at the end of the window ends
            goes_on = True
            break
        crc = google_crc32c.extend(crc, source.pread(HEADER.size, part.start))
        rows += part.rows.num_rows
        last_ns = walls[-1].as_py()
        fold.saw(last_ns)
        batch = part.rows
        if part.start < first:
            batch = _whole_if_telling(source, part, fold)
            if batch is None:
                fold.saw_frames(walls.to_numpy(), part.rows.column("connection").to_numpy())
                continue
            fold.take(batch)
            for row in _rows_but_frames(batch):
                yield from decoder.learn(row)
            continue
        fold.take(batch)
        received = walls.to_numpy()
        reading.rows_in_period += int(((received >= window.period.start_ns) & (received < window.period.end_ns)).sum())
        yield from decoder.add(batch)
    reading.journals.append(JournalInput(path=name, bytes_read=stop, rows=rows, crc32c=f"{crc:08x}"))
    if goes_on or is_locked(path):
        return  # a bad tail of a journal that is being written is a write under way
    for damage in pending:
        _declare(damage, name, last_ns, None, window, reading)
    if not fold.stopped and last_ns is not None and last_ns < window.high:
        fold.crashed()


def _whole_if_telling(source: Source, part: Batch, fold: ConnectionFold) -> pa.RecordBatch | None:
    """All columns of a record that has rows other than frames, or frames that are waited for; None of others."""
    if not fold.waits and set(part.rows.column("kind").unique().to_pylist()) <= {Kind.FRAME.value}:
        return None
    payload, _ = record_at(source, part.start)
    return decode(payload)


def _rows_but_frames(batch: pa.RecordBatch) -> Iterator[Row]:
    for index, kind in enumerate(batch.column("kind").to_pylist()):
        if kind != Kind.FRAME:
            yield Row(*(column[index].as_py() for column in batch.columns))


def _declare(
    damage: Damage, name: str, from_ns: int | None, until_ns: int | None, window: Window, reading: Reading
) -> None:
    if (until_ns is not None and until_ns < window.low) or (from_ns is not None and from_ns >= window.high):
        return
    reading.damage.append(
        DamagedRegion(
            path=name,
            start=damage.start,
            end=damage.end,
            kind=damage.kind,
            reason=damage.reason,
            last_sequence=damage.last_sequence,
            next_sequence=damage.next_sequence,
            from_ns=from_ns,
            until_ns=until_ns,
        )
    )
