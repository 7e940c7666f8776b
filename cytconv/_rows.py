"""The matrix of one batch item by its rows (CSR), as method "sparse" keeps it where lines are short.

Or by its columns, if there are far fewer of them: these are the rows of its adjoint.  Either product by the matrix is
then one of two by what is kept: it gathers what each row meets, or it scatters each row over the results that it meets.

Planes of rows, one for each channel, have the same structure, which is kept once, without rows that have no entries.
"""

from __future__ import annotations

import math
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._geometry import Axis, Geometry
from ._machine import ROOM_BYTES
from ._matrix import planes
from ._memory import empty
from ._parts import ENTRY, add_up, apart, parts_of
from ._runtime import kernels, team
from ._taps import products

__all__ = ["Rows", "has_short_rows"]

Array = NDArray[Any]
Indices = NDArray[np.intp]
Cut = tuple[float, Indices]  # what each worker takes, in entries, and the shares

TURN = 2  # rows with entries for each column, at least, if the matrix is kept by its columns,
FEW = 8  # entries of such a row,
RESULTS = 2**18  # and all rows, at most
TOGETHER = 2**12  # rows that are a task where they are gathered, at most,
ENTRIES = 2**12  # and how many entries they have, about
SHARES, BAND = 8, 0.7  # for so many workers, how much of a band it must be at least that is not cut into parts
GAIN = 1.3  # how much faster than one worker several must be that have to visit some rows more than once
# Entries in the time that a row takes beside its own, one whose channels are cut between workers, one channel of a row
# that is searched for the columns of a worker, and to begin with several workers.
ROW, CUT_ROW, SEARCH, FORK = 6, 8, 24, 5000
SKIPPING = 1.5  # how much longer entries take to come from memory if the ones between them are another worker's
NARROW = 64  # columns side by side for each worker: of fewer, two would often write to one line of the cache


def has_short_rows(axes: tuple[Axis, ...], c_in: int, c_out: int) -> bool:
    """Whether columns are far fewer and longer, and what they are scattered over is near."""
    samples, outputs = (math.prod(getattr(axis, side) for axis in axes) for side in ("n", "m"))
    rows = math.prod(_reached(axis) for axis in axes)
    short = c_out * rows >= TURN * c_in * samples and c_in * products(axes) <= FEW * rows
    return bool(short and c_out * outputs <= RESULTS)


def _reached(axis: Axis) -> int:
    """About how many outputs have entries: all of some phases of the stride, if there are samples enough."""
    phases = min(axis.taps, axis.stride // math.gcd(axis.stride, axis.dilation))
    return min(axis.m, axis.n * axis.taps, -(-axis.m * phases // axis.stride))


class Rows:
    """The matrix with weights `w`; `plane` is the number of columns from one channel of x to the next."""

    def __init__(self, axes: tuple[Axis, ...], w: Array) -> None:
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
            width, channels = outputs, (c_in, c_out)
        else:
            width, channels = samples, (c_out, c_in)
        self.plane = samples
        height, some = len(ends) - 1, ends[1:] > ends[:-1]
        if some.all() or not some.any():
            rows = np.arange(height, dtype=ends.dtype)
        else:
            rows = np.flatnonzero(some).astype(ends.dtype)
            ends = np.append(ends[:-1][some], ends[-1:])
        self._arrays = rows, ends, columns, entries.ravel().view(w.real.dtype)
        self._numbers, self._entries = w.itemsize // w.real.itemsize, entries.size  # real ones of an entry
        self._groups, self._channels = groups, channels  # of rows and of columns
        self._kept, self._height = len(rows), height  # rows of a channel that are kept, and all of them
        self._measure(width)

    def _measure(self, width: int) -> None:
        """Note that a channel has so many columns."""
        groups, channels = self._groups, self._channels
        self._width = width
        self._size = groups * channels[0] * self._kept, groups * channels[1] * width
        self._group = channels[0], channels[1] * width  # planes of rows, and columns
        self._kernel = kernels(self._arrays[3].dtype).CompressedRows(
            *self._arrays, self._numbers, self._height, self._group
        )
        self._shares: dict[tuple[int, int], Indices] = {}  # by the number of parts and of workers
        self.__dict__.pop("_is_band", None)

    def spread(self, plane: int) -> Rows:
        """The same matrix with so many columns from one channel of x to the next, but for the entries, which are these.

        It is this one if the matrix is kept by its columns, or if indices would not hold more.
        """
        rows, ends, columns, entries = self._arrays
        if self._by_columns or plane > np.iinfo(columns.dtype).max // self._channels[1]:
            return self
        moved = empty(columns.shape, columns.dtype)
        np.floor_divide(columns, self.plane, out=moved)
        moved *= plane - self.plane
        moved += columns
        other = copy(self)
        other._arrays, other.plane = (rows, ends, moved, entries), plane
        other._measure(plane)
        return other

    @property
    def mean(self) -> float:
        """Entries of a row that is kept, on the average."""
        rows: int = self._size[0]
        return float(self._entries / max(rows, 1))

    def multiply(self, x: Array, y: Array, workers: int) -> None:
        """``y = matrix @ x``, of vectors side by side as real numbers."""
        (self._scatter if self._by_columns else self._gather)(x, y, workers)

    def multiply_adjoint(self, x: Array, y: Array, workers: int) -> None:
        """``y = matrix^H @ x``."""
        (self._gather if self._by_columns else self._scatter)(x, y, workers)

    def _gather(self, x: Array, y: Array, workers: int) -> None:
        """``y = kept @ x``."""
        rows, numbers = self._size[0], y.shape[1]
        work = self._entries + len(y) - rows  # a row without entries is to be cleared
        together = max(1, min(TOGETHER, ENTRIES * rows // max(work, 1)))
        workers = team(workers, -(-rows // together), ENTRY * (self._entries + len(y)) * numbers)
        self._kernel.multiply(x, y, together, workers)

    def _scatter(self, x: Array, y: Array, workers: int) -> None:
        """``y = kept^H @ x``, which takes no second matrix."""
        if self._entries == 0:
            y[...] = 0
            return
        rows, numbers = self._size[0], x.shape[1]
        parts = parts_of(self._entries, len(y), numbers // self._numbers)
        if parts > 1 and self._is_band:
            parts = 1
        workers = team(workers, parts if parts > 1 else len(y), ENTRY * (self._entries + rows) * numbers)
        shares = self._shares_of(parts, workers if parts == 1 else 1)
        workers = min(workers, len(shares))

        if parts == 1:
            self._kernel.multiply_adjoint(shares, x, y, workers)
        else:
            add_up(parts, y, lambda sums: self._kernel.multiply_adjoint(shares, x, sums, workers))

    @cached_property
    def _is_band(self) -> bool:
        """Whether workers that take some results each visit about as many rows as if they took some rows each.

        Of columns too few to be shared, they cannot.
        """
        return self._width >= 2 * NARROW and self._cut_columns(SHARES)[0] <= self._alone / (BAND * SHARES)

    def _shares_of(self, parts: int, workers: int) -> Indices:
        """The table `shares` of `kernels/rows.pxi`: a row for each part, or for each worker.

        Workers take some groups of channels, or some channels of each group, or some columns of each channel.
        """
        shares = self._shares.get((parts, workers))
        if shares is None:  # two threads may both find it at first: no harm
            ways = [(self._alone / GAIN - FORK, self._cut_entries(parts))]
            if workers > 1:
                ways.append(self._cut_groups(min(workers, self._groups)))
            if (count := min(workers, self._group[1] // NARROW)) > 1:
                ways.append(self._cut_channels(min(count, self._channels[1])))
            if (count := min(workers, self._width // NARROW)) > 1:
                ways.append(self._cut_columns(count))
            _, shares = min(ways, key=lambda way: way[0])
            self._shares[parts, workers] = shares
        return shares

    def _cut_entries(self, count: int) -> Indices:
        """Parts with about as many entries, each with results of its own."""
        (_, ends, columns, _), (rows, size) = self._arrays, self._size
        plane, rest = np.divmod(np.arange(count + 1) * self._entries // count, max(len(columns), 1))
        cuts = plane * self._kept + np.searchsorted(ends, rest.astype(ends.dtype))
        cuts[-1] = rows
        return self._table(begin=cuts[:-1], end=cuts[1:], into=np.arange(count) * apart(size))

    def _cut_groups(self, count: int) -> Cut:
        cuts, size = _cuts(self._groups, count), self._group[1]
        row, column = cuts * self._channels[0] * self._kept, cuts * size
        table = self._table(
            begin=row[:-1], end=row[1:], column=column[:-1], past_column=column[1:], width=size, stop=size
        )
        return self._alone * int(np.diff(cuts).max()) / self._groups, table

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
        far = self._arrays[3].nbytes > ROOM_BYTES
        return CUT_ROW * rows + self._entries * most / channels * (SKIPPING if far else 1), table

    @property
    def _alone(self) -> int:
        """What one worker takes to scatter all rows, in entries."""
        rows: int = self._size[0]
        return ROW * rows + int(self._entries)

    def _cut_columns(self, count: int) -> Cut:
        (_, ends, columns, _), width, channels = self._arrays, self._width, self._channels[1]
        cuts = _cuts(width, count)
        # Of the rows so far, the last column; of those from here on, the first: both in order, so they can be searched.
        last = np.maximum.accumulate(columns[ends[1:] - 1] % width)
        first = np.minimum.accumulate((columns[ends[:-1]] % width)[::-1])[::-1]
        begin, end = np.searchsorted(last, cuts[:-1]), np.searchsorted(first, cuts[1:])
        whole, past = np.searchsorted(first, cuts[:-1]), np.searchsorted(last, cuts[1:])
        past = np.maximum(whole, past)
        table = self._table(
            first=begin,
            last=end,
            whole_first=whole,
            whole_last=past,
            width=width,
            start=cuts[:-1],
            stop=cuts[1:],
            channels=channels,
            past_channel=channels,
        )
        wholes = past - whole
        rows = ROW * wholes + SEARCH * channels * (end - begin - wholes)
        planes = self._size[0] // self._kept
        return planes * int(rows.max()) + self._entries / count, table

    def _table(self, **fields: Any) -> Indices:
        """Shares with these fields, one number or one for each; others are those of the whole matrix.

        In the order of `Share` in `kernels/rows.pxi`.
        """
        rows, size = self._size
        share = {
            "begin": 0,
            "end": rows,
            "first": 0,
            "last": self._kept,
            "whole_first": 0,
            "whole_last": self._kept,
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
