"""Commands that ask the archive: sql, schema."""

from __future__ import annotations

import typer

PANEL = "Query"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
