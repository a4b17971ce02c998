"""A receipt closes one period of one writer: what was read, what was written, and what could not be.

It holds no times of its own making, so that the same journals give the same receipt, byte for byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from depthvault.durable import write_atomic
from depthvault.errors import CorruptError
from depthvault.layout import Layout
from depthvault.period import Period


class JournalInput(msgspec.Struct, frozen=True, kw_only=True):
    """A journal that was read from its beginning up to `bytes_read`: the end of its last record for this period.

    path: below data_dir. rows: good rows in these bytes. crc32c: of their good records, 8 hex digits.
    """

    path: str
    bytes_read: int
    rows: int
    crc32c: str


class LiveFile(msgspec.Struct, frozen=True, kw_only=True):
    """A published Parquet file. path: below data_dir. late: the seal unit that brought these stragglers, if any."""

    path: str
    channel: str
    period: str
    late: str | None
    rows: int
    sha256: str
    bytes: int


class DamagedRegion(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes `[start, end)` of a journal that hold no good record, or rows left out between two that do.

    from_ns, until_ns: wall times of the rows around it; null at the journal's beginning and end.
    """

    path: str
    start: int
    end: int
    kind: str
    reason: str
    last_sequence: int | None
    next_sequence: int | None
    from_ns: int | None
    until_ns: int | None


class DroppedRows(msgspec.Struct, frozen=True, kw_only=True):
    """Frames that the writer refused while its memory was full, as its `gap` row at `sequence` declares."""

    journal: str
    sequence: int
    rows: int
    connections: list[int]
    from_ns: int
    until_ns: int


MOST_MALFORMED = 1000


class MalformedFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame that could not be decoded, and when it was received. channel: empty when not even that is known."""

    channel: str
    at_ns: int


NOT_TOLD = 0
"""`heard_ns` in receipts of earlier software, which did not look."""


class StreamSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription of a connection. until_ns: null when it lasted as long as the connection; where the stream was
    found silent, its last frame.

    heard_ns: receipt of its first frame; null: none came; or `NOT_TOLD`. silent: the
    stream had been found silent before, so that nothing speaks for it until its first frame.
    """

    stream: str
    from_ns: int
    until_ns: int | None
    heard_ns: int | None = NOT_TOLD
    silent: bool = False


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """A connection as this period's journals show it.

    continues: it was open when its journal file began (the file before has its first part).
    closed_ns: null when it was still open at the end of what was read.
    cause: `closed` (by the venue or the network), `roll`, `stop`, `rotate` (it goes on in the next file), `crash` (the
    writer was gone without a word; closed_ns is then its last row's time); null when still open.
    """

    connection: int
    route: str
    journal: str
    continues: bool
    opened_ns: int
    closed_ns: int | None
    cause: str | None
    streams: list[StreamSpan]


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """One sealed period of one writer.

    complete: False while the period is running (`seal --all`).
    rejected: undecodable frames by channel (`frame` when not even that is known); they are kept in the journal.
    malformed: the first `MOST_MALFORMED` of them by time, for the causes of gaps.
    unknown: frames by stream name that is no subscription of ours. inexact: number texts whose double is not the text,
    by channel, in the frames read (frames within the grace before and after the period count in both periods).
    markets: the venue's market number (as text) to symbol, where stream names carry only the number (Lighter).
    """

    exchange: str
    writer: str
    period: str
    period_minutes: int
    complete: bool
    journals: list[JournalInput]
    files: list[LiveFile]
    damage: list[DamagedRegion]
    dropped: list[DroppedRows]
    rejected: dict[str, int]
    unknown: dict[str, int]
    inexact: dict[str, int]
    connections: list[Connection]
    software: str
    schema_version: int
    markets: dict[str, str] = {}
    malformed: list[MalformedFrame] = []

    @property
    def inputs(self) -> dict[str, int]:
        """`bytes_read` by journal path."""
        return {journal.path: journal.bytes_read for journal in self.journals}

    @property
    def symbols(self) -> dict[int, str]:
        """`markets`, as `Exchange.channel_of` wants it."""
        return {int(number): symbol for number, symbol in self.markets.items()}

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files)


class _Unsigned(Receipt, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A receipt of earlier software, which bore no checksum: one with a damaged checksum is none of these."""


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Receipt)
_END = b"\n}\n"
_SIGNATURE = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n}\n\Z')


def encode_receipt(receipt: Receipt) -> bytes:
    """The receipt's bytes: keys in a fixed order, indented for people, a newline at the end.

    The last key, `sha256`, is that of the bytes as they are without it.
    """
    body = msgspec.json.format(_encoder.encode(receipt), indent=1) + b"\n"
    return body.removesuffix(_END) + f',\n "sha256": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def write_receipt(layout: Layout, receipt: Receipt) -> Path:
    """Publish the receipt: durable and whole, or not at all."""
    period = Period.parse(receipt.period, layout.period)
    path = layout.receipt(receipt.exchange, period, receipt.writer)
    write_atomic(path, encode_receipt(receipt))
    return path


def read_receipt(path: Path) -> Receipt:
    """The receipt at `path`. Raises CorruptError when it is none or any byte was changed, OSError when it cannot be
    read."""
    data = path.read_bytes()
    try:
        if (signed := _SIGNATURE.search(data)) is None:
            msgspec.json.decode(data, type=_Unsigned)
            return _decoder.decode(data)
        body = data[: signed.start()] + _END
        if hashlib.sha256(body).hexdigest().encode() != signed[1]:
            raise CorruptError(f"{path}: not the bytes that were written; without it the sealer makes it anew")
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{path}: not a receipt: {error}") from error


def receipts(layout: Layout, exchange: str) -> Iterator[Receipt]:
    """Every receipt of `exchange`, by period, then writer."""
    for path in sorted(layout.receipts(exchange).glob("*.json")):
        yield read_receipt(path)
