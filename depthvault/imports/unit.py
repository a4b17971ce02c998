"""One channel and day of imported rows on its way into the archive: a file a symbol, its gaps, and a manifest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from depthvault import __version__
from depthvault.archive import log
from depthvault.archive.channel import described, generation_after
from depthvault.archive.encoding import ArchiveWriter, Encoding
from depthvault.archive.manifest import ArchiveFile, ArchiveState, Conflict, Counts, Entry, InputFile, SymbolSpan
from depthvault.archive.publish import move_into_archive, store_and_prove
from depthvault.archive.staging import Staging, Unit
from depthvault.archive.stitch import codes, column
from depthvault.archive.store import Store
from depthvault.archive.symbol import MOST_CONFLICTS
from depthvault.config import Config
from depthvault.durable import make_directories, sha256_file
from depthvault.errors import CorruptError
from depthvault.exchanges import channel_of
from depthvault.exchanges import exchange as exchange_named
from depthvault.imports.day import conflict, gap_rows, settle
from depthvault.imports.source import IMPORT, schema_of
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import CHANNELS, QUALITY, SCHEMA_VERSION

DAY = timedelta(days=1)
CONDITION = "imported"
"""The condition of every imported entry: marked, and neither `available` (proved) nor `degraded` (judged)."""


@dataclass(slots=True)
class Spilled:
    """The new rows of one channel and day, by symbol in parts as they were read, and the files they came from."""

    exchange: str
    channel: str
    day: Period
    folder: Path
    inputs: list[InputFile] = field(default_factory=list)
    symbols: dict[str, list[Path]] = field(default_factory=dict)
    rows: int = 0
    recorded: int = 0

    def part(self, symbol: str, number: int) -> Path:
        """Where the rows of a symbol from the `number`-th file lie."""
        return self.folder / self.exchange / self.channel / self.day.label / f"{symbol}.{number}.parquet"


@dataclass(slots=True)
class _Made:
    files: list[ArchiveFile] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    duplicates: int = 0
    clashes: int = 0
    rows_in: int = 0


def publish_unit(
    layout: Layout, config: Config, store: Store | None, state: ArchiveState, spill: Spilled, how: str,
    encoding: Encoding, now: Callable[[], datetime],
) -> tuple[Entry | None, ArchiveState]:  # fmt: skip
    """Publish the spilled rows of one channel and day beside what was imported of it before.

    Returns the entry (None when the archive has all of these files) and the archive's state after it.
    """
    unit = (IMPORT, spill.exchange, spill.channel, spill.day.label)
    staging = Staging(layout, Unit(spill.exchange, spill.day), f"{IMPORT}-{spill.channel}-{spill.day.date}")
    with staging.locked():
        while True:
            staging.clear()
            current = state.current.get(unit)
            known = {given.sha256 for given in current.inputs} if current is not None else set()
            if not spill.symbols or all(given.sha256 in known for given in spill.inputs):
                return None, state
            draft = _draft(layout, config, store, state, staging, spill, current, how, encoding)
            files = [(file, staging.path(file.path)) for file in draft.add]
            if store is not None:
                store_and_prove(store, files)
            move_into_archive(layout, staging, draft.add)
            publisher = f"{platform.node()}:{os.getpid()}"
            entry = log.append(layout, store, state, draft, now().isoformat(timespec="microseconds"), publisher)
            staging.clear()
            if entry is not None:
                return entry, state
            # Another worker was first, maybe with other bytes of the same name: its files are the ones that count.
            for file in draft.add:
                layout.archived(file.path).unlink(missing_ok=True)
            state = log.catch_up(layout, store)


def _draft(
    layout: Layout, config: Config, store: Store | None, state: ArchiveState, staging: Staging, spill: Spilled,
    current: Entry | None, how: str, encoding: Encoding,
) -> Entry:  # fmt: skip
    generation = generation_after(current)
    held = state.files_of(current.unit) if current is not None else []
    made = _Made()
    venue = exchange_named(spill.exchange, config.exchanges[spill.exchange])
    channel, date = channel_of(spill.exchange, spill.channel), spill.day.date
    for symbol, parts in sorted(spill.symbols.items()):
        before = [file for file in held if symbol in file.symbols]
        paths = [_at_hand(layout, store, staging, file) for file in before] + parts
        schema = schema_of(spill.channel)
        table = pa.concat_tables(
            [pq.read_table(path).replace_schema_metadata(None).cast(schema.remove_metadata()) for path in paths]
        ).combine_chunks()
        made.rows_in += table.num_rows
        settled = settle(table, channel)
        made.duplicates += settled.duplicates
        made.clashes += len(settled.clashes)
        most = max(0, MOST_CONFLICTS - len(made.conflicts))
        made.conflicts += [conflict(table, channel, symbol, pair) for pair in settled.clashes[:most]]
        table = table.take(pa.array(settled.chosen))
        key = layout.import_key(spill.exchange, spill.channel, symbol, date, generation)
        made.files.append(_written(staging, key, table, spill, encoding, symbol))
        made.remove += [file.path for file in before]
        made.gaps += gap_rows(table, channel, venue, symbol, spill.day.start, how)
    if made.files:
        _gaps(layout, store, staging, spill, generation, held, made, encoding)
    given = {entry.sha256: entry for entry in [*(current.inputs if current else []), *spill.inputs]}
    note = f"written by an earlier recorder (layout {how}); nothing proves it complete"
    if spill.recorded:
        note += f"; {spill.recorded} rows left out, their periods were recorded here"
    return Entry(
        number=0, previous=None, kind=IMPORT, exchange=spill.exchange, channel=spill.channel, period=spill.day.label,
        period_minutes=1440, generation=generation, created="", publisher="", software=__version__,
        schema_version=SCHEMA_VERSION, libraries={"pyarrow": importlib.metadata.version("pyarrow")},
        inputs=sorted(given.values()), add=made.files, remove=sorted(made.remove),
        counts=Counts(
            rows_in=made.rows_in + spill.recorded, rows=made.rows_in - made.duplicates - made.clashes,
            duplicates=made.duplicates, conflicts=made.clashes, redundant=spill.recorded, gaps=len(made.gaps),
        ),
        condition=CONDITION, conflicts=made.conflicts, note=note,
    )  # fmt: skip


def _at_hand(layout: Layout, store: Store | None, staging: Staging, file: ArchiveFile) -> Path:
    """The file's local copy, verified; fetched when only the store has it."""
    path = layout.archived(file.path)
    if not path.exists() and store is not None:
        path = staging.path("fetched/" + file.path)
        make_directories(path.parent)
        store.download(file.path, path)
    if not path.exists() or sha256_file(path) != file.sha256:
        raise CorruptError(f"{file.path}: is not here as it was recorded; `depthvault restore` brings it back")
    return path


def _written(
    staging: Staging, key: str, table: pa.Table, spill: Spilled, encoding: Encoding, symbol: str
) -> ArchiveFile:
    target = staging.path(key)
    make_directories(target.parent)
    metadata = {"depthvault.exchange": spill.exchange, "depthvault.date": spill.day.date, "depthvault.imported": "true"}
    with ArchiveWriter(target, schema_of(spill.channel), encoding, metadata) as writer:
        groups = writer.write(table)
    received = codes(column(table, "received_time"))
    id_column = CHANNELS[spill.channel].id_column
    ids = codes(column(table, id_column)) if id_column else None
    span = SymbolSpan(
        rows=table.num_rows, first_us=int(received.min()), last_us=int(received.max()), row_groups=groups,
        first_id=None if ids is None else int(ids.min()), last_id=None if ids is None else int(ids.max()),
    )  # fmt: skip
    return described(key, target, spill.channel, writer, {symbol: span})


def _gaps(
    layout: Layout, store: Store | None, staging: Staging, spill: Spilled, generation: int,
    held: list[ArchiveFile], made: _Made, encoding: Encoding,
) -> None:  # fmt: skip
    """The day's ledger: anew for the symbols that changed, as it was for the others."""
    schema = QUALITY["gaps"].remove_metadata()
    tables = [pa.Table.from_pylist(made.gaps, schema=schema)]
    for file in held:
        if file.table == "gaps":
            kept = pq.read_table(_at_hand(layout, store, staging, file)).replace_schema_metadata(None).cast(schema)
            unchanged = [name not in spill.symbols for name in kept.column("symbol").to_pylist()]
            tables.append(kept.filter(pa.array(unchanged, pa.bool_())))
            made.remove.append(file.path)
    table = pa.concat_tables(tables).sort_by([("symbol", "ascending"), ("start_time", "ascending")])
    key = layout.import_gaps_key(spill.exchange, spill.channel, spill.day.date, generation)
    target = staging.path(key)
    make_directories(target.parent)
    with ArchiveWriter(target, QUALITY["gaps"], encoding) as writer:
        writer.write(table)
    made.files.append(described(key, target, "gaps", writer, {}))
