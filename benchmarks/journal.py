"""What the journal and the seal cost, per frame, beside plain baselines in the same run.

    python -m benchmarks.journal [--recording FILE.gz] [--repeat N] [--json]

CPU time of this process (all threads), best of three. `--repeat` seals an hour of N times the frames, to see that
memory stays bounded. Without a recording, frames of the same shapes are made up.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.clock import ManualClock, datetime_from_ns
from depthvault.config import BinanceFuturesConfig, JournalConfig
from depthvault.exchanges import exchange
from depthvault.journal import Batch, Follower, JournalWriter, read
from depthvault.layout import Layout
from depthvault.seal import seal
from depthvault.seal.live import COMPRESSION
from depthvault.seal.spans import SpanIndex

RECORDING = Path(__file__).parents[2] / "shared" / "data" / "hftbacktest" / "usdm_btcusdt_20240808.gz"
FLUSH_FRAMES = 2500  # a flush interval of 250 ms at 10,000 frames/s
CONFIG = JournalConfig(min_free=0, batch_bytes=64 << 20)  # flushes come from the bench alone
Frame = tuple[int, str, bytes]


def recorded(path: Path) -> list[Frame]:
    """(time of receipt in ns, stream, message) of a recording's frames."""
    frames = []
    with gzip.open(path) as file:
        for line in file:
            received, _, body = line.strip().partition(b" ")
            if body.startswith(b'{"stream":"'):
                frames.append((int(received), body[11 : body.index(b'"', 11)].decode(), body))
    return frames


def made_up(count: int) -> list[Frame]:
    """Frames of a recording's shapes and shares."""
    chance = random.Random(1)
    start = 1_723_161_255_000_000_000
    frames: list[Frame] = []
    last = 1
    for number in range(count):
        received = start + number * 3_600_000
        ms = received // 1_000_000
        share = chance.random()
        if share < 0.07:
            sides = [
                ",".join(f'["{chance.randrange(600000, 620000) / 10:.2f}","{chance.random():.3f}"]' for _ in range(34))
                for _ in range(2)
            ]
            stream = "btcusdt@depth@0ms"
            data = f'{{"e":"depthUpdate","E":{ms},"T":{ms},"s":"BTCUSDT","U":{last + 1},"u":{number + 2},"pu":{last},'
            data += f'"b":[{sides[0]}],"a":[{sides[1]}]}}'
            last = number + 2
        elif share < 0.3:
            stream = "btcusdt@trade"
            data = (
                f'{{"e":"trade","E":{ms},"T":{ms},"s":"BTCUSDT","t":{number},"p":"61800.10","q":"0.002","X":"MARKET",'
            )
            data += '"m":true}'
        else:
            stream = "btcusdt@bookTicker"
            data = (
                f'{{"e":"bookTicker","u":{number},"s":"BTCUSDT","b":"61800.10","B":"2.500","a":"61800.20","A":"1.100",'
            )
            data += f'"T":{ms},"E":{ms}}}'
        frames.append((received, stream, f'{{"stream":"{stream}","data":{data}}}'.encode()))
    return frames


def cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU time, best of three."""
    best = float("inf")
    for _ in range(3):
        before = time.process_time()
        work()
        best = min(best, time.process_time() - before)
    return best


def append_plain(path: Path, frames: list[Frame]) -> None:
    """The baseline: time and message as lines of a file."""
    with path.open("wb") as file:
        for number, (received, _, body) in enumerate(frames):
            file.write(b"%d %b\n" % (received, body))
            if number % FLUSH_FRAMES == 0:
                file.flush()


def append_journal(root: Path, frames: list[Frame]) -> Path:
    clock = ManualClock(frames[0][0])
    writer = JournalWriter(Layout(root), "binance_futures", "a", config=CONFIG, clock=clock)
    append = writer.append
    for number, (received, stream, body) in enumerate(frames):
        append("frame", 1, stream, body, received, received)
        if number % FLUSH_FRAMES == 0:
            writer.flush()
    clock.wall = frames[-1][0]
    writer.close()
    return writer.path


def append_only(root: Path, frames: list[Frame]) -> float:
    """Seconds of CPU time of the appends alone: what the event loop pays when another thread flushes."""
    writer = JournalWriter(Layout(root), "binance_futures", "a", config=JournalConfig(min_free=0, batch_bytes=1 << 40))
    append = writer.append
    before = time.process_time()
    for received, stream, body in frames:
        append("frame", 1, stream, body, received, received)
    spent = time.process_time() - before
    writer.close()
    return spent


def drain(path: Path) -> int:
    return sum(part.rows.num_rows for part in read(path) if isinstance(part, Batch))


def follow_latency(root: Path, frames: list[Frame]) -> float:
    """Median milliseconds from a flush to its rows in a follower of another thread."""
    layout = Layout(root)
    writer = JournalWriter(layout, "binance_futures", "a", config=CONFIG)
    follower = Follower(layout, "binance_futures", "a", since_ns=0)
    seen = threading.Event()
    stop = threading.Event()
    arrived = 0.0

    def look() -> None:
        nonlocal arrived
        while not stop.is_set():
            if follower.poll():
                arrived = time.perf_counter()
                seen.set()
            time.sleep(0.002)

    thread = threading.Thread(target=look)
    thread.start()
    delays = []
    for number in range(40):
        for received, stream, body in frames[number * 100 : number * 100 + 100]:
            writer.append("frame", 1, stream, body, received)
        seen.clear()
        began = time.perf_counter()
        writer.flush()
        seen.wait(5)
        delays.append((arrived - began) * 1000)
    stop.set()
    thread.join()
    follower.close()
    writer.close()
    return statistics.median(delays)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", type=Path, default=RECORDING, help="gzip text, `<ns> <message>` a line")
    parser.add_argument("--repeat", type=int, default=0, help="also seal an hour of N times the frames")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    frames = recorded(options.recording) if options.recording.exists() else made_up(90_000)
    source = options.recording.name if options.recording.exists() else "made up"
    count, raw = len(frames), sum(len(body) for _, _, body in frames)
    depth = sum("@depth" in stream for _, stream, _ in frames)
    venue = exchange("binance_futures", BinanceFuturesConfig())
    results: dict[str, float] = {}

    def put(name: str, seconds: float, of: int = count) -> None:
        results[name] = seconds / of * 1e6

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        runs = iter(range(10**6))
        put("plain append, µs/frame", cpu(lambda: append_plain(root / "plain", frames)))
        put("journal append + flush, µs/frame", cpu(lambda: append_journal(root / f"{next(runs)}", frames)))
        put("  of it the appends, µs/frame", min(append_only(root / f"{next(runs)}", frames) for _ in range(3)))
        data = root / "data"
        path = append_journal(data, frames)
        results["journal bytes / raw bytes"] = path.stat().st_size / raw
        put("journal read, µs/frame", cpu(lambda: drain(path)))
        results["follow, ms behind the flush (median)"] = follow_latency(root / "follow", frames)

        layout = Layout(data)
        grace = timedelta(minutes=1)
        period = layout.period_of(datetime_from_ns(frames[0][0]))
        seal(layout, venue, "a", period, grace=grace)  # compiles what is compiled

        def spans_anew() -> None:
            shutil.rmtree(layout.run)  # what was remembered on disk
            SpanIndex(layout, grace).refresh("binance_futures", "a")

        put("spans (which hours), µs/frame", cpu(spans_anew))
        put("seal, µs/frame", cpu(lambda: seal(layout, venue, "a", period, grace=grace, force=True)))
        tables = {path: pq.ParquetFile(path).read() for path in layout.live.rglob("*.parquet")}
        again = root / "again.parquet"

        def write_all() -> None:
            for table in tables.values():
                pq.write_table(table, again, compression=COMPRESSION)

        put("pyarrow's write of the same rows, µs/frame", cpu(write_all))
        only = [one for one in frames if "@depth" in one[1]]
        books = root / "books"
        append_journal(books, only)
        put("seal, depth alone, µs/depth frame",
            cpu(lambda: seal(Layout(books), venue, "a", period, grace=grace, force=True)), depth)  # fmt: skip
        depth_table = pa.concat_tables(table for path, table in tables.items() if "depth_diff" in str(path))
        put("pyarrow's write of depth, µs/depth frame",
            cpu(lambda: pq.write_table(depth_table, again, compression=COMPRESSION)), depth)  # fmt: skip
        if options.repeat:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            many = root / "many"
            writer = JournalWriter(
                Layout(many), "binance_futures", "a", config=JournalConfig(min_free=0), clock=ManualClock(frames[0][0])
            )
            for _ in range(options.repeat):
                for received, stream, body in frames:
                    writer.append("frame", 1, stream, body, received, 0)
            writer.close()
            put("seal of many, µs/frame",
                cpu(lambda: seal(Layout(many), venue, "a", period, grace=grace, force=True)),
                count * options.repeat)  # fmt: skip
            results["peak memory before sealing many, MB"] = before
            results["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    results["ratio journal / plain append"] = (
        results["journal append + flush, µs/frame"] / results["plain append, µs/frame"]
    )
    results["ratio seal / pyarrow's write"] = (
        results["seal, µs/frame"] / results["pyarrow's write of the same rows, µs/frame"]
    )
    results["ratio seal of depth / pyarrow's write"] = (
        results["seal, depth alone, µs/depth frame"] / results["pyarrow's write of depth, µs/depth frame"]
    )
    if options.json:
        print(json.dumps({"frames": count, "depth": depth, "source": source, **results}, ensure_ascii=False))
        return 0
    print(f"{count} frames ({depth} of depth, {raw / count:.0f} bytes on average), {source}")
    for name, value in results.items():
        print(f"{name:48} {value:8.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
