"""The commands of docs/deployment.md: the whole platform on the simulator, up, changed, and down without orphans."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from depthvault.config import load_config
from depthvault.platform import control
from depthvault.platform.site import Site as Platform

from ..acceptance.programs import Site, simulator, wait_for
from .pages import commands

pytestmark = pytest.mark.timeout(600)  # half a minute alone; starting Airflow is heavy on a busy machine


def test_up_status_reload_down(tmp_path: Path) -> None:
    up, status, reload, down = (
        shlex.split(line, comments=True)[1:] for line in commands("deployment.md", "One host, without containers")
    )
    folder = tmp_path / "desk"
    folder.mkdir()
    with simulator(tmp_path, "--symbols", "6") as sim:
        site = Site(folder)
        venues = {"binance_futures": {"symbols": ["BTCUSDT"]}}
        site.configure(sim, venues, platform={"metrics_port": 0, "airflow_port": 0})
        try:
            site.run(*up, timeout=400)
            said = site.run(*status)
            assert "collector-binance_futures-a" in said
            assert "airflow-scheduler" in said
            wait_for(lambda: site.figures("binance_futures").get("frames"), "the collector records")
            configuration = yaml.safe_load((folder / "depthvault.yaml").read_text())
            configuration["exchanges"]["binance_futures"]["symbols"] = ["BTCUSDT", "ETHUSDT"]
            (folder / "depthvault.yaml").write_text(yaml.safe_dump(configuration))
            site.run(*reload, timeout=200)
            wait_for(lambda: "ETHUSDT" in _recorded(site), "the collector takes the new symbol over")
        finally:
            site.run(*down, timeout=200)
    platform = Platform.of(load_config(folder / "depthvault.yaml", data_dir=site.data))
    assert control.leftovers(platform) == []


def _recorded(site: Site) -> str:
    return site.run("sql", "SELECT DISTINCT symbol FROM depth_diff")
