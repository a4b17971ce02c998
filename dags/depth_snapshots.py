"""Full-depth REST snapshots of every symbol, each minute: the independent witness of every book."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from plugins import polling
from plugins.schedules import START, defaults


@dag(
    dag_id="depth_snapshots",
    schedule="* * * * *",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=2),
    default_args=defaults(retries=0, timeout=timedelta(seconds=70)),
    tags=["depthvault", "collect"],
    doc_md=f"""### Depth snapshots
{__doc__}

* Every venue and symbol that is due, at `snapshot_limit` levels a side, through the weight budget that all processes
  share. Beyond the budget symbols rotate at a published cadence; the depth is never lowered.
* Answers are journaled verbatim (writer `rest-<host>`) and sealed and archived like frames.
* Not retried: the next minute is the retry. A missing snapshot shows in `coverage`.
""",
)
def depth_snapshots() -> None:
    @task(doc_md="One process gathers all venues: asks what is due in this minute, journals, says what it did.")
    async def fetch_snapshots() -> list[str]:
        return await polling.depth_snapshots()

    fetch_snapshots()


depth_snapshots()
