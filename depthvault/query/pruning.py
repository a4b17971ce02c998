"""Which tables a statement reads, and which of their files can hold rows that it wants.

DuckDB's own optimizer answers: the statement is planned over empty stand-ins of the tables, and the filters that it
pushed down to each scan are held against what the manifests say of each file. So a query over one hour of one symbol
opens the files of that hour alone, in a bucket too, without listing anything. What is not understood prunes nothing.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

Range = tuple[int, int]
"""Microseconds since the epoch, both ends included."""

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "COMPARE_EQUAL": operator.eq,
    "COMPARE_NOTEQUAL": operator.ne,
    "COMPARE_LESSTHAN": operator.lt,
    "COMPARE_LESSTHANOREQUALTO": operator.le,
    "COMPARE_GREATERTHAN": operator.gt,
    "COMPARE_GREATERTHANOREQUALTO": operator.ge,
}


_NEEDED = {
    "expression_rewriter", "filter_pullup", "filter_pushdown", "cte_filter_pusher", "regex_range", "in_clause",
    "cte_inlining", "deliminator", "empty_result_pullup",
}  # fmt: skip
# Others rewrite plans so that DuckDB 1.5.5 cannot serialise them, or would fold in what the empty stand-ins hold.


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Leave only those optimizers of `connection` on that move filters towards the scans."""
    names = [row[0] for row in connection.execute("SELECT name FROM duckdb_optimizers()").fetchall()]
    disabled = ",".join(name for name in names if name not in _NEEDED)
    connection.execute(f"SET disabled_optimizers = '{disabled}'")


@dataclass(frozen=True, slots=True)
class Scan:
    """One reading of a table: for each filtered column the filter as DuckDB's plan has it."""

    table: str
    filters: Mapping[str, dict[str, Any]]

    def admits(self, values: Mapping[str, frozenset[str] | Range]) -> bool:
        """Whether a file can hold a row that passes.

        `values`: for a column all the texts that the file's rows have in it, or the range of its times. Columns that
        are missing are not known of the file and exclude nothing.
        """
        return all(_may_hold(self.filters[column], value) for column, value in values.items() if column in self.filters)


def _compare(comparison: str, constant: Any, value: frozenset[str] | Range) -> bool:
    compare = _COMPARISONS.get(comparison)
    if compare is None:
        return True
    if isinstance(value, frozenset):
        return not isinstance(constant, str) or any(compare(text, constant) for text in value)
    if not isinstance(constant, int):
        return True
    low, high = value
    if comparison == "COMPARE_EQUAL":
        return low <= constant <= high
    if comparison == "COMPARE_NOTEQUAL":
        return True
    return compare(low, constant) if comparison.startswith("COMPARE_LESS") else compare(high, constant)


def _may_hold(condition: dict[str, Any], value: frozenset[str] | Range) -> bool:
    """Whether some value of the file can satisfy `condition`; True for whatever is not understood."""
    kind = condition.get("filter_type")
    if kind == "CONSTANT_COMPARISON":
        constant = condition["constant"]
        return bool(constant.get("is_null")) or _compare(condition["comparison_type"], constant.get("value"), value)
    if kind == "IN_FILTER":
        return any(
            constant.get("is_null") or _compare("COMPARE_EQUAL", constant.get("value"), value)
            for constant in condition["values"]
        )
    if kind == "CONJUNCTION_AND":
        return all(_may_hold(child, value) for child in condition["child_filters"])
    if kind == "CONJUNCTION_OR":
        return any(_may_hold(child, value) for child in condition["child_filters"])
    if kind == "OPTIONAL_FILTER" and isinstance(condition.get("child_filter"), dict):
        return _may_hold(condition["child_filter"], value)
    return True


def _scans(node: Any, found: list[Scan]) -> None:
    if isinstance(node, list):
        for child in node:
            _scans(child, found)
    elif isinstance(node, dict):
        function = node.get("function_data")
        if node.get("type") == "LOGICAL_GET" and isinstance(function, dict) and "table" in function:
            names = node["names"]
            filters = {names[entry["key"]]: entry["value"] for entry in node["table_filters"]["filters"]}
            found.append(Scan(function["table"], filters))
        for child in node.values():
            _scans(child, found)


def scans(connection: duckdb.DuckDBPyConnection, sql: str, tables: Sequence[str]) -> list[Scan]:
    """Every reading of one of `tables` that `sql` asks for. `connection`: prepared, with stand-ins of these names.

    Never too few: when DuckDB cannot serialise the optimized plan, the plain plan says which tables are read, and
    when that cannot be had either, all of them are.
    """
    for optimize in (True, False):
        row = connection.execute(f"SELECT json_serialize_plan(?, optimize := {optimize})", [sql]).fetchone()
        plan = json.loads(row[0]) if row is not None else {"error": True}
        if not plan.get("error"):
            found: list[Scan] = []
            _scans(plan["plans"], found)
            return [scan for scan in found if scan.table in tables]
    return [Scan(table, {}) for table in tables]
