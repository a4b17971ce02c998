"""A real S3 server for tests: SeaweedFS from its wheel, on loopback, with keys made for the run."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config

from depthvault.platform.s3_server import remove_sockets


@dataclass(frozen=True)
class Server:
    endpoint: str
    access_key: str
    secret_key: str
    process: subprocess.Popen[bytes]
    catalog: str = ""

    def client(self):  # type: ignore[no-untyped-def]
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="auto",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(request_checksum_calculation="when_required", s3={"addressing_style": "path"}),
        )


def weed_program() -> str | None:
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def _free_ports(count: int) -> list[int]:
    """Ports whose gRPC twin (+10000) is free too, as the server wants both."""
    held, ports = [], []
    while len(ports) < count:
        first = socket.socket()
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        held.append(first)
        if port + 10000 > 65535:
            continue
        twin = socket.socket()
        try:
            twin.bind(("127.0.0.1", port + 10000))
        except OSError:
            continue
        held.append(twin)
        ports.append(port)
    for each in held:
        each.close()
    return ports


@contextmanager
def running(folder: Path, iceberg: str | None = None) -> Iterator[Server]:
    """The server; with `iceberg` also a REST catalog of tables in a bucket of that name."""
    program = weed_program()
    assert program is not None
    access, secret = secrets.token_hex(8), secrets.token_hex(16)
    master, volume, filer, s3, rest, admin = _free_ports(6)
    tables = [] if iceberg is None else [f"-tableBucket={iceberg}"]
    log = (folder / "weed.log").open("wb")
    process = subprocess.Popen(
        [
            program, f"-logdir={folder}", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.iam=false",
            f"-s3.port.iceberg={rest if iceberg else 0}", *tables, "-s3.port.lance=0",
            "-master.volumeSizeLimitMB=64", f"-master.port={master}", f"-volume.port={volume}",
            f"-filer.port={filer}", f"-s3.port={s3}", f"-admin.port={admin}",
        ],
        env={**os.environ, "AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret, "HOME": str(folder)},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )  # fmt: skip
    server = Server(f"http://127.0.0.1:{s3}", access, secret, process, f"http://127.0.0.1:{rest}")
    try:
        _await_ready(server, folder)
        if iceberg is not None:
            _await_tables(server, iceberg)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        log.close()
        ports = (master, volume, filer, s3, rest, admin)
        remove_sockets([*ports, *(port + 10_000 for port in ports)])


def _await_tables(server: Server, bucket: str) -> None:
    """The bucket of tables is made some time after the server answers."""
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import NoSuchNamespaceError, RESTError

    options = {
        "type": "rest", "uri": server.catalog, "warehouse": f"s3://{bucket}", "rest.sigv4-enabled": "true",
        "rest.signing-region": "us-east-1", "rest.signing-name": "s3", "client.access-key-id": server.access_key,
        "client.secret-access-key": server.secret_key, "client.region": "us-east-1",
    }  # fmt: skip
    deadline = time.monotonic() + 60
    while True:
        try:
            load_catalog("ready", **options).list_namespaces()
            return
        except (NoSuchNamespaceError, RESTError, OSError) as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"the bucket of tables is not there: {error}") from error
            time.sleep(0.2)  # the server gives no event to wait for


def _await_ready(server: Server, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            server.client().create_bucket(Bucket="ready")
            return
        except Exception:  # noqa: BLE001 - whatever it says while it starts
            time.sleep(0.2)  # the server gives no event to wait for
    raise AssertionError(f"SeaweedFS did not start: {(folder / 'weed.log').read_text()[-2000:]}")
