"""What markets really send at the edges is no fault: huge sizes, tiny prices, any alphabet, rates of every sign."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from depthvault.clock import ns_from_datetime
from depthvault.exchanges.base import Exchange
from depthvault.schemas import CHANNELS
from expectations import Judgement
from tests.depthvault.exchanges.recordings import frames_of, venue
from tests.expectations.healthy_periods import SYMBOLS, healthy, judged, moment

Row = dict[str, Any]
HUGE, TINY = 999_999_999_999_999.0, 0.00000001
NAMES = ("1000000MOGUSDT", "币安人生USDT", "SKY/USDC", "ÄÖÜ-ß'\"%_USDT", "BTCUSDT_261225")


def said(judgement: Judgement) -> list[str]:
    return [str(check) for check in (*judgement.failures, *judgement.warnings)]


def extreme(row: Row, channel: str) -> Row:
    """The row with the tiniest prices and greatest sizes that its columns may have."""
    changes: Row = {}
    for column in CHANNELS[channel].columns:
        name, value = column.name, row.get(column.name)
        if value is None:
            continue
        if name.endswith(("bid_prices", "bid_price")):
            changes[name] = [2 * TINY, TINY] if isinstance(value, list) else TINY
        elif name.endswith(("ask_prices", "ask_price")):
            changes[name] = [3 * TINY, HUGE] if isinstance(value, list) else 2 * TINY
        elif name.endswith(("bid_sizes", "ask_sizes")):
            changes[name] = [HUGE, 1e12]
        elif name in {"price", "average_price", "mark_price", "index_price", "open", "high", "low", "close"}:
            changes[name] = TINY
        elif name.endswith("volume") or name in {"open_interest", "quote_value"}:
            changes[name] = Decimal("999999999999999999999999999999.99999999")
        elif name in {"quantity", "filled_quantity", "bid_size", "ask_size"}:
            changes[name] = HUGE
        elif name in {"tick_size", "lot_size"}:
            changes[name] = TINY
    return row | changes


@pytest.mark.parametrize("channel", CHANNELS)
def test_great_sizes_tiny_prices_and_any_name_fail_nothing(channel: str, tmp_path: Path) -> None:
    first = [row for row in healthy(channel) if row["symbol"] == SYMBOLS[0]]
    rows = [extreme(row, channel) | {"symbol": symbol} for symbol in sorted(NAMES) for row in first]
    judgement = judged(tmp_path, rows, channel)
    assert said(judgement) == []
    assert {check.symbol for check in judgement.checks} == {"", *NAMES}


@pytest.mark.parametrize("rate", [-0.5, -0.02, -0.00000001, 0.0, -0.0, 0.00000078, 0.5, None], ids=str)
def test_a_funding_rate_of_any_sign_fails_nothing(rate: float | None, tmp_path: Path) -> None:
    rows = [row | {"funding_rate": rate} for row in healthy("mark_price")]
    assert said(judged(tmp_path, rows, "mark_price")) == []
    if rate is not None:  # a settled one is always a number
        rows = [row | {"funding_rate": rate} for row in healthy("funding_rate")]
        assert said(judged(tmp_path, rows, "funding_rate")) == []


def absent(channel: str) -> Callable[[Row], Row]:
    nulls = {column.name: None for column in CHANNELS[channel].columns if column.nullable}
    # an event without the venue's time of sending, and one whose chain names no predecessor, are judged elsewhere
    return lambda row: row | {name: None for name in nulls if name not in {"event_time", "prev_final_update_id"}}


@pytest.mark.parametrize("channel", CHANNELS)
def test_whatever_may_be_absent_fails_nothing_when_it_is(channel: str, tmp_path: Path) -> None:
    rows = [absent(channel)(row) for row in healthy(channel)]
    assert said(judged(tmp_path, rows, channel)) == []


def decoded(exchange: Exchange, channel: str, bodies: list[bytes]) -> list[Row]:
    """Frames through the venue's own decoder, received three ms after they were sent."""
    received = [ns_from_datetime(moment(position + 0.003)) for position in range(len(bodies))]
    result = exchange.decode(channel, frames_of(exchange, bodies, received)[channel], "a")
    assert result.rejected == []
    rows: list[Row] = result.rows.to_pylist()
    return rows


def milliseconds(second: float) -> int:
    return ns_from_datetime(moment(second)) // 1_000_000


@pytest.mark.parametrize("rate", ["", "0", "0.00000000", "-0.00000743", "-0.02000000"], ids=repr)
def test_frames_of_delisted_and_delivery_contracts_fail_nothing(rate: str, tmp_path: Path) -> None:
    """Measured 2026-10: `r` is empty and `T` 0 there, prices may be 0 or empty."""
    frames = [
        f'{{"stream":"omgusdt@markPrice@1s","data":{{"e":"markPriceUpdate","E":{milliseconds(second)},"s":"OMGUSDT",'
        f'"p":"0.00000000","ap":"","P":"0","i":"","r":"{rate}","T":0,"st":1}}}}'
        for second in range(3)
    ]
    rows = decoded(venue("binance_futures"), "mark_price", [frame.encode() for frame in frames])
    assert [row["funding_rate"] for row in rows] == [float(rate) if rate else None] * 3
    assert {(row["mark_price"], row["index_price"], row["next_funding_time"]) for row in rows} == {(0.0, None, None)}
    assert said(judged(tmp_path, rows, "mark_price")) == []


def fill(second: int, number: int, price: str, quantity: str, kind: str) -> bytes:
    return (
        f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{milliseconds(second)},"T":{milliseconds(second)},'
        f'"s":"BTCUSDT","t":{number},"p":"{price}","q":"{quantity}","X":"{kind}","m":true}}}}'
    ).encode()


def test_a_trade_that_is_none_fails_nothing_and_one_without_a_price_does(tmp_path: Path) -> None:
    """As measured on BTCUSDT in 2025-08; the insurance fund's prices are off the tick."""
    exchange = venue("binance_futures")
    usual = [fill(0, 100, "83091.70", "0.022", "MARKET"), fill(1, 101, "0", "0", "NA")]
    usual += [fill(2, 102, "3.7041208", "3.5", "INSURANCE_FUND"), fill(3, 103, "83091.70", "0.1", "ADL")]
    assert said(judged(tmp_path, decoded(exchange, "trade", usual), "trade")) == []
    for last in (fill(4, 104, "0", "0", "MARKET"), fill(4, 104, "0", "1", "NA")):
        judgement = judged(tmp_path, decoded(exchange, "trade", [*usual, last]), "trade")
        assert {(check.symbol, check.metric) for check in judgement.failures} == {("BTCUSDT", "bad_prices")}


def test_a_quiet_symbol_s_last_microsecond_belongs_to_the_period(tmp_path: Path) -> None:
    rows = healthy("agg_trade")
    rows[-1]["transaction_time"] = moment(60) - timedelta(microseconds=1)
    assert said(judged(tmp_path, rows, "agg_trade")) == []
