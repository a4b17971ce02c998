# ruff: noqa: N815  the field names are the venue's
"""The shapes of Binance's frames and REST answers: one struct each, with the venue's own field names.

Unknown fields are ignored (the venue adds some each year); a known field of another type rejects the frame.
Source: Binance spot and USDⓈ-M docs, and recorded frames from 2021 to 2026.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
SignedId = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Side = list[tuple[str, str]]
T = TypeVar("T")

USD_MARGINED = 1
"""`st` of USDⓈ-M rows; since 2026-06-30 all-market streams carry COIN-M rows (2) too."""


class Envelope(msgspec.Struct, Generic[T]):
    """The combined-stream form, in which all frames come."""

    stream: str
    data: T


class SpotDiff(msgspec.Struct):
    e: Literal["depthUpdate"]
    E: int
    s: str
    U: Id
    u: Id
    b: Side
    a: Side


class FuturesDiff(msgspec.Struct):
    """Diffs and partial books: only the stream's name tells them apart."""

    e: Literal["depthUpdate"]
    E: int
    T: int
    s: str
    U: Id
    u: Id
    pu: SignedId
    b: Side
    a: Side


class SpotPartial(msgspec.Struct):
    lastUpdateId: Id
    bids: Side
    asks: Side


class Snapshot(msgspec.Struct):
    """REST depth; `E` and `T` on futures only. A brand-new futures book answers `lastUpdateId` -1."""

    lastUpdateId: SignedId
    bids: Side
    asks: Side
    E: int | None = None
    T: int | None = None


class BookTicker(msgspec.Struct):
    u: Id
    s: str
    b: str
    B: str
    a: str
    A: str
    E: int | None = None
    T: int | None = None
    st: int = USD_MARGINED


class AggTrade(msgspec.Struct):
    e: Literal["aggTrade"]
    E: int
    s: str
    a: Id
    p: str
    q: str
    f: SignedId
    l: SignedId  # noqa: E741  the venue's name
    T: int
    m: bool


class RestAggTrade(msgspec.Struct):
    a: Id
    p: str
    q: str
    f: SignedId
    l: SignedId  # noqa: E741
    T: int
    m: bool


class Trade(msgspec.Struct):
    e: Literal["trade"]
    E: int
    s: str
    t: Id
    p: str
    q: str
    T: int
    m: bool
    X: str = "trade"


class Candle(msgspec.Struct):
    t: int
    T: int
    i: str
    o: str
    h: str
    l: str  # noqa: E741
    c: str
    v: str
    q: str
    V: str
    Q: str
    n: Id
    x: bool


class Kline(msgspec.Struct):
    e: Literal["kline"]
    E: int
    s: str
    k: Candle


class Order(msgspec.Struct):
    s: str
    S: Literal["BUY", "SELL"]
    o: str
    f: str
    q: str
    p: str
    ap: str
    X: str
    z: str
    T: int
    st: int = USD_MARGINED


class ForceOrder(msgspec.Struct):
    e: Literal["forceOrder"]
    E: int
    o: Order


class MarkPrice(msgspec.Struct):
    e: Literal["markPriceUpdate"]
    E: int
    s: str
    p: str
    i: str
    r: str
    T: int
    st: int = USD_MARGINED


class PremiumIndex(msgspec.Struct):
    symbol: str
    markPrice: str
    indexPrice: str
    lastFundingRate: str
    nextFundingTime: int
    time: int


class Funding(msgspec.Struct):
    symbol: str
    fundingTime: int
    fundingRate: str
    markPrice: str = ""


class FundingInfo(msgspec.Struct):
    symbol: str
    fundingIntervalHours: int


class OpenInterest(msgspec.Struct):
    symbol: str
    openInterest: str
    time: int


class Control(msgspec.Struct):
    """Any message that is no data: acknowledgement, either form of error, or a bare event."""

    id: int | str | None = None
    error: dict[str, Any] | None = None
    code: int | None = None
    msg: str | None = None
    e: str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")


class Filter(msgspec.Struct):
    filterType: str
    tickSize: str = ""
    stepSize: str = ""


class Symbol(msgspec.Struct):
    symbol: str
    status: str
    baseAsset: str
    quoteAsset: str
    filters: list[Filter] = []
    isSpotTradingAllowed: bool = True
    contractType: str | None = None
    onboardDate: int | None = None


class Catalogue(msgspec.Struct):
    symbols: list[Symbol]


class Volume(msgspec.Struct):
    symbol: str
    quoteVolume: str


class AnyHead(msgspec.Struct):
    U: Id
    u: Id
    pu: int | None = None
    E: int = 0


def decoder(shape: Any) -> Any:
    """The `decode` of a typed msgspec decoder."""
    return msgspec.json.Decoder(shape).decode


decode_spot_diff = decoder(Envelope[SpotDiff])
decode_futures_diff = decoder(Envelope[FuturesDiff])
decode_spot_partial = decoder(Envelope[SpotPartial])
decode_snapshot = decoder(Snapshot)
decode_book_ticker = decoder(Envelope[BookTicker])
decode_agg_trade = decoder(Envelope[AggTrade])
decode_rest_agg_trades = decoder(list[RestAggTrade])
decode_trade = decoder(Envelope[Trade])
decode_kline = decoder(Envelope[Kline])
decode_rest_klines = decoder(
    list[tuple[int, str, str, str, str, str, int, str, Id, str, str, Any]],
)
decode_force_order = decoder(Envelope[ForceOrder])
decode_mark_price = decoder(Envelope[MarkPrice | list[MarkPrice]])
decode_premium_index = decoder(PremiumIndex | list[PremiumIndex])
decode_funding = decoder(list[Funding])
decode_funding_info = decoder(list[FundingInfo])
decode_open_interest = decoder(OpenInterest)
decode_control = decoder(Control)
decode_catalogue = decoder(Catalogue)
decode_volumes = decoder(list[Volume])
decode_any_head = decoder(Envelope[AnyHead])
