"""Airflow must find its home before it is imported, and every test its own configuration."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

if "AIRFLOW_HOME" not in os.environ:
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="depthvault-airflow-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")

SECRETS = ("R2_BUCKET_NAME", "R2_ACCESS_KEY_ID", "TELEGRAM_BOT_TOKEN", "TELEGRAM_CHAT_ID", "SMTP_HOST", "SMTP_USER")

Configure = Callable[..., Path]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """`configure(**sections)` makes a configuration the current one, and returns the data folder."""
    from plugins import configuration

    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)  # where `.env` would be read

    def write(**sections: Any) -> Path:
        data = tmp_path / "data"
        path = tmp_path / "depthvault.yaml"
        path.write_text(yaml.safe_dump({"data_dir": str(data), "journal": {"min_free": 0}, **sections}))
        monkeypatch.setenv("DEPTHVAULT_CONFIG", str(path))
        configuration.config.cache_clear()
        return data

    yield write
    configuration.config.cache_clear()
