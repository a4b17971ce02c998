"""The oracle says yes to a good archive, and no to each way in which an archive can be wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from collectors.trial.archiving import Archived
from collectors.trial.compare import is_same_number, wrong_numbers
from collectors.trial.declared import Chain, GapRow, Times
from collectors.trial.figures import costs
from collectors.trial.held import Held, StreamFrames
from collectors.trial.ledger import Deliveries
from collectors.trial.oracle import Judged
from collectors.trial.plan import Plan
from collectors.trial.run import again
from collectors.trial.stage import Recorded, Sample, Stroke
from collectors.trial.verdict import Verdict
from depthvault.errors import UsageError

VENUE = "binance_futures"
FAULTS = "drop=0.25,duplicate=0.02,malformed=0.005,disconnect=2,silent=0.4"
Tamper = Callable[[Path], None]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short trial with the real command, kept."""
    folder = tmp_path_factory.mktemp("trial")
    options = "--minutes 0.2 --symbols 4 --kill 2 --restart 0 --seed 3 --folder kept --output trial.json"
    words = ["trial", *options.split(), "--venues", VENUE, "--faults", FAULTS]
    done = subprocess.run(
        [sys.executable, "-m", "depthvault.cli", *words], cwd=folder, capture_output=True, text=True, timeout=120,
        check=False, env={key: value for key, value in os.environ.items() if not key.startswith("DEPTHVAULT_")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "yes" in done.stdout
    return folder


def test_a_good_archive_is_confirmed_with_its_figures(trial: Path) -> None:
    figures: dict[str, Any] = json.loads((trial / "trial.json").read_text())
    assert figures["passed"] is True
    channels = {one["channel"]: one for one in figures["channels"]}
    book = channels["depth_diff"]
    assert book["archived"] == book["held"] > 50
    assert book["numbers"] > 1000
    assert book["missing"] > 0, "both instances miss the same event at times: the test needs such holes"
    assert book["gaps"] > 0
    assert book["bridged"] > 0
    assert channels["whole books"]["archived"] > 0
    assert figures["faults"][VENUE]["drop"] > 0
    collectors = {one["writer"]: one for one in figures["collectors"]}
    assert collectors.keys() == {"a", "b"}
    assert collectors["b"]["cpu_us_per_frame"] > 0, "b is never struck, so it has a steady time"


def files(folder: Path, table: str, channel: str) -> list[Path]:
    top = "hour" if table == channel else f"quality/{table}"
    return sorted((folder / "data" / "archive" / top).glob(f"exchange={VENUE}/channel={channel}/**/*.parquet"))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def largest(folder: Path, table: str, channel: str) -> Path:
    return max(files(folder, table, channel), key=lambda path: pq.read_metadata(path).num_rows)


def nudged_price(folder: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        prices = table.column("price").to_numpy().copy()
        prices[0] = np.nextafter(prices[0], np.inf)
        return table.set_column(table.schema.get_field_index("price"), "price", pa.array(prices))

    rewrite(largest(folder, "agg_trade", "agg_trade"), change)


def nudged_level(folder: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        sizes = table.column("bid_sizes").to_pylist()
        place = next(place for place, row in enumerate(sizes) if row)
        sizes[place][-1] += 0.001
        field = table.schema.field("bid_sizes")
        return table.set_column(table.schema.get_field_index("bid_sizes"), field, pa.array(sizes, field.type))

    rewrite(largest(folder, "depth_diff", "depth_diff"), change)


def row_left_out(folder: Path) -> None:
    rewrite(largest(folder, "depth_diff", "depth_diff"), lambda table: pa.concat_tables([table[:5], table[6:]]))


def row_doubled(folder: Path) -> None:
    rewrite(largest(folder, "book_ticker", "book_ticker"), lambda table: pa.concat_tables([table, table[:1]]))


def row_invented(folder: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        place, field = table.schema.get_field_index("trade_id"), table.schema.field("trade_id")
        return pa.concat_tables([table, table[:1].set_column(place, field, pa.array([7], pa.int64()))])

    rewrite(largest(folder, "trade", "trade"), change)


def gap_hushed_up(folder: Path) -> None:
    for path in files(folder, "gaps", "depth_diff"):
        rewrite(path, lambda table: table.filter(pc.not_equal(table.column("instance"), "")))


def silence_hushed_up(folder: Path) -> None:
    for channel in ("trade", "book_ticker", "mark_price"):
        for path in files(folder, "gaps", channel):
            rewrite(path, lambda table: table[:0])


def gap_invented(folder: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        moved = [value - 100_000 for value in table.column("last_id").to_pylist()]
        return table.set_column(table.schema.get_field_index("last_id"), "last_id", pa.array(moved, pa.int64()))

    for path in files(folder, "gaps", "depth_diff"):
        rewrite(path, change)


def journal_gone(folder: Path) -> None:
    for path in (folder / "data" / "journal" / VENUE).rglob("*.journal"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (nudged_price, "agg_trade: 1 wrong"),
        (nudged_level, "depth_diff: 1 wrong"),
        (row_left_out, "depth_diff: 1 lost"),
        (row_doubled, "book_ticker: 1 doubled"),
        (row_invented, "trade: 1 unheld"),
        (gap_hushed_up, "undeclared"),
        (silence_hushed_up, r" (trade|book_ticker|mark_price): \d+ undeclared"),
        (gap_invented, "depth_diff: {gaps} false"),
        (journal_gone, "unheld"),
    ],
)
def test_the_oracle_says_no_when(tamper: Tamper, found: str, trial: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    shutil.copytree(trial / "kept", folder)
    gaps = sum(pq.read_metadata(path).num_rows for path in files(folder, "gaps", "depth_diff"))
    tamper(folder)
    problems = judged(folder).problems()
    assert any(re.search(found.format(gaps=gaps), problem) for problem in problems), problems


def test_the_oracle_says_yes_again_to_what_nobody_touched(trial: Path) -> None:
    assert judged(trial / "kept").problems() == []


def judged(folder: Path) -> Verdict:
    return again(folder, Console(quiet=True))


def test_numbers_are_compared_as_decimals() -> None:
    texts = ["0.1", "83091.60000000", "400000000000.00000000", "0.12345678901234567"]
    values = np.array([0.1, 83091.6, 4e11, float("0.12345678901234567")])
    assert wrong_numbers(values, texts).tolist() == [False, False, False, True]
    assert wrong_numbers(np.nextafter(values, 1e12), texts).all()
    assert is_same_number(None, "")
    assert not is_same_number(0.0, "")


def test_a_hole_of_one_writer_needs_a_row_even_when_the_other_has_the_events() -> None:
    ids = np.array([10, 20, 30, 40, 50])
    everything, partly = np.ones(5, bool), np.array([True, True, False, True, True])
    chain = Chain(ids, everything, {"a": partly, "b": everything}, shut=True)
    assert chain.undeclared([]).tolist() == []
    assert chain.unbridged([]) == [("a", 30)]
    row = GapRow("a", 20, 30, 0, 0, "crash", "bridged")
    assert chain.unbridged([row]) == []
    assert chain.false([row]) == []
    assert chain.false([GapRow("a", 20, 40, 0, 0, "crash", "bridged")]), "40 was held"
    assert chain.false([GapRow("b", 20, 30, 0, 0, "crash", "bridged")]), "b lacked nothing"
    assert chain.false([GapRow("", 20, 30, 0, 0, "venue", "lost")]), "somebody had it"


def test_without_ids_a_hole_is_declared_by_a_time_between_its_neighbours() -> None:
    received = np.array([1_000_000, 0, 0, 4_000_000, 0])
    times = Times(received, received)
    assert times.undeclared([]).tolist() == [1, 2], "what follows the last one nobody can miss"
    row = GapRow("", None, None, 2_000_000, 3_000_000, "disconnect", "unprovable")
    assert times.undeclared([row]).tolist() == []
    assert times.false([row], received) == []
    elsewhere = GapRow("", None, None, 4_500_000, 9_000_000, "disconnect", "unprovable")
    assert times.undeclared([elsewhere]).tolist() == [1, 2]
    assert times.false([elsewhere], np.array([6_000_000])) == [elsewhere]


@pytest.mark.parametrize(("grows", "maps", "flat"), [(0.0, 0.0, True), (0.0, 2.0, True), (1.0, 0.0, False)])
def test_memory_that_grows_steadily_is_not_flat_whatever_pages_of_files_do(
    grows: float, maps: float, flat: bool
) -> None:
    samples = []
    for second in range(900):
        own = round((100 + grows * second / 60) * 2**20)
        rss = own + round((40 + maps * second / 60) * 2**20)
        frames = 1000 * second
        samples.append(
            Sample("binance_spot", "a", 7, second, second, rss, own, frames / 50_000, frames, 10 * frames, 1.0)
        )
    (cost,) = costs(Recorded(plan={}, samples=samples))
    assert cost.is_flat is flat
    assert cost.slope / 2**20 == pytest.approx(grows, abs=0.01)
    assert cost.microseconds == pytest.approx(20.0)
    assert cost.rate == pytest.approx(1000.0)
    (short,) = costs(Recorded(plan={}, samples=samples[:500]))
    assert short.is_flat is None, "too short to say"


@pytest.mark.parametrize(("dead_ms", "losses"), [([], [10.0]), ([900_000], [10.0]), ([970_000], []), ([1_000_500], [])])
def test_a_kill_on_a_connection_that_was_dead_already_tells_nothing_of_the_flush(
    dead_ms: list[int], losses: list[float]
) -> None:
    frames = StreamFrames(array("q", [1]), array("q", [1_010 * 10**9]), array("q", [1]))
    held = Held(["a", "b"], {"btcusdt@depth": frames}, ends={"a": [900 * 10**9, 1_000 * 10**9, 1_020 * 10**9]})
    stroke = Stroke(1_011 * 10**9, VENUE, "a", 7, "SIGKILL")
    judged = Judged([], held, Deliveries(_dead_ms=dead_ms), 0)
    verdict = Verdict(Recorded(plan={}, strokes=[stroke]), Archived(0, 0, 0, 0, [], 0, 0), {VENUE: judged})
    assert verdict.kill_losses() == losses


def test_a_plan_refuses_what_makes_no_sense() -> None:
    for wrong in ({"venues": ("nowhere",)}, {"instances": 3}, {"symbols": 0}, {"faults": "lightning=1"}):
        with pytest.raises(UsageError):
            Plan(**wrong)
