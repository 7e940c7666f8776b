"""Memory of large results, used again.

What is too large for malloc to keep (32 MiB and more with glibc) comes new from the operating system each time, which
first fills it with zeros, page by page.  For an operator as close to the speed of memory as this one that takes longer
than the work itself, so the memory of the last large result that was let go is kept, and serves the next one.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["empty", "forget", "physical"]

Array = NDArray[Any]

LEAST = 32 * 2**20  # bytes; malloc keeps what is smaller
MOST = 256 * 2**20  # bytes; the system gets back what is larger

_spare: list[NDArray[np.uint8]] = []


class _Lease:
    """What an array on reused memory has as its base: when the last view of it is gone, the memory is free again."""

    def __init__(self, memory: NDArray[np.uint8], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._memory = memory
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (memory.ctypes.data, False),
        }

    def __del__(self) -> None:
        _spare[:] = [self._memory]


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """``numpy.empty``, on memory that was used before where there is some of about the right size."""
    size = math.prod(shape) * dtype.itemsize
    if size > MOST:
        _spare.clear()  # no time to hold on to memory
    if not LEAST <= size <= MOST:
        return np.empty(shape, dtype)
    try:
        memory = _spare.pop()
    except IndexError:
        memory = np.empty(size, np.uint8)
    if not size <= memory.nbytes <= 2 * size:
        del memory  # before more is asked for
        memory = np.empty(size, np.uint8)
    return np.asarray(_Lease(memory, shape, dtype))


def physical() -> int | None:
    """Bytes of memory that this machine has, where the system says."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def forget() -> None:
    """Give back the memory that is kept."""
    _spare.clear()
