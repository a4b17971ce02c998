"""What the archive costs: bytes per price level beside other encodings, and the speed of compaction, audit and proof.

    python -m benchmarks.compaction [--levels 10000000]

Sizes are of recorded frames, as our schema with the encodings of `depthvault.archive.encoding`, beside the same table
as plain snappy and zstd-9 `list<double>` and beside the raw frames gzipped. Speed and memory are of a synthetic hour of
50 symbols, one of them a third of it, recorded by two writers; each figure comes from a process of its own. `verify` is
`verify --deep` of that hour without snapshots: what the audit adds is the line `audit`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.archive.compact import compact
from depthvault.archive.encoding import ArchiveWriter, Encoding
from depthvault.archive.publish import publish_with
from depthvault.archive.staging import Unit
from depthvault.archive.verify import verify
from depthvault.book.events import Snapshot, chain_of, levels_of
from depthvault.config import ArchiveConfig, Config
from depthvault.exchanges import exchange
from depthvault.exchanges.base import Frames
from depthvault.period import Period
from depthvault.quality.audit import audit
from depthvault.schemas import CHANNELS
from depthvault.seal.live import LiveWriter
from depthvault.seal.receipts import Receipt, write_receipt

ROOT = Path(__file__).resolve().parents[1]
RECORDINGS = ROOT.parent / "shared" / "data" / "hftbacktest"
HOUR = Period(datetime(2026, 11, 20, 10, tzinfo=UTC))
LEVELS_PER_EVENT = 68
SMALLER = ArchiveConfig().day_compression_level
SYMBOLS = 50
VENUE = "binance_futures"


def _frames(path: Path) -> tuple[Frames, int]:
    """The depth frames of a recording, and their size gzipped."""
    frames = Frames()
    raw = bytearray()
    with gzip.open(path, "rb") as file:
        for line in file:
            received, _, body = line.rstrip(b"\n").partition(b" ")
            if b"@depth" in body[:40]:
                frames.sequences.append(len(frames.sequences))
                frames.received_ns.append(int(received))
                frames.request_ns.append(0)
                frames.streams.append(json.loads(body)["stream"])
                frames.bodies.append(body)
                raw += body + b"\n"
    return frames, len(gzip.compress(bytes(raw), 6))


def sizes() -> Iterator[dict[str, object]]:
    """Bytes per level of each recording in each encoding."""
    for name, venue in (("usdm_btcusdt_20240808", VENUE), ("spot_ethusdt_20240808", "binance_spot"),
                        ("spot_ethusdt_20240809", "binance_spot")):  # fmt: skip
        path = RECORDINGS / f"{name}.gz"
        if not path.exists():
            continue
        frames, gzipped = _frames(path)
        table = exchange(venue, Config().exchanges[venue]).decode("depth_diff", frames, "a").rows
        levels = sum(len(table.column(f"{side}_prices").combine_chunks().flatten()) for side in ("bid", "ask"))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "x.parquet"

            def plain(options: dict[str, object], file: Path = file, table: pa.Table = table) -> int:
                pq.write_table(table, file, **options)
                return file.stat().st_size

            snappy = plain({"compression": "snappy"})
            zstd = plain({"compression": "zstd", "compression_level": 9})
            ours, small = 0, 0
            for level in (Encoding().level, SMALLER):
                with ArchiveWriter(file, CHANNELS["depth_diff"].schema, Encoding(level)) as writer:
                    writer.write(table)
                ours, small = ours or file.stat().st_size, file.stat().st_size
        yield {
            "recording": name, "events": table.num_rows, "levels": levels, "raw_gzip_6": round(gzipped / levels, 3),
            "list_double_snappy": round(snappy / levels, 3), "list_double_zstd_9": round(zstd / levels, 3),
            "archive": round(ours / levels, 3), "of_zstd_9": round(ours / zstd, 3),
            f"archive_level_{SMALLER}": round(small / levels, 3), f"level_{SMALLER}_of_zstd_9": round(small / zstd, 3),
        }  # fmt: skip


def _hour(config: Config, writer: str, levels: int) -> None:
    """The sealed hour of one writer: each symbol its own chain, levels that move about a price."""
    layout, events = config.layout, levels // LEVELS_PER_EVENT
    random = np.random.default_rng(1)
    start = HOUR.start_ns // 1000
    previous = dict.fromkeys(range(SYMBOLS), 0)
    with LiveWriter(layout, VENUE, writer, HOUR, "benchmark") as live:
        for first in range(0, events, 5000):
            count = min(5000, events - first)
            number = np.arange(first, first + count)
            symbol = np.where(random.random(count) < 1 / 3, 0, random.integers(1, SYMBOLS, count))
            before = np.zeros(count, np.int64)
            for place, (of, final) in enumerate(zip(symbol.tolist(), ((number + 1) * 10).tolist(), strict=True)):
                before[place], previous[of] = previous[of], final
            times = pa.array(start + number * (3_599_000_000 // events)).cast(pa.timestamp("us", tz="UTC"))
            width = LEVELS_PER_EVENT // 2
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * width)
            sides = {}
            for side in ("bid", "ask"):
                prices = np.round(60_000 + random.normal(0, 20, count * width), 1)
                amounts = np.round(random.exponential(1, count * width), 3)
                sides[f"{side}_prices"] = pa.ListArray.from_arrays(offsets, pa.array(prices))
                sides[f"{side}_sizes"] = pa.ListArray.from_arrays(offsets, pa.array(amounts))
            columns = {
                "received_time": times, "event_time": times, "transaction_time": times,
                "symbol": pa.array([f"S{of:03d}USDT" for of in symbol]), "instance": pa.array([writer] * count),
                "source": pa.array(["stream"] * count), "first_update_id": pa.array(number * 10 + 1),
                "final_update_id": pa.array(number * 10 + 10), "prev_final_update_id": pa.array(before),
                "is_snapshot": pa.array(np.zeros(count, np.bool_)), "epoch": pa.array(np.zeros(count, np.int32)),
                **sides,
            }  # fmt: skip
            schema = CHANNELS["depth_diff"].schema
            live.add("depth_diff", HOUR, pa.table([columns[name] for name in schema.names], schema.names).cast(schema))
        files = live.publish()
    write_receipt(
        layout,
        Receipt(
            exchange=VENUE, writer=writer, period=HOUR.label, period_minutes=60, complete=True, journals=[],
            files=files, damage=[], dropped=[], rejected={}, unknown={}, inexact={}, connections=[],
            software="benchmark", schema_version=1,
        ),
    )  # fmt: skip


def _measured(started: float, cpu: float) -> dict[str, float]:
    return {
        "wall_s": round(time.perf_counter() - started, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def run(step: str, folder: Path, levels: int) -> None:
    """One step in this process; prints its figures as JSON."""
    config = Config.model_validate({"data_dir": folder})
    if step == "make":
        for writer in ("a", "b"):
            _hour(config, writer, levels)
        return
    if step == "compact":
        started, cpu = time.perf_counter(), time.process_time()
        (draft,) = compact(config.layout, config, VENUE, HOUR).drafts
        figures = _measured(started, cpu)
        made = sum(file.bytes for file in draft.add)
        print(json.dumps({"levels_in": 2 * levels, "levels_out": levels, "bytes": made, **figures}))
        return
    if step == "verify":
        publish_with(config.layout, None, Unit(VENUE, HOUR))
        started, cpu = time.perf_counter(), time.process_time()
        result = verify(config.layout, deep=True)
        assert result.ok, result.findings
        print(json.dumps({"levels": levels, **_measured(started, cpu)}))
        return
    table = next(config.layout.staging.rglob("hour/**/*.parquet"))
    with pq.ParquetFile(table) as parquet:
        groups = [parquet.read_row_group(group) for group in range(parquet.num_row_groups)]
    rows = pa.concat_tables(
        [group for group in groups if group.column("symbol")[0].as_py() == "S000USDT"]
    ).combine_chunks().to_batches()[0]  # fmt: skip
    chain, bid, ask = chain_of(rows), levels_of(rows, "bid"), levels_of(rows, "ask")
    empty = np.zeros(0)
    moments = np.linspace(0, len(chain.final) - 2, 61).astype(int)
    books = [Snapshot("depth_snapshot", int(chain.final[at]), 0, 1000, empty, empty, empty, empty) for at in moments]
    list(audit(books[:2], chain, bid, ask))  # loads the compiled kernel
    started, cpu = time.perf_counter(), time.process_time()
    outcomes = list(audit(books, chain, bid, ask))
    print(
        json.dumps(
            {"comparisons": len(outcomes), "levels": int(bid.offsets[-1] + ask.offsets[-1]), **_measured(started, cpu)}
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", type=int, default=10_000_000)
    parser.add_argument("--step", choices=("make", "compact", "audit", "verify"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.step:
        run(options.step, options.folder, options.levels)
        return
    print("bytes per level")
    for line in sizes():
        print(" ", json.dumps(line))
    with tempfile.TemporaryDirectory() as folder:
        for step in ("make", "compact", "audit", "verify"):
            command = [
                sys.executable, "-m", "benchmarks.compaction", "--step", step, "--folder", folder,
                "--levels", str(options.levels),
            ]  # fmt: skip
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            if done.stdout.strip():
                figures = json.loads(done.stdout)
                rate = figures.get("levels_out", figures.get("levels", 0)) / max(figures["cpu_s"], 0.01)
                print(f"{step}: {rate / 1e6:.1f} M levels/s of CPU", done.stdout.strip())


if __name__ == "__main__":
    main()
