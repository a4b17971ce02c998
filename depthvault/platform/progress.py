"""What a person sees while the platform starts and stops: one line a step, a spinner while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Steps:
    """Prints steps as they begin and end. Without a terminal it prints plain lines, and no spinner."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Console(highlight=False)
        self._quiet = quiet

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """One step: shown while it runs, ticked with its seconds when it is over."""
        if self._quiet:
            yield
            return
        began = time.monotonic()
        try:
            with self.console.status(f"{what} …"):
                yield
        except BaseException:
            self.console.print(f"  [red]✗[/] {what}", soft_wrap=True)
            raise
        self.console.print(f"  [green]✓[/] {what} [dim]{time.monotonic() - began:.1f} s[/]", soft_wrap=True)

    def tell(self, text: str) -> None:
        """Print what another program said: as it is, also when quiet."""
        self.console.print(text, markup=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        if not self._quiet:
            self.console.print(text, soft_wrap=True)
