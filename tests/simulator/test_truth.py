"""The ledger survives its writer: torn and growing files are read up to the last whole line."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.testing import running
from simulator.truth import Ledger, Truth
from tests.simulator.book_client import manual


def _write(directory: Path, count: int) -> Ledger:
    ledger = Ledger(directory, "1")
    for n in range(count):
        ledger.event("binance_spot", "trade", "币安人生USDT", n, b'{"t":%d}' % n)
    ledger.flush()
    return ledger


def test_a_growing_ledger_can_be_read(tmp_path: Path) -> None:
    ledger = _write(tmp_path, 100)
    events = list(Truth(tmp_path).events("binance_spot", "trade", "币安人生USDT"))
    assert [event.decode()["t"] for event in events] == list(range(100))
    assert [event.n for event in events] == list(range(1, 101))
    ledger.event("binance_spot", "trade", "BTCUSDT", 1, b"{}")
    ledger.close()
    assert len(list(Truth(tmp_path).events("binance_spot", "trade"))) == 101
    assert Truth(tmp_path).channels("binance_spot") == ["trade"]


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_a_torn_ledger_gives_its_whole_lines(tmp_path: Path, cut: int) -> None:
    _write(tmp_path, 1000).close()
    path = next(tmp_path.rglob("trade.gz"))
    path.write_bytes(path.read_bytes()[:-cut])
    events = list(Truth(tmp_path).events("binance_spot", "trade"))
    assert [event.decode()["t"] for event in events] == list(range(len(events)))
    assert len(events) <= 1000


async def test_a_book_can_be_asked_at_every_id_and_not_before_the_first(tmp_path: Path) -> None:
    async with running(manual(truth=tmp_path, symbols=1)) as sim:
        sim.control.advance(1)
        truth = sim.truth()
        events = [event.decode() for event in truth.events("binance_spot", "depth@100ms", "BTCUSDT")]
        book = truth.book("binance_spot", "BTCUSDT", events[0]["U"] - 1)
        for event in events:
            for side, changes in ((book.bids, event["b"]), (book.asks, event["a"])):
                side.update(dict(changes))
        last = truth.book("binance_spot", "BTCUSDT", events[-1]["u"])
        assert {p: q for p, q in book.bids.items() if float(q)} == last.bids
        assert {p: q for p, q in book.asks.items() if float(q)} == last.asks
        many = truth.books("binance_spot", {"BTCUSDT": [events[-1]["u"], events[2]["u"]]})
        assert many["BTCUSDT", events[-1]["u"]] == last
        assert many["BTCUSDT", events[2]["u"]] == truth.book("binance_spot", "BTCUSDT", events[2]["u"])
        with pytest.raises(KeyError):
            truth.book("binance_spot", "BTCUSDT", events[0]["U"] - 10_000)
        with pytest.raises(KeyError):
            truth.book("binance_spot", "NOPE", 1 << 60)
