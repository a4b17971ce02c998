"""Secrets of the platform: generated at the first start, kept in `<data_dir>/run/secrets/`, one file each.

The folder is 0700, each file 0600. A secret is never part of a command line, a log or a report; processes read
the file, or get it in their environment.
"""

from __future__ import annotations

import base64
import os
import secrets as randomness
from collections.abc import Callable
from pathlib import Path

from depthvault.errors import PlatformError


def _password() -> str:
    # Letters and digits, so that it can be typed, pasted, and put into a URL as it is: 22 of them are 128 bits.
    alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
    return "".join(randomness.choice(alphabet) for _ in range(22))


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def _signing_key() -> str:
    return randomness.token_urlsafe(48)


GENERATORS: dict[str, Callable[[], str]] = {
    "postgres_password": _password,
    "airflow_admin_password": _password,
    "airflow_fernet_key": _fernet_key,
    "airflow_secret_key": _signing_key,
    "airflow_jwt_secret": _signing_key,
    "s3_access_key": _password,
    "s3_secret_key": _signing_key,
}


class SecretFolder:
    """The secrets of one data directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder, and every secret that is not there yet. What is there is never replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for name, generate in GENERATORS.items():
            path = self.folder / name
            if not path.exists():
                self._write(path, generate(), exclusive=True)
            path.chmod(0o600)

    def read(self, name: str) -> str:
        """The secret `name`. Raises PlatformError when it has not been generated."""
        try:
            return (self.folder / name).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise PlatformError(
                f"no secret {name} under {self.folder} ({error.strerror}); run `depthvault up`"
            ) from error

    def write(self, name: str, value: str) -> Path:
        """Keep a value derived from secrets (a database URL); replaces an earlier one."""
        path = self.folder / name
        self._write(path, value, exclusive=False)
        return path

    def _write(self, path: Path, value: str, *, exclusive: bool) -> None:
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(value)
        if not exclusive:
            draft.replace(path)
            return
        try:
            # A link fails when the name exists: of two processes that start at once, one secret wins for both.
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
