"""A chain that several writers bring is given once, in order, and nothing that is missing goes unsaid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthvault.query.lanes import LATE, ChainLane, Link, StateLane
from depthvault.query.replay import Event, Gap, Notice, Rows, Stream

STREAM = Stream("binance_futures", "depth_diff", "BTCUSDT")
SOURCE = Rows(pa.record_batch({"nothing": pa.array([], pa.int64())}), np.empty(0, np.int64))
WINDOW = 500


class Feed:
    """A lane with writers that tell by turns. Words: `4-6` an event after id 4 up to 6, `=9` a whole book at 9."""

    def __init__(self, *writers: str) -> None:
        self.lane = ChainLane(STREAM, WINDOW)
        self.told = dict.fromkeys(writers, 0)

    def bring(self, writer: str, received: int, *words: str) -> list[str]:
        """`writer` brings events received at `received`, and has told all up to then. Returns what comes out."""
        for word in words:
            start, _, final = word.partition("-")
            whole = word.startswith("=")
            end = int(word[1:]) if whole else int(final)
            link = Link(0, end, whole, end if whole else int(start))
            self.lane.put(Event(STREAM, received, SOURCE, 0), link, writer)
        return self.passes(writer, received)

    def passes(self, writer: str, moment: int) -> list[str]:
        """`writer` has told all that it received up to `moment`."""
        self.told[writer] = max(self.told[writer], moment)
        return self.out()

    def out(self) -> list[str]:
        said = []
        for item in self.lane.take(self.told):
            if isinstance(item, Gap):
                said.append(f"gap {item.last_id}..{item.next_id}")
            elif isinstance(item, Notice):
                assert item.kind == LATE
                said.append(f"late {item.detail['after_id']}-{item.detail['last_id']}")
            else:
                link = self.lane._last
                assert link is not None
                said.append(f"={link.final}" if link.whole else f"{link.start}-{link.final}")
        return said


def test_one_writer_is_waited_for_by_nobody() -> None:
    feed = Feed("a")
    assert feed.bring("a", 10, "4-6", "6-9") == ["4-6", "6-9"]
    assert feed.bring("a", 20, "11-12") == ["gap 9..12", "11-12"]
    assert feed.bring("a", 30, "=20", "20-21") == ["=20", "20-21"]


def test_the_same_event_of_another_writer_is_not_given_again() -> None:
    feed = Feed("a", "b")
    feed.bring("a", 10, "4-6")
    feed.bring("b", 12, "4-6")
    assert feed.passes("b", 600) == ["4-6"]
    assert feed.bring("a", 610, "6-9") == ["6-9"]
    assert feed.bring("b", 612, "6-9", "9-10") == ["9-10"]
    assert feed.bring("a", 620, "9-10") == []


def test_another_writer_closes_a_hole_within_the_window() -> None:
    feed = Feed("a", "b")
    feed.bring("a", 0, "0-1")
    feed.bring("b", 0, "0-1")
    feed.passes("a", 600)
    assert feed.passes("b", 600) == ["0-1"]
    assert feed.bring("a", 700, "2-3") == []
    assert feed.lane.waits_since == 700
    assert feed.bring("b", 710, "1-2", "2-3") == ["1-2", "2-3"]
    assert feed.lane.waits_since is None


def test_a_hole_that_nobody_closes_is_told_when_the_others_have_told_enough() -> None:
    feed = Feed("a", "b")
    feed.bring("a", 0, "0-1")
    feed.bring("b", 0, "0-1")
    feed.passes("a", 600)
    assert feed.passes("b", 600) == ["0-1"]
    assert feed.bring("a", 700, "2-3") == []
    assert feed.passes("b", 700 + WINDOW - 1) == []
    assert feed.passes("b", 700 + WINDOW) == ["gap 1..3", "2-3"]
    assert feed.bring("b", 1300, "1-2", "2-3") == ["late 1-2"], "it is not given out of its order, nor unsaid"
    del feed.told["b"]
    assert feed.bring("a", 1400, "7-8") == ["gap 3..8", "7-8"], "who is gone is not waited for"


def test_whole_books_stand_where_their_id_is() -> None:
    feed = Feed("a", "b")
    feed.bring("a", 0, "0-5")
    feed.bring("b", 0, "0-5")
    feed.passes("a", 600)
    assert feed.passes("b", 600) == ["0-5"]
    assert feed.bring("a", 700, "=8") == [], "b may bring what leads there"
    assert feed.bring("b", 701, "5-8", "8-9") == ["5-8", "=8", "8-9"]
    assert feed.bring("b", 710, "=12") == []
    assert feed.bring("a", 711, "9-14") == ["=12"], "the chain goes on beyond it"
    assert feed.bring("b", 712, "12-14", "=12") == ["12-14", "late 9-14"], "9-12 was in the book alone"
    assert feed.bring("a", 713, "=13") == ["late 13-13"]


def test_batches_that_were_cut_differently_are_joined_without_a_gap() -> None:
    feed = Feed("a", "b")
    feed.bring("a", 0, "0-4")
    feed.bring("b", 0, "0-4")
    feed.passes("a", 600)
    assert feed.passes("b", 600) == ["0-4"]
    assert feed.bring("b", 700, "4-6") == ["4-6"]
    assert feed.bring("a", 701, "4-8") == [], "b may bring what fits exactly"
    assert feed.bring("b", 702, "6-8") == ["6-8"]
    assert feed.bring("a", 703, "6-10") == []
    assert feed.passes("b", 703 + WINDOW) == ["6-10"]


@given(st.data())
def test_every_id_is_given_once_in_order_or_told(data: st.DataObject) -> None:
    """Writers cut one chain as they like and lose what they like; what they bring comes in any interleaving."""
    last = 40

    def cuts(losses: bool) -> list[tuple[int, int]]:
        ends = sorted({*data.draw(st.lists(st.integers(1, last - 1), max_size=12)), last})
        events = list(pairwise([0, *ends]))
        return [each for each in events if not losses or data.draw(st.integers(0, 4))]

    brought = {"a": cuts(True), "b": cuts(True)}
    feed = Feed(*brought)
    queues: dict[str, Sequence[tuple[int, int]]] = dict(brought)
    out: list[str] = []
    while any(queues.values()):
        writer = data.draw(st.sampled_from([name for name, queue in queues.items() if queue]))
        (start, final), queues[writer] = queues[writer][0], queues[writer][1:]
        out += feed.bring(writer, final * data.draw(st.sampled_from([1, 100])), f"{start}-{final}")
    feed.told.clear()
    out += feed.out()

    held: set[int] = set()
    reach = None
    missing = None
    for word in out:
        kind, _, ids = word.rpartition(" ")
        if kind == "late":
            start, final = map(int, ids.split("-"))
            assert not set(range(start + 1, final + 1)) <= held
            continue
        if kind == "gap":
            low, high = map(int, ids.split(".."))
            assert low == reach
            missing = high - 1
            continue
        start, final = map(int, ids.split("-"))
        if reach is not None:
            assert final > reach
            assert start == missing if missing is not None else start <= reach
        missing, reach = None, final
        held |= set(range(start + 1, final + 1))
    lately = [tuple(map(int, word.removeprefix("late ").split("-"))) for word in out if word.startswith("late")]
    for events in brought.values():
        for start, final in events:
            assert set(range(start + 1, final + 1)) <= held or (start, final) in lately


@pytest.mark.parametrize("channel", ["trade", "instrument"])
def test_a_key_counts_once(channel: str) -> None:
    lane = StateLane(Stream("binance_futures", channel, "BTCUSDT"), WINDOW)
    assert [lane.is_new(key, 0) for key in [(1,), (1,), (2,), (2,), (1,)]] == [
        True, False, True, False, channel == "instrument",
    ]  # fmt: skip


def test_keys_are_forgotten_after_ten_minutes() -> None:
    lane = StateLane(Stream("binance_futures", "trade", "BTCUSDT"), WINDOW)
    assert lane.is_new((1,), 0)
    assert not lane.is_new((1,), 600_000_000)
    assert lane.is_new((2,), 600_000_001)
    assert lane.is_new((1,), 600_000_001)
