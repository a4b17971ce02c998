"""An hour of one futures market in journals, as a collector and the snapshot poll write them, long before now."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from depthvault.clock import ManualClock, ns_from_datetime
from depthvault.config import Config
from depthvault.exchanges import exchange
from depthvault.journal import JournalWriter, closed_body, opened_body
from depthvault.period import Period

VENUE, SYMBOL = "binance_futures", "BTCUSDT"
HOUR = Period(datetime(2026, 10, 5, 10, tzinfo=UTC), timedelta(hours=1))
BOOK, TRADES = "btcusdt@depth@100ms", "btcusdt@aggTrade"
_SECOND = 1_000_000_000


class _Book:
    """Levels by tick of 0.1, and the id of the last change."""

    def __init__(self) -> None:
        self.chance, self.final, self.middle = random.Random(4), 1_000, 600_000
        self.bids = {self.middle - step: 1.0 for step in range(1, 60)}
        self.asks = {self.middle + step: 1.0 for step in range(1, 60)}

    def change(self, sent_ms: int) -> dict[str, Any]:
        before, self.final = self.final, self.final + self.chance.randint(1, 9)
        sides = []
        for side, sign in ((self.bids, -1), (self.asks, 1)):
            tick, size = self.middle + sign * self.chance.randint(1, 30), self.chance.randint(1, 9_999) / 1_000
            side[tick] = size
            sides.append([[f"{tick / 10:.1f}", f"{size:.3f}"]])
        return {
            "e": "depthUpdate", "E": sent_ms, "T": sent_ms, "s": SYMBOL, "U": before + 1, "u": self.final, "pu": before,
            "b": sides[0], "a": sides[1],
        }  # fmt: skip

    def snapshot(self, sent_ms: int) -> dict[str, Any]:
        bids, asks = sorted(self.bids.items(), reverse=True), sorted(self.asks.items())
        return {
            "lastUpdateId": self.final, "E": sent_ms, "T": sent_ms,
            "bids": [[f"{tick / 10:.1f}", f"{size:.3f}"] for tick, size in bids],
            "asks": [[f"{tick / 10:.1f}", f"{size:.3f}"] for tick, size in asks],
        }  # fmt: skip


def record(data_dir: Path) -> None:
    """Journal the hour: a change of the book and a trade every two seconds, and the whole book every minute."""
    config = Config.model_validate({"data_dir": data_dir, "journal": {"min_free": 0}})
    request = exchange(VENUE, config.exchanges[VENUE]).snapshot_request(SYMBOL, 1000).line
    start = ns_from_datetime(HOUR.start)
    clock = ManualClock(start + 1_000_000)
    book = _Book()
    with (
        JournalWriter(config.layout, VENUE, "a", clock=clock, config=config.journal) as collector,
        JournalWriter(config.layout, VENUE, "rest-h", clock=clock, config=config.journal, exclusive=False) as poll,
    ):
        collector.append("opened", 1, "/stream", opened_body([BOOK, TRADES]))
        for number in range(1_800):
            clock.wall = start + number * 2 * _SECOND + 20_000_000
            sent = clock.wall // 1_000_000 - 5
            trade = {
                "e": "aggTrade", "E": sent, "T": sent, "s": SYMBOL, "a": number + 100, "p": "60000.1", "q": "0.250",
                "f": number + 200, "l": number + 200, "m": number % 2 == 0,
            }  # fmt: skip
            for stream, data in ((BOOK, book.change(sent)), (TRADES, trade)):
                body = json.dumps({"stream": stream, "data": data}, separators=(",", ":"))
                collector.append("frame", 1, stream, body.encode())
            if number % 30 == 0:
                poll.append_rest(request, json.dumps(book.snapshot(sent)).encode(), clock.wall - 3_000_000)
        collector.append("closed", 1, "", closed_body(1000, "", "stop", clean=True))
