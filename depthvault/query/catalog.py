"""DuckDB over the archive: a view for each channel and quality table, the running period included.

Each view is the archived files, and the sealed but not yet archived files and unsealed journals deduplicated by key.
A statement gets a database of its own, with views over those files alone that can hold rows it wants (`pruning`).
"""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Protocol

import duckdb
import pyarrow as pa

from depthvault.errors import ArchiveError
from depthvault.query import derived, pruning
from depthvault.query.sources import FileSet, TableFile, Token
from depthvault.query.text import quote
from depthvault.schemas import CHANNELS, QUALITY, columns_of

TABLES: tuple[str, ...] = (*CHANNELS, *QUALITY)
"""Every table that has a view."""

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}
_ATTEMPTS = 4
_END_OF_TIME = 2**62


def sql_type(kind: pa.DataType) -> str:
    """DuckDB's name of a column type of the data dictionary."""
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    names: dict[pa.DataType, str] = {
        pa.string(): "VARCHAR",
        pa.int64(): "BIGINT",
        pa.int32(): "INTEGER",
        pa.float64(): "DOUBLE",
        pa.bool_(): "BOOLEAN",
    }
    return "TIMESTAMPTZ" if pa.types.is_timestamp(kind) else names[kind]


def schema_of(table: str) -> pa.Schema:
    """The columns that the files of `table` have."""
    return CHANNELS[table].schema if table in CHANNELS else QUALITY[table]


def columns(table: str) -> list[tuple[str, str]]:
    """Name and DuckDB type of each column of a view: `exchange` first."""
    named = [(name, sql_type(schema_of(table).field(name).type)) for name in schema_of(table).names]
    return [("exchange", "VARCHAR"), *(column for column in named if column[0] != "exchange")]


def _quoted(paths: Iterable[str]) -> str:
    return ", ".join(map(quote, sorted(paths)))


def _names(table: str) -> str:
    return ", ".join(f'"{name}"' for name, _ in columns(table))


@dataclass(frozen=True, slots=True)
class Secret:
    """Access to a bucket. `key` and `secret` are never shown."""

    scope: str
    endpoint: str | None
    region: str
    key: str = field(repr=False)
    secret: str = field(repr=False)

    def statement(self) -> str:
        """The statement that makes DuckDB know it. Not to be logged."""
        options = [
            "TYPE s3", f"SCOPE {quote(self.scope)}", f"KEY_ID {quote(self.key)}", f"SECRET {quote(self.secret)}",
            f"REGION {quote(self.region)}",
        ]  # fmt: skip
        if self.endpoint is not None:
            host = self.endpoint.removeprefix("https://").removeprefix("http://").rstrip("/")
            plain = self.endpoint.startswith("http://")
            options += [f"ENDPOINT {quote(host)}", "URL_STYLE 'path'", f"USE_SSL {not plain}"]
        return f"CREATE SECRET store ({', '.join(options)})"


class Sources(Protocol):
    """Where the files are."""

    def files(self) -> FileSet: ...
    def token(self) -> Token: ...


class Journals(Protocol):
    """Rows that lie in journals only."""

    @property
    def exchanges(self) -> Sequence[str]: ...

    def earliest(self, exchange: str) -> int | None:
        """Before when, in µs since the epoch, none of them was received; None: there are none."""

    def rows(self, exchange: str, channel: str) -> pa.Table:
        """All of them, of one channel."""


def httpfs_path() -> Path:
    """DuckDB's extension for S3, which comes as a wheel, so that nothing is downloaded. ArchiveError when missing."""
    try:
        folder = resources.files("duckdb_extension_httpfs")
    except ModuleNotFoundError as error:
        raise ArchiveError("reading a bucket needs the package duckdb-extension-httpfs") from error
    with resources.as_file(folder.joinpath("extensions", f"v{duckdb.__version__}", "httpfs.duckdb_extension")) as path:
        if not path.exists():
            raise ArchiveError(f"duckdb-extension-httpfs holds no extension for duckdb {duckdb.__version__}")
        return path


class Planner:
    """Empty stand-ins of all tables, to ask DuckDB what a statement reads. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._connection = duckdb.connect(config=_CONFIG)
        self._connection.execute("SET TimeZone = 'UTC'")
        pruning.prepare(self._connection)
        for table in TABLES:
            declared = ", ".join(f'"{name}" {kind}' for name, kind in columns(table))
            self._connection.execute(f"CREATE TABLE {table} ({declared})")
        for statement in derived.DEFINITIONS.values():
            self._connection.execute(statement)
        self._connection.execute("SET enable_external_access = false; SET lock_configuration = true")

    def scans(self, sql: str) -> list[pruning.Scan]:
        """Every reading of a table that `sql` asks for."""
        with self._lock:
            return pruning.scans(self._connection, sql, TABLES)


@lru_cache(maxsize=1)
def planner() -> Planner:
    """The planner of this process."""
    return Planner()


def _admitted(scans: Sequence[pruning.Scan], known: Mapping[str, frozenset[str] | pruning.Range]) -> bool:
    return any(scan.admits(known) for scan in scans)


def _periods(table: str, rows: pa.Table, file_set: FileSet, exchange: str) -> set[tuple[str, str, str]]:
    """The units that rows of a journal may share keys with: those whose time the rows' own time falls into."""
    channel = CHANNELS[table]
    times: set[int] = set()
    for name in (*channel.time, "received_time"):
        column = rows.column(name).drop_null()
        if len(column):
            minutes = pa.compute.unique(pa.compute.floor_temporal(column, unit="minute").cast(pa.int64()))
            times.update(minutes.to_pylist())
    shared = set()
    for file in (*file_set.archived, *file_set.pending):
        if file.table == table and file.exchange == exchange and file.unit not in shared:
            low, high = file.span
            if any(low <= moment <= high for moment in times):
                shared.add(file.unit)
    return shared


def _rows_of(files: Iterable[TableFile], table: str, rank: int) -> list[str]:
    """One SELECT for each exchange over its files; columns that files of an earlier schema lack are null."""
    since = {column.name: column.since for column in columns_of(table)}
    alike: dict[tuple[str, frozenset[str]], list[str]] = {}
    for file in files:
        lacking = frozenset(name for name, version in since.items() if version > file.schema_version)
        alike.setdefault((file.exchange, lacking), []).append(file.location)
    ranked = f", {rank} AS _rank" if rank >= 0 else ""
    found = []
    for (exchange, lacking), paths in sorted(alike.items(), key=lambda item: (item[0][0], sorted(item[0][1]))):
        own = ", ".join(
            f'NULL::{kind} AS "{name}"' if name in lacking else f'"{name}"' for name, kind in columns(table)[1:]
        )
        found.append(
            f"SELECT {quote(exchange)} AS exchange, {own}{ranked} FROM read_parquet([{_quoted(paths)}]"
            ", hive_partitioning = false)"
        )
    return found


def _merged(table: str, parts: Sequence[str]) -> str:
    """Rows of files that may share keys, each key once: the archive's row first, then by instance and receipt."""
    channel = CHANNELS[table]
    union = " UNION ALL ".join(parts)
    key = ", ".join(f'"{name}"' for name in dict.fromkeys(("exchange", "symbol", *channel.key)))
    if table == "instrument":
        # One row at each change: a state that comes back is a change, so rows are compared with the one before.
        state = f"({', '.join(channel.key)})"
        window = f"lag({state}) OVER (PARTITION BY exchange, symbol ORDER BY received_time, _rank)"
        return f"SELECT {_names(table)} FROM ({union}) QUALIFY {window} IS DISTINCT FROM {state}"
    window = f"row_number() OVER (PARTITION BY {key} ORDER BY _rank, instance, received_time)"
    return f"SELECT {_names(table)} FROM ({union}) QUALIFY {window} = 1"


def _empty(table: str) -> str:
    nulls = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in columns(table))
    return f"SELECT {nulls} WHERE false"


@dataclass(slots=True)
class _Views:
    """What one database shows: the text of each view, the journal rows that they need, and the files they read."""

    bodies: dict[str, str] = field(default_factory=dict)
    rows: dict[str, pa.Table] = field(default_factory=dict)
    files: list[TableFile] = field(default_factory=list)


@dataclass(slots=True)
class Catalog:
    """Opens databases over `sources` and `journals`. `secret`: access to the bucket where archived files may lie."""

    sources: Sources
    journals: Journals | None = None
    secret: Secret | None = None
    _files: FileSet | None = None

    def _file_set(self) -> FileSet:
        if self._files is None or self._files.token != self.sources.token():
            self._files = self.sources.files()
        return self._files

    def _journals_matter(self, exchange: str, scans: Sequence[pruning.Scan]) -> bool:
        """Whether rows that journals alone hold can be wanted."""
        named = {"exchange": frozenset((exchange,))}
        if self.journals is None or not _admitted(scans, named):
            return False
        earliest = self.journals.earliest(exchange)
        return earliest is not None and _admitted(scans, {**named, "received_time": (earliest, _END_OF_TIME)})

    def _journal_rows(self, table: str, scans: Sequence[pruning.Scan]) -> dict[str, pa.Table]:
        """What journals alone hold, by exchange; not decoded where no reading can want it."""
        found: dict[str, pa.Table] = {}
        if self.journals is None or table not in CHANNELS:
            return found
        for exchange in self.journals.exchanges:
            if self._journals_matter(exchange, scans):
                rows = self.journals.rows(exchange, table)
                if rows.num_rows:
                    found[exchange] = rows
        return found

    def _view(self, table: str, scans: Sequence[pruning.Scan], file_set: FileSet, views: _Views) -> str:
        journal = self._journal_rows(table, scans)
        pending = [file for file in file_set.pending if file.table == table]
        shared = {file.unit for file in pending}
        for exchange, rows in journal.items():
            shared |= _periods(table, rows, file_set, exchange)
        archived = [file for file in file_set.archived if file.table == table]
        alone = [file for file in archived if file.unit not in shared and _admitted(scans, file.known())]
        # Of a unit that several writers tell about, all files are read or none: a row hides its own duplicates.
        told = [file for file in (*archived, *pending) if file.unit in shared]
        live_exchanges = set(journal)
        wanted = {
            file.unit for file in told if file.exchange in live_exchanges or _admitted(scans, file.known())
        }  # fmt: skip
        together = [file for file in told if file.unit in wanted and _admitted(scans, file.within_unit())]
        waiting = {id(file) for file in pending}
        parts = _rows_of((file for file in together if id(file) not in waiting), table, 0)
        parts += _rows_of((file for file in together if id(file) in waiting), table, 1)
        own = ", ".join(f'"{name}"' for name, _ in columns(table)[1:])
        for exchange, rows in journal.items():
            name = f"_journal_{table}_{exchange}"
            views.rows[name] = rows
            parts.append(f"SELECT {quote(exchange)} AS exchange, {own}, 2 AS _rank FROM {name}")
        views.files += [*alone, *together]
        bodies = _rows_of(alone, table, -1) + ([_merged(table, parts)] if parts else [])
        return " UNION ALL ".join(f"({body})" for body in bodies) or _empty(table)

    def views(self, scans: Sequence[pruning.Scan]) -> _Views:
        """The views that these readings need; tables that are not read are empty."""
        for _ in range(_ATTEMPTS):
            file_set, views = self._file_set(), _Views()
            for table in TABLES:
                of_table = [scan for scan in scans if scan.table == table]
                views.bodies[table] = self._view(table, of_table, file_set, views) if of_table else _empty(table)
            gone = [file for file in views.files if not file.location.startswith("s3:") and not _there(file)]
            # A period that was sealed or archived while its journals were decoded would be missed or seen twice.
            if file_set.token == self.sources.token() and not gone:
                return views
            self._files = None
        if gone:
            raise ArchiveError(f"{gone[0].location}: the manifests name it, but it is not here and no store is set up")
        raise ArchiveError("the archive kept changing while it was read; ask again")

    def settled(self, table: str, scan: pruning.Scan) -> list[str] | None:
        """The files of a reading, by period, when archived files alone make it up, each event once; else None."""
        journaled = () if self.journals is None else self.journals.exchanges
        if any(self._journals_matter(exchange, [scan]) for exchange in journaled):
            return None
        file_set = self._file_set()
        pending = [file for file in file_set.pending if file.table == table]
        wanted = [file for file in file_set.archived if file.table == table and scan.admits(file.known())]
        shared = {file.unit for file in pending}
        if any(scan.admits(file.known()) for file in pending) or any(file.unit in shared for file in wanted):
            return None
        return [file.location for file in sorted(wanted, key=lambda file: file.span)]

    def connect(self, sql: str | None = None, *, locked: bool = False) -> duckdb.DuckDBPyConnection:
        """A database with all views; those that `sql` reads are narrowed to the files that it can want.

        locked: no other file, no network but the archive's bucket, no extension, no setting can be reached from it.
        """
        if sql is None:
            scans, names = [pruning.Scan(table, {}) for table in TABLES], set(TABLES) | derived.DEFINITIONS.keys()
        else:
            scans = planner().scans(sql)
            names = derived.mentioned(sql, TABLES) | {scan.table for scan in scans}
        return self._open(self.views(scans), names, locked)

    def _open(self, views: _Views, names: set[str], locked: bool) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(config=_CONFIG)
        spill = f"{_spill_folder()}/{next(_databases)}"
        connection.execute(f"SET TimeZone = 'UTC'; SET temp_directory = {quote(spill)}")
        if any(file.location.startswith("s3:") for file in views.files):
            if self.secret is None:
                raise ArchiveError("the archive lies in a bucket, but R2_* is not set: no access to it")
            connection.execute(f"LOAD {quote(str(httpfs_path()))}")
            connection.execute(self.secret.statement())
        for name, rows in views.rows.items():
            connection.register(name, rows)
        created = [f"CREATE VIEW {table} AS {views.bodies[table]}" for table in TABLES if table in names]
        created += [text for name, text in derived.DEFINITIONS.items() if name in names]
        connection.execute(";".join(created))
        if locked:
            paths = _quoted(file.location for file in views.files)
            connection.execute(
                f"SET allowed_paths = [{paths}]; SET allow_community_extensions = false; "
                "SET enable_external_access = false; SET lock_configuration = true"
            )
        return connection


_databases = itertools.count()


@lru_cache(maxsize=1)
def _spill_folder() -> str:
    """Where databases of this process spill to when memory is short: readable by nobody else, gone at the end."""
    folder = tempfile.mkdtemp(prefix="depthvault-spill-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _there(file: TableFile) -> bool:
    return Path(file.location).exists()
