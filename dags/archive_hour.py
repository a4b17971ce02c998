"""Takes each sealed period into the archive: compacted, judged, uploaded, read back, published."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Asset, dag, get_current_context, task, task_group

from plugins import archiving
from plugins.archiving import Period
from plugins.configuration import config
from plugins.schedules import ARCHIVE, ARCHIVED, START, archive_schedule, defaults

archive = Asset(name="archive", uri=ARCHIVE)
hours = Asset(name="archived_hours", uri=ARCHIVED)  # apart: an event with a partition wakes no DAG that has none


def named(unit: Period) -> Period:
    """Give the mapped task its name in the UI: `binance_spot 20261120T0400`."""
    get_current_context()["unit"] = f"{unit['exchange']} {unit['period']}"  # type: ignore[typeddict-unknown-key]
    return unit


@dag(
    dag_id="archive_hour",
    schedule=archive_schedule(config().archive.period),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    default_args=defaults(timeout=timedelta(hours=1)),
    tags=["depthvault", "archive"],
    doc_md=f"""### Archive
{__doc__}

`find_hours` → for each venue its oldest period: `compact` → `validate` → `upload` → `verify_store` → `publish`;
and the next run follows at once while periods are left.

* A period is ready when every writer that may hold rows of it has a receipt. Late receipts make a new generation.
* `validate` never stops a period: it is marked `available` or `degraded` in its manifest.
* What is archived shows as partitions of the asset `archived_hours`: one for each venue and period.
* `publish` comes last: until then readers see nothing, so every step may fail, be killed or be run again.
* Without an object store `upload` and `verify_store` have nothing to do, and nothing local is ever deleted.
""",
)
def archive_hour() -> None:
    @task(doc_md="Lists what is sealed and not archived yet, from receipts and manifests.")
    def find_hours() -> list[Period]:
        return archiving.find_hours()

    @task(map_index_template="{{ unit }}", doc_md="Stitches writers, merges doubles.")
    def compact(unit: Period) -> Period:
        return archiving.compact(named(unit))

    @task(map_index_template="{{ unit }}", doc_md="Great Expectations over metrics.")
    def validate(unit: Period) -> Period:
        return archiving.validate(named(unit))

    @task(map_index_template="{{ unit }}", doc_md="Objects with explicit SHA-256.")
    def upload(unit: Period) -> Period:
        return archiving.upload(named(unit))

    @task(map_index_template="{{ unit }}", doc_md="GET and hash of every object.")
    def verify_store(unit: Period) -> Period:
        return archiving.verify_store(named(unit))

    @task(
        map_index_template="{{ unit }}",
        doc_md="Appends the hash-chained manifest.",
        outlets=[archive, hours],
    )
    def publish(unit: Period) -> str:
        said = archiving.publish(named(unit))
        partition = get_current_context()["outlet_events"][hours]
        partition.add_partitions(f"{unit['exchange']} {unit['period']}")
        partition.extra = {"published": said}
        return said

    @task_group
    def archive_unit(unit: Any) -> None:  # an XComArg while the DAG is built
        steps: Any = compact(unit)
        for step in (validate, upload, verify_store, publish):
            steps = step(steps)

    @task.short_circuit(doc_md="Goes on when periods are left: after a pause of the platform there are many.")
    def more(done: list[Period]) -> bool:
        return archiving.more(done)

    run_again = TriggerDagRunOperator(
        task_id="run_again", trigger_dag_id="archive_hour", doc_md="Queues the next run of this DAG at once."
    )
    units: Any = find_hours()
    archive_unit.expand(unit=units) >> more(units) >> run_again


archive_hour()
