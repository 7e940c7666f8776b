"""Method "auto": "fft" where that is surely faster, else "direct" with what saves multiplications.

Both count their work: "fft" in steps of its transforms, "direct" in multiplications.  So many of these take the time of
a step, and the rest is a comparison of two numbers, by sizes and types alone.  `choose_method` knows the machine.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from ._direct import SWAPPED, Fast, Repeat
from ._fft import Fft
from ._geometry import Axis
from ._phases import Direction, Reading
from ._taps import products
from ._tiles import least_steps, plan_of
from ._ways import is_wasteful

__all__ = ["DEFINITION", "Auto"]

Array = NDArray[Any]

# Products in the time of a step of "fft", where the kernels are fast; a complex one is four, and such a step two.
FEWER = {"f": 19, "d": 11, "F": 10, "D": 6}
DEFINITION = 16  # how many times longer a product takes that numpy computes, tap by tap
MANY = 2**21  # multiplications; fewer are not worth a second plan


class Auto(Fast):
    """Method "auto" (see `cytconv._methods.Method`)."""

    def __init__(self, axes: tuple[Axis, ...], w: Array) -> None:
        super().__init__(axes, w)
        self._fft = Fft(axes, w)

    def forward(self, x: Array, bias: Array | None, y: Array, workers: int) -> None:
        """``y[o] = bias + sum x[i] * w[k]``."""
        chosen = self._fft.forward if takes_fft("forward", self._axes, x, self._w) else super().forward
        chosen(x, bias, y, workers)

    def adjoint(self, y: Array, bias: Array | None, x: Array, workers: int) -> None:
        """``x[i] = bias + sum y[o] * conj(w[k])``."""
        chosen = self._fft.adjoint if takes_fft("adjoint", self._axes, x, self._w) else super().adjoint
        chosen(y, bias, x, workers)

    @classmethod
    def weight_adjoint(cls, axes: tuple[Axis, ...], x: Array, y: Array, w: Array, workers: int) -> None:
        """``w[k] = sum conj(x[i]) * y[o]``."""
        chosen = Fft.weight_adjoint if takes_fft("weight_adjoint", axes, x, w) else super().weight_adjoint
        chosen(axes, x, y, w, workers)

    @classmethod
    def repeat(cls, reading: Reading, axes: tuple[Axis, ...], x: Array, w: Array, *rest: Any) -> Repeat | None:
        """The short way of "direct"."""
        return None if takes_fft(reading, axes, x, w) else super().repeat(reading, axes, x, w, *rest)

    def repeat_packed(self, direction: Direction, x: Array, *rest: Any) -> Repeat | None:
        """The same with these weights."""
        return None if takes_fft(direction, self._axes, x, self._w) else super().repeat_packed(direction, x, *rest)


def takes_fft(reading: Reading, axes: tuple[Axis, ...], x: Array, w: Array) -> bool:
    """Whether "auto" is "fft" for arrays like these, as `Geometry` splits them."""
    most = x.size * math.prod(w.shape[2:])
    return most >= MANY and _is_fft_better(reading, axes, x.shape, w.shape, FEWER[w.dtype.char])


@lru_cache(maxsize=256)
def _is_fft_better(
    reading: Reading, axes: tuple[Axis, ...], x_shape: tuple[int, ...], w_shape: tuple[int, ...], fewer: int
) -> bool:
    if fewer * least_steps(axes, w_shape) > math.prod(w_shape[1:]):  # settled without scipy.fft, which loads slowly
        return False
    plan = plan_of(reading, axes, x_shape, w_shape)
    return plan is not None and fewer * plan.steps < plan.products * _excess(reading, axes, x_shape, w_shape)


def _excess(reading: Reading, axes: tuple[Axis, ...], x_shape: tuple[int, ...], w_shape: tuple[int, ...]) -> float:
    """How many multiplications "direct" takes, or could do meanwhile, for each product of the definition."""
    if reading == "weight_adjoint":
        return 1
    samples, taps = math.prod(axis.n for axis in axes), math.prod(axis.taps for axis in axes)
    of_phase = taps / math.prod(axis.stride for axis in axes)
    swapped = of_phase > SWAPPED[reading] * samples
    groups, inputs, outputs = w_shape[:3]
    sources, results = (inputs, outputs) if reading == "forward" else (outputs, inputs)
    batch = math.prod(x_shape[: -len(axes) - 2])
    if not swapped and is_wasteful(reading, axes, results, batch * groups * sources):
        return DEFINITION
    if reading == "adjoint":
        return max(samples * taps / products(axes), 1)
    # All results of a phase meet all of its taps; or, in each other's place, all results all samples.
    met = samples if swapped else of_phase
    return max(math.prod(axis.m for axis in axes) * met / products(axes), 1)
