"""The definition, one tap or one sample at a time, in numpy.

Where method "direct" would waste its time it hands over to this module, whose work follows the samples and the taps
that there are: a kernel far larger than the image, or taps further apart than the image is wide.  And where it would be
wrong: the kernels multiply the zeros around the image by weights, which is harmless unless a weight is infinite or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._geometry import Axis

__all__ = ["adjoint", "any_products", "forward", "products", "weight_adjoint"]

Array = NDArray[Any]
Index = tuple[Any, ...]


@lru_cache(maxsize=256)
def products(axes: tuple[Axis, ...]) -> int:
    """How many triples ``(o, i, k)`` there are: the work that nobody can save."""
    return math.prod(axis.products() for axis in axes)


def any_products(axes: tuple[Axis, ...]) -> bool:
    """Whether there is anything to do."""
    return all(axis.all_taps_reach() for axis in axes) or products(axes) > 0


def add_bias(bias: Array | None, result: Array, d: int) -> None:
    """To results that are complete, with d axes behind their channels."""
    if bias is not None:
        with np.errstate(all="ignore"):  # as the compiled kernels: infinity and NaN are results like any others
            result += bias.reshape(*bias.shape, *(1,) * d)


def forward(axes: tuple[Axis, ...], x: Array, w: Array, bias: Array | None, y: Array) -> None:
    """``y[o] = bias + sum x[i] * w[k]``; arrays as `Geometry` splits them."""
    d = len(axes)
    y[...] = 0 if bias is None else bias.reshape(*bias.shape, *(1,) * d)
    with np.errstate(all="ignore"):
        for i, k, o, _ in _pieces(axes):
            part = y[o]
            part += np.einsum("...gin,gion->...gon", _flat(x[i], d), _flat(w[k], d)).reshape(part.shape)


def adjoint(axes: tuple[Axis, ...], y: Array, w: Array, bias: Array | None, x: Array) -> None:
    """``x[i] = bias + sum y[o] * conj(w[k])``."""
    d = len(axes)
    x[...] = 0 if bias is None else bias.reshape(*bias.shape, *(1,) * d)
    with np.errstate(all="ignore"):
        for i, k, o, one_tap in _pieces(axes):
            part = x[i]
            sums = "...gon,gion->...gin" if one_tap else "...gon,gion->...gi"
            part += np.einsum(sums, _flat(y[o], d), _flat(w[k], d).conj()).reshape(part.shape)


def weight_adjoint(axes: tuple[Axis, ...], x: Array, y: Array, w: Array) -> None:
    """``w[k] = sum conj(x[i]) * y[o]``."""
    d = len(axes)
    w[...] = 0
    with np.errstate(all="ignore"):
        for i, k, o, one_tap in _pieces(axes):
            sums = "bgin,bgon->gio" if one_tap else "bgin,bgon->gion"
            left, right = (a.reshape(-1, *a.shape[-3:]) for a in (_flat(x[i], d).conj(), _flat(y[o], d)))
            part = w[k]
            part += np.einsum(sums, left, right).reshape(part.shape)


def _pieces(axes: Sequence[Axis]) -> Iterator[tuple[Index, Index, Index, bool]]:
    """One tap with all its samples, or one sample with all its taps, whichever are fewer pieces.

    Gives the trailing indices of x, w and y, and which of the two it is.
    """
    one_tap = math.prod(axis.taps for axis in axes) <= math.prod(axis.n for axis in axes)
    axes = axes if one_tap else [axis.swapped() for axis in axes]
    ranges = [[range(first, last) for first, last in zip(*map(list, axis.reach()), strict=True)] for axis in axes]
    for index in product(*(range(axis.taps) for axis in axes)):
        runs = [ranges[a][k] for a, k in enumerate(index)]
        if all(runs):
            one = (..., *(slice(k, k + 1) for k in index))
            many = (..., *(slice(run.start, run.stop) for run in runs))
            o = (..., *(axis.outputs(k, run.start, run.stop) for axis, k, run in zip(axes, index, runs, strict=True)))
            yield (many, one, o, True) if one_tap else (one, many, o, False)


def _flat(a: Array, d: int) -> Array:
    """The last `d` axes as one; of a broadcast array a copy, as einsum multiplies sums by what it repeats.

    That is not the sum of the products where one of them is infinite.
    """
    if 0 in a.strides:
        a = a.copy()
    return a.reshape(*a.shape[: a.ndim - d], -1)
