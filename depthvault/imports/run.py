"""Taking files in: everything is read and checked first, then each channel and day is published by a manifest.

A file that is refused stops the run before anything is published. A run that was killed is completed by the next one:
a manifest names the files it was made of, and what it names is not taken in again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.archive import log
from depthvault.archive.encoding import Encoding
from depthvault.archive.manifest import ArchiveState, Entry, InputFile
from depthvault.archive.publish import finish
from depthvault.archive.staging import Staging, Unit
from depthvault.archive.store import Store, open_store
from depthvault.clock import datetime_from_ns
from depthvault.config import Config, Secrets
from depthvault.durable import make_directories, sha256_file
from depthvault.imports.day import Ints
from depthvault.imports.recorded import Recorded, event_times
from depthvault.imports.source import IMPORT, Options, Source, exchange_of, read, sources
from depthvault.imports.unit import DAY, Spilled, publish_unit
from depthvault.layout import Layout, encode_symbol
from depthvault.period import Period
from depthvault.schemas import CHANNELS

_DAY_US = 86_400_000_000


@dataclass(slots=True)
class Imported:
    """What an import did.

    entries: manifests it made. known: files that the archive has already, whole or in part. left: files that are none
    of the layout or of another venue, with the reason. recorded: rows left out because the archive recorded their
    period itself. rows, duplicates, conflicts: of the manifests. inexact: numbers whose text has more than 15
    significant digits, so that the double is not the text.
    """

    entries: list[Entry] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    left: dict[str, str] = field(default_factory=dict)
    files: int = 0
    recorded: int = 0
    rows: int = 0
    duplicates: int = 0
    conflicts: int = 0
    inexact: int = 0


def import_files(
    layout: Layout, config: Config, secrets: Secrets, root: Path, how: str, exchange: str,
    options: Options | None = None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC),
    progress: Callable[[str], None] = lambda _: None,
) -> Imported:  # fmt: skip
    """Import the files of layout `how` at or below `root` as rows of `exchange`. A second run does nothing.

    Raises UsageError when there is nothing of that layout, ArchiveError naming file and column for what the archive
    cannot take, and then nothing of it was published.
    """
    config.exchanges[exchange]
    store = open_store(config.store, secrets)
    return import_with(layout, config, store, root, how, exchange, options, now=now, progress=progress)


def import_with(
    layout: Layout, config: Config, store: Store | None, root: Path, how: str, exchange: str,
    options: Options | None = None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC),
    progress: Callable[[str], None] = lambda _: None,
) -> Imported:  # fmt: skip
    """`import_files` with a given store."""
    options = options or Options()
    found, left = sources(root, how, exchange)
    result = Imported(left=left, files=len(found))
    work = Staging(layout, Unit(exchange, Period.containing(now(), DAY)), IMPORT)
    with work.locked():
        work.clear()
        make_directories(work.folder)
        try:
            state = log.catch_up(layout, store)
            spilled = _spill(work.folder, layout, state, found, how, exchange, options, result, progress)
            encoding = Encoding.of_days(config.archive)
            for _, spill in sorted(spilled.items()):
                progress(f"{spill.exchange} {spill.channel} {spill.day.date}")
                entry, state = publish_unit(layout, config, store, state, spill, how, encoding, now)
                if entry is not None:
                    result.entries.append(entry)
                    result.rows += spill.rows
                    result.duplicates += entry.counts.duplicates
                    result.conflicts += entry.counts.conflicts
            finish(layout, store, state)
        finally:
            shutil.rmtree(work.folder, ignore_errors=True)
    return result


def _spill(
    folder: Path, layout: Layout, state: ArchiveState, found: Iterable[Source], how: str, exchange: str,
    options: Options, result: Imported, progress: Callable[[str], None],
) -> dict[tuple[str, str, str], Spilled]:  # fmt: skip
    """Read all files; their rows go to one small file for each source, channel, day and symbol."""
    spilled: dict[tuple[str, str, str], Spilled] = {}
    recorded: dict[str, Recorded] = {}
    for number, source in enumerate(found):
        progress(source.name)
        venue = exchange_of(how, source.kind, exchange)
        if venue not in recorded:
            recorded[venue] = Recorded(layout, state, venue)
        digest = sha256_file(source.path)
        writers: dict[Path, pq.ParquetWriter] = {}
        counts: dict[tuple[str, str, str], int] = {}
        try:
            for channel, table, inexact in read(source, how, venue, options):
                result.inexact += inexact
                times = event_times(table, CHANNELS[channel])
                for symbol, day, rows in _parts(table, times):
                    label = Period(datetime_from_ns(day * 1000), DAY).label
                    entry = state.entry(IMPORT, venue, channel, label)
                    if entry is not None and any(given.sha256 == digest for given in entry.inputs):
                        result.known.add(source.name)
                        continue
                    own = recorded[venue].mask(channel, symbol, times[rows])
                    result.recorded += int(own.sum())
                    spill = spilled.setdefault(
                        (venue, channel, label), Spilled(venue, channel, Period.parse(label, DAY), folder)
                    )
                    spill.recorded += int(own.sum())
                    key = venue, channel, label
                    counts[key] = counts.get(key, 0) + len(rows)
                    if not own.all():
                        part = table.take(pa.array(rows[~own]))
                        path = spill.part(encode_symbol(symbol), number)
                        if path not in writers:
                            make_directories(path.parent)
                            writers[path] = pq.ParquetWriter(
                                path, table.schema, compression="lz4", use_dictionary=False
                            )
                            spill.symbols.setdefault(symbol, []).append(path)
                        writers[path].write_table(part)
                        spill.rows += part.num_rows
        finally:
            for writer in writers.values():
                writer.close()
        for key, count in counts.items():
            spilled[key].inputs.append(InputFile(source.name, digest, count))
    return spilled


def _parts(table: pa.Table, times: Ints) -> Iterator[tuple[str, int, Ints]]:
    """Each symbol and day (µs of its start) with the positions of its rows."""
    encoded = table.column("symbol").combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    places = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    days = times // _DAY_US * _DAY_US
    for place, symbol in enumerate(encoded.dictionary.to_pylist()):
        for day in np.unique(days[places == place]):
            yield symbol, int(day), np.flatnonzero((places == place) & (days == day))
