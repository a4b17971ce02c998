"""How long a frame takes from its receipt to the `Event` of somebody who follows it.

    python -m benchmarks.follow [--seconds 8] [--rate 500]

A process of its own writes depth frames (10 symbols, 20 levels each) into a journal, `rate` a second, and flushes every
`flush_interval`. The follower asks for one symbol, then for all ten. Latency is the event's moment in the reader less
its `received_time`, on one clock. Beside it what the flush interval alone must cost: half of it on average.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import depthvault
from depthvault.config import Config, JournalConfig, Secrets
from depthvault.journal import JournalWriter
from depthvault.layout import Layout
from depthvault.query import Event

VENUE = "binance_futures"
LOADING = 5.0
SYMBOLS = [f"SYM{number:02d}USDT" for number in range(10)]


def write(folder: Path, rate: int, interval: float) -> None:
    """Write frames until killed."""
    writer = JournalWriter(Layout(folder), VENUE, "a", config=JournalConfig(min_free=0))
    levels = [[f"{61000 + n / 10:.1f}", f"{n}.250"] for n in range(10)]
    number, flushed = 1, time.monotonic()
    began = time.monotonic()
    while True:
        symbol = SYMBOLS[number % len(SYMBOLS)]
        ms = time.time_ns() // 1_000_000
        data = {
            "e": "depthUpdate", "E": ms, "T": ms, "s": symbol, "U": number, "u": number, "pu": number - len(SYMBOLS),
            "b": levels, "a": levels,
        }  # fmt: skip
        stream = f"{symbol.lower()}@depth@100ms"
        body = json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()
        writer.append("frame", 1, stream, body)
        number += 1
        if time.monotonic() - flushed >= interval:
            flushed = time.monotonic()
            writer.flush()
        time.sleep(max(0.0, began + number / rate - time.monotonic()))


def measure(folder: Path, streams: list[str], seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Latencies in ms; the first seconds, in which the decoders are loaded, are left out."""
    secrets = Secrets.model_construct(r2_bucket_name=None, r2_access_key_id=None, r2_secret_access_key=None)
    vault = depthvault.open(folder, config=Config(data_dir=folder), secrets=secrets)
    found = []
    began = time.monotonic()
    with vault.follow(streams) as follow:
        for item in follow:
            now = time.monotonic() - began
            if isinstance(item, Event) and now > LOADING:
                found.append(time.time_ns() / 1e6 - item.received / 1e3)
            if now > seconds + LOADING:
                break
    return np.array(found)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--interval", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        write(arguments.write, arguments.rate, arguments.interval)
    print(f"{arguments.rate} frames a second; frame to event, ms")
    print("flush interval  streams  events    mean  median    p99     max   (flush alone, mean)")
    for interval in (0.25, 0.02):
        for count in (1, len(SYMBOLS)):
            with tempfile.TemporaryDirectory() as name:
                command = [sys.executable, "-m", "benchmarks.follow", "--write", name, "--rate", str(arguments.rate)]
                with subprocess.Popen([*command, "--interval", str(interval)]) as process:
                    try:
                        while not list(Path(name).rglob("*.journal")):
                            time.sleep(0.05)
                        streams = [f"{VENUE}/depth_diff/{symbol}" for symbol in SYMBOLS[:count]]
                        found = measure(Path(name), streams, arguments.seconds)
                    finally:
                        process.kill()
            print(
                f"{interval * 1000:11.0f} ms {count:8} {len(found):7} {found.mean():7.1f} {np.median(found):7.1f} "
                f"{np.percentile(found, 99):6.1f} {found.max():7.1f}   ({interval * 500:.0f})"
            )


if __name__ == "__main__":
    main()
