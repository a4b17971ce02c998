"""The periods of each day become one file a symbol: the layout that research reads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, get_current_context, task

from plugins import archiving
from plugins.archiving import Day
from plugins.schedules import START, defaults


@dag(
    dag_id="daily_rollup",
    schedule="10 3 * * *",  # a day is left alone for two hours, for rows that come late
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12),
    default_args=defaults(timeout=timedelta(hours=4)),
    tags=["depthvault", "archive"],
    doc_md=f"""### Daily roll-up
{__doc__}

Each day file is read again and proved equal, row by row, before the periods' files are superseded; with an object store
it is read back from there first. Quality tables stay with their periods. Days that were missed are made up for.
""",
)
def daily_rollup() -> None:
    @task(doc_md="Lists the venues and days that are over, settled and whole.")
    def find_days() -> list[Day]:
        return archiving.find_days()

    @task(
        map_index_template="{{ unit }}",
        max_active_tis_per_dag=1,
        doc_md="One venue and day: written and proved.",
    )
    def roll_up(day: Day) -> str:
        get_current_context()["unit"] = f"{day['exchange']} {day['date']}"  # type: ignore[typeddict-unknown-key]
        return archiving.roll_up(day)

    @task(
        trigger_rule="none_failed",  # also on a day without anything to roll up: imports make tables too
        doc_md="Brings the Iceberg tables to what the manifests say, where `iceberg.enabled` asks for them.",
    )
    def sync_tables() -> str:
        return archiving.sync_tables()

    days: Any = find_days()
    roll_up.expand(day=days) >> sync_tables()


daily_rollup()
