"""Frames of plain fields (trades, tickers) many at once: the compiled scanner's columns as a channel's rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from depthvault.exchanges.base import Frames
from depthvault.exchanges.decode.arrays import Doubles, Integers, joined, kernels, optional_times, strings
from depthvault.schemas import CHANNELS, TIME

_LENGTH_BITS = 20


@dataclass(frozen=True, slots=True)
class Columns:
    """The fields of the frames taken, by the venue's key."""

    buffer: npt.NDArray[np.uint8]
    places: Mapping[str, int]
    integers: Integers
    doubles: Doubles

    def integer(self, key: str) -> pa.Array:
        return pa.array(self.integers[:, self.places[key]].copy())

    def flag(self, key: str) -> pa.Array:
        return pa.array(self.integers[:, self.places[key]] == 1)

    def time(self, key: str) -> pa.Array:
        """Times; null where a frame has none."""
        return optional_times(self.integers[:, self.places[key]].copy())

    def double(self, key: str) -> Doubles:
        values: Doubles = self.doubles[:, self.places[key]].copy()
        return values

    def text(self, key: str) -> pa.Array:
        packed = self.integers[:, self.places[key]]
        starts = packed >> _LENGTH_BITS
        return strings(self.buffer, starts, starts + (packed & ((1 << _LENGTH_BITS) - 1)))

    def repeated(self, text: str) -> pa.Array:
        return pa.repeat(pa.scalar(text, pa.string()), len(self.integers))

    def absent_times(self) -> pa.Array:
        return pa.nulls(len(self.integers), TIME)


@dataclass(frozen=True, slots=True)
class FlatScanner:
    """One kind of flat frame.

    event: the venue's event type. fields: key to what it is: `time`, `integer`, `decimal`, `text`, `flag` or `event`.
    optional: keys that may be missing. columns: event_time, symbol and the channel's own columns, in schema order.
    """

    event: str
    fields: Mapping[str, str]
    columns: Callable[[Columns], list[pa.Array]]
    optional: frozenset[str] = field(default_factory=frozenset)

    def scan(self, bodies: Sequence[bytes]) -> tuple[Integers, list[pa.Array]]:
        """Positions of the frames taken, and their columns."""
        module = kernels()
        if module is None:
            return np.empty(0, np.int64), []
        types = {
            "event": module.A_KIND,
            "integer": module.AN_INTEGER,
            "time": module.A_TIME,
            "decimal": module.A_DECIMAL,
            "text": module.A_TEXT,
            "flag": module.A_FLAG,
        }
        buffer, starts = joined(bodies)
        names = [f'"{key}":'.encode() for key in self.fields]
        keys = np.array([list(name.ljust(max(map(len, names)), b"\0")) for name in names], np.uint8)
        integers = np.empty((len(bodies), len(names)), np.int64)
        doubles = np.empty((len(bodies), len(names)))
        taken = np.zeros(len(bodies), np.bool_)
        required = sum(1 << place for place, key in enumerate(self.fields) if key not in self.optional)
        kind = np.frombuffer(f'"{self.event}"'.encode(), np.uint8)
        codes = np.array([types[what] for what in self.fields.values()], np.int64)
        module.flat(buffer, starts, kind, keys, codes, required, integers, doubles, taken)
        where = np.flatnonzero(taken)
        places = {key: place for place, key in enumerate(self.fields)}
        return where, self.columns(Columns(buffer, places, integers[where], doubles[where]))


def scan_rows(
    channel: str, frames: Frames, start: int, end: int, instance: str, scanner: FlatScanner
) -> tuple[Integers, pa.Table]:
    """The frames of [start, end) that `scanner` takes (their positions in `frames`) and their rows."""
    schema = CHANNELS[channel].schema
    where, columns = scanner.scan(frames.bodies[start:end])
    where = where + start
    if not len(where):
        return where, schema.empty_table()
    received = np.array(frames.received_ns[start:end], np.int64)[where - start] // 1000
    event, symbol, *own = columns
    arrays = [
        pa.array(received).view(TIME),
        event,
        symbol,
        pa.repeat(pa.scalar(instance, pa.string()), len(where)),
        pa.repeat(pa.scalar(frames.source, pa.string()), len(where)),
        *own,
    ]
    return where, pa.Table.from_arrays(arrays, schema=schema)
