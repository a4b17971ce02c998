"""`docker compose --profile demo up` on a real engine reaches a verified archive; nothing but Airflow is published."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PROJECT = "depthvault-test"
PORT = "18080"
PATIENCE = 600.0


def compose(*words: str, check: bool = True, timeout: float = 900) -> str:
    done = subprocess.run(
        ["docker", "compose", "--project-name", PROJECT, "--profile", "demo", *words],
        cwd=REPOSITORY, env=os.environ | {"AIRFLOW_PORT": PORT}, capture_output=True, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{words}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def inside(*words: str, check: bool = True) -> str:
    return compose("exec", "-T", "recorder", *words, check=check)


@pytest.fixture(scope="module")
def stack() -> Iterator[None]:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no Docker engine answers")
    compose("build")
    try:
        compose("up", "-d", "--wait", "--wait-timeout", "300")
        yield
    finally:
        compose("down", "-v", check=False)


@pytest.mark.compose
@pytest.mark.timeout(1800)
def test_the_demo_profile_reaches_a_verified_archive(stack: None) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        rows = inside("depthvault", "sql", "SELECT DISTINCT exchange, period FROM coverage", "--format", "json")
        periods = {tuple(json.loads(row).values()) for row in rows.splitlines()}
        if len(periods) >= 4:  # two periods of two venues
            break
        assert time.monotonic() < deadline, f"only {periods} are archived"
        time.sleep(5)
    assert "all as recorded" in inside("depthvault", "verify", "local", "--deep")
    inside("sh", "-c", "cd /data/demo/archive && sha256sum -c --quiet SHA256SUMS")


@pytest.mark.compose
def test_only_airflow_is_published_and_it_asks_who_is_there(stack: None) -> None:
    published = {
        (port["URL"], port["PublishedPort"])
        for line in compose("ps", "--format", "json").splitlines()
        for port in json.loads(line)["Publishers"] or []
        if port["PublishedPort"]
    }
    assert published == {("127.0.0.1", int(PORT))}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/v2/dags", timeout=10)
    assert refused.value.code == 401


@pytest.mark.compose
def test_no_secret_stands_in_logs_or_process_lists(stack: None) -> None:
    names = inside("ls", "/data/demo/run/secrets").split()
    secrets = [inside("cat", f"/data/demo/run/secrets/{name}").strip() for name in names]
    shown = compose("logs", "--no-color") + inside("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert secrets
    assert not [secret for secret in secrets if secret and secret in shown]
