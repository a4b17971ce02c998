"""The collector: one process that records one exchange (or a shard of it) into its own journal.

    main(config, "binance_futures", instance="a", shard="0/2", duration=60.0)

SIGINT and SIGTERM stop it gracefully, SIGHUP reads the configuration anew without losing a frame.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import Callable, Iterable
from typing import Any

import uvloop

from collectors.accounts import Accounts
from collectors.alarms import Alarms
from collectors.books import Books
from collectors.feed import Feed
from collectors.health import Health, port_of
from collectors.host import environment, ntp_offset
from collectors.listings import Listings
from collectors.logs import configure_logging
from collectors.persistence import Persistence
from collectors.recorder import Recorder, StreamState
from collectors.slot import Opener, Slot
from collectors.timekeeping import Timekeeper
from collectors.universe import BUSY_SYMBOLS, Shard, Universe
from collectors.watchdog import Watchdog
from depthvault import exchanges
from depthvault.clock import Clock, SystemClock, datetime_from_ns
from depthvault.config import Config, Secrets, load_config
from depthvault.errors import DepthvaultError
from depthvault.exchanges.base import Stream
from depthvault.journal.writer import JournalWriter
from depthvault.pacing import bucket_of
from depthvault.rest.client import RestClient
from depthvault.rest.weight import WeightBudget

LOG = logging.getLogger("depthvault.collector")


class Collector:
    """Records `name` until stopped.

    reload: reads the configuration anew on request. rng: for jitter; seeded, a run can be repeated.
    time_reference: says how far this host's clock is off, None when it cannot; called in a thread. Default: the NTP
    servers of the configuration.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        *,
        instance: str = "a",
        shard: Shard | None = None,
        reload: Callable[[], Config] | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        time_reference: Callable[[], dict[str, Any] | None] | None = None,
    ) -> None:
        self.config = config
        self.name = name
        self.shard = shard or Shard()
        self.writer = self.shard.writer(instance)
        self.layout = config.layout
        self.clock = clock or SystemClock()
        self.rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        self.exchange = exchanges.exchange(name, config.exchanges[name])
        self.port = port_of(config, name, instance, self.shard.index)
        self.started = asyncio.Event()
        """Set when the first subscriptions are under way."""
        self._reload = reload
        self._time_reference = time_reference or (lambda: ntp_offset(self.config.platform.ntp_servers))
        self._alarms = Alarms(self.layout.run / "alerts", name, self.writer, self.clock)
        self._stop = asyncio.Event()
        self._stop_reason = "error"
        self.journal: JournalWriter
        self.recorder: Recorder
        self.books: Books
        self.feed: Feed
        self.client: RestClient
        self.listings: Listings
        self.watchdog: Watchdog
        self.accounts: Accounts

    @property
    def universe(self) -> Universe:
        """What is recorded, the most active symbol first."""
        return self.listings.universe

    def stop(self, reason: str) -> None:
        """Stop gracefully; `reason` goes into the journal's stop row."""
        if not self._stop.is_set():
            self._stop_reason = reason
            self._stop.set()

    def reload(self) -> None:
        """Read the configuration anew, and change symbols and settings without losing what stays."""
        if self._reload is None or not self.started.is_set():
            return
        try:
            config = self._reload()
            self.exchange = exchanges.exchange(self.name, config.exchanges[self.name])
        except DepthvaultError as error:
            LOG.error("the configuration is not taken over: %s", error)
            return
        if config.data_dir != self.config.data_dir or config.journal != self.config.journal:
            LOG.warning("data_dir and journal.* are taken over at the next start only")
        self.config = config
        for part in (self.recorder, self.books, self.watchdog, self.listings, self.timekeeper):
            part.exchange = self.exchange
        self.feed.set_exchange(self.exchange)
        self.accounts.set_exchange(self.exchange)
        self.client.set_exchange(self.exchange)
        self.client.budget.cap = self.exchange.config.weight_cap
        LOG.info("configuration read anew")
        self.listings.refresh.set()

    async def run(self, duration: float | None = None) -> None:
        """Record until `stop`, or for `duration` seconds. Raises what makes going on senseless (VenueError)."""
        self.journal = JournalWriter(self.layout, self.name, self.writer, config=self.config.journal, clock=self.clock)
        try:
            budget = WeightBudget(
                self.layout.run / "weight.sqlite", cap=self.exchange.config.weight_cap, clock=self.clock
            )
            async with RestClient(self.exchange, budget, clock=self.clock) as self.client:
                await self._record(duration)
        except DepthvaultError as error:
            self._stop_reason = type(error).__name__
            raise
        finally:
            self._alarms.tell("stop", f"recording ends: {self._stop_reason}")
            await asyncio.to_thread(self._alarms.flush)
            await asyncio.to_thread(self.journal.close, self._stop_reason)

    async def _record(self, duration: float | None) -> None:
        self.recorder = Recorder(self.exchange, self.journal, self.clock)
        bucket = bucket_of(self.exchange, self.layout)
        opener = Opener(self.exchange, self.recorder, self.clock, self.rng, bucket)
        self.accounts = Accounts(
            self.exchange, self.layout, self.writer, self.config.journal, self.clock, self.rng, bucket, _account_token
        )
        self.books = Books(
            self.exchange, self.recorder, self.client, self.clock, lambda stream: self._resubscribe([stream])
        )
        self.recorder.on_change = self.books.on_change
        self.feed = Feed(self.exchange, self.recorder, opener, self.books.lost)
        self.watchdog = Watchdog(
            self.exchange,
            self.recorder,
            self.clock,
            self._resubscribe,
            self._ask_again,
            self._renew,
            self._connected_slot,
        )
        self.recorder.on_event = self._alarms.note
        self.listings = Listings(
            self.exchange,
            self.recorder,
            self.client,
            self.shard,
            self.layout.run / "universe" / f"{self.name}-{self.writer}.json",
            self._follow,
        )
        self.recorder.on_notice = self.listings.refresh.set
        self.timekeeper = Timekeeper(self.exchange, self.recorder, self.client, self.feed, self._time_reference)
        self.recorder.event("environment", environment())
        self._alarms.tell("start", f"recording begins: {self.journal.path.name}")
        health = Health(self)
        persistence = Persistence(self.journal, self.recorder.counters, self._repeat_opened, self._disk)
        loop = asyncio.get_running_loop()
        works = {
            "persistence": persistence.run(),
            "books": self.books.run(),
            "listings": self.listings.run(),
            "watchdog": self.watchdog.run(),
            "clock": self.timekeeper.run(),
            "health": health.run(),
            "alarms": self._alarms.run(),
        }
        if self.shard.index == 0:  # accounts belong to one shard
            works["accounts"] = self.accounts.run()
        tasks: list[asyncio.Future[Any]] = [loop.create_task(work, name=name) for name, work in works.items()]
        stopping: asyncio.Future[Any] = loop.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait(
                [*tasks, stopping, self.feed.failed], timeout=duration, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                self.stop("duration")
            for ended in done - {stopping}:
                ended.result()  # raises: none of them ends by itself
        finally:
            stopping.cancel()
            # The persistence goes on until the last frame is taken.
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks[1:], return_exceptions=True)
            await self.feed.close("stop")
            self.books.give_up_waiting()
            tasks[0].cancel()
            await asyncio.gather(tasks[0], return_exceptions=True)

    # What is recorded

    def _follow(self, universe: Universe) -> None:
        """Subscribe to `universe`, and to nothing else."""
        ranks = {symbol: rank for rank, symbol in enumerate(universe.symbols)}
        streams = [
            stream
            for stream in self.exchange.streams(universe.instruments)
            if stream.symbol or self.shard.index == 0  # streams of the whole market belong to one shard
        ]
        states = self.recorder.states
        wanted = {stream.name for stream in streams}
        for name in [name for name in states if name not in wanted]:
            del states[name]
        for stream in streams:
            rank = ranks.get(stream.symbol, 0)
            state = states.get(stream.name)
            if state is None:
                state = states[stream.name] = StreamState(stream, notice=stream.channel == "instrument")
            state.rank, state.busy = rank, rank < BUSY_SYMBOLS
            if stream.channel == "depth_diff":
                state.sync = self.books.track(stream, rank)
        for symbol in self.books.books.keys() - ranks.keys():
            self.books.drop(symbol)
        added, removed = self.feed.update(streams)
        if added or removed:
            LOG.info(
                "%d symbols on %d connections: %d streams added, %d removed",
                len(universe.symbols), len(self.feed.slots), len(added), len(removed),
            )  # fmt: skip
        self.started.set()

    # Connections

    def _by_slot(self, streams: Iterable[Stream]) -> dict[Slot, list[Stream]]:
        groups: dict[Slot, list[Stream]] = {}
        for stream in streams:
            if (slot := self.feed.slot_of(stream.name)) is not None:
                groups.setdefault(slot, []).append(stream)
        return groups

    def _resubscribe(self, streams: Iterable[Stream]) -> None:
        for slot, group in self._by_slot(streams).items():
            slot.resubscribe(group)

    def _ask_again(self, streams: Iterable[Stream]) -> None:
        for slot, group in self._by_slot(streams).items():
            slot.subscribe_again(group)

    def _renew(self, stream: Stream) -> None:
        if (slot := self.feed.slot_of(stream.name)) is not None:
            slot.request_roll("stale")

    def _connected_slot(self, stream: Stream) -> Slot | None:
        slot = self.feed.slot_of(stream.name)
        return slot if slot is not None and slot.connections else None

    def _disk(self, refusal: str | None, seconds: float) -> None:
        """Record, and tell, that the disk refuses or takes again. The row waits in memory with the others."""
        if refusal is not None:
            self.recorder.event("flush", {"refused": refusal})
        else:
            self.recorder.event("flush", {"refused_s": round(seconds, 3)})

    def _repeat_opened(self) -> None:
        for slot in self.feed.slots:
            for connection in slot.connections:
                connection.repeat_opened()


def _account_token() -> str | None:
    token = Secrets().lighter_auth_token
    return None if token is None else token.get_secret_value()


async def _run(collector: Collector, duration: float | None) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, collector.stop, "sigterm")
    loop.add_signal_handler(signal.SIGINT, collector.stop, "sigint")
    loop.add_signal_handler(signal.SIGHUP, collector.reload)
    await collector.run(duration)


def main(
    config: Config,
    exchange: str,
    *,
    instance: str = "a",
    shard: str | tuple[int, int] | None = None,
    duration: float | None = None,
    reload: Callable[[], Config] | None = None,
) -> int:
    """Record `exchange` until SIGINT or SIGTERM, or for `duration` seconds. Returns the exit code.

    0: stopped as asked. 1: cannot go on (reconnects exhausted, the venue refuses this host, the journal is locked),
    so that a supervisor acts. shard: `0/2` or (0, 2). reload: reads the configuration anew on SIGHUP (default: as at
    the start). Raises UsageError for a bad `shard`.
    """
    part = Shard(*shard) if isinstance(shard, tuple) else Shard.parse(shard)
    writer = part.writer(instance)
    configure_logging(
        config.layout.logs / f"collector-{exchange}-{writer}.log",
        bytes_per_file=config.platform.log_bytes,
        backups=config.platform.log_backups,
    )

    async def record() -> None:
        collector = Collector(config, exchange, instance=instance, shard=part, reload=reload or load_config)
        await _run(collector, duration)

    try:
        uvloop.run(record())
    except DepthvaultError as error:
        LOG.critical("%s %s: %s", exchange, writer, error)
        return 1
    _seal(config, exchange, writer)
    return 0


def _seal(config: Config, exchange: str, writer: str) -> None:
    """Seal the periods of `writer` that are over; the running one is the sealer's, once it is over too.

    Where a sealer runs there is nothing left to do. What fails here is only told: the journals have everything.
    """
    from depthvault.seal import Sealer  # loads the compiled decoders: not for the hot process's start

    try:
        sealer = Sealer(config.layout, config.archive.seal_grace)
        venue = exchanges.exchange(exchange, config.exchanges[exchange])
        for _, owner, period in sealer.due([exchange], datetime_from_ns(SystemClock().wall_ns())):
            if owner == writer and (receipt := sealer.seal(venue, writer, period)) is not None:
                LOG.info("sealed %s: %d rows", period, sum(file.rows for file in receipt.files))
    except (DepthvaultError, OSError) as error:
        LOG.error("sealing is left to the sealer: %s", error)
