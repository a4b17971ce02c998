"""What it costs to know the archive: the fold of its manifests, from their files and from the checkpoint.

    python -m benchmarks.log [--manifests 20000] [--symbols 10]

Synthetic manifests: 14 channels a period, `symbols` in each file, every 50th a new generation that removes the one
before. "every manifest" is what `verify` does; "with the checkpoint" is what everything else does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from depthvault.archive import checkpoint, log
from depthvault.archive.manifest import ArchiveFile, Counts, Entry, InputFile, SymbolSpan, Tail, digest, encode
from depthvault.layout import Layout
from depthvault.period import Period

CHANNELS_A_PERIOD = 14
START = datetime(2026, 1, 1, tzinfo=UTC)


def file_of(channel: str, period: Period, generation: int, symbols: int) -> ArchiveFile:
    """What a manifest says of a file that never was."""
    first = period.start_ns // 1000
    spans = {
        f"SYM{number:03d}USDT": SymbolSpan(4000, first + number, first + 3_599_000_000, (number, number + 1), 1, 4000)
        for number in range(symbols)
    }
    key = Layout.hour_key("binance_futures", channel, period, generation)
    sha256 = digest(key.encode())
    return ArchiveFile(
        key, sha256, 1_000_000, 4000 * symbols, sha256, channel, first, first + 3_599_000_000, symbols=spans
    )


def write(layout: Layout, count: int, symbols: int) -> int:
    """Write `count` manifests; returns their bytes."""
    layout.manifests.mkdir(parents=True)
    previous, size = None, 0
    for number in range(1, count + 1):
        renewed = number % 50 == 0
        hour, place = divmod(number - 1 - renewed, CHANNELS_A_PERIOD)
        channel, period = f"channel_{place:02d}", Period(START + timedelta(hours=hour))
        file = file_of(channel, period, 1 + renewed, symbols)
        tails = {name: {"": Tail(span.last_us, 4000), "a": Tail(span.last_us, 4000)}
                 for name, span in file.symbols.items()}  # fmt: skip
        entry = Entry(
            number, previous, "hour", "binance_futures", channel, period.label, 60, 1 + renewed,
            "2026-01-01T00:00:00Z", "bench", "bench", 1, {"pyarrow": "26.0.1"},
            [InputFile(f"live/{channel}/{number}.parquet", file.sha256, file.rows)], [file],
            [file_of(channel, period, 1, 0).path] if renewed else [], Counts(file.rows, file.rows), tails=tails,
        )  # fmt: skip
        data = encode(entry)
        layout.manifest(number).write_bytes(data)
        previous, size = digest(data), size + len(data)
    return size


def taken(action: Callable[[], Any], runs: int = 3) -> float:
    """CPU seconds of the fastest run."""
    seconds = []
    for _ in range(runs):
        started = time.process_time()
        action()
        seconds.append(time.process_time() - started)
    return min(seconds)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--manifests", type=int, default=20_000)
    parser.add_argument("--symbols", type=int, default=10)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="depthvault-bench-") as folder:
        layout = Layout(Path(folder))
        size = write(layout, options.manifests, options.symbols)
        print(f"{options.manifests:,} manifests, {size / 1e6:.0f} MB")
        plain = taken(lambda: log.load_all(layout))
        log.load(layout)  # makes the checkpoint
        short = taken(lambda: log.load(layout))
        kept = checkpoint.path_of(layout).stat().st_size
        print(f"every manifest         {plain:6.2f} s CPU")
        print(
            f"with the checkpoint    {short:6.2f} s CPU   {plain / short:.1f} times less; {kept / 1e6:.1f} MB on disk"
        )


if __name__ == "__main__":
    main()
