"""Texts of numbers and times, read exactly."""

from __future__ import annotations

import re
from decimal import Context, Decimal

from depthvault.errors import MalformedFrameError

_UNSIGNED = re.compile(r"[0-9]+(?:\.[0-9]+)?").fullmatch
_SIGNED = re.compile(r"-?[0-9]+(?:\.[0-9]+)?").fullmatch

EXACT_DIGITS = 15
"""Every decimal text of so many significant digits survives the way to a double and back (IEEE 754, DBL_DIG)."""

_STEP = Decimal("1e-8")
_LIMIT = Decimal("1e30")
_WIDE = Context(prec=60)  # the default context rounds to 28 digits


def survives(text: str, value: float) -> bool:
    """Whether `value`, the double of `text`, prints as the same decimal."""
    return Decimal(repr(value)) == Decimal(text)


class Numbers:
    """Reads decimal texts and counts those whose double is not the text (`inexact`)."""

    __slots__ = ("inexact",)

    def __init__(self) -> None:
        self.inexact = 0

    def unsigned(self, text: str) -> float:
        """The double of a price or size. Raises MalformedFrameError for anything but digits and one point."""
        if _UNSIGNED(text) is None:
            raise MalformedFrameError(f"not a price or size: {text[:40]!r}")
        return self._float(text)

    def signed(self, text: str) -> float:
        """The double of a rate, which may be negative. Raises MalformedFrameError."""
        if _SIGNED(text) is None:
            raise MalformedFrameError(f"not a number: {text[:40]!r}")
        return self._float(text)

    def optional(self, text: str | None) -> float | None:
        """The double of `text`; None for an empty or absent one, which is how venues say that there is none."""
        return self.signed(text) if text else None

    def volume(self, text: str) -> Decimal:
        """`text` with 8 decimals, as `decimal(38,8)` keeps it; what does not fit exactly is counted as inexact."""
        if _SIGNED(text) is None:
            raise MalformedFrameError(f"not a number: {text[:40]!r}")
        value = Decimal(text)
        if value.copy_abs() >= _LIMIT:
            raise MalformedFrameError(f"too large for decimal(38,8): {text[:40]!r}")
        kept = value.quantize(_STEP, context=_WIDE)
        self.inexact += kept != value
        return kept

    def percent(self, text: str) -> float:
        """The fraction that a percentage means: `-0.0012` (percent) is -0.000012, by decimal arithmetic."""
        if _SIGNED(text) is None:
            raise MalformedFrameError(f"not a number: {text[:40]!r}")
        fraction = Decimal(text).scaleb(-2, context=_WIDE)
        value = float(fraction)
        self.inexact += Decimal(repr(value)) != fraction
        return value

    def _float(self, text: str) -> float:
        value = float(text)
        # Short texts cannot hold more digits than survive; only long ones are worth the decimal comparison.
        if len(text) > EXACT_DIGITS and not survives(text, value):
            self.inexact += 1
        return value


def micros(value: int) -> int:
    """Microseconds since the epoch of a venue time in ms (13 digits) or µs (16 digits).

    The unit follows from the digits, never from what was asked for. Raises MalformedFrameError for other lengths:
    such a value would put the row into a wrong century.
    """
    if 10**12 <= value < 10**13:
        return value * 1000
    if 10**15 <= value < 10**16:
        return value
    raise MalformedFrameError(f"no time in ms or µs: {value}")


def optional_micros(value: int | None) -> int | None:
    """As `micros`; None for 0 and for an absent value."""
    return micros(value) if value else None
