"""The journal's record: magic, length, CRC32C, one Arrow IPC record batch message (zstd).

    offset  size  what
    0       4     magic
    4       4     length of the payload in bytes, unsigned, little endian
    8       4     CRC32C over the length field and the payload, unsigned, little endian
    12      n     payload: an encapsulated Arrow IPC RecordBatch message of `SCHEMA`

A journal file is nothing but records. The checksum is verified before Arrow sees a byte, because Arrow reads half of
all single-bit flips back as wrong values without a word (measured).
"""

from __future__ import annotations

import struct

import google_crc32c
import pyarrow as pa

from depthvault.errors import JournalError

MAGIC = b"\xd4VJ\x01"
"""Starts each record. Its first byte never occurs in JSON's ASCII, so that a scan for it stops seldom."""

HEADER = struct.Struct("<4sII")
_LENGTH = struct.Struct("<I")

MAX_PAYLOAD = 1 << 30
"""No record is longer: a damaged length that says more is known to be wrong without reading on."""

SCHEMA = pa.schema(
    [
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("wall_ns", pa.int64(), nullable=False),
        pa.field("monotonic_ns", pa.int64(), nullable=False),
        pa.field("connection", pa.int64(), nullable=False),
        pa.field("kind", pa.utf8(), nullable=False),
        pa.field("stream", pa.utf8(), nullable=False),
        pa.field("body", pa.binary(), nullable=False),
    ]
)
"""The columns of every journal. `sequence` is consecutive from 0 within a file; a hole in it is a lost record."""

_SCHEMA_MESSAGE = SCHEMA.serialize().to_pybytes()


def checksum(length: bytes, payload: bytes | memoryview) -> int:
    """The CRC32C of a record."""
    # google_crc32c wants bytes objects; the payload is one already wherever it comes from.
    return int(google_crc32c.extend(google_crc32c.value(length), bytes(payload)))


class RecordEncoder:
    """Turns record batches into records."""

    def __init__(self, compression_level: int = 1) -> None:
        codec = pa.Codec("zstd", compression_level=compression_level)
        self._options = pa.ipc.IpcWriteOptions(compression=codec, use_threads=False)

    def encode(self, batch: pa.RecordBatch) -> tuple[bytes, bytes]:
        """The record's header and payload."""
        sink = pa.BufferOutputStream()
        # Never closed: closing would write the stream's end marker behind the batch.
        pa.ipc.new_stream(sink, SCHEMA, options=self._options).write_batch(batch)
        # The stream writer puts the schema message in front; a record is the batch message alone.
        payload = sink.getvalue().slice(len(_SCHEMA_MESSAGE)).to_pybytes()
        if len(payload) > MAX_PAYLOAD:
            raise JournalError(f"a record of {len(payload)} bytes is more than {MAX_PAYLOAD}")
        length = _LENGTH.pack(len(payload))
        return HEADER.pack(MAGIC, len(payload), checksum(length, payload)), payload


def is_intact(header: bytes, payload: bytes) -> bool:
    """Whether `payload` is the one that `header` was written for."""
    magic, length, crc = HEADER.unpack(header)
    return bool(magic == MAGIC and length == len(payload) and crc == checksum(header[4:8], payload))


def decode(payload: bytes, columns: tuple[str, ...] | None = None) -> pa.RecordBatch:
    """The batch of an intact payload; with `columns` only these are decompressed.

    Raises pa.ArrowInvalid and its kin when the payload, though intact, is no batch.
    """
    if columns is None:
        return pa.ipc.read_record_batch(pa.py_buffer(payload), SCHEMA)
    fields = sorted(SCHEMA.get_field_index(name) for name in columns)
    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
    with pa.ipc.open_stream(pa.py_buffer(_SCHEMA_MESSAGE + payload), options=options) as stream:
        return stream.read_next_batch()
