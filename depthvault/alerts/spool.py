"""How a process raises an alert without waiting for a network: it appends a line to its own file under `run/alerts/`.

One file a process, one JSON line an alert. The alerting listener reads on from where it stopped; its place is kept in a
file, so that a restart repeats nothing and loses nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from depthvault.durable import write_atomic

LOG = logging.getLogger("depthvault.alerts")

_KEEP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Alert:
    """Something a person may want to know.

    time_ns: when it happened. kind: gap, resync, stale, disconnect, connect, banned, start, stop, fatal, …
    source: who says so (`binance_futures a`, `airflow`). text: one line for people. subject: what it is about
    (symbol, connection, program); alerts of one kind and source are sent as one message that counts subjects.
    """

    time_ns: int
    kind: str
    source: str
    text: str
    subject: str = ""


class Spool:
    """Where one process raises its alerts. `name` is the process's own, such as `binance_futures-a`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.jsonl"

    def raise_alert(self, alert: Alert) -> None:
        """Append `alert` as a whole line, also from several threads. Raises OSError, and then nothing of it is left."""
        line = json.dumps(asdict(alert), ensure_ascii=False).encode() + b"\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # what is taken back must be ours
            end = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            except OSError:
                file.truncate(end)
                raise


class SpoolReader:
    """Reads what all processes raised, each alert once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places = folder / "places.json"
        self._unwritten: dict[str, int] | None = None

    def _read_places(self) -> dict[str, int]:
        if self._unwritten is not None:
            return self._unwritten
        try:
            places: dict[str, int] = json.loads(self._places.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return places

    def read(self) -> list[Alert]:
        """Alerts raised since the last `read` that was followed by `done`, by time. A torn last line waits."""
        places, found = self._read_places(), []
        self._next: dict[str, int] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            data = path.read_bytes()
            start = places.get(path.name, 0)
            if start > len(data):  # the file was begun anew
                start = 0
            end = data.rfind(b"\n") + 1
            for line in data[start:end].splitlines():
                try:
                    found.append(Alert(**json.loads(line)))
                except (ValueError, TypeError):
                    found.append(Alert(0, "malformed", path.stem, f"an unreadable alert in {path.name}"))
            self._next[path.name] = end
        return sorted(found, key=lambda alert: alert.time_ns)

    def done(self) -> None:
        """Keep the place: what the last `read` returned will not be read again. Long files that are read are removed
        by renaming, so that a writer that opens them by name begins a new one. On a full disk the place is kept in
        memory: it is just then that people must be told."""
        for name, end in list(self._next.items()):
            path = self._folder / name
            if end > _KEEP_BYTES and path.exists() and path.stat().st_size == end:
                path.rename(path.with_suffix(".old"))
                self._next[name] = 0
        try:
            write_atomic(self._places, json.dumps(self._next).encode())
            self._unwritten = None
        except OSError as error:
            if self._unwritten is None:
                LOG.error("%s: %s; alerts may be sent again after a restart", self._places, error.strerror)
            self._unwritten = self._next
