"""Whole books (REST snapshots, and on Lighter the answers to subscriptions) against the true book at their id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.trial.archived import ArchivedFiles
from collectors.trial.compare import whole_numbers, wrong_rows
from collectors.trial.expected import Column
from collectors.trial.findings import Findings
from collectors.trial.held import Held
from simulator.instruments import lighter_instrument
from simulator.truth import TrueBook, Truth

Ints = npt.NDArray[np.int64]
BOOKS_AT_A_TIME = 4000
"""True books in memory; more are made in further passes over the ledger."""
_SIDES = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
_COLUMNS = tuple(Column(name, "levels") for name in _SIDES)


def judge_books(
    truth: Truth, venue: str, journals: Held, files: ArchivedFiles, symbols: list[str]
) -> Iterator[Findings]:
    """Compare every archived whole book of `venue`, level by level, and see what the book audit said."""
    if venue == "lighter":
        yield from _judge(truth, venue, _in_band(journals, symbols), files, symbols, "whole books")
        probed = {
            lighter_instrument(rank).symbol: Counter(
                journals.snapshots.get(f"order_book:{lighter_instrument(rank).market_id}", ())
            )
            for rank in range(len(symbols))
        }
        yield from _judge(truth, venue, probed, files, symbols, "probes")
    else:
        answered = {name: Counter(ids) for name, ids in journals.snapshots.items()}
        yield from _judge(truth, venue, answered, files, symbols, "whole books")
    audits = files.audits()
    findings = Findings(venue, "book audit", archived=audits.num_rows)
    for row in audits.to_pylist():
        findings.numbers += row["matched"]
        if row["missing"] or row["extra"] or row["different"]:
            findings.wrong += findings.note(f"{row['symbol']}: the replayed book differs: {row}")
    yield findings


def _judge(
    truth: Truth, venue: str, held: dict[str, Counter[int]], files: ArchivedFiles, symbols: list[str], name: str
) -> Iterator[Findings]:
    in_band = venue == "lighter" and name == "whole books"
    channel = "depth_diff" if in_band else "depth_snapshot"
    id_column = "final_update_id" if in_band else "last_update_id"
    findings = Findings(venue, name)
    tables = {}
    for symbol in symbols:
        columns = [id_column, *_SIDES, *(["is_snapshot"] if in_band else ["limit", "request_time"])]
        table = files.rows(channel, symbol, columns)
        if in_band:
            table = table.filter(table.column("is_snapshot"))
        ids = whole_numbers(table.column(id_column).combine_chunks())
        expected = held.get(symbol, Counter())
        if in_band:  # two instances may be given the same book; it is archived once
            expected = Counter(dict.fromkeys(expected, 1))
        found = Counter(ids.tolist())
        findings.streams += 1
        findings.held += expected.total()
        findings.generated += expected.total()
        findings.archived += table.num_rows
        findings.lost += findings.example(f"{symbol}: answered, not archived", _left(expected - found))
        extra = found - expected
        doubled = Counter({key: count for key, count in extra.items() if key in expected})
        findings.doubled += findings.example(f"{symbol}: archived twice", _left(doubled))
        findings.unheld += findings.example(f"{symbol}: archived, in no journal", _left(extra - doubled))
        if table.num_rows:
            tables[symbol] = (table, ids)
    for group in _groups(tables):
        books = truth.books(venue, {symbol: tables[symbol][1].tolist() for symbol in group})
        for symbol in group:
            _compare(findings, symbol, *tables[symbol], books)
    if findings.archived or findings.held:
        yield findings


def _in_band(journals: Held, symbols: list[str]) -> dict[str, Counter[int]]:
    """Ids of the books that answered subscriptions, by symbol."""
    found: dict[str, Counter[int]] = {}
    for rank in range(len(symbols)):
        market = lighter_instrument(rank)
        answers = journals.first.get(f"order_book:{market.market_id}", ())
        found[market.symbol] = Counter(msgspec.json.decode(body)["order_book"]["nonce"] for body, _ in answers)
    return found


def _left(counts: Counter[int]) -> Ints:
    return np.array(sorted(counts.elements()), np.int64)


def _groups(tables: dict[str, tuple[pa.Table, Ints]]) -> Iterator[list[str]]:
    group: list[str] = []
    count = 0
    for symbol, (table, _) in tables.items():
        if group and count + table.num_rows > BOOKS_AT_A_TIME:
            yield group
            group, count = [], 0
        group.append(symbol)
        count += table.num_rows
    if group:
        yield group


def _compare(
    findings: Findings, symbol: str, table: pa.Table, ids: Ints,
    books: dict[tuple[str, int], TrueBook],
) -> None:  # fmt: skip
    limits = table.column("limit").to_pylist() if "limit" in table.column_names else [None] * table.num_rows
    rows = []
    for update_id, limit in zip(ids.tolist(), limits, strict=True):
        book = books[symbol, update_id]
        sides = []
        for side in (book.bids, book.asks):
            levels = list(side.items())[:limit]
            sides += [[price for price, _ in levels], [size for _, size in levels]]
        rows.append(tuple(sides))
        findings.numbers += sum(map(len, sides))
    wrong = wrong_rows(table, rows, _COLUMNS)
    findings.wrong += findings.example(f"{symbol}: not the venue's book", ids[wrong])
