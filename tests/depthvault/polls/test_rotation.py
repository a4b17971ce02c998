"""Every symbol has its turn, no minute exceeds the budget, and the interval is what was promised."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from depthvault.config import BinanceFuturesConfig, BinanceSpotConfig
from depthvault.exchanges.binance_futures import BinanceFutures
from depthvault.exchanges.binance_spot import BinanceSpot
from depthvault.polls.rotation import Rotation, published_cadence, snapshot_rotation

MINUTE = timedelta(minutes=1)


@given(
    st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=300),
    st.sampled_from([2, 20, 50, 250]),
    st.integers(60, 4000),
    st.integers(1, 5),
    st.integers(0, 10**8),
)
def test_in_any_round_each_symbol_is_due_once_and_the_budget_holds(
    symbols: set[str], weight: int, budget: int, cadence: int, start: int
) -> None:
    rotation = Rotation.of(list(symbols), weight, budget, cadence * MINUTE)
    rounds = [rotation.due(start + i) for i in range(rotation.turns)]
    assert sorted(symbol for due in rounds for symbol in due) == sorted(symbols)
    assert all(len(due) * weight <= max(budget, weight) for due in rounds)
    assert rotation.cadence >= cadence * MINUTE


def test_fifty_symbols_of_both_venues_have_a_full_snapshot_each_minute() -> None:
    fifty = [f"S{i}USDT" for i in range(50)]
    for exchange in (BinanceSpot(BinanceSpotConfig()), BinanceFutures(BinanceFuturesConfig())):
        assert snapshot_rotation(exchange, fifty).cadence == MINUTE
        assert published_cadence(exchange, 50) == MINUTE


def test_five_hundred_symbols_rotate_at_a_longer_cadence_and_the_same_depth() -> None:
    assert published_cadence(BinanceFutures(BinanceFuturesConfig()), 528) == 8 * MINUTE
    assert published_cadence(BinanceSpot(BinanceSpotConfig()), 500) == 7 * MINUTE


def test_a_configured_cadence_is_kept() -> None:
    config = BinanceSpotConfig(snapshot_cadence=timedelta(minutes=5))
    assert published_cadence(BinanceSpot(config), 3) == 5 * MINUTE
