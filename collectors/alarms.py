"""From what is recorded to what people are told: event rows become alerts in this process's spool.

Grouping and rate limits are the listener's (`depthvault.alerts`); here it only matters that the receive path never
waits for a file.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depthvault.alerts import Alert, Spool
from depthvault.clock import Clock

LOG = logging.getLogger("depthvault.collector")

_INTERVAL = 1.0
_MOST_PER_INTERVAL = 200
CLOCK_OFFSET_S = 0.5
"""A clock that is off by more than this makes receive times worthless: people are told."""


class Alarms:
    """The alerts of one collector. `note` takes what was recorded; `run` writes it to the spool."""

    def __init__(self, folder: Path, exchange: str, writer: str, clock: Clock) -> None:
        self._spool = Spool(folder, f"{exchange}-{writer}")
        self._source = f"{exchange} {writer}"
        self._clock = clock
        self._waiting: list[Alert] = []
        self._surplus: Counter[str] = Counter()

    def note(self, kind: str, detail: Mapping[str, Any], symbol: str | None, connection: int) -> None:
        """Take an event row. Cheap: called by the receive path."""
        text = self._text(kind, detail, symbol)
        if text is not None:
            self.tell(
                "disk_full" if detail.get("refused") else kind,
                text,
                symbol or (f"connection {connection}" if connection else ""),
            )

    def tell(self, kind: str, text: str, subject: str = "") -> None:
        """Tell people `text`."""
        if len(self._waiting) >= _MOST_PER_INTERVAL:
            self._surplus[kind] += 1
            return
        self._waiting.append(Alert(self._clock.wall_ns(), kind, self._source, text, subject))

    @staticmethod
    def _text(kind: str, detail: Mapping[str, Any], symbol: str | None) -> str | None:
        """One line for people; None: not worth one."""
        match kind:
            case "gap":
                return f"{symbol}: events between ids {detail.get('last_id')} and {detail.get('first_id')} are missing"
            case "resync" if detail.get("reason") != "start":
                return f"{symbol}: whole again after {detail.get('waited_s')} s"
            case "stale":
                return f"{detail.get('stream')}: silent for {detail.get('silent_s')} s: {detail.get('action')}"
            case "disconnect":
                last = " All attempts are used up." if detail.get("exhausted") else ""
                return f"connection lost: {detail.get('reason') or detail.get('code')}.{last}"
            case "connect":
                return f"connected to route {detail.get('route')!r}"
            case "banned" | "rate_limited":
                return str(detail.get("reason"))
            case "flush":
                if refusal := detail.get("refused"):
                    return f"NOTHING IS BEING RECORDED TO DISK: {refusal}"
                return f"the disk takes again what is recorded; it refused for {detail.get('refused_s')} s"
            case "clock":
                offset = (detail.get("reference") or {}).get("offset_s")
                if offset is not None and abs(offset) > CLOCK_OFFSET_S:
                    return f"this host's clock is off by {offset} s"
        return None

    async def run(self) -> None:
        """Write what was noted, until cancelled; then the rest."""
        try:
            while True:
                await asyncio.sleep(_INTERVAL)
                if self._waiting:
                    await asyncio.to_thread(self.flush)
        finally:
            self.flush()

    def flush(self) -> None:
        """Write what was noted; what the disk refuses waits for the next time."""
        waiting, self._waiting = self._waiting, []
        surplus, self._surplus = self._surplus, Counter()
        now = self._clock.wall_ns()
        waiting += [Alert(now, kind, self._source, f"{count} more", "more") for kind, count in surplus.items()]
        while waiting:
            try:
                self._spool.raise_alert(waiting[0])
            except OSError as error:
                LOG.error("%d alerts cannot be raised yet: %s", len(waiting), error)
                self._waiting = [*waiting, *self._waiting]
                return
            del waiting[0]
