"""Which snapshot a book of the past starts from, and how long its chain of events holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from depthvault.book.events import Floats, Snapshot, breaks, chain_of
from depthvault.clock import ns_from_datetime

_LOOKBACKS = (timedelta(minutes=10), timedelta(hours=3), timedelta(hours=30), timedelta(days=370))
_AHEAD = timedelta(minutes=2)
"""How much earlier than the snapshot's receipt its first diff may have been received: the fetch takes its time."""
LEVEL_COLUMNS = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
_LEVELS = ", ".join(LEVEL_COLUMNS)
CHAIN_COLUMNS = ("received_time", "first_update_id", "final_update_id", "prev_final_update_id", "is_snapshot", "epoch")


class Archive(Protocol):
    """What a replay reads from."""

    def arrow(self, query: str) -> pa.RecordBatchReader:
        """The answer of one statement."""

    def ordered(
        self, channel: str, exchange: str, symbol: str, low: int, high: int, columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch] | None:
        """Rows received in [low, high] µs, in chain order, where they can be had so without sorting; else None."""


def _literal(microseconds: int) -> str:
    return f"make_timestamptz({microseconds})"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def microseconds(value: datetime) -> int:
    return ns_from_datetime(value) // 1000


def _of(exchange: str, symbol: str) -> str:
    return f"exchange = {_text(exchange)} AND symbol = {_text(symbol)}"


def _between(low: int, high: int) -> str:
    return f"received_time >= {_literal(low)} AND received_time <= {_literal(high)}"


def _seeds(exchange: str, symbol: str, low: int, high: int) -> str:
    """All snapshots received in [low, high], both kinds."""
    where = f"{_of(exchange, symbol)} AND {_between(low, high)}"
    return (
        f"SELECT 'depth_snapshot' AS channel, received_time, last_update_id AS update_id, \"limit\", {_LEVELS} "
        f"FROM depth_snapshot WHERE {where} UNION ALL "
        f"SELECT 'depth_diff', received_time, final_update_id, NULL::INTEGER, {_LEVELS} "
        f"FROM depth_diff WHERE is_snapshot AND {where}"
    )


def _snapshot(rows: pa.Table) -> Snapshot | None:
    if rows.num_rows == 0:
        return None
    row = rows.slice(0, 1)
    limit = row.column("limit")[0].as_py()

    def numbers(name: str) -> Floats:
        values: Floats = row.column(name).chunk(0).flatten().to_numpy()
        return values

    return Snapshot(
        channel=row.column("channel")[0].as_py(),
        update_id=row.column("update_id")[0].as_py(),
        received=row.column("received_time").cast(pa.int64())[0].as_py(),
        limit=limit,
        bid_prices=numbers("bid_prices"),
        bid_sizes=numbers("bid_sizes"),
        ask_prices=numbers("ask_prices"),
        ask_sizes=numbers("ask_sizes"),
    )


def latest(archive: Archive, exchange: str, symbol: str, at: int) -> Snapshot | None:
    """The newest snapshot received by `at`, sought further and further back."""
    high = at
    for lookback in _LOOKBACKS:
        low = at - round(lookback.total_seconds() * 1e6)
        query = (
            f"SELECT * FROM ({_seeds(exchange, symbol, low, high)}) ORDER BY received_time DESC, update_id DESC LIMIT 1"
        )
        if (found := _snapshot(archive.arrow(query).read_all())) is not None:
            return found
        high = low
    return None


def following_seed(archive: Archive, exchange: str, symbol: str, low: int, high: int) -> Snapshot | None:
    """The first snapshot received in [low, high]."""
    query = f"SELECT * FROM ({_seeds(exchange, symbol, low, high)}) ORDER BY received_time, update_id LIMIT 1"
    return _snapshot(archive.arrow(query).read_all())


def events(
    archive: Archive, exchange: str, symbol: str, seed: Snapshot, until: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """The events after `seed` received by `until`, in chain order; no batch is empty."""
    low = seed.received - round(_AHEAD.total_seconds() * 1e6)
    needed = list(dict.fromkeys((*CHAIN_COLUMNS, *columns)))
    ordered = archive.ordered("depth_diff", exchange, symbol, low, until, needed)
    if ordered is None:
        query = (
            f"SELECT {', '.join(needed)} FROM depth_diff WHERE {_of(exchange, symbol)} AND {_between(low, until)} "
            f"AND NOT is_snapshot AND final_update_id > {seed.update_id} ORDER BY epoch, final_update_id"
        )
        yield from (batch for batch in archive.arrow(query) if batch.num_rows)
        return
    for batch in ordered:
        later = pc.greater(batch.column("final_update_id"), seed.update_id)
        wanted = pc.and_(later, pc.invert(batch.column("is_snapshot")))
        kept = batch if pc.all(wanted).as_py() else batch.filter(wanted)
        if kept.num_rows:
            yield kept


@dataclass(frozen=True, slots=True)
class Stretch:
    """A span of time that one snapshot answers: [start, end) in µs since the epoch. `seed` None: there is none yet.

    broken: from when on events are missing in it; None: none are.
    """

    seed: Snapshot | None
    start: int
    end: int
    broken: int | None = None


def stretches(archive: Archive, exchange: str, symbol: str, start: int, end: int) -> Iterator[Stretch]:
    """Which snapshot answers which part of [start, end): the newest one at the start, and another one only where the
    chain breaks or the venue itself sent the book anew."""
    seed = latest(archive, exchange, symbol, start) or following_seed(archive, exchange, symbol, start, end - 1)
    if seed is None:
        yield Stretch(None, start, end)
        return
    if seed.received > start:
        yield Stretch(None, start, seed.received)
    while seed is not None and start < end:
        in_band = _next_in_band(archive, exchange, symbol, seed.received + 1, end - 1)
        known_until = end - 1 if in_band is None else in_band
        broken = _first_break(archive, exchange, symbol, seed, known_until)
        following = None
        if broken is not None:
            following = following_seed(archive, exchange, symbol, max(seed.received + 1, broken), end - 1)
        if in_band is not None and (following is None or in_band <= following.received):
            following = following_seed(archive, exchange, symbol, in_band, in_band)
        start, until = max(start, seed.received), end if following is None else following.received
        if until > start:
            yield Stretch(seed, start, until, broken if broken is not None and broken < until else None)
        seed = following


def _first_break(archive: Archive, exchange: str, symbol: str, seed: Snapshot, end: int) -> int | None:
    """When the first event after a hole in the chain that begins at `seed` was received."""
    last_id, epoch = seed.update_id, None
    for batch in events(archive, exchange, symbol, seed, end, ()):
        chain = chain_of(batch)
        if epoch is not None and int(chain.epoch[0]) != epoch:
            return int(chain.received[0])
        if (broken := breaks(chain, last_id)).size:
            return int(chain.received[broken[0]])
        last_id, epoch = int(chain.final[-1]), int(chain.epoch[-1])
    return None


def _next_in_band(archive: Archive, exchange: str, symbol: str, low: int, high: int) -> int | None:
    """When the venue next sent the book anew in the stream."""
    where = f"{_of(exchange, symbol)} AND {_between(low, high)}"
    rows = archive.arrow(f"SELECT min(received_time) AS first FROM depth_diff WHERE is_snapshot AND {where}").read_all()
    first: int | None = rows.column(0).cast(pa.int64())[0].as_py()
    return first
