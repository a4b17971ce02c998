"""Keeping books seeded: for each symbol its `BookSync`, and snapshots over REST, the most active symbols first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from collectors.recorder import Recorder, StreamState
from depthvault.book.sync import BookSync, Change, Outcome, State
from depthvault.clock import Clock
from depthvault.errors import BannedError, MalformedFrameError, RateLimitedError, RestError, RestrictedError
from depthvault.exchanges.base import Exchange, Seed, Stream
from depthvault.rest.client import RestClient
from depthvault.rest.weight import Priority

LOG = logging.getLogger("depthvault.collector")

FIRST_EVENT_WAIT_NS = 5_000_000_000  # a book whose stream is silent so long after subscribing is fetched all the same
RETRY_FIRST_NS = 1_000_000_000
RETRY_LONGEST_NS = 60_000_000_000
IN_BAND_WAIT_NS = 10_000_000_000  # a subscription that brought no whole book in this time is made again
_EVER_NS = 1 << 62
SCAN_INTERVAL = 0.1
CONCURRENCY = 4


@dataclass(slots=True, eq=False)
class Book:
    """One symbol's book stream. attempts: seeds tried since it was live; not_before_ns: when the next may be."""

    symbol: str
    sync: BookSync
    rank: int = 0
    stream: Stream | None = None
    wanted_since_ns: int = 0
    not_before_ns: int = 0
    attempts: int = 0
    fetching: bool = False
    reason: str = "start"


@dataclass(eq=False)
class Books:
    """All books of a process. resubscribe: makes a stream begin anew, where whole books come in the stream."""

    exchange: Exchange
    recorder: Recorder
    client: RestClient
    clock: Clock
    resubscribe: Callable[[Stream], None]
    books: dict[str, Book] = field(default_factory=dict)
    _unseeded: set[str] = field(default_factory=set)
    _open: set[str] = field(default_factory=set)  # symbols with an open gap
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def track(self, stream: Stream, rank: int) -> BookSync:
        """The sync of `stream`'s symbol, made when it is new. rank: 0 is the most active symbol."""
        book = self.books.get(stream.symbol)
        if book is not None and book.stream is not None and book.stream.name != stream.name:
            # Another cadence cuts the same changes into other events: a chain of its own, seeded anew.
            self.drop(stream.symbol)
            book = None
        grace_ns = round(self.exchange.config.resync_grace.total_seconds() * 1e9)
        if book is None:
            book = Book(stream.symbol, BookSync(self.exchange.continuity, self.exchange.seed, grace_ns=grace_ns))
            book.wanted_since_ns = self.clock.monotonic_ns()
            self.books[stream.symbol] = book
            self._unseeded.add(stream.symbol)
        book.sync.grace_ns = grace_ns
        book.stream = stream
        book.rank = rank
        return book.sync

    def drop(self, symbol: str) -> None:
        """Forget a symbol that is not wanted any more."""
        self.books.pop(symbol, None)
        self._unseeded.discard(symbol)
        self._open.discard(symbol)

    def lost(self, streams: Iterable[Stream]) -> None:
        """The only connection of these streams was lost."""
        for stream in streams:
            if stream.channel == "depth_diff" and (book := self.books.get(stream.symbol)) is not None:
                book.sync.interrupted()

    def give_up_waiting(self) -> None:
        """Declare the gaps that are still open: nothing more will come."""
        for symbol in list(self._open):
            if (change := self.books[symbol].sync.due(_EVER_NS)) is not None:
                self._apply(self.books[symbol], change)

    def states(self) -> dict[State, int]:
        """How many books stand where."""
        counts = dict.fromkeys(State, 0)
        for book in self.books.values():
            counts[book.sync.state] += 1
        return counts

    def on_change(self, state: StreamState, change: Change) -> None:
        """Take note of what a frame did to a book. Called by the receive path: quick, no I/O."""
        if (book := self.books.get(state.stream.symbol)) is not None:
            self._apply(book, change)

    def _apply(self, book: Book, change: Change) -> None:
        counters = self.recorder.counters
        match change.outcome:
            case Outcome.OPENED:
                self._open.add(book.symbol)
                return
            case Outcome.CLOSED:
                counters.late_closed += 1
                self._open.discard(book.symbol)
                return
            case Outcome.GAP | Outcome.RESTART:
                counters.gaps += len(change.breaks)
                for last, first in change.breaks:
                    detail = {"last_id": last, "first_id": first, "cause": change.outcome.value}
                    self.recorder.event("gap", detail, channel="depth_diff", symbol=book.symbol)
                    LOG.warning("%s: gap between ids %d and %d", book.symbol, last, first)
                if book.sync.deadline_ns is None:
                    self._open.discard(book.symbol)
            case Outcome.LIVE:
                book.attempts = 0
                self._unseeded.discard(book.symbol)
                if book.reason != "live":
                    self._announce(book, change.last_update_id)
                return
            case Outcome.TOO_OLD:
                self._later(book)
        if not book.sync.wants_seed:  # a whole book in the stream closed the matter at once
            return
        book.reason = change.outcome.value if change.outcome is not Outcome.TOO_OLD else book.reason
        book.wanted_since_ns = self.clock.monotonic_ns()
        self._unseeded.add(book.symbol)

    def _announce(self, book: Book, last_update_id: int | None) -> None:
        self.recorder.counters.resyncs += 1
        waited = (self.clock.monotonic_ns() - book.wanted_since_ns) / 1e9
        detail = {"reason": book.reason, "last_update_id": last_update_id, "waited_s": round(waited, 3)}
        self.recorder.event("resync", detail, channel="depth_diff", symbol=book.symbol)
        book.reason = "live"

    def _later(self, book: Book) -> None:
        """Do not ask for the same book in a tight loop."""
        wait = min(RETRY_LONGEST_NS, RETRY_FIRST_NS * 2 ** min(book.attempts, 10))
        book.attempts += 1
        book.not_before_ns = self.clock.monotonic_ns() + wait

    async def run(self) -> None:
        """Declare gaps whose grace is over, and seed what wants it, until cancelled."""
        try:
            while True:
                await asyncio.sleep(SCAN_INTERVAL)
                now = self.clock.monotonic_ns()
                for symbol in list(self._open):
                    book = self.books[symbol]
                    if (change := book.sync.due(now)) is not None:
                        self._apply(book, change)
                    elif book.sync.deadline_ns is None:
                        self._open.discard(symbol)
                if self.exchange.seed is Seed.REST:
                    self._fetch_due(now)
                else:
                    self._resubscribe_due(now)
        finally:
            for task in self._tasks:
                task.cancel()

    def _due(self, now: int) -> list[Book]:
        due = [
            book
            for symbol in self._unseeded
            if not (book := self.books[symbol]).fetching and book.not_before_ns <= now and book.sync.wants_seed
        ]
        return sorted(due, key=lambda book: book.rank)

    def _fetch_due(self, now: int) -> None:
        if len(self._tasks) >= CONCURRENCY:  # hundreds may wait for the budget
            return
        for book in self._due(now):
            if len(self._tasks) >= CONCURRENCY:
                return
            # The stream must be heard before the snapshot is taken, or it may not reach the stream.
            if book.sync.final is None and now - book.wanted_since_ns < FIRST_EVENT_WAIT_NS:
                continue
            book.fetching = True
            task = asyncio.get_running_loop().create_task(self._fetch(book), name=f"snapshot-{book.symbol}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _resubscribe_due(self, now: int) -> None:
        for book in self._due(now):
            state = self.recorder.states.get(book.stream.name) if book.stream is not None else None
            if state is None or book.stream is None or not state.subscribed_ns:  # not sent yet: the book may come
                continue
            lost = book.reason != "start" and not book.attempts
            if not lost and now - state.subscribed_ns < IN_BAND_WAIT_NS:
                continue
            book.attempts += 1
            self.resubscribe(book.stream)

    async def _fetch(self, book: Book) -> None:
        request = self.exchange.snapshot_request(book.symbol, self.exchange.config.snapshot_limit)
        try:
            answer = await self.client.get(request, Priority.RESYNC)
            self.recorder.answer(answer)
            self.recorder.counters.snapshots += 1
            if self.books.get(book.symbol) is book and book.sync.wants_seed:
                self._apply(book, book.sync.snapshot(self.exchange.parse_snapshot_id(answer.body)))
        except (RateLimitedError, BannedError) as error:
            # The budget holds everybody back until it is over; this book simply stays wanted.
            self.recorder.refusal(error, f"snapshot of {book.symbol}")
        except RestrictedError as error:
            self.recorder.refusal(error, f"snapshot of {book.symbol}")
            book.not_before_ns = self.clock.monotonic_ns() + 10 * RETRY_LONGEST_NS
        except (RestError, MalformedFrameError) as error:
            self.recorder.refusal(error, f"snapshot of {book.symbol}")
            self._later(book)
        finally:
            book.fetching = False
