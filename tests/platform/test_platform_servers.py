"""The real supervisord with the real PostgreSQL and S3 server: up, guarded, restarted, down without orphans."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import psutil
import pytest
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

from depthvault.config import Config
from depthvault.errors import PlatformError
from depthvault.platform import control, postgres, s3_server, up
from depthvault.platform.control import Supervisor
from depthvault.platform.down import stop
from depthvault.platform.progress import Steps
from depthvault.platform.secrets import GENERATORS
from depthvault.platform.site import Site

QUIET = Steps(quiet=True)


def until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def site_in(folder: Path) -> Site:
    config = Config.model_validate({"data_dir": folder, "platform": {"airflow_port": 0}})
    return Site.of(config, demo=True)


def launch(site: Site) -> Supervisor:
    """The servers alone: PostgreSQL and S3, no collectors and no Airflow."""
    site.prepare()
    up._plan_ports(site, up.PARTS)
    up._write(site)
    supervisor = up._launch(site, frozenset({"airflow"}), None)
    supervisor.wait_running(["postgres"], 30, lambda: postgres.is_ready(site.ports.get("postgres")))
    supervisor.wait_running(["s3"], 30, lambda: s3_server.is_ready(site))
    return supervisor


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    # A blank in the path: everything must be quoted.
    found = site_in(tmp_path_factory.mktemp("data dir"))
    launch(found)
    yield found
    stop(found, QUIET)
    assert control.leftovers(found) == []


def own_processes(site: Site) -> list[psutil.Process]:
    supervisor = control.connect(site)
    assert supervisor is not None
    parent = psutil.Process(supervisor.pid())
    return [parent, *parent.children(recursive=True)]


def client(site: Site, key: str, secret: str):  # type: ignore[no-untyped-def]
    return boto3.client(
        "s3",
        endpoint_url=site.store_url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="auto",
        config=BotoConfig(retries={"max_attempts": 0}),
    )


def test_postgres_is_18_and_checks_its_pages(site: Site) -> None:
    assert postgres.execute(site, "SHOW server_version").startswith("18.")
    assert postgres.execute(site, "SHOW data_checksums") == "on"
    assert postgres.execute(site, "SHOW server_encoding") == "UTF8"


def test_postgres_refuses_another_password(site: Site) -> None:
    command = [
        str(postgres.binaries() / "psql"), "-h", "127.0.0.1", "-p", str(site.ports.get("postgres")), "-U",
        postgres.ROLE, "-d", "postgres", "-w", "-c", "SELECT 1",
    ]  # fmt: skip
    for password in ("", "postgres", postgres.ROLE):
        done = subprocess.run(
            command, env=os.environ | {"PGPASSWORD": password}, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "password" in done.stderr


def test_making_a_database_twice_keeps_what_is_in_it(site: Site) -> None:
    postgres.ensure_database(site, "scratch")
    postgres.execute(site, "CREATE TABLE kept AS SELECT 42 AS answer", "scratch")
    postgres.ensure_database(site, "scratch")
    assert postgres.execute(site, "SELECT answer FROM kept", "scratch") == "42"


def test_a_wrong_statement_is_one_line_with_the_server_s_words(site: Site) -> None:
    with pytest.raises(PlatformError, match=r'PostgreSQL: .*relation "nowhere" does not exist') as caught:
        postgres.execute(site, "SELECT * FROM nowhere")
    assert "\n" not in str(caught.value)


def test_the_s3_server_takes_the_generated_keys_and_no_others(site: Site) -> None:
    keys = site.demo_store()
    good = client(site, keys["R2_ACCESS_KEY_ID"], keys["R2_SECRET_ACCESS_KEY"])
    good.put_object(Bucket=keys["R2_BUCKET_NAME"], Key="probe", Body=b"proof")
    assert good.get_object(Bucket=keys["R2_BUCKET_NAME"], Key="probe")["Body"].read() == b"proof"
    for key, secret in (("admin", "admin"), (keys["R2_ACCESS_KEY_ID"], "wrong")):
        with pytest.raises(ClientError, match=r"403|InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied"):
            client(site, key, secret).put_object(Bucket=keys["R2_BUCKET_NAME"], Key="probe", Body=b"")


def test_every_server_listens_on_loopback_only(site: Site) -> None:
    pids = {process.pid for process in own_processes(site)}
    listening = [
        connection.laddr[0]
        for connection in psutil.net_connections("tcp")
        if connection.pid in pids and connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert set(listening) == {"127.0.0.1"}


def test_no_secret_stands_in_a_command_line_or_a_log(site: Site) -> None:
    words = {site.secrets.read(name) for name in GENERATORS}
    for process in own_processes(site):
        with contextlib.suppress(psutil.NoSuchProcess):
            told = " ".join(process.cmdline())
            assert not any(word in told for word in words), process
    for log in site.logs.iterdir():
        text = log.read_text(encoding="utf-8", errors="replace")
        assert not any(word in text for word in words), log


def test_the_control_socket_and_the_secrets_are_private(site: Site) -> None:
    assert site.socket.stat().st_mode & 0o077 == 0
    assert site.secrets.folder.stat().st_mode & 0o077 == 0
    assert site.configuration.stat().st_mode & 0o077 == 0


def test_a_server_that_is_killed_comes_back_with_its_data(site: Site) -> None:
    postgres.ensure_database(site, "survivor")
    supervisor = control.connect(site)
    assert supervisor is not None
    before = {program.name: program.pid for program in supervisor.programs()}
    os.kill(before["s3"] or 0, signal.SIGKILL)
    until(lambda: {p.name: p.pid for p in supervisor.programs()}["s3"] not in {before["s3"], None})
    supervisor.wait_running(["s3"], 30, lambda: s3_server.is_ready(site))
    keys = site.demo_store()
    store = client(site, keys["R2_ACCESS_KEY_ID"], keys["R2_SECRET_ACCESS_KEY"])
    assert store.list_objects_v2(Bucket=keys["R2_BUCKET_NAME"])["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_what_a_dead_supervisor_left_behind_is_ended_and_the_data_stays(tmp_path: Path) -> None:
    site = site_in(tmp_path)
    supervisor = launch(site)
    try:
        postgres.ensure_database(site, "kept")
        os.kill(supervisor.pid(), signal.SIGKILL)
        until(lambda: control.connect(site) is None)
        # The S3 server may already have ended by itself: its next line of log goes into the pipe that just broke.
        assert "postgres" in {process.name() for process in control.leftovers(site)}

        assert stop(site, QUIET)
        assert control.leftovers(site) == []
        ports = site.ports.of(s3_server.PORT_NAMES)
        assert ports
        assert not [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]
        assert not stop(site, QUIET), "a second stop has nothing to do"

        launch(site)
        assert postgres.execute(site, "SELECT datname FROM pg_database WHERE datname = 'kept'") == "kept"
    finally:
        stop(site, QUIET)


def test_a_second_start_at_the_same_moment_is_refused(tmp_path: Path) -> None:
    site = site_in(tmp_path)
    with up._alone(site), pytest.raises(PlatformError, match="another `depthvault up` is at work"), up._alone(site):
        pass


def test_a_busy_airflow_port_stops_the_start_before_anything_runs(tmp_path: Path, site: Site) -> None:
    taken = site.ports.get("postgres")
    config = Config.model_validate({"data_dir": tmp_path, "platform": {"airflow_port": taken}})
    with pytest.raises(PlatformError, match=f"port {taken}, wanted for Airflow, is busy: postgres"):
        up.up(config, quiet=True)
    assert control.leftovers(Site.of(config)) == []


def test_a_program_that_gives_up_is_named_with_its_last_words(tmp_path: Path) -> None:
    site = site_in(tmp_path)
    site.prepare()
    up._plan_ports(site, up.PARTS)
    up._write(site)
    supervisor = up._launch(site, frozenset(), "--no-such-option")
    try:
        with pytest.raises(control.ProgramFailedError) as caught:
            supervisor.wait_running(["simulator"], 20, lambda: False)
        assert caught.value.program == "simulator"
        assert "--no-such-option" in caught.value.log_tail
    finally:
        stop(site, QUIET)


def test_a_data_dir_of_any_depth_gets_a_socket_that_supervisord_can_bind(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    for folder in (deep, *deep.parents):
        socket_path = site_in(folder).socket
        assert len(os.fsencode(f"{socket_path}.4194304")) <= 107
    site = site_in(deep)
    site.prepare()
    assert site.socket.parent.stat().st_mode & 0o077 == 0
    site.socket.parent.rmdir()
