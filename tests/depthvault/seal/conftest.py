"""A tape: journals written by hand, sealed by the real venues."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from depthvault.clock import ManualClock, ns_from_datetime
from depthvault.config import BinanceSpotConfig, Config, JournalConfig
from depthvault.exchanges import exchange
from depthvault.exchanges.base import Exchange
from depthvault.journal import JournalWriter
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.seal import Receipt, seal

HOUR = Period(datetime(2026, 3, 1, 12, tzinfo=UTC))
GRACE = timedelta(seconds=60)


def at(text: str) -> int:
    """Nanoseconds of a time on the tape's day."""
    return ns_from_datetime(datetime.fromisoformat(f"2026-03-01T{text}+00:00"))


def trade(number: int, event: str, symbol: str = "BTCUSDT") -> bytes:
    ms = at(event) // 1_000_000
    data = {
        "e": "trade", "E": ms, "s": symbol, "t": number, "p": "61837.63000000", "q": f"0.0{number}000000", "T": ms,
        "m": True, "M": True,
    }  # fmt: skip
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": data}, separators=(",", ":")).encode()


def ticker(number: int, symbol: str = "BTCUSDT") -> bytes:
    data = {"u": number, "s": symbol, "b": "1.5", "B": "2", "a": "1.6", "A": "3"}
    return json.dumps({"stream": f"{symbol.lower()}@bookTicker", "data": data}, separators=(",", ":")).encode()


class Tape:
    """Writes journals of one venue and seals them."""

    def __init__(self, root: Path, venue: Exchange, writer: str = "a") -> None:
        self.layout = Layout(root)
        self.venue = venue
        self.writer_name = writer
        self.clock = ManualClock(at("12:00:00"))
        self.config = Config(data_dir=root)

    def begin(self, moment: str, writer: str | None = None, *, exclusive: bool = True) -> JournalWriter:
        self.clock.wall = at(moment)
        return JournalWriter(
            self.layout,
            self.venue.name,
            writer or self.writer_name,
            config=JournalConfig(min_free=0),
            clock=self.clock,
            exclusive=exclusive,
        )

    def seal(self, period: Period = HOUR, *, writer: str | None = None, final: bool = True) -> Receipt:
        receipt = seal(
            self.layout, self.venue, writer or self.writer_name, period, grace=GRACE, final=final
        )  # fmt: skip
        assert receipt is not None
        return receipt

    def rows(
        self, channel: str, period: Period = HOUR, writer: str | None = None, late: Period | None = None
    ) -> pa.Table:
        path = self.layout.live_file(self.venue.name, channel, period, writer or self.writer_name, late)
        return pq.ParquetFile(path).read()

    def ids(self, period: Period = HOUR, late: Period | None = None) -> list[int]:
        ids: list[int] = self.rows("trade", period, late=late).column("trade_id").to_pylist()
        return ids

    def everything(self) -> dict[str, bytes]:
        """Every published file below live/ with its bytes."""
        return {
            path.relative_to(self.layout.root).as_posix(): path.read_bytes()
            for path in sorted(self.layout.live.rglob("*"))
            if path.is_file() and path.suffix in (".parquet", ".json")
        }


def put_trades(writer: JournalWriter, *trades: tuple[int, str, str]) -> None:
    """(id, event time, time of receipt) each."""
    for number, event, received in trades:
        writer.append("frame", 1, "btcusdt@trade", trade(number, event), at(received), 0)


@pytest.fixture
def spot() -> Exchange:
    return exchange("binance_spot", BinanceSpotConfig())


@pytest.fixture
def tape(tmp_path: Path, spot: Exchange) -> Tape:
    return Tape(tmp_path, spot)
