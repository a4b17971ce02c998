"""Which symbols are asked for: those that the collectors record, else what the configuration says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import msgspec

from depthvault.clock import Clock, datetime_from_ns
from depthvault.config import ExchangeConfig
from depthvault.durable import write_atomic
from depthvault.exchanges.base import Exchange, Instrument
from depthvault.layout import Layout
from depthvault.rest.client import RestClient
from depthvault.rest.weight import Priority

_FRESH = timedelta(minutes=15)
"""A collector that lives looks at the listings every few minutes and writes what it records."""


def folder(layout: Layout) -> Path:
    """Where collectors (`<exchange>-<writer>.json`) and polls (`<exchange>.json`) keep the symbols they settled on."""
    return layout.run / "universe"


def recorded_symbols(layout: Layout, exchange: str, clock: Clock) -> tuple[str, ...]:
    """What the collectors of `exchange` said they record, lately; empty when none did."""
    symbols: dict[str, None] = {}
    for path in sorted(folder(layout).glob(f"{exchange}-*.json")):
        if _age(path, clock) <= 4 * _FRESH:
            symbols |= dict.fromkeys(_read(path))
    return tuple(symbols)


async def symbols_of(layout: Layout, exchange: Exchange, client: RestClient, clock: Clock) -> tuple[str, ...]:
    """The symbols to ask for, most active first where the venue gives volumes.

    A named list needs no question. Else the collectors' choice, else the catalogue and volumes of the venue, asked
    for at most every quarter of an hour.
    """
    named = exchange.config.symbol_list
    if named is not None:
        return tuple(dict.fromkeys(named))
    if recorded := recorded_symbols(layout, exchange.name, clock):
        return recorded
    path = folder(layout) / f"{exchange.name}.json"
    if path.exists() and _age(path, clock) <= _FRESH:
        return _read(path)
    catalogue = await client.get(exchange.catalogue_request(), Priority.CATALOGUE)
    volumes: dict[str, float] = {}
    if (request := exchange.volume_request()) is not None:
        volumes = exchange.parse_volumes((await client.get(request, Priority.CATALOGUE)).body)
    chosen = choose(exchange.config, exchange.parse_catalogue(catalogue.body), volumes)
    write_atomic(path, json.dumps({"symbols": chosen}, ensure_ascii=False).encode() + b"\n")
    return tuple(chosen)


def choose(config: ExchangeConfig, listed: Sequence[Instrument], volumes: dict[str, float]) -> list[str]:
    """The symbols that `top:N` or `all` means: trading, in the configured quote, by falling volume."""
    trading = [one.symbol for one in listed if one.trading and (config.quote is None or one.quote == config.quote)]
    trading.sort(key=lambda symbol: (-volumes.get(symbol, 0.0), symbol))
    assert isinstance(config.symbols, str)
    return trading[: int(config.symbols.removeprefix("top:"))] if config.symbols != "all" else trading


def _age(path: Path, clock: Clock) -> timedelta:
    return datetime_from_ns(clock.wall_ns()) - datetime_from_ns(path.stat().st_mtime_ns)


class _Listed(msgspec.Struct):
    symbols: list[str]


def _read(path: Path) -> tuple[str, ...]:
    try:
        return tuple(msgspec.json.decode(path.read_bytes(), type=_Listed).symbols)
    except (FileNotFoundError, msgspec.MsgspecError):  # gone, or written by another version: not known
        return ()
