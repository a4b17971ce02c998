"""The compiled scanner and the simple reference give the same bits, and neither takes a frame that is none."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthvault.exchanges import binance_rows, lighter_rows
from depthvault.exchanges.base import Frames
from depthvault.exchanges.binance import SNAPSHOT_SCANNER, snapshot_reader
from depthvault.exchanges.binance_futures import BinanceFutures
from depthvault.exchanges.binance_spot import BinanceSpot
from depthvault.exchanges.decode.arrays import kernels
from depthvault.exchanges.decode.books import BookReader, Scanner, read_books
from depthvault.exchanges.decode.scan import LighterScanner
from tests.depthvault.exchanges.recordings import frames_of, hftbacktest, lighter, recording, venue

SYMBOLS = {0: "ETH", 36: "CRV"}
SHAPES: dict[str, tuple[BookReader, Scanner]] = {
    "spot diff": (binance_rows.spot_diff, BinanceSpot.scanners["depth_diff"]),
    "spot partial": (binance_rows.spot_partial, BinanceSpot.scanners["depth_partial"]),
    "futures diff": (binance_rows.futures_diff, BinanceFutures.scanners["depth_diff"]),
    "futures partial": (binance_rows.futures_partial, BinanceFutures.scanners["depth_partial"]),
    "snapshot": (snapshot_reader, SNAPSHOT_SCANNER),
    "lighter": (partial(lighter_rows.book, SYMBOLS), LighterScanner(SYMBOLS)),
}
REQUEST = "GET /api/v3/depth?symbol=BTCUSDT&limit=1000"

EXAMPLES = {
    "spot diff": b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1790134512214,"s":"BTCUSDT",'
    b'"U":100530416194,"u":100530416202,"b":[["86620.48000000","0.42061000"],["86620.06000000","0.00000000"]],"a":[]}}',
    "spot partial": b'{"stream":"btcusdt@depth20@100ms","data":{"lastUpdateId":100530416202,'
    b'"bids":[["86704.77000000","4.67805000"]],"asks":[["86704.78000000","0.73337000"]]}}',
    "futures diff": b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1790373637622,"T":1790373637613,'
    b'"s":"BTCUSDT","ps":"BTCUSDT","U":11660059838224,"u":11660059844303,"pu":11660059836647,'
    b'"b":[["82997.3","1382"],["83517.9","0"]],"a":[["83732.5","2458"]],"st":1}}',
    "snapshot": b'{"lastUpdateId":5123107852948,"E":1723161256501,"T":1723161256493,'
    b'"bids":[["61800.20","2.909"],["61800.10","0.696"]],"asks":[["61800.30","1.100"]]}',
    "lighter": b'{"channel":"order_book:36","last_updated_at":1785358812048570,"offset":415806,"order_book":{"code":0,'
    b'"asks":[{"price":"0.20416","size":"25374.8"},{"price":"0.20421","size":"0.0"}],'
    b'"bids":[{"price":"0.20351","size":"0.0"}],"offset":415806,"nonce":18032384006,'
    b'"last_updated_at":1785358812048570,"begin_nonce":18032383898},"timestamp":1785358812058,'
    b'"type":"update/order_book"}',
}
EXAMPLES["futures partial"] = EXAMPLES["futures diff"].replace(b"@depth@", b"@depth20@")


def frames(bodies: Sequence[bytes], stream: str = REQUEST) -> Frames:
    count = len(bodies)
    return Frames([*range(count)], [10**18] * count, [0] * count, [stream] * count, list(bodies))


def same_bits(one: pa.Table, other: pa.Table) -> bool:
    """Whether all values are the same, doubles to the last bit (`equals` would take -0.0 for 0.0)."""
    for name in ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes"):
        mine, theirs = (pc.list_flatten(table[name]).to_numpy().tobytes() for table in (one, other))
        if mine != theirs:
            return False
    return bool(one.combine_chunks().equals(other.combine_chunks()))


def agree(shape: str, bodies: Sequence[bytes]) -> int:
    """Scanner and reference say the same of `bodies`; returns how many frames the scanner took."""
    assert kernels() is not None, "Numba is a dependency"
    reader, scanner = SHAPES[shape]
    stream = "btcusdt@depth20@100ms" if shape == "spot partial" else REQUEST
    slow = read_books(frames(bodies, stream), reader, None)
    fast = read_books(frames(bodies, stream), reader, scanner)
    assert fast.index.tolist() == slow.index.tolist()
    assert fast.rejected == slow.rejected
    assert same_bits(fast.books, slow.books)
    assert fast.inexact == slow.inexact
    return len(scanner([stream] * len(bodies), bodies).taken)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_scanner_itself_takes_the_documented_form(shape: str) -> None:
    assert agree(shape, [EXAMPLES[shape]] * 3) == 3


@pytest.mark.parametrize("shape", SHAPES)
def test_every_truncation_agrees(shape: str) -> None:
    whole = EXAMPLES[shape]
    bodies = [whole[:end] for end in range(len(whole))]
    assert agree(shape, bodies) == 0, "a frame that is cut short is no frame"
    # Alone in the buffer as well: nothing behind it may complete it.
    assert agree(shape, [whole[:-1], b"}", whole]) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_single_bit_flips_agree(shape: str) -> None:
    whole = EXAMPLES[shape]
    bodies = []
    for place in range(len(whole)):
        for bit in range(place % 2, 8, 2):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            bodies.append(bytes(flipped))
    agree(shape, bodies)


@pytest.mark.parametrize("shape", SHAPES)
def test_random_edits_agree(shape: str) -> None:
    rng = random.Random(20261120)
    pieces = [b'"', b"[", b"]", b"{", b"}", b",", b":", b"0", b"9", b".", b"-", b"e5", b'""', b" ", b"\\", b"\xc3\xa9"]
    pieces += [b'"1"', b'["1","2"]', b'"U":5', b'"b":[]', b'"s":"X"', b'"E":1', b"null", b"\0", b"\n", b'"type":"x"']
    bodies = []
    for _ in range(1500):
        body = EXAMPLES[shape]
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(body) + 1)
            body = body[:place] + rng.choice(pieces) + body[place + rng.choice((0, 0, 1, 2, 9)) :]
        bodies.append(body)
    agree(shape, bodies)


DECIMALS = st.one_of(
    st.from_regex(r"[0-9]{1,9}\.[0-9]{1,8}", fullmatch=True),
    st.from_regex(r"[0-9]{1,25}(\.[0-9]{1,25})?", fullmatch=True),
    st.from_regex(r"0{0,30}[0-9]{1,17}(\.[0-9]{0,17}0{0,12})?", fullmatch=True).filter(lambda text: text[-1] != "."),
    st.sampled_from(
        ["0", "0.0", "0.00000000", "1e5", "-1", ".5", "5.", "", "NaN", "9007199254740993", "999999999999999.9"]
    ),
)
SIDES = st.lists(st.tuples(DECIMALS, DECIMALS), max_size=4)


def _pairs(side: list[tuple[str, str]]) -> str:
    return "[" + ",".join(f'["{price}","{size}"]' for price, size in side) + "]"


def _objects(side: list[tuple[str, str]]) -> str:
    return "[" + ",".join(f'{{"price":"{price}","size":"{size}"}}' for price, size in side) + "]"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=4))
def test_any_numbers_agree(books: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]]) -> None:
    pairs = [
        f'{{"stream":"x@depth","data":{{"e":"depthUpdate","E":1790134512214,"s":"X","U":1,"u":2,"b":{_pairs(bids)},'
        f'"a":{_pairs(asks)}}}}}'.encode()
        for bids, asks in books
    ]
    agree("spot diff", pairs)
    objects = [
        f'{{"channel":"order_book:36","offset":1,"order_book":{{"code":0,"asks":{_objects(asks)},"bids":{_objects(bids)},'
        f'"offset":1,"nonce":9,"last_updated_at":0,"begin_nonce":0}},"timestamp":1785358812058,'
        f'"type":"subscribed/order_book"}}'.encode()
        for bids, asks in books
    ]
    agree("lighter", objects)


def test_texts_of_more_digits_than_a_double_holds_are_counted_not_hidden() -> None:
    body = EXAMPLES["spot diff"].replace(b"0.42061000", b"123456789.123456789")
    reader, scanner = SHAPES["spot diff"]
    for found in (read_books(frames([body]), reader, None), read_books(frames([body]), reader, scanner)):
        assert found.inexact == 1
        assert found.books["bid_sizes"][0].as_py()[0] == float("123456789.123456789")


def test_sizes_of_a_trillion_with_eight_decimals_are_exact_and_scanned() -> None:
    body = EXAMPLES["spot diff"].replace(b"0.42061000", b"1234567890123.50000000")
    assert agree("spot diff", [body]) == 1
    sizes = read_books(frames([body]), *SHAPES["spot diff"]).books["bid_sizes"][0].as_py()
    assert Decimal(sizes[0]) == Decimal("1234567890123.5")


@pytest.mark.parametrize("unit", [b"1790134512214", b"1790134512214123"])
def test_the_time_unit_follows_from_the_digits(unit: bytes) -> None:
    body = EXAMPLES["spot diff"].replace(b"1790134512214", unit)
    assert agree("spot diff", [body]) == 1
    time = read_books(frames([body]), *SHAPES["spot diff"]).books["event_time"].cast(pa.int64())[0].as_py()
    assert time == int(unit.ljust(16, b"0"))


def test_a_non_ascii_symbol_takes_the_reference() -> None:
    body = EXAMPLES["futures diff"].replace(b"BTCUSDT", "币安人生USDT".encode())
    assert agree("futures diff", [EXAMPLES["futures diff"], body, EXAMPLES["futures diff"]]) == 2
    symbols = read_books(frames([EXAMPLES["futures diff"], body]), *SHAPES["futures diff"]).books["symbol"]
    assert symbols.to_pylist() == ["BTCUSDT", "币安人生USDT"]


def test_a_market_that_the_catalogue_lacks_is_rejected_with_its_number() -> None:
    body = EXAMPLES["lighter"].replace(b"order_book:36", b"order_book:77")
    assert agree("lighter", [EXAMPLES["lighter"], body]) == 0
    found = read_books(frames([EXAMPLES["lighter"], body]), *SHAPES["lighter"])
    assert [(one.index, one.reason) for one in found.rejected] == [(1, "market 77 is not in the catalogue")]
    assert found.index.tolist() == [0]


def _recorded(name: str, path: str, channel: str) -> Callable[[], tuple[str, list[bytes]]]:
    def load() -> tuple[str, list[bytes]]:
        exchange = venue(name)
        return name, frames_of(exchange, [body for _, body in hftbacktest(recording(path))])[channel].bodies

    return load


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("shape", "name", "path"),
    [
        ("futures diff", "binance_futures", "hftbacktest/usdm_btcusdt_20240808.gz"),
        ("spot diff", "binance_spot", "hftbacktest/spot_ethusdt_20240808.gz"),
    ],
)
def test_all_recorded_frames_are_scanned_and_agree(shape: str, name: str, path: str) -> None:
    _, bodies = _recorded(name, path, "depth_diff")()
    assert agree(shape, bodies) == len(bodies)


@pytest.mark.recorded
def test_recorded_snapshots_and_books_in_band_are_scanned_and_agree() -> None:
    lines = [body for _, body in hftbacktest(recording("hftbacktest/usdm_btcusdt_20240808.gz"))]
    snapshots = [body for body in lines if body.startswith(b'{"lastUpdateId"')]
    assert agree("snapshot", snapshots) == len(snapshots) == 1
    lighter()
    for name in ("order_book_crv_20260729.jsonl", "order_book_eth_20260728_snapshot_truncated.jsonl"):
        bodies = recording(f"lighter_captured/{name}").read_bytes().splitlines()
        assert agree("lighter", bodies) == len(bodies)
