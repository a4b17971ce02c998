"""Frees local disk of what the object store has proved to hold, after each archive run."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Asset, dag, task

from plugins import archiving
from plugins.schedules import ARCHIVE, START, defaults


@dag(
    dag_id="cleanup_local",
    schedule=[Asset(name="archive", uri=ARCHIVE)],
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args=defaults(timeout=timedelta(hours=1)),
    tags=["depthvault", "archive"],
    doc_md=f"""### Local cleanup
{__doc__}

Archive files go after `archive.keep`, journals after `journal.keep`; each only when its object was read back and its
hash compared. Without an object store nothing is deleted.
""",
)
def cleanup_local() -> None:
    @task(doc_md="Deletes by age, and only what is proved.")
    def cleanup() -> str:
        return archiving.cleanup()

    cleanup()


cleanup_local()
