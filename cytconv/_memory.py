"""Memory that is used again.

What malloc does not keep (32 MiB and more with glibc, at times far less) comes new from the operating system each time,
which first fills it with zeros, page by page.  For an operator as close to the speed of memory as this one that takes
longer than the work itself.  So the memory of the last large results that were let go is kept for the next ones;
and so is some that intermediate results are in.
"""

from __future__ import annotations

import math
import os
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scratch", "empties", "empty", "forget", "physical", "roomy", "scratch"]

Array = NDArray[Any]

# ---- results -----------------------------------------------------------------------------------------

LEAST, LEAST_SLOW = 2**20, 2**17  # bytes; what is smaller costs little
MOST = 256 * 2**20  # bytes; the system gets back what is larger, or what is kept and more than that together
PIECES = 8  # that are kept, at most
LINE = 64  # bytes; arrays in one piece of memory begin at multiples of it

_spare: deque[NDArray[np.uint8]] = deque()


class _Piece:
    """What an array on a piece of memory has as its base, so that the memory stays.

    Memory counts from the beginning of a cache line, so that vectors of a result do not lie across two of them.
    """

    def __init__(self, memory: Array, shape: tuple[int, ...], dtype: np.dtype[Any], start: int = 0) -> None:
        self._memory = memory
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (-(-memory.ctypes.data // LINE) * LINE + start, False),
        }


class _Lease(_Piece):
    """The same on memory that is used again: when the last view of the array is gone, it is free."""

    def __del__(self) -> None:
        _spare.append(self._memory)
        while len(_spare) > PIECES or sum(memory.nbytes for memory in list(_spare)) > MOST:
            with suppress(IndexError):  # another thread was faster
                _spare.popleft()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], slow: bool = False) -> Array:
    """``numpy.empty``, on memory that was used before where there is some of about the right size.

    It takes some microseconds to look for it: of no account for what is `slow` to compute.
    """
    size = math.prod(shape) * dtype.itemsize
    if size > MOST:
        _spare.clear()  # no time to hold on to memory
        return np.asarray(_Piece(np.empty(size + LINE, np.uint8), shape, dtype))
    if size < (LEAST_SLOW if slow else LEAST):
        return np.empty(shape, dtype)
    memory, others = None, []
    with suppress(IndexError):  # no more
        while True:
            memory = _spare.pop()  # the last one is nearest: what it holds may still be in the caches
            if size + LINE <= memory.nbytes <= 2 * (size + LINE):
                break
            others.append(memory)
            memory = None
    _spare.extend(reversed(others))
    return np.asarray(_Lease(np.empty(size + LINE, np.uint8) if memory is None else memory, shape, dtype))


def empties(*wanted: tuple[tuple[int, ...], np.dtype[Any]]) -> list[Array]:
    """Arrays of these shapes and types, that are let go together: if they are large, in one piece of memory."""
    sizes = [-(-math.prod(shape) * dtype.itemsize // LINE) * LINE for shape, dtype in wanted]
    if not LEAST <= sum(sizes) <= MOST:
        return [empty(*one) for one in wanted]
    # Not slices: of something far larger, to scipy.sparse, which would copy them.
    memory, starts = empty((sum(sizes),), np.dtype(np.uint8)), np.cumsum([0, *sizes]).tolist()
    return [np.asarray(_Piece(memory, *one, start)) for one, start in zip(wanted, starts, strict=False)]


# ---- intermediate results ----------------------------------------------------------------------------

SMALL_PAGES = 2**20  # bytes of an array whose pages are few enough
LARGE_PAGES = 2**22  # bytes of an array for which numpy asks Linux for large pages
IDLE = 64 * 2**20  # bytes that are kept between calls, at most

_idle: deque[Scratch] = deque()


class Scratch:
    """Arrays by name, of any numbers: what had the same name before is gone."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.uint8]] = {}
        self.nbytes = 0  # of all of them

    def take(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        size, memory = math.prod(shape) * dtype.itemsize, self._kept.get(name)
        if memory is None or memory.nbytes < size:
            memory = self._kept[name] = roomy((size,), np.dtype(np.uint8))
            self.nbytes = sum(kept.nbytes for kept in self._kept.values())
        return memory[:size].view(dtype).reshape(shape)


class _Loan:
    """A context manager; `contextlib` makes one of a generator that takes three times as long."""

    def __enter__(self) -> Scratch:
        try:
            self._some = _idle.pop()
        except IndexError:
            self._some = Scratch()
        return self._some

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None and sum([other.nbytes for other in list(_idle)], self._some.nbytes) <= IDLE:
            _idle.append(self._some)


def scratch() -> _Loan:
    """Some for as long as it is needed, by one thread."""
    return _Loan()


def roomy(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """``numpy.empty``, in large pages: they come new from the system in a tenth of the time."""
    size = math.prod(shape)
    whole = LARGE_PAGES // dtype.itemsize if SMALL_PAGES < size * dtype.itemsize < LARGE_PAGES else size
    return np.empty(whole, dtype)[:size].reshape(shape)


# ---- what there is -----------------------------------------------------------------------------------


def physical() -> int | None:
    """Bytes of memory that this machine has, where the system says."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def forget() -> None:
    """Give back the memory that is kept."""
    _spare.clear()
    _idle.clear()
