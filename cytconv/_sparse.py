"""The relation as a sparse matrix: the public matrices, and method "sparse", which multiplies by one.

The method keeps its matrix in one of two ways, `_diagonals` and `_rows`.  With either, products run in parallel, on
several vectors at a time, and those by the adjoint need no second matrix: each worker adds up some of the results, or
all of them over some of the entries (`_parts`).  Every result is added up in the same order, whatever the number of
workers (but in another one by itself than among other vectors, among other numbers of them, or with gaps between its
numbers).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._diagonals import Diagonals, are_long
from ._geometry import Axis, Channels, Geometry, Ints, Padding, ints
from ._matrix import FORMATS, INT32_MAX, NUMBERS, check_size, matrix
from ._memory import LINE, empty, scratch
from ._phases import Direction
from ._rows import TOGETHER, Rows, has_short_rows
from ._runtime import resolve_workers, team
from ._taps import add_bias, products
from .kernels.matrix import copyto

__all__ = ["Sparse", "check_format", "conv_matrix", "conv_transpose_matrix", "has_diagonals", "whole_shape"]

Array = NDArray[Any]

COPIED = 16  # vectors that are laid side by side at a time, at most, where they are not
WAY = 2**12  # bytes after which addresses share the lines of the nearest cache again,
CROWD, CROWD_OF_ROWS = 4, 16  # and how many planes may do so, where diagonals are kept, and where rows are,
MANY, MANY_IN_ROWS = 64, 4  # with entries in a column, on the average, that make up for copying its numbers elsewhere;
ROW_BYTES = 2**13  # rows whose entries meet more, on the average, do not find it near in any case
COPY = 30  # multiplications that take as long as to copy a number
LINE_TABLE = 40  # bytes of tables for each line of a plane, where diagonals are kept


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
    index_dtype: Any = None,
    drop_zeros: bool = False,
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
    stride, padding, output_padding, output_shape, dilation, groups, channels, axes : optional
        The geometry, as in `conv_transpose`.
    format : {"csr", "csc", "coo", "bsr"}
        Storage of the result.  "bsr" has blocks of ``C_out // groups`` by ``C_in // groups`` if the channels are last;
        otherwise scipy chooses them, and fills them up with zeros.
    index_dtype : {None, int32, int64}, optional
        Type of the indices.  None is int32 where it holds the number of rows, of columns and of entries.
    drop_zeros : bool, optional
        Leave out entries that are zero, or blocks of them.  Otherwise the structure depends on the geometry alone.

    Returns
    -------
    scipy.sparse.sparray
        Of shape ``(y.size, x.size)``, in C order of both, with every entry of the window.  Indices are sorted and free
        of duplicates.

    Raises
    ------
    ValueError
        For shapes and values that do not fit, and for a matrix past the address space.
    TypeError
        For arguments of the wrong type; weights must be real or complex floating point.
    MemoryError
        If the matrix is larger than the memory of the machine, before anything is allocated.  `ConvTranspose` applies
        it without storing it.

    See Also
    --------
    conv_matrix : the transpose.
    ConvTranspose : the same as a LinearOperator, without a matrix.

    Notes
    -----
    That of a convolution, transposed [1]_.  Where a row begins and what is in it has a closed form, so that the arrays
    are filled in place, on as many threads as OpenMP would use, with no sort and no memory beside them but a table of
    the phases of each stride, in every format.  Only a "bsr" array without channels last is made from a "csr" array by
    scipy, and takes as much again.

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
    geometry = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "output_shape": output_shape,
        "dilation": dilation,
        "groups": groups,
        "channels": channels,
        "axes": axes,
    }
    return _matrix(w, input_shape, geometry, False, format, index_dtype, drop_zeros)


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
    index_dtype: Any = None,
    drop_zeros: bool = False,
) -> Any:
    """Matrix of a strided convolution: the exact transpose of `conv_transpose_matrix`.

    ``conv_matrix(w, x.shape, ...) @ y.ravel()`` equals ``conv(y, w, ...).ravel()`` for ``x = conv(y, w, ...)``.
    The weights are not conjugated.

    Parameters
    ----------
    w : array_like
        Weights, as in `conv_transpose_matrix`.
    input_shape : int or tuple of int
        The whole shape of x, batch and channels included: the *result* of the convolution, as everywhere in
        this library x is the smaller side.
    stride, padding, dilation, groups, channels, axes, format, index_dtype, drop_zeros : optional
        As in `conv_transpose_matrix`.
    output_padding, output_shape : int or sequence of int, optional
        The size of y, the argument of the convolution, when it is not the smallest that gives x: trailing
        samples that no window reaches are columns without entries.

    Returns
    -------
    scipy.sparse.sparray
        Of shape ``(x.size, y.size)``; see `conv_transpose_matrix`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `conv_transpose_matrix`.

    See Also
    --------
    conv_transpose_matrix : the transpose.
    conv : the same without a matrix.

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
    geometry = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "output_shape": output_shape,
        "dilation": dilation,
        "groups": groups,
        "channels": channels,
        "axes": axes,
    }
    return _matrix(w, input_shape, geometry, True, format, index_dtype, drop_zeros)


def _matrix(
    w: ArrayLike,
    input_shape: Ints,
    geometry: dict[str, Any],
    transposed: bool,
    format: str,
    index_dtype: Any,
    drop_zeros: bool,
) -> Any:
    check_format(format)
    w = _weights(w)
    fixed = Geometry.forward(whole_shape(input_shape), w.shape, **geometry, x_name="input_shape")
    return matrix(fixed, w, transposed=transposed, format=format, index_dtype=index_dtype, drop_zeros=drop_zeros)


def check_format(format: str) -> None:
    """Raise unless `format` names a storage that the matrices come in."""
    if not isinstance(format, str):
        raise TypeError(f"format={format!r} must be a string")
    if format not in FORMATS:
        raise ValueError(f"format={format!r} must be one of {', '.join(map(repr, FORMATS))}")


def whole_shape(input_shape: Any) -> tuple[int, ...]:
    """`input_shape` as a tuple of sizes; an int is the one axis of a plain array."""
    sizes = ints("input_shape", input_shape)
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


# ---- the method --------------------------------------------------------------------------------------


class Sparse:
    """Method "sparse": products by the matrix of one batch item, which it keeps.

    Entries outside a window do not exist, so that non-finite samples reach exactly the outputs that hold them.
    """

    abreast: ClassVar[bool] = True

    def __init__(self, axes: tuple[Axis, ...], w: Array) -> None:
        groups, c_in, c_out = w.shape[:3]
        size, outputs = (math.prod(getattr(axis, side) for axis in axes) for side in ("n", "m"))
        self._shape, self._spatial = (groups * c_out * outputs, groups * c_in * size), len(axes)
        self._entries, self._real = groups * c_in * c_out * products(axes), w.real.dtype
        self._size, self._channels = size, (groups, c_in)
        long, each = has_diagonals(axes, w.shape), products(axes) * max(c_in, c_out)
        index = 4 if each <= INT32_MAX else 8
        by_rows = 2 * index * (max(size, outputs) + each)  # columns there may be twice: see `_matrix_for`
        tables = LINE_TABLE * math.prod(axis.m for axis in axes[:-1]) if long else by_rows
        check_size(
            self._entries * w.itemsize + tables,
            f"method='sparse' keeps a matrix of shape {self._shape} with {self._entries} entries",
            "method='direct' needs none",
        )
        self._matrix: Diagonals | Rows
        if long:
            many = self._entries >= MANY * self._shape[1]
            crowded = many and self._is_crowded(w.itemsize, CROWD)
            self._matrix = Diagonals(axes, w, size + LINE // w.itemsize if crowded else size)
        else:
            self._matrix = Rows(axes, w)
        self._spread: Rows | None = None  # the same for planes further apart

    def forward(self, x: Array, bias: Array | None, y: Array, workers: int) -> None:
        """``y[o] = bias + sum x[i] * w[k]``."""
        self._run(x, bias, y, False, workers)

    def adjoint(self, y: Array, bias: Array | None, x: Array, workers: int) -> None:
        """``x[i] = bias + sum y[o] * conj(w[k])``."""
        self._run(y, bias, x, True, workers)

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

    def repeat_packed(
        self, direction: Direction, x: Array, y: Array, shape: tuple[int, ...], workers: SupportsIndex | None
    ) -> Callable[[Array], Array | None] | None:
        """For vectors side by side, their numbers and those of the results in the order of the matrix."""
        adjoint = direction == "adjoint"
        source, result = (y, x) if adjoint else (x, y)
        rows, columns = self._shape[:: -1 if adjoint else 1]
        vectors, results, count = source.reshape(-1, columns).T, result.reshape(-1, rows), source.size // columns
        in_order = np.may_share_memory(vectors, source) and np.may_share_memory(results, result)
        if not in_order or not _is_abreast(vectors):
            return None

        def product(v: Array) -> Array:
            sums, vectors = empty((rows, count), v.dtype), v.reshape(-1, columns).T
            self.product(vectors.view(self._real), sums.view(self._real), adjoint, resolve_workers(workers))
            return sums.T.reshape(shape)

        return product

    def _run(self, source: Array, bias: Array | None, result: Array, adjoint: bool, workers: int) -> None:
        """Multiply vectors that lie side by side, or are copied so, some at a time."""
        rows, columns = self._shape[:: -1 if adjoint else 1]
        x, y = source.reshape(-1, columns).T, result.reshape(-1, rows).T
        in_place = np.may_share_memory(y, result)
        if not in_place:
            y = np.empty((rows, y.shape[1]), y.dtype)
        count = max(x.shape[1], 1) if _is_abreast(x) and _is_abreast(y) else COPIED
        for first in range(0, x.shape[1], count):
            some = np.s_[:, first : first + count]
            vectors, sums = x[some], y[some]
            if not _is_abreast(vectors):
                vectors = np.empty(vectors.shape, x.dtype)
                _copyto(vectors, x[some], workers)
            if not _is_abreast(sums):
                sums = np.empty(sums.shape, y.dtype)
            self.product(vectors.view(self._real), sums.view(self._real), adjoint, workers)
            if not np.may_share_memory(sums, y):
                _copyto(y[some], sums, workers)
        if not in_place:
            result[...] = y.T.reshape(result.shape)
        add_bias(bias, result, self._spatial)

    def product(self, x: Array, y: Array, adjoint: bool, workers: int) -> None:
        """``y = matrix @ x``, or by the adjoint, of vectors side by side as real numbers."""
        matrix = self._matrix_for(x.shape[1] * x.itemsize)
        multiply = matrix.multiply_adjoint if adjoint else matrix.multiply
        if matrix.plane == self._size:
            multiply(x, y, workers)
            return
        with scratch() as memory:  # what belongs to the columns is copied to or from planes further apart
            columns, width = y if adjoint else x, x.shape[1]
            planes = memory.take("planes", (math.prod(self._channels), matrix.plane, width), x.dtype)
            spread, inside = planes.reshape(-1, width), planes[:, : self._size]
            columns = columns.reshape(inside.shape)
            if adjoint:
                multiply(x, spread, workers)
                columns[...] = inside
            else:
                inside[...] = columns
                multiply(spread, y, workers)

    def _matrix_for(self, size: int) -> Diagonals | Rows:
        """The matrix, for columns that meet so many bytes: those of all vectors."""
        matrix = self._matrix
        if isinstance(matrix, Diagonals) or self._entries < MANY_IN_ROWS * self._shape[1]:
            return matrix
        if matrix.mean * size > ROW_BYTES or not self._is_crowded(size, CROWD_OF_ROWS):
            return matrix
        spread = self._spread
        if spread is None:  # two threads may both make it at first: no harm
            # Further by a line, and by an odd number of columns: where these are lines, too, all planes have their own.
            spread = self._spread = matrix.spread(self._size + LINE // self._real.itemsize + 1)
        return spread

    def _is_crowded(self, size: int, crowd: int) -> bool:
        """Whether so many planes, or more, share few lines of the cache, as each column takes so many bytes."""
        samples: int = self._size
        return samples > 0 and bool(self._channels[1] * math.gcd(samples * size, WAY) >= crowd * WAY)


def has_diagonals(axes: tuple[Axis, ...], w_shape: tuple[int, ...]) -> bool:
    """Whether the method keeps a matrix with weights of this shape by its diagonals."""
    return are_long(axes, has_short_rows(axes, w_shape[1], w_shape[2]))


def _is_abreast(a: Array) -> bool:
    """Whether the vectors, columns of `a`, lie side by side."""
    return (a.shape[1] == 1 or a.strides[1] == a.itemsize) and a.strides[0] % a.real.itemsize == 0


def _copyto(to: Array, source: Array, workers: int) -> None:
    number = NUMBERS[to.itemsize]
    workers = team(workers, -(-len(to) // TOGETHER), COPY * to.size)
    copyto(to.view(number), source.view(number), TOGETHER, workers)
