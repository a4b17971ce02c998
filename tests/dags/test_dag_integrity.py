"""Every DAG file loads as Airflow loads it, with the ids, schedules and manners that are promised."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.schedules import archive_schedule
from tests.dags.scratch_airflow import ROOT, ScratchAirflow

SCHEDULES = {
    "depth_snapshots": "* * * * *",
    "archive_hour": "2-59/10 * * * *",
    "cleanup_local": None,  # by asset
    "book_probes": "17 * * * *",
    "funding_rates": "1 * * * *",
    "open_interest": "*/5 * * * *",
    "symbol_universe": "7 0 * * *",
    "trade_backfill": "35 * * * *",
    "daily_report": "40 0 * * *",
    "daily_rollup": "10 3 * * *",
    "airflow_housekeeping": "23 3 * * *",
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("airflow")
    config = home / "depthvault.yaml"
    config.write_text(yaml.safe_dump({"data_dir": str(home / "data")}))
    return ScratchAirflow(home, config).load()


def test_no_file_fails_to_load(loaded: dict[str, Any]) -> None:
    assert loaded["errors"] == {}


def test_the_promised_dags_are_there_with_their_schedules(loaded: dict[str, Any]) -> None:
    assert {name: dag["plain"] for name, dag in loaded["dags"].items()} == SCHEDULES


def test_there_is_one_file_a_dag_named_after_it(loaded: dict[str, Any]) -> None:
    files = {path.stem for path in (ROOT / "dags").glob("*.py")} - {"__init__"}
    assert files == set(loaded["dags"])


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_dag_is_explained_owned_and_bounded(name: str, loaded: dict[str, Any]) -> None:
    dag = loaded["dags"][name]
    assert len(dag["doc"]) > 100
    assert dag["owner"] == "depthvault"
    assert "depthvault" in dag["tags"]
    assert (dag["catchup"], dag["runs"]) == (False, 1)
    assert all(dag["timeouts"])
    assert all(dag["docs"])
    assert all(dag["alerts"])


def test_archive_hour_has_the_steps_in_their_order(loaded: dict[str, Any]) -> None:
    steps = ["compact", "validate", "upload", "verify_store", "publish"]
    expected = ["find_hours", *(f"archive_unit.{step}" for step in steps), "more", "run_again"]
    assert sorted(loaded["dags"]["archive_hour"]["tasks"]) == sorted(expected)


@pytest.mark.parametrize(
    ("period", "schedule"),
    [
        (timedelta(hours=1), "2-59/10 * * * *"),
        (timedelta(minutes=1), timedelta(seconds=20)),
        (timedelta(minutes=5), timedelta(seconds=100)),
    ],
)
def test_short_periods_are_looked_for_several_times_each(period: timedelta, schedule: object) -> None:
    assert archive_schedule(period) == schedule


def test_dag_files_hold_no_work(loaded: dict[str, Any]) -> None:
    del loaded
    for path in (ROOT / "dags").glob("*.py"):
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 100, path
        imported = [line for line in lines if line.startswith(("import ", "from "))]
        assert all("depthvault" not in line.replace("depthvault://", "") for line in imported), path
