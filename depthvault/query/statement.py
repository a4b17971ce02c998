"""One statement from somebody whom we do not trust: read-only, on the archive's own files, nothing else."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import IO, Any, Literal, get_args

import duckdb
from rich.console import Console

from depthvault.errors import ArchiveError, UsageError
from depthvault.query import render
from depthvault.query.catalog import Catalog

Format = Literal["table", "csv", "json"]

_BATCH = 2000
_READS = re.compile(
    r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*|\()*"
    r"(select|from|with|values|describe|desc|show|summarize|explain|pivot|unpivot|table)\b",
    re.IGNORECASE | re.DOTALL,
)


def check(sql: str) -> str:
    """`sql` without a closing semicolon, when it is one statement that only reads. UsageError otherwise."""
    text = sql.strip().rstrip(";").strip()
    if not text:
        raise UsageError("no statement: write one SELECT")
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        raise UsageError(one_line(error)) from error
    # A PIVOT becomes two: one that creates a type of the distinct values, then the SELECT.
    if "pivot" in text.lower() and len(statements) == 2 and statements[0].type == duckdb.StatementType.CREATE:
        statements = statements[1:]
    if len(statements) != 1:
        raise UsageError(f"one statement at a time, these are {len(statements)}")
    kind = statements[0].type
    allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    if kind not in allowed or _READS.match(text) is None:
        raise UsageError(f"only reading is allowed (SELECT, FROM, WITH, DESCRIBE, …), this is {_name(kind, text)}")
    return text


def _name(kind: duckdb.StatementType, text: str) -> str:
    word = text.split(maxsplit=1)[0].upper()
    return word if word.isalpha() else str(kind).rsplit(".", maxsplit=1)[-1]


def one_line(error: duckdb.Error) -> str:
    """DuckDB's message without its drawing of the statement: what is wrong, and what it suggests."""
    message = (
        str(error)
        .split("\n\nLINE ", maxsplit=1)[0]
        .removeprefix("Permission Error: ")
        .split("\n\nStack Trace", maxsplit=1)[0]
    )
    return re.sub(r"\s+", " ", message).strip()


def execute(catalog: Catalog, sql: str) -> duckdb.DuckDBPyConnection:
    """Run one reading statement in a locked database; the connection holds the result, to be fetched.

    Raises UsageError for whatever is wrong with the statement, in one line, ArchiveError when files cannot be read.
    """
    text = check(sql)
    try:
        connection = catalog.connect(text, locked=True)
        connection.execute(text)
    except duckdb.PermissionException as error:
        raise UsageError(f"the archive's own tables alone can be read: {one_line(error)}") from error
    except (duckdb.IOException, duckdb.HTTPException) as error:
        raise ArchiveError(one_line(error)) from error
    except duckdb.Error as error:
        raise UsageError(one_line(error)) from error
    return connection


def _rows(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while batch := connection.fetchmany(_BATCH):
        yield from batch


def run(
    catalog: Catalog,
    sql: str,
    format: Format = "table",
    *,
    out: IO[str] | None = None,
    console: Console | None = None,
    limit: int = 100,
) -> int:
    """Answer `sql` on `out` (default: standard output). `limit` bounds the rows of a table; csv and json have all.

    Returns the number of rows written. Errors as `execute`.
    """
    if format not in get_args(Format):
        raise UsageError(f"no format {format!r}: write table, csv or json")
    stream = out if out is not None else sys.stdout
    with execute(catalog, sql) as connection:
        described = connection.description or []
        names = [str(column[0]) for column in described]
        types = [str(column[1]) for column in described]
        try:
            if format == "csv":
                return render.write_csv(names, _rows(connection), stream)
            if format == "json":
                return render.write_json(names, _rows(connection), stream)
            if names == ["explain_key", "explain_value"]:
                return sum(stream.write(f"{row[1]}\n") > 0 for row in _rows(connection))
            return render.write_table(names, types, _rows(connection), console or Console(file=stream), limit)
        except duckdb.Error as error:
            raise UsageError(one_line(error)) from error
