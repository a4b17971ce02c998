"""Recorded frames become rows whose numbers are the decimals of the text, every one, once, in order."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from depthvault.exchanges.base import Decoded, Frames
from depthvault.schemas import CHANNELS
from tests.depthvault.exchanges.recordings import cryptofeed, frames_of, hftbacktest, lighter, recording, venue

pytestmark = pytest.mark.recorded


def sound(channel: str, decoded: Decoded, frames: Frames) -> list[dict[str, Any]]:
    """The rows, after what must hold of every decoding."""
    assert decoded.rows.schema.equals(CHANNELS[channel].schema, check_metadata=True)
    decoded.rows.validate(full=True)
    assert decoded.rejected == []
    assert decoded.inexact == 0
    index = decoded.index.to_pylist()
    assert index == sorted(index)
    assert len(index) == decoded.rows.num_rows
    received = decoded.rows["received_time"].cast(pa.int64()).to_pylist()
    assert received == [frames.received_ns[position] // 1000 for position in index]
    rows: list[dict[str, Any]] = decoded.rows.to_pylist()
    return rows


def same_decimals(values: list[float], texts: list[str]) -> bool:
    return list(map(Decimal, map(repr, values))) == list(map(Decimal, texts))


@pytest.mark.parametrize(
    ("name", "path", "events"),
    [
        ("binance_futures", "hftbacktest/usdm_btcusdt_20240808.gz", 6551),
        ("binance_spot", "hftbacktest/spot_ethusdt_20240808.gz", 3434),
        ("binance_spot", "hftbacktest/spot_ethusdt_20240809.gz", 3000),
    ],
)
def test_every_depth_frame_of_a_recording_is_exact_and_chained(name: str, path: str, events: int) -> None:
    exchange = venue(name)
    lines = hftbacktest(recording(path))
    frames = frames_of(exchange, [body for _, body in lines], [stamp for stamp, _ in lines])["depth_diff"]
    rows = sound("depth_diff", exchange.decode("depth_diff", frames, "a"), frames)
    assert len(rows) == len(frames.bodies) >= events
    heads = [exchange.head(body) for body in frames.bodies]
    assert all(exchange.continuity.follows(a.final, b) for a, b in itertools.pairwise(heads))
    for row, head, body in zip(rows, heads, frames.bodies, strict=True):
        data = json.loads(body)["data"]
        assert (row["first_update_id"], row["final_update_id"]) == (data["U"], data["u"]) == (head.first, head.final)
        assert row["prev_final_update_id"] == data.get("pu") == head.prev
        assert same_decimals(
            row["bid_prices"] + row["bid_sizes"], [p for p, _ in data["b"]] + [q for _, q in data["b"]]
        )
        assert same_decimals(
            row["ask_prices"] + row["ask_sizes"], [p for p, _ in data["a"]] + [q for _, q in data["a"]]
        )
        assert row["event_time"].timestamp() * 1000 == pytest.approx(data["E"], abs=0.01)


def test_every_ticker_and_trade_of_a_recording_is_exact() -> None:
    exchange = venue("binance_futures")
    lines = hftbacktest(recording("hftbacktest/usdm_btcusdt_20240808.gz"))
    found = frames_of(exchange, [body for _, body in lines], [stamp for stamp, _ in lines])
    tickers = sound("book_ticker", exchange.decode("book_ticker", found["book_ticker"], "a"), found["book_ticker"])
    assert len(tickers) == 66_089
    for row, body in zip(tickers, found["book_ticker"].bodies, strict=True):
        data = json.loads(body)["data"]
        assert row["update_id"] == data["u"]
        prices = [row["bid_price"], row["bid_size"], row["ask_price"], row["ask_size"]]
        assert same_decimals(prices, [data["b"], data["B"], data["a"], data["A"]])
    trades = sound("trade", exchange.decode("trade", found["trade"], "a"), found["trade"])
    assert len(trades) == 21_313
    ids = [row["trade_id"] for row in trades]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    for row, body in zip(trades, found["trade"].bodies, strict=True):
        data = json.loads(body)["data"]
        assert same_decimals([row["price"], row["quantity"]], [data["p"], data["q"]])
        assert (row["is_buyer_maker"], row["trade_type"]) == (data["m"], data["X"])


@pytest.mark.parametrize(("path", "count"), [("spot_ethusdt_20240808.gz", 6106), ("spot_ethusdt_20240809.gz", 8409)])
def test_the_single_trades_of_recorded_spot_count_on_by_one(path: str, count: int) -> None:
    exchange = venue("binance_spot")
    lines = hftbacktest(recording(f"hftbacktest/{path}"))
    found = frames_of(exchange, [body for _, body in lines], [stamp for stamp, _ in lines])["trade"]
    ids = [row["trade_id"] for row in sound("trade", exchange.decode("trade", found, "a"), found)]
    assert ids == list(range(ids[0], ids[0] + count))


@pytest.mark.parametrize(
    ("name", "path", "counts"),
    [
        (
            "binance_spot",
            "cryptofeed/BINANCE.ws.1.0",
            {"depth_diff": 177, "book_ticker": 84, "agg_trade": 2, "kline": 2},
        ),
        (
            "binance_futures",
            "cryptofeed/BINANCE_FUTURES.ws.1.0",
            {"depth_diff": 764, "book_ticker": 613, "agg_trade": 91, "kline": 67},
        ),
    ],
)
def test_frames_of_2021_decode(name: str, path: str, counts: dict[str, int]) -> None:
    exchange = venue(name)
    found = frames_of(exchange, list(cryptofeed(recording(path))))
    assert {channel: len(frames.bodies) for channel, frames in found.items()} == counts
    for channel, frames in found.items():
        rows = sound(channel, exchange.decode(channel, frames, "a"), frames)
        closed = [body for body in frames.bodies if channel != "kline" or json.loads(body)["data"]["k"]["x"]]
        assert len(rows) == len(closed)
        for row, body in zip(rows, closed, strict=True):
            assert row["symbol"] == json.loads(body)["data"]["s"]


def test_rest_books_of_2021_decode() -> None:
    exchange = venue("binance_spot")
    lines = recording("cryptofeed/BINANCE.http.0.0").read_text().splitlines()
    frames = Frames(source="rest")
    for line in lines:
        address, arrow, rest = line.partition(" -> ")
        if arrow and "/depth?" in address:
            frames.streams.append("GET /api/v3/depth?" + address.partition("?")[2])
            frames.bodies.append(rest.partition(": ")[2].encode())
            frames.received_ns.append(1_634_000_001_000_000_000)
            frames.request_ns.append(1_634_000_000_000_000_000)
    assert frames.bodies
    rows = sound("depth_snapshot", exchange.decode("depth_snapshot", frames, "rest-host"), frames)
    for row, stream, body in zip(rows, frames.streams, frames.bodies, strict=True):
        answer = json.loads(body)
        assert row["symbol"] in stream
        assert row["last_update_id"] == answer["lastUpdateId"] == exchange.parse_snapshot_id(body)
        assert f"limit={row['limit']}" in stream
        assert same_decimals(row["bid_prices"], [price for price, _ in answer["bids"]])
        assert same_decimals(row["ask_sizes"], [size for _, size in answer["asks"]])


def test_catalogues_of_2021_decode() -> None:
    exchange = venue("binance_spot")
    body = next(
        line.partition(" -> ")[2].partition(": ")[2].encode()
        for line in recording("cryptofeed/BINANCE.0").read_text().splitlines()
        if "exchangeInfo" in line
    )
    listed = {one.symbol: one for one in exchange.parse_catalogue(body)}
    assert len(listed) == 1695
    usdt = [one for one in listed.values() if one.quote == "USDT" and one.status == "TRADING"]
    assert (len(usdt), sum(one.trading for one in usdt)) == (315, 275), "spot trading is not allowed in all of them"
    assert (listed["BTCUSDT"].tick_size, listed["BTCUSDT"].lot_size) == ("0.01000000", "0.00001000")
    frames = Frames(
        [0, 1], [1, 2], [1, 2], ["GET /api/v3/exchangeInfo"] * 2, [body, body.replace(b"TRADING", b"HALT", 1)]
    )
    decoded = exchange.decode("instrument", frames, "a")
    assert decoded.rejected == []
    assert decoded.rows.num_rows == 1695 + 1, "the second answer changes one symbol"


def test_frames_of_2026_decode() -> None:
    futures, spot = venue("binance_futures"), venue("binance_spot")
    usdm = recording("binance_captured_2026/usdm_ws_frames.jsonl").read_bytes().splitlines()
    coinm = recording("binance_captured_2026/coinm_ws_frames.jsonl").read_bytes().splitlines()
    for exchange, bodies, counts in (
        (
            futures,
            usdm,
            {"agg_trade": 2, "book_ticker": 2, "depth_partial": 2, "mark_price": 3, "kline": 0, "liquidation": 1},
        ),
        (futures, coinm, {"depth_diff": 1, "mark_price": 1}),
        (
            spot,
            recording("binance_captured_2026/spot_ws_frames.jsonl").read_bytes().splitlines(),
            {"depth_diff": 2, "depth_partial": 1, "book_ticker": 1},
        ),
    ):
        found = frames_of(exchange, bodies)
        rows = {
            channel: sound(channel, exchange.decode(channel, frames, "a"), frames) for channel, frames in found.items()
        }
        assert {channel: len(each) for channel, each in rows.items()} == counts
        for channel in ("depth_diff", "depth_partial"):
            for row, body in zip(rows.get(channel, ()), found[channel].bodies if channel in found else (), strict=True):
                data = json.loads(body)["data"]
                assert same_decimals(row["bid_prices"], [price for price, _ in data.get("b", data.get("bids"))])
                assert same_decimals(row["ask_sizes"], [size for _, size in data.get("a", data.get("asks"))])


def test_the_recorded_lighter_chain_decodes_and_chains() -> None:
    exchange, symbols = lighter()
    bodies = recording("lighter_captured/order_book_crv_20260729.jsonl").read_bytes().splitlines()
    frames = frames_of(exchange, bodies, symbols=symbols)["depth_diff"]
    rows = sound("depth_diff", exchange.decode("depth_diff", frames, "a"), frames)
    assert [row["symbol"] for row in rows] == ["CRV"] * 7
    assert [row["is_snapshot"] for row in rows] == [True] + [False] * 6
    assert rows[0]["prev_final_update_id"] is None
    assert [row["prev_final_update_id"] for row in rows[1:]] == [row["final_update_id"] for row in rows[:-1]]
    for row, body in zip(rows, bodies, strict=True):
        state = json.loads(body)["order_book"]
        assert same_decimals(row["bid_prices"], [level["price"] for level in state["bids"]])
        assert same_decimals(row["bid_sizes"], [level["size"] for level in state["bids"]])
        assert same_decimals(row["ask_prices"], [level["price"] for level in state["asks"]])
        assert same_decimals(row["ask_sizes"], [level["size"] for level in state["asks"]])
    heads = [exchange.head(body) for body in bodies]
    assert all(exchange.continuity.follows(a.final, b) for a, b in itertools.pairwise(heads))


def test_the_recorded_lighter_hole_is_a_gap_although_offsets_jump_everywhere() -> None:
    exchange, _ = lighter()
    bodies = recording("lighter_captured/order_book_eth_20260728_snapshot_truncated.jsonl").read_bytes().splitlines()
    heads = [exchange.head(body) for body in bodies]
    chained = [exchange.continuity.follows(a.final, b) for a, b in itertools.pairwise(heads)]
    assert chained == [True, True, True, False]


def test_recorded_lighter_trades_and_liquidations_are_kept_apart() -> None:
    exchange, symbols = lighter()
    bodies = recording("lighter_captured/trades.jsonl").read_bytes().splitlines()
    frames = frames_of(exchange, bodies, symbols=symbols)["trade"]
    trades = sound("trade", exchange.decode("trade", frames, "a"), frames)
    forced = sound("liquidation", exchange.decode("liquidation", frames, "a"), frames)
    assert [row["trade_type"] for row in trades] == ["trade", "trade", "trade", "liquidation", "trade"]
    assert len({row["trade_id"] for row in trades}) == 5
    assert [(row["trade_id"], row["side"], row["price"], row["quantity"]) for row in forced] == [
        (26218621834, "SELL", 0.20039, 8215.3)
    ]


def test_recorded_lighter_market_stats_convert_percent_per_hour_to_a_fraction() -> None:
    exchange, symbols = lighter()
    bodies = recording("lighter_captured/control_and_other.jsonl").read_bytes().splitlines()
    found = frames_of(exchange, [*bodies, *bodies], symbols=symbols)
    assert set(found) == {"book_ticker", "mark_price"}
    marks = sound("mark_price", exchange.decode("mark_price", found["mark_price"], "a"), found["mark_price"])
    assert [(row["symbol"], row["mark_price"], row["funding_rate"]) for row in marks[:2]] == [
        ("ETH", 1914.32, -0.000012),
        ("GOOGL", 332.8, 0.000004),
    ]
    interest = exchange.decode("open_interest", found["mark_price"], "a").rows.to_pylist()
    assert interest[0]["quote_value"] == Decimal("86574362.97212000")
    assert interest[0]["open_interest"] is None
    funding = exchange.decode("funding_rate", found["mark_price"], "a").rows.to_pylist()
    assert [(row["symbol"], row["funding_rate"], row["interval_hours"]) for row in funding] == [
        ("ETH", -0.000011, 1),
        ("GOOGL", 0.000004, 1),
    ], "each settlement once, however often it is repeated"
