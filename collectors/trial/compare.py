"""Are the archive's values the texts' values? Python's own `float` and `Decimal` are the reference."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.trial.expected import Cells, Column

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
NONE = np.iinfo(np.int64).min
_EXACT_DIGITS = 15
"""A decimal of so many digits comes back from a double unchanged (IEEE 754): equal doubles are equal texts."""


def is_same_number(value: float | Decimal | None, text: str) -> bool:
    """Whether a value of the archive is the decimal that `text` says. An empty text is null."""
    if value is None or not text:
        return value is None and not text
    return (value if isinstance(value, Decimal) else Decimal(repr(value))) == Decimal(text)


def wrong_numbers(values: npt.NDArray[np.float64], texts: Sequence[str]) -> Bools:
    """Where a double is not the decimal of its text."""
    wrong: Bools = values != np.fromiter(map(float, texts), np.float64, len(texts))
    for place, text in enumerate(texts):
        if len(text) > _EXACT_DIGITS + 1 and len(text.replace(".", "").strip("0")) > _EXACT_DIGITS:
            wrong[place] = not is_same_number(float(values[place]), text)
    return wrong


def whole_numbers(array: pa.Array) -> Ints:
    """Integers, or times in µs; null is `NONE`."""
    numbers: Ints = array.cast(pa.int64()).fill_null(NONE).to_numpy(zero_copy_only=False)
    return numbers


def wrong_rows(table: pa.Table, expected: Sequence[Cells], columns: Sequence[Column]) -> Bools:
    """Which rows of `table` differ in any column from the row of `expected` at the same place."""
    wrong = np.zeros(table.num_rows, np.bool_)
    for place, column in enumerate(columns):
        cells = [row[place] for row in expected]
        array = table.column(column.name).combine_chunks()
        wrong |= _wrong(column.kind, array, cells)
    return wrong


def _wrong(kind: str, array: pa.Array, cells: list[Any]) -> Bools:
    if kind == "int":
        should = np.fromiter((NONE if cell is None else cell for cell in cells), np.int64, len(cells))
        different: Bools = whole_numbers(array) != should
        return different
    if kind == "levels":
        return _wrong_levels(array, cells)
    if kind == "number" and pa.types.is_float64(array.type) and not array.null_count and all(cells):
        return wrong_numbers(array.to_numpy(), cells)
    found = array.to_pylist()
    if kind == "number":
        return np.array([not is_same_number(*pair) for pair in zip(found, cells, strict=True)], np.bool_)
    return np.array([left != right for left, right in zip(found, cells, strict=True)], np.bool_)


def _wrong_levels(array: pa.ListArray, cells: list[list[str]]) -> Bools:
    offsets = array.offsets.to_numpy().astype(np.int64)
    lengths = np.fromiter(map(len, cells), np.int64, len(cells))
    wrong: Bools = np.diff(offsets) != lengths
    if wrong.any():  # rare: then row by row
        for place in np.flatnonzero(~wrong):
            values = array[int(place)].values.to_numpy()
            wrong[place] = wrong_numbers(values, cells[place]).any()
        return wrong
    texts = [text for cell in cells for text in cell]
    values = array.values.to_numpy()[offsets[0] : offsets[-1]]
    bad = np.flatnonzero(wrong_numbers(values, texts))
    wrong[np.searchsorted(offsets - offsets[0], bad, "right") - 1] = True
    return wrong
