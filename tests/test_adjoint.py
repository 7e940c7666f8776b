"""The adjoints are adjoints: ``<A x, y> = <x, A^H y>`` in both arguments, whatever the options."""

import numpy as np
import pytest
import reference
from reference import DTYPES, assert_close, assert_exact, integers, uniform

from cytconv import conv, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint

CASES = [
    # x, w, keywords
    ((9,), (3,), {}),
    ((3, 9), (3,), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((4, 5), (4, 2), {"stride": (3, 2), "dilation": (2, 3)}),
    ((4, 5, 6), (2, 3), {"axes": (2, 0), "stride": 2, "padding": ((1, 2), (-2, 0))}),
    ((3, 2, 4), (2, 2, 3), {"stride": 2, "output_shape": (4, 9, 5)}),
    ((2, 6, 5, 4), (6, 2, 3, 3), {"channels": "first", "groups": 3, "stride": 2, "padding": 1}),
    ((2, 5, 4, 6), (6, 5, 2, 3), {"channels": "last", "groups": 2, "dilation": (1, 2), "padding": ((0, 3), 1)}),
    ((3, 7, 5), (7, 1, 4), {"channels": "first", "groups": 7, "stride": 4}),
    ((2, 3, 2, 2, 2, 3), (3, 2, 1, 2, 2, 2), {"channels": "first", "stride": (2, 1, 2, 1), "padding": (0, 0, -1, 1)}),
]


@pytest.mark.parametrize("method", ["direct", "sparse"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("x_shape", "w_shape", "kwargs"), CASES, ids=str)
def test_dot(rng, x_shape, w_shape, kwargs, dtype, method):
    """Whole numbers, so both sides are the same number, not two that are close."""
    x, w = integers(rng, x_shape, dtype), integers(rng, w_shape, dtype)
    ndim = w.ndim - 2 * ("channels" in kwargs)
    spatial = reference.Layout(ndim, 1, kwargs.get("channels"), kwargs.get("axes")).spatial
    product = conv_transpose(x, w, method=method, **kwargs)
    y = integers(rng, product.shape, dtype)
    n = [x_shape[a] for a in spatial]
    in_x = conv_transpose_adjoint(y, w, input_shape=n, method=method, **kwargs)
    in_w = conv_transpose_weight_adjoint(x, y, kernel_shape=w_shape[-ndim:], method=method, **kwargs)
    assert in_x.shape == x_shape
    assert in_w.shape == w_shape
    dot = np.vdot(product, y)
    assert dot != 0
    assert dot == np.vdot(x, in_x) == np.vdot(w, in_w)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dot_of_real_numbers(rng, dtype):
    x, w = uniform(rng, (4, 12, 13), dtype), uniform(rng, (4, 5, 3, 3), dtype)
    kwargs = {"channels": "first", "stride": 2, "padding": 1}
    product = conv_transpose(x, w, **kwargs)
    y = uniform(rng, product.shape, dtype)
    in_x = conv_transpose_adjoint(y, w, **kwargs)
    in_w = conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 3), **kwargs)
    dot = np.vdot(product.astype(complex), y)
    terms = x.size * 5 * 9
    assert_close(np.vdot(x.astype(complex), in_x), dot, dtype, terms)
    assert_close(np.vdot(w.astype(complex), in_w), dot, dtype, terms)
    assert abs(dot) > 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["direct", "sparse"])
@pytest.mark.parametrize(
    "kwargs", [{}, {"stride": 3}, {"stride": 3, "dilation": 2}, {"stride": 4, "padding": [(2, -1)]}], ids=str
)
def test_conv_is_the_adjoint_for_every_size(rng, kwargs, method, dtype):
    """``conv(y, w) == conv_transpose_adjoint(y, conj(w))``; trailing samples that no window reaches play no part."""
    w = integers(rng, (4, 3, 3), dtype)
    for m in range(5, 22):
        y = integers(rng, (2, 3, m), dtype)
        x = conv(y, w, channels="first", method=method, **kwargs)
        assert_exact(x, reference.conv(y, w, channels="first", **kwargs), dtype)
        adjoint = conv_transpose_adjoint(y, w.conj(), channels="first", method=method, **kwargs)
        assert_exact(x, adjoint, dtype)


def test_trailing_samples_are_ignored(rng):
    y, w = integers(rng, (2, 12), np.float32), integers(rng, 3, np.float32)
    y[:, 11:] = np.nan  # windows start at 0, 4, 8: the last one ends at 10
    x = conv(y, w, stride=4)
    assert np.isfinite(x).all()
    assert_exact(x, conv(y[:, :11], w, stride=4), np.float32)
    assert_exact(conv_transpose_adjoint(y, w, stride=4), x, np.float32)


@pytest.mark.parametrize("method", ["direct", "sparse"])
@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_input_shape_sets_the_size_outright(rng, n, method):
    """Whatever the size of y: samples that do not meet the window get zero."""
    y, w = integers(rng, (2, 12), np.float64), integers(rng, 3, np.float64)
    for padding in (0, [(1, 0)], [(-2, 3)], [(40, 0)]):
        kwargs = {"input_shape": n, "stride": 2, "padding": padding}
        x = conv_transpose_adjoint(y, w, method=method, **kwargs)
        assert_exact(x, reference.conv_transpose_adjoint(y, w, **kwargs), np.float64)


@pytest.mark.parametrize("method", ["direct", "sparse"])
@pytest.mark.parametrize("taps", [1, 2, 5, 30])
def test_kernel_shape_sets_the_size_outright(rng, taps, method):
    x, y = integers(rng, (2, 6), np.complex64), integers(rng, (2, 12), np.complex64)
    for padding in (0, [(1, 0)], [(-2, 3)], [(40, 0)]):
        kwargs = {"kernel_shape": taps, "stride": 2, "padding": padding}
        w = conv_transpose_weight_adjoint(x, y, method=method, **kwargs)
        assert_exact(w, reference.conv_transpose_weight_adjoint(x, y, **kwargs), np.complex64)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_what_is_conjugated(dtype):
    x, w = np.array([2 + 1j], dtype), np.array([1 - 3j], dtype)
    assert_exact(conv_transpose(x, w), [5 - 5j], dtype)
    assert_exact(conv(x, w), [5 - 5j], dtype)
    assert_exact(conv_transpose_adjoint(x, w), [-1 + 7j], dtype)  # x * conj(w)
    assert_exact(conv_transpose_weight_adjoint(x, w, kernel_shape=1), [-1 - 7j], dtype)  # conj(x) * w


@pytest.mark.parametrize("x_is_complex", [False, True])
def test_real_with_complex(rng, x_is_complex):
    a, b = integers(rng, (3, 9), np.float32), integers(rng, (3, 4), np.complex64)
    x, y = (b, a) if x_is_complex else (a, b)
    w = conv_transpose_weight_adjoint(x, y, kernel_shape=3, stride=2)
    assert_exact(w, reference.conv_transpose_weight_adjoint(x, y, kernel_shape=3, stride=2), np.complex64)
    adjoint = conv_transpose_adjoint(x, y[0, :3], stride=2, input_shape=4)
    assert_exact(adjoint, reference.conv_transpose_adjoint(x, y[0, :3], stride=2, input_shape=4), np.complex64)
