"""One symbol's rows of several writers become one chain: ordered, each event once, from the best writer. Pure.

The writer with the fewest breaks carries the period (then by name); where it has no row, another fills. A row is
identified by its channel's key. Rows with the same key merge; when their payloads differ the carrier's stands and the
other is reported as a conflict, with both payloads.

Two connections of a venue may cut the same changes into different batches. Then keys differ although the content is
the same: the carrier's events stay, and of the others only those that hold ids which the events before left open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from depthvault.schemas import Channel

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NOT_PAYLOAD = frozenset({"received_time", "instance", "source", "event_time"})
"""Differ between two recordings of the same event: our clock, our names, and the venue's time of sending."""

REFILL = "refill"


@dataclass(frozen=True, slots=True)
class Clash:
    """The same key with another payload: positions of the kept and the other row in the input."""

    kept: int
    other: int


@dataclass(slots=True)
class Stitched:
    """Positions in the input table.

    chosen: the rows of the chain, in its order. duplicates, redundant, unchanged: how many rows were merged, were
    covered by the carrier's differently batched events, or repeat an unchanged state. carriers: writers, best first.
    """

    chosen: Ints
    duplicates: int = 0
    redundant: int = 0
    unchanged: int = 0
    clashes: list[Clash] = field(default_factory=list)
    carriers: list[str] = field(default_factory=list)


def column(table: pa.Table, name: str) -> pa.Array:
    """A column as one array."""
    chunked = table.column(name)
    return chunked.chunk(0) if chunked.num_chunks == 1 else pa.concat_arrays(chunked.chunks or [_none(chunked.type)])


def _none(kind: pa.DataType) -> pa.Array:
    return pa.array([], kind)


def codes(array: pa.Array) -> Ints:
    """Integers that are equal exactly where the values are (null is a value) and, for ints and times, ordered as
    they are. Null comes first."""
    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        if pa.types.is_boolean(kind):
            array = array.cast(pa.int8())
        values: Ints = array.cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy(zero_copy_only=False)
        return values
    if pa.types.is_floating(kind):  # by bits, so that NaN equals NaN and -0.0 is not 0.0
        bits = array.fill_null(0.0).to_numpy(zero_copy_only=False).view(np.int64)
        missing = array.is_null().to_numpy(zero_copy_only=False)
        _, inverse = np.unique(bits, return_inverse=True)
        coded: Ints = np.where(missing, -1, inverse).astype(np.int64)
        return coded
    encoded = array.dictionary_encode()
    rank = pc.rank(encoded.dictionary, tiebreaker="dense") if len(encoded.dictionary) else _none(pa.uint64())
    ranks = rank.to_numpy(zero_copy_only=False).astype(np.int64)
    indices = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    if not len(ranks):
        return np.full(len(array), -1, np.int64)
    ordered: Ints = np.where(indices < 0, -1, ranks[np.maximum(indices, 0)]).astype(np.int64)
    return ordered


def _run_starts(ordered: list[Ints]) -> Bools:
    """Where, in arrays sorted alike, a row differs from the one before."""
    starts = np.zeros(len(ordered[0]), np.bool_)
    if len(starts):
        starts[0] = True
    for values in ordered:
        starts[1:] |= values[1:] != values[:-1]
    return starts


def _differing(table: pa.Table, channel: Channel, left: Ints, right: Ints) -> Bools:
    """For each pair of rows, whether their payloads differ, in the columns that `table` has."""
    result = np.zeros(len(left), np.bool_)
    for spec in channel.columns:
        if (spec.name in NOT_PAYLOAD and spec.name not in channel.key) or spec.name not in table.schema.names:
            continue
        values = column(table, spec.name)
        if pa.types.is_list(values.type):
            result |= _lists_differ(values, left, right)
        else:
            coded = codes(values)
            result |= coded[left] != coded[right]
    return result


def _lists_differ(values: pa.ListArray, left: Ints, right: Ints) -> Bools:
    offsets = values.offsets.to_numpy().astype(np.int64)
    lengths = offsets[1:] - offsets[:-1]
    bits = values.values.to_numpy(zero_copy_only=False).view(np.int64)
    result: Bools = lengths[left] != lengths[right]
    same = np.flatnonzero(~result & (lengths[left] > 0))
    for start in range(0, len(same), 65536):  # bounded memory, whatever the lists' length
        part = same[start : start + 65536]
        size = lengths[left[part]]
        first = np.zeros(len(part), np.int64)
        np.cumsum(size[:-1], out=first[1:])
        step = np.arange(int(size.sum()), dtype=np.int64) - np.repeat(first, size)
        unequal = (
            bits[np.repeat(offsets[left[part]], size) + step] != bits[np.repeat(offsets[right[part]], size) + step]
        )
        result[part] = np.logical_or.reduceat(unequal, first)
    return result


def chain_starts(table: pa.Table) -> tuple[Ints, Ints]:
    """For book events: the id that each one starts after, and its final id. A snapshot starts after its own id.

    `prev_final_update_id` where the venue has it (Binance futures `pu`, Lighter `begin_nonce`), else the first id
    less one (Binance spot: `U <= previous u + 1`).
    """
    final = codes(column(table, "final_update_id"))
    first = codes(column(table, "first_update_id"))
    previous = column(table, "prev_final_update_id")
    start = np.where(previous.is_null().to_numpy(zero_copy_only=False), first - 1, codes(previous))
    snapshot = column(table, "is_snapshot").to_numpy(zero_copy_only=False)
    return np.where(snapshot, final, start), final


def stitch(table: pa.Table, channel: Channel, breaks: Mapping[str, int], archived: int = 0) -> Stitched:
    """The chain of one symbol's rows; `table` holds each writer's rows in the order received.

    `breaks`: how often each writer's own chain broke; the fewest carries the period. Rows with source `refill` fill
    only what no stream has. archived: how many rows at the beginning stand in the archive and stay there: whatever else
    there is merges into them.
    """
    count = table.num_rows
    writers = column(table, "instance").dictionary_encode()
    names = writers.dictionary.to_pylist()
    ranked = sorted(names, key=lambda name: (breaks.get(name, 0), name))
    if count == 0:
        return Stitched(np.zeros(0, np.int64))
    position = {name: place for place, name in enumerate(ranked)}
    rank = np.array([position[name] for name in names], np.int64)[writers.indices.to_numpy(zero_copy_only=False)]
    refilled = pc.equal(column(table, "source"), REFILL).to_numpy(zero_copy_only=False)
    rank = rank + refilled.astype(np.int64) * len(names)
    rank[:archived] = -1

    if channel.name == "instrument":
        return _changes(table, channel, ranked)
    keys = [codes(column(table, name)) for name in channel.key]
    nameless = _without_key(table, channel)
    sequence = np.arange(count, dtype=np.int64)
    # Rows without any key value are never merged: their position makes them different.
    keys.append(np.where(nameless, sequence, -1))
    order = np.lexsort((sequence, rank, *reversed(keys)))
    starts = _run_starts([key[order] for key in keys])
    kept = order[starts]
    group = np.cumsum(starts) - 1
    others = order[~starts]
    result = Stitched(kept, carriers=ranked)
    if len(others):
        mates = kept[group[~starts]]
        clash = _differing(table, channel, mates, others)
        if channel.name == "depth_diff":
            # Another batch that ends at the same id is the same change cut differently, not another payload.
            start, final = chain_starts(table)
            recut = clash & (start[mates] != start[others])
            result.redundant += int(recut.sum())
            clash &= ~recut
            # Where the carrier has a hole right before its event, the wider batch closes it.
            wider = recut & (start[others] < start[mates]) & ~np.isin(start[mates], final[kept])
            kept[group[~starts][wider]] = others[wider]
        result.clashes = [Clash(int(a), int(b)) for a, b in zip(mates[clash], others[clash], strict=True)]
        result.duplicates = len(others) - len(result.clashes) - result.redundant
    if channel.name == "depth_diff":
        kept, covered = _without_covered(table, kept, rank)
        result.redundant += covered
    result.chosen = kept[chain_order(table, channel, kept)]
    return result


def chain_order(table: pa.Table, channel: Channel, rows: Ints | None = None) -> Ints:
    """The order of `rows` (default: all) in a symbol's chain: the channel's order, then receipt."""
    rows = np.arange(table.num_rows, dtype=np.int64) if rows is None else rows
    by = [codes(column(table, name))[rows] for name in channel.order]
    if channel.name == "depth_diff":
        by.append(codes(column(table, "is_snapshot"))[rows])
    received = codes(column(table, "received_time"))[rows]
    return np.lexsort((rows, received, *reversed(by)))


def _without_key(table: pa.Table, channel: Channel) -> Bools:
    missing = np.ones(table.num_rows, np.bool_)
    for name in channel.key:
        missing &= column(table, name).is_null().to_numpy(zero_copy_only=False)
    return missing


def _without_covered(table: pa.Table, kept: Ints, rank: Ints) -> tuple[Ints, int]:
    """Drop events of lower rank whose ids lie wholly inside the chain of better ones. Returns what is left."""
    start, final = chain_starts(table)
    epoch = codes(column(table, "epoch"))
    snapshot = column(table, "is_snapshot").to_numpy(zero_copy_only=False)
    events = kept[~snapshot[kept]]
    events = events[np.lexsort((start[events], final[events], epoch[events]))]
    same = epoch[events][1:] == epoch[events][:-1]
    if not np.any(same & (start[events][1:] < final[events][:-1])):
        return kept, 0  # nothing overlaps: everybody saw the same batches
    dropped: set[int] = set()
    for number in np.unique(epoch[events]):
        spans: list[tuple[int, int]] = []  # disjoint, ascending: (start, final] that the better events cover
        of_epoch = events[epoch[events] == number]
        for level in np.unique(rank[of_epoch]):
            fresh = []
            for row in of_epoch[rank[of_epoch] == level]:
                if _covered(spans, int(start[row]), int(final[row])):
                    dropped.add(int(row))
                else:
                    fresh.append((int(start[row]), int(final[row])))
            spans = _merged(spans + fresh)
    return np.array([row for row in kept if int(row) not in dropped], np.int64), len(dropped)


def _covered(spans: list[tuple[int, int]], start: int, final: int) -> bool:
    low, high = 0, len(spans)
    while low < high:  # the last span that starts at or before `start`
        middle = (low + high) // 2
        if spans[middle][0] <= start:
            low = middle + 1
        else:
            high = middle
    return low > 0 and spans[low - 1][1] >= final


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    result: list[tuple[int, int]] = []
    for start, final in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], final))
        else:
            result.append((start, final))
    return result


def _changes(table: pa.Table, channel: Channel, ranked: list[str]) -> Stitched:
    """`instrument` is a state: of all writers' rows in the order received, those that differ from the one before."""
    received = codes(column(table, "received_time"))
    order = np.lexsort((np.arange(table.num_rows), received))
    starts = _run_starts([codes(column(table, name))[order] for name in channel.key])
    return Stitched(order[starts], unchanged=int((~starts).sum()), carriers=ranked)
