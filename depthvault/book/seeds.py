"""Which snapshot a book of the past starts from, and how long its chain of events holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from depthvault.book.events import Floats, Snapshot, breaks, chain_of, kept_rows
from depthvault.clock import ns_from_datetime

_LOOKBACKS = (timedelta(minutes=10), timedelta(hours=3), timedelta(hours=30), timedelta(days=370))
_AHEAD = timedelta(minutes=2)
"""How much earlier than the snapshot's receipt its first diff may have been received: the fetch takes its time."""
_FEW = 4
"""In how many files of a channel snapshots are sought one after the other; more of them DuckDB reads in parallel."""
LEVEL_COLUMNS = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
_LEVELS = ", ".join(LEVEL_COLUMNS)
_PLACE_COLUMNS = ("received_time", "final_update_id", "is_snapshot", "epoch")
CHAIN_COLUMNS = (*_PLACE_COLUMNS, "first_update_id", "prev_final_update_id")
"""What `chain_of` reads."""


class Archive(Protocol):
    """What a replay reads from."""

    def arrow(self, query: str) -> pa.RecordBatchReader:
        """The answer of one statement."""

    def ordered(
        self,
        channel: str,
        exchange: str,
        symbol: str,
        low: int,
        high: int,
        columns: Sequence[str],
        only: str | None = None,
        most_files: int | None = None,
    ) -> Iterator[pa.RecordBatch] | None:
        """Rows received in [low, high] µs, in chain order, where they can be had so without sorting; else None.

        only: a column of flags; rows where it is false are left out. most_files: None also when more files hold them.
        """


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
    return " UNION ALL ".join(
        f"SELECT '{channel}' AS channel, received_time, {id_column} AS update_id, {limit} AS \"limit\", {_LEVELS} "
        f"FROM {channel} WHERE {flag or 'true'} AND {where}"
        for channel, id_column, _, flag, limit in _KINDS
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


_KINDS = (
    ("depth_snapshot", "last_update_id", ("request_time",), None, '"limit"'),
    ("depth_diff", "final_update_id", ("epoch",), "is_snapshot", "NULL::INTEGER"),
)
"""Where whole books stand: channel, id, what else its order needs, the flag of such rows, and the levels asked for."""


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where a snapshot stands: when it was received, its id, and its place in `_KINDS`."""

    received: int
    update_id: int
    kind: int


def _places(archive: Archive, exchange: str, symbol: str, low: int, high: int) -> list[_Place] | None:
    """All snapshots received in [low, high], without their levels; None: SQL must tell."""
    found: list[_Place] = []
    for kind, (channel, id_column, order, flag, _) in enumerate(_KINDS):
        columns = ("received_time", id_column, *order)
        rows = archive.ordered(channel, exchange, symbol, low, high, columns, flag, _FEW)
        if rows is None:
            return None
        for batch in rows:
            received = batch.column("received_time").cast(pa.int64()).to_pylist()
            ids = batch.column(id_column).to_pylist()
            found += [_Place(*place, kind) for place in zip(received, ids, strict=True)]
    return found


def _at(archive: Archive, exchange: str, symbol: str, place: _Place) -> Snapshot | None:
    """The snapshot at `place`; None when it is not there any more as it was."""
    channel, id_column, order, flag, _ = _KINDS[place.kind]
    limit = ("limit",) if channel == "depth_snapshot" else ()
    columns = ("received_time", id_column, *order, *limit, *LEVEL_COLUMNS)
    rows = archive.ordered(channel, exchange, symbol, place.received, place.received, columns, flag)
    for batch in rows or ():
        chosen = batch.filter(pc.equal(batch.column(id_column), place.update_id))
        if chosen.num_rows:
            table = pa.table(
                {
                    "channel": [channel],
                    "received_time": chosen.column("received_time")[:1],
                    "update_id": [place.update_id],
                    "limit": chosen.column("limit")[:1] if limit else pa.nulls(1, pa.int32()),
                    **{name: chosen.column(name)[:1] for name in LEVEL_COLUMNS},
                }
            )
            return _snapshot(table)
    return None


def latest(archive: Archive, exchange: str, symbol: str, at: int) -> Snapshot | None:
    """The newest snapshot received by `at`, sought further and further back."""
    high = at
    for lookback in _LOOKBACKS:
        low = at - round(lookback.total_seconds() * 1e6)
        if (found := _sought(archive, exchange, symbol, low, high, newest=True)) is not None:
            return found
        high = low
    return None


def following_seed(archive: Archive, exchange: str, symbol: str, low: int, high: int) -> Snapshot | None:
    """The first snapshot received in [low, high]."""
    return _sought(archive, exchange, symbol, low, high, newest=False)


def _sought(archive: Archive, exchange: str, symbol: str, low: int, high: int, *, newest: bool) -> Snapshot | None:
    """The newest snapshot received in [low, high], or the first one."""
    if high < low:
        return None
    if (places := _places(archive, exchange, symbol, low, high)) is not None:
        if not places:
            return None
        # Of the same moment and id, SQL's answer may be either kind: they are the same book.
        if (found := _at(archive, exchange, symbol, max(places) if newest else min(places))) is not None:
            return found
    order = "received_time DESC, update_id DESC" if newest else "received_time, update_id"
    query = f"SELECT * FROM ({_seeds(exchange, symbol, low, high)}) ORDER BY {order} LIMIT 1"
    return _snapshot(archive.arrow(query).read_all())


def events(
    archive: Archive, exchange: str, symbol: str, seed: Snapshot, until: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """The events after `seed` received by `until`, in chain order; no batch is empty.

    Besides `columns` they have what their place in the chain needs: receipt, id and epoch.
    """
    low = seed.received - round(_AHEAD.total_seconds() * 1e6)
    needed = list(dict.fromkeys((*_PLACE_COLUMNS, *columns)))
    ordered = archive.ordered("depth_diff", exchange, symbol, low, until, needed)
    if ordered is None:
        query = (
            f"SELECT {', '.join(needed)} FROM depth_diff WHERE {_of(exchange, symbol)} AND {_between(low, until)} "
            f"AND NOT is_snapshot AND final_update_id > {seed.update_id} ORDER BY epoch, final_update_id"
        )
        yield from (batch for batch in archive.arrow(query) if batch.num_rows)
        return
    for batch in ordered:
        wanted = batch.column("final_update_id").to_numpy() > seed.update_id
        if (whole := batch.column("is_snapshot")).true_count:
            wanted &= ~whole.to_numpy(zero_copy_only=False)
        kept = kept_rows(batch, wanted)
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
    for batch in events(archive, exchange, symbol, seed, end, CHAIN_COLUMNS):
        chain = chain_of(batch)
        if epoch is not None and int(chain.epoch[0]) != epoch:
            return int(chain.received[0])
        if (broken := breaks(chain, last_id)).size:
            return int(chain.received[broken[0]])
        last_id, epoch = int(chain.final[-1]), int(chain.epoch[-1])
    return None


def _next_in_band(archive: Archive, exchange: str, symbol: str, low: int, high: int) -> int | None:
    """When the venue next sent the book anew in the stream."""
    if high < low:
        return None
    found = archive.ordered(
        "depth_diff", exchange, symbol, low, high, ("received_time", "epoch", "final_update_id"), "is_snapshot"
    )
    if found is not None:
        moments = [pc.min(batch.column("received_time").cast(pa.int64())).as_py() for batch in found]
        return min(moments, default=None)
    where = f"{_of(exchange, symbol)} AND {_between(low, high)}"
    rows = archive.arrow(f"SELECT min(received_time) AS first FROM depth_diff WHERE is_snapshot AND {where}").read_all()
    first: int | None = rows.column(0).cast(pa.int64())[0].as_py()
    return first
