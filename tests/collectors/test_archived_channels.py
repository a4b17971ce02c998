"""What becomes of partial books, candles, mark prices and forced orders, from the wire to the archive.

The collector lives in the simulator's time, which runs many times faster than ours, so that minutes of candles, and
archive periods of a minute, pass within seconds.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import depthvault
from collectors.collector import Collector
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish
from depthvault.clock import datetime_from_ns
from depthvault.config import Config, Secrets
from depthvault.query.vault import Vault
from depthvault.seal import seal_pending
from simulator.config import SimulatorConfig
from simulator.testing import Running, running
from simulator.truth import Event
from tests.collectors.session import collecting, configuration, simulated, subscribed, until

VENUE = "binance_futures"
CHANNELS = ("depth_partial", "kline", "mark_price", "liquidation")
LISTED = "币安人生USDT"
SECONDS = 105  # from START_MS on: the ends of two minutes, the second of which is that of three minutes, too
STEP = 0.1

Row = tuple[Any, ...]


class VenueClock:
    """The simulator's time as a host's clock: it never stands still, as no clock does."""

    def __init__(self, sim: Running) -> None:
        self._venue = sim.simulator.venues[VENUE]
        self._wall_ns = 0

    def wall_ns(self) -> int:
        self._wall_ns = max(self._wall_ns + 1000, self._venue.now_ms() * 1_000_000)
        return self._wall_ns

    def monotonic_ns(self) -> int:
        return self.wall_ns()


def simulator(tmp_path: Path) -> SimulatorConfig:
    return simulated(tmp_path, symbols=2, book_levels=25, changes=1)


async def pass_by(sim: Running, seconds: float) -> None:
    """Let simulated time pass; what is sent is received at once."""
    for _ in range(round(seconds / STEP)):
        sim.control.advance(STEP)
        await asyncio.sleep(0.001)


async def heard(collector: Collector, sim: Running) -> None:
    """Everything that the simulator has generated for the collector's streams has reached it."""
    streams = collector.recorder.states
    await until(
        lambda: all(state.frames >= len(list(sent(sim, name))) for name, state in streams.items()), "all is received"
    )


def sent(sim: Running, stream: str) -> Iterable[Event]:
    """What the simulator generated for a stream."""
    symbol, _, channel = stream.partition("@")
    if stream == "!forceOrder@arr":
        symbol, channel = "", "forceOrder"  # the same events, by symbol
    return sim.truth().events(VENUE, channel, symbol.upper() or None)


def archive(config: Config, sim: Running) -> Vault:
    """Seal and archive everything, as long after the recording as it takes to be due."""
    now = datetime_from_ns(sim.simulator.venues[VENUE].now_ms() * 1_000_000)
    seal_pending(config, now=now + timedelta(minutes=5))
    while units := ready_units(config.layout, config):
        for unit in units:
            compact(config.layout, config, unit.exchange, unit.period)
            publish(config.layout, config, Secrets(_env_file=None), unit)
    return depthvault.open(config.data_dir, config=config, secrets=Secrets(_env_file=None))


def partial_row(d: Mapping[str, Any]) -> Row:
    sides = (tuple(float(level[place]) for level in d[side]) for side in ("b", "a") for place in (0, 1))
    return (d["s"], d["E"], d["T"], d["U"], d["u"], d["pu"], *sides)


def kline_row(d: Mapping[str, Any]) -> Row:
    k = d["k"]
    prices = (float(k[name]) for name in "ohlc")
    volumes = (Decimal(k[name]) for name in "vqVQ")
    return (d["s"], d["E"], k["i"], k["t"], k["T"], *prices, *volumes, k["n"])


def mark_row(d: Mapping[str, Any]) -> Row:
    return (d["s"], d["E"], float(d["p"]), float(d["i"]), float(d["r"]), d["T"])


def liquidation_row(d: Mapping[str, Any]) -> Row:
    o = d["o"]
    numbers = (float(o[name]) for name in ("p", "ap", "q", "z"))
    return (o["s"], d["E"], o["T"], o["S"], o["o"], o["f"], *numbers, o["X"])


ROWS: dict[str, tuple[Callable[[Mapping[str, Any]], Row], str]] = {
    "depth_partial": (
        partial_row,
        """epoch_ms(event_time), epoch_ms(transaction_time), first_update_id, final_update_id, prev_final_update_id,
        bid_prices, bid_sizes, ask_prices, ask_sizes""",
    ),
    "kline": (
        kline_row,
        """epoch_ms(event_time), interval, epoch_ms(open_time), epoch_ms(close_time), open, high, low, close, volume,
        quote_volume, taker_buy_volume, taker_buy_quote_volume, trade_count""",
    ),
    "mark_price": (
        mark_row,
        "epoch_ms(event_time), mark_price, index_price, funding_rate, epoch_ms(next_funding_time)",
    ),
    "liquidation": (
        liquidation_row,
        """epoch_ms(event_time), epoch_ms(transaction_time), side, order_type, time_in_force, price, average_price,
        quantity, filled_quantity, status""",
    ),
}
"""By channel: the row that a payload must become, read plainly; and the same of the archive."""


def generated(sim: Running, channel: str, streams: Iterable[str]) -> list[Row]:
    """The rows that the archive of a channel must hold, by symbol in the order generated."""
    make, _ = ROWS[channel]
    rows: list[Row] = []
    for stream in streams:
        payloads = (json.loads(event.payload) for event in sent(sim, stream))
        rows += [make(payload) for payload in payloads if channel != "kline" or payload["k"]["x"]]
    return sorted(rows, key=lambda row: row[0])


def archived(vault: Vault, channel: str) -> list[Row]:
    """The rows of a channel, by symbol in the order of the archive."""
    _, columns = ROWS[channel]
    order = {"depth_partial": "final_update_id", "kline": "interval, open_time", "mark_price": "event_time"}
    query = f"SELECT symbol, {columns} FROM {channel} ORDER BY symbol, {order.get(channel, 'event_time')}"
    return [
        tuple(tuple(value) if isinstance(value, list) else value for value in row)
        for row in vault.sql(query).fetchall()
    ]


def streams_of(collector: Collector, channel: str) -> list[str]:
    return [name for name, state in collector.recorder.states.items() if state.stream.channel == channel]


def options(**more: Any) -> dict[str, Any]:
    return {"channels": CHANNELS, "kline_intervals": ("1m", "3m"), **more}


def short_periods(config: Config) -> Config:
    """Minutes as archive periods, so that several pass."""
    content = config.model_dump()
    content["archive"] |= {"period": "1m", "seal_grace": "5s"}
    return Config.model_validate(content)


@pytest.mark.parametrize(("levels", "liquidations"), [(20, "all"), (5, "symbol")])
async def test_archive_holds_exactly_what_the_venue_sent(levels: int, liquidations: str, tmp_path: Path) -> None:
    async with running(simulator(tmp_path)) as sim:
        sim.control.fault(VENUE, "list", symbol=LISTED)
        config = short_periods(
            configuration(sim, VENUE, tmp_path / "data", **options(depth_levels=levels, liquidations=liquidations))
        )
        async with collecting(config, VENUE, clock=VenueClock(sim)) as collector:
            await subscribed(collector)
            await pass_by(sim, SECONDS)
            await heard(collector, sim)
            streams = {channel: streams_of(collector, channel) for channel in CHANNELS}
        vault = archive(config, sim)
        assert all(streams.values())
        for channel in CHANNELS:
            expected = generated(sim, channel, streams[channel])
            rows = archived(vault, channel)
            assert len(expected) >= 3
            assert Counter(rows) == Counter(expected), channel
        assert vault.sql("SELECT * FROM gaps").fetchall() == []


async def cut(sim: Running, collector: Collector) -> None:
    """Cut the connections of the collector that came first before a minute ends, and let it back in a while after."""
    await pass_by(sim, 35)
    sim.control.fault(VENUE, "refuse_handshake", status=503, count=1000)
    oldest = sorted(one["connection"] for one in sim.control.status()[VENUE]["connections"])
    for connection in oldest[: len(collector.feed.slots)]:
        sim.control.fault(VENUE, "disconnect", connection=connection)
    await until(lambda: not any(slot.connections for slot in collector.feed.slots), "both are cut")
    await pass_by(sim, 7)
    sim.control.fault(VENUE, "liquidate", symbol=LISTED)
    await pass_by(sim, 3)
    sim.simulator.venues[VENUE].handshake_refusals.clear()
    await subscribed(collector)
    await pass_by(sim, SECONDS - 45)


async def test_what_is_missed_while_nobody_listens_is_declared(tmp_path: Path) -> None:
    async with running(simulator(tmp_path)) as sim:
        sim.control.fault(VENUE, "list", symbol=LISTED)
        config = short_periods(configuration(sim, VENUE, tmp_path / "data", **options()))
        async with collecting(config, VENUE, clock=VenueClock(sim)) as collector:
            await subscribed(collector)
            await cut(sim, collector)
            await pass_by(sim, 1)
            streams = {channel: streams_of(collector, channel) for channel in CHANNELS}
        vault = archive(config, sim)
        for channel in CHANNELS:
            rows = archived(vault, channel)
            missing = Counter(generated(sim, channel, streams[channel])) - Counter(rows)
            assert missing, channel
            assert not Counter(rows) - Counter(generated(sim, channel, streams[channel])), "nothing is invented"
            gaps = vault.sql(
                "SELECT symbol, epoch_ms(start_time), epoch_ms(end_time) FROM gaps "
                f"WHERE channel = '{channel}' AND cause = 'disconnect'"
            ).fetchall()
            for symbol, moment in (row[:2] for row in missing):
                assert any(start <= moment <= end for whose, start, end in gaps if whose in (symbol, "")), (
                    f"{channel}: {symbol}"
                )
            for symbol, moment in (row[:2] for row in rows):
                assert not any(start < moment < end for whose, start, end in gaps if whose in (symbol, "")), channel
        market = vault.sql("SELECT count(*) FROM gaps WHERE channel = 'liquidation' AND symbol = ''").fetchone()
        assert market == (1,), "for symbols that had no other forced order in the period"


async def test_what_one_instance_misses_the_other_brings(tmp_path: Path) -> None:
    async with running(simulator(tmp_path)) as sim:
        sim.control.fault(VENUE, "list", symbol=LISTED)
        config = short_periods(configuration(sim, VENUE, tmp_path / "data", **options()))
        clock = VenueClock(sim)
        async with collecting(config, VENUE, clock=clock) as first:
            await subscribed(first)
            async with collecting(config, VENUE, clock=clock, instance="b") as second:
                await subscribed(second)
                await cut(sim, first)
                await heard(second, sim)
                streams = {channel: streams_of(second, channel) for channel in CHANNELS}
        vault = archive(config, sim)
        for channel in CHANNELS:
            assert Counter(archived(vault, channel)) == Counter(generated(sim, channel, streams[channel])), channel
        assert vault.sql("SELECT * FROM gaps").fetchall() == []
        assert first.recorder.counters.disconnects == 2
