"""What becomes a row, what is no row, and what is rejected with its reason."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from depthvault.errors import MalformedFrameError
from depthvault.exchanges.base import Decoded, Exchange, Frames
from depthvault.exchanges.decode.values import Numbers, micros
from tests.depthvault.exchanges.recordings import frames_of, venue
from tests.depthvault.exchanges.test_scanner_equals_reference import EXAMPLES

SPOT, FUTURES, LIGHTER = venue("binance_spot"), venue("binance_futures"), venue("lighter")
NOW = 1_791_383_100_000_000_000


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def one_frame(exchange: Exchange, channel: str, frame: bytes) -> Decoded:
    return exchange.decode(channel, frames_of(exchange, [frame])[channel], "a")


def answers(exchange: Exchange, channel: str, *pairs: tuple[str, Any], source: str = "rest") -> Decoded:
    """`channel` decoded from (request line, answer) pairs."""
    frames = Frames(source=source)
    for position, (line, answer) in enumerate(pairs):
        frames.sequences.append(position)
        frames.received_ns.append(NOW + position)
        frames.request_ns.append(NOW - 80_000_000)
        frames.streams.append(line)
        frames.bodies.append(
            answer if isinstance(answer, bytes) else json.dumps(answer, separators=(",", ":")).encode()
        )
    return exchange.decode(channel, frames, "rest-host")


def enveloped(stream: str, data: Any) -> bytes:
    return compact({"stream": stream, "data": data})


def candle(closed: bool) -> bytes:
    data = {"t": 1791382980000, "T": 1791383039999, "s": "BTCUSDT", "i": "1m", "f": 1, "L": 2, "o": "83084.90"}
    data |= {"c": "83091.60", "h": "83091.70", "l": "83051.20", "v": "13.551", "n": 1027, "x": closed}
    data |= {"q": "1125714.73960", "V": "6.426", "Q": "533856.66860", "B": "0"}
    return enveloped("btcusdt@kline_1m", {"e": "kline", "E": 1791383040010, "s": "BTCUSDT", "k": data})


def test_a_candle_is_a_row_when_it_closes() -> None:
    frames = frames_of(FUTURES, [candle(False), candle(True)])["kline"]
    decoded = FUTURES.decode("kline", frames, "a")
    (row,) = decoded.rows.to_pylist()
    assert decoded.index.to_pylist() == [1]
    assert (row["open"], row["high"], row["low"], row["close"]) == (83084.90, 83091.70, 83051.20, 83091.60)
    assert row["quote_volume"] == Decimal("1125714.7396")
    assert (row["volume"], row["taker_buy_volume"], row["taker_buy_quote_volume"]) == (
        Decimal("13.551"),
        Decimal("6.426"),
        Decimal("533856.6686"),
    )
    assert (row["interval"], row["trade_count"]) == ("1m", 1027)
    assert row["close_time"] == datetime(2026, 10, 7, 14, 23, 59, 999000, UTC)


def test_rest_candles_are_rows_once_they_have_closed_for_a_while() -> None:
    def of(start: int) -> list[Any]:
        return [start, "1", "3", "0.5", "2", "10.5", start + 59_999, "21", 7, "4", "8", "0"]

    now_ms = NOW // 1_000_000
    line = "GET /api/v3/klines?symbol=BTCUSDT&interval=1m&limit=3"
    rows = answers(
        SPOT, "kline", (line, [of(now_ms - 180_000), of(now_ms - 62_000), of(now_ms - 5_000)]), source="refill"
    ).rows.to_pylist()
    assert [(row["symbol"], row["interval"], row["source"]) for row in rows] == [("BTCUSDT", "1m", "refill")]
    assert (rows[0]["open"], rows[0]["close"], rows[0]["trade_count"]) == (1.0, 2.0, 7)
    assert rows[0]["taker_buy_quote_volume"] == Decimal(8)


def test_refilled_trades_have_no_send_time() -> None:
    line = "GET /fapi/v1/aggTrades?symbol=BTCUSDT&fromId=26129"
    trade = {"a": 26129, "p": "0.01633102", "q": "4.70443515", "f": 27781, "l": 27781, "T": 1498793709153, "m": True}
    decoded = answers(FUTURES, "agg_trade", (line, [trade, trade | {"a": 26130}]), source="refill")
    rows = decoded.rows.to_pylist()
    assert [(row["agg_trade_id"], row["event_time"], row["source"]) for row in rows] == [
        (26129, None, "refill"),
        (26130, None, "refill"),
    ]
    assert decoded.index.to_pylist() == [0, 0]


@pytest.mark.parametrize(
    ("line", "channel"),
    [
        ("GET /fapi/v1/depth?symbol=X&limit=5", "depth_snapshot"),
        ("GET /fapi/v1/aggTrades?symbol=X", "agg_trade"),
        ("GET /fapi/v1/klines?symbol=X&interval=1m", "kline"),
        ("GET /fapi/v1/fundingRate?symbol=X", "funding_rate"),
        ("GET /fapi/v1/openInterest?symbol=X", "open_interest"),
        ("GET /fapi/v1/premiumIndex", "mark_price"),
        ("GET /fapi/v1/exchangeInfo", "instrument"),
    ],
)
def test_an_error_answer_is_rejected_with_a_reason(line: str, channel: str) -> None:
    assert FUTURES.channel_of(line)[0] == channel
    decoded = answers(FUTURES, channel, (line, {"code": -1121, "msg": "Invalid symbol."}))
    assert decoded.rows.num_rows == 0
    assert [one.index for one in decoded.rejected] == [0]
    assert decoded.rejected[0].reason


def test_the_funding_interval_is_what_the_latest_terms_before_say() -> None:
    rate = {"symbol": "BTCUSDT", "fundingTime": 1791331200002, "fundingRate": "-0.00000743", "markPrice": ""}
    terms = [{"symbol": "ETHUSDT", "fundingIntervalHours": 4, "updateTime": None}]
    rates = "GET /fapi/v1/fundingRate?limit=1000"
    decoded = answers(
        FUTURES,
        "funding_rate",
        (rates, [rate]),
        ("GET /fapi/v1/fundingInfo", terms),
        (rates, [rate, rate | {"symbol": "ETHUSDT"}]),
    )
    rows = decoded.rows.to_pylist()
    assert decoded.rejected == []
    assert [(row["symbol"], row["interval_hours"]) for row in rows] == [
        ("BTCUSDT", None),
        ("BTCUSDT", 8),
        ("ETHUSDT", 4),
    ]
    assert (rows[0]["funding_rate"], rows[0]["mark_price"]) == (-0.00000743, None)
    assert rows[0]["funding_time"] == datetime(2026, 10, 7, 0, 0, 0, 2000, UTC)


def test_coin_margined_rows_of_all_market_streams_are_not_ours() -> None:
    row = {
        "e": "markPriceUpdate",
        "E": 1791382992684,
        "s": "XAUUSDT",
        "p": "1.5",
        "P": "1",
        "i": "",
        "r": "",
        "T": 0,
        "st": 1,
    }
    other = row | {"s": "BTCUSD_PERP", "st": 2}
    decoded = FUTURES.decode(
        "mark_price", frames_of(FUTURES, [enveloped("!markPrice@arr@1s", [row, other])])["mark_price"], "a"
    )
    (found,) = decoded.rows.to_pylist()
    assert (found["symbol"], found["mark_price"]) == ("XAUUSDT", 1.5)
    assert (found["index_price"], found["funding_rate"], found["next_funding_time"]) == (None, None, None)
    order: dict[str, Any] = {
        "s": "BTCUSD_PERP",
        "S": "SELL",
        "o": "LIMIT",
        "f": "IOC",
        "q": "1",
        "p": "2",
        "ap": "3",
        "X": "FILLED",
    }
    order |= {"l": "1", "z": "1", "T": 1791391082119, "st": 2}
    frame = enveloped("!forceOrder@arr", {"e": "forceOrder", "E": 1791391083124, "o": order})
    decoded = FUTURES.decode("liquidation", frames_of(FUTURES, [frame])["liquidation"], "a")
    assert (decoded.rows.num_rows, decoded.rejected) == (0, [])


def test_an_empty_side_of_a_ticker_is_null() -> None:
    data = {"u": 1, "s": "NEWUSDT", "b": "0.00000000", "B": "0.00000000", "a": "1.5", "A": "2"}
    (row,) = SPOT.decode(
        "book_ticker", frames_of(SPOT, [enveloped("newusdt@bookTicker", data)])["book_ticker"], "a"
    ).rows.to_pylist()
    assert (row["bid_price"], row["bid_size"], row["ask_price"], row["ask_size"]) == (None, None, 1.5, 2.0)
    empty = (
        b'{"channel":"ticker:1","last_updated_at":0,"nonce":5,"ticker":{"s":"BTC","a":{"price":"","size":""},'
        b'"b":{"price":"1","size":"2"},"last_updated_at":0},"timestamp":1785252530836,"type":"update/ticker"}'
    )
    (row,) = LIGHTER.decode("book_ticker", frames_of(LIGHTER, [empty])["book_ticker"], "a").rows.to_pylist()
    assert (row["bid_price"], row["ask_price"], row["transaction_time"]) == (1.0, None, None)


def test_a_bad_frame_is_rejected_whole_and_its_neighbours_live() -> None:
    good = EXAMPLES["futures diff"]
    bad = good.replace(b'["83517.9","0"]', b'["83517.9","x"]')
    frames = frames_of(FUTURES, [good, bad, good])["depth_diff"]
    decoded = FUTURES.decode("depth_diff", frames, "a")
    assert decoded.index.to_pylist() == [0, 2]
    assert [(one.index, one.reason) for one in decoded.rejected] == [(1, "not a price or size: 'x'")]


def test_a_half_good_array_gives_no_rows() -> None:
    row = {"e": "markPriceUpdate", "E": 1791382992684, "s": "XAUUSDT", "p": "1.5", "P": "1", "i": "1", "r": "1", "T": 0}
    frame = enveloped("!markPrice@arr@1s", [row, row | {"p": "1e9"}])
    decoded = FUTURES.decode("mark_price", frames_of(FUTURES, [frame])["mark_price"], "a")
    assert decoded.rows.num_rows == 0
    assert [one.index for one in decoded.rejected] == [0]


def test_snapshots_keep_their_request() -> None:
    line = "GET /fapi/v1/depth?symbol=币USDT"
    decoded = answers(FUTURES, "depth_snapshot", (line, {"lastUpdateId": -1, "bids": [], "asks": [["1.5", "2"]]}))
    (row,) = decoded.rows.to_pylist()
    assert (row["symbol"], row["last_update_id"], row["limit"]) == ("币USDT", -1, 500), "500 is the venue's default"
    assert (row["bid_prices"], row["ask_prices"], row["ask_sizes"]) == ([], [1.5], [2.0])
    assert (row["received_time"] - row["request_time"]).total_seconds() == pytest.approx(0.08)
    assert (row["event_time"], row["source"], row["instance"]) == (None, "rest", "rest-host")


def test_listings_give_a_row_at_each_change_only() -> None:
    def catalogue(status: str, tick: str = "0.10") -> dict[str, Any]:
        filters = [{"stepSize": "0.001", "filterType": "LOT_SIZE"}, {"tickSize": tick, "filterType": "PRICE_FILTER"}]
        symbol = {"symbol": "BTCUSDT", "status": status, "baseAsset": "BTC", "quoteAsset": "USDT", "filters": filters}
        return {"symbols": [symbol | {"contractType": "PERPETUAL", "onboardDate": 1567965300000}]}

    line = "GET /fapi/v1/exchangeInfo"
    decoded = answers(
        FUTURES,
        "instrument",
        (line, catalogue("TRADING")),
        (line, catalogue("TRADING")),
        ("!contractInfo", b'{"stream":"!contractInfo","data":{"e":"contractInfo"}}'),
        (line, catalogue("SETTLING")),
        (line, catalogue("SETTLING", "0.20")),
    )
    rows = decoded.rows.to_pylist()
    assert decoded.rejected == []
    assert decoded.index.to_pylist() == [0, 3, 4]
    assert [(row["status"], row["tick_size"]) for row in rows] == [
        ("TRADING", 0.1),
        ("SETTLING", 0.1),
        ("SETTLING", 0.2),
    ]
    assert rows[0]["listed_time"] == datetime(2019, 9, 8, 17, 55, tzinfo=UTC)


def test_own_events_keep_their_detail_verbatim() -> None:
    body = b'{"channel":"depth_diff","symbol":"BTCUSDT","last_id":5,"cause":"disconnect"}'
    frames = Frames([0, 1], [NOW, NOW], [0, 0], ["gap", "start"], [body, b"not json"], connections=[3, 0])
    for exchange in (SPOT, FUTURES, LIGHTER):
        decoded = exchange.decode("collector_event", frames, "a")
        (row,) = decoded.rows.to_pylist()
        assert (row["exchange"], row["kind"], row["channel"], row["symbol"], row["connection"], row["detail"]) == (
            exchange.name,
            "gap",
            "depth_diff",
            "BTCUSDT",
            3,
            body.decode(),
        )
        assert [one.index for one in decoded.rejected] == [1]


def test_nothing_in_nothing_out() -> None:
    for exchange in (SPOT, FUTURES, LIGHTER):
        for channel in exchange.channels:
            decoded = exchange.decode(channel, Frames(), "a")
            assert (decoded.rows.num_rows, len(decoded.index), decoded.rejected) == (0, 0, [])


@pytest.mark.parametrize("text", ["", " 1", "1 ", "+1", "1.", ".1", "1e3", "1_0", "0x1", "NaN", "inf", "１", "-1"])
def test_only_plain_decimals_are_prices(text: str) -> None:
    with pytest.raises(MalformedFrameError):
        Numbers().unsigned(text)


def test_volumes_of_more_than_eight_decimals_are_counted() -> None:
    numbers = Numbers()
    assert numbers.volume("12345678901234567890.12345678") == Decimal("12345678901234567890.12345678")
    assert numbers.inexact == 0
    numbers.volume("0.123456789")
    assert numbers.inexact == 1
    with pytest.raises(MalformedFrameError):
        numbers.volume("1" + "0" * 30)


def test_percent_becomes_a_fraction_by_decimal_arithmetic() -> None:
    numbers = Numbers()
    assert [numbers.percent(text) for text in ("-0.0012", "0.0004", "5", "0.07")] == [-0.000012, 0.000004, 0.05, 0.0007]
    assert numbers.inexact == 0


@pytest.mark.parametrize("value", [0, -1, 1_700_000_000, 17_000_000_000_000, 10**19])
def test_a_number_that_is_no_time_is_not_put_into_another_century(value: int) -> None:
    with pytest.raises(MalformedFrameError):
        micros(value)


def in_a_fresh_process(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


MANY = (
    "import sys\n"
    "from tests.depthvault.exchanges.recordings import venue, frames_of\n"
    "from tests.depthvault.exchanges.test_scanner_equals_reference import EXAMPLES\n"
    "from depthvault.exchanges.decode import arrays\n"
    "arrays.LOAD_AFTER_BYTES = 100_000\n"
    "futures = venue('binance_futures')\n"
    "frames = frames_of(futures, [EXAMPLES['futures diff']] * 200)['depth_diff']\n"
)


def test_without_numba_the_reference_reads_everything() -> None:
    in_a_fresh_process(
        "import sys; sys.modules['numba'] = None\n" + MANY + "for _ in range(3):\n"
        "    decoded = futures.decode('depth_diff', frames, 'a')\n"
        "    assert (decoded.rows.num_rows, decoded.rejected) == (200, []), decoded\n"
    )


def test_a_short_command_does_not_wait_for_the_compiler_and_a_long_one_gets_it() -> None:
    in_a_fresh_process(
        MANY + "first = futures.decode('depth_diff', frames, 'a')\n"
        "assert 'numba' not in sys.modules\n"
        "second = futures.decode('depth_diff', frames, 'a')\n"
        "assert 'numba' in sys.modules\n"
        "assert first.rows.equals(second.rows)\n"
    )
