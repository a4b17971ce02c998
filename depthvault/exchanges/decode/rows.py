"""Rows of a channel from tuples: every frame is taken whole or rejected whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa

from depthvault.errors import MalformedFrameError
from depthvault.exchanges.base import Decoded, Frames, Rejected
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


def read_each(channel: str, frames: Frames, instance: str, reader: Reader) -> Decoded:
    """Every frame through `reader`, in order."""
    numbers = Numbers()
    rows: list[Row] = []
    index: list[int] = []
    rejected: list[Rejected] = []
    for position, (stream, body) in enumerate(zip(frames.streams, frames.bodies, strict=True)):
        counted = numbers.inexact
        try:
            found = reader(stream, body, numbers)
        except REJECTIONS as error:
            numbers.inexact = counted
            rejected.append(Rejected(position, reason_of(error)))
            continue
        rows.extend(found)
        index.extend([position] * len(found))
    return Decoded(
        table(channel, frames, instance, index, rows), pa.array(index, pa.int64()), rejected, numbers.inexact
    )
