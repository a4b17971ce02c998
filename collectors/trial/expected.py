"""What the archive must say of a payload: a plain reading of the venues' JSON, written apart from the decoders.

Prices and sizes stay the texts that the venue sent; they become numbers only when they are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

Cells = tuple[Any, ...]
_json = msgspec.json.Decoder().decode


class Column(NamedTuple):
    """A column of the archive. kind: `int` (times are µs), `number`, `levels` (of texts), `same` (as it is)."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Reading:
    """How a channel of the archive is read out of the events of a channel of the truth.

    key: the archive column that tells a symbol's rows apart. proof: `ids` where holes show in the chain, so that each
    must be declared exactly; `time` where only the times at which nobody listened are declared. shut: whether the id
    that a gap names as `first_id` is still missing (`pu`, `begin_nonce`) or is there again (`U`, a trade's own id).
    """

    channel: str
    truth: str
    key: str
    columns: tuple[Column, ...]
    rows: Callable[[Any], Iterable[Cells]]
    proof: str = "time"
    shut: bool = False

    @property
    def key_place(self) -> int:
        return next(place for place, column in enumerate(self.columns) if column.name == self.key)

    def read(self, payload: bytes) -> list[Cells]:
        """The rows of a payload."""
        return list(self.rows(_json(payload)))


def _columns(**kinds: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind) for kind, names in kinds.items() for name in names.split())


_LEVELS = "bid_prices bid_sizes ask_prices ask_sizes"
_BOOK = _columns(int="final_update_id first_update_id prev_final_update_id event_time transaction_time", levels=_LEVELS)
_AGG = _columns(
    int="agg_trade_id first_trade_id last_trade_id event_time transaction_time",
    number="price quantity",
    same="is_buyer_maker",
)
_TRADE = _columns(int="trade_id event_time transaction_time", number="price quantity", same="is_buyer_maker")
_TYPED_TRADE = (*_TRADE, Column("trade_type", "same"))
_TICKER = _columns(int="update_id event_time transaction_time", number="bid_price bid_size ask_price ask_size")
_KLINE = _columns(
    int="open_time close_time event_time trade_count",
    number="open high low close volume quote_volume taker_buy_volume taker_buy_quote_volume",
    same="interval",
)
_MARK = _columns(int="event_time next_funding_time", number="mark_price index_price funding_rate")
_FORCED = _columns(
    int="event_time transaction_time",
    number="price average_price quantity filled_quantity",
    same="side order_type time_in_force status",
)
_FILL = _columns(int="trade_id event_time transaction_time", number="price quantity", same="side order_type")


def _us(ms: int | None) -> int | None:
    return None if ms is None else ms * 1000


def _sides(data: Mapping[str, Any], bids: str, asks: str) -> tuple[list[str], ...]:
    bid, ask = data[bids], data[asks]
    return [p for p, _ in bid], [q for _, q in bid], [p for p, _ in ask], [q for _, q in ask]


def _binance_book(d: Any) -> Iterable[Cells]:
    yield (d["u"], d["U"], d.get("pu"), _us(d["E"]), _us(d.get("T")), *_sides(d, "b", "a"))


def _binance_agg(d: Any) -> Iterable[Cells]:
    yield d["a"], d["f"], d["l"], _us(d["E"]), _us(d["T"]), d["p"], d["q"], d["m"]


def _binance_trade(d: Any) -> Iterable[Cells]:
    yield d["t"], _us(d["E"]), _us(d["T"]), d["p"], d["q"], d["m"]


def _binance_ticker(d: Any) -> Iterable[Cells]:
    yield d["u"], _us(d.get("E")), _us(d.get("T")), d["b"], d["B"], d["a"], d["A"]


def _binance_kline(d: Any) -> Iterable[Cells]:
    k = d["k"]
    if k["x"]:
        times = _us(k["t"]), _us(k["T"]), _us(d["E"]), k["n"]
        yield (*times, k["o"], k["h"], k["l"], k["c"], k["v"], k["q"], k["V"], k["Q"], k["i"])


def _binance_mark(d: Any) -> Iterable[Cells]:
    yield _us(d["E"]), _us(d["T"]), d["p"], d["i"], d["r"]


def _binance_forced(d: Any) -> Iterable[Cells]:
    o = d["o"]
    yield _us(d["E"]), _us(o["T"]), o["p"], o["ap"], o["q"], o["z"], o["S"], o["o"], o["f"], o["X"]


def _lighter_side(levels: list[dict[str, str]]) -> tuple[list[str], list[str]]:
    return [level["price"] for level in levels], [level["size"] for level in levels]


def _lighter_book(d: Any) -> Iterable[Cells]:
    b = d["order_book"]
    begin = None if d["type"].startswith("subscribed") else b["begin_nonce"]
    sides = (*_lighter_side(b["bids"]), *_lighter_side(b["asks"]))
    yield (b["nonce"], b["nonce"], begin, _us(d["timestamp"]), b["last_updated_at"], *sides)


def _lighter_trade(d: Any) -> Iterable[Cells]:
    for t in [*d["trades"], *d["liquidation_trades"]]:
        times = _us(t["timestamp"]), t["transaction_time"]
        yield t["trade_id"], *times, t["price"], t["size"], not t["is_maker_ask"], t["type"]


def _lighter_liquidation(d: Any) -> Iterable[Cells]:
    for t in d["liquidation_trades"]:
        side = "BUY" if t["is_maker_ask"] else "SELL"
        yield t["trade_id"], _us(t["timestamp"]), t["transaction_time"], t["price"], t["size"], side, t["type"]


def _lighter_ticker(d: Any) -> Iterable[Cells]:
    t = d["ticker"]
    times = _us(d["timestamp"]), t["last_updated_at"]
    yield d["nonce"], *times, t["b"]["price"], t["b"]["size"], t["a"]["price"], t["a"]["size"]


_BINANCE = (
    Reading("agg_trade", "aggTrade", "agg_trade_id", _AGG, _binance_agg, proof="ids"),
    Reading("book_ticker", "bookTicker", "update_id", _TICKER, _binance_ticker),
    Reading("kline", "kline_1m", "open_time", _KLINE, _binance_kline),
)
READINGS: dict[str, tuple[Reading, ...]] = {
    "binance_spot": (
        Reading("depth_diff", "depth@100ms", "final_update_id", _BOOK, _binance_book, proof="ids"),
        Reading("trade", "trade", "trade_id", _TRADE, _binance_trade, proof="ids"),
        *_BINANCE,
    ),
    "binance_futures": (
        Reading("depth_diff", "depth@100ms", "final_update_id", _BOOK, _binance_book, proof="ids", shut=True),
        Reading("trade", "trade", "trade_id", _TRADE, _binance_trade),
        *_BINANCE,
        Reading("mark_price", "markPrice@1s", "event_time", _MARK, _binance_mark),
        # At most one a second and symbol: the time tells them apart.
        Reading("liquidation", "forceOrder", "event_time", _FORCED, _binance_forced),
    ),
    "lighter": (
        Reading("depth_diff", "order_book", "final_update_id", _BOOK, _lighter_book, proof="ids", shut=True),
        Reading("trade", "trade", "trade_id", _TYPED_TRADE, _lighter_trade),
        Reading("liquidation", "trade", "trade_id", _FILL, _lighter_liquidation),
        Reading("book_ticker", "ticker", "update_id", _TICKER, _lighter_ticker),
    ),
}
"""What is judged, by venue."""


def stream_name(venue: str, reading: Reading, symbol: str, payload: bytes) -> str:
    """The name under which a stream's frames stand in the journal and in the simulator's ledger."""
    if venue == "lighter":
        return payload[12 : payload.index(b'"', 12)].decode()
    return f"{symbol.lower()}@{reading.truth}"
