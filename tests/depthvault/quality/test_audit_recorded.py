"""The audit on real messages: from the recorded REST snapshot, whose id lies inside an event, through the diffs.

It is held against books made from the recorded text with dicts alone.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depthvault.book.events import Snapshot, chain_of, levels_of
from depthvault.book.reference import ReferenceBook
from depthvault.config import Config
from depthvault.exchanges import exchange
from depthvault.exchanges.base import Frames
from depthvault.quality.audit import audit

RECORDINGS = Path(__file__).parents[4] / "shared" / "data" / "hftbacktest"

pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not RECORDINGS.exists(), reason=f"no recordings at {RECORDINGS}"),
]


def snapshot(update_id: int, limit: int, bids: list[tuple[float, float]], asks: list[tuple[float, float]]) -> Snapshot:
    sides = [np.array([level[place] for level in side]) for side in (bids, asks) for place in (0, 1)]
    return Snapshot("depth_snapshot", update_id, 0, limit, *sides)


def levels(texts: list[list[str]]) -> list[tuple[float, float]]:
    return [(float(price), float(size)) for price, size in texts]


@pytest.mark.parametrize(
    ("name", "venue"), [("usdm_btcusdt_20240808.gz", "binance_futures"), ("spot_ethusdt_20240808.gz", "binance_spot")]
)
def test_the_recorded_book_is_right(name: str, venue: str) -> None:
    frames, diffs, seed = Frames(), [], None
    with gzip.open(RECORDINGS / name, "rb") as file:
        for line in file:
            _, _, body = line.rstrip(b"\n").partition(b" ")
            if b"@depth" in body[:40]:
                message = json.loads(body)
                diffs.append(message["data"])
                for field, value in (("sequences", len(diffs)), ("received_ns", len(diffs)), ("request_ns", 0),
                                     ("streams", message["stream"]), ("bodies", body)):  # fmt: skip
                    getattr(frames, field).append(value)
            elif not body.startswith(b'{"stream"') and seed is None:
                seed = json.loads(body)
    assert seed is not None
    book, seed_id = ReferenceBook(), int(seed["lastUpdateId"])
    book.apply(levels(seed["bids"]), levels(seed["asks"]))
    first = next(place for place, diff in enumerate(diffs) if diff["u"] > seed_id)
    if venue == "binance_futures":
        assert diffs[first]["U"] < seed_id < diffs[first]["u"], "the recorded snapshot's id lies inside an event"

    snapshots = [snapshot(seed_id, 1000, levels(seed["bids"]), levels(seed["asks"]))]
    for place, diff in enumerate(diffs[first:]):
        half: dict[str, Any] = {"b": diff["b"][::2], "a": diff["a"][::2]}
        if place % 997 == 500 and diff["U"] < diff["u"]:  # in the middle of an event
            book.apply(levels(half["b"]), levels(half["a"]))
            snapshots.append(snapshot(diff["u"] - 1, 1000, book.best_bids(1000), book.best_asks(1000)))
        book.apply(levels(diff["b"]), levels(diff["a"]))
        if place % 997 == 900:
            snapshots.append(snapshot(diff["u"], 1000, book.best_bids(1000), book.best_asks(1000)))
    assert len(snapshots) > 5

    rows = exchange(venue, Config().exchanges[venue]).decode("depth_diff", frames, "a").rows.combine_chunks()
    batch = rows.to_batches()[0]
    outcomes = list(audit(snapshots, chain_of(batch), levels_of(batch, "bid"), levels_of(batch, "ask")))
    assert len(outcomes) == len(snapshots) - 1
    for outcome in outcomes:
        assert outcome.ok, outcome
        assert not outcome.gap_crossed
        assert outcome.matched > 500
    assert sum(outcome.undecidable for outcome in outcomes) > 10
    matched = sum(outcome.matched for outcome in outcomes)
    assert sum(outcome.undecidable for outcome in outcomes) < 0.1 * matched
