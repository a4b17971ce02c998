"""The files of an earlier recorder: which there are, what kind of rows each holds, and these rows in our channels.

The three layouts, by the names that `--layout` takes (docs/import.md shows them):

    s0  one row an event: ISO `timestamp`, one `sequence_id`, `bids` and `asks` as [price, size] texts, derived columns;
        files `<exchange>_orderbook_<symbol>_YYYY_MM_DD_HH.parquet`
    s1  daily files below `orderbooks`, `diff_orderbooks` and `partial_orderbooks`, times as integers, levels as floats
    s2  files `<SYMBOL>_<orderbook|trade|kline|liquidation>_YYYYMMDD_HHMM.parquet` and `funding_rate_….parquet`

Derived columns (best prices, spreads, totals) are not taken over: the archive's views compute them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, timedelta, tzinfo
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.errors import ArchiveError, UsageError
from depthvault.imports.values import Rows
from depthvault.schemas import CHANNELS

LAYOUTS = ("s0", "s1", "s2")
IMPORT = "import"
"""`instance` and `source` of imported rows, and the kind of their manifests."""

MAY_BE_ABSENT: Mapping[str, frozenset[str]] = {
    "depth_diff": frozenset({"first_update_id"}),
    "kline": frozenset({"taker_buy_volume", "taker_buy_quote_volume"}),
}
"""Columns that recorded rows always have and that these layouts do not: null in imported rows."""

BATCH_ROWS = 8192
_FUTURES_ONLY = frozenset({"liquidation", "funding"})


@dataclass(frozen=True, slots=True)
class Options:
    """What the files themselves do not say.

    timezone: of times without an offset. levels: how many levels a side a stored top of book has. rename: symbols by
    the recorder's name for them. states: s0 rows are the top of the book and not changes of it.
    """

    timezone: tzinfo = UTC
    levels: int = 20
    rename: Mapping[str, str] = field(default_factory=dict)
    states: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """One file: `name` is its path below what was imported, `kind` what its layout calls such rows."""

    path: Path
    name: str
    kind: str


def schema_of(channel: str) -> pa.Schema:
    """The channel's schema, with the columns that imported rows may lack as nullable."""
    schema = CHANNELS[channel].schema
    for name in MAY_BE_ABSENT.get(channel, ()):
        place = schema.get_field_index(name)
        schema = schema.set(place, schema.field(place).with_nullable(True))
    return schema


_S0_NAME = re.compile(r"(binance_spot|binance_futures|lighter)_orderbook_")
_S2_NAME = re.compile(r"(?:.+_)?(orderbook|trade|kline|liquidation)_\d{8}_\d{4}|(funding)_rate_\d{8}_\d{4}")
_S1_KINDS = {"orderbooks": "snapshot", "diff_orderbooks": "diff", "partial_orderbooks": "partial"}
_S1_MARKETS = {"spot": "binance_spot", "futures": "binance_futures"}


def _kind(layout: str, path: Path, below: Path) -> str | None:
    """What rows a file holds by its name; None when the layout has no such name."""
    if layout == "s0":
        return "event"
    if layout == "s1":
        folders = (*below.absolute().parts, *path.relative_to(below).parts[:-1])
        return next((_S1_KINDS[name] for name in reversed(folders) if name in _S1_KINDS), None)
    match = _S2_NAME.fullmatch(path.stem)
    return next((kind for kind in match.groups() if kind), None) if match else None


def sources(root: Path, layout: str, exchange: str) -> tuple[list[Source], dict[str, str]]:
    """The files at or below `root`, by path, and those left alone with the reason.

    Raises UsageError when there is nothing to import.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    if not root.exists():
        raise UsageError(f"{root}: no such file or directory")
    below = root if root.is_dir() else root.parent
    found, left = [], {}
    for path in sorted(root.rglob("*.parquet")) if root.is_dir() else [root]:
        name = path.relative_to(below).as_posix()
        kind = _kind(layout, path, below)
        named = _exchange_in_name(layout, path)
        if kind is None:
            left[name] = f"its name is none of layout {layout}"
        elif named is not None and named != exchange:
            left[name] = f"belongs to {named}"
        else:
            found.append(Source(path, name, kind))
    if not found:
        raise UsageError(f"{root}: no file of layout {layout} for {exchange}" + (f" ({left})" if left else ""))
    return found, left


def _exchange_in_name(layout: str, path: Path) -> str | None:
    """The venue that a file's name or folder tells of; None when it tells of none."""
    if layout == "s0":
        match = _S0_NAME.match(path.stem)
        return match.group(1) if match else None
    folders = reversed(path.absolute().parts[:-1])
    return next((_S1_MARKETS[part] for part in folders if part in _S1_MARKETS), None) if layout == "s1" else None


def exchange_of(layout: str, kind: str, exchange: str) -> str:
    """The venue of a file's rows: the named one, but forced orders and funding there are on futures alone."""
    if layout == "s2" and kind in _FUTURES_ONLY and exchange == "binance_spot":
        return "binance_futures"
    return exchange


def read(source: Source, layout: str, exchange: str, options: Options) -> Iterator[tuple[str, pa.Table, int]]:
    """The rows of a file as channel, table in `schema_of` that channel, and how many numbers a double rounds.

    Raises ArchiveError naming file and column for whatever cannot be taken in.
    """
    try:
        with pq.ParquetFile(source.path) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                rows = Rows(pa.Table.from_batches([batch]), source.name, options.timezone)
                if len(rows):
                    channel, columns = _CONVERT[layout, source.kind](rows, exchange, options)
                    yield channel, _table(channel, columns, rows), rows.inexact
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArchiveError(f"{source.name}: cannot be read as Parquet: {reason}; nothing was imported") from error


Converted = tuple[str, dict[str, pa.Array]]


def _table(channel: str, columns: dict[str, pa.Array], rows: Rows) -> pa.Table:
    schema, count = schema_of(channel), len(rows)
    columns |= {name: pa.array([IMPORT] * count, pa.string()) for name in ("instance", "source")}
    arrays = []
    for spec in schema:
        array = columns.get(spec.name)
        if array is None:
            if not spec.nullable:
                raise rows.bad(spec.name, "the archive needs it and this layout has nothing for it")
            array = pa.nulls(count, spec.type)
        arrays.append(array.cast(spec.type))
    return pa.table(arrays, schema=schema.remove_metadata())


def _symbols(rows: Rows, options: Options) -> pa.Array:
    array = rows.text("symbol")
    if not options.rename:
        return array
    return pa.array([options.rename.get(name, name) for name in array.to_pylist()], pa.string())


def _constant(rows: Rows, value: object, kind: pa.DataType) -> pa.Array:
    return pa.array([value] * len(rows), kind)


def _sides(rows: Rows, most: int | None) -> dict[str, pa.Array]:
    bids, asks = rows.level_pairs("bids", most), rows.level_pairs("asks", most)
    return {"bid_prices": bids[0], "bid_sizes": bids[1], "ask_prices": asks[0], "ask_sizes": asks[1]}


def _lists(rows: Rows, most: int | None) -> dict[str, pa.Array]:
    names = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
    found = {name: rows.level_lists(name, most) for name in names}
    for side in ("bid", "ask"):
        lengths = [pc.list_value_length(found[f"{side}_{what}"]) for what in ("prices", "sizes")]
        if not lengths[0].equals(lengths[1]):
            raise rows.bad(f"{side}_sizes", f"has not as many levels as {side}_prices")
    return found


def _whole(rows: Rows, whole: bool) -> dict[str, pa.Array]:
    return {
        "is_snapshot": _constant(rows, whole, pa.bool_()),
        # Nothing here tells that the venue began its ids anew.
        "epoch": _constant(rows, 0, pa.int32()),
    }


def _event(rows: Rows, exchange: str, options: Options) -> Converted:
    """s0. The one id of an event is its last; where it began is not told."""
    named = set(pc.unique(rows.text("exchange")).to_pylist()) - {exchange}
    if named:
        raise rows.bad("exchange", f"says {', '.join(sorted(named))}, not {exchange}")
    ids = rows.ids("sequence_id")
    columns = {
        "received_time": rows.times("timestamp"), "symbol": _symbols(rows, options), "final_update_id": ids,
        **_whole(rows, options.states), **_sides(rows, options.levels if options.states else None),
    }  # fmt: skip
    if not options.states:
        return "depth_diff", columns
    # As for a venue's own top-of-book frames that have one id: it is the first and the last.
    return "depth_partial", columns | {"first_update_id": ids, "levels": _constant(rows, options.levels, pa.int32())}


def _snapshot(rows: Rows, exchange: str, options: Options) -> Converted:
    """s1 REST snapshots."""
    limits = rows.counts("limit").cast(pa.int32())
    return "depth_snapshot", {
        "received_time": rows.times("received_time"), "request_time": rows.times("request_time"),
        "symbol": _symbols(rows, options), "last_update_id": rows.ids("lastUpdateId"), "limit": limits,
        **_lists(rows, None),
    }  # fmt: skip


def _diff(rows: Rows, exchange: str, options: Options) -> Converted:
    """s1 changes. Spot and futures alike come without `pu`."""
    first, final = rows.ids("first_update_id"), rows.ids("final_update_id")
    if pc.any(pc.greater(first, final)).as_py():
        raise rows.bad("first_update_id", "is larger than final_update_id")
    return "depth_diff", {
        "received_time": rows.times("received_time"), "event_time": rows.times("event_time", optional=True),
        "symbol": _symbols(rows, options), "first_update_id": first, "final_update_id": final,
        **_whole(rows, False), **_lists(rows, None),
    }  # fmt: skip


def _partial(rows: Rows, exchange: str, options: Options) -> Converted:
    """s1 tops of the book."""
    _, columns = _diff(rows, exchange, options)
    columns |= _whole(rows, True) | _lists(rows, options.levels)
    return "depth_partial", columns | {"levels": _constant(rows, options.levels, pa.int32())}


def _orderbook(rows: Rows, exchange: str, options: Options) -> Converted:
    """s2 books: the best levels of a book that the recorder kept itself, after each change."""
    ids = rows.ids("last_update_id")
    return "depth_partial", {
        "received_time": rows.times("recv_time"), "event_time": rows.times("event_time", optional=True),
        "symbol": _symbols(rows, options), "first_update_id": ids, "final_update_id": ids,
        "levels": _constant(rows, options.levels, pa.int32()), **_whole(rows, True), **_sides(rows, options.levels),
    }  # fmt: skip


def _trade(rows: Rows, exchange: str, options: Options) -> Converted:
    """s2 trades are the venue's aggregated ones."""
    return "agg_trade", {
        "received_time": rows.times("recv_time"), "symbol": _symbols(rows, options),
        "transaction_time": rows.times("trade_time"), "agg_trade_id": rows.ids("trade_id"),
        "first_trade_id": rows.ids("first_trade_id"), "last_trade_id": rows.ids("last_trade_id"),
        "price": rows.numbers("price"), "quantity": rows.numbers("quantity"),
        "is_buyer_maker": rows.flags("is_buyer_maker"),
    }  # fmt: skip


def _kline(rows: Rows, exchange: str, options: Options) -> Converted:
    """s2 candles are of one minute; the file does not say so, its times do."""
    opened, closed = rows.times("open_time"), rows.times("close_time")
    lengths = set(pc.unique(pc.subtract(closed.cast(pa.int64()), opened.cast(pa.int64()))).to_pylist())
    if lengths - {(60_000 - 1) * 1000}:
        lasting = ", ".join(str(timedelta(microseconds=length)) for length in sorted(lengths))
        raise rows.bad("close_time", f"lies {lasting} after open_time: not candles of one minute")
    return "kline", {
        "received_time": rows.times("recv_time"), "symbol": _symbols(rows, options),
        "interval": _constant(rows, "1m", pa.string()), "open_time": opened, "close_time": closed,
        **{name: rows.numbers(name) for name in ("open", "high", "low", "close")},
        **{name: rows.volumes(name) for name in ("volume", "quote_volume")}, "trade_count": rows.counts("trade_count"),
    }  # fmt: skip


def _liquidation(rows: Rows, exchange: str, options: Options) -> Converted:
    """s2 forced orders."""
    return "liquidation", {
        "received_time": rows.times("recv_time"), "symbol": _symbols(rows, options),
        "transaction_time": rows.times("trade_time"), "side": rows.text("side"),
        "order_type": rows.text("order_type"), "price": rows.numbers("price"), "quantity": rows.numbers("quantity"),
    }  # fmt: skip


def _funding(rows: Rows, exchange: str, options: Options) -> Converted:
    """s2 funding: the running rate with the next settlement, as polled. `funding_time` is the answer's time."""
    return "mark_price", {
        "received_time": rows.times("recv_time"), "event_time": rows.times("funding_time"),
        "symbol": _symbols(rows, options), "funding_rate": rows.numbers("funding_rate", positive=False),
        "next_funding_time": rows.times("next_funding_time", optional=True),
    }  # fmt: skip


_CONVERT: Mapping[tuple[str, str], Callable[[Rows, str, Options], Converted]] = {
    ("s0", "event"): _event,
    ("s1", "snapshot"): _snapshot,
    ("s1", "diff"): _diff,
    ("s1", "partial"): _partial,
    ("s2", "orderbook"): _orderbook,
    ("s2", "trade"): _trade,
    ("s2", "kline"): _kline,
    ("s2", "liquidation"): _liquidation,
    ("s2", "funding"): _funding,
}
