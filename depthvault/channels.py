"""The names of all channels, in the order of the data dictionary.

Their columns stand in `schemas`. They are apart because reading a configuration needs the names alone, and loading
Arrow for them made every command half a second slower (measured).
"""

from __future__ import annotations

NAMES: tuple[str, ...] = (
    "depth_diff",
    "depth_partial",
    "depth_snapshot",
    "book_ticker",
    "agg_trade",
    "trade",
    "kline",
    "liquidation",
    "mark_price",
    "funding_rate",
    "open_interest",
    "instrument",
    "collector_event",
)
