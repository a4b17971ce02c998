"""What was recorded yesterday, what is missing, how long the disk will last: written, mailed, sent to Telegram."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

from plugins import reporting
from plugins.schedules import START, defaults


@dag(
    dag_id="daily_report",
    schedule="40 0 * * *",  # the last hour of the day is archived by then
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=3),
    default_args=defaults(retries=4, timeout=timedelta(minutes=20)),
    params={
        "date": Param(None, type=["null", "string"], format="date", description="The day (UTC). Empty: yesterday.")
    },
    tags=["depthvault", "report"],
    doc_md=f"""### Daily report
{__doc__}

* A function of the manifests and quality tables: nothing is measured anew. It lies in `reports/YYYY-MM-DD/`.
* Sent as HTML by mail (`SMTP_*`, `alerts.mail_to`) and as text by Telegram (`TELEGRAM_*`), when these are configured.
  A way that fails is retried alone.
* Trigger it with a date to write an earlier day's report again.
""",
)
def daily_report() -> None:
    @task(doc_md="Writes report.html and report.txt.")
    def write_report() -> str:
        return reporting.write(get_current_context()["params"].get("date"))

    @task(doc_md="Sends it by mail and Telegram.")
    def send_report(day: str) -> str:
        return reporting.send(day)

    send_report(write_report())  # type: ignore[arg-type]  # an XComArg while the DAG is built


daily_report()
