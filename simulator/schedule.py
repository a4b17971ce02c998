"""Seeded faults on whole connections: cuts, dead sockets, silent streams, shutdowns."""

from __future__ import annotations

import asyncio
import random

from simulator.binance_venue import BinanceVenue
from simulator.faults import INTERVALS, Rule
from simulator.venue import Venue


class FaultSchedule:
    """Commits the faults of ``--faults`` whose values are mean seconds."""

    def __init__(self, venue: Venue, seed: int) -> None:
        self.venue = venue
        self.rng = random.Random(f"{seed}:{venue.key}:schedule")
        self.means = {name: venue.desk.intervals[name] for name in INTERVALS if venue.desk.intervals[name]}

    @property
    def armed(self) -> bool:
        return bool(self.means)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        due = {name: loop.time() + self.rng.expovariate(1 / mean) for name, mean in self.means.items()}
        while True:
            name = min(due, key=lambda key: due[key])
            await asyncio.sleep(max(0.0, due[name] - loop.time()))
            due[name] = loop.time() + self.rng.expovariate(1 / self.means[name])
            self.commit(name)

    def commit(self, name: str) -> None:
        """Do one fault of this kind now; nothing happens while nobody is connected."""
        venue = self.venue
        connections = sorted(venue.hub.connections)
        if name == "shutdown":
            if isinstance(venue, BinanceVenue):
                venue.server_shutdown(cause="schedule")
        elif not connections:
            return
        elif name == "disconnect":
            venue.disconnect(self.rng.choice(connections), cause="schedule")
        elif name == "half_open":
            venue.go_half_open(self.rng.choice(connections), cause="schedule")
        elif name == "stall":
            heard = sorted(stream for stream in venue.hub.streams if venue.hub.streams[stream].subscribers)
            if heard:
                stream = self.rng.choice(heard)
                until = venue.now_ms() + int(self.rng.uniform(5_000, 20_000))
                venue.desk.arm(venue.hub.streams, stream, Rule("drop", "stall", until_ms=until))
                venue.fault("stall", stream=stream, until_ms=until)
