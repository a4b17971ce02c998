"""Which periods the archive has recorded itself: what it recorded is proved, so nothing imported stands beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from depthvault.archive import inputs as sealed_inputs
from depthvault.archive.compact import unsealed_writers
from depthvault.archive.manifest import ArchiveState
from depthvault.clock import datetime_from_ns
from depthvault.errors import ArchiveError
from depthvault.imports.day import Ints
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import Channel


def event_times(table: pa.Table, channel: Channel) -> Ints:
    """What decides each row's period, in µs since the epoch: the venue's time, else the receipt."""
    names = [*channel.time, "received_time"]
    values = pc.coalesce(*(table.column(name).combine_chunks().cast(pa.int64()) for name in names))
    array: Ints = values.to_numpy(zero_copy_only=False)
    return array


@dataclass(slots=True)
class Recorded:
    """The periods of an exchange that were recorded here, by channel and symbol."""

    layout: Layout
    state: ArchiveState
    exchange: str
    _waiting: set[tuple[str, str]] = field(default_factory=set)
    _unsealed: dict[str, bool] = field(default_factory=dict)
    _known: dict[tuple[str, str, str], bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for each in sealed_inputs.sealed(self.layout, self.exchange):
            self._waiting |= {(file.channel, file.period) for file in each.receipt.files}

    def mask(self, channel: str, symbol: str, times: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of the moments (µs) lie in recorded periods. ArchiveError when one is still on its way."""
        length = int(self.layout.period.total_seconds() * 1e6)
        starts, inverse = np.unique(times // length * length, return_inverse=True)
        recorded = np.array([self._has(channel, symbol, datetime_from_ns(int(start) * 1000)) for start in starts])
        return recorded[inverse].astype(np.bool_)

    def _has(self, channel: str, symbol: str, start: datetime) -> bool:
        period = Period(start, self.layout.period)
        key = channel, symbol, period.label
        if key not in self._known:
            self._known[key] = self._look(channel, symbol, period)
        return self._known[key]

    def _look(self, channel: str, symbol: str, period: Period) -> bool:
        entry = self.state.entry("hour", self.exchange, channel, period.label)
        if entry is None:
            if period.label not in self._unsealed:
                self._unsealed[period.label] = bool(unsealed_writers(self.layout, self.exchange, period))
            if (channel, period.label) in self._waiting or self._unsealed[period.label]:
                raise ArchiveError(
                    f"{self.exchange} {period} was recorded here and is not archived yet: seal, compact and publish "
                    "it, then import"
                )
            return False
        rolled = ("day", self.exchange, channel, period.date)
        return any(symbol in file.symbols for unit in (entry.unit, rolled) for file in self.state.files_of(unit))
