"""The sealer process: turns each closed period of each writer into live Parquet with a receipt.

    python -m collectors.sealer

It needs nothing but the journals. Whatever a killed collector or a killed sealer left is found at the next look, so it
may be stopped at any moment: what it was writing is thrown away and written again.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from depthvault.clock import Clock, SystemClock, datetime_from_ns
from depthvault.config import Config, load_config
from depthvault.durable import write_atomic
from depthvault.errors import DepthvaultError
from depthvault.exchanges.base import Exchange
from depthvault.period import Period
from depthvault.seal import Receipt, Sealer, recorded_exchanges

LOG = logging.getLogger("depthvault.sealer")

_RETRY_SECONDS = 5.0
_RETRY_SECONDS_MAX = 600.0

Unit = tuple[str, str, Period]


@dataclass(slots=True)
class _Failure:
    message: str
    count: int
    retry_ns: int


class SealerLoop:
    """Looks for periods that are due and seals them. `clock` and the venues are injected."""

    def __init__(
        self,
        config: Config,
        clock: Clock | None = None,
        exchanges: Callable[[], Mapping[str, Exchange]] | None = None,
    ) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._exchanges = exchanges or (lambda: recorded_exchanges(config))
        self._sealer = Sealer(config.layout, config.archive.seal_grace)
        self._failures: dict[Unit, _Failure] = {}
        self._sealed = 0
        self._last: Receipt | None = None
        self._stopping = threading.Event()

    @property
    def interval(self) -> float:
        """Seconds between two looks: a sixtieth of the period, between one and ten."""
        return min(max(self._config.archive.period.total_seconds() / 60, 1.0), 10.0)

    def stop(self) -> None:
        """End `run` after the period that is being sealed."""
        self._stopping.set()

    def run(self) -> None:
        """Look and seal until stopped."""
        LOG.info("sealing %s, periods of %s", self._config.layout.journals, self._config.archive.period)
        while not self._stopping.is_set():
            self.look()
            self._stopping.wait(self.interval)
        LOG.info("stopped")

    def look(self) -> list[Receipt]:
        """Seal what is due now. A period that fails is logged and tried again later; it holds up no other."""
        exchanges = self._exchanges()
        now_ns = self._clock.wall_ns()
        made = []
        for unit in self._sealer.due(exchanges, datetime_from_ns(now_ns)):
            if self._stopping.is_set():
                break
            failure = self._failures.get(unit)
            if failure is not None and self._clock.monotonic_ns() < failure.retry_ns:
                continue
            name, writer, period = unit
            started = time.monotonic()
            try:
                receipt = self._sealer.seal(exchanges[name], writer, period)
            except (DepthvaultError, OSError) as error:
                self._failed(unit, str(error))
            except Exception as error:  # a bug in one venue's decoder must not stop the others' sealing
                LOG.exception("%s %s %s: a bug", *unit)
                self._failed(unit, f"{type(error).__name__}: {error}")
            else:
                self._failures.pop(unit, None)
                if receipt is not None:
                    made.append(receipt)
                    self._report(receipt, time.monotonic() - started)
        self._write_status(datetime_from_ns(now_ns))
        return made

    def _failed(self, unit: Unit, message: str) -> None:
        before = self._failures.get(unit)
        count = 1 if before is None else before.count + 1
        wait = min(_RETRY_SECONDS * 2 ** min(count - 1, 10), _RETRY_SECONDS_MAX)
        self._failures[unit] = _Failure(message, count, self._clock.monotonic_ns() + round(wait * 1e9))
        name, writer, period = unit
        LOG.error("%s %s %s is not sealed: %s; next try in %.0f s", name, writer, period, message, wait)

    def _report(self, receipt: Receipt, seconds: float) -> None:
        self._sealed += 1
        self._last = receipt
        LOG.info(
            "%s %s %s: %d rows in %d files, %.1f s",
            receipt.exchange,
            receipt.writer,
            receipt.period,
            receipt.rows,
            len(receipt.files),
            seconds,
        )
        for what, count in (
            ("damaged regions", len(receipt.damage)),
            ("times frames were dropped for want of memory", len(receipt.dropped)),
            ("frames that could not be decoded", sum(receipt.rejected.values())),
            ("frames of unknown streams", sum(receipt.unknown.values())),
            ("numbers of more than 15 digits", sum(receipt.inexact.values())),
        ):
            if count:
                LOG.warning("%s %s %s: %d %s", receipt.exchange, receipt.writer, receipt.period, count, what)

    def _write_status(self, now: datetime) -> None:
        last = self._last
        status = {
            "time": now.isoformat(),
            "sealed": self._sealed,
            "last": None if last is None else [last.exchange, last.writer, last.period],
            "failing": {
                f"{name} {writer} {period.label}": failure.message
                for (name, writer, period), failure in sorted(self._failures.items(), key=lambda one: one[0])
            },
        }
        try:
            write_atomic(self._config.layout.run / "sealer.json", json.dumps(status, ensure_ascii=False).encode())
        except OSError as error:
            LOG.debug("status file: %s", error)


def main() -> int:
    """Run until SIGTERM or SIGINT; exit code 1 when the configuration cannot be used."""
    logging.Formatter.converter = time.gmtime
    # To stderr alone: the supervisor keeps and rotates the file.
    logging.basicConfig(level=logging.INFO, format="%(asctime)sZ %(levelname)-7s %(name)s: %(message)s")
    try:
        loop = SealerLoop(load_config())
    except DepthvaultError as error:
        print(error, file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
