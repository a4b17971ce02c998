"""Breaks of the continuity rules, found in the compacted file itself and compared with the gap ledger.

The ledger is computed from journals by other code; here DuckDB walks the file in its own order with `lag()`. Each break
must be declared, and no hole may be declared where the chain is whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from depthvault.schemas import QUALITY, Channel

_CLOSED = ("bridged", "refilled")
"""Statuses of gaps that another writer or a refill has closed: the file must show no break there."""

# Links of the chain: each event with the id that it starts after. Futures and Lighter name it (`pu`, `begin_nonce`);
# spot and trades count on, so it is the first id less one. Snapshots (Lighter) restart a book but prove nothing about
# the changes between, so they neither make nor mend a break.
_LINKS = {
    "update_id": """
        select symbol, final_update_id as id, epoch,
          lag(symbol) over () as previous_symbol, lag(final_update_id) over () as previous_id,
          lag(epoch) over () as previous_epoch,
          coalesce(prev_final_update_id, first_update_id - 1) as start_id
        from read_parquet($path) where not is_snapshot""",
    "trade_id": """
        select symbol, {id} as id, 0 as epoch,
          lag(symbol) over () as previous_symbol, lag({id}) over () as previous_id, 0 as previous_epoch,
          {id} - 1 as start_id
        from read_parquet($path)""",
}
# Overlapping batches (two connections may cut the same changes otherwise) leave nothing out. Rows stand in chain order
# (`order_violations` is 0), so the row before reaches farthest.
_FOLLOWS = "epoch = previous_epoch and start_id <= previous_id"
_CANDLES = """
    select symbol, "interval", epoch_us(open_time) as opened, epoch_us(close_time) as closed,
      lag(symbol) over () as previous_symbol, lag("interval") over () as previous_interval,
      lag(epoch_us(close_time)) over () as previous_closed
    from read_parquet($path)
"""


class Predecessor(NamedTuple):
    """Where a symbol's chain stood before the file's first event."""

    final_id: int | None
    epoch: int = 0


Breaks = dict[str, tuple[float, float, float]]
"""By symbol: breaks in the file, breaks that no gap declares, and gaps that the file refutes."""


def compare(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    channel: Channel,
    gaps: pa.Table,
    predecessors: Mapping[str, Predecessor],
) -> Breaks:
    """Compare the chain in the file at `path` with the declared `gaps` (schema `QUALITY["gaps"]`) of that channel.

    predecessors: by symbol where the chain stood before; the first event must continue it or be declared too.
    Empty for channels without a continuity rule.
    """
    assert gaps.schema.names == QUALITY["gaps"].names
    before = pa.table(
        {
            "symbol": pa.array(predecessors.keys(), pa.string()),
            "before_id": pa.array([one.final_id for one in predecessors.values()], pa.int64()),
            "before_epoch": pa.array([one.epoch for one in predecessors.values()], pa.int64()),
        }
    )
    connection.register("declared_gaps", gaps)
    connection.register("predecessors", before)
    try:
        if channel.continuity in _LINKS:
            return _compare_ids(connection, path, channel)
        if channel.continuity == "minute":
            return _compare_candles(connection, path, channel.name)
        return {}
    finally:
        connection.unregister("declared_gaps")
        connection.unregister("predecessors")


def _compare_ids(connection: duckdb.DuckDBPyConnection, path: Path, channel: Channel) -> Breaks:
    links = _LINKS[channel.continuity].format(id=channel.id_column)
    rows = connection.execute(
        f"""
with chain as ({links}),
links as (
  select symbol, id, epoch, start_id, previous_id, previous_epoch, true as same from chain
  where symbol = previous_symbol
  union all
  select symbol, id, epoch, start_id, before_id, before_epoch, before_id is not null
  from chain left join predecessors using (symbol) where symbol is distinct from previous_symbol
),
judged as (select symbol, id, previous_id, same, {_FOLLOWS} as follows from links),
breaks as (select symbol, previous_id as last_id from judged where same and not follows),
declared as (select symbol, last_id, status from declared_gaps where channel = $channel and last_id is not null),
counted as (
  select symbol, count(*) as breaks,
    count(*) filter (where not exists (
      from declared d where d.symbol = breaks.symbol and d.last_id = breaks.last_id and d.status not in {_CLOSED}
    )) as undeclared
  from breaks group by symbol
),
unfounded as (
  select d.symbol, count(*) as unfounded
  from declared d join judged j on j.symbol = d.symbol and j.previous_id = d.last_id
  where d.status not in {_CLOSED} and j.same and j.follows group by d.symbol
)
select symbol, coalesce(breaks, 0), coalesce(undeclared, 0), coalesce(unfounded, 0)
from (select distinct symbol from judged) left join counted using (symbol) left join unfounded using (symbol)
""",  # noqa: S608 - only constants of this module are put in
        {"path": str(path), "channel": channel.name},
    ).fetchall()
    return {
        symbol: (float(breaks), float(undeclared), float(unfounded)) for symbol, breaks, undeclared, unfounded in rows
    }


def _compare_candles(connection: duckdb.DuckDBPyConnection, path: Path, channel: str) -> Breaks:
    # A candle opens a millisecond after the one before has closed.
    rows = connection.execute(
        f"""
with candles as ({_CANDLES}),
judged as (
  select symbol, (symbol = previous_symbol and "interval" = previous_interval and opened <> previous_closed + 1000)
    as broken
  from candles
),
declared as (
  select symbol, count(*) as declared from declared_gaps where channel = $channel and status not in {_CLOSED}
  group by symbol
)
select symbol, count(*) filter (where broken) as breaks, greatest(0, breaks - coalesce(any_value(declared), 0))
from judged left join declared using (symbol) group by symbol
""",  # noqa: S608 - only constants of this module are put in
        {"path": str(path), "channel": channel},
    ).fetchall()
    return {symbol: (float(breaks), float(undeclared), 0.0) for symbol, breaks, undeclared in rows}
