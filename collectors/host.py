"""What is recorded of this host beside the data: its software at each start, and how far its clock is off."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

import ntplib
import psutil

LOG = logging.getLogger("depthvault.collector")

_NTP_PORT = 123
_SERVER, _ALARM, _UNSYNCHRONISED = 4, 3, 16  # mode; leap indicator; stratum (RFC 5905)
_PACKAGES = ("depthvault", "aiohttp", "google-crc32c", "msgspec", "numba", "numpy", "pyarrow", "uvloop", "websockets")


def environment() -> dict[str, Any]:
    """OS, Python, package versions, CPU and memory of this process's host."""
    return {
        "os": platform.platform(),
        "host": platform.node(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "cpu": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "pid": os.getpid(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def ntp_offset(servers: Sequence[str], timeout: float = 2.0) -> dict[str, Any] | None:
    """Seconds that this clock is behind (positive) or ahead of the first server that knows the time; None: none does.

    servers: `host` or `host:port`. A server that says itself that it is not synchronised (RFC 5905: leap 3, stratum 0
    or 16 and above), or whose answer is none to what was just asked, is passed over. Blocks; call it in a thread.
    """
    client = ntplib.NTPClient()
    for server in servers:
        try:
            address = urlsplit(f"//{server}")
            host, port = address.hostname or "", address.port or _NTP_PORT
            answer = client.request(host, version=4, port=port, timeout=timeout)
        except (ntplib.NTPException, OSError, ValueError) as error:
            LOG.debug("NTP server %s: %s", server, error)
            continue
        asked_before = answer.dest_timestamp - answer.orig_timestamp
        synchronised = answer.leap != _ALARM and 1 <= answer.stratum < _UNSYNCHRONISED
        if answer.mode != _SERVER or not synchronised or not 0 <= asked_before <= timeout + 1:
            LOG.warning(
                "NTP server %s does not know the time: leap %d, stratum %d", server, answer.leap, answer.stratum
            )
            continue
        return {
            "source": server,
            "offset_s": round(answer.offset, 6),
            "round_trip_s": round(answer.delay, 6),
            "stratum": answer.stratum,
        }
    return None
