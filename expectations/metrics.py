"""What DuckDB measures of one compacted file: one row of numbers a symbol.

The statements read the file in its own order (`lag() over ()` streams, so an hour of a busy venue costs little
memory) and know nothing of how the gap ledger was made: they check it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.period import Period
from depthvault.schemas import CHANNELS, Channel, Column

Metrics = dict[str, float | None]
"""A symbol's numbers by metric name; None where a metric does not apply."""

_FLOAT_LISTS = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
# Columns that must be greater than zero, or at least zero, where they are not null.
_POSITIVE = frozenset({"price", "bid_price", "ask_price", "open", "high", "low", "close", "mark_price", "index_price"})
_NOT_NEGATIVE = frozenset(
    {
        "quantity", "filled_quantity", "average_price", "bid_size", "ask_size", "volume", "quote_volume", "trade_count",
        "taker_buy_volume", "taker_buy_quote_volume", "open_interest", "quote_value", "tick_size", "lot_size",
    }
)  # fmt: skip
_BOUNDED_ZERO = frozenset({"mark_price", "index_price"})  # delisted futures still send 0

_EVENT_KINDS = (
    "start", "stop", "connect", "disconnect", "roll", "subscribe", "gap", "resync", "stale", "rate_limited", "banned",
    "clock", "environment", "malformed", "flush",
)  # fmt: skip

# What is known of the clock: an answer that took long may be off by half of that. A case is taken only where its
# condition holds; a filter does not keep JSON from being read.
_OFFSET, _ROUND_TRIP = (f"(detail ->> '$.reference.{name}')::double" for name in ("offset_s", "round_trip_s"))
_CLOCK_OFFSET = (
    f"case when kind = 'clock' and json_valid(detail)"
    f" then abs({_OFFSET}) - least(abs({_OFFSET}), coalesce({_ROUND_TRIP}, 0) / 2) end"
)

# An event's levels are the book's after it, so that the ones with a size must not cross. Lists are only taken apart
# where the prices alone do.
_EVENT_CROSSED = """count(*) filter (case when list_max(bid_prices) >= list_min(ask_prices) then
  list_max(list_where(bid_prices, list_transform(bid_sizes[:len(bid_prices)], lambda size: size > 0)))
    >= list_min(list_where(ask_prices, list_transform(ask_sizes[:len(ask_prices)], lambda size: size > 0)))
  else false end)"""

_SPECIFIC: Mapping[str, Mapping[str, str]] = {
    "depth_diff": {
        "ids_reversed": "count(*) filter (first_update_id > final_update_id)",
        "crossed": _EVENT_CROSSED,
    },
    "depth_partial": {
        "ids_reversed": "count(*) filter (first_update_id > final_update_id)",
        "crossed": "count(*) filter (bid_prices[1] >= ask_prices[1])",
    },
    "depth_snapshot": {
        "crossed": "count(*) filter (bid_prices[1] >= ask_prices[1])",
        # A venue that was asked for all levels (`limit` 2147483647) has markets in which one side says nothing.
        "one_sided": ('count(*) filter ((len(bid_prices) = 0 or len(ask_prices) = 0) and "limit" < 2147483647)'),
        "over_limit": 'count(*) filter (len(bid_prices) > "limit" or len(ask_prices) > "limit")',
        "largest_interval_seconds": "max(case when same then epoch_us(request_time) - previous_request end) / 1e6",
    },
    "book_ticker": {
        "crossed": "count(*) filter (bid_price >= ask_price)",
    },
    "agg_trade": {
        "ids_reversed": "count(*) filter (first_trade_id > last_trade_id)",
    },
    "kline": {
        "candles_impossible": (
            "count(*) filter (low > least(open, close) or high < greatest(open, close)"
            " or taker_buy_volume > volume or taker_buy_quote_volume > quote_volume)"
        ),
        "times_reversed": "count(*) filter (close_time <= open_time)",
    },
    "liquidation": {
        "unknown_sides": "count(*) filter (side not in ('BUY', 'SELL'))",
    },
    "mark_price": {
        "rates_impossible": "count(*) filter (not (abs(funding_rate) <= 0.5))",
    },
    "funding_rate": {
        "rates_impossible": "count(*) filter (not (abs(funding_rate) <= 0.5))",
        "intervals_impossible": "count(*) filter (interval_hours not between 1 and 24)",
    },
    "open_interest": {
        "largest_interval_seconds": "max(case when same then epoch_us(received_time) - previous_received end) / 1e6",
    },
    "collector_event": {
        "clock_checks": f"count({_CLOCK_OFFSET})",
        "clock_worst_ms": f"max({_CLOCK_OFFSET}) * 1000",
        "clock_mean_ms": f"avg({_CLOCK_OFFSET}) * 1000",
        "unknown_kinds": f"count(*) filter (kind not in {_EVENT_KINDS})",
        "malformed_details": "count(*) filter (not json_valid(detail))",
        "malformed_frames": "count(*) filter (kind = 'malformed')",
    },
}

_IN_TIME = frozenset({"depth_diff", "agg_trade", "trade", "book_ticker"})
"""Channels whose order by id is one by time, too: measured on spot and futures recordings."""

_PREVIOUS: Mapping[str, str] = {
    "depth_snapshot": "lag(epoch_us(request_time)) over () as previous_request",
    "open_interest": "lag(epoch_us(received_time)) over () as previous_received",
}


@contextmanager
def connect(spill: Path | None = None, memory: str = "1GB") -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that keeps file order, uses at most `memory`, and spills into `spill` alone (None: never)."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    try:
        connection.execute("set timezone = 'UTC'")
        connection.execute("set preserve_insertion_order = true")
        connection.execute(f"set memory_limit = '{memory}'")
        connection.execute("set temp_directory = ?", [str(spill) if spill is not None else ""])
        yield connection
    finally:
        connection.close()


def _quoted(name: str) -> str:
    return f'"{name}"'


def event_time(channel: Channel) -> str:
    """The SQL expression of the time that decides a row's period."""
    return f"coalesce({', '.join((*channel.time, 'received_time'))})"


def venue_time(channel: Channel) -> str:
    """The SQL expression of the venue's own time of a row; null where it gave none."""
    return f"coalesce({', '.join((*channel.time, 'null'))})" if channel.time else "null::timestamptz"


# Futures send trades of kind NA with neither a price nor a quantity (measured 2025-08): they use up an id.
_NO_TRADE = "(trade_type = 'NA' and price = 0 and quantity = 0)"


def _bad_values(columns: tuple[Column, ...]) -> tuple[str, str]:
    """Predicates: a price that cannot be, and a size that cannot be. NaN and infinity are neither."""
    prices, sizes = [], []
    typed = any(column.name == "trade_type" for column in columns)
    for column in columns:
        name = column.name
        if name in _POSITIVE:
            bound = ">=" if name in _BOUNDED_ZERO else ">"
            exempt = f" and {_NO_TRADE} is not true" if typed else ""
            prices.append(f"not (isfinite({name}) and {name} {bound} 0){exempt}")
        elif name in _NOT_NEGATIVE:
            finite = "" if pa.types.is_decimal(column.type) or pa.types.is_integer(column.type) else f"isfinite({name})"
            sizes.append(f"not ({' and '.join(filter(None, (finite, f'{name} >= 0')))})")
        elif name.endswith("_prices"):
            # DuckDB orders NaN and infinity above every number, so the maximum shows them
            prices.append(f"not (list_min({name}) > 0 and isfinite(list_max({name})))")
        elif name.endswith("_sizes"):
            sizes.append(f"not (list_min({name}) >= 0 and isfinite(list_max({name})))")
    return " or ".join(prices) or "false", " or ".join(sizes) or "false"


def _statement(channel: Channel, period: Period) -> str:
    columns = {column.name: column for column in channel.columns}
    stepped = f"(previous_time - epoch_us({venue_time(channel)}))"
    bad_price, bad_size = _bad_values(channel.columns)
    required = [_quoted(column.name) for column in channel.columns if not column.nullable]
    order = ", ".join(_quoted(name) for name in channel.order)
    previous = [
        "lag(symbol) over () as previous_symbol",
        *(f"lag({_quoted(name)}) over () as {_quoted('previous_' + name)}" for name in channel.order),
        f"lag(epoch_us({venue_time(channel)})) over () as previous_time",
    ]
    if extra := _PREVIOUS.get(channel.name):
        previous.append(extra)
    before = ", ".join(_quoted("previous_" + name) for name in channel.order)
    measures = {
        "rows": "count(*)",
        "symbol_runs": "count(*) filter (same is distinct from true)",
        "order_violations": f"count(*) filter (same and row({order}) < row({before}))",
        "nulls": "sum(" + " + ".join(f"({name} is null)::int" for name in required) + ")",
        "outside_period": (
            f"count(*) filter (epoch_us(moment) < {period.start_ns // 1000}"
            f" or epoch_us(moment) >= {period.end_ns // 1000})"
        ),
        "bad_prices": f"count(*) filter ({bad_price})",
        "bad_sizes": f"count(*) filter ({bad_size})",
        "unknown_sources": "count(*) filter (source not in ('stream', 'rest', 'refill'))",
        "first_offset_seconds": f"(min(epoch_us(received_time)) - {period.start_ns // 1000}) / 1e6",
        "last_offset_seconds": f"({period.end_ns // 1000} - max(epoch_us(received_time))) / 1e6",
        # A mean of integers: exact whatever the order in which threads add.
        "lag_mean_ms": (
            "sum(epoch_us(received_time) - epoch_us(event_time)) filter (source = 'stream')"
            " / count(event_time) filter (source = 'stream') / 1e3"
            if "event_time" in channel.time
            else "null"
        ),
        # Within one stream the venue's times never step back (measured on futures and spot recordings).
        "time_regression_ms": (
            f"max(case when same and {stepped} > 0 then {stepped} else 0 end) / 1e3"
            if channel.name in _IN_TIME
            else "null"
        ),
    }
    if all(name in columns for name in _FLOAT_LISTS):
        measures["uneven_levels"] = (
            "count(*) filter (len(bid_prices) <> len(bid_sizes) or len(ask_prices) <> len(ask_sizes))"
        )
    measures |= _SPECIFIC.get(channel.name, {})
    selected = ",\n  ".join(f"{expression} as {name}" for name, expression in measures.items())
    # `filter (x)` counts only true; a null stays out, and `nulls` has counted it already.
    selected = selected.replace("filter (", "filter (where ")
    return f"""
with ordered as (select *, {event_time(channel)} as moment, {", ".join(previous)} from read_parquet($path)),
marked as (select *, symbol = previous_symbol as same from ordered)
select symbol, {selected}
from marked group by symbol"""  # noqa: S608 - names come from the data dictionary, the path is a parameter


def _duplicates(channel: Channel) -> str:
    key = ", ".join(_quoted(name) for name in channel.key)
    return f"""
select symbol, sum(copies - 1)::bigint from (
  select symbol, count(*) as copies from read_parquet($path) group by symbol, {key}
) group by symbol"""  # noqa: S608 - names come from the data dictionary, the path is a parameter


_SHARES = {"lag_p01_ms": 0.01, "lag_p50_ms": 0.5, "lag_p99_ms": 0.99}
_MOST_LAG_MS = 60_000
# Counted by the millisecond, up to a minute: the memory for that does not grow with the rows.
_LAGS = f"""
select symbol, least(greatest(floor((epoch_us(received_time) - epoch_us(event_time)) / 1000.0), -{_MOST_LAG_MS}),
  {_MOST_LAG_MS}) as lag, count(*)
from read_parquet($path) where source = 'stream' and event_time is not null
group by all order by all"""  # noqa: S608 - only a constant of this module is put in


def _lag_shares(counts: list[tuple[float, int]]) -> Metrics:
    """Percentiles of (ms, rows), ascending; whole ms, rounded down."""
    total = sum(rows for _, rows in counts)
    metrics: Metrics = {}
    for name, share in _SHARES.items():
        seen = 0
        for lag, rows in counts:
            seen += rows
            if seen >= share * total:
                metrics[name] = float(lag)
                break
    return metrics


def measure(connection: duckdb.DuckDBPyConnection, path: Path, channel: str, period: Period) -> dict[str, Metrics]:
    """The metrics of the file at `path` by symbol. The file must have the channel's columns (see `schema_faults`)."""
    definition = CHANNELS[channel]
    result = connection.execute(_statement(definition, period), {"path": str(path)})
    names = [column[0] for column in result.description][1:]
    metrics: dict[str, Metrics] = {}
    for symbol, *values in result.fetchall():
        numbers = (None if value is None else float(value) for value in values)
        metrics["" if symbol is None else symbol] = dict(zip(names, numbers, strict=True))
    for symbol, copies in connection.execute(_duplicates(definition), {"path": str(path)}).fetchall():
        metrics["" if symbol is None else symbol]["duplicates"] = float(copies)
    if "event_time" in definition.time:
        lags: dict[str, list[tuple[float, int]]] = {}
        for symbol, lag, rows in connection.execute(_LAGS, {"path": str(path)}).fetchall():
            lags.setdefault("" if symbol is None else symbol, []).append((lag, rows))
        for symbol, one in metrics.items():
            one |= dict.fromkeys(_SHARES) | _lag_shares(lags.get(symbol, []))
    return metrics


def schema_faults(path: Path, channel: str) -> list[str]:
    """Columns of the data dictionary that the file lacks or has with another type."""
    schema = pq.read_schema(path)
    faults = []
    for column in CHANNELS[channel].columns:
        position = schema.get_field_index(column.name)
        if position < 0:
            faults.append(f"{column.name}: missing")
        elif not _same_type(schema.field(position).type, column.type):
            faults.append(f"{column.name}: {schema.field(position).type} instead of {column.type}")
    return faults


def _same_type(actual: pa.DataType, expected: pa.DataType) -> bool:
    """Equal types; dictionary encoding and the inner name and nullability of lists are storage, not meaning."""
    if pa.types.is_dictionary(actual):
        actual = actual.value_type
    if pa.types.is_list(actual) and pa.types.is_list(expected):
        return _same_type(actual.value_type, expected.value_type)
    return bool(actual.equals(expected))
