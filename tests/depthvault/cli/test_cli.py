"""The command line answers bad use with one line and exit code 2, and every command shows an example."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from depthvault.cli import app


def _commands() -> list[str]:
    group = typer.main.get_command(app)
    return sorted(group.commands)  # type: ignore[attr-defined]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "depthvault.cli", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("name", [name for name in _commands() if name not in {"config", "simulate", "alerts"}])
def test_help_of_every_command_ends_in_an_example(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert "Example: " in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("collect", "nasdaq"),
        ("replay", "binance_spot/trade/BTCUSDT", "--start", "2026-11-20T04:00"),
        ("replay", "binance_spot/trade/BTCUSDT", "--follow", "--end", "2026-11-20T04:00", "--duration", "1s"),
        ("collect", "binance_spot", "--duration", "soon"),
        ("collect", "binance_spot", "--shard", "2/2"),
        ("config", "check", "--config", "missing.yaml"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_config_check_names_what_is_recorded(tmp_path: Path) -> None:
    result = run("config", "check", cwd=tmp_path)
    assert result.returncode == 0
    assert "binance_futures: top:50" in result.stdout


def test_a_missing_extra_is_named_in_one_line(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['uvloop'] = None; sys.argv = ['depthvault', 'collect', 'binance_spot'];"
        "from depthvault.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "error: this needs uvloop: pip install 'depthvault[collectors]'\n"
