"""Every frame is told for what it is, and nothing that arrives can raise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthvault.errors import MalformedFrameError
from depthvault.exchanges.base import FrameKind
from tests.depthvault.exchanges.recordings import venue
from tests.depthvault.exchanges.test_scanner_equals_reference import EXAMPLES

UNDOCUMENTED = "not a message that the venue documents"
SPOT, FUTURES, LIGHTER = venue("binance_spot"), venue("binance_futures"), venue("lighter")


@pytest.mark.parametrize("exchange", [SPOT, FUTURES])
@pytest.mark.parametrize(
    ("frame", "kind", "request_id", "reason"),
    [
        (b'{"result":null,"id":7}', FrameKind.ACK, 7, ""),
        (b'{"id":7,"result":null}', FrameKind.ACK, 7, ""),
        (b'{"result":["btcusdt@depth"],"id":3}', FrameKind.ACK, 3, ""),
        (b'{"code":2,"msg":"Invalid request"}', FrameKind.ERROR, None, "2 Invalid request"),
        (b'{"error":{"code":4,"msg":"Too many subscriptions"},"id":9}', FrameKind.ERROR, 9, "4 Too many subscriptions"),
        (b'{"error":{"code":2,"msg":"x"},"id":"abc"}', FrameKind.ERROR, None, "2 x"),
        (b'{"e":"serverShutdown","E":1770123456789}', FrameKind.SHUTDOWN, None, ""),
        (b'{"e":"somethingNew","E":1770123456789}', FrameKind.OTHER, None, ""),
        (b"", FrameKind.MALFORMED, None, "not a message of the combined stream form"),
        (b"\xff\xfe", FrameKind.MALFORMED, None, "not a message of the combined stream form"),
        (b"[]", FrameKind.MALFORMED, None, "not a message of the combined stream form"),
        (b"[" * 100_000, FrameKind.MALFORMED, None, "not a message of the combined stream form"),
    ],
)
def test_binance_control_messages(exchange, frame, kind, request_id, reason) -> None:  # type: ignore[no-untyped-def]
    found = exchange.classify(frame)
    assert (found.kind, found.request_id, found.reason) == (kind, request_id, reason)
    assert found.stream == ""


def test_a_shutdown_arrives_without_subscription() -> None:
    frame = b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}'
    for _ in range(2):
        assert SPOT.classify(frame).kind is FrameKind.SHUTDOWN


@pytest.mark.parametrize("shape", ["spot diff", "futures diff"])
def test_data_is_told_the_first_time_and_from_memory(shape: str) -> None:
    exchange = SPOT if shape.startswith("spot") else FUTURES
    for _ in range(2):
        frame = exchange.classify(EXAMPLES[shape])
        assert (frame.kind, frame.stream) == (FrameKind.DATA, "btcusdt@depth@100ms")
        assert exchange.classify(EXAMPLES[shape][:-1]).kind is FrameKind.MALFORMED, "cut short"


def test_a_stream_of_an_unknown_kind_is_kept_but_is_no_data() -> None:
    frame = b'{"stream":"btcusdt@referencePrice","data":{"e":"referencePrice","s":"BTCUSDT","r":"1","t":1}}'
    for _ in range(2):
        assert SPOT.classify(frame).kind is FrameKind.OTHER


def test_a_non_ascii_stream_name_comes_out_as_text() -> None:
    frame = '{"stream":"币安人生usdt@bookTicker","data":{"e":"bookTicker"}}'.encode()
    assert FUTURES.classify(frame).stream == "币安人生usdt@bookTicker"


@pytest.mark.parametrize(
    ("frame", "kind", "stream", "reason"),
    [
        (b'{"session_id":"b23c","type":"connected"}', FrameKind.OTHER, "", ""),
        (b'{"type":"pong"}', FrameKind.OTHER, "", ""),
        (b'{"type": "unsubscribed", "channel": "order_book:0"}', FrameKind.ACK, "order_book:0", ""),
        (b'{"error":{"code":30009,"message":"Too Many"}}', FrameKind.ERROR, "", "30009 Too Many"),
        (b'{"channel":"height","height":3,"timestamp":1,"type":"update/height"}', FrameKind.OTHER, "height", ""),
        (b'{"channel":"order_book:36","type":"update/trade"}', FrameKind.MALFORMED, "", UNDOCUMENTED),
        (b'{"type":5}', FrameKind.MALFORMED, "", UNDOCUMENTED),
    ],
)  # fmt: skip
def test_lighter_messages(frame: bytes, kind: FrameKind, stream: str, reason: str) -> None:
    for _ in range(2):
        found = LIGHTER.classify(frame)
        assert (found.kind, found.stream, found.reason) == (kind, stream, reason)


def test_lighter_asks_for_a_pong() -> None:
    found = LIGHTER.classify(b'{"type":"ping"}')
    assert (found.kind, found.reply) == (FrameKind.PING, b'{"type":"pong"}')


def test_lighter_books_are_data_both_ways_of_coming() -> None:
    update = EXAMPLES["lighter"]
    for frame in (update, update.replace(b"update/", b"subscribed/"), update):
        assert LIGHTER.classify(frame).kind is FrameKind.DATA
        assert LIGHTER.classify(frame).stream == "order_book:36"


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(lambda tail: b'{"stream":"' + tail, st.binary(max_size=40)),
        st.builds(lambda tail: b'{"channel":"' + tail, st.binary(max_size=40)),
        st.builds(lambda name: b'{"stream":"' + name + b'","data":{}}', st.binary(max_size=20)),
    )
)
def test_nothing_raises(frame: bytes) -> None:
    for exchange in (SPOT, FUTURES, LIGHTER):
        exchange.classify(frame)
        exchange.event_ms(frame)
        with pytest.raises(MalformedFrameError):
            exchange.head(frame)


def test_heads_carry_the_ids_of_the_chain() -> None:
    spot, futures, update = (
        exchange.head(EXAMPLES[shape])
        for exchange, shape in ((SPOT, "spot diff"), (FUTURES, "futures diff"), (LIGHTER, "lighter"))
    )
    assert (spot.first, spot.final, spot.prev, spot.event_ms) == (100530416194, 100530416202, None, 1790134512214)
    assert (futures.first, futures.final, futures.prev) == (11660059838224, 11660059844303, 11660059836647)
    assert (update.final, update.prev, update.is_snapshot) == (18032384006, 18032383898, False)
    whole = LIGHTER.head(EXAMPLES["lighter"].replace(b"update/", b"subscribed/"))
    assert (whole.final, whole.prev, whole.is_snapshot) == (18032384006, None, True)


def test_fields_in_another_order_are_still_fields() -> None:
    moved = (
        EXAMPLES["futures diff"].replace(b'"E":1790373637622,', b"").replace(b',"st":1', b',"st":1,"E":1790373637622')
    )
    assert FUTURES.head(moved) == FUTURES.head(EXAMPLES["futures diff"])
    update = (
        EXAMPLES["lighter"]
        .replace(b'"nonce":18032384006,', b"")
        .replace(b'{"code":0', b'{"nonce":18032384006,"code":0')
    )
    assert LIGHTER.head(update) == LIGHTER.head(EXAMPLES["lighter"])


@pytest.mark.parametrize(
    ("exchange", "frame"),
    [
        (SPOT, EXAMPLES["spot diff"].replace(b'"U":100530416194', b'"U":100530416999')),
        (FUTURES, EXAMPLES["futures diff"].replace(b'"U":11660059838224', b'"U":11660059999999')),
        (FUTURES, EXAMPLES["futures diff"].replace(b'"pu":11660059836647,', b"")),
        (SPOT, EXAMPLES["spot partial"]),
        (LIGHTER, EXAMPLES["lighter"].replace(b'"nonce":18032384006,', b"")),
    ],
)
def test_impossible_ids_are_malformed(exchange, frame) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MalformedFrameError):
        exchange.head(frame)
