"""Every command of docs/archiving.md does what the page says, on an hour of journals and with a real object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthvault.archive import log
from depthvault.layout import Layout

from ..depthvault.archive.seaweed import Server
from .pages import commands, works
from .recorded_hour import record
from .test_pages import SECRETS, desk, server  # noqa: F401 - fixtures


def test_archiving(desk: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811 - fixtures
    server.client().create_bucket(Bucket="by-hand")
    for name, value in zip(SECRETS, (server.endpoint, server.access_key, server.secret_key, "by-hand"), strict=False):
        monkeypatch.setenv(name, value)
    record(desk / "data")
    said = {line: works(line) for line in commands("archiving.md", "From journals to the archive")}
    steps = iter(said.values())
    assert "sealed binance_futures a 20261005T1000" in next(steps)
    assert "depth_diff g1: 1,800 rows" in next(steps)
    assert "binance_futures 2026-10-05" in next(steps)
    assert "read back" in next(steps)
    assert "depth_diff g1: manifest" in next(steps)
    assert "all as recorded" in next(steps)
    layout = Layout(desk / "data")
    conditions = {entry.channel: entry.condition for entry in log.load(layout).current.values()}
    assert conditions == dict.fromkeys(("agg_trade", "collector_event", "depth_diff", "depth_snapshot"), "available")
    assert "depth_diff" in said["depthvault coverage --symbol BTCUSDT"]
    assert (layout.reports / "2026-10-05" / "report.html").exists()

    for line in commands("archiving.md", "Pictures"):
        works(line)
        picture = Path(line.split()[-1])
        assert picture.read_bytes()[:4] == (b"\x89PNG" if picture.suffix == ".png" else b"<!do")

    rederived, validated, published, rolled_up, asked, cleaned = map(works, commands("archiving.md", "Later"))
    assert "nothing changes" in rederived
    assert (validated.strip(), published.strip()) == ("nothing to validate", "nothing to publish")
    assert "depth_diff: 1,800 rows of 1 files in 1 files" in rolled_up
    assert "would be deleted" in asked
    assert "0 archive files" not in cleaned
    works("depthvault verify both --deep")
