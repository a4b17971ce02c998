"""A query's answer as people read it: aligned numbers, times to the millisecond, long lists shortened."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_LIST_SHOWN = 3


def cell(value: Any) -> str:
    """One value for a table. Times are UTC to the millisecond; lists show their first items and their length."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        utc = value.astimezone(UTC) if value.tzinfo is not None else value
        return utc.strftime("%Y-%m-%d %H:%M:%S.") + f"{utc.microsecond // 1000:03d}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Decimal):
        return f"{value:f}".rstrip("0").rstrip(".") if "." in f"{value:f}" else f"{value:f}"
    if isinstance(value, list | tuple):
        shown = ", ".join(cell(item) for item in value[:_LIST_SHOWN])
        return f"[{shown}]" if len(value) <= _LIST_SHOWN else f"[{shown}, … {len(value)}]"
    if isinstance(value, dict):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def number(value: float) -> str:
    """A double in the shortest decimal spelling that reads back as the same double, without an exponent if readable."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    text = repr(value)
    return format(Decimal(text), "f") if "e" in text and 1e-12 < abs(value) < 1e15 else text


def _plain(value: Any) -> Any:
    """A value for CSV and JSON: nothing rounded, times in ISO 8601 with microseconds, decimals as text."""
    if isinstance(value, datetime):
        utc = value.astimezone(UTC) if value.tzinfo is not None else value
        return utc.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, date | Decimal | timedelta):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    return value


def write_csv(names: Sequence[str], rows: Iterable[Sequence[Any]], out: IO[str]) -> int:
    """Write CSV with a header; lists are JSON, nulls are empty. Returns the number of rows."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    count = 0
    for row in rows:
        plain = [_plain(value) for value in row]
        writer.writerow([json.dumps(value) if isinstance(value, list | dict) else value for value in plain])
        count += 1
    return count


def write_json(names: Sequence[str], rows: Iterable[Sequence[Any]], out: IO[str]) -> int:
    """Write one JSON object a line. Returns the number of rows."""
    count = 0
    for row in rows:
        record = {name: _plain(value) for name, value in zip(names, row, strict=True)}
        out.write(json.dumps(record, ensure_ascii=False) + "\n")
        count += 1
    return count


def write_table(
    names: Sequence[str], types: Sequence[str], rows: Iterator[Sequence[Any]], console: Console, limit: int
) -> int:
    """Print at most `limit` rows and say so when there are more. Returns the number of rows shown."""
    shown: list[Sequence[Any]] = []
    more = False
    for row in rows:
        if len(shown) == limit:
            more = True
            break
        shown.append(row)
    right = [_is_number(kind) for kind in types]
    texts = [[cell(value) for value in row] for row in shown]
    if _width(names, texts) > console.width and len(names) > 2:
        _print_records(names, texts, console)
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name, is_number in zip(names, right, strict=True):
            table.add_column(Text(name), justify="right" if is_number else "left", overflow="fold")
        for texts_of_row in texts:
            table.add_row(*(Text(text) for text in texts_of_row))
        console.print(table)
    count = f"{len(shown):,} row{'' if len(shown) == 1 else 's'}"
    notice = f"the first {count}; there are more (--limit, or --format csv for all)" if more else count
    console.print(Text(notice, style="dim"))
    return len(shown)


def _is_number(kind: str) -> bool:
    return kind.split("(")[0] in {
        "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
        "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL",
    }  # fmt: skip


def _width(names: Sequence[str], texts: Sequence[Sequence[str]]) -> int:
    widths = [max(len(name), *(len(row[i]) for row in texts)) if texts else len(name) for i, name in enumerate(names)]
    return sum(widths) + 2 * len(widths)


def _print_records(names: Sequence[str], texts: Sequence[Sequence[str]], console: Console) -> None:
    """Rows that are wider than the terminal, one column a line, as psql's expanded display does."""
    label = max(map(len, names))
    for position, row in enumerate(texts, 1):
        console.print(Text(f"── {position} ".ljust(min(console.width, 40), "─"), style="dim"))
        for name, text in zip(names, row, strict=True):
            line = Text(f"{name:<{label}}  ", style="bold")
            line.append(Text(text, style="default not bold"))
            console.print(line, soft_wrap=False, overflow="fold")
