"""Books and replay: levels a second of the compiled kernel beside a plain dict book, and what a question costs.

    python -m benchmarks.replay [--recording FILE]

Everything runs on the recorded BTCUSDT futures stream, repeated with shifted ids and times where more is needed.
Rates count CPU time, so that a busy machine does not blur them; latencies are on the wall. The ratios do not depend on
the machine.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import depthvault
from benchmarks.query import publish
from depthvault.archive.encoding import ArchiveWriter, Encoding
from depthvault.archive.manifest import ArchiveFile, SymbolSpan
from depthvault.book.events import Levels, chain_of, levels_of
from depthvault.book.kernel import Kernel, samples
from depthvault.book.reference import ReferenceBook
from depthvault.book.seeds import LEVEL_COLUMNS
from depthvault.config import Config, Secrets
from depthvault.durable import sha256_file
from depthvault.exchanges import exchange
from depthvault.exchanges.base import Frames
from depthvault.layout import Layout

ROOT = Path(__file__).resolve().parents[1]
RECORDING = ROOT.parent / "shared" / "data" / "hftbacktest" / "usdm_btcusdt_20240808.gz"
VENUE, SYMBOL = "binance_futures", "BTCUSDT"


def decoded(path: Path) -> dict[str, pa.Table]:
    """`depth_diff` and `depth_snapshot` rows of a recording."""
    venue = exchange(VENUE, Config().exchanges.binance_futures)
    frames = {"depth_diff": Frames(), "depth_snapshot": Frames(source="rest")}
    with gzip.open(path, "rb") as file:
        for number, line in enumerate(file):
            received, body = line.rstrip(b"\n").split(b" ", 1)
            if b"@depth" in body[:40]:
                channel, stream, requested = "depth_diff", "btcusdt@depth@0ms", 0
            elif not body.startswith(b'{"stream"'):
                channel, stream = "depth_snapshot", venue.snapshot_request(SYMBOL, 1000).line
                requested = int(received) - 50_000_000
            else:
                continue
            kept = frames[channel]
            kept.sequences.append(number)
            kept.received_ns.append(int(received))
            kept.request_ns.append(requested)
            kept.streams.append(stream)
            kept.bodies.append(body)
    return {channel: venue.decode(channel, kept, "a").rows for channel, kept in frames.items()}


def repeated(rows: pa.Table, times: int) -> pa.Table:
    """The rows again and again, each time later and with higher ids, so that they go on as one chain."""
    chain = chain_of(rows.combine_chunks().to_batches()[0])
    ids = int(chain.final[-1] - chain.prev[0])
    span = int(chain.received[-1] - chain.received[0]) + 50_000
    parts = []
    for turn in range(times):
        columns = []
        for name in rows.schema.names:
            column = rows.column(name)
            if name.endswith("update_id"):
                column = pc.add(column, ids * turn)
            elif pa.types.is_timestamp(column.type):
                column = pc.add(column.cast(pa.int64()), span * turn).cast(column.type)
            columns.append(column)
        parts.append(pa.table(columns, schema=rows.schema))
    return pa.concat_tables(parts)


def best(runs: int, action: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """CPU seconds (of all threads) of the fastest of `runs`; `clock`: time.perf_counter for seconds on the wall."""
    seconds = []
    for _ in range(runs):
        started = clock()
        action()
        seconds.append(clock() - started)
    return min(seconds)


def show(name: str, value: str, ratio: str = "") -> None:
    print(f"{name:<58}{value:>16}{ratio:>14}", flush=True)


def plain(bid: Levels, ask: Levels, last: int) -> None:
    """The first `last` events on dicts, as one would write it."""
    book = ReferenceBook()
    sides = [(levels.offsets.tolist(), levels.prices.tolist(), levels.sizes.tolist()) for levels in (bid, ask)]
    for row in range(last):
        of_row = [zip(p[o[row] : o[row + 1]], s[o[row] : o[row + 1]], strict=True) for o, p, s in sides]
        book.apply(*of_row)


def kernels(rows: pa.Table) -> None:
    """Levels a second in memory."""
    batch = rows.combine_chunks().to_batches()[0]
    bid, ask, chain = levels_of(batch, "bid"), levels_of(batch, "ask"), chain_of(batch)
    count = bid.prices.size + ask.prices.size
    few = batch.num_rows // 10
    base_levels = int(bid.offsets[few] + ask.offsets[few])
    base = base_levels / best(2, lambda: plain(bid, ask, few))
    show("levels applied, dict book in Python", f"{base / 1e6:.2f} M/s", "1.0 x")
    Kernel().apply(bid, ask, 0, 10)

    def apply() -> None:
        Kernel().apply(bid, ask, 0, batch.num_rows)

    rate = count / best(3, apply)
    show("levels applied, compiled kernel", f"{rate / 1e6:.1f} M/s", f"{rate / base:.0f} x")
    times = np.maximum.accumulate(chain.received)
    for step, label in ((1_000_000, "1 s"), (100_000, "100 ms")):
        moments = np.arange(times[0], times[-1], step)

        def sample(moments: Any = moments) -> None:
            into = samples(moments.size, 20)
            Kernel(20).sample(bid, ask, times, 0, moments, into, 0, final=True)

        rate = count / best(3, sample)
        show(f"… with the best 20 levels taken every {label}", f"{rate / 1e6:.1f} M/s", f"{rate / base:.0f} x")


def levels_read(path: Path) -> None:
    """Prices and sizes out of Parquet, as fast as it gives them, and nothing else."""
    with pq.ParquetFile(path) as file:
        for _ in file.iter_batches(16_384, columns=list(LEVEL_COLUMNS), use_threads=False):
            pass


def questions(rows: dict[str, pa.Table], folder: Path) -> None:
    """What `vault` answers cost over about an hour of the stream, from Parquet on disk."""
    hour = repeated(rows["depth_diff"], 10)
    layout = Layout(folder)
    start = datetime(2024, 8, 8, 23, tzinfo=UTC)
    previous = None
    for number, (channel, table) in enumerate((("depth_diff", hour), ("depth_snapshot", rows["depth_snapshot"])), 1):
        key = Layout.hour_key(VENUE, channel, layout.period_of(start), 1)
        path = layout.archived(key)
        path.parent.mkdir(parents=True)
        with ArchiveWriter(path, table.schema, Encoding()) as writer:
            writer.write(table)
        received = table.column("received_time").cast(pa.int64())
        span = pc.min(received).as_py(), pc.max(received).as_py()
        file = ArchiveFile(
            key, sha256_file(path), path.stat().st_size, table.num_rows, "", channel, *span,
            symbols={SYMBOL: SymbolSpan(table.num_rows, *span, (0, 1))},
        )  # fmt: skip
        previous = publish(layout, number, previous, VENUE, file, layout.period_of(start))
    vault = depthvault.open(folder, config=Config(), secrets=Secrets.model_construct(r2_bucket_name=None,
                            r2_access_key_id=None, r2_secret_access_key=None))  # fmt: skip
    received = hour.column("received_time")
    first, last = pc.min(received).as_py(), pc.max(received).as_py()
    levels = pc.sum(pc.list_value_length(hour.column("bid_prices"))).as_py()
    levels += pc.sum(pc.list_value_length(hour.column("ask_prices"))).as_py()
    print(f"\n{hour.num_rows:,} events, {levels:,} levels, {(last - first).total_seconds() / 60:.0f} minutes on disk")
    middle = first + (last - first) * 0.1
    show(
        "vault.book, 10 % into it (warm)",
        f"{best(3, lambda: vault.book(VENUE, SYMBOL, middle), time.perf_counter) * 1e3:.0f} ms",
    )
    show(
        "vault.book at its end (warm)",
        f"{best(3, lambda: vault.book(VENUE, SYMBOL, last), time.perf_counter) * 1e3:.0f} ms",
    )
    question = f"SELECT * FROM book_at('{VENUE}', '{SYMBOL}', TIMESTAMPTZ '{middle.isoformat()}')"
    show(
        "SQL book_at, 10 % into it (warm)",
        f"{best(3, lambda: vault.sql(question).fetchall(), time.perf_counter) * 1e3:.0f} ms",
    )
    for every in ("1s", "100ms"):
        taken = best(5, lambda every=every: vault.books(VENUE, SYMBOL, first, last, every=every).read_all())  # type: ignore[misc]
        show(f"vault.books every {every}, depth 20", f"{levels / taken / 1e6:.1f} M levels/s", f"{taken * 1e3:.0f} ms")
    diffs = layout.archived(Layout.hour_key(VENUE, "depth_diff", layout.period_of(start), 1))
    taken = best(5, lambda: levels_read(diffs))
    show(
        "… of which Parquet's own reading of the levels",
        f"{levels / taken / 1e6:.1f} M levels/s",
        f"{taken * 1e3:.0f} ms",
    )

    def read() -> None:
        for _ in vault.depth_diff(VENUE, SYMBOL, first, last + timedelta(seconds=1)):
            pass

    taken = best(2, read)
    show(
        "vault.depth_diff alone (DuckDB reads and sorts)",
        f"{levels / taken / 1e6:.1f} M levels/s",
        f"{taken:.2f} s",
    )

    def replay() -> None:
        for _ in vault.replay([f"{VENUE}/depth_diff/{SYMBOL}"], first, last + timedelta(seconds=1)):
            pass

    taken = best(2, replay)
    show("vault.replay", f"{hour.num_rows / taken / 1e3:.0f} k events/s", f"{taken:.2f} s")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--recording", type=Path, default=RECORDING)
    options = parser.parse_args(arguments)
    if not options.recording.exists():
        print(f"{options.recording}: no recording here, nothing to measure")
        return
    rows = decoded(options.recording)
    kernels(repeated(rows["depth_diff"], 10))
    with tempfile.TemporaryDirectory() as folder:
        questions(rows, Path(folder))


if __name__ == "__main__":
    main()
