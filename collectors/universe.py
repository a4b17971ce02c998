"""Which symbols are recorded: a list, the top N by volume, or all; sharded by a stable hash. The choice is pure."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from depthvault.config import ExchangeConfig
from depthvault.errors import UsageError
from depthvault.exchanges.base import Instrument

BUSY_SYMBOLS = 10
"""How many of the most active symbols are expected never to be silent."""


@dataclass(frozen=True, slots=True)
class Shard:
    """This process records the symbols whose hash falls on `index` of `count`."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """The shard that `0/2` says; without text there is one. Raises UsageError."""
        if text is None:
            return cls()
        index, slash, count = text.partition("/")
        if not (slash and index.isdigit() and count.isdigit() and int(index) < int(count)):
            raise UsageError(f"not a shard: {text!r} (write 0/2 and 1/2 for two processes)")
        return cls(int(index), int(count))

    def holds(self, symbol: str) -> bool:
        """Whether `symbol` belongs here: the same on every host and in every version of Python."""
        return zlib.crc32(symbol.encode()) % self.count == self.index

    def writer(self, instance: str) -> str:
        """The writer's name: `a`, or `a.0-of-2`."""
        return instance if self.count == 1 else f"{instance}.{self.index}-of-{self.count}"


@dataclass(frozen=True, slots=True)
class Universe:
    """The chosen instruments, the most active first, and wanted symbols that are not listed."""

    instruments: tuple[Instrument, ...]
    missing: tuple[str, ...] = ()

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(one.symbol for one in self.instruments)


def choose(
    config: ExchangeConfig,
    listed: Sequence[Instrument],
    volumes: Mapping[str, float],
    shard: Shard,
    current: Collection[str] = (),
) -> Universe:
    """The instruments to record out of `listed`.

    For `top:N`, a symbol of `current` keeps its place until it falls below rank N + N/5: ranks change all day, and
    each change of symbols would cost a book.
    """
    by_symbol = {one.symbol: one for one in listed}
    named = config.symbol_list
    if named is not None:
        found = [by_symbol[symbol] for symbol in dict.fromkeys(named) if symbol in by_symbol]
        missing = tuple(symbol for symbol in dict.fromkeys(named) if symbol not in by_symbol and shard.holds(symbol))
    else:
        missing = ()
        found = [one for one in listed if one.trading and (config.quote is None or one.quote == config.quote)]
    found.sort(key=lambda one: (-volumes.get(one.symbol, 0.0), one.symbol))
    if isinstance(config.symbols, str) and config.symbols.startswith("top:"):
        count = int(config.symbols.removeprefix("top:"))
        kept = [one for one in found[: count + max(1, count // 5)] if one.symbol in current][:count]
        names = {one.symbol for one in kept}
        new = [one for one in found if one.symbol not in names][: count - len(kept)]
        names.update(one.symbol for one in new)
        found = [one for one in found if one.symbol in names]
    return Universe(tuple(one for one in found if shard.holds(one.symbol)), missing)
