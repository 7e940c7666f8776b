"""Calls like an earlier one take a short way: it must lead to the same place, and be open to no others."""

import pickle
import threading
from collections import deque

import numpy as np
import pytest
import reference
from reference import assert_exact, integers

from cytconv import (
    ConvTranspose,
    _memory,
    conv,
    conv_transpose,
    conv_transpose_adjoint,
    conv_transpose_weight_adjoint,
)
from cytconv.kernels import recall

KWARGS = {"stride": (2, 3), "padding": ((1, 0), 1), "channels": "first"}


@pytest.fixture
def remembered():
    """Nothing remembered before, and what `recall` calls while the test runs."""
    recall.forget()
    yield recall
    recall.forget()


@pytest.fixture
def arrays(rng):
    return integers(rng, (2, 4, 5, 6), np.float64), integers(rng, (4, 3, 3, 4), np.float64)


def test_the_same_as_at_first(rng, arrays, remembered):
    x, w = arrays
    y = reference.conv_transpose(x, w, **KWARGS)
    for _ in range(3):
        result = conv_transpose(x, w, **KWARGS)
        assert_exact(result, y, np.float64)
        assert_exact(conv(result, w, **KWARGS), reference.conv(y, w, **KWARGS), np.float64)
        adjoint = reference.conv_transpose_adjoint(y, w, input_shape=(5, 6), **KWARGS)
        assert_exact(conv_transpose_adjoint(result, w, input_shape=(5, 6), **KWARGS), adjoint, np.float64)
        weights = reference.conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 4), **KWARGS)
        assert_exact(conv_transpose_weight_adjoint(x, result, kernel_shape=(3, 4), **KWARGS), weights, np.float64)
        x, w = x + 1, w - 1  # other numbers, in other arrays
        y = reference.conv_transpose(x, w, **KWARGS)


def test_the_short_way_is_taken(arrays, remembered):
    asked = ((2, 3), ((1, 0), 1), 0, None, 1, 1, "first", None, "auto", None)
    assert recall.recall("conv_transpose", *arrays, asked) is None
    y = conv_transpose(*arrays, **KWARGS)
    again = recall.recall("conv_transpose", *arrays, asked)
    assert np.array_equal(again, y)
    assert again is not y
    assert again.flags.c_contiguous
    assert again.flags.writeable


@pytest.mark.parametrize("stride", [2.0, np.float64(1), "1", (1, 1.0)])
def test_equal_is_not_enough(arrays, stride, remembered):
    """1 == 1.0, but 1.0 is no stride, even if there was a call with 1."""
    for integer in (1, 2):
        conv_transpose(*arrays, stride=integer, channels="first")
        conv_transpose(*arrays, stride=(integer, integer), channels="first")
    with pytest.raises(TypeError, match="stride"):
        conv_transpose(*arrays, stride=stride, channels="first")


def test_lists_may_change(arrays, remembered):
    stride = [2, 3]
    first = conv_transpose(*arrays, stride=stride, channels="first")
    stride[0] = 1
    assert conv_transpose(*arrays, stride=stride, channels="first").shape != first.shape


def test_strides_and_types_matter(rng, arrays, remembered):
    x, w = arrays
    y = conv_transpose(x, w, **KWARGS)
    assert np.array_equal(conv_transpose(np.asfortranarray(x), w, **KWARGS), y)
    assert np.array_equal(conv_transpose(x, np.asfortranarray(w), **KWARGS), y)
    assert np.array_equal(conv_transpose(x[..., ::-1][..., ::-1], w, **KWARGS), y)
    reverse = conv_transpose(x[..., ::-1], w, **KWARGS)
    assert np.array_equal(conv_transpose(x[..., ::-1].copy(), w, **KWARGS), reverse)
    assert np.array_equal(conv_transpose(x.astype(">f8"), w, **KWARGS), y)
    single = conv_transpose(x.astype(np.float32), w.astype(np.float32), **KWARGS)
    assert single.dtype == np.float32
    assert np.array_equal(single, y)
    assert np.array_equal(conv_transpose(x.view(np.matrix) if x.ndim == 2 else x.tolist(), w, **KWARGS), y)


def test_unaligned_arrays(arrays, remembered):
    x, w = arrays
    y = conv_transpose(x, w, **KWARGS)
    memory = np.empty(x.nbytes + 1, np.uint8)
    unaligned = memory[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    assert not unaligned.flags.aligned
    assert unaligned.strides == x.strides
    for _ in range(2):
        assert np.array_equal(conv_transpose(unaligned, w, **KWARGS), y)


def test_read_only_arrays(arrays, remembered):
    x, w = arrays
    y = conv_transpose(x, w, **KWARGS)
    x.flags.writeable = w.flags.writeable = False
    assert np.array_equal(conv_transpose(x, w, **KWARGS), y)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_numbers_that_need_the_long_way(arrays, value, remembered):
    """A call is remembered by its shapes; infinity and NaN come later, and go their own way."""
    x, w = arrays
    y = conv_transpose(x, w, **KWARGS)
    conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 4), **KWARGS)
    w[0, 1, 2, 0] = value
    x[1, 2, 0, 0] = value
    with np.errstate(invalid="ignore"):
        expected = reference.conv_transpose(x, w, **KWARGS)
        weights = reference.conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 4), **KWARGS)
    assert_exact(conv_transpose(x, w, **KWARGS), expected, np.float64)
    assert_exact(conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 4), **KWARGS), weights, np.float64)


def test_phases_without_taps(remembered):
    """Outputs that no tap reaches are zero in every call, whatever was in memory before."""
    x, w = np.ones(40), np.ones(2)
    for _ in range(3):
        y = conv_transpose(x, w, stride=5)
        assert y.sum() == 80
        assert set(y) == {0, 1}
        y[...] = np.nan
        del y


def test_large_results_reuse_memory(monkeypatch, remembered):
    monkeypatch.setattr(_memory, "LEAST", 1000)
    monkeypatch.setattr(_memory, "_spare", deque())
    x, w = np.arange(500.0), np.array([1.0, 2.0])
    for _ in range(2):
        y = conv_transpose(x, w)
        where = y.ctypes.data
        assert y[-1] == 998
        del y
    y = conv_transpose(x, w)
    assert y.ctypes.data == where


def test_from_threads(arrays, remembered):
    x, w = arrays
    y = conv_transpose(x, w, **KWARGS)
    wrong = []

    def work():
        for _ in range(200):
            if not np.array_equal(conv_transpose(x, w, **KWARGS), y):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_many_shapes(remembered):
    """More than are remembered."""
    w = np.ones(2)
    for _ in range(2):
        for n in range(1, 600):
            assert conv_transpose(np.ones(n), w, stride=2).sum() == 2 * n


# ---- operators -----------------------------------------------------------------------------------------


def test_operators_remember_vectors(rng, arrays):
    x, w = arrays
    A = ConvTranspose(w, x.shape, **KWARGS)
    AH = A.H
    for _ in range(3):
        y = reference.conv_transpose(x, w, **KWARGS)
        adjoint = reference.conv_transpose_adjoint(y, w, input_shape=(5, 6), **KWARGS)
        assert_exact(A(x), y, np.float64)
        assert_exact(A @ x.ravel(), y.ravel(), np.float64)
        assert_exact(AH(y.astype(float)), adjoint, np.float64)
        assert_exact(A.rmatvec(y.astype(float).ravel()), adjoint.ravel(), np.float64)
        assert_exact(A(x[:, ::-1]), reference.conv_transpose(x[:, ::-1], w, **KWARGS), np.float64)
        long = np.repeat(x.ravel(), 2)
        assert_exact(A @ long[::2], y.ravel(), np.float64)
        assert A(x.astype(np.float32)).dtype == np.float64
        x = x + 1


def test_operators_on_one_axis(rng):
    """The shape of an array is that of a vector, and that of a column is not."""
    w = integers(rng, (3,), np.float64)
    A = ConvTranspose(w, 5, stride=2)
    x = integers(rng, (5,), np.float64)
    y = reference.conv_transpose(x, w, stride=2)
    for _ in range(3):
        assert_exact(A(x), y, np.float64)
        assert_exact(A @ x, y, np.float64)
        assert_exact(A @ x[:, None], y[:, None], np.float64)
        assert_exact(A.T(y.astype(float)), reference.conv_transpose_adjoint(y, w, input_shape=5, stride=2), np.float64)


def test_operators_that_remember_can_be_pickled(rng, arrays):
    x, w = arrays
    A = ConvTranspose(w, x.shape, **KWARGS)
    AH, y = A.H, A(x)
    expected = AH(y)
    assert np.array_equal(pickle.loads(pickle.dumps(A))(x), y)
    assert np.array_equal(pickle.loads(pickle.dumps(AH))(y), expected)
    assert np.array_equal(AH(y), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_operators_of_other_types(rng, dtype):
    w, x = integers(rng, (3, 2), dtype), integers(rng, (4, 5), dtype)
    A = ConvTranspose(w, x.shape, stride=2)
    for _ in range(3):
        assert_exact(A(x), reference.conv_transpose(x, w, stride=2), dtype)
        y = A(x)
        assert_exact(A.H(y), reference.conv_transpose_adjoint(y, w, input_shape=(4, 5), stride=2), dtype)
