"""Between Python and the compiled scanner: bodies as one buffer, its integers and spans as Arrow arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from depthvault.schemas import TIME

Integers: TypeAlias = npt.NDArray[np.int64]
Doubles: TypeAlias = npt.NDArray[np.float64]

SCAN_FROM_BYTES = 256 << 10
"""Below this the reference is faster than importing the compiler."""


@lru_cache(maxsize=1)
def kernels() -> ModuleType | None:
    """The compiled module, imported at first use; None where Numba is not installed."""
    try:
        from depthvault.exchanges.decode import kernels as module
    except ImportError:
        return None
    return module


def joined(bodies: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    """All bodies as one buffer that ends with a NUL, and where each begins (one more than there are bodies)."""
    starts = np.zeros(len(bodies) + 1, np.uint64)
    np.cumsum(np.fromiter(map(len, bodies), np.uint64, len(bodies)), out=starts[1:])
    return np.frombuffer(b"".join([*bodies, b"\0"]), np.uint8), starts


def optional_times(values: Integers) -> pa.Array:
    """Times in µs; negative ones are null."""
    return pa.array(values, mask=values < 0).view(TIME)


def strings(buffer: npt.NDArray[np.uint8], starts: Integers, ends: Integers) -> pa.Array:
    """The ASCII texts at [start, end) of `buffer`."""
    module = kernels()
    assert module is not None
    offsets = np.empty(len(starts) + 1, np.int32)
    out = np.empty(int((ends - starts).sum()), np.uint8)
    size = module.texts(buffer, starts, ends, offsets, out)
    return pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(out[:size]))
