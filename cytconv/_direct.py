"""Method "direct" (temporary stand-in: the definition, tap by tap)."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from . import _taps
from ._geometry import Axis

Array = NDArray[Any]


class Direct:
    def __init__(self, axes: tuple[Axis, ...], w: Array) -> None:
        self.axes, self.w = axes, w.copy()

    def forward(self, x: Array, bias: Array | None, y: Array, workers: int) -> None:
        _taps.forward(self.axes, x, self.w, y)
        if bias is not None:
            y += bias.reshape(*bias.shape, *(1,) * len(self.axes))

    def adjoint(self, y: Array, x: Array, workers: int) -> None:
        _taps.adjoint(self.axes, y, self.w, x)

    @staticmethod
    def weight_adjoint(axes: tuple[Axis, ...], x: Array, y: Array, w: Array, workers: int) -> None:
        _taps.weight_adjoint(axes, x, y, w)
