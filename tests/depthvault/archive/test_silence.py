"""Being subscribed is not listening: what nobody heard of a stream without ids is told, and no more than that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from depthvault.archive.inputs import listening, sealed
from depthvault.config import Config
from depthvault.exchanges import exchange

from .sealed import FUTURES, HOUR, Host, Link
from .test_compact import publish, run, table

TICKER = ("btcusdt@bookTicker",)
LIQUIDATIONS = ("!forceOrder@arr",)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def tickers(instance: str, seconds: Sequence[float], source: str = "stream") -> dict[str, list[dict[str, object]]]:
    """One row of `book_ticker` at each of `seconds` into the hour."""
    return {
        "book_ticker": [
            {
                "received_time": HOUR.start + timedelta(seconds=at), "event_time": HOUR.start + timedelta(seconds=at),
                "symbol": "BTCUSDT", "instance": instance, "source": source,
                "transaction_time": HOUR.start + timedelta(seconds=at), "update_id": int(at * 1000), "bid_price": 1.0,
                "bid_size": 1.0, "ask_price": 2.0, "ask_size": 1.0,
            }
            for at in seconds
        ]
    }  # fmt: skip


def told(
    host: Host, channel: str = "book_ticker", symbol: str = "BTCUSDT"
) -> list[tuple[float, float, str, dict[str, str]]]:
    """(from, until, cause, causes by writer) of each gap of the symbol, seconds into the hour."""
    run(host)
    publish(host)
    rows = [row for row in table(host, "gaps", channel=channel) if row["symbol"] == symbol]
    rows.sort(key=lambda row: row["start_time"])
    assert all((row["status"], row["instance"]) == ("unprovable", "") for row in rows)
    return [
        (
            (row["start_time"] - HOUR.start).total_seconds(), (row["end_time"] - HOUR.start).total_seconds(),
            row["cause"], json.loads(row["detail"])["causes"],
        )
        for row in rows
    ]  # fmt: skip


def covered(host: Host, channel: str = "book_ticker") -> float:
    (row,) = table(host, "coverage", channel=channel)
    seconds: float = row["covered_seconds"]
    return seconds


B = [Link(end=200.0, cause="closed", streams=TICKER), Link(start=203.0, number=2, streams=TICKER, heard=203.1)]
B_TIMES = [*(at + 0.5 for at in range(199)), *(at + 0.5 for at in range(204, 3599))]


def test_a_silent_subscription_covers_no_hole_of_the_other(host: Host) -> None:
    host.seal("a", {}, links=[Link(start=100.0, streams=TICKER, heard=None)])
    host.seal("b", tickers("b", B_TIMES), links=B)
    assert told(host) == [(200.0, 203.0, "disconnect", {"a": "silent", "b": "disconnect"})]
    assert covered(host) == pytest.approx(3597.0)


def test_it_does_once_it_spoke(host: Host) -> None:
    host.seal("a", tickers("a", [150.2]), links=[Link(start=100.0, streams=TICKER, heard=150.2)])
    host.seal("b", tickers("b", B_TIMES), links=B)
    assert told(host) == []
    assert covered(host) == pytest.approx(3600.0)


def test_in_a_market_where_nothing_happens_silence_says_nothing(host: Host) -> None:
    host.seal("a", {}, links=[Link(start=100.0, streams=TICKER, heard=None)])
    host.seal("b", tickers("b", [50.0]), links=B)
    assert told(host) == []


def test_what_others_hear_while_it_takes_effect_says_nothing(host: Host) -> None:
    host.seal("a", tickers("a", [201.9]), links=[Link(start=201.0, streams=TICKER, heard=201.9)])
    host.seal("b", tickers("b", [201.5]), links=B)
    assert told(host) == [(200.0, 201.0, "disconnect", {"a": "unknown", "b": "disconnect"})]


@pytest.mark.parametrize("offset", [-4.0, 0.005, 4.0])
def test_the_same_event_says_nothing_however_far_the_clocks_of_two_hosts_differ(offset: float, host: Host) -> None:
    """The first event after a quiet while reaches both; by the clock of one it came while the other had not spoken."""
    first = tickers("a", [1000.0])["book_ticker"]
    same = tickers("b", [1000.0])["book_ticker"]
    same[0]["received_time"] = HOUR.start + timedelta(seconds=1000.0 + offset)
    links = [
        Link(end=500.0, cause="closed", streams=TICKER),
        Link(start=600.0, number=2, streams=TICKER, heard=1000.0),
    ]
    host.seal("a", {"book_ticker": first}, links=links)
    host.seal("b", {"book_ticker": same}, links=[Link(start=400.0, streams=TICKER, heard=1000.0 + offset)])
    assert told(host) == []


def test_answers_over_rest_are_no_witness_of_a_stream(host: Host) -> None:
    host.seal("a", {}, links=[Link(start=100.0, streams=TICKER, heard=None)])
    host.seal("b", tickers("b", B_TIMES, source="rest"), links=B)
    assert told(host) == []


def test_what_the_watchdog_found_silent_is_told_from_its_last_frame_to_the_next(host: Host) -> None:
    later = (
        Link(start=1010.0, streams=TICKER, until=1010.1, heard=None, silent=True),
        Link(start=1010.2, streams=TICKER, heard=1012.0, silent=True),
    )
    links = [Link(streams=TICKER, until=1000.0, then=later)]
    host.seal("a", tickers("a", [999.9, 1012.0, 2000.0]), links=links)
    assert told(host) == [(1000.0, 1012.0, "silent", {"a": "silent"})]
    assert covered(host) == pytest.approx(3588.0)


def test_a_subscription_that_ends_without_a_word_listened_to_nothing(host: Host) -> None:
    links = [
        Link(end=500.0, cause="closed", streams=TICKER),
        Link(start=501.0, end=520.0, cause="closed", number=2, streams=TICKER, heard=None),
        Link(start=521.0, number=3, streams=TICKER, heard=521.5),
    ]
    host.seal("a", tickers("a", [499.0, 521.5]), links=links)
    assert told(host) == [(500.0, 521.0, "disconnect", {"a": "disconnect"})]


def liquidations(instance: str, seconds: Sequence[float]) -> dict[str, list[dict[str, object]]]:
    """A forced order of BTCUSDT at each of `seconds` into the hour."""
    names = ("received_time", "event_time", "symbol", "instance", "source", "transaction_time")
    order = {
        "trade_id": None, "side": "SELL", "order_type": "LIMIT", "time_in_force": "IOC", "price": 1.0,
        "average_price": 1.0, "quantity": 1.0, "filled_quantity": 1.0, "status": "FILLED",
    }  # fmt: skip
    rows = tickers(instance, seconds)["book_ticker"]
    return {"liquidation": [{name: row[name] for name in names} | order for row in rows]}


def test_but_liquidations_may_well_not_come(host: Host) -> None:
    links = [
        Link(end=500.0, cause="closed", streams=LIQUIDATIONS),
        Link(start=501.0, end=520.0, cause="closed", number=2, streams=LIQUIDATIONS, heard=None),
        Link(start=521.0, number=3, streams=LIQUIDATIONS, heard=None),
    ]
    host.seal("a", liquidations("a", [499.0]), links=links)
    assert [(start, end) for start, end, _, _ in told(host, "liquidation")] == [(500.0, 501.0), (520.0, 521.0)]


def test_a_hole_of_the_whole_market_is_told_of_the_symbols_that_have_no_row(host: Host) -> None:
    links = [
        Link(end=500.0, cause="closed", streams=LIQUIDATIONS),
        Link(start=510.0, number=2, streams=LIQUIDATIONS, heard=None),
    ]
    host.seal("a", {}, links=links)
    assert told(host, "liquidation", symbol="") == [(500.0, 510.0, "disconnect", {"a": "disconnect"})]
    assert covered(host, "liquidation") == pytest.approx(3590.0)


def test_it_begins_when_the_last_one_stopped_listening_however_long_ago(host: Host) -> None:
    first = HOUR.previous().previous()
    stopped = [Link(start=0.0, end=3000.0, cause="stop", streams=LIQUIDATIONS, heard=None)]
    host.seal("a", {}, period=first, links=stopped)
    run(host, first)
    publish(host, first)
    host.seal("a", {}, links=[Link(start=600.0, streams=LIQUIDATIONS, heard=None)])
    (hole,) = told(host, "liquidation", symbol="")
    assert hole[:2] == (3000.0 - 7200.0, 600.0)


def test_a_silent_subscription_to_the_whole_market_covers_no_hole_of_the_other(host: Host) -> None:
    host.seal("a", {}, links=[Link(start=100.0, streams=LIQUIDATIONS, heard=None)])
    links = [
        Link(end=200.0, cause="closed", streams=LIQUIDATIONS),
        Link(start=203.0, number=2, streams=LIQUIDATIONS, heard=203.1),
    ]
    host.seal("b", liquidations("b", [150.0, 203.1]), links=links)
    hole = (200.0, 203.0, "disconnect", {"a": "silent", "b": "disconnect"})
    assert told(host, "liquidation", symbol="") == [hole]
    (row,) = [row for row in table(host, "gaps", channel="liquidation") if row["symbol"] == "BTCUSDT"]
    assert row["cause"] == "disconnect"


def test_a_stream_that_never_spoke_has_a_coverage_of_nothing(host: Host) -> None:
    host.seal("a", {}, links=[Link(streams=TICKER, heard=None, silent=True)])
    assert told(host) == []
    assert covered(host) == 0.0


def test_where_ids_prove_what_is_there_a_subscription_needs_no_witness(host: Host) -> None:
    depth = ("btcusdt@depth@100ms",)
    host.seal("a", {}, links=[Link(streams=depth, heard=None, silent=True)])
    run(host)
    publish(host)
    assert covered(host, "depth_diff") == pytest.approx(3600.0)


def test_receipts_of_earlier_software_are_taken_at_their_word(host: Host) -> None:
    host.seal("a", {}, links=[Link(start=100.0, streams=TICKER, heard=None)])
    path = host.layout.receipt(FUTURES, HOUR, "a")
    receipt = json.loads(path.read_text())
    del receipt["sha256"]
    for span in receipt["connections"][0]["streams"]:
        del span["heard_ns"], span["silent"]
    path.write_text(json.dumps(receipt))
    host.seal("b", tickers("b", B_TIMES), links=B)
    assert told(host) == []


def test_doubt_goes_on_with_the_connection_through_the_turn_of_the_hour(host: Host) -> None:
    """The hole lies before the turn, the evidence behind it."""
    before = HOUR.previous()
    waiting = Link(start=3000.0, end=3600.0, cause="rotate", streams=TICKER, heard=None)
    host.seal("a", {}, period=before, links=[waiting])
    host.seal("a", {}, links=[Link(start=0.0, streams=TICKER, heard=None, continues=True)])
    venue = exchange(FUTURES, Config().exchanges[FUTURES])
    sessions, _ = listening(host.layout, sealed(host.layout, FUTURES), (before.label, HOUR.label), venue)
    assert [len(session.listened("book_ticker", "BTCUSDT")) for session in sessions] == [1, 1]
    evidence = np.array([HOUR.start_ns + 10_000_000_000])
    judged = [session.judged("book_ticker", "BTCUSDT", lambda writer: evidence) for session in sessions]
    assert [session.listened("book_ticker", "BTCUSDT") for session in judged] == [[], []]


@pytest.mark.parametrize(("spoke", "listened", "silent"), [(None, [0, 0], [1, 1]), (12.5, [1, 2], [0, 0])])
def test_a_subscription_that_ends_without_a_word_after_the_turn_did_not_listen_before_it(
    spoke: float | None, listened: list[int], silent: list[int], host: Host
) -> None:
    before = HOUR.previous()
    waiting = Link(start=3580.0, end=3600.0, cause="rotate", streams=TICKER, heard=None)
    host.seal("a", {}, period=before, links=[waiting])
    host.seal("a", {}, links=[Link(start=0.0, end=20.0, cause="roll", streams=TICKER, heard=spoke, continues=True)])
    venue = exchange(FUTURES, Config().exchanges[FUTURES])
    sessions, _ = listening(host.layout, sealed(host.layout, FUTURES), (before.label, HOUR.label), venue)
    assert [len(session.listened("book_ticker", "BTCUSDT")) for session in sessions] == listened
    assert [len(session.silent("book_ticker", "BTCUSDT")) for session in sessions] == silent
