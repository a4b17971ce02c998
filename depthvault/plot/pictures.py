"""What each picture shows. All times are UTC; nothing is interpolated: what was not recorded is left blank."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as quote_path

import matplotlib as mpl
import numpy as np
from matplotlib import dates as mdates
from matplotlib import font_manager, ticker
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from depthvault.errors import ArchiveError
from depthvault.query.text import quote

if TYPE_CHECKING:
    from depthvault.book.reconstruct import Book
    from depthvault.query.vault import Vault

mpl.rcParams.update({
    "svg.hashsalt": "depthvault",
    "svg.fonttype": "path",
    "font.sans-serif": ["DejaVu Sans", "Noto Sans CJK SC", "WenQuanYi Zen Hei"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
})  # fmt: skip

BID, ASK, INK, GRID = "#2a7f62", "#c0392b", "#1f2933", "#d9e2ec"
_PRICE_BINS = 120
_MAX_COLUMNS = 600


def _readable(text: str) -> str:
    """`text`, or as paths spell it where no installed font can show it (`币安人生USDT` without a Chinese font)."""
    if text.isascii():
        return text
    for family in mpl.rcParams["font.sans-serif"]:
        try:
            glyphs = font_manager.get_font(font_manager.findfont(family, fallback_to_default=False)).get_charmap()
        except ValueError:
            continue
        if all(ord(character) in glyphs for character in text):
            return text
    return quote_path(text, safe=" ")


def _figure(title: str, width: float = 11.0, height: float = 5.5) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(_readable(title), color=INK, pad=10)
    return figure, axes


def _time_axis(axes: Any) -> None:
    locator = mdates.AutoDateLocator(tz=UTC)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator, tz=UTC))
    axes.set_xlabel("time (UTC)")


def coverage(vault: Vault, channel: str = "depth_diff", exchange: str | None = None) -> tuple[Figure, str]:
    """Symbols by periods: the share of each period that was recorded; a dot marks periods with an unclosed gap.

    Raises ArchiveError when nothing is archived.
    """
    where = f"channel = {quote(channel)}" + (f" AND exchange = {quote(exchange)}" if exchange else "")
    rows = vault.sql(
        "SELECT exchange || ' ' || symbol AS name, period, share, gaps FROM coverage "  # noqa: S608 - quoted
        f"WHERE {where} AND symbol <> '' ORDER BY 1, 2"
    ).fetchall()
    if not rows:
        raise ArchiveError(f"nothing of {channel} is archived")
    names = sorted({row[0] for row in rows})
    periods = sorted({row[1] for row in rows})
    shares = np.full((len(names), len(periods)), np.nan)
    marks = []
    for name, period, share, gaps in rows:
        y, x = names.index(name), periods.index(period)
        shares[y, x] = share
        if gaps:
            marks.append((x, y))
    title = f"Coverage of {channel}"
    figure, axes = _figure(title, height=max(2.6, 1.6 + 0.24 * len(names)))
    colours = mpl.colormaps["RdYlGn"].with_extremes(bad="#eef1f4")
    image = axes.imshow(shares, aspect="auto", cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    if marks:
        axes.scatter(*zip(*marks, strict=True), s=14, color=INK, label="gap that nothing closed")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    axes.set_yticks(range(len(names)), [_readable(name) for name in names], fontsize=8)
    step = max(1, len(periods) // 12)
    labels = [f"{period:%m-%d %H:%M}" for period in periods[::step]]
    axes.set_xticks(range(0, len(periods), step), labels, fontsize=8, rotation=30, ha="right")
    axes.set_xlabel("period (UTC)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.025, pad=0.01)
    bar.set_label("share of the period recorded")
    bar.ax.yaxis.set_major_formatter(ticker.PercentFormatter(1))
    return figure, title


def depth(book: Book, within: float = 0.01) -> tuple[Figure, str]:
    """Cumulative size on both sides, within a share of the mid price. Raises ArchiveError for a one-sided book."""
    mid = book.mid_price
    if mid is None:
        raise ArchiveError(f"{book.exchange} {book.symbol}: a side of the book is empty at {book.at:%Y-%m-%d %H:%M:%S}")
    title = f"{book.exchange} {book.symbol}: depth at {book.at:%Y-%m-%d %H:%M:%S} UTC"
    figure, axes = _figure(title)
    for prices, sizes, colour, name in (
        (book.bid_prices, book.bid_sizes, BID, "bids"),
        (book.ask_prices, book.ask_sizes, ASK, "asks"),
    ):
        near = np.abs(prices - mid) <= within * mid
        total = np.cumsum(sizes[near])
        axes.step(prices[near], total, where="post", color=colour, label=name)
        axes.fill_between(prices[near], total, step="post", color=colour, alpha=0.15)
    axes.axvline(mid, color=INK, linewidth=0.8, linestyle=":")
    known = book.provenance
    edges = [edge for edge in (known.bid_low, known.ask_high) if edge is not None and abs(edge - mid) <= within * mid]
    for number, edge in enumerate(edges):
        label = "edge of the snapshot: beyond it only changes are known" if number == 0 else None
        axes.axvline(edge, color="grey", linewidth=0.8, linestyle="--", label=label)
    note = f"mid {mid:,.8g}, spread {100 * (book.spread or 0) / mid:.4f} %"
    axes.annotate(note + (", a gap was crossed" if known.gap_crossed else ""), (0.01, 0.96), xycoords="axes fraction")
    axes.set_xlabel("price")
    axes.set_ylabel("cumulative size (base units)")
    axes.set_ylim(bottom=0)
    axes.grid(color=GRID, linewidth=0.6)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=9)
    return figure, title


def _sampled(vault: Vault, exchange: str, symbol: str, start: datetime, end: datetime, levels: int) -> Any:
    every = max(timedelta(milliseconds=100), (end - start) / _MAX_COLUMNS)
    table = vault.books(exchange, symbol, start, end, every, levels).read_all()
    if table.num_rows == 0 or not any(table["bid_prices"].to_pylist()):
        raise ArchiveError(f"{exchange} {symbol}: no book between {start:%Y-%m-%d %H:%M:%S} and {end:%H:%M:%S} UTC")
    return table


def spread(vault: Vault, exchange: str, symbol: str, start: datetime, end: datetime) -> tuple[Figure, str]:
    """Mid price and relative spread through time."""
    table = _sampled(vault, exchange, symbol, start, end, 1)
    times = [moment.as_py() for moment in table["time"]]
    bids = np.array([prices[0] if prices else np.nan for prices in table["bid_prices"].to_pylist()])
    asks = np.array([prices[0] if prices else np.nan for prices in table["ask_prices"].to_pylist()])
    mid = (bids + asks) / 2
    title = f"{exchange} {symbol}: mid price and spread"
    figure = Figure(figsize=(11, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    upper.set_title(_readable(title), color=INK, pad=10)
    upper.plot(times, mid, color=INK, linewidth=1)
    upper.set_ylabel("mid price")
    upper.ticklabel_format(axis="y", useOffset=False, style="plain")
    lower.step(times, 100 * (asks - bids) / mid, where="post", color=ASK, linewidth=1)
    lower.set_ylabel("spread (%)")
    lower.set_ylim(bottom=0)
    for axes in (upper, lower):
        axes.grid(color=GRID, linewidth=0.6)
    _time_axis(lower)
    return figure, title


def heatmap(
    vault: Vault, exchange: str, symbol: str, start: datetime, end: datetime, levels: int = 200
) -> tuple[Figure, str]:
    """Liquidity by price and time: the size that rests in each price band, the best prices drawn over it."""
    table = _sampled(vault, exchange, symbol, start, end, levels)
    times = [moment.as_py() for moment in table["time"]]
    sides = [(table[f"{side}_prices"].to_pylist(), table[f"{side}_sizes"].to_pylist()) for side in ("bid", "ask")]
    seen = np.concatenate([np.asarray(prices) for all_prices, _ in sides for prices in all_prices if prices])
    low, high = np.quantile(seen, (0.02, 0.98))
    edges = np.linspace(low, high, _PRICE_BINS + 1)
    grid = np.zeros((_PRICE_BINS, len(times)))
    for all_prices, all_sizes in sides:
        for column, (prices, sizes) in enumerate(zip(all_prices, all_sizes, strict=True)):
            if prices:
                grid[:, column] += np.histogram(prices, edges, weights=sizes)[0]
    title = f"{exchange} {symbol}: liquidity"
    figure, axes = _figure(title, height=6.5)
    colours = mpl.colormaps["cividis"].with_extremes(bad="#0b1a33")
    shown = np.ma.masked_equal(grid, 0)
    smallest = float(np.quantile(grid[grid > 0], 0.05)) if (grid > 0).any() else 1.0
    image = axes.pcolormesh(
        mdates.date2num(times), (edges[:-1] + edges[1:]) / 2, shown, cmap=colours, shading="nearest",
        norm=LogNorm(smallest, max(float(grid.max()), smallest * 10)), rasterized=True,
    )  # fmt: skip
    for (all_prices, _), colour, name in zip(sides, ("#7be0b5", "#ff9b8f"), ("best bid", "best ask"), strict=True):
        best = [prices[0] if prices else np.nan for prices in all_prices]
        axes.step(times, best, where="post", color=colour, linewidth=1, label=name)
    axes.set_ylim(low, high)
    axes.set_ylabel("price")
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)
    _time_axis(axes)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    bar.set_label(f"resting size (base units) a band of {edges[1] - edges[0]:,.4g}")
    return figure, title
