"""Which fields Binance's trades and tickers have, and how their columns become ours: as the readers of `binance_rows`.

A field that is not listed leaves the frame to its reader.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from depthvault.exchanges.decode.arrays import Doubles
from depthvault.exchanges.decode.flat import Columns, FlatScanner

_TRADE = {"e": "event", "E": "time", "s": "text"}


def _side(prices: Doubles, sizes: Doubles) -> list[pa.Array]:
    empty = (prices == 0.0) & (sizes == 0.0)
    return (
        [pa.array(prices, mask=empty), pa.array(sizes, mask=empty)]
        if np.any(empty)
        else [
            pa.array(prices),
            pa.array(sizes),
        ]
    )


def _ticker(columns: Columns) -> list[pa.Array]:
    return [
        columns.time("E"),
        columns.text("s"),
        columns.time("T"),
        columns.integer("u"),
        *_side(columns.double("b"), columns.double("B")),
        *_side(columns.double("a"), columns.double("A")),
    ]


def _agg_trade(columns: Columns) -> list[pa.Array]:
    return [
        columns.time("E"),
        columns.text("s"),
        columns.time("T"),
        columns.integer("a"),
        columns.integer("f"),
        columns.integer("l"),
        pa.array(columns.double("p")),
        pa.array(columns.double("q")),
        columns.flag("m"),
    ]


def _fill(columns: Columns) -> list[pa.Array]:
    return [
        columns.time("E"),
        columns.text("s"),
        columns.time("T"),
        columns.integer("t"),
        pa.array(columns.double("p")),
        pa.array(columns.double("q")),
        columns.flag("m"),
        columns.text("X") if "X" in columns.places else columns.repeated("trade"),
    ]


BOOK_TICKER = FlatScanner(
    "bookTicker",
    {"e": "event", "u": "integer", "s": "text", "ps": "text", "b": "decimal", "B": "decimal", "a": "decimal"}
    | {"A": "decimal", "T": "time", "E": "time", "st": "integer"},
    _ticker,
    optional=frozenset({"e", "ps", "T", "E", "st"}),
)
AGG_TRADE = FlatScanner(
    "aggTrade",
    {"e": "event", "E": "time", "a": "integer", "s": "text", "p": "decimal", "q": "decimal", "nq": "decimal"}
    | {"f": "integer", "l": "integer", "T": "time", "m": "flag", "M": "flag", "st": "integer"},
    _agg_trade,
    optional=frozenset({"nq", "M", "st"}),
)
SPOT_TRADE = FlatScanner(
    "trade",
    _TRADE
    | {"t": "integer", "p": "decimal", "q": "decimal", "b": "integer", "a": "integer", "T": "time", "m": "flag"}
    | {"M": "flag"},
    _fill,
    optional=frozenset({"b", "a", "M"}),
)
FUTURES_TRADE = FlatScanner(
    "trade",
    {"e": "event", "E": "time", "T": "time", "s": "text", "t": "integer", "p": "decimal", "q": "decimal"}
    | {"X": "text", "m": "flag", "st": "integer", "ps": "text"},
    _fill,
    optional=frozenset({"st", "ps"}),
)
