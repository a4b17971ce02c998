"""What each venue lists and under which rules, once a day; collectors look every few minutes themselves."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from plugins import polling
from plugins.schedules import START, defaults


@dag(
    dag_id="symbol_universe",
    schedule="7 0 * * *",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args=defaults(retries=5, timeout=timedelta(minutes=5)),
    tags=["depthvault", "collect"],
    doc_md=f"""### Symbol universe
{__doc__}

Tick and lot sizes, status, listings and delistings become rows of `instrument`, one at each change.
""",
)
def symbol_universe() -> None:
    @task(doc_md="Asks every enabled venue for its catalogue, and journals the answer.")
    async def fetch_catalogues() -> list[str]:
        return await polling.symbol_universe()

    fetch_catalogues()


symbol_universe()
