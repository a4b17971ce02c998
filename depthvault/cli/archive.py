"""The steps of the archive, each runnable by hand and safe to run again."""

from __future__ import annotations

import typer

PANEL = "Archive"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
