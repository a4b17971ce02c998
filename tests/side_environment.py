"""Environments beside ours, for programs that the tests compare with: hftbacktest, whose pins clash with ours; rclone.

`.venv-NAME` is made when it is first asked for, from `requirements-NAME.lock`, every file checked against its hash, and
kept until the lock or the Python changes. uv installs; where it cannot, pip does, which reads the host's own
configuration.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

_UNREACHABLE = (
    "could not find a version", "no matching distribution", "failed to fetch", "failed to download", "error sending",
    "dns error", "name resolution", "name or service not known", "network is unreachable", "connection refused",
    "connection error", "connection reset", "timed out", "max retries", "operation timed out",
)  # fmt: skip
"""What installers say when there is no registry; anything else, a wrong hash above all, is a failure."""


@cache
def side_environment(name: str) -> Path:
    """Its folder of programs. The test that asks is skipped where no registry can be reached, and only there."""
    folder, lock = ROOT / f".venv-{name}", ROOT / f"requirements-{name}.lock"
    mark = f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {sys.version}"
    with (ROOT / f".venv-{name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # several test processes may ask at once
        stamp = folder / "made-from"
        if not (stamp.exists() and stamp.read_text(encoding="utf-8") == mark):
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)])
            _install(folder, lock)
            stamp.write_text(mark, encoding="utf-8")
    return folder / "bin"


def _install(folder: Path, lock: Path) -> None:
    python, wanted = folder / "bin" / "python", ["--require-hashes", "--no-deps", "-r", str(lock)]
    uv = Path(sys.executable).with_name("uv")
    installers = [
        [str(uv), "pip", "install", "--quiet", "--python", str(python), *wanted],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted],
    ]
    said = ""
    for installer in installers if uv.exists() else installers[1:]:
        done = _run(installer, check=False)
        if done.returncode == 0:
            return
        said = f"{done.stdout}\n{done.stderr}".strip()
    shutil.rmtree(folder, ignore_errors=True)
    if any(words in said.lower() for words in _UNREACHABLE) and "hash" not in said.lower():
        pytest.skip(f"{lock.name} cannot be installed, no registry is reached: {said.splitlines()[-1][:200]}")
    pytest.fail(f"{lock.name} cannot be installed:\n{said}")


def _run(command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {"UV_LINK_MODE": "copy", **os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=check, env=environment, timeout=400)
