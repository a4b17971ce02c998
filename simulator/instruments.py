"""What trades on the simulated venues: names, ticks, lots and typical sizes.

Prices and sizes are integers in units of ``10**-price_decimals`` and ``10**-quantity_decimals``; texts are
made from them only at the edge, exactly as the venue pads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

SPOT_PAD = 8
"""Binance spot pads every price and size to 8 decimals on the wire."""

_TEXT_CACHE_LIMIT = 4_096


@dataclass(frozen=True, slots=True)
class Instrument:
    """One symbol of one venue.

    ``tick`` and ``lot`` count units of the last decimal; ``typical_size`` is the order size, in units,
    around which sizes scatter; ``price`` is where the book starts.
    """

    symbol: str
    base: str
    quote: str
    price_decimals: int
    quantity_decimals: int
    tick: int
    lot: int
    price: int
    typical_size: int
    rank: int
    price_pad: int = 0
    quantity_pad: int = 0
    market_id: int = -1
    is_spot: bool = False
    price_text: Callable[[int], str] = field(init=False, repr=False, compare=False)
    quantity_text: Callable[[int], str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "price_text", _cached(decimal_text(self.price_decimals, self.price_pad)))
        object.__setattr__(self, "quantity_text", decimal_text(self.quantity_decimals, self.quantity_pad))

    @property
    def value_decimals(self) -> int:
        """Decimals of price times quantity."""
        return self.price_decimals + self.quantity_decimals

    @property
    def tick_text(self) -> str:
        return self.price_text(self.tick)

    @property
    def lot_text(self) -> str:
        return self.quantity_text(self.lot)


def decimal_text(decimals: int, pad: int = 0) -> Callable[[int], str]:
    """A function from an integer in units of ``10**-decimals`` to its decimal text.

    The text has ``max(decimals, pad)`` decimals; nothing is ever rounded.
    """
    zeros = "0" * max(0, pad - decimals)
    if decimals == 0:
        suffix = f".{zeros}" if zeros else ""
        return lambda value: f"{value}{suffix}"
    scale = 10**decimals

    def text(value: int) -> str:
        if value < 0:
            return "-" + text(-value)
        whole, fraction = divmod(value, scale)
        return f"{whole}.{fraction:0{decimals}d}{zeros}"

    return text


def _cached(render: Callable[[int], str]) -> Callable[[int], str]:
    cache: dict[int, str] = {}

    def text(value: int) -> str:
        known = cache.get(value)
        if known is None:
            if len(cache) >= _TEXT_CACHE_LIMIT:
                cache.clear()
            known = cache[value] = render(value)
        return known

    return text


@dataclass(frozen=True, slots=True)
class _Listing:
    """Base name, price text on futures, futures tick text, decimals of price text and of sizes by venue."""

    base: str
    price: str
    futures_tick: str
    futures_price_decimals: int
    futures_quantity_decimals: int
    spot_price_decimals: int
    spot_quantity_decimals: int
    typical: float = 0.0


# Ticks and lots as exchangeInfo gives them for the well-known ones; the rest is plausible. BTTC stands for
# the symbols whose sizes reach 1e12, PEPE for prices with 8 decimals.
_KNOWN = (
    _Listing("BTC", "83091.60", "0.10", 2, 3, 2, 5),
    _Listing("ETH", "1943.64", "0.01", 2, 3, 2, 4),
    _Listing("XRP", "2.1843", "0.0001", 4, 1, 4, 1),
    _Listing("SOL", "142.310", "0.010", 3, 2, 2, 3),
    _Listing("BNB", "861.220", "0.010", 3, 2, 2, 3),
    _Listing("DOGE", "0.161230", "0.000010", 6, 0, 5, 0),
    _Listing("1000PEPE", "0.0094120", "0.0000001", 7, 0, 7, 0),
    _Listing("1000SATS", "0.0003412", "0.0000001", 7, 0, 8, 0),
    _Listing("币安人生", "0.16543", "0.00001", 5, 0, 5, 1),
    _Listing("PEPE", "0.00000941", "0.00000001", 8, 0, 8, 0, 4e8),
    _Listing("BTTC", "0.00000351", "0.00000001", 8, 0, 8, 0, 4e11),
    _Listing("ADA", "0.52310", "0.00010", 5, 0, 4, 1),
    _Listing("LINK", "13.422", "0.001", 3, 2, 3, 2),
    _Listing("AVAX", "15.1200", "0.0010", 4, 0, 3, 2),
    _Listing("SUI", "1.543200", "0.000100", 6, 1, 4, 1),
    _Listing("TRX", "0.28740", "0.00001", 5, 0, 4, 1),
    _Listing("LTC", "91.22", "0.01", 2, 3, 2, 3),
    _Listing("DOT", "2.532", "0.001", 3, 1, 3, 2),
    _Listing("BCH", "511.30", "0.01", 2, 3, 1, 3),
    _Listing("CRV", "0.20382", "0.00001", 5, 1, 4, 1),
    _Listing("HYPE", "38.21000", "0.00100", 5, 2, 3, 2),
    _Listing("NEAR", "2.0110", "0.0010", 4, 0, 3, 1),
    _Listing("AAVE", "172.310", "0.010", 3, 1, 2, 3),
    _Listing("UNI", "7.2310", "0.0010", 4, 0, 3, 2),
    _Listing("我踏马来了", "0.02345", "0.00001", 5, 0, 5, 0),
    _Listing("1000000MOG", "0.3412", "0.0001", 4, 1, 4, 1),
    _Listing("1MBABYDOGE", "0.0009130", "0.0000001", 7, 0, 7, 0),
    _Listing("1000FLOKI", "0.06122", "0.00001", 5, 0, 5, 0),
    _Listing("SHIB", "0.00000842", "0.00000001", 8, 0, 8, 0, 5e8),
    _Listing("FIL", "1.732", "0.001", 3, 1, 3, 2),
)

_SYLLABLES = ("A", "BO", "CE", "DI", "FU", "GA", "HE", "IX", "JO", "KA", "LU", "MI", "NO", "PY", "QU", "RA")


def _listing(rank: int) -> _Listing:
    if rank < len(_KNOWN):
        return _KNOWN[rank]
    n = rank - len(_KNOWN)
    base = _SYLLABLES[n % 16] + _SYLLABLES[(n // 16) % 16] + (str(n // 256) if n >= 256 else "") + "X"
    decimals = 2 + n % 5
    price = f"{(4000 + 37 * (n % 900)) / 10**decimals:.{decimals}f}"
    return _Listing(base, price, f"{1 / 10**decimals:.{decimals}f}", decimals, n % 3, decimals, n % 3)


def base_of(rank: int) -> str:
    return _listing(rank).base


def _typical(listing: _Listing, price: float, quantity_decimals: int) -> int:
    size = listing.typical or max(2_500.0 / price, 10**-quantity_decimals)
    return max(4, int(size * 10**quantity_decimals))


def _units(text: str, decimals: int) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole + fraction[:decimals].ljust(decimals, "0"))


def binance_futures_instrument(rank: int, *, symbol: str | None = None) -> Instrument:
    """The USDT perpetual of this rank (0 is the most active)."""
    listing = _listing(rank)
    decimals = listing.futures_price_decimals
    return Instrument(
        symbol=symbol or f"{listing.base}USDT",
        base=symbol.removesuffix("USDT") if symbol else listing.base,
        quote="USDT",
        price_decimals=decimals,
        quantity_decimals=listing.futures_quantity_decimals,
        tick=_units(listing.futures_tick, decimals),
        lot=1,
        price=_units(listing.price, decimals),
        typical_size=_typical(listing, float(listing.price), listing.futures_quantity_decimals),
        rank=rank,
    )


def binance_spot_instrument(rank: int, *, symbol: str | None = None) -> Instrument:
    """The USDT pair of this rank; texts are padded to 8 decimals."""
    listing = _listing(rank)
    decimals = listing.spot_price_decimals
    return Instrument(
        symbol=symbol or f"{listing.base}USDT",
        base=symbol.removesuffix("USDT") if symbol else listing.base,
        quote="USDT",
        price_decimals=decimals,
        quantity_decimals=listing.spot_quantity_decimals,
        tick=1,
        lot=1,
        price=_units(listing.price, decimals),
        typical_size=_typical(listing, float(listing.price), listing.spot_quantity_decimals),
        rank=rank,
        price_pad=SPOT_PAD,
        quantity_pad=SPOT_PAD,
        is_spot=True,
    )


_LIGHTER_IDS = {"ETH": 0, "BTC": 1, "HYPE": 24, "CRV": 36}


def lighter_instrument(rank: int, *, symbol: str | None = None, market_id: int | None = None) -> Instrument:
    """The Lighter market of this rank: a bare base as its name and an integer market id below 255."""
    listing = _listing(rank)
    decimals = listing.futures_price_decimals
    name = symbol or listing.base
    if market_id is None:
        market_id = _LIGHTER_IDS.get(name, 40 + rank)
    return Instrument(
        symbol=name,
        base=name,
        quote="USDC",
        price_decimals=decimals,
        quantity_decimals=max(1, listing.futures_quantity_decimals),
        tick=_units(listing.futures_tick, decimals),
        lot=1,
        price=_units(listing.price, decimals),
        typical_size=_typical(listing, float(listing.price), max(1, listing.futures_quantity_decimals)),
        rank=rank,
        market_id=market_id,
    )


def lighter_spot_instrument() -> Instrument:
    """Lighter's spot markets carry a slash in their name and ids from 2048 on."""
    return Instrument(
        symbol="SKY/USDC",
        base="SKY",
        quote="USDC",
        price_decimals=5,
        quantity_decimals=1,
        tick=1,
        lot=1,
        price=6_123,
        typical_size=40_000,
        rank=5,
        market_id=2048,
        is_spot=True,
    )
