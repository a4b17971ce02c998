"""Starting everything, and applying a changed configuration to what runs. Both are safe to run again."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from depthvault.config import Config
from depthvault.errors import PlatformError
from depthvault.platform import airflow_api, control, postgres, preflight, s3_server
from depthvault.platform.control import ProgramFailedError, Supervisor
from depthvault.platform.down import stop
from depthvault.platform.ports import Ports, require_free
from depthvault.platform.programs import AIRFLOW, collector_programs, collectors
from depthvault.platform.progress import Steps
from depthvault.platform.site import Site

SIMULATOR_PORT = 9700
PARTS = frozenset({"collectors", "airflow"})
"""What can be started apart: the collectors with the sealer, and PostgreSQL with Airflow."""
AIRFLOW_TIMEOUT = 150.0
SERVER_TIMEOUT = 60.0


def up(config: Config, *, parts: frozenset[str] = PARTS, quiet: bool = False) -> None:
    """Start everything that `config` asks for, and return when it is healthy.

    What runs already stays up; a changed configuration is applied to it. Raises PlatformError (one line), for a program
    that did not come up after printing its last log lines; then everything is stopped again unless it ran before.
    """
    steps = Steps(quiet=quiet)
    try:
        start(Site.of(config), steps, parts=parts)
    except ProgramFailedError as error:
        steps.tell(f"last lines of {error.program}:\n{error.log_tail}")
        raise


def start(site: Site, steps: Steps, *, parts: frozenset[str] = PARTS, simulator: str | None = None) -> None:
    """`up` for a site. The demo passes the options of its simulator, and gets the S3 server too."""
    preflight.check_host(site.data_dir)
    site.prepare()
    with _alone(site):
        supervisor = control.connect(site)
        if supervisor is not None:
            steps.say(f"already running (supervisord pid {supervisor.pid()}): applying the configuration")
            _apply(site, supervisor, steps)
            _start_programs(site, supervisor, steps, parts)
            return
        if (pid := control.recorded_pid(site)) is not None:
            raise PlatformError(f"supervisord (pid {pid}) of {site.data_dir} runs but does not answer; end it first")
        if orphans := control.sweep(site):
            steps.say(f"ended what an earlier run left behind: {', '.join(orphans)}")
        _plan_ports(site, parts)
        _write(site)
        try:
            with steps.step("supervisor"):
                supervisor = _launch(site, parts, simulator)
            _start_programs(site, supervisor, steps, parts)
        except BaseException:
            stop(site, steps)
            raise
    if "airflow" in parts:
        word = site.secrets.folder / "airflow_admin_password"
        steps.say(f"Airflow: {site.airflow_url}  user {airflow_api.ADMIN}, password in {word}")


def reload(config: Config) -> None:
    """Apply a changed configuration to the running platform.

    Collectors whose settings changed are told to read them anew (SIGHUP), which loses no frame; those that are new are
    started, those that are gone are stopped.
    """
    site, steps = Site.of(config), Steps()
    with _alone(site):
        supervisor = control.connect(site)
        if supervisor is None:
            raise PlatformError(f"nothing runs for {site.data_dir}; start it with `depthvault up`")
        _apply(site, supervisor, steps)


def foreground(config: Config, *, parts: frozenset[str] = PARTS) -> int:
    """`up`, then stay until SIGTERM or SIGINT, or until supervisord ends: for containers and systemd."""
    site, steps = Site.of(config), Steps()
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    try:
        start(site, steps, parts=parts)
        while control.connect(site) is not None:
            time.sleep(2)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stop(site, steps)
    return 0 if asked else 1


@contextmanager
def _alone(site: Site) -> Iterator[None]:
    """Hold the start lock: two `up` at once would fight over ports and secrets."""
    site.supervision.mkdir(parents=True, exist_ok=True)
    with (site.supervision / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlatformError(f"another `depthvault up` is at work on {site.data_dir}") from None
        yield


def _plan_ports(site: Site, parts: frozenset[str]) -> None:
    platform = site.config.platform
    if "airflow" in parts and platform.airflow_port:
        remedy = "end it, or choose another with DEPTHVAULT_PLATFORM__AIRFLOW_PORT"
        require_free(platform.airflow_port, "Airflow", remedy)
    internal: tuple[str, ...] = ("postgres", "simulator", *s3_server.PORT_NAMES)
    preferred = {"simulator": SIMULATOR_PORT, "s3": s3_server.PREFERRED_PORT}
    site.ports.choose({"airflow": platform.airflow_port}, internal, preferred)


def _write(site: Site) -> None:
    site.write_configuration()
    draft = site.collector_programs.with_suffix(".draft")
    draft.write_text(collector_programs(site.config), encoding="utf-8")
    draft.replace(site.collector_programs)
    _write_applied(site, {collector.name: collector.settings for collector in collectors(site.config)})


def _applied_file(site: Site) -> Path:
    return site.supervision / "applied.json"


def _write_applied(site: Site, applied: dict[str, str]) -> None:
    _applied_file(site).write_text(json.dumps(applied, indent=1, sort_keys=True), encoding="utf-8")


def _read_applied(site: Site) -> dict[str, str]:
    try:
        applied: dict[str, str] = json.loads(_applied_file(site).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return applied


def _apply(site: Site, supervisor: Supervisor, steps: Steps) -> None:
    before = _read_applied(site)
    _write(site)
    added, removed = supervisor.apply_changes()
    for name in added:
        steps.say(f"  added {name}")
    for name in removed:
        steps.say(f"  removed {name}")
    for collector in collectors(site.config):
        if collector.name not in added and before.get(collector.name) != collector.settings:
            with steps.step(f"{collector.name} reads its new settings"):
                supervisor.signal(collector.name, "HUP")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _starting(site: Site, parts: frozenset[str], simulator: str | None) -> dict[str, bool]:
    live = "collectors" in parts
    return {
        "POSTGRES": "airflow" in parts,
        "S3": site.demo,
        "SIMULATOR": simulator is not None,
        "COLLECTORS": live,
        "SEALER": live,
        "ALERTING": live and _exists("collectors.alerting"),
    }


def _launch(site: Site, parts: frozenset[str], simulator: str | None) -> Supervisor:
    flags = {f"DEPTHVAULT_START_{name}": str(on).lower() for name, on in _starting(site, parts, simulator).items()}
    environment = os.environ | site.environment() | flags | {"DEPTHVAULT_SIMULATOR_OPTIONS": simulator or ""}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "supervisord"), "-c", str(site.root / "supervisord.conf")],
        env=environment, cwd=site.data_dir, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise PlatformError(f"supervisord did not start: {' '.join((done.stderr or done.stdout).split())}")
    deadline = time.monotonic() + 15
    while (supervisor := control.connect(site)) is None:
        if time.monotonic() > deadline:
            raise PlatformError(f"supervisord did not start:\n{control.tail(site.logs / 'supervisord.log')}")
        time.sleep(0.1)
    return supervisor


def _start_programs(site: Site, supervisor: Supervisor, steps: Steps, parts: frozenset[str]) -> None:
    """Wait for what supervisord starts itself, servers first, then bring up Airflow."""
    known = {program.name: program for program in supervisor.programs()}
    # What was never started and has not failed is switched off for this platform.
    wanted = [name for name, program in known.items() if program.state != "STOPPED" or program.started is not None]
    supervisor.start(name for name in wanted if name not in AIRFLOW)

    def wait(what: str, name: str, ready: Callable[[], bool] | None) -> None:
        if name in wanted:
            with steps.step(what):
                supervisor.wait_running([name], SERVER_TIMEOUT, ready)

    ports: Ports = site.ports
    if "airflow" in parts:
        wait("PostgreSQL", "postgres", lambda: postgres.is_ready(ports.get("postgres")))
    wait("S3 server", "s3", lambda: s3_server.is_ready(site))
    wait("exchange simulator", "simulator", lambda: control.listens(ports.get("simulator")))
    for name in wanted:
        if name.startswith("collector-"):
            wait(name.replace("-", " "), name, None)
    for name in ("sealer", "alerting"):
        wait(name.replace("-", " "), name, None)
    if "airflow" in parts:
        _start_airflow(site, supervisor, steps)


def _start_airflow(site: Site, supervisor: Supervisor, steps: Steps) -> None:
    with steps.step("Airflow's metadata database and admin"):
        airflow_api.initialise(site)
    supervisor.start(AIRFLOW)
    with steps.step("Airflow: API server, scheduler, DAG processor, triggerer"):
        server = airflow_api.api(site)
        supervisor.wait_running(AIRFLOW, AIRFLOW_TIMEOUT, lambda: set(server.health().values()) == {"healthy"})
