"""What a receipt accounts for: REST answers, instruments, rejects, damage, connections."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from depthvault.clock import datetime_from_ns
from depthvault.config import LighterConfig
from depthvault.exchanges import exchange
from depthvault.journal import Batch, closed_body, json_body, opened_body, parse_body, read, subscribed_body
from depthvault.seal.receipts import Connection, encode_receipt
from tests.depthvault.seal.conftest import HOUR, Tape, at, put_trades, ticker, trade

LINE = "GET /api/v3/depth?symbol=BTCUSDT&limit=1000"
SNAPSHOT = b'{"lastUpdateId":7,"bids":[["61837.63000000","3.78826000"]],"asks":[["61837.64000000","1.54698000"]]}'
INFO = "GET /api/v3/exchangeInfo"


def info(**status: str) -> bytes:
    symbols = [
        {
            "symbol": symbol, "status": state, "baseAsset": symbol.removesuffix("USDT"), "quoteAsset": "USDT",
            "isSpotTradingAllowed": True,
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01000000"},
                {"filterType": "LOT_SIZE", "minQty": "0.1", "maxQty": "9000.0", "stepSize": "0.00001000"},
            ],
        }
        for symbol, state in status.items()
    ]  # fmt: skip
    return json.dumps({"timezone": "UTC", "serverTime": 1, "symbols": symbols}).encode()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-01T{text}+00:00").astimezone(UTC)


def test_rest_answers_are_rows_with_the_time_of_their_request(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        writer.append_rest(LINE, SNAPSHOT, at("12:10:01"), at("12:10:01.5"), request=3)
    tape.seal()
    [row] = tape.rows("depth_snapshot").to_pylist()
    assert row["request_time"] == moment("12:10:01")
    assert row["received_time"] == moment("12:10:01.500")
    assert (row["symbol"], row["last_update_id"], row["limit"], row["source"]) == ("BTCUSDT", 7, 1000, "rest")
    assert (row["bid_prices"], row["ask_sizes"]) == ([61837.63], [1.54698])


def test_refilled_trades_are_marked_and_come_late_to_their_hour(tape: Tape) -> None:
    ms = at("09:59:00") // 1_000_000
    body = b'[{"a":26129,"p":"0.01633102","q":"4.70443515","f":27781,"l":27781,"T":%d,"m":true,"M":true}]' % ms
    with tape.begin("12:10:00") as writer:
        writer.append_rest(
            "GET /api/v3/aggTrades?symbol=BTCUSDT&fromId=26129", body, at("12:10:01"), at("12:10:02"), source="refill"
        )
    tape.seal()
    nine = tape.layout.period_of(moment("09:00:00"))
    [row] = tape.rows("agg_trade", nine, late=HOUR).to_pylist()
    assert (row["agg_trade_id"], row["source"], row["symbol"]) == (26129, "refill", "BTCUSDT")


def test_rows_of_a_channel_from_stream_and_rest_keep_the_journals_order(tape: Tape) -> None:
    def aggregate(number: int) -> bytes:
        data = {"e": "aggTrade", "E": at("12:10:00") // 10**6, "s": "BTCUSDT", "a": number, "p": "0.001", "q": "100",
                "f": 1, "l": 1, "T": at("12:10:00") // 10**6, "m": True, "M": True}  # fmt: skip
        return json.dumps({"stream": "btcusdt@aggTrade", "data": data}).encode()

    answer = b'[{"a":2,"p":"0.001","q":"1","f":1,"l":1,"T":%d,"m":true,"M":true}]' % (at("12:10:00") // 10**6)
    with tape.begin("12:10:00") as writer:
        writer.append("frame", 1, "btcusdt@aggTrade", aggregate(1))
        writer.append_rest("GET /api/v3/aggTrades?symbol=BTCUSDT&fromId=2", answer, at("12:10:00"), source="refill")
        writer.append("frame", 1, "btcusdt@aggTrade", aggregate(3))
    tape.seal()
    rows = tape.rows("agg_trade")
    assert rows.column("agg_trade_id").to_pylist() == [1, 2, 3]
    assert rows.column("source").to_pylist() == ["stream", "refill", "stream"]


def test_instruments_are_rows_when_they_change(tape: Tape) -> None:
    with tape.begin("11:59:30") as writer:
        writer.set_catalogue(INFO, info(BTCUSDT="TRADING"), at("11:59:30"), at("11:59:31"))
        for minute, state in enumerate(("TRADING", "TRADING", "BREAK", "BREAK"), 1):
            now = at(f"12:0{minute}:00")
            writer.set_catalogue(INFO, info(BTCUSDT=state, ETHUSDT="TRADING"), now, now)
    tape.seal()
    rows = tape.rows("instrument").to_pylist()
    assert [(row["symbol"], row["status"], row["received_time"].minute) for row in rows] == [
        ("BTCUSDT", "TRADING", 1),  # the first of the hour stands there although it is as before
        ("ETHUSDT", "TRADING", 1),
        ("BTCUSDT", "BREAK", 3),
    ]
    assert (rows[0]["tick_size"], rows[0]["lot_size"]) == (0.01, 0.00001)


def test_the_next_file_is_self_contained(tape: Tape) -> None:
    writer = tape.begin("12:10:00")
    writer.set_catalogue(INFO, info(BTCUSDT="TRADING"), at("12:10:00"))
    tape.clock.wall = at("13:00:00")
    assert writer.rotate_if_due()
    tape.clock.wall = at("13:10:00")
    writer.close()
    tape.seal(HOUR)
    tape.seal(HOUR.next())
    [first], [second] = tape.rows("instrument").to_pylist(), tape.rows("instrument", HOUR.next()).to_pylist()
    assert first["received_time"] == moment("12:10:00")
    assert second["received_time"] == moment("13:00:00")
    assert {**first, "received_time": 0} == {**second, "received_time": 0}


def test_frames_that_cannot_be_decoded_are_counted_and_say_where_they_lie(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        put_trades(writer, (1, "12:10:01", "12:10:01"))
        bad = writer.append("frame", 4, "btcusdt@trade", trade(2, "12:10:02").replace(b'"T":', b'"X":'), at("12:10:02"))
        put_trades(writer, (3, "12:10:03", "12:10:03"))
        noise = writer.append("frame", 5, "", b"\xff\xfenoise", at("12:10:04"))
        writer.append("frame", 5, "", b'{"result":null,"id":1}', at("12:10:05"))
        writer.append("frame", 5, "btcusdt@unheardOf", b'{"stream":"btcusdt@unheardOf","data":{}}', at("12:10:06"))
        writer.append("frame", 5, "btcusdt@unheardOf", b'{"stream":"btcusdt@unheardOf","data":{}}', at("12:10:06"))
        lone = writer.append("rest", 9, LINE, SNAPSHOT, at("12:10:07"))
    receipt = tape.seal()
    assert receipt.rejected == {"trade": 1, "frame": 1, "depth_snapshot": 1}
    assert receipt.unknown == {"btcusdt@unheardOf": 2}
    assert tape.ids() == [1, 3]
    rows = [row for row in tape.rows("collector_event").to_pylist() if row["kind"] == "malformed"]
    details = [parse_body(row["detail"].encode()) for row in rows]
    assert [(row["channel"], row["connection"]) for row in rows] == [("trade", 4), (None, 5), ("depth_snapshot", 9)]
    assert [detail["sequence"] for detail in details] == [bad, noise, lone]
    assert {detail["journal"] for detail in details} == {writer.path.name}
    assert all(detail["reason"] for detail in details)
    assert rows[0]["received_time"] == moment("12:10:02")


def test_a_frame_that_its_collector_could_not_name_is_decoded_all_the_same(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        writer.append("frame", 1, "", trade(1, "12:10:01"), at("12:10:01"))
    assert tape.seal().rejected == {}
    assert tape.ids() == [1]


def test_events_are_rows_with_their_detail_verbatim(tape: Tape) -> None:
    body = json_body(channel="depth_diff", symbol="BTCUSDT", last_id=5, first_id=9)
    with tape.begin("12:10:00") as writer:
        writer.append("event", 2, "gap", body, at("12:10:01"))
    tape.seal()
    rows = tape.rows("collector_event").to_pylist()
    assert [row["kind"] for row in rows] == ["start", "gap", "stop"]
    gap = rows[1]
    assert (gap["exchange"], gap["channel"], gap["symbol"], gap["connection"]) == (
        "binance_spot", "depth_diff", "BTCUSDT", 2,
    )  # fmt: skip
    assert gap["detail"] == body.decode()


# Damage


def flip(path: Path, number: int) -> Batch:
    """Change one byte of the journal's record `number`."""
    batches = [part for part in read(path) if isinstance(part, Batch)]
    data = bytearray(path.read_bytes())
    data[(batches[number].start + batches[number].end) // 2] ^= 1
    path.write_bytes(data)
    return batches[number]


def test_a_damaged_record_is_in_the_receipt_with_its_rows_and_times(tape: Tape) -> None:
    writer = tape.begin("12:10:00")
    for number in range(1, 10):
        put_trades(writer, (number, f"12:1{number}:00", f"12:1{number}:00"))
        if number % 3 == 0:
            writer.flush()
    writer.close()
    lost = flip(writer.path, 1)
    receipt = tape.seal()
    assert tape.ids() == [1, 2, 3, 7, 8, 9]
    [damage] = receipt.damage
    assert (damage.start, damage.end, damage.kind) == (lost.start, lost.end, "corrupt")
    assert (damage.last_sequence, damage.next_sequence) == (3, 7)
    assert (damage.from_ns, damage.until_ns) == (at("12:13:00"), at("12:17:00"))
    assert damage.path == receipt.journals[0].path
    # Sealed with the damage, the receipt is a pure function of what is there now, too.
    before = encode_receipt(receipt)
    assert encode_receipt(tape.seal()) == before


def test_damage_at_the_end_of_an_hour_is_declared_in_it(tape: Tape) -> None:
    writer = tape.begin("12:10:00")
    for number, time in enumerate(("12:58:00", "12:59:30", "13:20:00", "13:30:00"), 1):
        put_trades(writer, (number, time, time))
        writer.flush()
    tape.clock.wall = at("13:31:00")
    writer.close()
    flip(writer.path, 1)
    flip(writer.path, 1)  # what is now the second good record was the third
    [damage] = tape.seal().damage
    assert (damage.from_ns, damage.until_ns) == (at("12:58:00"), at("13:30:00"))
    assert [one.start for one in tape.seal(HOUR.next()).damage] == [damage.start]
    assert tape.layout.receipt("binance_spot", HOUR.previous(), "a").exists() is False


def test_a_torn_tail_is_declared_once_its_writer_is_gone(tape: Tape) -> None:
    writer = tape.begin("12:10:00")
    put_trades(writer, (1, "12:10:01", "12:10:01"))
    writer.flush()
    with writer.path.open("ab") as file:
        file.write(writer.path.read_bytes()[:100])
    assert tape.seal(final=False).damage == []
    writer._file.release()
    receipt = tape.seal()
    [damage] = receipt.damage
    assert (damage.kind, damage.until_ns) == ("torn", None)


# Connections


def only(connections: list[Connection]) -> Connection:
    [one] = connections
    return one


def test_connections_tell_when_and_why_they_ended_and_what_they_carried(tape: Tape) -> None:
    writer = tape.begin("12:10:00")
    writer.append("opened", 1, "/stream", opened_body(["x@trade"]), at("12:10:01"))
    writer.append("event", 1, "subscribe", subscribed_body(["y@trade", "z@trade"]), at("12:10:02"))
    writer.append("event", 1, "subscribe", subscribed_body(["y@trade"], active=False), at("12:10:03"))
    writer.append("opened", 2, "/other", opened_body(), at("12:10:04"))
    writer.append("closed", 1, "", closed_body(1006, "", "network", clean=False), at("12:10:05"))
    writer.append("closed", 2, "", closed_body(1000, "", "roll", clean=True), at("12:10:06"))
    writer.append("opened", 3, "/stream", opened_body(), at("12:10:07"))
    tape.clock.wall = at("12:10:08")
    writer.close("sigterm")
    one, two, three = tape.seal().connections
    assert (one.connection, one.route, one.cause, one.continues) == (1, "/stream", "closed", False)
    assert (one.opened_ns, one.closed_ns) == (at("12:10:01"), at("12:10:05"))
    assert [(span.stream, span.from_ns, span.until_ns) for span in one.streams] == [
        ("x@trade", at("12:10:01"), at("12:10:01")),
        ("y@trade", at("12:10:02"), at("12:10:03")),
        ("z@trade", at("12:10:02"), at("12:10:02")),
    ], "it broke without a frame: nobody can say that it ever lived"
    assert (two.cause, two.closed_ns) == ("roll", at("12:10:06"))
    assert (three.cause, three.closed_ns) == ("stop", at("12:10:08"))


def test_a_connection_goes_on_through_a_rotation(tape: Tape) -> None:
    writer = tape.begin("12:10:00")
    writer.append("opened", 1, "/stream", opened_body(["x@trade"]), at("12:10:01"))
    tape.clock.wall = at("13:00:00")
    assert writer.rotate_if_due()
    writer.append("opened", 1, "/stream", opened_body(["x@trade"], continues=True))
    tape.clock.wall = at("13:20:00")
    writer.append("closed", 1, "", closed_body(1000, "", "venue", clean=True))
    writer.close()
    before = only(tape.seal(HOUR).connections)
    after = next(one for one in tape.seal(HOUR.next()).connections if one.continues)
    assert (before.opened_ns, before.closed_ns, before.cause) == (at("12:10:01"), at("13:00:00"), "rotate")
    assert (after.opened_ns, after.closed_ns, after.cause) == (at("13:00:00"), at("13:20:00"), "closed")
    assert [span.stream for span in after.streams] == ["x@trade"]


def test_a_connection_that_is_open_at_the_end_of_the_hour_has_no_end(tape: Tape) -> None:
    writer = tape.begin("12:10:00")
    writer.append("opened", 1, "/stream", opened_body(), at("12:10:01"))
    put_trades(writer, (1, "13:05:00", "13:05:00"))
    writer.flush()
    one = only(tape.seal().connections)
    assert (one.closed_ns, one.cause) == (None, None)
    tape.clock.wall = at("13:06:00")
    writer.close()


def test_a_crash_ends_connections_with_the_last_row(tape: Tape) -> None:
    writer = tape.begin("12:10:00")
    writer.append("opened", 1, "/stream", opened_body(), at("12:10:01"))
    put_trades(writer, (1, "12:20:00", "12:20:00"))
    writer.flush()
    assert only(tape.seal(final=False).connections).closed_ns is None
    writer._file.release()  # what the end of a process does to its locks
    one = only(tape.seal().connections)
    assert (one.closed_ns, one.cause) == (at("12:20:00"), "crash")


def test_frames_refused_for_want_of_memory_are_in_the_receipt(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        body = json_body(reason="memory_limit", rows=7, kinds={"frame": 7}, connections=[1], from_ns=5, until_ns=9)
        sequence = writer.append("event", 0, "gap", body)
    [dropped] = tape.seal().dropped
    assert (dropped.rows, dropped.connections, dropped.from_ns, dropped.until_ns) == (7, [1], 5, 9)
    assert dropped.sequence == sequence


# Venues whose frames carry a market's number


def test_a_markets_number_is_its_symbol_by_the_catalogue_before_it(tmp_path: Path) -> None:
    tape = Tape(tmp_path, exchange("lighter", LighterConfig()))

    def catalogue(**markets: int) -> bytes:
        books = [
            {"symbol": symbol, "market_id": number, "market_type": "perp", "base_asset_id": 0, "quote_asset_id": 0,
             "status": "active", "taker_fee": "0", "maker_fee": "0", "liquidation_fee": "1",
             "min_base_amount": "0.1", "min_quote_amount": "10", "order_quote_limit": "1",
             "supported_size_decimals": 1, "supported_price_decimals": 5, "supported_quote_decimals": 6}
            for symbol, number in markets.items()
        ]  # fmt: skip
        return json.dumps({"code": 200, "order_books": books}).encode()

    def fill(number: int, nonce: int) -> bytes:
        one = {"trade_id": nonce, "tx_hash": "", "type": "trade", "market_id": number, "size": "1.5", "price": "2.25",
               "usd_amount": "3.375", "ask_id": 1, "bid_id": 2, "ask_account_id": 3, "bid_account_id": 4,
               "is_maker_ask": True, "block_height": 1, "timestamp": at("12:10:01") // 10**6}  # fmt: skip
        forced = {**one, "trade_id": nonce + 1, "type": "liquidation"}
        return json.dumps(
            {"channel": f"trade:{number}", "liquidation_trades": [forced], "nonce": nonce, "trades": [one],
             "type": "update/trade"}
        ).encode()  # fmt: skip

    line = tape.venue.catalogue_request().line
    with tape.begin("12:10:00") as writer:
        writer.set_catalogue(line, catalogue(ETH=0, CRV=1), at("12:10:00"))
        writer.append("frame", 1, "trade:1", fill(1, 10), at("12:10:01"))
        writer.set_catalogue(line, catalogue(ETH=0, SKY=1), at("12:10:02"))
        writer.append("frame", 1, "trade:1", fill(1, 20), at("12:10:03"))
    receipt = tape.seal()
    assert receipt.rejected == {}
    trades = tape.rows("trade").to_pylist()
    assert [(row["symbol"], row["trade_id"]) for row in trades if row["trade_id"] in (10, 20)] == [
        ("CRV", 10),
        ("SKY", 20),
    ]
    forced = tape.rows("liquidation").to_pylist()
    assert [(row["symbol"], row["trade_id"]) for row in forced] == [("CRV", 11), ("SKY", 21)]


def test_no_unit_holds_a_time_that_is_not_utc(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        writer.append("frame", 1, "btcusdt@bookTicker", ticker(1), at("12:10:01"))
    tape.seal()
    [row] = tape.rows("book_ticker").to_pylist()
    assert row["received_time"] == datetime_from_ns(at("12:10:01"))


@pytest.mark.parametrize("period", [HOUR.previous(), HOUR.next()])
def test_there_is_nothing_to_seal_where_nothing_was_received(tape: Tape, period: object) -> None:
    from depthvault.period import Period
    from depthvault.seal import seal
    from tests.depthvault.seal.conftest import GRACE

    assert isinstance(period, Period)
    tape.begin("12:10:00").close()
    assert seal(tape.layout, tape.venue, "a", period, grace=GRACE) is None
