"""The axes of positions, batch and kernel alike, and boxes of positions that fit the caches.

A worker holds one packed box of the source and the results that it makes of it, in all ::

    planes * prod(box + halo) + (rows + 1) * prod(box)        numbers, rounded up to whole tiles and cache lines

with a plane for each channel and phase of the source, and a row for each channel and phase of the result, of which a
task has fewer than 576, and where strips are copied one that stays in L1.  ``planes * prod(box)`` is kept within five
eighths of the second-level cache, and within 768 KiB unless more makes room for 320 positions, and
``rows * prod(box)`` within a quarter, as far as a box of three tiles (6 to 24 vectors of positions) allows; among such
boxes `cytconv.kernels.tables.best_box` finds the one that takes least time.  Where tasks pack their weights, which is
with no more than 320 positions, it holds all planes, up to 8 MiB, and of the weights as much as the second-level cache
at most.  In the adjoint of the weights it is ::

    channels of x * prod(box) + planes of y * prod(box + halo) + 6 * taps * channels of y

of up to 1024 channels of x and, but for a single channel with more phases, 128 planes of y; and besides, up to 16 MiB
for the sums of several shares of the positions, and 8 MiB for planes of x that several tasks read.  With fewer
multiplications (`cytconv._winograd`) planes and rows are those that are multiplied, up to 2048 rows, or 1024 planes of
y, in a task, and the rows that are sums of them are held, too, and the samples of one channel or, if channels lie
inside, as many as a vector has lanes.  Where lines are read in place (`cytconv._lines`) a worker holds the bias of each
row and at most 4 KiB of some rows, or, in the adjoint in the weights, two vectors for each of up to 4096 products, more
if pixels are larger than a vector, and a number for each share of the positions.  Nothing else that a call allocates
grows with the arrays, but the packed weights, sums of weights while they are packed, and copies of arrays that are not
aligned and in native byte order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np

from ._geometry import Axis
from ._machine import FETCHES, KIB, L2_BYTES
from ._phases import Index, Split, split_axis
from ._problem import Problem
from .kernels import tables

__all__ = [
    "BOX",
    "RESULT_BYTES",
    "SOURCE_BYTES",
    "Dim",
    "Sizes",
    "all_phases",
    "arranged",
    "channel_places",
    "dims_of",
    "first_gapless",
    "grown",
    "line_pitch",
    "of_axes",
    "pitches",
    "planes_of",
    "positions_in_cache",
    "reach",
    "result_places",
    "round_up",
    "sizes",
    "source_places",
    "table",
]

Sizes = list[int]  # one for each axis of positions

SOURCE_BYTES = min(L2_BYTES * 5 // 8, 768 * KIB)  # size of the packed copy of the source that a task works on,
MORE_SOURCE_BYTES = L2_BYTES * 5 // 8  # and at most, if that takes so much to have
ENOUGH = 320  # positions
SMALL = 1024  # positions of an image that, if it is in a batch, need not keep their order
ARRANGED = 0.9  # share of the time that the usual order takes, for another
RESULT_BYTES = min(L2_BYTES // 4, 384 * KIB)  # size of the results that a task holds before it stores them
BOX = 2000  # cycles that it takes to begin with a box


class Dim(NamedTuple):
    """One axis of positions: an axis of the kernel, or a batch axis, which is an axis with one tap."""

    split: Split
    axis: int  # its number among the axes of the kernel; -1 for batch
    source_stride: int
    result_stride: int

    @property
    def steps(self) -> tuple[int, int]:
        """From one position to the next, in the source and in the result."""
        return self.split.source_step * self.source_stride, self.split.result_step * self.result_stride


def dims_of(splits: Sequence[Split], problem: Problem) -> list[Dim]:
    """The axes of positions, outermost first.

    The axes that lie nearest in memory come last, whichever they are, and those with a single position first.
    """
    lead = len(problem.batch)
    source, result = ((*s[:lead], *s[lead + 2 : -1]) for s in (problem.source_strides, problem.result_strides))
    # An axis on which each sample meets one tap and becomes one output is a batch axis.
    alike = [split.is_identity() for split in splits]
    batch = [*zip(problem.batch, source[:lead], result[:lead], strict=True)]
    batch += [
        (split.positions, s, r)
        for split, s, r, same in zip(splits, source[lead:], result[lead:], alike, strict=True)
        if same
    ]
    # Neighbouring batch axes are one where both arrays step through them evenly.
    merged: list[tuple[int, int, int]] = []
    for n, s, r in batch:
        if n == 1:
            continue
        if merged and merged[-1][1:] == (n * s, n * r):
            merged[-1] = (merged[-1][0] * n, s, r)
        else:
            merged.append((n, s, r))
    dims = [Dim(split_axis(Axis(n, 1, n), "adjoint"), -1, s, r) for n, s, r in merged]
    dims += [Dim(split, a, source[lead + a], result[lead + a]) for a, split in enumerate(splits) if not alike[a]]
    if not dims:  # a single position
        dims = [Dim(split_axis(Axis(1, 1, 1), "adjoint"), -1, 1, 1)]
    dims.sort(key=lambda dim: (dim.split.positions > 1, -abs(dim.source_stride) - abs(dim.result_stride)))
    return dims


def sizes(dims: Sequence[Dim]) -> tuple[Sizes, Sizes]:
    """The extents and halos of these axes."""
    return [dim.split.positions for dim in dims], [dim.split.halo for dim in dims]


def arranged(dims: list[Dim], box_of: Callable[[list[Dim]], tuple[float, Sizes, int]]) -> tuple[list[Dim], Sizes, int]:
    """The order of the axes that takes least time, its box, and the axis from which on positions are one run.

    Where images are small, batch axes may come after some of the axes of the kernel.  They have no halo, which is junk
    between the lines of a run but for that of its outermost axis; and a run leaves out the taps that read nothing along
    the axes before it.
    """
    least, box, flat = box_of(dims)
    positions, halo = sizes([dim for dim in dims if dim.axis >= 0])
    if dims[-1].axis < 0 or len(positions) == len(dims) or not any(halo) or math.prod(positions) > SMALL:
        return dims, box, flat
    single = [dim for dim in dims if dim.split.positions == 1]
    batch = [dim for dim in dims if dim.axis < 0 and dim.split.positions > 1]
    others = [dim for dim in dims if dim.axis >= 0 and dim.split.positions > 1]
    least *= ARRANGED
    for a in range(1, len(others)):
        order = [*single, *others[:a], *batch, *others[a:]]
        time, other, first = box_of(order)
        if time < least:
            least, dims, box, flat = time, order, other, first
    return dims, box, flat


@lru_cache(maxsize=64)
def all_phases(numbers: tuple[int, ...]) -> Index:
    """All combinations of phases, one column for each axis of the kernel."""
    phases: Index = np.indices(numbers, np.intp).reshape(len(numbers), -1).T
    phases.flags.writeable = False
    return phases


def source_places(dims: Sequence[Dim], splits: Sequence[Split]) -> tuple[Index, Index]:
    """For each phase of the source: where it starts, and its positions ``[first, last)`` along every dim."""
    phases = all_phases(tuple(split.source_start.size for split in splits))
    sides = [
        (axis, stride, s.source_start, s.source_step, s.source_size, s.positions + s.halo)
        for s, axis, stride, _ in dims
    ]
    return tables.places(phases, sides)


def result_places(dims: Sequence[Dim], phases: Index) -> tuple[Index, Index]:
    """The same for these phases of the result."""
    sides = [(axis, stride, s.result_start, s.result_step, s.result_size, s.positions) for s, axis, _, stride in dims]
    return tables.places(phases, sides)


def planes_of(
    problem: Problem,
    side: Literal[0, 1],
    dims: Sequence[Dim],
    places: tuple[Index, Index],
    pitch: Sizes,
    channel_pitch: int,
    phase_pitch: int,
) -> Any:
    """What packs boxes of the source (0) or of the result (1), whose phases are at these places, into planes."""
    start, within = places
    channels = (problem.sources, problem.results)[side]
    return problem.module.Planes(
        step=table(dim.steps[side] for dim in dims),
        channel=channel_places(np.arange(channels), problem.parts, problem.channel_steps[side]),
        group=problem.group_steps[side],
        fetches=FETCHES,
        start=start,
        valid=within.ravel(),
        pitch=table(pitch),
        channel_pitch=channel_pitch,
        phase_pitch=phase_pitch,
    )


def channel_places(channel: Index, parts: int, step: int) -> Index:
    """Where channels begin in their array; the parts of complex numbers, which are neighbours, are channels, too."""
    return channel * step if parts == 1 else channel // parts * step + channel % parts


def of_axes(dims: Sequence[Dim], along: Sizes, ndim: int) -> Sizes:
    """What there is for each dim, for each axis of the kernel instead; 0 for one that is batch."""
    values = [0] * ndim
    for dim, value in zip(dims, along, strict=True):
        if dim.axis >= 0:
            values[dim.axis] = value
    return values


def positions_in_cache(size: int) -> int:
    """How many positions a box may have that takes so many bytes for each of them.

    Small boxes leave room in the cache for what comes and goes; but all weights pass by each of them.
    """
    size = max(size, 1)
    return max(SOURCE_BYTES // size, min(ENOUGH, MORE_SOURCE_BYTES // size))


def grown(box: Sizes, halo: Sizes) -> Sizes:
    """What is packed for a box."""
    return [size + more for size, more in zip(box, halo, strict=True)]


def pitches(size: Sizes) -> Sizes:
    """Strides of a contiguous array of this shape."""
    strides = [1]
    for n in size[:0:-1]:
        strides.append(strides[-1] * n)
    return strides[::-1]


def first_gapless(box: Sizes, pitch: Sizes, steps: Sizes, least: int) -> int:
    """The first axis, from `least` on, from which on the positions of a box follow each other, in both arrays.

    One has these pitches, the other these steps; the last axis always does, if its step is 1.
    """
    gapless = pitches(box)
    for a in range(least, len(box)):
        if all(n == 1 or p == s == g for n, p, s, g in zip(box[a:], pitch[a:], steps[a:], gapless[a:], strict=True)):
            return a
    return len(box) - 1


def reach(size: Sizes, pitch: Sizes) -> int:
    """From the first to the last element of a box of this size, both included."""
    return sum((n - 1) * step for n, step in zip(size, pitch, strict=True)) + 1


def table(values: Iterable[int]) -> Index:
    """A table for the kernels; offsets are modulo the address space (see `cytconv.kernels.tables.places`)."""
    return np.array([(value + 2**63) % 2**64 - 2**63 for value in values], np.intp)


def round_up(size: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-size // unit) * unit


def line_pitch(size: int, itemsize: int) -> int:
    """Round up to an odd number of cache lines, so that a column through many lines spreads over all cache sets."""
    line = 64 // itemsize
    return (-(-size // line) | 1) * line
