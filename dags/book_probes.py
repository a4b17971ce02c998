"""Asks for each whole book on a second connection, where books come in the stream and REST has none with an id."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from plugins import polling
from plugins.configuration import config
from plugins.schedules import START, defaults, probe_schedule


@dag(
    dag_id="book_probes",
    schedule=probe_schedule(config().exchanges.lighter.snapshot_cadence),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=55),
    default_args=defaults(retries=1, timeout=timedelta(minutes=25)),
    tags=["depthvault", "collect"],
    doc_md=f"""### Book probes
{__doc__}

* Lighter: `snapshot_cadence` (an hour) between two probes of a market. The answer to a subscription is the whole book
  with its nonce; it becomes a row of `depth_snapshot`, and the book audit replays the recorded book up to that nonce.
* At most a message a second, within the limit that all our connections share; collectors go first.
* A market that gave no answer is declared and probed again in the next run.
""",
)
def book_probes() -> None:
    @task(doc_md="Subscribes to one market after the other, journals its book, unsubscribes; says what it did.")
    async def probe_books() -> list[str]:
        return await polling.book_probes()

    probe_books()


book_probes()
