"""Iceberg tables brought to what the manifests say: new files registered, superseded ones taken out, in one commit.

A table `<exchange>.<channel>` has the channel's columns, all optional (imported rows lack some), and no partitions:
each file holds one symbol and day, and its statistics tell readers which. The snapshot's properties name the manifest
that it shows.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from depthvault.archive import log
from depthvault.archive.manifest import ArchiveFile, ArchiveState
from depthvault.config import Config, Secrets
from depthvault.durable import make_directories
from depthvault.errors import ArchiveError
from depthvault.iceberg.catalog import in_store, open_catalog
from depthvault.imports.source import IMPORT
from depthvault.layout import Layout
from depthvault.schemas import CHANNELS

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

_PROPERTIES = {
    # The files are the archive's: no maintenance of the table may delete them.
    "gc.enabled": "false",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
    "format-version": "2",
}


@dataclass(frozen=True, slots=True)
class Synced:
    """What became of one table: files and rows in it now, files registered and taken out in this run."""

    exchange: str
    channel: str
    files: int
    rows: int
    added: int
    removed: int

    @property
    def table(self) -> str:
        return f"{self.exchange}.{self.channel}"


def sync(layout: Layout, config: Config, secrets: Secrets, *, hours: bool = False) -> list[Synced]:
    """Bring all tables up to date: rolled-up days and imported rows, with `hours` also periods not yet rolled up.

    A second run commits nothing. Raises ArchiveError when a file is not there, or the table has not the rows that
    the manifests tell of.
    """
    state = log.load(layout)
    root = _root(layout, config, secrets)
    wanted = _wanted(state, root, hours)
    with _alone(layout):
        catalog = open_catalog(layout, config, secrets)
        names = sorted(set(wanted) | _existing(catalog, config))
        return [_sync_table(catalog, state, name, wanted.get(name, {})) for name in names]


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    make_directories(layout.run)
    with (layout.run / ".iceberg.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _root(layout: Layout, config: Config, secrets: Secrets) -> str:
    if in_store(config, secrets):
        return f"s3://{secrets.r2_bucket_name}/{config.store.prefix.strip('/')}".rstrip("/")
    return f"file://{layout.archive.absolute()}"


def _wanted(state: ArchiveState, root: str, hours: bool) -> dict[tuple[str, str], dict[str, ArchiveFile]]:
    """Of each exchange and channel the current files by location."""
    kinds = {"day", IMPORT} | ({"hour"} if hours else set())
    found: dict[tuple[str, str], dict[str, ArchiveFile]] = {}
    for path, file in state.files.items():
        kind, exchange, channel, _ = state.owner[path]
        if file.table == channel and channel in CHANNELS and kind in kinds:
            found.setdefault((exchange, channel), {})[f"{root}/{path}"] = file
    return found


def _existing(catalog: Catalog, config: Config) -> set[tuple[str, str]]:
    """Tables of ours that the catalog has: one whose files are all gone is emptied, not forgotten."""
    namespaces = {space[0] for space in catalog.list_namespaces()}
    return {
        (exchange, name[-1])
        for exchange in type(config.exchanges).model_fields
        if exchange in namespaces
        for name in catalog.list_tables(exchange)
        if name[-1] in CHANNELS
    }


def schema_of(channel: str) -> pa.Schema:
    """The table's columns: the channel's, each optional."""
    return pa.schema([pa.field(each.name, _optional(each.type), True) for each in CHANNELS[channel].schema])


def _optional(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind.value_type, True)) if pa.types.is_list(kind) else kind


def _table(catalog: Catalog, exchange: str, channel: str) -> Table:
    catalog.create_namespace_if_not_exists(exchange)
    return catalog.create_table_if_not_exists((exchange, channel), schema_of(channel), properties=dict(_PROPERTIES))


def _sync_table(catalog: Catalog, state: ArchiveState, name: tuple[str, str], wanted: dict[str, ArchiveFile]) -> Synced:
    from pyiceberg.exceptions import RESTError, ValidationException

    table_name = ".".join(name)
    try:
        table = _table(catalog, *name)
        held = _registered(table)
        gone = [data for location, data in held.items() if location not in wanted]
        new = sorted(wanted.keys() - held.keys())
        if new or gone:
            _commit(table, new, gone, {"depthvault.manifest": str(state.number), "depthvault.sha256": state.head or ""})
            held = _registered(table)
    except (RESTError, ValidationException, OSError, ValueError) as error:
        raise ArchiveError(f"Iceberg table {table_name}: {' '.join(str(error).split())[:300]}") from error
    for location, data in held.items():
        if data.record_count != wanted[location].rows:
            raise ArchiveError(
                f"Iceberg table {table_name}: {location} has {data.record_count} rows, its manifest tells of "
                f"{wanted[location].rows}; `depthvault verify` says more"
            )
    return Synced(*name, len(held), sum(data.record_count for data in held.values()), len(new), len(gone))


def _registered(table: Table) -> dict[str, DataFile]:
    """The table's data files by location."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return {}
    entries = (
        entry
        for each in snapshot.manifests(table.io)
        for entry in each.fetch_manifest_entry(table.io, discard_deleted=True)
    )
    return {entry.data_file.file_path: entry.data_file for entry in entries}


def _commit(table: Table, new: list[str], gone: list[DataFile], properties: dict[str, str]) -> None:
    """One snapshot in which `new` files are there and `gone` ones are not."""
    from pyiceberg.io.pyarrow import parquet_files_to_data_files
    from pyiceberg.table import TableProperties

    with table.transaction() as transaction:
        if not gone:
            transaction.add_files(new, snapshot_properties=properties)
            return
        if transaction.table_metadata.name_mapping() is None:
            mapping = transaction.table_metadata.schema().name_mapping.model_dump_json()
            transaction.set_properties({TableProperties.DEFAULT_NAME_MAPPING: mapping})
        with transaction.update_snapshot(snapshot_properties=properties).overwrite() as change:
            for data_file in gone:
                change.delete_data_file(data_file)
            for data_file in parquet_files_to_data_files(table.io, transaction.table_metadata, iter(new)):
                change.append_data_file(data_file)
