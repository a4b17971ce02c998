"""Receipts tell of each subscription when it was heard first, and where it fell silent."""

from __future__ import annotations

import pytest

from depthvault.config import LighterConfig
from depthvault.exchanges import exchange
from depthvault.exchanges.base import Exchange
from depthvault.journal import closed_body, json_body, opened_body, subscribed_body
from depthvault.seal.receipts import Receipt, StreamSpan
from tests.depthvault.seal.conftest import HOUR, Tape, at, put_trades, ticker

STREAM = "btcusdt@trade"


def stale(action: str, silent_s: float, stream: str = STREAM) -> bytes:
    return json_body(stream=stream, action=action, silent_s=silent_s, ever=True)


def span(start: str, until: str | None, heard: str | None, *, silent: bool = False, name: str = STREAM) -> StreamSpan:
    return StreamSpan(
        stream=name, from_ns=at(start), until_ns=None if until is None else at(until),
        heard_ns=None if heard is None else at(heard), silent=silent,
    )  # fmt: skip


def spans(receipt: Receipt, connection: int = 1) -> list[StreamSpan]:
    (one,) = [link for link in receipt.connections if link.connection == connection]
    return one.streams


def test_a_subscription_is_heard_from_its_first_frame_on(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        writer.append("opened", 1, "/stream", opened_body(), at("12:10:00"))
        names = [STREAM, "btcusdt@bookTicker"]
        writer.append("event", 1, "subscribe", subscribed_body(names), at("12:10:01"))
        put_trades(writer, (1, "12:10:04", "12:10:04"), (2, "12:10:05", "12:10:05"))
        tape.clock.wall = at("12:20:00")
    assert spans(tape.seal()) == [
        span("12:10:01", None, None, name="btcusdt@bookTicker"),
        span("12:10:01", None, "12:10:04"),
    ]


def test_a_frame_on_another_connection_says_nothing_for_this_one(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        for number in (1, 2):
            writer.append("opened", number, "/stream", opened_body([STREAM]), at("12:10:00"))
        put_trades(writer, (1, "12:10:04", "12:10:04"))  # on connection 1
        tape.clock.wall = at("12:20:00")
    receipt = tape.seal()
    assert spans(receipt, 1) == [span("12:10:00", None, "12:10:04")]
    assert spans(receipt, 2) == [span("12:10:00", None, None)]


def test_each_subscription_must_be_heard_anew(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        writer.append("opened", 1, "/stream", opened_body([STREAM]), at("12:10:00"))
        put_trades(writer, (1, "12:10:04", "12:10:04"))
        writer.append("event", 1, "subscribe", subscribed_body([STREAM], active=False), at("12:11:00"))
        writer.append("event", 1, "subscribe", subscribed_body([STREAM]), at("12:11:01"))
        writer.flush()
        tape.clock.wall = at("12:20:00")
    assert spans(tape.seal()) == [span("12:10:00", "12:11:00", "12:10:04"), span("12:11:01", None, None)]


def test_the_answer_to_an_unsubscribe_is_no_frame_of_the_stream(tape: Tape) -> None:
    lighter = exchange("lighter", LighterConfig())
    tape = Tape(tape.layout.root, lighter)
    answer = b'{"type": "unsubscribed", "channel": "ticker:0"}'
    data = b'{"channel":"ticker:0","type":"update/ticker"}'
    with tape.begin("12:10:00") as writer:
        writer.append("opened", 1, "/stream", opened_body(["ticker:0"]), at("12:10:00"))
        writer.append("frame", 1, "ticker:0", answer, at("12:10:01"))
        writer.append("frame", 1, "ticker:0", data, at("12:10:02"))
        tape.clock.wall = at("12:20:00")
    assert spans(tape.seal()) == [span("12:10:00", None, "12:10:02", name="ticker:0")]


def test_what_the_watchdog_found_silent_ends_with_its_last_frame(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        writer.append("opened", 1, "/stream", opened_body([STREAM]), at("12:10:00"))
        put_trades(writer, (1, "12:10:04", "12:10:04"), (2, "12:12:00", "12:12:00"))
        writer.append("event", 0, "stale", stale("resubscribe", 60.0), at("12:13:00"))
        writer.append("event", 1, "subscribe", subscribed_body([STREAM], active=False), at("12:13:01"))
        writer.append("event", 1, "subscribe", subscribed_body([STREAM]), at("12:13:02"))
        put_trades(writer, (3, "12:13:30", "12:13:30"))
        writer.append("event", 0, "stale", stale("recovered", 90.0), at("12:13:31"))
        tape.clock.wall = at("12:20:00")
    assert spans(tape.seal()) == [
        span("12:10:00", "12:12:00", "12:10:04"),
        span("12:13:00", "12:13:01", None, silent=True),
        span("12:13:02", None, "12:13:30", silent=True),
    ]


def test_a_stream_stays_silent_on_a_new_connection_until_it_speaks(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        writer.append("opened", 1, "/stream", opened_body([STREAM]), at("12:10:00"))
        writer.append("event", 0, "stale", stale("renew", 60.0), at("12:11:00"))
        writer.append("opened", 2, "/stream", opened_body(), at("12:11:01"))
        writer.append("event", 2, "subscribe", subscribed_body([STREAM]), at("12:11:02"))
        writer.append("closed", 1, "", closed_body(1000, "roll", "roll", clean=True), at("12:11:10"))
        tape.clock.wall = at("12:20:00")
    receipt = tape.seal()
    assert spans(receipt, 1) == [span("12:10:00", "12:10:00", None), span("12:11:00", None, None, silent=True)]
    assert spans(receipt, 2) == [span("12:11:02", None, None, silent=True)]


def test_a_connection_found_silent_as_a_whole_silences_its_streams_alone(tape: Tape) -> None:
    with tape.begin("12:10:00") as writer:
        for number, stream in ((1, STREAM), (2, "ethusdt@trade")):
            writer.append("opened", number, "/stream", opened_body([stream], continues=True), at("12:10:00"))
        writer.append("event", 1, "stale", stale("renew", 30.0, "*"), at("12:11:00"))
        tape.clock.wall = at("12:20:00")
    receipt = tape.seal()
    assert spans(receipt, 1) == [
        span("12:10:00", "12:10:30", "12:10:00"), span("12:11:00", None, None, silent=True),
    ]  # fmt: skip
    assert spans(receipt, 2) == [span("12:10:00", None, "12:10:00", name="ethusdt@trade")]


@pytest.mark.parametrize(
    ("closing", "until"),
    [
        (closed_body(1011, "keepalive ping timeout", "us", clean=False), "12:10:04"),
        (closed_body(1006, "", "network", clean=False), "12:10:04"),
        (closed_body(1006, "stop", "stop", clean=False), "12:10:04"),
        (closed_body(1001, "bye", "venue", clean=True), None),
        (closed_body(1000, "stop", "stop", clean=True), None),
    ],
    ids=["ping", "network", "stop unanswered", "venue", "stop"],
)
def test_a_connection_without_a_close_frame_was_heard_until_its_last_frame(
    tape: Tape, closing: bytes, until: str | None
) -> None:
    with tape.begin("12:10:00") as writer:
        writer.append("opened", 1, "/stream", opened_body([STREAM]), at("12:10:00"))
        put_trades(writer, (1, "12:10:02", "12:10:02"), (2, "12:10:04", "12:10:04"))
        writer.append("closed", 1, "", closing, at("12:10:08"))
        tape.clock.wall = at("12:20:00")
    assert spans(tape.seal()) == [span("12:10:00", until, "12:10:02")]


@pytest.mark.parametrize(("reason", "until"), [("age", None), ("stale", "12:10:04")])
def test_a_connection_that_is_renewed_for_its_silence_may_have_been_dead(
    tape: Tape, reason: str, until: str | None
) -> None:
    with tape.begin("12:10:00") as writer:
        writer.append("opened", 1, "/stream", opened_body([STREAM]), at("12:10:00"))
        put_trades(writer, (1, "12:10:02", "12:10:02"), (2, "12:10:04", "12:10:04"))
        writer.append("opened", 2, "/stream", opened_body([STREAM]), at("12:10:49"))
        writer.append("event", 2, "roll", json_body(**{"reason": reason, "from": 1, "to": 2}), at("12:10:50"))
        writer.append("closed", 1, "", closed_body(1000, "roll", "roll", clean=True), at("12:10:51"))
        tape.clock.wall = at("12:20:00")
    assert spans(tape.seal()) == [span("12:10:00", until, "12:10:02")]


def test_who_was_killed_on_a_dead_connection_heard_its_last_frame_last(tape: Tape) -> None:
    writer = tape.begin("12:10:00")
    writer.append("opened", 1, "/stream", opened_body([STREAM]), at("12:10:00"))
    writer.append("opened", 2, "/stream", opened_body(["ethusdt@trade"]), at("12:10:00"))
    put_trades(writer, (1, "12:10:02", "12:10:02"), (2, "12:10:04", "12:10:04"))
    writer.append("frame", 2, "ethusdt@trade", ticker(1), at("12:10:50"))
    writer.flush()
    writer._file.release()  # what the end of a process does to its locks
    assert spans(tape.seal()) == [span("12:10:00", "12:10:04", "12:10:02")]


def test_a_new_file_remembers_what_was_not_heard_in_the_one_before(tape: Tape) -> None:
    names = [STREAM, "ethusdt@trade", "solusdt@trade"]
    writer = tape.begin("12:59:00")
    writer.append("opened", 1, "/stream", opened_body(names), at("12:59:00"))
    put_trades(writer, (1, "12:59:30", "12:59:30"))
    tape.clock.wall = at("13:00:00")
    assert writer.rotate_if_due()
    body = opened_body(names, continues=True, unheard=["ethusdt@trade"], silent=["solusdt@trade"])
    writer.append("opened", 1, "/stream", body)
    writer.append("frame", 1, "ethusdt@trade", ticker(1), at("13:10:00"))
    tape.clock.wall = at("13:20:00")
    writer.close("sigterm")
    tape.seal()
    following = tape.seal(HOUR.next())
    (after,) = [link for link in following.connections if link.continues]
    assert after.streams == [
        span("13:00:00", None, "13:00:00"),
        span("13:00:00", None, "13:10:00", name="ethusdt@trade"),
        span("13:00:00", None, None, silent=True, name="solusdt@trade"),
    ]


def test_the_hour_after_reads_the_beginning_of_a_journal_for_who_was_heard(tape: Tape, spot: Exchange) -> None:
    """A journal whose clock was set back goes on through the turn of the hour; its later rows belong to the next."""
    with tape.begin("12:10:00") as writer:
        writer.append("opened", 1, "/stream", opened_body([STREAM]), at("12:10:00"))
        writer.flush()
        put_trades(writer, (1, "12:10:04", "12:10:04"))
        writer.flush()
        put_trades(writer, (2, "13:30:00", "13:30:00"))
        tape.clock.wall = at("13:40:00")
    tape.seal()
    (link,) = tape.seal(HOUR.next()).connections
    assert link.streams == [span("12:10:00", None, "12:10:04")]


@pytest.mark.parametrize("how", ["watchdog", "ping", "ping at once"])
def test_what_was_dead_when_the_hour_turned_is_known_from_the_next_file(tape: Tape, how: str) -> None:
    writer = tape.begin("12:59:00")
    writer.append("opened", 1, "/stream", opened_body([STREAM]), at("12:59:00"))
    put_trades(writer, (1, "12:59:30", "12:59:30"), (2, "12:59:40", "12:59:40"))
    tape.clock.wall = at("13:00:00")
    assert writer.rotate_if_due()
    writer.append("opened", 1, "/stream", opened_body([STREAM], continues=True))
    if how == "watchdog":
        writer.append("event", 1, "stale", stale("renew", 25.0, "*"), at("13:00:05"))
    else:
        died = at("13:00:20") if how == "ping" else at("13:00:01")
        writer.append("closed", 1, "", closed_body(1011, "keepalive ping timeout", "us", clean=False), died)
    tape.clock.wall = at("13:20:00")
    writer.close("sigterm")
    assert spans(tape.seal()) == [span("12:59:00", "12:59:40", "12:59:30")]
    after = next(link for link in tape.seal(HOUR.next()).connections if link.continues).streams
    assert after[0] == span("13:00:00", "13:00:00", "13:00:00")


def test_what_goes_on_in_the_next_file_was_heard_to_the_end_of_its_own(tape: Tape) -> None:
    writer = tape.begin("12:59:00")
    writer.append("opened", 1, "/stream", opened_body([STREAM]), at("12:59:00"))
    put_trades(writer, (1, "12:59:30", "12:59:30"))
    tape.clock.wall = at("13:00:00")
    assert writer.rotate_if_due()
    writer.append("opened", 1, "/stream", opened_body([STREAM], continues=True))
    put_trades(writer, (2, "13:00:10", "13:00:10"))
    writer.append("closed", 1, "", closed_body(1006, "", "network", clean=False), at("13:00:11"))
    tape.clock.wall = at("13:20:00")
    writer.close("sigterm")
    assert spans(tape.seal()) == [span("12:59:00", None, "12:59:30")]
