"""How archived Parquet is written: encodings, row groups that never span symbols, and a hash of the values.

Columns are encoded as `column_encodings` says. Pages of 64 KiB save 2 % (early ones need fewer bits for an index), and
of the first page format 3 %, because it compresses the lists' lengths too. Row groups and dictionaries of parts, plain
prices or sizes, no statistics and non-null lists were tried as well: none of them is smaller by more than 0.2 %. Level
17 instead of 9 saves another 2 to 3 % at 2.7 times the CPU of the write, which day files are worth; 12 saves nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.archive.column_encodings import DICTIONARY, encoding_of
from depthvault.config import ArchiveConfig
from depthvault.errors import CorruptError

LOGICAL_HASH_KEY = "depthvault.logical_sha256"
_DICTIONARY_PAGE = 4 << 20
_DATA_PAGE = 64 << 10


@dataclass(frozen=True, slots=True)
class Encoding:
    """level: ZSTD. row_group_rows: the most rows of a row group. columns: encodings of columns that are not to have the
    one of their type, by `column` or `table.column`."""

    level: int = 9
    row_group_rows: int = 131_072
    columns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_periods(cls, config: ArchiveConfig) -> Encoding:
        """As configured for the files of periods and the quality tables."""
        return cls(config.compression_level, config.row_group_rows, config.encodings)

    @classmethod
    def of_days(cls, config: ArchiveConfig) -> Encoding:
        """As configured for the files of days, which stay."""
        return cls(config.day_compression_level, config.row_group_rows, config.encodings)


def _leaf(column: pa.Field) -> str:
    """A column's path inside Parquet."""
    return f"{column.name}.list.{column.type.value_field.name}" if pa.types.is_list(column.type) else column.name


def writer_options(schema: pa.Schema, encoding: Encoding) -> dict[str, Any]:
    """Arguments of `pq.ParquetWriter` for archive files."""
    metadata = schema.metadata or {}
    table = metadata.get(b"depthvault.channel", metadata.get(b"depthvault.table", b"")).decode()
    columns = {_leaf(each): encoding_of(table, each, encoding.columns) for each in schema}
    return {
        "compression": "zstd",
        "compression_level": encoding.level,
        "use_dictionary": [name for name, how in columns.items() if how == DICTIONARY],
        "column_encoding": {name: how.upper() for name, how in columns.items() if how != DICTIONARY},
        "dictionary_pagesize_limit": _DICTIONARY_PAGE,
        "data_page_version": "1.0",
        "data_page_size": _DATA_PAGE,
        "version": "2.6",
        "write_statistics": True,
        "write_page_index": True,
        "store_schema": True,
    }


class LogicalHash:
    """SHA-256 over the values of a table, the same for every chunking, encoding and library version.

    Each column is hashed as three streams: which values are null, lengths (texts and lists), and the values as
    little-endian bytes (null: zero). The hash is that of the columns' names, types and three hashes, in schema order.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._streams = [[hashlib.sha256() for _ in range(3)] for _ in schema]

    def update(self, table: pa.Table) -> None:
        """Take the rows of `table` in."""
        for name, streams in zip(self._schema.names, self._streams, strict=True):
            for chunk in table.column(name).chunks:
                self._add(chunk, *streams)

    def _add(self, array: pa.Array, nulls: Any, lengths: Any, values: Any) -> None:
        kind = array.type
        nulls.update(array.is_null().to_numpy(zero_copy_only=False).view(np.uint8).data)
        if pa.types.is_list(kind):
            if array.null_count:
                raise CorruptError("a list column holds nulls, and none of ours does")
            lengths.update(_contiguous(array.value_lengths(), "<i4"))
            values.update(_contiguous(array.flatten(), "<f8"))
        elif pa.types.is_string(kind):
            filled = array.fill_null("")
            lengths.update(_contiguous(pc.binary_length(filled), "<i4"))
            values.update(_text(filled))
        elif pa.types.is_decimal(kind):
            values.update("\n".join("" if item is None else str(item) for item in array.to_pylist()).encode() + b"\n")
        elif pa.types.is_boolean(kind):
            values.update(_contiguous(array.fill_null(False).cast(pa.uint8()), "u1"))
        elif pa.types.is_floating(kind):
            values.update(_contiguous(array.fill_null(0.0), "<f8"))
        elif pa.types.is_timestamp(kind):
            values.update(_contiguous(array.cast(pa.int64()).fill_null(0), "<i8"))
        else:
            values.update(_contiguous(array.fill_null(0), f"<i{kind.bit_width // 8}"))

    def hexdigest(self) -> str:
        """The hash of all rows so far."""
        total = hashlib.sha256()
        for each, streams in zip(self._schema, self._streams, strict=True):
            parts = " ".join(stream.hexdigest() for stream in streams)
            total.update(f"{each.name} {each.type} {parts}\n".encode())
        return total.hexdigest()


def _contiguous(array: pa.Array, kind: str) -> memoryview:
    return np.ascontiguousarray(array.to_numpy(zero_copy_only=False).astype(kind, copy=False)).data


def _text(array: pa.StringArray) -> memoryview:
    """The bytes of all texts, one after the other, without copying."""
    _, offsets, data = array.buffers()
    if not len(array) or data is None:
        return memoryview(b"")
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])]


def logical_sha256(table: pa.Table) -> str:
    """The logical hash of a whole table."""
    digest = LogicalHash(table.schema)
    digest.update(table)
    return digest.hexdigest()


class ArchiveWriter:
    """Writes one archive file, one symbol after the other, as a context manager.

    `write` begins a new row group with each call, so a row group never spans symbols. The same rows written by the
    same library give the same bytes. After the `with` block, `rows`, `groups` and `logical_sha256` are final.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, encoding: Encoding, metadata: dict[str, str] | None = None
    ) -> None:
        self._encoding = encoding
        self._schema = schema.with_metadata({**(schema.metadata or {}), **(metadata or {})})
        self._writer = pq.ParquetWriter(path, self._schema, **writer_options(self._schema, encoding))
        self._digest = LogicalHash(schema)
        self.rows = 0
        self.groups = 0
        self.logical_sha256 = ""

    def write(self, table: pa.Table, rows: npt.NDArray[np.int64] | None = None) -> tuple[int, int]:
        """Append `table`, the rows of one symbol, or of it those that `rows` names, in that order.

        Returns its first row group and the one after its last. No more than a row group is copied at a time.
        """
        first = self.groups
        count = table.num_rows if rows is None else len(rows)
        for offset in range(0, count, self._encoding.row_group_rows):
            stop = offset + self._encoding.row_group_rows
            part = table.slice(offset, stop - offset) if rows is None else table.take(pa.array(rows[offset:stop]))
            part = part.replace_schema_metadata(None).cast(self._schema)
            self._writer.write_table(part, row_group_size=self._encoding.row_group_rows)
            self._digest.update(part)
            self.groups += 1
        self.rows += count
        return first, self.groups

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.logical_sha256 = self._digest.hexdigest()
        self._writer.add_key_value_metadata({LOGICAL_HASH_KEY: self.logical_sha256})
        self._writer.close()
