"""``exchangeInfo`` of the simulated venues, odd rows included.

Beside the symbols that trade there are rows a client must filter out: delisted, dated, TradFi and not quoted
in USDT.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simulator.instruments import Instrument

if TYPE_CHECKING:
    from simulator.binance_live import LiveBinance

_PERPETUAL_END_MS = 4_133_404_800_000


def _spot_row(i: Instrument, status: str, *, quote: str = "USDT") -> dict[str, Any]:
    return {
        "symbol": i.symbol,
        "status": status,
        "baseAsset": i.base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": status == "TRADING",
        "isMarginTradingAllowed": False,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": i.tick_text,
                "maxPrice": i.price_text(i.price * 100),
                "tickSize": i.tick_text,
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": i.lot_text,
                "maxQty": i.quantity_text(i.typical_size * 1_000_000),
                "stepSize": i.lot_text,
            },
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }


def _futures_row(
    i: Instrument,
    status: str,
    listed_ms: int,
    *,
    contract_type: str = "PERPETUAL",
    quote: str = "USDT",
    pair: str | None = None,
    delivery_ms: int = _PERPETUAL_END_MS,
    underlying: str = "COIN",
) -> dict[str, Any]:
    return {
        "symbol": i.symbol,
        "pair": pair or i.symbol,
        "contractType": contract_type,
        "deliveryDate": delivery_ms,
        "onboardDate": listed_ms,
        "status": status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": i.base,
        "quoteAsset": quote,
        "marginAsset": quote,
        "pricePrecision": i.price_decimals,
        "quantityPrecision": i.quantity_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": underlying,
        "underlyingSubType": ["PoW"],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10000,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": i.tick_text,
                "maxPrice": i.price_text(i.price * 100),
                "tickSize": i.tick_text,
            },
            {
                "filterType": "LOT_SIZE",
                "stepSize": i.lot_text,
                "minQty": i.lot_text,
                "maxQty": i.quantity_text(i.typical_size * 1_000_000),
            },
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ],
        "orderTypes": ["LIMIT", "MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
        "permissionSets": ["GRID"],
    }


def _odd(symbol: str, base: str, rank: int) -> Instrument:
    return Instrument(symbol, base, "", 4, 0, 1, 1, 1642, 1000, rank, 0, 0)


def _spot_symbols(venue: LiveBinance) -> list[dict[str, Any]]:
    rows = [_spot_row(listed.instrument, listed.status) for listed in venue.listed.values()]
    rows.append(_spot_row(_odd("BTCUSDC", "BTC", 900), "TRADING", quote="USDC"))
    rows.append(_spot_row(_odd("OMGUSDT", "OMG", 901), "BREAK"))
    return rows


def _futures_symbols(venue: LiveBinance) -> list[dict[str, Any]]:
    rows = [
        _futures_row(
            listed.instrument,
            listed.status,
            listed.listed_ms if listed.listed_ms > venue.start_ms else 1_567_965_300_000,
            delivery_ms=_PERPETUAL_END_MS if listed.status != "SETTLING" else venue.now_ms(),
        )
        for listed in venue.listed.values()
    ]
    old = 1_567_965_300_000
    rows.append(_futures_row(_odd("OMGUSDT", "OMG", 900), "SETTLING", old, delivery_ms=1_738_314_000_000))
    rows.append(
        _futures_row(
            _odd("BTCUSDT_261225", "BTC", 901), "TRADING", old, contract_type="CURRENT_QUARTER", pair="BTCUSDT"
        )
    )
    rows.append(
        _futures_row(
            _odd("XAUUSDT", "XAU", 902),
            "TRADING",
            old,
            contract_type="TRADIFI_PERPETUAL",
            underlying="COMMODITY",
        )
    )
    rows.append(_futures_row(_odd("BTCUSDC", "BTC", 903), "TRADING", old, quote="USDC"))
    return rows


def _limits(venue: LiveBinance) -> list[dict[str, Any]]:
    def limit(kind: str, interval: str, number: int, value: int) -> dict[str, Any]:
        return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": value}

    weight = limit("REQUEST_WEIGHT", "MINUTE", 1, venue.limiter.limit)
    if venue.is_spot:
        return [weight, limit("ORDERS", "SECOND", 10, 100), limit("RAW_REQUESTS", "MINUTE", 5, 61_000)]
    return [weight, limit("ORDERS", "MINUTE", 1, 1200), limit("ORDERS", "SECOND", 10, 300)]


def exchange_info(venue: LiveBinance, query: Mapping[str, str]) -> str:
    """The JSON text; spot takes ``symbol`` or ``symbols``, futures always answer all."""
    rows = _spot_symbols(venue) if venue.is_spot else _futures_symbols(venue)
    if venue.is_spot and ("symbol" in query or "symbols" in query):
        names = [query["symbol"]] if "symbol" in query else json.loads(query["symbols"])
        rows = [row for row in rows if row["symbol"] in names]
    head: dict[str, Any] = {"timezone": "UTC", "serverTime": venue.now_ms()}
    if not venue.is_spot:
        head["futuresType"] = "U_MARGINED"
    body = {**head, "rateLimits": _limits(venue), "exchangeFilters": []}
    if not venue.is_spot:
        body["assets"] = [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"}]
    return json.dumps({**body, "symbols": rows}, ensure_ascii=False, separators=(",", ":"))
