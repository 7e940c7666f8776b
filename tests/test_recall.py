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
    _api,
    _direct,
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
    assert recall.recall("conv_transpose", *arrays, asked, None, None) is None
    y = conv_transpose(*arrays, **KWARGS)
    again = recall.recall("conv_transpose", *arrays, asked, None, None)
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


def test_metadata_is_not_remembered(arrays, remembered):
    x, w = arrays
    noted = x.astype(np.dtype("f8", metadata={"whose": "mine"}))
    for _ in range(2):
        conv_transpose(noted, w, **KWARGS)
    assert conv_transpose(x, w, **KWARGS).dtype.metadata is None


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


@pytest.fixture
def short(monkeypatch, remembered):
    """How many calls took the short way to the end."""
    taken, repeat = [], _direct.Repeat.__call__

    def counted(self, *arguments):
        result = repeat(self, *arguments)
        taken.append(result is not None)
        return result

    monkeypatch.setattr(_direct.Repeat, "__call__", counted)
    return taken


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize("channels", ["first", "last"])
def test_with_a_bias_and_into_an_array(rng, dtype, channels, monkeypatch, short):
    kwargs = {**KWARGS, "channels": channels}
    shape = (2, 4, 5, 6) if channels == "first" else (2, 5, 6, 4)
    for n in range(1, 4):
        if n == 2:
            monkeypatch.setattr(_api, "_compute", None)  # from now on it is the only way
        x, w = integers(rng, shape, dtype), integers(rng, (4, 3, 3, 4), dtype)
        bias, bias_in = integers(rng, (3,), dtype), integers(rng, (4,), dtype)
        y = reference.conv_transpose(x, w, bias=bias, **kwargs)
        assert_exact(conv_transpose(x, w, bias=bias, **kwargs), y, dtype)
        strided = np.full((*y.shape, 2), np.nan, dtype)
        for out in (np.full(y.shape, np.nan, dtype), strided[..., 1]):
            assert conv_transpose(x, w, bias=bias, out=out, **kwargs) is out
            assert_exact(out, y, dtype)
            assert conv_transpose(x, w, out=out, **kwargs) is out
            assert_exact(out, reference.conv_transpose(x, w, **kwargs), dtype)
        assert np.isnan(strided[..., 0]).all()
        y = y.astype(dtype)
        assert_exact(conv(y, w, bias=bias_in, **kwargs), reference.conv(y, w, bias=bias_in, **kwargs), dtype)
        adjoint = reference.conv_transpose_adjoint(y, w, input_shape=(5, 6), **kwargs)
        out = np.full(adjoint.shape, np.nan, dtype)
        assert conv_transpose_adjoint(y, w, input_shape=(5, 6), out=out, **kwargs) is out
        assert_exact(out, adjoint, dtype)
        out = np.full(w.shape, np.nan, dtype)
        assert conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 4), out=out, **kwargs) is out
        assert_exact(out, reference.conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 4), **kwargs), dtype)
        assert short == [True] * (8 * n)


def test_phases_without_taps_have_the_bias(short):
    x, w, bias = np.ones((1, 2, 9)), np.ones((2, 3, 2)), np.array([1.0, 2.0, 3.0])
    for _ in range(2):
        y = conv_transpose(x, w, stride=5, bias=bias, channels="first")
        assert_exact(y, reference.conv_transpose(x, w, stride=5, bias=bias, channels="first"), np.float64)
        y[...] = np.nan
        del y
    assert not short


def test_errors_are_those_of_the_first_call(arrays, short):
    """Whatever was remembered, an array that is given is checked."""
    x, w = arrays
    y, bias = conv_transpose(x, w, **KWARGS), np.zeros(3)
    memory = np.zeros(x.size + y.size + w.size)
    inside, out = memory[: x.size].reshape(x.shape), memory[x.size : -w.size].reshape(y.shape)
    overlapping, around, w_around = (
        memory[: y.size].reshape(y.shape),
        memory[-3 - w.size :][:3],
        memory[-w.size - 1 : -1],
    )
    for _ in range(2):
        conv_transpose(inside, w, bias=bias, out=out, **KWARGS)
    taken = len(short)
    with pytest.raises(ValueError, match="overlap x"):
        conv_transpose(inside, w, bias=bias, out=overlapping, **KWARGS)
    with pytest.raises(ValueError, match="overlap w"):
        conv_transpose(inside, w_around.reshape(w.shape), bias=bias, out=out, **KWARGS)
    with pytest.raises(ValueError, match="overlap bias"):
        conv_transpose(inside, w, bias=around, out=out, **KWARGS)
    with pytest.raises(ValueError, match="bias of shape"):
        conv_transpose(inside, w, bias=bias[:2], out=out, **KWARGS)
    with pytest.raises(TypeError, match="bias of complex128"):
        conv_transpose(inside, w, bias=bias.astype(complex), out=out, **KWARGS)
    with pytest.raises(TypeError, match="out of float32"):
        conv_transpose(inside, w, bias=bias, out=out.astype(np.float32), **KWARGS)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        conv_transpose(inside, w, bias=bias, out=out, **KWARGS)
    assert len(short) == taken


@pytest.mark.parametrize(
    "bias", [1.5, np.array(1.5), [1.0, 2.0, 3.0], np.arange(3), np.arange(6.0)[::2], np.float32([1, 2, 3])]
)
def test_other_kinds_of_bias(arrays, bias, remembered):
    x, w = arrays
    channels = "first" if np.ndim(bias) else None
    x, w = (x, w) if channels else (x[0, 0], w[0, 0])
    kwargs = {**KWARGS, "channels": channels}
    for _ in range(2):
        result = conv_transpose(x, w, bias=bias, **kwargs)
        assert_exact(result, reference.conv_transpose(x, w, bias=np.asarray(bias, float), **kwargs), np.float64)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_numbers_that_need_the_long_way(arrays, value, remembered):
    """A call is remembered by its shapes; infinity and NaN come later, and go their own way."""
    x, w = arrays
    y = conv_transpose(x, w, **KWARGS)
    out, bias = np.empty_like(y), np.arange(3.0)
    conv_transpose(x, w, bias=bias, out=out, **KWARGS)
    conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 4), **KWARGS)
    w[0, 1, 2, 0] = value
    x[1, 2, 0, 0] = value
    with np.errstate(invalid="ignore"):
        expected = reference.conv_transpose(x, w, **KWARGS)
        weights = reference.conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 4), **KWARGS)
    assert_exact(conv_transpose(x, w, **KWARGS), expected, np.float64)
    assert conv_transpose(x, w, bias=bias, out=out, **KWARGS) is out
    assert_exact(out, expected + bias[:, None, None], np.float64)
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
