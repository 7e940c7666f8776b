"""The sparse matrices against the definition, column by column, and what is particular to method "sparse"."""

import math
import tracemalloc
from collections import deque
from functools import partial

import numpy as np
import pytest
import reference
import scipy.sparse
from reference import DTYPES, integers, uniform

import cytconv
from cytconv import (
    _diagonals,
    _matrix,
    _memory,
    _rows,
    _runtime,
    _sparse,
    conv,
    conv_matrix,
    conv_transpose,
    conv_transpose_matrix,
)
from cytconv._geometry import Axis, Geometry

# input_shape, shape of w, the rest
CASES = {
    "one axis": ((5,), (3,), {}),
    "int shape": (5, (3,), {"stride": 2, "dilation": 3, "padding": 2}),
    "gaps": ((4,), (2,), {"stride": 5}),
    "dilated past the stride": ((3,), (3,), {"stride": 2, "dilation": 7}),
    "samples and taps out of reach": ((6,), (4,), {"stride": 2, "padding": (6,), "output_shape": 3}),
    "two axes": ((4, 5), (3, 2), {"stride": (2, 3), "padding": ((1, -2), 0), "output_padding": (1, 2)}),
    "batch": ((2, 3, 4), (3,), {"stride": 2}),
    "axes": ((3, 2, 4), (2, 3), {"axes": (2, 0), "stride": (2, 1), "dilation": (1, 2)}),
    "inner batch": ((3, 4, 2), (2, 3), {"axes": (0, 1)}),
    "channels first": ((3, 4), (3, 2, 3), {"channels": "first", "stride": 2}),
    "channels last": ((2, 3, 3, 2), (2, 3, 2, 2), {"channels": "last", "stride": (2, 1), "padding": 1}),
    "groups": ((4, 3, 2), (4, 3, 2, 2), {"channels": "first", "groups": 2, "stride": 2}),
    "depthwise last": ((2, 4, 3), (3, 2, 2), {"channels": "last", "groups": 3}),
    "batch and groups": ((2, 1, 4, 3), (4, 1, 2), {"channels": "first", "groups": 2, "dilation": 2}),
    "three axes": ((2, 3, 2), (2, 1, 3), {"stride": (1, 3, 2), "padding": (0, -1, 1)}),
    "four axes": ((2, 2, 1, 3), (2, 1, 2, 2), {"stride": 2, "dilation": (1, 1, 2, 1)}),
    "five axes": ((2, 1, 2, 1, 2), (1, 2, 2, 1, 2), {"stride": (1, 2, 1, 1, 2)}),
    "empty output": ((3,), (2,), {"padding": 2}),
    "no channel": ((0, 3), (0, 2, 2), {"channels": "first"}),
    "no batch": ((0, 3), (2,), {}),
}
cases = pytest.mark.parametrize(("input_shape", "w_shape", "kwargs"), CASES.values(), ids=CASES.keys())


def dense(w, input_shape, **kwargs):
    """The matrix by the definition: column j is the image of the j-th unit vector."""
    shape = (input_shape,) if isinstance(input_shape, int) else input_shape
    units = np.eye(math.prod(shape)).reshape(math.prod(shape), *shape)
    like = reference.conv_transpose(np.zeros(shape), w, **kwargs)
    columns = [reference.conv_transpose(unit, w, **kwargs).ravel() for unit in units]
    return np.stack(columns, axis=1) if columns else np.zeros((like.size, 0))


def assert_canonical(matrix):
    """Sorted and free of duplicates: found afresh, and flagged."""
    assert matrix.has_sorted_indices
    assert matrix.has_canonical_format
    afresh = type(matrix)((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    assert afresh.has_sorted_indices
    assert afresh.has_canonical_format


# ---- the numbers -------------------------------------------------------------------------------------


@cases
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_definition(rng, input_shape, w_shape, kwargs, dtype):
    w = integers(rng, w_shape, dtype)
    matrix = conv_transpose_matrix(w, input_shape, **kwargs)
    assert isinstance(matrix, scipy.sparse.csr_array)
    assert matrix.dtype == dtype
    np.testing.assert_array_equal(matrix.toarray(), dense(w, input_shape, **kwargs))
    assert_canonical(matrix)


@cases
def test_function(rng, input_shape, w_shape, kwargs):
    w = integers(rng, w_shape, np.float64)
    x = integers(rng, input_shape, np.float64)
    matrix = conv_transpose_matrix(w, input_shape, **kwargs)
    np.testing.assert_array_equal(matrix @ x.ravel(), conv_transpose(x, w, **kwargs).ravel())


@cases
def test_transpose(rng, input_shape, w_shape, kwargs):
    w = integers(rng, w_shape, np.complex128)
    matrix = conv_transpose_matrix(w, input_shape, **kwargs)
    transposed = conv_matrix(w, input_shape, **kwargs)
    assert isinstance(transposed, scipy.sparse.csr_array)
    assert_canonical(transposed)
    expected = matrix.T.tocsr()
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(transposed, name), getattr(expected, name))
    assert transposed.shape == expected.shape


def test_conv(rng):
    w = integers(rng, (4, 3, 3, 2), np.complex128)
    kwargs = {"channels": "first", "groups": 2, "stride": 2, "padding": ((1, 0), (0, 1)), "dilation": (1, 2)}
    y = integers(rng, (2, 6, 8, 9), np.complex128)
    x = conv(y, w, **kwargs)
    matrix = conv_matrix(w, x.shape, output_shape=y.shape[-2:], **kwargs)
    np.testing.assert_array_equal(matrix @ y.ravel(), x.ravel())


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(rng, dtype):
    w = integers(rng, (3, 2), dtype)
    matrix = conv_transpose_matrix(w.astype(w.dtype.newbyteorder()), (2, 3))
    assert matrix.dtype == dtype
    assert matrix.dtype.isnative
    np.testing.assert_array_equal(matrix.toarray(), dense(w, (2, 3)))


def test_half_becomes_single():
    matrix = conv_transpose_matrix(np.array([1, 2], np.float16), 3)
    assert matrix.dtype == np.float32


def test_layouts_of_w(rng):
    w = integers(rng, (4, 6), np.float64)
    expected = conv_transpose_matrix(w, (2, 3)).toarray()
    backwards = w[::-1, ::-1].copy()[::-1, ::-1]
    frozen = w.copy()
    frozen.flags.writeable = False
    for same in (np.asfortranarray(w), backwards, frozen, w.tolist()):
        np.testing.assert_array_equal(conv_transpose_matrix(same, (2, 3)).toarray(), expected)


def test_does_not_share_w():
    w = np.ones(1)
    matrix = conv_transpose_matrix(w, 1)
    w[0] = 7
    assert matrix[0, 0] == 1


# ---- the structure -----------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [conv_transpose_matrix, conv_matrix])
@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr"])
def test_formats(rng, build, format):
    w = integers(rng, (2, 2, 3), np.float64)
    matrix = build(w, (2, 4), channels="first", stride=2, format=format)
    assert isinstance(matrix, getattr(scipy.sparse, f"{format}_array"))
    assert matrix.has_canonical_format
    expected = dense(w, (2, 4), channels="first", stride=2)
    np.testing.assert_array_equal(matrix.toarray(), expected if build is conv_transpose_matrix else expected.T)


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
def test_zero_weights_are_stored(format):
    matrix = conv_transpose_matrix(np.zeros((2, 3)), (4, 5), format=format)
    assert matrix.nnz == 2 * 3 * 4 * 5
    assert conv_matrix(np.zeros((2, 3)), (4, 5), format=format).nnz == 2 * 3 * 4 * 5


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr"])
@pytest.mark.parametrize(("limit", "index"), [(2**31 - 1, np.int32), (40, np.int32), (39, np.int64)])
def test_index_type(monkeypatch, rng, format, limit, index):
    """Whatever is the largest of rows, columns and entries decides; here it is the 40 entries."""
    monkeypatch.setattr(_matrix, "INT32_MAX", limit)
    w = integers(rng, (2, 2), np.float64)
    matrix = conv_transpose_matrix(w, (2, 5), stride=1, format=format)
    assert conv_transpose_matrix(w, (2, 5)).nnz == 40
    indices = matrix.coords if format == "coo" else (matrix.indices, matrix.indptr)
    assert {a.dtype for a in indices} == {np.dtype(index)}
    np.testing.assert_array_equal(matrix.toarray(), dense(w, (2, 5)))


def test_int64_by_columns():
    """A real matrix that is too wide for int32 indices, of few entries."""
    matrix = conv_transpose_matrix(np.ones(1), 2**31, padding=2**30, output_shape=3)
    assert matrix.shape == (3, 2**31)
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int64
    np.testing.assert_array_equal(matrix.indices, 2**30 + np.arange(3))


@pytest.mark.parametrize(("task", "small"), [(1, 0), (1, 10**6), (5, 20), (10**6, 10**6)])
@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr"])
def test_tasks(monkeypatch, rng, task, small, format):
    """However the fill is cut, and whatever is copied instead of computed, the matrix is the same."""
    monkeypatch.setattr(_matrix, "TASK", task)
    monkeypatch.setattr(_matrix, "SMALL", small)
    for input_shape, w_shape, kwargs in CASES.values():
        w = integers(rng, w_shape, np.float64)
        matrix = conv_transpose_matrix(w, input_shape, format=format, **kwargs)
        np.testing.assert_array_equal(matrix.toarray(), dense(w, input_shape, **kwargs))
        transposed = conv_matrix(w, input_shape, format=format, **kwargs)
        np.testing.assert_array_equal(transposed.toarray(), matrix.toarray().T)
        if format != "coo":
            assert_canonical(matrix)
            assert_canonical(transposed)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_geometries(rng, dtype, transposed):
    """Every number of every kind of axis, many of them cut to a window."""
    for _ in range(60):
        ndim = rng.integers(1, 4)
        kernel, stride, dilation = (rng.integers(1, high, ndim).tolist() for high in (5, 5, 4))
        shape, groups = rng.integers(1, 8, ndim).tolist(), int(rng.integers(1, 3))
        channels = [None, "first", "last"][rng.integers(3)]
        kwargs = {"stride": stride, "dilation": dilation, "channels": channels}
        kwargs["padding"] = rng.integers(-2, 4, (ndim, 2)).tolist()
        kwargs["output_shape"] = rng.integers(0, 16, ndim).tolist()
        w_shape = kernel
        if channels is not None:
            kwargs["groups"] = groups
            c_in, c_out = rng.integers(1, 4, 2).tolist()
            w_shape = [groups * c_in, c_out, *kernel]
            shape = [groups * c_in, *shape] if channels == "first" else [*shape, groups * c_in]
        w = integers(rng, w_shape, dtype)
        build = conv_matrix if transposed else conv_transpose_matrix
        expected = dense(w, shape, **kwargs)
        for format in ("csr", "csc", "coo", "bsr"):
            matrix = build(w, shape, format=format, **kwargs)
            np.testing.assert_array_equal(matrix.toarray(), expected.T if transposed else expected)
            assert matrix.has_canonical_format


@pytest.mark.skipif(_memory.physical() is None, reason="the system does not say how much memory there is")
def test_phases_are_counted():
    """One entry, but more phases than would fit."""
    with pytest.raises(MemoryError, match="1 entries: its"):
        conv_transpose_matrix(np.ones(1), 1, stride=2**60, output_shape=2**50, format="coo")


def test_blocks_are_channels(rng):
    w = integers(rng, (6, 2, 3, 2), np.float64)
    kwargs = {"channels": "last", "groups": 2, "stride": 2, "format": "bsr"}
    assert conv_transpose_matrix(w, (3, 4, 6), **kwargs).blocksize == (2, 3)
    assert conv_matrix(w, (3, 4, 6), **kwargs).blocksize == (3, 2)


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr"])
def test_drop_zeros(format):
    w = np.array([[1.0, 0.0], [0.0, 2.0]])
    matrix = conv_transpose_matrix(w, (3, 3), stride=2, format=format, drop_zeros=True)
    if format != "bsr":  # which drops blocks
        assert matrix.nnz == 2 * 9
    kept = conv_transpose_matrix(w, (3, 3), stride=2)
    assert kept.nnz == 4 * 9
    np.testing.assert_array_equal(matrix.toarray(), kept.toarray())


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr"])
@pytest.mark.parametrize("index", [np.int32, np.int64, "int64", "i4"])
def test_index_dtype(rng, format, index):
    w = integers(rng, (2, 3, 2), np.float64)
    matrix = conv_transpose_matrix(w, (4, 2), channels="last", format=format, index_dtype=index)
    indices = matrix.coords if format == "coo" else (matrix.indices, matrix.indptr)
    assert {a.dtype for a in indices} == {np.dtype(index)}
    np.testing.assert_array_equal(matrix.toarray(), dense(w, (4, 2), channels="last"))


def test_index_dtype_too_small():
    with pytest.raises(
        ValueError, match=r"index_dtype=.*int32.* must hold the largest of rows, columns and entries, 2147"
    ):
        conv_transpose_matrix(np.ones(1), 2**31, padding=2**30, output_shape=3, index_dtype=np.int32)


@pytest.mark.parametrize(("index", "error"), [(np.int16, ValueError), ("f8", ValueError), ("indices", TypeError)])
def test_index_dtype_errors(index, error):
    with pytest.raises(error, match=r"index_dtype=.* must be None, int32 or int64"):
        conv_transpose_matrix(np.ones(1), 3, index_dtype=index)


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
@pytest.mark.parametrize(
    ("w_shape", "input_shape", "kwargs"),
    [
        ((5, 5), (200, 200), {}),
        ((16, 16, 3, 3), (16, 24, 24), {"channels": "first", "stride": 2}),
        ((9,), 10**5, {}),
        ((1, 1), (300, 300), {"stride": 7}),
    ],
)
def test_memory(w_shape, input_shape, kwargs, format):
    """At most a tenth beyond the result."""
    w = np.ones(w_shape)
    tracemalloc.start()
    try:
        matrix = conv_transpose_matrix(w, input_shape, format=format, **kwargs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    arrays = (matrix.data, *matrix.coords) if format == "coo" else (matrix.data, matrix.indices, matrix.indptr)
    assert peak <= 1.1 * sum(a.nbytes for a in arrays) + 2**16


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr"])
@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
def test_memory_is_used_again(monkeypatch, rng, format, index_dtype):
    """All at once, when the last of the arrays is gone; to scipy, each is an array of its own."""
    monkeypatch.setattr(_memory, "LEAST", 1000)
    monkeypatch.setattr(_memory, "_spare", deque())
    build = partial(
        conv_transpose_matrix, input_shape=(3, 4, 5), stride=2, channels="last", format=format, index_dtype=index_dtype
    )
    w = [integers(rng, (5, 3, 3, 3), np.float32) for _ in range(3)]
    matrix = build(w[0])
    expected, where, data = matrix.toarray(), matrix.data.ctypes.data, matrix.data
    kept, transpose = data.copy(), matrix.T
    assert np.shares_memory(transpose.data, data) == (format != "bsr")
    del matrix, transpose
    other = build(w[1])  # while the first numbers are in use
    assert not np.shares_memory(other.data, data)
    np.testing.assert_array_equal(data, kept)
    del data
    again = build(w[0])
    assert again.data.ctypes.data == where
    np.testing.assert_array_equal(again.toarray(), expected)
    np.testing.assert_array_equal(other.toarray(), build(w[1]).toarray())


@pytest.mark.parametrize(
    ("n", "stride", "dilation", "taps", "expected"),
    [
        (1, 2**40, 1, 3, [[1], [2], [3]]),
        (3, 1, 2**40, 1, np.eye(3)),
        (2, 2**40, 2**40, 2, [[1, 0], [0, 0], [0, 0]]),
    ],
)
def test_far_apart(n, stride, dilation, taps, expected):
    """Work follows the samples and taps there are."""
    w = np.arange(1.0, taps + 1)
    matrix = conv_transpose_matrix(w, n, stride=stride, dilation=dilation, output_shape=3)
    np.testing.assert_array_equal(matrix.toarray(), expected)


# ---- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [conv_transpose_matrix, conv_matrix])
class TestErrors:
    @pytest.mark.parametrize("format", ["dok", "dia", "", "CSR"])
    def test_format(self, build, format):
        with pytest.raises(ValueError, match=f"format='{format}' must be one of 'csr', 'csc', 'coo', 'bsr'"):
            build(np.ones(2), 3, format=format)

    def test_format_type(self, build):
        with pytest.raises(TypeError, match="format=None must be a string"):
            build(np.ones(2), 3, format=None)

    @pytest.mark.parametrize("dtype", [np.int64, bool, object, np.longdouble, "U3"])
    def test_dtype(self, build, dtype):
        with pytest.raises(TypeError, match=r"w of .* must be float16, float32, float64, complex64 or complex128"):
            build(np.ones(2).astype(dtype), 3)

    def test_input_shape_type(self, build):
        with pytest.raises(TypeError, match="input_shape"):
            build(np.ones(2), 3.0)

    def test_negative(self, build):
        with pytest.raises(ValueError, match=r"input_shape=\(-1, 3\) must have no negative size"):
            build(np.ones(2), (-1, 3))

    @pytest.mark.parametrize("input_shape", [0, (), (3, 0)])
    def test_input_shape(self, build, input_shape):
        with pytest.raises(ValueError, match="input_shape of shape"):
            build(np.ones(2), input_shape)

    def test_channels(self, build):
        with pytest.raises(ValueError, match=r"input_shape of shape .* has 3 channels on axis 0"):
            build(np.ones((2, 2, 2)), (3, 3), channels="first")

    def test_past_the_address_space(self, build):
        with pytest.raises(ValueError, match=r"entries: its .* bytes must fit the address space"):
            build(np.ones(9), 2**58, padding=4)

    @pytest.mark.skipif(_memory.physical() is None, reason="the system does not say how much memory there is")
    @pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr"])
    def test_too_large_for_memory(self, build, format):
        with pytest.raises(MemoryError, match=r"entries: its .* GiB are more than .*ConvTranspose"):
            build(np.ones(9), 2**50, padding=4, format=format)


# ---- the method --------------------------------------------------------------------------------------


@pytest.fixture(params=["rows", "columns", "diagonals"])
def kept(request, monkeypatch):
    """The way in which the method keeps its matrix, whatever that is like."""
    monkeypatch.setattr(_sparse, "has_diagonals", lambda *_: request.param == "diagonals")
    monkeypatch.setattr(_rows, "has_short_rows", lambda *_: request.param == "columns")


@cases
@pytest.mark.parametrize("rows", [2, 64])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("kept")
def test_method(monkeypatch, rng, input_shape, w_shape, kwargs, rows, dtype):
    """All readings, exact, whatever the way in which the matrix is kept."""
    monkeypatch.setattr(_diagonals, "ROWS", dict.fromkeys(_diagonals.ROWS, rows))
    shape = (input_shape,) if isinstance(input_shape, int) else input_shape
    x, w = integers(rng, shape, dtype), integers(rng, w_shape, dtype)
    expected = reference.conv_transpose(x, w, **kwargs)
    y = integers(rng, expected.shape, dtype)
    np.testing.assert_array_equal(conv_transpose(x, w, method="sparse", **kwargs), expected)
    options = {key: value for key, value in kwargs.items() if key not in ("output_padding", "output_shape")}
    samples = tuple(axis.n for axis in Geometry.forward(shape, w_shape, **kwargs).axes)
    np.testing.assert_array_equal(
        cytconv.conv_transpose_adjoint(y, w, input_shape=samples, method="sparse", **options),
        reference.conv_transpose_adjoint(y, w, input_shape=samples, **options),
    )
    kernel_shape = w_shape[2 if "channels" in kwargs else 0 :]
    np.testing.assert_array_equal(
        cytconv.conv_transpose_weight_adjoint(x, y, kernel_shape=kernel_shape, method="sparse", **options),
        reference.conv_transpose_weight_adjoint(x, y, kernel_shape=kernel_shape, **options),
    )


@pytest.mark.parametrize(
    ("axis", "long"),
    [
        (Axis(400, 9, 808, stride=2), True),
        (Axis(40, 3, 42), True),  # 38 rows of three taps, and two of one and of two
        (Axis(40, 30, 69), False),  # most rows meet other taps than the one before
        (Axis(400, 1, 4, low=400), False),  # without entries
        (Axis(10**12, 9, 10**12), True),  # no row by itself
        (Axis(10**4, 9, 10**12, stride=10**8), False),
    ],
)
def test_are_long(axis, long):
    assert _diagonals.are_long((Axis(3, 3, 5), axis), False) == long
    if axis.m > 1000:
        return
    assert type(_sparse.Sparse((axis,), np.ones((1, 1, 1, axis.taps)))._matrix).__name__ == (
        "Diagonals" if long else "Rows"
    )


def test_are_long_counts_diagonals(rng):
    """As they are, without making them."""
    seen = set()
    for _ in range(300):
        n, taps, m, stride, dilation, low = rng.integers([1, 1, 1, 1, 1, -5], [200, 30, 400, 6, 4, 30]).tolist()
        axis = Axis(n, taps, m, stride, dilation, low)
        taps, rows = _diagonals._pieces(_matrix._spread(axis, 1), _diagonals.ROWS[8])[:, 4:].T
        for short_rows, least in ((False, _diagonals.LONG), (True, _diagonals.LONGER)):
            expected = (taps * rows).sum() >= least * taps.sum() > 0
            assert _diagonals.are_long((axis,), short_rows) == expected
            seen.add((short_rows, bool(expected)))
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("axis", "channels", "by_columns"),
    [
        (Axis(9, 3, 35, stride=4), (1, 1), True),  # no row has more than one entry
        (Axis(9, 3, 35, stride=4), (12, 1), False),  # three times as many columns as rows
        (Axis(9, 3, 67, stride=8), (1, 1), True),
        (Axis(9, 1, 65, stride=8), (1, 1), False),  # as many rows with entries as columns
        (Axis(9, 60, 92, stride=4), (1, 1), True),  # rows of six entries in the mean
        (Axis(30, 160, 276, stride=4), (1, 1), False),  # or of seventeen
        (Axis(9, 3, 35, stride=4), (1, 2**14), False),  # results that no cache holds
        (Axis(9, 2, 10), (1, 1), False),
    ],
)
def test_has_short_rows(rng, axis, channels, by_columns):
    assert _rows.has_short_rows((axis,), *channels) == by_columns
    kept = _rows.Rows((axis,), uniform(rng, (1, *channels, axis.taps), np.float64))
    reached = np.unique([i * axis.stride + k for i in range(axis.n) for k in range(axis.taps)]).size
    assert kept._size[0] == (channels[0] * axis.n if by_columns else channels[1] * reached)


@pytest.mark.skipif(_memory.physical() is None, reason="the system does not say how much memory there is")
@pytest.mark.usefixtures("kept")
def test_method_too_large_for_memory():
    for axes in [(Axis(2**50, 9, 2**50),), (Axis(3, 3, 2**50, stride=2**49), Axis(100, 3, 102))]:
        with pytest.raises(MemoryError, match=r"entries: its .* GiB are more than .*method='direct' needs none"):
            _sparse.Sparse(axes, np.ones((1, 1, 1, *(axis.taps for axis in axes))))


def test_method_with_int64_indices(monkeypatch, rng):
    w, x = uniform(rng, (3, 2), np.float64), uniform(rng, (2, 4, 5), np.float64)
    expected = conv_transpose(x, w, stride=2, method="sparse")
    monkeypatch.setattr(_matrix, "INT32_MAX", 0)
    np.testing.assert_array_equal(conv_transpose(x, w, stride=2, method="sparse"), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.usefixtures("kept")
def test_exact_windows(bad):
    """One sample that is not finite reaches the outputs that hold it, in all three readings."""
    geometry = {"stride": 2, "dilation": 3, "padding": 1}
    x, w = np.zeros((2, 6)), np.array([1.0, 0.0, 2.0])
    held = reference.conv_transpose(np.arange(6) == 2, np.ones(3), **geometry) != 0
    x[1, 2] = bad
    y = conv_transpose(x, w, method="sparse", **geometry)
    np.testing.assert_array_equal(~np.isfinite(y), [np.zeros_like(held), held])

    y = np.zeros((2, held.size))
    y[0, 5] = bad
    held = reference.conv_transpose_adjoint(np.arange(y.shape[1]) == 5, np.ones(3), input_shape=6, **geometry) != 0
    x = cytconv.conv_transpose_adjoint(y, w, input_shape=6, method="sparse", **geometry)
    np.testing.assert_array_equal(~np.isfinite(x), [held, np.zeros_like(held)])

    x = np.zeros((2, 6))
    g = cytconv.conv_transpose_weight_adjoint(x, y, kernel_shape=3, method="sparse", **geometry)
    meets = [any(2 * i + 3 * k - 1 == 5 for i in range(6)) for k in range(3)]
    np.testing.assert_array_equal(~np.isfinite(g), meets)


# ---- its products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", [1, 2, 7, 8, 15, 17, 38, 95])
@pytest.mark.parametrize(
    ("workers", "together", "parts", "cut_row", "crowd"),
    [(1, 2**12, 1, 9, 0), (2, 5, 1, 0, 4), (2, 2**12, 3, 9, 0), (3, 1, 1, 0, 4), (7, 2, 1, 99, 0), (7, 2, 16, 9, 4)],
)
@pytest.mark.usefixtures("kept")
def test_products(monkeypatch, rng, dtype, vectors, workers, together, parts, cut_row, crowd):
    """Of any number of vectors, by matrices cut in any way, with rows and columns that have no entry."""
    monkeypatch.setattr(_rows, "TOGETHER", together)
    monkeypatch.setattr(_rows, "GAIN", 1e-9)
    monkeypatch.setattr(_rows, "NARROW", 1)
    monkeypatch.setattr(_rows, "CUT_ROW", cut_row)  # workers take some channels, if small, or some columns
    monkeypatch.setattr(_rows, "FORK", 0)
    monkeypatch.setattr(_rows, "BAND", np.inf)
    monkeypatch.setattr(_diagonals, "BLOCK", np.inf)
    for module in (_rows, _diagonals):
        monkeypatch.setattr(module, "parts_of", lambda *_: parts)
    monkeypatch.setattr(_diagonals, "ROWS", dict.fromkeys(_diagonals.ROWS, min(3 + together, 64)))
    for name, value in {"CROWD": crowd, "CROWD_OF_ROWS": crowd, "MANY": 0, "MANY_IN_ROWS": 0}.items():
        monkeypatch.setattr(_sparse, name, value)
    monkeypatch.setattr(_runtime, "WORK_PER_THREAD", 1)
    for w_shape, shape, kwargs in (
        ((3, 2), (4, 5), {"stride": (1, 3)}),
        ((2, 3, 2), (2, 6), {"channels": "first", "stride": 3, "dilation": 2}),
        ((3,), (9,), {"stride": 2, "padding": (4,), "output_shape": 4}),
        ((2, 3), (3, 3), {"padding": 5, "output_shape": 2}),
        ((9, 1, 3), (9, 7), {"channels": "first", "stride": 2}),
        ((10, 2, 2, 2), (10, 3, 4), {"channels": "first", "groups": 2, "padding": (0, 1)}),
        ((2, 1, 11), (2, 47), {"channels": "first", "stride": 2}),
        ((6, 1, 21), (6, 24), {"channels": "first"}),  # long rows of neighbours, channel by channel
        ((2, 1, 21), (2, 50), {"channels": "first", "dilation": 2}),  # and of others
    ):
        w = integers(rng, w_shape, dtype)
        operator = cytconv.ConvTranspose(w, shape, method="sparse", workers=workers, **kwargs)
        matrix = operator.tosparse().toarray()
        x, y = (integers(rng, (size, vectors), dtype) for size in matrix.shape[::-1])
        adjoint, transpose = operator.H, operator.T
        for lie in (
            np.ascontiguousarray,
            np.asfortranarray,
            spread_out,
            backwards,
        ):  # side by side, one by one, neither
            for sign in (1, -1):  # once more: the short way
                np.testing.assert_array_equal(operator @ lie(sign * x), matrix @ (sign * x))
                np.testing.assert_array_equal(adjoint @ lie(sign * y), matrix.conj().T @ (sign * y))
                np.testing.assert_array_equal(transpose @ lie(sign * y), matrix.T @ (sign * y))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", [1, 2, 3, 4, 8, 16, 95])
@pytest.mark.parametrize("parts", [1, 5])
@pytest.mark.usefixtures("kept")
def test_products_by_any_number_of_workers(monkeypatch, rng, dtype, vectors, parts):
    """The same bits: rows that two workers share are added up like any others, and parts do not depend on workers."""
    monkeypatch.setattr(_rows, "GAIN", 1e-9)
    monkeypatch.setattr(_rows, "NARROW", 1)
    monkeypatch.setattr(_rows, "BAND", np.inf)
    monkeypatch.setattr(_diagonals, "BLOCK", np.inf)
    for module in (_rows, _diagonals):
        monkeypatch.setattr(module, "parts_of", lambda *_: parts)
    monkeypatch.setattr(_runtime, "WORK_PER_THREAD", 1)
    monkeypatch.setattr(_rows, "TOGETHER", 7)
    for w_shape, shape, kwargs in (
        ((5, 4), (6, 7), {"stride": 2}),
        ((40,), (90,), {}),
        ((9,), (500,), {"stride": 2, "dilation": 3}),
        ((3, 2, 3, 3), (3, 6, 5), {"channels": "first"}),
    ):
        w = rng.standard_normal(w_shape).astype(dtype)
        one, *others = (cytconv.ConvTranspose(w, shape, method="sparse", workers=n, **kwargs) for n in (1, 2, 3, 7))
        x, y = (rng.standard_normal((size, vectors)).astype(dtype) for size in one.shape[::-1])
        for other in others:
            np.testing.assert_array_equal(other @ x, one @ x)
            np.testing.assert_array_equal(other.H @ y, one.H @ y)


def spread_out(a):
    """The same numbers, with others between them."""
    wide = np.full((2 * a.shape[0], 3 * a.shape[1]), np.nan, a.dtype)
    wide[::2, ::3] = a
    return wide[::2, ::3]


def backwards(a):
    return np.ascontiguousarray(a[::-1])[::-1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", [2, 3, 5, 6, 7, 13])
@pytest.mark.usefixtures("kept")
def test_products_of_vectors_that_overlap(rng, dtype, vectors):
    """Windows of one array, each a number further: from row to row it is as far as from one vector to the next."""
    operator = cytconv.ConvTranspose(integers(rng, (3,), dtype), 100, method="sparse")
    for transposed in (operator, operator.H):
        windows = np.lib.stride_tricks.sliding_window_view(
            integers(rng, (transposed.shape[1] + vectors - 1,), dtype), vectors
        )
        np.testing.assert_array_equal(transposed @ windows, transposed.tosparse() @ windows)


def test_planes_stay_within_the_index(monkeypatch):
    """Channels are not moved apart where their columns would no longer fit into 32 bits."""
    monkeypatch.setattr(_sparse, "MANY_IN_ROWS", 0)
    monkeypatch.setattr(_sparse, "ROW_BYTES", np.inf)
    channels = 2**21 - 1
    w = np.ones((channels, 1, 1), np.float32)
    geometry = Geometry.forward((channels, 1024), w.shape, channels="first", padding=[(0, 1023)])
    sparse = _sparse.Sparse(geometry.axes, geometry.split_w(w))
    assert sparse._is_crowded(4, _sparse.CROWD_OF_ROWS)
    _, _, indices, _ = sparse._matrix_for(4)._arrays
    assert indices.dtype == np.int32
    np.testing.assert_array_equal(indices, 1024 * np.arange(channels))


def test_indices_of_a_matrix_are_of_one_size():
    """Others would be read past their ends."""
    rows, ends, columns = (np.array(values, np.int32) for values in ([0, 1], [0, 1, 2], [0, 1]))
    compressed = _runtime.kernels(np.dtype(float)).CompressedRows
    with pytest.raises(ValueError, match="of one size"):
        compressed(rows.astype(np.int64), ends, columns, np.ones(2), 1, 2, (1, 2))
