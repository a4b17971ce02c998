"""What is listed: rows from catalogue answers, one at each change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pyarrow as pa

from depthvault.clock import ns_from_datetime
from depthvault.errors import MalformedFrameError
from depthvault.exchanges.base import Decoded, Frames, Instrument, Rejected
from depthvault.exchanges.decode.rows import REJECTIONS, Row, reason_of, table
from depthvault.exchanges.decode.values import Numbers


def _micros(value: datetime | None) -> int | None:
    return None if value is None else ns_from_datetime(value) // 1000


def decode_instruments(
    frames: Frames,
    instance: str,
    parse: Callable[[bytes], list[Instrument]],
    is_notice: Callable[[str], bool],
) -> Decoded:
    """`instrument` rows: each symbol at its first answer and whenever a later answer says something else.

    Answers are whole or rejected. Notices (`is_notice`) carry no rules: they are no rows and no rejections. A symbol
    that an answer no longer lists gives no row: its last status stands, the catalogue itself is in the journal.
    """
    numbers = Numbers()
    known: dict[str, Row] = {}
    rows: list[Row] = []
    index: list[int] = []
    rejected: list[Rejected] = []
    previous: bytes | None = None
    for position, (stream, body) in enumerate(zip(frames.streams, frames.bodies, strict=True)):
        if is_notice(stream) or body == previous:
            continue
        try:
            found = parse(body)
            fresh = [_row(one, numbers) for one in found]
        except REJECTIONS as error:
            rejected.append(Rejected(position, reason_of(error)))
            continue
        previous = body
        for row in fresh:
            if known.get(row[1]) != row:
                known[row[1]] = row
                rows.append(row)
                index.append(position)
    return Decoded(
        table("instrument", frames, instance, index, rows), pa.array(index, pa.int64()), rejected, numbers.inexact
    )


def _row(one: Instrument, numbers: Numbers) -> Row:
    if not one.symbol:
        raise MalformedFrameError("a market without a name")
    tick, lot = numbers.unsigned(one.tick_size), numbers.unsigned(one.lot_size)
    listed = _micros(one.listed)
    return (None, one.symbol, one.status, one.base, one.quote, one.market_id, tick, lot, one.contract_type, listed)
