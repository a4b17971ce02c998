"""The examples of a page of docs/: fenced blocks, as a reader would copy them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from depthvault.cli import app, spread

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str, heading: str | None = None) -> list[str]:
    """Every block of one language, of the whole page or below one heading."""
    text = (DOCS / page).read_text(encoding="utf-8")
    if heading is not None:
        text = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [body for name, body in _BLOCK.findall(text) if name == language]


def commands(page: str, heading: str | None = None) -> list[str]:
    """Every `depthvault` command line."""
    lines = [line for body in blocks(page, "sh", heading) for line in body.splitlines()]
    found = [line for line in lines if line.startswith("depthvault ")]
    assert found, f"{page} shows no command any more"
    return found


def run(line: str) -> Result:
    """Type a command in the current directory."""
    return CliRunner().invoke(app, spread(shlex.split(line, comments=True)[1:]))


def works(line: str) -> str:
    """Type a command that must succeed. Returns what it printed."""
    result = run(line)
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
    return result.output
