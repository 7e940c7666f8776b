"""Lines of pixels: several numbers at each position, which do not meet each other.

They have the same taps, as along a batch axis that lies inside, or each its own, as in depthwise layers with channels
last.  A line of them is done without a copy (``kernels/pixels.pxi``)::

    x   R G B R G B ...   along one axis,  y[o, c] = sum over taps of  w[k] or w[c, k]  times  x[i, c]

`Pixels` says how vectors hold the numbers of such a line, or those of a line that has one number at each position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ._boxes import Dim
from ._phases import Index

__all__ = ["Pixels", "numbers", "pixels", "size_within"]

LONG = 16  # vectors of a batch axis that is better a line of its own


class Pixels(NamedTuple):
    """Small pixels share a vector.  Large ones have several: one in each *column*, at the same place of every pixel."""

    size: int  # numbers of a pixel; 0 if there are none
    own: bool  # whether each of these has taps of its own
    width: int  # lanes of a vector,
    lanes: int  # and how many of them hold numbers
    together: int  # positions that a vector holds
    steps: tuple[int, int]  # from one vector to the next, in the source and in the result
    columns: tuple[int, ...]  # where each begins in a pixel
    flat: int = 1  # positions that each one stands for: numbers that have the same taps may be positions themselves

    @property
    def best_in_place(self) -> bool:
        """Whether to copy the source for other kernels, number by number, would take longer than anything else."""
        return self.size > 0 or self.flat > 1

    @property
    def numbers(self) -> int:
        """How many there are at each position."""
        return max(1, self.size)

    @property
    def consecutive(self) -> bool:
        """Whether vectors that are stored one after the other follow each other in memory."""
        return self.size < self.width

    @property
    def beyond(self) -> int:
        """Lanes behind the numbers of a vector, which are read with them."""
        return self.width - self.lanes

    def lane_groups(self, groups: int) -> Index:
        """For each column of each group: whose weights and bias its lanes get; or -1.

        If all have the same, one lane stands for all of them.
        """
        if self.size == 0:
            return np.arange(groups)[:, None]
        if not self.own:
            return np.tile(np.repeat(np.arange(groups), len(self.columns))[:, None], self.width)
        lane = np.arange(self.width)
        return np.where(lane < self.lanes, np.array(self.columns)[:, None] + lane % self.size, -1)

    def lane_sums(self) -> Index:
        """For each column: which of the sums over all positions each lane is added to; or -1."""
        if self.size == 0:
            return np.zeros((1, self.width), np.intp)
        lane = np.arange(self.width)
        number = np.array(self.columns)[:, None] + lane % self.size
        again = number < np.arange(len(self.columns))[:, None] * self.width  # as columns may overlap
        return np.where(again | (lane >= self.lanes), -1, number if self.own else 0)


def size_within(dims: Sequence[Dim], extent: Sequence[int], lanes: int) -> int:
    """How many numbers with the same taps a pixel has: those of the last of the axes of positions, if it is batch."""
    *others, last = dims
    inside = others and last.axis < 0 and last.source_stride == last.result_stride == 1
    return extent[-1] if inside and extent[-1] < LONG * lanes else 1


def numbers(lanes: int, flat: int = 1) -> Pixels:
    """A line that has one number at each position."""
    return Pixels(0, False, lanes, lanes, lanes, (lanes, lanes), (0,), flat)


def pixels(size: int, own: bool, steps: tuple[int, int], streams: tuple[int, int], lanes: int) -> Pixels | None:
    """A line of pixels, so far from each other, if there is a way to hold them."""
    if size == 1:
        return numbers(lanes)
    if steps == (size, size) and streams == (1, 1) and not own:
        return numbers(lanes, flat=size)
    if size >= lanes and min(steps) >= size:
        columns = tuple(min(first, size - lanes) for first in range(0, size, lanes))
        return Pixels(size, own, lanes, lanes, 1, steps, columns)
    if size < lanes and steps == (size, size):
        held = lanes - lanes % size
        return Pixels(size, own, lanes, held, held // size, (held, held), (0,))
    return None
