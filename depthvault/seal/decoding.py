"""From journal rows to the rows of a period: frames of a channel are decoded together and sent to their periods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from depthvault.clock import EPOCH
from depthvault.errors import MalformedFrameError
from depthvault.exchanges.base import Decoded, Exchange, FrameKind, Frames
from depthvault.journal import Kind, Row, json_body, parse_body
from depthvault.period import Period
from depthvault.schemas import CHANNELS
from depthvault.seal.receipts import MOST_MALFORMED, MalformedFrame
from depthvault.seal.spans import Window

CHUNK_BYTES = 8 << 20
"""Bytes of frames that are decoded together: enough to make the calls cheap, little enough for bounded memory."""

EVENTS = "collector_event"
INSTRUMENTS = "instrument"
MALFORMED = "malformed"
UNCLASSIFIED = "frame"
"""Under this name count frames of which not even the channel is known."""

_UNKNOWN_NAMES = 1000


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one channel and period, in the order received."""

    channel: str
    period: Period
    rows: pa.Table


@dataclass(slots=True)
class Tally:
    """What could not become rows."""

    rejected: Counter[str] = field(default_factory=Counter)
    malformed: list[MalformedFrame] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    inexact: Counter[str] = field(default_factory=Counter)

    def note(self, frame: MalformedFrame) -> None:
        """Keep at least the first `MOST_MALFORMED` by time."""
        self.malformed.append(frame)
        if len(self.malformed) > 2 * MOST_MALFORMED:
            self.malformed = self.earliest()

    def earliest(self) -> list[MalformedFrame]:
        """The first `MOST_MALFORMED` frames that could not be decoded."""
        return sorted(self.malformed, key=lambda one: (one.at_ns, one.channel))[:MOST_MALFORMED]


class WindowDecoder:
    """Decodes the journal rows of a window and keeps those that belong to its period.

    A row belongs to the period of its venue time (the channel's time columns) when it was received within that period,
    widened by the grace; else it is late and belongs to the period of its receipt. Frames are given in journal order,
    journal by journal; `begin_journal` and `end_journal` part them.
    """

    def __init__(
        self, exchange: Exchange, writer: str, window: Window, grace: timedelta, channels: frozenset[str] | None = None
    ) -> None:
        """channels: decode only these; None: all."""
        self.tally = Tally()
        self._exchange = exchange
        self._writer = writer
        self._window = window
        self._unit = window.period
        self._length_us = self._unit.length // timedelta(microseconds=1)
        self._grace_us = grace // timedelta(microseconds=1)
        self._wanted = channels
        self._routes: dict[str, tuple[str, ...]] = {}
        self._instruments: dict[str, tuple[Any, ...]] = {}
        self._journal = ""
        self._symbols: dict[int, str] = {}
        self.markets: dict[int, str] = {}  # of all journals
        self._sent: Row | None = None
        self._frames: dict[tuple[str, str], Frames] = {}
        self._bytes = 0

    def begin_journal(self, name: str) -> None:
        """What follows is the journal `name`, from its start."""
        self._journal = name
        self._symbols = {}
        self._sent = None

    def end_journal(self) -> Iterator[Piece]:
        """No more of this journal."""
        return self._flush()

    def add(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        """Take a record's rows; yields what is ready."""
        walls = batch.column(1).to_numpy()
        inside = (walls >= self._window.low) & (walls < self._window.high)
        frames = pc.equal(batch.column(4), Kind.FRAME.value).to_numpy(zero_copy_only=False)
        position = 0
        for index in np.flatnonzero(~frames).tolist():
            row = Row(*(column[index].as_py() for column in batch.columns))
            if row.kind == Kind.CATALOGUE:
                # The frames before it speak of the markets before it.
                self._add_frames(batch, np.flatnonzero(frames[position:index] & inside[position:index]) + position)
                position = index
                yield from self._learn(row)
            self._add_row(row, bool(inside[index]))
        self._add_frames(batch, np.flatnonzero(frames[position:] & inside[position:]) + position)
        if self._bytes >= CHUNK_BYTES:
            yield from self._flush()

    def speaks(self, body: bytes) -> bool:
        """Whether a frame that bears a stream's name is data, not an answer to something sent."""
        return self._exchange.classify(body).kind is FrameKind.DATA

    def learn(self, row: Row) -> Iterator[Piece]:
        """Take a row that lies before the window, for what it tells about later ones."""
        if row.kind == Kind.CATALOGUE:
            yield from self._learn(row)
        self._sent = row if row.kind == Kind.SENT else None

    # Rows that are no frames

    def _learn(self, row: Row) -> Iterator[Piece]:
        try:
            listed = self._exchange.parse_catalogue(row.body)
        except MalformedFrameError:
            return  # decode rejects it, too: there it is counted
        symbols = {one.market_id: one.symbol for one in listed if one.market_id is not None}
        if symbols != self._symbols:
            yield from self._flush()
            self._symbols = symbols
            self.markets |= symbols

    def _add_row(self, row: Row, inside: bool) -> None:
        sent, self._sent = self._sent, row if row.kind == Kind.SENT else None
        if not inside:
            return
        if row.kind == Kind.EVENT:
            self._put(EVENTS, "stream", row, 0)
        elif row.kind in (Kind.REST, Kind.CATALOGUE):
            channels = (INSTRUMENTS,) if row.kind == Kind.CATALOGUE else self._channels(row.stream)
            if not channels:
                self._count_unknown(row.stream, row.wall_ns)
                return
            if sent is None or sent.stream != row.stream or sent.connection != row.connection:
                self._reject(channels[0], row.sequence, row.wall_ns, row.connection, row.stream, "no request before it")
                return
            about = parse_body(sent.body)
            source = "refill" if about.get("source") == "refill" else "rest"
            for channel in channels:
                self._put(channel, source, row, int(about.get("sent_ns", sent.wall_ns)))

    def _put(self, channel: str, source: str, row: Row, request_ns: int) -> None:
        if self._wanted is not None and channel not in self._wanted:
            return
        if channel == INSTRUMENTS and not self._received_in_unit(row.wall_ns):
            return  # what was listed before the period must not hide that it is still listed in it
        frames = self._of(channel, source)
        frames.sequences.append(row.sequence)
        frames.received_ns.append(row.wall_ns)
        frames.request_ns.append(request_ns)
        frames.streams.append(row.stream)
        frames.bodies.append(row.body)
        frames.connections.append(row.connection)
        self._bytes += len(row.body)

    def _of(self, channel: str, source: str) -> Frames:
        frames = self._frames.get((channel, source))
        if frames is None:
            frames = self._frames[(channel, source)] = Frames(source=source, symbols=self._symbols)
        return frames

    # Frames

    def _channels(self, stream: str) -> tuple[str, ...]:
        """The channels that a stream's frames (or a request's answers) have rows of; none for what is not ours."""
        channels = self._routes.get(stream)
        if channels is None:
            channel, _ = self._exchange.channel_of(stream)
            channels = (channel, *self._exchange.derived.get(channel, ())) if channel else ()
            self._routes[stream] = channels
        return channels

    def _add_frames(self, batch: pa.RecordBatch, chosen: npt.NDArray[np.int64]) -> None:
        if not len(chosen):
            return
        encoded = batch.column(5).dictionary_encode()
        codes = encoded.indices.to_numpy()[chosen]
        names = encoded.dictionary.to_pylist()
        groups: dict[tuple[str, ...], list[int]] = {}
        for code in np.unique(codes).tolist():
            if not names[code]:
                self._add_nameless(batch, chosen[codes == code])
                continue
            channels = self._channels(names[code])
            if not channels:
                for index in chosen[codes == code].tolist():
                    self._count_unknown(names[code], batch.column(1)[index].as_py())
                continue
            groups.setdefault(channels, []).append(code)
        for channels, members in groups.items():
            of_group = chosen if len(members) == len(names) else chosen[np.isin(codes, members)]
            self._extend(channels, batch, of_group)

    def _extend(self, channels: tuple[str, ...], batch: pa.RecordBatch, chosen: npt.NDArray[np.int64]) -> None:
        wanted = [one for one in channels if self._wanted is None or one in self._wanted]
        if not wanted:
            return
        rows = batch if len(chosen) == batch.num_rows else batch.take(pa.array(chosen))
        sequences, walls, _, connections, _, streams, bodies = (column.to_pylist() for column in rows.columns)
        for channel in wanted:
            frames = self._of(channel, "stream")
            frames.sequences += sequences
            frames.received_ns += walls
            frames.request_ns += [0] * len(walls)
            frames.streams += streams
            frames.bodies += bodies
            frames.connections += connections
            self._bytes += sum(map(len, bodies))

    def _add_nameless(self, batch: pa.RecordBatch, chosen: npt.NDArray[np.int64]) -> None:
        """Control frames, and those the collector could make nothing of."""
        for index in chosen.tolist():
            row = Row(*(column[index].as_py() for column in batch.columns))
            frame = self._exchange.classify(row.body)
            if frame.kind == FrameKind.MALFORMED:
                self._reject(UNCLASSIFIED, row.sequence, row.wall_ns, row.connection, row.stream, frame.reason)
            elif frame.kind == FrameKind.DATA:
                channels = self._channels(frame.stream)
                if not channels:
                    self._count_unknown(frame.stream, row.wall_ns)
                for channel in channels:
                    self._put(channel, "stream", row._replace(stream=frame.stream), 0)

    def _received_in_unit(self, wall_ns: int) -> bool:
        return self._unit.start_ns <= wall_ns < self._unit.end_ns

    def _count_unknown(self, stream: str, wall_ns: int) -> None:
        if self._received_in_unit(wall_ns):
            name = stream if stream in self.tally.unknown or len(self.tally.unknown) < _UNKNOWN_NAMES else ""
            self.tally.unknown[name] += 1

    def _reject(self, channel: str, sequence: int, wall_ns: int, connection: int, stream: str, reason: str) -> None:
        """Count a frame that gave no rows, and say where it lies."""
        if not self._received_in_unit(wall_ns):
            return
        self.tally.rejected[channel] += 1
        known = "" if channel == UNCLASSIFIED else channel
        self.tally.note(MalformedFrame(channel=known, at_ns=wall_ns))
        body = json_body(
            channel=None if channel == UNCLASSIFIED else channel,
            journal=self._journal,
            sequence=sequence,
            stream=stream,
            reason=reason,
        )
        self._put(EVENTS, "stream", Row(sequence, wall_ns, 0, connection, Kind.EVENT, MALFORMED, body), 0)

    # Decoding

    def _flush(self) -> Iterator[Piece]:
        """Decode what has gathered."""
        pending, self._frames, self._bytes = self._frames, {}, 0
        events = pending.pop((EVENTS, "stream"), None)
        derived = {name for names in self._exchange.derived.values() for name in names}
        for channel in sorted({channel for channel, _ in pending}):
            sources = [
                frames for (name, _), frames in sorted(pending.items(), key=lambda one: one[0]) if name == channel
            ]
            decoded = []
            for frames in sources:
                result = self._exchange.decode(channel, frames, self._writer)
                decoded.append((frames, result))
                self.tally.inexact[channel] += result.inexact
                if channel in derived and frames.source == "stream":
                    continue  # rejected and counted where they came from
                for bad in result.rejected:
                    self._reject(
                        channel,
                        frames.sequences[bad.index],
                        frames.received_ns[bad.index],
                        frames.connections[bad.index],
                        frames.streams[bad.index],
                        bad.reason,
                    )
            yield from self._pieces(channel, _in_order(decoded))
        rejected = self._frames.pop((EVENTS, "stream"), None)
        self._bytes = 0
        if events is not None or rejected is not None:
            yield from self._events(_merged(events, rejected))

    def _events(self, frames: Frames) -> Iterator[Piece]:
        decoded = self._exchange.decode(EVENTS, frames, self._writer)
        self.tally.rejected[EVENTS] += sum(
            self._received_in_unit(frames.received_ns[bad.index]) for bad in decoded.rejected
        )
        yield from self._pieces(EVENTS, decoded.rows)

    def _pieces(self, channel: str, rows: pa.Table) -> Iterator[Piece]:
        if not rows.num_rows:
            return
        received = _micros(rows.column("received_time"))
        times = CHANNELS[channel].time
        venue = pc.coalesce(*(rows.column(name) for name in (*times, "received_time"))) if times else None
        numbers = (received if venue is None else _micros(venue)) // self._length_us
        low, high = numbers * self._length_us, (numbers + 1) * self._length_us
        on_time = (low - self._grace_us <= received) & (received < high + self._grace_us)
        units = np.where(on_time, numbers, received // self._length_us)
        own = units == self._unit.start_ns // 1000 // self._length_us
        for number in np.unique(numbers[own]).tolist():
            chosen = own & (numbers == number)
            part = rows if chosen.all() else rows.filter(pa.array(chosen))
            if channel == INSTRUMENTS:
                part = self._changed(part)
            if part.num_rows:
                yield Piece(channel, Period(EPOCH + number * self._unit.length, self._unit.length), part)

    def _changed(self, rows: pa.Table) -> pa.Table:
        """The instruments that are not as they were said to be before, in this period by this writer."""
        symbols = rows.column("symbol").to_pylist()
        payload = zip(*(rows.column(name).to_pylist() for name in CHANNELS[INSTRUMENTS].key), strict=True)
        keep = []
        for symbol, values in zip(symbols, payload, strict=True):
            keep.append(self._instruments.get(symbol) != values)
            self._instruments[symbol] = values
        return rows.filter(pa.array(keep, pa.bool_()))


def _micros(times: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    result: npt.NDArray[np.int64] = times.cast(pa.int64()).to_numpy()
    return result


def _in_order(decoded: list[tuple[Frames, Decoded]]) -> pa.Table:
    """The rows of all sources in the order of their journal rows."""
    if len(decoded) == 1:
        return decoded[0][1].rows
    sequences = np.concatenate(
        [np.asarray(frames.sequences, np.int64)[one.index.to_numpy()] for frames, one in decoded]
    )  # fmt: skip
    order = np.argsort(sequences, kind="stable")
    return pa.concat_tables([one.rows for _, one in decoded]).take(pa.array(order))


def _merged(first: Frames | None, second: Frames | None) -> Frames:
    """Both, in the order of their journal rows."""
    if first is None or second is None:
        frames = first or second
        assert frames is not None
        return frames
    both = Frames(source=first.source, symbols=first.symbols)
    for name in ("sequences", "received_ns", "request_ns", "streams", "bodies", "connections"):
        setattr(both, name, [*getattr(first, name), *getattr(second, name)])
    order = sorted(range(len(both.sequences)), key=both.sequences.__getitem__)
    for name in ("sequences", "received_ns", "request_ns", "streams", "bodies", "connections"):
        values = getattr(both, name)
        setattr(both, name, [values[position] for position in order])
    return both
