"""The venues by name. Adding one means a module here and its twin in the simulator, and touching nothing else."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module

from depthvault.config import Config, ExchangeConfig
from depthvault.errors import ConfigError
from depthvault.exchanges.base import Exchange
from depthvault.schemas import CHANNELS, Channel

_MODULES = {
    "binance_spot": "BinanceSpot",
    "binance_futures": "BinanceFutures",
    "lighter": "Lighter",
}


def _class(name: str) -> type[Exchange]:
    if name not in _MODULES:
        raise ConfigError(f"no exchange {name!r}; there are {', '.join(_MODULES)}")
    cls: type[Exchange] = getattr(import_module(f"depthvault.exchanges.{name}"), _MODULES[name])
    return cls


def exchange(name: str, config: ExchangeConfig) -> Exchange:
    """The venue `name` with its configuration."""
    return _class(name)(config)


@cache
def channel_of(exchange: str, name: str) -> Channel:
    """The channel `name` of the data dictionary with what proves it complete at the venue `exchange`."""
    proofs = _class(exchange).proofs
    return replace(CHANNELS[name], continuity=proofs[name]) if name in proofs else CHANNELS[name]


def enabled_exchanges(config: Config) -> dict[str, Exchange]:
    """The enabled venues by name."""
    return {name: exchange(name, settings) for name, settings in config.exchanges.enabled().items()}
