"""The sealer process: finds what is due, also what a killed collector left, and lets no fault spread."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from collectors.sealer import SealerLoop
from depthvault.clock import ManualClock
from depthvault.config import BinanceFuturesConfig, BinanceSpotConfig, Config
from depthvault.exchanges import exchange
from depthvault.exchanges.base import Decoded, Exchange, Frames
from depthvault.exchanges.binance_futures import BinanceFutures
from depthvault.period import Period
from depthvault.seal import receipts
from tests.depthvault.seal.conftest import HOUR, Tape, at, put_trades

ROOT = Path(__file__).parents[2]


class Broken(BinanceFutures):
    """A venue whose decoder has a bug."""

    def decode(self, channel: str, frames: Frames, instance: str) -> Decoded:
        raise ZeroDivisionError("a bug")


def loop_over(config: Config, clock: ManualClock, **venues: Exchange) -> SealerLoop:
    found: Mapping[str, Exchange] = venues
    return SealerLoop(config, clock, lambda: found)


def test_a_look_seals_what_is_due_and_the_next_one_finds_nothing(tmp_path: Path) -> None:
    tape = Tape(tmp_path, exchange("binance_spot", BinanceSpotConfig()))
    with tape.begin("12:10:00") as writer:
        put_trades(writer, (1, "12:10:01", "12:10:01"))
    clock = ManualClock(HOUR.end_ns)
    loop = loop_over(tape.config, clock, binance_spot=tape.venue)
    assert loop.look() == []
    clock.advance(60)
    [receipt] = loop.look()
    assert (receipt.period, receipt.complete) == (HOUR.label, True)
    assert tape.ids() == [1]
    assert loop.look() == []


def test_a_bug_in_one_venues_decoder_does_not_stop_the_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = Tape(tmp_path, Broken(BinanceFuturesConfig()))
    good = Tape(tmp_path, exchange("binance_spot", BinanceSpotConfig()))
    for tape in (broken, good):
        with tape.begin("12:10:00") as writer:
            put_trades(writer, (1, "12:10:01", "12:10:01"))
    clock = ManualClock(HOUR.end_ns + 60 * 10**9)
    venues = {"binance_futures": broken.venue, "binance_spot": good.venue}
    loop = loop_over(good.config, clock, **venues)
    assert [receipt.exchange for receipt in loop.look()] == ["binance_spot"]
    assert "ZeroDivisionError" in caplog.text
    status = json.loads((tmp_path / "run" / "sealer.json").read_bytes())
    assert status["failing"] == {f"binance_futures a {HOUR.label}": "ZeroDivisionError: a bug"}
    # Not tried again at once; when the decoder is mended, the next try succeeds.
    caplog.clear()
    assert loop.look() == []
    assert "bug" not in caplog.text
    venues["binance_futures"] = exchange("binance_futures", BinanceFuturesConfig())
    mended = SealerLoop(good.config, clock, lambda: venues)
    assert [receipt.exchange for receipt in mended.look()] == ["binance_futures"]


def test_tries_come_at_growing_distances(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tape = Tape(tmp_path, Broken(BinanceFuturesConfig()))
    tape.begin("12:10:00").close()
    clock = ManualClock(HOUR.end_ns + 60 * 10**9)
    loop = loop_over(tape.config, clock, binance_futures=tape.venue)
    tries = []
    for second in range(400):
        caplog.clear()
        loop.look()
        if "is not sealed" in caplog.text:
            tries.append(second)
        clock.advance(1)
    assert tries == [0, 5, 15, 35, 75, 155, 315]


_KILLED = """
import os, signal, sys
from pathlib import Path
from depthvault.clock import ManualClock
from depthvault.config import JournalConfig
from depthvault.journal import JournalWriter, opened_body
from depthvault.layout import Layout

body, start = sys.stdin.buffer.read(), int(sys.argv[2])
clock = ManualClock(start)
writer = JournalWriter(Layout(Path(sys.argv[1])), "binance_spot", "a", config=JournalConfig(min_free=0), clock=clock)
writer.append("opened", 1, "/stream", opened_body())
for line in body.splitlines():
    clock.advance(1)
    writer.append("frame", 1, "btcusdt@trade", line)
writer.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_process_seals_what_a_killed_collector_left_and_stops_when_told(tmp_path: Path) -> None:
    from tests.depthvault.seal.conftest import trade

    frames = b"\n".join(trade(number, "12:10:01") for number in range(1, 6))
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, tmp_path, str(at("12:10:00"))], input=frames, check=False, cwd=ROOT
    )
    assert killed.returncode == -signal.SIGKILL
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DEPTHVAULT_")},
        "DEPTHVAULT_DATA_DIR": str(tmp_path),
        "DEPTHVAULT_ARCHIVE__PERIOD": "10m",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "collectors.sealer"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        log = []
        for line in process.stderr:
            log.append(line)
            if "rows in" in line:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log
    finally:
        process.kill()
        process.wait()
    config = Config(data_dir=tmp_path, archive={"period": "10m"})  # type: ignore[arg-type]
    [receipt] = receipts(config.layout, "binance_spot")
    assert receipt.complete
    assert (receipt.period, receipt.period_minutes) == ("20260301T1210", 10)
    [connection] = receipt.connections
    assert (connection.cause, connection.closed_ns) == ("crash", at("12:10:05"))
    period = Period(HOUR.start + timedelta(minutes=10), timedelta(minutes=10))
    path = config.layout.live_file("binance_spot", "trade", period, "a")
    assert pq.ParquetFile(path).read().column("trade_id").to_pylist() == [1, 2, 3, 4, 5]


def test_a_bad_configuration_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "depthvault.yaml").write_text("archive: {perod: 1h}\n")
    done = subprocess.run(
        [sys.executable, "-m", "collectors.sealer"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "perod" in done.stderr
    assert len(done.stderr.splitlines()) == 1
