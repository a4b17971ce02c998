"""A healthy period of every channel, as compaction would stage it: what the tests then break."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from depthvault.durable import sha256_file
from depthvault.period import Period
from depthvault.schemas import CHANNELS, QUALITY
from expectations import Judgement, Ledger, Subject, examine
from expectations.suites import DEFAULT_BOUNDS, Bounds

PERIOD = Period(datetime(2026, 11, 20, 4, tzinfo=UTC), timedelta(minutes=1))
SYMBOLS = ("BTCUSDT", "币安人生USDT")
EVENTS = 50


def moment(seconds: float) -> datetime:
    return PERIOD.start + timedelta(seconds=seconds)


def _common(symbol: str, second: float, source: str = "stream") -> dict[str, Any]:
    return {
        "received_time": moment(second + 0.005),
        "event_time": moment(second),
        "symbol": symbol,
        "instance": "a",
        "source": source,
    }


_BOOK = {
    "bid_prices": [100.0, 99.5],
    "bid_sizes": [1.0, 0.0],
    "ask_prices": [100.5, 101.0],
    "ask_sizes": [2.0, 3.0],
}


def healthy(channel: str, *, chained: bool = True) -> list[dict[str, Any]]:
    """Rows in archive order. `chained`: depth events name their predecessor (futures), else they count on (spot)."""
    rows: list[dict[str, Any]] = []
    for symbol in SYMBOLS:
        for i in range(EVENTS if channel not in {"kline", "funding_rate", "open_interest", "instrument"} else 2):
            second = i * 59 / EVENTS
            row = _common(symbol, second)
            trade = {"transaction_time": moment(second), "price": 100.25, "quantity": 0.5, "is_buyer_maker": True}
            match channel:
                case "depth_diff":
                    first = 1000 + 10 * i + (0 if not chained else 3)
                    row |= {
                        "transaction_time": moment(second) if chained else None,
                        "first_update_id": first,
                        "final_update_id": 1009 + 10 * i,
                        "prev_final_update_id": 999 + 10 * i if chained else None,
                        "is_snapshot": False,
                        "epoch": 0,
                        **_BOOK,
                    }
                case "depth_partial":
                    row |= {"transaction_time": None, "first_update_id": i, "final_update_id": i, "levels": 5, **_BOOK}
                    row |= {"prev_final_update_id": None, "is_snapshot": True, "epoch": 0}
                case "depth_snapshot":
                    row |= {"transaction_time": None, "request_time": moment(second), "last_update_id": 1000 + i}
                    row |= {"source": "rest", "limit": 1000, **_BOOK}
                case "book_ticker":
                    row |= {"transaction_time": None, "update_id": 1000 + i, "bid_price": 100.0, "bid_size": 1.0}
                    row |= {"ask_price": 100.5, "ask_size": 2.0}
                case "agg_trade":
                    row |= {"agg_trade_id": 70 + i, "first_trade_id": 200 + i, "last_trade_id": 200 + i, **trade}
                case "trade":
                    row |= {"trade_id": 200 + i, "trade_type": "MARKET", **trade}
                case "kline":
                    opened = moment(30 * i)
                    row |= {"interval": "30s", "open_time": opened, "close_time": opened + timedelta(seconds=29.999)}
                    row |= {"open": 100.0, "high": 101.0, "low": 99.0, "close": 100.5, "trade_count": 3}
                    row |= {name: Decimal("5.5") for name in ("volume", "quote_volume")}
                    row |= {name: Decimal("2.5") for name in ("taker_buy_volume", "taker_buy_quote_volume")}
                case "liquidation":
                    row |= {**trade, "trade_id": None, "side": "SELL", "order_type": "LIMIT", "time_in_force": "IOC"}
                    row |= {"average_price": 100.0, "filled_quantity": 0.5, "status": "FILLED"}
                    del row["is_buyer_maker"]
                case "mark_price":
                    row |= {"mark_price": 100.0, "index_price": 100.1, "funding_rate": 0.0001}
                    row |= {"next_funding_time": moment(3600)}
                case "funding_rate":
                    row |= {"source": "rest", "event_time": None, "funding_time": moment(second)}
                    row |= {"funding_rate": -0.00000743, "interval_hours": 8, "mark_price": 100.0}
                case "open_interest":
                    row |= {"source": "rest", "open_interest": Decimal("95744.938"), "quote_value": None}
                case "instrument":
                    row |= {"source": "rest", "status": f"TRADING{i}", "base": "BTC", "quote": "USDT"}
                    row |= {"market_id": None, "tick_size": 0.1, "lot_size": 0.001, "contract_type": "PERPETUAL"}
                    row |= {"listed_time": None}
                case "collector_event":
                    row |= {"exchange": "binance_futures", "kind": "subscribe", "channel": None, "connection": i}
                    row |= {"detail": json.dumps({"streams": i})}
                    if i % 10 == 0:
                        # the one without an answer: neither a time server nor the venue could be asked
                        offset = {"source": "time.example", "offset_s": (i - 25) / 1000, "round_trip_s": 0.02}
                        row |= {"kind": "clock", "detail": json.dumps({"reference": offset if i else None})}
            rows.append(row)
    return rows


def judged(
    folder: Path,
    rows: list[dict[str, Any]],
    channel: str,
    *,
    exchange: str = "binance_futures",
    gaps: list[dict[str, Any]] | None = None,
    coverage: dict[str, dict[str, Any]] | None = None,
    paper: dict[str, Any] | None = None,
    schema: pa.Schema | None = None,
    cadence: timedelta | None = timedelta(minutes=1),
    audits: list[dict[str, Any]] | None = None,
    bounds: Bounds = DEFAULT_BOUNDS,
) -> Judgement:
    """Judge `rows` as the compacted file of `channel` with an honest ledger; the arguments make it less honest."""
    schema = schema or CHANNELS[channel].schema
    path = folder / f"{channel}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    symbols = sorted({row["symbol"] for row in rows if row.get("symbol") is not None})
    file: dict[str, Any] = {
        "channel": channel,
        "path": path,
        "rows": len(rows),
        "sha256": sha256_file(path),
        "symbols": tuple(symbols),
    } | (paper or {})
    counted = {
        symbol: {
            "exchange": exchange,
            "channel": channel,
            "symbol": symbol,
            "period": PERIOD.start,
            "events": sum(row.get("symbol") == symbol for row in rows),
            "duplicates": 0,
            "gaps": 0,
            "covered_seconds": 60.0,
            "share": 1.0,
        }
        for symbol in symbols
    }
    for symbol, changes in (coverage or {}).items():
        counted[symbol] = counted.get(symbol, counted[symbols[0]] | {"symbol": symbol}) | changes
    ledger = Ledger(
        pa.Table.from_pylist([gap(channel, **declared) for declared in gaps or []], schema=QUALITY["gaps"]),
        pa.Table.from_pylist(list(counted.values()), schema=QUALITY["coverage"]),
        cadence,
        pa.Table.from_pylist([audit(**told) for told in audits or []], schema=QUALITY["book_audit"]),
    )
    return examine(exchange, PERIOD, (Subject(**file),), ledger, bounds=bounds)


def gap(channel: str, **values: Any) -> dict[str, Any]:
    return {
        "exchange": "binance_futures",
        "channel": channel,
        "symbol": SYMBOLS[0],
        "period": PERIOD.start,
        "instance": "",
        "last_id": None,
        "first_id": None,
        "start_time": None,
        "end_time": None,
        "cause": "disconnect",
        "status": "lost",
        "detail": "{}",
    } | values


def audit(**values: Any) -> dict[str, Any]:
    return {
        "exchange": "binance_futures",
        "symbol": SYMBOLS[0],
        "period": PERIOD.start,
        "from_update_id": 1,
        "to_update_id": 2,
        "diffs_applied": 10,
        "matched": 2000,
        "missing": 0,
        "extra": 0,
        "different": 0,
        "undecidable": 0,
        "bid_low": 1.0,
        "ask_high": 2.0,
        "gap_crossed": False,
        "state_hash": "",
    } | values
