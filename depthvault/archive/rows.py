"""Reading live files symbol by symbol, so that the memory needed is that of a batch of symbols, not of a period."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.archive.stitch import column

BATCH_BYTES = 96 << 20
"""Uncompressed bytes of the rows that are worked on at a time; a single symbol may need more."""


def _sizes(paths: Sequence[Path]) -> dict[str, float]:
    """Each symbol's estimated uncompressed bytes over all files."""
    sizes: dict[str, float] = {}
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                meta = file.metadata.row_group(group)
                if not meta.num_rows:
                    continue
                names = file.read_row_group(group, columns=["symbol"]).column(0)
                each = _bytes_of(meta) / meta.num_rows
                for item in pc.value_counts(names).to_pylist():
                    sizes[item["values"]] = sizes.get(item["values"], 0.0) + item["counts"] * each
    return sizes


def _bytes_of(group: pq.RowGroupMetaData) -> int:
    """What the rows take in memory. A dictionary makes prices and sizes much smaller in a file than they are here."""
    values: int = sum(group.column(place).num_values for place in range(group.num_columns))
    return max(int(group.total_byte_size), 8 * values)


def _batches(sizes: dict[str, float], limit: int) -> Iterator[list[str]]:
    batch: list[str] = []
    total = 0.0
    for symbol in sorted(sizes):
        if batch and total + sizes[symbol] > limit:
            yield batch
            batch, total = [], 0.0
        batch.append(symbol)
        total += sizes[symbol]
    if batch:
        yield batch


def _rows_of(path: Path, symbols: list[str], schema: pa.Schema) -> Iterator[pa.Table]:
    wanted = pa.array(symbols, pa.string())
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            statistics = _symbol_range(file, group)
            if statistics and (statistics[0] > symbols[-1] or statistics[1] < symbols[0]):
                continue
            table = file.read_row_group(group)
            mask = pc.is_in(table.column("symbol"), value_set=wanted)
            part = table if pc.all(mask).as_py() else table.filter(mask)
            if part.num_rows:
                yield part.select(schema.names).replace_schema_metadata(None).cast(schema.remove_metadata())


def _symbol_range(file: pq.ParquetFile, group: int) -> tuple[str, str] | None:
    place = file.schema_arrow.get_field_index("symbol")
    statistics = file.metadata.row_group(group).column(place).statistics
    return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else None


def _joined(parts: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """The parts as one table of single chunks. `parts` is emptied, so that only one column is held twice at a time."""
    chunks = {name: [chunk for part in parts for chunk in part.column(name).chunks] for name in schema.names}
    parts.clear()
    return pa.table([pa.concat_arrays(chunks.pop(name)) for name in schema.names], schema=schema.remove_metadata())


def by_symbol(paths: Sequence[Path], schema: pa.Schema, limit: int = BATCH_BYTES) -> Iterator[tuple[str, pa.Table]]:
    """Each symbol, ascending, with all of its rows: files in the order given, rows in their order in the file."""
    for batch in _batches(_sizes(paths), limit):
        table = _joined([part for path in paths for part in _rows_of(path, batch, schema)], schema)
        encoded = column(table, "symbol").dictionary_encode()
        indices = encoded.indices.to_numpy(zero_copy_only=False)
        order = np.argsort(indices, kind="stable")
        places = {name: place for place, name in enumerate(encoded.dictionary.to_pylist())}
        edges = np.searchsorted(indices[order], np.arange(len(places) + 1))
        for symbol in batch:
            place = places[symbol]
            rows = order[edges[place] : edges[place + 1]]
            yield symbol, (table if len(places) == 1 else table.take(pa.array(rows)))
