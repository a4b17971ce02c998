"""One symbol's imported rows of a day: ordered, each key once, and what its ids do and do not prove. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from depthvault.archive.manifest import Conflict
from depthvault.archive.stitch import NOT_PAYLOAD, chain_order, codes, column
from depthvault.exchanges.base import Exchange, Head
from depthvault.imports.source import IMPORT
from depthvault.quality.gaps import Break, breaks, chain_of
from depthvault.schemas import Channel

Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class SymbolDay:
    """Positions of the rows that stand, in chain order, and of the pairs (kept, other) that share a key but not a
    payload; how many rows repeat another."""

    chosen: Ints
    duplicates: int = 0
    clashes: list[tuple[int, int]] = field(default_factory=list)


def settle(table: pa.Table, channel: Channel) -> SymbolDay:
    """Of rows with the same key the first in `table` stands. Rows without any key value are all different."""
    count = table.num_rows
    keys = [codes(column(table, name)) for name in channel.key]
    nameless = np.ones(count, np.bool_)
    for name in channel.key:
        nameless &= column(table, name).is_null().to_numpy(zero_copy_only=False)
    sequence = np.arange(count, dtype=np.int64)
    keys.append(np.where(nameless, sequence, -1))
    order = np.lexsort((sequence, *reversed(keys)))
    starts = np.zeros(count, np.bool_)
    starts[:1] = True
    for key in keys:
        starts[1:] |= key[order][1:] != key[order][:-1]
    kept, others = order[starts], order[~starts]
    mates = kept[(np.cumsum(starts) - 1)[~starts]]
    clash = _differ(table, channel, mates, others)
    pairs = [(int(a), int(b)) for a, b in zip(mates[clash], others[clash], strict=True)]
    return SymbolDay(kept[chain_order(table, channel, kept)], len(others) - len(pairs), pairs)


def _differ(table: pa.Table, channel: Channel, left: Ints, right: Ints) -> npt.NDArray[np.bool_]:
    result = np.zeros(len(left), np.bool_)
    if not len(left):
        return result
    for spec in channel.columns:
        if spec.name in NOT_PAYLOAD and spec.name not in channel.key:
            continue
        values = column(table, spec.name)
        one, other = values.take(pa.array(left)), values.take(pa.array(right))
        if not one.equals(other):
            result |= np.array([a != b for a, b in zip(one.to_pylist(), other.to_pylist(), strict=True)], np.bool_)
    return result


def conflict(table: pa.Table, channel: Channel, symbol: str, pair: tuple[int, int]) -> Conflict:
    """Both payloads of a key, for the manifest."""
    kept, other = (table.slice(place, 1).to_pylist()[0] for place in pair)
    key = json.dumps({name: kept[name] for name in channel.key}, default=str)
    return Conflict(symbol, key, IMPORT, IMPORT, json.dumps(kept, default=str), json.dumps(other, default=str))


def holes(table: pa.Table, channel: Channel, venue: Exchange) -> list[Break] | None:
    """Where ids are missing inside the day; None where the rows have not the ids that would prove it."""
    if channel.continuity == "trade_id":
        chain = chain_of(table, channel)
        return breaks(chain, None) if chain is not None else None
    if channel.continuity != "update_id" or table.column("first_update_id").null_count:
        return None
    chained = table.column("prev_final_update_id").null_count == 0
    chain = chain_of(table, channel)
    return breaks(chain, None) if chain is not None and (chained or _counts_without_holes(venue)) else None


def _counts_without_holes(venue: Exchange) -> bool:
    """Whether at this venue the first id alone tells what an event follows."""
    return venue.continuity.follows(10, Head(first=11, final=12, prev=None))


def gap_rows(
    table: pa.Table, channel: Channel, venue: Exchange, symbol: str, day: datetime, layout: str
) -> list[dict[str, Any]]:
    """The ledger of an imported day: one `unprovable` row over all of it, and a `lost` one for each hole in its ids."""
    received = pc.min_max(table.column("received_time")).as_py()
    found = holes(table, channel, venue)
    detail = {
        "imported": layout,
        "rows": table.num_rows,
        "why": "nobody's connection is on record" if found is not None else "no ids that prove a chain",
    }
    common = {
        "exchange": venue.name, "channel": channel.name, "symbol": symbol, "period": day, "instance": IMPORT,
        "cause": "unknown",
    }  # fmt: skip
    rows = [
        {
            **common, "last_id": None, "first_id": None, "start_time": received["min"], "end_time": received["max"],
            "status": "unprovable", "detail": json.dumps(detail, sort_keys=True),
        }
    ]  # fmt: skip
    for hole in found or []:
        rows.append(
            {
                **common, "last_id": hole.last_id, "first_id": hole.first_id, "start_time": hole.start_us,
                "end_time": hole.end_us, "status": "lost", "detail": json.dumps({"imported": layout}),
            }
        )  # fmt: skip
    return rows
