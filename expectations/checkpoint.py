"""Great Expectations over small frames: one row a symbol, one column a metric, one suite a channel.

The context is ephemeral and analytics are off: nothing is written and nothing is sent.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from expectations.metrics import Metrics
from expectations.suites import Rule

Failures = set[tuple[str, str]]
"""Pairs of symbol and metric that did not hold."""


def _import_gx() -> Any:
    # Great Expectations reads the variable when it is imported; the import takes about two seconds, so it waits.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations

    return great_expectations


def judge(frames: Mapping[str, tuple[Mapping[str, Metrics], Sequence[Rule]]]) -> dict[str, Failures]:
    """Run a checkpoint with one suite a frame; returns the failures by frame name.

    A frame is the metrics by symbol with the rules for them. A metric that a rule requires and that is absent fails.
    """
    gx = _import_gx()
    import pandas

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    source = context.data_sources.add_pandas("metrics")
    definitions, frame_of = [], {}
    for name, (metrics, rules) in frames.items():
        suite = context.suites.add(
            gx.ExpectationSuite(name=name, expectations=[_expectation(gx, rule) for rule in rules])
        )
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
        definitions.append(context.validation_definitions.add(definition))
        symbols = list(metrics)
        columns = {
            rule.metric: pandas.Series(
                [_judged(metrics[symbol].get(rule.metric), rule) for symbol in symbols], dtype="float64"
            )
            for rule in rules
        }
        frame_of[name] = (symbols, pandas.DataFrame({"position": range(len(symbols)), **columns}))
    failures: dict[str, Failures] = {name: set() for name in frames}
    for definition in definitions:
        symbols, frame = frame_of[definition.name]
        # A checkpoint hands one set of batch parameters to all its definitions, so each frame has its own.
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name=definition.name,
                validation_definitions=[definition],
                result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["position"]},
            )
        )
        outcome = checkpoint.run(batch_parameters={"dataframe": frame})
        for validation in outcome.run_results.values():
            failures[definition.name] |= _failures(validation, symbols)
    return failures


def _expectation(gx: Any, rule: Rule) -> Any:
    return gx.expectations.ExpectColumnValuesToBeBetween(
        column=rule.metric, min_value=rule.low, max_value=rule.high, meta={"meaning": rule.meaning}
    )


def _judged(value: float | None, rule: Rule) -> float | None:
    """What the frame holds for `value`: Great Expectations passes over nulls, so an absence that counts is infinite."""
    if value is not None or rule.optional:
        return value
    return math.inf if rule.high is not None else -math.inf


def _failures(validation: Any, symbols: Sequence[str]) -> Failures:
    failed: Failures = set()
    for result in validation.results:
        metric = result.expectation_config.kwargs["column"]
        if result.exception_info and result.exception_info.get("raised_exception"):
            raise RuntimeError(f"expectation on {metric}: {result.exception_info.get('exception_message')}")
        if not result.success:
            failed |= {(symbols[row["position"]], metric) for row in result.result["unexpected_index_list"]}
    return failed
