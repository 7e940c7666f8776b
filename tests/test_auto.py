"""Method "auto": when it is "fft", and that it then gives the same results."""

import numpy as np
import pytest
import reference
from reference import uniform

import cytconv
from cytconv import _auto

LARGE = [  # shape of x, of w, the rest: where "fft" takes far less work in every direction
    ((1, 60000), (4001,), {}),
    ((128, 128), (80, 80), {}),
    ((200, 200), (120, 120), {"stride": 2}),
    ((3, 64, 64), (3, 3, 64, 64), {"channels": "first"}),
]


@pytest.fixture
def always(monkeypatch):
    """Have "auto" take "fft" wherever that has a plan."""
    monkeypatch.setattr(_auto, "MANY", 0)
    monkeypatch.setattr(_auto, "FEWER", dict.fromkeys("fdFD", 0))
    _auto._is_fft_better.cache_clear()
    yield
    _auto._is_fft_better.cache_clear()


def readings(x, w, y, method, **geometry):
    """The three directions, and the operator's two, each of which is called again."""
    kernel = w.shape[2:] if "channels" in geometry else w.shape
    operator = cytconv.ConvTranspose(w, x.shape, method=method, **geometry)
    shape = x.shape[1:] if "channels" in geometry else x.shape[x.ndim - w.ndim :]
    return [
        cytconv.conv_transpose(x, w, method=method, **geometry),
        cytconv.conv_transpose_adjoint(y, w, input_shape=shape, method=method, **geometry),
        cytconv.conv_transpose_weight_adjoint(x, y, kernel_shape=kernel, method=method, **geometry),
        *(operator @ x.ravel() for _ in range(2)),
        *(operator.H @ y.ravel() for _ in range(2)),
    ]


@pytest.mark.parametrize(("x_shape", "w_shape", "geometry"), LARGE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_kernels(rng, x_shape, w_shape, geometry, dtype):
    x, w = uniform(rng, x_shape, dtype), uniform(rng, w_shape, dtype)
    y = uniform(rng, cytconv.conv_transpose(x, w, **geometry).shape, dtype)
    direct, auto, fft = (readings(x, w, y, method, **geometry) for method in ("direct", "auto", "fft"))
    for by_direct, by_auto, by_fft in zip(direct, auto, fft, strict=True):
        np.testing.assert_array_equal(by_auto, by_fft)
        tolerance = 1e-5 if dtype == np.float32 else 1e-13
        np.testing.assert_allclose(by_auto, by_direct, atol=tolerance * abs(by_direct).max())


def test_small_kernels_are_exact(rng):
    x, w = np.full((256, 256), 3.0), np.full((9, 9), 5.0)
    assert set(np.unique(cytconv.conv_transpose(x, w) / 15)) <= set(range(82))


@pytest.mark.parametrize("dtype", reference.DTYPES)
def test_wherever_it_may(always, rng, dtype):
    geometry = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 3)}
    x, w = uniform(rng, (2, 9, 8), dtype), uniform(rng, (3, 4), dtype)
    y = uniform(rng, cytconv.conv_transpose(x, w, **geometry).shape, dtype)
    auto, fft, direct = (readings(x, w, y, method, **geometry) for method in ("auto", "fft", "direct"))
    tolerance = 1e-4 if np.dtype(dtype).char in "fF" else 1e-12
    for got, same, expected in zip(auto, fft, direct, strict=True):
        np.testing.assert_array_equal(got, same)
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(rng, bad):
    """A sample that is not finite reaches the outputs that hold it, and no others."""
    x, w = np.zeros((128, 128)), uniform(rng, (80, 80), np.float64)
    x[100, 3] = bad
    y = cytconv.conv_transpose(x, w)
    held = np.zeros(y.shape, bool)
    held[100:180, 3:83] = True
    np.testing.assert_array_equal(~np.isfinite(y), held)


def test_workers(rng):
    x, w = uniform(rng, (128, 128), np.float64), uniform(rng, (80, 80), np.float64)
    one, *others = (cytconv.conv_transpose(x, w, workers=workers) for workers in (1, 2, 3))
    for other in others:
        np.testing.assert_array_equal(other, one)
