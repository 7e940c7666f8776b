"""Which way to take the axes apart: the one that takes least time, forward or in the data adjoint.

An axis is taken apart as its stride says (`cytconv._phases.split_axis`); or the first one, if it has no stride and the
result few channels, is folded, the last one spread, or several of them mixed (`cytconv._winograd`), to fill tiles, or
to multiply less.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from ._geometry import Axis
from ._layout import Layout, LayoutKey, Price, layout, price
from ._machine import L2_BYTES, PER_CYCLE, WIDE
from ._phases import Direction, Split, fold, is_mixed, split_axis, spread, spread_phases
from ._problem import Problem
from ._runtime import workers_for
from ._taps import products
from ._winograd import BLOCKS, mixtures

__all__ = [
    "LITTLE",
    "MAX_ROWS",
    "MIXED",
    "MIXED_GAIN",
    "MIXED_LEAST",
    "WASTE",
    "Means",
    "best_way",
    "is_wasteful",
    "pays_spread",
]

# Rows of results in one task, so that what a strip of its samples meets stays in L2; more if they are summed up:
ROWS, MIXED_ROWS = 144 * PER_CYCLE, 1024

# Tasks pack their own weights,
FEW_POSITIONS = 320  # with no more than so many positions,
MANY_WEIGHTS = 2**15  # if there are so many weights,
MORE_WEIGHTS = 3  # and so many times more than samples:
PART_BYTES = L2_BYTES // 2  # no more than this for each task,
TASKS = 4  # and so many tasks, or more, for each thread.

# An axis is folded,
FOLD = 4  # so many rows of it becoming rows of a tile,
GAIN = 0.6  # if that takes no more than this share of the time: more samples are packed, and results checked.

# Samples are mixed along several axes (see `_winograd`),
MIXED = 16  # if they have so many channels that are summed over,
MIXED_LEAST = 1e8  # if there are so many multiplications without,
MIXED_GAIN = 0.92  # and if that takes no more than this share of the time.

# Times, in multiplications:
NARROW = 1.4 if PER_CYCLE == 2 else 1  # of one vector by itself, which waits for its weights to be loaded, in vectors
COPY = 30  # to copy one sample,
MIX = 100 * WIDE  # and to combine and pack one weight

# Or there is no plan:
WASTE = 64  # times as much as necessary the kernels may do, as they are that much faster than numpy, which needs
PIECE = 200_000  # the time of so many multiplications to begin with a piece;
LITTLE = 10**7  # so many of them, or samples to copy, are no waste worth avoiding;
MAX_ROWS = 2**18  # and a plan has so many phases and channels of a result, or taps of weights, at most.

# What a plan may do that infinite samples and NaN notice, so that results are to be checked: nothing; multiply them by
# zeros (`fold`); or add them to others (`winograd`), which costs some precision, too.
Means = Literal["plain", "padded", "mixed"]


class Way(NamedTuple):
    """One way to take the axes apart."""

    layout: Layout
    splits: list[Split]
    by_rows: bool  # whether tasks are to pack their weights


def best_way(problem: Problem, means: Means, unpacked: bool = False) -> Way:
    """The way that takes least time.  Tasks may pack weights that come `unpacked`."""
    groups, sources, results = problem.groups, problem.sources, problem.results
    splits = _cheapest(problem, means)
    patterns = tuple(split.pattern for split in splits)
    most = MIXED_ROWS if is_mixed(patterns) else ROWS
    of = price(patterns, sources, results)
    by_rows = unpacked and _packs_weights(problem, splits, of)
    if by_rows:
        threads = workers_for(int(problem.images * groups * _cost(splits, of)))
        fit = PART_BYTES // (of.terms * problem.itemsize)
        most = min(most, max(min(fit, -(-groups * of.rows // (TASKS * threads))), of.unit))
    spatial = problem.result_strides[len(problem.batch) + 2 : -1]
    channels_inside = 0 < problem.channel_steps[1] < min(map(abs, spatial))
    key = LayoutKey(problem.module, problem.direction, patterns, sources, results, channels_inside, most)
    return Way(layout(key), splits, by_rows)


def _cost(splits: list[Split], of: Price) -> float:
    """Multiplications for all positions of an image."""
    return of.cost * math.prod(split.positions for split in splits)


def _cheapest(problem: Problem, means: Means) -> list[Split]:
    """The axes taken apart so that all of it takes least time."""
    direction, axes, sources, results = problem.direction, problem.axes, problem.sources, problem.results
    batch = problem.images * problem.groups

    def priced(splits: list[Split]) -> Price:
        return price(tuple(split.pattern for split in splits), sources, results)

    def cost(splits: list[Split]) -> float:
        return _cost(splits, priced(splits))

    way = best = [split_axis(axis, direction) for axis in axes]
    least = cost(best)
    if direction == "forward" and any(axis.low % axis.stride for axis in axes):
        way = [split_axis(axis, direction, aligned=True) for axis in axes]
        if cost(way) < least:
            best, least = way, cost(way)
    if means != "plain" and results < FOLD and axes[0].stride == axes[0].dilation == 1 and least > LITTLE:
        folded = [fold(axes[0], direction, FOLD), *best[1:]]
        if cost(folded) < GAIN * least:
            return folded
    several = len(axes) > 1 and sources >= MIXED
    if means == "mixed" and several and batch * least > MIXED_LEAST:

        def mixed_cost(splits: list[Split]) -> float:
            return batch * cost(splits) + MIX * priced(splits).weights

        mixed = [m for block in BLOCKS for m in mixtures(way, block)]
        cheapest = min(mixed, key=mixed_cost, default=best)
        if mixed_cost(cheapest) < MIXED_GAIN * batch * least:
            return cheapest
    channels = sources * math.prod(split.source_start.size for split in best[:-1])
    lanes: int = problem.module.lanes
    vectors = -(-best[-1].positions // lanes)  # of a line by itself
    alone = lanes * (NARROW if vectors == 1 else vectors)
    if pays_spread(best[-1], channels, least / math.prod(split.positions for split in best), alone):
        return [*best[:-1], spread(best[-1])]
    return best


def _packs_weights(problem: Problem, splits: list[Split], of: Price) -> bool:
    """Whether there are so many weights for so few positions that tasks had better pack theirs."""
    images = problem.images
    samples = images * problem.sources
    for split in splits:
        samples *= split.source_start.size * (split.positions + split.halo)
    few = images * math.prod(split.positions for split in splits) <= FEW_POSITIONS
    enough = of.weights > MORE_WEIGHTS * samples and problem.groups * of.weights > MANY_WEIGHTS
    plain = all(split.pattern.kernel is None for split in splits)
    return few and enough and plain and of.unit * of.terms * problem.itemsize <= PART_BYTES


def pays_spread(split: Split, channels: int, work: float, alone: float) -> bool:
    """Whether the junk between short lines costs more than to copy the samples several times.

    `channels` counts the planes of a phase along the last axis, `work` the multiplications for each position.  A line
    by itself takes as long as so many positions `alone`.
    """
    line = min(split.positions + split.halo, alone)
    junk = work * (line / split.positions - 1) / (COPY * channels)
    if junk <= max(1, split.pattern.longest - split.source_start.size):  # there are at least so many offsets
        return False
    return junk > spread_phases(split.pattern) - split.source_start.size > 0


def is_wasteful(direction: Direction, axes: tuple[Axis, ...], results: int, channels: int) -> bool:
    """Whether a plan would compute far more than there is.

    There are so many channels of results, and of the source so many `channels`, of all groups and images.

    Every tap meets every position: too much for a kernel much larger than the image, for taps further apart than the
    image is wide, or for a window that few of them reach.  And every phase is a row of tables.
    """
    splits = [split_axis(axis, direction) for axis in axes]
    planned = math.prod(split.positions * axis.taps for split, axis in zip(splits, axes, strict=True))
    rows = results * math.prod(split.result_start.size for split in splits)
    if rows <= MAX_ROWS and planned * channels * results <= LITTLE:
        return False
    pieces = min(math.prod(axis.taps for axis in axes), math.prod(axis.n for axis in axes))
    saved = (planned - WASTE * products(axes)) * channels * results - PIECE * pieces
    return rows > MAX_ROWS or saved > LITTLE
