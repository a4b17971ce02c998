"""Trades and tickers: the compiled scanner and the readers give the same rows, whatever stands in the frames."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pyarrow as pa
import pytest

from depthvault.exchanges.base import Decoded, Exchange, Frames
from depthvault.exchanges.binance import Binance
from depthvault.exchanges.decode import rows
from tests.depthvault.exchanges.recordings import cryptofeed, frames_of, hftbacktest, recording, venue

SPOT, FUTURES = venue("binance_spot"), venue("binance_futures")
CASES: dict[str, tuple[Exchange, str, bytes]] = {
    "futures ticker": (
        FUTURES,
        "book_ticker",
        (
            b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":11757092630476,"s":"BTCUSDT","ps":"BTCUSDT",'
            b'"b":"83091.60","B":"4.215","a":"83091.70","A":"3.763","T":1791382994657,"E":1791382994658,"st":1}}'
        ),
    ),
    "spot ticker": (
        SPOT,
        "book_ticker",
        (
            b'{"stream":"btcusdt@bookTicker","data":{"u":100530416204,"s":"BTCUSDT","b":"86704.77000000",'
            b'"B":"4.67811000","a":"0.00000000","A":"0.00000000"}}'
        ),
    ),
    "futures aggregate": (
        FUTURES,
        "agg_trade",
        (
            b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1791382992488,"a":3477868433,"s":"BTCUSDT",'
            b'"p":"83091.70","q":"0.022","nq":"0.022","f":8153634393,"l":8153634394,"T":1791382992338,"m":false,"st":1}}'
        ),
    ),
    "spot aggregate": (
        SPOT,
        "agg_trade",
        (
            b'{"stream":"bnbbtc@aggTrade","data":{"e":"aggTrade","E":1672515782136,"s":"BNBBTC","a":12345,"p":"0.001",'
            b'"q":"100","f":100,"l":105,"T":1672515782136123,"m":true,"M":true}}'
        ),
    ),
    "spot trade": (
        SPOT,
        "trade",
        (
            b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,'
            b'"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
        ),
    ),
    "futures trade": (
        FUTURES,
        "trade",
        (
            b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256322,"s":"BTCUSDT",'
            b'"t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}'
        ),
    ),
}


def agree(monkeypatch: pytest.MonkeyPatch, exchange: Exchange, channel: str, bodies: Sequence[bytes]) -> int:
    """Both ways give the same; returns how many frames the scanner took."""
    assert isinstance(exchange, Binance)
    count = len(bodies)
    frames = Frames(
        [*range(count)], [10**18 + 1000 * n for n in range(count)], [0] * count, ["x@y"] * count, list(bodies)
    )
    monkeypatch.setattr(rows, "scan_pays", lambda size: True)
    fast = exchange.decode(channel, frames, "a")
    monkeypatch.setattr(rows, "scan_pays", lambda size: False)
    slow = exchange.decode(channel, frames, "a")
    assert same(fast, slow)
    return len(exchange.flat_scanners[channel].scan(bodies)[0])


def same(one: Decoded, other: Decoded) -> bool:
    for name in one.rows.column_names:
        if pa.types.is_floating(one.rows.schema.field(name).type):
            mine, theirs = ([v if v is None else v.hex() for v in each.rows[name].to_pylist()] for each in (one, other))
            assert mine == theirs, name
    assert one.index.to_pylist() == other.index.to_pylist()
    assert one.rejected == other.rejected
    assert one.inexact == other.inexact
    return bool(one.rows.combine_chunks().equals(other.rows.combine_chunks()))


@pytest.mark.parametrize("case", CASES)
def test_the_documented_form_is_scanned(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    exchange, channel, body = CASES[case]
    assert agree(monkeypatch, exchange, channel, [body] * 3) == 3


@pytest.mark.parametrize("case", CASES)
def test_truncations_and_bit_flips_agree(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    exchange, channel, body = CASES[case]
    assert agree(monkeypatch, exchange, channel, [body[:end] for end in range(len(body))]) == 0
    bodies = []
    for place in range(len(body)):
        for bit in range(place % 2, 8, 2):
            flipped = bytearray(body)
            flipped[place] ^= 1 << bit
            bodies.append(bytes(flipped))
    agree(monkeypatch, exchange, channel, bodies)


@pytest.mark.parametrize("case", CASES)
def test_random_edits_agree(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    exchange, channel, body = CASES[case]
    rng = random.Random(20261120)
    pieces = [
        b'"',
        b"{",
        b"}",
        b",",
        b":",
        b"0",
        b"9",
        b".",
        b"-",
        b'""',
        b" ",
        b"\\",
        b"\xc3\xa9",
        b"null",
        b"true",
        b"\0",
    ]
    pieces += [
        b'"p":"1"',
        b'"s":""',
        b'"X":"NA"',
        b'"E":1',
        b"12345678901234567",
        b"0000000000000000000000",
        b"!",
        b'"T":0',
    ]
    bodies = []
    for _ in range(1000):
        edited = body
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(edited) + 1)
            edited = edited[:place] + rng.choice(pieces) + edited[place + rng.choice((0, 0, 1, 2, 9)) :]
        bodies.append(edited)
    agree(monkeypatch, exchange, channel, bodies)


def test_scanned_and_read_frames_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, channel, body = CASES["futures trade"]
    foreign = body.replace(b"BTCUSDT", "币安人生USDT".encode())
    long = body.replace(b"0.006", b"123456789.123456789")
    assert agree(monkeypatch, exchange, channel, [body, foreign, body, b"junk", long, body]) == 3


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("exchange", "path"),
    [(FUTURES, "usdm_btcusdt_20240808.gz"), (SPOT, "spot_ethusdt_20240808.gz")],
)
def test_all_recorded_trades_and_tickers_are_scanned_and_agree(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, path: str
) -> None:
    found = frames_of(exchange, [body for _, body in hftbacktest(recording(f"hftbacktest/{path}"))])
    for channel in ("book_ticker", "trade"):
        bodies = found[channel].bodies[:10_000]
        assert agree(monkeypatch, exchange, channel, bodies) == len(bodies)


@pytest.mark.recorded
def test_frames_of_2021_are_scanned_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    for exchange, path in ((SPOT, "cryptofeed/BINANCE.ws.1.0"), (FUTURES, "cryptofeed/BINANCE_FUTURES.ws.1.0")):
        found = frames_of(exchange, list(cryptofeed(recording(path))))
        for channel in ("book_ticker", "agg_trade"):
            bodies = found[channel].bodies
            assert agree(monkeypatch, exchange, channel, bodies) == len(bodies)
