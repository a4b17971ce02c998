"""The market model: uncrossed, never empty, and a function of its seed."""

from __future__ import annotations

import itertools
import random

import pytest

from simulator.instruments import binance_futures_instrument, binance_spot_instrument
from simulator.market import IdSequence, Market, replay_mutations


def _market(seed: int, rank: int = 0, holes: int = 1) -> Market:
    return Market(
        binance_spot_instrument(rank), random.Random(seed), IdSequence(1000, holes), levels=60, first_trade_id=10
    )


@pytest.mark.parametrize("rank", [0, 7, 8, 10, 28, 40])
def test_a_book_stays_uncrossed_and_full_while_prices_move(rank: int) -> None:
    market = _market(3, rank)
    start = len(market.bids), len(market.asks)
    for step in range(4000):
        market.step(step, 4, 0.5)
        assert market.best_bid == max(market.bids)
        assert market.best_ask == min(market.asks)
        assert market.best_bid < market.best_ask
    assert market.last_price != market.instrument.price
    assert len(market.bids) >= start[0] // 2
    assert len(market.asks) >= start[1] // 2
    assert max(len(market.bids), len(market.asks)) <= 2 * 60 + 4


def test_the_mutations_lead_from_one_snapshot_to_the_next() -> None:
    market = _market(4)
    sides = (dict(market.bids), dict(market.asks))
    for step in range(500):
        market.step(step, 3, 0.3)
        replay_mutations(sides, market.mutations)
        assert market.changed_bids == {p: q for p, q in market.changed_bids.items() if sides[0].get(p, 0) == q}
    assert sides == (market.bids, market.asks)


def test_the_same_seed_makes_the_same_market_and_another_seed_another() -> None:
    def run(seed: int) -> list[tuple[int, int, int, int]]:
        market, out = _market(seed), []
        for step in range(200):
            market.step(step, 3, 0.3)
            out += market.mutations
        return out

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_spot_ids_count_by_one_and_futures_ids_have_holes() -> None:
    spot, futures = _market(5), _market(5, holes=5)
    for market in (spot, futures):
        ids = []
        for step in range(100):
            market.step(step, 3, 0.3)
            ids += [update_id for update_id, *_ in market.mutations]
        steps = {after - before for before, after in itertools.pairwise(ids)}
        assert steps == ({1} if market is spot else {1, 2, 3, 4, 5})


def test_fills_take_exactly_what_the_book_loses() -> None:
    market = _market(6)
    for step in range(300):
        before = dict(market.bids), dict(market.asks)
        market.begin_step(step)
        market.trade()
        for fill in market.fills:
            assert fill.quantity > 0
        for side, book in enumerate((market.bids, market.asks)):
            lost = {p: q - book.get(p, 0) for p, q in before[side].items() if book.get(p, 0) != q}
            taken: dict[int, int] = {}
            for fill in market.fills:
                if fill.buyer_is_maker == (side == 0):
                    taken[fill.price] = taken.get(fill.price, 0) + fill.quantity
            assert lost == taken


def test_texts_are_padded_as_the_venue_pads_them() -> None:
    spot, futures = binance_spot_instrument(0), binance_futures_instrument(0)
    assert spot.price_text(8_309_160) == "83091.60000000"
    assert spot.quantity_text(0) == "0.00000000"
    assert futures.price_text(8_309_160) == "83091.60"
    assert futures.quantity_text(0) == "0.000"
    assert futures.tick_text == "0.10"
    assert binance_futures_instrument(5).quantity_text(0) == "0"
    assert binance_spot_instrument(9).price_text(941) == "0.00000941"


def test_the_universe_holds_the_names_that_break_clients() -> None:
    names = [binance_futures_instrument(rank).symbol for rank in range(600)]
    assert len(set(names)) == 600
    assert {"BTCUSDT", "1000PEPEUSDT", "1000SATSUSDT", "币安人生USDT"} <= set(names[:20])
    sizes = [binance_futures_instrument(rank).typical_size * 3 for rank in range(20)]
    assert max(sizes) > 10**12
    for rank in range(600):
        for instrument in (binance_futures_instrument(rank), binance_spot_instrument(rank)):
            assert instrument.price // instrument.tick > 300, instrument
            # Texts of more than 15 significant digits would not survive as doubles.
            assert instrument.typical_size * 4 < 10**15, instrument
