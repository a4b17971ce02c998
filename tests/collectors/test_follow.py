"""What is followed live is what a replay of the same time gives later: events, gaps and notices, in the same order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import depthvault
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish_with
from depthvault.clock import SystemClock
from depthvault.config import Config, Secrets
from depthvault.query import Event, Follow, Gap, Notice, Vault
from depthvault.seal import seal_all
from simulator.testing import running
from tests.collectors.session import collecting, configuration, simulated, ticking, until

HOUR_NS = 3_600_000_000_000
FUTURES = [
    "binance_futures/depth_diff/BTCUSDT", "binance_futures/depth_diff/ETHUSDT", "binance_futures/agg_trade/BTCUSDT",
    "binance_futures/book_ticker/BTCUSDT", "binance_futures/depth_snapshot/BTCUSDT",
]  # fmt: skip


class ShiftedClock(SystemClock):
    """This host's clock, set ahead by `shift_ns`."""

    shift_ns = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.shift_ns


def opened(config: Config) -> Vault:
    config.data_dir.mkdir(exist_ok=True)
    secrets = Secrets.model_construct(r2_bucket_name=None, r2_access_key_id=None, r2_secret_access_key=None)
    return depthvault.open(config.data_dir, config=config, secrets=secrets)


class Heard(list[Any]):
    """What a follower gives, filled by a thread of its own."""

    def __init__(self, follow: Follow) -> None:
        super().__init__()
        self.follow = follow

    def of(self, kind: type) -> list[Any]:
        return [item for item in self if isinstance(item, kind)]

    def notices(self) -> list[str]:
        return [notice.kind for notice in self.of(Notice)]


@contextmanager
def heard(follow: Follow) -> Iterator[Heard]:
    """A follower in a thread; at the end it is stopped, and has given all that it read."""
    found = Heard(follow)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            for item in follow:
                found.append(item)
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        follow.stop()
        thread.join()
        follow.close()
    assert not errors, errors


def told(item: Event | Gap | Notice) -> Any:
    """All that an item says."""
    return (str(item.stream), item.received, item.as_dict()) if isinstance(item, Event) else item


def same(found: list[Any], expected: list[Any]) -> None:
    """Fails showing the first place where they part."""
    for place, (one, other) in enumerate(zip(found, expected, strict=False)):
        assert one == other, (place, found[place - 2 : place + 3], expected[place - 2 : place + 3])
    assert len(found) == len(expected)


def archived(config: Config, at: datetime) -> None:
    """Seal and archive everything there is."""
    seal_all(config.layout, config, now=at)
    while units := ready_units(config.layout, config):
        compact(config.layout, config, units[0].exchange, units[0].period)
        publish_with(config.layout, None, units[0])


async def test_a_gap_a_reconnect_and_a_new_file_are_followed_as_they_are_replayed(tmp_path: Path) -> None:
    venue, clock = "binance_futures", ShiftedClock()
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, venue, tmp_path / "data")
        start = datetime.now(UTC)
        with heard(opened(config).follow(FUTURES, start)) as found:
            async with collecting(config, venue, clock=clock) as collector, ticking(sim):
                await until(lambda: collector.books.states()["live"] == 3, "all books are live")
                sim.control.fault(venue, "drop", stream="btcusdt@depth@100ms")
                await until(lambda: found.of(Gap), "the gap is told in-band")
                sim.control.fault(venue, "disconnect")
                await until(lambda: "disconnect" in found.notices(), "the disconnect is told")
                lost = found.notices().index("disconnect")
                await until(lambda: "connect" in found.notices()[lost:], "and the new connection")
                await until(lambda: collector.books.states()["live"] == 3, "all books are live again")
                clock.shift_ns = HOUR_NS
                await until(lambda: collector.recorder.counters.rotations == 1, "the journal goes on in a new file")
                rotated = len(found)
                await until(lambda: len(found) > rotated + 100, "and is followed there")
            await until(lambda: found.notices()[-1] == "stop", "the end is told")
    end = datetime.now(UTC) + timedelta(hours=2)
    replayed = [told(item) for item in opened(config).replay(FUTURES, start, end)]
    same([told(item) for item in found], replayed)
    gaps = found.of(Gap)
    assert gaps[0].stream.symbol == "BTCUSDT"
    place = found.index(gaps[0])
    assert found[place + 1]["prev_final_update_id"] == gaps[0].next_id - 1
    assert {str(item.stream) for item in found.of(Event)} == set(FUTURES)
    archived(config, end)
    same([told(item) for item in opened(config).replay(FUTURES, start, end)], replayed)


async def test_lighter_is_followed_from_its_middle_and_over_a_gap(tmp_path: Path) -> None:
    """Its frames name markets by number, which what was journaled before has to tell."""
    venue, streams = "lighter", [f"lighter/{name}" for name in ("depth_diff/ETH", "trade/ETH", "mark_price/BTC")]
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, venue, tmp_path / "data", channels=("depth_diff", "trade", "mark_price"))
        async with collecting(config, venue) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] == 4, "all books are live")
            start = datetime.now(UTC)
            with heard(opened(config).follow(streams, start)) as found:
                await until(
                    lambda: {str(one.stream) for one in found.of(Event)} == set(streams), "each stream is heard"
                )
                stream = next(name for name, one in collector.recorder.states.items() if is_book(one, "ETH"))
                sim.control.fault(venue, "drop", stream=stream)
                await until(lambda: found.of(Gap), "the gap is told in-band")
                place = found.index(found.of(Gap)[0])
                await until(lambda: whole_books(found[place:]), "and the whole book that mends it")
    replayed = [told(item) for item in opened(config).replay(streams, start, datetime.now(UTC))]
    same([told(item) for item in found], replayed[: len(found)])
    assert len(found) > 50


def is_book(state: Any, symbol: str) -> bool:
    return state.sync is not None and state.stream.symbol == symbol


def whole_books(items: list[Any]) -> list[Event]:
    books = (item for item in items if isinstance(item, Event) and item.stream.channel == "depth_diff")
    return [book for book in books if book["is_snapshot"]]


def keys(items: list[Any], stream: str) -> list[int]:
    column = {"depth_diff": "final_update_id", "agg_trade": "agg_trade_id", "book_ticker": "update_id"}[
        stream.split("/")[1]
    ]
    return [item[column] for item in items if isinstance(item, Event) and str(item.stream) == stream]


async def test_two_instances_are_followed_as_one(tmp_path: Path) -> None:
    """What one loses the other brings before a gap is told; what both lose is a gap; one that stops leaves no hole."""
    venue = "binance_spot"
    streams = [f"{venue}/{channel}/BTCUSDT" for channel in ("depth_diff", "agg_trade", "book_ticker")]
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, venue, tmp_path / "data")
        start = datetime.now(UTC)
        with heard(opened(config).follow(streams, start, window="2s")) as found:
            async with ticking(sim), collecting(config, venue, instance="b") as second:
                async with collecting(config, venue, instance="a") as first:
                    for collector in (first, second):
                        await until(lambda one=collector: one.books.states()["live"] == 3, "all books are live")  # type: ignore[misc]
                    # New writers are looked for four times a second: before that nobody is waited for.
                    await until(lambda: found.notices().count("start") == 2, "both are followed")
                    for connection in (1, 2):
                        lost = (first.recorder.counters.gaps, second.recorder.counters.gaps)
                        sim.control.fault(venue, "drop", stream="btcusdt@depth@100ms", connection=connection)
                        await until(
                            lambda before=lost: (
                                sum(before) < first.recorder.counters.gaps + second.recorder.counters.gaps
                            ),  # type: ignore[misc]
                            "one instance has a gap",
                        )
                    await until(lambda: found.notices().count("resync") >= 8, "both have mended their book")
                    assert not found.of(Gap), "nobody who follows lost anything"
                    sim.control.fault(venue, "drop", stream="btcusdt@depth@100ms", count=3)
                    await until(lambda: found.of(Gap), "what both lost is told")
                gaps, seen = len(found.of(Gap)), len(found)
                await until(lambda: len(found) > seen + 300, "one instance alone goes on")
                assert len(found.of(Gap)) == gaps
            await until(lambda: found.notices().count("stop") == 2, "the end of both is told")
    assert "late" not in found.notices()
    end = datetime.now(UTC)
    archived(config, end + timedelta(hours=2))
    replayed = list(opened(config).replay(streams, start, end))
    for stream in streams:
        assert keys(found, stream) == keys(replayed, stream)
    assert [(gap.last_id, gap.next_id) for gap in found.of(Gap)] == [
        (item.last_id, item.next_id) for item in replayed if isinstance(item, Gap)
    ]
