"""Sessions speak of symbols and of every channel that a subscription feeds, also where streams have only numbers."""

from __future__ import annotations

import json
from pathlib import Path

from depthvault.archive.inputs import Sealed, channel_inputs, listening
from depthvault.config import LighterConfig
from depthvault.exchanges import exchange
from depthvault.journal import opened_body
from tests.depthvault.seal.conftest import HOUR, Tape, at

CATALOGUE = {
    "code": 200,
    "order_books": [
        {
            "symbol": "CRV",
            "market_id": 36,
            "market_type": "perp",
            "status": "active",
            "supported_size_decimals": 1,
            "supported_price_decimals": 5,
        }
    ],
}
BOOK = (
    b'{"channel":"order_book:36","offset":1,"order_book":{"code":0,"asks":[],"bids":[{"price":"1","size":"2"}],'
    b'"offset":1,"nonce":9,"last_updated_at":%d,"begin_nonce":0},"timestamp":%d,"type":"subscribed/order_book"}'
)


def test_a_session_names_symbols_and_derived_channels(tmp_path: Path) -> None:
    venue = exchange("lighter", LighterConfig())
    tape = Tape(tmp_path, venue)
    with tape.begin("12:10:00") as writer:
        writer.set_catalogue(venue.catalogue_request().line, json.dumps(CATALOGUE).encode(), at("12:10:00"))
        writer.append("opened", 1, "/stream", opened_body(["order_book:36", "trade:36"]), at("12:10:00"))
        now = at("12:10:01")
        writer.append("frame", 1, "order_book:36", BOOK % (now // 1000, now // 1_000_000), now)
    receipt = tape.seal()
    assert receipt.markets == {"36": "CRV"}
    assert tape.rows("depth_diff")["symbol"].to_pylist() == ["CRV"]
    sealed = [Sealed("receipt.json", "0" * 64, receipt)]
    sessions, _ = listening(tape.layout, sealed, (HOUR.label,), venue)
    assert [session.subscriptions for session in sessions] == [
        {("depth_diff", "CRV"), ("trade", "CRV"), ("liquidation", "CRV")}
    ]
    inputs = channel_inputs(tape.layout, sealed, HOUR.label, venue)
    assert {"depth_diff", "trade", "liquidation"} <= set(inputs), "silent channels are to be accounted for too"
