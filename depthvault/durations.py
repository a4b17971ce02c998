"""Durations as people write them: `250ms`, `90s`, `15m`, `12h`, `7d`, or a bare number of a default unit."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*")


def parse_duration(text: str | float | timedelta, unit: str = "s") -> timedelta:
    """The duration that `text` says; a bare number counts in `unit`.

    Raises ValueError naming the text when it is no duration.
    """
    if isinstance(text, timedelta):
        return text
    match = _TEXT.fullmatch(str(text))
    if match is None:
        raise ValueError(f"not a duration: {text!r} (write 250ms, 90s, 15m, 12h or 7d)")
    return timedelta(seconds=float(match[1]) * _UNITS[match[2] or unit])


def format_duration(value: timedelta) -> str:
    """The shortest spelling that `parse_duration` reads back as the same value."""
    seconds = value.total_seconds()
    for unit in ("d", "h", "m", "s"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
]
"""A pydantic field that takes `90s`, `12h` and the like; a bare number is seconds."""
