"""The report as one page without any other file: styles inside, no scripts, no addresses. Mail programs show it too."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from html import escape

from depthvault.durations import format_duration
from depthvault.report.day import Cell, ChannelDay, Day
from depthvault.report.outages import Outage, outages
from depthvault.report.text import VERDICTS, store_line
from depthvault.report.words import clock, lasting, number, percent, size

_GAPS_SHOWN = 40
_SYMBOLS_SHOWN = 6
_WORST_SHOWN = 12

STYLE = """
:root{color-scheme:light}
body{margin:0;background:#f4f5f7;color:#1c2430;font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1040px;margin:0 auto;padding:28px 20px 40px}
h1{font-size:26px;line-height:1.2;margin:0}h2{font-size:16px;margin:34px 0 10px}
p{margin:6px 0}.quiet{color:#667085}
.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:12px}
.badge{display:inline-block;padding:2px 12px;border-radius:12px;font-size:13px;font-weight:600;
vertical-align:4px;margin-left:10px}
.complete{background:#d5f0de;color:#14532d}.degraded,.pending{background:#fdeccd;color:#7a4100}
.incomplete,.empty{background:#fbd9d5;color:#8c1d12}
.cards{width:calc(100% + 20px);border-collapse:separate;border-spacing:10px 0;margin:20px -10px 0;table-layout:fixed}
.cards td{background:#fff;border:1px solid #e3e6eb;border-radius:10px;padding:12px 14px;vertical-align:top}
.cards b{display:block;font-size:21px;line-height:1.3;font-weight:650;white-space:nowrap}
.box{background:#fff;border:1px solid #e3e6eb;border-radius:10px;padding:4px 14px 8px;overflow-x:auto}
.list{width:100%;border-collapse:collapse;font-variant-numeric:tabular-nums}
.list th{font-size:12px;font-weight:600;color:#667085;text-align:left;padding:8px 10px 6px 0;white-space:nowrap}
.list td{padding:5px 10px 5px 0;border-top:1px solid #eef0f3;white-space:nowrap}
.list .r{text-align:right}.list .wide{white-space:normal}.list tr.first td{border-top:1px solid #cfd4dc}
.heat{width:100%;border-collapse:separate;border-spacing:2px;table-layout:fixed;font-size:11px}
.heat th{font-weight:500;color:#667085;text-align:center;padding:4px 0}
.heat td.name,.heat th.name{width:236px;text-align:left;font-size:13px;white-space:nowrap;color:#1c2430}
.heat td.c{height:22px;border-radius:3px;text-align:center;color:#1c2430}
.heat .off{background:#eef0f3}.heat .full{background:#9fd8b3}.heat .good{background:#cbe9b4}
.heat .fair{background:#f7dc9b}.heat .poor{background:#f3b587}.heat .missing{background:#dd6b5e;color:#fff}
.heat .marked{box-shadow:inset 0 0 0 1.5px #a15c07}
.key span{display:inline-block;padding:0 8px;border-radius:3px;margin-right:8px;font-size:12px}
nav{margin:0 0 18px;font-size:13px}nav a{color:#1f5fbf;text-decoration:none;margin-right:14px}
a{color:#1f5fbf}
.bad{color:#a3271b;font-weight:600}.good-news{color:#1c6b3c}
"""


def page(title: str, body: str) -> str:
    """A whole page around `body`."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def channel_name(one: ChannelDay) -> str:
    """How a channel is named in the heat table (HTML)."""
    return f'<span class="quiet">{escape(one.exchange)}</span> {escape(one.channel)}'


def html_report(day: Day, before: str = "", name: Callable[[ChannelDay], str] = channel_name) -> str:
    """The whole page. `before`: HTML above the heading; `name`: HTML that names a channel in the heat table."""
    so_far = "" if day.is_over else ' <span class="quiet">so far</span>'
    head = (
        f'<h1>{day.date:%A, %-d %B %Y}{so_far}<span class="badge {day.verdict}">{day.verdict}</span></h1>'
        f'<p class="quiet">Depthvault, daily report. All times are UTC; made {day.made:%Y-%m-%d %H:%M:%S}. '
        f"Archive period {format_duration(day.period)}. {VERDICTS[day.verdict].capitalize()}.</p>"
    )
    body = "".join(
        (head, _cards(day), _heat(day, name), _channels(day), _gaps(day), _failures(day), _worst(day), _storage(day))
    )
    return page(f"Depthvault {day.date}", before + body)


def _cards(day: Day) -> str:
    cards = (
        (f"{number(day.archived)} / {number(day.expected)}", "channel periods archived"),
        (number(day.rows), "rows"),
        (number(day.open_gaps), "gaps that nothing closed"),
        (size(day.bytes), "in the archive for this day"),
        (lasting(day.disk.days_left), "of disk left at this rate"),
    )
    cells = "".join(f'<td><b>{escape(value)}</b><span class="quiet">{label}</span></td>' for value, label in cards)
    return f'<table class="cards" role="presentation"><tr>{cells}</tr></table>'


def _tone(cell: Cell) -> str:
    if cell.condition == "missing":
        return "missing"
    if not cell.archived:
        return "off"
    share = cell.share
    if share is None:
        return "full"
    tone = "full" if share >= 0.999 else "good" if share >= 0.99 else "fair" if share >= 0.9 else "poor"
    return f"{tone} marked" if cell.condition == "degraded" else tone


def _heat(day: Day, name: Callable[[ChannelDay], str]) -> str:
    if not day.channels:
        return ""
    return f"<h2>Coverage by hour</h2>{heat_table((name(one), one.hours) for one in day.channels)}"


def heat_table(rows: Iterable[tuple[str, Sequence[Cell]]]) -> str:
    """A row of 24 hours for each label (HTML), with the key to the colours."""
    hours = "".join(f"<th>{hour:02d}</th>" for hour in range(24))
    lines = "".join(
        f'<tr><td class="name">{label}</td>{"".join(map(_heat_cell, cells, range(24)))}</tr>' for label, cells in rows
    )
    key = (
        '<p class="key quiet heat"><span class="full">whole</span><span class="good">≥ 99 %</span>'
        '<span class="fair">≥ 90 %</span><span class="poor">less</span><span class="missing">missing</span>'
        '<span class="off">not expected</span><span class="marked">degraded</span></p>'
    )
    return f'<div class="box"><table class="heat"><tr><th class="name"></th>{hours}</tr>{lines}</table>{key}</div>'


def _heat_cell(cell: Cell, hour: int) -> str:
    said = f"{hour:02d}:00, {cell.archived} of {cell.expected} periods"
    if cell.share is not None:
        said += f", {percent(cell.share)} covered"
    if cell.degraded:
        said += f", {cell.degraded} degraded"
    if cell.pending:
        said += f", {cell.pending} not judged"
    shown = ""
    if cell.condition == "missing":
        shown = str(cell.expected - cell.archived)
    elif cell.share is not None and cell.share < 0.99:
        shown = f"{int(cell.share * 100)}"
    return f'<td class="c {_tone(cell)}" title="{said}">{shown}</td>'


def _table(header: Iterable[tuple[str, bool]], rows: Iterable[str]) -> str:
    columns = "".join(f"<th{' class=r' if right else ''}>{name}</th>" for name, right in header)
    return f'<div class="box"><table class="list"><tr>{columns}</tr>{"".join(rows)}</table></div>'


def _channels(day: Day) -> str:
    if not day.channels:
        return ""
    header = (
        ("venue", False), ("channel", False), ("symbols", True), ("rows", True), ("covered", True), ("periods", True),
        ("degraded", True), ("open gaps", True), ("bridged", True), ("doubles", True), ("bytes", True),
    )  # fmt: skip
    rows, before = [], ""
    for one in day.channels:
        first = ' class="first"' if before and one.exchange != before else ""
        venue = escape(one.exchange) if one.exchange != before else ""
        before = one.exchange
        missing = one.archived < one.expected
        bridged = one.gaps["bridged"] + one.gaps["refilled"]
        rows.append(
            f"<tr{first}><td>{venue}</td><td>{escape(one.channel)}</td>"
            f"<td class=r>{number(len(one.symbols))}</td><td class=r>{number(one.rows)}</td>"
            f"<td class=r>{percent(one.share)}</td>"
            f'<td class="r{" bad" if missing else ""}">{one.archived} / {one.expected}</td>'
            f"<td class=r>{one.degraded or '–'}</td>"
            f'<td class="r{" bad" if one.open_gaps else ""}">{one.open_gaps or "–"}</td>'
            f"<td class=r>{bridged or '–'}</td>"
            f"<td class=r>{number(one.duplicates) if one.duplicates else '–'}</td>"
            f"<td class=r>{size(one.bytes)}</td></tr>"
        )
    return f"<h2>Channels</h2>{_table(header, rows)}"


def _gaps(day: Day) -> str:
    if not day.gaps:
        return '<h2>Gaps</h2><p class="good-news">No chain is broken: between what was recorded nothing is missing.</p>'
    header = (
        ("venue", False), ("channel", False), ("symbols", False), ("from", True), ("to", True), ("seconds", True),
        ("cause", False), ("status", False),
    )  # fmt: skip
    found = outages(day.gaps)
    more = len(found) - _GAPS_SHOWN
    note = f"{number(len(day.gaps))} rows of the table gaps"
    if more > 0:
        note += f"; the {_GAPS_SHOWN} longest are shown, {number(more)} more are not"
    return (
        f"<h2>Gaps that nothing closed</h2>{_table(header, map(_outage, found[:_GAPS_SHOWN]))}"
        f'<p class="quiet">{note}.</p>'
    )


def _outage(one: Outage) -> str:
    shown = ", ".join(one.symbols[:_SYMBOLS_SHOWN])
    if len(one.symbols) > _SYMBOLS_SHOWN:
        shown += f" and {len(one.symbols) - _SYMBOLS_SHOWN} more"
    ids = ""
    if len(one.gaps) == 1 and one.gaps[0]["last_id"] is not None:
        ids = f'<br><span class="mono quiet">ids {one.gaps[0]["last_id"]} … {one.gaps[0]["first_id"]}</span>'
    seconds = "–" if one.seconds is None else f"{one.seconds:.3f}"
    return (
        f"<tr><td>{escape(one.exchange)}</td><td>{escape(one.channel)}</td><td class=wide>{escape(shown)}{ids}</td>"
        f"<td class=r>{clock(one.start)}</td><td class=r>{clock(one.end)}</td><td class=r>{seconds}</td>"
        f"<td>{escape(one.cause)}</td><td>{escape(one.status)}</td></tr>"
    )


def _failures(day: Day) -> str:
    if not day.failures:
        return ""
    groups: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for (meaning, exchange, channel), count in sorted(day.failures.items()):
        groups[meaning, exchange][channel] += count
    rows = (
        f"<tr><td class=wide>{escape(meaning)}</td><td>{escape(exchange)}</td>"
        f"<td class=wide>{escape(', '.join(channels))}</td><td class=r>{number(channels.total())}</td></tr>"
        for (meaning, exchange), channels in sorted(groups.items(), key=lambda item: -item[1].total())
    )
    header = (("what must hold", False), ("venue", False), ("channels where it did not", False), ("times", True))
    return f"<h2>Expectations that did not hold</h2>{_table(header, rows)}"


def _worst(day: Day) -> str:
    worst = sorted(
        (share, one.exchange, one.channel, symbol)
        for one in day.channels
        for share, symbol in one.worst
        if share < 0.999
    )
    if not worst:
        return ""
    rows = (
        f"<tr><td>{escape(exchange)}</td><td>{escape(channel)}</td><td>{escape(symbol)}</td>"
        f"<td class=r>{percent(share)}</td></tr>"
        for share, exchange, channel, symbol in worst[:_WORST_SHOWN]
    )
    header = (("venue", False), ("channel", False), ("symbol", False), ("covered", True))
    return f"<h2>Least covered</h2>{_table(header, rows)}"


def _storage(day: Day) -> str:
    disk = day.disk
    unread = (
        f"<p>{day.unread} quality files are in the object store alone and are not counted here.</p>"
        if day.unread
        else ""
    )
    head = f'<span class="mono">{day.head}</span>' if day.head else "none yet"
    return (
        "<h2>Storage and proof</h2>"
        f"<p>{escape(store_line(day))}.</p>{unread}"
        f"<p>Disk: {size(disk.free)} free of {size(disk.total)}; journals {size(disk.journal)}, "
        f"live {size(disk.live)}, archive {size(disk.archive)}; {size(disk.a_day)} a day.</p>"
        f"<p>Manifest {number(day.number)} is the chain's head, SHA-256 {head}. "
        "<span class=quiet><code>depthvault verify</code> checks every byte against it.</span></p>"
    )
