"""The past comes as it came in, and says what is missing where it is missing."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from depthvault.errors import UsageError
from depthvault.query import Event, Gap, Notice, Stream, Vault

from .recording import HOUR_10, Recording, diff, snapshot, table, trades

END = HOUR_10 + timedelta(hours=1)
DEPTH, TRADE = "binance_spot/depth_diff/BTCUSDT", "binance_spot/trade/BTCUSDT"


def at(seconds: float) -> datetime:
    return HOUR_10 + timedelta(seconds=seconds)


def note(kind: str, seconds: float, **detail: object) -> dict[str, object]:
    return {
        "received_time": at(seconds), "event_time": None, "symbol": "", "instance": "a", "source": "stream",
        "exchange": "binance_spot", "kind": kind, "channel": None, "connection": 1, "detail": json.dumps(detail),
    }  # fmt: skip


def told(vault: Vault, *streams: str) -> list[str]:
    """What a replay gives, in short."""
    words = []
    for item in vault.replay(streams, HOUR_10, END):
        if isinstance(item, Event):
            key = "final_update_id" if item.stream.channel == "depth_diff" else "trade_id"
            words.append(f"{item.stream.channel} {item[key]}")
        elif isinstance(item, Gap):
            words.append(f"gap {item.last_id} {item.next_id}")
        else:
            assert isinstance(item, Notice)
            words.append(f"{item.kind} {item.detail.get('code', '')}".strip())
    return words


def test_streams_are_merged_by_receipt_with_gaps_and_disconnects_in_band(vault: Vault, recording: Recording) -> None:
    recording.seal(
        HOUR_10,
        "a",
        {
            "depth_diff": table(
                "depth_diff",
                [
                    diff(1, 4, at(0.5), [], []),
                    diff(5, 6, at(1.5), [], []),
                    diff(9, 9, at(3.5), [], []),
                    diff(10, 10, at(3.6), [], []),
                ],
            ),
            "trade": trades(100, HOUR_10, 5),
            "collector_event": table(
                "collector_event", [note("disconnect", 2.5, code=1006), note("connect", 3.2), note("flush", 3.3)]
            ),
        },
    )
    assert told(vault, DEPTH, TRADE) == [
        "trade 100", "depth_diff 4", "trade 101", "depth_diff 6", "trade 102", "disconnect 1006", "trade 103",
        "connect", "gap 6 9", "depth_diff 9", "depth_diff 10", "trade 104",
    ]  # fmt: skip


def test_a_bridged_event_comes_before_its_successor_and_is_no_gap(vault: Vault, recording: Recording) -> None:
    late = diff(5, 6, at(3), [], [], instance="b")
    rows = [diff(1, 4, at(1), [], []), late, diff(7, 8, at(2), [], []), diff(9, 9, at(4), [], [])]
    recording.seal(HOUR_10, "a", {"depth_diff": table("depth_diff", rows)})
    assert told(vault, DEPTH) == [f"depth_diff {n}" for n in (4, 6, 8, 9)]
    received = [item.received_time for item in vault.replay([DEPTH], HOUR_10, END) if isinstance(item, Event)]
    assert received == [at(1), at(3), at(3), at(4)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([diff(0, 9, at(1), [], [], prev=5), diff(0, 12, at(2), [], [], prev=9)], []),
        ([diff(0, 9, at(1), [], [], prev=5), diff(0, 12, at(2), [], [], prev=10)], [(9, 11)]),
        ([diff(0, 9, at(1), [], [], prev=5), diff(0, 5, at(2), [], [], prev=4, epoch=1)], [(9, 5)]),
        ([diff(0, 9, at(1), [], [], prev=5), diff(0, 50, at(2), [], [], prev=0, is_snapshot=True)], []),
    ],
    ids=["whole", "hole", "ids begun anew", "whole book"],
)
def test_gaps_follow_the_chain_of_the_venue(
    vault: Vault, recording: Recording, rows: list[dict[str, object]], expected: list[tuple[int, int]]
) -> None:
    recording.seal(HOUR_10, "a", {"depth_diff": table("depth_diff", rows)})
    gaps = [item for item in vault.replay([DEPTH], HOUR_10, END) if isinstance(item, Gap)]
    assert [(gap.last_id, gap.next_id) for gap in gaps] == expected


def test_a_gap_is_found_across_batches(vault: Vault, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(vault), "arrow", lambda self, query: self.sql(query).to_arrow_reader(7))
    kept = [n for n in range(1, 60) if n not in (14, 15, 28)]
    recording.seal(HOUR_10, "a", {"depth_diff": table("depth_diff", [diff(n, n, at(n / 10), [], []) for n in kept])})
    words = told(vault, DEPTH)
    assert [word for word in words if word.startswith("gap")] == ["gap 13 16", "gap 27 29"]
    assert [word for word in words if not word.startswith("gap")] == [f"depth_diff {n}" for n in kept]


def test_many_streams_stay_in_order_whatever_the_batches(
    vault: Vault, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(vault), "arrow", lambda self, query: self.sql(query).to_arrow_reader(5))
    rng = np.random.default_rng(2)
    symbols = ["BTCUSDT", "ETHUSDT", "币安人生USDT"]
    parts = []
    for symbol in symbols:
        start = HOUR_10 + timedelta(milliseconds=int(rng.integers(0, 900)))
        parts.append(trades(0, start, 40, symbol=symbol))
    recording.seal(HOUR_10, "a", {"trade": pa.concat_tables(parts)})
    events = list(vault.replay([("binance_spot", "trade", symbol) for symbol in symbols], HOUR_10, END))
    assert len(events) == 120
    received = [item.received for item in events]
    assert received == sorted(received)
    again = list(vault.replay([("binance_spot", "trade", symbol) for symbol in symbols], HOUR_10, END))
    assert [(item.stream, item.received) for item in again] == [(item.stream, item.received) for item in events]  # type: ignore[union-attr]


def test_an_event_gives_columns_levels_and_all_of_itself(vault: Vault, recording: Recording) -> None:
    whole = snapshot(10, at(1), [(100.0, 1.5), (99.0, 2.0)], [(101.0, 3.0)])
    recording.seal(HOUR_10, "a", {"depth_snapshot": table("depth_snapshot", [whole])})
    (event,) = vault.replay([Stream("binance_spot", "depth_snapshot", "BTCUSDT")], HOUR_10, END)
    assert isinstance(event, Event)
    assert event["last_update_id"] == 10
    prices, sizes = event.levels("bid")
    assert (prices.tolist(), sizes.tolist()) == ([100.0, 99.0], [1.5, 2.0])
    assert event.as_dict() == {"exchange": "binance_spot", **whole}
    with pytest.raises(KeyError):
        event["nothing"]


@pytest.mark.parametrize(
    "stream", ["trade", "binance_spot/trade", "binance_spot/trades/BTCUSDT", "x/trade/BTCUSDT", "//"]
)
def test_a_stream_that_is_none_is_named(vault: Vault, stream: str) -> None:
    with pytest.raises(UsageError):
        list(vault.replay([stream], HOUR_10, END))
    with pytest.raises(UsageError, match="at least one"):
        list(vault.replay([], HOUR_10, END))


def test_a_symbol_may_hold_a_slash() -> None:
    assert Stream.parse("lighter/trade/SKY/USDC") == Stream("lighter", "trade", "SKY/USDC")
