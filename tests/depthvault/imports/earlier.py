"""Files as the three earlier recorders wrote them: their names, their columns, their types, their compression."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

START = datetime(2024, 1, 1, 12, tzinfo=UTC)
Table = list[dict[str, Any]]


def us(seconds: float) -> int:
    """Microseconds since the epoch, `seconds` after START."""
    return int((START + timedelta(seconds=seconds)).timestamp() * 1_000_000)


def s0_rows(count: int = 3, first: int = 1000, exchange: str = "binance_spot", symbol: str = "BTCUSDT") -> Table:
    return [
        {
            "timestamp": (START + timedelta(seconds=n, microseconds=123456)).replace(tzinfo=None).isoformat(),
            "sequence_id": first + 10 * n, "exchange": exchange, "symbol": symbol, "event_type": "depthUpdate",
            "bids": [["43000.00", "0.5"], ["42999.10", f"{n}.2"]], "asks": [["43001.00", "0.8"]],
            "best_bid": 43000.0, "best_ask": 43001.0, "spread": 1.0, "spread_percent": 0.0023, "mid_price": 43000.5,
            "total_bid_volume": 1.7, "total_ask_volume": 0.8,
        }
        for n in range(count)
    ]  # fmt: skip


def s0(root: Path, rows: Table | None = None, exchange: str = "binance_spot", symbol: str = "BTCUSDT") -> Path:
    path = root / exchange / symbol / f"{exchange}_orderbook_{symbol}_2024_01_01_12.parquet"
    return _pandas(path, s0_rows(exchange=exchange, symbol=symbol) if rows is None else rows)


S1_DIFF = pa.schema(
    [("received_time", pa.int64()), ("event_time", pa.int64()), ("symbol", pa.large_string()),
     ("first_update_id", pa.int64()), ("final_update_id", pa.int64())]
    + [(f"{side}_{what}", pa.large_list(pa.float64())) for side in ("bid", "ask") for what in ("prices", "sizes")]
)  # fmt: skip
S1_SNAPSHOT = pa.schema(
    [("request_time", pa.int64()), ("received_time", pa.int64()), ("lastUpdateId", pa.int64())]
    + [(f"{side}_{what}", pa.large_list(pa.float64())) for side in ("bid", "ask") for what in ("prices", "sizes")]
    + [("limit", pa.int32()), ("symbol", pa.large_string())]
)


def s1_diffs(count: int = 4, symbol: str = "BTCUSDT", skip: range = range(0), start: float = 0.0) -> Table:
    return [
        {
            "received_time": us(start + n) + 7000, "event_time": us(start + n), "symbol": symbol,
            "first_update_id": 101 + 10 * n, "final_update_id": 110 + 10 * n, "bid_prices": [100.0, 99.5],
            "bid_sizes": [1.0 + n, 0.0], "ask_prices": [100.5], "ask_sizes": [2.0],
        }
        for n in range(count)
        if n not in skip
    ]  # fmt: skip


def s1_snapshots(ids: tuple[int, ...] = (110,), symbol: str = "BTCUSDT") -> Table:
    return [
        {
            "request_time": us(place) + 400_000, "received_time": us(place) + 500_000, "lastUpdateId": number,
            "bid_prices": [100.0, 99.0], "bid_sizes": [1.0, 5.0], "ask_prices": [100.5, 101.0],
            "ask_sizes": [2.0, 6.0], "limit": 1000, "symbol": symbol,
        }
        for place, number in enumerate(ids)
    ]  # fmt: skip


def s1(root: Path, folder: str, rows: Table, market: str = "spot", name: str = "2024-01-01") -> Path:
    path = root / "data" / market / folder / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = S1_SNAPSHOT if folder == "orderbooks" else S1_DIFF
    pq.write_table(pa.Table.from_pylist(rows, schema), path, compression="zstd", compression_level=9)
    return path


def s2(root: Path, datatype: str, rows: Table, symbol: str = "BTCUSDT") -> Path:
    name = f"funding_rate_{START:%Y%m%d_%H%M}" if datatype == "funding" else f"{symbol}_{datatype}_{START:%Y%m%d_%H%M}"
    return _pandas(root / f"{name}.parquet", rows)


def s2_all(root: Path) -> None:
    ms, received = us(0) // 1000, us(0) / 1e6 + 0.25
    s2(root, "orderbook", [
        {"symbol": "BTCUSDT", "event_time": ms + n, "recv_time": received + n, "last_update_id": 500 + n,
         "bids": [["43000.10", "1.5"], ["43000.00", "2"]], "asks": [["43000.20", "0.00001"]]} for n in range(3)
    ])  # fmt: skip
    s2(root, "trade", [
        {"symbol": "BTCUSDT", "trade_id": n, "price": "43000.12345678", "quantity": "0.1", "first_trade_id": 2 * n,
         "last_trade_id": 2 * n + 1, "trade_time": ms + n, "recv_time": received + n, "is_buyer_maker": n % 2 == 0}
        for n in (7, 8, 11)
    ])  # fmt: skip
    s2(root, "kline", [
        {"symbol": "BTCUSDT", "open_time": ms, "close_time": ms + 59_999, "open": "1.0", "high": "2.5", "low": "0.5",
         "close": "2.0", "volume": "12345678901.12345678", "quote_volume": "9.5", "trade_count": 42,
         "recv_time": received + 60}
    ])  # fmt: skip
    s2(root, "liquidation", [
        {"symbol": "BTCUSDT", "side": "SELL", "order_type": "LIMIT", "price": "42000", "quantity": "0.014",
         "trade_time": ms, "recv_time": received}
    ])  # fmt: skip
    s2(root, "funding", [
        {"symbol": "BTCUSDT", "funding_rate": "-0.00010000", "funding_time": ms, "next_funding_time": ms + 14_400_000,
         "recv_time": received}
    ])  # fmt: skip


def _pandas(path: Path, rows: Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path, index=False, compression="snappy")
    return path
