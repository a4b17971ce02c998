"""What a venue must state. One module a venue: pure facts and rules, no I/O.

A collector needs: where to connect (`routes`, `url`), what to subscribe to and how fast (`streams`, `subscribe`,
`pacing`), how to stay alive (`keep_alive`), how a frame is classified (`classify`), the ids of a book event (`head`)
with the continuity rule (`continuity`), and how a book is seeded (`seed`, `snapshot_request`).
The sealer needs: how frames and REST answers become rows (`decode`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import msgspec
import pyarrow as pa

from depthvault.config import ExchangeConfig

PROBE = "SUBSCRIBE "
"""Where books come in band, a subscription made to see the whole book once is a question, and the book its answer:
the journal keeps both as it keeps REST answers, and this with the stream's name is the request line."""


class Seed(StrEnum):
    """Where a book's first state comes from."""

    REST = "rest"  # fetch a snapshot and splice it into the stream by id
    IN_BAND = "in_band"  # the first message after a subscription is the whole book


class FrameKind(StrEnum):
    """What a received frame is to the collector."""

    DATA = "data"
    ACK = "ack"
    ERROR = "error"  # the venue refused something we sent
    SHUTDOWN = "shutdown"  # the server announces its end: roll the connection now
    PING = "ping"  # an application-level ping that wants `reply`
    OTHER = "other"  # nothing to do (pong, greeting)
    MALFORMED = "malformed"  # not what the venue's rules allow: kept raw and counted


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame, classified. `stream` is the venue's name as it stands in the frame; empty for control frames.

    about: the stream that a refusal names, where it names one.
    """

    kind: FrameKind
    stream: str = ""
    request_id: int | None = None
    reply: bytes | None = None
    reason: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """One subscription. `symbol` is empty for streams of the whole market."""

    name: str
    channel: str
    symbol: str
    route: str


class Head(msgspec.Struct, frozen=True, gc=False):
    """The ids of one book event. `prev` is None where the venue has none; `is_snapshot` starts a new chain.

    A msgspec struct, because one is made for each depth frame: a frozen dataclass takes 5 times as long.
    """

    first: int
    final: int
    prev: int | None
    is_snapshot: bool = False
    event_ms: int = 0


@dataclass(frozen=True, slots=True)
class Pacing:
    """How fast a client may send. per_address: the limit counts all connections of an address, not each."""

    per_second: float
    burst: int
    names_per_message: int
    streams_per_connection: int
    per_address: bool = False


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Who keeps a connection alive: the server's ping frames, or we, with `message` every `interval` seconds."""

    interval: float | None = None
    message: bytes | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A GET. `line` is what the journal keeps as its stream: `GET /api/v3/depth?symbol=BTCUSDT&limit=1000`."""

    path: str
    params: tuple[tuple[str, str], ...] = ()
    weight: int = 1
    channel: str = ""
    symbol: str = ""

    @property
    def line(self) -> str:
        query = "&".join(f"{key}={value}" for key, value in self.params)
        return f"GET {self.path}" + (f"?{query}" if query else "")


@dataclass(frozen=True, slots=True)
class Instrument:
    """One listed market, as the venue's catalogue says."""

    symbol: str
    status: str
    trading: bool
    base: str
    quote: str
    tick_size: str
    lot_size: str
    market_id: int | None = None
    contract_type: str | None = None
    listed: datetime | None = None


@dataclass(slots=True)
class Frames:
    """Journal rows of one channel, in the order received. All lists have the same length.

    received_ns: wall clock at receipt. request_ns: wall clock when the request was sent, 0 for frames.
    streams: the stream name (frames) or request line (`rest`, `catalogue`). bodies: the bytes as received.
    symbols: the venue's market number to symbol, where frames carry only the number.
    connections: the journal's connection numbers, for `collector_event`; may be empty for other channels.
    """

    sequences: list[int] = field(default_factory=list)
    received_ns: list[int] = field(default_factory=list)
    request_ns: list[int] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    source: str = "stream"
    symbols: Mapping[int, str] = field(default_factory=dict)
    connections: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A frame that could not be decoded: its position in `Frames` and why."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """Rows of one channel (its schema, the column `instance` filled in), in the order received.

    index: for each row the position of its frame in `Frames`. inexact: number texts of more than 15 significant
    digits whose double is not the text; they are counted, never silently rounded.
    """

    rows: pa.Table
    index: pa.Array
    rejected: list[Rejected]
    inexact: int = 0


class Continuity(ABC):
    """When one book event follows another, and where a snapshot joins the stream. Pure."""

    @abstractmethod
    def follows(self, previous_final: int, event: Head) -> bool:
        """Whether `event` is the next one after an event that ended at `previous_final`."""

    def is_old(self, previous_final: int, event: Head) -> bool:
        """Whether `event` lies wholly at or before `previous_final`: a duplicate, to be ignored."""
        return event.final <= previous_final and not event.is_snapshot

    @abstractmethod
    def precedes_snapshot(self, last_update_id: int, event: Head) -> bool:
        """Whether a snapshot at `last_update_id` already contains `event`, so that it is dropped."""

    @abstractmethod
    def joins(self, last_update_id: int, event: Head) -> bool:
        """Whether `event` may be the first one applied to a snapshot at `last_update_id`."""

    @abstractmethod
    def snapshot_too_old(self, last_update_id: int, first_buffered: Head) -> bool:
        """Whether the snapshot ends before the first buffered event begins: fetch another one."""


class Exchange(ABC):
    """A venue. Instances hold no state but their configuration."""

    name: ClassVar[str]
    seed: ClassVar[Seed]
    channels: ClassVar[tuple[str, ...]]  # all channels of the data dictionary that the venue has
    pacing: ClassVar[Pacing]
    keep_alive: ClassVar[KeepAlive]
    weight_limit: ClassVar[int]  # REST weight a minute
    # Whether a SUBSCRIBE is answered with its id; where not, the stream's first frame, which always comes, answers it.
    acknowledges: ClassVar[bool] = True
    continuity: ClassVar[Continuity]
    proofs: ClassVar[Mapping[str, str]] = {}  # channels that are proved complete here by more than elsewhere, and how
    derived: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # channels whose rows also come out of a channel's frames

    def __init__(self, config: ExchangeConfig) -> None:
        self.config = config

    @abstractmethod
    def streams(self, instruments: Sequence[Instrument]) -> list[Stream]:
        """The subscriptions for the configured channels of `instruments`."""

    @abstractmethod
    def url(self, route: str) -> str:
        """Where to connect for `route`."""

    @abstractmethod
    def subscribe(self, names: Sequence[str], request_id: int) -> bytes:
        """The message that subscribes to `names` (at most `pacing.names_per_message`)."""

    @abstractmethod
    def unsubscribe(self, names: Sequence[str], request_id: int) -> bytes:
        """The message that unsubscribes from `names`."""

    @abstractmethod
    def classify(self, frame: bytes) -> Frame:
        """What a frame is. Never raises. Must cost about a microsecond: it runs for each frame."""

    @abstractmethod
    def head(self, frame: bytes) -> Head:
        """The ids of a `depth_diff` frame. Raises MalformedFrameError. Must cost about a microsecond."""

    def event_ms(self, frame: bytes) -> int:
        """The venue's event time of a data frame in ms since the epoch; 0 where it has none."""
        return 0

    @abstractmethod
    def expected_silence(self, channel: str, busy: bool) -> float:
        """Seconds after which a stream of `channel` that says nothing is suspect; `busy` for the top symbols."""

    @abstractmethod
    def catalogue_request(self) -> Request:
        """What lists the markets."""

    @abstractmethod
    def parse_catalogue(self, body: bytes) -> list[Instrument]:
        """The markets of a catalogue answer. Raises MalformedFrameError."""

    def account_streams(self) -> list[str]:
        """The account channels that the configuration asks for; empty where it asks for none."""
        return []

    def is_private(self, stream: str) -> bool:
        """Whether an account channel needs a credential."""
        return True

    def subscribe_account(self, stream: str, token: str | None) -> bytes:
        """The message that subscribes to an account channel; `token` is the credential of private ones."""
        raise NotImplementedError(f"{self.name} has no account channels that are recorded")

    def spelling(self, base: str, quote: str) -> str:
        """How the venue names the market of `base` against `quote`."""
        return f"{base}{quote}"

    def time_request(self) -> Request | None:
        """What gives the venue's clock; None where nothing does."""
        return None

    def parse_time(self, body: bytes) -> int:
        """The venue's clock in ns since the epoch. Raises MalformedFrameError."""
        raise NotImplementedError

    @abstractmethod
    def volume_request(self) -> Request | None:
        """What gives 24 h quote volumes, for `top:N`."""

    @abstractmethod
    def parse_volumes(self, body: bytes) -> dict[str, float]:
        """Quote volume of 24 h by symbol."""

    def snapshot_request(self, symbol: str, limit: int) -> Request:
        """What fetches a whole book. Only where `seed` is REST or snapshots exist."""
        raise NotImplementedError(f"{self.name} has no REST book that carries an id")

    def parse_snapshot_id(self, body: bytes) -> int:
        """`lastUpdateId` of a snapshot answer. Raises MalformedFrameError."""
        raise NotImplementedError

    def poll_requests(self, channel: str, symbols: Sequence[str], since: datetime) -> list[Request]:
        """What to ask over REST for `channel` of `symbols`, in the order in which the answers must be journaled.

        since: for history, from when on. Empty where the venue has no such channel, or streams it.
        """
        return []

    def refill_trades(self, symbol: str, first_id: int, count: int) -> Request | None:
        """What fetches aggregated trades again, from `first_id` on, at most `count`; None where none can be had.

        An answer holds a limited number: ask on from where it ends.
        """
        return None

    def refill_candles(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> Request | None:
        """What fetches closed candles again that open within [start_ms, end_ms]; None where none can be had."""
        return None

    @abstractmethod
    def channel_of(self, stream: str, symbols: Mapping[int, str] | None = None) -> tuple[str, str]:
        """Channel and symbol of a stream name or of a journaled request line; ('', '') when it is none of ours.

        symbols: the venue's market number to symbol, where names carry only the number; without it the symbol is the
        number as text. Channels that are `derived` from the same stream are not told here.
        """

    @abstractmethod
    def decode(self, channel: str, frames: Frames, instance: str) -> Decoded:
        """The rows of `channel` that `frames` hold."""
