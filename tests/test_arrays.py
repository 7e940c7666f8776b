"""Arrays as they come: layouts, dtypes, ``out``, borders, and numbers that are not finite."""

from functools import cache

import numpy as np
import pytest
import reference
import scipy.sparse
from reference import DTYPES, assert_exact, integers

from cytconv import conv, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint

METHODS = ["direct", "sparse"]


@cache
def calls(dtype, channels="first", sizes=(7, 19), taps=(3, 2), stride=2, dilation=1, padding=((1, 0), (0, 1))):
    """One call of each function: ``(function, its two arrays, its keywords, what it must return)``."""
    rng = np.random.default_rng(7)
    groups = 1 if channels is None else 2
    kwargs = {"channels": channels, "groups": groups, "stride": stride, "dilation": dilation, "padding": padding}
    x_shape = {None: (2, *sizes), "first": (2, 4, *sizes), "last": (2, *sizes, 4)}[channels]
    x = integers(rng, x_shape, dtype)
    w = integers(rng, taps if channels is None else (4, 3, *taps), dtype)
    y = reference.conv_transpose(x, w, **kwargs)
    g = integers(rng, y.shape, dtype)
    kernel = {**kwargs, "kernel_shape": taps}
    for a in (x, w, g):
        a.flags.writeable = False
    return [
        (conv_transpose, x, w, kwargs, y),
        (conv, g, w, kwargs, reference.conv(g, w, **kwargs)),
        (conv_transpose_adjoint, g, w, kwargs, reference.conv_transpose_adjoint(g, w, **kwargs)),
        (conv_transpose_weight_adjoint, x, g, kernel, reference.conv_transpose_weight_adjoint(x, g, **kernel)),
    ]


def embed(a, layout, fill=0):
    """`a` in another layout, in a larger buffer filled with `fill`; and that buffer."""
    if layout == "C":
        buffer = np.full([n + 4 for n in a.shape], fill, a.dtype)
        view = buffer[(slice(2, -2),) * a.ndim]
    elif layout == "Fortran":
        buffer = np.full([n + 4 for n in a.shape[::-1]], fill, a.dtype)
        view = buffer[(slice(2, -2),) * a.ndim].T
    elif layout == "strided":
        buffer = np.full([2 * n + 3 for n in a.shape], fill, a.dtype)
        view = buffer[(slice(1, -2, 2),) * a.ndim]
    elif layout == "negative":
        buffer = np.full([n + 4 for n in a.shape], fill, a.dtype)
        view = buffer[(slice(-3, 1, -1),) * a.ndim]
    elif layout == "rolled":  # the last axis is the slowest
        buffer = np.full([n + 4 for n in (a.shape[-1], *a.shape[:-1])], fill, a.dtype)
        view = np.moveaxis(buffer[(slice(2, -2),) * a.ndim], 0, -1)
    elif layout == "unaligned":
        raw = np.zeros((a.size + 2) * a.itemsize + 1, np.uint8)
        buffer = raw[1:].view(a.dtype)
        buffer[...] = fill
        view = buffer[1:-1].reshape(a.shape)
        assert not view.flags.aligned
    assert view.shape == a.shape
    view[...] = a
    return view, buffer


LAYOUTS = ["C", "Fortran", "strided", "negative", "rolled", "unaligned"]


# ---- inputs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [None, "first", "last"])
def test_layouts_surrounded_by_nan(channels, layout, dtype, method):
    """Nothing outside of an input is ever multiplied, nor is an input written to."""
    for function, a, b, kwargs, expected in calls(dtype, channels):
        given = [embed(a, layout, np.nan)[0], embed(b, layout, np.nan)[0]]
        for array in given:
            array.flags.writeable = False
        assert_exact(function(*given, method=method, **kwargs), expected, dtype)
        assert_exact(given[0], a, dtype)
        assert_exact(given[1], b, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_rows_surrounded_by_nan(dtype):
    """Vector loads past the end of a row must not reach the sums."""
    for length in (15, 16, 17, 63, 209):
        for function, a, b, kwargs, expected in calls(dtype, None, sizes=(3, length), taps=(2, 3)):
            given = [embed(a, "C", np.nan)[0], embed(b, "C", np.nan)[0]]
            assert_exact(function(*given, **kwargs), expected, dtype)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_big_endian(dtype, method):
    swapped = np.dtype(dtype).newbyteorder(">" if np.little_endian else "<")
    for function, a, b, kwargs, expected in calls(dtype):
        actual = function(a.astype(swapped), b.astype(swapped), method=method, **kwargs)
        assert_exact(actual, expected, dtype)
        assert actual.dtype.isnative
        assert_exact(function(a, b.astype(swapped), method=method, **kwargs), expected, dtype)


@pytest.mark.parametrize("method", METHODS)
def test_zero_strides(method):
    """Broadcast inputs, every sample of which is one number in memory."""
    x, w = np.broadcast_to(np.float32(2), (3, 5)), np.broadcast_to(np.float32(3), (2,))
    assert_exact(conv_transpose(x, w, method=method), reference.conv_transpose(x, w), np.float32)
    y = np.broadcast_to(np.float32([[1], [2], [3]]), (3, 6))
    assert_exact(conv_transpose_adjoint(y, w, method=method), reference.conv_transpose_adjoint(y, w), np.float32)
    weights = conv_transpose_weight_adjoint(x, y, kernel_shape=2, method=method)
    assert_exact(weights, reference.conv_transpose_weight_adjoint(x, y, kernel_shape=2), np.float32)


def test_array_likes():
    expected = [1.0, 4.0, 4.0]
    for x in ([1.0, 2.0], (1.0, 2.0), memoryview(np.array([1.0, 2.0]))):
        assert_exact(conv_transpose(x, [1.0, 2.0]), expected, np.float64)
        assert_exact(conv_transpose(x, [1, 2]), expected, np.float64)
        assert_exact(conv(expected, x), [9.0, 12.0], np.float64)
        assert_exact(conv_transpose_adjoint(expected, x), [9.0, 12.0], np.float64)
        assert_exact(conv_transpose_weight_adjoint(x, expected, kernel_shape=2), [9.0, 12.0], np.float64)

    class Wrapped:
        def __array__(self, dtype=None, copy=None):
            return np.array([1, 2], np.float32)

    assert_exact(conv_transpose(Wrapped(), np.float32([1, 2])), expected, np.float32)
    assert_exact(conv_transpose([1j], [2.0], bias=[1][0]), [1 + 2j], np.complex128)


def test_result_owns_its_memory():
    for function, a, b, kwargs, _ in calls(np.float32):
        result = function(a, b, **kwargs)
        assert result.flags.c_contiguous and result.flags.writeable
        assert not np.shares_memory(result, a) and not np.shares_memory(result, b)


# ---- float16 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_float16(method):
    for function, a, b, kwargs, expected in calls(np.float16):
        assert_exact(function(a, b, method=method, **kwargs), expected, np.float16)
        out = np.full(expected.shape, np.nan, np.float16)
        assert function(a, b, method=method, out=out, **kwargs) is out
        assert_exact(out, expected, np.float16)


def test_float16_is_summed_in_float32():
    """Where float16 sums would stall at 2048 or overflow on the way."""
    assert_exact(conv(np.ones(4096, np.float16), np.ones(4096, np.float16)), [4096], np.float16)
    assert_exact(conv(np.float16([60000, 60000, -60000]), np.ones(3, np.float16)), [60000], np.float16)
    bias = conv_transpose(np.float16([60000]), np.float16([2]), bias=np.float16(-60000))
    assert_exact(bias, [60000], np.float16)


@pytest.mark.filterwarnings("error")
def test_float16_overflows_to_infinity():
    assert_exact(conv_transpose(np.float16([300, -300]), np.float16([300])), [np.inf, -np.inf], np.float16)


# ---- out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [None, "first", "last"])
def test_out(channels, layout, dtype, method):
    """Written completely, returned itself, and not one byte around it touched."""
    for function, a, b, kwargs, expected in calls(dtype, channels):
        garbage = np.full(expected.shape, np.nan, dtype)
        out, buffer = embed(garbage, layout, 7)
        assert function(a, b, method=method, out=out, **kwargs) is out
        assert_exact(out, expected, dtype)
        out[...] = 7
        assert (buffer == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_of_every_length(rng, dtype):
    """Blocks of outputs are stored whole: the end of a row must not spill."""
    for length in (1, 2, 15, 16, 17, 31, 33, 63, 191, 193, 209):
        for stride in (1, 2):
            x, w = integers(rng, (2, 3, length), dtype), integers(rng, (3, 5, 3), dtype)
            kwargs = {"stride": stride, "channels": "first"}
            expected = reference.conv_transpose(x, w, **kwargs)
            out, buffer = embed(np.full(expected.shape, np.nan, dtype), "C", 7)
            assert_exact(conv_transpose(x, w, out=out, **kwargs), expected, dtype)
            out[...] = 7
            assert (buffer == 7).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("geometry", [{"stride": 5}, {"padding": -9}, {"output_shape": 60}, {"padding": [(90, -90)]}])
def test_out_is_written_where_no_sample_reaches(rng, geometry, method):
    x, w = integers(rng, (2, 3, 9), np.float32), integers(rng, (3, 4, 2), np.float32)
    for bias in (None, [1, 2, 3, 4]):
        kwargs = {"channels": "first", "bias": bias, **geometry}
        expected = reference.conv_transpose(x, w, **kwargs)
        out = np.full(expected.shape, np.nan, np.float32)
        assert_exact(conv_transpose(x, w, method=method, out=out, **kwargs), expected, np.float32)
    adjoint = {"channels": "first", "input_shape": 30, "method": method, **geometry}
    out = np.full((2, 3, 30), np.nan, np.float32)
    result = conv_transpose_adjoint(expected.astype(np.float32), w, out=out, **adjoint)
    del adjoint["method"]
    assert_exact(result, reference.conv_transpose_adjoint(expected, w, **adjoint), np.float32)
    taps = {"channels": "first", "kernel_shape": [30], **geometry}
    out = np.full((3, 4, 30), np.nan, np.float32)
    y = expected.astype(np.float32)
    result = conv_transpose_weight_adjoint(x, y, out=out, method=method, **taps)
    assert_exact(result, reference.conv_transpose_weight_adjoint(x, y, **taps), np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_empty_out(method):
    out = np.empty((0, 6), np.float32)
    assert conv_transpose(np.ones((0, 5), np.float32), np.ones(2, np.float32), out=out, method=method) is out
    out = np.full((2, 4, 6), np.nan, np.float32)
    x, w = np.ones((2, 0, 5), np.float32), np.ones((0, 4, 2), np.float32)
    assert conv_transpose(x, w, channels="first", out=out, method=method) is out
    assert (out == 0).all()


def test_out_may_not_overlap_an_input():
    buffer = np.ones(40, np.float32)
    x, w, bias = buffer[:5], buffer[10:13], buffer[20:21].reshape(())
    before = buffer.copy()

    def refused(name, function, *args, **kwargs):
        with pytest.raises(ValueError, match=f"out must not overlap {name}"):
            function(*args, **kwargs)
        np.testing.assert_array_equal(buffer, before)

    refused("x", conv_transpose, x, w, out=buffer[4:11])
    refused("x", conv_transpose, x, w, out=buffer[:7])
    refused("w", conv_transpose, x, w, out=buffer[12:19])
    refused("w", conv_transpose, x, w, out=buffer[16:9:-1])
    refused("bias", conv_transpose, x, w, bias=bias, out=buffer[20:27])
    refused("x", conv_transpose, x, buffer[10:11], out=x)  # of the same shape: the same array
    refused("y", conv, x, w, out=buffer[2:5])
    refused("w", conv, x, w, out=buffer[12:15])
    refused("bias", conv, x, w, bias=bias, out=buffer[18:21])
    refused("y", conv_transpose_adjoint, x, w, out=buffer[2:5])
    refused("w", conv_transpose_adjoint, x, w, out=buffer[12:15])
    refused("x", conv_transpose_weight_adjoint, x, w, kernel_shape=2, out=buffer[4:6])
    refused("y", conv_transpose_weight_adjoint, x, w, kernel_shape=2, out=buffer[12:14])


def test_out_may_lie_between_the_samples_of_an_input():
    buffer = np.ones((6, 2), np.float32)
    x, out = buffer[:5, 0], buffer[:, 1]
    assert_exact(conv_transpose(x, np.ones(2, np.float32), out=out), [1, 2, 2, 2, 2, 1], np.float32)
    assert_exact(x, np.ones(5), np.float32)


def test_out_that_cannot_hold_the_result():
    x, w = np.ones(5, np.float32), np.ones(2, np.float32)
    readonly = np.ones(6, np.float32)
    readonly.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writeable"):
        conv_transpose(x, w, out=readonly)
    same = np.lib.stride_tricks.as_strided(np.ones(1, np.float32), (6,), (0,))
    with pytest.raises(ValueError, match=r"out of shape \(6,\) with strides \(0,\) must not overlap itself"):
        conv_transpose(x, w, out=same)
    apart = np.lib.stride_tricks.as_strided(np.full(9, np.nan, np.float32), (2, 3), (12, 8))  # 0 2 4 and 3 5 7
    conv_transpose(np.ones((2, 2), np.float32), np.ones((1, 2), np.float32), out=apart)
    assert apart.tolist() == [[1, 2, 1], [1, 2, 1]]
    windows = np.lib.stride_tricks.sliding_window_view(np.zeros(8, np.float32), 6, writeable=True)[:2]
    with pytest.raises(ValueError, match="must not overlap itself"):
        conv_transpose(np.ones((2, 5), np.float32), w, out=windows)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stride": 0},
        {"padding": 9},
        {"channels": "middle"},
        {"bias": [1.0]},
        {"bias": 1j},
        {"workers": 0},
        {"workers": 1.5},
        {"method": "magic"},
        {"groups": 2},
        {"axes": 3},
        {"output_padding": 1},
        {"output_shape": 7},
    ],
    ids=str,
)
def test_nothing_is_written_on_error(wrong):
    out = np.full(6, np.nan)
    with pytest.raises((ValueError, TypeError)):
        conv_transpose(np.ones(5), np.ones(2), out=out, **wrong)
    assert np.isnan(out).all()
    if not {"bias", "padding", "output_shape"} & set(wrong):  # these are right, or unknown, there
        x = np.full(4, np.nan)
        with pytest.raises((ValueError, TypeError)):
            conv_transpose_adjoint(np.ones(5), np.ones(2), out=x, input_shape=4, **wrong)
        assert np.isnan(x).all()
        w = np.full(2, np.nan)
        with pytest.raises((ValueError, TypeError)):
            conv_transpose_weight_adjoint(np.ones(5), np.ones(5), kernel_shape=2, out=w, **wrong)
        assert np.isnan(w).all()


# ---- numbers that are not finite ---------------------------------------------------------------------

BAD = [np.nan, np.inf, -np.inf]


def assert_same_reach(actual, expected):
    """Equal numbers; where not finite, a complex one in either part, since its parts mix."""
    if np.iscomplexobj(expected):
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(actual), finite)
        actual, expected = actual[finite], expected[finite]
    np.testing.assert_array_equal(actual, expected)


NONFINITE = [
    # sizes, taps, keywords
    ((37,), (3,), {"stride": 2}),  # one phase has fewer taps than the other
    ((37,), (3,), {"stride": 4, "dilation": 2}),  # some phases have no tap
    ((6, 35), (3, 2), {"padding": 1, "stride": 1}),
    ((5, 18), (2, 4), {"stride": (2, 3), "dilation": (2, 1), "padding": ((1, 0), (0, 2))}),
    ((3, 4, 5), (2, 2, 3), {"stride": 2}),
    ((210,), (5,), {"padding": 2, "stride": 1}),
]


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [None, "first"])
@pytest.mark.parametrize(("sizes", "taps", "geometry"), NONFINITE, ids=str)
def test_bad_numbers_reach_exactly_their_windows(rng, sizes, taps, geometry, channels, dtype, method):
    """Also through weights of zero, and from infinite weights; never through padding or other groups."""
    reached = 0
    for spoilt in ("first argument", "second argument", "both"):
        for function, a, b, kwargs, _ in calls(dtype, channels, sizes, taps, **{"padding": 0, **geometry}):
            a, b = a.copy(), b.copy()
            if spoilt != "second argument":
                where = rng.integers(a.size, size=2)
                a.flat[where] = rng.choice(BAD, 2)
            if spoilt != "first argument":
                b.flat[rng.integers(b.size)] = rng.choice(BAD)
            with np.errstate(invalid="ignore"):
                expected = getattr(reference, function.__name__)(a, b, **kwargs)
                actual = function(a, b, method=method, **kwargs)
            assert_same_reach(actual, expected)
            reached += (~np.isfinite(expected)).sum()
    assert reached


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_nan_in_many_channels(rng, dtype, method):
    """Blocks of channels, taps and positions are padded: what pads them must not meet the NaN."""
    x, w = integers(rng, (2, 34, 9, 21), dtype), integers(rng, (34, 13, 3, 3), dtype)
    x[1, 20, 4, 20] = np.nan
    y = conv_transpose(x, w, channels="first", groups=2, stride=2, method=method)
    bad = np.zeros(y.shape, bool)
    bad[1, 13:, 8:11, 40:43] = True
    np.testing.assert_array_equal(np.isnan(y), bad)
    g = integers(rng, y.shape, dtype)
    g[0, 3, 10, 42] = np.nan
    bad = np.zeros(x.shape, bool)
    bad[0, :17, 4:6, 20] = True
    adjoint = conv_transpose_adjoint(g, w, channels="first", groups=2, stride=2, method=method)
    np.testing.assert_array_equal(np.isnan(adjoint), bad)
    bad = np.zeros(w.shape, bool)
    bad[20, :, :, :] = True  # x[20] with every output of its group
    bad[:17, 3, ::2, 2] = True  # g[3] at (10, 42) meets x at (5 or 4, 20) through taps (0 or 2, 2)
    weights = conv_transpose_weight_adjoint(
        x, g, kernel_shape=(3, 3), channels="first", groups=2, stride=2, method=method
    )
    np.testing.assert_array_equal(np.isnan(weights), bad)


@pytest.mark.parametrize("method", ["direct", "auto"])
def test_infinite_numbers_that_are_broadcast(method):
    """A sum of products is another one than the product by a sum, where they are infinite."""
    x, w = np.tile([-1.0, 2.0], (5, 1)), np.broadcast_to(np.inf, (2, 1, 2))
    y = conv_transpose(x, w, channels="last", method=method)
    np.testing.assert_array_equal(y, conv_transpose(x, w.copy(), channels="last", method=method))
    assert np.isnan(y).all()
    x, y = np.array([-1.0, 2.0, 3.0]), np.broadcast_to(np.inf, (4,))
    assert np.isnan(conv_transpose_weight_adjoint(x, y, kernel_shape=2, method=method)).all()


@pytest.mark.parametrize("method", METHODS)
def test_infinite_bias(method):
    x, w = np.ones((2, 5), np.float32), np.ones((2, 3, 2), np.float32)
    y = conv_transpose(x, w, bias=[np.inf, np.nan, 1], channels="first", method=method)
    assert np.isposinf(y[0]).all() and np.isnan(y[1]).all() and np.isfinite(y[2]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_subnormal_numbers_are_kept(dtype):
    """No flush to zero, here or in whatever runs after."""
    tiny = np.finfo(dtype).smallest_subnormal
    y = conv_transpose(np.full(40, tiny), np.ones(1, dtype), workers=2)
    np.testing.assert_array_equal(y, np.full(40, tiny))
    assert np.finfo(dtype).smallest_normal / dtype(2) > 0


# ---- numbers that are no news ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["direct", "sparse", "fft", "auto"])
@pytest.mark.parametrize(("x", "w"), [([np.inf, 1, 2], [1.0]), ([np.inf], [1.0, 2, 3]), ([1e308, 1, 2], [1.0, 9])])
def test_quiet_whatever_the_bias(x, w, method):
    """An operator that raises half way would leave `out` half written."""
    bias = -np.inf if np.isinf(x[0]) else 1e308
    with np.errstate(all="ignore"):
        expected = np.convolve(x, w) + bias
    out = np.full(expected.shape, 7.0)
    with np.errstate(all="raise"):
        conv_transpose(x, w, bias=bias, method=method, out=out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_as_many_axes_as_there_may_be(dtype, method):
    x, w = np.full((1,) * 59, 2, dtype), np.full((1,) * 59, 3, dtype)
    assert conv_transpose(x, w, method=method).item() == 6
    assert conv_transpose_adjoint(x, w, method=method).item() == 6
    with pytest.raises(ValueError, match="x of shape .* at most 59 axes"):
        conv_transpose(x[None], w)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv_transpose([[1.0], [1.0, 2.0]], [1.0]), "x must be an array"),
        (lambda: conv_transpose([1.0], [[1.0], [1.0, 2.0]]), "w must be an array"),
        (lambda: conv_transpose(scipy.sparse.eye_array(3), np.ones((1, 1))), r"x must be a dense array: .*x.toarray"),
        (lambda: conv_transpose(np.ones((2, 2)), np.ones((2, 2)), output_shape=2**31), "y of shape"),
        (lambda: conv_transpose_weight_adjoint(np.ones(1), np.ones(1), kernel_shape=2**62), "w of shape"),
        (lambda: conv_transpose([1.0], [1.0], groups=1.5), "groups=1.5 must be an integer$"),
        (lambda: conv_transpose([1.0], [1.0], channels=np.array(["first", "last"])), "channels=array"),
    ],
)
def test_messages_name_the_argument(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
