"""The definition, one tap at a time, in numpy.

Slower than method "direct" and free of its one shortcut, which is to multiply zero padding by weights
along the borders: harmless unless a weight is infinite or NaN.  Method "direct" hands such weights over
to this module, so that they too reach exactly the outputs that hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._geometry import Axis

__all__ = ["adjoint", "forward"]

Array = NDArray[Any]
Index = tuple[Any, ...]


def taps(axes: tuple[Axis, ...]) -> Iterator[tuple[Index, Index, Index]]:
    """Each tap ``k`` with the samples ``i`` and outputs ``o`` that it joins, as trailing indices of w, x and y."""
    ranges = [[range(int(a), int(b)) for a, b in zip(*axis.reach(), strict=True)] for axis in axes]
    for k in product(*(range(axis.taps) for axis in axes)):
        runs = [ranges[a][tap] for a, tap in enumerate(k)]
        if all(runs):
            i = tuple(slice(run.start, run.stop) for run in runs)
            o = tuple(axis.outputs(tap, run.start, run.stop) for axis, tap, run in zip(axes, k, runs, strict=True))
            yield (..., *k), (..., *i), (..., *o)


def forward(axes: tuple[Axis, ...], x: Array, w: Array, y: Array) -> None:
    """``y[o] = sum x[i] * w[k]``; arrays as `Geometry` splits them."""
    y[...] = 0
    d = len(axes)
    for k, i, o in taps(axes):
        y[o] += np.einsum(x[i], _channel_axes(x, d, "gi"), w[k], [0, 1, 2], _channel_axes(x, d, "go"))


def adjoint(axes: tuple[Axis, ...], y: Array, w: Array, x: Array) -> None:
    """``x[i] = sum y[o] * conj(w[k])``."""
    x[...] = 0
    d = len(axes)
    for k, i, o in taps(axes):
        x[i] += np.einsum(y[o], _channel_axes(y, d, "go"), w[k].conj(), [0, 1, 2], _channel_axes(y, d, "gi"))


def _channel_axes(a: Array, spatial: int, channels: str) -> list[int]:
    """einsum's labels for ``(*batch, groups, channels, *spatial)``: 0 for groups, 1 and 2 for C_in and C_out."""
    lead = a.ndim - spatial - 2
    labels = {"g": 0, "i": 1, "o": 2}
    return [*range(3, 3 + lead), *(labels[c] for c in channels), *range(3 + lead, 3 + lead + spatial)]
