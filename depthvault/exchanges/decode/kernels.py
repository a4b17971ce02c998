"""The compiled scanner: many book frames at once, from bytes to numbers, without a Python object a level.

It takes only what it knows to the letter (compact JSON, known keys, plain digits, ASCII); of any other frame it says
"not mine" and the reference reads that one. So it can be simple, and what it takes equals the reference bit by bit.

A text of up to 15 significant digits becomes mantissa / 10^k with k <= 22: both are exact doubles, so the division
rounds once and correctly (Clinger 1990), as `float(text)` does. Longer texts are listed for `float(text)`.

Numba keeps the machine code in `__pycache__`, or in the user's cache folder where that cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(function: F) -> F:
    try:
        compiled: F = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # nowhere to keep the machine code: compile again in each process
        compiled = njit(nogil=True)(function)
    return compiled


STREAM_KEY = np.frombuffer(b'{"stream":"', np.uint8)
DATA_KEY = np.frombuffer(b'","data":', np.uint8)
DEPTH_UPDATE = np.frombuffer(b"depthUpdate", np.uint8)
BIDS_KEY = np.frombuffer(b"bids", np.uint8)
ASKS_KEY = np.frombuffer(b"asks", np.uint8)
LAST_UPDATE_ID = np.frombuffer(b"lastUpdateId", np.uint8)

POWERS = np.array([10.0**k for k in range(23)])
EXACT_BELOW = 10**15
MAX_DIGITS = 18

QUOTE, COMMA, COLON, POINT, ZERO, AT = 34, 44, 58, 46, 48, 64
OPEN, CLOSE, OPEN_LIST, CLOSE_LIST, BACKSLASH = 123, 125, 91, 93, 92

# Fields of a frame, as bits of what was found and as columns of the integers.
EVENT, TRANSACTION, FIRST, FINAL, PREVIOUS = 0, 1, 2, 3, 4
HAS_KIND, HAS_SYMBOL, HAS_BIDS, HAS_ASKS = 1 << 5, 1 << 6, 1 << 7, 1 << 8

NAME_START, NAME_END, SYMBOL_START, SYMBOL_END, BIDS, ASKS = 0, 1, 2, 3, 4, 5


@_compiled
def says(buffer: Any, pos: Any, text: Any) -> Any:
    """Whether `text` stands at `pos`, which the caller knows to be far enough from the end."""
    for offset in range(text.shape[0]):  # noqa: SIM110  compiled: a generator would not be
        if buffer[pos + offset] != text[offset]:
            return False
    return True


@_compiled
def integer(buffer: Any, pos: Any, end: Any) -> Any:
    """A JSON integer without sign: (position after it or -1, value)."""
    start = pos
    value = np.int64(0)
    while pos < end:
        digit = np.int64(buffer[pos]) - ZERO
        if digit < 0 or digit > 9:
            break
        value = value * 10 + digit
        pos += 1
    count = pos - start
    if count == 0 or count > MAX_DIGITS or (count > 1 and buffer[start] == ZERO):
        return np.int64(-1), np.int64(0)
    return pos, value


@_compiled
def micros(value: Any) -> Any:
    """µs of a time in ms (13 digits) or µs (16 digits); -1 for others."""
    if 1_000_000_000_000 <= value < 10_000_000_000_000:
        return value * 1000
    if 1_000_000_000_000_000 <= value < 10_000_000_000_000_000:
        return value
    return np.int64(-1)


@_compiled
def plain(buffer: Any, pos: Any, end: Any) -> Any:
    """The end (closing quote) of a string of plain ASCII that begins at `pos`; -1 for others."""
    while pos < end:
        byte = buffer[pos]
        if byte == QUOTE:
            return pos
        if byte < 32 or byte > 126 or byte == BACKSLASH:
            return np.int64(-1)
        pos += 1
    return np.int64(-1)


@_compiled
def _long_decimal(buffer: Any, start: Any, point: Any, stop: Any) -> Any:
    """The double of a decimal text of many digits without its idle zeros; -1.0 when it has more than 15 others."""
    first = start
    while first < point and buffer[first] == ZERO:
        first += 1
    last = stop
    while last > point + 1 and buffer[last - 1] == ZERO:
        last -= 1
    decimals = max(last - point - 1, 0)
    if (point - first) + decimals > 15 or decimals > 22:
        return -1.0
    mantissa = np.int64(0)
    for pos in range(first, last):
        if pos != point:
            mantissa = mantissa * 10 + (np.int64(buffer[pos]) - ZERO)
    return np.float64(mantissa) / POWERS[decimals]


@_compiled
def decimal(buffer: Any, pos: Any, end: Any) -> Any:
    """A quoted decimal without sign: (position after the closing quote or -1, value; -1.0: use float(text))."""
    if pos >= end or buffer[pos] != QUOTE:
        return np.int64(-1), 0.0
    pos += 1
    start = pos
    mantissa = np.int64(0)
    while pos < end:
        digit = np.int64(buffer[pos]) - ZERO
        if digit < 0 or digit > 9:
            break
        mantissa = mantissa * 10 + digit
        pos += 1
    point = pos
    if point == start:
        return np.int64(-1), 0.0
    decimals = np.int64(0)
    if pos < end and buffer[pos] == POINT:
        pos += 1
        while pos < end:
            digit = np.int64(buffer[pos]) - ZERO
            if digit < 0 or digit > 9:
                break
            mantissa = mantissa * 10 + digit
            pos += 1
        decimals = pos - point - 1
        if decimals == 0:
            return np.int64(-1), 0.0
    if pos >= end or buffer[pos] != QUOTE:
        return np.int64(-1), 0.0
    if (point - start) + decimals <= MAX_DIGITS and mantissa < EXACT_BELOW:
        return pos + 1, np.float64(mantissa) / POWERS[decimals]
    return pos + 1, _long_decimal(buffer, start, point, pos)


@_compiled
def pairs(
    buffer: Any, pos: Any, end: Any, prices: Any, sizes: Any, count: Any, slow: Any, slow_count: Any, side: Any
) -> Any:
    """A side as `[["p","q"],…]`: (position after it or -1, levels so far, slow texts so far)."""
    failed = (np.int64(-1), count, slow_count)
    if pos + 1 >= end or buffer[pos] != OPEN_LIST:
        return failed
    pos += 1
    if buffer[pos] == CLOSE_LIST:
        return pos + 1, count, slow_count
    while True:
        if pos >= end or buffer[pos] != OPEN_LIST:
            return failed
        begin = pos + 1
        pos, price = decimal(buffer, begin, end)
        if pos < 0 or pos >= end or buffer[pos] != COMMA:
            return failed
        middle = pos + 1
        pos, size = decimal(buffer, middle, end)
        if pos < 0 or pos + 1 >= end or buffer[pos] != CLOSE_LIST:
            return failed
        if price < 0.0:
            if slow_count >= slow.shape[0]:
                return failed
            slow[slow_count, 0], slow[slow_count, 1] = side, count
            slow[slow_count, 2], slow[slow_count, 3] = begin + 1, middle - 2
            slow_count += 1
        if size < 0.0:
            if slow_count >= slow.shape[0]:
                return failed
            slow[slow_count, 0], slow[slow_count, 1] = side + 1, count
            slow[slow_count, 2], slow[slow_count, 3] = middle + 1, pos - 1
            slow_count += 1
        prices[count] = price
        sizes[count] = size
        count += 1
        pos += 1
        if buffer[pos] == CLOSE_LIST:
            return pos + 1, count, slow_count
        if buffer[pos] != COMMA:
            return failed
        pos += 1


@_compiled
def binance(
    buffer: Any,
    starts: Any,
    enveloped: Any,
    spelled: Any,
    required: Any,
    allowed: Any,
    ids: Any,
    spans: Any,
    taken: Any,
    bids: Any,
    asks: Any,
    slow: Any,
) -> Any:
    """Binance book frames: diffs, partial books, REST snapshots.

    buffer: the frames one after another; frame i is [starts[i], starts[i + 1]). enveloped: whether they come in
    `{"stream":…,"data":…}`. spelled: whether the sides are called `bids` and `asks`, the id `lastUpdateId`.
    required, allowed: bits that must and may be found. ids, spans: a row for each frame, see the constants.
    taken: set for each frame read. bids, asks: (prices, sizes) to fill. slow: rows (array, index, start, end) of
    texts for `float`. Returns the numbers of bid levels, ask levels and slow texts.
    """
    bid_count = ask_count = slow_count = np.int64(0)
    for frame in range(starts.shape[0] - 1):
        pos, end = starts[frame], starts[frame + 1]
        bid_mark, ask_mark, slow_mark = bid_count, ask_count, slow_count
        ok = False
        found = np.int64(0)
        while True:  # runs once; `break` means: not mine
            if enveloped:
                if end - pos < 30 or not says(buffer, pos, STREAM_KEY):
                    break
                spans[frame, NAME_START] = pos + 11
                pos = plain(buffer, pos + 11, end)
                if pos < 0 or end - pos < 12 or not says(buffer, pos, DATA_KEY):
                    break
                spans[frame, NAME_END] = pos
                if buffer[spans[frame, NAME_START]] == AT or pos == spans[frame, NAME_START]:
                    break
                pos += 9
            if pos >= end or buffer[pos] != OPEN:
                break
            closed = False
            while True:
                # A key: `{"k":` or `,"k":`.
                pos += 1
                if pos >= end or buffer[pos] != QUOTE:
                    break
                key = pos + 1
                pos = plain(buffer, key, end)
                if pos < 0 or pos + 2 >= end or buffer[pos + 1] != COLON:
                    break
                length = pos - key
                letter = buffer[key]
                pos += 2
                bit: Any = np.int64(0)
                field = -1
                if length == 1:
                    if spelled and (letter == 98 or letter == 97 or letter == 117):
                        break
                    if letter == 98 or letter == 97:  # b, a
                        bit = HAS_BIDS if letter == 98 else HAS_ASKS
                    elif letter == 69:  # E
                        field = EVENT
                    elif letter == 84:  # T
                        field = TRANSACTION
                    elif letter == 85:  # U
                        field = FIRST
                    elif letter == 117:  # u
                        field = FINAL
                    elif letter == 101:  # e
                        bit = HAS_KIND
                    elif letter == 115:  # s
                        bit = HAS_SYMBOL
                    else:
                        break
                elif length == 2 and letter == 112 and buffer[key + 1] == 117:  # pu
                    field = PREVIOUS
                elif length == 2 and letter == 115 and buffer[key + 1] == 116:  # st
                    pos, _ = integer(buffer, pos, end)
                    if pos < 0 or pos >= end:
                        break
                elif length == 2 and letter == 112 and buffer[key + 1] == 115:  # ps
                    if buffer[pos] != QUOTE:
                        break
                    pos = plain(buffer, pos + 1, end)
                    if pos < 0:
                        break
                    pos += 1
                elif spelled and length == 4 and says(buffer, key, BIDS_KEY):
                    bit = HAS_BIDS
                elif spelled and length == 4 and says(buffer, key, ASKS_KEY):
                    bit = HAS_ASKS
                elif spelled and length == 12 and says(buffer, key, LAST_UPDATE_ID):
                    field = FINAL
                else:
                    break
                if field >= 0:
                    bit = np.int64(1) << field
                    pos, value = integer(buffer, pos, end)
                    if pos < 0:
                        break
                    if field <= TRANSACTION:
                        value = micros(value)
                        if value < 0:
                            break
                    ids[frame, field] = value
                elif bit == HAS_BIDS:
                    pos, bid_count, slow_count = pairs(
                        buffer, pos, end, bids[0], bids[1], bid_count, slow, slow_count, 0
                    )
                elif bit == HAS_ASKS:
                    pos, ask_count, slow_count = pairs(
                        buffer, pos, end, asks[0], asks[1], ask_count, slow, slow_count, 2
                    )
                elif bit & (HAS_KIND | HAS_SYMBOL) != 0:
                    if buffer[pos] != QUOTE:
                        break
                    begin = pos + 1
                    pos = plain(buffer, begin, end)
                    if pos <= begin:
                        break
                    if bit == HAS_SYMBOL:
                        spans[frame, SYMBOL_START], spans[frame, SYMBOL_END] = begin, pos
                    elif pos - begin != 11 or not says(buffer, begin, DEPTH_UPDATE):
                        break
                    pos += 1
                if pos < 0 or pos >= end or (bit != 0 and found & bit != 0):
                    break
                found |= bit
                if buffer[pos] == CLOSE:
                    closed = True
                    break
                if buffer[pos] != COMMA:
                    break
            if not closed:
                break
            if enveloped:
                pos += 1
                if pos >= end or buffer[pos] != CLOSE:
                    break
            if pos + 1 != end or found & required != required or found & ~allowed != 0:
                break
            if found & (1 << FIRST) != 0:
                if ids[frame, FIRST] > ids[frame, FINAL]:
                    break
            else:
                ids[frame, FIRST] = ids[frame, FINAL]
            ok = True
            break
        taken[frame] = ok
        if ok:
            spans[frame, BIDS], spans[frame, ASKS] = bid_count - bid_mark, ask_count - ask_mark
            if found & (1 << EVENT) == 0:
                ids[frame, EVENT] = -1
            if found & (1 << TRANSACTION) == 0:
                ids[frame, TRANSACTION] = -1
        else:
            bid_count, ask_count, slow_count = bid_mark, ask_mark, slow_mark
    return bid_count, ask_count, slow_count


@_compiled
def texts(buffer: Any, starts: Any, ends: Any, offsets: Any, out: Any) -> Any:
    """Copies spans of `buffer` into `out`, one after another, and their offsets into `offsets`."""
    position = 0
    for row in range(starts.shape[0]):
        offsets[row] = position
        for pos in range(starts[row], ends[row]):
            out[position] = buffer[pos]
            position += 1
    offsets[starts.shape[0]] = position
    return position
