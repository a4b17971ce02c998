"""Recorded market data goes through journal and seal without losing an event or a digit."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from depthvault.clock import ManualClock, datetime_from_ns
from depthvault.config import Config, JournalConfig
from depthvault.exchanges import exchange
from depthvault.journal import JournalWriter, opened_body
from depthvault.seal import seal_all

RECORDINGS = Path(__file__).parents[4] / "shared" / "data" / "hftbacktest"

pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings are not beside the repository"),
]


decimal = cache(Decimal)


def recorded(*names: str) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """(time of receipt in ns, message, parsed message), in the order received."""
    for name in names:
        with gzip.open(RECORDINGS / name) as file:
            for line in file:
                received, _, body = line.partition(b" ")
                yield int(received), body.strip(), json.loads(body)


def exact(values: list[float]) -> list[Decimal]:
    """The shortest decimals that mean these doubles."""
    return [decimal(repr(value)) for value in values]


def texts(levels: list[list[str]], side: int) -> list[Decimal]:
    return [decimal(level[side]) for level in levels]


def assert_levels(row: dict[str, Any], bids: list[list[str]], asks: list[list[str]]) -> None:
    assert exact(row["bid_prices"]) == texts(bids, 0)
    assert exact(row["bid_sizes"]) == texts(bids, 1)
    assert exact(row["ask_prices"]) == texts(asks, 0)
    assert exact(row["ask_sizes"]) == texts(asks, 1)


@pytest.mark.parametrize(
    ("venue", "symbol", "names"),
    [
        ("binance_futures", "BTCUSDT", ["usdm_btcusdt_20240808.gz"]),
        ("binance_spot", "ETHUSDT", ["spot_ethusdt_20240808.gz", "spot_ethusdt_20240809.gz"]),
    ],
)
def test_every_recorded_value_is_sealed_exactly(tmp_path: Path, venue: str, symbol: str, names: list[str]) -> None:
    config = Config(data_dir=tmp_path)
    line = f"GET {'/fapi/v1' if venue == 'binance_futures' else '/api/v3'}/depth?symbol={symbol}&limit=1000"
    frames: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    clock = ManualClock()
    writer: JournalWriter | None = None
    for received, body, message in recorded(*names):
        clock.wall = received
        if writer is None:
            writer = JournalWriter(config.layout, venue, "a", config=JournalConfig(min_free=0), clock=clock)
            writer.append("opened", 1, "/stream", opened_body())
        writer.rotate_if_due()
        if "stream" in message:
            writer.append("frame", 1, message["stream"], body)
            frames[message["stream"].split("@")[1]].append((received, message["data"]))
        else:
            writer.append_rest(line, body, received - 10**7)
            frames["snapshot"].append((received, message))
    assert writer is not None
    writer.close("duration")

    made = seal_all(
        config.layout, config, {venue: exchange(venue, config.exchanges[venue])}, now=datetime_from_ns(2**62)
    )
    assert all(receipt.complete for receipt in made)
    assert not any(receipt.rejected or receipt.unknown or receipt.inexact or receipt.damage for receipt in made)
    sealed: dict[str, list[pa.Table]] = defaultdict(list)
    for receipt in made:
        for file in receipt.files:
            assert file.late is None
            sealed[file.channel].append(pq.ParquetFile(tmp_path / file.path).read())
    rows = {channel: pa.concat_tables(tables).to_pylist() for channel, tables in sealed.items()}
    counts = {channel: len(found) for channel, found in rows.items() if channel != "collector_event"}
    assert counts == {
        "depth_diff": len(frames["depth"]),
        "trade": len(frames["trade"]),
        "book_ticker": len(frames["bookTicker"]),
        "depth_snapshot": len(frames["snapshot"]),
    }

    for row, (received, data) in zip(rows["depth_diff"], frames["depth"], strict=True):
        assert row["received_time"] == datetime_from_ns(received)
        assert row["event_time"] == datetime_from_ns(data["E"] * 10**6)
        assert (row["symbol"], row["first_update_id"], row["final_update_id"], row["prev_final_update_id"]) == (
            symbol, data["U"], data["u"], data.get("pu"),
        )  # fmt: skip
        assert_levels(row, data["b"], data["a"])
    for row, (received, data) in zip(rows["trade"], frames["trade"], strict=True):
        assert row["received_time"] == datetime_from_ns(received)
        assert row["transaction_time"] == datetime_from_ns(data["T"] * 10**6)
        assert (row["trade_id"], row["is_buyer_maker"]) == (data["t"], data["m"])
        assert exact([row["price"], row["quantity"]]) == [Decimal(data["p"]), Decimal(data["q"])]
    for row, (received, data) in zip(rows["book_ticker"], frames["bookTicker"], strict=True):
        assert row["received_time"] == datetime_from_ns(received)
        assert row["update_id"] == data["u"]
        found = exact([row["bid_price"], row["bid_size"], row["ask_price"], row["ask_size"]])
        assert found == [Decimal(data[key]) for key in "bBaA"]
    for row, (received, data) in zip(rows["depth_snapshot"], frames["snapshot"], strict=True):
        assert row["request_time"] == datetime_from_ns(received - 10**7)
        assert row["last_update_id"] == data["lastUpdateId"]
        assert_levels(row, data["bids"], data["asks"])
