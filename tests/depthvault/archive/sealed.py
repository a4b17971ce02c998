"""Live files and receipts as the sealer writes them, made from chains of known events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.clock import ns_from_datetime
from depthvault.config import Config, load_config
from depthvault.durable import sha256_file
from depthvault.period import Period
from depthvault.schemas import CHANNELS
from depthvault.seal.receipts import Connection, JournalInput, LiveFile, Receipt, StreamSpan, write_receipt

HOUR = Period(datetime(2026, 11, 20, 10, tzinfo=UTC))
FUTURES = "binance_futures"


@dataclass
class Event:
    """A book event of the venue's truth: `at` seconds into HOUR."""

    at: float
    previous: int
    final: int
    symbol: str = "BTCUSDT"
    size: float = 1.0

    def row(self, instance: str, delay: float = 0.01, base: Period = HOUR) -> dict[str, object]:
        sent = base.start + timedelta(seconds=self.at)
        return {
            "received_time": sent + timedelta(seconds=delay), "event_time": sent, "symbol": self.symbol,
            "instance": instance, "source": "stream", "transaction_time": sent, "first_update_id": self.final - 1,
            "final_update_id": self.final, "prev_final_update_id": self.previous, "is_snapshot": False, "epoch": 0,
            "bid_prices": [100.0, 99.5], "bid_sizes": [self.size, float(self.final)], "ask_prices": [100.5],
            "ask_sizes": [0.0],
        }  # fmt: skip


def chain(
    count: int, *, start: float = 1.0, step: float = 1.0, first: int = 100, symbol: str = "BTCUSDT"
) -> list[Event]:
    """Events ten ids apart."""
    return [
        Event(start + number * step, first + 10 * number, first + 10 * (number + 1), symbol) for number in range(count)
    ]


def trade_rows(
    ids: Sequence[int], instance: str, symbol: str = "BTCUSDT", source: str = "stream", base: Period = HOUR
) -> list[dict[str, object]]:
    return [
        {
            "received_time": base.start + timedelta(seconds=number % 3600, milliseconds=5),
            "event_time": base.start + timedelta(seconds=number % 3600), "symbol": symbol, "instance": instance,
            "source": source, "transaction_time": base.start + timedelta(seconds=number % 3600),
            "agg_trade_id": number, "first_trade_id": number, "last_trade_id": number, "price": 100.0,
            "quantity": 0.5, "is_buyer_maker": bool(number % 2),
        }
        for number in ids
    ]  # fmt: skip


@dataclass
class Link:
    """A connection of a writer: seconds into the period; `end` None: still open.

    heard: when its streams spoke first; None: never. Without it: from the start on. until: when they fell silent.
    silent: they had been found silent before. then: later subscriptions on it.
    """

    start: float = -3600.0
    end: float | None = None
    cause: str | None = None
    number: int = 1
    streams: Sequence[str] = ("btcusdt@depth@100ms",)
    heard: float | None = -1e9
    until: float | None = None
    silent: bool = False
    then: Sequence[Link] = ()
    continues: bool = False

    def spans(self, at: int) -> list[StreamSpan]:
        def ns(seconds: float | None) -> int | None:
            return None if seconds is None else at + int(seconds * 1e9)

        start = at + int(self.start * 1e9)
        heard = start if self.heard is not None and self.heard < self.start else ns(self.heard)
        return [
            StreamSpan(stream=stream, from_ns=start, until_ns=ns(self.until), heard_ns=heard, silent=self.silent)
            for stream in self.streams
        ] + [span for later in self.then for span in later.spans(at)]


@dataclass
class Host:
    """A data directory with what its sealer left there."""

    root: Path
    options: dict[str, object] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return load_config(None, data_dir=self.root, **self.options)

    @property
    def layout(self):  # type: ignore[no-untyped-def]
        return self.config.layout

    def seal(
        self, writer: str, rows: dict[str, list[dict[str, object]]], *, period: Period = HOUR,
        links: Sequence[Link] = (Link(),), late: dict[Period, dict[str, list[dict[str, object]]]] | None = None,
        journal: bytes = b"", rejected: dict[str, int] | None = None,
    ) -> Receipt:  # fmt: skip
        """Write the live files and the complete receipt of one writer and period."""
        layout = self.layout
        files = [self._live(channel, part, writer, period, None) for channel, part in sorted(rows.items()) if part]
        for other, channels in (late or {}).items():
            files += [self._live(channel, part, writer, other, period) for channel, part in sorted(channels.items())]
        path = layout.journal(FUTURES, writer, period.start_ns)
        name = path.relative_to(layout.root).as_posix()
        journals = []
        if journal:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(journal)
            journals = [JournalInput(path=name, bytes_read=len(journal), rows=1, crc32c="00000000")]
        at = period.start_ns
        connections = [
            Connection(
                connection=link.number, route="public", journal=name, continues=link.continues or link.start < 0,
                opened_ns=at + int(link.start * 1e9), closed_ns=None if link.end is None else at + int(link.end * 1e9),
                cause=link.cause,
                streams=link.spans(at),
            )
            for link in links
        ]  # fmt: skip
        receipt = Receipt(
            exchange=FUTURES, writer=writer, period=period.label, period_minutes=60, complete=True, journals=journals,
            files=files, damage=[], dropped=[], rejected=rejected or {}, unknown={}, inexact={},
            connections=connections, software="test", schema_version=1,
        )  # fmt: skip
        write_receipt(layout, receipt)
        return receipt

    def _live(
        self, channel: str, rows: list[dict[str, object]], writer: str, period: Period, late: Period | None
    ) -> LiveFile:
        path = self.layout.live_file(FUTURES, channel, period, writer, late)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(rows, CHANNELS[channel].schema)
        pq.write_table(table, path, compression="lz4", row_group_size=64)
        return LiveFile(
            path=path.relative_to(self.root).as_posix(), channel=channel, period=period.label,
            late=late.label if late else None, rows=len(rows), sha256=sha256_file(path), bytes=path.stat().st_size,
        )  # fmt: skip


def ns(seconds: float, period: Period = HOUR) -> int:
    return ns_from_datetime(period.start) + int(seconds * 1e9)
