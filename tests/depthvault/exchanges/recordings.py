"""Real messages, recorded by others: beside the repository, never in it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import pytest

from depthvault.config import Config, ExchangeConfig
from depthvault.exchanges import exchange
from depthvault.exchanges.base import Exchange, FrameKind, Frames
from depthvault.exchanges.lighter import Lighter, markets

DATA = Path(__file__).parents[4] / "shared" / "data"


def recording(path: str) -> Path:
    """The recording at `path`; skips the test where it is absent."""
    found = DATA / path
    if not found.exists():
        pytest.skip(f"no recording {path} beside the repository")
    return found


def venue(name: str, **settings: object) -> Exchange:
    """The venue with its default configuration, but `settings`."""
    config: ExchangeConfig = Config().exchanges[name].model_copy(update=settings)
    return exchange(name, config)


@lru_cache(maxsize=4)
def hftbacktest(path: Path) -> list[tuple[int, bytes]]:
    """(receipt in ns, frame) of a file of `<ns> <json>` lines."""
    with gzip.open(path, "rb") as lines:
        return [(int(stamp), body) for stamp, _, body in (line.rstrip(b"\n").partition(b" ") for line in lines)]


def cryptofeed(path: Path) -> Iterator[bytes]:
    """The frames of a cryptofeed capture, whose received lines are `<unix seconds>: <json>`."""
    for line in path.read_bytes().splitlines():
        stamp, colon, body = line.partition(b": ")
        if colon and stamp.replace(b".", b"", 1).isdigit():
            yield body


def frames_of(
    venue: Exchange,
    bodies: Sequence[bytes],
    received_ns: Sequence[int] | None = None,
    symbols: Mapping[int, str] | None = None,
) -> dict[str, Frames]:
    """Data frames by channel, as the sealer hands them to `decode`."""
    found: dict[str, Frames] = {}
    for position, body in enumerate(bodies):
        frame = venue.classify(body)
        stream = frame.stream
        channel = venue.channel_of(stream)[0]
        if channel and frame.kind is FrameKind.DATA:
            frames = found.setdefault(channel, Frames(symbols=symbols or {}))
            frames.sequences.append(position)
            frames.received_ns.append(received_ns[position] if received_ns else 1_700_000_000_000_000_000 + position)
            frames.request_ns.append(0)
            frames.streams.append(stream)
            frames.bodies.append(body)
    return found


def lighter() -> tuple[Lighter, dict[int, str]]:
    """Lighter and the symbols of its recorded catalogue."""
    found = venue("lighter")
    assert isinstance(found, Lighter)
    catalogue = recording("lighter_captured/rest_orderBooks_20260731_5rows.json").read_bytes()
    return found, markets(found.parse_catalogue(catalogue))
