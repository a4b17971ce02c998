"""Data quality: Great Expectations suites over metrics that DuckDB computes from the compacted files.

`validate()` judges the staged files of one venue and period. A period that fails is archived all the same and marked
`degraded`: nothing is ever dropped here.
"""

from __future__ import annotations

from expectations.examine import Ledger, Subject, examine
from expectations.suites import Rule, rules
from expectations.validate import validate
from expectations.verdict import AVAILABLE, DEGRADED, Check, Judgement

__all__ = [
    "AVAILABLE",
    "DEGRADED",
    "Check",
    "Judgement",
    "Ledger",
    "Rule",
    "Subject",
    "examine",
    "rules",
    "validate",
]
