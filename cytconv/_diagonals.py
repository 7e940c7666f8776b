"""The matrix of one batch item by its diagonals, as method "sparse" keeps it where lines are long.

Outputs of one phase of the stride, one after the other, meet the same taps, each of them one sample further on::

    columns             i   i+1  i+2  i+3  i+4
    output o            a0  b0   c0
    o + stride              a1   b1   c1             kept as   a0 a1 a2 | b0 b1 b2 | c0 c1 c2
    o + 2*stride                 a2   b2   c2

So the entries of such rows lie on diagonals.  Kept one diagonal after the other, they need no index each, and products
by the matrix and by its adjoint take whole vectors of them.  (Rows that are stored side by side, in the order in which
they are multiplied: sliced ELLPACK [1]_, here without padding; and columns that follow from those of a neighbour [2]_.)

Rows are cut into *lines*, along the last axis, and these into *pieces*: up to `ROWS` rows of one phase that meet the
same taps of the last axis.  A line has *paths*, one for each channel and tap of the other axes, and each of them has a
diagonal for each tap of a piece.  Planes of outputs, one for each channel, have the same structure.

References
----------
.. [1] M. Kreutzer, G. Hager, G. Wellein, H. Fehske and A. R. Bishop, "A unified sparse matrix data format for efficient
   general sparse matrix-vector multiplication on modern processors with wide SIMD units", SIAM J. Sci. Comput. 36(5),
   C401-C423, 2014.
.. [2] K. Kourtis, G. Goumas and N. Koziris, "Optimizing sparse matrix-vector multiplication using index and value
   compression", Computing Frontiers, 87-96, 2008.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._geometry import Axis
from ._matrix import Factor, _spread
from ._memory import empty
from ._parts import ENTRY, add_up, apart, parts_of
from ._runtime import kernels, resolve_workers, team

__all__ = ["Diagonals", "are_long"]

Array = NDArray[Any]
Indices = NDArray[np.intp]

# Rows of a piece, at most, by the bytes of a number: no more than registers hold the sums of (`multiply_packs` in
# kernels/diagonals.pxi), and not so many that L1 has lost the first.
ROWS = {4: 64, 8: 48, 16: 24}
PHASES = 2**12  # of the stride, at most: of so many, few rows are in each
BLOCK = 2**12  # entries of a piece, at most, of which those of some channels are too short a stretch of memory
LONG, LONGER = 12, 20  # entries of a diagonal, in the mean, that make up for taking it up


def are_long(axes: tuple[Axis, ...], short_rows: bool) -> bool:
    """Whether products by diagonals are faster than by rows, or by columns, which are longer if there are `short_rows`.

    Found without looking at each row.
    """
    if min(axes[-1].stride, axes[-1].m) > PHASES:
        return False
    factor = _spread(axes[-1], 1)
    _, first, last = _whole(factor)
    count, entries = factor.phases[:, 2], int(factor.before(factor.rows))
    in_pieces = int((count * (last - first)).sum())  # others are a diagonal each
    diagonals = int((count * -(-(last - first) // ROWS[8])).sum()) + entries - in_pieces
    return entries >= (LONGER if short_rows else LONG) * diagonals > 0


class Diagonals:
    """The matrix with weights `w`, ready to multiply by.

    Parameters
    ----------
    axes : tuple of Axis
        The convolved axes.
    w : ndarray, shape (groups, C_in // groups, C_out // groups, *taps)
        Weights.
    plane : int
        Columns from one channel of x to the next, at least as many as it has numbers.
    """

    def __init__(self, axes: tuple[Axis, ...], w: Array, plane: int) -> None:
        groups, c_in, c_out = w.shape[:3]
        taps = math.prod(w.shape[3:])
        factors = [_spread(axis, math.prod(w.shape[4 + a :])) for a, axis in enumerate(axes)]
        last, pieces = factors[-1], _pieces(factors[-1], ROWS[w.itemsize])
        along = int((pieces[:, 4] * pieces[:, 5]).sum())
        channels = np.arange(c_in)[:, None] * (plane, c_out * taps)
        lines, paths = _lines(factors[:-1], (last.rows, last.columns, along), channels)
        entries = int((lines[:, 4] * along).sum())  # of a plane
        some = [table[table[:, 4] > 0] for table in (lines, pieces)]  # others have no entries
        data = empty((groups * c_out * entries,), w.dtype)
        self.plane = plane
        self._groups, self._columns, self._entries = groups, groups * c_in * plane, data.size
        self._numbers = w.itemsize // w.real.itemsize  # real ones of an entry
        self._blocks = groups * c_out * len(some[0]) * len(some[1])
        # Whether a worker that took some of the columns would read short stretches, with others between them.
        block = int(lines[:, 4].max() * (pieces[:, 4] * pieces[:, 5]).max())
        self._mixed = c_in > 1 and groups == 1 and block <= BLOCK
        self._portions: dict[tuple[int, int], Indices] = {}  # by the number of parts and of workers
        self._kernel = kernels(w.real.dtype).Diagonals(
            lines=some[0],
            pieces=some[1],
            gaps=len(some[0]) < len(lines) or len(some[1]) < len(pieces),
            paths=paths,
            entries=data.view(w.real.dtype),
            parts=self._numbers,
            groups=groups,
            channels=(c_in, c_out),
            plane=(math.prod(axis.m for axis in axes), plane, entries),
            steps=(last.period, last.column_step),
        )
        self._kernel.fill(
            np.ascontiguousarray(w).ravel().view(w.real.dtype),
            (c_in * c_out * taps, taps, last.place_step),
            team(resolve_workers(None), self._blocks, data.size),
        )

    def multiply(self, x: Array, y: Array, workers: int) -> None:
        """``y = matrix @ x``, of vectors side by side as real numbers."""
        rows, numbers = y.shape
        self._kernel.multiply(x, y, team(workers, self._blocks, ENTRY * (self._entries + rows) * numbers))

    def multiply_adjoint(self, x: Array, y: Array, workers: int) -> None:
        """``y = matrix^H @ x``."""
        rows, numbers = x.shape
        parts = parts_of(self._entries, self._columns, numbers // self._numbers) if self._mixed else 1
        workers = team(workers, parts if parts > 1 else len(y), ENTRY * (self._entries + rows) * numbers)
        portions = self._portions_of(parts, workers if parts == 1 else 1)
        if parts == 1:
            self._kernel.multiply_adjoint(x, y, portions, workers)
        else:
            add_up(parts, y, lambda sums: self._kernel.multiply_adjoint(x, sums, portions, workers))

    def _portions_of(self, parts: int, workers: int) -> Indices:
        """The table `portions` of `kernels/diagonals.pxi`: a row for each part, or for each worker."""
        portions = self._portions.get((parts, workers))
        if portions is None:  # two threads may both find it at first: no harm
            t, columns = np.arange(parts * workers), np.full(parts * workers, self._columns)
            if parts > 1:
                ends = self._blocks * np.arange(parts + 1) // parts
                table = [0 * t, columns, ends[:-1], ends[1:], t * apart(self._columns)]
            else:
                ends = self._columns * np.arange(workers + 1) // workers
                size = max(self._columns // self._groups, 1)
                planes = self._blocks // self._groups
                table = [ends[:-1], ends[1:], ends[:-1] // size * planes, -(-ends[1:] // size) * planes, 0 * t]
            portions = self._portions[parts, workers] = np.stack(table, axis=-1, dtype=np.intp)
        return portions


def _met(factor: Factor, phase: Indices, u: Indices) -> tuple[Indices, Indices, Indices]:
    """Of rows ``phase + u*period``, the first column, the place of its weight, and the number of entries."""
    base, place, count = factor.phases[phase].T
    column = base + u * factor.column_unit
    skipped = np.maximum(-(column // factor.column_step), 0)
    column, place, count = column + skipped * factor.column_step, place + skipped * factor.place_step, count - skipped
    count = np.clip(np.minimum(count, (factor.columns - 1 - column) // factor.column_step + 1), 0, None)
    return np.where(count, column, 0), np.where(count, place, 0), count


def _whole(factor: Factor) -> tuple[Indices, Indices, Indices]:
    """Of each phase, how many rows it has, and from which to which of them every tap meets a sample."""
    base, _, count = factor.phases.T
    rows = (factor.rows - 1 - np.arange(factor.period)) // factor.period + 1
    first = np.where(count, np.clip(-base, 0, rows), 0)
    last = np.where(count, np.clip(factor.columns - (count - 1) * factor.column_step - base, first, rows), rows)
    return rows, first, last


def _pieces(factor: Factor, most: int) -> Indices:
    """``(row, column, entries before, place, taps, rows)`` of the pieces of a line, in the order of their rows.

    None has more than `most` rows.
    """
    phases = np.arange(factor.period)
    rows, first, last = _whole(factor)
    alone, parts = first + rows - last, -(-(last - first) // most)

    phase, i = np.repeat(phases, alone), _counted(alone)
    u = np.where(i < first[phase], i, i - first[phase] + last[phase])
    singles = (phase + u * factor.period, *_met(factor, phase, u), np.ones_like(u))
    phase, i = np.repeat(phases, parts), _counted(parts)  # of about equal size
    u, end = (first[phase] + (last - first)[phase] * j // parts[phase] for j in (i, i + 1))
    longer = (phase + u * factor.period, *_met(factor, phase, u), end - u)

    row, column, place, taps, size = (np.concatenate(pair) for pair in zip(singles, longer, strict=True))
    pieces = np.stack([row, column, row, place, taps, size], axis=-1)[np.argsort(row)]
    entries = pieces[:, 4] * pieces[:, 5]
    pieces[:, 2] = np.cumsum(entries) - entries
    return pieces


def _counted(sizes: Indices) -> Indices:
    """0, 1, ... as far as each of the sizes."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _lines(factors: list[Factor], last: tuple[int, int, int], channels: Indices) -> tuple[Indices, Indices]:
    """``(row, column, entries before, first of its paths, how many)`` of each line, and ``(column, place)`` of paths.

    Of the last axis, rows, columns and entries of all pieces; of each channel, column and place.  Paths begin with
    those of the first channel.  Lines that meet the same taps have the same paths.
    """
    row, column = np.zeros(1, np.intp), np.zeros(1, np.intp)
    kind, paths, counts = np.zeros(1, np.intp), channels, np.array([len(channels)])
    for a, factor in enumerate(factors):
        below = factors[a + 1 :]
        row_pitch, column_pitch = (math.prod(getattr(f, side) for f in below) for side in ("rows", "columns"))
        row_pitch, column_pitch = row_pitch * last[0], column_pitch * last[1]
        u, phase = np.divmod(np.arange(factor.rows), factor.period)
        first, place, count = _met(factor, phase, u)
        _, chosen, which = np.unique(place * (count.max() + 1) + count, return_index=True, return_inverse=True)
        row = np.add.outer(row, np.arange(factor.rows) * row_pitch).ravel()
        column = np.add.outer(column, first * column_pitch).ravel()
        kind = np.add.outer(kind * len(chosen), which).ravel()
        # Each of the paths so far, by each of the taps along this axis.
        along = np.tile(count[chosen], len(counts))
        sizes = np.repeat(counts, len(chosen)) * along
        new, i = np.repeat(np.arange(len(sizes)), sizes), _counted(sizes)
        old, tap = np.divmod(i, along[new])
        old += (np.cumsum(counts) - counts)[new // len(chosen)]
        steps = np.stack([tap * factor.column_step * column_pitch, tap * factor.place_step], axis=-1)
        paths, counts = paths[old] + steps, sizes
        paths[:, 1] += place[chosen][new % len(chosen)]
    firsts, sizes = np.cumsum(counts) - counts, counts[kind] * last[2]
    lines = np.stack([row, column, np.cumsum(sizes) - sizes, firsts[kind], counts[kind]], axis=-1)
    return lines, np.concatenate([paths, np.zeros((1, 2), np.intp)])  # one to point at, if there are none
