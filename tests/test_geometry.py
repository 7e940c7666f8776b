"""The shape of every result, and every error with its message."""

import numpy as np
import pytest

import cytconv
from cytconv import conv, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


# ---- sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "taps", "geometry", "m"),
    [
        (5, 3, {}, 7),
        (5, 3, {"stride": 2}, 11),
        (5, 3, {"stride": 2, "dilation": 3}, 15),
        (5, 3, {"stride": 2, "padding": 1}, 9),
        (5, 3, {"stride": 2, "padding": 1, "output_padding": 1}, 10),
        (5, 3, {"stride": 1, "dilation": 3, "output_padding": 2}, 13),
        (5, 3, {"padding": [(1, 2)]}, 4),
        (5, 3, {"padding": [(-1, -2)]}, 10),
        (5, 3, {"padding": [(9, -4)]}, 2),
        (5, 3, {"padding": [(3, 4)]}, 0),
        (5, 3, {"output_shape": 4}, 4),
        (5, 3, {"output_shape": 40, "padding": 2}, 40),
        (5, 3, {"output_shape": 0}, 0),
        (5, 3, {"output_shape": 3, "padding": [(0, 1000)]}, 3),
        (1, 1, {"stride": 7, "dilation": 9}, 1),
    ],
)
def test_output_size(n, taps, geometry, m):
    assert conv_transpose(ones(n), ones(taps), **geometry).shape == (m,)
    assert conv_transpose(ones(2, n, n), ones(taps), **geometry).shape == (2, n, m)
    first = conv_transpose(ones(6, n), ones(6, 5, taps), channels="first", groups=3, **geometry)
    assert first.shape == (15, m)
    last = conv_transpose(ones(4, n, 6), ones(6, 5, taps), channels="last", groups=3, **geometry)
    assert last.shape == (4, m, 15)


@pytest.mark.parametrize(
    ("m", "taps", "geometry", "n"),
    [
        (7, 3, {}, 5),
        (10, 3, {"stride": 2}, 4),
        (11, 3, {"stride": 2}, 5),
        (11, 3, {"stride": 2, "padding": [(1, 2)]}, 6),
        (11, 3, {"stride": 4, "dilation": 2}, 2),
        (9, 3, {"padding": [(-3, -2)]}, 2),
    ],
)
def test_conv_size(m, taps, geometry, n):
    assert conv(ones(m), ones(taps), **geometry).shape == (n,)
    assert conv_transpose_adjoint(ones(m), ones(taps), **geometry).shape == (n,)
    y, w = ones(2, m, 15), ones(6, 5, taps)
    assert conv(y, w, channels="last", groups=3, **geometry).shape == (2, n, 6)


def test_adjoint_size_with_output_padding():
    assert conv_transpose_adjoint(ones(10), ones(3), stride=2, padding=1, output_padding=1).shape == (5,)
    assert conv_transpose_adjoint(ones(9), ones(3), stride=2, padding=1, output_padding=1).shape == (4,)
    assert conv_transpose_adjoint(ones(13), ones(3), dilation=3, output_padding=2).shape == (5,)
    assert conv_transpose_adjoint(ones(10), ones(3), stride=2, input_shape=9).shape == (9,)
    assert conv_transpose_adjoint(ones(10), ones(3), stride=2, input_shape=(9,), output_shape=10).shape == (9,)


def test_weight_adjoint_size():
    x, y = ones(4, 5), ones(4, 9)
    assert conv_transpose_weight_adjoint(x, y, kernel_shape=3).shape == (3,)
    assert conv_transpose_weight_adjoint(x, y, kernel_shape=(2, 3)).shape == (2, 3)
    assert conv_transpose_weight_adjoint(x, y, kernel_shape=3, axes=(0, 1)).shape == (3, 3)
    first = conv_transpose_weight_adjoint(ones(6, 5), ones(15, 9), kernel_shape=(3,), groups=3, channels="first")
    assert first.shape == (6, 5, 3)
    last = conv_transpose_weight_adjoint(ones(5, 6), ones(9, 15), kernel_shape=(3,), groups=3, channels="last")
    assert last.shape == (6, 5, 3)


def test_axes():
    x, w = ones(4, 5, 6), ones(2, 3)
    assert conv_transpose(x, w).shape == (4, 6, 8)
    assert conv_transpose(x, w, axes=(0, 2)).shape == (5, 5, 8)
    assert conv_transpose(x, w, axes=(2, 0)).shape == (6, 5, 7)
    assert conv_transpose(x, w, axes=(-1, -3)).shape == (6, 5, 7)
    assert conv_transpose(x, w[0], axes=1).shape == (4, 7, 6)
    assert conv_transpose(x, w, axes=(2, 0), stride=(1, 10)).shape == (33, 5, 7)


@pytest.mark.parametrize("make", [np.int8, np.uint64, np.array, lambda v: type("I", (), {"__index__": lambda _: v})()])
def test_whatever_is_an_index_counts_as_an_int(make):
    x, w = ones(2, 5), ones(3)
    kwargs = {"stride": make(3), "padding": make(1), "dilation": make(2), "output_padding": make(1), "workers": make(1)}
    assert conv_transpose(x, w, **kwargs, axes=make(0)).shape == (7, 5)
    assert conv_transpose(x, w, output_shape=[make(4)], padding=[(make(1), make(0))]).shape == (2, 4)
    assert conv_transpose_weight_adjoint(x, x, kernel_shape=make(2)).shape == (2,)
    assert conv_transpose_adjoint(x, w, input_shape=make(7), groups=make(1)).shape == (2, 7)


def test_any_iterable_serves_per_axis():
    x, w = ones(4, 5), ones(2, 3)
    expected = conv_transpose(x, w, stride=(2, 3), padding=((1, 0), (2, 2)))
    for kind in (list, iter, np.array):
        y = conv_transpose(x, w, stride=kind([2, 3]), padding=kind([[1, 0], [2, 2]]), axes=kind([0, 1]))
        np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(conv_transpose(x, w, stride=(2, 3), padding=[(1, 0), 2]), expected)


# ---- sizes of zero and sizes beyond reason -------------------------------------------------------------


def test_empty_batch():
    x = ones(0, 3, 5)
    assert conv_transpose(x, ones(2)).shape == (0, 3, 6)
    y = conv_transpose(x, ones(3, 4, 2), channels="first", bias=ones(4))
    assert y.shape == (0, 4, 6)
    assert conv_transpose_adjoint(y, ones(3, 4, 2), channels="first").shape == (0, 3, 5)
    w = conv_transpose_weight_adjoint(x, y, kernel_shape=(2,), channels="first")
    np.testing.assert_array_equal(w, np.zeros((3, 4, 2), np.float32))


@pytest.mark.parametrize("method", ["direct", "sparse", "fft"])
def test_no_channels(method):
    kwargs = {"channels": "first", "method": method}
    none_in = conv_transpose(ones(2, 0, 5), ones(0, 4, 2), bias=[1, 2, 3, 4], **kwargs)
    np.testing.assert_array_equal(none_in, np.broadcast_to(np.c_[1:5], (2, 4, 6)))
    np.testing.assert_array_equal(conv_transpose(ones(2, 0, 5), ones(0, 4, 2), **kwargs), np.zeros((2, 4, 6)))
    assert conv_transpose(ones(2, 3, 5), ones(3, 0, 2), **kwargs).shape == (2, 0, 6)
    none_out = conv(ones(2, 0, 6), ones(3, 0, 2), bias=[1, 2, 3], **kwargs)
    np.testing.assert_array_equal(none_out, np.broadcast_to(np.c_[1:4], (2, 3, 5)))
    np.testing.assert_array_equal(conv_transpose_adjoint(ones(2, 0, 6), ones(3, 0, 2), **kwargs), np.zeros((2, 3, 5)))
    assert conv_transpose_adjoint(ones(2, 4, 6), ones(0, 4, 2), **kwargs).shape == (2, 0, 5)
    assert conv_transpose_weight_adjoint(ones(2, 0, 5), ones(2, 4, 6), kernel_shape=[2], **kwargs).shape == (0, 4, 2)
    assert conv_transpose_weight_adjoint(ones(2, 3, 5), ones(2, 0, 6), kernel_shape=[2], **kwargs).shape == (3, 0, 2)


@pytest.mark.parametrize("method", ["direct", "sparse", "fft"])
def test_empty_window(method):
    assert conv_transpose(ones(2, 5), ones(3), output_shape=0, method=method).shape == (2, 0)
    x = conv_transpose_adjoint(ones(2, 0), ones(3), input_shape=5, method=method)
    np.testing.assert_array_equal(x, np.zeros((2, 5)))
    x = conv_transpose_adjoint(ones(2, 0), ones(3), padding=[(3, 4)], method=method)
    np.testing.assert_array_equal(x, np.zeros((2, 5)))
    w = conv_transpose_weight_adjoint(ones(2, 5), ones(2, 0), kernel_shape=3, method=method)
    np.testing.assert_array_equal(w, np.zeros(3))


@pytest.mark.parametrize("method", ["direct", "sparse", "fft"])
@pytest.mark.parametrize("channels", [None, "first"])
def test_huge_steps_cost_nothing(method, channels):
    """One sample takes no stride, and one tap no dilation, however large."""
    huge = 2**40
    lead = () if channels is None else (1, 1)
    w = np.array([1.0, 2.0, 3.0]).reshape(*lead, 3)
    one, x = ones(1, dtype=float), np.array([4.0, 5.0])
    kwargs = {"channels": channels, "method": method}

    def grow(a):  # a channel axis where there are channels
        return a.reshape(*lead[1:], -1)

    def check(result, expected):
        np.testing.assert_array_equal(result, np.reshape(expected, result.shape))

    check(conv_transpose(grow(one), w, stride=huge, **kwargs), [1, 2, 3])
    check(conv_transpose(grow(x), w[..., 1:2], dilation=huge, **kwargs), [8, 10])
    check(conv_transpose(grow(x), w, stride=huge, dilation=huge, output_shape=3, **kwargs), [4, 0, 0])
    check(conv_transpose(grow(x), w, padding=[(huge, -huge)], **kwargs), [0, 0, 0, 0])
    check(conv_transpose(grow(x), w, padding=[(-huge, huge)], **kwargs), [0, 0, 0, 0])
    check(conv(grow(np.arange(5.0)), w, stride=huge, **kwargs), [8])
    check(conv_transpose_adjoint(grow(np.arange(5.0)), w, stride=huge, input_shape=2, **kwargs), [8, 0])
    y = grow(np.arange(1.0, 6))
    check(
        conv_transpose_weight_adjoint(grow(x), y, kernel_shape=[3], stride=huge, dilation=huge, **kwargs),
        [4, 0, 0],
    )


@pytest.mark.parametrize("method", ["direct", "sparse", "fft"])
def test_window_far_out_on_a_huge_stride(method):
    x, w = np.array([4.0, 5.0]), np.array([1.0, 2.0])
    y = conv_transpose(x, w, stride=2**40, padding=[(2**40 - 1, -2)], method=method)
    np.testing.assert_array_equal(y, [0, 5, 10, 0, 0])


def test_size_past_the_address_space():
    x, w = ones(3), ones(2)
    with pytest.raises(ValueError, match="address space"):
        conv_transpose(x, w, stride=2**62)
    with pytest.raises(ValueError, match="address space"):
        conv_transpose(ones(2, 2), ones(1, 1), stride=2**40)
    with pytest.raises(ValueError, match="address space"):
        conv_transpose(ones(1), ones(2), dilation=2**64)
    with pytest.raises(ValueError, match="address space"):
        conv_transpose(ones(1, 1), ones(1, 1), output_shape=(2**32, 2**32))
    with pytest.raises(ValueError, match="address space"):
        conv_transpose_adjoint(ones(3), w, input_shape=2**63)
    with pytest.raises(ValueError, match="address space"):
        conv_transpose_weight_adjoint(ones(3, 3), ones(3, 3), kernel_shape=(2**32, 2**32))
    with pytest.raises(ValueError, match="address space"):
        conv_transpose_weight_adjoint(ones(3), ones(3), kernel_shape=(2**63,))
    with pytest.raises(ValueError, match="address space"):
        conv_transpose(x, w, padding=[(2**70, -(2**70))])


@pytest.mark.parametrize("method", ["direct", "sparse", "fft"])
def test_result_too_large_for_memory(method):
    with pytest.raises(MemoryError):
        conv_transpose(ones(2), ones(1), stride=2**50, method=method)
    with pytest.raises(MemoryError):
        conv_transpose_adjoint(ones(2), ones(1), input_shape=2**50, method=method)
    with pytest.raises(MemoryError):
        conv_transpose_weight_adjoint(ones(2), ones(2), kernel_shape=2**50, method=method)


# ---- errors ------------------------------------------------------------------------------------------

FIRST = {"channels": "first"}
LAST = {"channels": "last"}

FORWARD_ERRORS = [
    # shapes
    ((0,), (2,), {}, ValueError, r"x of shape \(0,\) must have at least one sample"),
    ((5,), (0,), {}, ValueError, r"w of shape \(0,\) must have at least one tap"),
    ((5, 4), (2, 0), {}, ValueError, r"w of shape \(2, 0\) must have at least one tap"),
    ((5,), (), {}, ValueError, r"w of shape \(\) must be .*K"),
    ((5,), (1, 1), FIRST, ValueError, r"w of shape \(1, 1\) must be \(C_in, C_out // groups, \*K\)"),
    ((5,), (2, 2), {}, ValueError, r"x of shape \(5,\) must have at least 2 axes"),
    ((), (2,), {}, ValueError, r"x of shape \(\) must have at least 1 axes"),
    ((5,), (5, 3, 2), FIRST, ValueError, r"x of shape \(5,\) must have at least 2 axes"),
    ((5, 6), (4, 3, 2), FIRST, ValueError, r"x of shape \(5, 6\) has 5 channels on axis 0: it must .*= 4"),
    ((5, 6), (4, 3, 2), LAST, ValueError, r"x of shape \(5, 6\) has 6 channels on axis 1: it must .*= 4"),
    # stride, dilation, output_padding, output_shape
    ((5,), (2,), {"stride": 0}, ValueError, "stride=0 on axis 0 must be at least 1"),
    ((5, 5), (2, 2), {"stride": (1, -2)}, ValueError, "stride=-2 on axis 1 must be at least 1"),
    ((5,), (2,), {"dilation": 0}, ValueError, "dilation=0 on axis 0 must be at least 1"),
    ((5,), (2,), {"output_padding": -1}, ValueError, "output_padding=-1 on axis 0 must be at least 0"),
    ((5,), (2,), {"output_shape": -1}, ValueError, "output_shape=-1 on axis 0 must be at least 0"),
    ((5,), (2,), {"stride": (1, 2)}, ValueError, r"stride=\(1, 2\) must .* each of the 1 axes"),
    ((5,), (2,), {"dilation": []}, ValueError, r"dilation=\[\] must .* each of the 1 axes"),
    ((5, 5), (2, 2), {"output_padding": [0]}, ValueError, r"output_padding=\[0\] must .* each of the 2 axes"),
    ((5,), (2,), {"output_shape": (4, 4)}, ValueError, r"output_shape=\(4, 4\) must .* each of the 1 axes"),
    ((5,), (2,), {"stride": 2, "output_padding": 2}, ValueError, "output_padding=2 on axis 0 must be smaller than"),
    ((5,), (2,), {"output_padding": 1}, ValueError, "output_padding=1 on axis 0 must be smaller than"),
    (
        (5, 5),
        (2, 2),
        {"stride": (4, 2), "dilation": (1, 3), "output_padding": 3},
        ValueError,
        "output_padding=3 on axis 1 must be smaller than the stride 2 or the dilation 3",
    ),
    (
        (5,),
        (2,),
        {"stride": 2, "output_padding": 1, "output_shape": 9},
        ValueError,
        r"output_padding=\(1,\) must be 0 when output_shape=\(9,\)",
    ),
    ((5,), (2,), {"stride": 1.0}, TypeError, "stride=1.0 must be an integer"),
    ((5,), (2,), {"stride": "1"}, TypeError, "stride='1' must be an integer"),
    ((5,), (2,), {"stride": None}, TypeError, "stride=None must be an integer"),
    ((5,), (2,), {"dilation": (1.5,)}, TypeError, "dilation=1.5 must be an integer"),
    ((5,), (2,), {"output_padding": 0.0}, TypeError, "output_padding=0.0 must be an integer"),
    ((5,), (2,), {"output_shape": 4.0}, TypeError, "output_shape=4.0 must be an integer"),
    # padding
    ((5,), (2,), {"padding": 4}, ValueError, r"padding=\(4, 4\) crops the output of axis 0 to size -2"),
    ((5, 5), (2, 2), {"padding": [0, (0, 7)]}, ValueError, r"padding=\(0, 7\) crops the output of axis 1 to size -1"),
    ((5,), (2,), {"padding": (1, 2)}, ValueError, r"padding=\(1, 2\) must .* each of the 1 axes"),
    ((5,), (2,), {"padding": [(1, 2, 3)]}, ValueError, r"padding=\(1, 2, 3\) on axis 0 must be .* \(low, high\)"),
    ((5,), (2,), {"padding": 1.0}, TypeError, "padding=1.0 must be an integer"),
    ((5,), (2,), {"padding": [(0, 1.0)]}, TypeError, "padding=1.0 must be an integer"),
    ((5,), (2,), {"padding": "same"}, TypeError, "padding='same' must be an integer"),
    # groups, channels, axes
    ((5,), (2,), {"groups": 2}, ValueError, "groups=2 must be 1 for plain arrays"),
    ((4, 5), (4, 3, 2), {"groups": 0, **FIRST}, ValueError, "groups=0 must be at least 1"),
    ((4, 5), (4, 3, 2), {"groups": 3, **FIRST}, ValueError, r"groups=3 must divide C_in = w.shape\[0\] = 4"),
    ((4, 5), (4, 3, 2), {"groups": 2.0, **FIRST}, TypeError, "groups=2.0 must be an integer"),
    ((5,), (2,), {"channels": "middle"}, ValueError, "channels='middle' must be None, 'first' or 'last'"),
    ((5,), (2,), {"channels": 1}, ValueError, "channels=1 must be None, 'first' or 'last'"),
    ((4, 5), (4, 3, 2), {"axes": 1, **FIRST}, ValueError, "axes=1 goes with plain arrays only.*channels='first'"),
    ((5, 5), (2, 2), {"axes": 1}, ValueError, r"axes=\(1,\) must name one axis for each of the 2 axes"),
    ((5, 5), (2, 2), {"axes": (1, 1)}, ValueError, r"axes=\(1, 1\) must not name an axis of x twice"),
    ((5, 5), (2, 2), {"axes": (1, -1)}, ValueError, r"axes=\(1, -1\) must not name an axis of x twice"),
    ((5, 5), (2,), {"axes": 2}, np.exceptions.AxisError, r"axes=\(2,\).* x with 2 axes"),
    ((5, 5), (2,), {"axes": -3}, np.exceptions.AxisError, r"axes=\(-3,\).* x with 2 axes"),
    ((5, 5), (2,), {"axes": 0.0}, TypeError, "axes=0.0 must be an integer"),
    # bias
    ((5,), (2,), {"bias": [1.0]}, ValueError, r"bias of shape \(1,\) must have shape \(\)"),
    ((4, 5), (4, 3, 2), {"bias": 1.0, **FIRST}, ValueError, r"bias of shape \(\) must have shape \(3,\)"),
    ((4, 5), (4, 3, 2), {"bias": np.ones(4), **FIRST}, ValueError, r"bias of shape \(4,\) must have shape \(3,\)"),
    ((4, 5), (4, 3, 2), {"bias": np.ones(3), "groups": 2, **FIRST}, ValueError, r"bias .* must have shape \(6,\)"),
    ((5,), (2,), {"bias": 1j}, TypeError, "bias of complex128 must .*float32"),
    ((5,), (2,), {"bias": "1"}, TypeError, "bias of <U1 must .*float32"),
    # method and workers
    ((5,), (2,), {"method": "magic"}, ValueError, "method='magic' must be one of 'auto', 'direct', "),
    ((5,), (2,), {"method": None}, TypeError, "method=None must be a string"),
    ((5,), (2,), {"workers": 0}, ValueError, "workers=0 must not be 0"),
    ((5,), (2,), {"workers": -(2**20)}, ValueError, rf"workers=-{2**20} must not be .*below -\d+"),
    ((5,), (2,), {"workers": 1.0}, TypeError, "workers=1.0 must be an integer or None"),
    # out
    ((5,), (2,), {"out": [0.0] * 6}, TypeError, "out=.* must be a numpy array"),
    ((5,), (2,), {"out": ones(5)}, ValueError, r"out of shape \(5,\) must have the shape of the result, \(6,\)"),
    ((5,), (2,), {"out": ones(1, 6)}, ValueError, r"out of shape \(1, 6\) must have the shape of the result"),
    ((5,), (2,), {"out": ones(6, dtype=float)}, TypeError, "out of float64 must have the dtype of the result, float32"),
    ((5,), (2,), {"out": ones(6, dtype=">f4")}, TypeError, "out of >f4 must have the dtype of the result, float32"),
]


@pytest.mark.parametrize(("x", "w", "kwargs", "error", "match"), FORWARD_ERRORS)
def test_forward_errors(x, w, kwargs, error, match):
    with pytest.raises(error, match=match):
        conv_transpose(ones(*x), ones(*w), **kwargs)


@pytest.mark.parametrize(
    ("y", "w", "kwargs", "error", "match"),
    [
        ((2,), (3,), {}, ValueError, r"y has 2 samples on axis 0.* at least dilation\*\(k - 1\) \+ 1 = 3"),
        ((5, 4), (3, 3), {"dilation": 2}, ValueError, r"y has 4 samples on axis 1.* = 5"),
        ((5,), (3,), {"padding": [(-2, -1)]}, ValueError, r"y has 5 samples on axis 0, 2 with padding=\(-2, -1\)"),
        ((0,), (1,), {}, ValueError, "y has 0 samples on axis 0"),
        ((5,), (3, 3), {}, ValueError, r"y of shape \(5,\) must have at least 2 axes"),
        ((4, 5), (4, 3, 2), FIRST, ValueError, r"y of shape \(4, 5\) has 4 channels on axis 0: .*= 3"),
        ((6, 5), (4, 3, 2), {"groups": 4, **FIRST}, ValueError, r"y of shape \(6, 5\) has 6 channels .*= 12"),
        ((5, 5), (2,), {"axes": 2}, np.exceptions.AxisError, r"axes=\(2,\).* y with 2 axes"),
        ((5,), (2,), {"stride": 0}, ValueError, "stride=0 on axis 0 must be at least 1"),
        ((5,), (2,), {"out": ones(5)}, ValueError, r"out of shape \(5,\) must have the shape of the result, \(4,\)"),
    ],
)
@pytest.mark.parametrize("function", [conv, conv_transpose_adjoint])
def test_gather_errors(function, y, w, kwargs, error, match):
    with pytest.raises(error, match=match):
        function(ones(*y), ones(*w), **kwargs)


def test_conv_bias_errors():
    with pytest.raises(ValueError, match=r"bias of shape \(3,\) must have shape \(4,\)"):
        conv(ones(3, 5), ones(4, 3, 2), bias=ones(3), channels="first")
    with pytest.raises(TypeError, match="bias of complex128 must"):
        conv(ones(5), ones(2), bias=1j)


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"output_shape": 6}, ValueError, r"output_shape=\(6,\) must be the spatial sizes of y, \(5,\)"),
        ({"output_shape": 5, "output_padding": 1, "stride": 2}, ValueError, r"output_padding=\(1,\) must be 0"),
        ({"input_shape": 0}, ValueError, "input_shape=0 on axis 0 must be at least 1"),
        ({"input_shape": (3, 3)}, ValueError, r"input_shape=\(3, 3\) must .* each of the 1 axes"),
        ({"input_shape": 3.0}, TypeError, "input_shape=3.0 must be an integer"),
        ({"output_padding": 2, "stride": 2}, ValueError, "output_padding=2 on axis 0 must be smaller"),
    ],
)
def test_adjoint_errors(kwargs, error, match):
    with pytest.raises(error, match=match):
        conv_transpose_adjoint(ones(5), ones(2), **kwargs)


@pytest.mark.parametrize(
    ("x", "y", "kwargs", "error", "match"),
    [
        ((5,), (6,), {"kernel_shape": 0}, ValueError, "kernel_shape=0 on axis 0 must be at least 1"),
        ((5,), (6,), {"kernel_shape": 2.0}, TypeError, "kernel_shape=2.0 must be an integer"),
        ((5,), (6,), {"kernel_shape": ()}, ValueError, "kernel_shape=.* must name at least one axis"),
        ((5,), (6,), {"kernel_shape": (2, 2)}, ValueError, r"x of shape \(5,\) must have at least 2 axes"),
        ((5,), (1, 6), {"kernel_shape": 2}, ValueError, "y has 2 axes and x has 1"),
        ((0,), (6,), {"kernel_shape": 2}, ValueError, r"x of shape \(0,\) must have at least one sample"),
        ((3, 5), (4, 6), {"kernel_shape": 2}, ValueError, r"x and y of shapes \(3, 5\) and \(4, 6\) must .* batch"),
        ((2, 3, 5), (3, 3, 6), {"kernel_shape": [2], **FIRST}, ValueError, "must have equal batch axes"),
        (
            (3, 5),
            (4, 6),
            {"kernel_shape": [2], "groups": 2, **FIRST},
            ValueError,
            "groups=2 .*divide.* 3 channels of x",
        ),
        ((4, 5), (3, 6), {"kernel_shape": [2], "groups": 2, **FIRST}, ValueError, "groups=2 .*divide.*3 channels of y"),
        ((4, 5), (3, 6), {"kernel_shape": 2, **FIRST}, ValueError, "kernel_shape=2 must .*channels='first'"),
        ((5,), (6,), {"kernel_shape": 2, "output_shape": 7}, ValueError, r"output_shape=\(7,\) must be .* y, \(6,\)"),
        ((5, 5), (6, 5), {"kernel_shape": (2, 2), "axes": 0}, ValueError, r"axes=\(0,\) must name one axis for each"),
        ((5,), (6,), {"kernel_shape": 2, "out": ones(3)}, ValueError, r"out of shape \(3,\) must .* \(2,\)"),
    ],
)
def test_weight_adjoint_errors(x, y, kwargs, error, match):
    with pytest.raises(error, match=match):
        conv_transpose_weight_adjoint(ones(*x), ones(*y), **kwargs)


def test_kernel_shape_is_required():
    with pytest.raises(TypeError, match="kernel_shape"):
        conv_transpose_weight_adjoint(ones(5), ones(6))


@pytest.mark.parametrize("function", [conv_transpose, conv, conv_transpose_adjoint])
def test_keywords_only(function):
    with pytest.raises(TypeError, match="positional"):
        function(ones(5), ones(2), 1)


@pytest.mark.parametrize(
    ("a", "b", "named"),
    [
        (np.int64, np.int64, "int64"),
        (bool, bool, "bool"),
        (np.uint8, np.int16, "int16"),
        (np.longdouble, np.float32, str(np.dtype(np.longdouble))),
        (object, np.float32, "object"),
        ("U3", np.float32, "U"),
    ],
)
def test_dtype_errors(a, b, named):
    if a is np.longdouble and np.dtype(a) == np.float64:
        pytest.skip("long double is double here")
    x, w = np.ones(5).astype(a), np.ones(2).astype(b)
    with pytest.raises(TypeError, match=f"x of .* and w of .*result of .*{named}"):
        conv_transpose(x, w)
    with pytest.raises(TypeError, match=f"y of .* and w of .*result of .*{named}"):
        conv(x, w)
    with pytest.raises(TypeError, match=f"y of .* and w of .*result of .*{named}"):
        conv_transpose_adjoint(x, w)
    with pytest.raises(TypeError, match=f"x of .* and y of .*result of .*{named}"):
        conv_transpose_weight_adjoint(x, w, kernel_shape=1)


# ---- the geometry object -----------------------------------------------------------------------------


def test_geometry_is_shared_and_frozen():
    from cytconv._geometry import Geometry

    a = Geometry.forward((2, 5, 6), (3, 3), stride=[2, 1], padding=1)
    b = Geometry.forward((2, 5, 6), (3, 3), stride=(np.int64(2), 1), padding=((1, 1), 1))
    assert a is b
    assert hash(a) == hash(b)
    with pytest.raises(AttributeError):
        a.groups = 2
    with pytest.raises(AttributeError):
        a.axes[0].stride = 3


def test_the_three_readings_agree_on_the_geometry():
    from cytconv._geometry import Geometry

    window = {"stride": (2, 3), "padding": ((1, 0), (2, 3)), "groups": 2, "channels": "last"}
    forward = Geometry.forward((7, 5, 6, 4), (4, 3, 3, 2), **window)
    adjoint = Geometry.adjoint(forward.y_shape, (4, 3, 3, 2), input_shape=(5, 6), **window)
    weight = Geometry.weight_adjoint((7, 5, 6, 4), forward.y_shape, kernel_shape=(3, 2), **window)
    assert forward == adjoint == weight
    assert forward.batch == (7,)
    assert (forward.channels_in, forward.channels_out) == (4, 6)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("m", [0, 1, 5, 12, 40])
@pytest.mark.parametrize("low", [-7, 0, 3, 20])
def test_reach_is_where_the_relation_holds(n, m, low):
    from cytconv._geometry import Axis

    axis = Axis(n, 3, m, stride=2, dilation=3, low=low)
    first, last = axis.reach()
    for k in range(3):
        meets = [i for i in range(n) if 0 <= i * 2 + k * 3 - low < m]
        assert list(range(first[k], last[k])) == meets
        if meets:
            outputs = range(m)[axis.outputs(k, int(first[k]), int(last[k]))]
            assert list(outputs) == [i * 2 + k * 3 - low for i in meets]
    assert axis.products() == (last - first).sum()


def test_public_names():
    for name in cytconv.__all__:
        assert hasattr(cytconv, name), name
    assert {"conv", "conv_transpose", "conv_transpose_adjoint", "conv_transpose_weight_adjoint"} <= set(cytconv.__all__)
    assert "show_config" in cytconv.__all__
