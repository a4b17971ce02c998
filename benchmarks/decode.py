"""What it costs to read a frame: at receipt (what is it, which ids), and at sealing (bytes to Arrow rows).

    python -m benchmarks.decode [--recording FILE] [--repeat 7] [--json FILE]

All readers get the same recorded frames in the same process; the best of some runs counts, in CPU time of the thread,
and each is shown as a multiple of `json.loads`, so that the ratios hold on a busy or slow machine. Readers that stop
half way (text instead of numbers, no table) are named so. Before anything is timed, the scanner's rows are compared
with the reference's and with `json.loads` + `float`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from depthvault.config import Config
from depthvault.exchanges import exchange
from depthvault.exchanges.base import Frames
from depthvault.exchanges.binance_rows import futures_diff
from depthvault.exchanges.binance_shapes import BookTicker, Envelope, FuturesDiff, Trade
from depthvault.exchanges.decode.arrays import kernels
from depthvault.exchanges.decode.books import decode_books
from depthvault.schemas import LEVELS

ROOT = Path(__file__).resolve().parents[1]
RECORDING = ROOT.parent / "shared" / "data" / "hftbacktest" / "usdm_btcusdt_20240808.gz"
SIDES = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")


def read_frames(path: Path) -> dict[str, Frames]:
    """The recording's frames by channel."""
    venue = exchange("binance_futures", Config().exchanges.binance_futures)
    found: dict[str, Frames] = {}
    with gzip.open(path, "rb") as lines:
        for position, line in enumerate(lines):
            stamp, _, body = line.rstrip(b"\n").partition(b" ")
            stream = venue.classify(body).stream
            if not stream:
                continue
            frames = found.setdefault(venue.channel_of(stream)[0], Frames())
            frames.sequences.append(position)
            frames.received_ns.append(int(stamp))
            frames.request_ns.append(0)
            frames.streams.append(stream)
            frames.bodies.append(body)
    return found


def best(run: Callable[[], object], frames: int, repeat: int) -> float:
    """µs of CPU a frame, best of `repeat`."""
    times = []
    for _ in range(repeat):
        begin = time.thread_time()
        run()
        times.append(time.thread_time() - begin)
    return min(times) / frames * 1e6


def plain_floats(bodies: list[bytes]) -> pa.Table:
    """What a recorder without this library does: parse, convert, build lists."""
    sides: dict[str, list[list[float]]] = {name: [] for name in SIDES}
    for body in bodies:
        data = json.loads(body)["data"]
        sides["bid_prices"].append([float(price) for price, _ in data["b"]])
        sides["bid_sizes"].append([float(size) for _, size in data["b"]])
        sides["ask_prices"].append([float(price) for price, _ in data["a"]])
        sides["ask_sizes"].append([float(size) for _, size in data["a"]])
    return pa.table({name: pa.array(values, LEVELS) for name, values in sides.items()})


def each(decode: Callable[[bytes], object], bodies: list[bytes]) -> Callable[[], object]:
    def run() -> None:
        for body in bodies:
            decode(body)

    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", type=Path, default=RECORDING)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    if not options.recording.exists():
        print(f"no recording at {options.recording}: nothing to decode (name one with --recording)")
        return 0
    venue = exchange("binance_futures", Config().exchanges.binance_futures)
    found = read_frames(options.recording)
    depth = found["depth_diff"]
    kernels()  # a process loads the compiler only after some megabytes: not the subject here
    levels = check(venue, depth)
    figures: dict[str, dict[str, float]] = {}

    def section(title: str, bodies: list[bytes], readers: list[tuple[str, Callable[[], object]]]) -> None:
        print(title)
        group = figures.setdefault(title, {})
        for name, run in readers:
            group[name] = best(run, len(bodies), options.repeat)
            ratio = group[name] / group["json.loads"]
            print(f"  {name:<52}{group[name]:8.2f} µs a frame {ratio:7.2f} × json.loads")

    bodies = depth.bodies
    size = sum(map(len, bodies)) / len(bodies)
    section(
        f"depth frames at receipt ({len(bodies):,} of {size:,.0f} bytes and {levels:.0f} levels)",
        bodies,
        [
            ("json.loads", each(json.loads, bodies)),
            ("msgspec typed", each(msgspec.json.Decoder(Envelope[FuturesDiff]).decode, bodies)),
            ("classify", each(venue.classify, bodies)),
            ("classify and head", each(lambda body: (venue.classify(body), venue.head(body)), bodies)),
        ],
    )
    section(
        "depth frames at sealing",
        bodies,
        [
            ("json.loads", each(json.loads, bodies)),
            ("msgspec untyped (numbers stay text)", each(msgspec.json.decode, bodies)),
            ("msgspec typed (numbers stay text)", each(msgspec.json.Decoder(Envelope[FuturesDiff]).decode, bodies)),
            ("json.loads + float + Arrow lists", lambda: plain_floats(bodies)),
            ("reference to Arrow rows", lambda: decode_books("depth_diff", depth, "a", futures_diff, None)),
            ("scanner to Arrow rows", lambda: venue.decode("depth_diff", depth, "a")),
        ],
    )
    for channel, shape in (("book_ticker", BookTicker), ("trade", Trade)):
        frames = found[channel]
        size = sum(map(len, frames.bodies)) / len(frames.bodies)
        typed: Any = msgspec.json.Decoder(Envelope[shape])  # type: ignore[valid-type]
        section(
            f"{channel} frames at sealing ({len(frames.bodies):,} of {size:.0f} bytes)",
            frames.bodies,
            [
                ("json.loads", each(json.loads, frames.bodies)),
                ("msgspec typed (numbers stay text)", each(typed.decode, frames.bodies)),
                ("decode to Arrow rows", lambda: venue.decode(channel, frames, "a")),  # noqa: B023  run at once
            ],
        )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def check(venue: Any, depth: Frames) -> float:
    """Scanner, reference and plain floats agree on every value; the mean number of levels a frame."""
    fast = venue.decode("depth_diff", depth, "a")
    slow = decode_books("depth_diff", depth, "a", futures_diff, None)
    plain = plain_floats(depth.bodies)
    same = fast.rows.equals(slow.rows) and all(fast.rows[name].equals(plain[name]) for name in SIDES)
    if not same or fast.rejected:
        raise SystemExit("the scanner disagrees with the reference: no figure is worth anything")
    total = sum(len(values) for name in ("bid_prices", "ask_prices") for values in plain[name].to_pylist())
    return total / len(depth.bodies)


if __name__ == "__main__":
    sys.exit(main())
