"""What the archive of a simulated day must say, worked out from the simulator's ledger and the faults made."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from collectors.trial.expected import READINGS, Reading
from collectors.trial.held import Held
from collectors.trial.ledger import by_stream
from collectors.trial.oracle import _Events
from depthvault.archive import log
from depthvault.layout import Layout
from simulator.truth import Truth

from .simulated_day import HOUR_MS, Day

STRENGTH = ("damaged", "malformed", "crash", "stop", "disconnect", "venue")
"""Of several causes the worse one is told."""
_SPOKEN_IN = {("lighter", "liquidation"): "trade"}
"""Channels that other channels' frames hold."""
CLOSED = ("bridged", "refilled")


def table(layout: Layout, venue: str, name: str, channel: str = "") -> list[dict[str, Any]]:
    """The rows of a table of the archive, through the manifests."""
    state = log.load(layout)
    rows: list[dict[str, Any]] = []
    for path, file in sorted(state.files.items()):
        if file.table == name and f"exchange={venue}/" in path and (not channel or f"channel={channel}/" in path):
            rows += pq.read_table(layout.archived(path)).to_pylist()
    return rows


def _runs(missing: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    """First and last place of each stretch of missing places that has a held one on both sides."""
    found = []
    place = 0
    for value, group in groupby(missing.tolist()):
        length = len(list(group))
        if value and place and place + length < len(missing):
            found.append((place, place + length - 1))
        place += length
    return found


class _Stream:
    """One stream of the truth, and who holds which of its events."""

    def __init__(self, reading: Reading, events: _Events) -> None:
        self.ids: list[int] = []
        self.first: list[int] = []
        self.times: list[int] = []
        self.numbers: list[int] = []
        origin = []
        for place, event in enumerate(events.happened):
            for cells in reading.read(event.payload):
                self.ids.append(cells[reading.key_place])
                self.first.append(cells[1] if reading.channel == "depth_diff" else cells[reading.key_place])
                self.times.append(event.time_ms)
                self.numbers.append(event.n)
                origin.append(place)
        self.held = {name: mask[origin] for name, mask in events.writers.items()}
        self.anybody = np.logical_or.reduce(list(self.held.values()))
        self.shut = reading.shut

    def hole(self, run: tuple[int, int]) -> tuple[int, int]:
        """The ids that a row of `gaps` gives it."""
        start, end = run
        return self.ids[start - 1], self.ids[end] if self.shut else self.first[end + 1]


class Expected:
    """What must be told of the missing of one venue."""

    def __init__(self, day: Day, truth: Truth, venue: str, journals: Held, symbols: list[str], folder: Path) -> None:
        self.day, self.venue, self.journals = day, venue, journals
        self._owner = {one.wire: one.writer for one in day.listened[venue]}
        self._spoiled: dict[tuple[str, str, int], str] = {}
        for fault in truth.faults(venue):
            if fault["kind"] in ("drop", "malformed"):
                cause = "venue" if fault["kind"] == "drop" else "malformed"
                self._spoiled[self._owner[fault["connection"]], fault["stream"], fault["event_n"]] = cause
        self.readings = [one for one in READINGS[venue] if one.channel != "liquidation"]
        self.streams: dict[str, dict[str, tuple[str, _Stream]]] = defaultdict(dict)
        for reading in self.readings:
            for name, stream in by_stream(truth, venue, reading, frozenset(symbols), folder).items():
                events = _Events.of(stream, journals, name)
                self.streams[reading.channel][name] = (stream.symbol, _Stream(reading, events))
                stream.path.unlink()

    def _cause(self, writer: str, name: str, stream: _Stream, since: int, until: int) -> str:
        """Why `writer` lacks what lies strictly between two places of the stream."""
        low, high = stream.times[since], stream.times[until]
        causes = {
            one.cause
            for one in self.day.outages
            if (one.venue, one.writer) == (self.venue, writer) and one.since_ms <= high and one.until_ms >= low
        }
        if not causes:
            causes = {
                self._spoiled[key]
                for place in range(since + 1, until)
                if (key := (writer, name, stream.numbers[place])) in self._spoiled
            }
        return min(causes, key=STRENGTH.index, default="unexplained")

    def chains(self) -> Iterator[tuple[str, str, str, int, int, str, str]]:
        """(channel, symbol, instance, last_id, first_id, cause, status) of channels whose ids show what is missing."""
        for reading in self.readings:
            if reading.proof != "ids":
                continue
            for name, (symbol, stream) in self.streams[reading.channel].items():
                lost = _runs(~stream.anybody)
                for run in lost:
                    causes = [self._cause(w, name, stream, run[0] - 1, run[1] + 1) for w in stream.held]
                    status = "open" if reading.channel == "agg_trade" else "lost"
                    cause = min(causes, key=STRENGTH.index)
                    yield reading.channel, symbol, "", *stream.hole(run), cause, status
                for writer, mask in stream.held.items():
                    for run in _runs(~mask):
                        if any(one[0] <= run[1] and run[0] <= one[1] for one in lost):
                            continue  # its own hole stands as evidence in the row of all
                        cause = self._cause(writer, name, stream, run[0] - 1, run[1] + 1)
                        yield reading.channel, symbol, writer, *stream.hole(run), cause, "bridged"

    def candles(self) -> Counter[tuple[str, int, int]]:
        """(symbol, open time before, open time after), µs, of candles that nobody has."""
        return Counter(
            (symbol, stream.ids[run[0] - 1], stream.ids[run[1] + 1])
            for symbol, stream in self.streams["kline"].values()
            for run in _runs(~stream.anybody)
        )

    def spans(self, channel: str, symbol: str) -> list[tuple[int, int]]:
        """When anybody listened, by the writers' own clocks (ns)."""
        found: list[tuple[int, int]] = []
        spans = [
            (one.start_ns, one.end_ns)
            for one in self.day.listened[self.venue]
            if any(
                stream.channel == _SPOKEN_IN.get((self.venue, channel), channel) and stream.symbol in (symbol, "")
                for stream in one.streams
            )
        ]
        for start, end in sorted(spans):
            if found and start <= found[-1][1]:
                found[-1] = found[-1][0], max(found[-1][1], end)
            else:
                found.append((start, end))
        return found

    def silences(self, channel: str, symbol: str) -> list[tuple[int, int]]:
        """When nobody listened between two that did (µs)."""
        spans = self.spans(channel, symbol)
        return [(before[1] // 1000, after[0] // 1000) for before, after in pairwise(spans)]

    def covered(self, channel: str, symbol: str, hour: int) -> float:
        """Seconds of an hour in which anybody listened."""
        low = (self.day.start_ms + hour * HOUR_MS) * 1_000_000
        high = low + HOUR_MS * 1_000_000
        return sum(max(0, min(end, high) - max(start, low)) for start, end in self.spans(channel, symbol)) / 1e9

    def complete_between(self, symbol: str, low: int, high: int) -> bool:
        """Whether every book event with a part above `low`, up to the one that holds `high`, is there."""
        for name, stream in self.streams["depth_diff"].values():
            if name == symbol:
                ids = np.array(stream.ids)
                first, last = np.searchsorted(ids, low, "right"), np.searchsorted(ids, high, "left")
                return bool(stream.anybody[first : last + 1].all())
        raise KeyError(symbol)


def told(rows: list[dict[str, Any]], channels: set[str]) -> Counter[tuple[Any, ...]]:
    """Rows of `gaps` in the shape of `Expected.chains`."""
    return Counter(
        (
            row["channel"], row["symbol"], row["instance"], row["last_id"], row["first_id"], row["cause"],
            row["status"],
        )
        for row in rows
        if row["channel"] in channels
    )  # fmt: skip


def told_candles(rows: list[dict[str, Any]]) -> Counter[tuple[str, int, int]]:
    """Rows of `gaps` in the shape of `Expected.candles`."""
    found: Counter[tuple[str, int, int]] = Counter()
    for row in rows:
        if row["channel"] == "kline":
            detail = json.loads(row["detail"])
            found[row["symbol"], detail["last_us"], detail["next_us"]] += 1
    return found
