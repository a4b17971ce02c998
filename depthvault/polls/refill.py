"""Refilling what can be fetched again: missing aggregated trades by id, missing candles by time.

A hole is a row of `gaps` with the status `open`. The answers are journaled and marked `refill`; the sealer puts each
row into the period of its own time, and compaction makes a new generation in which the gap is `refilled`. Books cannot
be fetched again: their gaps stay declared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from depthvault.archive import log
from depthvault.archive.manifest import ArchiveState
from depthvault.clock import Clock, SystemClock, datetime_from_ns
from depthvault.config import Config
from depthvault.durable import write_atomic
from depthvault.exchanges import exchange as venue
from depthvault.exchanges.base import Exchange, Request
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.polls.round import Polled, Round
from depthvault.quality.steps import interval_us
from depthvault.rest.weight import Priority

REACH = timedelta(hours=47)
"""How far back: futures serve aggregated trades of the last 48 hours only (documented)."""

PAGE = 1000
MOST_REQUESTS = 400
"""Requests of one run; what is left waits for the next one. Their weight is taken from what is spare."""

_LONGEST_WAIT = 900.0
"""Seconds for the weight of one hole."""

_PATIENCE = timedelta(hours=3)
"""What was asked for is not asked for again before the archive has had time to take it in."""


@dataclass(frozen=True, slots=True, order=True)
class Hole:
    """What is missing: trades `first` to `last` by id, or candles of `series` that open within [first, last] (ms)."""

    channel: str
    symbol: str
    series: str
    first: int
    last: int

    @property
    def key(self) -> str:
        return f"{self.channel} {self.symbol} {self.series} {self.first}-{self.last}"

    def requests(self, exchange: Exchange) -> list[Request]:
        """What fetches it; empty where the venue has it no more."""
        found: list[Request | None] = []
        if self.channel == "agg_trade":
            for first in range(self.first, self.last + 1, PAGE):
                found.append(exchange.refill_trades(self.symbol, first, min(PAGE, self.last - first + 1)))
        else:
            step_ms = (interval_us(self.series) or 60_000_000) // 1000
            for first in range(self.first, self.last + 1, PAGE * step_ms):
                last = min(self.last, first + PAGE * step_ms - 1)
                found.append(exchange.refill_candles(self.symbol, self.series, first, last))
        return [request for request in found if request is not None]


def hole_of(row: dict[str, Any]) -> Hole | None:
    """The hole that a row of `gaps` tells of; None when nothing can be fetched for it."""
    if row["status"] != "open":
        return None
    if row["channel"] == "agg_trade" and row["last_id"] is not None and row["first_id"] is not None:
        return Hole("agg_trade", row["symbol"], "", row["last_id"] + 1, row["first_id"] - 1)
    if row["channel"] == "kline":
        detail = json.loads(row["detail"])
        step = interval_us(detail.get("series", ""))
        if step is not None:
            first, last = detail["last_us"] + step, detail["next_us"] - 1
            return Hole("kline", row["symbol"], detail["series"], first // 1000, last // 1000)
    return None


def open_holes(layout: Layout, state: ArchiveState, exchange: str, since: datetime) -> list[Hole]:
    """The holes that the archive declares in periods from `since` on, each once. Reads only `gaps` files."""
    holes = set()
    for (kind, name, channel, label), entry in state.current.items():
        if kind != "hour" or name != exchange or channel not in ("agg_trade", "kline"):
            continue
        if Period.parse(label, layout.period).end < since:
            continue
        for file in state.files_of(entry.unit):
            path = layout.archived(file.path)
            if file.table == "gaps" and path.exists():
                rows = pq.read_table(path, partitioning=None).to_pylist()
                holes |= {hole for row in rows if (hole := hole_of(row)) is not None}
    return sorted(holes)


async def refill(config: Config, name: str, *, clock: Clock | None = None) -> Polled:
    """Fetch again what the archive declares as missing and the venue still has, for one venue, and journal it.

    Holes that were asked for lately are left out, so that a second run asks nothing. When the run is used up or the
    venue refuses, the rest waits for the next one.
    """
    clock = clock or SystemClock()
    exchange = venue(name, config.exchanges[name])
    now = datetime_from_ns(clock.wall_ns())
    memory = _Memory(config.layout.run / "polls" / f"refilled-{name}.json", now)
    holes = open_holes(config.layout, log.load(config.layout), name, now - REACH)
    async with Round(config, exchange, "refill", clock, priority=Priority.BACKFILL, source="refill") as round_:
        left = MOST_REQUESTS
        for hole in memory.unasked(holes):
            # A hole that is too large for one run becomes smaller, and is then another one.
            requests = hole.requests(exchange)[:left]
            left -= len(requests)
            if requests and await round_.ask(requests, max_wait=_LONGEST_WAIT):
                memory.asked(hole)
    memory.keep()
    return round_.polled


class _Memory:
    """Which holes were asked for, and when."""

    def __init__(self, path: Path, now: datetime) -> None:
        self._path = path
        self._now = now
        known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self._known = {key: at for key, at in known.items() if now - datetime.fromisoformat(at) < _PATIENCE}

    def unasked(self, holes: Iterable[Hole]) -> list[Hole]:
        return [hole for hole in holes if hole.key not in self._known]

    def asked(self, hole: Hole) -> None:
        self._known[hole.key] = self._now.isoformat()

    def keep(self) -> None:
        write_atomic(self._path, json.dumps(self._known, indent=0, sort_keys=True, ensure_ascii=False).encode())
