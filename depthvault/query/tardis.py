"""CSV in the shape of Tardis' datasets `incremental_book_L2` and `trades`. Times are µs since the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pyarrow as pa

from depthvault.book.levels import changes
from depthvault.query.text import literal, quote
from depthvault.query.vault import Vault

BOOK_SCHEMA = pa.schema(
    [
        ("exchange", pa.string()), ("symbol", pa.string()), ("timestamp", pa.int64()), ("local_timestamp", pa.int64()),
        ("is_snapshot", pa.bool_()), ("side", pa.string()), ("price", pa.float64()), ("amount", pa.float64()),
    ]
)  # fmt: skip
TRADES_SCHEMA = pa.schema(
    [
        ("exchange", pa.string()), ("symbol", pa.string()), ("timestamp", pa.int64()), ("local_timestamp", pa.int64()),
        ("id", pa.string()), ("side", pa.string()), ("price", pa.float64()), ("amount", pa.float64()),
    ]
)  # fmt: skip


def book(
    vault: Vault, exchange: str, symbol: str, start: datetime, end: datetime, notes: list[str]
) -> Iterator[pa.RecordBatch]:
    """Level changes; the whole book first and wherever it had to be seeded anew, as `is_snapshot` rows."""
    snapshots = 0
    for part in changes(vault, exchange, symbol, start, end):
        snapshots += part.is_snapshot
        count = part.price.size
        yield pa.record_batch(
            [
                pa.array([exchange], pa.string()).take(pa.array(np.zeros(count, np.int64))),
                pa.array([symbol], pa.string()).take(pa.array(np.zeros(count, np.int64))),
                pa.array(part.event_time),
                pa.array(part.received),
                pa.array(np.full(count, part.is_snapshot)),
                pa.array(["ask", "bid"]).take(pa.array(part.is_bid.astype(np.int64))),
                pa.array(part.price),
                pa.array(part.size),
            ],
            schema=BOOK_SCHEMA,
        )
    if snapshots == 0:
        notes.append("no snapshot was received in this span or before it, so there is no book")
    if snapshots > 1:
        notes.append(f"the book was seeded {snapshots} times: each is_snapshot block replaces what was before")


def trades(vault: Vault, exchange: str, symbol: str, start: datetime, end: datetime) -> Iterator[pa.RecordBatch]:
    """Single fills; `side` is the taker's."""
    query = f"""
        SELECT exchange, symbol, epoch_us(coalesce(event_time, transaction_time)) AS timestamp,
               epoch_us(received_time) AS local_timestamp, trade_id::VARCHAR AS id,
               CASE WHEN is_buyer_maker THEN 'sell' ELSE 'buy' END AS side, price, quantity AS amount
        FROM trade
        WHERE exchange = {quote(exchange)} AND symbol = {quote(symbol)}
          AND received_time >= {literal(start)} AND received_time < {literal(end)}
        ORDER BY received_time, trade_id
    """
    for batch in vault.arrow(query):
        yield batch.cast(TRADES_SCHEMA)
