"""The entries of the sparse matrix, in closed form.

Flattened, an N-dimensional transposed convolution is a matrix with one row for each output and one column for each
sample.  It is a product over the axes of the arrays, each taken where it lies in memory: along a batch axis a row meets
its own column, along the channels it meets those of its group, along a convolved axis those that the kernel reaches.
Each of these is a `Factor`, whose rows repeat with a period; so where any row begins, and what is in it, is arithmetic.
The matrix is filled in parallel straight into its final arrays: nothing is sorted, searched for or kept beside it.

The transpose has the factors of the strided convolution, and is filled in the same way.  A matrix by columns is its
transpose by rows.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import bsr_array, coo_array, csc_array, csr_array

from ._geometry import Axis, Geometry
from ._memory import empties, empty, physical
from ._runtime import resolve_workers, team
from .kernels.matrix import fill

__all__ = ["FORMATS", "check_size", "entries_of", "matrix", "planes"]

Array = NDArray[Any]
Indices = NDArray[np.intp]

FORMATS = ("csr", "csc", "coo", "bsr")
INT32_MAX = 2**31 - 1
TASK = 2**16  # entries, at least: a task costs some microseconds
MAX_TASKS = 64
PHASE = 80  # bytes, about, that each phase of a stride takes while its table is made
SMALL = 2**14  # numbers that a second-level cache still has when they are copied
NUMBERS = {4: np.uint32, 8: np.uint64, 16: np.complex128}  # what numbers of so many bytes are copied as


def matrix(
    geometry: Geometry,
    w: Array,
    *,
    transposed: bool = False,
    format: str = "csr",
    index_dtype: Any = None,
    drop_zeros: bool = False,
) -> Any:
    """The transposed convolution by weights `w`, of shape ``geometry.w_shape``, or its transpose; canonical."""
    block = (1, 1)
    if format == "bsr":
        if geometry.channels != "last" or not w.size:
            by_rows = matrix(geometry, w, transposed=transposed, index_dtype=index_dtype, drop_zeros=drop_zeros)
            result = by_rows.tobsr()
            result.sort_indices()  # scipy leaves blocks in the order of their first entry
            result.has_canonical_format = True
            return result
        # A block is all channels of one output by all of one sample, within a group.
        block = (geometry.channels_out // geometry.groups, geometry.channels_in // geometry.groups)
    shape = (math.prod(geometry.y_shape), math.prod(geometry.x_shape))
    if transposed:
        shape, block = shape[::-1], block[::-1]
    entries = entries_of(geometry)
    index = _index_type(index_dtype, max(*shape, entries))
    count = entries // math.prod(block)  # of columns to write
    rows = shape[1] if format == "csc" else shape[0] // block[0]
    pointers = count if format == "coo" else rows + 1
    by_samples = transposed != (format == "csc")  # or by outputs, whose phases take a table
    table = 0 if by_samples else PHASE * sum(min(axis.stride, axis.m) for axis in geometry.axes)
    check_size(
        entries * w.itemsize + (count + pointers) * index.itemsize + table,
        f"input_shape={geometry.x_shape} with w of shape {geometry.w_shape} gives a matrix of shape {shape} "
        f"with {entries} entries",
    )
    values = (count, *block) if format == "bsr" else (count,)
    data, columns, by_row = empties((values, w.dtype), ((count,), index), ((pointers,), index))
    by_row[: 1 if entries else None] = 0  # where the first row begins
    if entries:
        factors = _factors(geometry, by_samples, format == "bsr")
        weights = _blocks(geometry, w, transposed) if format == "bsr" else w
        _fill(factors, weights, format == "coo", by_row, columns, data, (0, rows))
    if format == "coo":
        result = coo_array(shape, dtype=w.dtype)  # its constructor would look at each entry
        result.data, result.coords = data, (by_row, columns)
    else:
        result = _compressed(format, shape, block, data, columns, by_row)
    result.has_canonical_format = True
    if drop_zeros:
        result.eliminate_zeros()
    return result


def planes(geometry: Geometry, w: Array, transposed: bool) -> tuple[Array, Array, Array]:
    """The matrix by rows; the structure that planes of rows, one for each channel, have in common stands there once.

    Channels are first, and there is no batch.  Returns the row pointer of a plane, the columns of its entries within
    their group, and the numbers of all entries, of shape (planes, entries of each).
    """
    factors = _factors(geometry, transposed, False)
    count = geometry.channels_in if transposed else geometry.channels_out
    height = math.prod(f.rows for f in factors[1:])
    size = entries_of(geometry) // max(count, 1)
    columns = math.prod(f.columns for f in factors) // geometry.groups
    index = _index_type(None, max(height, columns, size))
    ends, indices, data = np.zeros(height + 1, index), np.empty(size, index), empty((count, size), w.dtype)
    if data.size:
        _fill(factors, w, False, ends, indices, data.ravel(), (0, height))
        if count > 1:
            _fill(factors, w, False, ends, indices[:0], data.ravel(), (height, count * height))
    return ends, indices, data


def _compressed(
    format: str, shape: tuple[int, int], block: tuple[int, int], data: Array, indices: Array, ends: Array
) -> Any:
    """A sparse array of these arrays themselves: the constructor would copy int64 indices that fit int32."""
    kind = {"csr": csr_array, "csc": csc_array, "bsr": bsr_array}[format]
    blocks = {"blocksize": block} if format == "bsr" else {}
    if indices.dtype == np.int32:
        return kind((data, indices, ends), shape=shape, **blocks)
    result = kind(shape, dtype=data.dtype, **blocks)
    result.data, result.indices, result.indptr = data, indices, ends
    return result


def _index_type(asked: Any, largest: int) -> np.dtype[Any]:
    """int32 where it holds the largest of rows, columns and entries, or the type that was asked for."""
    if asked is None:
        return np.dtype(np.int32 if largest <= INT32_MAX else np.int64)
    try:
        index: np.dtype[Any] = np.dtype(asked)
    except TypeError:
        raise TypeError(f"index_dtype={asked!r} must be None, int32 or int64") from None
    if index not in (np.int32, np.int64):
        raise ValueError(f"index_dtype={asked!r} must be None, int32 or int64")
    if index == np.int32 and largest > INT32_MAX:
        raise ValueError(f"index_dtype={asked!r} must hold the largest of rows, columns and entries, {largest}")
    return index


def entries_of(geometry: Geometry) -> int:
    """How many entries the matrix has; of any size."""
    reaches = (axis.reach() for axis in geometry.axes)
    triples = [sum((last - first).tolist()) for first, last in reaches]
    return math.prod([*geometry.batch, geometry.channels_in, geometry.channels_out // geometry.groups, *triples])


def check_size(size: int, what: str, instead: str = "ConvTranspose applies it without storing it") -> None:
    """Refuse what cannot fit, before anything is allocated, and say what to do `instead`."""
    if size > sys.maxsize:
        raise ValueError(f"{what}: its {size} bytes must fit the address space, {sys.maxsize}")
    limit = physical()
    if limit is not None and size > limit:
        raise MemoryError(
            f"{what}: its {size / 2**30:.1f} GiB are more than the memory of this machine, {limit / 2**30:.1f} GiB; "
            f"{instead}"
        )


# ---- one factor for each axis of the arrays ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Factor:
    """Along one axis, row ``phase + u*period`` has entries j = 0, 1, ... , of which those exist that have a column::

        column   base[phase] + u*column_unit + j*column_step       0 <= column < columns
        place    place[phase] + u*place_unit + j*place_step        in the flat weights

    `phases` has base, place and number of entries of each phase.
    """

    rows: int
    columns: int
    period: int
    column_unit: int
    column_step: int
    place_unit: int
    place_step: int
    phases: Indices

    def before(self, rows: Any) -> Any:
        """How many entries the first `rows` rows have together; an integer, or as many as are asked for at once."""
        base, _, count = self.phases.T
        last = base + (count - 1) * self.column_step + (self.rows - 1) // self.period * self.column_unit
        if np.all(base >= 0) and np.all(last < self.columns):  # every entry has a column
            starts = np.append(0, np.cumsum(count))
            return rows // self.period * starts[-1] + starts[rows % self.period]
        phase = np.repeat(np.arange(self.period), count)
        column = base[phase] + (np.arange(phase.size) - (np.cumsum(count) - count)[phase]) * self.column_step
        first = np.maximum(-(column // self.column_unit), 0)
        last = (self.columns - 1 - column) // self.column_unit + 1
        met = (np.asarray(rows)[..., None] - phase + self.period - 1) // self.period  # rows of that phase
        return np.maximum(np.minimum(met, last) - first, 0).sum(-1)

    def repeating(self) -> tuple[int, int]:
        """From and to which row each period is like the one before, its columns shifted."""
        base, _, count = self.phases.T
        if self.place_unit or not count.any():
            return 0, 0
        first = int(-(base[count > 0] // self.column_unit).min())
        last = (base + (count - 1) * self.column_step)[count > 0].max()
        first, stop = (
            max(first, 0),
            min((self.columns - 1 - int(last)) // self.column_unit + 1, self.rows // self.period),
        )
        return (first * self.period, stop * self.period) if first < stop else (0, 0)


def _factors(geometry: Geometry, transposed: bool, blocks: bool) -> list[Factor]:
    """The factors in the order of the axes in memory; with `blocks`, a block of channels is one entry."""
    factors = []
    batch, taps = len(geometry.batch), [axis.taps for axis in geometry.axes]
    spatial = len(geometry.order) - len(taps)
    for position in range(len(geometry.order)):
        role = geometry.order.index(position)
        if role < batch:
            factors.append(_diagonal(geometry.x_shape[position], 0))
        elif role < spatial:
            of_channels = _diagonal(geometry.groups, math.prod(taps)) if blocks else _channels(geometry, transposed)
            factors.append(of_channels)
        else:
            a = role - spatial
            convolved = _strided if transposed else _spread
            factors.append(convolved(geometry.axes[a], math.prod(taps[a + 1 :])))
    return factors


def _diagonal(size: int, place_unit: int) -> Factor:
    """A row meets its own column."""
    return Factor(size, size, 1, 1, 1, place_unit, 0, np.array([[0, 0, 1]]))


def _channels(geometry: Geometry, transposed: bool) -> Factor:
    """A row meets the columns of its group; weights are (C_in, C_out // groups, taps)."""
    pitch = math.prod(axis.taps for axis in geometry.axes)
    c_in, c_out = geometry.channels_in // geometry.groups, geometry.channels_out // geometry.groups
    rows, columns, row_step, column_step = (c_in, c_out, c_out, 1) if transposed else (c_out, c_in, 1, c_out)
    row = np.arange(rows)
    phases = np.stack([np.zeros_like(row), row * row_step * pitch, np.full_like(row, columns)], axis=-1)
    period = max(rows, 1)
    return Factor(
        geometry.groups * rows,
        geometry.groups * columns,
        period,
        columns,
        1,
        c_in * c_out * pitch,
        column_step * pitch,
        phases,
    )


def _spread(axis: Axis, pitch: int) -> Factor:
    """Rows are outputs: those of a phase, which the stride takes from one to the next, meet the same taps."""
    gcd = math.gcd(axis.stride, axis.dilation)
    period = max(min(axis.stride, axis.m), 1)
    # From one tap of a phase to the next are stride/gcd taps; the last tap meets the first of the samples.
    step = axis.stride // gcd
    o = np.arange(period) + axis.low
    k = np.arange(min(step, axis.taps))
    phases = np.zeros((period, 3), np.intp)
    of_phase = (k * axis.dilation - axis.low) % axis.stride  # the first output, from 0 on, that a tap is for
    k, of_phase = k[of_phase < period], of_phase[of_phase < period]
    count = (axis.taps - 1 - k) // step + 1
    last = k + (count - 1) * step
    phases[of_phase] = np.stack([(o[of_phase] - last * axis.dilation) // axis.stride, last * pitch, count], axis=-1)
    return Factor(axis.m, axis.n, period, 1, axis.dilation // gcd, 0, -step * pitch, phases)


def _strided(axis: Axis, pitch: int) -> Factor:
    """Rows are samples: each meets all taps."""
    return Factor(axis.n, axis.m, 1, axis.stride, axis.dilation, 0, pitch, np.array([[-axis.low, 0, axis.taps]]))


def _blocks(geometry: Geometry, w: Array, transposed: bool) -> Array:
    """The weights as blocks, (groups, *taps, C_out, C_in), or of the transpose, (groups, *taps, C_in, C_out)."""
    return np.moveaxis(geometry.split_w(w), (1, 2), (-2, -1) if transposed else (-1, -2))


# ---- filling -----------------------------------------------------------------------------------------


def _fill(
    factors: list[Factor],
    w: Array,
    coordinates: bool,
    by_row: Array,
    columns: Array,
    data: Array,
    rows: tuple[int, int],
) -> None:
    """Fill some `rows` of a matrix that has entries; `by_row` is the row of each, or else the row pointer.

    Without `columns`, fill in only the numbers.
    """
    tasks = _tasks(factors, *rows)
    workers = team(resolve_workers(None), len(tasks), data.size)
    starts = np.cumsum([0, *(f.phases.size for f in factors)]).tolist()
    table = [
        (f.rows, f.columns, f.period, f.column_unit, f.column_step, f.place_unit, f.place_step, start)
        for f, start in zip(factors, starts, strict=False)
    ]
    paths = math.prod(int(f.phases[:, 2].max()) for f in factors[:-1])
    block, number = math.prod(data.shape[1:]), NUMBERS[w.itemsize]
    fill(
        np.array(table, np.intp),
        np.concatenate([f.phases.ravel() for f in factors]),
        _repeated(factors, block),
        tasks,
        np.empty((workers, 2 * paths), np.intp),
        np.ascontiguousarray(w).ravel().view(number),
        block,
        by_row if coordinates else by_row[1:],
        coordinates,
        columns,
        data.ravel().view(number),
        workers,
    )


def _tasks(factors: list[Factor], first: int, last: int) -> Indices:
    """``(row, past the last, entries before)`` for parts of these rows of about equal size."""
    rows, totals = math.prod(f.rows for f in factors), [int(f.before(f.rows)) for f in factors]
    count = min(max(math.prod(totals) * (last - first) // rows // TASK, 1), MAX_TASKS, last - first)
    cuts = np.array([first + (last - first) * t // count for t in range(count)], np.intp)
    # Entries before row (p, q, ...): those of all rows before p, and within p those of all before q, and so on.
    before, along = np.zeros_like(cuts), np.ones_like(cuts)
    inner, entries = rows, math.prod(totals)
    for factor, total in zip(factors, totals, strict=True):
        inner, entries = inner // factor.rows, entries // total
        row = cuts // inner % factor.rows
        begin = factor.before(row)
        before += along * begin * entries
        along *= factor.before(row + 1) - begin
    return np.stack([cuts, np.append(cuts[1:], last), before], axis=-1)


def _repeated(factors: list[Factor], block: int) -> Indices:
    """What `fill` is to copy: of the axes whose periods are small, the one with the most that are like the one before.

    In rows of the matrix, how long the axis and one of its periods are, and between which rows of the axis they repeat;
    and by how many columns they move.
    """
    best, most = [1, 1, 0, 0, 0], 1
    rows = columns = entries = 1  # of the axes further in
    for f in reversed(factors):
        start, stop = f.repeating()
        if (stop - start) // f.period > most and int(f.phases[:, 2].sum()) * entries * block <= SMALL:
            most = (stop - start) // f.period
            best = [f.rows * rows, f.period * rows, start * rows, stop * rows, f.column_unit * columns]
        rows, columns, entries = rows * f.rows, columns * f.columns, entries * int(f.before(f.rows))
    return np.array(best, np.intp)
