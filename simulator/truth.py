"""The truth ledger: what the simulator generated, and what it did to it on the way.

Layout: ``DIR/<session>/`` with one gzip file per ``<venue>/<channel>.gz``. A session is one start of the
simulator. Files are flushed every second on a sync boundary, so they can be read while the simulator runs and
after it was killed (at most the last second is missing).

An event line is ``<n> TAB <emitted ms> TAB <symbol> TAB <payload>``. ``n`` counts all published events of a
venue, so the deliveries of a connection can be told exactly: an event was written to a connection when its
``n`` is above the ``n`` of the subscribe line and not above that of the unsubscribe or close line, unless a
fault line names it. The payload is the exact JSON that went to raw (not combined) subscribers.

Channels are stream names without the symbol (``depth@100ms``, ``aggTrade``, ``kline_1m``); on Lighter the
channel without the market id (``order_book``, ``trade``). ``_book`` holds the start of each book and every
single change of it, from which :meth:`Truth.book` is made. ``_rest``, ``_connections`` and ``_faults`` hold
JSON objects.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.instruments import decimal_text

BOOK, REST, CONNECTIONS, FAULTS = "_book", "_rest", "_connections", "_faults"
"""Names of the ledger files that are no channels."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_@.+!-]")


def _file_name(channel: str) -> str:
    return _UNSAFE.sub(lambda match: f"%{ord(match.group()):02X}", channel) + ".gz"


class _File:
    """One growing gzip file; :meth:`write` compresses lines and ends on a sync boundary."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lines: list[bytes] = []
        self._out = path.open("wb")
        self._gzip = zlib.compressobj(1, zlib.DEFLATED, 31)

    def take(self) -> list[bytes]:
        lines, self.lines = self.lines, []
        return lines

    def write(self, lines: list[bytes]) -> None:
        if lines:
            lines.append(b"")
            self._out.write(self._gzip.compress(b"\n".join(lines)))
            self._out.write(self._gzip.flush(zlib.Z_SYNC_FLUSH))
            self._out.flush()

    def close(self) -> None:
        self._out.write(self._gzip.flush())
        self._out.close()


class Ledger:
    """Writes the truth of one session. Without a directory it only counts.

    Lines are kept in memory until they are taken and written, once a second.
    """

    def __init__(self, directory: Path | None, session: str = "") -> None:
        self.directory = None if directory is None else directory / session
        self.enabled = directory is not None
        self.counts: dict[str, int] = {}
        self._files: dict[tuple[str, str], _File] = {}

    def _file(self, venue: str, channel: str) -> _File:
        known = self._files.get((venue, channel))
        if known is None:
            assert self.directory is not None
            known = _File(self.directory / venue / _file_name(channel))
            self._files[venue, channel] = known
        return known

    def event(self, venue: str, channel: str, symbol: str, time_ms: int, payload: bytes) -> int:
        """Record one generated event; returns its number."""
        n = self.counts.get(venue, 0) + 1
        self.counts[venue] = n
        if self.enabled:
            self._file(venue, channel).lines.append(b"%d\t%d\t%s\t%s" % (n, time_ms, symbol.encode(), payload))
        return n

    def note(self, venue: str, kind: str, row: dict[str, Any]) -> None:
        """Record a JSON row in ``_rest``, ``_connections`` or ``_faults``."""
        if self.enabled:
            row = {"n": self.counts.get(venue, 0), **row}
            line = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            self._file(venue, kind).lines.append(line.encode())

    def book(self, venue: str, symbol: str, time_ms: int, text: str) -> None:
        """Record the start of a book (JSON) or its changes (``id:side:price:size;…``)."""
        if self.enabled:
            self._file(venue, BOOK).lines.append(f"{self.counts.get(venue, 0)}\t{time_ms}\t{symbol}\t{text}".encode())

    def take(self) -> list[tuple[_File, list[bytes]]]:
        """What gathered since the last call, to be given to :meth:`write`; call it where events are made."""
        return [(file, file.take()) for file in self._files.values() if file.lines]

    @staticmethod
    def write(taken: list[tuple[_File, list[bytes]]]) -> None:
        """Compress and write; safe in another thread, one call at a time."""
        for file, lines in taken:
            file.write(lines)

    def flush(self) -> None:
        """Bring everything to the files now."""
        self.write(self.take())

    def close(self) -> None:
        self.flush()
        for file in self._files.values():
            file.close()
        self._files.clear()
        self.enabled = False


@dataclass(frozen=True, slots=True)
class Event:
    """One generated event. ``payload`` is the exact JSON text; ``session`` is the simulator's start."""

    session: str
    n: int
    time_ms: int
    symbol: str
    payload: bytes

    def decode(self) -> Any:
        """The payload as Python objects; prices and sizes stay texts."""
        return json.loads(self.payload)


@dataclass(frozen=True, slots=True)
class TrueBook:
    """A book in the venue's own texts: price text to size text, best level first."""

    update_id: int
    bids: dict[str, str]
    asks: dict[str, str]


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of a gzip file that may still grow or end torn."""
    inflate = zlib.decompressobj(31)
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            data = rest + inflate.decompress(chunk)
            *whole, rest = data.split(b"\n")
            yield from whole


class Truth:
    """Reads a ledger directory, also one that is being written."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)

    def sessions(self) -> list[str]:
        """Starts of the simulator, oldest first."""
        return sorted(entry.name for entry in self.directory.iterdir() if entry.is_dir())

    def channels(self, venue: str) -> list[str]:
        """Channels of which at least one event was generated."""
        names = {
            re.sub(r"%([0-9A-F]{2})", lambda match: chr(int(match.group(1), 16)), path.name[:-3])
            for path in self.directory.glob(f"*/{venue}/*.gz")
        }
        return sorted(name for name in names if not name.startswith("_"))

    def _files(self, venue: str, channel: str) -> Iterator[tuple[str, Path]]:
        for session in self.sessions():
            path = self.directory / session / venue / _file_name(channel)
            if path.exists():
                yield session, path

    def events(self, venue: str, channel: str, symbol: str | None = None) -> Iterator[Event]:
        """Events of a channel in the order generated; of all symbols when ``symbol`` is None."""
        wanted = None if symbol is None else symbol.encode()
        for session, path in self._files(venue, channel):
            for line in _lines(path):
                n, time_ms, name, payload = line.split(b"\t", 3)
                if wanted is None or name == wanted:
                    yield Event(session, int(n), int(time_ms), name.decode(), payload)

    def _notes(self, venue: str | None, kind: str) -> Iterator[dict[str, Any]]:
        pattern = f"*/{venue or '*'}/{_file_name(kind)}"
        for path in sorted(self.directory.glob(pattern)):
            for line in _lines(path):
                yield {"session": path.parts[-3], "venue": path.parts[-2], **json.loads(line)}

    def faults(self, venue: str | None = None) -> list[dict[str, Any]]:
        """What was deliberately done wrong: ``kind``, ``connection``, ``stream``, ``event_n``, ids, ``time_ms``."""
        return list(self._notes(venue, FAULTS))

    def connections(self, venue: str | None = None) -> list[dict[str, Any]]:
        """Opens, subscribes, unsubscribes, and closes with code and reason."""
        return list(self._notes(venue, CONNECTIONS))

    def rest(self, venue: str | None = None) -> list[dict[str, Any]]:
        """REST requests answered: path, parameters, status, weight, ``last_update_id`` of snapshots."""
        return list(self._notes(venue, REST))

    def delivered(self, venue: str, connection: int, stream: str) -> Iterator[Event]:
        """Events of a stream that were written whole to a connection, duplicates once.

        Written is not received: what a cut connection had in flight is lost, and no ledger can tell how much.
        """
        spans = self._spans(venue, connection, stream)
        spoiled = {
            (fault["session"], fault["event_n"])
            for fault in self.faults(venue)
            if fault["kind"] in ("drop", "malformed") and (fault["connection"], fault["stream"]) == (connection, stream)
        }
        head, _, channel = stream.partition("@")
        channel = stream if stream.startswith("!") else channel
        for event in self.events(venue, channel):
            if not stream.startswith("!") and event.symbol.lower() != head:
                continue
            if (event.session, event.n) not in spoiled and any(
                session == event.session and first < event.n <= last for session, first, last in spans
            ):
                yield event

    def _spans(self, venue: str, connection: int, stream: str) -> list[tuple[str, int, int]]:
        """``(session, n, n]`` ranges in which the connection heard the stream."""
        spans: list[tuple[str, int, int]] = []
        opened: dict[str, int] = {}
        for row in self.connections(venue):
            if row["connection"] != connection or row.get("stream", stream) != stream:
                continue
            if row["kind"] == "subscribe" and row["delivers"]:
                opened[row["session"]] = row["n"]
            elif row["kind"] in ("unsubscribe", "close", "half_open") and row["session"] in opened:
                spans.append((row["session"], opened.pop(row["session"]), row["n"]))
        return spans + [(session, first, 1 << 62) for session, first in opened.items()]

    def book(self, venue: str, symbol: str, update_id: int, *, session: str | None = None) -> TrueBook:
        """The whole book right after ``update_id``.

        Raises ``KeyError`` when the ledger does not hold a book of that symbol starting at or before the id.
        """
        return self.books(venue, {symbol: [update_id]}, session=session)[symbol, update_id]

    def books(
        self, venue: str, wanted: Mapping[str, Iterable[int]], *, session: str | None = None
    ) -> dict[tuple[str, int], TrueBook]:
        """Many books in one pass over the ledger: ``{(symbol, update id): book}``.

        Raises ``KeyError`` as :meth:`book`.
        """
        replays = {symbol.encode(): _BookReplay(sorted(set(ids))) for symbol, ids in wanted.items()}
        for name, path in self._files(venue, BOOK):
            if session is not None and name != session:
                continue
            for line in _lines(path):
                _, _, symbol, text = line.split(b"\t", 3)
                replay = replays.get(symbol)
                if replay is not None:
                    replay.feed(text)
        found: dict[tuple[str, int], TrueBook] = {}
        for symbol, replay in replays.items():
            replay.finish()
            for update_id in replay.ids:
                if update_id not in replay.books:
                    raise KeyError(f"no book of {venue} {symbol.decode()} at or before {update_id}")
                found[symbol.decode(), update_id] = replay.books[update_id]
        return found


class _BookReplay:
    """One symbol's book, stopped at the ids that are asked for."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids
        self.books: dict[int, TrueBook] = {}
        self._next = 0
        self._state: tuple[dict[int, int], dict[int, int]] | None = None
        self._meta: dict[str, Any] = {}
        self._at = 0

    def feed(self, text: bytes) -> None:
        if text.startswith(b"{"):
            start = json.loads(text)
            self._reach(start["id"])
            self._meta, self._at = start, start["id"]
            self._state = (dict(start["bids"]), dict(start["asks"]))
            return
        if self._state is None or self._next >= len(self.ids):
            return
        for change in text.decode().split(";"):
            change_id, side, price, size = map(int, change.split(":"))
            self._reach(change_id)
            self._at = change_id
            if size:
                self._state[side][price] = size
            else:
                self._state[side].pop(price, None)

    def _reach(self, change_id: int) -> None:
        """Keep the books asked for at ids below the coming change."""
        while self._next < len(self.ids) and self.ids[self._next] < change_id:
            if self._state is not None:
                self.books[self.ids[self._next]] = _true_book(self._at, self._state, self._meta)
            self._next += 1

    def finish(self) -> None:
        self._reach(1 << 62)


def _true_book(at: int, state: tuple[dict[int, int], dict[int, int]], meta: dict[str, Any]) -> TrueBook:
    price = decimal_text(meta["price_decimals"], meta["price_pad"])
    size = decimal_text(meta["quantity_decimals"], meta["quantity_pad"])
    bids, asks = state
    return TrueBook(
        at,
        {price(p): size(bids[p]) for p in sorted(bids, reverse=True)},
        {price(p): size(asks[p]) for p in sorted(asks)},
    )
