"""The relation as a sparse matrix: the public matrices, and method "sparse".

Flattened, an N-dimensional transposed convolution is a matrix with one row for each output and one column
for each sample.  It is a product over the axes of the arrays, each taken where it lies in memory: along a batch axis
a row meets its own column, along the channels it meets those of its group, along a convolved axis those
that the kernel reaches.  A `_Relation` is one such factor by rows, columns rising; multiplying factors
keeps that order, so the matrix comes out sorted, for every layout, and no entry is ever searched for.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array, csr_array

from ._geometry import Axis, Channels, Geometry, Ints, Padding, _ints

__all__ = ["Sparse", "check_format", "conv_matrix", "conv_transpose_matrix", "in_format", "matrix", "whole_shape"]

Array = NDArray[Any]
Indices = NDArray[np.int64]

FORMATS = ("csr", "csc", "coo", "bsr")
INT32_MAX = 2**31 - 1
BLOCK = 2**18  # entries to expand at a time: the workspace of a fill, beyond the matrix itself, fits a cache


# ---- the public matrices -----------------------------------------------------------------------------


def conv_transpose_matrix(
    w: ArrayLike,
    input_shape: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    output_shape: Ints | None = None,
    dilation: Ints = 1,
    groups: SupportsIndex = 1,
    channels: Channels = None,
    axes: Ints | None = None,
    format: str = "csr",
) -> Any:
    """Matrix of a transposed convolution, as a scipy sparse array.

    ``conv_transpose_matrix(w, x.shape, ...) @ x.ravel()`` equals ``conv_transpose(x, w, ...).ravel()``.

    Parameters
    ----------
    w : array_like
        Weights, as in `conv_transpose`: ``(*K)`` for plain arrays, else ``(C_in, C_out // groups, *K)``.
        Half precision becomes single: scipy's sparse arrays have none.
    input_shape : int or tuple of int
        The whole shape of x, batch and channels included.
    stride, padding, output_padding, output_shape, dilation, groups, channels, axes
        The geometry, as in `conv_transpose`.
    format : {"csr", "csc", "coo", "bsr"}
        Storage of the result.

    Returns
    -------
    scipy.sparse.sparray
        Of shape ``(y.size, x.size)``, in C order of both, with every entry of the window stored, zero weights
        too: the structure depends on the geometry alone (only "bsr" may add zeros, to fill blocks).  Indices
        are sorted and free of duplicates, int32 where they fit and int64 elsewhere.

    Raises
    ------
    ValueError
        For shapes and values that do not fit, and for a matrix past the address space.
    TypeError
        For arguments of the wrong type; weights must be real or complex floating point.

    See Also
    --------
    conv_matrix : The transpose.

    References
    ----------
    .. [1] V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", 2016,
       arXiv:1603.07285, section 4.1.

    Examples
    --------
    Three samples, spread by a kernel of two taps over every other output:

    >>> import numpy as np
    >>> from cytconv import conv_transpose, conv_transpose_matrix
    >>> w = np.array([1.0, 2.0])
    >>> M = conv_transpose_matrix(w, 3, stride=2)
    >>> print(M.toarray())
    [[1. 0. 0.]
     [2. 0. 0.]
     [0. 1. 0.]
     [0. 2. 0.]
     [0. 0. 1.]
     [0. 0. 2.]]
    >>> x = np.array([3.0, 4.0, 5.0])
    >>> np.array_equal(M @ x, conv_transpose(x, w, stride=2))
    True
    """
    check_format(format)
    w = _weights(w)
    geometry = Geometry.forward(
        whole_shape(input_shape),
        w.shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        output_shape=output_shape,
        dilation=dilation,
        groups=groups,
        channels=channels,
        axes=axes,
        x_name="input_shape",
    )
    return in_format(matrix(geometry, w), format)


def conv_matrix(
    w: ArrayLike,
    input_shape: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    output_shape: Ints | None = None,
    dilation: Ints = 1,
    groups: SupportsIndex = 1,
    channels: Channels = None,
    axes: Ints | None = None,
    format: str = "csr",
) -> Any:
    """Matrix of a strided convolution: the exact transpose of `conv_transpose_matrix`.

    ``conv_matrix(w, x.shape, ...) @ y.ravel()`` equals ``conv(y, w, ...).ravel()`` for ``x = conv(y, w, ...)``.
    The weights are not conjugated.

    Parameters
    ----------
    w, stride, padding, dilation, groups, channels, axes, format
        As in `conv_transpose_matrix`.
    input_shape : int or tuple of int
        The whole shape of x, batch and channels included: the *result* of the convolution, as everywhere in
        this library x is the smaller side.
    output_padding, output_shape
        The size of y, the argument of the convolution, when it is not the smallest that gives x: trailing
        samples that no window reaches are columns without entries.

    Returns
    -------
    scipy.sparse.sparray
        Of shape ``(x.size, y.size)``; see `conv_transpose_matrix`.

    Raises
    ------
    ValueError, TypeError
        As `conv_transpose_matrix`.

    Examples
    --------
    >>> import numpy as np
    >>> from cytconv import conv, conv_matrix
    >>> w = np.array([1.0, 2.0])
    >>> M = conv_matrix(w, 3, stride=2)
    >>> print(M.toarray())
    [[1. 2. 0. 0. 0. 0.]
     [0. 0. 1. 2. 0. 0.]
     [0. 0. 0. 0. 1. 2.]]
    >>> y = np.arange(6.0)
    >>> np.array_equal(M @ y, conv(y, w, stride=2))
    True
    """
    check_format(format)
    transposed = conv_transpose_matrix(
        w,
        input_shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        output_shape=output_shape,
        dilation=dilation,
        groups=groups,
        channels=channels,
        axes=axes,
    )
    return in_format(transposed.T, format)


def check_format(format: str) -> None:
    """Raise unless `format` names a storage that the matrices come in."""
    if not isinstance(format, str):
        raise TypeError(f"format={format!r} must be a string")
    if format not in FORMATS:
        raise ValueError(f"format={format!r} must be one of {', '.join(map(repr, FORMATS))}")


def in_format(matrix: Any, format: str) -> Any:
    """A canonical CSR or CSC array in another format, by way of rows: that leaves each of them canonical."""
    if matrix.format == format:
        return matrix
    result = matrix.tocsr().asformat(format)
    if format == "coo":
        result.has_canonical_format = True  # older scipy forgets
    return result


def whole_shape(input_shape: Any) -> tuple[int, ...]:
    """`input_shape` as a tuple of sizes; an int is the one axis of a plain array."""
    sizes = _ints("input_shape", input_shape)
    shape = (sizes,) if isinstance(sizes, int) else sizes
    if any(size < 0 for size in shape):
        raise ValueError(f"input_shape={shape} must have no negative size")
    return shape


def _weights(w: ArrayLike) -> Array:
    """`w` in a type that sparse arrays have."""
    array = np.asarray(w)
    dtype = array.dtype.newbyteorder("=")
    if dtype.char not in "efdFD":
        raise TypeError(f"w of {dtype} must be float16, float32, float64, complex64 or complex128")
    return array.astype(np.float32 if dtype == np.float16 else dtype, copy=False)


# ---- one factor for each axis of the arrays ----------------------------------------------------------


class _Relation(NamedTuple):
    """Which outputs meet which samples, by rows, and the place in the flat weights of what joins them.

    Row ``rows[r]`` owns the next ``counts[r]`` of the entries ``(columns, places)``.  Rows rise, and so do the
    columns within a row.  Rows with no entry are left out: work follows the entries.
    """

    shape: tuple[int, int]
    rows: Indices
    counts: Indices
    columns: Indices
    places: Indices


def matrix(geometry: Geometry, w: Array) -> csr_array:
    """The transposed convolution by weights `w`, of shape ``geometry.w_shape``, as a canonical CSR array."""
    rows, columns = math.prod(geometry.y_shape), math.prod(geometry.x_shape)
    entries = math.prod(geometry.batch) * geometry.channels_in * (geometry.channels_out // geometry.groups)
    entries *= math.prod(_entries(axis) for axis in geometry.axes)
    index = np.dtype(np.int32 if max(rows, columns, entries) <= INT32_MAX else np.int64)
    size = entries * (w.itemsize + index.itemsize) + (rows + 1) * index.itemsize
    if size > sys.maxsize:
        raise ValueError(
            f"input_shape={geometry.x_shape} with w of shape {geometry.w_shape} gives a matrix of shape "
            f"{(rows, columns)} with {entries} entries: its {size} bytes must fit the address space, {sys.maxsize}"
        )
    indptr, indices, data = np.zeros(rows + 1, index), np.empty(entries, index), np.empty(entries, w.dtype)
    if entries:
        *outer, inner = _relations(geometry)
        weights, at = w.ravel(), 0
        for product in _products(reduce(_times, outer, _identity(1)), inner):
            here = slice(at, at := at + product.columns.size)
            indptr[1:][product.rows] = product.counts
            indices[here] = product.columns
            np.take(weights, product.places, out=data[here], mode="clip")  # clips nothing: "raise" would buffer
        np.cumsum(indptr, out=indptr)
    return csr_array((data, indices, indptr), shape=(rows, columns))


def _relations(geometry: Geometry) -> Iterator[_Relation]:
    """The factors in the order of the axes in memory."""
    batch, taps = len(geometry.batch), [axis.taps for axis in geometry.axes]
    spatial = len(geometry.order) - len(taps)
    for position in range(len(geometry.order)):
        role = geometry.order.index(position)
        if role < batch:
            yield _identity(geometry.x_shape[position])
        elif role < spatial:
            yield _channels(geometry, math.prod(taps))
        else:
            a = role - spatial
            yield _convolved(geometry.axes[a], math.prod(taps[a + 1 :]))


def _identity(size: int) -> _Relation:
    """A batch axis."""
    each = np.arange(size)
    return _Relation((size, size), each, np.ones_like(each), each, np.zeros_like(each))


def _channels(geometry: Geometry, pitch: int) -> _Relation:
    """The channel axis, on which a weight is `pitch` places from the next: every pair within a group."""
    groups = geometry.groups
    c_in, c_out = geometry.channels_in // groups, geometry.channels_out // groups
    group, output, sample = np.ogrid[:groups, :c_out, :c_in]
    column = group * c_in + sample
    columns = np.broadcast_to(column, (groups, c_out, c_in)).ravel()
    places = ((column * c_out + output) * pitch).ravel()
    rows = np.arange(groups * c_out)
    return _Relation((rows.size, groups * c_in), rows, np.full_like(rows, c_in), columns, places)


def _convolved(axis: Axis, pitch: int) -> _Relation:
    """An axis of the kernel, on which a weight is `pitch` places from the next; it must have an entry."""
    # By samples it is in closed form: each meets a run of taps, and outputs rise with the taps.  From there
    # to rows is a counting sort, which scipy has as the conversion of CSC to CSR.
    first, last = axis.reach()
    start, stop = int(first[first < last].min()), int(last.max())  # the rest of the samples reach nothing
    reached = replace(axis, n=stop - start, low=axis.low - start * axis.stride)
    first, last = reached.swapped().reach()
    k = _runs(first, last - first)
    o = np.repeat(np.arange(reached.n) * reached.stride - reached.low, last - first) + k * reached.dilation
    indptr = np.append(_starts(last - first), k.size)
    by_rows = csc_array((k * pitch, o, indptr), shape=(axis.m, reached.n)).tocsr()
    counts = np.diff(by_rows.indptr).astype(np.int64, copy=False)
    rows = np.flatnonzero(counts)
    columns = by_rows.indices.astype(np.int64, copy=False)
    columns += start
    return _Relation((axis.m, axis.n), rows, counts[rows], columns, by_rows.data)


def _entries(axis: Axis) -> int:
    """How many triples ``(o, i, k)`` an axis has; of any size."""
    first, last = axis.reach()
    return sum((last - first).tolist())


# ---- their product -----------------------------------------------------------------------------------


def _times(a: _Relation, b: _Relation) -> _Relation:
    """The relation on the two axes together, `b` the faster in memory: a Kronecker product.

    Row ``(p, q)`` lists, for each entry of row ``p`` of `a` in turn, all of row ``q`` of `b`.
    """
    p, q = a.rows.size, b.rows.size
    lengths = np.repeat(a.counts, q)  # by (p, q): how many runs through a row of b
    of_a = _runs(np.repeat(_starts(a.counts), q), lengths)  # by run
    row_b = np.repeat(np.tile(np.arange(q), p), lengths)
    lengths = b.counts[row_b]
    of_b = _runs(_starts(b.counts)[row_b], lengths)  # by entry
    of_a = np.repeat(of_a, lengths)
    return _Relation(
        (a.shape[0] * b.shape[0], a.shape[1] * b.shape[1]),
        np.add.outer(a.rows * b.shape[0], b.rows).ravel(),
        np.multiply.outer(a.counts, b.counts).ravel(),
        a.columns[of_a] * b.shape[1] + b.columns[of_b],
        a.places[of_a] + b.places[of_b],
    )


def _products(a: _Relation, b: _Relation) -> Iterator[_Relation]:
    """The same product in parts of about `BLOCK` entries, one after the other: rows of `a`, or parts of one row."""
    for part in _parts(a, b.columns.size):
        for piece in _parts(b, part.columns.size) if part.rows.size == 1 else [b]:
            yield _times(part, piece)


def _parts(a: _Relation, times: int) -> Iterator[_Relation]:
    """Cut `a` between rows into parts that become about `BLOCK` entries when each entry becomes so many."""
    parts = min(a.rows.size, a.columns.size * times // BLOCK + 1)
    cuts = np.linspace(0, a.rows.size, parts + 1).astype(np.int64)
    entries = np.append(_starts(a.counts), a.columns.size)[cuts]
    for start, stop, begin, end in zip(cuts[:-1], cuts[1:], entries[:-1], entries[1:], strict=True):
        yield _Relation(a.shape, a.rows[start:stop], a.counts[start:stop], a.columns[begin:end], a.places[begin:end])


def _starts(counts: Indices) -> Indices:
    """Where runs of these lengths start when they follow each other."""
    return np.cumsum(counts) - counts


def _runs(first: Indices, lengths: Indices) -> Indices:
    """``first[r], first[r] + 1, ...``, `lengths[r]` of them, run after run."""
    return np.arange(lengths.sum()) + np.repeat(first - _starts(lengths), lengths)


# ---- the method --------------------------------------------------------------------------------------


class Sparse:
    """Method "sparse": scipy's product by the matrix of one batch item, the batch as columns.

    Entries outside a window do not exist, so that non-finite samples reach exactly the outputs that hold
    them.  It runs on one thread, whatever the number of workers.
    """

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
        self._matrix, self._spatial = matrix(item, w), len(axes)

    def forward(self, x: Array, bias: Array | None, y: Array, workers: int) -> None:
        """``y[o] = bias + sum x[i] * w[k]``."""
        columns = self._matrix.shape[1]
        y[...] = (self._matrix @ x.reshape(-1, columns).T).T.reshape(y.shape)
        if bias is not None:
            y += bias.reshape(*bias.shape, *(1,) * self._spatial)

    def adjoint(self, y: Array, bias: Array | None, x: Array, workers: int) -> None:
        """``x[i] = bias + sum y[o] * conj(w[k])``."""
        rows = self._matrix.shape[0]
        # conj(M.T @ conj(y)): the transpose of a CSR array is the same memory read as CSC.
        result = self._matrix.T @ y.reshape(-1, rows).conj().T
        np.conjugate(result.T.reshape(x.shape), out=x)
        if bias is not None:
            x += bias.reshape(*bias.shape, *(1,) * self._spatial)

    @staticmethod
    def weight_adjoint(axes: tuple[Axis, ...], x: Array, y: Array, w: Array, workers: int) -> None:
        """``w[k] = sum conj(x[i]) * y[o]``.

        With samples and taps in each other's place, y is the transposed convolution of w by the kernel x, so
        that this is its adjoint.  The batch then plays the output channels, and the output channels the batch.
        """
        x, y = (a.reshape(-1, *a.shape[-len(axes) - 2 :]) for a in (x, y))
        kernel = np.moveaxis(x, 0, 2)  # (groups, C_in // groups, batch, *n)
        operator = Sparse(tuple(axis.swapped() for axis in axes), kernel)
        operator.adjoint(y.swapaxes(0, 2), None, np.moveaxis(w, 2, 0), workers)

    @staticmethod
    def repeat(*_: Any) -> None:
        """There is no short way."""

    def repeat_packed(self, *_: Any) -> None:
        """There is no short way."""
