"""Judging the files of one period: measure each, compare it with the ledger, run the suites. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.durable import sha256_file
from depthvault.exchanges import channel_of
from depthvault.period import Period
from depthvault.quality.expected import is_outside
from depthvault.schemas import CHANNELS, QUALITY, Channel
from expectations.candles import MOST_NAMED, Compared, Mismatch, TradeFiles, compare_candles
from expectations.checkpoint import judge
from expectations.continuity import Breaks, Predecessor, compare
from expectations.metrics import Metrics, connect, measure, schema_faults
from expectations.suites import DEFAULT_BOUNDS, FILE_RULES, Bounds, Rule, rules
from expectations.verdict import Check, Judgement

FILE = "file"
"""The suite over whole files."""

_CADENCE_TOLERANCE = 2.5
_BOOKS = ("depth_diff", "depth_snapshot")
_CLOSED = ("bridged", "refilled")
_MISSED = ("open", "lost")
_CADENCES = {"open_interest": timedelta(minutes=5)}


@dataclass(frozen=True, slots=True)
class Subject:
    """One channel's compacted file and what compaction wrote down of it.

    path: None when the channel brought no row. conflicts, rejected: rows with a known key and another payload; frames
    that could not be decoded. predecessors: by symbol where the chain stood before this period.
    """

    channel: str
    path: Path | None
    rows: int = 0
    sha256: str = ""
    symbols: tuple[str, ...] = ()
    conflicts: int = 0
    rejected: int = 0
    predecessors: Mapping[str, Predecessor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The `gaps`, `coverage` and `book_audit` rows of the venue and period.

    cadence: the published interval between two REST snapshots of a symbol; None: not judged. trades: what candles are
    compared with; None: they are not.
    """

    gaps: pa.Table = field(default_factory=QUALITY["gaps"].empty_table)
    coverage: pa.Table = field(default_factory=QUALITY["coverage"].empty_table)
    cadence: timedelta | None = None
    audits: pa.Table = field(default_factory=QUALITY["book_audit"].empty_table)
    trades: TradeFiles | None = None


def examine(
    exchange: str,
    period: Period,
    subjects: tuple[Subject, ...],
    ledger: Ledger,
    spill: Path | None = None,
    bounds: Bounds = DEFAULT_BOUNDS,
) -> Judgement:
    """Judge `subjects`. The same files give the same judgement.

    spill: a folder for what does not fit into DuckDB's memory; None: everything must fit.
    """
    frames: dict[str, tuple[Mapping[str, Metrics], tuple[Rule, ...]]] = {}
    whole: dict[str, Metrics] = {}
    refuted: list[Mismatch] = []
    with connect(spill=spill) as connection:
        for subject in subjects:
            channel, path = subject.channel, subject.path
            definition = channel_of(exchange, channel)
            faults = schema_faults(path, channel) if path is not None else []
            # A file without its columns cannot be measured: its faults are the finding.
            symbols = measure(connection, path, channel, period) if path is not None and not faults else {}
            whole[channel] = {"schema_faults": float(len(faults)), **_against_paper(subject, symbols)}
            if not faults:
                breaks: Breaks = {}
                if path is not None:
                    breaks = compare(connection, path, definition, ledger.gaps, subject.predecessors)
                _add_ledger(symbols, definition, ledger, breaks)
                _add_early(symbols)
                if channel == "kline" and path is not None and ledger.trades is not None:
                    refuted += _add_candles(symbols, compare_candles(connection, path, ledger.trades))
                frames[channel] = (symbols, rules(definition, bounds))
    judged = {
        name: (symbols, tuple(rule for rule in suite if not rule.warns))
        for name, (symbols, suite) in frames.items()
        if symbols
    }
    failures = judge({**judged, FILE: (whole, FILE_RULES)})
    checks = [
        check
        for channel, (symbols, suite) in frames.items()
        for check in _checks(channel, symbols, suite, failures.get(channel, set()))
    ]
    for channel, metrics in whole.items():
        failed = {("", metric) for name, metric in failures[FILE] if name == channel}
        checks += _checks(channel, {"": metrics}, FILE_RULES, failed)
    checks += [_evidence(mismatch) for mismatch in refuted[:MOST_NAMED]]
    checks.sort(key=lambda check: (check.channel, check.symbol, check.metric))
    return Judgement(exchange, period, tuple(subject.channel for subject in subjects), tuple(checks))


def _against_paper(subject: Subject, symbols: Mapping[str, Metrics]) -> Metrics:
    path = subject.path
    rows = pq.read_metadata(path).num_rows if path is not None else 0
    sha256 = sha256_file(path) if path is not None else ""
    return {
        "rows_difference": float(abs(rows - subject.rows)),
        "sha256_difference": float(sha256 != subject.sha256),
        "symbols_difference": float(len(set(subject.symbols) ^ set(symbols))),
        "conflicts": float(subject.conflicts),
        "rejected_frames": float(subject.rejected),
    }


def _add_ledger(symbols: dict[str, Metrics], definition: Channel, ledger: Ledger, breaks: Breaks) -> None:
    """Add to each symbol what the ledger says of it; symbols that only the ledger knows get a row of zeros."""
    channel = definition.name
    covered = {row["symbol"]: row for row in _of(ledger.coverage, channel)}
    missing: dict[str, int] = {}
    missed: dict[str, int] = {}
    for row in _of(ledger.gaps, channel):
        missing[row["symbol"]] = missing.get(row["symbol"], 0) + (row["status"] not in _CLOSED)
        missed[row["symbol"]] = missed.get(row["symbol"], 0) + (row["status"] in _MISSED)
    for symbol in sorted((covered.keys() | missing.keys()) - symbols.keys()):
        symbols[symbol] = _nothing(definition)
    for symbol, metrics in symbols.items():
        told = covered.get(symbol)
        metrics["share"] = float(told["share"]) if told else None
        outside = is_outside(told) if told else None
        metrics["events_outside_band"] = None if outside is None else float(outside)
        metrics["coverage_events_difference"] = abs((metrics["rows"] or 0.0) - (told["events"] if told else 0))
        found, undeclared, unfounded = breaks.get(symbol, (0.0, 0.0, 0.0))
        metrics["breaks"], metrics["breaks_undeclared"], metrics["gaps_unfounded"] = found, undeclared, unfounded
        metrics["gaps_open"] = float(missing.get(symbol, 0))
        if channel in _BOOKS:
            metrics |= _audited(ledger.audits, symbol)
        metrics["steps_missing"] = float(missed.get(symbol, 0))
        if channel in _CADENCES or channel == "depth_snapshot":
            largest = metrics.get("largest_interval_seconds") or 0.0
            cadence = _CADENCES.get(channel, ledger.cadence)
            limit = cadence.total_seconds() * _CADENCE_TOLERANCE if cadence else float("inf")
            metrics["cadence_exceeded"] = float(largest > limit)


def _add_early(symbols: Mapping[str, Metrics]) -> None:
    """How long before they were sent the earliest frames came: a bound to one side, where the lag has two."""
    for metrics in symbols.values():
        lag = metrics.get("lag_p01_ms")
        if lag is not None:
            metrics["lag_p01_early_ms"] = max(0.0, -lag)


def _add_candles(symbols: dict[str, Metrics], compared: Mapping[str, Compared]) -> list[Mismatch]:
    for symbol, outcome in compared.items():
        metrics = symbols.setdefault(symbol, _nothing(CHANNELS["kline"]))
        metrics |= {
            "candles_judged": float(outcome.judged),
            "candles_waiting": float(outcome.waiting),
            "candles_undecidable": float(outcome.undecidable),
            "candles_refuted": float(outcome.refuted),
        }
    return [mismatch for outcome in compared.values() for mismatch in outcome.mismatches]


def _evidence(mismatch: Mismatch) -> Check:
    metric = f"{mismatch.candle} {mismatch.figure}"
    return Check("kline", mismatch.symbol, metric, mismatch.difference, False, str(mismatch))


def _audited(audits: pa.Table, symbol: str) -> Metrics:
    """Levels that agreed and that did not, over all audits of `symbol` that cross no gap; None without any."""
    rows = [row for row in audits.filter(pc.equal(audits["symbol"], symbol)).to_pylist() if not row["gap_crossed"]]
    if not rows:
        return {"audit_matched": None, "audit_mismatched": None, "audit_undecidable": None}
    return {
        "audit_matched": float(sum(row["matched"] for row in rows)),
        "audit_mismatched": float(sum(row["missing"] + row["extra"] + row["different"] for row in rows)),
        "audit_undecidable": float(sum(row["undecidable"] for row in rows)),
    }


def _of(table: pa.Table, channel: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.filter(pc.equal(table["channel"], channel)).to_pylist()
    return rows


def _nothing(definition: Channel) -> Metrics:
    """The metrics of a symbol without a row: zeros, and one (empty) run."""
    metrics: Metrics = {rule.metric: None if rule.optional else 0.0 for rule in rules(definition)}
    metrics["symbol_runs"] = 1.0
    return metrics


def _checks(
    channel: str, symbols: Mapping[str, Metrics], suite: tuple[Rule, ...], failed: set[tuple[str, str]]
) -> list[Check]:
    judged = {rule.metric: rule for rule in suite}
    checks = []
    for symbol, metrics in symbols.items():
        for metric in metrics.keys() | judged.keys():
            value, rule = metrics.get(metric), judged.get(metric)
            if rule is None:
                checks.append(Check(channel, symbol, metric, value, None))
            elif rule.warns:
                checks.append(Check(channel, symbol, metric, value, None, rule.meaning, not rule.holds(value)))
            else:
                checks.append(Check(channel, symbol, metric, value, (symbol, metric) not in failed, rule.meaning))
    return checks
