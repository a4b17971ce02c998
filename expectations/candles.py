"""Candles against the trades they are made of: a venue's own sum, checked with ids that prove the trades complete.

A candle is judged where consecutive aggregate ids reach from before its first moment to after its last one; the trades
may stand in the files of several periods. Sums are exact: integers of 1e-8, from doubles that are decimals of up to
15 digits. Where ids are missing nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_NAMED = 20
"""Mismatches that a judgement names one by one; all are counted."""

_UNITS = 100_000_000  # a candle's volume has eight decimals
_DIGITS = 15
_MICROSECOND = timedelta(microseconds=1)
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How a venue's `agg_trade` and its candles belong together.

    border: how far from a candle's edge a trade may count to the neighbour. complete: every trade stands in an
    aggregate, so that the candle must be their exact sum.
    """

    border: timedelta = timedelta(0)
    complete: bool = True

    @property
    def border_us(self) -> int:
        return self.border // _MICROSECOND


AGGREGATIONS: Mapping[str, Aggregation] = {
    # An aggregate is one taker order at one price, all at one time (Binance spot docs): nothing can lie between.
    "binance_spot": Aggregation(),
    # An aggregate gathers fills of up to 100 ms under one time, and trades of the insurance fund and of
    # auto-deleveraging are in none (Binance futures docs), while they take trade ids. Candles are also cut otherwise
    # than by the aggregates' times: BTCUSDT of 2024-01-01 00:00 UTC opened at 42314 with 3310 trades, where the
    # aggregates of that minute began at 42313.9 and had 3297 (reported on Binance's developer forum). So trades within
    # a second of an edge may belong to either side, and where trade ids are in no aggregate a candle may have more than
    # the sum. It may count fewer trades than the ids that the aggregates span (measured: 1027 over 1029 ids). Whether
    # candles have the RPI fills that are in an aggregate's `q` the docs do not say; they are taken to.
    "binance_futures": Aggregation(timedelta(seconds=1), complete=False),
}


@dataclass(frozen=True, slots=True)
class TradeFiles:
    """The `agg_trade` files that candles are compared with.

    paths: oldest first, the period's own last. since: start of the period of the first, tails: last id before it by
    symbol. before_period: the files of earlier periods among them. earlier_candles: the `kline` file of the period
    before; its last candles could not be judged then. inexact: quantities of more than 15 digits came.
    """

    rule: Aggregation
    paths: tuple[Path, ...] = ()
    since: datetime = _EVER
    period_start: datetime = _EVER
    tails: Mapping[str, int] = field(default_factory=dict)
    earlier_candles: Path | None = None
    inexact: bool = False


class Mismatch(NamedTuple):
    """One figure of a candle that its trades refute. `least` to `most` is what the trades allow."""

    symbol: str
    candle: str
    figure: str
    said: Decimal
    least: Decimal
    most: Decimal | None

    @property
    def difference(self) -> float:
        """By how much the candle is beyond what its trades allow."""
        return float(self.said - self.least if self.said < self.least or self.most is None else self.said - self.most)

    def __str__(self) -> str:
        allowed = f"{self.least:f}"
        if self.most != self.least:
            allowed += f" to {self.most:f}" if self.most is not None else " or more"
        return f"the candle says {self.said:f}, its trades {allowed}"


@dataclass(slots=True)
class Compared:
    """What came of one symbol's candles. waiting: the trades after them are in the next period; judged then."""

    judged: int = 0
    waiting: int = 0
    undecidable: int = 0
    refuted: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)


class Candle(NamedTuple):
    """A closed candle; `open_us` to `end_us` (exclusive) in µs, volumes in units of 1e-8."""

    symbol: str
    interval: str
    open_us: int
    end_us: int
    open: float
    high: float
    low: float
    close: float
    volume: int
    taker_buy_volume: int
    trade_count: int

    @property
    def name(self) -> str:
        """Interval and opening, as a person would look for it."""
        opened = datetime.fromtimestamp(self.open_us / 1e6, UTC)
        return f"{self.interval} {opened:%Y-%m-%dT%H:%M:%SZ}"


def compare_candles(connection: duckdb.DuckDBPyConnection, path: Path, files: TradeFiles) -> dict[str, Compared]:
    """Judge the candles of the file at `path`, and those of the period before that could not be judged there."""
    candles = [(candle, True) for candle in _candles(connection, path)]
    if files.earlier_candles is not None:
        candles += [(candle, False) for candle in _candles(connection, files.earlier_candles)]
    by_symbol: dict[str, list[tuple[Candle, bool]]] = {}
    for candle, own in candles:
        by_symbol.setdefault(candle.symbol, []).append((candle, own))
    start_us = _micros(files.period_start)
    compared = {}
    for symbol, part in sorted(by_symbol.items()):
        outcome = compared[symbol] = Compared()
        since = min(candle.open_us for candle, _ in part) - 2 * files.rule.border_us
        tape = Tape.read(connection, symbol, files, since)
        known_before = tape.last_before(start_us)
        for candle, own in part:
            after = candle.end_us + files.rule.border_us
            if not own and known_before is not None and after <= known_before:
                continue  # its own period could judge it
            if tape.until is None or after > tape.until:
                outcome.waiting += own
                outcome.undecidable += not own
            elif not tape.is_complete(candle.open_us - files.rule.border_us, after):
                outcome.undecidable += 1
            else:
                found = list(mismatches(candle, tape, files.rule, inexact=files.inexact))
                outcome.judged += 1
                outcome.refuted += bool(found)
                outcome.mismatches += found
    return compared


@dataclass(frozen=True, slots=True)
class Tape:
    """One symbol's aggregates by time, with running sums of one element more.

    holes: times (µs) between which ids are missing, one row each; before the first is unknown, too. skipped: trade ids
    directly before each aggregate that no aggregate has.
    """

    times: Ints
    prices: Floats
    fills: Ints
    quantities: tuple[Ints, Ints]
    bought: tuple[Ints, Ints]
    skipped: Ints
    holes: Ints
    since: int
    largest: float

    @classmethod
    def read(cls, connection: duckdb.DuckDBPyConnection, symbol: str, files: TradeFiles, since: int) -> Tape:
        """The trades of `symbol` since `since` (µs), and the last one before."""
        if not files.paths:
            return cls.of(_nothing(), None, 0)
        rows = connection.execute(
            """
select agg_trade_id, epoch_us(transaction_time) as time, first_trade_id, last_trade_id, price, quantity, is_buyer_maker
from read_parquet($paths) where symbol = $symbol order by agg_trade_id""",
            {"paths": [str(path) for path in files.paths], "symbol": symbol},
        ).fetchnumpy()
        return cls.of(rows, files.tails.get(symbol), _micros(files.since))

    @classmethod
    def of(cls, rows: Mapping[str, Any], tail: int | None, since: int) -> Tape:
        """From columns in id order. tail: the last id before them, which lies before the time `since`."""
        ids, times = _plain(rows["agg_trade_id"]), _plain(rows["time"])
        first, last = _plain(rows["first_trade_id"]), _plain(rows["last_trade_id"])
        prices = np.asarray(rows["price"], np.float64)
        quantity = np.asarray(rows["quantity"], np.float64)
        buys = ~np.asarray(rows["is_buyer_maker"], np.bool_)
        broken = np.flatnonzero(np.diff(ids) != 1)
        # ids may go up while times stand still or, at a hole, lie anyhow: the span is what lies between both
        holes = np.stack((np.minimum(times[broken], times[broken + 1]), np.maximum(times[broken], times[broken + 1])))
        skipped = np.zeros(len(ids), np.int64)
        skipped[1:] = np.maximum(first[1:] - last[:-1] - 1, 0)
        followed = len(ids) > 0 and tail is not None and tail + 1 == int(ids[0])
        begin = since if followed else int(times[0]) + 1 if len(ids) else since
        order = np.argsort(times, kind="stable")
        units = _units(quantity[order])
        taken = np.where(buys[order], 1, 0)
        return cls(
            times=times[order], prices=prices[order], fills=_summed((last - first + 1)[order]),
            quantities=(_summed(units[0]), _summed(units[1])),
            bought=(_summed(units[0] * taken), _summed(units[1] * taken)),
            skipped=_summed(skipped[order]), holes=holes.T, since=begin,
            largest=float(quantity.max()) if len(quantity) else 0.0,
        )  # fmt: skip

    @property
    def until(self) -> int | None:
        """The last time (µs) known; trades at it may still come."""
        return int(self.times[-1]) if len(self.times) else None

    def last_before(self, moment: int) -> int | None:
        """The last time before `moment`; None without one."""
        place = self.place(moment)
        return int(self.times[place - 1]) if place else None

    def place(self, moment: int) -> int:
        """How many aggregates lie before `moment` (µs)."""
        return int(np.searchsorted(self.times, moment, "left"))

    def is_complete(self, begin: int, end: int) -> bool:
        """Whether no id is missing from `begin` to before `end`; `end` must not be after `until`."""
        return begin >= self.since and not bool(np.any((self.holes[:, 0] < end) & (self.holes[:, 1] >= begin)))


def mismatches(candle: Candle, tape: Tape, rule: Aggregation, *, inexact: bool = False) -> Iterator[Mismatch]:
    """The figures of `candle` that its trades refute. The tape must be complete around it."""
    border = rule.border_us
    # All that may belong to it (outer) and what must (inner); without a border they are the same.
    outer = range(tape.place(candle.open_us - border), tape.place(candle.end_us + border))
    inner = range(tape.place(candle.open_us + border), tape.place(candle.end_us - border))
    if border and candle.end_us - candle.open_us <= 2 * border:
        inner = range(outer.start, outer.start)
    # A hole in the trade ids counts to what lies on both of its sides.
    unseen = 0 if rule.complete else _between(tape.skipped, range(outer.start, min(outer.stop + 1, len(tape.times))))
    slack = len(outer) * _unit_of(tape.largest) if inexact else 0

    def refuted(figure: str, said: Decimal, least: Decimal, most: Decimal | None) -> Iterator[Mismatch]:
        if said < least or (most is not None and said > most):
            yield Mismatch(candle.symbol, candle.name, figure, said, least, most)

    for figure, value, sums in (
        ("volume", candle.volume, tape.quantities),
        ("taker_buy_volume", candle.taker_buy_volume, tape.bought),
    ):
        least, most = _total(sums, inner) - slack, None if unseen else _decimal(_total(sums, outer) + slack)
        yield from refuted(figure, _decimal(value), _decimal(max(least, 0)), most)
    fills = _between(tape.fills, inner) if rule.complete else len(inner)
    most_fills = _between(tape.fills, outer) + unseen
    yield from refuted("trade_count", Decimal(candle.trade_count), Decimal(fills), Decimal(most_fills))
    if not outer or not candle.trade_count:
        return  # without trades a candle repeats the price before
    prices = tape.prices[outer.start : outer.stop]
    sure = tape.prices[inner.start : inner.stop]
    highest, lowest = _price(prices.max()), _price(prices.min())
    if unseen:
        if len(sure):
            yield from refuted("high", _price(candle.high), _price(sure.max()), None)
            yield from refuted("low", _price(candle.low), Decimal(0), _price(sure.min()))
        return
    yield from refuted("high", _price(candle.high), _price(sure.max()) if len(sure) else lowest, highest)
    yield from refuted("low", _price(candle.low), lowest, _price(sure.min()) if len(sure) else highest)
    opening = prices[: tape.place(candle.open_us + border) - outer.start + 1]
    closing = prices[max(0, tape.place(candle.end_us - border) - outer.start - 1) :]
    for figure, said, possible in (("open", candle.open, opening), ("close", candle.close, closing)):
        if said not in possible:
            yield Mismatch(
                candle.symbol, candle.name, figure, _price(said), _price(possible.min()), _price(possible.max())
            )


def _candles(connection: duckdb.DuckDBPyConnection, path: Path) -> list[Candle]:
    rows = connection.execute(
        """
select symbol, "interval", epoch_us(open_time), epoch_us(close_time) + 1000, open, high, low, close,
  volume, taker_buy_volume, trade_count
from read_parquet($path)
where symbol is not null and open_time is not null and close_time > open_time and volume is not null
  and open is not null and high is not null and low is not null and close is not null
  and taker_buy_volume is not null and trade_count is not null""",
        {"path": str(path)},
    ).fetchall()
    return [
        Candle._make((*known, int(volume.scaleb(8)), int(bought.scaleb(8)), n)) for *known, volume, bought, n in rows
    ]


def _units(values: Floats) -> tuple[Ints, Ints]:
    """Whole parts and fractions in units of 1e-8, exact for decimals of up to 15 digits and eight decimals."""
    whole = np.floor(values)
    # The fraction has only as many decimals as are left of 15 digits; rounding there takes the binary noise away.
    digits = np.where(whole >= 1, np.floor(np.log10(np.maximum(whole, 1))) + 1, 0)
    decimals = np.clip(_DIGITS - digits, 0, 8)
    scale = 10.0**decimals
    fraction = np.rint((values - whole) * scale) * (_UNITS / scale)
    return whole.astype(np.int64), np.rint(fraction).astype(np.int64)


def _unit_of(value: float) -> int:
    """What a quantity of up to `value` with more than 15 digits may be off by, in units of 1e-8."""
    digits = len(str(int(value))) if value >= 1 else 0
    unit: int = 10 ** max(0, digits - _DIGITS + 8)
    return unit + 1


def _summed(values: Ints) -> Ints:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(values)))


def _between(sums: Ints, part: range) -> int:
    return int(sums[part.stop] - sums[part.start]) if len(part) else 0


def _total(sums: tuple[Ints, Ints], part: range) -> int:
    return _between(sums[0], part) * _UNITS + _between(sums[1], part)


def _decimal(units: int) -> Decimal:
    return Decimal(units).scaleb(-8)


def _price(value: Any) -> Decimal:
    return Decimal(repr(float(value)))


def _plain(values: Any) -> Ints:
    return np.asarray(values, np.int64)


def _micros(moment: datetime) -> int:
    return (moment - _EVER) // _MICROSECOND


def _nothing() -> dict[str, Ints]:
    names = (
        "agg_trade_id", "time", "first_trade_id", "last_trade_id", "price", "quantity", "is_buyer_maker"
    )  # fmt: skip
    return {name: np.zeros(0, np.int64) for name in names}
