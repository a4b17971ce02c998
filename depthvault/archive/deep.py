"""Deep verification: the rows themselves. Values against their logical hash, order, keys, and breaks against `gaps`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.archive.encoding import LogicalHash
from depthvault.archive.manifest import ArchiveFile, ArchiveState, Entry
from depthvault.archive.stitch import codes, column
from depthvault.archive.verify import Finding
from depthvault.layout import Layout
from depthvault.quality.gaps import breaks, chain_of
from depthvault.schemas import CHANNELS, Channel

_MOST = 5
"""Findings told of one file; more say nothing new."""


def deep_findings(layout: Layout, state: ArchiveState) -> Iterator[Finding]:
    """What is wrong with the rows of the files that are here."""
    for unit, entry in sorted(state.current.items()):
        files = {file.table: file for file in state.files_of(unit)}
        for file in files.values():
            path = layout.archived(file.path)
            if path.exists():
                yield from _value_findings(path, file)
        data = files.get(entry.channel)
        if entry.kind == "hour" and data is not None and layout.archived(data.path).exists():
            yield from _row_findings(layout, state, entry, data, files.get("gaps"))


def _value_findings(path: Path, file: ArchiveFile) -> Iterator[Finding]:
    try:
        with pq.ParquetFile(path) as parquet:
            digest = LogicalHash(parquet.schema_arrow)
            for group in range(parquet.num_row_groups):
                digest.update(parquet.read_row_group(group))
            rows = parquet.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        yield Finding("local", "corrupt", file.path, f"cannot be read: {' '.join(str(error).split())[:200]}")
        return
    if rows != file.rows:
        yield Finding("local", "corrupt", file.path, f"{rows} rows, recorded {file.rows}")
    if digest.hexdigest() != file.logical_sha256:
        yield Finding("local", "corrupt", file.path, "its values are not those recorded (logical hash)")


def _row_findings(
    layout: Layout, state: ArchiveState, entry: Entry, file: ArchiveFile, gaps: ArchiveFile | None
) -> Iterator[Finding]:
    channel = CHANNELS[entry.channel]
    declared = _declared(layout, gaps)
    before = state.before(entry.exchange, entry.channel, entry.period)
    found: list[Finding] = []
    light = [spec.name for spec in channel.columns if not pa.types.is_list(spec.type)]
    try:
        with pq.ParquetFile(layout.archived(file.path)) as parquet:
            for symbol, span in file.symbols.items():
                table = parquet.read_row_groups(list(range(*span.row_groups)), columns=light)
                found += _order_findings(file.path, symbol, table, channel)
                chain = chain_of(table, channel)
                if chain is None:
                    continue
                tail = before.tails.get(symbol, {}).get("") if before else None
                for hole in breaks(chain, tail):
                    if (symbol, hole.last_id, hole.first_id) not in declared:
                        detail = f"{symbol}: undeclared gap from {hole.last_id} to {hole.first_id}"
                        found.append(Finding("local", "continuity", file.path, detail))
    except (pa.ArrowException, OSError):
        return  # told already
    yield from found[:_MOST]


def _declared(layout: Layout, gaps: ArchiveFile | None) -> set[tuple[str, int, int]]:
    if gaps is None or not layout.archived(gaps.path).exists():
        return set()
    rows = pq.read_table(layout.archived(gaps.path), columns=["symbol", "last_id", "first_id"]).to_pylist()
    return {(row["symbol"], row["last_id"], row["first_id"]) for row in rows}


def _order_findings(path: str, symbol: str, table: pa.Table, channel: Channel) -> Iterator[Finding]:
    if set(table.column("symbol").to_pylist()) - {symbol}:
        yield Finding("local", "continuity", path, f"{symbol}: its row groups hold other symbols")
    order = [codes(column(table, name)) for name in channel.order]
    if len(order[0]) > 1 and not np.array_equal(np.lexsort(tuple(reversed(order))), np.arange(len(order[0]))):
        yield Finding("local", "continuity", path, f"{symbol}: rows are not in chain order")
    keys = [codes(column(table, name)) for name in channel.key]
    together = np.lexsort(tuple(keys))
    same = np.ones(max(0, len(together) - 1), np.bool_)
    for key in keys:
        same &= key[together][1:] == key[together][:-1]
    if same.any() and channel.name != "instrument":
        yield Finding("local", "continuity", path, f"{symbol}: {int(same.sum())} rows have the key of another row")
