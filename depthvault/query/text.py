"""Values as SQL text, and times as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

from depthvault.errors import UsageError

Moment = datetime | str
"""A time: an aware datetime, or ISO 8601 text. Without an offset it is UTC."""


def quote(text: str) -> str:
    """`text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def literal(value: datetime) -> str:
    """An aware time as an SQL constant, exact to the microsecond."""
    return f"TIMESTAMPTZ '{value.astimezone(UTC).isoformat(sep=' ', timespec='microseconds')}'"


def moment(value: Moment) -> datetime:
    """`value` as an aware UTC time. UsageError naming a text that is none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise UsageError(f"not a time: {value!r} (write 2026-11-20T04:00 or 2026-11-20T04:00:00.5Z)") from error
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
