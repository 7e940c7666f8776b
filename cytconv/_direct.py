"""Method "direct": plan, pack the weights, call the compiled kernels.

    _phases        one axis taken apart: the strided problem becomes one with unit stride
    _boxes         pieces of work that fit the caches
    _correlation   plans of the forward operator and its adjoint
    _weights       plans of the adjoint in the weights
    kernels/       what runs them
    _taps          the definition in numpy, for what the kernels would compute wrongly or wastefully

Complex numbers are pairs of real ones: a complex array is a real one with twice the channels, which lie between each
other in memory, and a complex kernel the real matrix that multiplies the pairs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _runtime, _taps
from ._correlation import LITTLE, MAX_ROWS, WASTE, Layout, correlation, is_wasteful
from ._geometry import Axis
from ._phases import Direction
from ._weights import WeightAdjoint, weight_adjoint

__all__ = ["Direct"]

Array = NDArray[Any]


class Direct:
    """Method "direct" (see `cytconv._methods.Method`): packs its weights once for each direction and layout."""

    def __init__(self, axes: tuple[Axis, ...], w: Array) -> None:
        self._axes = axes
        self._w = w
        self._packed: dict[tuple[Any, ...], Array | None] = {}

    def forward(self, x: Array, bias: Array | None, y: Array, workers: int) -> None:
        """``y[o] = bias + sum x[i] * w[k]``."""
        if _is_better_swapped(self._axes, x):
            axes, w, x, y_swapped = _swapped(self._axes, x, self._w, y)
            Direct(axes, x).forward(w, None, y_swapped, workers)
            if bias is not None:
                y += bias.reshape(*bias.shape, *(1,) * len(axes))
        elif not self._correlate("forward", x, bias, y, workers):
            _taps.forward(self._axes, x, self._w, bias, y)

    def adjoint(self, y: Array, bias: Array | None, x: Array, workers: int) -> None:
        """``x[i] = bias + sum y[o] * conj(w[k])``."""
        if _is_better_swapped(self._axes, x):
            axes, w, x_swapped, y = _swapped(self._axes, x, self._w, y)
            Direct.weight_adjoint(axes, w, y, x_swapped, workers)
            if bias is not None:
                x += bias.reshape(*bias.shape, *(1,) * len(axes))
        elif not self._correlate("adjoint", y, bias, x, workers):
            _taps.adjoint(self._axes, y, self._w, bias, x)

    @staticmethod
    def weight_adjoint(axes: tuple[Axis, ...], x: Array, y: Array, w: Array, workers: int) -> None:
        """``w[k] = sum conj(x[i]) * y[o]``."""
        if _is_better_swapped(axes, x):
            axes, w, x, y = _swapped(axes, x, w, y)
            return Direct(axes, x).adjoint(y, None, w, workers)
        if not _taps.products(axes):
            w[...] = 0
            return None
        module = _runtime.kernels(w.dtype)
        parts = _parts(w.dtype)
        channels = math.prod(x.shape[: -len(axes)])
        if math.prod(w.shape[3:]) > MAX_ROWS or is_wasteful("adjoint", axes, w.shape[2], channels):
            return _taps.weight_adjoint(axes, x, y, w)
        plan = weight_adjoint(
            module, axes, (*x.shape, parts), _strides(x), (*y.shape, parts), _strides(y), w.itemsize // parts
        )
        # Far taps make a wide halo, and a tile for each of very many taps is far larger than the weights themselves.
        memory = plan.kernel.scratch_size + math.prod(plan.shape) // plan.shape[1]
        if plan.packed > WASTE * plan.work + LITTLE or memory > 4 * (x.size + y.size + w.size) + LITTLE:
            return _taps.weight_adjoint(axes, x, y, w)
        workers = _runtime.team(workers, plan.tasks, plan.work)
        scratch = _scratch(plan.kernel.scratch_size * workers, _real(w.dtype))
        scratch[...] = 0
        sums = np.empty(plan.shape, scratch.dtype)
        plan.kernel.run(*_flat(x), *_flat(y), sums.reshape(-1), scratch, plan.tasks, workers)
        _unpack_weights(plan, sums, w)
        # The kernels multiply the zeros around both arrays, too: harmless, unless a sample is infinite or NaN.
        if not np.isfinite(w).all():
            _taps.weight_adjoint(axes, x, y, w)

    def _correlate(self, direction: Direction, source: Array, bias: Array | None, result: Array, workers: int) -> bool:
        """Fill `result`, unless the kernels would be wrong or wasteful: say so, and leave it to others."""
        fill = 0 if bias is None else bias.reshape(*bias.shape, *(1,) * len(self._axes))
        if not _taps.products(self._axes):
            result[...] = fill
            return True
        _, inputs, outputs = self._w.shape[:3]
        sources, results = (inputs, outputs) if direction == "forward" else (outputs, inputs)
        if is_wasteful(direction, self._axes, results, math.prod(source.shape[: -len(self._axes)])):
            return False
        module, parts = _runtime.kernels(result.dtype), _parts(result.dtype)
        plan = correlation(
            module,
            direction,
            self._axes,
            sources * parts,
            results * parts,
            (*source.shape, parts),
            _strides(source),
            _strides(result),
            result.itemsize // parts,
        )
        if plan.packed > WASTE * plan.work + LITTLE:
            return False
        workers = _runtime.team(workers, plan.tasks, plan.work)
        weights = self._weights(module, plan.layout, workers)
        if weights is None:
            return False
        if not plan.covers:
            result[...] = fill
        scratch = _scratch(plan.kernel.scratch_size * workers, weights.dtype)
        offsets = np.empty(0, scratch.dtype) if bias is None else _flat(np.ascontiguousarray(bias))[0]
        plan.kernel.run(*_flat(source), weights, offsets, *_flat(result), scratch, plan.tasks, workers)
        return True

    def _weights(self, module: Any, layout: Layout, workers: int) -> Array | None:
        """The weights in the order of `layout`; None if some are infinite or NaN."""
        if layout.key not in self._packed:  # two threads may both pack at first: no harm
            w = _real_weights(self._w)
            products = np.cumsum([0, *(c.weights.size for c in layout.classes)])
            packed = _scratch(w.shape[0] * int(layout.panel_start[-1]), w.dtype)
            finite = module.pack_weights(
                w.reshape(-1),
                w.shape[0],
                layout.tile,
                layout.panel_start,
                layout.panel_weights,
                products[layout.panel_class],
                np.concatenate([c.weights for c in layout.classes]),
                packed,
                workers,
            )
            self._packed[layout.key] = packed if finite else None
        return self._packed[layout.key]


def _is_better_swapped(axes: tuple[Axis, ...], x: Array) -> bool:
    """Whether there is but one sample along every axis, and so no position that its taps could share.

    Several batch axes cannot always be made one without a copy: such arrays stay as they are.
    """
    return all(axis.n == 1 for axis in axes) and any(axis.taps > 1 for axis in axes) and x.ndim <= len(axes) + 3


def _swapped(axes: tuple[Axis, ...], x: Array, w: Array, y: Array) -> tuple[tuple[Axis, ...], Array, Array, Array]:
    """The same problem with samples and taps in each other's place: axes, samples, weights and outputs, as views.

    In ``o = i*stride + k*dilation - low`` the two are alike, and so are the channels of y on the one hand and the
    batch on the other: ``y[n, d] = sum over c of x[n, c] * w[c, d]``.  Then the adjoint in the samples is the adjoint
    in what were the weights.
    """
    if x.ndim < len(axes) + 3:
        x, y = x[None], y[None]
    # x (n, groups, c, *i)   w (groups, c, d, *k)   y (n, groups, d, *o)
    samples, weights, outputs = np.moveaxis(w, 2, 0), np.moveaxis(x, 0, 2), np.swapaxes(y, 0, 2)
    return tuple(axis.swapped() for axis in axes), samples, weights, outputs


def _parts(dtype: np.dtype[Any]) -> int:
    return 2 if dtype.kind == "c" else 1


def _real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"f{dtype.itemsize // _parts(dtype)}")


def _strides(a: Array) -> tuple[int, ...]:
    """Strides of `a` as real numbers, those from the real to the imaginary part last; in numbers, not bytes."""
    size = a.itemsize // _parts(a.dtype)
    return (*(stride // size for stride in a.strides), 1)


def _flat(a: Array) -> tuple[Array, int]:
    """The memory that `a` lies in as one line of real numbers, and where on it ``a[0, ..., 0]`` is."""
    real = _real(a.dtype)
    if a.flags.c_contiguous:
        return a.reshape(-1).view(real), 0
    start = sum(-stride * (n - 1) for n, stride in zip(a.shape, a.strides, strict=True) if stride < 0)
    reach = sum(abs(stride) * (n - 1) for n, stride in zip(a.shape, a.strides, strict=True))
    size = reach // real.itemsize + _parts(a.dtype)
    lowest = a[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in a.strides)]
    first = lowest.real if a.dtype.kind == "c" else lowest
    line = np.lib.stride_tricks.as_strided(first, (size,), (real.itemsize,), writeable=a.flags.writeable)
    return line, start // real.itemsize


def _real_weights(w: Array) -> Array:
    """Complex weights as the real matrix that multiplies real and imaginary parts; contiguous."""
    if w.dtype.kind != "c":
        return np.ascontiguousarray(w)
    groups, inputs, outputs, *taps = w.shape
    real = np.empty((groups, inputs, 2, outputs, 2, *taps), _real(w.dtype))
    real[:, :, 0, :, 0] = real[:, :, 1, :, 1] = w.real
    real[:, :, 0, :, 1] = w.imag
    # Not np.negative: numpy 2.4's is wrong for some pairs of strides.
    np.multiply(w.imag, -1, out=real[:, :, 1, :, 0])
    return real.reshape(groups, inputs * 2, outputs * 2, *taps)


def _unpack_weights(plan: WeightAdjoint, sums: Array, w: Array) -> None:
    """Add up the shares, put the taps into their places, and real and imaginary parts together."""
    total = sums[:, 0]
    for share in range(1, sums.shape[1]):
        total = total + sums[:, share]
    groups, inputs, outputs, taps = total.shape
    if math.prod(w.shape[3:]) > taps:
        w[...] = 0  # some taps meet no sample
    where: tuple[Any, ...] = (..., *plan.taps)
    if w.dtype.kind == "c":  # conj(x)*y = (re x*re y + im x*im y) + 1j*(re x*im y - im x*re y)
        p = total.reshape(groups, inputs // 2, 2, outputs // 2, 2, taps)
        w.real[where] = p[:, :, 0, :, 0] + p[:, :, 1, :, 1]
        w.imag[where] = p[:, :, 0, :, 1] - p[:, :, 1, :, 0]
    else:
        w[where] = total


def _scratch(size: int, dtype: np.dtype[Any]) -> Array:
    """Uninitialised memory that begins on a cache line."""
    memory = np.empty(size * dtype.itemsize + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size * dtype.itemsize].view(dtype)
