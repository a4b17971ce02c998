"""Paths are safe for every symbol, and say what they hold."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from depthvault.layout import Layout, decode_symbol, encode_symbol
from depthvault.period import Period

LAYOUT = Layout(Path("data"))


@pytest.mark.parametrize("symbol", ["BTCUSDT", "SKY/USDC", "币安人生USDT", "..", "a%2Fb", "BTCUSDT_261225"])
def test_a_symbol_is_one_path_segment_and_comes_back(symbol: str) -> None:
    segment = encode_symbol(symbol)
    assert "/" not in segment
    assert decode_symbol(segment) == symbol
    key = LAYOUT.day_key("lighter", "depth_diff", symbol, "2026-11-20", 1)
    assert key.count("/") == 4


def test_a_journal_is_named_after_its_start() -> None:
    path = LAYOUT.journal("binance_spot", "a", 1_723_161_255_308_123_456)
    assert path == Path("data/journal/binance_spot/a/20240808T235415.308123Z.journal")
    assert LAYOUT.journal_start(path).isoformat() == "2024-08-08T23:54:15.308123+00:00"


def test_keys_of_hours_and_of_minutes() -> None:
    period = Period.parse("20261120T0400")
    assert LAYOUT.hour_key("binance_spot", "trade", period, 2) == (
        "hour/exchange=binance_spot/channel=trade/date=2026-11-20/04.g2.parquet"
    )
    minute = Period.parse("20261120T0431", timedelta(minutes=1))
    assert LAYOUT.hour_key("binance_spot", "trade", minute, 1).endswith("/0431.g1.parquet")


def test_late_files_stand_beside_the_data_they_belong_to() -> None:
    period = Period.parse("20240808T2300")
    late = LAYOUT.live_file("binance_spot", "trade", period, "a", Period.parse("20261120T0400"))
    assert late.parent == LAYOUT.live_file("binance_spot", "trade", period, "a").parent
    assert late.name == "23-a.late-20261120T0400.parquet"
