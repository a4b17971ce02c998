"""`archive.duckdb`: a DuckDB file with the archive's views, for people who use other tools.

The file holds no data and no secret, only views over the Parquet files that the manifests name now; it is as of its
making, and made again it is as of then. The running period is not in it: rows that lie in journals have no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from depthvault.durable import publish
from depthvault.errors import UsageError
from depthvault.layout import Layout
from depthvault.query import derived, pruning
from depthvault.query.catalog import TABLES, Catalog
from depthvault.query.sources import FileSet, LocalSources, Token
from depthvault.query.text import quote

ABOUT = "depthvault_archive"
"""The table that says what a saved file shows."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What was saved: files that the views read, files left out since only the store has them, the last manifest."""

    path: Path
    files: int
    absent: int
    manifest: int


@dataclass(slots=True)
class _ArchivedHere:
    """The archived files that lie on this disk."""

    sources: LocalSources
    absent: int = 0

    def files(self) -> FileSet:
        found = self.sources.files()
        here = [file for file in found.archived if Path(file.location).exists()]
        self.absent = len(found.archived) - len(here)
        return FileSet(here, [], found.token)

    def token(self) -> Token:
        return self.sources.token()


def save_views(layout: Layout, output: Path, now: datetime) -> Saved:
    """Make `output` a DuckDB file with a view of each table, the derived views and the macros, over archived files.

    An `output` that is there is replaced when it is such a file, whole or not at all. Raises UsageError when it is
    something else.
    """
    if output.exists() and not _is_ours(output):
        raise UsageError(f"{output}: is there and is no file that this command made; name another one")
    sources = _ArchivedHere(LocalSources(layout))
    views = Catalog(sources).views([pruning.Scan(table, {}) for table in TABLES])
    number, _ = sources.token()
    made = [f"CREATE VIEW {table} AS {views.bodies[table]}" for table in TABLES]
    with publish(output.absolute()) as temporary:
        with duckdb.connect(str(temporary)) as connection:
            connection.execute(
                f"CREATE TABLE {ABOUT} AS SELECT {quote(str(layout.root.absolute()))} AS data_dir, "
                f"{quote(now.isoformat())}::TIMESTAMPTZ AS made_time, {number} AS manifest, "
                f"{len(views.files)} AS files, {sources.absent} AS files_in_store_only"
            )
            connection.execute(";".join([*made, *derived.DEFINITIONS.values()]))
            connection.execute("CHECKPOINT")
        temporary.with_name(temporary.name + ".wal").unlink(missing_ok=True)
    return Saved(output, len(views.files), sources.absent, number)


def _is_ours(path: Path) -> bool:
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            found = connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [ABOUT]).fetchone()
    except duckdb.Error:
        return False
    return found is not None
