"""Logging of the long-running processes: one rotating file a process, and stderr for whoever supervises."""

from __future__ import annotations

import logging
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from depthvault.durable import make_directories

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"


def configure_logging(path: Path, *, bytes_per_file: int, backups: int, level: int = logging.INFO) -> None:
    """Send the log of this process to `path` (UTC, rotated by size) and to stderr."""
    make_directories(path.parent)
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    file = RotatingFileHandler(path, maxBytes=bytes_per_file, backupCount=backups, encoding="utf-8")
    stream = logging.StreamHandler(sys.stderr)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    for handler in (file, stream):
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger("websockets").setLevel(logging.ERROR)  # the collector says itself what became of a connection
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
