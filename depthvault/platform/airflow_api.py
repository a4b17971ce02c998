"""Airflow from the outside: its metadata database, its admin, its health, and its runs over the REST API.

Airflow itself is not imported here: it is started as a program and asked over HTTP.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthvault.errors import PlatformError
from depthvault.platform import postgres
from depthvault.platform.site import Site

ADMIN = "admin"
COMPONENTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")
_READY_MARK = "initialised"


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _airflow(site: Site, *words: str, answer: str | None = None) -> None:
    """Run an `airflow` command. Its own session has no terminal, so what it asks for is read from `answer`."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "airflow"), *words], input=answer, capture_output=True, text=True,
        env=os.environ | site.environment(), cwd=site.workdir(), start_new_session=True, check=False, timeout=300,
    )  # fmt: skip
    log = site.logs / "airflow-setup.log"
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ airflow {' '.join(words)}\n{done.stdout}{done.stderr}\n")
    if done.returncode:
        raise PlatformError(f"airflow {' '.join(words[:2])} failed, see {log}:\n{_tail(done.stdout + done.stderr)}")


def version() -> str:
    """The installed version of Airflow, without importing it."""
    from importlib.metadata import version as installed

    return installed("apache-airflow")


def initialise(site: Site) -> None:
    """Bring the metadata database to this Airflow's schema and make the admin. Cheap when both were done before."""
    site.secrets.write("airflow_database_url", postgres.url(site, postgres.AIRFLOW_DATABASE))
    mark = site.airflow_home / _READY_MARK
    if mark.exists() and mark.read_text(encoding="utf-8") == version():
        return
    postgres.ensure_database(site, postgres.AIRFLOW_DATABASE)
    _airflow(site, "db", "migrate")
    exists = postgres.execute(
        site,
        f"SELECT 1 FROM ab_user WHERE username = '{ADMIN}'",  # noqa: S608 - a constant
        postgres.AIRFLOW_DATABASE,
    )
    if not exists:
        password = site.secrets.read("airflow_admin_password")
        # Asked for twice, on a prompt: so it stands in no command line.
        _airflow(
            site, "users", "create", "--username", ADMIN, "--role", "Admin", "--email", "admin@localhost",
            "--firstname", "Depthvault", "--lastname", "Admin", answer=f"{password}\n{password}\n",
        )  # fmt: skip
    mark.write_text(version(), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class DagRun:
    """One run of a DAG. `state` is queued, running, success or failed."""

    dag_id: str
    run_id: str
    state: str
    partition_key: str | None
    start: str | None
    end: str | None


class AirflowApi:
    """The REST API of a running platform, as its admin."""

    def __init__(self, url: str, password: str, user: str = ADMIN, timeout: float = 10.0) -> None:
        self._url = url.rstrip("/")
        self._credentials = {"username": user, "password": password}
        self._timeout = timeout
        self._token: str | None = None

    def _ask(self, path: str, body: dict[str, str] | None = None, *, signed: bool = True) -> Any:
        headers = {"Content-Type": "application/json"}
        if signed:
            if self._token is None:
                self._token = self._ask("/auth/token", self._credentials, signed=False)["access_token"]
            headers["Authorization"] = f"Bearer {self._token}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self._url}{path}", data, headers)  # noqa: S310 - our own address
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 401:
                self._token = None
            raise PlatformError(f"Airflow answered {error.code} to {path.partition('?')[0]}") from error
        except (OSError, ValueError) as error:
            raise PlatformError(f"Airflow does not answer at {self._url}: {error}") from error

    def health(self) -> dict[str, str]:
        """The status of each component: `healthy`, `unhealthy`, or `absent`."""
        try:
            answer = self._ask("/api/v2/monitor/health", signed=False)
        except PlatformError:
            return dict.fromkeys(COMPONENTS, "absent")
        return {name: (answer.get(name) or {}).get("status") or "absent" for name in COMPONENTS}

    def runs(self, dag_id: str, limit: int = 50) -> list[DagRun]:
        """The latest runs of a DAG, newest first."""
        answer = self._ask(f"/api/v2/dags/{dag_id}/dagRuns?limit={limit}&order_by=-run_after")
        return [
            DagRun(
                run["dag_id"], run["dag_run_id"], run["state"], run.get("partition_key"), run["start_date"],
                run["end_date"],
            )
            for run in answer["dag_runs"]
        ]  # fmt: skip

    def import_errors(self) -> list[str]:
        """DAG files that could not be read, one line each."""
        errors = self._ask("/api/v2/importErrors?limit=20")["import_errors"]
        return [f"{error['filename']}: {error['stack_trace'].strip().splitlines()[-1]}" for error in errors]

    def dags(self) -> list[str]:
        """The ids of all DAGs."""
        return [dag["dag_id"] for dag in self._ask("/api/v2/dags?limit=100")["dags"]]

    def finished(self, dag_id: str, task: str, limit: int = 200) -> list[tuple[str, str]]:
        """The instances of a task that succeeded: run id, and what the mapped instance was about."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/~/taskInstances?state=success&order_by=-start_date&limit={limit}"
        return [
            (instance["dag_run_id"], instance["rendered_map_index"] or "")
            for instance in self._ask(path)["task_instances"]
            if instance["task_id"].rpartition(".")[2] == task
        ]

    def failed_task_log(self, run: DagRun, lines: int = 25) -> str:
        """The last lines of the first failed task of `run`, or nothing."""
        tasks = self._ask(f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances?limit=100")
        for task in tasks["task_instances"]:
            if task["state"] == "failed":
                path = (
                    f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task['task_id']}"
                    f"/logs/{task['try_number']}?map_index={task['map_index']}"
                )
                content = self._ask(path)["content"]
                said = [
                    line.get("event", "") + "".join(f"\n  {error}" for error in _errors(line))
                    if isinstance(line, dict)
                    else str(line)
                    for line in content
                ]
                return f"{run.dag_id}.{task['task_id']}:\n{_tail(chr(10).join(said), lines)}"
        return ""

    def wait_healthy(self, timeout: float, interval: float = 0.5) -> None:
        """Return when all components are healthy; raise PlatformError naming those that are not in time."""
        deadline = time.monotonic() + timeout
        while True:
            health = self.health()
            if set(health.values()) == {"healthy"}:
                return
            if time.monotonic() > deadline:
                bad = ", ".join(f"{name} {status}" for name, status in health.items() if status != "healthy")
                raise PlatformError(f"Airflow is not healthy after {timeout:g} s: {bad}")
            time.sleep(interval)


def _errors(line: dict[str, Any]) -> list[str]:
    return [f"{error.get('exc_type')}: {error.get('exc_value')}" for error in line.get("error_detail") or []]


def api(site: Site) -> AirflowApi:
    """The REST API of this platform."""
    return AirflowApi(site.airflow_url, site.secrets.read("airflow_admin_password"))
