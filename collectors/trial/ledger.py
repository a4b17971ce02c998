"""The simulator's side: what it generated, put by stream, and to whom each event was written whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from collectors.trial.expected import Reading, stream_name
from collectors.trial.plan import PROBING
from simulator.truth import Truth

FLIGHT_MS = 2000
"""Written is not received: what was written so shortly before a connection ended may never have arrived."""
UNNOTICED_MS = 45_000
"""After this time at the latest a collector knows that a connection is dead."""
_SPOOL_EVENTS = 200_000
_NOT_WHOLE = frozenset({"drop", "malformed"})
_CUTS = frozenset({"disconnect", "half_open", "server_shutdown"})
FOREVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of the truth: its number, when it was emitted, its payload."""

    n: int
    time_ms: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class StreamFile:
    """All events of one stream, in the order generated, in a file of their own."""

    symbol: str
    path: Path

    def __iter__(self) -> Iterator[Happened]:
        with self.path.open("rb") as lines:
            for line in lines:
                n, time_ms, payload = line[:-1].split(b"\t", 2)
                yield Happened(int(n), int(time_ms), payload)


def by_stream(
    truth: Truth, venue: str, reading: Reading, symbols: frozenset[str], folder: Path
) -> dict[str, StreamFile]:
    """The events of a channel put by stream, in one pass over the ledger."""
    files: dict[str, StreamFile] = {}
    waiting: dict[str, list[bytes]] = {}
    count = 0
    for event in truth.events(venue, reading.truth):
        if event.symbol not in symbols:
            continue
        name = stream_name(venue, reading, event.symbol, event.payload)
        if name not in files:
            files[name] = StreamFile(event.symbol, folder / f"{venue}-{reading.truth}-{len(files)}")
        waiting.setdefault(name, []).append(b"%d\t%d\t%b\n" % (event.n, event.time_ms, event.payload))
        count += 1
        if count % _SPOOL_EVENTS == 0:
            _spool(files, waiting)
    _spool(files, waiting)
    return files


def _spool(files: dict[str, StreamFile], waiting: dict[str, list[bytes]]) -> None:
    for name, lines in waiting.items():
        with files[name].path.open("ab") as file:
            file.writelines(lines)
    waiting.clear()


@dataclass(frozen=True, slots=True)
class _Span:
    """Events after `first` and up to `last` went to a connection; it ended at `until_ms`."""

    connection: int
    first: int
    last: int
    until_ms: int


@dataclass(slots=True)
class Deliveries:
    """To whom the simulator wrote what. `kinds`: faults it committed, by kind."""

    kinds: Counter[str] = field(default_factory=Counter)
    _cuts_ms: list[int] = field(default_factory=list)
    _dead_ms: list[int] = field(default_factory=list)
    _spans: dict[str, list[_Span]] = field(default_factory=dict)
    _spoiled: set[tuple[int, str, int]] = field(default_factory=set)

    @classmethod
    def of(cls, truth: Truth, venue: str) -> Deliveries:
        result = cls()
        for fault in truth.faults(venue):
            result.kinds[fault["kind"]] += 1
            if fault["kind"] in _CUTS:
                result._cuts_ms.append(fault["time_ms"])
            if fault["kind"] == "half_open":
                result._dead_ms.append(fault["time_ms"])
            if fault["kind"] in _NOT_WHOLE:
                result._spoiled.add((fault["connection"], fault["stream"], fault["event_n"]))
        heard: dict[int, dict[str, int]] = {}
        probing: set[int] = set()
        for row in truth.connections(venue):
            if row["kind"] == "open" and row["path"].endswith(PROBING):
                probing.add(row["connection"])
            if row["connection"] in probing:
                continue
            streams = heard.setdefault(row["connection"], {})
            if row["kind"] == "subscribe" and row["delivers"]:
                streams[row["stream"]] = row["n"]
            elif row["kind"] == "unsubscribe" and row["stream"] in streams:
                result._add(row["stream"], _Span(row["connection"], streams.pop(row["stream"]), row["n"], FOREVER))
            elif row["kind"] in ("close", "half_open"):
                for stream, first in heard.pop(row["connection"]).items():
                    result._add(stream, _Span(row["connection"], first, row["n"], row["time_ms"]))
        for connection, streams in heard.items():
            for stream, first in streams.items():
                result._add(stream, _Span(connection, first, FOREVER, FOREVER))
        return result

    def _add(self, stream: str, span: _Span) -> None:
        self._spans.setdefault(stream, []).append(span)

    def was_cut(self, since_us: int, until_us: int) -> bool:
        """Whether the simulator cut any connection in this time: a gap of that time may come from it."""
        return any(since_us - FLIGHT_MS * 1000 <= cut * 1000 <= until_us for cut in self._cuts_ms)

    def went_dead(self, since_us: int, until_us: int) -> bool:
        """Whether a connection may have been dead in this time: the simulator let it be, without closing it."""
        return any(since_us - UNNOTICED_MS * 1000 <= dead * 1000 <= until_us for dead in self._dead_ms)

    def delivered(self, stream: str) -> bool:
        """Whether any subscription ever delivered the stream."""
        return stream in self._spans

    def listened(self, stream: str, event: Happened) -> bool:
        """Whether anybody's subscription delivered the stream when the event was sent, whatever became of it."""
        return any(span.first < event.n <= span.last for span in self._spans.get(stream, ()))

    def arrived(self, stream: str, event: Happened) -> bool:
        """Whether the event was written whole to a connection that lived on: then somebody must have it."""
        return any(
            span.first < event.n <= span.last
            and span.until_ms >= event.time_ms + FLIGHT_MS
            and (span.connection, stream, event.n) not in self._spoiled
            for span in self._spans.get(stream, ())
        )
