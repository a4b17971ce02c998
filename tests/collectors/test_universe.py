from __future__ import annotations

import pytest

from collectors.universe import Shard, choose
from depthvault.config import BinanceSpotConfig
from depthvault.errors import UsageError
from depthvault.exchanges.base import Instrument

ALL = Shard()


def instrument(symbol: str, *, trading: bool = True, quote: str = "USDT") -> Instrument:
    return Instrument(
        symbol, "TRADING" if trading else "BREAK", trading, symbol.removesuffix(quote), quote, "0.01", "1"
    )


LISTED = [instrument(f"S{n:02}USDT") for n in range(40)]
VOLUMES = {one.symbol: 1000.0 - n for n, one in enumerate(LISTED)}


def symbols(config: BinanceSpotConfig, volumes: dict[str, float] = VOLUMES, current: tuple[str, ...] = ()) -> list[str]:
    return [one.symbol for one in choose(config, LISTED, volumes, ALL, current).instruments]


def test_top_is_by_volume_and_begins_with_the_most_active() -> None:
    assert symbols(BinanceSpotConfig(symbols="top:3")) == ["S00USDT", "S01USDT", "S02USDT"]


def test_symbol_keeps_its_place_in_the_top_until_it_falls_clearly_below() -> None:
    config = BinanceSpotConfig(symbols="top:10")
    current = tuple(symbols(config))
    near = VOLUMES | {"S09USDT": VOLUMES["S11USDT"] - 0.5}
    assert sorted(symbols(config, near, current)) == sorted(current)
    assert "S09USDT" not in symbols(config, near)
    far = VOLUMES | {"S09USDT": 1.0}
    assert sorted(symbols(config, far, current)) == sorted({*current, "S10USDT"} - {"S09USDT"})
    assert len(symbols(config, far, current)) == 10


def test_all_takes_what_trades_in_the_quote_asset() -> None:
    listed = [instrument("AUSDT"), instrument("BUSDT", trading=False), instrument("CBTC", quote="BTC")]
    chosen = choose(BinanceSpotConfig(symbols="all"), listed, {}, ALL)
    assert chosen.symbols == ("AUSDT",)
    assert set(choose(BinanceSpotConfig(symbols="all", quote=None), listed, {}, ALL).symbols) == {"AUSDT", "CBTC"}


def test_named_symbols_are_taken_whatever_their_status_and_unlisted_ones_are_told() -> None:
    listed = [instrument("AUSDT", trading=False), instrument("币安人生USDT")]
    config = BinanceSpotConfig(symbols=("币安人生USDT", "AUSDT", "NOUSDT"))
    chosen = choose(config, listed, {}, ALL)
    assert set(chosen.symbols) == {"AUSDT", "币安人生USDT"}
    assert chosen.missing == ("NOUSDT",)


def test_shards_part_the_symbols_and_never_change_their_mind() -> None:
    names = [*(one.symbol for one in LISTED), "币安人生USDT"]
    shards = [Shard.parse(f"{index}/3") for index in range(3)]
    for name in names:
        assert sum(shard.holds(name) for shard in shards) == 1
    assert all(sum(shard.holds(name) for name in names) > 5 for shard in shards)
    assert Shard(1, 2).holds("BTCUSDT"), "another hash would move symbols between processes"
    assert shards[1].writer("a") == "a.1-of-3"
    assert Shard.parse(None).writer("b") == "b"


@pytest.mark.parametrize("text", ["2/2", "x/2", "1", "1/", "-1/2"])
def test_bad_shard_is_bad_use(text: str) -> None:
    with pytest.raises(UsageError, match="not a shard"):
        Shard.parse(text)
