"""Periods divide time without overlap or hole, and their labels name them uniquely."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthvault.clock import datetime_from_ns, ns_from_datetime
from depthvault.durations import format_duration, parse_duration
from depthvault.period import Period, periods_between

moments = st.datetimes(datetime(2017, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
lengths = st.sampled_from([timedelta(minutes=m) for m in (1, 5, 10, 30, 60)])


@given(moments, lengths)
def test_each_moment_lies_in_exactly_one_period(moment: datetime, length: timedelta) -> None:
    period = Period.containing(moment, length)
    assert period.contains(moment)
    assert not period.next().contains(moment)
    assert not period.previous().contains(moment)
    assert Period.parse(period.label, length) == period
    assert Period.from_parts(period.date, period.name, length) == period


@given(moments)
def test_nanoseconds_and_times_convert_exactly(moment: datetime) -> None:
    assert datetime_from_ns(ns_from_datetime(moment)) == moment


def test_a_label_that_starts_no_period_is_refused() -> None:
    with pytest.raises(ValueError, match="20261120T0430"):
        Period.parse("20261120T0430")


def test_names_are_hours_or_minutes() -> None:
    moment = datetime(2026, 11, 20, 4, 59, 59, tzinfo=UTC)
    assert Period.containing(moment).name == "04"
    assert Period.containing(moment, timedelta(minutes=1)).name == "0459"


def test_a_range_of_periods_includes_both_ends() -> None:
    first = Period.parse("20261120T2300")
    assert [period.label for period in periods_between(first, first.next().next())] == [
        "20261120T2300",
        "20261121T0000",
        "20261121T0100",
    ]


@pytest.mark.parametrize("text", ["250ms", "90s", "15m", "12h", "7d", "1s"])
def test_a_duration_is_written_as_it_is_read(text: str) -> None:
    assert parse_duration(format_duration(parse_duration(text))) == parse_duration(text)


@pytest.mark.parametrize("text", ["", "soon", "5 weeks", "-3s", "1h30m"])
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)
