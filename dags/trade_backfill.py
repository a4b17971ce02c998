"""Fetches missing trades by id and missing candles again, as far back as the venues serve them."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from plugins import polling
from plugins.schedules import START, defaults


@dag(
    dag_id="trade_backfill",
    schedule="35 * * * *",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args=defaults(retries=2, timeout=timedelta(minutes=55)),
    tags=["depthvault", "archive"],
    doc_md=f"""### Trade backfill
{__doc__}

* What is missing stands in `gaps` with the status `open`. Aggregated trades have consecutive ids, so their holes can be
  closed exactly; candles are asked for by time. Futures serve the last 48 hours.
* Answers are journaled and marked `refill`; the archive makes a new generation in which the gap is `refilled`.
* Takes weight only from what is spare (half of our share), so that snapshots and resyncs go first.
* Books cannot be fetched again: their gaps stay declared.
""",
)
def trade_backfill() -> None:
    @task(doc_md="Reads the open gaps of the last two days, asks, and journals the answers.")
    async def refill() -> list[str]:
        return await polling.trade_backfill()

    refill()


trade_backfill()
