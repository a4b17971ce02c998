"""What comes in now, as a replay gives the past: read from the journals of the running collectors as they grow.

With a start in the past the archive, live files and journals tell first what lies before a moment, the seam, that every
living writer has passed; then the journals go on. A row that a writer flushed late is found behind where its journal
ended when the seam was chosen; what both sides tell is recognised by its ids or key, and given once.
"""

from __future__ import annotations

import heapq
import json
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from depthvault.clock import Clock, SystemClock, datetime_from_ns, ns_from_datetime
from depthvault.exchanges.base import Exchange
from depthvault.journal import Row
from depthvault.layout import Layout
from depthvault.query.followed import NEVER, FollowedWriter, find
from depthvault.query.lanes import REMEMBERED_US, ChainLane, Item, Lane, Link, StateLane
from depthvault.query.replay import CHAINS, Archive, Event, Notice, Rows, Stream, ids_of, notices_of, replay
from depthvault.schemas import CHANNELS
from depthvault.seal.decoding import EVENTS, Piece
from depthvault.seal.spans import Span, SpanIndex

POLL_INTERVAL = 0.002
"""Seconds between two looks at quiet journals."""

WINDOW = timedelta(milliseconds=500)
"""How long an event waits at most for writers that have not told yet what they received before it."""

ANSWERS = frozenset({"depth_snapshot", "funding_rate", "open_interest", "instrument"})
"""Channels that come as answers to requests."""

ANSWER_US = 100_000
"""How long after its receipt an answer is journaled, at most as a rule: frames are journaled as they are received."""

_MOST_HELD = 200_000
_QUIET_US = 5_000_000  # a writer that has brought nothing wanted for so long holds nobody up
_LOOK_AROUND = 0.25


class Journals(Protocol):
    """A data directory with journals that grow."""

    @property
    def layout(self) -> Layout: ...
    @property
    def index(self) -> SpanIndex: ...
    def venue(self, exchange: str) -> Exchange: ...


class Follow:
    """An iterator over what comes in: `Event`, `Gap` and `Notice`, the types of a replay, in the same order.

    It waits for what comes. It ends after `stop()` (from another thread or a signal handler), at `end`, or when nothing
    came for `timeout`; what it has read by then is still given. `close` it, or use it in a `with`.
    """

    def __init__(
        self,
        archive: Archive,
        journals: Journals,
        streams: Iterable[Stream],
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        window: timedelta = WINDOW,
        timeout: timedelta | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._archive, self._journals = archive, journals
        self._clock = clock or SystemClock()
        self._streams = list(dict.fromkeys(streams))
        self._window = window // timedelta(microseconds=1)
        self._slack = ANSWER_US if ANSWERS & {one.channel for one in self._streams} else 0
        self._timeout = None if timeout is None else timeout.total_seconds()
        self._start = self._now() if start is None else ns_from_datetime(start) // 1000
        self._end = NEVER if end is None else ns_from_datetime(end) // 1000
        self._lanes: dict[tuple[str, str, str], Lane] = {
            (one.exchange, one.channel, one.symbol): (ChainLane if one.channel in CHAINS else StateLane)(
                one, self._window
            )
            for one in self._streams
        }
        self._rank = {one: number for number, one in enumerate(self._streams)}
        self._waiting: dict[Stream, ChainLane] = {}  # lanes that hold events
        self._writers: dict[tuple[str, str], FollowedWriter] = {}
        self._held: list[tuple[int, int, int, Item]] = []
        self._number = 0
        self._told_notices: set[tuple[Any, ...]] = set()
        self._looked = 0.0
        self._stopped = threading.Event()
        self._running = self._run()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        return next(self._running)

    def __enter__(self) -> Follow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stop(self) -> None:
        """End after what has been read. May be called from anywhere, more than once."""
        self._stopped.set()

    def close(self) -> None:
        """Let the journals go."""
        self._stopped.set()
        self._running.close()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _now(self) -> int:
        return self._clock.wall_ns() // 1000

    def _run(self) -> Generator[Item, None, None]:
        seam = self._begin()
        if self._start < seam:
            yield from self._past(min(seam, self._end))
        heard = time.monotonic()
        while not self._stopped.is_set():
            ended = self._now() >= self._end  # before reading: what was received before the end is read after it
            busy = self._read()
            reached = self._reached()
            for item in self._ready(reached):
                yield item
                heard = time.monotonic()
            if ended and reached >= self._end:
                break
            if self._timeout is not None and time.monotonic() - heard >= self._timeout:
                break
            if not busy:
                self._stopped.wait(POLL_INTERVAL)
        yield from self._rest()

    # Where to begin

    def _begin(self) -> int:
        """Note how far each journal goes, and choose the seam, µs: what was received before it, the past tells."""
        index, known = self._journals.index, {}
        exchanges = sorted({stream.exchange for stream in self._streams})
        for exchange in exchanges:
            for writer in self._journals.layout.writers(exchange):
                known[exchange, writer] = index.refresh(exchange, writer)
        now = self._now()
        latest = (
            span.last_ns // 1000
            for spans in known.values()
            for span in spans.values()
            if not span.closed and span.last_ns is not None
        )
        seam = min([now, *(one for one in latest if now - one < _QUIET_US)])
        for (exchange, writer), spans in known.items():
            self._follow(exchange, writer, spans, seam)
        return seam

    def _follow(self, exchange: str, name: str, spans: dict[Path, Span], seam: int) -> None:
        positions: dict[Path, int | None] = {}
        learned: dict[Path, list[Row]] = {}
        for path, span in spans.items():
            if span.closed and (span.latest_ns is None or span.latest_ns < seam * 1000):
                positions[path] = None
                continue
            try:
                positions[path], learned[path] = find(path, span.offset, seam * 1000)
            except FileNotFoundError:  # deleted by the cleanup meanwhile
                positions[path] = None
        of_exchange = [stream for stream in self._streams if stream.exchange == exchange]
        self._writers[exchange, name] = FollowedWriter(
            self._journals.layout, self._journals.venue(exchange), name,
            frozenset(stream.channel for stream in of_exchange), frozenset(stream.symbol for stream in of_exchange),
            positions, learned,
        )  # fmt: skip

    def _past(self, seam: int) -> Iterator[Item]:
        """Everything before the seam, noted so that the journals do not tell it again."""
        near = seam - REMEMBERED_US
        links: tuple[Rows | None, list[Link]] = None, []
        for item in replay(self._archive, self._streams, _moment(self._start), _moment(seam)):
            if isinstance(item, Notice) and item.received >= near:
                self._told_notices.add(_identity(item))
            elif isinstance(item, Event):
                lane = self._lanes[item.stream.exchange, item.stream.channel, item.stream.symbol]
                if isinstance(lane, ChainLane):
                    if item.source is not links[0]:
                        links = item.source, _links(item.source.rows)
                    lane.given(item, links[1][item.row])
                elif isinstance(lane, StateLane) and item.received >= near:
                    lane.is_new(_key(item), _monotonic_us())
            yield item
            if self._stopped.is_set():
                return

    # Going on

    def _read(self) -> bool:
        """Read what the writers have written, one look at each. Returns whether there was anything."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_AROUND:
            self._looked = now
            for exchange in {stream.exchange for stream in self._streams}:
                for name in self._journals.layout.writers(exchange):
                    if (exchange, name) not in self._writers:
                        self._follow(exchange, name, {}, 0)
        busy = False
        slowest = min((writer.shown for writer in self._writers.values() if writer.behind), default=NEVER)
        for writer in self._writers.values():
            if len(self._held) > _MOST_HELD and writer.shown > slowest:
                continue  # let the others catch up, which hold up what this one told already
            before = self._now()
            pieces, notices = writer.read()
            for notice in notices:
                self._hold(notice)
            for piece in pieces:
                self._take(writer, piece)
            busy = busy or writer.behind or bool(pieces)
            if not writer.behind:
                writer.looked = max(writer.looked, before)
        return busy

    def _take(self, writer: FollowedWriter, piece: Piece) -> None:
        if piece.channel == EVENTS:
            for batch in piece.rows.to_batches():
                for notice in notices_of(batch):
                    if self._start <= notice.received < self._end and _identity(notice) not in self._told_notices:
                        self._hold(notice)
        for symbol in pc.unique(piece.rows.column("symbol")).to_pylist():
            lane = self._lanes.get((writer.exchange, piece.channel, symbol))
            if lane is None:
                continue
            rows = piece.rows.filter(pc.equal(piece.rows.column("symbol"), symbol))
            if not isinstance(lane, ChainLane):
                # Several rows of one frame have the same time of receipt; a replay gives them in the channel's order.
                by = dict.fromkeys(("received_time", *CHANNELS[piece.channel].order))
                rows = rows.sort_by([(name, "ascending") for name in by])
            for batch in rows.combine_chunks().to_batches():
                self._deliver(writer, lane, batch)

    def _deliver(self, writer: FollowedWriter, lane: Lane, batch: pa.RecordBatch) -> None:
        received = batch.column("received_time").cast(pa.int64()).to_pylist()
        source = Rows(batch, np.asarray(received, np.int64))
        links = _links(batch) if isinstance(lane, ChainLane) else []
        for row, moment in enumerate(received):
            if not self._start <= moment < self._end:
                continue
            writer.delivered = max(writer.delivered, moment)
            event = Event(lane.stream, moment, source, row)
            if isinstance(lane, ChainLane):
                lane.put(event, links[row], writer.name)
                self._waiting[lane.stream] = lane
            elif isinstance(lane, StateLane) and lane.is_new(_key(event), _monotonic_us()):
                self._hold(event)

    def _hold(self, item: Item) -> None:
        self._number += 1
        rank = -1 if isinstance(item, Notice) else self._rank[item.stream]
        heapq.heappush(self._held, (item.received, rank, self._number, item))

    def _reached(self) -> int:
        """Up to when, µs, nothing that was received is still to be told by a writer that is waited for."""
        living = [writer for writer in self._writers.values() if writer.lives or writer.behind]
        latest = max((writer.delivered for writer in living), default=0)
        feeding = [
            one.told(self._window, self._slack) for one in living if one.behind or one.delivered >= latest - _QUIET_US
        ]
        reached = min(feeding, default=NEVER)
        told: dict[str, dict[str, int]] = {}
        for one in living:
            told.setdefault(one.exchange, {})[one.name] = one.told(self._window)
        for lane in list(self._waiting.values()):
            for item in lane.take(told.get(lane.stream.exchange, {})):
                self._hold(item)
            if (since := lane.waits_since) is None:
                del self._waiting[lane.stream]
            else:
                reached = min(reached, since - 1)
        return reached

    def _ready(self, reached: int) -> Iterator[Item]:
        while self._held and self._held[0][0] <= reached:
            yield heapq.heappop(self._held)[3]

    def _rest(self) -> Iterator[Item]:
        """What is held, with nobody waited for."""
        for lane in self._lanes.values():
            if isinstance(lane, ChainLane):
                for item in lane.take({}):
                    self._hold(item)
        yield from self._ready(NEVER)


def _moment(microseconds: int) -> datetime:
    return datetime_from_ns(microseconds * 1000)


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


def _links(rows: pa.RecordBatch) -> list[Link]:
    own, before, epoch, whole = ids_of(rows)
    return list(map(Link, epoch.tolist(), own.tolist(), whole.tolist(), before.tolist()))


def _key(event: Event) -> tuple[Any, ...]:
    """What tells an event from others of its stream; all of the row where the channel's key columns are all null."""
    key = tuple(event[name] for name in CHANNELS[event.stream.channel].key)
    if any(value is not None for value in key):
        return key
    return tuple(sorted((name, str(value)) for name, value in event.as_dict().items()))


def _identity(notice: Notice) -> tuple[Any, ...]:
    detail = json.dumps(notice.detail, sort_keys=True)
    return (
        notice.exchange, notice.received, notice.kind, notice.instance, notice.channel, notice.symbol, detail
    )  # fmt: skip
