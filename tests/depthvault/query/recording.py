"""Builds data directories as the sealer and the archive leave them, from rows that a test chooses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.archive.manifest import ArchiveFile, Counts, Entry, InputFile, SymbolSpan, digest, encode
from depthvault.durable import sha256_file
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import CHANNELS, QUALITY, QUALITY_COLUMNS, SCHEMA_VERSION
from depthvault.seal.receipts import LiveFile, Receipt, write_receipt

HOUR_10 = datetime(2026, 11, 20, 10, tzinfo=UTC)


def trades(first_id: int, start: datetime, count: int, *, symbol: str = "BTCUSDT", instance: str = "a",
           price: float = 60000.1) -> pa.Table:  # fmt: skip
    """Trades one second apart, ids from `first_id` on."""
    times = [start + timedelta(seconds=i) for i in range(count)]
    rows = {
        "received_time": [moment + timedelta(milliseconds=7 if instance == "a" else 9) for moment in times],
        "event_time": times, "symbol": [symbol] * count, "instance": [instance] * count, "source": ["stream"] * count,
        "transaction_time": times, "trade_id": list(range(first_id, first_id + count)),
        "price": [price + i for i in range(count)], "quantity": [0.25] * count,
        "is_buyer_maker": [i % 2 == 0 for i in range(count)], "trade_type": ["trade"] * count,
    }  # fmt: skip
    return pa.table(rows, schema=CHANNELS["trade"].schema)


Levels = Sequence[tuple[float, float]]


def diff(
    first: int,
    final: int,
    received: datetime,
    bids: Levels,
    asks: Levels,
    *,
    prev: int | None = None,
    symbol: str = "BTCUSDT",
    instance: str = "a",
    is_snapshot: bool = False,
    epoch: int = 0,
) -> dict[str, Any]:
    """One `depth_diff` row."""
    return {
        "received_time": received, "event_time": received, "symbol": symbol, "instance": instance, "source": "stream",
        "transaction_time": None, "first_update_id": first, "final_update_id": final, "prev_final_update_id": prev,
        "is_snapshot": is_snapshot, "epoch": epoch, **_sides(bids, asks),
    }  # fmt: skip


def snapshot(last_update_id: int, received: datetime, bids: Levels, asks: Levels, *, limit: int = 1000,
             symbol: str = "BTCUSDT") -> dict[str, Any]:  # fmt: skip
    """One `depth_snapshot` row."""
    return {
        "received_time": received, "event_time": None, "symbol": symbol, "instance": "rest-here", "source": "rest",
        "transaction_time": None, "request_time": received - timedelta(milliseconds=80),
        "last_update_id": last_update_id, "limit": limit, **_sides(bids, asks),
    }  # fmt: skip


def _sides(bids: Levels, asks: Levels) -> dict[str, list[float]]:
    return {
        "bid_prices": [price for price, _ in bids], "bid_sizes": [size for _, size in bids],
        "ask_prices": [price for price, _ in asks], "ask_sizes": [size for _, size in asks],
    }  # fmt: skip


def table(channel: str, rows: Iterable[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=CHANNELS[channel].schema)


class Recording:
    """A data directory that grows as a test says."""

    def __init__(self, layout: Layout, exchange: str = "binance_spot") -> None:
        self.layout, self.exchange = layout, exchange
        self._previous: str | None = None
        self._number = 0

    def seal(self, moment: datetime, writer: str, rows: dict[str, pa.Table], *, complete: bool = True,
             late: dict[datetime, dict[str, pa.Table]] | None = None) -> Receipt:  # fmt: skip
        """Write a writer's live files of the period at `moment` and its receipt; `late`: stragglers by their period."""
        unit = self.layout.period_of(moment)
        files = []
        told = [(unit, rows), *((self.layout.period_of(when), part) for when, part in (late or {}).items())]
        for period, channels in told:
            for channel, part in channels.items():
                path = self.layout.live_file(
                    self.exchange, channel, period, writer, None if period == unit else unit
                )  # fmt: skip
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(part, path)
                files.append(
                    LiveFile(
                        path=path.relative_to(self.layout.root).as_posix(), channel=channel, period=period.label,
                        late=None if period == unit else unit.label, rows=part.num_rows, sha256=sha256_file(path),
                        bytes=path.stat().st_size,
                    )
                )  # fmt: skip
        receipt = Receipt(
            exchange=self.exchange, writer=writer, period=unit.label,
            period_minutes=self.layout.period // timedelta(minutes=1), complete=complete, journals=[], files=files,
            damage=[], dropped=[], rejected={}, unknown={}, inexact={}, connections=[], software="test",
            schema_version=1,
        )  # fmt: skip
        write_receipt(self.layout, receipt)
        return receipt

    def archive(self, moment: datetime, channel: str, rows: pa.Table, inputs: Iterable[Receipt], *,
                generation: int = 1, remove: Sequence[str] = (),
                quality: dict[str, list[dict[str, Any]]] | None = None,
                version: int = SCHEMA_VERSION) -> Entry:  # fmt: skip
        """Publish `rows` as the archived period at `moment`, made of the files that `inputs` name; `version`: of the
        quality tables' schema."""
        period = self.layout.period_of(moment)
        key = Layout.hour_key(self.exchange, channel, period, generation)
        add = [self._file(key, channel, rows)]
        for name, records in (quality or {}).items():
            columns = [column.name for column in QUALITY_COLUMNS[name] if column.since <= version]
            part = pa.Table.from_pylist(records, schema=QUALITY[name]).select(columns)
            key = Layout.quality_key(name, self.exchange, channel, period, generation)
            add.append(self._file(key, name, part, version))
        sources = [
            InputFile(file.path, file.sha256, file.rows)
            for receipt in inputs
            for file in receipt.files
            if file.channel == channel and file.period == period.label
        ]
        return self._publish(channel, period, generation, sources, add, list(remove))

    def _file(self, key: str, name: str, rows: pa.Table, version: int = SCHEMA_VERSION) -> ArchiveFile:
        path = self.layout.archived(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = rows.sort_by("symbol")
        pq.write_table(rows, path, compression="zstd")
        symbols, first, last = {}, None, None
        if "received_time" in rows.schema.names:
            received = rows.column("received_time").cast(pa.int64()).to_pylist()
            first, last = min(received), max(received)
        for symbol in sorted(set(rows.column("symbol").to_pylist())):
            symbols[symbol] = SymbolSpan(1, first or 0, last or 0, (0, 1))
        return ArchiveFile(key, sha256_file(path), path.stat().st_size, rows.num_rows, "", name, first, last,
                           symbols=symbols, schema_version=version)  # fmt: skip

    def _publish(self, channel: str, period: Period, generation: int, inputs: list[InputFile],
                 add: list[ArchiveFile], remove: list[str]) -> Entry:  # fmt: skip
        self._number += 1
        entry = Entry(
            self._number, self._previous, "hour", self.exchange, channel, period.label,
            self.layout.period // timedelta(minutes=1), generation, "2026-11-20T12:00:00Z", "test", "test", 1, {},
            inputs, add, remove, Counts(),
        )  # fmt: skip
        data = encode(entry)
        path = self.layout.manifest(self._number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self._previous = digest(data)
        return entry
