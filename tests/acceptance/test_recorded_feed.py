"""Real recorded feeds go through the real programs: each event arrives once, each number is the text's decimal."""

from __future__ import annotations

import gzip
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.acceptance.programs import RECORDINGS, Site, replayed, simulator, stop, wait_for

pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings are not beside the checkout (../shared/data)"),
]


def recorded(paths: list[Path], stream: str) -> list[dict[str, Any]]:
    """The data of all frames of `stream`, as the files hold them."""
    found = []
    for path in paths:
        with gzip.open(path, "rt") as lines:
            for line in lines:
                frame = json.loads(line.partition(" ")[2])
                if frame.get("stream") == stream:
                    found.append(frame["data"])
    return found


def levels(event: dict[str, Any], key: str) -> list[tuple[Decimal, Decimal]]:
    return [(Decimal(price), Decimal(size)) for price, size in event[key]]


def as_decimals(row: dict[str, Any], side: str) -> list[tuple[Decimal, Decimal]]:
    return [
        (Decimal(repr(price)), Decimal(repr(size)))
        for price, size in zip(row[f"{side}_prices"], row[f"{side}_sizes"], strict=True)
    ]


FEEDS = {
    "binance_futures": ("BTCUSDT", "0ms", ["usdm_btcusdt_20240808.gz"]),
    "binance_spot": ("ETHUSDT", "100ms", ["spot_ethusdt_20240808.gz", "spot_ethusdt_20240809.gz"]),
}
CHANNELS = ["depth_diff", "agg_trade", "trade", "book_ticker", "depth_snapshot"]


def test_recorded_feeds_are_archived_exactly(tmp_path: Path) -> None:
    site = Site(tmp_path)
    paths = {exchange: replayed(files) for exchange, (_, _, files) in FEEDS.items()}
    with simulator(tmp_path, "--replay", *paths["binance_futures"], *paths["binance_spot"], "--speed", "max") as sim:
        site.configure(
            sim,
            {
                exchange: {"symbols": [symbol], "depth_speed": speed, "channels": CHANNELS}
                for exchange, (symbol, speed, _) in FEEDS.items()
            },
            archive={"period": "1m", "seal_grace": "1s"},
        )
        collectors = [site.start("collect", exchange) for exchange in FEEDS]
        for exchange in FEEDS:
            total = sum(gzip.decompress(path.read_bytes()).count(b'"stream"') for path in paths[exchange])
            wait_for(lambda: site.figures(exchange).get("frames", 0) >= total, f"{total} frames arrive")  # noqa: B023
        assert [stop(collector) for collector in collectors] == [0, 0]
    site.sleep_until_over(time.time())
    site.archive()

    for exchange, (symbol, speed, _) in FEEDS.items():
        events = recorded(paths[exchange], f"{symbol.lower()}@depth@{speed}")
        archived = site.data / "archive" / "hour" / f"exchange={exchange}" / "channel=depth_diff"
        rows = [row for path in archived.rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
        rows.sort(key=lambda row: row["final_update_id"])
        assert [row["final_update_id"] for row in rows] == [event["u"] for event in events]
        for row, event in zip(rows, events, strict=True):
            assert row["first_update_id"] == event["U"]
            assert row["prev_final_update_id"] == event.get("pu")
            assert as_decimals(row, "bid") == levels(event, "b")
            assert as_decimals(row, "ask") == levels(event, "a")
        trades = recorded(paths[exchange], f"{symbol.lower()}@trade")
        kept = site.rows(f"SELECT trade_id, price, quantity FROM trade WHERE exchange = '{exchange}' ORDER BY trade_id")
        assert [(row["trade_id"], Decimal(repr(row["price"])), Decimal(repr(row["quantity"]))) for row in kept] == [
            (trade["t"], Decimal(trade["p"]), Decimal(trade["q"])) for trade in trades
        ]
    assert site.rows("SELECT * FROM gaps WHERE channel IN ('depth_diff', 'agg_trade')") == []
    assert "all as recorded" in site.run("verify", "--deep")
