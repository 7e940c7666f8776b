"""What holds for every geometry: hypothesis looks for one where it does not."""

import numpy as np
import pytest
import reference
import scipy.signal
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from reference import DTYPES, assert_exact, integers

from cytconv import _direct, conv, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint

METHODS = ["direct", "sparse"]  # exact on whole numbers


@st.composite
def problems(draw, max_ndim=4):
    """``(x, w, y, keywords)`` of whole numbers, where y has the shape of the output."""
    ndim = draw(st.integers(1, max_ndim))
    size = {1: 40, 2: 9, 3: 4, 4: 3}[ndim]

    def per_axis(values):
        return tuple(draw(values) for _ in range(ndim))

    n, taps = per_axis(st.integers(1, size)), per_axis(st.integers(1, min(size, 6)))
    stride, dilation = per_axis(st.integers(1, 5)), per_axis(st.integers(1, 4))
    low, high = per_axis(st.integers(-3, 6)), per_axis(st.integers(-3, 6))
    kwargs = {"stride": stride, "dilation": dilation, "padding": tuple(zip(low, high, strict=True))}
    full = [
        (n_ - 1) * s + d * (t - 1) + 1 - lo - hi
        for n_, s, t, d, lo, hi in zip(n, stride, taps, dilation, low, high, strict=True)
    ]
    if draw(st.booleans()):
        kwargs["output_padding"] = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
        m = [f + e for f, e in zip(full, kwargs["output_padding"], strict=True)]
    elif draw(st.booleans()):
        m = kwargs["output_shape"] = per_axis(st.integers(0, 20 if ndim < 3 else 5))
    else:
        m = full
    assume(min(m) >= 0)

    channels = draw(st.sampled_from([None, "first", "last"]))
    batch = tuple(draw(st.lists(st.integers(0 if channels else 1, 3), max_size=2)))
    w_shape = taps
    if channels is None:
        order = draw(st.permutations(range(len(batch) + ndim)))
        x_shape, y_shape = [0] * len(order), [0] * len(order)
        for axis, a, b in zip(order, (*n, *batch), (*m, *batch), strict=True):
            x_shape[axis], y_shape[axis] = a, b
        kwargs["axes"] = order[:ndim]
    else:
        groups = draw(st.integers(1, 3))
        c_in, c_out = groups * draw(st.integers(1, 4)), draw(st.integers(1, 7))
        w_shape = (c_in, c_out, *taps)
        x_shape = (*batch, c_in, *n) if channels == "first" else (*batch, *n, c_in)
        y_shape = (*batch, c_out * groups, *m) if channels == "first" else (*batch, *m, c_out * groups)
        kwargs |= {"channels": channels, "groups": groups}
    dtype = draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x, w, y = (integers(rng, shape, dtype) for shape in (x_shape, w_shape, y_shape))
    return x, w, y, kwargs, n, taps


@settings(max_examples=100)
@given(problems(), st.sampled_from(METHODS), st.sampled_from([1, 2, 3]))
def test_definition(problem, method, workers):
    x, w, y, kwargs, n, taps = problem
    run = {"method": method, "workers": workers}
    expected = reference.conv_transpose(x, w, **kwargs)
    assert expected.shape == y.shape
    assert_exact(conv_transpose(x, w, **run, **kwargs), expected, x.dtype)
    expected = reference.conv_transpose_adjoint(y, w, input_shape=n, **kwargs)
    assert_exact(conv_transpose_adjoint(y, w, input_shape=n, **run, **kwargs), expected, x.dtype)
    expected = reference.conv_transpose_weight_adjoint(x, y, kernel_shape=taps, **kwargs)
    assert_exact(conv_transpose_weight_adjoint(x, y, kernel_shape=taps, **run, **kwargs), expected, x.dtype)


@settings(max_examples=100)
@given(problems(), st.sampled_from(METHODS))
def test_dot(problem, method):
    x, w, y, kwargs, n, taps = problem
    kwargs["method"] = method
    dot = np.vdot(conv_transpose(x, w, **kwargs), y)
    assert dot == np.vdot(x, conv_transpose_adjoint(y, w, input_shape=n, **kwargs))
    assert dot == np.vdot(w, conv_transpose_weight_adjoint(x, y, kernel_shape=taps, **kwargs))


@settings(max_examples=100)
@given(problems(), st.sampled_from([1, 2, 3]))
def test_fewer_samples_than_taps(problem, workers):
    """Samples and taps change places wherever there are more taps of a phase than samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_direct, "SWAPPED", dict.fromkeys(_direct.SWAPPED, 1))
        patch.setattr(_direct, "SWAPPED_LEAST", 0)
        test_definition.hypothesis.inner_test(problem, "direct", workers)


@settings(max_examples=100)
@given(problems(), st.sampled_from([1, 2, 3]))
def test_transforms(problem, workers):
    """Method "fft", within its bound, and its adjoints of each other."""
    x, w, y, kwargs, n, taps = problem
    run = {"method": "fft", "workers": workers, **kwargs}
    ax = conv_transpose(x, w, **run)
    ahy = conv_transpose_adjoint(y, w, input_shape=n, **run)
    xhy = conv_transpose_weight_adjoint(x, y, kernel_shape=taps, **run)
    norms = [max(float(np.linalg.norm(a)), 1) for a in (x, w, y)]
    eps = 200 * np.finfo(x.dtype).eps
    for actual, expected, norm in (
        (ax, reference.conv_transpose(x, w, **kwargs), norms[0] * norms[1]),
        (ahy, reference.conv_transpose_adjoint(y, w, input_shape=n, **kwargs), norms[2] * norms[1]),
        (xhy, reference.conv_transpose_weight_adjoint(x, y, kernel_shape=taps, **kwargs), norms[0] * norms[2]),
    ):
        assert (actual.shape, actual.dtype) == (expected.shape, x.dtype)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=eps * norm)
    dot, rounding = np.vdot(ax, y), eps * np.prod(norms)
    np.testing.assert_allclose(np.vdot(x, ahy), dot, rtol=0, atol=rounding)
    np.testing.assert_allclose(np.vdot(w, xhy), dot, rtol=0, atol=rounding)


@settings(max_examples=50)
@given(problems())
def test_linear_in_both_arguments(problem):
    x, w, _, kwargs, _, _ = problem
    x2, w2 = x[::-1].copy(), w[::-1].copy()
    if x.dtype.kind == "c":
        x2 = x2 * 1j
    y = 2 * conv_transpose(x, w, **kwargs)
    in_x = conv_transpose(2 * x - 3 * x2, w, **kwargs)
    np.testing.assert_array_equal(in_x, y - 3 * conv_transpose(x2, w, **kwargs))
    in_w = conv_transpose(x, 2 * w - 3 * w2, **kwargs)
    np.testing.assert_array_equal(in_w, y - 3 * conv_transpose(x, w2, **kwargs))


@settings(max_examples=50)
@given(problems())
def test_conv_is_the_adjoint_of_the_conjugate(problem):
    _, w, y, kwargs, _, _ = problem
    kwargs = {k: v for k, v in kwargs.items() if k not in ("output_padding", "output_shape")}
    try:
        x = conv(y, w, **kwargs)
    except ValueError as error:
        assert "the kernel needs at least" in str(error)
        with pytest.raises(ValueError, match="the kernel needs at least"):
            conv_transpose_adjoint(y, w.conj(), **kwargs)
    else:
        assert_exact(x, conv_transpose_adjoint(y, w.conj(), **kwargs), y.dtype)


@settings(max_examples=50)
@given(problems())
def test_channels_first_and_last_are_one(problem):
    x, w, _, kwargs, _, taps = problem
    assume(kwargs.get("channels") == "first")
    there = -1 - len(taps)
    first = conv_transpose(x, w, **kwargs)
    last = conv_transpose(np.moveaxis(x, there, -1), w, **{**kwargs, "channels": "last"})
    assert_exact(np.moveaxis(last, -1, there), first, x.dtype)


@st.composite
def pairs(draw):
    """Two arrays with as many axes, the first the larger one."""
    ndim = draw(st.integers(1, 3))
    n = [draw(st.integers(1, 7)) for _ in range(ndim)]
    taps = [draw(st.integers(1, size)) for size in n]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(DTYPES))
    return integers(rng, n, dtype), integers(rng, taps, dtype)


@settings(max_examples=50)
@given(pairs())
def test_scipy(pair):
    """The identities of the documentation, and that a kernel and an image may change places."""
    a, w = pair
    full = scipy.signal.convolve(a, w, "full", method="direct")
    assert_exact(conv_transpose(a, w), full, a.dtype)
    assert_exact(conv_transpose(w, a), full, a.dtype)
    assert_exact(conv_transpose_adjoint(a, w), scipy.signal.correlate(a, w, "valid", method="direct"), a.dtype)


@settings(max_examples=50)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 2**61),
    st.integers(1, 2**61),
    st.integers(-(2**61), 2**61),
    st.integers(0, 12),
    st.sampled_from(METHODS),
)
@example(1, 2, 2**40, 1, 0, 5, "direct")
@example(1, 2, 2**40, 2**40, 2**40, 5, "direct")
@example(3, 2, 2**40, 1, 2**41 - 2, 5, "sparse")
@example(3, 2, 2, 2**40, 2**40, 12, "direct")
@example(1, 4, 1, 2**61, 0, 5, "direct")
@example(4, 1, 2**61, 1, 0, 5, "sparse")
def test_steps_of_any_size(n, taps, stride, dilation, low, m, method):
    """Work follows the samples and the taps, however far apart; past the address space is a ValueError."""
    x, w, y = np.arange(1.0, n + 1), np.arange(-2.0, taps - 2), np.arange(1.0, m + 1)
    kwargs = {"stride": stride, "dilation": dilation, "padding": [(low, 0)], "output_shape": m}
    run = {"method": method, **kwargs}
    reach = (n - 1) * stride + (taps - 1) * dilation + m
    try:
        actual = conv_transpose(x, w, **run)
    except ValueError as error:
        assert "address space" in str(error)
        assert reach + stride + dilation + abs(low) >= 2**62
        return
    assert reach < 2**62
    assert_exact(actual, reference.conv_transpose(x, w, **kwargs), np.float64)
    expected = reference.conv_transpose_adjoint(y, w, input_shape=n, **kwargs)
    assert_exact(conv_transpose_adjoint(y, w, input_shape=n, **run), expected, np.float64)
    expected = reference.conv_transpose_weight_adjoint(x, y, kernel_shape=taps, **kwargs)
    assert_exact(conv_transpose_weight_adjoint(x, y, kernel_shape=taps, **run), expected, np.float64)


@settings(max_examples=50)
@given(st.lists(st.integers(2, 2**62), min_size=1, max_size=5))
def test_size_products_past_the_address_space(sizes):
    """Python's integers do not overflow, and so neither may the product of the sizes."""
    assume(np.prod(np.array(sizes, object)) > 2**63)
    with pytest.raises(ValueError, match="address space"):
        conv_transpose(np.ones([1] * len(sizes)), np.ones([1] * len(sizes)), output_shape=sizes)
    with pytest.raises(ValueError, match="address space"):
        conv_transpose_adjoint(np.ones([1] * len(sizes)), np.ones([1] * len(sizes)), input_shape=sizes)
    with pytest.raises(ValueError, match="address space"):
        conv_transpose_weight_adjoint(np.ones([1] * len(sizes)), np.ones([1] * len(sizes)), kernel_shape=sizes)
