"""Streams are named, routed and asked for as the venues want it; a wrong name would be acknowledged and stay silent."""

from __future__ import annotations

import json

import pytest

from depthvault.errors import ConfigError
from depthvault.exchanges.base import Instrument, Stream
from tests.depthvault.exchanges.recordings import venue

CHANNELS = ("depth_diff", "depth_partial", "book_ticker", "agg_trade", "trade", "kline")
MARKET = ("liquidation", "mark_price", "instrument")


def instrument(symbol: str, market_id: int | None = None) -> Instrument:
    return Instrument(symbol, "TRADING", True, symbol[:-4], "USDT", "0.1", "1", market_id)


@pytest.mark.parametrize(
    ("name", "speed", "diff", "partial"),
    [
        ("binance_spot", "100ms", "btcusdt@depth@100ms", "btcusdt@depth20@100ms"),
        ("binance_spot", "1000ms", "btcusdt@depth", "btcusdt@depth20"),
        ("binance_futures", "0ms", "btcusdt@depth@0ms", "btcusdt@depth20@100ms"),
        ("binance_futures", "100ms", "btcusdt@depth@100ms", "btcusdt@depth20@100ms"),
        ("binance_futures", "250ms", "btcusdt@depth", "btcusdt@depth20"),
        ("binance_futures", "500ms", "btcusdt@depth@500ms", "btcusdt@depth20@500ms"),
    ],
)
def test_cadences_have_their_names(name: str, speed: str, diff: str, partial: str) -> None:
    exchange = venue(name, depth_speed=speed, channels=CHANNELS, kline_intervals=("1m", "1h"))
    streams = exchange.streams([instrument("BTCUSDT")])
    assert [stream.name for stream in streams] == [
        diff,
        partial,
        "btcusdt@bookTicker",
        "btcusdt@aggTrade",
        "btcusdt@trade",
        "btcusdt@kline_1m",
        "btcusdt@kline_1h",
    ]
    for stream in streams:
        assert exchange.channel_of(stream.name) == (stream.channel, stream.symbol)


def test_futures_streams_go_to_their_category() -> None:
    exchange = venue("binance_futures", channels=(*CHANNELS, *MARKET))
    routes = {stream.channel: stream.route for stream in exchange.streams([instrument("BTCUSDT")])}
    assert {channel for channel, route in routes.items() if route == "public"} == {
        "depth_diff",
        "depth_partial",
        "book_ticker",
        "trade",
    }
    assert {channel for channel, route in routes.items() if route == "market"} == {"agg_trade", "kline", *MARKET}
    assert exchange.url("market") == "wss://fstream.binance.com/market/stream"
    assert venue("binance_spot", ws_url="ws://127.0.0.1:9/").url("") == "ws://127.0.0.1:9/stream"


def test_streams_of_the_whole_market_are_asked_for_once() -> None:
    exchange = venue("binance_futures", channels=MARKET)
    found = exchange.streams([instrument("BTCUSDT"), instrument("ETHUSDT")])
    assert [stream for stream in found if not stream.symbol] == [
        Stream("!forceOrder@arr", "liquidation", "", "market"),
        Stream("!contractInfo", "instrument", "", "market"),
    ]
    each = venue("binance_futures", channels=("liquidation",), liquidations="symbol")
    assert [stream.name for stream in each.streams([instrument("BTCUSDT")])] == ["btcusdt@forceOrder"]


def test_only_ascii_letters_are_lowered_and_raised() -> None:
    exchange = venue("binance_futures", channels=("book_ticker",))
    names = [stream.name for stream in exchange.streams([instrument("币安人生USDT"), instrument("ÄİUSDT")])]
    assert names == ["币安人生usdt@bookTicker", "Äİusdt@bookTicker"]
    assert [exchange.channel_of(name)[1] for name in names] == ["币安人生USDT", "ÄİUSDT"]
    assert json.loads(exchange.subscribe(names, 5)) == {"method": "SUBSCRIBE", "params": names, "id": 5}


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("binance_spot", {"depth_speed": "0ms"}, "depth_speed"),
        ("binance_futures", {"depth_speed": "1000ms"}, "depth_speed"),
        ("binance_futures", {"kline_intervals": ("1s",)}, "kline_intervals"),
        ("binance_spot", {"channels": ("liquidation",)}, "liquidation"),
        ("lighter", {"channels": ("kline",)}, "kline"),
    ],
)
def test_what_the_venue_has_not_is_an_error_that_names_it(name: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        venue(name, **settings)


def test_a_name_that_is_none_of_ours_has_no_channel() -> None:
    for name in ("", "btcusdt", "@depth", "btcusdt@depth30", "btcusdt@depth@", "btcusdt@unknown", "!ticker@arr"):
        assert venue("binance_futures").channel_of(name) == ("", ""), name
    for name in ("height", "order_book", "order_book:", "order_book:x", "order_book:²", "account_all:3"):
        assert venue("lighter").channel_of(name) == ("", ""), name


def test_request_lines_have_their_channel_and_symbol() -> None:
    futures, spot = venue("binance_futures"), venue("binance_spot")
    request = futures.snapshot_request("币安人生USDT", 1000)
    assert request.weight == 20
    assert futures.channel_of(request.line) == ("depth_snapshot", "币安人生USDT")
    assert futures.channel_of("GET /fapi/v1/depth?symbol=%E5%B8%81USDT&limit=5") == ("depth_snapshot", "币USDT")
    assert futures.channel_of("GET /fapi/v1/fundingInfo") == ("funding_rate", "")
    assert futures.channel_of("GET /fapi/v1/time") == ("", "")
    assert spot.channel_of("GET /fapi/v1/depth?symbol=BTCUSDT") == ("", "")
    assert spot.channel_of(spot.catalogue_request().line) == ("instrument", "")
    assert venue("lighter").channel_of("GET /api/v1/orderBooks") == ("instrument", "")


@pytest.mark.parametrize(
    ("name", "limit", "weight"),
    [
        ("binance_spot", 100, 5),
        ("binance_spot", 500, 25),
        ("binance_spot", 1000, 50),
        ("binance_spot", 5000, 250),
        ("binance_futures", 5, 2),
        ("binance_futures", 100, 5),
        ("binance_futures", 500, 10),
        ("binance_futures", 1000, 20),
    ],
)
def test_snapshots_weigh_what_the_venue_says(name: str, limit: int, weight: int) -> None:
    assert venue(name).snapshot_request("BTCUSDT", limit).weight == weight


def test_a_snapshot_deeper_than_the_venue_gives_is_an_error() -> None:
    with pytest.raises(ConfigError, match="1000"):
        venue("binance_futures").snapshot_request("BTCUSDT", 5000)


def test_lighter_names_by_number_and_asks_with_a_slash() -> None:
    exchange = venue("lighter", channels=("depth_diff", "trade", "liquidation", "mark_price", "open_interest"))
    streams = exchange.streams([instrument("CRV", 36), instrument("SKY/USDC", 2053)])
    assert streams == [
        Stream("order_book:36", "depth_diff", "CRV", ""),
        Stream("order_book:2053", "depth_diff", "SKY/USDC", ""),
        Stream("trade:36", "trade", "CRV", ""),
        Stream("trade:2053", "trade", "SKY/USDC", ""),
        Stream("market_stats:36", "mark_price", "CRV", ""),
        Stream("market_stats:2053", "mark_price", "SKY/USDC", ""),
    ], "one subscription serves two channels"
    assert json.loads(exchange.subscribe(["order_book:36"], 1)) == {"type": "subscribe", "channel": "order_book/36"}
    assert json.loads(exchange.unsubscribe(["trade:36"], 1)) == {"type": "unsubscribe", "channel": "trade/36"}
    assert exchange.channel_of("order_book:36", {36: "CRV"}) == ("depth_diff", "CRV")
    assert exchange.channel_of("order_book:36") == ("depth_diff", "36")
    assert exchange.pacing.names_per_message == 1
    assert exchange.pacing.burst < 38
    assert exchange.keep_alive.interval is not None
    assert exchange.keep_alive.interval < 120
