"""A break is one row, where it was, and no row stands where there was none."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pyarrow as pa
import pytest

from depthvault.archive.manifest import Tail
from depthvault.archive.stitch import stitch
from depthvault.exchanges import channel_of
from depthvault.quality.gaps import Gap, breaks, chain_of, ledger, tail_of
from depthvault.schemas import CHANNELS

DEPTH, AGG = CHANNELS["depth_diff"], CHANNELS["agg_trade"]
BASE = 1_700_000_000_000_000


def depth(
    events: Sequence[tuple[int, int | None, int]],
    instance: str = "a",
    source: str = "stream",
    snapshots: Sequence[int] = (),
    epoch: int = 0,
) -> pa.Table:
    """Rows of (first, previous or None, final) received a millisecond apart."""
    rows = [
        {
            "received_time": BASE + final * 1000, "event_time": BASE + final * 1000, "symbol": "X",
            "instance": instance, "source": source, "transaction_time": None, "first_update_id": first,
            "final_update_id": final, "prev_final_update_id": previous, "is_snapshot": final in snapshots,
            "epoch": epoch, "bid_prices": [1.0], "bid_sizes": [float(final)], "ask_prices": [], "ask_sizes": [],
        }
        for first, previous, final in events
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, DEPTH.schema)


def futures(finals: Sequence[int], previous: int, **options: object) -> pa.Table:
    """A futures chain: each event names the final id of the one before; `first` leaves holes, as the venue does."""
    events = []
    for final in finals:
        events.append((final - 1, previous, final))
        previous = final
    return depth(events, **options)  # type: ignore[arg-type]


def agg(ids: Sequence[int], instance: str = "a", source: str = "stream") -> pa.Table:
    rows = [
        {
            "received_time": BASE + number, "event_time": BASE, "symbol": "X", "instance": instance,
            "source": source, "transaction_time": BASE, "agg_trade_id": number, "first_trade_id": number,
            "last_trade_id": number, "price": 1.0, "quantity": 1.0, "is_buyer_maker": True,
        }
        for number in ids
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, AGG.schema)


def run(channel: str, *parts: pa.Table, tails: dict[str, Tail] | None = None) -> list[Gap]:
    table = pa.concat_tables(parts)
    spec = CHANNELS[channel]
    chosen = table.take(pa.array(stitch(table, spec, {}).chosen))
    writers = {}
    for part in parts:
        own = part.take(pa.array(stitch(part, spec, {}).chosen))
        writers[own.column("instance")[0].as_py()] = own
    gaps, _ = ledger(chosen, spec, writers, tails or {})
    return gaps


def holes(gaps: list[Gap]) -> list[tuple[str, str, int, int]]:
    return [(gap.instance, gap.status, gap.hole.last_id, gap.hole.first_id) for gap in gaps]


def test_an_unbroken_futures_chain_has_no_gap_though_first_ids_leave_holes() -> None:
    assert run("depth_diff", futures([10, 20, 35, 36], previous=5)) == []


def test_a_break_of_a_futures_chain_is_one_row_with_its_ids_and_times() -> None:
    gaps = run("depth_diff", futures([10, 20], 5), futures([50, 60], 40))
    assert holes(gaps) == [("", "lost", 20, 40)]
    assert (gaps[0].hole.start_us, gaps[0].hole.end_us) == (BASE + 20_000, BASE + 50_000)


def test_spot_follows_by_first_id_at_most_one_after_the_last() -> None:
    assert run("depth_diff", depth([(1, None, 4), (5, None, 9), (8, None, 12)])) == []
    assert holes(run("depth_diff", depth([(1, None, 4), (6, None, 9)]))) == [("", "lost", 4, 6)]


def test_the_first_event_ever_is_no_gap_but_one_after_a_known_end_is() -> None:
    assert run("depth_diff", futures([50], 40)) == []
    tails = {"": Tail(BASE, 20), "a": Tail(BASE, 20)}
    assert holes(run("depth_diff", futures([50], 40), tails=tails)) == [("", "lost", 20, 40)]
    assert run("depth_diff", futures([50], 20), tails=tails) == []


def test_an_in_band_snapshot_ends_a_gap_and_is_none_itself() -> None:
    rows = depth([(10, 5, 10), (11, 10, 20), (90, 0, 90), (91, 90, 100)], snapshots=[90])
    assert holes(run("depth_diff", rows)) == [("", "lost", 20, 90)]
    unbroken = depth([(10, 5, 10), (10, 0, 10), (11, 10, 20)], snapshots=[])
    assert run("depth_diff", unbroken) == []


def test_a_snapshot_inside_a_chain_that_goes_on_is_no_gap() -> None:
    chain = depth([(10, 5, 10), (11, 10, 20), (21, 20, 30)])
    snapshot = depth([(25, 0, 25)], snapshots=[25])
    assert run("depth_diff", pa.concat_tables([chain, snapshot])) == []


def test_a_snapshot_at_the_end_of_a_period_is_judged_by_the_next_event() -> None:
    first = chain_of(depth([(10, 5, 10), (30, 0, 30)], snapshots=[30]), DEPTH)
    assert first is not None
    tail = tail_of(first, None)
    assert tail == Tail(BASE + 10_000, 10, 0, 30, BASE + 30_000)
    resumed = chain_of(depth([(31, 30, 40)]), DEPTH)
    quiet = chain_of(depth([(31, 10, 40)]), DEPTH)
    assert resumed is not None
    assert quiet is not None
    (hole,) = breaks(resumed, tail)
    assert (hole.last_id, hole.first_id) == (10, 30)
    assert (hole.start_us, hole.end_us) == (BASE + 10_000, BASE + 30_000), "it ends where the snapshot came"
    assert breaks(quiet, tail) == []


def test_a_writer_that_is_away_over_a_loss_bridges_only_what_another_holds() -> None:
    """`b` ends at 20 and comes back in the next period; `a` loses 30 to 40 meanwhile: nobody has these."""
    a = pa.concat_tables([futures([10, 20, 30], 5), futures([50, 60], 40)])
    b = futures([10, 20], 5, instance="b")
    table = pa.concat_tables([a, b])
    chosen = table.take(pa.array(stitch(table, DEPTH, {}).chosen))
    gaps, tails = ledger(chosen, DEPTH, {"a": a, "b": b}, {})
    assert holes(gaps) == [("", "lost", 30, 40), ("b", "bridged", 20, 30)]
    a, b = futures([70, 80, 90], 60), futures([90], 80, instance="b")
    gaps, _ = ledger(a, DEPTH, {"a": a, "b": b}, tails)
    assert holes(gaps) == [("b", "bridged", 40, 80)]


def test_a_hole_that_another_writer_fills_is_bridged_and_only_that() -> None:
    a = pa.concat_tables([futures([10, 20], 5), futures([50, 60], 40)])
    b = futures([10, 20, 30, 40, 50, 60], 5, instance="b")
    assert holes(run("depth_diff", a, b)) == [("a", "bridged", 20, 40)]


def test_a_hole_of_both_writers_is_lost_once() -> None:
    a = pa.concat_tables([futures([10], 5), futures([50, 60], 40)])
    b = pa.concat_tables([futures([10, 20], 5, instance="b"), futures([60], 50, instance="b")])
    gaps = run("depth_diff", a, b)
    assert holes(gaps) == [("", "lost", 20, 40)]
    assert set(gaps[0].writers) == {"a", "b"}


def test_aggregate_trades_count_by_one_and_can_be_fetched_again() -> None:
    assert run("agg_trade", agg([1, 2, 3])) == []
    assert holes(run("agg_trade", agg([1, 2, 5]))) == [("", "open", 2, 5)]


def test_single_trades_count_by_one_at_a_venue_that_says_so_and_cannot_be_fetched_again() -> None:
    def rows(*ids: int) -> pa.Table:
        told = [row | {"trade_id": row["agg_trade_id"], "trade_type": "trade"} for row in agg(ids).to_pylist()]
        return pa.Table.from_pylist(told, CHANNELS["trade"].schema)

    spot, futures = (channel_of(exchange, "trade") for exchange in ("binance_spot", "binance_futures"))
    whole, writers = rows(1, 2, 3, 6), {"a": rows(1, 2, 3), "b": rows(1, 3, 6)}
    assert holes(ledger(whole, spot, writers, {})[0]) == [("", "lost", 3, 6), ("b", "bridged", 1, 3)]
    assert ledger(whole, futures, writers, {})[0] == []


def test_refilled_trades_close_a_gap_without_hiding_it() -> None:
    assert holes(run("agg_trade", agg([1, 2, 5]), agg([3, 4], "rest-h", "refill"))) == [("", "refilled", 2, 5)]
    partly = run("agg_trade", agg([1, 2, 9]), agg([3, 4], "rest-h", "refill"))
    assert holes(partly) == [("", "open", 4, 9)]


def test_a_hole_that_is_refilled_over_several_periods_is_told_where_the_stream_comes_back() -> None:
    periods = [
        [agg([1, 2]), agg([3, 4], "rest-h", "refill")], [agg([5, 6], "rest-h", "refill")],
        [agg([7], "rest-h", "refill"), agg([8, 9])], [agg([10])],
    ]  # fmt: skip
    found, tails = [], {}
    for parts in periods:
        table = pa.concat_tables(parts)
        chosen = table.take(pa.array(stitch(table, AGG, {}).chosen))
        own = [part for part in parts if part.column("instance")[0].as_py() == "a"]
        gaps, tails = ledger(chosen, AGG, dict(zip("a", own, strict=False)), tails)
        found.append(holes([gap for gap in gaps if not gap.instance]))
    assert found == [[], [], [("", "refilled", 2, 8)], []]
    assert tails.keys() == {"", "a"}, "nothing is remembered any longer than needed"
    # Where some of it could not be refilled, that is open.
    partly = ledger(periods[2][1], AGG, {}, {"": Tail(BASE, 6), "~": Tail(BASE, 2)})[0]
    assert holes(partly) == [("", "open", 6, 8)]


def test_a_restart_of_the_venues_ids_is_unprovable_not_lost() -> None:
    rows = pa.concat_tables([futures([1000, 1010], 990), futures([5, 9], 1, epoch=1)])
    assert holes(run("depth_diff", rows)) == [("", "unprovable", 1010, 1)]


@pytest.mark.parametrize("seed", range(20))
def test_random_losses_are_found_exactly(seed: int) -> None:
    """Whatever two writers lose, the ledger names the events that neither has, and bridges the rest."""
    randomness = random.Random(seed)
    finals, final = [], 0
    for _ in range(200):
        final += randomness.randint(1, 50)
        finals.append(final)
    previous = dict(zip(finals, [0, *finals], strict=False))
    kept = {}
    for name in "ab":
        lost = {
            finals[place + step]
            for place in randomness.sample(range(1, 180), 4)
            for step in range(randomness.randint(1, 8))
        }
        kept[name] = [value for value in finals if value not in lost]
    parts = [depth([(value, previous[value], value) for value in kept[name]], name) for name in "ab"]
    gaps = run("depth_diff", *parts)
    have = set(kept["a"]) | set(kept["b"])
    missing = [value for value in finals if value not in have]
    declared = {
        value
        for gap in gaps
        if gap.status == "lost"
        for value in finals
        if gap.hole.last_id < value <= gap.hole.first_id
    }
    assert declared == set(missing)
    lost_runs = sum(1 for value in missing if previous[value] in have)
    assert sum(gap.status == "lost" for gap in gaps) == lost_runs
    assert all(gap.instance for gap in gaps if gap.status == "bridged")
