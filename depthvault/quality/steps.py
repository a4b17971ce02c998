"""Gaps of channels whose completeness shows in time: candles, settlements, and answers on a cadence. Pure.

A candle follows the one before by its interval, a settlement by the funding interval. REST answers come at a cadence;
more than two and a half of it without one is a gap. Candles and settlements can be fetched again (`open`), a book or
an open interest that nobody asked for is `lost`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from depthvault.archive.manifest import Tail
from depthvault.archive.stitch import REFILL, Bools, Ints, codes, column
from depthvault.quality.sessions import EVIDENCE_AFTER_NS, Span
from depthvault.schemas import Channel

_UNITS_US = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000, "w": 604_800_000_000}
_INTERVAL = re.compile(r"(\d+)([smhdw])")
PATIENCE = 2.5
"""Cadences that may pass without an answer."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Missing steps between two neighbours: `last` and `next` are their times (µs) on the channel's own scale.

    start_us, end_us: their receipts. missing: how many steps are not there.
    """

    series: str
    last: int
    next: int
    start_us: int
    end_us: int
    missing: int
    status: str


def interval_us(text: str) -> int | None:
    """The length of a candle interval; None for calendar months, which have none."""
    match = _INTERVAL.fullmatch(text)
    return int(match[1]) * _UNITS_US[match[2]] if match else None


def skips(
    table: pa.Table,
    channel: Channel,
    tails: Mapping[str, Tail],
    cadence_us: int | None,
    listened: Sequence[Span] = (),
) -> tuple[list[Skip], dict[str, Tail]]:
    """What is missing in one symbol's rows (chain order), and the tails for the next period.

    tails: under `@<series>` where each series stood before, under `@~<series>` where it would stand without what was
    refilled, while that is behind. cadence_us: of REST channels. listened: when anybody did (disjoint, ascending): a
    candle that closed while nobody did is missing even when none was ever received before.
    """
    found: list[Skip] = []
    after = dict(tails)
    if not table.num_rows:
        return found, after
    received = codes(column(table, "received_time"))
    refilled = np.array(column(table, "source").to_pylist(), dtype=object) == REFILL
    for series, rows, times, steps, status in _series(table, channel, cadence_us):
        tail = tails.get(f"@{series}")
        if channel.name == "kline" and not any(name.startswith("@") for name in tails):
            tail = _before_the_first(int(times[0]), int(steps[0]), int(received[rows].min()), listened)
        whole = _missing(times, steps, received[rows], tail, series, status)
        found += whole
        behind, kept = tails.get(f"@~{series}"), ~refilled[rows]
        if behind is not None or not kept.all():
            before = behind or tail
            streamed = _missing(times[kept], steps[kept], received[rows][kept], before, series, "refilled")
            found += [
                one for one in streamed if not any(one.last < other.next and other.last < one.next for other in whole)
            ]
        last = int(np.argmax(times))
        if tail is None or tail.final_id is None or int(times[last]) > tail.final_id:
            after[f"@{series}"] = Tail(int(received[rows][last]), int(times[last]))
        after.pop(f"@~{series}", None)
        heard = behind or tail
        if kept.any():
            place = int(np.argmax(np.where(kept, times, np.iinfo(np.int64).min)))
            if heard is None or heard.final_id is None or int(times[place]) > heard.final_id:
                heard = Tail(int(received[rows][place]), int(times[place]))
        if heard is not None and heard.final_id != after[f"@{series}"].final_id:
            after[f"@~{series}"] = heard
    return found, after


def _before_the_first(opened: int, step: int, received: int, listened: Sequence[Span]) -> Tail | None:
    """Where a series of candles stood when listening began, if that was interrupted before its first candle came."""
    interrupted = [span for span in listened if span.end // 1000 < received]
    if not interrupted or interrupted[-1] == listened[-1]:
        return None
    began = (interrupted[0].start + EVIDENCE_AFTER_NS) // 1000
    # The last candle that had closed by then; those after it were to come.
    candles = max(1, -(-(opened + step - began) // step))
    return Tail(interrupted[0].end // 1000, opened - candles * step)


def _series(table: pa.Table, channel: Channel, cadence_us: int | None) -> list[tuple[str, Ints, Ints, Ints, str]]:
    """The time series of a table: name, row numbers, times, for each row the longest step to it, status of a hole."""
    rows = np.arange(table.num_rows)
    if channel.name == "kline":
        names = np.array(column(table, "interval").to_pylist(), dtype=object)
        opened = codes(column(table, "open_time"))
        result = []
        for name in sorted(set(names.tolist())):
            step = interval_us(name)
            if step is not None:
                own: Bools = names == name
                result.append((name, rows[own], opened[own], np.full(int(own.sum()), step), "open"))
        return result
    if channel.name == "funding_rate":
        hours = column(table, "interval_hours")
        known = ~hours.is_null().to_numpy(zero_copy_only=False)
        times = codes(column(table, "funding_time"))
        # A settlement is stamped some milliseconds after its hour.
        steps = codes(hours)[known] * _UNITS_US["h"] + 60_000_000
        return [("funding", rows[known], times[known], steps, "open")] if known.any() else []
    if cadence_us is None:
        return []
    times = codes(column(table, "received_time"))
    order = np.argsort(times, kind="stable")
    return [("cadence", rows[order], times[order], np.full(len(times), int(cadence_us * PATIENCE)), "lost")]


def _missing(times: Ints, steps: Ints, received: Ints, tail: Tail | None, series: str, status: str) -> list[Skip]:
    if not len(times):
        return []
    before = np.concatenate((times[:1] if tail is None or tail.final_id is None else [tail.final_id], times[:-1]))
    heard = np.concatenate((received[:1] if tail is None else [tail.received_us], received[:-1]))
    found = []
    for place in np.flatnonzero(times - before > steps):
        step, length = int(steps[place]), int(times[place] - before[place])
        missing = max(1, -(-length // step) - 1)
        found.append(
            Skip(
                series, int(before[place]), int(times[place]), int(heard[place]), int(received[place]), missing, status
            )
        )
    return found
