"""This host's clock against NTP servers: real packets over UDP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from collectors.collector import Collector
from collectors.host import ntp_offset
from depthvault.config import Config
from simulator.testing import running
from tests.collectors.session import configuration, events, journal_rows, simulated, until

_PACKET = struct.Struct("!BBBb11I")  # RFC 5905, figure 8
_EPOCH = 2_208_988_800  # from 1900 to 1970
_FRACTION = 1 << 32


def ntp_time(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return whole + _EPOCH, int((seconds - whole) * _FRACTION)


@dataclass
class Server:
    """An NTP server whose clock is `ahead` seconds before this host's.

    there, back: seconds that a packet is on its way; work: between its receipt and the answer.
    """

    ahead: float = 0.0
    there: float = 0.0
    work: float = 0.0
    back: float = 0.0
    leap: int = 0
    stratum: int = 2
    mode: int = 4
    mute: bool = False
    stale: bool = False
    asked: int = 0
    port: int = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[str]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as self._socket:
            self._socket.bind(("127.0.0.1", 0))
            self.port = self._socket.getsockname()[1]
            worker = threading.Thread(target=self._serve)
            worker.start()
            try:
                yield f"127.0.0.1:{self.port}"
            finally:
                self._socket.sendto(b"", ("127.0.0.1", self.port))
                worker.join()

    def _serve(self) -> None:
        while True:
            data, address = self._socket.recvfrom(256)
            if not data:
                return
            self.asked += 1
            if not self.mute:
                time.sleep(self.there)  # the wire, not a wait
                self._socket.sendto(self._answer(data), address)

    def _answer(self, data: bytes) -> bytes:
        asked = _PACKET.unpack(data)
        assert (asked[0] >> 3 & 7, asked[0] & 7) == (4, 3), "a client's packet of version 4"
        received = time.time() + self.ahead
        time.sleep(self.work)
        sent = time.time() + self.ahead
        origin = ntp_time(time.time() - 3600) if self.stale else asked[13:15]
        packet = _PACKET.pack(
            self.leap << 6 | 4 << 3 | self.mode, self.stratum, 6, -20, 0, 0, 0,
            *ntp_time(received - 30), *origin, *ntp_time(received), *ntp_time(sent),
        )  # fmt: skip
        time.sleep(self.back)
        return packet


@pytest.mark.parametrize("ahead", [0.0, 2.5, -40.0])
def test_the_offset_is_how_far_the_server_is_ahead(ahead: float) -> None:
    with Server(ahead).listening() as name:
        found = ntp_offset([name])
    assert found is not None
    assert (found["source"], found["stratum"]) == (name, 2)
    assert found["offset_s"] == pytest.approx(ahead, abs=0.05)


def test_the_way_counts_and_the_servers_work_does_not() -> None:
    with Server(1.0, there=0.1, work=0.3, back=0.1).listening() as name:
        found = ntp_offset([name])
    assert found is not None
    assert found["offset_s"] == pytest.approx(1.0, abs=0.05)
    assert found["round_trip_s"] == pytest.approx(0.2, abs=0.08)


@pytest.mark.parametrize(
    "ignorant",
    [Server(9, leap=3), Server(9, stratum=0), Server(9, stratum=16), Server(9, mode=3), Server(9, stale=True)],
)
def test_a_server_that_does_not_know_the_time_is_passed_over(ignorant: Server) -> None:
    with ignorant.listening() as first, Server(0.5).listening() as second:
        found = ntp_offset([first, second])
    assert ignorant.asked == 1
    assert found is not None
    assert found["source"] == second


def test_without_an_answer_there_is_no_offset() -> None:
    mute = Server(mute=True)
    with mute.listening() as name:
        assert ntp_offset([name, "no such name", "127.0.0.1:bad"], timeout=0.1) is None
    assert mute.asked == 1


async def test_a_collector_records_offset_and_venue_every_so_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.timekeeping.INTERVAL", 0.2)
    venue = "binance_spot"
    ntp = Server(2.5)
    with ntp.listening() as name:
        async with running(simulated(tmp_path)) as sim:
            config = configuration(sim, venue, tmp_path / "data", symbols=("BTCUSDT",)).model_dump()
            config["platform"]["ntp_servers"] = (name,)
            collector = Collector(Config.model_validate(config), venue)
            task = asyncio.create_task(collector.run())
            await until(lambda: ntp.asked >= 3, "the server is asked again and again")
            collector.stop("sigterm")
            await task
    told = events(journal_rows(tmp_path / "data", venue), "clock")
    assert len(told) >= 2
    for each in told:
        assert each["reference"]["source"] == name
        assert each["reference"]["offset_s"] == pytest.approx(2.5, abs=0.1)
        assert each["reference"]["round_trip_s"] < 0.5
        assert each["venue"]["source"].startswith("127.0.0.1"), "the venue's clock and round trip beside it"
        assert each["venue"]["round_trip_s"] > 0
    alarms = [path.read_text() for path in (tmp_path / "data" / "run" / "alerts").glob("*.jsonl")]
    assert any("clock is off by 2.5" in text or "clock is off by 2.4" in text for text in alarms), alarms
