"""The definition of transposed convolution, as loops that one can see are right, and what the tests share.

Along each axis, sample ``i`` meets output ``o`` through tap ``k`` when ``o = i*stride + k*dilation - low``.
`triples` lists these; the operator and its two adjoints are one line each over the list::

    y[o] += x[i] @ w[k]         x[i] += y[o] @ w[k]^H         w[k] += x[i]^H @ y[o]

For that, arrays are laid out with their spatial axes first, so that an item is a stack of matrices, one per
group: ``x[i]`` is ``(groups, batch, C_in/groups)``, ``w[k]`` is ``(groups, C_in/groups, C_out/groups)``.
Everything is computed in float64 or complex128.
"""

from itertools import product
from math import prod

import numpy as np

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


# ---- the definition ----------------------------------------------------------------------------------


def triples(n, taps, m, stride, dilation, low):
    """Every ``(o, i, k)``, each a tuple with one entry per axis."""
    axes = [
        [(i * s + k * d - p, i, k) for i in range(n_) for k in range(t) if 0 <= i * s + k * d - p < m_]
        for n_, t, m_, s, d, p in zip(n, taps, m, stride, dilation, low, strict=True)
    ]
    for joint in product(*axes):
        yield tuple(zip(*joint, strict=True))


def conv_transpose(x, w, *, groups=1, bias=None, channels=None, axes=None, output_shape=None, **geometry):
    w, taps = split_weights(w, groups, channels)
    layout = Layout(len(taps), groups, channels, axes)
    x, batch = layout.split(x)
    n = x.shape[: len(taps)]
    stride, dilation, low, high, extra = expand(len(taps), **geometry)
    m = [
        (n_ - 1) * s + d * (t - 1) + 1 - lo - hi + e
        for n_, t, s, d, lo, hi, e in zip(n, taps, stride, dilation, low, high, extra, strict=True)
    ]
    m = m if output_shape is None else each(output_shape, len(taps))
    y = np.zeros((*m, groups, x.shape[-2], w.shape[-1]), np.result_type(x, w))
    for o, i, k in triples(n, taps, m, stride, dilation, low):
        y[o] += x[i] @ w[k]
    return add_bias(layout.join(y, batch), bias, channels, len(taps))


def conv_transpose_adjoint(
    y, w, *, groups=1, channels=None, axes=None, input_shape=None, output_shape=None, **geometry
):
    w, taps = split_weights(w, groups, channels)
    layout = Layout(len(taps), groups, channels, axes)
    y, batch = layout.split(y)
    m = y.shape[: len(taps)]
    stride, dilation, low, high, extra = expand(len(taps), **geometry)
    n = [
        (m_ + lo + hi - d * (t - 1) - 1 - e) // s + 1
        for m_, t, s, d, lo, hi, e in zip(m, taps, stride, dilation, low, high, extra, strict=True)
    ]
    n = n if input_shape is None else each(input_shape, len(taps))
    x = np.zeros((*n, groups, y.shape[-2], w.shape[-2]), np.result_type(y, w))
    w = hermitian(w)
    for o, i, k in triples(n, taps, m, stride, dilation, low):
        x[i] += y[o] @ w[k]
    return layout.join(x, batch)


def conv_transpose_weight_adjoint(
    x, y, *, kernel_shape, groups=1, channels=None, axes=None, output_shape=None, **geometry
):
    taps = each(kernel_shape, 1 if axes is None else len(np.atleast_1d(axes)))
    layout = Layout(len(taps), groups, channels, axes)
    (x, _), (y, _) = layout.split(x), layout.split(y)
    stride, dilation, low, _, _ = expand(len(taps), **geometry)
    w = np.zeros((*taps, groups, x.shape[-1], y.shape[-1]), np.result_type(x, y))
    x = hermitian(x)
    for o, i, k in triples(x.shape[: len(taps)], taps, y.shape[: len(taps)], stride, dilation, low):
        w[k] += x[i] @ y[o]
    w = np.moveaxis(w, (-3, -2, -1), (0, 1, 2))
    return w[0, 0, 0] if channels is None else w.reshape(groups * w.shape[1], *w.shape[2:])


def conv(y, w, *, bias=None, channels=None, **rest):
    x = conv_transpose_adjoint(y, np.conj(w), channels=channels, **rest)
    return add_bias(x, bias, channels, np.ndim(w) - 2)


# ---- layouts and arguments ---------------------------------------------------------------------------


class Layout:
    """Where the spatial axes of x and y are, and how to bring them to the front and back."""

    def __init__(self, ndim, groups, channels, axes):
        last = range(-ndim - 1, -1) if channels == "last" else range(-ndim, 0)
        self.spatial = tuple(last) if axes is None else tuple(np.atleast_1d(axes).tolist())
        self.ndim, self.groups, self.channels = ndim, groups, channels

    def split(self, a):
        """``(*spatial, groups, batch, channels // groups)``, and the sizes of the batch axes."""
        a = np.moveaxis(widen(a), self.spatial, range(self.ndim))
        if self.channels is None:
            a = a[..., None]
        *batch, c = a.shape[self.ndim :]
        a = a.reshape(*a.shape[: self.ndim], prod(batch), self.groups, c // self.groups)
        return a.swapaxes(-3, -2), batch

    def join(self, a, batch):
        c = a.shape[-3] * a.shape[-1]
        a = a.swapaxes(-3, -2).reshape(*a.shape[: self.ndim], *batch, c)
        if self.channels is None:
            a = a[..., 0]
        return np.moveaxis(a, range(self.ndim), self.spatial)


def split_weights(w, groups, channels):
    """``(*taps, groups, C_in // groups, C_out // groups)``, and the number of taps per axis."""
    w = widen(w)
    w = w[None, None] if channels is None else w
    c_in, c_out, *taps = w.shape
    return np.moveaxis(w.reshape(groups, c_in // groups, c_out, *taps), (0, 1, 2), (-3, -2, -1)), taps


def expand(ndim, stride=1, padding=0, output_padding=0, dilation=1):
    pairs = [each(p, 2) for p in each(padding, ndim)]
    return (
        each(stride, ndim),
        each(dilation, ndim),
        [low for low, _ in pairs],
        [high for _, high in pairs],
        each(output_padding, ndim),
    )


def each(value, ndim):
    return list(value) if hasattr(value, "__len__") else [value] * ndim


def add_bias(a, bias, channels, ndim):
    if bias is None:
        return a
    return a + (np.reshape(bias, (-1, *(1,) * ndim)) if channels == "first" else np.asarray(bias))


def hermitian(a):
    """Each matrix of the stack, conjugate transposed."""
    return a.conj().swapaxes(-1, -2)


def widen(a):
    """In float64 or complex128."""
    a = np.asarray(a)
    return a.astype(np.result_type(a, np.float64).newbyteorder("="))


# ---- data and tolerances -----------------------------------------------------------------------------


def integers(rng, shape, dtype):
    """Whole numbers from -4 to 4: sums of their products are exact in every dtype, in any order."""
    a = rng.integers(-4, 5, shape)
    if np.dtype(dtype).kind == "c":
        a = a + 1j * rng.integers(-4, 5, shape)
    return np.asarray(a).astype(dtype)


def uniform(rng, shape, dtype):
    """Numbers of absolute value at most 1."""
    a = rng.uniform(-1, 1, shape)
    if np.dtype(dtype).kind == "c":
        a = (a + 1j * rng.uniform(-1, 1, shape)) / 2**0.5
    return np.asarray(a).astype(dtype)


def assert_close(actual, expected, dtype, terms):
    """Equal up to the rounding of a sum of `terms` products of numbers of absolute value at most 1."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=4 * np.finfo(dtype).eps * max(terms, 1))


def assert_exact(actual, expected, dtype):
    """Equal in every number, and of the given dtype."""
    assert actual.dtype == dtype
    np.testing.assert_array_equal(actual, expected)
