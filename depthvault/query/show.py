"""What `depthvault book`, `replay`, `export` and `schema` print. The commands themselves are thin."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from depthvault.book.reconstruct import Book
from depthvault.errors import UsageError
from depthvault.query.catalog import columns, schema_of
from depthvault.query.derived import SCALAR_MACROS, TABLE_MACROS, VIEWS
from depthvault.query.export import Exported, export
from depthvault.query.follow import Follow
from depthvault.query.render import cell, number
from depthvault.query.replay import Event, Gap, Notice
from depthvault.query.text import Moment
from depthvault.query.vault import Vault
from depthvault.schemas import CHANNELS, QUALITY_COLUMNS, QUALITY_MEANINGS

_BAR = 14


def show_book(vault: Vault, exchange: str, symbol: str, at: Moment, console: Console, *, depth: int = 10,
              as_json: bool = False) -> None:  # fmt: skip
    """The best levels of both sides with bars of their sizes, and where the book comes from."""
    book = vault.book(exchange, symbol, at)
    if as_json:
        console.print_json(json.dumps(book_record(book, depth), ensure_ascii=False))
        return
    told = book.provenance
    console.print(Text(f"{exchange} {symbol} at {cell(book.at)} UTC", style="bold"))
    bids, asks = book.bids(depth), book.asks(depth)
    largest = max((size for _, size in [*bids, *asks]), default=0.0)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, justify in (
        ("", "right"),
        ("bid size", "right"),
        ("bid", "right"),
        ("ask", "left"),
        ("ask size", "left"),
    ):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    table.add_column("", justify="left", no_wrap=True)
    for row in range(max(len(bids), len(asks))):
        bid = bids[row] if row < len(bids) else None
        ask = asks[row] if row < len(asks) else None
        table.add_row(
            Text(_bar(bid, largest), style="green"),
            number(bid[1]) if bid else "",
            Text(number(bid[0]) if bid else "", style="green"),
            Text(number(ask[0]) if ask else "", style="red"),
            number(ask[1]) if ask else "",
            Text(_bar(ask, largest), style="red"),
        )
    console.print(table)
    if book.spread is not None and book.mid_price is not None:
        percent = 100 * book.spread / book.mid_price
        console.print(f"spread {book.spread:.10g} ({percent:.4f} %), mid {number(book.mid_price)}")
    console.print(f"{book.bid_prices.size:,} bids and {book.ask_prices.size:,} asks are known")
    console.print(
        f"from {told.snapshot_channel} {told.snapshot_update_id} ({cell(told.snapshot_received)}), "
        f"{told.diffs_applied:,} events up to {told.last_update_id} ({cell(told.last_received)})"
    )
    low, high = told.bid_low, told.ask_high
    if low is None and high is None:
        console.print("the snapshot held the whole book")
    else:
        bottom = "the lowest bid" if low is None else number(low)
        top = "the highest ask" if high is None else number(high)
        console.print(f"complete from {bottom} to {top}; beyond, levels are known as far as they changed since")
    if told.first_gap is not None:
        last, after = told.first_gap
        console.print(f"[bold red]gap:[/] events between {last} and {after} are missing: do not trust these levels")
    console.print(Text(f"state {told.state_hash}", style="dim"))


def _bar(level: tuple[float, float] | None, largest: float) -> str:
    return "" if level is None or largest <= 0 else "█" * max(1, round(_BAR * level[1] / largest))


def book_record(book: Book, depth: int | None = None) -> dict[str, Any]:
    """A book as plain values, for JSON."""
    told = book.provenance
    return {
        "exchange": book.exchange, "symbol": book.symbol, "at": book.at.isoformat(),
        "bids": book.bids(depth), "asks": book.asks(depth),
        "provenance": {
            name: value.isoformat() if isinstance(value := getattr(told, name), datetime) else value
            for name in told.__dataclass_fields__
        },
    }  # fmt: skip


def write_replay(vault: Vault, streams: Iterable[str], start: Moment, end: Moment, out: IO[str]) -> tuple[int, int]:
    """Write what a replay gives as one JSON object a line. Returns how many events and gaps there were."""
    return _write_items(vault.replay(streams, start, end), out)


def write_follow(follow: Follow, out: IO[str]) -> tuple[int, int]:
    """Write what comes in, as `write_replay` does, each line at once, until it ends or SIGINT or SIGTERM comes."""
    before = {number: signal.signal(number, lambda *_: follow.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with follow:
            return _write_items(follow, out, at_once=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_items(items: Iterable[Event | Gap | Notice], out: IO[str], *, at_once: bool = False) -> tuple[int, int]:
    events = gaps = 0
    for item in items:
        if isinstance(item, Event):
            events += 1
            record: dict[str, Any] = {"type": item.stream.channel, **item.as_dict()}
        elif isinstance(item, Gap):
            gaps += 1
            record = {"type": "gap", "stream": str(item.stream), "received": item.received, "last_id": item.last_id,
                      "next_id": item.next_id}  # fmt: skip
        else:
            record = _notice(item)
        out.write(json.dumps(record, default=_iso, ensure_ascii=False) + "\n")
        if at_once:
            out.flush()
    return events, gaps


def _notice(item: Notice) -> dict[str, Any]:
    return {"type": item.kind, "exchange": item.exchange, "received": item.received, "instance": item.instance,
            "channel": item.channel, "symbol": item.symbol, "detail": item.detail}  # fmt: skip


def _iso(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def run_export(
    vault: Vault,
    format: str,
    exchange: str,
    symbol: str,
    start: Moment,
    end: Moment,
    path: Path,
    console: Console,
    *,
    channel: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Export with a progress bar, then say what was written."""
    shown = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
    )
    bar = Progress(*shown, console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task(f"{exchange} {symbol}", total=1.0, rows=0)
        result = export(
            vault, format, exchange, symbol, start, end, path, channel=channel, overwrite=overwrite,
            progress=lambda share, rows: bar.update(task, completed=share, rows=rows),
        )  # fmt: skip
    console.print(Text(f"{result.path}: {result.rows:,} rows, {result.path.stat().st_size:,} bytes"))
    for note in result.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    return result


def show_schema(console: Console, name: str | None = None) -> None:
    """The data dictionary: all tables and views with their meaning, or one with its columns. UsageError if none."""
    if name is None:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        table.add_column("table", no_wrap=True)
        table.add_column("what it holds")
        for title, meaning in _meanings().items():
            table.add_row(Text(title, style="bold"), Text(meaning))
        console.print(table)
        console.print(Text("depthvault schema NAME tells the columns", style="dim"))
        return
    if name in VIEWS or name in TABLE_MACROS or name in SCALAR_MACROS:
        for defined in (VIEWS, TABLE_MACROS, SCALAR_MACROS):
            if name in defined:
                console.print(Text(name, style="bold"))
                console.print(Text(defined[name].strip("\n")))
        return
    if name not in CHANNELS and name not in QUALITY_COLUMNS:
        raise UsageError(f"no table {name!r}; there are {', '.join(_meanings())}")
    console.print(Text(name, style="bold"), Text(_meanings()[name]))
    described = {
        column.name: column for column in (CHANNELS[name].columns if name in CHANNELS else QUALITY_COLUMNS[name])
    }
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("column", no_wrap=True)
    table.add_column("type", no_wrap=True)
    table.add_column("meaning")
    for column, kind in columns(name):
        meaning = described[column].meaning if column in described else "The venue."
        optional = column in schema_of(name).names and described[column].nullable
        table.add_row(Text(column, style="bold"), Text(kind.lower() + ("?" if optional else "")), Text(meaning))
    console.print(table)
    console.print(Text("? may be null", style="dim"))
    if name in CHANNELS:
        channel = CHANNELS[name]
        console.print(f"key within exchange and symbol: {', '.join(channel.key)}")
        console.print(f"order: {', '.join(channel.order)}; proved complete by: {channel.continuity}")


def _meanings() -> dict[str, str]:
    derived = {
        "top_of_book": "Best prices at each change with spread, mid and imbalance (view on book_ticker); as "
        "top_of_book(exchange, symbol, start, end) those received in [start, end) (table macro).",
        "depth_summary": "Best prices and volumes of each stored partial or whole book (view).",
        "conditions": "Each symbol's archived days: available, degraded, pending or missing (view).",
        "book_at": "book_at(exchange, symbol, time): the levels of a book at a moment (table macro).",
    }
    return {name: channel.meaning for name, channel in CHANNELS.items()} | QUALITY_MEANINGS | derived
