"""The report in a few lines, for chat."""

from __future__ import annotations

from depthvault.report.day import Day
from depthvault.report.outages import outages
from depthvault.report.words import lasting, number, percent, size

_SHOWN = 5

VERDICTS = {
    "complete": "complete",
    "degraded": "recorded, with faults that are declared",
    "pending": "recorded, and not all of it judged",
    "incomplete": "periods are missing",
    "empty": "nothing was archived",
}


def title(day: Day) -> str:
    """The subject: `2026-11-20: complete, 99.98 % covered`."""
    so_far = "" if day.is_over else " (so far)"
    return f"{day.date}{so_far}: {VERDICTS[day.verdict]}"


def text_report(day: Day) -> str:
    """Plain text, without the title."""
    waiting = f", {day.pending} not judged" if day.pending else ""
    lines = [
        f"{day.archived} of {day.expected} periods archived, {day.degraded} degraded{waiting}, {day.missing} missing"
    ]
    for one in day.channels:
        line = f"• {one.exchange} {one.channel}: {number(one.rows)} rows, {len(one.symbols)} symbols"
        if one.share is not None:
            line += f", {percent(one.share)} covered"
        if one.open_gaps:
            line += f", {one.open_gaps} gaps"
        if one.archived < one.expected:
            line += f", {one.expected - one.archived} periods missing"
        lines.append(line)
    if day.gaps:
        found = outages(day.gaps)
        lines.append(f"Gaps that nothing closed: {len(day.gaps)}")
        for outage in found[:_SHOWN]:
            lasted = "" if outage.seconds is None else f", {outage.seconds:.1f} s"
            what = outage.symbols[0] if len(outage.symbols) == 1 else f"{len(outage.symbols)} symbols"
            lines.append(f"  {outage.exchange} {outage.channel} {what}: {outage.cause}, {outage.status}{lasted}")
        if len(found) > _SHOWN:
            lines.append(f"  and {len(found) - _SHOWN} more")
    lines.append(store_line(day))
    lines.append(f"Disk: {size(day.disk.free)} free, {size(day.disk.a_day)} a day, {lasting(day.disk.days_left)} left")
    lines.append(f"Chain: manifest {day.number}, {(day.head or 'no head')[:16]}")
    return "\n".join(lines)


def store_line(day: Day) -> str:
    """What the object store holds of the archive."""
    if not day.store:
        return "Object store: none is configured, so nothing local is ever deleted"
    return f"Object store: holds all {day.archived} archived periods (each was read back before it was published)"
