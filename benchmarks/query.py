"""A filtered question over a day of 50 symbols: what is opened and read, beside reading by glob.

    python -m benchmarks.query [--symbols 50] [--rows 4000]

A day of `trade` in hour files (synthetic, `rows` a symbol and hour) is published with manifests. The same questions go
to `vault.sql`, which narrows the files by what the manifests say of them, and to plain DuckDB over the folder. Bytes
are what the process read (`rchar` of /proc/self/io), page cache included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import depthvault
from depthvault.archive.manifest import ArchiveFile, Counts, Entry, SymbolSpan, digest, encode
from depthvault.config import Config, Secrets
from depthvault.durable import sha256_file
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import CHANNELS

DAY = datetime(2026, 11, 20, tzinfo=UTC)
VENUE = "binance_futures"


def hour_of(symbol: int, period: Period, rows: int, seed: int) -> pa.Table:
    """Trades of one symbol in one hour."""
    rng = np.random.default_rng(seed)
    start = period.start_ns // 1000
    times = np.sort(rng.integers(start, start + 3_600_000_000, rows))
    moments = pa.array(times).cast(pa.timestamp("us", tz="UTC"))
    number = period.start.hour * rows + np.arange(rows)
    prices = np.round(100.0 * (symbol + 1) + np.cumsum(rng.integers(-5, 6, rows)) * 0.01, 2)
    constant = [f"SYM{symbol:03d}USDT", "a", "stream", "MARKET"]
    text = [pa.array([value]).take(pa.array(np.zeros(rows, np.int64))) for value in constant]
    return pa.table(
        [
            moments, moments, text[0], text[1], text[2], moments, pa.array(number), pa.array(prices),
            pa.array(np.round(rng.random(rows), 3)), pa.array(rng.random(rows) < 0.5), text[3],
        ],
        schema=CHANNELS["trade"].schema,
    )  # fmt: skip


def publish_day(layout: Layout, symbols: int, rows: int) -> None:
    """24 hour files and their manifests; no row group spans symbols."""
    previous = None
    for hour in range(24):
        period = Period(DAY + timedelta(hours=hour))
        key = Layout.hour_key(VENUE, "trade", period, 1)
        path = layout.archived(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        spans, low, high = {}, [], []
        with pq.ParquetWriter(path, CHANNELS["trade"].schema, compression="zstd", compression_level=3) as writer:
            for symbol in range(symbols):
                table = hour_of(symbol, period, rows, hour * symbols + symbol)
                writer.write_table(table, row_group_size=rows)
                received = table.column("received_time").cast(pa.int64())
                low.append(received[0].as_py())
                high.append(received[-1].as_py())
                spans[table.column("symbol")[0].as_py()] = SymbolSpan(rows, low[-1], high[-1], (symbol, symbol + 1))
        file = ArchiveFile(
            key, sha256_file(path), path.stat().st_size, rows * symbols, "", "trade", min(low), max(high), symbols=spans
        )
        previous = publish(layout, hour + 1, previous, VENUE, file, period)


def publish(layout: Layout, number: int, previous: str | None, exchange: str, file: ArchiveFile, period: Period) -> str:
    """Write the manifest that adds `file`; returns its digest."""
    entry = Entry(
        number, previous, "hour", exchange, file.table, period.label, 60, 1, "", "bench", "bench", 1, {}, [], [file],
        [], Counts(),
    )  # fmt: skip
    data = encode(entry)
    layout.manifests.mkdir(parents=True, exist_ok=True)
    layout.manifest(number).write_bytes(data)
    return digest(data)


def read_bytes() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def measured(action: Callable[[], Any]) -> tuple[Any, float, int]:
    """The answer, the seconds of the faster of two runs, and the bytes that the first one read."""
    before = read_bytes()
    started = time.perf_counter()
    answer = action()
    first, read = time.perf_counter() - started, read_bytes() - before
    started = time.perf_counter()
    action()
    return answer, min(first, time.perf_counter() - started), read


QUESTIONS = {
    "one symbol, one hour": "symbol = 'SYM007USDT' AND received_time >= '2026-11-20 05:00:00Z' "
    "AND received_time < '2026-11-20 06:00:00Z'",
    "one symbol, the day": "symbol = 'SYM007USDT'",
    "all symbols, one hour": "received_time >= '2026-11-20 05:00:00Z' AND received_time < '2026-11-20 06:00:00Z'",
    "a symbol that there is not": "symbol = 'NONE'",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--rows", type=int, default=4000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        publish_day(layout, options.symbols, options.rows)
        total = sum(path.stat().st_size for path in layout.archive.rglob("*.parquet"))
        print(f"{options.symbols} symbols, 24 hours, {24 * options.symbols * options.rows:,} trades, {total:,} bytes")
        secrets = Secrets.model_construct(r2_bucket_name=None, r2_access_key_id=None, r2_secret_access_key=None)
        vault = depthvault.open(folder, config=Config(), secrets=secrets)
        vault.sql("SELECT 1").fetchall()
        glob = f"read_parquet('{layout.archive}/hour/*/*/*/*.parquet', hive_partitioning = true)"
        print(f"{'':<30}{'vault: read':>14}{'share':>8}{'time':>10}{'glob: read':>14}{'time':>10}{'bytes':>8}")
        for name, where in QUESTIONS.items():
            ours, seconds, read = measured(
                lambda where=where: vault.sql(f"SELECT count(*), sum(price) FROM trade WHERE {where}").fetchall()  # type: ignore[misc]
            )

            def plain(where: str = where) -> list[Any]:
                with duckdb.connect() as connection:
                    connection.execute("SET TimeZone = 'UTC'")
                    return connection.sql(f"SELECT count(*), sum(price) FROM {glob} WHERE {where}").fetchall()

            theirs, plain_seconds, plain_read = measured(plain)
            assert ours[0][0] == theirs[0][0], (ours, theirs)
            print(
                f"{name:<30}{read:>14,}{read / total:>8.2%}{seconds * 1e3:>7.0f} ms{plain_read:>14,}"
                f"{plain_seconds * 1e3:>7.0f} ms{plain_read / max(read, 1):>7.1f}x"
            )


if __name__ == "__main__":
    main()
