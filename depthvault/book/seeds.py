"""Which snapshot a book of the past starts from, and how long its chain of events holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import pyarrow as pa

from depthvault.book.events import Floats, Snapshot, breaks, chain_of
from depthvault.clock import ns_from_datetime

_LOOKBACKS = (timedelta(minutes=10), timedelta(hours=3), timedelta(hours=30), timedelta(days=370))
_AHEAD = timedelta(minutes=2)
"""How much earlier than the snapshot's receipt its first diff may have been received: the fetch takes its time."""
LEVEL_COLUMNS = "bid_prices, bid_sizes, ask_prices, ask_sizes"
CHAIN_COLUMNS = "received_time, first_update_id, final_update_id, prev_final_update_id, is_snapshot, epoch"


class Archive(Protocol):
    """What a replay reads from."""

    def arrow(self, query: str) -> pa.RecordBatchReader:
        """The answer of one statement."""


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
        f"SELECT 'depth_snapshot' AS channel, received_time, last_update_id AS update_id, \"limit\", {LEVEL_COLUMNS} "
        f"FROM depth_snapshot WHERE {where} UNION ALL "
        f"SELECT 'depth_diff', received_time, final_update_id, NULL::INTEGER, {LEVEL_COLUMNS} "
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


def diffs(exchange: str, symbol: str, seed: Snapshot, until: int, columns: str) -> str:
    """The events after `seed` received by `until`, in chain order."""
    low = seed.received - round(_AHEAD.total_seconds() * 1e6)
    return (
        f"SELECT {columns} FROM depth_diff WHERE {_of(exchange, symbol)} AND {_between(low, until)} "
        f"AND NOT is_snapshot AND final_update_id > {seed.update_id} ORDER BY epoch, final_update_id"
    )


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
        broken = _first_break(archive, exchange, symbol, seed, end - 1)
        following = _following(archive, exchange, symbol, seed, broken, end - 1)
        start, until = max(start, seed.received), end if following is None else following.received
        if until > start:
            yield Stretch(seed, start, until, broken if broken is not None and broken < until else None)
        seed = following


def _first_break(archive: Archive, exchange: str, symbol: str, seed: Snapshot, end: int) -> int | None:
    """When the first event after a hole in the chain that begins at `seed` was received."""
    last_id, epoch = seed.update_id, None
    for batch in archive.arrow(diffs(exchange, symbol, seed, end, CHAIN_COLUMNS)):
        if batch.num_rows == 0:
            continue
        chain = chain_of(batch)
        if epoch is not None and int(chain.epoch[0]) != epoch:
            return int(chain.received[0])
        if (broken := breaks(chain, last_id)).size:
            return int(chain.received[broken[0]])
        last_id, epoch = int(chain.final[-1]), int(chain.epoch[-1])
    return None


def _following(
    archive: Archive, exchange: str, symbol: str, seed: Snapshot, broken: int | None, end: int
) -> Snapshot | None:
    """The snapshot that takes over from `seed`: the next one in the stream, or any after a break."""
    where = f"{_of(exchange, symbol)} AND {_between(seed.received + 1, end)}"
    rows = archive.arrow(
        f"SELECT received_time FROM depth_diff WHERE is_snapshot AND {where} ORDER BY received_time LIMIT 1"
    ).read_all()
    in_band = rows.column(0).cast(pa.int64())[0].as_py() if rows.num_rows else None
    if broken is None:
        return None if in_band is None else following_seed(archive, exchange, symbol, in_band, in_band)
    low = max(seed.received + 1, broken if in_band is None else min(broken, in_band))
    return following_seed(archive, exchange, symbol, low, end)
