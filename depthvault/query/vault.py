"""`depthvault.open()`: one archive, in a directory or a bucket, to be asked in SQL, as Arrow, as books, or replayed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from depthvault.archive import checkpoint
from depthvault.book import reconstruct, sampling
from depthvault.book.reconstruct import Book
from depthvault.config import Config, Exchanges, Secrets, load_config
from depthvault.durations import parse_duration
from depthvault.errors import ConfigError, UsageError
from depthvault.exchanges import exchange as create_exchange
from depthvault.exchanges.base import Exchange
from depthvault.layout import Layout
from depthvault.query import ordered, replay, statement
from depthvault.query.catalog import Catalog, Secret, columns
from depthvault.query.follow import WINDOW, Follow
from depthvault.query.replay import Event, Gap, Notice, Stream
from depthvault.query.sources import LocalSources, StoreSources
from depthvault.query.text import Moment, literal, moment, quote
from depthvault.schemas import CHANNELS
from depthvault.seal.receipts import read_receipt
from depthvault.seal.spans import SpanIndex, Window
from depthvault.seal.unsealed import unsealed

if TYPE_CHECKING:
    from depthvault.archive.store import Store

_BATCH_ROWS = 16_384
_AHEAD = 16


class Vault:
    """One archive. Cheap to keep; every question sees what is there when it is asked, the running period included."""

    def __init__(self, catalog: Catalog, name: str, journals: LiveJournals | None = None) -> None:
        self.catalog = catalog
        self.name = name
        self._journals = journals

    def __repr__(self) -> str:
        return f"depthvault.open({self.name!r})"

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """The answer of one reading statement as a DuckDB relation: `.df()`, `.pl()`, `.to_arrow_table()`, `.show()`.

        It has a database of its own, whose views are narrowed to the files that the statement can want. For anything
        else use `connect()`. Raises UsageError, in one line, for what is wrong with the statement.
        """
        text = statement.check(query)
        try:
            return self.catalog.connect(text).sql(text)
        except duckdb.Error as error:
            raise UsageError(statement.one_line(error)) from error

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection with all views over all files, to be used with whatever else one has."""
        return self.catalog.connect()

    def channel(self, name: str, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """Rows of channel `name` received in [start, end), in chain order, as Arrow batches; `symbol` None: of all.

        Each has `exchange` and the channel's columns. Raises UsageError for a channel or exchange that there is not.
        """
        if name not in CHANNELS:
            raise UsageError(f"no channel {name!r}; there are {', '.join(CHANNELS)}")
        check_exchange(exchange)
        order = ", ".join(("symbol", *CHANNELS[name].order))
        named = ", ".join(f'"{column}"' for column, _ in columns(name))
        return self.arrow(
            f"SELECT {named} FROM {name} WHERE {self._where(exchange, symbol, start, end)} ORDER BY {order}"
        )

    @staticmethod
    def _where(exchange: str, symbol: str | None, start: Moment, end: Moment) -> str:
        wanted = [
            f"exchange = {quote(exchange)}",
            f"received_time >= {literal(moment(start))}",
            f"received_time < {literal(moment(end))}",
        ]
        if symbol is not None:
            wanted.append(f"symbol = {quote(symbol)}")
        return " AND ".join(wanted)

    def book(self, exchange: str, symbol: str, at: Moment) -> Book:
        """The whole book as it was known at `at`, with its provenance: see `Book` and `Provenance`.

        Raises ArchiveError when no snapshot had been received by then.
        """
        check_exchange(exchange)
        return reconstruct.book(self, exchange, symbol, moment(at))

    def books(
        self, exchange: str, symbol: str, start: Moment, end: Moment, every: str | timedelta = "1s", depth: int = 20
    ) -> pa.RecordBatchReader:
        """The best `depth` levels at `start`, `start + every`, … before `end`: Arrow batches of `BOOKS_SCHEMA`."""
        check_exchange(exchange)
        try:
            step = parse_duration(every)
        except ValueError as error:
            raise UsageError(str(error)) from error
        return sampling.books(self, exchange, symbol, moment(start), moment(end), step, depth)

    def replay(
        self, streams: Iterable[Stream | str | tuple[str, str, str]], start: Moment, end: Moment
    ) -> Iterator[Event | Gap | Notice]:
        """Events of many streams (`binance_futures/depth_diff/BTCUSDT`, …) received in [start, end), in that order.

        Each event comes right after the `Gap` before it, if there is one; what happened to the recorders (`Notice`)
        comes where it happened.
        """
        wanted = [Stream.parse(stream) for stream in streams]
        for stream in wanted:
            check_exchange(stream.exchange)
        return replay.replay(self, wanted, moment(start), moment(end))

    def follow(
        self,
        streams: Iterable[Stream | str | tuple[str, str, str]],
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        window: str | timedelta = WINDOW,
        timeout: str | timedelta | None = None,
    ) -> Follow:
        """What comes in now, in the types and the order of a replay, from `start` (default: now) on: see `Follow`.

        A `start` in the past is caught up with first; nothing is lost or doubled where the past ends. It waits for what
        comes until `end`, `timeout` without anything, or `stop()`. window: how long an event waits at most for writers
        that have not told yet what they received before it, and for another instance to close a hole. Raises UsageError
        for a bucket: only who can read the journals can follow them.
        """
        if self._journals is None:
            raise UsageError(f"{self.name} has no journals to follow: open the data directory of the collectors")
        wanted = [Stream.parse(stream) for stream in streams]
        if not wanted:
            raise UsageError("follow needs at least one stream")
        for stream in wanted:
            check_exchange(stream.exchange)
        try:
            limits = parse_duration(window), None if timeout is None else parse_duration(timeout)
        except ValueError as error:
            raise UsageError(str(error)) from error
        return Follow(
            self, self._journals, wanted,
            None if start is None else moment(start), None if end is None else moment(end),
            window=limits[0], timeout=limits[1],
        )  # fmt: skip

    def arrow(self, query: str, batch_rows: int = _BATCH_ROWS) -> pa.RecordBatchReader:
        """The answer of one reading statement as Arrow batches of at most `batch_rows` rows, made as they are read."""
        return self.sql(query).to_arrow_reader(batch_rows)

    def ordered(
        self,
        channel: str,
        exchange: str,
        symbol: str,
        low: int,
        high: int,
        columns: Sequence[str],
        only: str | None = None,
        most_files: int | None = None,
    ) -> Iterator[pa.RecordBatch] | None:
        """Rows received in [low, high] µs, in chain order, where the archive has them so; None: they must be sorted.

        only: a column of flags; rows where it is false are left out. most_files: None also when more files hold them.
        """
        return ordered.ordered(self.catalog, channel, exchange, symbol, low, high, columns, only, most_files)

    def depth_diff(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """Every change of the book; as `channel`."""
        return self.channel("depth_diff", exchange, symbol, start, end)

    def depth_partial(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """The top levels, each time whole; as `channel`."""
        return self.channel("depth_partial", exchange, symbol, start, end)

    def depth_snapshot(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """Whole books as REST gave them; as `channel`."""
        return self.channel("depth_snapshot", exchange, symbol, start, end)

    def book_ticker(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """Best bid and ask; as `channel`."""
        return self.channel("book_ticker", exchange, symbol, start, end)

    def agg_trade(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """Aggregated trades; as `channel`."""
        return self.channel("agg_trade", exchange, symbol, start, end)

    def trade(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """Single fills; as `channel`."""
        return self.channel("trade", exchange, symbol, start, end)

    def kline(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """Closed candles; as `channel`."""
        return self.channel("kline", exchange, symbol, start, end)

    def liquidation(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """Forced orders; as `channel`."""
        return self.channel("liquidation", exchange, symbol, start, end)

    def mark_price(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """Mark and index price; as `channel`."""
        return self.channel("mark_price", exchange, symbol, start, end)

    def funding_rate(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """Settled funding; as `channel`."""
        return self.channel("funding_rate", exchange, symbol, start, end)

    def open_interest(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """Open contracts; as `channel`."""
        return self.channel("open_interest", exchange, symbol, start, end)

    def instrument(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """Listings and their rules, at each change; as `channel`."""
        return self.channel("instrument", exchange, symbol, start, end)

    def collector_event(self, exchange: str, symbol: str | None, start: Moment, end: Moment) -> pa.RecordBatchReader:
        """What happened to the recorder; as `channel`."""
        return self.channel("collector_event", exchange, symbol, start, end)


def check_exchange(name: str) -> None:
    """UsageError when there is no exchange `name`."""
    if name not in Exchanges.model_fields:
        raise UsageError(f"no exchange {name!r}; there are {', '.join(Exchanges.model_fields)}")


class LiveJournals:
    """The journals of a data directory whose periods have no complete receipt yet."""

    def __init__(self, layout: Layout, config: Config) -> None:
        self.layout, self._config = layout, config
        self.index = SpanIndex(layout, config.archive.seal_grace)
        self._venues: dict[str, Exchange] = {}

    @property
    def exchanges(self) -> tuple[str, ...]:
        """The exchanges that have journals here."""
        return tuple(name for name in Exchanges.model_fields if (self.layout.journals / name).is_dir())

    def earliest(self, exchange: str) -> int | None:
        """Before when, in µs since the epoch, none of their rows was received; None: there are none."""
        found = []
        for writer in self.layout.writers(exchange):
            for period in self.index.periods(exchange, writer):
                receipt = self.layout.receipt(exchange, period, writer)
                if not receipt.exists() or not read_receipt(receipt).complete:
                    found.append(Window.of(period, self.index.grace).low // 1000)
        return min(found, default=None)

    def rows(self, exchange: str, channel: str) -> pa.Table:
        """Their rows of one channel."""
        return unsealed(self.layout, self.venue(exchange), channel, grace=self.index.grace, index=self.index)

    def venue(self, exchange: str) -> Exchange:
        """The exchange, as configured."""
        if exchange not in self._venues:
            self._venues[exchange] = create_exchange(exchange, self._config.exchanges[exchange])
        return self._venues[exchange]


def _secret(url: str, config: Config, secrets: Secrets) -> Secret | None:
    if secrets.r2_access_key_id is None or secrets.r2_secret_access_key is None:
        return None
    return Secret(
        scope=url,
        endpoint=secrets.r2_endpoint_url,
        region=config.store.region,
        key=secrets.r2_access_key_id.get_secret_value(),
        secret=secrets.r2_secret_access_key.get_secret_value(),
    )


def _fetch_ahead(store: Store) -> Callable[[int], bytes | None]:
    """A `Log.fetch` that asks for several manifests at once, since each answer takes a round trip."""
    fetched: dict[int, bytes] = {}

    def fetch(number: int) -> bytes | None:
        if number not in fetched:
            first = store.get(f"_manifests/{number:08d}.json")
            if first is None:
                return None
            fetched[number] = first
            following = range(number + 1, number + 1 + _AHEAD)
            with ThreadPoolExecutor(_AHEAD) as pool:
                answers = pool.map(lambda n: (n, store.get(f"_manifests/{n:08d}.json")), following)
                fetched.update((n, data) for n, data in answers if data is not None)
        return fetched.pop(number)

    return fetch


def _cached_log(url: str, endpoint: str | None) -> Path:
    """Where this host keeps its checkpoint of a bucket's log."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "depthvault" / "log" / hashlib.sha256(f"{endpoint} {url}".encode()).hexdigest()[:32]


def open_vault(
    target: str | Path | None = None, *, config: Config | None = None, secrets: Secrets | None = None
) -> Vault:
    """The archive at `target`: a data directory (default: the configured one), or `s3://bucket/prefix`.

    Access to a bucket comes from `R2_ENDPOINT_URL`, `R2_ACCESS_KEY_ID` and `R2_SECRET_ACCESS_KEY` in the environment or
    `.env`. With `R2_BUCKET_NAME` set, archived files that are no longer in the directory are read from that bucket.
    """
    config = config or load_config()
    secrets = secrets or Secrets()
    if isinstance(target, str) and target.startswith("s3://"):
        from depthvault.archive.store import open_store

        bucket, _, prefix = target.removeprefix("s3://").strip("/").partition("/")
        if not secrets.has_store and (secrets.r2_access_key_id is None or secrets.r2_secret_access_key is None):
            raise ConfigError(f"{target}: set R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY (and R2_ENDPOINT_URL)")
        store = open_store(
            config.store.model_copy(update={"prefix": prefix}), secrets.model_copy(update={"r2_bucket_name": bucket})
        )
        assert store is not None
        url = str(store)
        sources = StoreSources(
            url, _fetch_ahead(store), _cached_log(url, secrets.r2_endpoint_url), lambda: store.get(checkpoint.KEY)
        )
        return Vault(Catalog(sources, secret=_secret(url, config, secrets)), target)
    layout = Layout(Path(target) if target is not None else config.data_dir, config.archive.period)
    if not layout.root.is_dir():
        raise UsageError(f"{layout.root}: no such directory")
    bucket_url, secret = None, None
    if secrets.has_store:
        bucket_url = f"s3://{secrets.r2_bucket_name}/{config.store.prefix.strip('/')}".rstrip("/")
        secret = _secret(bucket_url, config, secrets)
    journals = LiveJournals(layout, config)
    return Vault(Catalog(LocalSources(layout, bucket_url), journals, secret), str(layout.root), journals)
