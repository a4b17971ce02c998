"""What stands in a journal row: the kinds, and the JSON bodies that the recorder itself writes.

kind        stream                     body
frame       the venue's stream name    the frame as received; control frames have an empty stream
sent        '' or the request line     the WebSocket message as sent; before a `rest` row: what the request was for
opened      URL path and query         {"continues", "streams", …}: see `opened_body`
closed      ''                         {"code", "reason", "initiator", "clean"}: see `closed_body`
rest        the request line           the answer, verbatim
catalogue   the request line           the answer that lists the markets, verbatim
event       the event's kind           JSON: {"channel"?, "symbol"?, ...}
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec


class Kind(StrEnum):
    """What a journal row is."""

    FRAME = "frame"
    SENT = "sent"
    OPENED = "opened"
    CLOSED = "closed"
    REST = "rest"
    CATALOGUE = "catalogue"
    EVENT = "event"


class Row(NamedTuple):
    """One journal row."""

    sequence: int
    wall_ns: int
    monotonic_ns: int
    connection: int
    kind: str
    stream: str
    body: bytes


START = "start"
STOP = "stop"
SUBSCRIBE = "subscribe"
STALE = "stale"
ROLL = "roll"
DROPPED = "gap"
"""The event that declares rows which no memory was left for; its body has `"reason": "memory_limit"`."""

_encode = msgspec.json.Encoder(order="deterministic").encode


def json_body(**fields: Any) -> bytes:
    """A body: compact JSON, keys sorted, without those that are None."""
    return _encode({key: value for key, value in fields.items() if value is not None})


def parse_body(body: bytes) -> dict[str, Any]:
    """The fields of a JSON body; empty when it is no JSON object."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def opened_body(
    streams: Iterable[str] = (), *, continues: bool = False, unheard: Iterable[str] = (), silent: Iterable[str] = ()
) -> bytes:
    """The body of an `opened` row. `continues`: the connection was open already when this journal file began.

    `streams`: what is subscribed from the start (streams in the URL; after a rotation, all that are subscribed);
    `unheard`: those of them that have not spoken yet, `silent`: those that were found silent.
    """
    return json_body(
        continues=continues, streams=sorted(streams), unheard=sorted(unheard) or None, silent=sorted(silent) or None
    )


def closed_body(code: int | None, reason: str, initiator: str, *, clean: bool) -> bytes:
    """The body of a `closed` row. `initiator`: `venue`, `us`, `network`, `roll` or `stop`. `clean`: whether the venue's
    close frame came, and so all that it had sent before; otherwise the connection may have been dead for a while."""
    return json_body(code=code, reason=reason, initiator=initiator, clean=clean)


def subscribed_body(streams: Iterable[str], *, active: bool = True, **details: Any) -> bytes:
    """The body of an `event` row `subscribe`: `streams` of the row's connection are subscribed, or with `active` False
    no longer."""
    return json_body(streams=sorted(streams), active=active, **details)
