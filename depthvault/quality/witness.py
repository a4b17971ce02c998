"""What others received of a stream and a writer did not: the evidence that its subscription heard nothing. Pure.

Events are told apart by their keys, not by their times: hosts' clocks differ, and the same event reaches one before the
other. What a writer received itself, over whichever connection, says nothing against it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from depthvault.archive.stitch import Ints, codes, column
from depthvault.schemas import Channel

Unheard = Callable[[str], Ints]
"""For a writer the receipts (ns, ascending) of what others received and it did not."""


def unheard(rows: pa.Table, channel: Channel) -> Unheard:
    """Of one symbol's `rows` of all writers. Costs nothing until it is asked."""

    @cache
    def streamed() -> tuple[Ints, npt.NDArray[np.object_], npt.NDArray[np.int64]]:
        found = rows.filter(pc.equal(rows.column("source"), "stream"))
        owners = np.array(column(found, "instance").to_pylist(), dtype=object)
        return codes(column(found, "received_time")) * 1000, owners, _keys(found, channel)

    @cache
    def by(writer: str) -> Ints:
        received, owners, keys = streamed()
        mine = owners == writer
        found: Ints = np.sort(received[~mine][~np.isin(keys[~mine], keys[mine])])
        return found

    return by


def _keys(rows: pa.Table, channel: Channel) -> npt.NDArray[np.int64]:
    """A number for each row that two rows share when they are the same event."""
    if channel.id_column is not None and not rows.column(channel.id_column).null_count:
        return codes(column(rows, channel.id_column))
    if len(channel.key) == 1:
        return codes(column(rows, channel.key[0]))
    numbers: dict[tuple[object, ...], int] = {}
    values = zip(*(column(rows, name).to_pylist() for name in channel.key), strict=True)
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
