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

__all__ = ["empties", "empty", "forget", "physical"]

Array = NDArray[Any]

LEAST = 32 * 2**20  # bytes; malloc keeps what is smaller
MOST = 256 * 2**20  # bytes; the system gets back what is larger
LINE = 64  # bytes; arrays in one piece of memory begin at multiples of it

_spare: list[NDArray[np.uint8]] = []


class _Piece:
    """What an array on a piece of memory has as its base, so that the memory stays."""

    def __init__(self, memory: Array, shape: tuple[int, ...], dtype: np.dtype[Any], start: int = 0) -> None:
        self._memory = memory
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (memory.ctypes.data + start, False),
        }


class _Lease(_Piece):
    """The same on memory that is used again: when the last view of the array is gone, it is free."""

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


def empties(*wanted: tuple[tuple[int, ...], np.dtype[Any]]) -> list[Array]:
    """Arrays of these shapes and types, that are let go together: if they are large, in one piece of memory."""
    sizes = [-(-math.prod(shape) * dtype.itemsize // LINE) * LINE for shape, dtype in wanted]
    if not LEAST <= sum(sizes) <= MOST:
        return [empty(*one) for one in wanted]
    # Not slices: of something far larger, to scipy.sparse, which would copy them.
    memory, starts = empty((sum(sizes),), np.dtype(np.uint8)), np.cumsum([0, *sizes]).tolist()
    return [np.asarray(_Piece(memory, *one, start)) for one, start in zip(wanted, starts, strict=False)]


def physical() -> int | None:
    """Bytes of memory that this machine has, where the system says."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def forget() -> None:
    """Give back the memory that is kept."""
    _spare.clear()
