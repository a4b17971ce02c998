from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from collectors.alarms import Alarms
from depthvault.alerts import Alert, Spool, SpoolReader
from depthvault.alerts.grouping import URGENT
from depthvault.clock import ManualClock


@pytest.fixture
def alarms(tmp_path: Path) -> Alarms:
    return Alarms(tmp_path, "binance_spot", "a", ManualClock())


def told(tmp_path: Path) -> list[tuple[str, str, str]]:
    return [(each.kind, each.subject, each.text) for each in SpoolReader(tmp_path).read()]


def test_what_matters_to_people_is_told_and_the_rest_is_not(alarms: Alarms, tmp_path: Path) -> None:
    alarms.note("gap", {"last_id": 5, "first_id": 9}, "BTCUSDT", 0)
    alarms.note("resync", {"reason": "start", "waited_s": 1}, "BTCUSDT", 0)
    alarms.note("resync", {"reason": "gap", "waited_s": 0.4}, "BTCUSDT", 0)
    alarms.note("environment", {"os": "x"}, None, 0)
    alarms.note("disconnect", {"reason": "", "code": 1006, "exhausted": True}, None, 3)
    alarms.note("clock", {"reference": {"offset_s": 0.01}}, None, 0)
    alarms.note("clock", {"reference": {"offset_s": -2.5}}, None, 0)
    alarms.note("clock", {"reference": None}, None, 0)
    alarms.flush()
    assert told(tmp_path) == [
        ("gap", "BTCUSDT", "BTCUSDT: events between ids 5 and 9 are missing"),
        ("resync", "BTCUSDT", "BTCUSDT: whole again after 0.4 s"),
        ("disconnect", "connection 3", "connection lost: 1006. All attempts are used up."),
        ("clock", "", "this host's clock is off by -2.5 s"),
    ]


def test_a_disk_that_refuses_is_urgent_and_told_when_it_takes_again(alarms: Alarms, tmp_path: Path) -> None:
    alarms.note("flush", {"refused": "no space left"}, None, 0)
    alarms.note("flush", {"refused_s": 12.5}, None, 0)
    alarms.flush()
    assert [kind for kind, _, _ in told(tmp_path)] == ["disk_full", "flush"]
    assert "NOTHING IS BEING RECORDED TO DISK: no space left" in told(tmp_path)[0][2]
    assert "disk_full" in URGENT


def test_what_cannot_be_written_now_is_written_later_once_in_order(
    alarms: Alarms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = Spool.raise_alert, 1

    def raise_alert(spool: Spool, alert: Alert) -> None:
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        room -= 1
        real(spool, alert)

    monkeypatch.setattr(Spool, "raise_alert", raise_alert)
    for text in ("first", "second", "third"):
        alarms.tell("gap", text)
    alarms.flush()
    alarms.tell("gap", "fourth")
    alarms.flush()
    room = 10
    alarms.flush()
    alarms.flush()
    assert [text for _, _, text in told(tmp_path)] == ["first", "second", "third", "fourth"]


def test_flood_is_counted_not_written(alarms: Alarms, tmp_path: Path) -> None:
    for number in range(1000):
        alarms.note("gap", {"last_id": number, "first_id": number + 2}, f"S{number}USDT", 0)
    alarms.flush()
    written = told(tmp_path)
    assert len(written) == 201
    assert written[-1] == ("gap", "more", "800 more")


async def test_what_waits_at_the_end_is_told(alarms: Alarms, tmp_path: Path) -> None:
    task = asyncio.create_task(alarms.run())
    await asyncio.sleep(0)
    alarms.tell("start", "recording begins")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert told(tmp_path) == [("start", "", "recording begins")]
