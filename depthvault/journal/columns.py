"""Buffered journal rows as Arrow columns, without pandas: `pa.array` imports it (0.7 s, and memory that a collector can
do without) and costs twice as much (measured)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from depthvault.journal.record import SCHEMA

WIDTH = 6
"""Values a row takes in a buffer: wall_ns, monotonic_ns, connection, kind, stream, body."""

KIND, STREAM, BODY = 3, 4, 5


def batch_of(first_sequence: int, values: Sequence[Any]) -> pa.RecordBatch:
    """The record batch of the rows that lie one after the other in `values`, numbered from `first_sequence`."""
    count = len(values) // WIDTH
    bodies = values[BODY::WIDTH]
    columns = [
        _integers(np.arange(first_sequence, first_sequence + count, dtype=np.int64)),
        *(_integers(np.fromiter(values[column::WIDTH], np.int64, count)) for column in range(KIND)),
        _texts(values[KIND::WIDTH]),
        _texts(values[STREAM::WIDTH]),
        _slices(pa.binary(), bodies, b"".join(bodies)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _integers(values: npt.NDArray[np.int64]) -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


def _texts(values: Sequence[str]) -> pa.Array:
    joined = "".join(values)
    if joined.isascii():
        return _slices(pa.utf8(), values, joined.encode())
    encoded = [value.encode() for value in values]
    return _slices(pa.utf8(), encoded, b"".join(encoded))


def _slices(kind: pa.DataType, values: Sequence[str] | Sequence[bytes], joined: bytes) -> pa.Array:
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, values), np.int32, len(values)), out=offsets[1:])
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(offsets), pa.py_buffer(joined)])
