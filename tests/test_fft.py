"""Method "fft" against the definition: tiles and their seams, phases, and numbers that transforms would spread."""

import math

import numpy as np
import pytest
import reference
from reference import DTYPES, uniform

from cytconv import _fft, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint

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

    def lengths(taps, longest, shortest):
        block = 6 if longest > 6 else max(longest, 1)
        size = max(block + taps - 1, shortest if block == longest else 0)
        return [(_fft.fft.next_fast_len(size, real=True), block)]

    monkeypatch.setattr(_fft, "_lengths", lengths)
    monkeypatch.setattr(_fft, "TASK", 2**9)


@pytest.fixture(params=["usual tiles", "small tiles"])
def only_transforms(request, monkeypatch):
    """No other method helps out, whatever the cost."""
    monkeypatch.setattr(_fft, "LITTLE", math.inf)
    monkeypatch.setattr(_fft, "Direct", lambda *_: None)
    monkeypatch.setattr(_fft, "_plan", _fft._plan.__wrapped__)
    if request.param == "small tiles":
        small_tiles(monkeypatch)


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
