"""A real Airflow on a scratch home with its own SQLite database, in processes of its own."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MARK = "RESULT "
SIMPLE_AUTH = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"

_LOAD = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
print({mark!r} + json.dumps(dict(
    errors={{str(name): text for name, text in bag.import_errors.items()}},
    dags={{
        dag.dag_id: dict(
            schedule=str(dag.timetable.summary if hasattr(dag.timetable, "summary") else dag.schedule),
            plain=dag.schedule if isinstance(dag.schedule, str) else None,
            tasks=list(dag.task_ids), tags=sorted(dag.tags), doc=dag.doc_md or "", owner=dag.owner,
            catchup=dag.catchup, runs=dag.max_active_runs,
            timeouts=[task.execution_timeout is not None for task in dag.tasks if task.task_id != "run_again"],
            docs=[bool(task.doc_md) for task in dag.tasks],
            alerts=[bool(task.on_failure_callback) for task in dag.tasks],
        )
        for dag in bag.dags.values()
    }},
)))
"""

_RUN = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
outcomes = []
for spec in sys.argv[2:]:
    dag_id, _, conf = spec.partition(" ")
    run = bag.dags[dag_id].test(run_conf=json.loads(conf) if conf else None)
    outcomes.append(dict(
        dag=dag_id, state=str(run.state),
        tasks={{f"{{ti.task_id}}[{{ti.map_index}}]": str(ti.state) for ti in run.get_task_instances()}},
        names=sorted(str(ti.rendered_map_index) for ti in run.get_task_instances() if ti.map_index >= 0),
    ))
print({mark!r} + json.dumps(outcomes))
"""


@dataclass(frozen=True, slots=True)
class ScratchAirflow:
    """Runs `python` and `airflow` against one scratch home."""

    home: Path
    config: Path | None = None

    def environment(self) -> dict[str, str]:
        hidden = ("R2_", "TELEGRAM_", "SMTP_", "AIRFLOW", "DEPTHVAULT_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        kept |= {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX": "glob",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1,localhost",
        }
        if self.config is not None:
            kept["DEPTHVAULT_CONFIG"] = str(self.config)
        return kept

    def migrate(self) -> None:
        """Make the database."""
        self._run([str(Path(sys.executable).parent / "airflow"), "db", "migrate"])

    def load(self) -> dict[str, Any]:
        """What Airflow finds in the DAG folder."""
        loaded: dict[str, Any] = self._result(_LOAD, str(ROOT / "dags"))
        return loaded

    def test(self, *dags: str) -> tuple[list[dict[str, Any]], str]:
        """Run DAGs (`id` or `id {conf}`), one after the other; their outcomes and everything that was said."""
        output = self._python(_RUN, str(ROOT / "dags"), *dags)
        return json.loads(output.rpartition(MARK)[2].splitlines()[0]), output

    @contextmanager
    def served(self, user: str, password: str) -> Iterator[str]:
        """The API server with one admin, on a port of its own; yields its address."""
        (self.home / "passwords.json").write_text(json.dumps({user: password}))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = self.environment() | {
            "AIRFLOW__CORE__AUTH_MANAGER": SIMPLE_AUTH,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{user}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        }
        command = [str(Path(sys.executable).parent / "airflow"), "api-server", "--host", "127.0.0.1", "--workers", "1"]
        with (self.home / "api-server.log").open("wb") as log:
            server = subprocess.Popen(
                [*command, "--port", str(port)], env=environment, cwd=self.home, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            self._wait(f"http://127.0.0.1:{port}/api/v2/monitor/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)

    def _wait(self, url: str, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline and server.poll() is None:
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except (OSError, urllib.error.URLError):
                time.sleep(0.3)
            else:
                return
        raise AssertionError((self.home / "api-server.log").read_text()[-3000:])

    def _result(self, code: str, *arguments: str) -> Any:
        return json.loads(self._python(code, *arguments).rpartition(MARK)[2].splitlines()[0])

    def _python(self, code: str, *arguments: str) -> str:
        return self._run([sys.executable, "-c", code.format(mark=MARK), *arguments])

    def _run(self, command: list[str]) -> str:
        self.home.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            command, cwd=self.home, env=self.environment(), capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr
