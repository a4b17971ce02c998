"""Which journals hold rows of which periods, by the time of receipt alone: cheap, incremental, remembered.

A period's window is its span widened by the grace on both sides: rows received in it can belong to the period. What a
journal gives to a window ends with the last record that has a row in it; that byte position is a pure function of the
journal, however far it has grown since. `sent` rows do not count: they bear the time of a request, whose answer may
come after the window.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import msgspec
import pyarrow.compute as pc

from depthvault.clock import EPOCH
from depthvault.durable import write_atomic
from depthvault.journal import Kind, is_locked
from depthvault.journal.reader import Batch, Damage, open_source, scan
from depthvault.layout import Layout
from depthvault.period import Period

_COLUMNS = ("sequence", "wall_ns", "kind")
_SAVE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Window:
    """The times of receipt, ns, `[low, high)`, in which rows of `period` are looked for."""

    period: Period
    low: int
    high: int

    @classmethod
    def of(cls, period: Period, grace: timedelta) -> Window:
        return cls(period, period.start_ns - _ns(grace), period.end_ns + _ns(grace))


class Span(msgspec.Struct):
    """What is known of one journal.

    offset, last_sequence: how far it has been read. windows: for each period number (start over length) the byte
    positions of the first and the end of the last record with a row in the period's window. closed: its writer is gone,
    so nothing more will come.
    """

    offset: int = 0
    last_sequence: int | None = None
    rows: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    latest_ns: int | None = None
    windows: dict[int, tuple[int, int]] = {}
    size: int = 0
    modified_ns: int = 0
    closed: bool = False


class _Cache(msgspec.Struct):
    length: int
    grace: int
    spans: dict[str, Span]


class SpanIndex:
    """The spans of all journals of a data directory, for one period length and grace. Keep it between two looks."""

    def __init__(self, layout: Layout, grace: timedelta) -> None:
        self.layout = layout
        self.grace = grace
        self._length = _ns(layout.period)
        self._grace = _ns(grace)
        self._spans: dict[tuple[str, str], dict[str, Span]] = {}
        self._saved: dict[tuple[str, str], float] = {}

    def refresh(self, exchange: str, writer: str) -> dict[Path, Span]:
        """The writer's journals with what they hold now, oldest first."""
        key = (exchange, writer)
        if key not in self._spans:
            self._spans[key] = self._load(exchange, writer)
        known = self._spans[key]
        found: dict[Path, Span] = {}
        closed_changed = False
        for path in self.layout.journal_files(exchange, writer):
            try:
                span = known.get(path.name) or Span()
                # Asked before reading: what was there when the lock was free is all there will be.
                closing = not span.closed and not is_locked(path)
                status = path.stat()
                if status.st_size < span.offset:
                    span = Span()
                if (span.size, span.modified_ns) != (status.st_size, status.st_mtime_ns):
                    self._extend(path, span)
                    span.size, span.modified_ns = status.st_size, status.st_mtime_ns
                span.closed = span.closed or closing
                closed_changed = closed_changed or closing
            except FileNotFoundError:  # deleted by the cleanup meanwhile
                continue
            found[path] = span
        self._spans[key] = {path.name: span for path, span in found.items()}
        if closed_changed and time.monotonic() - self._saved.get(key, -_SAVE_SECONDS) >= _SAVE_SECONDS:
            self._saved[key] = time.monotonic()
            self._save(exchange, writer)
        return found

    def inputs(self, exchange: str, writer: str, period: Period) -> dict[Path, tuple[int, int]]:
        """The journals with rows in the period's window: where the first such record begins and the last one ends."""
        return self._inputs(self.refresh(exchange, writer), period)

    def _inputs(self, spans: dict[Path, Span], period: Period) -> dict[Path, tuple[int, int]]:
        number = period.start_ns // self._length
        return {path: span.windows[number] for path, span in spans.items() if number in span.windows}

    def periods(self, exchange: str, writer: str) -> dict[Period, dict[Path, tuple[int, int]]]:
        """Every period whose window any of the writer's journals has a row in, with its inputs; by time."""
        spans = self.refresh(exchange, writer)
        numbers = sorted({number for span in spans.values() for number in span.windows})
        length = self.layout.period
        periods = [Period(EPOCH + number * length, length) for number in numbers]
        return {period: self._inputs(spans, period) for period in periods}

    def shown_until(self, exchange: str, writer: str, moment_ns: int) -> bool:
        """Whether all journals have shown, at the last look, what they received before `moment_ns`.

        A closed one has; one that is being written has when it shows a row of that time or later.
        """
        known = self._spans.get((exchange, writer), {})
        return all(
            span.closed or (span.latest_ns is not None and span.latest_ns >= moment_ns) for span in known.values()
        )

    def _extend(self, path: Path, span: Span) -> None:
        """Read on from where `span` ends."""
        with open_source(path) as source:
            parts = scan(
                source, path, offset=span.offset, last_sequence=span.last_sequence, columns=_COLUMNS
            )  # fmt: skip
            for part in parts:
                if isinstance(part, Damage):
                    continue  # declared when the period is sealed
                self._add(part, span)

    def _add(self, batch: Batch, span: Span) -> None:
        span.offset = batch.end
        span.last_sequence = batch.last_sequence
        span.rows += int(batch.rows.num_rows)
        received = pc.not_equal(batch.rows.column("kind"), Kind.SENT.value).to_numpy(zero_copy_only=False)
        walls = batch.rows.column("wall_ns").to_numpy()[received]
        if not len(walls):
            return
        low, high = int(walls.min()), int(walls.max())
        first = (low - self._grace) // self._length
        last = (high + self._grace) // self._length
        numbers: Iterable[int] = range(first, last + 1)
        if last - first > 1:  # a clock step, or an old request time: only the periods that the rows are in
            lows = (walls - self._grace) // self._length
            highs = (walls + self._grace) // self._length
            numbers = {
                number for a, b in {*zip(lows.tolist(), highs.tolist(), strict=True)} for number in range(a, b + 1)
            }
        for number in numbers:
            start, _ = span.windows.get(number, (batch.start, 0))
            span.windows[number] = (start, batch.end)
        span.first_ns = int(walls[0]) if span.first_ns is None else span.first_ns
        span.last_ns = int(walls[-1])
        span.latest_ns = high if span.latest_ns is None else max(high, span.latest_ns)

    # Closed journals are remembered on disk, so that a later process need not read a week of them. Losing the file only
    # costs that reading.

    def _cache_path(self, exchange: str, writer: str) -> Path:
        return self.layout.run / "spans" / exchange / f"{writer}.json"

    def _load(self, exchange: str, writer: str) -> dict[str, Span]:
        try:
            cache = msgspec.json.decode(self._cache_path(exchange, writer).read_bytes(), type=_Cache)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return {}
        return cache.spans if (cache.length, cache.grace) == (self._length, self._grace) else {}

    def _save(self, exchange: str, writer: str) -> None:
        cache = _Cache(self._length, self._grace, self._spans[(exchange, writer)])
        with contextlib.suppress(OSError):  # somebody who may only read the data asks for the running hour, too
            write_atomic(self._cache_path(exchange, writer), msgspec.json.encode(cache))


def _ns(length: timedelta) -> int:
    return length // timedelta(microseconds=1) * 1000
