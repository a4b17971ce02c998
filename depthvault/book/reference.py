"""The plainest book: one dict a side. Slow and obvious; the compiled kernel is held against it."""

from __future__ import annotations

from collections.abc import Iterable


class ReferenceBook:
    """Prices and sizes as they are told; a size of 0 removes."""

    def __init__(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}

    def apply(self, bids: Iterable[tuple[float, float]], asks: Iterable[tuple[float, float]]) -> None:
        """Set the size at each price."""
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, size in levels:
                if size == 0:
                    side.pop(price, None)
                else:
                    side[price] = size

    def best_bids(self, depth: int | None = None) -> list[tuple[float, float]]:
        """Levels from the highest price down."""
        return sorted(self.bids.items(), reverse=True)[:depth]

    def best_asks(self, depth: int | None = None) -> list[tuple[float, float]]:
        """Levels from the lowest price up."""
        return sorted(self.asks.items())[:depth]
