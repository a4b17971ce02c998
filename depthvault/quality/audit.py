"""Is the book right, not only free of gaps? Replay from one snapshot to the next and compare level by level. Pure.

A REST snapshot shows the best N levels a side. Inside the price range that both snapshots cover, the book replayed
from the first must be the second. The second's id often lies inside an event: of the levels that this event touches
nobody can say which of its changes the snapshot already has, so they are `undecidable`; all others must match.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from depthvault.book.events import Chain, Floats, Levels, Snapshot, state_hash
from depthvault.book.kernel import ASK, BID, Kernel

MOST_EVIDENCE = 20
"""Wrong levels that are told of one comparison; all are counted."""


@dataclass(slots=True)
class Audited:
    """One comparison. Prices bound the compared range (None: the whole side). `wrong` is the evidence: side, price,
    replayed size, snapshot's size (0: has no such level)."""

    from_update_id: int
    to_update_id: int
    diffs_applied: int
    gap_crossed: bool
    bid_low: float | None
    ask_high: float | None
    matched: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    undecidable: int = 0
    state_hash: str = ""
    wrong: list[tuple[str, float, float, float]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing contradicts the replayed book."""
        return not (self.missing or self.extra or self.different)


def audit(
    snapshots: Sequence[Snapshot], chain: Chain, bid: Levels, ask: Levels, after: int | None = None
) -> Iterator[Audited]:
    """Compare each snapshot with the book replayed from the one before.

    snapshots: by update id. chain, bid, ask: the symbol's diffs in chain order, without in-band snapshots. A snapshot
    is judged when the diffs reach its id; those up to `after` were judged in the period before and only serve as seeds.
    """
    if not chain.final.size:
        return
    reach = int(chain.final.max())
    kernel = Kernel()
    for seed, target in pairwise(snapshots):
        if target.update_id > reach or (after is not None and target.update_id <= after):
            continue
        yield _compare(kernel, seed, target, chain, bid, ask)


def _compare(kernel: Kernel, seed: Snapshot, target: Snapshot, chain: Chain, bid: Levels, ask: Levels) -> Audited:
    first = int(np.searchsorted(chain.final, seed.update_id, "right"))
    last = int(np.searchsorted(chain.final, target.update_id, "right"))
    result = Audited(
        seed.update_id, target.update_id, max(0, last - first), _is_broken(seed, target, chain, first, last),
        _inner(seed.bid_low, target.bid_low, max), _inner(seed.ask_high, target.ask_high, min),
    )  # fmt: skip
    if result.gap_crossed:
        return result
    straddling = last
    while straddling < chain.first.size and chain.first[straddling] <= target.update_id:
        straddling += 1
    kernel.clear()
    kernel.apply(*seed.levels(), 0, 1)
    kernel.apply(bid, ask, first, last)
    compared: list[tuple[Floats, Floats]] = []
    for name, sign, levels, prices, sizes, bound in (
        ("bid", BID, bid, target.bid_prices, target.bid_sizes, result.bid_low),
        ("ask", ASK, ask, target.ask_prices, target.ask_sizes, result.ask_high),
    ):
        touched = np.unique(levels.prices[levels.offsets[last] : levels.offsets[straddling]])
        compared.append(_compare_side(result, name, sign, kernel.side(sign), (prices, sizes), touched, bound))
    result.state_hash = state_hash(*compared[0], *compared[1])
    return result


def _inner(left: float | None, right: float | None, better: Callable[[float, float], float]) -> float | None:
    if left is None or right is None:
        return right if left is None else left
    return better(left, right)


def _is_broken(seed: Snapshot, target: Snapshot, chain: Chain, first: int, last: int) -> bool:
    """Whether an event is missing between the snapshots.

    The event after `last` proves that none is at the end, unless one ends with the very id of the snapshot: then a gap
    behind it is none between the two.
    """
    ends = last > first and int(chain.final[last - 1]) == target.update_id
    stop = last if ends else min(last + 1, chain.final.size)
    if stop <= first:
        return False
    final = np.maximum.accumulate(np.concatenate(([seed.update_id], chain.final[first : stop - 1])))
    epochs = chain.epoch[first:stop]
    return bool((chain.prev[first:stop] > final).any() or (epochs != epochs[0]).any())


def _compare_side(
    result: Audited, name: str, sign: float, replayed: tuple[Floats, Floats], shown: tuple[Floats, Floats],
    touched: Floats, bound: float | None,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Add one side to `result`; returns the replayed levels that were compared."""

    def inside(prices: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return np.ones(prices.size, np.bool_) if bound is None else sign * prices <= sign * bound

    result.undecidable += int(inside(touched).sum())
    ours, theirs = (
        (prices[keep], sizes[keep])
        for prices, sizes in (replayed, shown)
        for keep in [inside(prices) & ~np.isin(prices, touched)]
    )
    _, left, right = np.intersect1d(ours[0], theirs[0], assume_unique=True, return_indices=True)
    same = ours[1][left] == theirs[1][right]
    result.matched += int(same.sum())
    result.different += int((~same).sum())
    extra = np.setdiff1d(np.arange(ours[0].size), left)
    missing = np.setdiff1d(np.arange(theirs[0].size), right)
    result.extra += extra.size
    result.missing += missing.size
    wrong = [
        (float(ours[0][i]), float(ours[1][i]), float(theirs[1][j]))
        for i, j in zip(left[~same], right[~same], strict=True)
    ]
    wrong += [(float(ours[0][i]), float(ours[1][i]), 0.0) for i in extra]
    wrong += [(float(theirs[0][j]), 0.0, float(theirs[1][j])) for j in missing]
    result.wrong += [(name, *level) for level in sorted(wrong)][: MOST_EVIDENCE - len(result.wrong)]
    return ours
