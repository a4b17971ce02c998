"""The real Airflow with PostgreSQL under supervisor: healthy, guarded by a login, every DAG readable, down again."""

from __future__ import annotations

import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from depthvault.config import Config
from depthvault.errors import PlatformError
from depthvault.platform import airflow_api, control
from depthvault.platform.airflow_api import AirflowApi
from depthvault.platform.down import down
from depthvault.platform.site import Site
from depthvault.platform.status import platform_status, status
from depthvault.platform.up import up

ROOT = Path(__file__).resolve().parents[2]
AIRFLOW = frozenset({"airflow"})
pytestmark = pytest.mark.timeout(420)  # about 25 s alone; starting Airflow is heavy on a busy machine


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    # No venue is recorded: the DAGs have nothing to ask for while the test looks at them.
    found = Config.model_validate({
        "data_dir": tmp_path_factory.mktemp("data"),
        "platform": {"airflow_port": 0},
        "exchanges": {"binance_spot": {"enabled": False}, "binance_futures": {"enabled": False}},
    })  # fmt: skip
    up(found, parts=AIRFLOW, quiet=True)
    yield found
    down(found, quiet=True)
    assert control.leftovers(Site.of(found)) == [], "processes were left behind"


@pytest.fixture(scope="module")
def server(config: Config) -> AirflowApi:
    return airflow_api.api(Site.of(config))


def test_all_components_are_healthy(server: AirflowApi) -> None:
    assert server.health() == dict.fromkeys(airflow_api.COMPONENTS, "healthy")


def test_every_dag_file_can_be_read_and_there_are_no_others(server: AirflowApi) -> None:
    files = {path.stem for path in (ROOT / "dags").glob("*.py")} - {"__init__"}
    deadline = time.monotonic() + 90
    while len(server.dags()) < len(files) and not server.import_errors() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert server.import_errors() == []
    assert set(server.dags()) == files, "one DAG a file, named after it, and no examples"


def test_nobody_gets_in_without_the_generated_password(config: Config, server: AirflowApi) -> None:
    url = Site.of(config).airflow_url
    for password in ("admin", "", "airflow"):
        with pytest.raises(PlatformError, match=r"Airflow answered 40[01]"):
            AirflowApi(url, password).dags()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/api/v2/dags", timeout=10)
    page = urllib.request.urlopen(f"{url}/auth/login/", timeout=10).read().decode()
    assert 'type="password"' in page
    assert server.dags()


def test_a_second_up_changes_nothing_that_runs(config: Config) -> None:
    before = {program.name: program.pid for program in platform_status(config).programs}
    assert {"postgres", "airflow-api-server", "airflow-scheduler"} <= set(before)
    up(config, parts=AIRFLOW, quiet=True)
    assert {program.name: program.pid for program in platform_status(config).programs} == before
    assert status(config) == 0


def test_airflow_listens_on_loopback_only(config: Config) -> None:
    supervisor = control.connect(Site.of(config))
    assert supervisor is not None
    family = {child.pid for child in psutil.Process(supervisor.pid()).children(recursive=True)}
    addresses = {
        connection.laddr[0]
        for connection in psutil.net_connections("tcp")
        if connection.pid in family and connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_the_database_address_with_its_password_is_private(config: Config) -> None:
    site = Site.of(config)
    assert stat.S_IMODE((site.secrets.folder / "airflow_database_url").stat().st_mode) == 0o600
    word = site.secrets.read("postgres_password")
    for log in site.logs.iterdir():
        assert word not in log.read_text(encoding="utf-8", errors="replace"), log
