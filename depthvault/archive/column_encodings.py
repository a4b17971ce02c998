"""How the columns of archive files are encoded: by type, unless `archive.encodings` says otherwise. Pure.

Measured on recorded BTCUSDT frames (`benchmarks/compaction.py`): ids and times as DELTA_BINARY_PACKED halve a book
ticker and save 4 % of a depth file. Prices and sizes are smallest with a dictionary, for they repeat; sizes as
BYTE_STREAM_SPLIT are three times as large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa

from depthvault.schemas import CHANNELS, QUALITY

DICTIONARY, DELTA, PLAIN = "dictionary", "delta_binary_packed", "plain"


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_timestamp(kind))


def _is_number(kind: pa.DataType) -> bool:
    return _is_whole(kind) or bool(pa.types.is_floating(kind))


ENCODINGS: dict[str, Callable[[pa.DataType], bool]] = {
    DICTIONARY: lambda kind: not pa.types.is_boolean(kind),
    DELTA: _is_whole,
    PLAIN: lambda _: True,
    "byte_stream_split": _is_number,
    "delta_length_byte_array": pa.types.is_string,
    "delta_byte_array": pa.types.is_string,
}
"""Parquet's encodings by name, and whether one can hold values of a type."""


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_list(kind) else kind


def encoding_of(table: str, field: pa.Field, chosen: Mapping[str, str]) -> str:
    """The encoding of a column of `table`: that chosen for `table.column`, for `column`, else what suits its type."""
    for name in (f"{table}.{field.name}", field.name):
        if name in chosen:
            return chosen[name]
    kind = field.type
    if _is_whole(kind):
        return DELTA
    return PLAIN if pa.types.is_boolean(kind) or pa.types.is_decimal(kind) else DICTIONARY


def problems(chosen: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with a choice of encodings by column (`column` or `table.column`), naming each."""
    for name, encoding in chosen.items():
        table, _, column = name.rpartition(".")
        kinds = [
            _value_type(field.type)
            for of, schema in {**{each: channel.schema for each, channel in CHANNELS.items()}, **QUALITY}.items()
            for field in schema
            if field.name == column and table in ("", of)
        ]
        if not kinds:
            yield f"{name}: no table has such a column; `depthvault schema` prints them all"
        elif encoding not in ENCODINGS:
            yield f"{name}: no encoding {encoding!r}; there are {', '.join(ENCODINGS)}"
        else:
            unfit = sorted({str(kind) for kind in kinds if not ENCODINGS[encoding](kind)})
            if unfit:
                yield f"{name}: {encoding} cannot hold {' and '.join(unfit)}"
