# mypy: disable-error-code="untyped-decorator"
"""The compiled book side: sizes on a ladder of ticks, and a table for prices that have no place on it.

Slot `i` of the ladder is the price `sign * (base + i) / scale`, best prices first on both sides. A price lies there
only if that quotient is the very same double, so it is given back bit for bit: a decimal price is the correctly rounded
quotient of two whole numbers, which parsing its text gives as well. Every other price (off the grid, or outside the
ladder, even if better than all on it) lies in a hash table, a stray. Which of the two it is depends on the price alone.

Applying a level is one store of its size. What lives is not counted: each block of 64 slots has a mark that says that
something was written there, each 64 marks another one; the best levels are sought from the first slot that can hold
one, skipping what has no mark, and marks that stand for nothing are taken away on the way. All compiled functions lie
in this module: Numba's cache on disk knows of changes only in the module of a function itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from depthvault.book.events import Flags, Floats, Integers

BID, ASK = -1.0, 1.0
BLOCK = 64
PIECE = 2048
"""How many levels are located at a time: their slots stay in the fastest cache."""
TOLERATED = 32
"""One stray in so many levels costs no credit."""
FREE = -1
RELISTED = 8
USED, LIVE, NEAR, TOP, AT, START, READY, CREDIT, PATIENCE, WAITING = range(10)
THRESHOLD, BOUND = 0, 1
DONE, WAITS = True, False


class Side(NamedTuple):
    """The arrays of one side, as the compiled functions take them.

    sizes: by slot of the ladder, 0 = no level. marks: by block of slots, 0 = all sizes in it are 0. groups: by block of
    marks, 0 = all marks in it are 0. located: slots of the levels `meta[START]` to `meta[READY]` of the events that are
    being applied, -1 = stray. keys: bits of a stray's price, FREE (a NaN) = free place. values: its size by place, 0 =
    gone, place kept. listed: by place, whether it stands in `near`. near: the places of all strays whose `sign` x price
    is at most `limits[THRESHOLD]`, in no order, with vanished ones among them. limits[BOUND]: no stray has a lesser
    `sign` x price. meta: places used, live strays, length of `near`; TOP: no slot before it has a level; AT: levels
    applied; CREDIT: how many strays may yet come before the ladder is to be fitted anew (less than 0: it is due),
    PATIENCE: the most of them; WAITING: how many strays have no room, or no credit.
    sign: BID or ASK. scale: ticks that make one unit of price. base: `sign` x tick of slot 0.
    """

    sizes: Floats
    marks: Any
    groups: Any
    located: Any
    keys: Integers
    values: Floats
    listed: Flags
    near: Integers
    limits: Floats
    meta: Integers
    sign: float
    scale: float
    base: float


def empty_side(sign: float, near: int, *, scale: float = 1.0, base: float = np.inf, slots: int = BLOCK,
               places: int = 64) -> Side:  # fmt: skip
    """A side without levels that lists up to `near` strays; `slots` and `places` are powers of two.

    With the base at infinity every price is a stray.
    """
    blocks = slots // BLOCK
    meta = np.zeros(10, np.int64)
    meta[TOP] = slots
    return Side(
        np.zeros(slots), np.zeros(blocks, np.uint8), np.zeros(max(1, blocks // BLOCK), np.uint8),
        np.empty(PIECE, np.int32), np.full(places, FREE, np.int64), np.zeros(places), np.zeros(places, np.bool_),
        np.zeros(near, np.int64), np.array([np.inf, np.inf]), meta, sign, scale, base,
    )  # fmt: skip


@intrinsic
def _trailing_zeros(_: Any, word: Any) -> Any:
    """How many low bits of a uint64 other than 0 are 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(word), generate


@njit(cache=True, error_model="numpy")
def _locate(located: Any, prices: Any, sign: Any, scale: Any, base: Any, slots: Any) -> Any:
    """Write the slots of prices; returns how many are strays."""
    width = np.float64(slots)
    strays = 0
    for i in range(prices.size):
        price = prices[i]
        tick = np.rint(price * scale)
        slot = sign * tick - base
        placed = (tick / scale == price) & (slot >= 0.0) & (slot < width)
        strays += not placed
        located[i] = np.int32(slot) if placed else np.int32(-1)
    return strays


@njit(cache=True, inline="always")
def _place(keys: Any, bits: Any) -> Any:
    """Where a stray is, or where it would go. Round prices differ in their upper bits alone: these are mixed in."""
    mask = np.uint64(keys.size - 1)
    word = np.uint64(bits)
    place = (((word ^ (word >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while keys[place] != FREE and keys[place] != bits:
        place = (place + np.uint64(1)) & mask
    return place


@njit(cache=True)
def _forget_near(listed: Any, near: Any, limits: Any, meta: Any) -> None:
    for i in range(meta[NEAR]):
        listed[near[i]] = False
    meta[NEAR] = 0
    limits[THRESHOLD] = -np.inf


@njit(cache=True)
def _sweep(values: Any, listed: Any, near: Any, meta: Any) -> None:
    """Drop vanished strays from `near`."""
    kept = 0
    for i in range(meta[NEAR]):
        place = near[i]
        if values[place] == 0.0:
            listed[place] = False
        else:
            near[kept] = place
            kept += 1
    meta[NEAR] = kept


@njit(cache=True)
def set_strays(side: Any, located: Any, bits: Any, prices: Any, new_sizes: Any) -> None:
    """Set those levels whose slot is -1; there must be room."""
    _, _, _, _, keys, values, listed, near, limits, meta, sign, _, _ = side
    for i in range(located.size):
        if located[i] >= 0:
            continue
        size = new_sizes[i]
        place = _place(keys, bits[i])
        if keys[place] == FREE:
            if size == 0.0:
                continue  # removing a level that one does not have is normal
            keys[place] = bits[i]
            meta[USED] += 1
        before = values[place]
        values[place] = size
        if size == 0.0:
            if before != 0.0:
                meta[LIVE] -= 1
            continue
        rank = sign * prices[i]
        limits[BOUND] = min(limits[BOUND], rank)
        if before == 0.0:
            meta[LIVE] += 1
            if rank <= limits[THRESHOLD] and not listed[place]:
                if meta[NEAR] == near.size:
                    _sweep(values, listed, near, meta)
                if meta[NEAR] == near.size:
                    _forget_near(listed, near, limits, meta)
                else:
                    listed[place] = True
                    near[meta[NEAR]] = place
                    meta[NEAR] += 1


@njit(cache=True)
def _alive(sizes: Any, block: Any) -> Any:
    """Which slots of a block hold a level, as the bits of a word."""
    word = np.uint64(0)
    first = np.uint64(block) * np.uint64(BLOCK)
    for i in range(BLOCK):
        word |= np.uint64(sizes[first + np.uint64(i)] != 0.0) << np.uint64(i)
    return word


@njit(cache=True)
def _marked(marks: Any, groups: Any, block: Any) -> Any:
    """The first marked block from `block` on; as many as there are, if none is. Unsigned: see `run`."""
    block, blocks, one = np.uint64(block), np.uint64(marks.size), np.uint64(1)
    while block < blocks:
        group = block >> np.uint64(6)
        end = min((group + one) << np.uint64(6), blocks)
        if groups[group] != 0:
            whole = block & np.uint64(BLOCK - 1) == 0
            while block < end:
                if marks[block] != 0:
                    return np.int64(block)
                block += one
            if whole:
                groups[group] = 0
        block = end
    return np.int64(blocks)


@njit(cache=True)
def _walk(sizes: Any, marks: Any, groups: Any, top: Any, out_slots: Any, out_sizes: Any) -> Any:
    """Write slots and sizes of as many first levels as there is room for; returns how many there are, and where the
    first one is."""
    count, depth = np.uint64(0), np.uint64(out_slots.size)
    block = top // BLOCK
    top = sizes.size
    while count < depth:
        block = _marked(marks, groups, block)
        if block == marks.size:
            break
        alive = _alive(sizes, block)
        first = np.uint64(block) * np.uint64(BLOCK)
        if alive == 0:
            marks[block] = 0
        elif count == 0:
            top = np.int64(first + _trailing_zeros(alive))
        while alive != 0 and count < depth:
            slot = first + _trailing_zeros(alive)
            alive &= alive - np.uint64(1)
            out_slots[count] = np.float64(slot)
            out_sizes[count] = sizes[slot]
            count += np.uint64(1)
        block += 1
    return np.int64(count), top


@njit(cache=True, error_model="numpy")
def levels_on_ladder(side: Any) -> Any:
    """Prices and sizes of all levels on the ladder, best first."""
    count = 0
    block = _marked(side.marks, side.groups, side.meta[TOP] // BLOCK)
    while block < side.marks.size:
        alive = _alive(side.sizes, block)
        while alive != 0:
            alive &= alive - np.uint64(1)
            count += 1
        block = _marked(side.marks, side.groups, block + 1)
    prices, sizes = np.empty(count), np.empty(count)
    _walk(side.sizes, side.marks, side.groups, side.meta[TOP], prices, sizes)
    for i in range(count):
        prices[i] = side.sign * (side.base + prices[i]) / side.scale
    return prices, sizes


@njit(cache=True)
def wipe(side: Any) -> None:
    """Forget all levels; the ladder stays where it lies."""
    block = _marked(side.marks, side.groups, 0)
    while block < side.marks.size:
        side.sizes[block * BLOCK : (block + 1) * BLOCK] = 0.0
        side.marks[block] = 0
        block = _marked(side.marks, side.groups, block + 1)
    side.groups[:] = 0
    side.keys[:] = FREE
    side.values[:] = 0.0
    side.listed[:] = False
    side.limits[:] = np.inf
    side.meta[USED] = side.meta[LIVE] = side.meta[NEAR] = 0
    side.meta[TOP] = side.sizes.size


@njit(cache=True, inline="always")
def _insert(ranked: Any, best: Any, places: Any, count: Any, value: Any, place: Any) -> Any:
    """Put `value` into the ascending `ranked[:count]`, which keeps its best `best`. Returns the new length."""
    if count == best:
        if value >= ranked[count - 1]:
            return count
        count -= 1
    at = count
    while at > 0 and ranked[at - 1] > value:
        ranked[at] = ranked[at - 1]
        places[at] = places[at - 1]
        at -= 1
    ranked[at] = value
    places[at] = place
    return count + 1


@njit(cache=True)
def _list_anew(side: Any, prices: Any, ranked: Any, places: Any) -> None:
    """List the best strays, an eighth of what `near` holds. `prices`: the keys as doubles."""
    values, listed, near, limits, meta = side.values, side.listed, side.near, side.limits, side.meta
    _forget_near(listed, near, limits, meta)
    best = near.size // RELISTED
    count = 0
    for place in range(values.size):
        if values[place] != 0.0:
            count = _insert(ranked, best, places, count, side.sign * prices[place], place)
    for i in range(count):
        near[i] = places[i]
        listed[places[i]] = True
    meta[NEAR] = count
    limits[THRESHOLD] = np.inf if count == meta[LIVE] else ranked[count - 1]


@njit(cache=True)
def _best_strays(side: Any, prices: Any, depth: Any, ranked: Any, places: Any) -> Any:
    """Rank the best `depth` strays: their `sign` x price and places; returns how many there are."""
    values, listed, near, meta = side.values, side.listed, side.near, side.meta
    count = 0
    for attempt in range(2):
        _sweep(values, listed, near, meta)
        count = 0
        for i in range(meta[NEAR]):
            count = _insert(ranked, depth, places, count, side.sign * prices[near[i]], near[i])
        if attempt == 1 or count == min(depth, meta[LIVE]):
            break
        _list_anew(side, prices, ranked, places)
    side.limits[BOUND] = ranked[0] if count > 0 else np.inf
    return count


@njit(cache=True)
def _merge(side: Any, prices: Any, depth: Any, scratch: Any, out_prices: Any, out_sizes: Any, at: Any, on: Any) -> Any:
    """Bring the best strays among the `on` levels that stand at `at`; returns how many there are then."""
    sign = side.sign
    ranked, places = scratch
    strays = _best_strays(side, prices, depth, ranked, places)
    taken, of_strays = 0, 0
    while taken + of_strays < depth and (taken < on or of_strays < strays):
        if of_strays == strays or (taken < on and sign * out_prices[at + taken] < ranked[of_strays]):
            taken += 1
        else:
            of_strays += 1
    count = taken + of_strays
    # From the worst up, so that no level of the ladder is overwritten before it has been moved.
    while of_strays > 0:
        to = at + taken + of_strays - 1
        if taken > 0 and sign * out_prices[at + taken - 1] > ranked[of_strays - 1]:
            taken -= 1
            out_prices[to], out_sizes[to] = out_prices[at + taken], out_sizes[at + taken]
        else:
            of_strays -= 1
            out_prices[to], out_sizes[to] = prices[places[of_strays]], side.values[places[of_strays]]
    return count


@njit(cache=True, error_model="numpy")
def run(side: Any, levels: Any, ends: Any, at: Any, end: Any, depth: Any, scratch: Any, out: Any) -> Any:
    """Apply levels from `meta[AT]` on: up to `ends[at]`, then write the best `depth` levels, and so on; at last up to
    `end`.

    Returns the next of `ends`, and DONE, or WAITS when the side must first be fitted or given room; what is done stays
    done. Arrays are unpacked here, once: handing a side over costs as much as finding its best levels.
    """
    sizes, marks, groups, located, keys, _, _, _, limits, meta, sign, scale, base = side
    bits, prices, new_sizes = levels
    out_prices, out_sizes, offsets = out
    strays_prices = keys.view(np.float64)
    done, start, ready, top = meta[AT], meta[START], meta[READY], meta[TOP]
    while True:
        until = ends[at] if at < ends.size else end
        while done < until:
            if done >= ready:
                last = min(done + PIECE, prices.size)
                strays = _locate(located, prices[done:last], sign, scale, base, sizes.size)
                credit = min(meta[CREDIT] + (last - done) // TOLERATED - strays, meta[PATIENCE])
                if strays > 0 and (credit < 0 or meta[USED] + strays > keys.size * 5 // 8):
                    meta[WAITING], meta[CREDIT] = strays, min(credit, meta[CREDIT])
                    meta[AT], meta[READY], meta[TOP] = done, done, top
                    return at, WAITS
                start, ready = done, last
                meta[CREDIT] = credit
            stop = min(until, ready)
            part, part_sizes = located[done - start : stop - start], new_sizes[done:stop]
            strays = 0
            for i in range(part.size):  # from 0: where an index may be negative, that costs more than the store
                slot = part[i]
                if slot >= 0:
                    place = np.uint32(slot)
                    sizes[place] = part_sizes[i]
                    marks[place >> np.uint32(6)] = 1
                    groups[place >> np.uint32(12)] = 1
                    top = min(top, slot)
                else:
                    strays += 1
            if strays > 0:
                set_strays(side, part, bits[done:stop], prices[done:stop], part_sizes)
            done = stop
        if at == ends.size:
            meta[AT], meta[START], meta[READY], meta[TOP] = done, start, ready, top
            return at, DONE
        here = np.int64(offsets[at])
        best_prices, best_sizes = out_prices[here : here + depth], out_sizes[here : here + depth]
        count, top = _walk(sizes, marks, groups, top, best_prices, best_sizes)
        for i in range(count):
            best_prices[i] = sign * (base + best_prices[i]) / scale
        if meta[LIVE] > 0 and (count < depth or limits[BOUND] < sign * out_prices[here + count - 1]):
            count = _merge(side, strays_prices, depth, scratch, out_prices, out_sizes, here, count)
        offsets[at + 1] = here + count
        at += 1
