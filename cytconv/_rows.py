"""The matrix of one batch item by its rows (CSR), as method "sparse" keeps it where lines are short.

Or by its columns, if there are far fewer of them: these are the rows of its adjoint.  Either product by the matrix is
then one of two by what is kept: it gathers what each row meets, or it scatters each row over the results that it meets.

Planes of rows, one for each channel, have the same structure, which is kept once.
"""

from __future__ import annotations

import math
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._geometry import Axis, Geometry
from ._matrix import planes
from ._parts import ENTRY, add_up, apart, parts_of
from ._runtime import kernels, team
from ._taps import products

__all__ = ["Rows", "has_short_rows"]

Array = NDArray[Any]
Indices = NDArray[np.intp]
Cut = tuple[float, Indices]  # how many times as fast that is, about, and the shares

TURN = 2  # rows for each column, at least, if the matrix is kept by its columns,
SHORT = 4  # and entries of a row, at most
TOGETHER = 2**12  # rows that are a task where they are gathered, at most,
ENTRIES = 2**12  # and how many entries they have, about
MANY, BAND = 8, 0.7  # for so many workers, how much of a band it must be at least that is not cut into parts
GAIN = 1.3  # how much faster than one worker several must be that have to visit some rows more than once
APART = 0.8  # how fast a worker reads the entries of its channels, with others between them
ROW, CUT_ROW = 6, 12  # entries in the time that a row takes beside its own, and one that is cut between workers
NARROW = 64  # columns side by side for each worker: of fewer, two would often write to one line of the cache
PIECE = 2**15  # indices that are moved at a time


def has_short_rows(axes: tuple[Axis, ...], c_in: int, c_out: int) -> bool:
    """Whether columns are far fewer and longer."""
    samples, outputs = (math.prod(getattr(axis, side) for axis in axes) for side in ("n", "m"))
    return bool(c_out * outputs >= TURN * c_in * samples and c_in * products(axes) <= SHORT * outputs)


class Rows:
    """The matrix with weights `w`.

    `plane` asks for so many columns from one channel of x to the next; the attribute says how many there are, which are
    as many as x has if the matrix is kept by its columns, or if indices would not hold more.
    """

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
        samples, outputs = (math.prod(getattr(axis, side) for axis in axes) for side in ("n", "m"))
        self._by_columns = has_short_rows(axes, c_in, c_out)
        ends, columns, entries = planes(item, w, self._by_columns)
        if self._by_columns:
            if w.dtype.kind == "c":
                np.conjugate(entries, out=entries)
            plane, width, channels = samples, outputs, (c_in, c_out)
        else:
            if plane > np.iinfo(columns.dtype).max // c_in:
                plane = samples
            if plane > samples:
                _move(columns, samples, plane - samples)
            width, channels = plane, (c_out, c_in)
        self.plane = plane
        self._arrays = ends, columns, entries.ravel().view(w.real.dtype)
        self._numbers, self._entries = w.itemsize // w.real.itemsize, entries.size  # real ones of an entry
        self._groups, self._channels = groups, channels  # of rows and of columns
        self._height, self._width = len(ends) - 1, width  # rows and columns of a channel
        self._size = groups * channels[0] * self._height, groups * channels[1] * width
        self._group = channels[0], channels[1] * width  # planes of rows, and columns
        self._shares: dict[tuple[int, int], Indices] = {}  # by the number of parts and of workers

    def multiply(self, x: Array, y: Array, workers: int) -> None:
        """``y = matrix @ x``, of vectors side by side as real numbers."""
        (self._scatter if self._by_columns else self._gather)(x, y, workers)

    def multiply_adjoint(self, x: Array, y: Array, workers: int) -> None:
        """``y = matrix^H @ x``."""
        (self._gather if self._by_columns else self._scatter)(x, y, workers)

    def _gather(self, x: Array, y: Array, workers: int) -> None:
        """``y = kept @ x``."""
        rows, numbers = y.shape
        together = max(1, min(TOGETHER, ENTRIES * rows // max(self._entries, 1)))
        workers = team(workers, -(-rows // together), ENTRY * (self._entries + rows) * numbers)
        kernels(x.dtype).gather(*self._arrays, self._numbers, self._group, x, y, together, workers)

    def _scatter(self, x: Array, y: Array, workers: int) -> None:
        """``y = kept^H @ x``, which takes no second matrix."""
        rows, numbers = x.shape
        parts = parts_of(self._entries, len(y), numbers // self._numbers)
        if parts > 1 and self._is_band:
            parts = 1
        workers = team(workers, parts if parts > 1 else len(y), ENTRY * (self._entries + rows) * numbers)
        shares = self._shares_of(parts, workers if parts == 1 else 1)
        workers = min(workers, len(shares))

        scatter = partial(kernels(x.dtype).scatter, *self._arrays, self._numbers, self._group, shares, x)
        if parts == 1:
            scatter(y, workers)
        else:
            add_up(parts, y, lambda sums: scatter(sums, workers))

    @cached_property
    def _is_band(self) -> bool:
        """Whether workers that take some results each visit about as many rows as if they took some rows each.

        Of columns too few to be shared, they cannot.
        """
        return self._width >= 2 * NARROW and self._cut_columns(MANY)[0] >= BAND * MANY

    def _shares_of(self, parts: int, workers: int) -> Indices:
        """The table `shares` of `kernels/rows.pxi`: a row for each part, or for each worker.

        Workers take some groups of channels, or some channels of each group, or some columns of each channel.
        """
        shares = self._shares.get((parts, workers))
        if shares is None:  # two threads may both find it at first: no harm
            ways = [(GAIN, self._cut_entries(parts))]
            if workers > 1:
                ways.append(self._cut_groups(min(workers, self._groups)))
            if (count := min(workers, self._group[1] // NARROW)) > 1:
                ways.append(self._cut_channels(min(count, self._channels[1])))
            if (count := min(workers, self._width // NARROW)) > 1:
                ways.append(self._cut_columns(count))
            _, shares = max(ways, key=lambda way: way[0])
            self._shares[parts, workers] = shares
        return shares

    def _cut_entries(self, count: int) -> Indices:
        """Parts with about as many entries, each with results of its own."""
        (ends, columns, _), (rows, size) = self._arrays, self._size
        plane, rest = np.divmod(np.arange(count + 1) * self._entries // count, max(len(columns), 1))
        cuts = plane * self._height + np.searchsorted(ends, rest.astype(ends.dtype))
        cuts[-1] = rows
        return self._table(begin=cuts[:-1], end=cuts[1:], into=np.arange(count) * apart(size))

    def _cut_groups(self, count: int) -> Cut:
        cuts, size = _cuts(self._groups, count), self._group[1]
        row, column = cuts * self._channels[0] * self._height, cuts * size
        table = self._table(
            begin=row[:-1], end=row[1:], column=column[:-1], past_column=column[1:], width=size, stop=size
        )
        return self._groups / int(np.diff(cuts).max()), table

    def _cut_channels(self, count: int) -> Cut:
        channels, width = self._channels[1], self._width
        cuts = _cuts(channels, count)
        column = cuts * width
        table = self._table(
            width=channels * width,
            start=column[:-1],
            stop=column[1:],
            channels=channels,
            channel=cuts[:-1],
            past_channel=cuts[1:],
        )
        rows, most = self._size[0], int(np.diff(cuts).max())
        alone, cut = ROW * rows + self._entries, CUT_ROW * rows + self._entries * most / channels
        return APART * alone / max(cut, 1), table

    def _cut_columns(self, count: int) -> Cut:
        (ends, columns, _), (height, width) = self._arrays, (self._height, self._width)
        rows, cuts = np.flatnonzero(np.diff(ends)), _cuts(width, count)
        # Of the rows so far, the last column; of those from here on, the first: both in order, so they can be searched.
        last = np.maximum.accumulate(columns[ends[rows + 1] - 1] % width)
        first = np.minimum.accumulate((columns[ends[rows]] % width)[::-1])[::-1]
        begin, end = np.searchsorted(last, cuts[:-1]), np.searchsorted(first, cuts[1:])
        whole, past = np.searchsorted(first, cuts[:-1]), np.searchsorted(last, cuts[1:])
        row, after = np.append(rows, height), np.append(0, rows + 1)
        table = self._table(
            first=row[begin],
            last=after[end],
            whole_first=row[whole],
            whole_last=after[np.maximum(whole, past)],
            width=width,
            start=cuts[:-1],
            stop=cuts[1:],
            channels=self._channels[1],
            past_channel=self._channels[1],
        )
        return height / max(int((after[end] - row[begin]).max()), 1), table

    def _table(self, **fields: Any) -> Indices:
        """Shares with these fields, one number or one for each; others are those of the whole matrix.

        In the order of `Share` in `kernels/rows.pxi`.
        """
        rows, size = self._size
        share = {
            "begin": 0,
            "end": rows,
            "first": 0,
            "last": self._height,
            "whole_first": 0,
            "whole_last": self._height,
            "column": 0,
            "past_column": size,
            "width": size,
            "start": 0,
            "stop": size,
            "channels": 1,
            "channel": 0,
            "past_channel": 1,
            "into": 0,
        }
        return np.stack(np.broadcast_arrays(*(share | fields).values()), axis=-1, dtype=np.intp)


def _cuts(size: int, count: int) -> Indices:
    """Where shares of about equal size begin and end."""
    return size * np.arange(count + 1) // count


def _move(indices: NDArray[Any], size: int, by: int) -> None:
    """To columns of planes that are so much further apart."""
    for first in range(0, len(indices), PIECE):
        some = indices[first : first + PIECE]
        some += some // size * by
