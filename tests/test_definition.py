"""Every path against the definition.  Whole numbers in, so that equal means equal."""

import math

import numpy as np
import pytest
import reference
from reference import DTYPES, assert_close, assert_exact, integers, uniform

from cytconv import _direct, conv, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint

METHODS = ["direct", "sparse"]


def check(rng, x_shape, w_shape, *, dtype=np.float32, method="direct", biased=False, draw=integers, **kwargs):
    """Forward, adjoint and weight adjoint, each against the definition."""

    def compare(actual, expected, terms):
        if draw is integers:
            assert_exact(actual, expected, dtype)
        else:
            assert_close(actual, expected, dtype, terms)

    channels = kwargs.get("channels")
    x, w = draw(rng, x_shape, dtype), draw(rng, w_shape, dtype)
    c_out = () if channels is None else w.shape[1] * kwargs.get("groups", 1)
    bias = draw(rng, c_out, dtype) if biased else None
    ndim = w.ndim - (0 if channels is None else 2)
    taps = math.prod(w.shape[-ndim:])
    per_group = (1, 1) if channels is None else (w.shape[0] // kwargs.get("groups", 1), w.shape[1])

    expected = reference.conv_transpose(x, w, bias=bias, **kwargs)
    actual = conv_transpose(x, w, bias=bias, method=method, **kwargs)
    compare(actual, expected, terms=per_group[0] * taps + 1)

    y = draw(rng, expected.shape, dtype)
    spatial = reference.Layout(ndim, 1, channels, kwargs.get("axes")).spatial
    n = tuple(x.shape[a] for a in spatial)
    expected = reference.conv_transpose_adjoint(y, w, input_shape=n, **kwargs)
    actual = conv_transpose_adjoint(y, w, input_shape=n, method=method, **kwargs)
    compare(actual, expected, terms=per_group[1] * taps)

    kernel = w.shape[-ndim:]
    expected = reference.conv_transpose_weight_adjoint(x, y, kernel_shape=kernel, **kwargs)
    actual = conv_transpose_weight_adjoint(x, y, kernel_shape=kernel, method=method, **kwargs)
    compare(actual, expected, terms=x.size)


# ---- the grid of options -------------------------------------------------------------------------------

GEOMETRIES = [
    {},
    {"stride": 2},
    {"stride": 3, "dilation": 2},
    {"stride": 4, "dilation": 2},  # a common factor: half of the phases get no tap
    {"stride": 5},  # more phases than taps
    {"dilation": 3},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"dilation": 3, "output_padding": 2},
    {"stride": 2, "padding": -2},
    {"stride": 3, "output_shape": 5, "padding": 2},
    {"stride": 2, "output_shape": 17},
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("ndim", [1, 2])
def test_geometries(rng, ndim, geometry, dtype, method):
    sizes, taps = (5, 7)[-ndim:], (2, 3)[-ndim:]
    check(rng, (3, *sizes), taps, dtype=dtype, method=method, **geometry)
    for groups in (1, 2):
        kwargs = {"channels": "first", "groups": groups, "biased": True, "method": method, "dtype": dtype, **geometry}
        check(rng, (2, 4, *sizes), (4, 3, *taps), **kwargs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"stride": (1, 2, 3, 1, 2), "dilation": (2, 1, 2, 3, 1)},
        {"stride": (2, 1, 2, 2, 1), "padding": ((1, 0), 0, (-1, 1), (0, 2), -1)},
        {"stride": (2, 3, 1, 2, 2), "output_padding": (1, 2, 0, 0, 1)},
        {"stride": (1, 2, 2, 3, 1), "output_shape": (3, 4, 2, 5, 3), "padding": (1, (0, 9), 0, 1, 0)},
    ],
    ids=str,
)
@pytest.mark.parametrize("ndim", [1, 2, 3, 4, 5])
def test_any_number_of_axes(rng, ndim, geometry, method):
    geometry = {name: values[:ndim] for name, values in geometry.items()}
    sizes, taps = (2, 3, 2, 3, 2)[-ndim:], (2, 1, 3, 2, 2)[-ndim:]
    check(rng, (2, *sizes), taps, dtype=np.float64, method=method, **geometry)
    kwargs = {"channels": "last", "groups": 2, "biased": True, "method": method, **geometry}
    check(rng, (2, *sizes, 4), (4, 3, *taps), **kwargs)


@pytest.mark.parametrize("method", METHODS)
def test_very_many_axes(rng, method):
    check(rng, (1, 2, 1, 3, 1, 1, 2, 2), (2, 1, 1, 2, 1, 2, 1, 2), stride=2, method=method)
    check(rng, (1, 2, 1, 2, 1, 2, 1, 2, 5), (3,), stride=2, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 1, 2)])
def test_batch_axes(rng, batch, dtype, method):
    kwargs = {"stride": 2, "dtype": dtype, "biased": True, "method": method}
    check(rng, (*batch, 4, 5), (2, 3), **kwargs)
    check(rng, (*batch, 4, 4, 5), (4, 2, 2, 3), channels="first", groups=2, **kwargs)
    check(rng, (*batch, 4, 5, 4), (4, 2, 2, 3), channels="last", groups=2, **kwargs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axes", [(0, 1), (1, 0), (0, 2), (2, 0), (-1, 1), (3, 0), (1, -4), (2, 3)])
def test_axes(rng, axes, method):
    check(rng, (3, 4, 5, 2), (2, 3), axes=axes, stride=(1, 2), padding=((0, 1), 0), biased=True, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axis", [0, 1, -1, (1,)])
def test_one_axis(rng, axis, method):
    kwargs = {"axes": axis, "stride": 2, "method": method}
    x, w = integers(rng, (3, 4, 5), np.float64), integers(rng, 3, np.float64)
    y = reference.conv_transpose(x, w, axes=axis, stride=2)
    assert_exact(conv_transpose(x, w, **kwargs), y, np.float64)
    x = reference.conv_transpose_adjoint(y, w, axes=axis, stride=2)
    assert_exact(conv_transpose_adjoint(y, w, **kwargs), x, np.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize(
    ("c_in", "c_out", "groups"), [(6, 3, 1), (6, 2, 3), (6, 1, 6), (6, 2, 6), (40, 1, 40), (1, 5, 1)]
)
def test_groups(rng, c_in, c_out, groups, channels, method):
    sizes = (2, c_in, 4, 5) if channels == "first" else (2, 4, 5, c_in)
    kwargs = {"channels": channels, "groups": groups, "biased": True, "method": method}
    check(rng, sizes, (c_in, c_out, 3, 2), **kwargs)
    check(rng, sizes, (c_in, c_out, 3, 2), stride=2, dtype=np.complex64, **kwargs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [None, "first", "last"])
def test_conv(rng, channels, dtype, method):
    """`conv` is the transpose: no conjugate, and a bias for each of its own outputs."""
    y_shape = {None: (2, 9, 10), "first": (2, 6, 9, 10), "last": (2, 9, 10, 6)}[channels]
    w_shape, groups, c_in = ((3, 2), 1, ()) if channels is None else ((4, 3, 3, 2), 2, 4)
    y, w, bias = integers(rng, y_shape, dtype), integers(rng, w_shape, dtype), integers(rng, c_in, dtype)
    for geometry in ({}, {"stride": 2}, {"stride": (3, 2), "padding": ((1, 0), (-1, 2)), "dilation": (2, 3)}):
        kwargs = {"channels": channels, "groups": groups, **geometry}
        assert_exact(conv(y, w, method=method, **kwargs), reference.conv(y, w, **kwargs), dtype)
        actual = conv(y, w, bias=bias, method=method, **kwargs)
        assert_exact(actual, reference.conv(y, w, bias=bias, **kwargs), dtype)


def test_bias_covers_the_whole_window(rng):
    """Also where no sample reaches: phases without taps and windows beyond the full result."""
    y = conv_transpose(np.ones(2), np.ones(1), stride=3, padding=-2, bias=7)
    np.testing.assert_array_equal(y, [7, 7, 8, 7, 7, 8, 7, 7])
    y = conv_transpose(np.ones((1, 2)), np.ones((1, 2, 1)), stride=2, output_shape=5, bias=[1, 2], channels="first")
    np.testing.assert_array_equal(y, [[2, 1, 2, 1, 1], [3, 2, 3, 2, 2]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_is_cast_to_the_result(dtype):
    for bias in (True, 3, np.int64(3), 3.0, np.float32(3), np.array(3, ">f8"), np.float16(3)):
        y = conv_transpose(np.ones(2, dtype), np.ones(1, dtype), bias=bias)
        assert_exact(y, np.full(2, 1 + float(bias)), dtype)


def test_complex_bias():
    y = conv_transpose(np.ones(2, np.complex64), np.ones(1, np.complex64), bias=1j)
    assert_exact(y, np.full(2, 1 + 1j), np.complex64)


@pytest.mark.parametrize("a", [np.float16, *DTYPES])
@pytest.mark.parametrize("b", [np.int8, np.float16, *DTYPES])
def test_mixed_dtypes(rng, a, b):
    dtype = np.result_type(a, b)
    x, w = integers(rng, (3, 5), a), integers(rng, 2, b)
    y = reference.conv_transpose(x, w)
    assert_exact(conv_transpose(x, w), y, dtype)
    assert_exact(conv_transpose(w, x[0]), reference.conv_transpose(w, x[0]), dtype)
    assert_exact(conv_transpose_adjoint(x, w), reference.conv_transpose_adjoint(x, w), dtype)
    assert_exact(conv(x, w), reference.conv(x, w), dtype)
    weights = conv_transpose_weight_adjoint(x, w[None].repeat(3, 0), kernel_shape=2)
    assert_exact(weights, reference.conv_transpose_weight_adjoint(x, w[None].repeat(3, 0), kernel_shape=2), dtype)


# ---- sizes that take blocked kernels through all their paths -----------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_length_of_tail(rng, stride, dtype):
    for length in range(1, 34):
        check(rng, (length,), (3,), stride=stride, dtype=dtype)
        check(rng, (2, length), (2, 3, 2), stride=stride, dtype=dtype, channels="first", biased=True)
    for length in range(191, 207):
        check(rng, (length,), (2,), stride=stride, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("taps", [1, 2, 4, 5, 7, 9, 13, 33])
def test_every_number_of_taps(rng, taps, dtype):
    for stride in (1, 2, 4, taps):
        check(rng, (45,), (taps,), stride=stride, padding=taps // 2, dtype=dtype)
    check(rng, (2, 20), (2, 3, taps), stride=2, dilation=3, dtype=dtype, channels="first")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_long_kernels(rng, channels, dtype):
    """Of one axis: more taps in each phase than two vectors have lanes, of few rows."""
    for taps, stride in ((16, 1), (33, 1), (67, 2), (130, 3)):
        check(rng, (1, 90), (1, channels, taps), stride=stride, dtype=dtype, channels="first")
        check(rng, (channels, 7), (channels, 1, taps), stride=stride, padding=5, dtype=dtype, channels="first")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c_out", [*range(1, 9), 11, 12, 13, 23, 24, 25, 143, 144, 145, 161])
def test_numbers_of_output_channels(rng, c_out, dtype):
    check(rng, (3, 19), (3, c_out, 3), dtype=dtype, channels="first", biased=True)
    check(rng, (19, 3), (3, c_out, 3), dtype=dtype, channels="last", biased=True)
    check(rng, (19, 3), (3, c_out, 3), dtype=dtype, channels="last", biased=True, stride=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c_in", [1, 2, 5, 15, 16, 17, 160, 255, 256, 257, 530])
def test_numbers_of_input_channels(rng, c_in, dtype):
    check(rng, (c_in, 19), (c_in, 5, 3), dtype=dtype, channels="first", biased=True)
    check(rng, (19, c_in), (c_in, 2, 3), dtype=dtype, channels="last", biased=True, stride=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "kwargs"),
    [
        ((155, 4, 33), (155, 151, 2, 2), {"stride": 2}),  # kernel = stride
        ((70, 6, 37), (70, 31, 3, 3), {"padding": 1}),
        ((70, 6, 37), (70, 31, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
        ((12, 7, 9), (12, 1, 9, 9), {"stride": 3, "padding": 4}),  # one output channel
        ((1, 9, 31), (1, 40, 3, 5), {"stride": (2, 1), "dilation": (1, 2)}),  # one input channel
        ((5, 17, 3, 4), (17, 20, 3, 3), {"stride": 2}),  # small images, many of them
        ((2, 330, 3, 67), (330, 2, 2, 3), {"groups": 165}),
        ((2, 20, 4, 5, 6), (20, 19, 2, 3, 2), {"stride": (2, 1, 2)}),
    ],
    ids=str,
)
def test_blocked_in_channels(rng, x_shape, w_shape, kwargs, dtype):
    check(rng, x_shape, w_shape, dtype=dtype, channels="first", biased=True, **kwargs)


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "kwargs"),
    [
        ((5, 211), (3, 3), {}),
        ((23, 67), (2, 2), {"stride": 2}),
        ((3, 70), (5, 9), {"padding": (2, 4)}),
        ((6, 259), (3, 2), {"stride": (1, 3), "padding": ((2, 0), (5, 1))}),
        ((3, 4, 90), (2, 2, 3), {"stride": (2, 2, 1), "dilation": (1, 1, 4)}),
        ((1, 1100), (1, 4), {"stride": (1, 2)}),
        ((1100, 1), (4, 1), {"stride": (2, 1)}),
        ((1500,), (2,), {"stride": 2, "padding": [(1001, 7)]}),
        ((2048,), (2,), {}),  # a row pitch of a power of two
    ],
    ids=str,
)
def test_long_rows_of_one_channel(rng, x_shape, w_shape, kwargs, dtype):
    check(rng, x_shape, w_shape, dtype=dtype, **kwargs)


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "stride"),
    [
        ((1, 1, 700, 650), (1, 1, 2, 2), (2, 2)),
        ((2, 1, 300, 310), (1, 1, 5, 3), (1, 1)),
        ((1, 20, 70, 140), (20, 24, 3, 3), (2, 1)),
        ((3, 2, 30, 31, 43), (2, 3, 2, 1, 2), (1, 2, 3)),
        ((300, 3, 70), (3, 20, 4), (3,)),
        ((1, 2, 100_000), (2, 1, 3), (2,)),
    ],
    ids=str,
)
def test_arrays_larger_than_any_block(rng, x_shape, w_shape, stride, dtype):
    """Too large for the loops of the definition: one slice for each tap instead."""
    x, w = integers(rng, x_shape, dtype), integers(rng, w_shape, dtype)
    kwargs = {"channels": "first", "stride": stride}
    y = conv_transpose(x, w, **kwargs)
    g = integers(rng, y.shape, dtype)
    expected, in_x, in_w = np.zeros_like(y), np.zeros_like(x), np.zeros_like(w)
    for k in np.ndindex(w_shape[2:]):
        o = (..., *(slice(k_, k_ + (n - 1) * s + 1, s) for k_, n, s in zip(k, x_shape[2:], stride, strict=True)))
        expected[o] += np.einsum("bi...,ij->bj...", x, w[(..., *k)])
        in_x += np.einsum("bj...,ij->bi...", g[o], w[(..., *k)].conj())
        in_w[(..., *k)] = np.tensordot(x.conj(), g[o], axes=([0, *range(2, x.ndim)],) * 2)
    assert_exact(y, expected, dtype)
    assert_exact(conv_transpose_adjoint(g, w, input_shape=x_shape[2:], **kwargs), in_x, dtype)
    assert_exact(conv_transpose_weight_adjoint(x, g, kernel_shape=w_shape[2:], **kwargs), in_w, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_rounding(rng, dtype, method):
    """Real numbers: within the rounding of a sum."""
    check(rng, (3, 9, 11), (3, 2), dtype=dtype, draw=uniform, method=method, stride=2)
    kwargs = {"dtype": dtype, "draw": uniform, "method": method, "channels": "first", "biased": True}
    check(rng, (2, 20, 5, 6), (20, 7, 3, 3), padding=1, **kwargs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_single_samples_in_boxes(rng, dtype, monkeypatch):
    """Complex ones, too, whose parts lie between each other even where there is but one position."""
    monkeypatch.setattr(_direct, "weight_lines", lambda *_: None)
    monkeypatch.setattr(_direct, "is_better_swapped", lambda *_: False)
    check(rng, (2, 4, 1), (4, 5, 3), dtype=dtype, channels="first", padding=1)
    check(rng, (3, 4, 1, 1), (4, 6, 2, 3), dtype=dtype, channels="first", stride=2)
