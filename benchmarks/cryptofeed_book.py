"""cryptofeed keeping its L2 books on the blaster's feed, for comparison. Runs in an environment of its own.

    python -m venv V && V/bin/pip install cryptofeed
    DEPTHVAULT_BENCH_CRYPTOFEED=V/bin/python python -m benchmarks.collector

Started by `benchmarks.collector` with that interpreter, which has nothing of ours: PORT, number of frames, symbols.
"""

# mypy: ignore-errors
from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from typing import ClassVar

import uvloop
from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint
from cryptofeed.defines import L2_BOOK, TICKER, TRADES
from cryptofeed.exchanges import BinanceFutures


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(port: int, total: int, symbols: int) -> None:
    """Count frames, and report as the other children do when the last one was handled."""
    begun: list[float] = []
    received = 0

    class Local(BinanceFutures):
        websocket_endpoints: ClassVar[list[WebsocketEndpoint]] = [
            WebsocketEndpoint(f"wss://127.0.0.1:{port}", options={"compression": None})
        ]
        rest_endpoints: ClassVar[list[RestEndpoint]] = [
            RestEndpoint(
                f"http://127.0.0.1:{port}",
                routes=Routes("/fapi/v1/exchangeInfo", l2book="/fapi/v1/depth?symbol={}&limit={}"),
            )
        ]

        def connect(self):
            found = super().connect()
            for connection, *_ in found:  # it takes no address but wss://, and the blaster speaks ws
                connection.address = connection.address.replace("wss://", "ws://", 1)
            return found

        async def message_handler(self, msg, conn, timestamp):
            nonlocal received
            if not received:
                begun.extend((_cpu(), time.perf_counter()))
            await super().message_handler(msg, conn, timestamp)
            received += 1
            if received == total:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
                cpu, wall = _cpu() - begun[0], time.perf_counter() - begun[1]
                figures = {"frames": total, "cpu_s": cpu, "wall_s": wall, "peak_rss": peak}
                print(json.dumps(figures), flush=True)
                os._exit(0)

    async def nothing(*_):
        return

    handler = FeedHandler(config={"log": {"disabled": True}, "uvloop": False})
    names = [f"S{number:03}-USDT-PERP" for number in range(symbols)]
    handler.add_feed(
        Local(
            symbols=names,
            channels=[L2_BOOK, TRADES, TICKER],
            callbacks={L2_BOOK: nothing, TRADES: nothing, TICKER: nothing},
        )
    )
    asyncio.set_event_loop(uvloop.new_event_loop())
    handler.run(install_signal_handlers=False)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
