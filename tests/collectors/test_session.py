"""`record`, `quicktest` and `watch` as a user runs them, against a simulator process."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
from decimal import Decimal
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.acceptance.programs import Simulated, Site, simulator, wait_for


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    with simulator(tmp_path_factory.mktemp("sim"), "--symbols", "6", "--seed", "3", "--rate", "10") as running:
        yield running  # type: ignore[misc]


@pytest.fixture
def site(tmp_path: Path, sim: Simulated) -> Site:
    site = Site(tmp_path)
    site.configure(sim, {"binance_spot": {}, "binance_futures": {}, "lighter": {}})
    return site


def test_a_recording_of_two_venues_is_kept_and_can_be_queried(site: Site) -> None:
    said = site.run(
        "record",
        "--exchanges",
        "binance_spot",
        "binance_futures",
        "--symbols",
        "BTCUSDT",
        "ETHUSDT",
        "--duration",
        "5s",
    )
    assert "binance_futures  depth_diff" in said
    rows = site.rows("SELECT exchange, symbol, count(*) AS n FROM depth_diff GROUP BY ALL ORDER BY ALL")
    assert [(row["exchange"], row["symbol"]) for row in rows] == [
        (exchange, symbol) for exchange in ("binance_futures", "binance_spot") for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    assert all(row["n"] > 10 for row in rows)


def test_a_symbol_that_no_venue_lists_makes_the_test_fail_by_name(site: Site) -> None:
    said = site.run(
        "record", "--exchanges", "binance_spot", "--symbols", "BTCUSDT", "NOSUCHUSDT", "--mode", "test",
        "--duration", "4s", code=1,
    )  # fmt: skip
    assert "NOSUCHUSDT" in said
    assert not (site.data / "journal").exists()


def test_quicktest_writes_csv_and_judges_in_plain_words(site: Site) -> None:
    said = site.run("quicktest", "--minutes", "0.1", "--exchanges", "binance_spot", "--symbols", "BTCUSDT", code=0)
    assert "completeness" in said
    assert "ms against 127.0.0.1" in said, "the venue's clock stands in where no NTP server answers"
    with (site.folder / "data_test" / "binance_spot_BTCUSDT_trades.csv").open() as file:
        trades = list(csv.DictReader(file))
    assert trades
    assert all(Decimal(trade["price"]) > 0 for trade in trades)
    ids = [int(trade["agg_trade_id"]) for trade in trades]
    assert ids == sorted(ids)


def watched(site: Site, exchange: str, symbol: str) -> str:
    """What `watch` printed when it was stopped some frames after its book had come."""
    scratch = site.folder / "scratch"
    scratch.mkdir()
    words = site.command("watch", exchange, symbol, "--depth", "3", "--duration", "90s")
    environment = site.environment | {"TMPDIR": str(scratch)}
    process = subprocess.Popen(words, cwd=site.folder, env=environment, stdout=subprocess.PIPE, text=True)

    def frames_of_a_live_book() -> int:
        for path in scratch.glob(f"*/run/collectors/{exchange}-watch.json"):
            status = json.loads(path.read_text())
            return int(status["frames"]) if status["books"]["live"] else 0
        return 0

    try:
        first = wait_for(frames_of_a_live_book, "the book has come")
        wait_for(lambda: frames_of_a_live_book() > first + 20, "and goes on")
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert list(scratch.iterdir()) == []
    return said


def test_watch_shows_a_book_and_leaves_nothing_behind(site: Site) -> None:
    said = watched(site, "binance_futures", "BTCUSDT")
    assert "spread" in said
    assert "not kept" in said
    assert not (site.data / "journal").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_in_a_terminal_of_80_columns_leaves_it_as_it_was(number: signal.Signals, site: Site) -> None:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 80))
    before = termios.tcgetattr(slave)
    words = site.command("watch", "binance_futures", "BTCUSDT", "--depth", "5", "--duration", "60s")
    environment = site.environment | {"TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    process = subprocess.Popen(
        words, cwd=site.folder, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    shown = b""
    try:
        while b"mid" not in shown or shown.count("█".encode()) < 20:
            assert select.select([master], [], [], 60)[0], shown.decode()
            shown += os.read(master, 65536)
        process.send_signal(number)
        while process.poll() is None or select.select([master], [], [], 0.1)[0]:
            if select.select([master], [], [], 0.1)[0]:
                shown += os.read(master, 65536)
        assert process.returncode == 0, shown.decode()
        assert termios.tcgetattr(slave) == before
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)
    text = shown.decode()
    assert text.count("\x1b[?1049h") == text.count("\x1b[?1049l") == 1, "the other screen is left again"
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is there again"
    assert text.rindex("\x1b[?1049l") < text.rindex("spread"), "what was seen last stays"
    home = re.sub(r"\x1b\[[0-9;?]*[Hhl]", "\n", text)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", home).replace("\r", "").split("\n")
    assert [line for line in lines if cell_len(line) > 80] == []


def test_watch_on_lighter_needs_no_rest_snapshot(site: Site) -> None:
    said = watched(site, "lighter", "ETH")
    assert "spread" in said


def test_quicktest_spells_its_symbols_as_lighter_does(site: Site) -> None:
    site.run("quicktest", "--minutes", "0.1", "--exchanges", "lighter")
    names = {path.name for path in (site.folder / "data_test").iterdir()}
    assert {"lighter_BTC_depth.csv", "lighter_ETH_trades.csv"} <= names
