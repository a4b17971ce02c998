"""What the files of a day hold of one period: for rows that come after the roll-up."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.archive.manifest import ArchiveFile, ArchiveState
from depthvault.archive.staging import Staging
from depthvault.archive.store import Store
from depthvault.durable import make_directories, sha256_file
from depthvault.errors import CorruptError
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import Channel


def at_hand(layout: Layout, store: Store | None, file: ArchiveFile, folder: Path) -> Path:
    """A verified local copy of an archived file; fetched into `folder` when only the store has it.

    Raises CorruptError when there is none with the recorded bytes.
    """
    path = layout.archived(file.path)
    if not path.exists() and store is not None:
        path = folder / file.path
        make_directories(path.parent)
        store.download(file.path, path)
    if not path.exists() or sha256_file(path) != file.sha256:
        raise CorruptError(f"{file.path}: is not here as it was recorded; `depthvault restore` brings it back")
    return path


def period_of_rows(table: pa.Table, channel: Channel, layout: Layout) -> Period:
    """The period of a row group: that of its first row, for row groups never span periods."""
    row = table.slice(0, 1)
    moment = pc.coalesce(*(row.column(name) for name in (*channel.time, "received_time")))[0].as_py()
    return layout.period_of(moment)


def extracted(staging: Staging, channel: str) -> Path:
    """Where the rows that the day's files hold of the staged period lie, when its day was rolled up."""
    return staging.path(f"fetched/{channel}-day.parquet")


def extract(
    layout: Layout,
    store: Store | None,
    state: ArchiveState,
    exchange: str,
    channel: Channel,
    period: Period,
    target: Path,
) -> dict[str, int]:
    """Write the rows that the day's files hold of `period` to `target`; returns how many there are of each symbol."""
    make_directories(target.parent)
    counts: dict[str, int] = {}
    schema = channel.schema
    with pq.ParquetWriter(target, schema, compression="lz4") as writer:
        for file in state.files_of(("day", exchange, channel.name, period.date)):
            (symbol,) = file.symbols
            with pq.ParquetFile(at_hand(layout, store, file, target.parent)) as parquet:
                for group in range(parquet.num_row_groups):
                    table = parquet.read_row_group(group)
                    if table.num_rows and period_of_rows(table, channel, layout) == period:
                        writer.write_table(table.replace_schema_metadata(None).cast(schema))
                        counts[symbol] = counts.get(symbol, 0) + table.num_rows
    return counts
