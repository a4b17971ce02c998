"""The recorder's own events: journal rows of kind `event`, the same for all venues."""

from __future__ import annotations

import msgspec
import pyarrow as pa

from depthvault.exchanges.base import Decoded, Frames, Rejected
from depthvault.exchanges.decode.rows import REJECTIONS, Row, reason_of, table


class _Event(msgspec.Struct):
    channel: str | None = None
    symbol: str | None = None
    connection: int | None = None


_decode = msgspec.json.Decoder(_Event).decode


def decode_events(exchange: str, frames: Frames, instance: str) -> Decoded:
    """`collector_event` rows: the stream is the event's kind, the body its detail, kept verbatim.

    The connection is the journal row's (`frames.connections`), else what the body says, else 0.
    """
    rows: list[Row] = []
    index: list[int] = []
    rejected: list[Rejected] = []
    for position, (kind, body) in enumerate(zip(frames.streams, frames.bodies, strict=True)):
        try:
            event = _decode(body)
            detail = body.decode()
        except REJECTIONS as error:
            rejected.append(Rejected(position, reason_of(error)))
            continue
        connection = frames.connections[position] if frames.connections else event.connection or 0
        rows.append((None, event.symbol or "", exchange, kind, event.channel, connection, detail))
        index.append(position)
    return Decoded(table("collector_event", frames, instance, index, rows), pa.array(index, pa.int64()), rejected)
