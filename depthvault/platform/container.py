"""What each service of `docker-compose.yaml` runs: `python -m depthvault.platform.container ROLE`.

All services share one image, one volume (`/data`) and one network namespace, so every server listens on loopback just
as on a single host, and only Airflow's port is published. `init` runs first and writes what the others read: secrets,
ports, the configuration, and in `/data/current` which data directory is in use. The live platform lives in
`/data/live`, the demo in `/data/demo`, so that they never mix.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from depthvault.config import FILE_VARIABLE, load_config
from depthvault.errors import DepthvaultError, PlatformError
from depthvault.platform import airflow_api, control, postgres, s3_server
from depthvault.platform.programs import collector_programs
from depthvault.platform.site import Site

VOLUME = Path(os.environ.get("DEPTHVAULT_VOLUME", "/data"))
_PORTS = {"airflow": 8080, "postgres": 5432, "simulator": 9700}
_DEMO_MARK = "demo-wanted"


def mark_demo() -> None:
    """The demo profile's first service: tells `init`, which consumes the mark, that the demo is wanted."""
    (VOLUME / _DEMO_MARK).touch()


def initialise() -> None:
    """Write secrets, the port plan and the configuration for the services to come. Safe to run again."""
    mark = VOLUME / _DEMO_MARK
    demo = mark.exists()
    data_dir = VOLUME / ("demo" if demo else "live")
    data_dir.mkdir(parents=True, exist_ok=True)
    ports = _PORTS | dict(zip(s3_server.PORT_NAMES, range(8333, 8333 + len(s3_server.PORT_NAMES)), strict=False))
    if demo:
        from depthvault.platform.demo import demo_config

        config = demo_config(data_dir, simulator_port=ports["simulator"], airflow_port=ports["airflow"])
        config = config.model_copy(
            update={"platform": config.platform.model_copy(update={"host": os.environ["DEPTHVAULT_PLATFORM__HOST"]})}
        )
    else:
        config = load_config(data_dir=data_dir)
    site = Site.of(config, demo=demo)
    site.prepare()
    site.ports.choose(ports, (), {})
    site.write_configuration()
    site.collector_programs.write_text(collector_programs(config), encoding="utf-8")
    (VOLUME / "current").write_text(data_dir.name, encoding="utf-8")
    mark.unlink(missing_ok=True)
    print(f"initialised {data_dir}: {', '.join(config.exchanges.enabled())}", flush=True)


def current() -> Site:
    """The platform that `init` prepared, with its environment taken over. Raises PlatformError when there is none."""
    try:
        name = (VOLUME / "current").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise PlatformError(f"{VOLUME} is not initialised: start it with `docker compose up`") from None
    data_dir = VOLUME / name
    os.environ["DEPTHVAULT_DATA_DIR"] = str(data_dir)
    os.environ[FILE_VARIABLE] = str(data_dir / "run" / "depthvault.yaml")
    site = Site.of(load_config(), demo=name == "demo")
    os.environ.update(site.environment())
    os.chdir(site.workdir())
    return site


def _wait(what: str, ready: Callable[[], bool], timeout: float = 90.0) -> None:
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise PlatformError(f"{what} is not ready after {timeout:g} s")
        time.sleep(0.5)


def migrate() -> None:
    """Bring Airflow's database to its schema and make the admin with the generated password."""
    site = current()
    _wait("PostgreSQL", lambda: postgres.is_ready(site.ports.get("postgres")))
    airflow_api.initialise(site)
    print("Airflow's metadata database is ready", flush=True)


def recorder() -> None:
    """Become supervisord with the collectors, the sealer and the alerting listener."""
    site = current()
    flags = {"COLLECTORS": True, "SEALER": True, "ALERTING": True}
    flags |= dict.fromkeys(("POSTGRES", "S3", "SIMULATOR"), False)
    os.environ.update({f"DEPTHVAULT_START_{name}": str(on).lower() for name, on in flags.items()})
    os.environ["DEPTHVAULT_SIMULATOR_OPTIONS"] = ""
    if site.demo:
        _wait("the simulator", lambda: control.listens(site.ports.get("simulator")))
    _become("supervisord", "--nodaemon", "-c", str(site.root / "supervisord.conf"))


def server() -> None:
    """Become PostgreSQL."""
    current()
    postgres.main()


def object_store() -> None:
    """Become the S3 server of the demo."""
    current()
    s3_server.main()


def simulator() -> None:
    """Become the exchange simulator of the demo."""
    site = current()
    from depthvault.platform.demo import simulator_options

    _become("python", "-m", "simulator", *simulator_options(site).split())


def airflow(component: str) -> None:
    """Become one of Airflow's four components."""
    current()
    extra = [] if component in {"api-server", "dag-processor"} else ["--skip-serve-logs"]
    _become("airflow", component, *extra)


def command_line(*words: str) -> None:
    """Become `depthvault` for the platform of this volume: what `depthvault` means in `docker compose exec`."""
    if (VOLUME / "current").exists():
        current()
    _become("depthvault", *words)


def password() -> None:
    """Print the generated password of Airflow's admin; for `docker compose exec`."""
    print(current().secrets.read("airflow_admin_password"))


def healthy(what: str) -> None:
    """Exit 0 when `what` answers: postgres, s3, simulator, airflow or recorder."""
    site = current()
    checks: dict[str, Callable[[], bool]] = {
        "postgres": lambda: postgres.is_ready(site.ports.get("postgres")),
        "s3": lambda: s3_server.is_ready(site),
        "simulator": lambda: control.listens(site.ports.get("simulator")),
        "airflow": lambda: set(airflow_api.api(site).health().values()) == {"healthy"},
        "recorder": lambda: (
            (supervisor := control.connect(site)) is not None
            and all(program.state in {"RUNNING", "STOPPED"} for program in supervisor.programs())
        ),
    }
    raise SystemExit(0 if checks[what]() else 1)


def _become(program: str, *arguments: str) -> None:
    path = Path(sys.executable).parent / program
    os.execve(path, [str(path), *arguments], os.environ)  # noqa: S606 - the service is this program


def main(words: list[str]) -> None:
    """Run one role."""
    role, *rest = words or ["help"]
    roles: dict[str, Callable[..., None]] = {
        "demo-profile": mark_demo,
        "init": initialise,
        "postgres": server,
        "s3": object_store,
        "simulator": simulator,
        "migrate": migrate,
        "recorder": recorder,
        "airflow": airflow,
        "password": password,
        "cli": command_line,
        "healthy": healthy,
    }
    if role not in roles:
        raise SystemExit(f"error: no role {role!r}; there are {', '.join(roles)}")
    try:
        roles[role](*rest)
    except DepthvaultError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
