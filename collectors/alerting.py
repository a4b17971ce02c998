"""The supervisor event listener: sends what processes raised, tells of programs that die, and revives what gave up.

It speaks supervisor's event protocol on stdin and stdout. Every event, and a tick each minute, is an occasion to read
the spools, send what is due, and call the heartbeat address while all is well, so that a dead host is noticed outside.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
import urllib.error
import urllib.request
import xmlrpc.client
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

import psutil

from depthvault.alerts import Alert, Grouper, Message, Sender, SpoolReader, configured_senders
from depthvault.alerts.senders import TIMEOUT, SendError
from depthvault.clock import Clock, SystemClock
from depthvault.config import Config, Secrets, load_config

log = logging.getLogger("depthvault.alerting")
POLL_SECONDS = 2.0
REVIVE_AFTER_SECONDS = 60.0
RETRY_SECONDS = 30.0
UNSENT_KEPT = 100
HANGS_AFTER_SECONDS = 60.0
"""A collector writes its figures each second; one that lives and has not for so long does not record either."""
_STEP_NS = 5_000_000_000  # by so much a clock may have been set back since
FULL_BYTES = 1 << 20
"""With less free than this other processes may not be able to tell of anything: then the listener does it."""


@dataclass(slots=True)
class Listener:
    """What is done at each occasion. `revive` starts a program that is FATAL again."""

    config: Config
    senders: list[Sender]
    clock: Clock
    revive: Callable[[str], None]
    spool: SpoolReader
    grouper: Grouper
    fatal: dict[str, int] = field(default_factory=dict)
    unsent: list[tuple[Sender, Message]] = field(default_factory=list)
    retry_ns: int = 0
    last_beat_ns: int = 0
    disk_is_full: bool = False

    def on_event(self, headers: dict[str, str], payload: dict[str, str]) -> None:
        """Take one supervisor event."""
        name, now = headers.get("eventname", ""), self.clock.wall_ns()
        program = payload.get("processname", "")
        if name == "PROCESS_STATE_FATAL":
            self.fatal[program] = now
            self._alert("fatal", program, f"{program} gave up: it is started again in {REVIVE_AFTER_SECONDS:g} s")
        elif name == "PROCESS_STATE_EXITED" and payload.get("expected") == "0":
            self._alert("exited", program, f"{program} ended unexpectedly and is restarted")
        elif name == "PROCESS_STATE_RUNNING" and self.fatal.pop(program, None) is not None:
            self._alert("revived", program, f"{program} runs again")

    def on_occasion(self) -> None:
        """Read spools, look at the disk, send what is due, revive what gave up, call the heartbeat."""
        now = self.clock.wall_ns()
        self._look_at_disk()
        for alert in self.spool.read():
            self.grouper.add(alert, now)
        self.spool.done()
        for message in self.grouper.due(now):
            log.warning("%s: %s", message.title, message.body.replace("\n", "; "))
            self.unsent.extend((sender, message) for sender in self.senders)
        if self.unsent and now >= self.retry_ns:
            self._send(now)
        for program, since in list(self.fatal.items()):
            if now - since >= REVIVE_AFTER_SECONDS * 1e9:
                self.fatal[program] = now
                self.revive(program)
        self._beat(now)

    def _send(self, now: int) -> None:
        """Send in order; what fails is tried again later, each way on its own, and is dropped only when very old."""
        failed: list[tuple[Sender, Message]] = []
        broken: set[str] = set()
        for sender, message in self.unsent:
            if sender.name in broken:
                failed.append((sender, message))
                continue
            try:
                sender.send(message)
            except SendError as error:
                log.error("not sent yet (%s): %s", error, message.title)
                broken.add(sender.name)
                failed.append((sender, message))
        if len(failed) > UNSENT_KEPT:
            log.error("%d messages could not be sent and are dropped", len(failed) - UNSENT_KEPT)
        self.unsent = failed[-UNSENT_KEPT:]
        self.retry_ns = now + round(RETRY_SECONDS * 1e9) if broken else 0

    def _look_at_disk(self) -> None:
        """Who raises an alert writes it to the disk; that the disk is full must be told without it."""
        root = self.config.layout.root
        was, self.disk_is_full = self.disk_is_full, shutil.disk_usage(root).free < FULL_BYTES
        if self.disk_is_full and not was:
            self._alert("disk_full", "disk", f"NOTHING CAN BE WRITTEN TO {root.absolute()}: the disk is full")

    def _alert(self, kind: str, subject: str, text: str) -> None:
        now = self.clock.wall_ns()
        self.grouper.add(Alert(now, kind, "supervisor", text, subject), now)

    def _troubles(self, now: int) -> list[str]:
        """Why not all is well: programs that gave up, collectors that say so themselves, or hang."""
        found = [f"{program} gave up" for program in self.fatal]
        if self.disk_is_full:
            found.append("the disk is full")
        for path in sorted((self.config.layout.run / "collectors").glob("*.json")):
            try:
                status = json.loads(path.read_text(encoding="utf-8"))
                problems, updated_ns = list(status["problems"]), int(status["updated_ns"])
                lives = _lives(status["pid"], updated_ns)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # it is just being replaced
            if not lives:
                continue  # supervisor sees to it
            if (age := (now - updated_ns) / 1e9) > HANGS_AFTER_SECONDS:
                problems.append(f"said nothing for {age:.0f} s")
            found += [f"{path.stem}: {problem}" for problem in problems]
        return found

    def _beat(self, now: int) -> None:
        url, interval = self.config.alerts.heartbeat_url, self.config.alerts.heartbeat_interval
        if not url or now - self.last_beat_ns < interval.total_seconds() * 1e9:
            return
        self.last_beat_ns = now
        if troubles := self._troubles(now):
            log.warning("no heartbeat: %s", "; ".join(troubles))
            return
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT):  # noqa: S310 - configured
                pass
        except (OSError, ValueError, urllib.error.URLError) as error:
            log.error("heartbeat: %s", error)


def _lives(pid: int, updated_ns: int) -> bool:
    """Whether process `pid` is the one that was there at `updated_ns`: numbers are used again, in containers soon."""
    try:
        return psutil.Process(pid).create_time() * 1e9 <= updated_ns + _STEP_NS
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _words(line: str) -> dict[str, str]:
    return dict(word.split(":", 1) for word in line.split() if ":" in word)


def read_events(stdin: TextIO, stdout: TextIO, handle: Callable[[dict[str, str], dict[str, str]], None]) -> None:
    """Supervisor's event protocol: READY, a header line, the payload, RESULT. Returns at the end of input."""
    while True:
        stdout.write("READY\n")
        stdout.flush()
        line = stdin.readline()
        if not line:
            return
        headers = _words(line)
        payload = stdin.read(int(headers.get("len", 0)))
        handle(headers, _words(payload.partition("\n")[0]))
        stdout.write("RESULT 2\nOK")
        stdout.flush()


def _revive(program: str) -> None:
    from supervisor.xmlrpc import SupervisorTransport

    socket = os.environ["DEPTHVAULT_SOCKET"]
    proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{socket}"))
    try:
        proxy.supervisor.startProcess(program, False)
    except (xmlrpc.client.Fault, OSError) as error:
        log.error("could not revive %s: %s", program, error)


def main() -> None:
    """Run under supervisor as an event listener."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    config = load_config()
    alerts = config.alerts
    folder = config.layout.run / "alerts"
    folder.mkdir(parents=True, exist_ok=True)
    listener = Listener(
        config,
        configured_senders(alerts, Secrets()),
        SystemClock(),
        _revive,
        SpoolReader(folder),
        Grouper(alerts.group_interval.total_seconds(), alerts.max_per_hour),
    )
    lock, ended = threading.Lock(), threading.Event()

    def handle(headers: dict[str, str], payload: dict[str, str]) -> None:
        with lock:
            listener.on_event(headers, payload)

    def occasions() -> None:
        while not ended.wait(POLL_SECONDS):
            try:
                with lock:
                    listener.on_occasion()
            except OSError as error:  # whatever the disk does, the next occasion comes
                log.error("%s", error)

    worker = threading.Thread(target=occasions, name="occasions")
    worker.start()
    try:
        read_events(sys.stdin, sys.stdout, handle)
    finally:
        ended.set()
        worker.join()
        listener.on_occasion()


if __name__ == "__main__":
    main()
