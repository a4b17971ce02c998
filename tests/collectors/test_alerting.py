"""The listener speaks supervisor's protocol, revives what gave up, and loses no message."""

from __future__ import annotations

import io
from pathlib import Path

from collectors.alerting import Listener, read_events
from depthvault.alerts import Alert, Grouper, Message, Sender, Spool, SpoolReader
from depthvault.alerts.senders import SendError
from depthvault.clock import ManualClock
from depthvault.config import load_config


class Flaky(Sender):
    """Refuses until told otherwise."""

    name = "flaky"

    def __init__(self) -> None:
        self.works = False
        self.sent: list[Message] = []

    def send(self, message: Message, html: str | None = None) -> None:
        if not self.works:
            raise SendError("flaky: no network")
        self.sent.append(message)


def listener(folder: Path, sender: Sender, clock: ManualClock, revived: list[str]) -> Listener:
    return Listener(load_config(), [sender], clock, revived.append, SpoolReader(folder), Grouper(60, 10))


def event(name: str, body: str) -> str:
    return f"ver:3.0 server:depthvault serial:1 pool:alerting poolserial:1 eventname:{name} len:{len(body)}\n{body}"


def test_a_program_that_gave_up_is_told_at_once_and_revived_after_a_minute(tmp_path: Path) -> None:
    clock, sender, revived = ManualClock(), Flaky(), []
    sender.works = True
    it = listener(tmp_path, sender, clock, revived)
    body = "processname:collector-binance_spot-a groupname:collector-binance_spot-a from_state:BACKOFF"
    out = io.StringIO()
    read_events(io.StringIO(event("PROCESS_STATE_FATAL", body)), out, it.on_event)
    assert out.getvalue() == "READY\nRESULT 2\nOKREADY\n"
    it.on_occasion()
    assert [message.title for message in sender.sent] == ["supervisor: fatal"]
    assert "collector-binance_spot-a gave up" in sender.sent[0].body
    assert revived == []
    clock.advance(61)
    it.on_occasion()
    assert revived == ["collector-binance_spot-a"]


def test_a_message_that_cannot_be_sent_is_sent_when_the_network_is_back(tmp_path: Path) -> None:
    clock, sender = ManualClock(), Flaky()
    it = listener(tmp_path, sender, clock, [])
    Spool(tmp_path, "x").raise_alert(Alert(clock.wall_ns(), "banned", "binance_spot a", "banned until noon"))
    it.on_occasion()
    assert sender.sent == []
    sender.works = True
    clock.advance(31)
    it.on_occasion()
    it.on_occasion()
    assert [message.title for message in sender.sent] == ["binance_spot a: banned"]
