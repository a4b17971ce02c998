"""The listener speaks supervisor's protocol, revives what gave up, and loses no message."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from collectors.alerting import Listener, read_events
from depthvault.alerts import Alert, Grouper, Message, Sender, Spool, SpoolReader
from depthvault.alerts.senders import SendError
from depthvault.clock import ManualClock
from depthvault.config import environment_config
from tests.serving import serving


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
    return Listener(
        environment_config(data_dir=folder), [sender], clock, revived.append, SpoolReader(folder), Grouper(60, 10)
    )


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


class Watcher(ThreadingHTTPServer):
    """The service outside that expects a call now and then."""

    def __init__(self) -> None:
        self.calls = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.calls += 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = self
        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    server = Watcher()
    with serving(server):
        yield server


def beating(folder: Path, watcher: Watcher, clock: ManualClock) -> Listener:
    alerts = {"heartbeat_url": f"http://127.0.0.1:{watcher.server_address[1]}/", "heartbeat_interval": "1m"}
    config = environment_config(data_dir=folder, alerts=alerts)
    return Listener(config, [], clock, lambda program: None, SpoolReader(folder), Grouper(60, 10))


def says(folder: Path, clock: ManualClock, **status: Any) -> None:
    """A collector writes its figures."""
    path = folder / "run" / "collectors" / "binance_spot-a.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"problems": [], "updated_ns": clock.wall_ns(), "pid": os.getpid(), **status}))


def test_the_heartbeat_is_called_once_an_interval_while_all_is_well(tmp_path: Path, watcher: Watcher) -> None:
    clock = ManualClock(time.time_ns())
    it = beating(tmp_path, watcher, clock)
    says(tmp_path, clock)
    for _ in range(10):
        it.on_occasion()
        clock.advance(12)
        says(tmp_path, clock)
    assert watcher.calls == 2


@pytest.mark.parametrize("trouble", ["fatal", "unhealthy", "hangs"])
def test_it_stops_while_something_is_wrong_and_goes_on_after(trouble: str, tmp_path: Path, watcher: Watcher) -> None:
    clock = ManualClock(time.time_ns())
    it = beating(tmp_path, watcher, clock)
    body = {"processname": "collector-binance_spot-a"}
    says(tmp_path, clock)
    if trouble == "fatal":
        it.on_event({"eventname": "PROCESS_STATE_FATAL"}, body)
    elif trouble == "unhealthy":
        says(tmp_path, clock, problems=["the disk is full"])
    else:
        clock.advance(90)
    it.on_occasion()
    assert watcher.calls == 0
    clock.advance(61)
    it.on_event({"eventname": "PROCESS_STATE_RUNNING"}, body)
    says(tmp_path, clock)
    it.on_occasion()
    assert watcher.calls == 1


@pytest.mark.parametrize("pid", ["nobody's", "another's"])
def test_figures_that_a_killed_collector_left_behind_do_not_stop_it(pid: str, tmp_path: Path, watcher: Watcher) -> None:
    """Its supervisor starts it again, or says FATAL; where it was taken out of the configuration nobody does."""
    clock = ManualClock(time.time_ns())
    it = beating(tmp_path, watcher, clock)
    long_ago = clock.wall_ns() - 365 * 86400 * 10**9
    figures = {"pid": 2**30} if pid == "nobody's" else {"updated_ns": long_ago}
    says(tmp_path, clock, problems=["2 of 2 connections are down"], **figures)
    clock.advance(3600)
    it.on_occasion()
    assert watcher.calls == 1
