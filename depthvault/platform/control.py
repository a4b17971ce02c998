"""Talking to a running supervisord over its unix socket, and finding what it may have left behind."""

from __future__ import annotations

import os
import signal
import socket
import time
import xmlrpc.client
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from depthvault.errors import PlatformError
from depthvault.platform.site import MARK, Site

ALIVE = frozenset({"STARTING", "RUNNING", "BACKOFF", "STOPPING"})


class ProgramFailedError(PlatformError):
    """A program could not be kept alive. `program` names it, `log_tail` holds its last lines."""

    def __init__(self, message: str, program: str, log_tail: str) -> None:
        super().__init__(message)
        self.program = program
        self.log_tail = log_tail


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """One supervised program, as supervisord sees it."""

    name: str
    state: str
    pid: int | None
    started: datetime | None
    description: str
    log: Path


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log, or an empty text."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


class Supervisor:
    """A running supervisord."""

    def __init__(self, socket_path: Path) -> None:
        self._proxy = xmlrpc.client.ServerProxy(
            "http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{socket_path}")
        )

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise PlatformError(
                f"supervisor: {fault.faultString} ({method} {' '.join(map(str, arguments))})"
            ) from fault
        except (OSError, xmlrpc.client.Error) as error:
            raise PlatformError(f"supervisord does not answer: {error}") from error

    def pid(self) -> int:
        """The process id of supervisord; raises PlatformError when it does not answer."""
        return int(self._call("getPID"))

    def programs(self) -> list[ProgramStatus]:
        """All programs, in the order of their names."""
        return [
            ProgramStatus(
                name=row["name"],
                state=row["statename"],
                pid=row["pid"] or None,
                started=datetime.fromtimestamp(row["start"], UTC) if row["start"] else None,
                description=row["description"],
                log=Path(row["stdout_logfile"] or row["stderr_logfile"] or "/dev/null"),
            )
            for row in sorted(self._call("getAllProcessInfo"), key=lambda row: str(row["name"]))
        ]

    def start(self, names: Iterable[str]) -> None:
        """Start those of `names` that are not alive, without waiting."""
        states = {program.name: program.state for program in self.programs()}
        for name in names:
            if states.get(name) not in ALIVE:
                self._call("startProcess", name, False)

    def stop(self, names: list[str], timeout: float = 90.0) -> None:
        """Stop all of `names` at once and return when they are gone."""
        alive = {program.name for program in self.programs() if program.state in ALIVE}
        for name in names:
            if name in alive:
                self._call("stopProcess", name, False)
        deadline = time.monotonic() + timeout
        while any(program.name in names and program.state in ALIVE for program in self.programs()):
            if time.monotonic() > deadline:
                raise PlatformError(f"not stopped after {timeout:g} s: {', '.join(names)}")
            time.sleep(0.1)

    def signal(self, name: str, sign: str) -> None:
        """Send a signal, as `HUP`, to a program."""
        self._call("signalProcess", name, sign)

    def wait_running(self, names: Iterable[str], timeout: float, ready: Callable[[], bool] | None = None) -> None:
        """Return when all of `names` run and `ready()`; raise ProgramFailedError for one that gave up.

        With `ready` given, a server that answers counts as running whatever supervisor's `startsecs` says, and one
        that runs but is never ready fails after `timeout` seconds.
        """
        good = {"RUNNING", "STARTING"} if ready else {"RUNNING"}
        wanted = set(names)
        deadline = time.monotonic() + timeout
        while True:
            found = [program for program in self.programs() if program.name in wanted]
            if missing := wanted - {program.name for program in found}:
                raise PlatformError(f"supervisord knows no program {', '.join(sorted(missing))}")
            for program in found:
                if program.state in {"FATAL", "STOPPED"}:
                    raise self.failure(program, f"{program.name} does not stay up ({program.description})")
            if all(program.state in good for program in found) and (ready is None or ready()):
                return
            if time.monotonic() > deadline:
                late = next((program for program in found if program.state != "RUNNING"), found[0])
                raise self.failure(late, f"{late.name} is not ready after {timeout:g} s ({late.state})")
            time.sleep(0.2)

    def failure(self, program: ProgramStatus, message: str) -> ProgramFailedError:
        return ProgramFailedError(message, program.name, tail(program.log))

    def apply_changes(self) -> tuple[list[str], list[str]]:
        """Read the program files again. Programs that are new are added, those that are gone are stopped and removed,
        changed ones are replaced one after another, so that another instance covers. Returns (added, removed)."""
        [[added, changed, removed]] = self._call("reloadConfig")
        for name in [*removed, *changed]:
            self.stop([name])
            self._call("removeProcessGroup", name)
            if name in changed:
                self._call("addProcessGroup", name)
                self.wait_running([name], 60.0)
        for name in added:
            self._call("addProcessGroup", name)
        return list(added), list(removed)

    def shutdown(self) -> None:
        self._call("shutdown")


def connect(site: Site) -> Supervisor | None:
    """The platform's supervisord, or None when it does not run."""
    if not site.socket.exists():
        return None
    supervisor = Supervisor(site.socket)
    try:
        supervisor.pid()
    except PlatformError:
        return None
    return supervisor


def recorded_pid(site: Site) -> int | None:
    """The supervisord of the pid file, if that process is alive and is one."""
    try:
        pid = int(site.pidfile.read_text(encoding="utf-8"))
        command = psutil.Process(pid).cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    return pid if any("supervisord" in word for word in command) else None


def leftovers(site: Site) -> list[psutil.Process]:
    """Processes of this platform that still live, by the mark in their environment; never this one or its parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in own and process.environ().get(MARK) == str(site.run):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def running(root: Path) -> list[Path]:
    """The run folders of all platforms that live and were started from the checkout `root`."""
    found = set()
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if MARK in environment and environment.get("DEPTHVAULT_ROOT") == str(root) and process.pid != os.getpid():
            found.add(Path(environment[MARK]))
    return sorted(found)


def sweep(site: Site, timeout: float = 10.0) -> list[str]:
    """End what supervisord left behind, politely and then not. Returns the names of what was there."""
    orphans = leftovers(site)
    names = [process.name() for process in orphans if process.is_running()]
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in orphans:
            try:
                process.send_signal(sign)
            except psutil.Error:
                continue
        _, orphans = psutil.wait_procs(orphans, timeout)
    return names


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts connections on `port`."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
