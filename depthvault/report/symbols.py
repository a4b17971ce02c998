"""One channel of a venue, symbol by symbol and hour by hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from html import escape

import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.archive.manifest import ArchiveState
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.report.day import Cell
from depthvault.report.html import heat_table, page
from depthvault.report.outages import WHOLE_MARKET
from depthvault.report.words import number, percent


@dataclass(slots=True)
class SymbolDay:
    """One symbol over a day. An hour is `degraded` where the symbol has gaps that nothing closed."""

    symbol: str
    hours: list[Cell]
    events: int = 0
    gaps: int = 0

    @property
    def share(self) -> float:
        """Mean share over the periods that have the symbol."""
        shares = [share for cell in self.hours for share in cell.shares]
        return sum(shares) / len(shares) if shares else 0.0


def symbols_of(layout: Layout, state: ArchiveState, exchange: str, channel: str, day: date) -> list[SymbolDay]:
    """The symbols of `channel` on `day` as the coverage table has them, the least covered first."""
    found: dict[str, SymbolDay] = {}
    for (kind, venue, name, label), entry in sorted(state.current.items()):
        if (kind, venue, name) != ("hour", exchange, channel):
            continue
        period = Period.parse(label, layout.period)
        if period.start.date() != day:
            continue
        for file in state.files_of(entry.unit):
            path = layout.archived(file.path)
            if file.table != "coverage" or not path.exists():
                continue
            table = pq.read_table(path, partitioning=None, columns=["channel", "symbol", "events", "gaps", "share"])
            for row in table.filter(pc.equal(table["channel"], channel)).to_pylist():
                one = found.setdefault(row["symbol"], SymbolDay(row["symbol"], [Cell() for _ in range(24)]))
                cell = one.hours[period.start.hour]
                cell.archived += 1
                cell.expected += 1
                cell.degraded += row["gaps"] > 0
                cell.shares.append(row["share"])
                one.events += row["events"]
                one.gaps += row["gaps"]
    return sorted(found.values(), key=lambda one: (one.share, one.symbol))


def symbols_page(exchange: str, channel: str, day: date, symbols: Sequence[SymbolDay], before: str = "") -> str:
    """A heat table of all `symbols`. `before`: HTML above the heading."""
    head = f"<h1>{escape(channel)}</h1><p class=quiet>{escape(exchange)}, {day:%A, %-d %B %Y}; times are UTC.</p>"
    if not symbols:
        return page("Depthvault", f"{before}{head}<p>Nothing of it is archived on this day.</p>")
    text = f"{number(sum(bool(one.symbol) for one in symbols))} symbols, the least covered first."
    return page(
        f"Depthvault {channel}", f"{before}{head}<p>{text}</p>{heat_table((_label(one), one.hours) for one in symbols)}"
    )


def _label(one: SymbolDay) -> str:
    said = f"{percent(one.share)}, {number(one.events)} rows"
    if one.gaps:
        said += f", {one.gaps} gaps"
    return f"{escape(one.symbol or WHOLE_MARKET)} <span class=quiet>{said}</span>"
