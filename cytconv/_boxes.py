"""The axes of positions, batch and kernel alike, and boxes of positions that fit the caches.

A worker holds one packed box of the source and the results that it makes of it, in all ::

    planes * prod(box + halo) + (rows + 1) * prod(box)        numbers, rounded up to whole tiles and cache lines

with a plane for each channel and phase of the source, and a row for each channel and phase of the result, of which a
task has fewer than 288.  `box_shape` keeps ``planes * prod(box)`` within five eighths of the second-level cache and
``rows * prod(box)`` within a quarter, as far as a box of two tiles (4 to 16 vectors of positions) allows.  In the
adjoint of the weights it is ::

    channels of x * prod(box) + planes of y * prod(box + halo) + 6 * taps * channels of y

of up to 1024 channels of x and, but for a single channel with more phases, 128 planes of y; and besides, up to 16 MiB
for the sums of several shares of the positions, and 8 MiB for planes of x that several tasks read.  With fewer
multiplications (`cytconv._winograd`) planes and rows are those that are multiplied, up to 1024 rows and planes of y in
a task, and the rows that are sums of them are held, too.  Nothing else that a call allocates grows with the arrays, but
the packed weights, sums of weights while they are packed, and copies of arrays that are not aligned and in native byte
order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ._geometry import Axis
from ._phases import Index, Split, split_axis
from .kernels import cpu, tables

__all__ = [
    "TASKS",
    "Dim",
    "all_phases",
    "box_shape",
    "dims_of",
    "grown",
    "line_pitch",
    "of_axes",
    "pitches",
    "reach",
    "result_places",
    "source_places",
    "table",
    "with_full_vectors",
]

Sizes = list[int]  # one for each axis of positions

L2_BYTES = min(max(cpu.cache_bytes(), 256 * 1024), 2 * 1024 * 1024)
SOURCE_BYTES = L2_BYTES * 5 // 8  # size of the packed copy of the source that a task works on
RESULT_BYTES = L2_BYTES // 4  # size of the results that a task holds before it stores them
TASKS = 16  # split the work at least this fine where it can be


class Dim(NamedTuple):
    """One axis of positions: an axis of the kernel, or a batch axis, which is an axis with one tap."""

    split: Split
    axis: int  # its number among the axes of the kernel; -1 for batch
    source_stride: int
    result_stride: int


def dims_of(
    splits: Sequence[Split], shape: Sequence[int], source: Sequence[int], result: Sequence[int]
) -> tuple[list[Dim], Sizes, Sizes]:
    """The axes of positions, outermost first, with their extents and halos.

    `shape` holds the sizes of the batch axes, the strides those of all axes, batch in front.  The axes that lie nearest
    in memory come last, whichever they are, and those with a single position first.
    """
    lead = len(shape)
    # An axis on which each sample meets one tap and becomes one output is a batch axis.
    alike = [split.is_identity() for split in splits]
    batch = [*zip(shape, source[:lead], result[:lead], strict=True)]
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
    return dims, [dim.split.positions for dim in dims], [dim.split.halo for dim in dims]


def all_phases(sizes: tuple[int, ...]) -> Index:
    """All combinations of phases, one column for each axis of the kernel."""
    return np.indices(sizes, np.intp).reshape(len(sizes), -1).T


def source_places(dims: Sequence[Dim], phases: Index) -> tuple[Index, Index]:
    """For each of these phases of the source: where it starts, and its positions ``[first, last)`` along every dim."""
    sides = [
        (axis, stride, s.source_start, s.source_step, s.source_size, s.positions + s.halo)
        for s, axis, stride, _ in dims
    ]
    return tables.places(phases, sides)


def result_places(dims: Sequence[Dim], phases: Index) -> tuple[Index, Index]:
    """The same for phases of the result."""
    sides = [(axis, stride, s.result_start, s.result_step, s.result_size, s.positions) for s, axis, _, stride in dims]
    return tables.places(phases, sides)


def of_axes(dims: Sequence[Dim], along: Sizes, ndim: int) -> Sizes:
    """What there is for each dim, for each axis of the kernel instead; 0 for one that is batch."""
    values = [0] * ndim
    for dim, value in zip(dims, along, strict=True):
        if dim.axis >= 0:
            values[dim.axis] = value
    return values


def box_shape(extent: Sizes, halo: Sizes, source_bytes: int, result_bytes: int, least: int, splits: int) -> Sizes:
    """How many positions along each axis make a task: as many as the caches hold, in a shape with little halo.

    `source_bytes` and `result_bytes` are those of one position.  A box has no fewer than `least` positions where there
    are as many, even if the work, which other things split in `splits` already, then comes in few tasks.
    """
    budget = min(
        SOURCE_BYTES // max(source_bytes, 1), RESULT_BYTES // result_bytes, -(-math.prod(extent) * splits // TASKS)
    )
    budget = max(budget, least)
    box = [*(min(size, 1) for size in extent[:-1]), min(extent[-1], least)]
    growing = [a for a in range(len(box)) if box[a] < extent[a]]
    while growing:
        # Grow where the halo weighs most; the innermost axis if none does.
        a = max(growing, key=lambda a: (halo[a] / box[a], a))
        larger = min(2 * box[a], extent[a], budget // math.prod(box[:a] + box[a + 1 :]))
        if larger <= box[a] or larger == extent[a]:
            growing.remove(a)
        box[a] = max(larger, box[a])
    # All of equal size.
    return [-(-size // max(1, -(-size // part))) if part else 0 for size, part in zip(extent, box, strict=True)]


def with_full_vectors(box: Sizes, extent: Sizes, halo: Sizes, lanes: int) -> Sizes:
    """The same with a little more or less along the outermost axis that is split, so that vectors are full."""
    a = next((a for a in range(len(box)) if box[a] < extent[a]), None)
    if a is None:
        return box
    line = math.prod(grown(box, halo)[a + 1 :])
    return [*box[:a], tables.even_part(extent[a], box[a], line, lanes), *box[a + 1 :]]


def grown(box: Sizes, halo: Sizes) -> Sizes:
    """What is packed for a box."""
    return [size + more for size, more in zip(box, halo, strict=True)]


def pitches(size: Sizes) -> Sizes:
    """Strides of a contiguous array of this shape."""
    strides = [1]
    for n in size[:0:-1]:
        strides.append(strides[-1] * n)
    return strides[::-1]


def reach(size: Sizes, pitch: Sizes) -> int:
    """From the first to the last element of a box of this size, both included."""
    return sum((n - 1) * step for n, step in zip(size, pitch, strict=True)) + 1


def table(values: Iterable[int]) -> Index:
    """A table for the kernels; offsets are modulo the address space (see `cytconv.kernels.tables.places`)."""
    return np.array([(value + 2**63) % 2**64 - 2**63 for value in values], np.intp)


def line_pitch(size: int, itemsize: int) -> int:
    """Round up to an odd number of cache lines, so that a column through many lines spreads over all cache sets."""
    line = 64 // itemsize
    return (-(-size // line) | 1) * line
