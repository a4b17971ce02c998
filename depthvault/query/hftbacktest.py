"""Book and trades as the event array that hftbacktest reads (`np.load(path)["data"]`), version 2 of its format.

Times are ns. `exch_ts` is the engine's time where the venue gives it, `local_ts` our receipt. hftbacktest wants
both in order: an event that overtook another on its way to us is split into its exchange half and its local half, as
its documentation describes. It also wants no receipt before the event: when our clock was behind the venue's, all
receipts are moved by the same amount, and `notes` says by how much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from depthvault.book.levels import Changes, changes
from depthvault.query.text import literal, quote
from depthvault.query.vault import Vault

EVENT = np.dtype(
    [
        ("ev", "u8"), ("exch_ts", "i8"), ("local_ts", "i8"), ("px", "f8"), ("qty", "f8"), ("order_id", "u8"),
        ("ival", "i8"), ("fval", "f8"),
    ],
    align=True,
)  # fmt: skip
DEPTH, TRADE, CLEAR, SNAPSHOT = 1, 2, 3, 4
EXCHANGE, LOCAL, BUY, SELL = 1 << 31, 1 << 30, 1 << 29, 1 << 28

FILLS = ("MARKET", "trade", "liquidation")
"""Kinds of `trade` that took liquidity from the book; others (insurance fund, ADL) did not trade against it."""

Events = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Written:
    """Events in the file, and what a reader must know of them."""

    rows: int
    notes: list[str]


def write(
    vault: Vault,
    exchange: str,
    symbol: str,
    start: datetime,
    end: datetime,
    path: Path,
    reached: Callable[[int, int], None],
) -> Written:
    """Write what was received in [start, end). All events are held in memory: 64 bytes each."""
    notes: list[str] = []
    parts, seeds = [], 0
    low, high = np.inf, 0.0
    for part in changes(vault, exchange, symbol, start, end):
        if part.price.size:
            low, high = min(low, float(part.price.min())), max(high, float(part.price.max()))
        if part.is_snapshot:
            seeds += 1
            parts.append(_clear(part, low, high))
        parts.append(_depth(part))
        if part.received.size:
            reached(int(part.received[-1]), part.received.size)
    if seeds == 0:
        notes.append("no snapshot was received in this span or before it: the file holds trades alone")
    if seeds > 1:
        notes.append(f"the book was seeded {seeds} times; between a gap and the next snapshot it is not certain")
    fills, skipped = _trades(vault, exchange, symbol, start, end)
    if skipped:
        notes.append(f"{skipped:,} trades that took nothing from the book were left out")
    # At the same instant a trade comes before the change of the book that it made.
    merged = np.concatenate([fills, *parts]) if parts else fills
    merged = merged[np.argsort(merged["local_ts"], kind="stable")]
    if (shift := _shift(merged)) > 0:
        merged["local_ts"] += shift
        notes.append(f"our clock was behind the venue's: receipts were moved by {shift / 1e6:,.3f} ms")
    ordered = in_both_orders(merged)
    with path.open("wb") as file:
        np.savez_compressed(file, data=ordered)
    return Written(ordered.size, notes)


def _shift(events: Events) -> int:
    """By how much receipts must be moved, so that none lies before its event."""
    return int(max(0, -(events["local_ts"] - events["exch_ts"]).min())) if events.size else 0


def _depth(part: Changes) -> Events:
    events = np.zeros(part.price.size, EVENT)
    kind = SNAPSHOT if part.is_snapshot else DEPTH
    events["ev"] = np.where(part.is_bid, kind | BUY, kind | SELL)
    events["exch_ts"], events["local_ts"] = part.transaction_time * 1000, part.received * 1000
    events["px"], events["qty"] = part.price, part.size
    return events


def _clear(part: Changes, low: float, high: float) -> Events:
    """What wipes both sides, out to the farthest prices that were ever told, before a whole book is set."""
    events = np.zeros(2, EVENT)
    events["ev"] = CLEAR | BUY, CLEAR | SELL
    events["px"] = low, high
    at = int(part.received[0]) * 1000 if part.received.size else 0
    events["exch_ts"] = events["local_ts"] = at
    return events if part.received.size else events[:0]


def _trades(vault: Vault, exchange: str, symbol: str, start: datetime, end: datetime) -> tuple[Events, int]:
    """Fills in the order of receipt, and how many trades were none. Without `trade`, `agg_trade` is taken."""
    where = (
        f"exchange = {quote(exchange)} AND symbol = {quote(symbol)} "
        f"AND received_time >= {literal(start)} AND received_time < {literal(end)}"
    )
    kinds = ", ".join(map(quote, FILLS))
    single = (
        f"SELECT transaction_time, received_time, price, quantity, is_buyer_maker, trade_type IN ({kinds}) AS fill "
        f"FROM trade WHERE {where} ORDER BY received_time, trade_id"
    )
    aggregated = (
        "SELECT transaction_time, received_time, price, quantity, is_buyer_maker, true AS fill "
        f"FROM agg_trade WHERE {where} ORDER BY received_time, agg_trade_id"
    )
    for query in (single, aggregated):
        rows = vault.arrow(query).read_all()
        if rows.num_rows:
            kept = rows.filter(rows.column("fill"))
            return _fills(kept), rows.num_rows - kept.num_rows
    return np.zeros(0, EVENT), 0


def _fills(rows: pa.Table) -> Events:
    events = np.zeros(rows.num_rows, EVENT)
    sold = np.asarray(rows.column("is_buyer_maker").to_numpy(), np.bool_)
    events["ev"] = np.where(sold, TRADE | SELL, TRADE | BUY)
    events["exch_ts"] = rows.column("transaction_time").cast(pa.int64()).to_numpy() * 1000
    events["local_ts"] = rows.column("received_time").cast(pa.int64()).to_numpy() * 1000
    events["px"], events["qty"] = rows.column("price").to_numpy(), rows.column("quantity").to_numpy()
    return events


def in_both_orders(events: Events) -> Events:
    """`events`, given in the order of receipt, such that those marked EXCHANGE rise by `exch_ts` and those marked LOCAL
    by `local_ts`. An event that cannot stand in one place for both is split in two."""
    exchange_time = events["exch_ts"]
    overtaken = exchange_time < np.maximum.accumulate(exchange_time) if events.size else np.zeros(0, np.bool_)
    both, late = events[~overtaken], events[overtaken]
    both["ev"] |= EXCHANGE | LOCAL
    at_venue, here = late.copy(), late.copy()
    at_venue["ev"] |= EXCHANGE
    here["ev"] |= LOCAL
    at_venue = at_venue[np.argsort(at_venue["exch_ts"], kind="stable")]
    # Where each goes among the whole ones: after those of the same time at the venue, and where it was received.
    positions = np.flatnonzero(overtaken) - np.arange(late.size)
    places = np.concatenate(
        (
            np.searchsorted(both["exch_ts"], at_venue["exch_ts"], side="right") - 0.5,
            np.arange(both.size, dtype=np.float64),
            positions - 0.25,
        )
    )
    return np.concatenate((at_venue, both, here))[np.argsort(places, kind="stable")]
