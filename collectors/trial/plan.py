"""What a trial is: how long, how much, which faults; and the configuration that the collectors get for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from depthvault.config import Config
from depthvault.errors import UsageError
from simulator.config import PREFIXES
from simulator.faults import BadFaultSpec, FaultSpec
from simulator.instruments import binance_futures_instrument, binance_spot_instrument, lighter_instrument

VENUES = tuple(PREFIXES)
INSTANCES = ("a", "b")
FAULTS = (
    "drop=0.0005,duplicate=0.001,malformed=0.0001,silent=0.002,nonce_gap=0.0005,offset_jump=0.01,"
    "lag_snapshot=0.1,rest_5xx=0.05,rest_429=0.002,disconnect=20,half_open=180,stall=60,shutdown=90,too_many=0.005"
)
"""Something every few seconds: shares of events, and mean seconds between two faults of a kind on a venue."""

LIGHTER_MARKETS = 10
"""Lighter takes one subscription a message and 200 messages a minute an address: 10 markets of 3 channels come back
within seconds, 100 would take minutes after each cut and the trial would measure little else."""

CHANNELS = {
    "binance_spot": ("depth_diff", "agg_trade", "trade", "book_ticker", "kline", "depth_snapshot"),
    "binance_futures": (
        "depth_diff", "agg_trade", "trade", "book_ticker", "kline", "mark_price", "liquidation", "depth_snapshot",
    ),
    "lighter": ("depth_diff", "trade", "liquidation", "book_ticker", "depth_snapshot"),
}  # fmt: skip
PROBING = "?readonly=true"
"""How the prober's connections are told from the collectors': of what it hears it keeps the books that it asks for."""

_INSTRUMENTS = {
    "binance_spot": binance_spot_instrument,
    "binance_futures": binance_futures_instrument,
    "lighter": lighter_instrument,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A trial. seconds: how long the collectors run. rate: book events a second and symbol, up to 10.

    kill, restart: mean seconds between SIGKILLs and between SIGTERMs of first instances, over all venues; 0: none.
    Everything that is drawn by lot comes from `seed`; the operating system's timing does not.
    """

    seconds: float = 1800.0
    symbols: int = 100
    venues: tuple[str, ...] = VENUES
    instances: int = 2
    rate: float = 10.0
    faults: str = FAULTS
    kill: float = 45.0
    restart: float = 60.0
    seed: int = 1

    def __post_init__(self) -> None:
        for venue in self.venues:
            if venue not in VENUES:
                raise UsageError(f"the simulator has no {venue!r}; it has {', '.join(VENUES)}")
        if not 1 <= self.instances <= len(INSTANCES):
            raise UsageError(f"instances: 1 or {len(INSTANCES)}")
        if self.symbols < 1 or self.seconds <= 0:
            raise UsageError("a trial needs a symbol and some time")
        try:
            FaultSpec.parse(self.faults)
        except BadFaultSpec as error:
            raise UsageError(f"faults: {error}") from error

    @property
    def writers(self) -> tuple[str, ...]:
        return INSTANCES[: self.instances]

    @property
    def period(self) -> timedelta:
        """Short enough that chains cross several archive periods, long enough that archiving does not take the day."""
        return timedelta(minutes=1 if self.seconds <= 600 else 5)

    def symbols_of(self, venue: str) -> list[str]:
        """What is recorded of a venue, the most active first."""
        count = min(self.symbols, LIGHTER_MARKETS) if venue == "lighter" else self.symbols
        return [_INSTRUMENTS[venue](rank).symbol for rank in range(count)]

    def simulator_options(self, truth: Path, port_file: Path) -> list[str]:
        """The simulator's command line."""
        return [
            "--port", "0", "--port-file", str(port_file), "--venues", *self.venues, "--seed", str(self.seed),
            "--symbols", str(self.symbols), "--rate", str(self.rate), "--faults", self.faults, "--truth", str(truth),
        ]  # fmt: skip

    def configuration(self, data_dir: Path, port: int) -> dict[str, Any]:
        """The collectors' configuration, as it stands in their file."""
        exchanges: dict[str, Any] = {name: {"enabled": False} for name in VENUES}
        for venue in self.venues:
            exchanges[venue] = {
                "enabled": True,
                "symbols": self.symbols_of(venue),
                "channels": list(CHANNELS[venue]),
                "instances": list(self.writers),
                "rest_url": f"http://127.0.0.1:{port}/{PREFIXES[venue]}",
                "ws_url": f"ws://127.0.0.1:{port}/{PREFIXES[venue]}" + ("/stream" if venue == "lighter" else ""),
                "liquidations": "symbol",
                # A night of faults in minutes: the count of attempts starts anew sooner than in real life.
                "reset_reconnect_after": "1s",
                "max_connection_age": f"{max(20.0, self.seconds / 4):g}s",
            }
        return {
            "data_dir": str(data_dir),
            "exchanges": exchanges,
            # Long enough for the next file to tell of a connection that was dead when the period turned.
            "archive": {"period": f"{self.period // timedelta(minutes=1)}m", "seal_grace": "45s"},
            "platform": {"metrics_port": 0},
            "journal": {"min_free": 0},
        }

    @property
    def probe_every(self) -> float:
        """Seconds between two rounds that ask Lighter for each whole book on a connection of their own."""
        return max(20.0, self.seconds / 20)

    def config(self, data_dir: Path, port: int = 0) -> Config:
        """The same, checked. The port matters to nobody after the recording."""
        return Config.model_validate(self.configuration(data_dir, port))
