"""Settled funding rates with their intervals, each hour."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from plugins import polling
from plugins.schedules import START, defaults


@dag(
    dag_id="funding_rates",
    schedule="1 * * * *",  # settlements are stamped milliseconds after the hour, and show within the minute
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=30),
    default_args=defaults(retries=5, timeout=timedelta(minutes=5)),
    tags=["depthvault", "collect"],
    doc_md=f"""### Funding rates
{__doc__}

Asks for what was settled since the last success (two days back at most), so an hour without the venue is made up for.
Rows that come twice are merged by their key.
""",
)
def funding_rates() -> None:
    @task(doc_md="Asks for intervals and settled rates, and journals both answers.")
    async def fetch_funding() -> list[str]:
        return await polling.funding_rates()

    fetch_funding()


funding_rates()
