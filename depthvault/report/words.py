"""Numbers as people read them."""

from __future__ import annotations

from datetime import datetime


def size(count: float) -> str:
    """Bytes with a unit: `3.2 MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def number(count: int) -> str:
    """Digits in groups: `1 234 567`, with narrow no-break spaces."""
    return f"{count:,}".replace(",", "\u202f")


def percent(share: float | None) -> str:
    """A share that never rounds up to the whole: 0.99999 is `99.99 %`."""
    if share is None:
        return "–"
    if share >= 1:
        return "100 %"
    return f"{int(share * 10_000) / 100:.2f} %"


def clock(moment: datetime | None) -> str:
    """`12:03:04.123`."""
    return "–" if moment is None else moment.strftime("%H:%M:%S.%f")[:-3]


def lasting(days: float | None) -> str:
    """How long the disk lasts."""
    if days is None:
        return "nothing grows"
    if days > 3650:
        return "over 10 years"
    return f"{days:.0f} days" if days >= 10 else f"{days:.1f} days"
