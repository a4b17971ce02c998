"""The configuration, as this process found it."""

from __future__ import annotations

from functools import cache

from depthvault.config import Config, load_config


@cache
def config() -> Config:
    """The configuration as the DAG processor or the task's process found it."""
    return load_config()
