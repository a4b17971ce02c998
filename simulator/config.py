"""What a simulator is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

VENUES = ("binance_spot", "binance_futures", "lighter")
PREFIXES = {"binance_spot": "spot", "binance_futures": "futures", "lighter": "lighter"}


@dataclass(frozen=True)
class SimulatorConfig:
    """Options of one simulator.

    ``rate`` is the share of 100 ms windows with a change, as events a second and symbol (0 to 10: the venues'
    cadence bounds it). ``manual_clock`` stops the market but for ``Control.advance``; with ``start_ms`` given the
    whole run is then a pure function of the seed. ``clock_speed`` above 1 makes the market live faster than the
    wall clock, to blast clients. ``history`` is how many trades of a venue REST can look back on.
    ``connection_lifetime``, ``ping_interval`` and ``pong_timeout`` are in seconds; None means the venue's own.
    ``speed`` is that of a replay, None the fastest possible; with ``replay`` only the venues of the recordings
    are served.
    """

    host: str = "127.0.0.1"
    port: int = 9700
    port_file: Path | None = None
    venues: tuple[str, ...] = VENUES
    seed: int = 1
    symbols: int = 20
    rate: float = 10.0
    book_levels: int = 300
    changes: int = 2
    history: int = 100_000
    truth: Path | None = None
    faults: str = ""
    manual_clock: bool = False
    clock_speed: float = 1.0
    start_ms: int | None = None
    connection_lifetime: float | None = None
    ping_interval: float | None = None
    pong_timeout: float | None = None
    shutdown_grace: float = 5.0
    spot_weight_limit: int = 6000
    futures_weight_limit: int = 2400
    lighter_rest_limit: int = 60
    ban_seconds: float = 120.0
    message_limits: bool = True
    replay: tuple[Path, ...] = ()
    replay_venue: str | None = None
    speed: float | None = 1.0
    replay_then: str = "idle"
    replay_start_after: int | None = None
    replay_start_grace: float = 2.0
    replay_snapshot_hold: float = 5.0
