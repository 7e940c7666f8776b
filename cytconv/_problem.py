"""What there is a plan for: a reading of a geometry, and where the numbers of its two arrays lie.

Kernels know real numbers alone.  Arrays are ``(*batch, groups, channels, *spatial, parts)`` to them: the parts of a
complex number are the last axis, and channels beside the channels, which together with them are *real channels*.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._geometry import Axis
from ._phases import Direction
from ._runtime import kernels

__all__ = ["Problem", "parts_in"]

Array = NDArray[Any]


def parts_in(dtype: np.dtype[Any]) -> int:
    """How many real numbers make up one of these."""
    return 2 if dtype.kind == "c" else 1


class Problem(NamedTuple):
    """A correlation: plans are made for it, and kept by it."""

    module: ModuleType  # of the kernels
    direction: Direction
    axes: tuple[Axis, ...]
    batch: tuple[int, ...]
    groups: int
    sources: int  # real channels of the source, in a group,
    results: int  # and of the result
    parts: int
    source_strides: tuple[int, ...]  # they count real numbers
    result_strides: tuple[int, ...]

    @classmethod
    def of(cls, direction: Direction, axes: tuple[Axis, ...], source: Array, result: Array) -> Problem:
        """That of arrays ``(*batch, groups, channels, *spatial)`` of one type."""
        lead, parts = source.ndim - len(axes) - 2, parts_in(source.dtype)
        return cls(
            kernels(source.dtype),
            direction,
            axes,
            source.shape[:lead],
            source.shape[lead],
            source.shape[lead + 1] * parts,
            result.shape[lead + 1] * parts,
            parts,
            _strides(source, parts),
            _strides(result, parts),
        )

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        size: int = self.module.vector_bytes // self.module.lanes
        return size

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Taps along each axis."""
        return tuple([axis.taps for axis in self.axes])

    @property
    def images(self) -> int:
        return math.prod(self.batch)

    @property
    def group_steps(self) -> tuple[int, int]:
        """From one group to the next, in the source and in the result."""
        lead = len(self.batch)
        return self.source_strides[lead], self.result_strides[lead]

    @property
    def channel_steps(self) -> tuple[int, int]:
        """The same from one channel to the next; the parts of one are neighbours."""
        lead = len(self.batch)
        return self.source_strides[lead + 1], self.result_strides[lead + 1]


def _strides(a: Array, parts: int) -> tuple[int, ...]:
    size = a.itemsize // parts
    return (*[stride // size for stride in a.strides], 1)
