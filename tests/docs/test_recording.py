"""Every command of docs/recording.md does what the page says, as real programs against the simulator that it starts."""

from __future__ import annotations

import csv
import json
import shlex
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from ..acceptance.programs import Simulated, Site, stop, wait_for
from ..plugins.receivers import telegram
from .pages import blocks, commands

PAGE = "recording.md"
PORT = "9700"  # of the page; here the system chooses one

pytestmark = pytest.mark.timeout(420)  # half a minute each alone; a busy machine takes several times that


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Site]:
    """The folder of somebody who follows the page: its simulator runs, its configuration is saved."""
    site = Site(tmp_path_factory.mktemp("desk"))
    [simulate, *_] = commands(PAGE)
    assert f"--port {PORT}" in simulate
    [configuration] = blocks(PAGE, "yaml")
    (site.folder / "depthvault.yaml").write_text(configuration.replace(PORT, str(port)))
    process = site.start(*words(simulate.replace(PORT, str(port))))
    try:
        wait_for(lambda: process.poll() is not None or _answers(port), "the simulator listens")
        assert process.poll() is None, (site.folder / "simulate.log").read_text()
        yield site
    finally:
        assert stop(process, signal.SIGINT) == 0


def _answers(port: int) -> bool:
    try:
        return bool(Simulated(port).status())
    except (urllib.error.URLError, ConnectionError):
        return False


def words(line: str) -> list[str]:
    name, *rest = shlex.split(line)
    assert name == "depthvault"
    return rest


def test_the_configuration_is_valid_and_shown(site: Site) -> None:
    check, show = commands(PAGE)[1:3]
    assert "the configuration is valid" in site.run(*words(check))
    assert "lighter: BTC, ETH" in site.run(*words(check))
    assert "depth_levels" in site.run(*words(show))


def test_is_this_machine_good_enough(site: Site) -> None:
    quicktest, record, watch = commands(PAGE, "Is this machine good enough?")
    assert "completeness" in site.run(*words(quicktest))
    with (site.folder / "data_test" / "binance_spot_BTCUSDT_trades.csv").open() as file:
        assert list(csv.DictReader(file))
    assert "good: every channel arrived, no gap" in site.run(*words(record))
    assert "spread" in site.run(*words(watch))
    assert not (site.data / "journal").exists(), "none of them keeps anything"


def test_record(site: Site) -> None:
    collect, record, probe, seal, ask = commands(PAGE, "Record")
    site.run(*words(collect))
    assert "kept in" in site.run(*words(record))
    site.run(*words(probe))
    assert "rest-" in site.run(*words(seal))
    said = site.run(*words(ask))
    for name in ("binance_futures", "binance_spot", "lighter", "BTCUSDT", "ETH"):
        assert name in said


def test_put_it_to_the_test(site: Site) -> None:
    [trial] = commands(PAGE, "Put it to the test")
    assert "yes" in site.run(*words(trial), timeout=360)
    assert json.loads((site.folder / "figures.json").read_text())["passed"] is True


def test_alerts(site: Site) -> None:
    [line] = commands(PAGE, "Alerts")
    with telegram() as server:
        keys = {"TELEGRAM_BOT_TOKEN": "1:token", "TELEGRAM_CHAT_ID": "7", "DEPTHVAULT_ALERTS__TELEGRAM_URL": server.url}
        assert "telegram: sent" in site.run(*words(line), **keys).lower()
        assert server.messages
