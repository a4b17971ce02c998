"""A forger: changes archived rows and makes every hash, manifest and sum after them fit. Only the rows still tell."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.archive import log
from depthvault.archive.encoding import ArchiveWriter, Encoding
from depthvault.archive.manifest import ArchiveFile, Entry, SymbolSpan, decode, digest, encode
from depthvault.durable import sha256_file
from depthvault.layout import Layout
from depthvault.schemas import CHANNELS, QUALITY

Change = Callable[[pa.Table], pa.Table]


def forge(layout: Layout, key: str, change: Change, *, honest_spans: bool = True) -> None:
    """Replace each row group of the file `key` by `change` of it, as if it had always been so.

    honest_spans: the manifest's row numbers, ranges and places are made to fit as well.
    """
    file = log.load_all(layout).files[key]
    path = layout.archived(key)
    with pq.ParquetFile(path) as parquet:
        groups = [change(parquet.read_row_group(group)) for group in range(parquet.num_row_groups)]
    name = file.table
    schema = CHANNELS[name].schema if name in CHANNELS else QUALITY[name]
    spans: dict[str, SymbolSpan] = {}
    with ArchiveWriter(path, schema, Encoding()) as writer:
        for group in groups:
            places = writer.write(group)
            if file.symbols and group.num_rows:
                _span(spans, name, group, places)
    forged = msgspec.structs.replace(
        file, sha256=sha256_file(path), bytes=path.stat().st_size, rows=writer.rows,
        logical_sha256=writer.logical_sha256, symbols=spans if honest_spans else file.symbols,
    )  # fmt: skip
    rewrite(layout, lambda entry: _with_file(entry, forged))


def rewrite(layout: Layout, change: Callable[[Entry], Entry]) -> None:
    """Change entries of the log, and chain it anew."""
    previous = None
    for number in range(1, log.load_all(layout).number + 1):
        path = layout.manifest(number)
        data = encode(msgspec.structs.replace(change(decode(path.read_bytes())), previous=previous))
        path.write_bytes(data)
        previous = digest(data)
    shutil.rmtree(layout.run / "log-cache", ignore_errors=True)
    log.write_derived(layout, None, log.load_all(layout), ())


def _with_file(entry: Entry, forged: ArchiveFile) -> Entry:
    return msgspec.structs.replace(entry, add=[forged if file.path == forged.path else file for file in entry.add])


def _span(spans: dict[str, SymbolSpan], channel: str, group: pa.Table, places: tuple[int, int]) -> None:
    symbol = group.column("symbol")[0].as_py()
    times = group.column("received_time").cast(pa.int64()).to_pylist()
    column = CHANNELS[channel].id_column
    ids = group.column(column).to_pylist() if column else [None]
    old = spans.get(symbol)
    if old is None:
        spans[symbol] = SymbolSpan(group.num_rows, min(times), max(times), places, min(ids), max(ids))
        return
    joined = [old.first_id, old.last_id, *ids] if column else [None]
    spans[symbol] = SymbolSpan(
        old.rows + group.num_rows, min(old.first_us, *times), max(old.last_us, *times),
        (old.row_groups[0], places[1]), min(joined), max(joined),
    )  # fmt: skip
