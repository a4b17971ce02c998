"""The rows that only the journals hold so far, decoded on demand: the running hour for SQL."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa

from depthvault.exchanges.base import Exchange
from depthvault.layout import Layout
from depthvault.schemas import CHANNELS
from depthvault.seal.decoding import WindowDecoder
from depthvault.seal.reading import Reading, read_window
from depthvault.seal.receipts import read_receipt
from depthvault.seal.spans import SpanIndex, Window

GRACE = timedelta(seconds=60)


def unsealed(
    layout: Layout, exchange: Exchange, channel: str, *, grace: timedelta = GRACE, index: SpanIndex | None = None
) -> pa.Table:
    """The rows of `channel`, of all writers, whose seal unit has no complete receipt; by writer, then as received.

    `collector_event` comes without the `malformed` rows that sealing adds. Live files of receipts that are not complete
    hold the same rows: a reader takes one or the other.
    """
    index = index or SpanIndex(layout, grace)
    tables = [CHANNELS[channel].schema.empty_table()]
    for writer in layout.writers(exchange.name):
        for period, inputs in index.periods(exchange.name, writer).items():
            path = layout.receipt(exchange.name, period, writer)
            if path.exists() and read_receipt(path).complete:
                continue
            window = Window.of(period, grace)
            decoder = WindowDecoder(exchange, writer, window, grace, frozenset((channel,)))
            pieces = read_window(inputs, layout.root, window, decoder, Reading())
            tables += [piece.rows for piece in pieces]
    return pa.concat_tables(tables)
