"""What the archive declares missing, and whether it is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
EDGE_US = 100_000
"""A connection's end and beginning are rows of their own, written a moment after the frames around them."""


@dataclass(slots=True)
class GapRow:
    """A row of `gaps`. Ids are None where times alone are told (µs). own: each writer's own hole within it."""

    instance: str
    last_id: int | None
    first_id: int | None
    start_us: int
    end_us: int
    cause: str
    status: str
    own: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        ids = "" if self.last_id is None else f" ids {self.last_id}..{self.first_id}"
        return f"{self.status} {self.cause} {self.instance or '-'}{ids} µs {self.start_us}..{self.end_us}"


def gap_rows(table: pa.Table) -> dict[str, list[GapRow]]:
    """The rows of a `gaps` table by symbol."""
    found: dict[str, list[GapRow]] = {}
    for row in table.to_pylist():
        detail: dict[str, Any] = json.loads(row["detail"])
        own = {name: (hole["last_id"], hole["first_id"]) for name, hole in detail.get("writers", {}).items()}
        found.setdefault(row["symbol"], []).append(
            GapRow(
                row["instance"], row["last_id"], row["first_id"], _us(row["start_time"]), _us(row["end_time"]),
                row["cause"], row["status"], own,
            )
        )  # fmt: skip
    return found


def _us(moment: Any) -> int:
    return 0 if moment is None else round(moment.timestamp() * 1_000_000)


def within(ids: Ints, last_id: int, first_id: int, shut: bool) -> Bools:
    """Which ids lie in a hole after `last_id`; `shut` tells whether the hole's `first_id` is missing too."""
    inside: Bools = (ids > last_id) & (ids <= first_id if shut else ids < first_id)
    return inside


@dataclass(frozen=True, slots=True)
class Chain:
    """One symbol's generated ids in order, and who holds each: a column of `writers` for each writer."""

    ids: Ints
    anybody: Bools
    writers: dict[str, Bools]
    shut: bool

    def _holes(self, rows: Iterable[tuple[int, int]]) -> Bools:
        covered = np.zeros(self.ids.size, np.bool_)
        for last_id, first_id in rows:
            covered |= within(self.ids, last_id, first_id, self.shut)
        return covered

    @staticmethod
    def missing(mask: Bools) -> Bools:
        """What is not held between the first and the last that is."""
        places = np.flatnonzero(mask)
        result = ~mask
        if not places.size:
            return np.zeros(mask.size, np.bool_)
        result[: places[0]] = False
        result[places[-1] :] = False
        return result

    def undeclared(self, rows: list[GapRow]) -> Ints:
        """Ids that nobody holds and that no row declares."""
        whole = [(row.last_id, row.first_id) for row in rows if not row.instance]
        ids: Ints = self.ids[self.missing(self.anybody) & ~self._holes(whole)]  # type: ignore[arg-type]
        return ids

    def unbridged(self, rows: list[GapRow]) -> list[tuple[str, int]]:
        """Ids that a writer lacks and for which neither a row of its own nor one of all speaks."""
        found = []
        for name, mask in self.writers.items():
            own = [(row.last_id, row.first_id) for row in rows if row.instance in ("", name)]
            own += [row.own[name] for row in rows if name in row.own]
            left = self.missing(mask) & ~self._holes(own)  # type: ignore[arg-type]
            found += [(name, int(value)) for value in self.ids[left]]
        return found

    def false(self, rows: list[GapRow]) -> list[GapRow]:
        """Rows that declare what is no hole: an id in them is held, or none in them is missing.

        Of a bridged hole the others must have all but what is declared lost by a row of its own (in another period when
        the writer's hole went on across its end).
        """
        found = []
        lost = self._holes([(row.last_id, row.first_id) for row in rows if not row.instance])  # type: ignore[misc]
        there = self.anybody | lost
        for row in rows:
            assert row.last_id is not None
            assert row.first_id is not None
            inside = within(self.ids, row.last_id, row.first_id, self.shut)
            mask = self.writers.get(row.instance, self.anybody) if row.instance else self.anybody
            is_hole = inside.any() and not mask[inside].any()
            if not is_hole or (row.status == "bridged" and not there[inside].all()):
                found.append(row)
        return found


@dataclass(frozen=True, slots=True)
class Times:
    """One symbol's generated rows in order, with the receipts (µs) of those that are held; 0 where not."""

    first_us: Ints
    last_us: Ints

    def undeclared(self, rows: list[GapRow]) -> Ints:
        """Places of rows that nobody holds, where no declared time lies between their neighbours' receipts."""
        missing = np.flatnonzero(Chain.missing(self.first_us > 0))
        places = np.flatnonzero(self.first_us > 0)
        left = []
        for place in missing:
            after = int(np.searchsorted(places, place))
            start, end = self.first_us[places[after - 1]], self.last_us[places[after]]
            if not any(row.start_us <= end and row.end_us >= start for row in rows):
                left.append(int(place))
        return np.array(left, np.int64)

    @staticmethod
    def false(rows: list[GapRow], received_us: Ints) -> list[GapRow]:
        """Declared times in which something was received all the same."""
        return [
            row for row in rows if ((received_us > row.start_us + EDGE_US) & (received_us < row.end_us - EDGE_US)).any()
        ]
