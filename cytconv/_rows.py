"""The matrix of one batch item by its rows (CSR), as method "sparse" keeps it where lines are short.

Products run in parallel, those by the adjoint too, which needs no second matrix: there, each worker adds up a share of
the results, from the rows that have entries in its columns, one after the other.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._geometry import Axis, Geometry
from ._matrix import matrix
from ._runtime import kernels

__all__ = ["Rows"]

Array = NDArray[Any]

TOGETHER = 2**12  # rows of a product that are a task
TWICE = 0.15  # part of the rows that workers may visit once more, or of its share of the channels that one may get more
NARROW = 64  # columns of a channel for each worker: of fewer, two would often write to one line of the cache
PIECE = 2**15  # indices that are moved at a time


class Rows:
    """The matrix with weights `w`, whose planes of columns are `plane` apart if the index type holds that."""

    def __init__(self, axes: tuple[Axis, ...], w: Array, plane: int) -> None:
        groups, c_in, c_out = w.shape[:3]
        item = Geometry(
            x_shape=(groups * c_in, *(axis.n for axis in axes)),
            w_shape=(groups * c_in, c_out, *(axis.taps for axis in axes)),
            y_shape=(groups * c_out, *(axis.m for axis in axes)),
            axes=axes,
            groups=groups,
            channels="first",
            order=tuple(range(len(axes) + 1)),
        )
        built, size = matrix(item, w), math.prod(axis.n for axis in axes)
        if plane > np.iinfo(built.indices.dtype).max // (groups * c_in):
            plane = size
        if plane > size:
            _move(built.indices, size, plane - size)
        self.plane = plane
        self._parts, self._channels = 2 if w.dtype.kind == "c" else 1, c_in  # that each row meets
        self._arrays = built.indptr, built.indices, built.data.view(w.real.dtype)
        self._size = built.shape[0], groups * c_in * plane
        self._block = math.prod(axis.m for axis in axes), plane  # a pair of channels
        self._shares: dict[int, NDArray[np.intp]] = {}  # by the number of workers

    def multiply(self, x: Array, y: Array, workers: int) -> None:
        """``y = matrix @ x``, of vectors side by side as real numbers."""
        kernels(x.dtype).multiply(*self._arrays, self._parts, x, y, TOGETHER, workers)

    def multiply_adjoint(self, x: Array, y: Array, workers: int) -> None:
        """``y = matrix^H @ x``."""
        kernels(x.dtype).multiply_adjoint(*self._arrays, self._parts, self._shares_of(workers), x, y, workers)

    def _shares_of(self, workers: int) -> NDArray[np.intp]:
        """A row for each worker's share, as `kernels/rows.pxi` has it.

        It is some columns of all blocks, which are the pairs of channels.  Where too many rows would meet several
        shares, or blocks are narrow, it is some blocks side by side, or some columns of the whole matrix as one block.
        """
        table = self._shares.get(workers)
        if table is None:  # two threads may both find it at first: no harm
            ends, indices, _ = self._arrays
            rows, columns = self._size
            (height, width), channels = self._block, self._channels
            cut = _shares(ends[: height + 1], indices[: ends[height]] % width, width, workers)
            blocks = np.broadcast_to((0, channels), (workers, 2))
            if (cut[:, 3] - cut[:, 2]).sum() > (1 + TWICE) * height or width < NARROW * workers:
                if workers * -(-channels // workers) <= (1 + TWICE) * channels:  # about as many for each
                    blocks = np.array(list(pairwise(np.arange(workers + 1) * channels // workers)))
                    cut = np.broadcast_to((0, width, *(0, height) * 2), (workers, 6))
                else:
                    height, width, channels = rows, columns, 1
                    cut, blocks = _shares(ends, indices, width, workers), np.broadcast_to((0, 1), (workers, 2))
            sizes = np.broadcast_to((width, height, columns, rows, channels), (workers, 5))
            table = self._shares[workers] = np.column_stack([sizes, blocks, cut]).astype(np.intp)
        return table


def _move(indices: NDArray[Any], size: int, by: int) -> None:
    """To columns of planes that are so much further apart."""
    for first in range(0, len(indices), PIECE):
        some = indices[first : first + PIECE]
        some += some // size * by


def _shares(ends: Array, columns: Array, width: int, count: int) -> NDArray[np.intp]:
    """Cut the columns of a CSR array into about equal shares.

    Returns ``(column, past the last, row, past the last, whole, past the last)``, where the rows have entries in these
    columns, and the whole ones have no others.
    """
    rows = np.flatnonzero(np.diff(ends))
    cuts = np.arange(count + 1) * width // count
    # Of the rows so far, the last column; of those from here on, the first: both in order, so they can be searched.
    last = np.maximum.accumulate(columns[ends[rows + 1] - 1])
    first = np.minimum.accumulate(columns[ends[rows]][::-1])[::-1]
    start, stop = np.searchsorted(last, cuts[:-1]), np.searchsorted(first, cuts[1:])
    whole, past = np.searchsorted(first, cuts[:-1]), np.searchsorted(last, cuts[1:])
    past = np.maximum(whole, past)
    row, after = np.append(rows, len(ends) - 1), np.append(0, rows + 1)
    return np.stack([cuts[:-1], cuts[1:], row[start], after[stop], row[whole], after[past]], axis=-1, dtype=np.intp)
