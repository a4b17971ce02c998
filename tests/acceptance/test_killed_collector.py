"""A collector that is killed in the middle of a period costs what it had not flushed, and the archive says so."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path

from depthvault.journal import read_rows
from tests.acceptance.programs import Site, simulator, stop, wait_for

SYMBOLS = ["BTCUSDT", "ETHUSDT", "币安人生USDT"]
VENUE = "binance_futures"


def journaled(site: Site) -> Counter[tuple[str, int]]:
    """(symbol, u) of every book event that the journals hold."""
    held: Counter[tuple[str, int]] = Counter()
    for path in (site.data / "journal" / VENUE / "a").glob("*.journal"):
        for row in read_rows(path):
            if row.kind == "frame" and "@depth" in row.stream:
                data = json.loads(row.body)["data"]
                held[data["s"], data["u"]] += 1
    return held


def archived(site: Site) -> Counter[tuple[str, int]]:
    rows = site.rows("SELECT symbol, final_update_id FROM depth_diff")
    return Counter((row["symbol"], row["final_update_id"]) for row in rows)


def test_kill_dash_nine_loses_and_doubles_nothing_that_was_journaled(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with simulator(tmp_path, "--symbols", "20", "--seed", "5", "--rate", "10", "--truth", tmp_path / "truth") as sim:
        site.configure(
            sim,
            {VENUE: {"symbols": SYMBOLS, "channels": ["depth_diff", "agg_trade", "depth_snapshot"]}},
            archive={"period": "1m", "seal_grace": "1s"},
        )
        first = site.start("collect", VENUE)
        wait_for(lambda: site.figures(VENUE).get("frames", 0) > 100, "frames arrive")
        assert stop(first, signal.SIGKILL) == -signal.SIGKILL
        (site.data / "run" / "collectors" / f"{VENUE}-a.json").unlink()
        second = site.start("collect", VENUE)
        wait_for(lambda: site.figures(VENUE).get("frames", 0) > 100, "frames arrive again")
        assert stop(second) == 0
    site.sleep_until_over(time.time())
    site.archive()

    held = journaled(site)
    assert len(held) > 50
    assert archived(site) == Counter(dict.fromkeys(held, 1))

    gaps = site.rows("SELECT * FROM gaps WHERE channel = 'depth_diff' ORDER BY symbol")
    assert [gap["symbol"] for gap in gaps] == sorted(SYMBOLS)
    for gap in gaps:
        assert (gap["cause"], gap["status"]) == ("crash", "lost")
        assert (gap["symbol"], gap["last_id"]) in held
        assert gap["last_id"] < gap["first_id"]
        assert gap["start_time"] < gap["end_time"]
    missing = {gap["symbol"]: (gap["last_id"], gap["first_id"]) for gap in gaps}
    from simulator.truth import Truth

    for symbol in SYMBOLS:
        ids = [
            event["u"]
            for event in (each.decode() for each in Truth(tmp_path / "truth").events(VENUE, "depth@100ms", symbol))
        ]
        kept = sorted(u for held_symbol, u in held if held_symbol == symbol)
        undeclared = [
            u for u in ids
            if kept[0] <= u <= kept[-1] and u not in kept and not missing[symbol][0] < u <= missing[symbol][1]
        ]  # fmt: skip
        assert undeclared == []
    assert "all as recorded" in site.run("verify", "--deep")


def test_a_second_run_of_every_step_changes_no_byte(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with simulator(tmp_path, "--symbols", "3", "--seed", "6", "--rate", "10") as sim:
        site.configure(
            sim,
            {"binance_spot": {"symbols": "all", "channels": ["depth_diff", "agg_trade", "trade"]}},
            archive={"period": "1m", "seal_grace": "1s"},
        )
        collector = site.start("collect", "binance_spot")
        wait_for(lambda: site.figures("binance_spot").get("frames", 0) > 50, "frames arrive")
        assert stop(collector) == 0
    site.sleep_until_over(time.time())
    site.archive()
    before = {path: path.read_bytes() for path in (site.data / "archive").rglob("*") if path.is_file()}
    assert any(path.suffix == ".parquet" for path in before)
    site.archive()
    site.run("publish")
    assert {path: path.read_bytes() for path in (site.data / "archive").rglob("*") if path.is_file()} == before
