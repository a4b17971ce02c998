"""The compiled scanner: many book frames at once, from bytes to numbers, without a Python object a level.

It takes only what it knows to the letter (compact JSON, known keys, plain digits, ASCII); of any other frame it says
"not mine" and the reference reads that one. So it can be simple, and what it takes equals the reference bit by bit.

Numbers. A text of up to 15 significant digits becomes mantissa / 10^k with k <= 22: both are exact doubles, so the
division rounds once and correctly (Clinger 1990), as `float(text)` does. Longer texts are listed for `float(text)`.

Bounds. The buffer ends with two NULs, which no rule accepts, and no rule looks further than two bytes behind what was
accepted: nothing is read beyond them. A frame that is cut short may be read into the next one; then it does not
end where it must, and is not taken.

Positions are unsigned (no wrap-around tests: 5 times faster), hence the typed constants: Numba makes a float of
`uint64 + int`. Position 0 is never behind anything and stands for failure.

One file, although it is long: Numba notices a change of a function's own file, not of one that it calls elsewhere.
It keeps the machine code in `__pycache__`, or in the user's cache folder where that cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(function: F) -> F:
    options = {"nogil": True, "error_model": "numpy"}
    try:
        compiled: F = njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to keep the machine code: compile again in each process
        compiled = njit(**options)(function)
    return compiled


def _text(text: bytes) -> Any:
    return np.frombuffer(text, np.uint8)


U0, U1, U2, U9, U10, U18 = (np.uint64(number) for number in (0, 1, 2, 9, 10, 18))
QUOTE, COMMA, COLON, POINT, AT, BACKSLASH = (np.uint8(ord(sign)) for sign in '",:.@\\')
BANG = np.uint8(ord("!"))
OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = (np.uint8(ord(sign)) for sign in "{}[]")
ZERO = np.uint64(ord("0"))
TEXT_MOST = np.uint64(1 << 20)
POWERS = np.array([10.0**k for k in range(23)])
EXACT_BELOW = np.uint64(10**15)

STREAM, DATA, DEPTH_UPDATE = _text(b'{"stream":"'), _text(b'","data":{'), _text(b'"depthUpdate"')
KEY_KIND, KEY_EVENT, KEY_TRANSACTION, KEY_SYMBOL = _text(b'"e":'), _text(b'"E":'), _text(b'"T":'), _text(b'"s":"')
KEY_PAIR, KEY_TYPE, KEY_FIRST, KEY_FINAL = _text(b'"ps":"'), _text(b'"st":'), _text(b'"U":'), _text(b'"u":')
KEY_PREVIOUS, KEY_BIDS, KEY_ASKS = _text(b'"pu":'), _text(b'"b":'), _text(b'"a":')
KEY_LAST, KEY_BIDS_SPELLED, KEY_ASKS_SPELLED = _text(b'"lastUpdateId":'), _text(b'"bids":'), _text(b'"asks":')
KEY_PRICE, KEY_SIZE = _text(b'{"price":"'), _text(b',"size":"')

ORDER_BOOK, UPDATE, SUBSCRIBED = (
    _text(b'"order_book:'),
    _text(b'"update/order_book"'),
    _text(b'"subscribed/order_book"'),
)
KEY_CHANNEL, KEY_BOOK, KEY_MESSAGE_TYPE = _text(b'"channel":'), _text(b'"order_book":{'), _text(b'"type":')
KEY_TIMESTAMP, KEY_NONCE, KEY_BEGIN = _text(b'"timestamp":'), _text(b'"nonce":'), _text(b'"begin_nonce":')
KEY_CODE, KEY_OFFSET, KEY_UPDATED = _text(b'"code":'), _text(b'"offset":'), _text(b'"last_updated_at":')

TRUE, FALSE = _text(b"true"), _text(b"false")
A_KIND, AN_INTEGER, A_TIME, A_DECIMAL, A_TEXT, A_FLAG = 0, 1, 2, 3, 4, 5

# Columns of the integers, and bits of what was found.
EVENT, TRANSACTION, FIRST, FINAL, PREVIOUS = 0, 1, 2, 3, 4
HAS_EVENT, HAS_TRANSACTION, HAS_FIRST, HAS_FINAL, HAS_PREVIOUS = 1, 2, 4, 8, 16
HAS_KIND, HAS_SYMBOL, HAS_BIDS, HAS_ASKS, HAS_PAIR, HAS_TYPE = 32, 64, 128, 256, 512, 1024

LIGHTER_FIELDS = HAS_EVENT | HAS_TRANSACTION | HAS_FINAL | HAS_PREVIOUS | HAS_KIND | HAS_SYMBOL | HAS_BIDS | HAS_ASKS
LIGHTER_FIELDS |= HAS_TYPE  # here: the inner object

# Columns of the spans.
SYMBOL_START, SYMBOL_END, BIDS, ASKS = 0, 1, 2, 3
MARKET, SNAPSHOT = 0, 1  # Lighter: the market's number; 1 for a whole book


@_compiled
def after(buffer: Any, pos: Any, text: Any) -> Any:
    """The position behind `text` when it stands at `pos`, else 0."""
    for sign in text:
        if buffer[pos] != sign:
            return U0
        pos += U1
    return pos


@_compiled
def integer(buffer: Any, pos: Any) -> Any:
    """A JSON integer without sign, below 10^18: (position behind it or 0, value)."""
    start = pos
    value = U0
    while True:
        digit = np.uint64(buffer[pos]) - ZERO
        if digit > U9:
            break
        value = value * U10 + digit
        pos += U1
    count = pos - start
    if count == U0 or count > U18 or (count > U1 and np.uint64(buffer[start]) == ZERO):
        return U0, np.int64(0)
    return pos, np.int64(value)


@_compiled
def micros(value: Any) -> Any:
    """µs of a time in ms (13 digits) or µs (16 digits); -1 for others."""
    if 1_000_000_000_000 <= value < 10_000_000_000_000:
        return value * 1000
    if 1_000_000_000_000_000 <= value < 10_000_000_000_000_000:
        return value
    return np.int64(-1)


@_compiled
def time(buffer: Any, pos: Any) -> Any:
    """A time as `integer` reads it, in µs: (position behind it or 0, value)."""
    pos, value = integer(buffer, pos)
    value = micros(value)
    return (U0 if value < 0 else pos), value


@_compiled
def plain(buffer: Any, pos: Any) -> Any:
    """The position of the quote that closes a string of printable ASCII without escapes; 0 for others."""
    while buffer[pos] != QUOTE:
        if buffer[pos] < 32 or buffer[pos] > 126 or buffer[pos] == BACKSLASH:
            return U0
        pos += U1
    return pos


@_compiled
def decimal(buffer: Any, pos: Any) -> Any:
    """A decimal without sign up to a quote: (position of the quote or 0, value; -1.0: it has many digits)."""
    start = pos
    mantissa = U0
    while True:
        digit = np.uint64(buffer[pos]) - ZERO
        if digit > U9:
            break
        mantissa = mantissa * U10 + digit
        pos += U1
    if pos == start:
        return U0, 0.0
    point = pos
    decimals = U0
    if buffer[pos] == POINT:
        pos += U1
        while True:
            digit = np.uint64(buffer[pos]) - ZERO
            if digit > U9:
                break
            mantissa = mantissa * U10 + digit
            pos += U1
        decimals = pos - point - U1
        if decimals == U0:
            return U0, 0.0
    if buffer[pos] != QUOTE:
        return U0, 0.0
    if pos - start <= U18 and mantissa < EXACT_BELOW:
        return pos, np.float64(np.int64(mantissa)) / POWERS[decimals]
    return pos, -1.0


@_compiled
def long_decimal(buffer: Any, start: Any, stop: Any) -> Any:
    """The double of a decimal text of many digits without its idle zeros; -1.0 when it has more than 15 others."""
    first, last = np.int64(start), np.int64(stop)
    middle = first
    while middle < last and buffer[middle] != POINT:
        middle += 1
    while first < middle and buffer[first] == 48:
        first += 1
    while last > middle + 1 and buffer[last - 1] == 48:
        last -= 1
    decimals = last - middle - 1 if last > middle else 0
    if (middle - first) + decimals > 15:
        return -1.0
    mantissa = np.int64(0)
    for pos in range(first, last):
        if pos != middle:
            mantissa = mantissa * 10 + np.int64(buffer[pos]) - 48
    return np.float64(mantissa) / POWERS[decimals]


@_compiled
def settled(buffer: Any, start: Any, end: Any, values: Any, index: Any, slow: Any, count: Any, array: Any) -> Any:
    """Puts the number of many digits at [start, end) into `values`, or writes it down for `float`.

    Returns how many are written down, -1 when there is no room. Kept out of the loop over levels: it is rare.
    """
    value = long_decimal(buffer, start, end)
    values[index] = value
    if value >= 0.0 or count < 0:
        return count
    if count >= slow.shape[0]:
        return np.int64(-1)
    slow[count, 0], slow[count, 1], slow[count, 2], slow[count, 3] = array, index, start, end
    return count + 1


@_compiled
def pairs(buffer: Any, pos: Any, prices: Any, sizes: Any, count: Any, slow: Any, slow_count: Any, side: Any) -> Any:
    """A side as `[["p","q"],…]`: (position behind it or 0, levels so far, slow texts so far)."""
    failed = (U0, count, slow_count)
    if buffer[pos] != OPEN_LIST:
        return failed
    pos += U1
    if buffer[pos] == CLOSE_LIST:
        return pos + U1, count, slow_count
    while True:
        if buffer[pos] != OPEN_LIST or buffer[pos + U1] != QUOTE:
            return failed
        begin = pos + U2
        middle, price = decimal(buffer, begin)
        if middle == U0 or buffer[middle + U1] != COMMA or buffer[middle + U2] != QUOTE:
            return failed
        size_begin = middle + U2 + U1
        pos, size = decimal(buffer, size_begin)
        if pos == U0 or buffer[pos + U1] != CLOSE_LIST:
            return failed
        prices[count] = price
        sizes[count] = size
        if price < 0.0 or size < 0.0:
            if price < 0.0:
                slow_count = settled(buffer, begin, middle, prices, count, slow, slow_count, side)
            if size < 0.0:
                slow_count = settled(buffer, size_begin, pos, sizes, count, slow, slow_count, side + 1)
            if slow_count < 0:
                return failed
        count += U1
        pos += U2
        if buffer[pos] == CLOSE_LIST:
            return pos + U1, count, slow_count
        if buffer[pos] != COMMA:
            return failed
        pos += U1


@_compiled
def objects(buffer: Any, pos: Any, prices: Any, sizes: Any, count: Any, slow: Any, slow_count: Any, side: Any) -> Any:
    """A side as `[{"price":"p","size":"q"},…]`: as `pairs`."""
    failed = (U0, count, slow_count)
    if buffer[pos] != OPEN_LIST:
        return failed
    pos += U1
    if buffer[pos] == CLOSE_LIST:
        return pos + U1, count, slow_count
    while True:
        begin = after(buffer, pos, KEY_PRICE)
        if begin == U0:
            return failed
        middle, price = decimal(buffer, begin)
        if middle == U0:
            return failed
        size_begin = after(buffer, middle + U1, KEY_SIZE)
        if size_begin == U0:
            return failed
        pos, size = decimal(buffer, size_begin)
        if pos == U0 or buffer[pos + U1] != CLOSE:
            return failed
        prices[count] = price
        sizes[count] = size
        if price < 0.0 or size < 0.0:
            if price < 0.0:
                slow_count = settled(buffer, begin, middle, prices, count, slow, slow_count, side)
            if size < 0.0:
                slow_count = settled(buffer, size_begin, pos, sizes, count, slow, slow_count, side + 1)
            if slow_count < 0:
                return failed
        count += U1
        pos += U2
        if buffer[pos] == CLOSE_LIST:
            return pos + U1, count, slow_count
        if buffer[pos] != COMMA:
            return failed
        pos += U1


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

    buffer: the frames one after another and two NULs; frame i is [starts[i], starts[i + 1]). enveloped: whether they
    come in `{"stream":…,"data":…}`. spelled: whether the sides are called `bids` and `asks`, the id `lastUpdateId`.
    required, allowed: bits that must and may be found. ids, spans: a row for each frame, see the constants.
    taken: set for each frame read. bids, asks: (prices, sizes) to fill. slow: rows (array, index, start, end) of
    texts for `float`. Returns the numbers of bid levels, ask levels and slow texts.
    """
    bid_count = ask_count = U0
    slow_count = np.int64(0)
    for frame in range(starts.shape[0] - 1):
        pos, end = starts[frame], starts[frame + 1]
        bid_mark, ask_mark, slow_mark = bid_count, ask_count, slow_count
        found = np.int64(0)
        if enveloped:
            pos = after(buffer, pos, STREAM)
            if pos != U0 and (buffer[pos] == AT or buffer[pos] == QUOTE):
                pos = U0  # without a symbol
            if pos != U0:
                pos = plain(buffer, pos)
            if pos != U0:
                pos = after(buffer, pos, DATA)
        else:
            pos = pos + U1 if buffer[pos] == OPEN else U0
        while pos != U0:
            begin = pos
            bit: Any = np.int64(0)
            if buffer[begin] != QUOTE:
                pos = U0
                break
            letter, second = buffer[begin + U1], buffer[begin + U2]
            if letter == 69:  # E
                bit = HAS_EVENT
                pos = after(buffer, begin, KEY_EVENT)
                if pos != U0:
                    pos, ids[frame, EVENT] = time(buffer, pos)
            elif letter == 84:  # T
                bit = HAS_TRANSACTION
                pos = after(buffer, begin, KEY_TRANSACTION)
                if pos != U0:
                    pos, ids[frame, TRANSACTION] = time(buffer, pos)
            elif letter == 85:  # U
                bit = HAS_FIRST
                pos = after(buffer, begin, KEY_FIRST)
                if pos != U0:
                    pos, ids[frame, FIRST] = integer(buffer, pos)
            elif letter == 117 or letter == 108:  # u, lastUpdateId
                bit = HAS_FINAL
                pos = after(buffer, begin, KEY_LAST) if spelled else after(buffer, begin, KEY_FINAL)
                if pos != U0:
                    pos, ids[frame, FINAL] = integer(buffer, pos)
            elif letter == 112 and second == 117:  # pu
                bit = HAS_PREVIOUS
                pos = after(buffer, begin, KEY_PREVIOUS)
                if pos != U0:
                    pos, ids[frame, PREVIOUS] = integer(buffer, pos)
            elif letter == 98:  # b
                bit = HAS_BIDS
                pos = after(buffer, begin, KEY_BIDS_SPELLED) if spelled else after(buffer, begin, KEY_BIDS)
                if pos != U0:
                    pos, bid_count, slow_count = pairs(buffer, pos, bids[0], bids[1], bid_count, slow, slow_count, 0)
            elif letter == 97:  # a
                bit = HAS_ASKS
                pos = after(buffer, begin, KEY_ASKS_SPELLED) if spelled else after(buffer, begin, KEY_ASKS)
                if pos != U0:
                    pos, ask_count, slow_count = pairs(buffer, pos, asks[0], asks[1], ask_count, slow, slow_count, 2)
            elif letter == 101:  # e
                bit = HAS_KIND
                pos = after(buffer, begin, KEY_KIND)
                if pos != U0:
                    pos = after(buffer, pos, DEPTH_UPDATE)
            elif letter == 115 and second == QUOTE:  # s
                bit = HAS_SYMBOL
                pos = after(buffer, begin, KEY_SYMBOL)
                if pos != U0:
                    spans[frame, SYMBOL_START] = pos
                    pos = plain(buffer, pos) if buffer[pos] != QUOTE else U0
                    spans[frame, SYMBOL_END] = pos
                    if pos != U0:
                        pos += U1
            elif letter == 115:  # st
                bit = HAS_TYPE
                pos = after(buffer, begin, KEY_TYPE)
                if pos != U0:
                    pos, _ = integer(buffer, pos)
            else:  # ps
                bit = HAS_PAIR
                pos = after(buffer, begin, KEY_PAIR)
                if pos != U0:
                    pos = plain(buffer, pos)
                    if pos != U0:
                        pos += U1
            if pos == U0 or found & bit != 0:
                pos = U0
                break
            found |= bit
            sign = buffer[pos]
            pos += U1
            if sign == CLOSE:
                break
            if sign != COMMA:
                pos = U0
        if pos != U0 and enveloped:
            pos = pos + U1 if buffer[pos] == CLOSE else U0
        ok = pos == end and found & required == required and found & ~allowed == 0
        if ok and found & HAS_FIRST == 0:
            ids[frame, FIRST] = ids[frame, FINAL]
        if ok and ids[frame, FIRST] <= ids[frame, FINAL]:
            taken[frame] = True
            spans[frame, BIDS], spans[frame, ASKS] = bid_count - bid_mark, ask_count - ask_mark
            if found & HAS_EVENT == 0:
                ids[frame, EVENT] = -1
            if found & HAS_TRANSACTION == 0:
                ids[frame, TRANSACTION] = -1
        else:
            bid_count, ask_count, slow_count = bid_mark, ask_mark, slow_mark
    return np.int64(bid_count), np.int64(ask_count), slow_count


@_compiled
def lighter(buffer: Any, starts: Any, ids: Any, spans: Any, taken: Any, bids: Any, asks: Any, slow: Any) -> Any:
    """Lighter `order_book` frames, updates and whole books; parameters and result as those of `binance`.

    The frame is `{…,"order_book":{…},…}` with fields in any order; inner and outer ones of the same name (`offset`,
    `last_updated_at`) are told apart by depth. A book that never changed has the time 0, which becomes null.
    """
    bid_count = ask_count = U0
    slow_count = np.int64(0)
    for frame in range(starts.shape[0] - 1):
        pos, end = starts[frame], starts[frame + 1]
        bid_mark, ask_mark, slow_mark = bid_count, ask_count, slow_count
        found: Any = np.int64(0)
        inner = False
        over = False
        pos = pos + U1 if buffer[pos] == OPEN else U0
        while pos != U0 and not over:
            begin = pos
            bit: Any = np.int64(0)
            if buffer[begin] != QUOTE:
                pos = U0
                break
            letter = buffer[begin + U1]
            if inner and letter == 97:  # asks
                bit = HAS_ASKS
                pos = after(buffer, begin, KEY_ASKS_SPELLED)
                if pos != U0:
                    pos, ask_count, slow_count = objects(buffer, pos, asks[0], asks[1], ask_count, slow, slow_count, 2)
            elif inner and letter == 98 and buffer[begin + U2] == 105:  # bids
                bit = HAS_BIDS
                pos = after(buffer, begin, KEY_BIDS_SPELLED)
                if pos != U0:
                    pos, bid_count, slow_count = objects(buffer, pos, bids[0], bids[1], bid_count, slow, slow_count, 0)
            elif inner and letter == 98:  # begin_nonce
                bit = HAS_PREVIOUS
                pos = after(buffer, begin, KEY_BEGIN)
                if pos != U0:
                    pos, ids[frame, PREVIOUS] = integer(buffer, pos)
            elif inner and letter == 110:  # nonce
                bit = HAS_FINAL
                pos = after(buffer, begin, KEY_NONCE)
                if pos != U0:
                    pos, ids[frame, FINAL] = integer(buffer, pos)
            elif inner and letter == 99:  # code
                pos = after(buffer, begin, KEY_CODE)
                if pos != U0:
                    pos, _ = integer(buffer, pos)
            elif letter == 108:  # last_updated_at
                pos = after(buffer, begin, KEY_UPDATED)
                if pos != U0:
                    pos, value = integer(buffer, pos)
                    if inner:
                        bit = HAS_TRANSACTION
                        ids[frame, TRANSACTION] = micros(value)
                        if value != 0 and ids[frame, TRANSACTION] < 0:
                            pos = U0
            elif not inner and letter == 111 and buffer[begin + U2] == 114:  # order_book
                bit = HAS_TYPE
                pos = after(buffer, begin, KEY_BOOK)
            elif letter == 111:  # offset
                pos = after(buffer, begin, KEY_OFFSET)
                if pos != U0:
                    pos, _ = integer(buffer, pos)
            elif not inner and letter == 99:  # channel
                bit = HAS_SYMBOL
                pos = after(buffer, begin, KEY_CHANNEL)
                if pos != U0:
                    pos = after(buffer, pos, ORDER_BOOK)
                if pos != U0:
                    pos, spans[frame, MARKET] = integer(buffer, pos)
                if pos != U0:
                    pos = pos + U1 if buffer[pos] == QUOTE else U0
            elif not inner and letter == 116 and buffer[begin + U2] == 105:  # timestamp
                bit = HAS_EVENT
                pos = after(buffer, begin, KEY_TIMESTAMP)
                if pos != U0:
                    pos, ids[frame, EVENT] = time(buffer, pos)
            elif not inner:  # type
                bit = HAS_KIND
                begin = after(buffer, begin, KEY_MESSAGE_TYPE)
                pos = U0
                if begin != U0:
                    pos = after(buffer, begin, UPDATE)
                    spans[frame, SNAPSHOT] = 0
                    if pos == U0:
                        pos = after(buffer, begin, SUBSCRIBED)
                        spans[frame, SNAPSHOT] = 1
            else:
                pos = U0
            if pos == U0 or found & bit != 0:
                pos = U0
                break
            found |= bit
            if bit == HAS_TYPE:
                inner = True
                continue
            if inner and buffer[pos] == CLOSE:
                inner = False
                pos += U1
            if buffer[pos] == CLOSE:
                over = True
            elif buffer[pos] != COMMA:
                pos = U0
                break
            pos += U1
        if pos == end and over and not inner and found == LIGHTER_FIELDS:
            taken[frame] = True
            spans[frame, BIDS], spans[frame, ASKS] = bid_count - bid_mark, ask_count - ask_mark
        else:
            bid_count, ask_count, slow_count = bid_mark, ask_mark, slow_mark
    return np.int64(bid_count), np.int64(ask_count), slow_count


@_compiled
def known_key(buffer: Any, pos: Any, keys: Any, hint: Any) -> Any:
    """Which of `keys` (rows, padded with NUL) stands at `pos`, tried from `hint` on: (row or -1, position behind)."""
    for offset in range(keys.shape[0]):
        row = (hint + offset) % keys.shape[0]
        place = pos
        column = 0
        while column < keys.shape[1] and keys[row, column] != 0 and buffer[place] == keys[row, column]:
            column += 1
            place += U1
        if column == keys.shape[1] or keys[row, column] == 0:
            return row, place
    return -1, pos


@_compiled
def flat(
    buffer: Any, starts: Any, kind: Any, keys: Any, types: Any, required: Any, integers: Any, doubles: Any, taken: Any
) -> Any:
    """Frames `{"stream":…,"data":{…}}` whose data are plain fields (trades, tickers).

    kind: the quoted event type. keys, types: the fields that may stand there, as `"k":`, and what they are. required:
    the rows of `keys` that must, as bits. integers, doubles: a column for each key; texts give start and end packed as
    start * 2^20 + length; times are µs, -1 when absent. Frames of all-market streams, whose name begins with `!`, and
    numbers of more than 15 digits are left to the reference.
    """
    for frame in range(starts.shape[0] - 1):
        pos = after(buffer, starts[frame], STREAM)
        if pos == U0 or buffer[pos] == BANG:
            continue
        pos = plain(buffer, pos)
        if pos != U0:
            pos = after(buffer, pos, DATA)
        found = np.int64(0)
        hint = 0
        for row in range(keys.shape[0]):
            integers[frame, row] = -1
        while pos != U0:
            row, pos = known_key(buffer, pos, keys, hint)
            if row < 0 or found & (1 << row) != 0:
                pos = U0
                break
            found |= 1 << row
            hint = row + 1
            what = types[row]
            if what == A_DECIMAL:
                begin = pos + U1
                if buffer[pos] != QUOTE:
                    pos = U0
                    break
                pos, value = decimal(buffer, begin)
                if pos == U0:
                    break
                if value < 0.0:
                    value = long_decimal(buffer, begin, pos)
                    if value < 0.0:
                        pos = U0
                        break
                doubles[frame, row] = value
                pos += U1
            elif what == AN_INTEGER:
                pos, integers[frame, row] = integer(buffer, pos)
            elif what == A_TIME:
                pos, integers[frame, row] = time(buffer, pos)
            elif what == A_TEXT:
                begin = pos + U1
                pos = plain(buffer, begin) if buffer[pos] == QUOTE else U0
                if pos == begin or pos - begin >= TEXT_MOST:
                    pos = U0
                if pos == U0:
                    break
                integers[frame, row] = np.int64(begin) * np.int64(TEXT_MOST) + np.int64(pos - begin)
                pos += U1
            elif what == A_FLAG:
                begin = pos
                pos = after(buffer, begin, TRUE)
                integers[frame, row] = 1
                if pos == U0:
                    pos = after(buffer, begin, FALSE)
                    integers[frame, row] = 0
            else:
                pos = after(buffer, pos, kind)
            if pos == U0:
                break
            sign = buffer[pos]
            pos += U1
            if sign == CLOSE:
                break
            if sign != COMMA:
                pos = U0
        if pos != U0:
            pos = pos + U1 if buffer[pos] == CLOSE else U0
        taken[frame] = pos == starts[frame + 1] and found & required == required


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
