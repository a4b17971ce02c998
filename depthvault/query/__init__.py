"""Asking the archive: SQL, Arrow, books, replay, what comes in now, export."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from depthvault.query.follow import Follow
from depthvault.query.replay import Event, Gap, Notice, Stream
from depthvault.query.statement import Format
from depthvault.query.text import Moment
from depthvault.query.vault import Vault, open_vault

if TYPE_CHECKING:
    from rich.console import Console


def run(
    vault: Vault,
    sql: str,
    format: Format = "table",
    *,
    out: IO[str] | None = None,
    console: Console | None = None,
    limit: int = 100,
) -> int:
    """Answer one reading statement of somebody untrusted on `out` (default: standard output).

    `limit` bounds the rows of a table; csv and json have all. Returns the number of rows written. Raises UsageError,
    in one line, for whatever is wrong with the statement, ArchiveError when files cannot be read.
    """
    from depthvault.query import statement

    return statement.run(vault.catalog, sql, format, out=out, console=console, limit=limit)


__all__ = ["Event", "Follow", "Format", "Gap", "Moment", "Notice", "Stream", "Vault", "open_vault", "run"]
