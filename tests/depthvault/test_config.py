"""The configuration says no clearly, and takes its values in the promised order."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from depthvault.config import Secrets, load_config
from depthvault.errors import ConfigError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder without configuration, and no configuration in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEPTHVAULT_CONFIG", raising=False)
    return tmp_path


def test_environment_wins_over_file_and_flags_win_over_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("archive: {compression_level: 3, keep: 2d}\ndata_dir: from_file\n")
    monkeypatch.setenv("DEPTHVAULT_ARCHIVE__COMPRESSION_LEVEL", "5")
    monkeypatch.setenv("DEPTHVAULT_DATA_DIR", "from_environment")
    assert load_config(file).data_dir == Path("from_environment")
    config = load_config(file, data_dir=Path("from_flag"))
    assert config.archive.compression_level == 5
    assert config.archive.keep == timedelta(days=2)
    assert config.data_dir == Path("from_flag")


def test_lists_in_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHVAULT_EXCHANGES__BINANCE_SPOT__SYMBOLS", '["BTCUSDT", "币安人生USDT"]')
    assert load_config().exchanges.binance_spot.symbols == ("BTCUSDT", "币安人生USDT")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("exchanges: {binance_spot: {symbosl: all}}", "exchanges.binance_spot.symbosl"),
        ("exchanges: {binance_spot: {symbols: some}}", "exchanges.binance_spot.symbols"),
        ("exchanges: {binance_spot: {channels: [depth]}}", "exchanges.binance_spot.channels"),
        ("exchanges: {binance_futures: {snapshot_limit: 7}}", "exchanges.binance_futures.snapshot_limit"),
        ("archive: {period: 7m}", "archive.period"),
        ("journal: {flush_interval: soon}", "journal.flush_interval"),
        ("colour: red", "colour"),
    ],
)
def test_a_bad_key_or_value_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert named in str(caught.value)
    assert "bad.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a list", "a: [", "just words"])
def test_a_file_that_is_no_mapping_is_one_clear_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml") as caught:
        load_config(file)
    assert "\n" not in str(caught.value)


def test_the_shipped_file_and_the_defaults_agree() -> None:
    shipped = Path(__file__).parents[2] / "depthvault.yaml"
    assert load_config(shipped).exchanges.binance_futures == load_config().exchanges.binance_futures
    assert load_config(shipped).exchanges.binance_spot == load_config().exchanges.binance_spot


def test_secrets_are_not_shown_when_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "hunter2")
    assert "hunter2" not in repr(Secrets())
