"""Depthvault: records crypto order books and keeps an archive that can be proved complete.

import depthvault

vault = depthvault.open("data")  # or "s3://bucket/prefix"
vault.sql("SELECT symbol, count(*) FROM trade GROUP BY symbol").df()
vault.book("binance_futures", "BTCUSDT", at="2026-11-20T04:00")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from depthvault.config import Config, Secrets
    from depthvault.query.vault import Vault

__version__ = "0.1.0"
__all__ = ["__version__", "open"]


def open(target: str | Path | None = None, *, config: Config | None = None, secrets: Secrets | None = None) -> Vault:
    """The archive at `target`: a data directory (default: the configured one), or `s3://bucket/prefix`.

    Raises UsageError when there is no such directory, ConfigError when a bucket's keys are missing.
    """
    from depthvault.query.vault import open_vault  # DuckDB and Arrow are loaded by those who ask for data

    return open_vault(target, config=config, secrets=secrets)
