"""Which symbols are recorded now: the venue's catalogue asked every few minutes, and the choice made anew from it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from collectors.recorder import Recorder
from collectors.universe import Shard, Universe, choose
from depthvault.durable import write_atomic
from depthvault.errors import MalformedFrameError, RestError, RestrictedError
from depthvault.exchanges.base import Exchange, Instrument
from depthvault.rest.client import RestClient
from depthvault.rest.weight import Priority

LOG = logging.getLogger("depthvault.collector")

NOTICE_SETTLE = 2.0  # seconds: notices come in bursts, and sometimes before the catalogue
FIRST_WAIT = 5.0
RETRY = (1.0, 60.0)
VOLUME_EVERY = 12  # volumes are asked for at every so many refreshes of the catalogue: they are heavy and change slowly


@dataclass(eq=False)
class Listings:
    """Keeps `universe` equal to what is configured and listed.

    path: where the recorded symbols are told to others (the polls over REST), most active first. follow: called with
    each choice. refresh: set it to have the catalogue asked at once.
    """

    exchange: Exchange
    recorder: Recorder
    client: RestClient
    shard: Shard
    path: Path
    follow: Callable[[Universe], None]
    universe: Universe = field(default_factory=lambda: Universe(()))
    refresh: asyncio.Event = field(default_factory=asyncio.Event)
    _volumes: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Until cancelled. Raises RestrictedError when this host may not ask the venue."""
        refreshes = 0
        first, longest = RETRY
        wait = first
        while True:
            self.refresh.clear()
            try:
                listed = await self._ask_catalogue()
                if refreshes % VOLUME_EVERY == 0:
                    await self._ask_volumes()
            except RestrictedError:
                raise
            except (RestError, MalformedFrameError) as error:
                self.recorder.refusal(error, "catalogue")
                if not self.universe.symbols:
                    self._begin_unlisted()
                await asyncio.sleep(wait)
                wait = min(longest, wait * 2)
                continue
            self._choose(listed)
            await asyncio.to_thread(self._publish)
            refreshes += 1
            wait = first
            try:
                async with asyncio.timeout(self.exchange.config.instrument_interval.total_seconds()):
                    await self.refresh.wait()
                await asyncio.sleep(NOTICE_SETTLE)
            except TimeoutError:
                pass

    async def _ask_catalogue(self) -> list[Instrument]:
        # A ban may last for days: without any symbols yet, do not wait for its end but begin with what is known.
        max_wait = None if self.universe.symbols else FIRST_WAIT
        answer = await self.client.get(self.exchange.catalogue_request(), Priority.CATALOGUE, max_wait=max_wait)
        listed = self.exchange.parse_catalogue(answer.body)
        self.recorder.journal.set_catalogue(
            answer.request.line, answer.body, answer.sent_wall_ns, answer.received_wall_ns
        )
        return listed

    async def _ask_volumes(self) -> None:
        request = self.exchange.volume_request()
        if request is None:
            return
        try:
            answer = await self.client.get(request, Priority.CATALOGUE)
            self._volumes = self.exchange.parse_volumes(answer.body)
        except (RestError, MalformedFrameError) as error:
            if not self._volumes and str(self.exchange.config.symbols).startswith("top:"):
                raise  # without volumes nobody knows the top
            self.recorder.refusal(error, "volumes")

    def _choose(self, listed: list[Instrument]) -> None:
        universe = choose(self.exchange.config, listed, self._volumes, self.shard, set(self.universe.symbols))
        if new := set(universe.missing) - set(self.universe.missing):
            LOG.warning("not listed, so not recorded: %s", ", ".join(sorted(new)))
            self.recorder.event("subscribe", {"streams": [], "active": False, "not_listed": sorted(new)})
        self._follow(universe)

    def _begin_unlisted(self) -> None:
        """Begin without a catalogue, while REST is down: with the symbols named, or those recorded last.

        Where streams are named by market numbers this cannot be done, and nothing is subscribed yet.
        """
        named = self.exchange.config.symbol_list
        symbols = self._published() if named is None else [name for name in named if self.shard.holds(name)]
        if symbols:
            LOG.warning("no catalogue yet: beginning with %d symbols as configured or recorded last", len(symbols))
            self._follow(Universe(tuple(Instrument(symbol, "", True, "", "", "0", "0") for symbol in symbols)))

    def _follow(self, universe: Universe) -> None:
        self.universe = universe
        self.follow(universe)

    def _published(self) -> list[str]:
        try:
            symbols = json.loads(self.path.read_text(encoding="utf-8"))["symbols"]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return [str(symbol) for symbol in symbols]

    def _publish(self) -> None:
        content = json.dumps({"symbols": self.universe.symbols}, ensure_ascii=False)
        try:
            write_atomic(self.path, content.encode() + b"\n")
        except OSError as error:
            LOG.warning("%s: %s", self.path, error.strerror)
