"""Method "fft" against the definition: tiles and their seams, phases, and numbers that transforms would spread."""

import math
import pickle

import numpy as np
import pytest
import reference
import scipy
from reference import DTYPES, uniform

from cytconv import (
    ConvTranspose,
    _fft,
    _spectra,
    _tiles,
    conv_transpose,
    conv_transpose_adjoint,
    conv_transpose_weight_adjoint,
)
from cytconv._geometry import Axis

CASES = [
    # x, w, keywords
    ((40,), (9,), {}),
    ((1,), (9,), {"stride": 3}),
    ((3, 40), (1,), {"stride": 3, "dilation": 4}),
    ((2, 50), (7,), {"stride": 3}),
    ((50,), (5,), {"stride": 7}),
    ((50,), (2,), {"stride": 9, "padding": [(5, -4)]}),
    ((60,), (11,), {"dilation": 3}),
    ((60,), (11,), {"stride": 4, "dilation": 6}),
    ((60,), (11,), {"stride": 6, "dilation": 4, "padding": [(7, 3)]}),
    ((6,), (90,), {"stride": 2}),
    ((50,), (9,), {"padding": [(-20, 30)]}),
    ((50,), (9,), {"padding": [(30, -40)], "stride": 2}),
    ((50,), (9,), {"output_shape": 200, "stride": 3, "padding": 4}),
    ((40, 30), (1, 3), {"padding": ((20, 0), (0, 0))}),
    ((50,), (9,), {"output_shape": 7, "stride": 3, "padding": 60}),
    ((2, 21, 30), (5, 4), {"stride": (2, 1), "padding": ((1, 2), (-3, 0))}),
    ((21, 2, 30), (4, 5), {"axes": (2, 0), "stride": (1, 3)}),
    ((2, 3, 4, 19, 12), (4, 3, 5, 3), {"channels": "first", "groups": 2, "stride": 2, "padding": 1}),
    ((2, 19, 12, 6), (6, 1, 5, 3), {"channels": "last", "groups": 6, "dilation": (1, 2)}),
    ((2, 19, 12, 3), (3, 4, 5, 3), {"channels": "last", "stride": (1, 2)}),
    ((6, 1, 9), (1, 5, 4), {"channels": "first", "stride": 2}),
    ((6, 7, 8), (3, 2, 3), {"stride": (2, 1, 3)}),
    ((3, 4, 3, 4), (2, 1, 2, 2), {"stride": (1, 2, 1, 1)}),
    ((2, 3, 2, 3, 2), (2, 1, 2, 2, 1), {"stride": (2, 1, 1, 1, 2), "padding": (0, 0, 1, 0, 0)}),
]


def small_tiles(monkeypatch):
    """Many tiles along every axis that is long enough, a few of them at once."""

    def lengths(taps, longest, shortest, real):
        block = 6 if longest > 6 else max(longest, 1)
        size = max(block + taps - 1, shortest if block == longest else 0)
        return [(scipy.fft.next_fast_len(size, real=True), block)]

    monkeypatch.setattr(_tiles, "_lengths", lengths)
    monkeypatch.setattr(_tiles, "TASK", 2**9)


def many_parts(monkeypatch):
    """Threads, and as many parts of rows and frequencies as there can be."""
    monkeypatch.setattr(_tiles, "THREAD", 0)
    monkeypatch.setattr(_spectra, "AT_ONCE", 1)
    monkeypatch.setattr(_spectra, "SIDE_BY_SIDE", 1)
    monkeypatch.setattr(_spectra, "NARROW", 1)


@pytest.fixture(params=["usual tiles", "small tiles", "pairs of channels", "matrices of channels", "many parts"])
def only_transforms(request, monkeypatch):
    """No other method helps out, whatever the cost."""
    monkeypatch.setattr(_tiles, "LITTLE", math.inf)
    monkeypatch.setattr(_fft, "Direct", lambda *_: None)
    monkeypatch.setattr(_fft, "plan_of", _tiles.plan_of.__wrapped__)
    if request.param == "small tiles":
        small_tiles(monkeypatch)
    if request.param == "many parts":
        many_parts(monkeypatch)
    if "channels" in request.param:
        monkeypatch.setattr(_spectra, "COPY", math.inf if request.param == "pairs of channels" else 0)


def bound(a, b, size, channels):
    """The documented bound on the error of any result."""
    eps = np.finfo(a.dtype).eps
    return eps * (6 * math.log2(max(size, 2)) + channels) * float(np.linalg.norm(a)) * float(np.linalg.norm(b))


def check(rng, x_shape, w_shape, kwargs, dtype, run):
    """All three readings, into results that hold garbage."""
    x, w = uniform(rng, x_shape, dtype), uniform(rng, w_shape, dtype)
    channels = kwargs.get("channels")
    ndim = w.ndim - (0 if channels is None else 2)
    spatial = reference.Layout(ndim, 1, channels, kwargs.get("axes")).spatial
    sizes = tuple(x.shape[a] for a in spatial)
    y = reference.conv_transpose(x, w, **kwargs)
    g = uniform(rng, y.shape, dtype)
    per_group = w.shape[:2] if channels else (1, 1)
    size = 2 * math.prod(n + t for n, t in zip(sizes, w.shape[-ndim:], strict=True))
    for function, a, b, expected, extra, terms in (
        (conv_transpose, x, w, y, {}, per_group[0]),
        (
            conv_transpose_adjoint,
            g,
            w,
            reference.conv_transpose_adjoint(g, w, input_shape=sizes, **kwargs),
            {"input_shape": sizes},
            per_group[1],
        ),
        (
            conv_transpose_weight_adjoint,
            x,
            g,
            reference.conv_transpose_weight_adjoint(x, g, kernel_shape=w.shape[-ndim:], **kwargs),
            {"kernel_shape": w.shape[-ndim:]},
            x.size // math.prod(sizes),
        ),
    ):
        out = np.full(expected.shape, np.nan, dtype)
        assert function(a, b, out=out, method="fft", **extra, **run, **kwargs) is out
        np.testing.assert_allclose(out, expected, rtol=0, atol=bound(a, b, size, terms))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("x_shape", "w_shape", "kwargs"), CASES, ids=str)
def test_definition(rng, x_shape, w_shape, kwargs, dtype, only_transforms):
    check(rng, x_shape, w_shape, kwargs, dtype, {"workers": 2})


@pytest.mark.parametrize("channels", ["first", "last"])
def test_bias(rng, channels, only_transforms):
    x = uniform(rng, (2, 4, 19, 4), np.float64)
    w, bias = uniform(rng, (4, 3, 2, 5), np.float64), uniform(rng, 6, np.float64)
    kwargs = {"channels": channels, "groups": 2, "stride": (1, 3), "padding": ((0, 0), (-2, 1)), "bias": bias}
    x = x if channels == "last" else np.ascontiguousarray(np.moveaxis(x, -1, 1))
    expected = reference.conv_transpose(x, w, **kwargs)
    np.testing.assert_allclose(conv_transpose(x, w, method="fft", **kwargs), expected, rtol=0, atol=1e-13)


# ---- large enough for several tiles as they are --------------------------------------------------------

LARGE = [
    ((40_000,), (101,), {"stride": 2}),
    ((300, 290), (31, 17), {"stride": (1, 2)}),
    ((300, 290), (17, 17), {}),
    ((40, 300), (31,), {"stride": 3, "dilation": 2}),
    ((3, 8, 60, 60), (8, 6, 7, 7), {"channels": "first", "stride": 2, "groups": 2}),
]


def readings(x, w, kwargs, **run):
    """The three results, and the two arrays that each is made of."""
    taps = w.shape[2:] if "channels" in kwargs else w.shape
    sizes = x.shape[-len(taps) :]
    y = conv_transpose(x, w, **run, **kwargs)
    g = np.cos(np.arange(y.size)).reshape(y.shape).astype(y.dtype)
    in_x = conv_transpose_adjoint(g, w, input_shape=sizes, **run, **kwargs)
    in_w = conv_transpose_weight_adjoint(x, g, kernel_shape=taps, **run, **kwargs)
    return (y, x, w), (in_x, g, w), (in_w, x, g)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("x_shape", "w_shape", "kwargs"), LARGE, ids=str)
def test_large(rng, x_shape, w_shape, kwargs, dtype):
    """Within the documented bound, adjoint to each other, and the same bits for every number of workers."""
    x, w = uniform(rng, x_shape, dtype), uniform(rng, w_shape, dtype)
    got = readings(x, w, kwargs, method="fft", workers=1)
    wide = np.result_type(dtype, np.float64)
    expected = readings(x.astype(wide), w.astype(wide), kwargs, method="direct")
    for (result, a, b), (right, *_) in zip(got, expected, strict=True):
        np.testing.assert_allclose(result, right, rtol=0, atol=bound(a, b, x.size, 8))
    (y, *_), (in_x, g, _), (in_w, *_) = got
    dots = [np.vdot(a.astype(wide), b.astype(wide)) for a, b in ((y, g), (x, in_x), (w, in_w))]
    scale = np.finfo(dtype).eps * float(np.linalg.norm(y)) * float(np.linalg.norm(g))
    np.testing.assert_allclose(dots, dots[0], rtol=0, atol=100 * scale)
    for workers in (2, 3, 64, None):
        for (one, *_), (other, *_) in zip(got, readings(x, w, kwargs, method="fft", workers=workers), strict=True):
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan])
def test_numbers_that_are_not_finite_stay_where_they_are(rng, special):
    x, w = uniform(rng, (300, 200), np.float64), uniform(rng, (9, 9), np.float64)
    y = uniform(rng, (608, 408), np.float64)
    for a in (x, w, y):
        at = tuple(n // 2 for n in a.shape)
        before, a[at] = a[at], special
        for function, pair, extra in (
            (conv_transpose, (x, w), {"output_shape": y.shape}),
            (conv_transpose_adjoint, (y, w), {"input_shape": x.shape}),
            (conv_transpose_weight_adjoint, (x, y), {"kernel_shape": w.shape}),
        ):
            got, expected = (function(*pair, stride=2, method=m, **extra) for m in ("fft", "direct"))
            np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)
        a[at] = before


def test_sums_that_overflow_on_the_way(rng):
    """The sum of all samples is too large, none of the results is."""
    x = np.full(20_000, 1e38, np.float32)
    w = uniform(rng, 65, np.float32) / 100
    expected = conv_transpose(x, w, stride=2, method="direct")
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(conv_transpose(x, w, stride=2, method="fft"), expected)


def test_results_whose_sum_overflows(rng):
    """All of them are finite, however few or many are added up to find out."""
    x, w = uniform(rng, (90, 3000), np.float32), uniform(rng, 200, np.float32)
    x, w = (np.abs(x) + 1) * 1.3e34, (np.abs(w) + 1) / 400
    x, w = x.astype(np.float32), w.astype(np.float32)
    one, *more = (conv_transpose(x, w, axes=1, method="fft", workers=workers) for workers in (1, 2, 3, 4))
    assert np.isfinite(one).all()
    assert all(other.tobytes() == one.tobytes() for other in more)


def test_spectra_are_kept_and_not_pickled(rng):
    x, w = uniform(rng, (300, 200), np.float64), uniform(rng, (9, 9), np.float64)
    a = ConvTranspose(w, x.shape, stride=2, method="fft")
    first = a(x)
    spectra = a._prepare(x.dtype)._spectra
    kept = dict(spectra)
    assert len(kept) == 4  # one for each phase
    assert a(x).tobytes() == first.tobytes()
    assert all(spectra[key] is kept[key] for key in kept)
    assert len(pickle.dumps(a)) < w.nbytes + 2000
    assert pickle.loads(pickle.dumps(a))(x).tobytes() == first.tobytes()


@pytest.mark.parametrize(
    ("n", "taps", "stride", "dilation", "m"),
    [
        ((100,), (20_000,), 20_001, 1, 5),  # a phase for each tap
        ((100,), (100,), 20_001, 20_000, 5),  # and for each sample, too
        ((3,) * 4, (9,) * 4, 9, 1, 27),  # 6561 phases of a few samples
    ],
)
def test_many_phases_are_left_to_the_direct_method(rng, n, taps, stride, dilation, m):
    axes = tuple(Axis(*sizes, m, stride, dilation) for sizes in zip(n, taps, strict=True))
    assert _tiles.plan_of("forward", axes, (1, 1, *n), (1, 1, 1, *taps)) is None
    x, w = uniform(rng, n, np.float64), uniform(rng, taps, np.float64)
    kwargs = {"stride": stride, "dilation": dilation, "output_shape": m}
    got, expected = (conv_transpose(x, w, method=method, **kwargs) for method in ("fft", "direct"))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_overflow_of_sums_is_quiet(workers):
    """Sums of tiles that overflow are no warning, on any number of threads: another method computes them."""
    x, y = np.full((64, 20000), 1e19, np.float32), np.full((64, 20299), 1e19, np.float32)
    with np.errstate(all="raise"):
        w = conv_transpose_weight_adjoint(x, y, kernel_shape=300, axes=1, method="fft", workers=workers)
    assert w.shape == (300,)
