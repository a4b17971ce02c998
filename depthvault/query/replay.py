"""The past as it came in: events of many streams, merged by the time of receipt, with what is missing told in-band."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from depthvault.book.events import Floats, Integers, chain_of
from depthvault.clock import datetime_from_ns, ns_from_datetime
from depthvault.errors import UsageError
from depthvault.query.text import literal, quote
from depthvault.schemas import CHANNELS

NOTICES = ("start", "stop", "connect", "disconnect", "roll", "gap", "resync", "stale")
"""Kinds of `collector_event` that a replay passes on."""

CHAINS = ("depth_diff", "agg_trade")
"""Channels whose ids prove completeness."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One channel of one symbol."""

    exchange: str
    channel: str
    symbol: str

    @classmethod
    def parse(cls, value: Stream | str | tuple[str, str, str]) -> Stream:
        """`binance_futures/depth_diff/BTCUSDT`, or a tuple of the three. UsageError when it is neither."""
        if isinstance(value, Stream):
            return value
        parts = tuple(value.split("/", 2)) if isinstance(value, str) else tuple(value)
        if len(parts) != 3 or not all(parts):
            raise UsageError(f"not a stream: {value!r} (write binance_futures/depth_diff/BTCUSDT)")
        stream = cls(*parts)
        if stream.channel not in CHANNELS:
            raise UsageError(f"no channel {stream.channel!r}; there are {', '.join(CHANNELS)}")
        return stream

    def __str__(self) -> str:
        return f"{self.exchange}/{self.channel}/{self.symbol}"


class Event:
    """One row of a stream. Columns are read by name: `event["price"]`. `received` is µs since the epoch."""

    __slots__ = ("received", "row", "source", "stream")

    def __init__(self, stream: Stream, received: int, source: Rows, row: int) -> None:
        self.stream, self.received, self.source, self.row = stream, received, source, row

    @property
    def received_time(self) -> datetime:
        return datetime_from_ns(self.received * 1000)

    def __getitem__(self, column: str) -> Any:
        return self.source.column(column)[self.row]

    def levels(self, side: str) -> tuple[Floats, Floats]:
        """Prices and sizes of the `bid` or `ask` levels, without copying."""
        return self.source.levels(f"{side}_prices", self.row), self.source.levels(f"{side}_sizes", self.row)

    def as_dict(self) -> dict[str, Any]:
        """All columns."""
        return {"exchange": self.stream.exchange, **self.source.rows.slice(self.row, 1).to_pylist()[0]}

    def __repr__(self) -> str:
        return f"<Event {self.stream} {self.received_time:%Y-%m-%d %H:%M:%S.%f}>"


@dataclass(frozen=True, slots=True)
class Gap:
    """Before the event that follows, events of `stream` are missing: those after `last_id` and before `next_id`."""

    stream: Stream
    received: int
    last_id: int
    next_id: int


@dataclass(frozen=True, slots=True)
class Notice:
    """What happened to a recorder: `kind` is one of `NOTICES`, `detail` what it noted."""

    exchange: str
    received: int
    kind: str
    instance: str
    channel: str | None
    symbol: str
    detail: dict[str, Any]


class Rows:
    """Rows of one stream, and when each is given out; columns become Python lists when they are first asked for."""

    __slots__ = ("_columns", "_levels", "released", "rows")

    def __init__(self, rows: pa.RecordBatch, released: Integers) -> None:
        self.rows, self.released = rows, released
        self._columns: dict[str, Sequence[Any]] = {}
        self._levels: dict[str, tuple[Integers, Floats]] = {}

    def column(self, name: str) -> Sequence[Any]:
        if name not in self._columns:
            self._columns[name] = self.rows.column(name).to_pylist()
        return self._columns[name]

    def levels(self, name: str, row: int) -> Floats:
        if name not in self._levels:
            lists = self.rows.column(name)
            self._levels[name] = lists.offsets.to_numpy(), lists.values.to_numpy()
        offsets, values = self._levels[name]
        return values[offsets[row] : offsets[row + 1]]


class Archive(Protocol):
    """What a replay reads from."""

    def arrow(self, query: str) -> pa.RecordBatchReader:
        """The answer of one statement."""

    def ordered(
        self, channel: str, exchange: str, symbol: str, low: int, high: int, columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch] | None:
        """Rows received in [low, high] µs, in chain order, where they can be had so without sorting; else None."""


def _rows(archive: Archive, stream: Stream, start: datetime, end: datetime) -> Iterator[pa.RecordBatch]:
    """Rows of a chain in the order of the chain, of others in the order of receipt."""
    channel = CHANNELS[stream.channel]
    if stream.channel in CHAINS:
        low, high = ns_from_datetime(start) // 1000, ns_from_datetime(end) // 1000 - 1
        names = channel.schema.names
        ordered = archive.ordered(stream.channel, stream.exchange, stream.symbol, low, high, names)
        if ordered is not None:
            return ordered
    order = ", ".join(f'"{name}"' for name in channel.order)
    first = "" if stream.channel in CHAINS else "received_time, "
    named = ", ".join(f'"{name}"' for name in channel.schema.names)
    return iter(
        archive.arrow(
            f"SELECT {named} FROM {stream.channel} WHERE exchange = {quote(stream.exchange)} "
            f"AND symbol = {quote(stream.symbol)} AND received_time >= {literal(start)} "
            f"AND received_time < {literal(end)} ORDER BY {first}{order}"
        )
    )


def _notices(archive: Archive, exchanges: Iterable[str], start: datetime, end: datetime) -> Iterator[Notice]:
    named = ", ".join(map(quote, sorted(set(exchanges))))
    kinds = ", ".join(map(quote, NOTICES))
    reader = archive.arrow(
        "SELECT exchange, received_time, kind, instance, channel, symbol, detail FROM collector_event "
        f"WHERE exchange IN ({named}) AND kind IN ({kinds}) AND received_time >= {literal(start)} "
        f"AND received_time < {literal(end)} ORDER BY received_time, kind, instance"
    )
    for batch in reader:
        yield from notices_of(batch)


def notices_of(batch: pa.RecordBatch) -> Iterator[Notice]:
    """The rows of `collector_event` that are passed on."""
    received = batch.column("received_time").cast(pa.int64()).to_pylist()
    names = ("exchange", "kind", "instance", "channel", "symbol", "detail")
    columns = (batch.column(name).to_pylist() for name in names)
    for moment, exchange, kind, instance, channel, symbol, detail in zip(received, *columns, strict=True):
        if kind in NOTICES:
            told = json.loads(detail) if detail else {}
            yield Notice(exchange, moment, kind, instance, channel, symbol, told)


@dataclass(slots=True)
class _Source:
    """One stream being read: the current batch and the first row of it that is not given out."""

    stream: Stream
    reader: Iterator[pa.RecordBatch]
    batch: Rows | None = None
    row: int = 0
    released: int = 0
    last_id: int | None = None
    last_epoch: int | None = None
    gaps: dict[int, Gap] = field(default_factory=dict)

    def advance(self) -> None:
        """Go to the next batch that has rows."""
        self.batch, self.row, self.gaps = None, 0, {}
        for rows in self.reader:
            if rows.num_rows:
                # An event of a chain counts when it and all before it had been received: one that another instance
                # bridged may have come in after its successor.
                received: Integers = rows.column("received_time").cast(pa.int64()).to_numpy(zero_copy_only=False)
                released = np.maximum(np.maximum.accumulate(received), self.released)
                self.released = int(released[-1])
                self.batch = Rows(rows, released)
                if self.stream.channel in CHAINS:
                    self._find_gaps(rows, released)
                return

    def _find_gaps(self, rows: pa.RecordBatch, released: Integers) -> None:
        own, before, epoch, whole = ids_of(rows)
        last = np.concatenate(([before[0] if self.last_id is None else self.last_id], own[:-1]))
        last_epoch = np.concatenate(([epoch[0] if self.last_epoch is None else self.last_epoch], epoch[:-1]))
        missing = ((before > last) | (epoch != last_epoch)) & ~whole  # a whole book begins a new chain
        for row in np.flatnonzero(missing).tolist():
            self.gaps[row] = Gap(self.stream, int(released[row]), int(last[row]), int(before[row]) + 1)
        self.last_id, self.last_epoch = int(own[-1]), int(epoch[-1])


def ids_of(rows: pa.RecordBatch) -> tuple[Integers, Integers, Integers, npt.NDArray[np.bool_]]:
    """Of each row its id, the id that must have come before it, the epoch, and whether it is a whole book."""
    if "agg_trade_id" in rows.schema.names:
        own: Integers = rows.column("agg_trade_id").to_numpy(zero_copy_only=False)
        return own, own - 1, np.zeros(own.size, np.int64), np.zeros(own.size, np.bool_)
    chain = chain_of(rows)
    return chain.final, chain.prev, chain.epoch, chain.is_snapshot


def replay(
    archive: Archive, streams: Iterable[Stream | str | tuple[str, str, str]], start: datetime, end: datetime
) -> Iterator[Event | Gap | Notice]:
    """Events of `streams` received in [start, end), in the order of receipt, each right after the `Gap` before it.

    At the same microsecond the order is that of `streams`. Notices of the streams' exchanges come where they happened.
    """
    wanted = [Stream.parse(value) for value in streams]
    if not wanted:
        raise UsageError("replay needs at least one stream")
    sources = [_Source(stream, _rows(archive, stream, start, end)) for stream in wanted]
    for source in sources:
        source.advance()
    notices = _notices(archive, (stream.exchange for stream in wanted), start, end)
    notice = next(notices, None)
    while True:
        open_sources = [source for source in sources if source.batch is not None]
        if not open_sources:
            break
        # Up to here every open stream is known to the end.
        horizon = min(int(source.batch.released[-1]) for source in open_sources if source.batch is not None)
        held, places = _merged(open_sources, horizon)
        for moment, number, row in places:
            while notice is not None and notice.received <= moment:
                yield notice
                notice = next(notices, None)
            stream, batch, gaps = held[number]
            if gaps and row in gaps:
                yield gaps[row]
            yield Event(stream, moment, batch, row)
        for source in open_sources:
            if source.batch is not None and source.row == source.batch.released.size:
                source.advance()
    while notice is not None:
        yield notice
        notice = next(notices, None)


_Held = list[tuple[Stream, Rows, dict[int, Gap]]]


def _merged(sources: Sequence[_Source], horizon: int) -> tuple[_Held, Iterator[tuple[int, int, int]]]:
    """The rows of `sources` released by `horizon`, merged: when, the number of what holds it, and its row there."""
    ends = []
    for source in sources:
        assert source.batch is not None
        ends.append(int(np.searchsorted(source.batch.released, horizon, side="right")))
    parts = [(source, source.row, end) for source, end in zip(sources, ends, strict=True) if end > source.row]
    times = np.concatenate([source.batch.released[low:high] for source, low, high in parts if source.batch])
    numbers = np.repeat(np.arange(len(parts)), [high - low for _, low, high in parts])
    rows = np.concatenate([np.arange(low, high) for _, low, high in parts])
    order = np.argsort(times, kind="stable")
    held = [(source.stream, source.batch, source.gaps) for source, _, _ in parts if source.batch is not None]
    for source, end in zip(sources, ends, strict=True):
        source.row = max(source.row, end)
    return held, zip(times[order].tolist(), numbers[order].tolist(), rows[order].tolist(), strict=True)
