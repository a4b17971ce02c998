"""What a period costs in memory: that of a batch of its symbols, however many more it has."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from depthvault.archive.rows import _sizes, by_symbol
from depthvault.durable import sha256_file
from depthvault.schemas import CHANNELS
from depthvault.seal.receipts import LiveFile, Receipt, write_receipt

from .sealed import FUTURES, HOUR, Host

EVENTS = 1000  # of each symbol
SIDE = 25  # levels a side of each event
BATCH = 16 << 20

PROGRAM = """
import json, resource, sys
from functools import partial
from pathlib import Path
from depthvault.archive import channel, rows
from depthvault.archive.compact import compact
from depthvault.config import Config
from depthvault.period import Period

root, label, limit = sys.argv[1:]
channel.by_symbol = partial(rows.by_symbol, limit=int(limit))
config = Config.model_validate({"data_dir": root})
(draft,) = compact(config.layout, config, "binance_futures", Period.parse(label)).drafts
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
print(json.dumps({"rows": draft.counts.rows, "duplicates": draft.counts.duplicates, "peak": peak}))
"""


def _parts(symbols: int, writer: str) -> Iterator[pa.Table]:
    """All symbols' events in the order received, as the sealer writes them."""
    schema, random = CHANNELS["depth_diff"].schema, np.random.default_rng(1)
    per_part = max(1, 4000 // symbols)
    step = 3_500_000_000 // EVENTS
    for first in range(0, EVENTS, per_part):
        number = np.repeat(np.arange(first, min(EVENTS, first + per_part)), symbols)
        count = len(number)
        times = pa.array(HOUR.start_ns // 1000 + number * step).cast(pa.timestamp("us", tz="UTC"))
        offsets = pa.array(np.arange(count + 1, dtype=np.int32) * SIDE)
        sides = {
            f"{side}_{what}": pa.ListArray.from_arrays(offsets, pa.array(random.integers(1, 9999, count * SIDE) / 8))
            for side in ("bid", "ask")
            for what in ("prices", "sizes")
        }
        columns = {
            "received_time": times, "event_time": times, "transaction_time": times,
            "symbol": pa.array([f"S{of:03}" for of in range(symbols)] * (count // symbols)),
            "instance": pa.array([writer] * count), "source": pa.array(["stream"] * count),
            "first_update_id": pa.array(number * 10 + 1), "final_update_id": pa.array(number * 10 + 10),
            "prev_final_update_id": pa.array(number * 10), "is_snapshot": pa.array(np.zeros(count, np.bool_)),
            "epoch": pa.array(np.zeros(count, np.int32)), **sides,
        }  # fmt: skip
        yield pa.table([columns[name] for name in schema.names], schema.names).cast(schema)


def _sealed(root: Path, symbols: int, dictionary: bool = False) -> Host:
    """A period that two writers recorded. dictionary: in files that are much smaller than their rows in memory."""
    host = Host(root)
    layout, schema = host.layout, CHANNELS["depth_diff"].schema
    for name in ("a", "b"):
        path = layout.live_file(FUTURES, "depth_diff", HOUR, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=dictionary) as writer:
            for part in _parts(symbols, name):
                writer.write_table(part)
        file = LiveFile(
            path=path.relative_to(root).as_posix(), channel="depth_diff", period=HOUR.label, late=None,
            rows=symbols * EVENTS, sha256=sha256_file(path), bytes=path.stat().st_size,
        )  # fmt: skip
        receipt = Receipt(
            exchange=FUTURES, writer=name, period=HOUR.label, period_minutes=60, complete=True, journals=[],
            files=[file], damage=[], dropped=[], rejected={}, unknown={}, inexact={}, connections=[],
            software="test", schema_version=1,
        )  # fmt: skip
        write_receipt(layout, receipt)
    return host


def _peak(root: Path, symbols: int) -> int:
    """Bytes that the process which compacts the period holds at most."""
    host = _sealed(root, symbols)
    command = [sys.executable, "-c", PROGRAM, str(host.root), HOUR.label, str(BATCH)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    figures = json.loads(done.stdout)
    assert (figures["rows"], figures["duplicates"]) == (symbols * EVENTS, symbols * EVENTS)
    return int(figures["peak"])


def test_five_times_the_symbols_do_not_cost_more_memory(tmp_path: Path) -> None:
    """3 M levels of two writers, 96 MB, are compacted in what a fifth of them takes; all at once would take 200 MB
    more."""
    assert inspect.signature(by_symbol).parameters["limit"].default <= 128 << 20, "what a real batch is"
    few, many = (_peak(tmp_path / str(symbols), symbols) for symbols in (12, 60))
    assert many - few < 4 * BATCH, f"{few >> 20} MB and {many >> 20} MB"


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_batch_is_measured_by_what_its_rows_take_in_memory(tmp_path: Path, dictionary: bool) -> None:
    """In files whose prices have a dictionary, as archived ones do, they are a quarter of that."""
    host = _sealed(tmp_path, 4, dictionary)
    path = host.layout.live_file(FUTURES, "depth_diff", HOUR, "a")
    taken = pq.read_table(path).nbytes
    assert sum(_sizes([path]).values()) == pytest.approx(taken, rel=0.3)
