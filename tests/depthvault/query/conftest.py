"""A data directory to fill, and the vault over it."""

from __future__ import annotations

from pathlib import Path

import pytest

import depthvault
from depthvault.config import Config, Secrets
from depthvault.layout import Layout
from depthvault.query import Vault

from .recording import Recording


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "data").mkdir()
    return Layout(tmp_path / "data")


@pytest.fixture
def recording(layout: Layout) -> Recording:
    return Recording(layout)


@pytest.fixture
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    for name in ("R2_ENDPOINT_URL", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "R2_BUCKET_NAME"):
        monkeypatch.delenv(name, raising=False)
    return Secrets(_env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def vault(layout: Layout, no_secrets: Secrets) -> Vault:
    return depthvault.open(layout.root, config=Config(), secrets=no_secrets)
