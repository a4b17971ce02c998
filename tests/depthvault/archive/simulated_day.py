"""A day of a simulated market, recorded by two writers a venue into real journals, faster than time passes.

The simulator's markets leap by `STEP_MS` at a time; what it would write to a socket goes byte for byte into a
`JournalWriter` whose clock is told. What goes wrong is drawn from a seed and kept: it is half of the oracle, the
simulator's ledger is the other half.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from depthvault.clock import ManualClock
from depthvault.config import Config
from depthvault.exchanges import exchange as exchange_named
from depthvault.exchanges.base import Exchange, Stream
from depthvault.journal import Batch, JournalWriter, closed_body, opened_body, read, subscribed_body
from simulator.hub import Connection
from simulator.testing import Running
from simulator.venue import Venue

STEP_MS = 500
HOUR_MS = 3_600_000
FLUSH_MS = 8_000
SNAPSHOT_MS = 120_000
DELAY_MS = {"a": 4, "b": 9}
_CLOSE_REASON = {"disconnect": ("network", 1006), "roll": ("roll", 1000)}


@dataclass(frozen=True, slots=True)
class Outage:
    """When a writer could not have what was sent, and why. Simulated time, ms."""

    venue: str
    writer: str
    since_ms: int
    until_ms: int
    cause: str


@dataclass(slots=True)
class Listened:
    """When a connection (`wire`: its number at the simulator) was up by its writer's clock (ns)."""

    writer: str
    wire: int
    streams: tuple[Stream, ...]
    start_ns: int
    end_ns: int = 0


@dataclass(slots=True)
class _Link:
    number: int
    route: str
    wire: Connection
    streams: tuple[Stream, ...]
    listened: Listened
    last_ns: int = 0


class Recorder:
    """One writer of one venue: what a collector writes into its journal, without its sockets."""

    def __init__(self, sim: Running, config: Config, venue: str, writer: str, catalogue: bytes) -> None:
        self.venue: Venue = sim.control.venue(venue)
        self.exchange: Exchange = exchange_named(venue, config.exchanges[venue])
        self.writer = writer
        self.layout, self._journal_config = config.layout, config.journal
        self.offset_ms = 0
        self.listened: list[Listened] = []
        self._clock = ManualClock()
        self._catalogue = catalogue
        symbols = config.exchanges[venue].symbols
        chosen = [one for one in self.exchange.parse_catalogue(catalogue) if one.symbol in symbols]
        self._routes: dict[str, list[Stream]] = defaultdict(list)
        for stream in self.exchange.streams(chosen):
            self._routes[stream.route].append(stream)
        self._links: list[_Link] = []
        self._numbers = 0
        self._flushed_ms = 0
        self._journal: JournalWriter | None = None

    @property
    def running(self) -> bool:
        return self._journal is not None

    @property
    def connected(self) -> bool:
        return bool(self._links)

    def at(self, now_ms: int) -> None:
        """What the simulator said up to `now_ms` arrives."""
        self._clock.wall = (now_ms + DELAY_MS[self.writer] + self.offset_ms) * 1_000_000
        self._clock.monotonic = now_ms * 1_000_000
        journal = self._journal
        if journal is None:
            return
        if journal.rotate_if_due():
            for link in self._links:
                names = [stream.name for stream in link.streams]
                journal.append("opened", link.number, link.route, opened_body(names, continues=True))
        for link in self._links:
            self._take(link)
        if now_ms - self._flushed_ms >= FLUSH_MS:
            journal.flush()
            self._flushed_ms = now_ms

    def _take(self, link: _Link) -> None:
        frames, link.wire.out = link.wire.out, []
        assert self._journal is not None
        if frames:
            link.last_ns = self._clock.wall_ns()
        for frame in frames:
            size = frame[1]
            body = frame[{126: 4, 127: 10}.get(size, 2) :]
            self._journal.append("frame", link.number, self.exchange.classify(body).stream, body)

    def start(self) -> None:
        self._journal = JournalWriter(
            self.layout, self.exchange.name, self.writer, config=self._journal_config, clock=self._clock
        )
        line = self.exchange.catalogue_request().line
        self._journal.set_catalogue(line, self._catalogue, self._clock.wall_ns())
        self.connect()

    def connect(self) -> None:
        """Open a connection for each route, beside those that are there."""
        assert self._journal is not None
        for route, streams in self._routes.items():
            self._numbers += 1
            wire = self.venue.hub.open(route, combined=self.exchange.name != "lighter")
            names = [stream.name for stream in streams]
            listened = Listened(self.writer, wire.id, tuple(streams), self._clock.wall_ns())
            self.listened.append(listened)
            self._links.append(_Link(self._numbers, route, wire, tuple(streams), listened))
            if self.exchange.acknowledges:
                self._journal.append("opened", self._numbers, route, opened_body(names))
                self.venue.hub.subscribe(wire, names, lambda name: True)
            else:
                self._journal.append("opened", self._numbers, route, opened_body())
                for name in names:
                    self.venue.subscribe(wire, name)  # type: ignore[attr-defined]
                self._journal.append("event", self._numbers, "subscribe", subscribed_body(names))

    def disconnect(self, cause: str = "disconnect", links: int | None = None) -> None:
        """The first `links` connections end (all, without)."""
        assert self._journal is not None
        gone, self._links = self._links[:links], self._links[len(self._links[:links]) :]
        initiator, code = _CLOSE_REASON[cause]
        for link in gone:
            self._take(link)
            link.listened.end_ns = self._clock.wall_ns()
            clean = cause != "disconnect"
            if not clean:
                link.listened.end_ns = link.last_ns or link.listened.start_ns  # it may have been dead since
            self._journal.append("closed", link.number, "", closed_body(code, cause, initiator, clean=clean))
            self.venue.disconnect(link.wire.id)

    @property
    def routes(self) -> int:
        return len(self._routes)

    def crash(self) -> None:
        """The process is gone: what it had not flushed with it, and half a record stands at the journal's end."""
        journal = self._journal
        assert journal is not None
        path = journal.path
        heard: dict[int, int] = {}
        for piece in read(path):
            if isinstance(piece, Batch):
                columns = (piece.rows.column(name).to_pylist() for name in ("connection", "kind", "wall_ns"))
                heard |= {number: wall for number, kind, wall in zip(*columns, strict=True) if kind == "frame"}
        for link in self._links:
            link.listened.end_ns = heard.get(link.number, link.listened.start_ns)
            self.venue.disconnect(link.wire.id)
        self._links = []
        journal._file.release()  # what the end of a process does to its locks
        assert journal._writer_lock is not None
        os.close(journal._writer_lock)
        journal._closed = True
        with path.open("rb+") as file:
            head = file.read(60)
            file.seek(0, os.SEEK_END)
            file.write(head)
        self._journal = None

    def stop(self) -> None:
        assert self._journal is not None
        for link in self._links:
            self._take(link)
            link.listened.end_ns = self._clock.wall_ns()
        self._journal.close("sigterm")


@dataclass(order=True, slots=True)
class _Act:
    at_ms: int
    kind: str
    writer: str
    more: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(slots=True)
class Day:
    """What was recorded, and what went wrong on purpose."""

    start_ms: int
    hours: int
    listened: dict[str, list[Listened]] = field(default_factory=lambda: defaultdict(list))
    outages: list[Outage] = field(default_factory=list)
    missed_polls: dict[str, tuple[int, int]] = field(default_factory=dict)
    damaged: list[tuple[str, str, int]] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.hours * HOUR_MS

    def plan(self, chance: random.Random, recorder: Recorder) -> list[_Act]:
        """The faults of a day; those of single minutes stand apart so that each hole has one cause."""
        acts: list[_Act] = []
        depth = [s.name for s in recorder.exchange.streams(_instruments(recorder)) if s.channel == "depth_diff"]
        trades = [s.name for s in recorder.exchange.streams(_instruments(recorder)) if s.channel == "agg_trade"]

        def minute(hour: int, value: float) -> int:
            jitter = chance.randrange(0, 40_000, STEP_MS)
            return self.start_ms + hour * HOUR_MS + round(value * 60_000) + jitter

        for hour in range(self.hours):
            one, other = chance.sample(("a", "b"), 2)
            todo = [
                _Act(minute(hour, 4), "drop", one, {"stream": chance.choice(depth), "count": chance.randint(1, 4)}),
                _Act(minute(hour, 7), "drop", "", {"stream": chance.choice(depth), "count": chance.randint(1, 3)}),
                _Act(minute(hour, 10), "duplicate", other, {"stream": chance.choice(depth), "count": 3}),
                _Act(minute(hour, 12), "late", one, {"stream": chance.choice(depth)}),
                _Act(minute(hour, 14), "malformed", other, {"stream": chance.choice(depth)}),
                *self._break(minute(hour, 17), one, chance.randrange(15_000, 60_000, STEP_MS)),
                *self._break(minute(hour, 22), one, 90_000),
                *self._break(minute(hour, 22) + 50_000, other, 60_000),
                *self._roll(minute(hour, 28), other),
                _Act(crash := minute(hour, 33), "crash", one),
                _Act(crash + 40_000, "start", one),
                _Act(minute(hour, 38), "clock", other, {"ms": (sign := chance.choice((-1, 1))) * 4_000}),
                _Act(minute(hour, 41), "clock", other, {"ms": -sign * 4_000}),
                _Act(minute(hour, 45), "damage", chance.choice(("a", "b"))),
            ]
            if trades:
                todo.append(_Act(minute(hour, 48), "drop", "", {"stream": chance.choice(trades), "count": 2}))
            acts += todo if hour < 2 else chance.sample(todo[:5], 3) + todo[5 : 5 + 6] + todo[11:]
            if hour + 1 < self.hours:  # across the turn of the hour
                turn = self.start_ms + (hour + 1) * HOUR_MS
                if hour % 2 == 0:
                    acts += self._break(turn - 20_000, one, 45_000)
                else:
                    acts += [
                        _Act(turn - 3_000, "clock", one, {"ms": 5_000}),
                        _Act(turn + 10_000, "clock", one, {"ms": -5_000}),
                    ]
        return sorted(acts)

    @staticmethod
    def _break(at_ms: int, writer: str, length: int) -> Iterator[_Act]:
        yield _Act(at_ms, "disconnect", writer)
        yield _Act(at_ms + length, "connect", writer)

    @staticmethod
    def _roll(at_ms: int, writer: str) -> Iterator[_Act]:
        yield _Act(at_ms, "connect", writer)
        yield _Act(at_ms + 10_000, "roll", writer)


def _instruments(recorder: Recorder) -> list[Any]:
    symbols = recorder.exchange.config.symbols
    return [one for one in recorder.exchange.parse_catalogue(recorder._catalogue) if one.symbol in symbols]


async def record(sim: Running, config: Config, venues: tuple[str, ...], start_ms: int, hours: int, seed: int) -> Day:
    """Let `hours` pass and record them."""
    day = Day(start_ms, hours)
    async with aiohttp.ClientSession() as session:
        desks = [await _Desk.open(sim, config, venue, day, seed, session) for venue in venues]
        for now_ms in range(start_ms + STEP_MS, day.end_ms, STEP_MS):
            sim.simulator.leap(now_ms)
            for desk in desks:
                await desk.step(now_ms)
            if now_ms % 600_000 == 0:
                sim.control.flush_truth()
        for desk in desks:
            desk.close()
    for venue, writer, at_ms in day.damaged:
        _flip(config, venue, writer, at_ms, day)
    return day


class _Desk:
    """One venue: its two writers, its polls, and what happens to them."""

    def __init__(self, sim: Running, config: Config, venue: str, day: Day, session: aiohttp.ClientSession) -> None:
        self.sim, self.config, self.name, self.day, self.session = sim, config, venue, day, session
        self.exchange = exchange_named(venue, config.exchanges[venue])
        self.clock = ManualClock()
        self.poller: JournalWriter | None = None
        self.recorders: dict[str, Recorder] = {}
        self.acts: list[_Act] = []
        self.down: dict[str, tuple[int, str]] = {}

    @classmethod
    async def open(
        cls, sim: Running, config: Config, venue: str, day: Day, seed: int, session: aiohttp.ClientSession
    ) -> _Desk:
        desk = cls(sim, config, venue, day, session)
        catalogue = await desk.get(desk.exchange.catalogue_request())
        desk.recorders = {name: Recorder(sim, config, venue, name, catalogue) for name in DELAY_MS}
        chance = random.Random(f"{seed}:{venue}")
        desk.acts = day.plan(chance, desk.recorders["a"])
        for recorder in desk.recorders.values():
            recorder.at(day.start_ms)
            recorder.start()
        if venue != "lighter":
            desk.clock.wall = day.start_ms * 1_000_000
            desk.poller = JournalWriter(
                config.layout, venue, "rest-day", config=config.journal, clock=desk.clock, exclusive=False
            )
            missed = day.start_ms + HOUR_MS // 2 + chance.randrange(0, 600_000, SNAPSHOT_MS)
            day.missed_polls[venue] = (missed, missed + 5 * SNAPSHOT_MS)
        return desk

    async def get(self, request: Any) -> bytes:
        url = self.sim.rest_url(self.name) + request.path
        async with self.session.get(url, params=list(request.params)) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()

    async def step(self, now_ms: int) -> None:
        while self.acts and self.acts[0].at_ms <= now_ms:
            self._do(self.acts.pop(0), now_ms)
        for recorder in self.recorders.values():
            recorder.at(now_ms)
        if self.poller is not None and now_ms % SNAPSHOT_MS == now_ms // SNAPSHOT_MS % 4 * STEP_MS:
            await self._poll(self.poller, now_ms)

    async def _poll(self, poller: JournalWriter, now_ms: int) -> None:
        self.clock.wall, self.clock.monotonic = now_ms * 1_000_000 + 20_000_000, now_ms * 1_000_000
        poller.rotate_if_due()
        since, until = self.day.missed_polls[self.name]
        if since <= now_ms < until:
            return
        for number, symbol in enumerate(self.config.exchanges[self.name].symbols):
            request = self.exchange.snapshot_request(symbol, 1000)
            body = await self.get(request)
            poller.append_rest(request.line, body, self.clock.wall - 9_000_000, self.clock.wall, request=number)
        poller.flush()

    def _do(self, act: _Act, now_ms: int) -> None:
        day = self.day
        day.kinds[act.kind] += 1
        chosen = self.recorders.get(act.writer)
        if act.kind in ("drop", "duplicate", "late", "malformed"):
            connection = None
            if chosen is not None:
                link = next(link for link in chosen._links if act.more["stream"] in link.wire.names)
                connection = link.wire.id
            self.sim.control.fault(self.name, act.kind, connection=connection, **act.more)
            return
        assert chosen is not None
        if act.kind == "disconnect":
            chosen.disconnect()
            self.down[act.writer] = (now_ms, "disconnect")
        elif act.kind == "roll":
            chosen.disconnect("roll", chosen.routes)
        elif act.kind == "crash":
            chosen.crash()
            self.down[act.writer] = (now_ms - FLUSH_MS - STEP_MS, "crash")
        elif act.kind == "clock":
            chosen.offset_ms += act.more["ms"]
        elif act.kind == "damage":
            day.damaged.append((self.name, act.writer, act.at_ms))
        else:
            chosen.at(now_ms - 1)  # its clock
            if act.kind == "start":
                chosen.start()
            else:
                chosen.connect()
            if act.writer in self.down:
                since, cause = self.down.pop(act.writer)
                day.outages.append(Outage(self.name, act.writer, since, now_ms, cause))

    def close(self) -> None:
        for recorder in self.recorders.values():
            recorder.stop()
            self.day.listened[self.name] += recorder.listened
        if self.poller is not None:
            self.poller.close("stop")


def _flip(config: Config, venue: str, writer: str, at_ms: int, day: Day) -> None:
    """Turn one bit of the record that holds what was received at `at_ms`; frames only, so that no fact is lost."""
    found = None
    for path in config.layout.journal_files(venue, writer):
        for piece in read(path):
            if not isinstance(piece, Batch):
                continue
            walls = piece.rows.column("wall_ns").to_pylist()
            if set(piece.rows.column("kind").to_pylist()) == {"frame"} and walls[0] >= at_ms * 1_000_000:
                found = (path, piece.start, piece.end, walls)
                break
        if found:
            break
    assert found is not None
    path, start, end, walls = found
    _turn_bit(path, (start + end) // 2)
    day.outages.append(Outage(venue, writer, walls[0] // 1_000_000 - 20, walls[-1] // 1_000_000 + 20, "damaged"))


def _turn_bit(path: Path, place: int) -> None:
    with path.open("rb+") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))
