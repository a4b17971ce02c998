"""The DAGs run in a real Airflow against a simulated venue: from REST answers to a published archive and a report."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from depthvault.archive import log
from depthvault.archive.verify import verify
from depthvault.clock import ManualClock, datetime_from_ns
from depthvault.config import Config, load_config
from depthvault.durable import sha256_file
from depthvault.polls import poll, poll_snapshots
from depthvault.seal import seal_pending
from simulator.config import SimulatorConfig
from simulator.testing import Running, running
from tests.dags.scratch_airflow import ScratchAirflow

pytestmark = pytest.mark.timeout(600)  # a real Airflow, on whatever machine this is

MINUTE_NS = 60_000_000_000
PERIODS = 2


@dataclass
class Ran:
    """What happened: outcomes by DAG in the order run, all that was said, and the archive's bytes after each run."""

    config: Config
    outcomes: list[dict[str, Any]]
    output: str
    archive_after_first: dict[str, str]
    archive_after_second: dict[str, str]
    periods: list[str]
    airflow: ScratchAirflow

    def outcome(self, dag: str) -> dict[str, Any]:
        return next(outcome for outcome in self.outcomes if outcome["dag"] == dag)


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def write_configuration(folder: Path, simulator: Running) -> Path:
    path = folder / "depthvault.yaml"
    venues = ("binance_spot", "binance_futures")
    exchanges = {
        venue: {"rest_url": simulator.rest_url(venue), "symbols": ["BTCUSDT", "ETHUSDT"], "snapshot_limit": 100}
        for venue in venues
    }
    lighter = {"rest_url": simulator.rest_url("lighter"), "ws_url": simulator.ws_url("lighter")}
    exchanges["lighter"] = lighter | {"enabled": True, "symbols": ["ETH"]}
    content = {"data_dir": str(folder / "data"), "archive": {"period": "1m", "seal_grace": "1s"}}
    path.write_text(yaml.safe_dump(content | {"journal": {"min_free": 0}, "exchanges": exchanges}))
    return path


async def record(config: Config) -> list[str]:
    """Two minutes of the recent past, of spot: its answers carry no time, so they belong to when they came."""
    first = time.time_ns() // MINUTE_NS * MINUTE_NS - 10 * MINUTE_NS
    labels = []
    for number in range(PERIODS):
        clock = ManualClock(first + number * MINUTE_NS + 2_000_000_000)
        assert (await poll_snapshots(config, "binance_spot", clock=clock)).answered == 2
        assert (await poll(config, "binance_spot", "instrument", clock=clock)).answered == 1
        labels.append(config.layout.period_of(datetime_from_ns(clock.wall)).label)
    await asyncio.to_thread(seal_pending, config)
    return labels


async def run_everything(folder: Path) -> Ran:
    airflow = ScratchAirflow(folder / "airflow")
    await asyncio.to_thread(airflow.migrate)
    async with running(SimulatorConfig(symbols=4)) as simulator:
        path = write_configuration(folder, simulator)
        config = load_config(path)
        periods = await record(config)
        airflow = ScratchAirflow(folder / "airflow", path)
        today = datetime_from_ns(time.time_ns()).date().isoformat()
        first, said = await asyncio.to_thread(airflow.test, "archive_hour", "archive_hour")
        archive = tree(config.layout.archive)
        second, more = await asyncio.to_thread(
            airflow.test,
            "archive_hour",
            "cleanup_local",
            "depth_snapshots",
            "book_probes",
            "funding_rates",
            "open_interest",
            "symbol_universe",
            f'daily_report {{"date": "{today}"}}',
        )
    return Ran(config, first + second, said + more, archive, tree(config.layout.archive), periods, airflow)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return asyncio.run(run_everything(tmp_path_factory.mktemp("platform")))


def test_every_run_is_green(ran: Ran) -> None:
    assert [(outcome["dag"], outcome["state"]) for outcome in ran.outcomes if outcome["state"] != "success"] == []


def test_the_oldest_period_goes_first_and_the_next_run_takes_the_next(ran: Ran) -> None:
    first, second, third = (outcome for outcome in ran.outcomes if outcome["dag"] == "archive_hour")
    assert set(first["names"]) == {f"binance_spot {ran.periods[0]}"}
    assert set(second["names"]) == {f"binance_spot {ran.periods[1]}"}
    assert first["tasks"]["run_again[-1]"] == "success"
    assert second["tasks"]["run_again[-1]"] == "skipped"
    assert third["names"] == []


def test_the_archive_is_published_judged_and_whole(ran: Ran) -> None:
    state = log.load(ran.config.layout)
    snapshots = [entry for unit, entry in state.current.items() if unit[2] == "depth_snapshot"]
    assert sorted(entry.period for entry in snapshots) == ran.periods
    assert all(entry.counts.rows == 2 for entry in snapshots)
    metrics = [file for file in state.files.values() if file.table == "hour_metrics"]
    assert len(metrics) == state.number
    assert {entry.condition for entry in snapshots} == {"available"}, [entry.failed for entry in snapshots]
    verification = verify(ran.config.layout)
    assert verification.ok, verification


def test_a_run_with_nothing_new_changes_no_byte(ran: Ran) -> None:
    assert ran.archive_after_first == ran.archive_after_second


def test_without_a_store_nothing_is_deleted_and_the_log_says_so(ran: Ran) -> None:
    assert "nothing is proved elsewhere, so nothing is deleted" in ran.output


def test_every_task_says_what_it_did_in_a_line(ran: Ran) -> None:
    for said in (
        "2 periods are ready, oldest first: binance_spot",
        "depth_snapshot g1: 2 rows of 2 read",
        "available, ",
        "no object store is configured, nothing to upload",
        "channels published: ",
        "binance_spot depth_snapshot: 2 of 2 answered",
        "binance_futures depth_snapshot: 2 of 2 answered",
        "lighter depth_snapshot: 1 of 1 answered",
        "binance_futures funding_rate: 2 of 2 answered",
        "binance_futures open_interest: 2 of 2 answered",
        "binance_spot instrument: 1 of 1 answered",
        "no way to send it is configured",
    ):
        assert said in ran.output, said


def test_the_report_lies_in_its_folder(ran: Ran) -> None:
    (page,) = ran.config.layout.reports.glob("*/report.html")
    assert "depth_snapshot" in page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(ran: Ran) -> Iterator[tuple[str, str]]:
    """The address of a running web UI, and a token of its admin."""
    password = secrets.token_urlsafe(12)
    with ran.airflow.served("reader", password) as url:
        body = json.dumps({"username": "reader", "password": password}).encode()
        request = urllib.request.Request(f"{url}/auth/token", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            yield url, json.load(answer)["access_token"]


def get(url: str, token: str | None) -> tuple[int, str, dict[str, str]]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def test_the_archived_periods_are_partitions_of_an_asset(ran: Ran, site: tuple[str, str]) -> None:
    url, token = site
    status, text, _ = get(f"{url}/api/v2/assets/events?limit=100", token)
    assert status == 200, text
    events = json.loads(text)["asset_events"]
    partitions = [event["partition_key"] for event in events if event["partition_key"] is not None]
    assert sorted(set(partitions)) == [f"binance_spot {period}" for period in ran.periods]


@pytest.mark.parametrize("path", ["", "symbols?exchange=binance_spot&channel=depth_snapshot", "docs", "openapi.json"])
@pytest.mark.parametrize("token", [None, "forged"])
def test_the_pages_are_closed_to_strangers(path: str, token: str | None, site: tuple[str, str]) -> None:
    status, text, _ = get(f"{site[0]}/depthvault/{path}", token)
    assert status in {401, 403, 404}
    assert "binance" not in text


def test_the_pages_show_the_archive_to_a_reader_without_any_script(ran: Ran, site: tuple[str, str]) -> None:
    url, token = site
    date = f"{ran.periods[0][:4]}-{ran.periods[0][4:6]}-{ran.periods[0][6:8]}"
    status, text, headers = get(f"{url}/depthvault/?date={date}", token)
    assert status == 200
    assert "binance_spot depth_snapshot" in text
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "<script" not in text
    status, text, _ = get(f"{url}/depthvault/symbols?exchange=binance_spot&channel=depth_snapshot&date={date}", token)
    assert status == 200
    assert "BTCUSDT" in text
    assert "2 symbols" in text
    assert get(f"{url}/depthvault/?date=nonsense", token)[0] == 422


def test_the_navigation_has_an_entry(site: tuple[str, str]) -> None:
    url, token = site
    status, text, _ = get(f"{url}/api/v2/plugins", token)
    assert status == 200
    (plugin,) = (one for one in json.loads(text)["plugins"] if one["name"] == "depthvault")
    assert plugin["external_views"][0]["url_route"] == "archive-coverage"
