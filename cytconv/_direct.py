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
        if not self._correlate("forward", x, bias, y, workers):
            _taps.forward(self._axes, x, self._w, bias, y)

    def adjoint(self, y: Array, bias: Array | None, x: Array, workers: int) -> None:
        """``x[i] = bias + sum y[o] * conj(w[k])``."""
        if not self._correlate("adjoint", y, bias, x, workers):
            _taps.adjoint(self._axes, y, self._w, bias, x)

    @staticmethod
    def weight_adjoint(axes: tuple[Axis, ...], x: Array, y: Array, w: Array, workers: int) -> None:
        """``w[k] = sum conj(x[i]) * y[o]``."""
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
        sums = _scratch(math.prod(plan.shape), scratch.dtype)
        left, right = (x, y) if plan.x_is_left else (y, x)
        plan.kernel.run(*_flat(left), *_flat(right), sums, scratch, plan.tasks, workers)
        _unpack_weights(plan, sums.reshape(plan.shape), w)

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
    """Add up the shares, take the panels apart, and put real and imaginary parts together."""
    total = sums[:, 0]
    for share in range(1, sums.shape[1]):
        total = total + sums[:, share]
    groups, taps, left, right, rows, columns = total.shape
    total = total.transpose(0, 2, 4, 3, 5, 1).reshape(groups, left * rows, right * columns, taps)
    if not plan.x_is_left:
        total = total.transpose(0, 2, 1, 3)
    _, inputs, outputs = w.shape[:3]
    if math.prod(w.shape[3:]) > taps:
        w[...] = 0  # some taps meet no sample
    where: tuple[Any, ...] = (..., *plan.taps)
    if w.dtype.kind == "c":  # conj(x)*y = (re x*re y + im x*im y) + 1j*(re x*im y - im x*re y)
        p = total[:, : inputs * 2, : outputs * 2].reshape(groups, inputs, 2, outputs, 2, taps)
        w.real[where] = p[:, :, 0, :, 0] + p[:, :, 1, :, 1]
        w.imag[where] = p[:, :, 0, :, 1] - p[:, :, 1, :, 0]
    else:
        w[where] = total[:, :inputs, :outputs]


def _scratch(size: int, dtype: np.dtype[Any]) -> Array:
    """Uninitialised memory that begins on a cache line."""
    memory = np.empty(size * dtype.itemsize + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size * dtype.itemsize].view(dtype)
