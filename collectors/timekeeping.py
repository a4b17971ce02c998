"""How far this host's clock is off, and how far away the venue is: recorded every ten minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from collectors.feed import Feed
from collectors.recorder import Recorder
from depthvault.errors import MalformedFrameError, RestError
from depthvault.exchanges.base import Exchange
from depthvault.rest.client import RestClient
from depthvault.rest.weight import Priority

INTERVAL = 600.0


@dataclass(eq=False)
class Timekeeper:
    """Writes `clock` events. reference: says how far the clock is off, None when it cannot; called in a thread."""

    exchange: Exchange
    recorder: Recorder
    client: RestClient
    feed: Feed
    reference: Callable[[], dict[str, Any] | None]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            reference = await asyncio.to_thread(self.reference)
            venue = await self._venue_time()
            round_trips = [
                round(connection.round_trip, 6)
                for slot in self.feed.slots
                for connection in slot.connections
                if connection.round_trip
            ]
            detail = {"reference": reference or venue, "venue": venue, "websocket_round_trips_s": round_trips}
            self.recorder.event("clock", detail)
            await asyncio.sleep(INTERVAL)

    async def _venue_time(self) -> dict[str, Any] | None:
        """The venue's clock against ours, halfway through the request; good to some ms, and better than nothing."""
        request = self.exchange.time_request()
        if request is None:
            return None
        try:
            answer = await self.client.get(request, Priority.CATALOGUE, max_wait=60)
            venue_ns = self.exchange.parse_time(answer.body)
        except (RestError, MalformedFrameError) as error:
            self.recorder.refusal(error, "time")
            return None
        ours_ns = (answer.sent_wall_ns + answer.received_wall_ns) // 2
        return {
            "source": self.client.host,
            "offset_s": round((venue_ns - ours_ns) / 1e9, 6),
            "round_trip_s": round(answer.round_trip, 6),
        }
