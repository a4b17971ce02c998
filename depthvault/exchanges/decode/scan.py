"""The compiled scanner as a `Scanner`: bodies in, Arrow columns out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from depthvault.exchanges.decode.arrays import Doubles, Integers, joined, kernels, optional_times, strings
from depthvault.exchanges.decode.books import BOOK_SCHEMA, Scanned
from depthvault.exchanges.decode.values import survives
from depthvault.schemas import LEVELS

_SHORTEST_LEVEL = 10  # `["1","1"],`
_SLOW_TEXTS = 4096  # long number texts in a run of frames; where there are more, the reference takes over


def correct_slow(buffer: npt.NDArray[np.uint8], arrays: Sequence[Doubles], slow: Integers) -> int:
    """Puts `float(text)` where the kernel found more digits than it trusts itself with; how many are inexact."""
    inexact = 0
    for array, index, start, end in slow.tolist():
        text = buffer[start:end].tobytes().decode("ascii")
        value = float(text)
        arrays[array][index] = value
        inexact += not survives(text, value)
    return inexact


def level_lists(counts: Integers, prices: Doubles, sizes: Doubles) -> tuple[pa.Array, pa.Array]:
    """Prices and sizes of one side as lists that share their offsets."""
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    shared = pa.array(offsets)
    return (
        pa.ListArray.from_arrays(shared, pa.array(prices), type=LEVELS),
        pa.ListArray.from_arrays(shared, pa.array(sizes), type=LEVELS),
    )


@dataclass(frozen=True, slots=True)
class BinanceScanner:
    """Book frames of one Binance shape.

    required, optional: the fields, by the venue's letters. is_snapshot: what the rows say. symbol_of: the symbol of a
    stream name or request line, where the frame has none; bodies of request lines have no envelope.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    is_snapshot: bool = False
    enveloped: bool = True
    symbol_of: Callable[[str], str] | None = None

    def __call__(self, streams: Sequence[str], bodies: Sequence[bytes]) -> Scanned:
        module = kernels()
        if module is None or not bodies:
            return Scanned(BOOK_SCHEMA.empty_table(), np.empty(0, np.int64), 0)
        work = _Work(bodies)
        bits = _bits(module)
        required = sum(bits[name] for name in self.required)
        allowed = required | sum(bits[name] for name in self.optional)
        spelled = "lastUpdateId" in self.required
        read = module.binance(
            work.buffer,
            work.starts,
            self.enveloped,
            spelled,
            required,
            allowed,
            work.ids,
            work.spans,
            work.taken,
            work.bids,
            work.asks,
            work.slow,
        )
        where, ids, spans, sides, inexact = work.result(*read)
        if self.symbol_of is None:
            symbols = strings(work.buffer, spans[:, module.SYMBOL_START].copy(), spans[:, module.SYMBOL_END].copy())
        else:
            symbols = pa.array([self.symbol_of(streams[position]) for position in where.tolist()], pa.string())
        books = pa.Table.from_arrays(
            [
                optional_times(ids[:, module.EVENT].copy()),
                symbols,
                optional_times(ids[:, module.TRANSACTION].copy()),
                pa.array(ids[:, module.FIRST].copy()),
                pa.array(ids[:, module.FINAL].copy()),
                pa.array(ids[:, module.PREVIOUS].copy()) if "pu" in self.required else pa.nulls(len(where), pa.int64()),
                pa.array(np.full(len(where), self.is_snapshot)),
                *level_lists(spans[:, module.BIDS], sides[0], sides[1]),
                *level_lists(spans[:, module.ASKS], sides[2], sides[3]),
            ],
            schema=BOOK_SCHEMA,
        )
        return Scanned(books, where, inexact)


@dataclass(frozen=True, slots=True)
class LighterScanner:
    """Lighter's `order_book` frames; `symbols` is the venue's market number to symbol."""

    symbols: Mapping[int, str]

    def __call__(self, streams: Sequence[str], bodies: Sequence[bytes]) -> Scanned:
        module = kernels()
        if module is None or not bodies:
            return Scanned(BOOK_SCHEMA.empty_table(), np.empty(0, np.int64), 0)
        work = _Work(bodies)
        read = module.lighter(
            work.buffer, work.starts, work.ids, work.spans, work.taken, work.bids, work.asks, work.slow
        )
        if not all(market in self.symbols for market in np.unique(work.spans[work.taken, module.MARKET]).tolist()):
            # A market that the catalogue does not list: the reference says which frames.
            return Scanned(BOOK_SCHEMA.empty_table(), np.empty(0, np.int64), 0)
        where, ids, spans, sides, inexact = work.result(*read)
        symbols = pa.array([self.symbols[market] for market in spans[:, module.MARKET].tolist()], pa.string())
        whole = spans[:, module.SNAPSHOT] != 0
        final = pa.array(ids[:, module.FINAL].copy())
        books = pa.Table.from_arrays(
            [
                optional_times(ids[:, module.EVENT].copy()),
                symbols,
                optional_times(ids[:, module.TRANSACTION].copy()),
                final,
                final,
                pa.array(ids[:, module.PREVIOUS].copy(), mask=whole),
                pa.array(whole),
                *level_lists(spans[:, module.BIDS], sides[0], sides[1]),
                *level_lists(spans[:, module.ASKS], sides[2], sides[3]),
            ],
            schema=BOOK_SCHEMA,
        )
        return Scanned(books, where, inexact)


class _Work:
    """The arrays that a kernel fills for a run of bodies."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self.buffer, self.starts = joined(bodies)
        count, most = len(bodies), len(self.buffer) // _SHORTEST_LEVEL + 1
        self.ids = np.zeros((count, 5), np.int64)
        self.spans = np.zeros((count, 4), np.int64)
        self.taken = np.zeros(count, np.bool_)
        self.bids, self.asks = np.empty((2, most)), np.empty((2, most))
        self.slow = np.empty((_SLOW_TEXTS, 4), np.int64)

    def result(
        self, bid_count: int, ask_count: int, slow_count: int
    ) -> tuple[Integers, Integers, Integers, list[Doubles], int]:
        """The frames taken, their ids and spans, the four arrays of numbers, and how many of these are inexact."""
        bids, asks = self.bids[:, :bid_count], self.asks[:, :ask_count]
        sides = [bids[0], bids[1], asks[0], asks[1]]
        inexact = correct_slow(self.buffer, sides, self.slow[:slow_count])
        where = np.flatnonzero(self.taken)
        return where, self.ids[where], self.spans[where], sides, inexact


def _bits(module: ModuleType) -> dict[str, int]:
    return {
        "E": module.HAS_EVENT,
        "T": module.HAS_TRANSACTION,
        "U": module.HAS_FIRST,
        "u": module.HAS_FINAL,
        "lastUpdateId": module.HAS_FINAL,
        "pu": module.HAS_PREVIOUS,
        "e": module.HAS_KIND,
        "s": module.HAS_SYMBOL,
        "b": module.HAS_BIDS,
        "a": module.HAS_ASKS,
        "ps": module.HAS_PAIR,
        "st": module.HAS_TYPE,
    }
