"""The archive's log: hash-chained manifests, and the state that they add up to. Pure: bytes in, bytes out.

An entry tells which files one channel and period (or day) gained and lost, and what they were made of. Entries are
numbered from 1; each holds the SHA-256 of the bytes of the one before. The archive is the fold of its entries.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from depthvault.errors import ChainError

Unit = tuple[str, str, str, str]
"""What an entry is about: kind (`hour`, `day`, `import`), exchange, channel, period."""


PENDING = "pending"
"""The condition of what was published without being judged."""


class Tail(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Where a chain stands at the end of a period, for the check against the next one.

    received_us: receipt of the last event, µs since the epoch. final_id: last id of the chain, where the channel has
    one. epoch: the id epoch. snapshot_id: last in-band snapshot after `final_id` that no event has followed yet;
    snapshot_us: its receipt.
    """

    received_us: int
    final_id: int | None = None
    epoch: int = 0
    snapshot_id: int | None = None
    snapshot_us: int | None = None


class SymbolSpan(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What one file holds of one symbol: rows, receipt times in µs since the epoch, ids, and its row groups."""

    rows: int
    first_us: int
    last_us: int
    row_groups: tuple[int, int]
    first_id: int | None = None
    last_id: int | None = None


class ArchiveFile(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One archived file. `path` is relative to `archive/` and equals its object key behind the prefix.

    logical_sha256: hash of the values, equal under other library versions (`encoding.LogicalHash`).
    schema_version: that of its columns.
    table: the channel, or for quality files the table's name.
    """

    path: str
    sha256: str
    bytes: int
    rows: int
    logical_sha256: str
    table: str
    first_us: int | None = None
    last_us: int | None = None
    first_id: int | None = None
    last_id: int | None = None
    symbols: dict[str, SymbolSpan] = {}
    schema_version: int = 1


class InputFile(msgspec.Struct, frozen=True, order=True, gc=False):
    """A live file that went into an entry."""

    path: str
    sha256: str
    rows: int


class Conflict(msgspec.Struct, frozen=True):
    """The same key with another payload: what was kept, what was not, both in full."""

    symbol: str
    key: str
    kept_instance: str
    other_instance: str
    kept: str
    other: str


class Counts(msgspec.Struct, frozen=True, gc=False):
    """What compaction did to the rows of one channel and period.

    rows_in = rows + duplicates + conflicts + redundant (covered by the carrier's differently batched events)
    + repeated (in the period before) + unchanged (an `instrument` state that is still the same).
    """

    rows_in: int = 0
    rows: int = 0
    duplicates: int = 0
    conflicts: int = 0
    redundant: int = 0
    repeated: int = 0
    unchanged: int = 0
    rejected: int = 0
    inexact: int = 0
    gaps: int = 0


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One manifest. `period` is `YYYYMMDDTHHMM` for hours and imported days, `YYYY-MM-DD` for days.

    inputs: the live files it was made of; receipts: SHA-256 of the receipts that name them. archived_inputs: files of
    the archive itself that it was made of.
    predecessor: digest of the tails that the first events were checked against.
    tails: per symbol the chain's end, under "" for the stitched chain (under "~" without what was refilled, while that
    is behind), under each instance's name for its own, and under "@" and its name for each series of times;
    tails_sha256: their digest.
    condition: `available`, `degraded` when an expectation failed (`failed` names which), `pending` when none was asked
    (of a day: the worst of its periods when it was rolled up), or `imported`: rows that an earlier recorder wrote,
    proved by nothing; `inputs` are its files then.
    """

    number: int
    previous: str | None
    kind: str  # hour, day, import
    exchange: str
    channel: str
    period: str
    period_minutes: int
    generation: int
    created: str
    publisher: str
    software: str
    schema_version: int
    libraries: dict[str, str]
    inputs: list[InputFile]
    add: list[ArchiveFile]
    remove: list[str]
    counts: Counts
    condition: str = "available"
    failed: list[str] = []
    predecessor: str = ""
    receipts: dict[str, str] = {}
    archived_inputs: list[InputFile] = []
    conflicts: list[Conflict] = []
    tails: dict[str, dict[str, Tail]] = {}
    tails_sha256: str = ""
    note: str = ""

    @property
    def unit(self) -> Unit:
        return self.kind, self.exchange, self.channel, self.period


def encode(entry: Entry) -> bytes:
    """The entry's canonical bytes: JSON with sorted keys, one line."""
    return msgspec.json.encode(entry, order="sorted") + b"\n"


def decode(data: bytes, origin: str = "manifest") -> Entry:
    """The entry that `data` holds. ChainError naming `origin` when it is none, or not in canonical form."""
    try:
        entry = msgspec.json.decode(data, type=Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ChainError(f"{origin}: not a manifest: {error}") from error
    return entry


def digest(data: bytes) -> str:
    """SHA-256 of an entry's bytes, as the next entry names it."""
    return hashlib.sha256(data).hexdigest()


def worst(*conditions: str) -> str:
    """The condition of what is made of parts in these conditions."""
    return max(conditions, key=("available", PENDING, "degraded").index, default="available")


def tails_digest(tails: dict[str, dict[str, Tail]]) -> str:
    """A digest of where the chains stood; changes when a check against them would have to be made anew."""
    return hashlib.sha256(msgspec.json.encode(tails, order="sorted")).hexdigest() if tails else ""


@dataclass(slots=True)
class ArchiveState:
    """What the entries so far add up to.

    files: current files by path, owner: the unit of each. superseded: removed files by path, replaced_in: the unit of
    the entry that removed each. current: the latest entry of each unit, hours: the periods of each exchange and
    channel, ascending. inputs: path and SHA-256 of every live file that ever went in. digests: SHA-256 of the bytes of
    each entry, entry 1 first.
    """

    files: dict[str, ArchiveFile] = field(default_factory=dict)
    superseded: dict[str, ArchiveFile] = field(default_factory=dict)
    replaced_in: dict[str, Unit] = field(default_factory=dict)
    current: dict[Unit, Entry] = field(default_factory=dict)
    owner: dict[str, Unit] = field(default_factory=dict)
    hours: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    inputs: set[tuple[str, str]] = field(default_factory=set)
    digests: list[str] = field(default_factory=list)

    @property
    def number(self) -> int:
        """The last entry's number; 0 for an empty archive."""
        return len(self.digests)

    @property
    def head(self) -> str | None:
        """SHA-256 of the last entry's bytes."""
        return self.digests[-1] if self.digests else None

    def append(self, data: bytes, origin: str = "manifest") -> Entry:
        """Take the next entry in. ChainError when it does not follow; the state is untouched then."""
        entry = decode(data, origin)
        if entry.number != self.number + 1:
            raise ChainError(f"{origin}: is entry {entry.number}, entry {self.number + 1} must follow")
        if entry.previous != self.head:
            raise ChainError(f"{origin}: names {entry.previous} as the entry before, which is {self.head}")
        for path in entry.remove:
            if path not in self.files:
                raise ChainError(f"{origin}: removes {path}, which is not in the archive")
        removed = set(entry.remove)
        for file in entry.add:
            if (file.path in self.files and file.path not in removed) or file.path in self.superseded:
                raise ChainError(f"{origin}: adds {file.path}, which was there before")
        for path in entry.remove:
            self.superseded[path] = self.files.pop(path)
            self.owner.pop(path)
            self.replaced_in[path] = entry.unit
        for file in entry.add:
            self.files[file.path] = file
            self.owner[file.path] = entry.unit
        if entry.kind == "hour" and entry.unit not in self.current:
            insort(self.hours.setdefault((entry.exchange, entry.channel), []), entry.period)
        self.current[entry.unit] = entry
        self.inputs.update((source.path, source.sha256) for source in entry.inputs)
        self.digests.append(digest(data))
        return entry

    def entry(self, kind: str, exchange: str, channel: str, period: str) -> Entry | None:
        """The latest entry of a unit."""
        return self.current.get((kind, exchange, channel, period))

    def files_of(self, unit: Unit) -> list[ArchiveFile]:
        """The current files of a unit, whichever of its entries added them, by path."""
        return [file for path, file in sorted(self.files.items()) if self.owner[path] == unit]

    def is_rolled_up(self, exchange: str, channel: str, period: str) -> bool:
        """Whether the rows of an hour (`YYYYMMDDTHHMM`) now stand in files of its day."""
        return ("day", exchange, channel, f"{period[:4]}-{period[4:6]}-{period[6:8]}") in self.current

    def before(self, exchange: str, channel: str, period: str) -> Entry | None:
        """The entry of the latest hour before `period` that the archive has of this channel."""
        periods = self.hours.get((exchange, channel), [])
        place = bisect_left(periods, period)
        return self.current["hour", exchange, channel, periods[place - 1]] if place else None

    def sha256sums(self, without: Iterable[str] = ()) -> bytes:
        """The text that `sha256sum -c` reads in `archive/`: current files and manifests, but `without`."""
        hidden = set(without)
        lines = [f"{value}  _manifests/{number:08d}.json" for number, value in enumerate(self.digests, 1)]
        lines += [f"{file.sha256}  {path}" for path, file in sorted(self.files.items()) if path not in hidden]
        return "".join(f"{line}\n" for line in lines).encode()


def fold(entries: Iterable[tuple[str, bytes]]) -> ArchiveState:
    """The state after `entries` (origin and bytes, in order). ChainError at the first that does not follow."""
    state = ArchiveState()
    for origin, data in entries:
        state.append(data, origin)
    return state
