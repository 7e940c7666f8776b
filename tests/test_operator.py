"""`ConvTranspose` against its matrix, in scipy's solvers, and as a PyLops operator."""

import copy
import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import reference
from reference import DTYPES, integers, uniform
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, lsmr, lsqr, svds

import cytconv
from cytconv import ConvTranspose, conv_transpose, conv_transpose_adjoint, conv_transpose_matrix

METHODS = ["auto", "direct", "sparse"]

# shape of w, input_shape, the rest
CASES = {
    "plain": ((3, 2), (4, 5), {"stride": 2, "padding": ((1, 0), 0)}),
    "batch and axes": ((2, 3), (3, 2, 4), {"axes": (2, 0), "stride": (3, 1)}),
    "first": ((4, 2, 3), (2, 4, 5), {"channels": "first", "groups": 2, "stride": 2, "output_padding": 1}),
    "last": ((2, 3, 2, 2), (3, 4, 2), {"channels": "last", "dilation": (1, 2)}),
    "three axes": ((2, 1, 2), (3, 2, 2), {"stride": (1, 3, 2), "output_shape": (3, 4, 5)}),
}
cases = pytest.mark.parametrize(("w_shape", "input_shape", "kwargs"), CASES.values(), ids=CASES.keys())


def readings(operator, dense):
    """The four readings of an operator, each with the matrix it stands for."""
    return [
        (operator, dense),
        (operator.T, dense.T),
        (operator.H, dense.conj().T),
        (operator.T.H, dense.conj()),
        (operator.H.T, dense.conj()),
        (operator.T.T, dense),
        (operator.H.H, dense),
    ]


# ---- the numbers -------------------------------------------------------------------------------------


@cases
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_products(rng, w_shape, input_shape, kwargs, method, dtype):
    """All four readings, on real and complex vectors, one and several, from either side."""
    w = integers(rng, w_shape, dtype)
    operator = ConvTranspose(w, input_shape, method=method, **kwargs)
    dense = conv_transpose_matrix(w, input_shape, **kwargs).toarray()
    for reading, matrix in readings(operator, dense):
        rows, columns = matrix.shape
        assert isinstance(reading, LinearOperator)
        assert reading.shape == matrix.shape
        assert reading.dtype == dtype
        np.testing.assert_array_equal(reading.tosparse().toarray(), matrix)
        for vector in (np.float64, np.complex128):
            x, y = integers(rng, (columns, 3), vector), integers(rng, (rows, 3), vector)
            for one, several, given in [
                (reading.matvec, reading.matmat, x),
                (lambda v, a=matrix: a @ v, lambda v, a=reading: a @ v, x),
            ]:
                np.testing.assert_array_equal(one(given[:, 0]), matrix @ given[:, 0])
                np.testing.assert_array_equal(several(given), matrix @ given)
                np.testing.assert_array_equal(several(np.asfortranarray(given)), matrix @ given)
            np.testing.assert_array_equal(reading.rmatvec(y[:, 0]), matrix.conj().T @ y[:, 0])
            np.testing.assert_array_equal(reading.rmatmat(y), matrix.conj().T @ y)
            np.testing.assert_array_equal(y[:, 0] @ reading, y[:, 0] @ matrix)
            np.testing.assert_array_equal(y.T @ reading, y.T @ matrix)


@cases
def test_arrays(rng, w_shape, input_shape, kwargs):
    w, x = integers(rng, w_shape, np.float32), integers(rng, input_shape, np.float32)
    operator = ConvTranspose(w, input_shape, **kwargs)
    y = conv_transpose(x, w, **kwargs)
    assert (operator.dims, operator.dimsd) == (x.shape, y.shape)
    assert (operator.H.dims, operator.H.dimsd) == (y.shape, x.shape)
    np.testing.assert_array_equal(operator(x), y)
    assert operator(x).shape == y.shape
    np.testing.assert_array_equal(operator(np.asfortranarray(x)), y)
    np.testing.assert_array_equal(operator(x.tolist()), y)
    np.testing.assert_array_equal(operator(x.ravel()), y.ravel())
    back = operator.H(y)
    assert back.shape == x.shape
    np.testing.assert_array_equal(back.ravel(), operator.rmatvec(y.ravel()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("w_shape", "input_shape", "kwargs"),
    [
        ((3,), (6, 5), {"axes": 0}),
        ((3, 2), (4, 3, 5), {"axes": (0, 2), "stride": 2}),
        ((2, 3), (4, 3, 5), {"axes": (2, 1)}),
        ((2, 1, 3), (1, 6, 2), {"channels": "last"}),
        ((2, 3, 2, 3), (4, 5, 2), {"channels": "last", "stride": 2}),
        ((2, 1, 3), (3, 2, 6), {"channels": "first", "padding": 1}),
    ],
)
def test_again(rng, method, dtype, w_shape, input_shape, kwargs):
    """What a call has found out serves the next ones: with other numbers, whatever the axes, in any layout."""
    operator = ConvTranspose(integers(rng, w_shape, dtype), input_shape, method=method, **kwargs)
    for reading in (operator, operator.H, operator.T):
        matrix = reading.tosparse().toarray()
        for lie in (np.ascontiguousarray, np.asfortranarray):
            for _ in range(3):
                x = integers(rng, (matrix.shape[1], 4), dtype)
                expected = matrix @ x
                np.testing.assert_allclose(reading @ x[:, 0].copy(), expected[:, 0], atol=1e-4)
                np.testing.assert_allclose(reading @ lie(x), expected, atol=1e-4)
                array = lie(x[:, 1].reshape(reading.dims))
                np.testing.assert_allclose(reading(array).ravel(), expected[:, 1], atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("w_shape", "input_shape", "kwargs"),
    [
        ((3, 3), (16, 16), {"stride": 2}),
        ((5, 5), (64, 64), {}),
        ((1, 1, 1, 5), (1, 8, 7), {"channels": "first", "stride": 2}),
        ((20, 20, 3, 3), (20, 16, 16), {"channels": "first"}),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_numbers_again(rng, method, dtype, w_shape, input_shape, kwargs):
    """Numbers that are not finite, or whose sums are not, take the way that they take in a first call."""
    w = integers(rng, w_shape, dtype)
    operator = ConvTranspose(w, input_shape, method=method, **kwargs)
    for bad in (1, np.nan, -np.inf, np.finfo(dtype).max / 2, 1):
        first = ConvTranspose(w, input_shape, method=method, **kwargs)
        for reading, expected in ((operator, first), (operator.H, first.H), (operator.T, first.T)):
            v = np.ones(reading.shape[1], dtype)
            v[:2] = bad
            np.testing.assert_array_equal(reading @ v, expected @ v)
            np.testing.assert_array_equal(reading(v.reshape(reading.dims)), (expected @ v).reshape(reading.dimsd))


@pytest.mark.parametrize("method", METHODS)
def test_a_single_number(method):
    operator = ConvTranspose(np.array([1.0, 2.0, 3.0]), 1, method=method)
    column, row = np.array([[1.0], [2.0], [3.0]]), np.array([[1.0, 2.0, 3.0]])
    for _ in range(2):
        np.testing.assert_allclose(operator.matmat([[2.0]]), 2 * column)
        np.testing.assert_allclose(operator @ np.array([[2.0]]), 2 * column)
        np.testing.assert_allclose(operator.matvec([[2.0]]), 2 * column)
        np.testing.assert_allclose(operator.T.rmatmat([[2.0]]), 2 * column)
        np.testing.assert_allclose(operator.rmatmat(row.T), [[14.0]])
        np.testing.assert_allclose(operator.H @ row.T, [[14.0]])


def test_adjoint_of_arrays(rng):
    w, y = integers(rng, (3, 2), np.complex128), integers(rng, (9, 7), np.complex128)
    operator = ConvTranspose(w, (4, 3), stride=(2, 3), output_shape=y.shape)
    expected = conv_transpose_adjoint(y, w, input_shape=(4, 3), stride=(2, 3))
    np.testing.assert_array_equal(operator.H(y), expected)
    np.testing.assert_array_equal(operator.T(y), conv_transpose_adjoint(y, w.conj(), input_shape=(4, 3), stride=(2, 3)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("vector", [*DTYPES, np.float16, np.int8, np.int64, np.uint64, bool])
@pytest.mark.parametrize("weights", [*DTYPES, np.float16])
def test_dtypes(rng, method, weights, vector):
    """Computed in the result type; integers count as the operator's own type, half precision as single."""
    w = integers(rng, (3,), weights)
    x = integers(rng, (5, 2), np.float64).real.clip(0).astype(vector)
    operator = ConvTranspose(w, 5, stride=2, method=method)
    own = np.dtype(np.float32 if weights == np.float16 else weights)
    expected = own if np.dtype(vector).kind in "biu" else np.result_type(own, vector)
    assert operator.dtype == own
    for product in (operator @ x, operator.T.T @ x, operator.H.T.H.T @ x):
        assert product.dtype == expected
        np.testing.assert_array_equal(product, reference.conv_transpose(x.T, w, stride=2).T)


def test_computes_in_the_wider_type():
    """float32 weights and a float64 vector are multiplied in float64."""
    third = np.float32(1) / np.float32(3)
    assert (ConvTranspose([third], 1) @ [np.pi])[0] == np.float64(third) * np.pi


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_vectors_of_any_kind(rng):
    """Strided, swapped, frozen, a column, a matrix object."""
    w, x = integers(rng, (3, 2), np.float64), integers(rng, 12, np.complex128)
    operator = ConvTranspose(w, (3, 4), stride=2)
    y = operator.matvec(x)
    frozen = x.copy()
    frozen.flags.writeable = False
    strided, backwards = np.repeat(x, 3)[::3], x[::-1].copy()[::-1]
    for same in (frozen, strided, backwards, x.astype(">c16"), list(x)):
        np.testing.assert_array_equal(operator.matvec(same), y)
    np.testing.assert_array_equal(operator @ x[:, None], y[:, None])
    np.testing.assert_array_equal(operator._matvec(x[:, None]).ravel(), y)
    columns = operator.matmat(np.asmatrix(np.stack([x, 2 * x], axis=1)))
    np.testing.assert_array_equal(columns, np.stack([y, 2 * y], axis=1))


def test_batches_of_vectors(rng):
    """What scipy 1.18 hands over: vectors of shape (..., N), matrices of shape (..., N, K)."""
    operator = ConvTranspose(integers(rng, (3,), np.complex128), 5, stride=2)
    matrix = operator.tosparse().toarray()
    x, y = integers(rng, (2, 3, 5), np.float64), integers(rng, (2, 3, 11), np.complex128)
    np.testing.assert_array_equal(operator._matvec(x), x @ matrix.T)
    np.testing.assert_array_equal(operator._rmatvec(y), y @ matrix.conj())
    np.testing.assert_array_equal(operator._matmat(x.swapaxes(1, 2)), matrix @ x.swapaxes(1, 2))
    np.testing.assert_array_equal(operator._rmatmat(y.swapaxes(1, 2)), matrix.conj().T @ y.swapaxes(1, 2))


def test_columns_are_one_call(monkeypatch, rng):
    """Neither columns nor the two parts of a complex vector are a loop."""
    calls = []
    forward = cytconv._sparse.Sparse.forward
    monkeypatch.setattr(
        cytconv._sparse.Sparse, "forward", lambda self, x, *rest: (calls.append(x.shape), forward(self, x, *rest))
    )
    operator = ConvTranspose(np.ones(2), (3, 5), method="sparse")
    operator @ integers(rng, (15, 4), np.complex128)
    assert calls == [(4, 2, 3, 1, 1, 5)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("w_shape", "input_shape", "kwargs"),
    [((0, 2, 3), (0, 4), {"channels": "first"}), ((2,), (0, 4), {}), ((2,), (3,), {"padding": 2})],
)
def test_empty(method, w_shape, input_shape, kwargs):
    operator = ConvTranspose(np.ones(w_shape), input_shape, method=method, **kwargs)
    rows, columns = operator.shape
    np.testing.assert_array_equal(operator @ np.ones(columns), np.zeros(rows))
    np.testing.assert_array_equal(operator.H @ np.ones((rows, 2)), np.zeros((columns, 2)))
    np.testing.assert_array_equal(operator.matmat(np.ones((columns, 0))), np.zeros((rows, 0)))


# ---- in scipy ----------------------------------------------------------------------------------------


@pytest.fixture(params=["direct", "sparse", "fft"])
def method(request):
    return request.param


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("solve", [lsqr, lsmr])
def test_least_squares(rng, method, dtype, solve):
    w, x = uniform(rng, (3, 3), dtype), uniform(rng, (5, 6), dtype)
    operator = ConvTranspose(w, x.shape, stride=2, method=method)
    b = operator(x).ravel() + 0.1 * uniform(rng, operator.shape[0], dtype)
    solution = solve(operator, b, atol=1e-12, btol=1e-12)[0]
    expected = np.linalg.lstsq(operator.tosparse().toarray(), b)[0]
    np.testing.assert_allclose(solution, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_normal_equations(rng, method, dtype):
    w, x = uniform(rng, (3, 3), dtype), uniform(rng, 30, dtype)
    operator = ConvTranspose(w, (5, 6), stride=2, method=method)
    normal = operator.H @ operator
    solution, failed = cg(normal, operator.rmatvec(operator @ x), rtol=1e-12)
    assert not failed
    np.testing.assert_allclose(solution, x, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize(("solver", "tol"), [("arpack", 0), ("lobpcg", 1e-6)])
@pytest.mark.filterwarnings("ignore:Exited:UserWarning")  # lobpcg, one step short of its own tolerance
def test_singular_values(rng, method, dtype, solver, tol):
    w = uniform(rng, (2, 3, 3, 3), dtype)  # every axis overlaps: arpack may miss repeated values
    operator = ConvTranspose(w, (2, 5, 6), channels="first", stride=2, method=method)
    options = {"v0": uniform(rng, min(operator.shape), dtype), "tol": tol, "maxiter": 500}
    found = np.sort(svds(operator, k=3, solver=solver, return_singular_vectors=False, **options))
    expected = np.linalg.svd(operator.tosparse().toarray(), compute_uv=False)[:3][::-1]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_composition(rng, method):
    w, v = integers(rng, (3,), np.complex128), integers(rng, (2,), np.float64)
    a = ConvTranspose(w, 4, stride=2, method=method)
    b = ConvTranspose(v, 9, method=method)
    both = 2j * (b @ a) + b @ a
    matrix = (1 + 2j) * (b.tosparse() @ a.tosparse()).toarray()
    np.testing.assert_allclose(both @ np.eye(4), matrix, atol=1e-12)  # "fft" rounds
    np.testing.assert_allclose(both.H @ np.eye(10), matrix.conj().T, atol=1e-12)
    assert aslinearoperator(a) is a


def test_shares_the_weights(rng):
    a = ConvTranspose(integers(rng, (3,), np.complex128), 4)
    assert a.H.H is a
    assert a.T.T is a
    assert a.H.T.H.T is a
    for light in (a.T, a.H, a.T.H):
        assert not [v for v in vars(light).values() if isinstance(v, np.ndarray)]


# ---- in PyLops ---------------------------------------------------------------------------------------


@cases
@pytest.mark.parametrize("complexflag", range(4))
@pytest.mark.parametrize("dtype", DTYPES)
def test_pylops_dottest(rng, w_shape, input_shape, kwargs, complexflag, dtype, method):
    pylops = pytest.importorskip("pylops")
    dottest = pytest.importorskip("pylops.utils").dottest
    operator = pylops.aslinearoperator(
        ConvTranspose(uniform(rng, w_shape, dtype), input_shape, method=method, **kwargs)
    )
    np.random.seed(7)  # noqa: NPY002  (dottest draws from it)
    rtol = 1e3 * np.finfo(dtype).eps
    for reading in (operator, operator.H, operator.T):
        assert dottest(reading, complexflag=complexflag, rtol=rtol, atol=rtol)


def test_pylops_takes_it_as_it_is(rng):
    pylops = pytest.importorskip("pylops")
    w, x = integers(rng, (2, 2), np.float64), integers(rng, (3, 4), np.float64)
    a = ConvTranspose(w, x.shape, stride=2)
    operator = pylops.aslinearoperator(a)
    assert (operator.dims, operator.dimsd, operator.name) == (a.dims, a.dimsd, "ConvTranspose")
    assert operator.clinear
    assert not operator.explicit
    np.testing.assert_array_equal(operator @ x, conv_transpose(x, w, stride=2))
    np.testing.assert_array_equal(operator.todense(), a.tosparse().toarray())
    np.testing.assert_array_equal((operator.H @ operator).matvec(x.ravel()), a.rmatvec(a.matvec(x.ravel())))
    np.testing.assert_allclose(operator / (operator @ x).ravel(), x.ravel(), atol=1e-6)


# ---- the object --------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
@cases
def test_copies(rng, duplicate, w_shape, input_shape, kwargs, method):
    a = ConvTranspose(integers(rng, w_shape, np.complex64), input_shape, method=method, workers=1, **kwargs)
    x = integers(rng, a.shape[1], np.complex64)
    a @ x
    for original in (a, a.T, a.H, a.T.H):
        again = duplicate(original)
        assert repr(again) == repr(original)
        assert again.dtype == original.dtype
        assert (again.dims, again.dimsd, again.name) == (original.dims, original.dimsd, original.name)
        x = integers(rng, original.shape[1], np.complex64)
        np.testing.assert_array_equal(again @ x, original @ x)
    assert duplicate(a).workers == 1


def test_later_changes_to_w_are_not_seen(rng, method):
    w, x = np.ones((2, 2)), np.ones(9)
    a = ConvTranspose(w, (3, 3), method=method)
    expected = conv_transpose(np.ones((3, 3)), np.ones((2, 2))).ravel()
    w[:] = 5
    np.testing.assert_array_equal(a @ x, expected)
    w[:] = 7
    np.testing.assert_array_equal(a @ x, expected)
    np.testing.assert_array_equal(a @ x.astype(np.float32), expected)
    np.testing.assert_array_equal(a.tosparse() @ x, expected)


def test_prepares_once_for_each_type(monkeypatch, rng):
    made = []
    prepare = cytconv._sparse.Sparse.__init__
    monkeypatch.setattr(
        cytconv._sparse.Sparse, "__init__", lambda self, axes, w: (made.append(w.dtype.char), prepare(self, axes, w))[1]
    )
    a = ConvTranspose(np.ones(3, np.float32), 4, method="sparse")
    for dtype in [*DTYPES, *DTYPES]:
        x = np.ones((4, 2), dtype)
        a.T @ (a @ x)
        a.H @ (a @ x)
    assert made == ["f", "d"]


@pytest.mark.parametrize("dtype", [np.float64, np.complex64])
def test_adjoint_made_anew_takes_the_short_way(monkeypatch, rng, dtype):
    """``A.H`` is another object each time: what one has found out serves the next, and does not keep A alive."""
    operator, y = ConvTranspose(integers(rng, (2, 2), dtype), (3, 4), stride=2), integers(rng, (6, 8), dtype)
    x = operator.H(y)
    assert operator.H is not operator.H
    monkeypatch.setattr(ConvTranspose, "_product", None)
    monkeypatch.setattr(ConvTranspose, "_repeat", None)
    np.testing.assert_array_equal(operator.H(y), x)
    gone = weakref.ref(operator)
    gc.disable()  # counting references is all that may be needed
    try:
        del operator
        assert gone() is None
    finally:
        gc.enable()


def test_threads(rng, method):
    """Called at once from the first call on, it prepares once and gives everyone the same numbers."""
    w, x = uniform(rng, (4, 2, 3, 3), np.float32), uniform(rng, (4 * 12 * 12, 3), np.float64)
    kwargs = {"channels": "first", "stride": 2, "method": method}
    expected = ConvTranspose(w, (4, 12, 12), **kwargs)
    forward = expected @ x
    adjoint = expected.H @ forward
    for _ in range(5):
        shared = ConvTranspose(w, (4, 12, 12), **kwargs)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _, a=shared: (a @ x, a.H @ forward), range(8)))
        for ax, ahy in results:
            np.testing.assert_array_equal(ax, forward)
            np.testing.assert_array_equal(ahy, adjoint)


@pytest.mark.parametrize("method", ["direct", "sparse", "fft"])
def test_no_cycle_of_references(rng, method):
    """What an operator holds, hundreds of megabytes may be, is gone with it."""
    gc.disable()
    try:
        a = ConvTranspose(np.ones((9, 9)), (100, 100), stride=2, method=method)
        y = a(rng.random((100, 100)))
        a.H @ (a @ rng.random(10_000)) + a.H(y).ravel()
        gone = weakref.ref(a)
        del a
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("method", ["direct", "sparse", "fft"])
@pytest.mark.parametrize("columns", [3, 40])
def test_every_call_lays_out_results_alike(rng, method, columns):
    a = ConvTranspose(rng.random((5, 5)), (30, 30), stride=2, method=method)
    for order in "CF":
        vectors = np.asarray(rng.random((900, columns)), order=order)
        first, *more = (a @ vectors for _ in range(3))
        assert all(other.strides == first.strides for other in more)


@pytest.mark.parametrize("workers", [1, 2, 3, -1])
def test_workers(rng, workers, method):
    w, x = uniform(rng, (3, 3), np.float64), uniform(rng, (400, 2), np.complex128)
    kwargs = {"stride": 2, "method": method}
    expected = ConvTranspose(w, (20, 20), workers=1, **kwargs) @ x
    np.testing.assert_array_equal(ConvTranspose(w, (20, 20), workers=workers, **kwargs) @ x, expected)


def test_tosparse_storage():
    operator = ConvTranspose(np.array([1.0, 0.0]), 3, stride=2)
    matrix = operator.tosparse("csc", index_dtype=np.int64, drop_zeros=True)
    assert (matrix.format, matrix.indices.dtype, matrix.nnz) == ("csc", np.int64, 3)


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr"])
def test_tosparse(rng, format):
    a = ConvTranspose(integers(rng, (3, 2), np.complex128), (2, 3), stride=2)
    matrix = conv_transpose_matrix(a._w, (2, 3), stride=2).toarray()
    for reading, expected in readings(a, matrix):
        sparse = reading.tosparse(format)
        assert sparse.format == format
        assert sparse.dtype == a.dtype
        assert sparse.has_canonical_format
        np.testing.assert_array_equal(sparse.toarray(), expected)


def test_repr():
    a = ConvTranspose(np.ones((4, 3, 2, 2), np.complex64), (4, 8, 8), channels="first", groups=2, stride=2)
    assert repr(a) == (
        "<ConvTranspose (4, 8, 8) -> (6, 16, 16), w (4, 3, 2, 2) of complex64, stride (2, 2), "
        "channels 'first', groups 2, method 'auto'>"
    )
    assert repr(a.T).startswith("<ConvTranspose.T (6, 16, 16) -> (4, 8, 8), ")
    assert repr(a.H).startswith("<ConvTranspose.H (6, 16, 16) -> (4, 8, 8), ")
    assert repr(a.H.T).startswith("<ConvTranspose.H.T (4, 8, 8) -> (6, 16, 16), ")
    b = ConvTranspose(np.ones(3), 5, padding=1, dilation=2, method="sparse")
    assert repr(b) == (
        "<ConvTranspose (5,) -> (7,), w (3,) of float64, stride (1,), low padding (1,), dilation (2,), method 'sparse'>"
    )


# ---- errors ------------------------------------------------------------------------------------------


class TestErrors:
    @pytest.mark.parametrize("vector", [["a", "b", "c"], [None] * 3, np.ones(3, np.longdouble), np.zeros(3, "M8[s]")])
    def test_vector_type(self, vector):
        a = ConvTranspose(np.ones(2), 3)
        for apply in (a.matvec, a.H.rmatvec, a.T.rmatvec):
            with pytest.raises(TypeError, match=r"vector of .* by w of float64: the product must be float32"):
                apply(np.array(vector))

    def test_sparse_vector(self):
        a = ConvTranspose(np.ones(2), 3)
        with pytest.raises(TypeError):
            a @ a.tosparse().T

    @pytest.mark.parametrize("size", [2, 4])
    def test_vector_size(self, size):
        with pytest.raises(ValueError, match=r"(?i)dimension mismatch"):
            ConvTranspose(np.ones(2), 3) @ np.ones(size)

    def test_w(self):
        with pytest.raises(TypeError, match="w of int64"):
            ConvTranspose(np.ones(2, np.int64), 3)

    @pytest.mark.parametrize(
        ("kwargs", "error", "match"),
        [
            ({"method": "fast"}, ValueError, "method='fast'"),
            ({"method": 1}, TypeError, "method=1"),
            ({"workers": 0}, ValueError, "workers=0"),
            ({"workers": -(10**6)}, ValueError, "workers=-1000000"),
            ({"workers": 1.5}, TypeError, "workers=1.5"),
            ({"stride": 0}, ValueError, "stride=0"),
            ({"padding": 9}, ValueError, "padding="),
            ({"axes": 1}, np.exceptions.AxisError, "input_shape"),
        ],
    )
    def test_arguments(self, kwargs, error, match):
        with pytest.raises(error, match=match):
            ConvTranspose(np.ones(2), 3, **kwargs)

    @pytest.mark.parametrize(("input_shape", "error"), [(3.0, TypeError), ((-1, 3), ValueError), (0, ValueError)])
    def test_input_shape(self, input_shape, error):
        with pytest.raises(error, match="input_shape"):
            ConvTranspose(np.ones(2), input_shape)

    def test_format(self):
        with pytest.raises(ValueError, match="format='dok'"):
            ConvTranspose(np.ones(2), 3).tosparse("dok")
