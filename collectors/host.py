"""What is recorded of this host beside the data: its software at each start, and how far its clock is off."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import ntplib
import psutil

NTP_SERVERS = ("pool.ntp.org", "time.cloudflare.com", "time.google.com")
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


def ntp_offset(servers: tuple[str, ...] = NTP_SERVERS, timeout: float = 2.0) -> dict[str, Any] | None:
    """Seconds that this clock is behind (positive) or ahead of the first server that answers; None: none does.

    Blocks; call it in a thread.
    """
    client = ntplib.NTPClient()
    for server in servers:
        try:
            answer = client.request(server, version=4, timeout=timeout)
        except (ntplib.NTPException, OSError):
            continue
        return {
            "source": server,
            "offset_s": round(answer.offset, 6),
            "round_trip_s": round(answer.delay, 6),
            "stratum": answer.stratum,
        }
    return None
