"""Which ports the platform's servers use, and who holds a port that is busy."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from depthvault.errors import PlatformError

LOOPBACK = "127.0.0.1"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        # As servers do: a connection of a server that has just gone must not count as busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def holder(port: int) -> str | None:
    """The process that listens on `port`, as `name (pid N)`; None when this user may not see it."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        address: tuple[object, ...] = connection.laddr  # (host, port), or empty
        if connection.status == psutil.CONN_LISTEN and address[1:] == (port,) and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.Error:
                return f"pid {connection.pid}"
    return None


def require_free(port: int, purpose: str, remedy: str, host: str = LOOPBACK) -> None:
    """Raise PlatformError in one line when `port` is busy, naming who holds it where that can be seen."""
    if not is_free(port, host):
        who = holder(port)
        raise PlatformError(f"port {port}, wanted for {purpose}, is busy{f': {who}' if who else ''}; {remedy}")


def unused(count: int) -> list[int]:
    """Ports that nobody listens on, each different, chosen by the system."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Ports:
    """The port plan of one platform: names to ports, kept in a file, so that it is the same after a restart."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _plan(self) -> dict[str, int]:
        try:
            plan: dict[str, int] = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return plan

    def get(self, name: str) -> int:
        """The port of the server `name`; raises PlatformError when there is no plan yet."""
        try:
            return self._plan()[name]
        except KeyError:
            raise PlatformError(f"no port is planned for {name}; run `depthvault up`") from None

    def of(self, names: Iterable[str]) -> list[int]:
        """The ports of those of `names` that the plan has."""
        plan = self._plan()
        return [plan[name] for name in names if name in plan]

    def choose(self, fixed: dict[str, int], internal: tuple[str, ...], preferred: dict[str, int]) -> None:
        """Write the plan. To be called while nothing of the platform runs.

        `fixed` ports are taken as they are (0: any); `internal` ones keep what they had if it is still free, then
        `preferred`, then what the system gives.
        """
        before, plan = self._plan(), {}
        spare = iter(unused(len(fixed) + len(internal)))
        for name, port in fixed.items():
            kept = before.get(name, 0)
            plan[name] = port or (kept if kept and is_free(kept) else next(spare))
        for name in internal:
            candidates = [port for port in (before.get(name), preferred.get(name)) if port and is_free(port)]
            plan[name] = candidates[0] if candidates else next(spare)
        self.path.write_text(json.dumps(plan, indent=1, sort_keys=True) + "\n", encoding="utf-8")
