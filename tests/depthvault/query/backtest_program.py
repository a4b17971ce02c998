"""Run by the interpreter of a side environment: a backtest with the real hftbacktest over a file that we exported.

Arguments: the .npz file, tick size, lot size. Standard input: JSON list of local times (ns), ascending. Standard
output: JSON of the book and the number of trades seen so far at each of them, and whether its own validation holds.
"""

from __future__ import annotations

import json
import sys

import hftbacktest
import numpy as np
from hftbacktest.data.validation import validate_event_order

TOP = 60


def main() -> None:
    path, tick, lot = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    events = np.load(path)["data"]
    assert events.dtype == hftbacktest.event_dtype, events.dtype
    validate_event_order(events)  # raises when the order by either clock is wrong
    asset = (
        hftbacktest.BacktestAsset()
        .data([path])
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0, 0)
        .tick_size(tick)
        .lot_size(lot)
        .last_trades_capacity(1_000_000)
    )
    backtest = hftbacktest.HashMapMarketDepthBacktest([asset])
    backtest.elapse(0)  # to the first event
    found = []
    for moment in json.load(sys.stdin):
        code = backtest.elapse(moment - backtest.current_timestamp)
        assert code == 0, f"the backtest ended with {code} before {moment}"
        assert backtest.current_timestamp == moment
        depth = backtest.depth(0)
        bid, ask = depth.best_bid_tick, depth.best_ask_tick
        found.append({
            "bid": depth.best_bid, "bid_size": depth.best_bid_qty, "ask": depth.best_ask,
            "ask_size": depth.best_ask_qty, "trades": len(backtest.last_trades(0)),
            "bid_ticks": [depth.bid_qty_at_tick(bid - step) for step in range(TOP)],
            "ask_ticks": [depth.ask_qty_at_tick(ask + step) for step in range(TOP)],
        })  # fmt: skip
    json.dump(found, sys.stdout)
    backtest.close()


main()
