"""Which symbols get their REST snapshot in which minute, when the weight does not suffice for all of them. Pure.

The depth asked for is never lowered: beyond the budget symbols take turns, and the interval between two snapshots of
a symbol is published, so that coverage is judged against what was promised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from depthvault.exchanges.base import Exchange, Seed

MINUTE = timedelta(minutes=1)

SNAPSHOT_SHARE = 0.75
"""Share of our own weight (`weight_cap` of the venue's limit) that cadenced snapshots may use: resyncs come first."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """`turns` minutes make a round, in which each of `symbols` has its snapshot once."""

    symbols: tuple[str, ...]
    turns: int

    @classmethod
    def of(cls, symbols: Sequence[str], weight: int, budget: float, cadence: timedelta) -> Rotation:
        """The shortest round of at least `cadence` (whole minutes) that stays within `budget` a minute.

        weight: of one snapshot. The same symbols give the same rounds, whatever their order.
        """
        a_minute = max(1, int(budget // weight))
        needed = -(-len(symbols) // a_minute)
        return cls(tuple(sorted(symbols)), max(1, needed, cadence // MINUTE))

    def due(self, minute: int) -> tuple[str, ...]:
        """The symbols of `minute` (minutes since the epoch): each symbol is due in one minute of every round."""
        turn = minute % self.turns
        return tuple(symbol for place, symbol in enumerate(self.symbols) if place % self.turns == turn)

    @property
    def cadence(self) -> timedelta:
        """The published interval between two snapshots of a symbol."""
        return MINUTE * self.turns


def snapshot_rotation(exchange: Exchange, symbols: Sequence[str]) -> Rotation:
    """The rotation of `symbols` at the configured limit and cadence."""
    config = exchange.config
    request = exchange.snapshot_request(symbols[0] if symbols else "BTCUSDT", config.snapshot_limit)
    budget = exchange.weight_limit * config.weight_cap * SNAPSHOT_SHARE
    return Rotation.of(symbols, request.weight, budget, config.snapshot_cadence)


def published_cadence(exchange: Exchange, symbols: int) -> timedelta:
    """The interval at which each of `symbols` symbols is promised a snapshot."""
    if exchange.seed is Seed.IN_BAND:  # probed: they cost no REST weight
        return exchange.config.snapshot_cadence
    return snapshot_rotation(exchange, [""] * max(1, symbols)).cadence
