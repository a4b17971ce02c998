"""What must hold of a channel: one suite of rules each, over the metrics of a symbol's part of the file.

A rule is a closed range for one metric. Metrics without a rule are kept as figures and judge nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from depthvault.quality.sessions import PROVED_BY_IDS
from depthvault.schemas import CHANNELS, Channel

MINIMUM_SHARE = 0.99
"""Share of the period that a stream must have been connected and subscribed: 36 seconds of an hour may be missing."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is configurable (`quality:`), in ms. Beyond `clock_warn_ms` a clock is worth a word, beyond `clock_fail_ms`
    its times are wrong; `lag_ms` is how late frames may be."""

    clock_warn_ms: float = 50.0
    clock_fail_ms: float = 1_000.0
    lag_ms: float = 10_000.0


DEFAULT_BOUNDS = Bounds()

_MUST_HAVE_ROWS = frozenset({"depth_diff", "depth_partial", "depth_snapshot", "book_ticker", "kline", "mark_price"})
"""Channels of which even a quiet symbol says something within a period."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`low <= metric <= high`; None leaves a side open. An `optional` metric may be absent (None).

    warns: when it does not hold that is said, and degrades nothing.
    """

    metric: str
    low: float | None
    high: float | None
    meaning: str
    optional: bool = False
    warns: bool = False

    def holds(self, value: float | None) -> bool:
        """Whether the rule holds of `value`."""
        if value is None:
            return self.optional
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


def _zero(metric: str, meaning: str) -> Rule:
    return Rule(metric, 0, 0, meaning)


_COMMON = (
    _zero("duplicates", "no key stands twice"),
    _zero("order_violations", "rows stand in chain order"),
    Rule("symbol_runs", 1, 1, "a symbol's rows stand together"),
    _zero("nulls", "required columns are filled"),
    _zero("outside_period", "every event belongs to this period by its own time"),
    _zero("bad_prices", "prices are finite and above zero"),
    _zero("bad_sizes", "sizes are finite and not negative"),
    _zero("unknown_sources", "the source is stream, rest or refill"),
)
_COUNTED = _zero("coverage_events_difference", "the coverage table counts the same rows")
# A market may be wild or asleep: worth a word, and no fault of the recording.
_BAND = Rule("events_outside_band", 0, 0, "about as many events as of late", optional=True, warns=True)
_MISSED = _zero("steps_missing", "no settlement and no answer is missing")
_UNCOVERED = frozenset({"collector_event"})
"""Channels that `coverage` says nothing of: they are about the recorder."""

# The file as a whole: one row a channel.
FILE_RULES = (
    _zero("schema_faults", "the columns are those of the data dictionary"),
    _zero("rows_difference", "the file has the rows that compaction wrote down"),
    _zero("sha256_difference", "the file has the SHA-256 that compaction wrote down"),
    _zero("symbols_difference", "the file has the symbols that compaction wrote down"),
    _zero("conflicts", "no key came with two payloads"),
    _zero("rejected_frames", "every frame could be decoded"),
)
_SHARE = Rule("share", MINIMUM_SHARE, 1.0, "the stream was connected and subscribed for the period")
_CONTINUITY = (
    _zero("breaks_undeclared", "every break of the chain is declared in gaps"),
    _zero("gaps_unfounded", "no gap is declared where the chain is whole"),
    _zero("gaps_open", "nothing is missing that was not bridged or refilled"),
)
_TIMES = Rule("time_regression_ms", 0, 0, "the venue's times do not step back along the chain", optional=True)
# Of single fills no venue says that their ids are in the order of their times; some round times to the millisecond.
_TIMES_TOLD = Rule("time_regression_ms", 0, 1, _TIMES.meaning, optional=True, warns=True)
_AUDIT = Rule("audit_mismatched", 0, 0, "diffs replayed from a snapshot give the next one", optional=True)
_LEVELS = _zero("uneven_levels", "each price has its size")
_CROSSED = _zero("crossed", "the best bid is below the best ask")

_LAGGING = frozenset({"depth_diff", "book_ticker", "agg_trade", "trade", "liquidation", "mark_price"})
"""Channels whose events the venue sends at once, with the time at which it did."""


def _lag(bounds: Bounds) -> tuple[Rule, ...]:
    # Nothing is received before it was sent, so that an early frame tells of a clock that is behind; one frame in a
    # hundred is passed over, for the venue's own clocks differ.
    behind = "our clock is not behind the venue's"
    return (
        Rule("lag_mean_ms", -bounds.clock_fail_ms, bounds.lag_ms, "frames do not wait for long", optional=True),
        Rule("lag_p01_ms", -bounds.clock_fail_ms, None, behind, optional=True),
        Rule("lag_p01_early_ms", None, bounds.clock_warn_ms, behind, optional=True, warns=True),
        Rule("lag_p99_ms", None, bounds.lag_ms, "hardly a frame waits for long", optional=True, warns=True),
    )


def _clock(bounds: Bounds) -> tuple[Rule, ...]:
    meaning = "this host's clock is right"
    return (
        Rule("clock_worst_ms", None, bounds.clock_fail_ms, meaning, optional=True),
        Rule("clock_mean_ms", None, bounds.clock_warn_ms, meaning, optional=True, warns=True),
    )


_SPECIFIC: dict[str, tuple[Rule, ...]] = {
    "depth_diff": (
        _TIMES,
        _LEVELS,
        _CROSSED,
        _SHARE,
        _AUDIT,
        _zero("ids_reversed", "first id is not above final id"),
    ),
    "depth_partial": (_LEVELS, _CROSSED, _SHARE, _zero("ids_reversed", "first id is not above final id")),
    "depth_snapshot": (
        _AUDIT,
        _LEVELS,
        _CROSSED,
        _zero("one_sided", "a full book has both sides"),
        _zero("over_limit", "no more levels than were asked for"),
        _zero("cadence_exceeded", "a snapshot came at least every other turn of the published cadence"),
    ),
    "book_ticker": (_CROSSED, _SHARE, _TIMES),
    "agg_trade": (_TIMES, _SHARE, _zero("ids_reversed", "first trade is not after the last")),
    "trade": (_SHARE, _TIMES_TOLD),
    "kline": (
        _SHARE,
        _zero("candles_impossible", "low <= open, close <= high, and takers bought no more than was traded"),
        _zero("times_reversed", "a candle closes after it opens"),
        Rule("candles_refuted", 0, 0, "each candle is the sum of its trades", optional=True),
    ),
    "liquidation": (_SHARE, _zero("unknown_sides", "the side is BUY or SELL")),
    "mark_price": (_SHARE, _zero("rates_impossible", "a funding rate is within half of the position's value")),
    "funding_rate": (
        _zero("rates_impossible", "a funding rate is within half of the position's value"),
        Rule("intervals_impossible", 0, 0, "a funding interval has 1 to 24 hours"),
        _MISSED,
    ),
    "open_interest": (_MISSED, _zero("cadence_exceeded", "it was asked for at least every other turn")),
    "instrument": (),
    "collector_event": (
        _zero("unknown_kinds", "the kind is one of the data dictionary"),
        _zero("malformed_details", "the detail is JSON"),
        _zero("malformed_frames", "every frame could be decoded"),
    ),
}


def rules(definition: Channel, bounds: Bounds = DEFAULT_BOUNDS) -> tuple[Rule, ...]:
    """The suite of a channel, as its venue proves it complete, over the metrics of one symbol."""
    channel = definition.name
    least = 1 if channel in _MUST_HAVE_ROWS else 0
    rows = Rule("rows", least, None, "there are events" if least else "rows were counted")
    counted = () if channel in _UNCOVERED else (_COUNTED, _BAND)
    lag = _lag(bounds) if channel in _LAGGING else ()
    clock = _clock(bounds) if channel == "collector_event" else ()
    chain = _CONTINUITY if definition.continuity in PROVED_BY_IDS else ()
    return (rows, *_COMMON, *counted, *chain, *_SPECIFIC[channel], *lag, *clock)


assert set(_SPECIFIC) == set(CHANNELS), "each channel has a suite"
