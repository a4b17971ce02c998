"""A column of somebody else's file as a column of ours, or an error that names the file and the column. Pure.

What a file does not say stays null. A value that cannot be one (an id or time of 0 in a column that must not be null,
a price that is no number) is refused, never guessed and never dropped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import tzinfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from depthvault.errors import ArchiveError
from depthvault.schemas import LEVELS, TIME, VOLUME

EXACT_DIGITS = 15
"""Significant digits of a decimal text that a double keeps."""

_UNITS = ((10**9, 10**6), (10**12, 10**3), (10**15, 1))
"""Times since 2001 and before 2286 as integers: from this value on in seconds, milliseconds, microseconds."""


@dataclass(slots=True)
class Rows:
    """Some rows of a file. `inexact` counts numbers whose text has more digits than a double keeps.

    name: the file, as errors name it.
    """

    table: pa.Table
    name: str
    timezone: tzinfo
    inexact: int = field(default=0)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def has(self, column: str) -> bool:
        """Whether the file has a column of this name."""
        return column in self.table.schema.names

    def bad(self, column: str, problem: str) -> ArchiveError:
        """The error for a column that cannot be taken in."""
        return ArchiveError(f"{self.name}: column {column}: {problem}; nothing was imported")

    def raw(self, column: str) -> pa.Array:
        """The column as it stands in the file; refused when there is none."""
        if not self.has(column):
            raise self.bad(column, "the layout has it, this file does not")
        array = self.table.column(column).combine_chunks()
        return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array

    def _whole(self, column: str, array: pa.Array) -> pa.Array:
        if array.null_count:
            raise self.bad(column, f"{array.null_count} rows have no value, and the archive needs one")
        return array

    def text(self, column: str) -> pa.Array:
        """Texts; none may be missing or empty."""
        array = self.raw(column)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
            raise self.bad(column, f"is {array.type}, not text")
        array = self._whole(column, array.cast(pa.string()))
        if pc.any(pc.equal(array, "")).as_py():
            raise self.bad(column, "holds an empty text")
        return array

    def flags(self, column: str) -> pa.Array:
        """True or false."""
        array = self._whole(column, self.raw(column))
        if not pa.types.is_boolean(array.type):
            raise self.bad(column, f"is {array.type}, not true or false")
        return array

    def ids(self, column: str) -> pa.Array:
        """Ids of the venue: whole numbers from 1 on. 0 is how recorders write that there was none: refused."""
        array = self._whole(column, self.raw(column))
        if not pa.types.is_integer(array.type):
            raise self.bad(column, f"is {array.type}, not a whole number")
        array = array.cast(pa.int64())
        low = pc.min(array).as_py()
        if low is not None and low <= 0:
            raise self.bad(column, f"holds {low}, which is no id of a venue; ids are not invented")
        return array

    def counts(self, column: str) -> pa.Array:
        """Whole numbers from 0 on."""
        array = self._whole(column, self.raw(column))
        if not pa.types.is_integer(array.type) or (len(array) and pc.min(array).as_py() < 0):
            raise self.bad(column, f"is {array.type}, not a count")
        return array.cast(pa.int64())

    def times(self, column: str, optional: bool = False) -> pa.Array:
        """Times: timestamps, ISO texts, or numbers since the epoch in s, ms or µs, by their size.

        Where a time may be missing (`optional`), null and 0 mean that. Texts and timestamps without an offset are in
        the recorder's time zone, which only the user can know.
        """
        array = self.raw(column)
        kind = array.type
        try:
            if pa.types.is_timestamp(kind):
                if kind.tz is None:
                    array = pc.assume_timezone(array, str(self.timezone))
                array = array.cast(TIME)
            elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
                array = self._parsed(array.cast(pa.string()))
            elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
                array = self._since_epoch(column, array, optional)
            else:
                raise self.bad(column, f"is {kind}, not a time")
        except pa.ArrowInvalid as error:
            raise self.bad(column, f"holds what is no time: {' '.join(str(error).split())[:120]}") from error
        return array if optional else self._whole(column, array)

    def _parsed(self, array: pa.Array) -> pa.Array:
        zoned = pc.match_substring_regex(array, r"(Z|[+-]\d\d:?\d\d)$")
        if pc.any(zoned).as_py():
            return array.cast(pa.timestamp("us", tz="UTC"))
        return pc.assume_timezone(array.cast(pa.timestamp("us")), str(self.timezone)).cast(TIME)

    def _since_epoch(self, column: str, array: pa.Array, optional: bool) -> pa.Array:
        if optional:
            array = pc.if_else(pc.equal(array, 0), pa.scalar(None, array.type), array)
        if array.null_count == len(array):
            return pa.nulls(len(array), TIME)
        low, high = pc.min(array).as_py(), pc.max(array).as_py()
        for start, factor in _UNITS:
            if start <= low and high < start * 1000:
                if pa.types.is_integer(array.type):
                    return pc.multiply(array.cast(pa.int64()), factor).cast(TIME)
                return pc.round(pc.multiply(array.cast(pa.float64()), float(factor))).cast(pa.int64()).cast(TIME)
        raise self.bad(column, f"holds {low} to {high}: not seconds, milliseconds or microseconds of one kind")

    def numbers(self, column: str, positive: bool = True) -> pa.Array:
        """Prices, sizes and rates as doubles, from decimal text or floats."""
        return self._double(column, self._whole(column, self.raw(column)), positive)

    def volumes(self, column: str) -> pa.Array:
        """Volumes as `decimal(38,8)`: exact, or refused."""
        array = self._whole(column, self.raw(column))
        try:
            if pa.types.is_floating(array.type):
                array = array.cast(pa.string())  # the shortest text that gives the same double
            return array.cast(VOLUME)
        except pa.ArrowInvalid as error:
            raise self.bad(column, f"is no decimal of 8 places: {' '.join(str(error).split())[:120]}") from error

    def _double(self, column: str, array: pa.Array, positive: bool) -> pa.Array:
        kind = array.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            self.inexact += _inexact(array)
            try:
                array = array.cast(pa.float64())
            except pa.ArrowInvalid as error:
                raise self.bad(column, f"holds what is no number: {' '.join(str(error).split())[:120]}") from error
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            array = array.cast(pa.float64())
        else:
            raise self.bad(column, f"is {kind}, not a number")
        values = array.to_numpy(zero_copy_only=False)
        if not np.isfinite(values).all():
            raise self.bad(column, "holds a number that is not finite")
        if positive and len(values) and values.min() < 0:
            raise self.bad(column, f"holds {values.min()}, a price or size below zero")
        return array

    def level_lists(self, column: str, most: int | None = None) -> pa.Array:
        """A list of numbers a row, as one side's prices or sizes."""
        array = self._lists(column)
        self._check_length(column, array, most)
        if array.values.null_count:
            raise self.bad(column, "holds a level without a value")
        return pa.ListArray.from_arrays(_offsets(array), self._double(column, array.flatten(), True), type=LEVELS)

    def level_pairs(self, column: str, most: int | None = None) -> tuple[pa.Array, pa.Array]:
        """A list of `[price, size]` a row, as prices and sizes."""
        array = self._lists(column)
        self._check_length(column, array, most)
        pairs, offsets = array.flatten(), _offsets(array)
        if not _is_list(pairs.type):
            if len(pairs) == 0:
                empty = pa.ListArray.from_arrays(offsets, pa.array([], pa.float64()), type=LEVELS)
                return empty, empty
            raise self.bad(column, f"is {array.type}, not a list of [price, size]")
        lengths = pc.list_value_length(pairs)
        if pairs.null_count or pc.any(pc.not_equal(lengths, 2)).as_py():
            raise self.bad(column, "holds a level that is not [price, size]")
        flat = pairs.flatten()
        if flat.null_count:
            raise self.bad(column, "holds a level without a price or size")
        values = self._double(column, flat, True).to_numpy(zero_copy_only=False)
        prices, sizes = (pa.array(np.ascontiguousarray(values[side::2])) for side in (0, 1))
        return (
            pa.ListArray.from_arrays(offsets, prices, type=LEVELS),
            pa.ListArray.from_arrays(offsets, sizes, type=LEVELS),
        )

    def _lists(self, column: str) -> pa.Array:
        array = self._whole(column, self.raw(column))
        if pa.types.is_string(array.type):  # some frames keep lists as JSON
            try:
                array = pa.array([json.loads(text) for text in array.to_pylist()], pa.list_(pa.list_(pa.string())))
            except (ValueError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise self.bad(column, "is text that is no JSON list of [price, size] texts") from error
        if not _is_list(array.type):
            raise self.bad(column, f"is {array.type}, not a list")
        return array

    def _check_length(self, column: str, array: pa.Array, most: int | None) -> None:
        longest = pc.max(pc.list_value_length(array)).as_py()
        if most is not None and longest is not None and longest > most:
            raise self.bad(column, f"holds {longest} levels, more than the {most} of --levels")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _offsets(array: pa.Array) -> pa.Array:
    """Offsets that count from the first element that `flatten` gives."""
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    return pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))


def _inexact(array: pa.Array) -> int:
    """How many decimal texts have more significant digits than a double keeps."""
    digits = pc.replace_substring_regex(pc.replace_substring_regex(array, r"[eE].*$", ""), r"[^0-9]", "")
    significant = pc.utf8_length(pc.utf8_trim(digits, "0"))
    return int(pc.sum(pc.greater(significant, EXACT_DIGITS)).as_py() or 0)
