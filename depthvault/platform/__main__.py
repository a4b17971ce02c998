"""`python -m depthvault.platform up|down|status|reload|demo`: the platform without the rest of the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from depthvault.config import load_config
from depthvault.errors import DepthvaultError


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code; errors are one line, a failed program's last log lines below it."""
    parser = argparse.ArgumentParser(prog="python -m depthvault.platform", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status", "reload", "demo"))
    parser.add_argument("--config", type=Path, help="configuration file")
    parser.add_argument("--data-dir", type=Path, help="where the data lies")
    parser.add_argument("--all", action="store_true", help="down: everything that runs from this checkout")
    parser.add_argument("--only", action="append", choices=("collectors", "airflow"), help="start this part alone")
    parser.add_argument("--foreground", action="store_true", help="up: stay, and stop everything at SIGTERM")
    chosen = parser.parse_args(arguments)
    try:
        return _run(chosen)
    except DepthvaultError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(chosen: argparse.Namespace) -> int:
    from depthvault.platform.demo import demo
    from depthvault.platform.down import down, down_all
    from depthvault.platform.status import status
    from depthvault.platform.up import PARTS, foreground, reload, up

    flags: dict[str, Any] = {"data_dir": chosen.data_dir} if chosen.data_dir else {}
    config = load_config(chosen.config, **flags)
    parts = frozenset(chosen.only) if chosen.only else PARTS
    match chosen.command:
        case "up" if chosen.foreground:
            return foreground(config, parts=parts)
        case "up":
            up(config, parts=parts)
        case "demo":
            return demo()
        case "down" if chosen.all:
            down_all()
        case "down":
            down(config)
        case "reload":
            reload(config)
        case "status":
            return status(config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
