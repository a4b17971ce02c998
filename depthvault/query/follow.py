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
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from depthvault.clock import EPOCH, Clock, SystemClock, datetime_from_ns, ns_from_datetime
from depthvault.exchanges.base import Exchange
from depthvault.journal import Batch, Damage, Follower, Kind, Row
from depthvault.journal.reader import open_source, record_at, scan
from depthvault.journal.record import decode
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.query.lanes import REMEMBERED_US, ChainLane, Item, Lane, Link, StateLane
from depthvault.query.replay import CHAINS, Archive, Event, Notice, Rows, Stream, ids_of, notices_of, replay
from depthvault.schemas import CHANNELS
from depthvault.seal.decoding import EVENTS, Piece, WindowDecoder
from depthvault.seal.spans import Span, SpanIndex, Window

POLL_INTERVAL = 0.002
"""Seconds between two looks at quiet journals."""

WINDOW = timedelta(milliseconds=500)
"""How long an event waits at most for writers that have not told yet what they received before it."""

ANSWERS = frozenset({"depth_snapshot", "funding_rate", "open_interest", "instrument"})
"""Channels that come as answers to requests."""

ANSWER_US = 100_000
"""How long after its receipt an answer is journaled, at most as a rule: frames are journaled as they are received."""

DAMAGE = "damage"
"""Kind of the notice about bytes of a journal that could not be read."""

_ALWAYS = Period(EPOCH, timedelta(days=250 * 365))
_WHOLE = Window(_ALWAYS, 0, _ALWAYS.end_ns)
_GRACE = timedelta(0)
_KINDS = ("sequence", "wall_ns", "kind")
_ROWS = 20_000  # that one look at a writer reads at most, so that a slow reader's memory stays bounded
_MOST_HELD = 200_000
_QUIET_US = 5_000_000  # a writer that has brought nothing wanted for so long holds nobody up
_LOOK_AROUND = 0.25
_NEVER = 2**62


class Journals(Protocol):
    """A data directory with journals that grow."""

    @property
    def layout(self) -> Layout: ...
    @property
    def index(self) -> SpanIndex: ...
    def venue(self, exchange: str) -> Exchange: ...


@dataclass(slots=True)
class _File:
    """One journal being read: its decoder, and which stream names have anything that is wanted."""

    decoder: WindowDecoder
    wanted: dict[str, bool] = field(default_factory=dict)


class _Writer:
    """One writer of an exchange, followed. Its rows come decoded, by channel."""

    def __init__(
        self, layout: Layout, venue: Exchange, name: str, channels: frozenset[str], symbols: frozenset[str],
        positions: dict[Path, int | None], learned: dict[Path, list[Row]],
    ) -> None:  # fmt: skip
        self.exchange, self.name = venue.name, name
        self.shown = 0
        """When it received the latest row that was read, µs."""
        self.looked = 0
        """When all that it had written was read last, µs."""
        self.delivered = -_NEVER
        """When it received the last wanted row, µs."""
        self._venue, self._channels, self._symbols = venue, channels, symbols
        self._folder = layout.journals / venue.name / name
        self._follower = Follower(layout, venue.name, name, positions=positions)
        self._files: dict[Path, _File] = {}
        self._changed, self._looked = -1, -1
        for path, rows in learned.items():
            file = self._file(path)
            for row in rows:
                list(file.decoder.learn(row))

    @property
    def lives(self) -> bool:
        """Whether a journal of it is being written, or about to be begun."""
        return bool(self._follower.files) or self._follower.last_stop == "rotate"

    def told(self, window: int, slack: int = 0) -> int:
        """Up to when, µs, it has told all that it received; after `window` nobody waits for what it may yet tell."""
        return max(self.shown - slack, 0 if self.behind else self.looked - window)

    @property
    def behind(self) -> bool:
        """Whether its journals hold more than has been read."""
        return self._follower.behind

    def _file(self, path: Path) -> _File:
        if path not in self._files:
            decoder = WindowDecoder(self._venue, self.name, _WHOLE, _GRACE, self._channels | {EVENTS})
            decoder.begin_journal(path.name)
            self._files[path] = _File(decoder)
        return self._files[path]

    def read(self) -> tuple[list[Piece], list[Notice]]:
        """What is new: rows as they were received, and what could not be read."""
        if not self._follower.files and not self._has_changed():
            return [], []
        pieces: list[Piece] = []
        notices = []
        touched: dict[Path, _File] = {}
        for part in self._follower.poll(_ROWS):
            if isinstance(part, Damage):
                notices.append(self._damage(part))
                continue
            file = touched[part.path] = self._file(part.path)
            pieces += file.decoder.add(self._of_interest(part, file))
            self.shown = max(self.shown, pc.max(part.rows.column("wall_ns")).as_py() // 1000)
        for file in touched.values():
            pieces += file.decoder.end_journal()
        open_files = set(self._follower.files)
        self._files = {path: file for path, file in self._files.items() if path in open_files}
        return pieces, notices

    def _has_changed(self) -> bool:
        """Whether the folder may hold a file that has not been seen; REST writers have thousands."""
        try:
            changed = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.time_ns()
        if changed == self._changed and self._looked - changed > 1_000_000_000:
            return False
        self._changed, self._looked = changed, now
        return True

    def _of_interest(self, batch: Batch, file: _File) -> pa.RecordBatch:
        """Without frames of streams that nobody asked for, so that they are not decoded."""
        rows: pa.RecordBatch = batch.rows
        if pc.any(pc.equal(rows.column("kind"), Kind.CATALOGUE.value)).as_py():
            file.wanted.clear()  # names may mean other markets from here on
            return rows
        named = rows.column("stream").dictionary_encode()
        keeps = [self._wants(name, file) for name in named.dictionary.to_pylist()]
        if all(keeps):
            return rows
        frames = pc.equal(rows.column("kind"), Kind.FRAME.value)
        return rows.filter(pc.or_(pc.invert(frames), pc.take(pa.array(keeps), named.indices)))

    def _wants(self, name: str, file: _File) -> bool:
        if name not in file.wanted:
            channel, symbol = self._venue.channel_of(name, file.decoder.markets) if name else ("", "")
            derived = self._venue.derived.get(channel, ())
            # A frame without a name is looked into; streams of the whole market name no symbol.
            file.wanted[name] = not name or (
                not self._channels.isdisjoint((channel, *derived)) and (not symbol or symbol in self._symbols)
            )
        return file.wanted[name]

    def _damage(self, damage: Damage) -> Notice:
        detail = {
            "path": str(damage.path), "start": damage.start, "end": damage.end, "reason": damage.reason,
            "lost_rows": damage.lost_rows,
        }  # fmt: skip
        return Notice(self.exchange, self.shown, DAMAGE, self.name, None, "", detail)

    def close(self) -> None:
        self._follower.close()


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
        self._end = _NEVER if end is None else ns_from_datetime(end) // 1000
        self._lanes: dict[tuple[str, str, str], Lane] = {
            (one.exchange, one.channel, one.symbol): (ChainLane if one.channel in CHAINS else StateLane)(
                one, self._window
            )
            for one in self._streams
        }
        self._rank = {one: number for number, one in enumerate(self._streams)}
        self._writers: dict[tuple[str, str], _Writer] = {}
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
                positions[path], learned[path] = _find(path, span.offset, seam * 1000)
            except FileNotFoundError:  # deleted by the cleanup meanwhile
                positions[path] = None
        of_exchange = [stream for stream in self._streams if stream.exchange == exchange]
        self._writers[exchange, name] = _Writer(
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
        slowest = min((writer.shown for writer in self._writers.values() if writer.behind), default=_NEVER)
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

    def _take(self, writer: _Writer, piece: Piece) -> None:
        if piece.channel == EVENTS:
            for batch in piece.rows.to_batches():
                for notice in notices_of(batch):
                    if self._start <= notice.received < self._end and _identity(notice) not in self._told_notices:
                        self._hold(notice)
        streams = [one for one in self._streams if (one.exchange, one.channel) == (writer.exchange, piece.channel)]
        for stream in streams:
            rows = piece.rows.filter(pc.equal(piece.rows.column("symbol"), stream.symbol))
            if stream.channel not in CHAINS:
                # Several rows of one frame have the same time of receipt; a replay gives them in the channel's order.
                by = dict.fromkeys(("received_time", *CHANNELS[stream.channel].order))
                rows = rows.sort_by([(name, "ascending") for name in by])
            for batch in rows.combine_chunks().to_batches():
                self._deliver(writer, stream, batch)

    def _deliver(self, writer: _Writer, stream: Stream, batch: pa.RecordBatch) -> None:
        received = batch.column("received_time").cast(pa.int64()).to_pylist()
        source = Rows(batch, np.asarray(received, np.int64))
        lane = self._lanes[stream.exchange, stream.channel, stream.symbol]
        links = _links(batch) if isinstance(lane, ChainLane) else []
        for row, moment in enumerate(received):
            if not self._start <= moment < self._end:
                continue
            writer.delivered = max(writer.delivered, moment)
            event = Event(stream, moment, source, row)
            if isinstance(lane, ChainLane):
                lane.put(event, links[row], writer.name)
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
        reached = min(feeding, default=_NEVER)
        for exchange in {stream.exchange for stream in self._streams}:
            told = {one.name: one.told(self._window) for one in living if one.exchange == exchange}
            for stream in self._streams:
                lane = self._lanes[stream.exchange, stream.channel, stream.symbol]
                if stream.exchange == exchange and isinstance(lane, ChainLane):
                    for item in lane.take(told):
                        self._hold(item)
                    if (since := lane.waits_since) is not None:
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
        yield from self._ready(_NEVER)


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


def _find(path: Path, end: int, since_ns: int) -> tuple[int, list[Row]]:
    """The first record before `end` with a row of `since_ns` or later, else `end`; and what the rows before it tell."""
    told: list[Row] = []
    with open_source(path) as source:
        for part in scan(source, path, stop=end, columns=_KINDS):
            if isinstance(part, Damage):
                continue  # what lies before the seam is the past's to tell
            if pc.max(part.rows.column("wall_ns")).as_py() >= since_ns:
                return part.start, told
            if set(part.rows.column("kind").unique().to_pylist()) <= {Kind.FRAME.value}:
                continue
            payload, _ = record_at(source, part.start)
            batch = decode(payload)
            for index, kind in enumerate(batch.column("kind").to_pylist()):
                if kind in (Kind.CATALOGUE, Kind.SENT):
                    told.append(Row(*(column[index].as_py() for column in batch.columns)))
    return end, told
