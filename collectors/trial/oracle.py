"""The judge: what the simulator generated, what journals hold, and what the archive says, compared row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.trial.archived import ArchivedFiles
from collectors.trial.books import judge_books
from collectors.trial.compare import whole_numbers, wrong_rows
from collectors.trial.declared import Chain, GapRow, Times, gap_rows
from collectors.trial.expected import READINGS, Cells, Reading
from collectors.trial.findings import Findings
from collectors.trial.held import Held, StreamFrames, held
from collectors.trial.ledger import Deliveries, Happened, StreamFile, by_stream
from collectors.trial.plan import CHANNELS, Plan
from collectors.trial.stage import Stroke
from depthvault.layout import Layout
from simulator.truth import Truth

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_CAUSES = {
    "SIGKILL": frozenset({"crash", "damaged", "malformed"}),
    "SIGTERM": frozenset({"stop", "crash", "damaged", "malformed"}),
}
"""What a gap that begins with a signal may be said to come from: that, or a worse evil within the same hole."""
_UP_TO_THEN_US = 1_000_000
"""A hole that began longer before the signal has another cause: the stream was not heard any more."""
_UNTIL_THEN_US = {"SIGKILL": 0, "SIGTERM": 500_000}
"""One that ended so soon after it also has: whoever is asked to stop still hears what comes in until then, and nobody
is back so quickly."""


@dataclass(slots=True)
class Judged:
    """One venue. held: what its journals hold; deliveries: what the simulator did."""

    findings: list[Findings]
    held: Held
    deliveries: Deliveries
    bytes: int


def judge(
    plan: Plan,
    layout: Layout,
    truth: Truth,
    venue: str,
    strokes: Sequence[Stroke] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> Judged:
    """Compare all channels of `venue`. strokes: signals that were sent, for the causes of gaps."""
    tell(f"{venue}: reading the journals")
    journals = held(layout, venue)
    deliveries = Deliveries.of(truth, venue)
    files = ArchivedFiles(layout, venue)
    symbols = frozenset(plan.symbols_of(venue))
    findings: list[Findings] = []
    readings = [reading for reading in READINGS[venue] if reading.channel in CHANNELS[venue]]
    with TemporaryDirectory(prefix="depthvault-truth-") as folder:
        for truth_channel in dict.fromkeys(reading.truth for reading in readings):
            group = [reading for reading in readings if reading.truth == truth_channel]
            tell(f"{venue}: {', '.join(reading.channel for reading in group)}")
            streams = by_stream(truth, venue, group[0], symbols, Path(folder))
            judges = [_Channel(venue, reading, files, journals, deliveries, strokes) for reading in group]
            for name, stream in streams.items():
                events = _Events.of(stream, journals, name)
                for one in judges:
                    one.judge(name, stream.symbol, events)
            for one in judges:
                one.close(streams, symbols)
                findings.append(one.findings)
            for stream in streams.values():
                stream.path.unlink()
    tell(f"{venue}: whole books")
    findings += judge_books(truth, venue, journals, files, sorted(symbols))
    return Judged(findings, journals, deliveries, files.bytes)


@dataclass(slots=True)
class _Events:
    """The events of one stream, and which of them the journals hold. Receipts in µs, 0: not held."""

    happened: list[Happened]
    writers: dict[str, Bools]
    first_us: Ints
    last_us: Ints
    strangers: int

    @classmethod
    def of(cls, stream: StreamFile, journals: Held, name: str) -> _Events:
        happened = list(stream)
        hashes = np.fromiter((hash(event.payload) for event in happened), np.int64, len(happened))
        frames, received, owners = journals.streams.get(name, StreamFrames()).arrays()
        order = np.argsort(hashes, kind="stable")
        place = np.searchsorted(hashes[order], frames)
        known = place < len(hashes)
        known[known] = hashes[order][place[known]] == frames[known]
        event = order[place[known]]
        micros, owners = received[known] // 1000, owners[known]
        first = np.full(len(happened), np.iinfo(np.int64).max)
        last = np.zeros(len(happened), np.int64)
        np.minimum.at(first, event, micros)
        np.maximum.at(last, event, micros)
        first[last == 0] = 0
        writers = {}
        for number, writer in enumerate(journals.writers):
            mask = np.zeros(len(happened), np.bool_)
            mask[event[owners == number]] = True
            if mask.any():
                writers[writer] = mask
        return cls(happened, writers, first, last, int((~known).sum()))


class _Channel:
    """One channel of one venue, judged stream by stream."""

    def __init__(
        self,
        venue: str,
        reading: Reading,
        files: ArchivedFiles,
        journals: Held,
        deliveries: Deliveries,
        strokes: Sequence[Stroke],
    ) -> None:
        self.reading = reading
        self.findings = Findings(venue, reading.channel)
        self._files = files
        self._journals = journals
        self._deliveries = deliveries
        self._strokes = [stroke for stroke in strokes if stroke.exchange == venue]
        self._gaps = gap_rows(files.gaps(reading.channel))
        self._whole_books = reading.channel == "depth_diff"
        self._columns = [column.name for column in reading.columns] + ["received_time"]
        if self._whole_books:
            self._columns.append("is_snapshot")

    def judge(self, name: str, symbol: str, events: _Events) -> None:
        """Compare one stream."""
        reading, findings = self.reading, self.findings
        expected: list[Cells] = []
        source: list[int] = []
        for number, event in enumerate(events.happened):
            for row in reading.read(event.payload):
                expected.append(row)
                source.append(number)
        keys = np.fromiter((row[reading.key_place] for row in expected), np.int64, len(expected))
        origin = np.array(source, np.int64)
        first_us, last_us = events.first_us[origin], events.last_us[origin]
        streamed = Times(first_us.copy(), last_us.copy())
        others = self._answered(name)
        for cells, wall in others:  # a replay in the answer to a subscription can hold what was missed
            for place in np.flatnonzero(keys == cells[reading.key_place]):
                last_us[place] = max(last_us[place], wall // 1000)
                first_us[place] = min(first_us[place] or wall // 1000, wall // 1000)
        anybody: Bools = first_us > 0
        table = self._files.rows(reading.channel, symbol, self._columns)
        if self._whole_books:
            table = table.filter(pa.compute.invert(table.column("is_snapshot")))
        found = whole_numbers(table.column(reading.key).combine_chunks())

        findings.streams += 1
        findings.delivered += self._deliveries.delivered(name)
        findings.generated += len(expected)
        findings.held += int(anybody.sum())
        findings.archived += table.num_rows
        findings.strangers += events.strangers
        findings.doubled += len(found) - len(np.unique(found))
        known = np.concatenate((keys[anybody], np.array([cells[reading.key_place] for cells, _ in others], np.int64)))
        findings.unheld += findings.example(f"{symbol}: archived, in no journal", found[~np.isin(found, known)])
        findings.lost += findings.example(f"{symbol}: in a journal, not archived", known[~np.isin(known, found)])
        self._values(symbol, table, found, keys, expected, others)
        gaps = self._gaps.pop(symbol, [])
        findings.gaps += sum(not row.instance for row in gaps)
        findings.bridged += sum(row.status == "bridged" for row in gaps)
        findings.missing += int(Chain.missing(anybody).sum())
        if reading.proof == "ids":
            writers = {writer: mask[origin] for writer, mask in events.writers.items()}
            self._judge_ids(symbol, Chain(keys, anybody, writers, reading.shut), gaps)
        else:
            self._judge_times(name, symbol, streamed, anybody, gaps, table, events, origin)
        for missed in np.flatnonzero(~anybody).tolist():  # also before the first that is held, and after the last
            if self._deliveries.arrived(name, events.happened[origin[missed]]):
                findings.dropped += findings.example(f"{symbol}: arrived, in no journal", keys[missed : missed + 1])
        for stroke in self._strokes:
            for gap in gaps:
                struck = stroke.time_ns // 1000
                lasted = gap.end_us - struck > _UNTIL_THEN_US[stroke.signal]
                if gap.instance == stroke.writer and 0 < struck - gap.start_us < _UP_TO_THEN_US and lasted:
                    if self._deliveries.was_cut(gap.start_us, struck):
                        continue
                    findings.strokes += 1
                    if gap.cause not in _CAUSES[stroke.signal]:
                        findings.miscaused += findings.note(f"{symbol}: after a {stroke.signal}: {gap}")

    def _answered(self, name: str) -> list[tuple[Cells, int]]:
        """Rows in the answers to subscriptions; whole books are judged apart."""
        if self._whole_books:
            return []
        return [(row, wall) for body, wall in self._journals.first.get(name, ()) for row in self.reading.read(body)]

    def _values(
        self, symbol: str, table: pa.Table, found: Ints, keys: Ints, expected: list[Cells],
        others: list[tuple[Cells, int]],
    ) -> None:  # fmt: skip
        reading, findings = self.reading, self.findings
        place_of = {int(key): place for place, key in enumerate(keys)}
        also: dict[int, list[Cells]] = {}
        for cells, _ in others:
            also.setdefault(cells[reading.key_place], []).append(cells)
        known = [place for place, key in enumerate(found.tolist()) if key in place_of or key in also]
        table = table.take(pa.array(known, pa.int64()))
        rows = [expected[place_of[key]] if key in place_of else also[key][0] for key in found[known].tolist()]
        for place, column in enumerate(reading.columns):
            if column.kind == "levels":
                findings.numbers += sum(len(cells[place]) for cells in rows)
            elif column.kind == "number":
                findings.numbers += len(rows)
        wrong = wrong_rows(table, rows, reading.columns)
        for place in np.flatnonzero(wrong).tolist():
            key = int(found[known[place]])
            one = table.slice(place, 1)
            # The same id in an answer to a subscription may carry another time of sending; either is the venue's word.
            if any(not wrong_rows(one, [cells], reading.columns)[0] for cells in also.get(key, ())):
                continue
            findings.wrong += findings.example(f"{symbol}: other values than the venue's", np.array([key]))

    def _judge_ids(self, symbol: str, chain: Chain, gaps: list[GapRow]) -> None:
        findings = self.findings
        findings.undeclared += findings.example(f"{symbol}: missing, undeclared", chain.undeclared(gaps))
        for writer, value in chain.unbridged(gaps):
            findings.undeclared += findings.example(f"{symbol}: missing in {writer}, undeclared", np.array([value]))
        for row in chain.false(gaps):
            findings.false += findings.note(f"{symbol}: declared, but no hole: {row}")

    def _judge_times(
        self, name: str, symbol: str, times: Times, anybody: Bools, gaps: list[GapRow], table: pa.Table,
        events: _Events, origin: Ints,
    ) -> None:  # fmt: skip
        """times: receipts of what was streamed. anybody: what is held, in answers to subscriptions too."""
        findings = self.findings
        for place in times.undeclared(gaps):
            if anybody[place]:
                continue
            event = events.happened[origin[place]]
            if self._deliveries.arrived(name, event) or not self._deliveries.listened(name, event):
                findings.undeclared += findings.note(f"{symbol}: missing, undeclared: event {event.n}")
            else:
                findings.unprovable += 1
        received = whole_numbers(table.column("received_time").combine_chunks())
        for row in times.false(gaps, received):
            findings.false += findings.note(f"{symbol}: declared, but received: {row}")

    def close(self, streams: dict[str, StreamFile], symbols: frozenset[str]) -> None:
        """What concerns no stream of the truth: rows and gaps of other symbols.

        Those of `symbols` were recorded: where one had nothing to say, nobody may have listened all the same.
        """
        findings = self.findings
        counted = findings.archived
        if self._whole_books:
            counted += sum(
                int(pa.compute.sum(self._files.rows("depth_diff", stream.symbol, ["is_snapshot"])[0]).as_py() or 0)
                for stream in streams.values()
            )
        if (left := self._files.count(self.reading.channel) - counted) != 0:
            findings.unheld += left
            findings.note(f"{left} rows of symbols that were not recorded")
        for symbol, rows in self._gaps.items():
            if symbol in symbols and self.reading.proof == "time":
                findings.gaps += len(rows)
                continue
            for row in rows:
                findings.false += findings.note(f"{symbol}: a gap where nothing was recorded: {row}")
