"""Which files make up each table at this moment: archived ones by the manifests, sealed ones by their receipts.

Data moves from journals to live files to the archive. A live file counts as long as no manifest names it among its
inputs, so a period that is being archived is seen once, whichever moment a reader comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.archive import checkpoint, log, manifest
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.query.pruning import Range
from depthvault.schemas import CHANNELS, SCHEMA_VERSION
from depthvault.seal.receipts import Receipt, read_receipt

Token = tuple[int, frozenset[tuple[Path, int]]]
"""Number of the last manifest, and the receipts with their modification times."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """One Parquet file of a table.

    unit: exchange, channel and period label; rows with the same key lie in the same unit. received: first and last
    `received_time` in it, None when not known. symbols: all of them, None when not known. schema_version: that of its
    columns.
    """

    table: str
    unit: tuple[str, str, str]
    location: str
    bytes: int
    rows: int
    span: Range
    symbols: frozenset[str] | None = None
    received: Range | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def exchange(self) -> str:
        return self.unit[0]

    def within_unit(self) -> dict[str, frozenset[str] | Range]:
        """What is known of its exchange and symbols, for pruning a file of a unit that others belong to as well."""
        known: dict[str, frozenset[str] | Range] = {"exchange": frozenset((self.exchange,))}
        if self.symbols is not None:
            known["symbol"] = self.symbols
        return known

    def known(self) -> dict[str, frozenset[str] | Range]:
        """What is known of the values in its columns."""
        known = self.within_unit()
        if self.received is not None:
            known["received_time"] = self.received
        channel = CHANNELS.get(self.table)
        if channel is None:
            known["period"] = self.span
        elif channel.time:
            # The first time column decides an event's period wherever it is not null, and null passes no comparison.
            known[channel.time[0]] = self.span
        return known


@dataclass(frozen=True, slots=True)
class FileSet:
    """What there is: `archived` by the manifests, `pending` sealed but not yet archived. `token` changes with it."""

    archived: list[TableFile]
    pending: list[TableFile]
    token: Token


def _microseconds(period: Period) -> Range:
    return period.start_ns // 1000, period.end_ns // 1000 - 1


def entry_period(entry: manifest.Entry) -> Period:
    """The time that an entry is about."""
    if entry.kind == "day":
        return Period.parse(entry.period.replace("-", "") + "T0000", timedelta(days=1))
    return Period.parse(entry.period, timedelta(minutes=entry.period_minutes))


@dataclass(slots=True)
class Log:
    """The manifests read so far, folded; `advance` reads on. Manifests never change, so nothing is read twice.

    fetch: the bytes of a manifest by number, None when there is none (yet). checkpoint: where a snapshot of the log may
    be kept, which spares the reading of those before; None: nowhere. shared: gets the snapshot that the archive's
    writers keep beside it, for who has none of his own yet.
    """

    fetch: Callable[[int], bytes | None]
    checkpoint: Path | None = None
    shared: Callable[[], bytes | None] | None = None
    _state: manifest.ArchiveState | None = None

    @property
    def state(self) -> manifest.ArchiveState:
        """What the manifests read so far add up to."""
        if self._state is None:
            if self.checkpoint is None:
                self._state = manifest.ArchiveState()
            else:
                self._state = checkpoint.read(self.checkpoint, self.fetch)
            if not self._state.number and self.shared is not None and (data := self.shared()) is not None:
                self._state = checkpoint.believed(data, self.fetch)
                if self._state.number and self.checkpoint is not None:
                    checkpoint.keep(self.checkpoint, data)
        return self._state

    def advance(self) -> int:
        """Take in what is new. Returns the number of the last manifest. ChainError when one does not follow."""
        state = self.state
        since = state.number
        while (data := self.fetch(state.number + 1)) is not None:
            state.append(data, f"manifest {state.number + 1}")
        if self.checkpoint is not None:
            checkpoint.write_if_worth(self.checkpoint, state, since)
        return state.number

    def files(self, locate: Callable[[str], str]) -> list[TableFile]:
        """The current files. `locate` tells where a path of the archive can be read."""
        found = []
        for path, file in self.state.files.items():
            entry = self.state.current[self.state.owner[path]]
            received = None if file.first_us is None or file.last_us is None else (file.first_us, file.last_us)
            found.append(
                TableFile(
                    table=file.table,
                    unit=(entry.exchange, entry.channel, entry.period),
                    location=locate(path),
                    bytes=file.bytes,
                    rows=file.rows,
                    span=_microseconds(entry_period(entry)),
                    symbols=frozenset(file.symbols) or None,
                    received=received if file.table in CHANNELS else None,
                    schema_version=file.schema_version,
                )
            )
        return found


def pending_files(layout: Layout, known: Iterable[Receipt], archived: set[tuple[str, str]]) -> list[TableFile]:
    """The live files of complete receipts that no manifest has taken in."""
    found = []
    for receipt in known:
        if not receipt.complete:
            continue  # its rows still come from the journals
        for file in receipt.files:
            if (file.path, file.sha256) in archived or file.rows == 0:
                continue
            period = Period.parse(file.period, timedelta(minutes=receipt.period_minutes))
            path = layout.root / file.path
            found.append(
                TableFile(
                    table=file.channel,
                    unit=(receipt.exchange, file.channel, file.period),
                    location=str(path.absolute()),
                    bytes=file.bytes,
                    rows=file.rows,
                    span=_microseconds(period),
                    received=_received(path, file.sha256),
                    schema_version=receipt.schema_version,
                )
            )
    return found


@lru_cache(maxsize=65_536)
def _received(path: Path, sha256: str) -> Range | None:
    """First and last `received_time` in a live file, as its footer tells; None when it does not, or is gone."""
    del sha256  # a file that was sealed anew is another one
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return None
    index = next((i for i in range(metadata.num_columns) if metadata.schema.column(i).path == "received_time"), None)
    if index is None:
        return None
    found = [metadata.row_group(number).column(index).statistics for number in range(metadata.num_row_groups)]
    if not found or any(one is None or not one.has_min_max for one in found):
        return None
    ends = pa.array([min(one.min for one in found), max(one.max for one in found)], pa.timestamp("us", tz="UTC"))
    first, last = ends.cast(pa.int64()).to_pylist()
    return first, last


def _receipt_marks(layout: Layout) -> dict[Path, int]:
    """The receipts that stand, with their modification times: changes whenever one is written."""
    return {path: path.stat().st_mtime_ns for path in sorted(layout.live.glob("exchange=*/_receipts/*.json"))}


@dataclass(slots=True)
class LocalSources:
    """A data directory. Archived files that were cleaned up locally are read from the store when there is one."""

    layout: Layout
    store_url: str | None = None
    log: Log = field(init=False)
    _receipts: dict[tuple[Path, int], Receipt] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log = Log(log.manifests(self.layout), checkpoint.path_of(self.layout))

    def locate(self, path: str) -> str:
        """Where an archived file can be read: here, else in the store."""
        local = self.layout.archived(path)
        if local.exists() or self.store_url is None:
            return str(local.absolute())
        return f"{self.store_url}/{path}"

    def files(self) -> FileSet:
        """What there is now."""
        number = self.log.advance()
        marks = _receipt_marks(self.layout)
        self._receipts = {mark: self._receipts.get(mark) or read_receipt(mark[0]) for mark in marks.items()}
        pending = pending_files(self.layout, self._receipts.values(), self.log.state.inputs)
        return FileSet(self.log.files(self.locate), pending, (number, frozenset(marks.items())))

    def token(self) -> Token:
        """What `files().token` would be."""
        return self.log.advance(), frozenset(_receipt_marks(self.layout).items())


@dataclass(slots=True)
class StoreSources:
    """An archive in a bucket alone: `url` is `s3://bucket/prefix`, `fetch` gets a manifest by number, a snapshot of the
    log may be kept at `checkpoint` on this host, and `shared` gets the bucket's."""

    url: str
    fetch: Callable[[int], bytes | None]
    checkpoint: Path | None = None
    shared: Callable[[], bytes | None] | None = None
    log: Log = field(init=False)

    def __post_init__(self) -> None:
        self.log = Log(self.fetch, self.checkpoint, self.shared)

    def files(self) -> FileSet:
        """What there is now."""
        number = self.log.advance()
        return FileSet(self.log.files(lambda path: f"{self.url}/{path}"), [], (number, frozenset()))

    def token(self) -> Token:
        """What `files().token` would be."""
        return self.log.advance(), frozenset()
