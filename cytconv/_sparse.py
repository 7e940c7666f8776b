"""The relation as a sparse matrix: the public matrices, and method "sparse", which multiplies by one.

The entries come from `_matrix`.  Products run in parallel, on several vectors at a time: those by the adjoint too,
which needs no second matrix.  There, shares of the rows add up sums of their own, which are added up in the end; the
shares depend on the matrix alone, so that results are the same for every number of workers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._geometry import Axis, Channels, Geometry, Ints, Padding, _ints
from ._matrix import FORMATS, matrix
from ._runtime import team
from .kernels.matrix import ABREAST, multiply, multiply_adjoint

__all__ = ["Sparse", "check_format", "conv_matrix", "conv_transpose_matrix", "whole_shape"]

Array = NDArray[Any]

TOGETHER = 2**12  # rows of a product that are a task
ENTRY = 4  # multiplications in the time that an entry takes to read and multiply
SHARE = 2**16  # entries, at least, of a share of a product by the adjoint
MAX_SHARES = 64
MOST_SUMS = 4  # of all shares together, in columns of the matrix


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
    stride, padding, output_padding, output_shape, dilation, groups, channels, axes
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
    conv_matrix : The transpose.

    Notes
    -----
    Where a row begins and what is in it has a closed form, so that the arrays are filled in place, on as many threads
    as OpenMP would use, with no sort and no memory beside them but a table of the phases of each stride, in every
    format.  Only a "bsr" array without channels last is made from a "csr" array by scipy, and takes as much again.

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
    w, stride, padding, dilation, groups, channels, axes, format, index_dtype, drop_zeros
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
    ValueError, TypeError, MemoryError
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


# ---- the method --------------------------------------------------------------------------------------


class Sparse:
    """Method "sparse": products by the matrix of one batch item, which it keeps.

    Entries outside a window do not exist, so that non-finite samples reach exactly the outputs that hold them.
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
        self._shares: _Shares | None = None

    def forward(self, x: Array, bias: Array | None, y: Array, workers: int) -> None:
        """``y[o] = bias + sum x[i] * w[k]``."""
        rows, columns = self._matrix.shape
        vectors, result = _vectors(x, columns), _rows(y, rows)
        scratch = np.empty(columns * min(len(vectors), ABREAST), y.dtype)
        workers = team(workers, -(-rows // TOGETHER), ENTRY * self._matrix.nnz * len(vectors))
        multiply(*self._arrays(), vectors, result, scratch, TOGETHER, workers)
        _put(result, bias, y, self._spatial)

    def adjoint(self, y: Array, bias: Array | None, x: Array, workers: int) -> None:
        """``x[i] = bias + sum y[o] * conj(w[k])``."""
        rows, columns = self._matrix.shape
        if self._shares is None:  # two threads may both find them at first: no harm
            self._shares = _shares(self._matrix)
        table, size = self._shares
        vectors, result = _vectors(y, rows), _rows(x, columns)
        sums = np.empty(size * min(len(vectors), ABREAST), x.dtype)
        workers = team(workers, len(table), ENTRY * self._matrix.nnz * len(vectors))
        multiply_adjoint(*self._arrays(), table, vectors, result, sums, TOGETHER, workers)
        _put(result, bias, x, self._spatial)

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

    def _arrays(self) -> tuple[Array, Array, Array]:
        return self._matrix.indptr, self._matrix.indices, self._matrix.data


class _Shares(NamedTuple):
    """``(row, past the last, column, past the last, where its sums are)`` for each, and the size of all sums."""

    table: NDArray[np.intp]
    size: int


def _shares(matrix: Any) -> _Shares:
    """Cut a CSR array between rows into shares of about equal size, which know what columns they have.

    All shares of a narrow band have few columns; where each has all, they are few, so that adding up stays cheap.
    """
    count = max(min(matrix.nnz // SHARE, MAX_SHARES), 1)
    starts = np.arange(count, dtype=matrix.indptr.dtype) * (matrix.nnz // count)
    rows = np.append(np.searchsorted(matrix.indptr[:-1], starts), matrix.shape[0])
    rows[0] = 0
    parts = [matrix.indices[a:b] for a, b in pairwise(matrix.indptr[rows].tolist())]
    low = np.array([part.min(initial=matrix.shape[1]) for part in parts])
    high = np.array([part.max(initial=-1) + 1 for part in parts])
    while len(low) > 1 and np.maximum(high - low, 0).sum() > MOST_SUMS * matrix.shape[1]:  # join neighbours
        rows = np.append(rows[:-1:2], rows[-1])
        low, high = np.minimum.reduceat(low, range(0, len(low), 2)), np.maximum.reduceat(high, range(0, len(high), 2))
    low = np.minimum(low, high)  # of shares with no entry
    ends = np.cumsum(high - low)
    return _Shares(
        np.stack([rows[:-1], rows[1:], low, high, ends - (high - low)], axis=-1, dtype=np.intp), int(ends[-1])
    )


def _vectors(a: Array, size: int) -> Array:
    """An array as vectors of that size, one after the other in memory."""
    return np.ascontiguousarray(a.reshape(-1, size))


def _rows(a: Array, size: int) -> Array:
    """The same of an array to be written: `a` itself if it can be."""
    return a.reshape(-1, size) if a.flags.c_contiguous else np.empty((a.size // size, size), a.dtype)


def _put(vectors: Array, bias: Array | None, a: Array, spatial: int) -> None:
    """Write `vectors` to `a`, where they may be already, and add the bias."""
    if not a.flags.c_contiguous:
        a[...] = vectors.reshape(a.shape)
    if bias is not None:
        a += bias.reshape(*bias.shape, *(1,) * spatial)
