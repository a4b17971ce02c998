"""Open interest of every recorded contract, every five minutes."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from plugins import polling
from plugins.schedules import START, defaults


@dag(
    dag_id="open_interest",
    schedule="*/5 * * * *",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=5),
    default_args=defaults(retries=1, timeout=timedelta(minutes=4)),
    tags=["depthvault", "collect"],
    doc_md=f"""### Open interest
{__doc__}

Binance futures have no stream of it and answer one symbol a request (weight 1). Lighter streams it to its collector.
""",
)
def open_interest() -> None:
    @task(doc_md="Asks for each symbol within the weight budget, and journals the answers.")
    async def fetch_open_interest() -> list[str]:
        return await polling.open_interest()

    fetch_open_interest()


open_interest()
