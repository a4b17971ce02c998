"""A venue that only blasts: Binance futures messages over loopback, as fast as the socket takes them or at a rate.

It runs in a process of its own, so that its CPU is not the collector's. It serves just enough REST for a collector to
begin (catalogue, volumes, time, book) and starts when all streams that it has are subscribed.

    python -m benchmarks.blaster recording FILE
    python -m benchmarks.blaster synthetic SYMBOLS RATE SECONDS
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import itertools
import json
import random
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import uvloop

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CHUNK = 1 << 16


def text_frame(payload: bytes) -> bytes:
    """An unmasked WebSocket text frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def stream_of(body: bytes) -> str:
    return body[11 : body.index(b'"', 11)].decode()


class Source:
    """What is blasted. `streams`: all names; `snapshots`: a REST book by symbol."""

    streams: set[str]
    symbols: list[str]
    total: int
    rate: float | None = None

    def messages(self) -> Iterator[tuple[str, bytes]]:
        raise NotImplementedError

    def snapshot(self, symbol: str) -> bytes:
        raise NotImplementedError


class Recording(Source):
    """A recorded file, byte for byte."""

    def __init__(self, path: Path) -> None:
        self._messages: list[tuple[str, bytes]] = []
        self._snapshot = b""
        with gzip.open(path, "rb") as file:
            for line in file:
                body = line.partition(b" ")[2].rstrip(b"\n")
                if body.startswith(b'{"stream":"'):
                    self._messages.append((stream_of(body), body))
                else:
                    self._snapshot = self._snapshot or body
        self.streams = {name for name, _ in self._messages}
        self.symbols = sorted({name.partition("@")[0].upper() for name in self.streams})
        self.total = len(self._messages)

    def messages(self) -> Iterator[tuple[str, bytes]]:
        return iter(self._messages)

    def snapshot(self, symbol: str) -> bytes:
        return self._snapshot


class Synthetic(Source):
    """Depth, book ticker and trades of many symbols at a live rate: 45, 45 and 10 of 100 frames."""

    def __init__(self, count: int, rate: float, seconds: float) -> None:
        self.symbols = [f"S{number:03}USDT" for number in range(count)]
        self.rate = rate
        self.total = round(rate * seconds)
        kinds = ("depth@100ms", "bookTicker", "aggTrade")
        self.streams = {f"{symbol.lower()}@{kind}" for symbol in self.symbols for kind in kinds}
        self._last = dict.fromkeys(self.symbols, 1_000_000)

    def messages(self) -> Iterator[tuple[str, bytes]]:
        rng = random.Random(1)
        levels = b",".join(b'["%d.%02d","%d.%03d"]' % (100 + n, n, n, n) for n in range(9))
        symbols = [(symbol, symbol.lower().encode(), symbol.encode()) for symbol in self.symbols]
        last, ids = self._last, itertools.count(1_000_001, 7)
        for number in range(self.total):
            symbol, lower, upper = symbols[number % len(symbols)]
            now, pick, final = time.time_ns() // 1_000_000, rng.random(), next(ids)
            if pick < 0.45:
                body = (
                    b'{"stream":"%b@depth@100ms","data":{"e":"depthUpdate","E":%d,"T":%d,"s":"%b","ps":"%b","U":%d,'
                    b'"u":%d,"pu":%d,"b":[%b],"a":[%b],"st":1}}'
                    % (lower, now, now, upper, upper, final - 5, final, last[symbol], levels, levels)
                )
                last[symbol] = final
                yield f"{symbol.lower()}@depth@100ms", body
            elif pick < 0.9:
                body = (
                    b'{"stream":"%b@bookTicker","data":{"e":"bookTicker","u":%d,"s":"%b","ps":"%b","b":"83091.60",'
                    b'"B":"4.215","a":"83091.70","A":"3.763","T":%d,"E":%d,"st":1}}'
                    % (lower, final, upper, upper, now, now)
                )
                yield f"{symbol.lower()}@bookTicker", body
            else:
                body = (
                    b'{"stream":"%b@aggTrade","data":{"e":"aggTrade","E":%d,"a":%d,"s":"%b","p":"83091.70","q":"0.022",'
                    b'"nq":"0.022","f":%d,"l":%d,"T":%d,"m":false,"st":1}}'
                    % (lower, now, final, upper, final, final, now)
                )
                yield f"{symbol.lower()}@aggTrade", body

    def snapshot(self, symbol: str) -> bytes:
        return b'{"lastUpdateId":%d,"E":1,"T":1,"bids":[["1.0","1"]],"asks":[["2.0","1"]]}' % self._last[symbol]


class Blaster:
    """Serves a source to whoever subscribes."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.writers: dict[str, asyncio.StreamWriter] = {}
        self.ready = asyncio.Event()

    async def serve(self) -> None:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        print(json.dumps({"port": server.sockets[0].getsockname()[1], "total": self.source.total}), flush=True)
        await self.ready.wait()
        with contextlib.suppress(ConnectionError, RuntimeError):  # the receiver had enough and closed
            await self._blast()
        await asyncio.sleep(3600)

    async def _blast(self) -> None:
        await asyncio.sleep(0.3)
        source, writers = self.source, self.writers
        buffers: dict[asyncio.StreamWriter, bytearray] = {writer: bytearray() for writer in set(writers.values())}
        started, batch = time.monotonic(), max(1, int(source.rate / 100)) if source.rate else 0
        for number, (name, body) in enumerate(source.messages()):
            writer = writers[name]
            buffer = buffers[writer]
            buffer += text_frame(body)
            if source.rate is None and len(buffer) >= _CHUNK:
                writer.write(bytes(buffer))
                buffer.clear()
                await writer.drain()
            elif source.rate is not None and number % batch == batch - 1:
                for each, waiting in buffers.items():
                    each.write(bytes(waiting))
                    waiting.clear()
                    await each.drain()
                ahead = started + (number + 1) / source.rate - time.monotonic()
                await asyncio.sleep(max(0.0, ahead))
        for writer, buffer in buffers.items():
            writer.write(bytes(buffer))
            await writer.drain()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                key = next((value for name, value in fields.items() if name.lower() == b"sec-websocket-key"), None)
                if key is not None:
                    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
                    writer.write(
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
                    )
                    self._subscribed(filter(None, path.partition("streams=")[2].split("/")), writer)
                    await self._socket(reader, writer)
                    return
                body = self._answer(path)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-MBX-USED-WEIGHT-1M: 1\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _socket(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            first, second = await reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                size = int.from_bytes(await reader.readexactly(2), "big")
            mask = await reader.readexactly(4)
            payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(await reader.readexactly(size)))
            opcode = first & 0x0F
            if opcode == 8:
                writer.write(b"\x88" + bytes((len(payload),)) + payload)
                writer.close()
                return
            if opcode == 9:
                writer.write(b"\x8a" + bytes((len(payload),)) + payload)
            if opcode != 1:
                continue
            message = json.loads(payload)
            writer.write(text_frame(json.dumps({"result": None, "id": message["id"]}).encode()))
            self._subscribed(message["params"], writer)

    def _subscribed(self, names: Iterable[str], writer: asyncio.StreamWriter) -> None:
        self.writers.update(dict.fromkeys(names, writer))
        if self.source.streams <= self.writers.keys():
            self.ready.set()

    def _answer(self, path: str) -> bytes:
        if "depth" in path:
            symbol = path.partition("symbol=")[2].partition("&")[0]
            return self.source.snapshot(symbol)
        if "ticker" in path:
            rows = [{"symbol": symbol, "quoteVolume": str(1000 - n)} for n, symbol in enumerate(self.source.symbols)]
            return json.dumps(rows).encode()
        if "time" in path:
            return b'{"serverTime":%d}' % (time.time_ns() // 1_000_000)
        filters = [{"filterType": "PRICE_FILTER", "tickSize": "0.10"}, {"filterType": "LOT_SIZE", "stepSize": "0.001"}]
        listed: list[dict[str, Any]] = [
            {
                "symbol": symbol, "status": "TRADING", "contractType": "PERPETUAL", "baseAsset": symbol[:-4],
                "quoteAsset": "USDT", "onboardDate": 1_567_965_300_000, "filters": filters,
            }
            for symbol in self.source.symbols
        ]  # fmt: skip
        return json.dumps({"symbols": listed}).encode()


def main(arguments: list[str]) -> None:
    source: Source
    if arguments[0] == "recording":
        source = Recording(Path(arguments[1]))
    else:
        source = Synthetic(int(arguments[1]), float(arguments[2]), float(arguments[3]))
    uvloop.run(Blaster(source).serve())


if __name__ == "__main__":
    main(sys.argv[1:])
