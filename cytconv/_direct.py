"""Method "direct": plan, pack the weights, call the compiled kernels.

    _phases        one axis taken apart: the strided problem becomes one with unit stride
    _boxes         pieces of work that fit the caches
    _correlation   plans of the forward operator and its adjoint
    _weights       plans of the adjoint in the weights
    kernels/       what runs them

Complex numbers are pairs of real ones: a complex array is a real one with twice the channels, which lie between each
other in memory, and a complex kernel the real matrix that multiplies the pairs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _runtime, _taps
from ._correlation import Layout, correlation
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
        self._packed: dict[Layout, tuple[Array, bool]] = {}

    def forward(self, x: Array, bias: Array | None, y: Array, workers: int) -> None:
        """``y[o] = bias + sum x[i] * w[k]``."""
        if not self._correlate("forward", x, bias, y, workers):
            _taps.forward(self._axes, x, self._w, y)
            if bias is not None:
                y += bias.reshape(*bias.shape, *(1,) * len(self._axes))

    def adjoint(self, y: Array, x: Array, workers: int) -> None:
        """``x[i] = sum y[o] * conj(w[k])``."""
        if not self._correlate("adjoint", y, None, x, workers):
            _taps.adjoint(self._axes, y, self._w, x)

    @staticmethod
    def weight_adjoint(axes: tuple[Axis, ...], x: Array, y: Array, w: Array, workers: int) -> None:
        """``w[k] = sum conj(x[i]) * y[o]``."""
        module = _runtime.kernels(w.dtype)
        parts = _parts(w.dtype)
        plan = weight_adjoint(
            module, axes, (*x.shape, parts), _strides(x), (*y.shape, parts), _strides(y), w.itemsize // parts
        )
        workers = _runtime.team(workers, plan.tasks, plan.work)
        scratch = _scratch(plan.kernel.scratch_size * workers, _real(w.dtype))
        sums = _scratch(math.prod(plan.shape), scratch.dtype)
        left, right = (x, y) if plan.x_is_left else (y, x)
        plan.kernel.run(*_flat(left), *_flat(right), sums, scratch, plan.tasks, workers)
        _unpack_weights(plan, sums.reshape(plan.shape), w)

    def _correlate(self, direction: Direction, source: Array, bias: Array | None, result: Array, workers: int) -> bool:
        """Fill `result`, unless a weight is infinite or NaN: say so, and leave it to others."""
        module = _runtime.kernels(result.dtype)
        parts = _parts(result.dtype)
        shape, source_strides, result_strides = (*source.shape, parts), _strides(source), _strides(result)
        _, inputs, outputs = self._w.shape[:3]
        if direction == "adjoint":
            inputs, outputs = outputs, inputs
        itemsize = result.itemsize // parts
        plan = correlation(
            module,
            direction,
            self._axes,
            inputs * parts,
            outputs * parts,
            shape,
            source_strides,
            result_strides,
            itemsize,
        )
        workers = _runtime.team(workers, plan.tasks, plan.work)
        weights, finite = self._weights(module, plan.layout, workers)
        if finite:
            scratch = _scratch(plan.kernel.scratch_size * workers, _real(result.dtype))
            offsets = np.empty(0, scratch.dtype) if bias is None else _flat(np.ascontiguousarray(bias))[0]
            plan.kernel.run(*_flat(source), weights, offsets, *_flat(result), scratch, plan.tasks, workers)
        return finite

    def _weights(self, module: Any, layout: Layout, workers: int) -> tuple[Array, bool]:
        """The weights in the order of `layout`, and whether all are finite."""
        if layout not in self._packed:
            w = _real_weights(self._w)
            groups, panels = w.shape[0], layout.panel_class.size
            products = np.cumsum([0, *(c.weights.size for c in layout.classes)])
            packed = _scratch(groups * int(layout.panel_start[-1]), w.dtype)
            finite = module.pack_weights(
                w.reshape(-1),
                groups,
                layout.tile,
                layout.panel_start,
                layout.panel_weights,
                products[layout.panel_class],
                np.concatenate([c.weights for c in layout.classes]),
                packed,
                min(workers, max(panels, 1)),
            )
            self._packed[layout] = packed, finite
        return self._packed[layout]


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
    size = sum(abs(stride) * (n - 1) for n, stride in zip(a.shape, a.strides, strict=True)) // a.itemsize + 1
    lowest = a[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in a.strides)]
    line = np.lib.stride_tricks.as_strided(lowest, (size,), (a.itemsize,), writeable=a.flags.writeable)
    return line.view(real), start // real.itemsize


def _real_weights(w: Array) -> Array:
    """Complex weights as the real matrix that multiplies real and imaginary parts; contiguous."""
    if w.dtype.kind != "c":
        return np.ascontiguousarray(w)
    groups, inputs, outputs, *taps = w.shape
    real = np.empty((groups, inputs, 2, outputs, 2, *taps), _real(w.dtype))
    real[:, :, 0, :, 0] = real[:, :, 1, :, 1] = w.real
    real[:, :, 0, :, 1] = w.imag
    np.negative(w.imag, out=real[:, :, 1, :, 0])
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
