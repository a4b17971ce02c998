"""Keeps Airflow's own database and logs small, each night."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from plugins import housekeeping
from plugins.schedules import START, defaults


@dag(
    dag_id="airflow_housekeeping",
    schedule="23 3 * * *",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args=defaults(retries=1, timeout=timedelta(minutes=40)),
    tags=["depthvault", "operate"],
    doc_md=f"""### Airflow housekeeping
{__doc__}

Records of runs are kept for two weeks, task logs for one. Nothing of the archive depends on either.
""",
)
def airflow_housekeeping() -> None:
    @task(doc_md="Runs `airflow db clean`.")
    def clean_database() -> str:
        return housekeeping.clean_database()

    @task(doc_md="Deletes old task logs.")
    def prune_logs() -> str:
        return housekeeping.prune_airflow_logs()

    clean_database()
    prune_logs()


airflow_housekeeping()
