"""Probes of in-band books against the simulated venue: journaled like answers, paced, declared, and judged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from depthvault.archive import log
from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish
from depthvault.archive.verify import verify
from depthvault.config import Config, Secrets
from depthvault.exchanges.lighter_rows import ALL_LEVELS
from depthvault.journal import Kind, parse_body, read_rows
from depthvault.polls.probe import probe
from depthvault.polls.round import Polled, rest_writer
from depthvault.seal import Sealer, recorded_exchanges
from depthvault.seal.sealing import QUIET
from expectations import validate
from simulator.testing import START_MS, Running, running
from tests.collectors.session import caught_up, collecting, configuration, simulated, ticking, until

VENUE = "lighter"
CHANNELS = ("depth_diff", "depth_snapshot", "trade")


def journal(config: Config) -> list[Any]:
    return [row for path in config.layout.journal_files(VENUE, rest_writer()) for row in read_rows(path)]


async def probed(config: Config) -> Polled:
    return await probe(config, VENUE, every=0.02)


async def recorded(tmp_path: Path, sim: Running, wrong: str = "") -> tuple[Config, Polled]:
    """A collector that records throughout, and one probe of each market in the midst of it."""
    config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS)
    async with collecting(config, VENUE) as collector, ticking(sim):
        await until(lambda: collector.books.states()["live"] == 4, "all books are live")
        await until(lambda: collector.recorder.counters.frames > 200, "some hundred frames")
        if wrong:
            sim.control.fault(VENUE, "wrong_book", symbol=wrong)
        polled = await probed(config)
        frames = collector.recorder.counters.frames
        await until(lambda: collector.recorder.counters.frames > frames + 200, "frames after the probe")
    await caught_up(collector, sim)
    return config, polled


def archived(config: Config, table: str, channel: str) -> list[dict[str, Any]]:
    """What the archive says in `table` of `channel`, after every step of archiving."""
    layout, exchanges = config.layout, recorded_exchanges(config)
    sealer = Sealer(layout, config.archive.seal_grace)
    now = datetime.now(UTC) + config.archive.period + config.archive.seal_grace + QUIET
    for name, writer, period in sealer.due(exchanges, max(now, datetime.fromtimestamp(START_MS / 1000, UTC))):
        sealer.seal(exchanges[name], writer, period)
    while units := ready_units(layout, config):
        compact(layout, config, VENUE, units[0].period)
        validate(layout, config, VENUE, units[0].period)
        publish(layout, config, Secrets(_env_file=None, r2_bucket_name=None), units[0])
    assert verify(layout, deep=True).findings == []
    state = log.load(layout)
    return [
        row
        for file in state.files.values()
        if file.table == table and f"channel={channel}/" in file.path
        for row in pq.read_table(layout.archived(file.path), partitioning=None).to_pylist()
    ]


async def test_a_probe_is_journaled_with_its_question_and_becomes_a_whole_book(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config, polled = await recorded(tmp_path, sim)
        truth = sim.truth()
        assert (polled.asked, polled.answered, polled.failures) == (4, 4, {})
        assert polled.cadence == timedelta(hours=1)
        rows = journal(config)
        answers = [row for row in rows if row.kind == Kind.REST]
        assert len(answers) == 4
        assert all(row.stream.startswith("SUBSCRIBE order_book:") for row in answers)
        for row in answers:
            asked = rows[row.sequence - 1]
            assert (asked.kind, asked.stream, asked.connection) == (Kind.SENT, row.stream, row.connection)
            assert asked.wall_ns <= row.wall_ns
        (said,) = (parse_body(row.body) for row in rows if row.stream == "environment")
        assert said["cadence_seconds"] == 3600
        books = archived(config, "depth_snapshot", "depth_snapshot")
        assert len(books) == 4
        for book in books:
            true = truth.book(VENUE, book["symbol"], book["last_update_id"])
            assert book["bid_prices"] == [float(price) for price in true.bids]
            assert book["ask_sizes"] == [float(size) for size in true.asks.values()]
            assert (book["source"], book["limit"], book["transaction_time"]) == ("rest", ALL_LEVELS, None)
            assert book["request_time"] <= book["received_time"]


async def test_the_audit_finds_the_replayed_book_equal_to_what_the_probe_saw(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config, _ = await recorded(tmp_path, sim)
    judged = archived(config, "book_audit", "depth_snapshot")
    assert {row["symbol"] for row in judged} >= {"ETH", "BTC"}
    assert len(judged) == 4
    for row in judged:
        assert (row["missing"], row["extra"], row["different"], row["gap_crossed"]) == (0, 0, 0, False)
        assert row["matched"] > 400, "the whole book, not its top"
        assert row["diffs_applied"] > 0
        assert (row["bid_low"], row["ask_high"]) == (None, None)


async def test_one_wrong_level_is_found_and_its_evidence_kept(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config, _ = await recorded(tmp_path, sim, wrong="BTC")
        (fault,) = [row for row in sim.truth().faults(VENUE) if row["kind"] == "wrong_book"]
    judged = archived(config, "book_audit", "depth_snapshot")
    wrong = {row["symbol"]: row for row in judged if row["different"] + row["missing"] + row["extra"]}
    assert list(wrong) == ["BTC"]
    assert (wrong["BTC"]["different"], wrong["BTC"]["to_update_id"]) == (1, fault["nonce"])
    state = log.load(config.layout)
    entries = [entry for entry in state.current.values() if entry.channel == "depth_snapshot"]
    (incident,) = [conflict for entry in entries for conflict in entry.conflicts]
    assert incident.symbol == "BTC"
    assert f'"bid", {float(fault["price"])}' in incident.kept
    assert "degraded" in {entry.condition for entry in entries}


async def test_in_a_bad_hour_the_audit_accuses_nobody_falsely(tmp_path: Path) -> None:
    """Lost, doubled and late batches make gaps and new books; no level of any book that is compared is wrong."""
    faults = "drop=0.02,duplicate=0.02,nonce_gap=0.01,offset_jump=0.05"
    async with running(simulated(tmp_path, faults=faults)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS)
        async with collecting(config, VENUE) as collector, ticking(sim):
            for _ in range(3):
                frames = collector.recorder.counters.frames
                await until(lambda frames=frames: collector.recorder.counters.frames > frames + 300, "frames")
                assert (await probed(config)).failures == {}
            sim.control.fault(VENUE, "disconnect")
            frames = collector.recorder.counters.frames
            await until(lambda: collector.recorder.counters.frames > frames + 300, "frames after the disconnect")
            assert collector.recorder.counters.gaps > 0
    judged = archived(config, "book_audit", "depth_snapshot")
    assert any(row["gap_crossed"] for row in judged)
    compared = [row for row in judged if not row["gap_crossed"]]
    assert compared
    assert not [row for row in compared if row["missing"] or row["extra"] or row["different"]]


async def test_probes_keep_the_limit_of_the_address_beside_a_collector(tmp_path: Path) -> None:
    """The simulator counts all connections of an address, as the venue does: nobody is refused."""
    async with running(simulated(tmp_path, symbols=11)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS)
        async with collecting(config, VENUE) as collector, ticking(sim):
            await until(lambda: collector.books.states()["live"] > 0, "a book is live")
            polled = await probed(config)
            assert polled.answered == 12
            assert polled.failures == {}
            assert collector.recorder.counters.refused == 0


async def test_refusals_and_lost_connections_are_survived_or_declared(tmp_path: Path) -> None:
    async with running(simulated(tmp_path)) as sim:
        config = configuration(sim, VENUE, tmp_path / "data", channels=CHANNELS, symbols=("ETH", "BTC"))
        async with ticking(sim):
            sim.control.fault(VENUE, "too_many_messages", count=1)
            polled = await probed(config)
            assert (polled.answered, polled.failures) == (2, {})
            sim.control.fault(VENUE, "too_many_messages", count=4)
            polled = await probed(config)
            assert (set(polled.failures), polled.answered) == ({"ETH"}, 1)
        declared = [parse_body(row.body) for row in journal(config) if row.stream == "stale"]
        assert declared
        assert all("30009" in each["reason"] for each in declared)
        assert all(each["channel"] == "depth_snapshot" for each in declared)
