"""Where a platform lies: the checkout it runs from, its run folder, and the environment of its processes."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from depthvault.config import FILE_VARIABLE, Config
from depthvault.errors import PlatformError
from depthvault.platform.ports import Ports
from depthvault.platform.secrets import SecretFolder

# A unix socket's path fits in 108 bytes on Linux, with its closing zero; supervisord first binds it with its process id
# added, and then renames it.
SOCKET_PATH_BYTES = 107 - len(".4194304")
MARK = "DEPTHVAULT_RUN"
"""Stands in the environment of every process of a platform, with its run folder: so orphans can be found."""

DEMO_MARK = ".depthvault-demo"
"""A file that says that a data directory was made by the demo, which may empty it."""


def checkout() -> Path:
    """The folder that holds `supervisord.conf`, `airflow.cfg` and `dags/`.

    Raises PlatformError when only the library is installed.
    """
    named = os.environ.get("DEPTHVAULT_ROOT")
    root = Path(named) if named else Path(__file__).resolve().parents[2]
    if not (root / "supervisord.conf").is_file():
        raise PlatformError(f"{root} holds no supervisord.conf: run the platform from a checkout")
    return root


@dataclass(frozen=True, slots=True)
class Site:
    """One platform: a data directory, the configuration it runs with, and whether it is the demo."""

    config: Config
    root: Path
    data_dir: Path
    demo: bool = False

    @classmethod
    def of(cls, config: Config, *, demo: bool = False) -> Site:
        return cls(config, checkout(), config.data_dir.absolute(), demo)

    @property
    def run(self) -> Path:
        return self.data_dir / "run"

    @property
    def logs(self) -> Path:
        return self.run / "logs"

    @property
    def supervision(self) -> Path:
        """What supervisord reads and writes: generated programs, its process id, the port plan."""
        return self.run / "supervisor"

    @property
    def pidfile(self) -> Path:
        return self.supervision / "supervisord.pid"

    @property
    def collector_programs(self) -> Path:
        return self.supervision / "collectors.conf"

    @property
    def socket(self) -> Path:
        """supervisord's control socket; in a private folder under the temporary one when the path is too long."""
        here = self.supervision / "supervisord.sock"
        if len(os.fsencode(here)) <= SOCKET_PATH_BYTES:
            return here
        digest = hashlib.sha256(os.fsencode(self.run)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"depthvault-{os.geteuid()}-{digest}" / "supervisord.sock"

    @property
    def configuration(self) -> Path:
        """The configuration that the platform runs with, as `up` or `reload` found it: all processes read this one,
        so that one that restarts at night does not pick up a half-edited file."""
        return self.run / "depthvault.yaml"

    @property
    def postgres(self) -> Path:
        return self.run / "postgres"

    @property
    def airflow_home(self) -> Path:
        return self.run / "airflow"

    @property
    def secrets(self) -> SecretFolder:
        return SecretFolder(self.run / "secrets")

    @property
    def ports(self) -> Ports:
        return Ports(self.supervision / "ports.json")

    @property
    def airflow_url(self) -> str:
        host = self.config.platform.host
        shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound
        return f"http://{shown}:{self.ports.get('airflow')}"

    @property
    def store_url(self) -> str:
        """The demo's S3 server."""
        return f"http://127.0.0.1:{self.ports.get('s3')}"

    def prepare(self) -> None:
        """Make the folders. The run folder may be entered, its secrets and sockets may not."""
        for folder in (self.run, self.logs, self.supervision, self.airflow_home / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        self.supervision.chmod(0o700)
        self.socket.parent.mkdir(exist_ok=True, mode=0o700)
        if self.socket.parent.stat().st_uid != os.geteuid():
            raise PlatformError(f"{self.socket.parent} belongs to another user")
        self.secrets.prepare()

    def write_configuration(self) -> None:
        """Write `configuration`, whole or not at all; for its owner alone, as it may hold a database address."""
        content = self.config.model_dump(mode="json") | {"data_dir": str(self.data_dir)}
        draft = self.configuration.with_suffix(".draft")
        draft.touch(mode=0o600)
        draft.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        draft.replace(self.configuration)

    def workdir(self) -> Path:
        """The working directory of all processes: where `.env` is looked for. The demo never reads the user's."""
        return self.data_dir if self.demo else Path.cwd()

    def environment(self) -> dict[str, str]:
        """What every process of the platform gets on top of the caller's environment."""
        binaries = Path(sys.executable).parent
        variables = {
            MARK: str(self.run),
            "DEPTHVAULT_ROOT": str(self.root),
            "DEPTHVAULT_WORKDIR": str(self.workdir()),
            FILE_VARIABLE: str(self.configuration),
            "DEPTHVAULT_DATA_DIR": str(self.data_dir),
            "DEPTHVAULT_SECRETS": str(self.secrets.folder),
            "DEPTHVAULT_SOCKET": str(self.socket),
            # supervisord splits its include patterns at blanks; a question mark matches any character.
            "DEPTHVAULT_INCLUDE": re.sub(r"\s", "?", str(self.supervision / "*.conf")),
            "DEPTHVAULT_PYTHON": sys.executable,
            "DEPTHVAULT_BIN": str(binaries),
            "DEPTHVAULT_HOST": self.config.platform.host,
            "DEPTHVAULT_LOG_BYTES": str(self.config.platform.log_bytes),
            "DEPTHVAULT_LOG_BACKUPS": str(self.config.platform.log_backups),
            "DEPTHVAULT_AIRFLOW_PORT": str(self.ports.get("airflow")),
            "DEPTHVAULT_AIRFLOW_URL": self.airflow_url,
            "AIRFLOW_HOME": str(self.airflow_home),
            "AIRFLOW_CONFIG": str(self.root / "airflow.cfg"),
            "GX_ANALYTICS_ENABLED": "false",
            "PYTHONUNBUFFERED": "1",
            "PATH": os.pathsep.join([str(binaries), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join(
                dict.fromkeys(filter(None, [str(self.root), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
            ),
            # Loopback is never reached through a proxy.
            "NO_PROXY": ",".join(
                dict.fromkeys(filter(None, [*os.environ.get("NO_PROXY", "").split(","), "127.0.0.1", "localhost"]))
            ),
        }
        variables["no_proxy"] = variables["NO_PROXY"]
        if self.demo:
            variables |= self.demo_store()
            # A demo must not write to the alerts' receivers of a real installation.
            variables |= {"TELEGRAM_BOT_TOKEN": "", "TELEGRAM_CHAT_ID": "", "SMTP_HOST": ""}
        return variables

    def demo_store(self) -> dict[str, str]:
        """The R2_* variables of the demo's own S3 server."""
        return {
            "R2_ENDPOINT_URL": self.store_url,
            "R2_ACCESS_KEY_ID": self.secrets.read("s3_access_key"),
            "R2_SECRET_ACCESS_KEY": self.secrets.read("s3_secret_key"),
            "R2_BUCKET_NAME": "depthvault",
        }
