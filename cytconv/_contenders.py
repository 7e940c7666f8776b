"""The ways to apply one operator that `cytconv.compare_methods` compares: ours, scipy's and PyTorch's."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._geometry import Geometry
from ._operator import ConvTranspose
from ._sparse import conv_transpose_matrix

__all__ = ["Contender", "Product", "others", "own"]

Array = NDArray[Any]
Shape = tuple[int, ...]
Product = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Operator:
    """Ready to apply: x of the geometry's `x_shape` to y of its `y_shape`, and back."""

    forward: Product
    adjoint: Product


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    build: Callable[[], Operator]
    peer: bool = False
    counted: bool = True  # whether its memory is numpy's
    refusal: str = ""  # why it cannot serve this geometry


def own(method: str, geometry: Geometry, w: Array, workers: int) -> Operator:
    operator = ConvTranspose(w, geometry.x_shape, **_keywords(geometry), method=method, workers=workers)
    return Operator(operator, operator.H)


def _scipy_sparse(geometry: Geometry, w: Array, workers: int) -> Operator:
    """scipy's product with the matrix, on one thread."""
    matrix = conv_transpose_matrix(w, geometry.x_shape, **_keywords(geometry))
    transposed = matrix.T  # the same memory

    def adjoint(y: Array) -> Array:
        flat = y.ravel()
        product = transposed @ flat if flat.dtype.kind == "f" else (transposed @ flat.conj()).conj()
        return np.asarray(product).reshape(geometry.x_shape)

    return Operator(lambda x: np.asarray(matrix @ x.ravel()).reshape(geometry.y_shape), adjoint)


def _scipy_fft(function: str, geometry: Geometry, w: Array, workers: int) -> Operator:
    """scipy's convolution of the input with zeros inserted, and of the output with the kernel turned around."""
    from scipy import fft, signal  # late, as both take long to import

    convolve = getattr(signal, function)
    axes = geometry.axes
    kernel = np.zeros([axis.dilation * (axis.taps - 1) + 1 for axis in axes], w.dtype)
    kernel[tuple(slice(None, None, axis.dilation) for axis in axes)] = w
    turned = np.flip(kernel).conj()
    spread = [(axis.n - 1) * axis.stride + 1 for axis in axes]
    full = [size + taps - 1 for size, taps in zip(spread, kernel.shape, strict=True)]
    samples = tuple(slice(None, None, axis.stride) for axis in axes)
    # The window on the full result: where both have elements, in the one and in the other.
    of_full = tuple(slice(max(a.low, 0), max(min(a.low + a.m, f), 0)) for a, f in zip(axes, full, strict=True))
    of_y = tuple(
        slice(part.start - a.low, part.start - a.low + max(part.stop - part.start, 0))
        for a, part in zip(axes, of_full, strict=True)
    )
    whole = all(part.stop - part.start == a.m for a, part in zip(axes, of_y, strict=True))

    def forward(x: Array) -> Array:
        zeros_inserted = np.zeros(spread, x.dtype)
        zeros_inserted[samples] = x
        with fft.set_workers(workers):
            result = convolve(zeros_inserted, kernel)
        if whole:
            return np.asarray(result[of_full])
        y = np.zeros(geometry.y_shape, x.dtype)
        y[of_y] = result[of_full]
        return y

    def adjoint(y: Array) -> Array:
        placed = np.zeros(full, y.dtype)
        placed[of_full] = y[of_y]
        with fft.set_workers(workers):
            return np.asarray(convolve(placed, turned, mode="valid")[samples])

    return Operator(forward, adjoint)


def _torch(torch: Any, geometry: Geometry, w: Array, workers: int) -> Operator:
    """PyTorch's transposed convolution and convolution, on the same memory."""
    ndim, plain = len(geometry.axes), geometry.channels is None
    functional = torch.nn.functional
    weights = torch.from_numpy(w[None, None] if plain else w)
    keywords = {
        "stride": tuple(axis.stride for axis in geometry.axes),
        "padding": tuple(axis.low for axis in geometry.axes),
        "dilation": tuple(axis.dilation for axis in geometry.axes),
        "groups": geometry.groups,
    }

    def product(function: Any, a: Array) -> Array:
        threads = torch.get_num_threads()
        torch.set_num_threads(workers)
        try:
            with torch.inference_mode():
                result = function(torch.from_numpy(a[None, None] if plain else a[None]), weights, **keywords).numpy()
        finally:
            torch.set_num_threads(threads)
        return np.asarray(result[0, 0] if plain else result[0])

    return Operator(
        partial(product, getattr(functional, f"conv_transpose{ndim}d")),
        partial(product, getattr(functional, f"conv{ndim}d")),
    )


def _keywords(geometry: Geometry) -> dict[str, Any]:
    return {
        "stride": [axis.stride for axis in geometry.axes],
        "padding": [(axis.low, 0) for axis in geometry.axes],
        "output_shape": [axis.m for axis in geometry.axes],
        "dilation": [axis.dilation for axis in geometry.axes],
        "groups": geometry.groups,
        "channels": geometry.channels,
    }


def others(geometry: Geometry, highs: Shape, w: Array, workers: int) -> Iterator[Contender]:
    """Other libraries' ways, with why they cannot serve where they cannot."""
    importlib.import_module("scipy.signal")  # for not to be counted as what its operators keep
    yield Contender("scipy.sparse", partial(_scipy_sparse, geometry, w, workers), peer=True)
    refusal = "" if geometry.channels is None else "convolves plain arrays, without channels"
    for name in ("fftconvolve", "oaconvolve"):
        yield Contender(f"scipy {name}", partial(_scipy_fft, name, geometry, w, workers), peer=True, refusal=refusal)
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError):  # not installed, or without a library that it needs
        return
    refusal = ""
    if len(geometry.axes) > 3:
        refusal = "convolves at most three axes"
    elif any(axis.low != high or high < 0 for axis, high in zip(geometry.axes, highs, strict=True)):
        refusal = "takes one padding for both ends of an axis, not below 0"
    elif w.dtype.kind == "c":
        refusal = "left out for complex numbers"
    yield Contender("torch", partial(_torch, torch, geometry, w, workers), peer=True, counted=False, refusal=refusal)
