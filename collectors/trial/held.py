"""What the journals hold, read frame by frame: which events of the truth, when received, and by whom.

A frame is known by its bytes: it is an event when its payload is one, byte for byte.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from depthvault.journal import Damage, read
from depthvault.layout import Layout

Ints = npt.NDArray[np.int64]
_OPENING = b'{"stream":"'
_DATA = b'","data":'
_LIGHTER = b'{"channel":"'
_TYPE = b'","type":"'
_SUBSCRIBED = re.compile(rb'"type":"subscribed/[a-z_]+"\}$')
_PROBED = "SUBSCRIBE "
_MEANWHILE_NS = 100_000_000  # what is killed still records for a moment
_SNAPSHOT = re.compile(r"GET /(?:fapi/v1|api/v3)/depth\?.*\bsymbol=([^&]+)")


@dataclass(slots=True)
class StreamFrames:
    """The data frames of one stream in all journals. hashes: of the payloads' bytes. writers: by place in `Held`."""

    hashes: array[int] = field(default_factory=lambda: array("q"))
    received: array[int] = field(default_factory=lambda: array("q"))
    writers: array[int] = field(default_factory=lambda: array("q"))

    def arrays(self) -> tuple[Ints, Ints, Ints]:
        return (
            np.frombuffer(self.hashes, np.int64),
            np.frombuffer(self.received, np.int64),
            np.frombuffer(self.writers, np.int64),
        )


@dataclass(slots=True)
class Held:
    """All that the journals of one venue hold.

    first: payloads of the frames that answer a subscription (Lighter), by stream: they are no events of the ledger.
    snapshots: ids of answered REST books by symbol, and of probed ones by stream. broken: frames that are no JSON, as
    received. ends: receipts of the last rows of each writer's journal files.
    """

    writers: list[str]
    streams: dict[str, StreamFrames] = field(default_factory=dict)
    first: dict[str, list[tuple[bytes, int]]] = field(default_factory=dict)
    snapshots: dict[str, list[int]] = field(default_factory=dict)
    broken: list[bytes] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    damage: int = 0
    ends: dict[str, list[int]] = field(default_factory=dict)

    def last_row(self, writer: str, struck_ns: int) -> int | None:
        """The last row that a writer which was killed then left behind: its next file begins a second later or so."""
        return max((end for end in self.ends.get(writer, ()) if end <= struck_ns + _MEANWHILE_NS), default=None)

    def last_receipt(self, without: str, before_ns: int) -> int | None:
        """When anybody but the writer `without` received an event last, before a moment; None: nobody did."""
        latest = None
        for frames in self.streams.values():
            _, received, owners = frames.arrays()
            others = received[(received < before_ns) & (owners != self.writers.index(without))]
            if others.size:
                latest = max(latest or 0, int(others.max()))
        return latest


def held(layout: Layout, venue: str) -> Held:
    """Read all journals of `venue`."""
    result = Held(layout.writers(venue))
    for place, writer in enumerate(result.writers):
        for path in layout.journal_files(venue, writer):
            last = 0
            for piece in read(path):
                if isinstance(piece, Damage):
                    result.damage += piece.kind != "torn"
                    continue
                _, walls, _, _, kinds, streams, bodies = (column.to_pylist() for column in piece.rows.columns)
                for wall, kind, stream, body in zip(walls, kinds, streams, bodies, strict=True):
                    if kind == "frame":
                        _frame(result, place, wall, body)
                    elif kind == "rest":
                        _rest(result, stream, body)
                    elif kind == "event":
                        result.kinds[stream] += 1
                last = walls[-1]
            result.ends.setdefault(writer, []).append(last)
    return result


def _frame(result: Held, writer: int, wall: int, body: bytes) -> None:
    if body.startswith(_OPENING):
        end = body.find(_DATA, 11)
        name, payload = body[11:end], body[end + 9 : -1]
        whole = end > 0 and body.endswith((b"}}", b"]}"))
    elif body.startswith(_LIGHTER):
        end = body.find(b'"', 12)
        name, payload = body[12:end], body
        whole = end > 0 and body.rfind(_TYPE, -48) > 0
    else:
        if not _is_json(body):
            result.broken.append(body)
        return
    if not whole and not _is_json(body):  # only what looks cut off is worth the parsing
        result.broken.append(body)
        return
    text = name.decode()
    if payload is body and _SUBSCRIBED.search(body):
        result.first.setdefault(text, []).append((body, wall))
        return
    frames = result.streams.get(text)
    if frames is None:
        frames = result.streams[text] = StreamFrames()
    frames.hashes.append(hash(payload))
    frames.received.append(wall)
    frames.writers.append(writer)


def _rest(result: Held, line: str, body: bytes) -> None:
    if line.startswith(_PROBED):
        nonce = json.loads(body)["order_book"]["nonce"]
        result.snapshots.setdefault(line.removeprefix(_PROBED), []).append(nonce)
        return
    match = _SNAPSHOT.match(line)
    answer: Any = json.loads(body) if match and _is_json(body) else None
    if match and isinstance(answer, dict) and "lastUpdateId" in answer:
        result.snapshots.setdefault(match[1], []).append(answer["lastUpdateId"])


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True
