"""One channel and period: its live files become staged archive files and a draft entry."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault import __version__
from depthvault.archive.day import at_hand, extract, extracted
from depthvault.archive.encoding import ArchiveWriter, Encoding
from depthvault.archive.manifest import (
    ArchiveFile,
    ArchiveState,
    Counts,
    Entry,
    InputFile,
    SymbolSpan,
    tails_digest,
)
from depthvault.archive.rows import by_symbol
from depthvault.archive.staging import Staging
from depthvault.archive.symbol import Work, add_silent_symbols, compact_symbol
from depthvault.durable import make_directories, sha256_file
from depthvault.errors import CorruptError, StoreError
from depthvault.layout import Layout
from depthvault.quality.coverage import quality_table
from depthvault.quality.expected import add_expected
from depthvault.schemas import QUALITY, SCHEMA_VERSION


def generation_after(current: Entry | None) -> int:
    """The generation that follows `current`."""
    return 1 if current is None else current.generation + 1


def compact_channel(work: Work, state: ArchiveState, staging: Staging, encoding: Encoding) -> Entry:
    """Stage one channel and period. Raises CorruptError when an input is not what was recorded of it."""
    layout, channel, period = work.layout, work.channel, work.period
    current = state.entry("hour", work.exchange, channel.name, period.label)
    generation = generation_after(current)
    held = {file.table: file for file in state.files_of(current.unit)} if current else {}
    rolled_up = state.is_rolled_up(work.exchange, channel.name, period.label)
    paths, archived = _source_files(work, staging, current, held, rolled_up)
    work.tails = dict(work.before.tails) if work.before else {}

    files: list[ArchiveFile] = []
    key = layout.hour_key(work.exchange, channel.name, period, generation)
    if rolled_up:
        # Its rows stand in files of the day: read them as they are, and write only what they lack.
        day = extracted(staging, channel.name)
        work.in_day = extract(layout, work.store, state, work.exchange, channel, period, day)
        paths.insert(0, day)
    if paths:
        target = staging.path(key)
        make_directories(target.parent)
        metadata = {"depthvault.exchange": work.exchange, "depthvault.period": period.label}
        with ArchiveWriter(target, channel.schema, encoding, metadata) as writer:
            for symbol, table in by_symbol(paths, channel.schema):
                compact_symbol(work, symbol, table, writer)
        if writer.rows:
            files.append(described(key, target, channel.name, writer, work.spans))
        else:
            target.unlink()
    add_silent_symbols(work)
    cadence = work.listening.cadence_ns
    add_expected(
        work.coverage, _usual_before(work, state, staging), period.length,
        None if cadence is None else timedelta(microseconds=cadence // 1000),
    )  # fmt: skip
    files += _stage_quality(work, staging, generation, encoding)

    add, remove = settled(files, held, staging, keep=("book_audit", "hour_metrics"))
    return Entry(
        number=0, previous=None, kind="hour", exchange=work.exchange, channel=channel.name, period=period.label,
        period_minutes=int(period.length.total_seconds() // 60), generation=generation, created="", publisher="",
        software=__version__, schema_version=SCHEMA_VERSION,
        libraries={"pyarrow": importlib.metadata.version("pyarrow")},
        inputs=work.inputs.live, archived_inputs=archived,
        receipts=dict(sorted(((current.receipts if current else {}) | work.inputs.receipts).items())),
        add=add, remove=remove,
        counts=Counts(
            rejected=work.inputs.rejected, inexact=work.inputs.inexact, gaps=len(work.gaps), **work.counts
        ),
        predecessor=work.before.tails_sha256 if work.before else "",
        conflicts=work.conflicts, tails=work.tails, tails_sha256=tails_digest(work.tails),
    )  # fmt: skip


def _usual_before(work: Work, state: ArchiveState, staging: Staging) -> dict[str, float | None]:
    """`usual_events` of the period before, by symbol; empty without one, and where its coverage cannot be had."""
    for file in state.files_of(work.before.unit) if work.before else []:
        if file.table == "coverage" and file.schema_version >= 2:
            try:
                path = at_hand(work.layout, work.store, file, staging.path("fetched"))
            except (CorruptError, StoreError):
                return {}  # `verify` tells; the archiving of what follows does not wait for it
            rows = pq.read_table(path, columns=["symbol", "usual_events"], partitioning=None)
            return dict(zip(rows.column(0).to_pylist(), rows.column(1).to_pylist(), strict=True))
    return {}


def settled(
    files: Iterable[ArchiveFile], held: Mapping[str, ArchiveFile], staging: Staging, keep: Iterable[str] = ()
) -> tuple[list[ArchiveFile], list[str]]:
    """What an entry adds and removes so that of the unit's tables exactly `files` are current.

    held: the unit's current files by table. A staged file that is byte by byte what the archive holds is dropped and
    keeps its old name. Tables in `keep` are somebody else's to replace.
    """
    add, wanted = [], set(keep)
    for file in files:
        if file.table in held and held[file.table].sha256 == file.sha256:
            staging.path(file.path).unlink()
            wanted.add(file.table)
        else:
            add.append(file)
    return add, sorted(file.path for table, file in held.items() if table not in wanted)


def _source_files(
    work: Work, staging: Staging, current: Entry | None, held: Mapping[str, ArchiveFile], rolled_up: bool
) -> tuple[list[Path], list[InputFile]]:
    """The files to read, checked against what was recorded of them, and which of them are the archive's own."""
    paths: list[Path] = []
    archived: list[InputFile] = []
    live = work.inputs.live
    before = [] if current is None else [*current.inputs, *current.archived_inputs]
    present = {source.path for source in live}
    if work.inputs.gone or any(source.path not in present for source in before):
        # Live files of the current generation are no longer here: its rows are, in the archive.
        file = held.get(work.channel.name)
        if file is not None:
            anew = {source.path for source in before} & {source.path for source in live if source not in before}
            copy = _archived_copy(work, staging, file)
            paths.append(_without_writers(work, staging, copy, anew) if anew else copy)
            archived.append(InputFile(file.path, file.sha256, file.rows))
            live = [source for source in live if source not in before]
        elif work.inputs.gone and not rolled_up:
            raise CorruptError(f"{work.inputs.gone[0].path}: a sealed file is gone before it was archived; seal again")
    for source in live:
        path = work.layout.root / source.path
        _check(path, source.sha256, "its journals are intact: `depthvault rederive` makes it anew")
        paths.append(path)
    return paths, archived


def _archived_copy(work: Work, staging: Staging, file: ArchiveFile) -> Path:
    path = work.layout.archived(file.path)
    if not path.exists():
        path = staging.path("fetched/" + file.path)
        make_directories(path.parent)
        if work.store is None or work.store.download(file.path, path) is None:
            raise CorruptError(f"{file.path}: is needed to add late rows and not here; restore the period first")
    _check(path, file.sha256, "`depthvault restore` brings it back")
    return path


def _without_writers(work: Work, staging: Staging, path: Path, anew: set[str]) -> Path:
    """The archived rows without those of writers whose live files were made anew: these replace them."""
    names = {name for part in anew for name in _instances(work.layout.root / part)}
    target = staging.path(f"fetched/{work.channel.name}-kept.parquet")
    make_directories(target.parent)
    with pq.ParquetFile(path) as parquet, pq.ParquetWriter(target, parquet.schema_arrow, compression="lz4") as writer:
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group)
            writer.write_table(table.filter(pc.invert(pc.is_in(table.column("instance"), pa.array(sorted(names))))))
    return target


def _instances(path: Path) -> list[str]:
    names: list[str] = pc.unique(pq.read_table(path, columns=["instance"]).column(0)).to_pylist()
    return names


def _check(path: Path, sha256: str, remedy: str) -> None:
    if sha256_file(path) != sha256:
        raise CorruptError(f"{path}: is not what was recorded of it; {remedy}")


def described(key: str, path: Path, table: str, writer: ArchiveWriter, spans: Mapping[str, SymbolSpan]) -> ArchiveFile:
    first_ids = [span.first_id for span in spans.values() if span.first_id is not None]
    last_ids = [span.last_id for span in spans.values() if span.last_id is not None]
    return ArchiveFile(
        path=key, sha256=sha256_file(path), bytes=path.stat().st_size, rows=writer.rows,
        logical_sha256=writer.logical_sha256, table=table, symbols=dict(spans),
        first_us=min((span.first_us for span in spans.values()), default=None),
        last_us=max((span.last_us for span in spans.values()), default=None),
        first_id=min(first_ids, default=None), last_id=max(last_ids, default=None), schema_version=SCHEMA_VERSION,
    )  # fmt: skip


def _stage_quality(work: Work, staging: Staging, generation: int, encoding: Encoding) -> list[ArchiveFile]:
    files = []
    for name, rows in (("gaps", work.gaps), ("coverage", work.coverage)):
        if rows:
            files.append(stage_table(staging, name, quality_table(name, rows), work.channel.name, generation, encoding))
    return files


def stage_table(
    staging: Staging, name: str, table: pa.Table, channel: str, generation: int, encoding: Encoding
) -> ArchiveFile:
    """Stage a quality table of one channel under its key."""
    unit = staging.unit
    key = Layout.quality_key(name, unit.exchange, channel, unit.period, generation)
    path = staging.path(key)
    make_directories(path.parent)
    with ArchiveWriter(path, QUALITY[name], encoding) as writer:
        writer.write(table)
    return described(key, path, name, writer, {})
