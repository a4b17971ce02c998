"""Secrets are generated once, are nobody else's business, and never replaced."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from depthvault.errors import PlatformError
from depthvault.platform.secrets import GENERATORS, SecretFolder


def test_each_secret_is_generated_once_and_kept(tmp_path: Path) -> None:
    folder = SecretFolder(tmp_path / "secrets")
    folder.prepare()
    first = {name: folder.read(name) for name in GENERATORS}
    folder.prepare()
    assert {name: folder.read(name) for name in GENERATORS} == first
    assert len(set(first.values())) == len(first), "two secrets are the same"
    assert min(map(len, first.values())) >= 22


def test_two_installations_share_no_secret(tmp_path: Path) -> None:
    folders = [SecretFolder(tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        folder.prepare()
    values = [{folder.read(name) for name in GENERATORS} for folder in folders]
    assert not values[0] & values[1]


def test_only_the_owner_can_read_them(tmp_path: Path) -> None:
    folder = SecretFolder(tmp_path / "secrets")
    folder.folder.mkdir(mode=0o755)
    folder.prepare()
    written = folder.write("url", "postgresql://…")
    assert stat.S_IMODE(folder.folder.stat().st_mode) == 0o700
    for path in folder.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert written.read_text(encoding="utf-8") == "postgresql://…"
    assert not list(folder.folder.glob(".*")), "a draft was left behind"


def test_of_two_first_starts_at_once_one_secret_wins_for_both(tmp_path: Path) -> None:
    folder = SecretFolder(tmp_path)
    folder._write(tmp_path / "word", "first", exclusive=True)
    folder._write(tmp_path / "word", "second", exclusive=True)
    assert folder.read("word") == "first"


def test_a_missing_secret_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="no secret postgres_password under"):
        SecretFolder(tmp_path).read("postgres_password")
