"""Rows of a channel from tuples: every frame is taken whole or rejected whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from depthvault.errors import MalformedFrameError
from depthvault.exchanges.base import Decoded, Frames, Rejected
from depthvault.exchanges.decode.arrays import Integers, scan_pays
from depthvault.exchanges.decode.flat import FlatScanner, scan_rows
from depthvault.exchanges.decode.values import Numbers
from depthvault.schemas import CHANNELS, TIME

Row: TypeAlias = tuple[Any, ...]
"""event_time (µs or None), symbol, then the channel's own columns in the order of its schema; times are µs."""

Reader: TypeAlias = Callable[[str, bytes, Numbers], Sequence[Row]]
"""Rows of one frame, given its stream name (or request line) and body; raises one of REJECTIONS for a bad frame."""

REJECTIONS = (MalformedFrameError, msgspec.MsgspecError, UnicodeDecodeError, OverflowError, RecursionError)
"""What a reader raises for a bad frame; anything else is a bug and ends the run."""

_COMMON = 5  # received_time, event_time, symbol, instance, source


def reason_of(error: BaseException) -> str:
    """Why a frame was rejected, as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200]


def received_times(frames: Frames, index: Sequence[int]) -> list[int]:
    """Receipt in µs of the frames at `index`."""
    received = frames.received_ns
    return [received[position] // 1000 for position in index]


def table(channel: str, frames: Frames, instance: str, index: list[int], rows: Sequence[Row]) -> pa.Table:
    """`rows` as the channel's table; `index` holds each row's frame."""
    schema = CHANNELS[channel].schema
    if not rows:
        return schema.empty_table()
    events, symbols, *own = zip(*rows, strict=True)
    arrays = [
        pa.array(received_times(frames, index), TIME),
        pa.array(events, TIME),
        pa.array(symbols, pa.string()),
        pa.repeat(pa.scalar(instance, pa.string()), len(rows)),
        pa.repeat(pa.scalar(frames.source, pa.string()), len(rows)),
        *(pa.array(values, field.type) for values, field in zip(own, list(schema)[_COMMON:], strict=True)),
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


CHUNK_FRAMES = 32_768
"""So many frames at a time: more tuples alive would only keep the garbage collector busy."""


def read_each(
    channel: str, frames: Frames, instance: str, reader: Reader, scanner: FlatScanner | None = None
) -> Decoded:
    """Every frame through `scanner` where there is one, and what it leaves through `reader`, which sees it in order."""
    if scanner is not None and not scan_pays(sum(map(len, frames.bodies))):
        scanner = None
    numbers = Numbers()
    rejected: list[Rejected] = []
    tables: list[pa.Table] = []
    indexes: list[Integers] = []
    for start in range(0, len(frames.bodies), CHUNK_FRAMES):
        end = min(start + CHUNK_FRAMES, len(frames.bodies))
        left: Sequence[int] = range(start, end)
        if scanner is not None:
            where, scanned = scan_rows(channel, frames, start, end, instance, scanner)
            missed = np.ones(end - start, np.bool_)
            missed[where - start] = False
            left = (np.flatnonzero(missed) + start).tolist()
        rows: list[Row] = []
        index: list[int] = []
        for position in left:
            counted = numbers.inexact
            try:
                found = reader(frames.streams[position], frames.bodies[position], numbers)
            except REJECTIONS as error:
                numbers.inexact = counted
                rejected.append(Rejected(position, reason_of(error)))
                continue
            rows.extend(found)
            index.extend([position] * len(found))
        place = np.array(index, np.int64)
        part = table(channel, frames, instance, index, rows)
        if scanner is not None and not index:
            place, part = where, scanned
        elif scanner is not None and len(where):
            place = np.concatenate([where, place])
            order = np.argsort(place, kind="stable")
            place, part = place[order], pa.concat_tables([scanned, part]).take(pa.array(order))
        tables.append(part)
        indexes.append(place)
    rows_table = pa.concat_tables(tables) if tables else CHANNELS[channel].schema.empty_table()
    whole = np.concatenate(indexes) if indexes else np.empty(0, np.int64)
    return Decoded(rows_table, pa.array(whole), rejected, numbers.inexact)
