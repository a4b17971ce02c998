"""What a collector costs: CPU per frame of the whole process, from the socket to the durable journal.

    python -m benchmarks.collector [--recording FILE] [--symbols 528 --rate 10000 --seconds 20]

The same messages are blasted at a bare `websockets` receive loop, which keeps nothing, and at the whole collector
(classify, sequence check, journal, fsync each second). The ratio of the two is the figure to watch: it does not
depend on the machine. CPU is user and system time of the receiving process between the first and the last frame.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

CRYPTOFEED = "DEPTHVAULT_BENCH_CRYPTOFEED"
"""Environment variable: the Python of an environment that has cryptofeed."""
ROOT = Path(__file__).resolve().parents[1]
RECORDING = ROOT.parent / "shared" / "data" / "hftbacktest" / "usdm_btcusdt_20240808.gz"


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _report(frames: int, cpu: float, wall: float, **more: Any) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"frames": frames, "cpu_s": cpu, "wall_s": wall, "peak_rss": peak, **more}), flush=True)


async def bare(port: int, total: int, parts: list[list[str]]) -> None:
    """Receive loops that keep nothing, on as many connections as the collector has."""
    from websockets.asyncio.client import ClientConnection, connect

    url = f"ws://127.0.0.1:{port}/public/stream"
    sockets: list[ClientConnection] = []
    for names in parts:
        socket = await connect(url, compression=None, max_size=None, max_queue=2048, proxy=None)
        for start in range(0, len(names), 100):
            await socket.send(json.dumps({"method": "SUBSCRIBE", "params": names[start : start + 100], "id": start}))
        sockets.append(socket)
    begun: list[tuple[float, float]] = []
    received = 0
    finished = asyncio.Event()

    async def receive(socket: ClientConnection, acknowledgements: int) -> None:
        nonlocal received
        recv = socket.recv
        for _ in range(acknowledgements):
            await recv(decode=False)
        while True:
            await recv(decode=False)
            if not received:
                begun.append((_cpu(), time.perf_counter()))
            received += 1
            if received == total:
                finished.set()

    tasks = [
        asyncio.create_task(receive(socket, -(-len(names) // 100)))
        for socket, names in zip(sockets, parts, strict=True)
    ]
    await finished.wait()
    cpu, wall = begun[0]
    _report(total, _cpu() - cpu, time.perf_counter() - wall, connections=len(sockets))
    for task in tasks:
        task.cancel()


async def collector(port: int, total: int, channels: list[str], speed: str) -> None:
    """The whole collector, with its journal on disk."""
    from collectors.collector import Collector
    from depthvault.book.sync import State
    from depthvault.config import Config

    with tempfile.TemporaryDirectory(prefix="depthvault-bench-") as folder:
        config = Config.model_validate(
            {
                "data_dir": folder,
                "platform": {"metrics_port": 0},
                "exchanges": {
                    "binance_futures": {
                        "symbols": "all", "channels": channels, "depth_speed": speed,
                        "ws_url": f"ws://127.0.0.1:{port}", "rest_url": f"http://127.0.0.1:{port}",
                    }
                },
            }
        )  # fmt: skip
        running = Collector(config, "binance_futures", time_reference=lambda: None)
        task = asyncio.create_task(running.run())
        await running.started.wait()

        def heard() -> int:
            counters = running.recorder.counters
            return counters.frames - counters.control - counters.malformed

        while not heard():  # noqa: ASYNC110 - an event would cost on the path that is measured
            await asyncio.sleep(0.01)
        first, cpu, wall = heard(), _cpu(), time.perf_counter()
        while heard() < total and not task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.to_thread(running.journal.flush)
        await asyncio.to_thread(running.journal.fsync)
        cpu, wall = _cpu() - cpu, time.perf_counter() - wall
        counters = running.recorder.counters
        live = running.books.states()[State.LIVE]
        running.stop("benchmark")
        await task
        journal = sum(path.stat().st_size for path in Path(folder).glob("journal/**/*.journal"))  # noqa: ASYNC240
        _report(
            total - first, cpu, wall, gaps=counters.gaps, live=live, journal_bytes=journal, bytes=counters.bytes,
            lag_mean_ms=counters.lag.total_ms / max(1, counters.lag.count), flush_worst_ms=counters.flush_worst_ms,
            fsync_worst_ms=counters.fsync_worst_ms,
        )  # fmt: skip


def measure(source: list[str], child: list[str]) -> dict[str, Any]:
    """Blast `source` at `child`, each in its own process."""
    blaster = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.blaster", *source], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert blaster.stdout is not None
        told = json.loads(blaster.stdout.readline())
        command = [
            sys.executable,
            "-m",
            "benchmarks.collector",
            "--child",
            *child,
            str(told["port"]),
            str(told["total"]),
        ]
        if child[0] == "cryptofeed":
            command = [child[1], "-m", "benchmarks.cryptofeed_book", str(told["port"]), str(told["total"]), source[1]]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=300)
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr[-2000:])
    finally:
        blaster.kill()
        blaster.wait()


def streams_of(source: list[str]) -> list[list[str]]:
    """The source's streams, parted over connections as the collector does it: by route, 50 symbols each."""
    from benchmarks.blaster import Recording, Synthetic

    made = Recording(Path(source[1])) if source[0] == "recording" else Synthetic(int(source[1]), 1, 1)
    parts: list[list[str]] = []
    for market in (False, True):
        for start in range(0, len(made.symbols), 50):
            symbols = {symbol.lower() for symbol in made.symbols[start : start + 50]}
            parts.append(
                [
                    name
                    for name in sorted(made.streams)
                    if name.partition("@")[0] in symbols and ("@aggTrade" in name) is market
                ]
            )
    return [names for names in parts if names]


def _child(arguments: list[str]) -> None:
    kind, *rest, port, total = arguments
    if kind == "bare":
        uvloop.run(bare(int(port), int(total), streams_of(rest)))
    else:
        channels, speed = rest
        uvloop.run(collector(int(port), int(total), channels.split(","), speed))


def _beside_cryptofeed(source: list[str], ours_us: float) -> None:
    """cryptofeed on the synthetic feed, where an interpreter that has it is named."""
    python = os.environ.get(CRYPTOFEED)
    if not python:
        print(f"  cryptofeed: not measured, {CRYPTOFEED} names no interpreter (see benchmarks/cryptofeed_book.py)")
        return
    run = measure(source, ["cryptofeed", python])
    theirs_us = run["cpu_s"] / run["frames"] * 1e6
    print(
        f"  cryptofeed, L2 books   {theirs_us:6.2f} µs CPU per frame   peak {run['peak_rss'] / 1e6:5.0f} MB   "
        f"{theirs_us / ours_us:.1f} times the collector"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", type=Path, default=RECORDING)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the cheapest counts")
    parser.add_argument("--symbols", type=int, default=528)
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument(
        "--seconds", type=float, default=60, help="a minute holds as many snapshots as the venue allows"
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.child)
        return 0
    figures: dict[str, Any] = {}
    cases = []
    if options.recording.exists():
        source = ["recording", str(options.recording)]
        cases.append(("recorded BTCUSDT, as fast as it goes", source, "depth_diff,trade,book_ticker", "0ms"))
    source = ["synthetic", str(options.symbols), str(options.rate), str(options.seconds)]
    title = f"{options.symbols} symbols at {options.rate:,.0f} frames/s"
    cases.append((title, source, "depth_diff,agg_trade,book_ticker", "100ms"))
    for title, source, channels, speed in cases:
        repeat = options.repeat if source[0] == "recording" else 1
        bare_runs = [measure(source, ["bare", *source]) for _ in range(repeat)]
        full_runs = [measure(source, ["collector", channels, speed]) for _ in range(repeat)]
        plain = min(bare_runs, key=lambda run: run["cpu_s"] / run["frames"])
        full = min(full_runs, key=lambda run: run["cpu_s"] / run["frames"])
        plain_us, full_us = (run["cpu_s"] / run["frames"] * 1e6 for run in (plain, full))
        figures[title] = {"bare": plain, "collector": full, "ratio": full_us / plain_us}
        print(f"{title}: {full['frames']:,} frames, {plain['connections']} connections")
        print(f"  bare websockets loop   {plain_us:6.2f} µs CPU per frame   peak {plain['peak_rss'] / 1e6:5.0f} MB")
        print(
            f"  collector to journal   {full_us:6.2f} µs CPU per frame   peak {full['peak_rss'] / 1e6:5.0f} MB   "
            f"{full['cpu_s'] / full['wall_s'] * 100:.0f} % of a core"
        )
        print(f"  ratio {full_us / plain_us:.2f} (aim: at most 2.5)   gaps {full['gaps']}   books live {full['live']}")
        print(
            f"  journal {full['bytes'] / full['journal_bytes']:.1f} times smaller than the frames, longest flush "
            f"{full['flush_worst_ms']:.0f} ms, longest fsync {full['fsync_worst_ms']:.0f} ms"
        )
    _beside_cryptofeed(source, full_us)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
