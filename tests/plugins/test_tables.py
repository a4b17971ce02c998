"""The task that keeps the Iceberg tables works only where it is asked for, and says what it did."""

from __future__ import annotations

from pathlib import Path

from plugins import archiving
from tests.depthvault.archive.sealed import FUTURES
from tests.depthvault.imports.earlier import s1, s1_diffs
from tests.docs.pages import works
from tests.plugins.conftest import Configure


def brought(tmp_path: Path) -> None:
    s1(tmp_path / "old", "diff_orderbooks", s1_diffs(), "futures")
    works(f"depthvault import {tmp_path / 'old'} --layout s1 --exchange {FUTURES}")


def test_tables_follow_the_manifests_where_they_are_asked_for(tmp_path: Path, configure: Configure) -> None:
    data = configure(iceberg={"enabled": True})
    brought(tmp_path)
    assert archiving.sync_tables() == "1 tables: 1 files registered, 0 taken out"
    assert archiving.sync_tables() == "1 tables: 0 files registered, 0 taken out"
    assert (data / "iceberg" / "catalog.sqlite").exists()


def test_no_tables_are_made_unasked(tmp_path: Path, configure: Configure) -> None:
    data = configure()
    brought(tmp_path)
    assert archiving.sync_tables() == "iceberg.enabled is false: no tables are kept"
    assert not (data / "iceberg").exists()
