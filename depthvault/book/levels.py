"""A span of a book as single level changes: the whole book where a stretch begins, then every change. For exports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from depthvault.book.events import Flags, Floats, Integers, levels_of
from depthvault.book.reconstruct import Book, book
from depthvault.book.seeds import LEVEL_COLUMNS, Archive, events, microseconds, stretches
from depthvault.clock import datetime_from_ns


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """Level changes in order, arrays of one length; times in µs since the epoch.

    event_time: when the venue sent it, transaction_time: when its engine did it; each the best that is known (the
    other, else the receipt). is_snapshot: the rows are the whole known book, which replaces what was there.
    """

    is_snapshot: bool
    received: Integers
    event_time: Integers
    transaction_time: Integers
    is_bid: Flags
    price: Floats
    size: Floats


def changes(archive: Archive, exchange: str, symbol: str, start: datetime, end: datetime) -> Iterator[Changes]:
    """The book at `start`, and each change received in [start, end), in chain order.

    Where the chain breaks the changes go on, and the next snapshot is given as a whole book when it was received. While
    there is no snapshot yet nothing is given.
    """
    for stretch in stretches(archive, exchange, symbol, microseconds(start), microseconds(end)):
        if stretch.seed is None:
            continue
        begins = datetime_from_ns(stretch.start * 1000)
        whole = book(archive, exchange, symbol, begins, stretch.seed)
        yield _whole(whole, stretch.start)
        columns = ("event_time", "transaction_time", *LEVEL_COLUMNS)
        counted = stretch.start
        for batch in events(archive, exchange, symbol, stretch.seed, stretch.end - 1, columns):
            # An event counts when it and all before it had been received; those that `whole` holds are left out.
            received = batch.column("received_time").cast(pa.int64()).to_numpy(zero_copy_only=False)
            fresh = received > stretch.start
            if fresh.any():
                released = np.maximum(np.maximum.accumulate(received), counted)
                counted = int(released[-1])
                yield _changes(batch.filter(pa.array(fresh)), released[fresh])


def _whole(state: Book, at: int) -> Changes:
    count = state.bid_prices.size + state.ask_prices.size
    times = np.full(count, at, np.int64)
    return Changes(
        is_snapshot=True,
        received=times,
        event_time=times,
        transaction_time=times,
        is_bid=np.arange(count) < state.bid_prices.size,
        price=np.concatenate((state.bid_prices, state.ask_prices)),
        size=np.concatenate((state.bid_sizes, state.ask_sizes)),
    )


def _changes(batch: pa.RecordBatch, released: Integers) -> Changes:
    bid, ask = levels_of(batch, "bid"), levels_of(batch, "ask")
    bids, asks = np.diff(bid.offsets), np.diff(ask.offsets)
    rows = np.concatenate((np.repeat(np.arange(bids.size), bids), np.repeat(np.arange(asks.size), asks)))
    is_bid = np.concatenate((np.ones(bid.prices.size, np.bool_), np.zeros(ask.prices.size, np.bool_)))
    order = np.argsort(rows, kind="stable")  # of one event first the bids, then the asks
    rows = rows[order]
    micros = {name: batch.column(name).cast(pa.int64()) for name in ("received_time", "event_time", "transaction_time")}
    event = pc.coalesce(micros["event_time"], micros["transaction_time"], micros["received_time"])
    transaction = pc.coalesce(micros["transaction_time"], micros["event_time"], micros["received_time"])
    return Changes(
        is_snapshot=False,
        received=released[rows],
        event_time=event.to_numpy(zero_copy_only=False)[rows],
        transaction_time=transaction.to_numpy(zero_copy_only=False)[rows],
        is_bid=is_bid[order],
        price=np.concatenate((bid.prices, ask.prices))[order],
        size=np.concatenate((bid.sizes, ask.sizes))[order],
    )
