"""Every command has an example in docs/ that a test runs, and no example anywhere names what there is not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from depthvault.cli import app, spread

from .pages import DOCS, blocks

ROOT = DOCS.parent
RUN_BY = {
    "archiving.md": "test_archiving.py",
    "deployment.md": "test_deployment.py",
    "iceberg.md": "test_pages.py",
    "import.md": "test_pages.py",
    "querying.md": "../depthvault/query/test_docs.py",
    "recording.md": "test_recording.py",
    "restoring.md": "test_pages.py",
}
"""Pages all of whose commands are typed by a test."""

_BLOCK = re.compile(r"^```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


def paths(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that can be typed, by its words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from paths(command, (*before, name))
        else:
            yield (*before, name), command


COMMANDS = dict(paths(typer.main.get_command(app)))


def typed(line: str) -> tuple[tuple[str, ...], list[str]]:
    """The command that a line names, and its arguments. Fails when there is none."""
    words = shlex.split(re.split(r" [>|&] ?| && ", line)[0], comments=True)[1:]
    for length in (2, 1):
        if tuple(words[:length]) in COMMANDS:
            return tuple(words[:length]), words[length:]
    raise AssertionError(f"there is no such command: {line}")


def shown() -> Iterator[tuple[str, str]]:
    """Every example of a whole command line: in the blocks of README and docs/, and at the end of each --help."""
    for page in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]:
        for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.splitlines():
                if line.removeprefix("$ ").startswith("depthvault "):
                    yield page.relative_to(ROOT).as_posix(), line.removeprefix("$ ")
    for name, command in COMMANDS.items():
        epilog = re.search(r"Example: `(.+)`", command.epilog or "")
        assert epilog, f"{' '.join(name)} --help shows no example"
        yield f"{' '.join(name)} --help", epilog[1]


@pytest.mark.parametrize(("where", "line"), list(shown()))
def test_every_example_is_one_that_the_command_line_takes(where: str, line: str) -> None:
    name, rest = typed(line)
    COMMANDS[name].make_context(" ".join(name), spread(rest))  # raises when it does not


def test_every_command_has_an_example_that_is_run() -> None:
    run = {
        typed(line)[0]
        for page in RUN_BY
        for block in blocks(page, "sh")
        for line in block.splitlines()
        if line.startswith("depthvault ") and "s3://" not in line
    }
    # The demo takes minutes: CI runs it as a stage of its own, after the tests.
    assert "make --no-print-directory demo" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "\n\t@$(DEPTHVAULT) demo\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "`depthvault demo`" in (DOCS / "deployment.md").read_text(encoding="utf-8")
    run.add(("demo",))
    assert sorted(COMMANDS.keys() - run) == []


@pytest.mark.parametrize(("page", "test"), RUN_BY.items())
def test_the_test_that_runs_a_page_reads_it(page: str, test: str) -> None:
    assert f'"{page}"' in (Path(__file__).parent / test).read_text(encoding="utf-8")
