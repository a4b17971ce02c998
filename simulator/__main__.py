"""``python -m simulator``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from simulator.config import VENUES, SimulatorConfig
from simulator.faults import BadFaultSpec, FaultSpec
from simulator.replay import BadRecording
from simulator.server import run


def _speed(text: str) -> float | None:
    return None if text == "max" else float(text)


def parser() -> argparse.ArgumentParser:
    default = SimulatorConfig()
    p = argparse.ArgumentParser(
        prog="simulator",
        description="Binance spot, Binance USDⓈ-M futures and Lighter on one port.",
        epilog="Example: python -m simulator --symbols 20 --truth ./truth --faults drop=0.001,disconnect=30",
    )
    p.add_argument("--host", default=default.host)
    p.add_argument("--port", type=int, default=default.port, help="0 asks the system for a free one")
    p.add_argument("--port-file", type=Path, help="write the port there once it listens")
    p.add_argument("--venues", nargs="+", choices=VENUES, default=list(VENUES))
    p.add_argument("--seed", type=int, default=default.seed)
    p.add_argument("--symbols", type=int, default=default.symbols, help="symbols of each venue")
    p.add_argument("--rate", type=float, default=default.rate, help="depth events a second and symbol (0 to 10)")
    p.add_argument("--book-levels", type=int, default=default.book_levels, help="levels a side at the start")
    p.add_argument("--changes", type=int, default=default.changes, help="book changes in an active 25 ms tick")
    p.add_argument("--clock-speed", type=float, default=1.0, help="how much faster than real time the market lives")
    p.add_argument("--truth", type=Path, metavar="DIR", help="keep the ledger of everything generated there")
    p.add_argument("--faults", default="", metavar="SPEC", help="see simulator/faults.py")
    p.add_argument("--connection-lifetime", type=float, metavar="SECONDS", help="the 24 h cut, scaled")
    p.add_argument("--ping-interval", type=float, metavar="SECONDS")
    p.add_argument("--pong-timeout", type=float, metavar="SECONDS")
    p.add_argument("--shutdown-grace", type=float, default=default.shutdown_grace, metavar="SECONDS")
    p.add_argument("--spot-weight-limit", type=int, default=default.spot_weight_limit)
    p.add_argument("--futures-weight-limit", type=int, default=default.futures_weight_limit)
    p.add_argument("--lighter-rest-limit", type=int, default=default.lighter_rest_limit)
    p.add_argument("--ban-seconds", type=float, default=default.ban_seconds)
    p.add_argument("--no-message-limits", action="store_true", help="let clients send as fast as they like")
    p.add_argument("--replay", type=Path, nargs="+", default=[], metavar="FILE")
    p.add_argument("--replay-venue", choices=VENUES[:2])
    p.add_argument("--speed", type=_speed, default=1.0, help="of the replay: a factor or 'max'")
    p.add_argument("--replay-then", choices=("idle", "close", "exit"), default="idle")
    p.add_argument("--replay-start-after", type=int, metavar="N", help="subscriptions before the replay starts")
    return p


def config_from(arguments: Sequence[str]) -> SimulatorConfig:
    """Parse the command line. Raises ``BadFaultSpec`` for a bad ``--faults``."""
    options = vars(parser().parse_args(arguments))
    options["venues"] = tuple(options["venues"])
    options["replay"] = tuple(options["replay"])
    options["message_limits"] = not options.pop("no_message_limits")
    FaultSpec.parse(options["faults"])
    return SimulatorConfig(**options)


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        return run(config_from(sys.argv[1:] if arguments is None else arguments))
    except (BadFaultSpec, BadRecording) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
