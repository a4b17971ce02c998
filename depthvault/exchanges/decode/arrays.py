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

LOAD_AFTER_BYTES = 16 << 20
"""So much is read by the reference before the compiler is loaded, which takes 2 to 3 s of CPU even from its cache."""

_read_slowly = 0


@lru_cache(maxsize=1)
def kernels() -> ModuleType | None:
    """The compiled module, imported at first use; None where Numba is not installed."""
    try:
        from depthvault.exchanges.decode import kernels as module
    except ImportError:
        return None
    return module


def scan_pays(size: int) -> bool:
    """Whether `size` more bytes are worth the compiled scanner: a short command shall never wait for the compiler.

    Once it is loaded it always pays. The answer decides how fast rows come, never which.
    """
    global _read_slowly
    if kernels.cache_info().currsize == 0:
        _read_slowly += size
        if _read_slowly < LOAD_AFTER_BYTES:
            return False
    return kernels() is not None


def joined(bodies: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    """All bodies as one buffer that ends with two NULs, and where each begins (one more than there are bodies)."""
    starts = np.zeros(len(bodies) + 1, np.uint64)
    np.cumsum(np.fromiter(map(len, bodies), np.uint64, len(bodies)), out=starts[1:])
    return np.frombuffer(b"".join([*bodies, b"\0\0"]), np.uint8), starts


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
