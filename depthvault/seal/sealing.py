"""Seals periods: a pure function from a writer's journals to its live Parquet files and their receipt.

The same journals give the same files and receipt, byte for byte. Sealing what is sealed already does nothing; when a
journal has shown more rows since (a clock that stepped back, a journal that was recovered), it seals anew.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from depthvault.clock import ns_from_datetime
from depthvault.config import Config
from depthvault.durable import make_directories
from depthvault.errors import ArchiveError
from depthvault.exchanges import exchange as make_exchange
from depthvault.exchanges.base import Exchange
from depthvault.journal.writer import software_version
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import SCHEMA_VERSION
from depthvault.seal.decoding import WindowDecoder
from depthvault.seal.live import LiveWriter
from depthvault.seal.reading import Reading, read_window
from depthvault.seal.receipts import Receipt, read_receipt, write_receipt
from depthvault.seal.spans import SpanIndex, Window

QUIET = timedelta(seconds=60)
"""How long after its grace a period waits for a live writer that has shown no later row; see `seal_due`."""

Inputs = Mapping[Path, tuple[int, int]]


def seal(
    layout: Layout,
    exchange: Exchange,
    writer: str,
    period: Period,
    *,
    grace: timedelta,
    final: bool = True,
    force: bool = False,
    index: SpanIndex | None = None,
) -> Receipt | None:
    """Seal one period of one writer and return its receipt; None when the journals have nothing of it.

    final: the period is over, so the receipt is complete. force: decode anew although the receipt is up to date (after
    a decoder was mended). Raises ArchiveError when journals that the receipt was made from are gone, so that sealing
    anew would lose rows.
    """
    index = index or SpanIndex(layout, grace)
    with _only_one(layout, exchange.name, writer):
        return _seal(layout, exchange, writer, period, grace, final, force, index)


@contextmanager
def _only_one(layout: Layout, exchange: str, writer: str) -> Iterator[None]:
    """Wait until nobody else seals what `writer` recorded; a process that dies lets go."""
    folder = layout.receipts(exchange)
    make_directories(folder)
    descriptor = os.open(folder / f".{writer}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _seal(
    layout: Layout,
    exchange: Exchange,
    writer: str,
    period: Period,
    grace: timedelta,
    final: bool,
    force: bool,
    index: SpanIndex,
) -> Receipt | None:
    inputs = index.inputs(exchange.name, writer, period)
    path = layout.receipt(exchange.name, period, writer)
    before = read_receipt(path) if path.exists() else None
    if before is not None and before.complete:
        if is_current(before, inputs, layout) and not force:
            return before
        gone = sorted(set(before.inputs) - {_name(journal, layout) for journal in inputs})
        if gone:
            raise ArchiveError(f"{path}: cannot seal anew without {gone[0]} (and {len(gone) - 1} more journals)")
    if not inputs:
        return before

    window = Window.of(period, grace)
    decoder = WindowDecoder(exchange, writer, window, grace)
    reading = Reading()
    software = software_version()
    with LiveWriter(layout, exchange.name, writer, period, software) as live:
        for piece in read_window(dict(inputs), layout.root, window, decoder, reading):
            live.add(piece.channel, piece.period, piece.rows)
        files = live.publish()
    if not files and not reading.rows_in_period and before is None:
        return None
    receipt = Receipt(
        exchange=exchange.name,
        writer=writer,
        period=period.label,
        period_minutes=period.length // timedelta(minutes=1),
        complete=final,
        journals=reading.journals,
        files=files,
        damage=reading.damage,
        dropped=reading.dropped,
        rejected=dict(+decoder.tally.rejected),
        unknown=dict(+decoder.tally.unknown),
        inexact=dict(+decoder.tally.inexact),
        connections=reading.connections,
        software=software,
        schema_version=SCHEMA_VERSION,
        markets={str(number): symbol for number, symbol in decoder.markets.items()},
        malformed=decoder.tally.earliest(),
    )
    write_receipt(layout, receipt)
    if before is not None:
        for stale in {file.path for file in before.files} - {file.path for file in files}:
            (layout.root / stale).unlink(missing_ok=True)
    return receipt


def is_current(receipt: Receipt, inputs: Inputs, layout: Layout) -> bool:
    """Whether the receipt was made from all that the journals have for its period now."""
    known = receipt.inputs
    return all(known.get(_name(path, layout), -1) >= stop for path, (_, stop) in inputs.items())


def _name(path: Path, layout: Layout) -> str:
    return path.relative_to(layout.root).as_posix()


class Sealer:
    """Finds what is due, and remembers between two looks what it has read of the journals."""

    def __init__(self, layout: Layout, grace: timedelta) -> None:
        self.layout = layout
        self.grace = grace
        self.index = SpanIndex(layout, grace)
        self._checked: dict[Path, tuple[int, int, Receipt]] = {}
        self._nothing: set[tuple[str, str, Period, tuple[tuple[Path, int], ...]]] = set()

    def due(self, exchanges: Iterable[str], now: datetime) -> list[tuple[str, str, Period]]:
        """The (exchange, writer, period) that can be sealed for good and are not, oldest first."""
        found = []
        for exchange in exchanges:
            for writer in self.layout.writers(exchange):
                for period, inputs in self.index.periods(exchange, writer).items():
                    if self._is_over(exchange, writer, period, now) and self.is_open(exchange, writer, period, inputs):
                        found.append((exchange, writer, period))
        return sorted(found, key=lambda one: (one[2], one[0], one[1]))

    def seal(self, exchange: Exchange, writer: str, period: Period, *, final: bool = True) -> Receipt | None:
        """Seal one period; None when there is nothing of it (which is remembered)."""
        receipt = seal(self.layout, exchange, writer, period, grace=self.grace, final=final, index=self.index)
        if receipt is None:
            inputs = self.index.inputs(exchange.name, writer, period)
            self._nothing.add((exchange.name, writer, period, _fingerprint(inputs)))
        return receipt

    def _is_over(self, exchange: str, writer: str, period: Period, now: datetime) -> bool:
        end = period.end + self.grace
        if now < end:
            return False
        if self.index.shown_until(exchange, writer, ns_from_datetime(end)):
            return True
        # A writer flushes several times a second, so what it had has long been written; when it comes later after all
        # (its disk was full), the period is sealed anew.
        return now >= end + QUIET

    def is_open(self, exchange: str, writer: str, period: Period, inputs: Inputs) -> bool:
        """Whether the period has no complete receipt, or one that was not made from all there is now."""
        if (exchange, writer, period, _fingerprint(inputs)) in self._nothing:
            return False
        receipt = self._receipt(self.layout.receipt(exchange, period, writer))
        return receipt is None or not receipt.complete or not is_current(receipt, inputs, self.layout)

    def _receipt(self, path: Path) -> Receipt | None:
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        known = self._checked.get(path)
        if known is None or known[:2] != (status.st_size, status.st_mtime_ns):
            known = (status.st_size, status.st_mtime_ns, read_receipt(path))
            self._checked[path] = known
        return known[2]


def _fingerprint(inputs: Inputs) -> tuple[tuple[Path, int], ...]:
    return tuple((path, stop) for path, (_, stop) in inputs.items())


def recorded_exchanges(config: Config) -> dict[str, Exchange]:
    """Every venue that has journals, by name: what was recorded is sealed, also when the venue is now disabled."""
    names = sorted(type(config.exchanges).model_fields)
    return {
        name: make_exchange(name, config.exchanges[name])
        for name in names
        if (config.layout.journals / name).is_dir()
    }  # fmt: skip


def seal_due(
    layout: Layout, config: Config, exchanges: Iterable[str], now: datetime, *, sealer: Sealer | None = None
) -> list[tuple[str, str, Period]]:
    """The (exchange, writer, period) that are due: over with their grace, and not sealed or not with all rows.

    A period of a writer is over when the grace after its end has passed and each journal that is still being written
    shows a later row (those whose lock is free are closed: their writer stopped or crashed), or QUIET has passed, too.
    """
    return (sealer or Sealer(layout, config.archive.seal_grace)).due(exchanges, now)


def seal_all(
    layout: Layout, config: Config, exchanges: Mapping[str, Exchange] | None = None, *, now: datetime
) -> list[Receipt]:
    """Seal what is not sealed, the running periods, too (their receipts are not complete); returns what was made."""
    exchanges = recorded_exchanges(config) if exchanges is None else exchanges
    sealer = Sealer(layout, config.archive.seal_grace)
    due = set(sealer.due(exchanges, now))
    made = []
    for name, exchange in exchanges.items():
        for writer in layout.writers(name):
            for period, inputs in sealer.index.periods(name, writer).items():
                if not sealer.is_open(name, writer, period, inputs):
                    continue
                path = layout.receipt(name, period, writer)
                final = (name, writer, period) in due or (path.exists() and read_receipt(path).complete)
                if (receipt := sealer.seal(exchange, writer, period, final=final)) is not None:
                    made.append(receipt)
    return made


def seal_pending(config: Config, *, everything: bool = False, now: datetime | None = None) -> list[Receipt]:
    """Seal what is due, of all venues; with `everything` the running periods, too. What `depthvault seal` does."""
    now = now or datetime.now(UTC)
    exchanges = recorded_exchanges(config)
    if everything:
        return seal_all(config.layout, config, exchanges, now=now)
    sealer = Sealer(config.layout, config.archive.seal_grace)
    made = (sealer.seal(exchanges[name], writer, period) for name, writer, period in sealer.due(exchanges, now))
    return [receipt for receipt in made if receipt is not None]
