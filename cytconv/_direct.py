"""Method "direct": plan, pack the weights, call the compiled kernels.

    _problem       what there is a plan for
    _phases        one axis taken apart, in several ways: the strided problem becomes one with unit stride
    _ways          which of these to take, and what is not worth a plan
    _layout        rows of results, and the order of their weights
    _boxes         pieces of work that fit the caches
    _correlation   plans of the forward operator and its adjoint,
    _weights       and of the adjoint in the weights
    _lines         few channels and taps, where nothing is copied: plans in _stencil and _weight_lines
    kernels/       what runs them
    _taps          the definition in numpy, for what the kernels would compute wrongly or wastefully

Complex numbers are pairs of real ones: a complex array is a real one with twice the channels, which lie between each
other in memory, and a complex kernel the real matrix that multiplies the pairs.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from . import _memory, _runtime, _taps
from ._correlation import Correlation, correlation, pays_mixed
from ._geometry import Axis
from ._phases import Direction, Reading
from ._problem import Problem, parts_in
from ._stencil import Stencil, stencil
from ._ways import LITTLE, MAX_ROWS, Means, is_wasteful
from ._weight_lines import weight_lines
from ._weights import WeightAdjoint, weight_adjoint

__all__ = ["SWAPPED", "Direct", "Fast", "Repeat", "is_better_swapped", "plan_of", "swapped"]

Array = NDArray[Any]


# How many times as many taps as samples there must be, with a stride those of a phase, for them to change places: the
# forward reading then multiplies so many times less, the others have the same to do with less to copy.
SWAPPED = {"forward": 4, "adjoint": 32, "weight_adjoint": 32}
SWAPPED_LEAST = 2**20  # multiplications; for fewer, what `Repeat` remembers of a call saves more


class Direct:
    """Method "direct" (see `cytconv._methods.Method`): packs its weights once for each direction and layout."""

    abreast: ClassVar[bool] = False
    _means: Means = "padded"

    def __init__(self, axes: tuple[Axis, ...], w: Array) -> None:
        self._axes = axes
        self._w = w
        self._packed: dict[tuple[Any, ...], Array | None] = {}

    def forward(self, x: Array, bias: Array | None, y: Array, workers: int) -> None:
        """``y[o] = bias + sum x[i] * w[k]``."""
        if is_better_swapped("forward", self._axes, x, self._w):
            axes, w, x, y_swapped = swapped(self._axes, x, self._w, y)
            type(self)(axes, x).forward(w, None, y_swapped, workers)
            _taps.add_bias(bias, y, len(axes))
        elif not self._correlate("forward", x, bias, y, workers):
            _taps.forward(self._axes, x, self._w, bias, y)

    def adjoint(self, y: Array, bias: Array | None, x: Array, workers: int) -> None:
        """``x[i] = bias + sum y[o] * conj(w[k])``."""
        if is_better_swapped("adjoint", self._axes, x, self._w):
            axes, w, x_swapped, y = swapped(self._axes, x, self._w, y)
            self.weight_adjoint(axes, w, y, x_swapped, workers)
            _taps.add_bias(bias, x, len(axes))
        elif not self._correlate("adjoint", y, bias, x, workers):
            _taps.adjoint(self._axes, y, self._w, bias, x)

    @classmethod
    def weight_adjoint(cls, axes: tuple[Axis, ...], x: Array, y: Array, w: Array, workers: int) -> None:
        """``w[k] = sum conj(x[i]) * y[o]``."""
        if is_better_swapped("weight_adjoint", axes, x, w):
            axes, w, x, y = swapped(axes, x, w, y)
            return cls(axes, x).adjoint(y, None, w, workers)
        plan = _weight_plan(axes, x, y, w, cls._means)
        if plan is None:
            return _taps.weight_adjoint(axes, x, y, w)
        sums = w if w.flags.c_contiguous else np.empty_like(w, order="C")
        finite = plan.kernel.run(x, y, sums, plan.tasks, _runtime.team(workers, plan.tasks, plan.work))
        if sums is not w:
            w[...] = sums
        # The kernels multiply the zeros around both arrays, too: harmless, unless a sample is infinite or NaN.
        if not finite:
            _taps.weight_adjoint(axes, x, y, w)

    @classmethod
    def repeat(
        cls,
        reading: Reading,
        axes: tuple[Axis, ...],
        x: Array,
        w: Array,
        y: Array,
        shape: tuple[int, ...],
        workers: SupportsIndex | None,
        biased: bool,
    ) -> Repeat | None:
        """What computes a result of this shape from other numbers in arrays like these, if the kernels can."""
        if not w.flags.c_contiguous or is_better_swapped(reading, axes, x, w):
            return None
        if reading == "weight_adjoint":
            sums = _weight_plan(axes, x, y, w, cls._means)
            return None if sums is None else Repeat(sums, shape, w.dtype, workers)
        source, result = (x, y) if reading == "forward" else (y, x)
        plan = plan_of(reading, axes, source, result, cls._means, unpacked=True)
        if plan is None or (biased and not plan.covers):
            return None
        complex_shape = w.shape if w.dtype.kind == "c" else None
        return Repeat(plan, shape, w.dtype, workers, plan.packing(w.shape[0], w.shape[3:]), complex_shape)

    def repeat_packed(
        self, direction: Direction, x: Array, y: Array, shape: tuple[int, ...], workers: SupportsIndex | None
    ) -> Repeat | None:
        """The same with these weights, which stay packed."""
        if is_better_swapped(direction, self._axes, x, self._w):
            return None
        source, result = (x, y) if direction == "forward" else (y, x)
        plan = plan_of(direction, self._axes, source, result, self._means)
        packed = None if plan is None else self._weights(plan, 1)
        return Repeat(plan, shape, self._w.dtype, workers, packed=packed) if plan and packed is not None else None

    def _correlate(
        self,
        direction: Direction,
        source: Array,
        bias: Array | None,
        result: Array,
        workers: int,
        means: Means | None = None,
    ) -> bool:
        """Fill `result`, unless the kernels would be wrong or wasteful: say so, and leave it to others."""
        plan = plan_of(direction, self._axes, source, result, means or self._means)
        if plan is None:
            return False
        workers = _runtime.team(workers, plan.tasks, plan.work)
        weights = self._weights(plan, workers)
        if weights is None:
            return False
        if not plan.covers:
            result[...] = 0 if bias is None else bias.reshape(*bias.shape, *(1,) * len(self._axes))
        offsets = None if bias is None else np.ascontiguousarray(bias)
        if not plan.kernel.run(source, weights, offsets, result, plan.tasks, workers):
            # Samples that are infinite or NaN have met the zeros of a padded kernel, or others that they were added to.
            return self._correlate(direction, source, bias, result, workers, means="plain")
        return True

    def _weights(self, plan: Correlation | Stencil, workers: int) -> Array | None:
        """The weights in the order of `plan`; None if some are infinite or NaN."""
        if plan.key not in self._packed:  # two threads may both pack at first: no harm
            w = _real_weights(self._w)
            packing = plan.packing(w.shape[0], w.shape[3:])
            packed = _cache_aligned(packing.size, w.dtype)
            finite = packing.packed(w, packed, workers)
            self._packed[plan.key] = packed if finite else None
        return self._packed[plan.key]


class Fast(Direct):
    """The same, with fewer multiplications where that is faster: a little less precise."""

    _means: Means = "mixed"


class Repeat:
    """One reading of one geometry, settled but for the numbers: ``repeat(source, w)``, or ``repeat(x, y)`` for weights.

    Returns None if the numbers are not all finite where they must be.  Weights that are packed already need no second
    array.  A result that is given must be like the one that there was, and so must a bias.
    """

    def __init__(
        self,
        plan: Correlation | Stencil | WeightAdjoint,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        workers: SupportsIndex | None,
        packing: Any = None,
        complex_shape: tuple[int, ...] | None = None,
        packed: Array | None = None,
    ) -> None:
        self._run, self._tasks, self._work = plan.kernel.run, plan.tasks, plan.work
        self._shape, self._dtype, self._workers = shape, dtype, workers
        self._packing, self._complex_shape, self._packed = packing, complex_shape, packed
        self._sums = isinstance(plan, WeightAdjoint)
        self._fill = not (isinstance(plan, WeightAdjoint) or plan.covers)
        self._serial = min(plan.tasks, plan.work // _runtime.WORK_PER_THREAD) < 2
        self._empty = np.empty if math.prod(shape) * dtype.itemsize < _memory.LEAST else _memory.empty

    def __call__(
        self, a: Array, b: Array | None = None, result: Array | None = None, bias: Array | None = None
    ) -> Array | None:
        if result is None:
            result = self._empty(self._shape, self._dtype)
        workers = 1 if self._serial else _runtime.team(_runtime.resolve_workers(self._workers), self._tasks, self._work)
        if self._sums:
            finite = self._run(a, b, result, self._tasks, workers)
        else:
            if self._fill:
                result[...] = 0
            if b is not None and self._complex_shape:
                b = _real_weights(b.reshape(self._complex_shape))
            weights = self._packed if b is None else (self._packing, b)
            offsets = None if bias is None else np.ascontiguousarray(bias)
            finite = self._run(a, weights, offsets, result, self._tasks, workers)
        return result if finite else None


def plan_of(
    direction: Direction,
    axes: tuple[Axis, ...],
    source: Array,
    result: Array,
    means: Means,
    unpacked: bool = False,
) -> Correlation | Stencil | None:
    """The plan of the forward operator or its adjoint, unless it would waste time."""
    results = result.shape[-len(axes) - 1]
    if not _taps.any_products(axes) or is_wasteful(direction, axes, results, math.prod(source.shape[: -len(axes)])):
        return None
    problem = Problem.of(direction, axes, source, result)
    by_lines = stencil(problem, exact=means == "plain")
    if by_lines:
        return by_lines
    plan = correlation(problem, means, unpacked)
    if means != "mixed" or (plan and not plan.mixed):
        return plan
    other = correlation(problem, "padded", unpacked)
    return plan if plan and other and pays_mixed(plan, other) else other


def _weight_plan(axes: tuple[Axis, ...], x: Array, y: Array, w: Array, means: Means) -> WeightAdjoint | None:
    """The plan of the adjoint in the weights, unless it would waste time or memory."""
    channels = math.prod(y.shape[: -len(axes)])
    if not _taps.any_products(axes) or math.prod(w.shape[3:]) > MAX_ROWS:
        return None
    if is_wasteful("adjoint", axes, w.shape[1], channels):
        return None
    by_lines = weight_lines(Problem.of("forward", axes, x, y))
    plan = by_lines or weight_adjoint(Problem.of("adjoint", axes, y, x), means)
    # Far taps make a wide halo, and the channels of a task many planes of it.
    return None if plan is None or plan.memory > 4 * (x.size + y.size + w.size) + LITTLE else plan


def is_better_swapped(reading: Reading, axes: tuple[Axis, ...], x: Array, w: Array) -> bool:
    """Whether there are so few samples that taps had better take their place.

    One sample along every axis has no position that its taps could share.  A few have some, but every position of a
    phase meets all of its taps, and most of these are beyond the samples.

    Several batch axes cannot always be made one without a copy: such arrays stay as they are.
    """
    d = len(axes)
    if x.ndim > d + 3:
        return False
    samples, taps = (math.prod(a.shape[-d:]) for a in (x, w))
    if samples == 1:
        return taps > 1
    if x.size * taps * w.shape[2] < SWAPPED_LEAST:
        return False
    return math.prod(axis.taps / axis.stride for axis in axes) > SWAPPED[reading] * samples


def swapped(axes: tuple[Axis, ...], x: Array, w: Array, y: Array) -> tuple[tuple[Axis, ...], Array, Array, Array]:
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


def _real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"f{dtype.itemsize // parts_in(dtype)}")


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


def _cache_aligned(size: int, dtype: np.dtype[Any]) -> Array:
    """Uninitialised memory that begins on a cache line."""
    memory = np.empty(size * dtype.itemsize + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size * dtype.itemsize].view(dtype)
