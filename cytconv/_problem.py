"""What there is a plan for: a reading of a geometry, and where the numbers of its two arrays lie.

Kernels know real numbers alone.  The parts of a complex one are the last axis of its array, and channels beside the
channels: *real channels* are both together.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._geometry import Axis
from ._phases import Direction

__all__ = ["Problem", "Strided", "parts_in"]


def parts_in(dtype: np.dtype[Any]) -> int:
    """How many real numbers make up one of these."""
    return 2 if dtype.kind == "c" else 1


class Strided(NamedTuple):
    """The shape of an array that is split, ``(*batch, groups, channels, *spatial, parts)``; strides count numbers."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, a: NDArray[Any]) -> Strided:
        """That of an array ``(*batch, groups, channels, *spatial)``."""
        parts = parts_in(a.dtype)
        size = a.itemsize // parts
        return cls((*a.shape, parts), (*(stride // size for stride in a.strides), 1))


class Problem(NamedTuple):
    """A correlation: plans are made for it, and kept by it.  Both arrays have the same batch and groups."""

    module: ModuleType  # of the kernels
    direction: Direction
    axes: tuple[Axis, ...]
    source: Strided
    result: Strided

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        size: int = self.module.vector_bytes // self.module.lanes
        return size

    @property
    def lead(self) -> int:
        """Batch axes; the groups are the next one."""
        return len(self.source.shape) - len(self.axes) - 3

    @property
    def batch(self) -> tuple[int, ...]:
        return self.source.shape[: self.lead]

    @property
    def images(self) -> int:
        return math.prod(self.batch)

    @property
    def groups(self) -> int:
        return self.source.shape[self.lead]

    @property
    def parts(self) -> int:
        return self.source.shape[-1]

    @property
    def sources(self) -> int:
        """Real channels of the source, in a group,"""
        return self.source.shape[self.lead + 1] * self.parts

    @property
    def results(self) -> int:
        """and of the result."""
        return self.result.shape[self.lead + 1] * self.parts

    @property
    def group_steps(self) -> tuple[int, int]:
        """From one group to the next, in the source and in the result."""
        return self.source.strides[self.lead], self.result.strides[self.lead]

    @property
    def channel_steps(self) -> tuple[int, int]:
        """The same from one channel to the next; of the parts, which are neighbours, `parts` make one."""
        return self.source.strides[self.lead + 1], self.result.strides[self.lead + 1]
