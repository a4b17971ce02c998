"""Lighter message bodies, field by field as captured on the mainnet in July 2026."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from simulator.binance_texts import value_text
from simulator.instruments import Instrument
from simulator.market import Fill


def dumps(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def levels(i: Instrument, changes: Iterable[tuple[int, int]]) -> str:
    price, size = i.price_text, i.quantity_text
    return ",".join([f'{{"price":"{price(p)}","size":"{size(q)}"}}' for p, q in changes])


def order_book(
    i: Instrument, kind: str, *, asks: str, bids: str, offset: int, nonce: int, begin: int, at_us: int, now_ms: int
) -> bytes:
    """``kind`` is ``subscribed`` (``begin`` 0) or ``update``."""
    return (
        f'{{"channel":"order_book:{i.market_id}","last_updated_at":{at_us},"offset":{offset},'
        f'"order_book":{{"code":0,"asks":[{asks}],"bids":[{bids}],"offset":{offset},"nonce":{nonce},'
        f'"last_updated_at":{at_us},"begin_nonce":{begin}}},"timestamp":{now_ms},"type":"{kind}/order_book"}}'
    ).encode()


def empty_order_book(i: Instrument, now_ms: int) -> bytes:
    """The snapshot of a market without any order: no outer ``last_updated_at``, nonce 0, offset 1."""
    return (
        f'{{"channel":"order_book:{i.market_id}","offset":1,"order_book":{{"code":0,"asks":[],"bids":[],'
        f'"offset":1,"nonce":0,"last_updated_at":0,"begin_nonce":0}},"timestamp":{now_ms},'
        f'"type":"subscribed/order_book"}}'
    ).encode()


def trade_row(i: Instrument, fill: Fill, kind: str) -> str:
    """One trade; ids above 2**53 are real, hence the ``_str`` twins."""
    ask_id, bid_id = 10_414_574_259_000_000 + fill.trade_id % 10**6, 10_696_048_997_000_000 + fill.trade_id % 10**6
    # is_maker_ask: the taker bought.
    maker_ask = "false" if fill.buyer_is_maker else "true"
    return (
        f'{{"trade_id":{fill.trade_id},"trade_id_str":"{fill.trade_id}","tx_hash":"{fill.trade_id:080x}",'
        f'"type":"{kind}","market_id":{i.market_id},"size":"{i.quantity_text(fill.quantity)}",'
        f'"price":"{i.price_text(fill.price)}","usd_amount":"{value_text(i, fill.price * fill.quantity)}",'
        f'"ask_id":{ask_id},"ask_id_str":"{ask_id}","bid_id":{bid_id},"bid_id_str":"{bid_id}",'
        f'"ask_client_id":0,"ask_client_id_str":"0","bid_client_id":0,"bid_client_id_str":"0",'
        f'"ask_account_id":314233,"bid_account_id":382258,"is_maker_ask":{maker_ask},'
        f'"block_height":{fill.time_ms // 100},"timestamp":{fill.time_ms},"taker_position_size_before":"0.0",'
        f'"taker_entry_quote_before":"0.000000","taker_initial_margin_fraction_before":1000,"maker_fee":28,'
        f'"maker_position_size_before":"0.0","maker_entry_quote_before":"0.000000",'
        f'"maker_initial_margin_fraction_before":1000,"transaction_time":{fill.time_ms * 1000 + fill.trade_id % 1000}}}'
    )


def trades(i: Instrument, kind: str, nonce: int, ordinary: Iterable[str], liquidations: Iterable[str]) -> bytes:
    return (
        f'{{"channel":"trade:{i.market_id}","liquidation_trades":[{",".join(liquidations)}],"nonce":{nonce},'
        f'"trades":[{",".join(ordinary)}],"type":"{kind}/trade"}}'
    ).encode()


def ticker(i: Instrument, top: tuple[int, int, int, int], nonce: int, at_us: int, now_ms: int) -> bytes:
    price, size = i.price_text, i.quantity_text
    return (
        f'{{"channel":"ticker:{i.market_id}","last_updated_at":{at_us},"nonce":{nonce},"ticker":{{"s":"{i.symbol}",'
        f'"a":{{"price":"{price(top[2])}","size":"{size(top[3])}"}},'
        f'"b":{{"price":"{price(top[0])}","size":"{size(top[1])}"}},"last_updated_at":{at_us}}},'
        f'"timestamp":{now_ms},"type":"update/ticker"}}'
    ).encode()


def market_stats(channel: str, stats: Mapping[str, Any], kind: str, now_ms: int) -> bytes:
    return dumps(
        {
            "channel": f"market_stats:{channel}",
            "market_stats": stats,
            "timestamp": now_ms,
            "type": f"{kind}/market_stats",
        }
    )
