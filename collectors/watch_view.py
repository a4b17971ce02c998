"""How a live book looks in a terminal: pure functions of figures, 80 columns at least."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

Levels = list[tuple[float, float]]
_BAR = 12
_INNER = 76  # of 80 columns, between the panel's borders
_PADDING = 10  # between six columns


@dataclass(frozen=True, slots=True)
class Figures:
    """What the view shows. Sizes in base units, rss in bytes, cpu in percent of one core."""

    exchange: str
    symbol: str
    bids: Levels
    asks: Levels
    seeded: bool
    updates: int
    updates_per_second: float
    gaps: int
    reconnects: int
    lag_ms: float | None
    rss: int
    cpu: float
    buffered_rows: int
    journal: str
    recording: bool
    trouble: str = ""


def number(value: float) -> str:
    """Up to eight decimals, grouped, without trailing zeros."""
    text = f"{value:,.8f}" if abs(value) < 1e6 else f"{value:,.2f}"
    return text.rstrip("0").rstrip(".")


def _decimals(levels: Levels) -> int:
    longest = 0
    for price, _ in levels:
        longest = max(longest, len(number(price).partition(".")[2]))
    return longest


def _bar(size: float, largest: float, style: str, room: int, *, left: bool) -> Text:
    bar = "█" * min(room, max(round(room * size / largest), 1))
    return Text(bar.rjust(room) if left else bar.ljust(room), style=style)


def _room(bids: Levels, asks: Levels, decimals: int) -> int:
    """Columns that are left for each bar at a width of 80: prices and sizes are never cut."""
    used = sum(
        max([len(heading), *(len(number(size)) for _, size in side)])
        + max([3, *(len(f"{price:,.{decimals}f}") for price, _ in side)])
        for heading, side in (("bid size", bids), ("ask size", asks))
    )
    return max(0, min(_BAR, (_INNER - used - _PADDING) // 2))


def render(figures: Figures, depth: int) -> RenderableType:
    """The whole view."""
    bids, asks = figures.bids[:depth], figures.asks[:depth]
    largest = max([size for _, size in [*bids, *asks]], default=0.0)
    decimals = _decimals([*bids, *asks])
    room = _room(bids, asks, decimals)
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 1))
    for heading, side in (("", "right"), ("bid size", "right"), ("bid", "right"), ("ask", "left"), ("ask size", "left"),
                          ("", "left")):  # fmt: skip
        table.add_column(heading, justify=side, header_style="dim", no_wrap=True)  # type: ignore[arg-type]
    for row in range(depth):
        bid = bids[row] if row < len(bids) else None
        ask = asks[row] if row < len(asks) else None
        table.add_row(
            _bar(bid[1], largest, "green", room, left=True) if bid else "",
            number(bid[1]) if bid else "",
            Text(f"{bid[0]:,.{decimals}f}", style="bold green") if bid else "",
            Text(f"{ask[0]:,.{decimals}f}", style="bold red") if ask else "",
            number(ask[1]) if ask else "",
            _bar(ask[1], largest, "red", room, left=False) if ask else "",
        )
    parts: list[RenderableType] = [
        _prices(bids, asks, figures.seeded),
        Text(),
        table,
        Text(),
        _volumes(bids, asks),
        _health(figures),
    ]
    if figures.trouble:
        parts.append(Text(figures.trouble, style="yellow", overflow="ellipsis", no_wrap=True))
    return Panel(
        Group(*parts),
        title=f"[bold]{figures.exchange} {figures.symbol}[/]",
        subtitle=f"{'recording' if figures.recording else 'not kept'} · {figures.journal} · Ctrl-C ends",
    )


def _prices(bids: Levels, asks: Levels, seeded: bool) -> Text:
    if not seeded or not bids or not asks:
        return Text("waiting for the book's snapshot …", style="yellow")
    bid, ask = bids[0][0], asks[0][0]
    mid, spread = (bid + ask) / 2, ask - bid
    return Text.assemble(
        ("mid ", "dim"), (number(mid), "bold"), ("   spread ", "dim"), number(spread),
        ("   ", ""), f"{100 * spread / mid:.4f} %",
    )  # fmt: skip


def _volumes(bids: Levels, asks: Levels) -> Text:
    bid, ask = sum(size for _, size in bids), sum(size for _, size in asks)
    share = bid / (bid + ask) if bid + ask else 0.5
    return Text.assemble(
        ("volume shown: bid ", "dim"), (number(bid), "green"), ("  ask ", "dim"), (number(ask), "red"),
        ("  imbalance ", "dim"), f"{2 * share - 1:+.3f}",
    )  # fmt: skip


def _health(figures: Figures) -> Text:
    trouble = "bold red" if figures.gaps else ""
    lag = "–" if figures.lag_ms is None else f"{figures.lag_ms:,.0f} ms"
    return Text.assemble(
        ("updates ", "dim"), f"{figures.updates:,}", f" ({figures.updates_per_second:,.1f}/s)",
        ("  lag ", "dim"), lag, ("  gaps ", "dim"), (str(figures.gaps), trouble),
        ("  reconnects ", "dim"), str(figures.reconnects), "\n",
        ("memory ", "dim"), f"{figures.rss / 2**20:,.0f} MB", ("  CPU ", "dim"), f"{figures.cpu:.0f} %",
        ("  buffer ", "dim"), f"{figures.buffered_rows:,} rows",
    )  # fmt: skip
