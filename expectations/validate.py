"""Judging one period of a venue: measure the compacted files, run the suites, keep the verdict beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthvault.durable import publish, sha256_file
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import QUALITY
from expectations.checkpoint import judge
from expectations.continuity import compare
from expectations.metrics import Metrics, connect, measure, schema_faults
from expectations.suites import FILE_RULES, Rule, rules
from expectations.verdict import AVAILABLE, DEGRADED, Check, MetricsFile, Verdict, write_verdict

FILE = "file"
"""The suite over whole files."""

_COMPRESSION_LEVEL = 9
_CADENCE_TOLERANCE = 2.5


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A compacted file with what compaction wrote down of it."""

    channel: str
    path: Path
    generation: int
    rows: int
    sha256: str
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is judged: the files of one venue and period with the ledger that came with them.

    gaps, coverage: rows of `QUALITY["gaps"]` and `QUALITY["coverage"]` for this venue and period.
    cadence: the published interval between two REST snapshots of a symbol; None: not judged.
    """

    exchange: str
    period: Period
    files: tuple[StagedFile, ...]
    gaps: pa.Table = field(default_factory=QUALITY["gaps"].empty_table)
    coverage: pa.Table = field(default_factory=QUALITY["coverage"].empty_table)
    cadence: timedelta | None = None


def examine(subject: Subject, folder: Path) -> Verdict:
    """Judge `subject`; stage an `hour_metrics` file a channel and `verdict.json` under `folder`.

    The same subject gives the same bytes. A period that fails is `degraded`, never refused.
    """
    frames: dict[str, tuple[Mapping[str, Metrics], tuple[Rule, ...]]] = {}
    whole: dict[str, Metrics] = {}
    with connect(spill=folder / ".spill") as connection:
        for file in subject.files:
            faults = schema_faults(file.path, file.channel)
            whole[file.channel] = {"schema_faults": float(len(faults))}
            # A file without its columns cannot be measured: its faults are the finding.
            symbols = {} if faults else measure(connection, file.path, file.channel, subject.period)
            whole[file.channel] |= _against_paper(file, symbols)
            if not faults:
                breaks = compare(connection, file.path, file.channel, subject.gaps)
                _add_ledger(symbols, subject, file.channel, breaks)
                frames[file.channel] = (symbols, rules(file.channel))
    failures = judge({**frames, FILE: (whole, FILE_RULES)})
    checks = [
        check
        for channel, (symbols, suite) in frames.items()
        for check in _checks(channel, symbols, suite, failures[channel])
    ]
    for channel, metrics in whole.items():
        failed = {("", metric) for name, metric in failures[FILE] if name == channel}
        checks += _checks(channel, {"": metrics}, FILE_RULES, failed)
    checks.sort(key=lambda check: (check.channel, check.symbol, check.metric))
    failed_checks = tuple(check for check in checks if check.passed is False)
    degraded = {check.channel for check in failed_checks}
    verdict = Verdict(
        exchange=subject.exchange,
        period=subject.period,
        judged=sum(check.passed is not None for check in checks),
        failures=failed_checks,
        channels={file.channel: DEGRADED if file.channel in degraded else AVAILABLE for file in subject.files},
        files=tuple(
            _stage(subject, file, [check for check in checks if check.channel == file.channel], folder)
            for file in subject.files
        ),
    )
    write_verdict(folder, verdict)
    return verdict


def _against_paper(file: StagedFile, symbols: Mapping[str, Metrics]) -> Metrics:
    rows = pq.read_metadata(file.path).num_rows
    expected = set(file.symbols)
    return {
        "rows_difference": float(abs(rows - file.rows)),
        "bytes_difference": float(sha256_file(file.path) != file.sha256),
        "symbols_difference": float(len(expected ^ set(symbols))),
    }


def _add_ledger(
    symbols: dict[str, Metrics], subject: Subject, channel: str, breaks: Mapping[str, tuple[float, float, float]]
) -> None:
    """Add to each symbol what the ledger says of it; symbols that only the ledger knows get a row of zeros."""
    covered = {
        row["symbol"]: row
        for row in subject.coverage.filter(pc.equal(subject.coverage["channel"], channel)).to_pylist()
    }
    for symbol in sorted(covered.keys() - symbols.keys()):
        symbols[symbol] = _nothing(channel)
    for symbol, metrics in symbols.items():
        row = covered.get(symbol)
        metrics["share"] = float(row["share"]) if row else None
        events = row["events"] if row else 0
        metrics["coverage_events_difference"] = abs((metrics["rows"] or 0.0) - events)
        found, undeclared, unfounded = breaks.get(symbol, (0.0, 0.0, 0.0))
        metrics["breaks"], metrics["breaks_undeclared"], metrics["gaps_unfounded"] = found, undeclared, unfounded
        if channel == "depth_snapshot":
            largest = metrics.get("largest_interval_seconds") or 0.0
            limit = subject.cadence.total_seconds() * _CADENCE_TOLERANCE if subject.cadence else float("inf")
            metrics["cadence_exceeded"] = float(largest > limit)


def _nothing(channel: str) -> Metrics:
    """The metrics of a symbol without a row: zeros, and one (empty) run."""
    metrics: Metrics = {rule.metric: None if rule.optional else 0.0 for rule in rules(channel)}
    metrics["symbol_runs"] = 1.0
    return metrics


def _checks(
    channel: str, symbols: Mapping[str, Metrics], suite: tuple[Rule, ...], failed: set[tuple[str, str]]
) -> list[Check]:
    meanings = {rule.metric: rule.meaning for rule in suite}
    checks = []
    for symbol, metrics in symbols.items():
        for metric in metrics.keys() | meanings.keys():
            passed = (symbol, metric) not in failed if metric in meanings else None
            checks.append(Check(channel, symbol, metric, metrics.get(metric), passed, meanings.get(metric, "")))
    return checks


def _stage(subject: Subject, file: StagedFile, checks: list[Check], folder: Path) -> MetricsFile:
    schema = QUALITY["hour_metrics"]
    start_us = subject.period.start_ns // 1000
    table = pa.Table.from_pydict(
        {
            "exchange": [subject.exchange] * len(checks),
            "channel": [check.channel for check in checks],
            "symbol": [check.symbol for check in checks],
            "period": pa.array([start_us] * len(checks), pa.int64()).cast(schema.field("period").type),
            "metric": [check.metric for check in checks],
            "value": pa.array([check.value for check in checks], pa.float64()),
            "passed": pa.array([check.passed for check in checks], pa.bool_()),
        },
        schema=schema,
    )
    key = Layout.quality_key("hour_metrics", subject.exchange, file.channel, subject.period, file.generation)
    path = folder / key
    with publish(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=_COMPRESSION_LEVEL)
    return MetricsFile(file.channel, key, sha256_file(path), path.stat().st_size, table.num_rows)
