"""The data dictionary: every channel, its columns with their meaning, its key and its order.

Times are `timestamp[us, UTC]`. Prices and sizes are `double`: a decimal text of up to 15 significant digits survives
exactly. Columns may be added, never renamed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

SCHEMA_VERSION = 2
"""Stands in the metadata of every file as `depthvault.schema_version`. Rises when columns are added."""

TIME = pa.timestamp("us", tz="UTC")
LEVELS = pa.list_(pa.field("element", pa.float64(), nullable=False))
VOLUME = pa.decimal128(38, 8)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `meaning` is one sentence with the unit. since: the schema version that added it; files of an earlier
    one have no such column, and readers give null."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False
    since: int = 1


@dataclass(frozen=True, slots=True)
class Channel:
    """One kind of market data.

    key: columns that identify a row within exchange and symbol; the same key with another payload is an incident.
    time: venue time columns in order of preference that decide an event's hour; when all are null, `received_time`.
    order: the chain order within a symbol.
    continuity: how completeness is proved: `update_id` (the venue's book chain), `trade_id` (+1 ids), `minute`
        (one candle an interval), `cadence` (one row every so often) or `none` (nothing proves it). A venue may promise
        more than the others (`exchanges.channel_of`).
    refillable: whether what is missing can be fetched again by its id.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    time: tuple[str, ...]
    order: tuple[str, ...]
    continuity: str = "none"
    id_column: str | None = None
    refillable: bool = False
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        schema = pa.schema(
            [pa.field(column.name, column.type, column.nullable) for column in self.columns],
            metadata={"depthvault.schema_version": str(SCHEMA_VERSION), "depthvault.channel": self.name},
        )
        object.__setattr__(self, "schema", schema)


COMMON = (
    Column("received_time", TIME, "When our host had the frame (wall clock, UTC)."),
    Column("event_time", TIME, "When the venue sent the event (its `E`).", True),
    Column("symbol", pa.string(), "The venue's own spelling; empty where an event concerns no single symbol."),
    Column(
        "instance", pa.string(), "The writer that recorded the row: `a`, `b`, `a.0-of-2`, `rest-<host>`; or `import`."
    ),
    Column(
        "source",
        pa.string(),
        "`stream`, `rest`, `refill` (fetched later by id to close a hole) or `import` (another recorder's, unproved).",
    ),
)

_TRANSACTION = Column("transaction_time", TIME, "When the matching engine did it (the venue's `T`).")
_TRANSACTION_OPTIONAL = Column("transaction_time", TIME, "When the matching engine did it (the venue's `T`).", True)
_SIDES = (
    Column("bid_prices", LEVELS, "Bid prices, in the venue's order."),
    Column("bid_sizes", LEVELS, "Absolute sizes at `bid_prices`; 0 removes the level."),
    Column("ask_prices", LEVELS, "Ask prices, in the venue's order."),
    Column("ask_sizes", LEVELS, "Absolute sizes at `ask_prices`; 0 removes the level."),
)
_CHAIN = (
    Column("first_update_id", pa.int64(), "The venue's first update id in the event (`U`)."),
    Column("final_update_id", pa.int64(), "The venue's last update id in the event (`u`; Lighter `nonce`)."),
    Column("prev_final_update_id", pa.int64(), "`u` of the event before (`pu`; Lighter `begin_nonce`).", True),
    Column("is_snapshot", pa.bool_(), "True: the levels are the whole book and replace it."),
    Column("epoch", pa.int32(), "Rises by one each time the venue restarts its ids."),
)
_PRICE = Column("price", pa.float64(), "Price in quote units.")
_QUANTITY = Column("quantity", pa.float64(), "Quantity in base units.")
_MAKER = Column("is_buyer_maker", pa.bool_(), "True: the buyer rested in the book, so the taker sold.")

_CHANNELS = (
    Channel(
        "depth_diff",
        "Every change of the order book: absolute sizes at changed prices, chained by id.",
        (*COMMON, _TRANSACTION_OPTIONAL, *_CHAIN, *_SIDES),
        key=("final_update_id", "is_snapshot", "epoch"),
        time=("transaction_time", "event_time"),
        order=("epoch", "final_update_id"),
        continuity="update_id",
        id_column="final_update_id",
    ),
    Channel(
        "depth_partial",
        "The top N levels, each time whole.",
        (*COMMON, _TRANSACTION_OPTIONAL, *_CHAIN, Column("levels", pa.int32(), "N: 5, 10 or 20."), *_SIDES),
        key=("levels", "final_update_id"),
        time=("transaction_time", "event_time"),
        order=("levels", "epoch", "final_update_id"),
        id_column="final_update_id",
    ),
    Channel(
        "depth_snapshot",
        "The whole book as the venue answers a question for it, down to `limit` levels a side.",
        (
            *COMMON,
            _TRANSACTION_OPTIONAL,
            Column("request_time", TIME, "When our host sent the request."),
            Column("last_update_id", pa.int64(), "The id of the last update that is in the snapshot."),
            Column("limit", pa.int32(), "How many levels a side were asked for; 2147483647: all."),
            *_SIDES,
        ),
        key=("last_update_id", "request_time"),
        time=("transaction_time", "event_time"),
        order=("last_update_id", "request_time"),
        continuity="cadence",
        id_column="last_update_id",
    ),
    Channel(
        "book_ticker",
        "Best bid and ask at each change.",
        (
            *COMMON,
            _TRANSACTION_OPTIONAL,
            Column("update_id", pa.int64(), "The book update that the row shows; same id space as depth."),
            Column("bid_price", pa.float64(), "Best bid price; null when the side is empty.", True),
            Column("bid_size", pa.float64(), "Size at the best bid.", True),
            Column("ask_price", pa.float64(), "Best ask price; null when the side is empty.", True),
            Column("ask_size", pa.float64(), "Size at the best ask.", True),
        ),
        key=("update_id",),
        time=("transaction_time", "event_time"),
        order=("update_id",),
        id_column="update_id",
    ),
    Channel(
        "agg_trade",
        "Trades of one taker order at one price, aggregated by the venue; ids are consecutive.",
        (
            *COMMON,
            _TRANSACTION,
            Column("agg_trade_id", pa.int64(), "Consecutive within a symbol."),
            Column("first_trade_id", pa.int64(), "First trade in it."),
            Column("last_trade_id", pa.int64(), "Last trade in it."),
            _PRICE,
            _QUANTITY,
            _MAKER,
        ),
        key=("agg_trade_id",),
        time=("transaction_time", "event_time"),
        order=("agg_trade_id",),
        continuity="trade_id",
        id_column="agg_trade_id",
        refillable=True,
    ),
    Channel(
        "trade",
        "Single fills; on Binance spot their ids are consecutive.",
        (
            *COMMON,
            _TRANSACTION,
            Column("trade_id", pa.int64(), "The venue's trade id."),
            _PRICE,
            _QUANTITY,
            _MAKER,
            Column(
                "trade_type",
                pa.string(),
                "`trade`, or as the venue says (`MARKET`, `liquidation`, `ADL`, …).",
            ),
        ),
        key=("trade_id",),
        time=("transaction_time", "event_time"),
        order=("trade_id",),
        id_column="trade_id",
    ),
    Channel(
        "kline",
        "Closed candles.",
        (
            *COMMON,
            Column("interval", pa.string(), "Length of the candle: `1m`, `5m` and so on."),
            Column("open_time", TIME, "Start of the candle."),
            Column("close_time", TIME, "End of the candle (last millisecond)."),
            Column("open", pa.float64(), "First price."),
            Column("high", pa.float64(), "Highest price."),
            Column("low", pa.float64(), "Lowest price."),
            Column("close", pa.float64(), "Last price."),
            Column("volume", VOLUME, "Base volume."),
            Column("quote_volume", VOLUME, "Quote volume."),
            Column("trade_count", pa.int64(), "Number of trades."),
            Column("taker_buy_volume", VOLUME, "Base volume that takers bought."),
            Column("taker_buy_quote_volume", VOLUME, "Quote volume that takers bought."),
        ),
        key=("interval", "open_time"),
        time=("close_time",),
        order=("interval", "open_time"),
        continuity="minute",
    ),
    Channel(
        "liquidation",
        "Forced orders; on Binance a sample (the largest of each second), on Lighter all.",
        (
            *COMMON,
            _TRANSACTION,
            Column("trade_id", pa.int64(), "The trade id where the venue gives one.", True),
            Column("side", pa.string(), "`BUY` or `SELL`: the forced order's side."),
            Column("order_type", pa.string(), "The venue's order type.", True),
            Column("time_in_force", pa.string(), "The venue's time in force.", True),
            _PRICE,
            Column("average_price", pa.float64(), "Average fill price.", True),
            _QUANTITY,
            Column("filled_quantity", pa.float64(), "Cumulative filled quantity.", True),
            Column("status", pa.string(), "The venue's order status.", True),
        ),
        key=(
            "trade_id",
            "transaction_time",
            "side",
            "price",
            "quantity",
            "average_price",
            "filled_quantity",
            "status",
        ),
        time=("transaction_time", "event_time"),
        order=("transaction_time", "side", "price", "quantity"),
    ),
    Channel(
        "mark_price",
        "Mark and index price with the running funding rate.",
        (
            *COMMON,
            Column("mark_price", pa.float64(), "Mark price.", True),
            Column("index_price", pa.float64(), "Index price.", True),
            Column(
                "funding_rate",
                pa.float64(),
                "Rate for the coming settlement: fraction per funding interval.",
                True,
            ),
            Column("next_funding_time", TIME, "When it will be settled.", True),
        ),
        key=("event_time",),
        time=("event_time",),
        order=("event_time",),
        continuity="cadence",
    ),
    Channel(
        "funding_rate",
        "Settled funding.",
        (
            *COMMON,
            Column("funding_time", TIME, "When it was settled."),
            Column("funding_rate", pa.float64(), "Fraction of the position's value, per interval."),
            Column("interval_hours", pa.int32(), "Length of the funding interval in hours.", True),
            Column("mark_price", pa.float64(), "Mark price at settlement.", True),
        ),
        key=("funding_time",),
        time=("funding_time",),
        order=("funding_time",),
        continuity="cadence",
    ),
    Channel(
        "open_interest",
        "Open contracts.",
        (
            *COMMON,
            Column("open_interest", VOLUME, "In base units; null where the venue gives only its value.", True),
            Column("quote_value", VOLUME, "In quote units, where the venue gives it.", True),
        ),
        key=("event_time",),
        time=("event_time",),
        order=("event_time",),
        continuity="cadence",
    ),
    Channel(
        "instrument",
        "What is listed and under which rules, one row at each change.",
        (
            *COMMON,
            Column("status", pa.string(), "The venue's status: `TRADING`, `BREAK`, `SETTLING`, `active` and others."),
            Column("base", pa.string(), "Base asset."),
            Column("quote", pa.string(), "Quote asset."),
            Column("market_id", pa.int64(), "The venue's number for it, where it has one.", True),
            Column("tick_size", pa.float64(), "Smallest price step."),
            Column("lot_size", pa.float64(), "Smallest quantity step."),
            Column("contract_type", pa.string(), "`PERPETUAL`, `CURRENT_QUARTER` and others; null on spot.", True),
            Column("listed_time", TIME, "When it was listed, where the venue says.", True),
        ),
        key=("status", "base", "quote", "market_id", "tick_size", "lot_size", "contract_type", "listed_time"),
        time=(),
        order=("received_time",),
    ),
    Channel(
        "collector_event",
        "What happened to the recorder itself.",
        (
            *COMMON,
            Column("exchange", pa.string(), "The venue."),
            Column(
                "kind",
                pa.string(),
                "start, stop, connect, disconnect, roll, subscribe, gap, resync, stale, rate_limited, banned, clock, "
                "environment, malformed or flush.",
            ),
            Column("channel", pa.string(), "The channel it concerns.", True),
            Column("connection", pa.int64(), "The connection's number within its journal; 0 for none."),
            Column("detail", pa.string(), "JSON."),
        ),
        key=("received_time", "kind", "channel", "connection", "detail", "instance"),
        time=(),
        order=("received_time",),
    ),
)

CHANNELS: dict[str, Channel] = {channel.name: channel for channel in _CHANNELS}
"""Every channel by name."""

_QUALITY: dict[str, tuple[str, tuple[Column, ...]]] = {
    "gaps": (
        "Every break of a continuity rule, and of channels without ids every time at which nobody listened.",
        (
            Column("exchange", pa.string(), "The venue."),
            Column("channel", pa.string(), "The channel."),
            Column(
                "symbol", pa.string(), "The symbol; empty: a stream of the whole market, for symbols without a row."
            ),
            Column("period", TIME, "Start of the archive period that the gap ends in."),
            Column(
                "instance",
                pa.string(),
                "The writer that had the gap; empty: none had the events; `import`: imported rows.",
            ),
            Column("last_id", pa.int64(), "The last id before the gap.", True),
            Column("first_id", pa.int64(), "The id that the first event after it starts from.", True),
            Column("start_time", TIME, "Receipt of the last event before.", True),
            Column("end_time", TIME, "Receipt of the first event after.", True),
            Column("cause", pa.string(), "disconnect, crash, stop, damaged, malformed, silent, venue or unknown."),
            Column("status", pa.string(), "open, bridged, refilled, lost or unprovable."),
            Column("detail", pa.string(), "JSON: evidence."),
        ),
    ),
    "coverage": (
        "What was recorded of each symbol in each period.",
        (
            Column("exchange", pa.string(), "The venue."),
            Column("channel", pa.string(), "The channel."),
            Column(
                "symbol", pa.string(), "The symbol; empty: a stream of the whole market, for symbols without a row."
            ),
            Column("period", TIME, "Start of the archive period."),
            Column("first_time", TIME, "Receipt of the first event.", True),
            Column("last_time", TIME, "Receipt of the last event.", True),
            Column("events", pa.int64(), "Rows archived."),
            Column("duplicates", pa.int64(), "Rows that several writers or connections had and that were merged."),
            Column("gaps", pa.int64(), "Gaps that are not bridged or refilled."),
            Column(
                "covered_seconds",
                pa.float64(),
                "Seconds of the period with a live, subscribed connection that was not found silent.",
            ),
            Column("share", pa.float64(), "`covered_seconds` over the length of the period, 0 to 1."),
            Column("usual_events", pa.float64(), "Mean events of a whole period of late, this one included.", True, 2),
            Column("expected_low", pa.int64(), "Fewest events to expect of the share that was covered.", True, 2),
            Column("expected_high", pa.int64(), "Most events to expect of it.", True, 2),
        ),
    ),
    "hour_metrics": (
        "What Great Expectations judged, one row a file and symbol.",
        (
            Column("exchange", pa.string(), "The venue."),
            Column("channel", pa.string(), "The channel."),
            Column("symbol", pa.string(), "The symbol."),
            Column("period", TIME, "Start of the archive period."),
            Column("metric", pa.string(), "The metric's name."),
            Column("value", pa.float64(), "Its value.", True),
            Column("passed", pa.bool_(), "Whether the expectation on it held.", True),
        ),
    ),
    "book_audit": (
        "Diffs replayed from one REST snapshot to the next, compared level by level.",
        (
            Column("exchange", pa.string(), "The venue."),
            Column("symbol", pa.string(), "The symbol."),
            Column("period", TIME, "Start of the archive period."),
            Column("from_update_id", pa.int64(), "The snapshot that seeded the book."),
            Column("to_update_id", pa.int64(), "The snapshot it was compared with."),
            Column("diffs_applied", pa.int64(), "Events between them."),
            Column("matched", pa.int64(), "Levels that agree."),
            Column("missing", pa.int64(), "Levels only the snapshot has."),
            Column("extra", pa.int64(), "Levels only the replayed book has."),
            Column("different", pa.int64(), "Levels with another size."),
            Column("undecidable", pa.int64(), "Levels touched by the event that straddles the snapshot's id."),
            Column("bid_low", pa.float64(), "Lowest bid price compared.", True),
            Column("ask_high", pa.float64(), "Highest ask price compared.", True),
            Column("gap_crossed", pa.bool_(), "A gap lies between the two: nothing can be said."),
            Column("state_hash", pa.string(), "SHA-256 of the replayed book's compared levels."),
        ),
    ),
}

QUALITY_COLUMNS: dict[str, tuple[Column, ...]] = {name: columns for name, (_, columns) in _QUALITY.items()}
QUALITY_MEANINGS: dict[str, str] = {name: meaning for name, (meaning, _) in _QUALITY.items()}
QUALITY: dict[str, pa.Schema] = {
    name: pa.schema(
        [pa.field(column.name, column.type, column.nullable) for column in columns],
        metadata={"depthvault.schema_version": str(SCHEMA_VERSION), "depthvault.table": name},
    )
    for name, (_, columns) in _QUALITY.items()
}
"""Schemas of the quality tables by name."""


def columns_of(table: str) -> tuple[Column, ...]:
    """The columns of a channel or quality table."""
    return CHANNELS[table].columns if table in CHANNELS else QUALITY_COLUMNS[table]


def completed(rows: pa.Table, name: str) -> pa.Table:
    """Rows of a quality table, of a file of any schema version, with all of its columns."""
    schema = QUALITY[name]
    columns = [
        rows.column(field.name) if field.name in rows.schema.names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
