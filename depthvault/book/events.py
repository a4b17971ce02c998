"""Book events as flat arrays, where a chain of them breaks, and what a snapshot vouches for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Levels(NamedTuple):
    """One side of many events: event `i` sets the sizes at prices `offsets[i]` to `offsets[i + 1]`; 0 removes."""

    offsets: Integers
    prices: Floats
    sizes: Floats


class Chain(NamedTuple):
    """The ids of many events in chain order. `received` is µs since the epoch.

    prev: the id of the event before as the venue says, or `first - 1` where it names none.
    """

    received: Integers
    first: Integers
    final: Integers
    prev: Integers
    epoch: Integers
    is_snapshot: Flags


def _integers(column: pa.Array | pa.ChunkedArray) -> Integers:
    values: Integers = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    return values.astype(np.int64, copy=False)


def chain_of(rows: pa.RecordBatch | pa.Table) -> Chain:
    """The ids of `depth_diff` rows."""
    final = rows.column("final_update_id")
    # Imported rows may tell no beginning: then nothing shows that they follow the event before.
    first = pc.coalesce(rows.column("first_update_id"), final)
    prev = pc.coalesce(rows.column("prev_final_update_id"), pc.subtract(rows.column("first_update_id"), 1), final)
    return Chain(
        _integers(rows.column("received_time").cast(pa.int64())),
        _integers(first),
        _integers(final),
        _integers(prev),
        _integers(rows.column("epoch")),
        np.asarray(rows.column("is_snapshot").to_numpy(zero_copy_only=False), dtype=np.bool_),
    )


def levels_of(rows: pa.RecordBatch, side: str) -> Levels:
    """The `bid` or `ask` levels of rows, without copying prices and sizes."""
    prices, sizes = rows.column(f"{side}_prices"), rows.column(f"{side}_sizes")
    offsets = prices.offsets.to_numpy().astype(np.int64)
    size_offsets = sizes.offsets.to_numpy()
    low, high = int(offsets[0]), int(offsets[-1])
    size_low = int(size_offsets[0])
    return Levels(
        offsets - low,
        prices.values.slice(low, high - low).to_numpy(),
        sizes.values.slice(size_low, int(size_offsets[-1]) - size_low).to_numpy(),
    )


def kept_rows(rows: pa.RecordBatch, wanted: Flags) -> pa.RecordBatch:
    """The rows where `wanted`; not copied when they lie side by side, as those of a span of a chain do."""
    if wanted.all():
        return rows
    places = np.flatnonzero(wanted)
    if places.size == 0:
        return rows.slice(0, 0)
    first, last = int(places[0]), int(places[-1]) + 1
    return rows.slice(first, last - first) if places.size == last - first else rows.filter(pa.array(wanted))


def breaks(chain: Chain, last_id: int) -> Integers:
    """Rows before which events are missing, for a book that stands at `last_id` before the first row.

    Something is missing when an event begins after the end of the one before, or when the venue began its ids anew.
    An event that reaches back over the one before is none: nothing lies between them.
    """
    if chain.final.size == 0:
        return np.empty(0, np.int64)
    before = np.concatenate(([last_id], np.maximum.accumulate(chain.final)[:-1]))
    anew = np.concatenate(([False], chain.epoch[1:] != chain.epoch[:-1]))
    return np.flatnonzero((chain.prev > before) | anew)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole book that a replay starts from.

    channel: `depth_snapshot` (REST) or `depth_diff` (sent by the venue in the stream). limit: levels a side that were
    asked for; None: the book is complete. received, requested: µs since the epoch.
    """

    channel: str
    update_id: int
    received: int
    limit: int | None
    bid_prices: Floats
    bid_sizes: Floats
    ask_prices: Floats
    ask_sizes: Floats

    @property
    def bid_low(self) -> float | None:
        """The lowest bid price down to which the book is complete; None: all the way."""
        full = self.limit is not None and self.bid_prices.size >= self.limit
        return float(self.bid_prices.min()) if full else None

    @property
    def ask_high(self) -> float | None:
        """The highest ask price up to which the book is complete; None: all the way."""
        full = self.limit is not None and self.ask_prices.size >= self.limit
        return float(self.ask_prices.max()) if full else None

    def levels(self) -> tuple[Levels, Levels]:
        """Bids and asks as one event."""
        return (
            Levels(np.array([0, self.bid_prices.size]), self.bid_prices, self.bid_sizes),
            Levels(np.array([0, self.ask_prices.size]), self.ask_prices, self.ask_sizes),
        )


def state_hash(bid_prices: Floats, bid_sizes: Floats, ask_prices: Floats, ask_sizes: Floats) -> str:
    """SHA-256 of a book: the number of bids, then each bid's price and size from the best down, then asks likewise;
    numbers as little-endian int64 and doubles."""
    digest = hashlib.sha256()
    for prices, sizes, sign in ((bid_prices, bid_sizes, -1.0), (ask_prices, ask_sizes, 1.0)):
        order = np.argsort(sign * prices)
        digest.update(np.int64(prices.size).astype("<i8").tobytes())
        digest.update(np.column_stack((prices[order], sizes[order])).astype("<f8").tobytes())
    return digest.hexdigest()
