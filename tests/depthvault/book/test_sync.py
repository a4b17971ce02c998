from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthvault.book.sync import BookSync, Outcome, State
from depthvault.config import BinanceFuturesConfig, BinanceSpotConfig
from depthvault.exchanges.base import Continuity, Exchange, Head, Seed
from depthvault.exchanges.binance_futures import BinanceFutures
from depthvault.exchanges.binance_spot import BinanceSpot

RECORDINGS = Path(__file__).resolve().parents[4] / "shared" / "data" / "hftbacktest"
SECOND = 1_000_000_000
GRACE = 3 * SECOND
SPOT, FUTURES = BinanceSpot.continuity, BinanceFutures.continuity


class NonceChain(Continuity):
    """As on Lighter: each update names the nonce that it follows."""

    def follows(self, previous_final: int, event: Head) -> bool:
        return event.prev == previous_final

    def precedes_snapshot(self, last_update_id: int, event: Head) -> bool:
        return event.final <= last_update_id

    def joins(self, last_update_id: int, event: Head) -> bool:
        return event.prev == last_update_id

    def snapshot_too_old(self, last_update_id: int, first_buffered: Head) -> bool:
        return last_update_id < (first_buffered.prev or 0)


def spot(first: int, final: int, ms: int = 0) -> Head:
    return Head(first, final, None, event_ms=ms)


def futures(first: int, final: int, prev: int, ms: int = 0) -> Head:
    return Head(first, final, prev, event_ms=ms)


def rest(continuity: Continuity) -> BookSync:
    return BookSync(continuity, Seed.REST, grace_ns=GRACE)


class TestSeeding:
    def test_spot_joins_an_event_that_contains_the_next_id(self) -> None:
        sync = rest(SPOT)
        for event in (spot(1, 5), spot(6, 9), spot(10, 12)):
            assert sync.receive(event, 0) is None
        assert sync.snapshot(7).outcome is Outcome.LIVE
        assert sync.state is State.LIVE
        assert sync.receive(spot(13, 13), 0) is None

    def test_spot_snapshot_at_the_end_of_an_event_joins_the_next_one(self) -> None:
        """Seen in a recording of ETHUSDT: u == L, and the next event begins at L + 1."""
        sync = rest(SPOT)
        sync.receive(spot(1, 5), 0)
        assert sync.snapshot(5).outcome is Outcome.LIVE
        assert sync.receive(spot(6, 8), 0) is None
        assert sync.state is State.LIVE

    def test_futures_joins_an_event_that_contains_the_snapshot(self) -> None:
        sync = rest(FUTURES)
        sync.receive(futures(100, 150, 90), 0)
        sync.receive(futures(160, 3400, 150), 0)
        assert sync.snapshot(2798).outcome is Outcome.LIVE
        assert sync.receive(futures(3500, 3600, 3400), 0) is None
        assert sync.gaps == 0

    def test_futures_accepts_an_event_whose_predecessor_is_the_snapshot(self) -> None:
        sync = rest(FUTURES)
        assert sync.snapshot(150).outcome is Outcome.LIVE
        assert sync.receive(futures(160, 170, 150), 0) is None
        assert sync.state is State.LIVE

    @pytest.mark.parametrize(
        ("continuity", "event", "last"), [(SPOT, spot(10, 12), 8), (FUTURES, futures(100, 120, 95), 90)]
    )
    def test_snapshot_before_the_stream_is_too_old_and_the_buffer_is_kept(
        self, continuity: Continuity, event: Head, last: int
    ) -> None:
        sync = rest(continuity)
        sync.receive(event, 0)
        assert sync.snapshot(last).outcome is Outcome.TOO_OLD
        assert sync.wants_seed
        assert sync.snapshot(event.first).outcome is Outcome.LIVE
        assert not sync.wants_seed

    def test_quiet_symbol_is_live_at_its_snapshot_without_any_event(self) -> None:
        sync = rest(SPOT)
        assert sync.snapshot(40).outcome is Outcome.LIVE
        assert sync.state is State.LIVE
        assert sync.receive(spot(38, 40), 0) is None, "still contained in the snapshot"
        assert sync.receive(spot(41, 41), 0) is None
        assert sync.state is State.LIVE

    def test_snapshot_that_the_stream_then_passes_by_is_fetched_again(self) -> None:
        sync = rest(SPOT)
        sync.snapshot(40)
        change = sync.receive(spot(45, 50), 0)
        assert change is not None
        assert change.outcome is Outcome.TOO_OLD
        assert sync.wants_seed
        assert sync.gaps == 0, "nothing that was received is missing"
        assert sync.snapshot(47).outcome is Outcome.LIVE

    def test_empty_new_book_answers_minus_one_and_is_fetched_again_once_events_come(self) -> None:
        sync = rest(FUTURES)
        assert sync.snapshot(-1).outcome is Outcome.LIVE
        change = sync.receive(futures(10, 12, 8), 0)
        assert change is not None
        assert change.outcome is Outcome.TOO_OLD

    def test_forgetting_the_oldest_events_makes_a_snapshot_too_old_never_wrong(self) -> None:
        sync = BookSync(SPOT, Seed.REST, grace_ns=GRACE, capacity=3)
        for number in range(1, 11):
            sync.receive(spot(number, number), 0)
        assert sync.snapshot(5).outcome is Outcome.TOO_OLD
        assert sync.snapshot(8).outcome is Outcome.LIVE


class TestGaps:
    def live(self) -> BookSync:
        sync = rest(SPOT)
        sync.receive(spot(1, 5), 0)
        sync.snapshot(5)
        return sync

    def test_late_frame_within_the_grace_closes_the_gap(self) -> None:
        sync = self.live()
        opened = sync.receive(spot(8, 9), 0)
        assert opened is not None
        assert opened.outcome is Outcome.OPENED
        assert sync.state is State.GAP
        assert sync.receive(spot(10, 10), SECOND) is None
        assert sync.due(2 * SECOND) is None
        closed = sync.receive(spot(6, 7), 2 * SECOND)
        assert closed is not None
        assert closed.outcome is Outcome.CLOSED
        assert (sync.state, sync.final, sync.gaps) == (State.LIVE, 10, 0)
        assert sync.due(10 * SECOND) is None

    def test_after_the_grace_the_gap_is_declared_with_its_ids_and_a_new_seed_is_wanted(self) -> None:
        sync = self.live()
        sync.receive(spot(8, 9), 0)
        change = sync.due(GRACE)
        assert change is not None
        assert (change.outcome, change.breaks) == (Outcome.GAP, ((5, 8),))
        assert sync.state is State.SEEDING
        assert sync.snapshot(8).outcome is Outcome.LIVE, "events behind the gap were kept"
        assert sync.receive(spot(10, 11), GRACE) is None

    def test_younger_gap_keeps_its_own_grace(self) -> None:
        sync = self.live()
        sync.receive(spot(8, 9), 0)
        sync.receive(spot(20, 21), 2 * SECOND)
        change = sync.due(GRACE)
        assert change is not None
        assert change.breaks == ((5, 8),)
        assert sync.state is State.GAP
        assert sync.receive(spot(10, 19), 4 * SECOND) is not None
        assert sync.gaps == 1

    def test_break_after_a_lost_connection_needs_no_grace(self) -> None:
        sync = self.live()
        sync.interrupted()
        change = sync.receive(spot(9, 9), 0)
        assert change is not None
        assert change.outcome is Outcome.GAP

    def test_reconnect_without_loss_is_no_gap(self) -> None:
        sync = self.live()
        sync.interrupted()
        assert sync.receive(spot(6, 9), 0) is None
        assert sync.state is State.LIVE

    def test_duplicates_of_an_overlapping_connection_change_nothing(self) -> None:
        sync = self.live()
        for event in (spot(6, 7), spot(6, 7), spot(1, 5), spot(8, 8), spot(6, 7)):
            assert sync.receive(event, 0) is None
        assert (sync.duplicates, sync.final, sync.gaps) == (3, 8, 0)

    def test_old_ids_with_new_times_are_a_restart_of_the_venue_not_duplicates(self) -> None:
        sync = rest(SPOT)
        sync.receive(spot(1000, 1005, ms=1_000_000), 0)
        sync.snapshot(1005)
        assert sync.receive(spot(3, 4, ms=1_000_900), 0) is None
        change = sync.receive(spot(5, 6, ms=1_006_000), 0)
        assert change is not None
        assert change.outcome is Outcome.RESTART
        assert sync.snapshot(6).outcome is Outcome.LIVE


class TestInBand:
    def sync(self) -> BookSync:
        return BookSync(NonceChain(), Seed.IN_BAND, grace_ns=GRACE)

    def test_updates_before_the_first_whole_book_are_ignored(self) -> None:
        sync = self.sync()
        assert sync.receive(futures(5, 6, 4), 0) is None
        assert sync.state is State.UNSEEDED
        change = sync.receive(Head(6, 6, None, is_snapshot=True), 0)
        assert change is not None
        assert change.outcome is Outcome.LIVE
        assert sync.receive(futures(7, 8, 6), 0) is None
        assert sync.state is State.LIVE

    def test_gap_wants_a_new_whole_book_and_ignores_updates_until_it_comes(self) -> None:
        sync = self.sync()
        sync.receive(Head(6, 6, None, is_snapshot=True), 0)
        sync.receive(futures(9, 10, 8), 0)
        change = sync.due(GRACE)
        assert change is not None
        assert change.breaks == ((6, 8),)
        assert sync.wants_seed
        assert sync.receive(futures(11, 12, 10), GRACE) is None
        assert sync.wants_seed
        sync.receive(Head(12, 12, None, is_snapshot=True), GRACE)
        assert sync.receive(futures(13, 14, 12), GRACE) is None
        assert sync.state is State.LIVE

    def test_whole_book_of_an_overlapping_connection_that_lags_is_a_duplicate(self) -> None:
        sync = self.sync()
        sync.receive(Head(6, 6, None, is_snapshot=True), 0)
        sync.receive(futures(7, 8, 6), 0)
        assert sync.receive(Head(6, 6, None, is_snapshot=True), 0) is None
        assert sync.final == 8
        assert sync.receive(futures(9, 9, 8), 0) is None


# Against a brute-force model


@dataclass(frozen=True)
class Feed:
    """The true events of one symbol and what becomes of each on its way.

    fates: 0 arrives, 1 arrives twice, 2 is lost, 3.. arrives so many events late.
    """

    heads: list[Head]
    fates: list[int]

    def arrivals(self) -> list[tuple[int, int]]:
        """(step, index) in the order of arrival."""
        found: list[tuple[int, int]] = []
        for index, fate in enumerate(self.fates):
            if fate != 2:
                found.append((index + (fate if fate > 2 else 0), index))
            if fate == 1:
                found.append((index + 1, index))
        return sorted(found)


@st.composite
def feeds(draw: st.DrawFn, chained: bool) -> Feed:
    count = draw(st.integers(3, 60))
    heads: list[Head] = []
    last = draw(st.integers(0, 10_000))
    for number in range(count):
        hole = draw(st.integers(0, 5)) if chained else 0
        first = last + 1 + hole
        final = first + draw(st.integers(0, 4))
        heads.append(Head(first, final, last if chained else None, event_ms=1_000_000 + 100 * number))
        last = final
    fate = st.one_of(st.just(0), st.just(0), st.just(0), st.integers(0, 8))
    return Feed(heads, [draw(fate) for _ in range(count)])


@settings(max_examples=250, deadline=None)
@given(data=st.data(), chained=st.booleans())
def test_claims_agree_with_a_brute_force_model(data: st.DataObject, chained: bool) -> None:
    """Gaps are declared exactly where events are missing for good, and a live book has all events since its seed."""
    feed = data.draw(feeds(chained))
    heads = list(feed.heads)
    for _ in range(60):  # calm at the end, so that all is settled
        last = heads[-1]
        heads.append(
            Head(last.final + 1, last.final + 1, last.final if chained else None, event_ms=1_000_000 + 100 * len(heads))
        )
    feed = Feed(heads, feed.fates + [0] * 60)
    sync = rest(FUTURES if chained else SPOT)
    received: set[int] = set()
    declared: list[tuple[int, int]] = []
    seeded_at: int | None = None
    arrivals = feed.arrivals()
    start = arrivals[0][1]
    for step in range(len(heads) + 10):
        now = step * SECOND // 10
        changes = [sync.due(now)]
        for _, index in [each for each in arrivals if each[0] == step]:
            received.add(index)
            changes.append(sync.receive(heads[index], now))
        for change in changes:
            if change is not None and change.outcome is Outcome.GAP:
                declared.extend(change.breaks)
        if sync.wants_seed and data.draw(st.integers(0, 3)) == 0:
            # The venue's book lags the stream by up to 6 events, and may stand inside an event.
            at = heads[max(0, min(step, len(heads) - 1) - data.draw(st.integers(0, 6)))]
            snapshot = data.draw(st.integers(at.first, at.final))
            if sync.snapshot(snapshot).outcome is Outcome.LIVE:
                seeded_at = snapshot
        if sync.state is State.LIVE and seeded_at is not None and sync.final is not None:
            needed = {i for i, head in enumerate(heads) if seeded_at < head.final <= sync.final}
            assert needed <= received, "a live book misses an event"
    lost = [i for i, fate in enumerate(feed.fates) if fate == 2 and i > start]
    runs = [i for i in lost if i - 1 not in lost]
    assert len(declared) == sync.gaps == len(runs)
    for last_id, first_id in declared:
        before = next(i for i, head in enumerate(heads) if head.final == last_id)
        assert before + 1 in lost
        after = next(i for i in range(before + 1, len(heads)) if i not in lost)
        assert first_id == (heads[after].prev if chained else heads[after].first)
    if sync.wants_seed:
        assert sync.snapshot(heads[-1].final).outcome is Outcome.LIVE
    assert sync.state is State.LIVE


# Against recordings


def recorded(name: str) -> Iterator[bytes]:
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"no recording {path.name}")
    with gzip.open(path, "rb") as file:
        for line in file:
            yield line.partition(b" ")[2].rstrip(b"\n")


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("venue", "files"),
    [
        (BinanceFutures(BinanceFuturesConfig(depth_speed="0ms")), ["usdm_btcusdt_20240808.gz"]),
        (BinanceSpot(BinanceSpotConfig()), ["spot_ethusdt_20240808.gz", "spot_ethusdt_20240809.gz"]),
    ],
    ids=["futures", "spot"],
)
def test_recordings_seed_once_and_have_no_gap(venue: Exchange, files: list[str]) -> None:
    sync = rest(venue.continuity)
    depth = snapshots = 0
    for body in (line for name in files for line in recorded(name)):
        if body.startswith(b'{"lastUpdateId"'):
            assert sync.snapshot(venue.parse_snapshot_id(body)).outcome is Outcome.LIVE
            snapshots += 1
        elif b"@depth" in body[:40]:
            head = venue.head(body)
            data = json.loads(body)["data"]
            assert (head.first, head.final, head.prev) == (data["U"], data["u"], data.get("pu"))
            assert sync.receive(head, depth) is None
            depth += 1
    assert snapshots == 1
    assert (sync.events, sync.gaps, sync.duplicates, sync.state) == (depth, 0, 0, State.LIVE)


@pytest.mark.recorded
def test_each_missing_recorded_event_is_found() -> None:
    venue = BinanceFutures(BinanceFuturesConfig(depth_speed="0ms"))
    heads = [venue.head(body) for body in recorded("usdm_btcusdt_20240808.gz") if b"@depth" in body[:40]][:400]
    for missing in range(20, 380, 7):
        sync = BookSync(venue.continuity, Seed.REST, grace_ns=0)
        sync.snapshot(heads[10].final)
        changes = [sync.receive(head, n) for n, head in enumerate(heads) if n != missing and n > 10]
        found = [each for each in changes if each is not None and each.outcome is Outcome.GAP]
        late = sync.due(10**9)
        assert [each.breaks for each in [*found, *([late] if late else [])]] == [
            ((heads[missing - 1].final, heads[missing].final),)
        ]
