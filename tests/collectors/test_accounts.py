"""Account channels: recorded when asked for, apart from the market, and the credential written nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from depthvault.config import Config
from depthvault.errors import ConfigError
from depthvault.exchanges import exchange as venue
from depthvault.journal import read_rows
from depthvault.journal.rows import Row
from depthvault.layout import Layout
from depthvault.seal import seal_pending
from simulator.testing import Running, running
from tests.collectors.session import collecting, configuration, events, journal_rows, simulated, ticking, until
from tests.docs.pages import blocks

VENUE = "lighter"
TOKEN = "ro:17:single:not-a-real-token"


@pytest.fixture(autouse=True)
def _no_credential(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LIGHTER_AUTH_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)  # no .env of anybody


def settings(sim: Running, tmp_path: Path, **more: Any) -> Config:
    return configuration(
        sim, VENUE, tmp_path / "data", channels=("depth_diff",), symbols=("ETH",), **{"accounts": (17, 9), **more}
    )


def account_rows(tmp_path: Path) -> list[Row]:
    layout = Layout(tmp_path / "data").accounts
    return [row for path in layout.journal_files(VENUE, "accounts-a") for row in read_rows(path)]


async def test_public_channels_are_recorded_apart_from_the_market(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config = settings(sim, tmp_path)
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: len(collector.accounts.heard) == 4, "each account channel answers")
            await until(lambda: collector.recorder.counters.frames > 20, "the market is recorded beside it")
            async with aiohttp.ClientSession() as session:
                said = await (await session.get(f"http://127.0.0.1:{collector.port}/metrics")).text()
            assert (
                f'depthvault_account_frames_total{{exchange="lighter",writer="a"}} {collector.accounts.frames}' in said
            )
    rows = account_rows(tmp_path)
    bodies = {row.stream: json.loads(row.body) for row in rows if row.kind == "frame" and row.stream}
    assert set(bodies) == {"account_all:17", "user_stats:17", "account_all:9", "user_stats:9"}
    assert bodies["account_all:17"]["account"] == 17
    assert rows[-1].stream == "stop"
    market = journal_rows(tmp_path / "data", VENUE)
    assert not [row for row in market if b"account" in row.body and row.kind in ("frame", "sent")]
    (collected,) = (path.name for path in (tmp_path / "data" / "journal" / VENUE).iterdir())
    assert collected == "a"
    assert (tmp_path / "data" / "accounts").stat().st_mode & 0o077 == 0
    seal_pending(config, everything=True)
    sealed = [path.as_posix() for path in (tmp_path / "data" / "live").rglob("*")]
    assert sealed
    assert not [path for path in sealed if "account" in path]


async def test_the_page_on_lighter_shows_how_to_read_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(simulated(tmp_path)) as sim:
        config = settings(sim, tmp_path)
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: len(collector.accounts.heard) == 4, "each account channel answers")
    (example,) = blocks("lighter.md", "python")
    exec(example, {})
    assert capsys.readouterr().out.count("{}") == 2


async def test_nothing_of_accounts_is_there_unless_asked_for(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config = settings(sim, tmp_path, accounts=())
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: collector.recorder.counters.frames > 20, "the market is recorded")
    assert not (tmp_path / "data" / "accounts").exists()


async def test_a_private_channel_takes_the_credential_and_it_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTER_AUTH_TOKEN", TOKEN)
    async with running(simulated(tmp_path)) as sim:
        config = settings(sim, tmp_path, accounts=(17,), account_channels=("account_all_orders", "account_all"))
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: len(collector.accounts.heard) == 2, "both answer")
    rows = account_rows(tmp_path)
    sent = [json.loads(row.body) for row in rows if row.kind == "sent"]
    assert {"type": "subscribe", "channel": "account_all_orders/17", "auth": "***"} in sent
    assert {"type": "subscribe", "channel": "account_all/17"} in sent, "a public one is asked without"
    assert not [row for row in rows if TOKEN.encode() in row.body]
    for path in (tmp_path / "data").rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()


async def test_without_the_credential_the_rest_is_recorded_and_the_lack_is_said(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config = settings(sim, tmp_path, accounts=(17,), account_channels=("account_all_orders", "account_all"))
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: "account_all:17" in collector.accounts.heard, "the public one answers")
    (lack,) = events(account_rows(tmp_path), "stale")
    assert lack == {"stream": "account_all_orders:17", "reason": "no credential"}


async def test_a_lost_connection_is_opened_again_and_a_reload_changes_accounts(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config = settings(sim, tmp_path, accounts=(17,))
        changed = settings(sim, tmp_path, accounts=(3,))
        async with collecting(config, VENUE, reload=lambda: changed) as collector, ticking(sim):
            await until(lambda: len(collector.accounts.heard) == 2, "both answer")
            sim.control.fault(VENUE, "disconnect")
            await until(lambda: collector.accounts.frames >= 5, "it is connected anew")
            await until(lambda: len(collector.accounts.heard) == 2, "both answer again")
            collector.reload()
            await until(lambda: collector.accounts.heard == {"account_all:3", "user_stats:3"}, "the other account")
    rows = account_rows(tmp_path)
    closed = [json.loads(row.body)["initiator"] for row in rows if row.kind == "closed"]
    assert closed[0] == "network"
    assert len([row for row in rows if row.kind == "opened"]) == 3


def test_a_channel_that_does_not_exist_is_an_error_of_the_configuration() -> None:
    config = Config.model_validate({"exchanges": {VENUE: {"accounts": [1], "account_channels": ["account_none"]}}})
    with pytest.raises(ConfigError, match="account_none does not exist"):
        venue(VENUE, config.exchanges[VENUE])
