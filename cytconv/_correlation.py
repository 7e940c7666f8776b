"""Plans of the forward operator and its adjoint, which are one correlation (see `cytconv._phases`).

In a flat copy of a box of the source, padded with zeros, every tap is one constant offset, however many axes there
are.  What is left is a matrix product: rows of results (channels and phases) times a sum over channels and taps times
positions.

Rows whose taps sit at the same offsets form a *class*: they share one list of segments (see ``kernels/tile.pxi``), so
that no tap is ever filled up with zeros.  `_layout` multiplies the axes out into rows, classes and segments, which
fixes the order of the packed weights; `_best` chooses among the ways to take the axes apart; `correlation` adds strides
and boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._boxes import (
    RESULT_BYTES,
    Dim,
    all_phases,
    arranged,
    dims_of,
    first_gapless,
    grown,
    line_pitch,
    of_axes,
    pitches,
    positions_in_cache,
    reach,
    result_places,
    sizes,
    source_places,
    table,
)
from ._geometry import Axis
from ._machine import COPIED, FETCHES, KIB, L1_BYTES, L2_BYTES, PER_CYCLE, WIDE
from ._phases import Direction, Index, Pattern, Run, Split, fold, split_axis, spread, spread_phases
from ._runtime import ISA, workers_for
from ._taps import products
from ._winograd import BLOCKS, mixing_cost, mixtures, plane_terms, read_places, result_terms, tap_terms
from .kernels.tables import best_box, blocks, run_times

# How near to the peak each register tile was seen to come, by its number of rows (kernels/tile.pxi).
TILES = {6: 1.0, 4: 1.0, 3: 0.92, 2: 0.92, 1: 0.5} if ISA == "avx512" else {6: 1.0, 4: 1.0, 3: 0.8, 2: 0.8, 1: 0.5}

STRIP_BYTES = L1_BYTES * 3 // 4  # of the source, all taps of some channels, that a tile reads before other channels
STRIPS = PER_CYCLE == 2  # whether it then passes its sums on, so that all panels find them in L1: or L2 is near enough
ROWS = max(144, 288 * L2_BYTES // 2**21)  # of results in one task: what they multiply these samples with stays in L2
AGAIN = 2  # For another box, all weights are read again: in the time in which they meet so many vectors of positions.
BOX = 2000  # What else it takes to begin with a box, in cycles.
MIXED_ROWS = 1024  # rows of results in one task where these are sums of other rows
FEW_POSITIONS = 320  # with which a task may pack its weights,
MANY_WEIGHTS = 2**15  # if there are so many of them,
MORE_WEIGHTS = 3  # and so many times more than samples:
PART_BYTES = L2_BYTES // 2  # no more than this for each task,
PLANES_BYTES = 8 * KIB**2  # all planes of the samples taking no more than that,
TASKS = 4  # and so many tasks, or more, for each thread
WASTE = 64  # how many times more than necessary the kernels may do: they are that much faster than numpy
PIECE = 200_000  # multiplications that the kernels do in the time that numpy needs to begin with a piece
LITTLE = 10**7  # multiplications, or samples to copy, that are no waste worth avoiding
FOLD = 4  # rows of an axis that become rows of a tile,
GAIN = 0.6  # if that takes no more than this share of the time: more samples are packed, and results checked
NARROW = 1.4 if PER_CYCLE == 2 else 1  # vectors in the time of one by itself, which waits for its weights to be loaded
SHORT = 32  # positions along an axis, for each of its halo, of which a share worth counting meets only zeros
RUN = 0.3  # vectors that are multiplied in the time that it takes to begin with a run of them, with many weights
COPY = 30  # multiplications that take as long as to copy one sample,
MIX = 100 * WIDE  # or to combine and pack one weight
MAX_ROWS = 2**18  # phases and channels of a result, or taps of weights, for which to make a plan
MIXED = 16  # channels that are summed over, if samples are mixed (see `_winograd`) along several axes,
MIXED_LEAST = 1e8  # and multiplications without,
MIXED_GAIN = 0.92  # if that takes no more than this share of the time
SUM = 10 * WIDE  # multiplications that take as long as to copy and add up one sample of a box
STREAM_BYTES = 2 * KIB**2  # a result larger than this is written past the caches (sums by lines: see `_stencil`),
STREAM_LINE = 256  # if its lines have as many bytes
STORE = 8  # cycles that it takes to hold and store a vector of results, instead of writing it at once
UNALIGNED = 0.03  # share of the time that it takes to end a run before the end of a vector

# What a plan may do that infinite samples and NaN notice, so that results are to be checked: nothing; multiply them by
# zeros (`fold`); or add them to others (`winograd`), which costs some precision, too.
Means = Literal["plain", "padded", "mixed"]


@dataclass(frozen=True)
class _Class:
    """The sum behind a class of rows: one entry for each segment, in the order of the packed weights."""

    plane: Index  # which plane is read: of the first channel of the segment, of a phase of the source
    offset: Index  # offsets along the axes, one column for each
    length: Index
    strips: Index  # segment at which each strip begins, and the number of segments
    weights: Index  # where in w each of the products finds its weight, counted from the row's own


@dataclass(frozen=True, eq=False)
class Layout:
    """Rows of results and the order in which their weights are packed; knows nothing of strides or batches."""

    key: tuple[Any, ...]  # equal for equal layouts
    patterns: tuple[Pattern, ...]
    tile: int  # rows in a register tile
    inner: int  # what a segment runs along: an axis, or -1 for channels
    segments: Index  # of all classes: where in the packed weights, counted from those of a row, and how many steps;
    segment_plane: Index  # which plane is read,
    segment_offset: Index  # and the offset in it along each axis
    strips: Index  # segment at which each strip begins, and the number of segments
    class_strip: Index  # strip at which each class begins, and the number of strips
    class_products: Index  # product at which each class begins, and their number
    products: Index  # in the order of memory: where in w each of them finds its weight, counted from the row's own,
    places: Index  # and where in the panel it goes
    row_channel: Index  # of the rows that are stored: those of the tiles, or sums of them
    row_phase: Index  # one column for each axis
    row_place: Index  # and which rows of the tiles they are, within their group; one of zeros for those without a tap
    row_groups: Index  # such row at which each group begins, and the number of rows
    widest: int  # rows of the tiles in a group, at most; a spare one comes next, and one of zeros if there is any,
    zeros: bool  # which this says,
    stored: int  # and rows that are stored
    channel_rows: int  # rows of the tiles for each channel of results
    panels: Index  # for each group and class, the first panel; and the number of panels
    panel_class: Index
    panel_rows: Index  # rows of each panel, counted within its group
    panel_weights: Index  # where in w the rows of each panel begin
    panel_start: Index  # where each panel begins in the packed weights, and their size

    @property
    def combines_taps(self) -> bool:
        """Whether taps are sums, or zeros have come among them: then results are to be checked for infinity and NaN."""
        return any(pattern.kernel is not None for pattern in self.patterns)

    @lru_cache(maxsize=64)  # noqa: B019  # a layout is in a cache of that size itself
    def packing(self, groups: int, taps: tuple[int, ...]) -> Any:
        """What packs the weights of so many groups of channels, each a contiguous array of real numbers."""
        module, _, _, sources, results, *_ = self.key
        pairs = sources * results
        sums = None
        if self.combines_taps:
            # Some pairs of channels at a time, each tap a line with one number for each of them.
            together = module.pairs_together
            places = np.arange(math.prod(taps)) * together
            sums = module.Sums(*tap_terms(self.patterns, taps), places, together, _pairs_pitch(module, pairs))
        return module.Weights(
            groups,
            pairs,
            math.prod(taps),
            sums,
            self.tile,
            self._rows_are_near(),
            self.panel_start,
            self.panel_weights,
            self.class_products[self.panel_class],
            self.products,
            self.places,
        )

    def _rows_are_near(self) -> bool:
        """Whether, on average, the weights that the rows of a panel have of one product span less than a cache line."""
        module = self.key[0]
        span = (int(self.panel_weights.max(initial=0)) + 1) * module.vector_bytes // module.lanes
        return bool(span * self.tile < 64 * self.panel_weights.size)


class _Price(NamedTuple):
    """What it takes to multiply, for each position."""

    tile: int  # rows in a register tile: the height that wastes least, weighed by the work of each class
    cost: float  # multiplications, weighed by how fast the tile is
    weights: int  # that are packed, but for what the tiles of several groups of rows lack
    rows: int  # of results,
    terms: int  # how many products one of them is the sum of, at most,
    unit: int  # and how many together fill their tiles


@lru_cache(maxsize=256)
def _price(patterns: tuple[Pattern, ...], sources: int, results: int) -> _Price:
    """Of `sources` channels summed over and `results` channels of results."""
    count, terms = _classes(patterns, sources, results)
    mixed = any(pattern.mix for pattern in patterns)
    work = np.where((terms > 0) | mixed, 1 + terms, 0)

    def cost(tile: int) -> float:
        return float((work * -(-count // tile) * tile).sum()) / TILES[tile]

    tile = min(TILES, key=cost)
    # The terms of all sums, and the sums.
    mixing = mixing_cost(patterns, sources, results) if mixed else 0
    weights = int((terms * -(-count // tile) * tile).sum())
    unit = tile * (int(count.sum()) // results if count.size > 1 else 1)
    return _Price(tile, cost(tile) + mixing, weights, int(count.sum()), int(terms.max()), unit)


def _classes(patterns: tuple[Pattern, ...], sources: int, results: int) -> tuple[Index, Index]:
    """How many rows there are of each class, and how many terms their sums have."""
    count, terms = np.array([results]), np.array([sources])
    for pattern in patterns:
        number = np.bincount(pattern.class_of, minlength=len(pattern.classes))
        length = [sum(run.length for run in runs) for runs in pattern.classes]
        count, terms = np.outer(count, number).ravel(), np.outer(terms, length).ravel()
    return count, terms


@lru_cache(maxsize=64)
def _layout(
    module: Any,
    direction: Direction,
    patterns: tuple[Pattern, ...],
    sources: int,
    results: int,
    channels_inside: bool,
    most: int,
) -> Layout:
    """Multiply the axes out, for `sources` channels summed over and `results` channels of results.

    A group has at most so many rows, or a third more, rounded up to whole tiles of every phase if they are that large.
    """
    ndim = len(patterns)
    kernel = [pattern.taps for pattern in patterns]
    strides = np.array([math.prod(kernel[a + 1 :]) for a in range(ndim)], np.intp)
    # w is (C_in, C_out, *kernel), or (*kernel, C_in, C_out) if its taps are combined first.
    size = math.prod(kernel)
    inputs, outputs = (sources, results) if direction == "forward" else (results, sources)
    combined = any(pattern.kernel is not None for pattern in patterns)
    input_stride, output_stride = (outputs, 1) if combined else (outputs * size, size)
    strides *= _pairs_pitch(module, inputs * outputs) if combined else 1
    # The channel axes swap roles between the directions.
    source_stride, result_stride = (
        (input_stride, output_stride) if direction == "forward" else (output_stride, input_stride)
    )

    # Rows: every channel of results in every phase, in the order in which the result lies in memory; where they are
    # added up, those of each channel together.
    mixed = any(pattern.mix for pattern in patterns)

    def rows_of(shape: list[int], inside: bool) -> tuple[Index, Index]:
        shape = [*shape, results] if inside else [results, *shape]
        grid = np.indices(shape, np.intp).reshape(ndim + 1, -1)
        return (grid[-1], grid[:-1].T) if inside else (grid[0], grid[1:].T)

    row_channel, row_phase = rows_of([len(pattern.class_of) for pattern in patterns], channels_inside and not mixed)
    rows = row_channel.size
    row_class = np.zeros(rows, np.intp)
    row_weights = row_channel * result_stride
    for a, pattern in enumerate(patterns):
        row_class = row_class * len(pattern.classes) + np.array(pattern.class_of, np.intp)[row_phase[:, a]]
        row_weights = row_weights + np.array(pattern.tap_of, np.intp)[row_phase[:, a]] * strides[a]

    # Segments run along whatever is longest: channels, or the taps of one axis.
    longest = [max((run.length for c in pattern.classes for run in c), default=0) for pattern in patterns]
    inner = int(np.argmax(longest))
    inner = -1 if sources >= longest[inner] else inner
    used, row_class = np.unique(row_class, return_inverse=True)
    choices = [np.unravel_index(code, [len(pattern.classes) for pattern in patterns]) for code in used]
    runs = [[pattern.classes[c] for pattern, c in zip(patterns, choice, strict=True)] for choice in choices]
    computed = (_classes(patterns, sources, results)[1][used] > 0) | mixed  # the others are zeros
    tile = _price(patterns, sources, results).tile
    strip = STRIP_BYTES // (module.widths[tile] * module.vector_bytes)
    classes = [_class(patterns, each, inner, sources, strides, source_stride, strip) for each in runs]

    # Groups of rows, of equal size and whole tiles.
    phases = rows // results
    unit = tile * phases if tile * phases <= most else phases if mixed else tile
    parts = 1 if rows <= most * 4 // 3 else -(-rows // most)
    step = rows if parts == 1 else -(-rows // (parts * unit)) * unit
    groups = row_groups = np.append(np.arange(0, rows, step), rows)

    places, widest = _places(groups, computed[row_class])
    panels, panel_class, panel_rows, panel_weights = _panels(
        groups, row_class, row_weights, places, computed, tile, spare=widest
    )
    products = np.array([c.weights.size for c in classes], np.intp)
    orders = [np.argsort(c.weights, kind="stable") for c in classes]
    if mixed:
        row_channel, row_phase = rows_of([len(p.mix.results if p.mix else p.class_of) for p in patterns], False)
        row_groups = groups // phases * (row_channel.size // results)
        places, _ = _places(row_groups, np.ones(row_channel.size, bool))
        if channels_inside:
            group = np.repeat(np.arange(row_groups.size - 1), np.diff(row_groups))
            order = np.lexsort((row_channel, *row_phase.T[::-1], group))
            row_channel, row_phase, places = row_channel[order], row_phase[order], places[order]
    length = np.concatenate([c.length for c in classes])
    begin = np.concatenate([np.cumsum(c.length) - c.length for c in classes])
    first = np.cumsum([0, *(c.length.size for c in classes)])
    strips = [c.strips[:-1] + before for c, before in zip(classes, first[:-1], strict=True)]
    return Layout(
        key=(module, direction, patterns, sources, results, channels_inside, most),
        patterns=patterns,
        tile=tile,
        inner=inner,
        segments=np.stack([begin * tile, np.zeros_like(length), length], axis=1),
        segment_plane=np.concatenate([c.plane for c in classes]),
        segment_offset=np.concatenate([c.offset for c in classes]),
        strips=np.concatenate([*strips, first[-1:]]),
        class_strip=np.cumsum([0, *map(len, strips)]),
        class_products=np.append(0, np.cumsum(products)),
        products=np.concatenate([c.weights[order] for c, order in zip(classes, orders, strict=True)]),
        places=np.concatenate(orders) * tile,
        row_channel=row_channel,
        row_phase=row_phase,
        row_place=places,
        row_groups=row_groups,
        widest=widest,
        zeros=not computed.all(),
        stored=int(np.diff(row_groups).max()),
        channel_rows=rows // results,
        panels=panels,
        panel_class=panel_class,
        panel_rows=panel_rows,
        panel_weights=panel_weights,
        panel_start=np.append(0, np.cumsum(products[panel_class] * tile)),
    )


def _places(groups: Index, computed: NDArray[np.bool_]) -> tuple[Index, int]:
    """Which row of its group each row is, of those that are computed, and how many a group has at most.

    The next one is spare; the one after that holds the zeros that the others are.
    """
    places: Index = np.cumsum(computed) - computed
    starts = np.append(places, int(computed.sum()))[groups]
    widest = int(np.diff(starts).max())
    places -= np.repeat(starts[:-1], np.diff(groups))
    return np.where(computed, places, widest + 1), widest


def _panels(
    groups: Index,
    row_class: Index,
    row_weights: Index,
    places: Index,
    computed: NDArray[np.bool_],
    tile: int,
    spare: int,
) -> tuple[Index, Index, Index, Index]:
    """The rows of each class that is computed, in each group, a tile at a time; those the last one lacks are spare."""
    classes, pieces = computed.size, groups.size - 1
    key = np.repeat(np.arange(pieces), np.diff(groups)) * classes + row_class
    members = np.flatnonzero(computed[row_class])
    members = members[np.argsort(key[members], kind="stable")]
    count = np.bincount(key[members], minlength=pieces * classes)
    number = -(-count // tile)
    of = np.repeat(np.arange(count.size), number * tile)  # group and class of each row of each panel
    within = np.arange(of.size) - np.repeat(np.cumsum(number * tile) - number * tile, number * tile)
    member = members[(np.cumsum(count) - count)[of] + np.minimum(within, count[of] - 1)]
    rows = np.where(within < count[of], places[member], spare)
    of_class = np.repeat(np.arange(count.size) % classes, number)
    return np.append(0, np.cumsum(number)), of_class, rows, row_weights[member]


def _pairs_pitch(module: Any, pairs: int) -> int:
    """From one sum of taps to the next, for all pairs of channels."""
    together = module.pairs_together
    return line_pitch(-(-pairs // together) * together, module.vector_bytes // module.lanes)


def _class(
    patterns: tuple[Pattern, ...],
    runs: Sequence[tuple[Run, ...]],
    inner: int,
    sources: int,
    strides: Index,
    source_stride: int,
    strip: int,
) -> _Class:
    """List the segments of the rows that have `runs` of taps along the axes."""
    ndim = len(patterns)
    # Along each axis: phase, tap, offset and length of every step of the outer loops.
    steps = []
    for a, (p, axis_runs) in enumerate(zip(patterns, runs, strict=True)):
        table = [
            (run.phase, run.k + j * p.kernel_step, run.offset + j * p.tap_step, run.length if a == inner else 1)
            for run in axis_runs
            for j in range(1 if a == inner else run.length)
        ]
        steps.append(np.array(table, np.intp).reshape(-1, 4))
    grid = np.indices([len(t) for t in steps], np.intp).reshape(ndim, -1)
    phase = np.zeros(grid.shape[1], np.intp)
    tap = np.zeros(grid.shape[1], np.intp)
    length = np.ones(grid.shape[1], np.intp)
    offset = np.zeros((grid.shape[1], ndim), np.intp)
    for a, pattern in enumerate(patterns):
        columns = steps[a][grid[a]]
        phase = phase * max(pattern.source_phases, 1) + columns[:, 0]
        tap = tap + columns[:, 1] * strides[a]
        offset[:, a] = columns[:, 2]
        length = length * columns[:, 3]

    # Channels: one by one around runs of taps, or in blocks that the segments run along.
    block = 1 if inner >= 0 else min(sources, max(16, strip // max(tap.size, 1)))
    first = np.arange(0, sources, block, dtype=np.intp)
    number = tap.size
    channel = np.repeat(first, number)
    phase, tap, offset = np.tile(phase, first.size), np.tile(tap, first.size), np.tile(offset, (first.size, 1))
    length = np.tile(length, first.size) if inner >= 0 else np.minimum(block, sources - channel)
    step = source_stride if inner < 0 else patterns[inner].kernel_step * int(strides[inner])
    begin = np.append(0, np.cumsum(length))
    weights = np.repeat(tap + channel * source_stride - begin[:-1] * step, length) + np.arange(begin[-1]) * step

    # Strips: as many whole segments as fit, or all.
    strips = [0]
    for s in range(channel.size if STRIPS else 0):
        if begin[s + 1] - begin[strips[-1]] > strip and s > strips[-1]:
            strips.append(s)
    return _Class(phase * sources + channel, offset, length, np.array([*strips, channel.size], np.intp), weights)


def _best(
    module: Any,
    direction: Direction,
    axes: tuple[Axis, ...],
    sources: int,
    results: int,
    channels_inside: bool,
    means: Means,
    batch: int,
    groups: int,
    unpacked: bool = False,
) -> tuple[Layout, list[Split], bool]:
    """The way to take the axes apart that takes least time for all positions together.

    Of weights that come `unpacked`, also whether tasks are to pack theirs.
    """
    itemsize: int = module.vector_bytes // module.lanes

    def price(splits: list[Split]) -> _Price:
        return _price(tuple(split.pattern for split in splits), sources, results)

    def cost(splits: list[Split]) -> float:
        return price(splits).cost * math.prod(split.positions for split in splits)

    def chosen(splits: list[Split]) -> tuple[Layout, list[Split], bool]:
        patterns = tuple(split.pattern for split in splits)
        most = MIXED_ROWS if any(pattern.mix for pattern in patterns) else ROWS
        packs = unpacked and packs_weights(splits)
        if packs:
            most = min(most, rows_of_task(splits))
        return _layout(module, direction, patterns, sources, results, channels_inside, most), splits, packs

    def packs_weights(splits: list[Split]) -> bool:
        """Whether there are so many weights for so few positions that tasks had better pack theirs."""
        images, weights = batch // groups, price(splits).weights
        samples = images * sources
        for split in splits:
            samples *= split.source_start.size * (split.positions + split.halo)
        few = images * math.prod(split.positions for split in splits) <= FEW_POSITIONS
        enough = weights > MORE_WEIGHTS * samples and groups * weights > MANY_WEIGHTS
        plain = all(split.pattern.kernel is None for split in splits)
        return few and enough and plain and price(splits).unit * price(splits).terms * itemsize <= PART_BYTES

    def rows_of_task(splits: list[Split]) -> int:
        threads = workers_for(int(batch * cost(splits)))
        fit = PART_BYTES // (price(splits).terms * itemsize)
        return max(min(fit, -(-groups * price(splits).rows // (TASKS * threads))), price(splits).unit)

    ways = [[split_axis(axis, direction) for axis in axes]]
    if direction == "forward" and any(axis.low % axis.stride for axis in axes):
        ways.append([split_axis(axis, direction, aligned=True) for axis in axes])
    best = min(ways, key=cost)
    least = cost(best)
    if means != "plain" and results < FOLD and axes[0].stride == axes[0].dilation == 1 and least > LITTLE:
        folded = [fold(axes[0], direction, FOLD), *best[1:]]
        if cost(folded) < GAIN * least:
            return chosen(folded)
    several = len(axes) > 1 and sources >= MIXED
    if means == "mixed" and several and batch * least > MIXED_LEAST:

        def mixed_cost(splits: list[Split]) -> float:
            return batch * cost(splits) + MIX * price(splits).weights

        mixed = [m for block in BLOCKS for m in mixtures(ways[-1], block)]
        cheapest = min(mixed, key=mixed_cost, default=best)
        if mixed_cost(cheapest) < MIXED_GAIN * batch * least:
            return chosen(cheapest)
    channels = sources * math.prod(split.source_start.size for split in best[:-1])
    vectors = -(-best[-1].positions // module.lanes)  # of a line by itself
    alone = module.lanes * (NARROW if vectors == 1 else vectors)
    if pays_spread(best[-1], channels, price(best).cost, alone):
        best = [*best[:-1], spread(best[-1])]
    return chosen(best)


def pays_mixed(mixed: Correlation, other: Correlation) -> bool:
    """The same of finished plans: small boxes with a wide halo copy many samples several times."""
    return mixed.work + SUM * mixed.packed < MIXED_GAIN * (other.work + SUM * other.packed)


def pays_spread(split: Split, channels: int, work: float, alone: float) -> bool:
    """Whether the junk between short lines costs more than to copy the samples several times.

    `channels` counts the planes of a phase along the last axis, `work` the multiplications for each position.  A line
    by itself takes as long as so many positions `alone`.
    """
    line = min(split.positions + split.halo, alone)
    junk = work * (line / split.positions - 1) / (COPY * channels)
    longest = max((run.length for runs in split.pattern.classes for run in runs), default=0)
    if junk <= max(1, longest - split.source_start.size):  # there are at least so many offsets
        return False
    return junk > spread_phases(split.pattern) - split.source_start.size > 0


@dataclass(frozen=True, eq=False)
class Correlation:
    """The tables of one call, in the terms of ``kernels/correlate.pxi``; strides and offsets count elements."""

    layout: Layout
    kernel: Any  # the compiled counterpart, which holds the same tables
    tasks: int
    work: int  # multiplications, padding included
    packed: int  # samples copied, padding included
    covers: bool  # whether the rows make up all of the result
    mixed: bool  # whether samples, and results, are added up

    @property
    def key(self) -> tuple[Any, ...]:
        return self.layout.key

    def packing(self, groups: int, taps: tuple[int, ...]) -> Any:
        return self.layout.packing(groups, taps)


@lru_cache(maxsize=64)
def correlation(
    module: Any,
    direction: Direction,
    axes: tuple[Axis, ...],
    sources: int,
    results: int,
    source_shape: tuple[int, ...],
    source_strides: tuple[int, ...],
    result_strides: tuple[int, ...],
    itemsize: int,
    means: Means,
    unpacked: bool = False,
) -> Correlation | None:
    """Plan for split arrays ``(*batch, groups, channels, *spatial, parts)`` of these shapes and strides.

    The last axis holds the real and imaginary parts; it and the channels together are `sources` and `results` real
    channels.  Tasks may pack weights that come `unpacked`.  There is no plan if it would copy far more samples than it
    saves time.
    """
    ndim = len(axes)
    lanes = module.lanes
    lead = len(source_shape) - ndim - 3
    groups, parts = source_shape[lead], source_shape[-1]
    spatial = range(lead + 2, lead + 2 + ndim)

    batch = groups * math.prod(source_shape[:lead])
    channels_inside = 0 < result_strides[lead + 1] < min(abs(result_strides[a]) for a in spatial)
    layout, splits, by_rows = _best(
        module, direction, axes, sources, results, channels_inside, means, batch, groups, unpacked
    )
    tile, vectors, inner = layout.tile, module.widths[layout.tile], layout.inner
    mixed = any(split.pattern.mix for split in splits)
    dims = dims_of(splits, source_shape, source_strides, result_strides)
    met = [1.0 if mixed else share_met(axis, split) for axis, split in zip(axes, splits, strict=True)]
    phases = math.prod(split.pattern.source_phases for split in splits)
    planes = sources * phases
    cache_line = 64 // itemsize

    rows, row_groups = layout.row_channel.size, layout.row_groups.size - 1
    pieces = groups * row_groups
    held = layout.widest + layout.stored if mixed else layout.widest
    multiplied = int(layout.panel_start[-1])
    most = min(positions_in_cache(planes * itemsize), RESULT_BYTES // (held * itemsize))
    most = max(most, 3 * lanes * vectors)
    work = groups * math.prod(dim.split.positions for dim in dims) * multiplied
    cycles = multiplied / PER_CYCLE
    begin = AGAIN * cycles + BOX
    near = L1_BYTES // (planes * itemsize)
    workers = 1 if by_rows else workers_for(work)  # which share the boxes
    # To begin with a run of vectors is to read the weights of a task again, from further away the more they are; and to
    # look which taps the run meets.
    again = RUN * min(multiplied * itemsize / (row_groups * L2_BYTES), 1)
    look_up = 2 * len(layout.segments) / cycles

    def times_of(dims: list[Dim], box: list[int]) -> list[float]:
        shares = [met[dim.axis] if dim.axis >= 0 else 1.0 for dim in dims]
        return run_times(box, sizes(dims)[1], lanes, shares, again, look_up)

    def box_of(dims: list[Dim]) -> tuple[float, list[int], int]:
        """What the runs of the best box take for each position, that box, and the axis from which on they run."""
        extent, halo = sizes(dims)
        taps = [max((run.length for each in dim.split.pattern.classes for run in each), default=1) for dim in dims]
        box = best_box(extent, halo, most, lanes, cycles, begin, planes, held, pieces, workers, taps, near)
        times = times_of(dims, box)
        return min(times) / math.prod(box), box, times.index(min(times))

    dims, box, flat = arranged(dims, box_of)
    extent, halo = sizes(dims)
    counts = [-(-size // part) for size, part in zip(extent, box, strict=True)]
    padded = grown(box, halo)
    packed = groups * math.prod(counts) * planes * math.prod(padded)
    if packed > WASTE * work + LITTLE:
        return None
    pitch = pitches(padded)
    # Round up so that a tile may read past the end, and margins be written there (`clear_margin` in kernels/pack.pxi);
    # and keep planes off each other's cache sets.
    plane = line_pitch(math.prod(padded) + lanes * vectors, itemsize)
    by_rows = by_rows and math.prod(counts) * planes * plane * itemsize <= PLANES_BYTES

    # Where samples come from, and where rows go.
    source_start, source_range = source_places(dims, all_phases(tuple(split.source_start.size for split in splits)))
    row_start, row_range = result_places(dims, layout.row_phase)
    row_start += channel_places(layout.row_channel, parts, result_strides[lead + 1], result_strides[-1])
    block_row, block_range, block_ragged, group_block, widest_block = blocks(row_start, row_range, layout.row_groups)
    # A block that fills the step from one position to the next is stored in whole lines: with nothing but the bias, if
    # all of it is one channel without a tap.
    steps = [dim.split.result_step * dim.result_stride for dim in dims]
    step = steps[-1]
    filled = np.zeros(block_row.size - 1, np.intp)
    if layout.zeros:
        begins, ends = block_row[:-1], block_row[1:] - 1
        filled |= np.minimum.reduceat(layout.row_place, begins) > layout.widest
        filled &= (ends - begins == step - 1) & (layout.row_channel[begins] == layout.row_channel[ends])
    whole = widest_block == step
    line = box[-1] * widest_block
    stream = whole and line * itemsize >= STREAM_LINE and groups * rows * math.prod(extent) * itemsize > STREAM_BYTES

    # Tiles write to the result where its lines are runs, or would be if these were shorter; past the caches, if cache
    # lines begin with them.  Calls with a bias, or with an array that begins elsewhere, store as ever.
    direct = np.zeros(0, np.intp)
    if widest_block == step == 1 and not (mixed or layout.combines_taps or layout.zeros):
        gapless, times = first_gapless(box, pitch, steps, flat), times_of(dims, box)
        length = reach(box[gapless:], pitch[gapless:])
        longer = times[gapless] / times[flat] - 1 + (UNALIGNED if length % lanes else 0)
        offsets = [*steps[:-1], result_strides[lead], extent[-1], box[-1] if counts[-1] > 1 else 0]
        aligned = module.streams and not (any(n % cache_line for n in offsets) or (row_start % cache_line).any())
        fits = length % lanes == 0 or length >= lanes * vectors
        if fits and (aligned or not stream) and longer * cycles < STORE * rows:
            direct = panel_results(layout, row_start, row_range, extent)
            flat = gapless if direct.size else flat

    # The positions from axis `flat` on are computed as one run, junk between rows and all.
    def run(a: int) -> int:
        return reach(box[a:], pitch[a:])

    number = math.prod(box[:flat])
    run_pitch = -(-run(flat) // (lanes * vectors)) * lanes * vectors
    row_pitch = line_pitch(number * run_pitch, itemsize)

    pitch_of = of_axes(dims, pitch, ndim)
    segments = layout.segments.copy()
    segments[:, 1] = layout.segment_plane * plane + layout.segment_offset @ table(pitch_of)
    skips = any(dim.axis >= 0 and met[dim.axis] < 1 for dim in dims[:flat])
    segment_range = np.zeros((0, flat, 2), np.intp)
    if skips:
        segment_range = source_range[layout.segment_plane // sources, :flat]
        for d, dim in enumerate(dims[:flat]):
            if dim.axis >= 0:
                far = (layout.segments[:, 2] - 1) * splits[inner].pattern.tap_step if dim.axis == inner else 0
                first = layout.segment_offset[:, dim.axis]
                segment_range[:, d, 0] -= np.maximum(first, first + far)
                segment_range[:, d, 1] -= np.minimum(first, first + far)
    source_planes = module.Planes(
        step=table(dim.split.source_step * dim.source_stride for dim in dims),
        channel=channel_places(np.arange(sources), parts, source_strides[lead + 1], source_strides[-1]),
        group=source_strides[lead],
        fetches=FETCHES,
        start=source_start,
        valid=source_range.ravel(),
        pitch=table(pitch),
        channel_pitch=plane,
        phase_pitch=plane if mixed else sources * plane,  # mixed, a channel at a time
    )
    plane_sums = row_sums = None
    if mixed:
        place = read_places(splits, plane, pitch_of)
        plane_sums = module.Sums(*plane_terms(layout.patterns), place, reach(padded, pitch), sources * plane)
        place = np.arange(layout.channel_rows) * row_pitch
        row_sums = module.Sums(*result_terms(layout.patterns), place, (number - 1) * run_pitch + run(flat), row_pitch)
    kernel = module.Correlation(
        source_planes,
        plane_sums,
        row_sums,
        tile=tile,
        copied=COPIED,
        extent=table(extent),
        counts=table(counts),
        unit=table([1] * (len(box) - 1) + [math.gcd(box[-1], cache_line)]),
        halo=table(halo),
        pitch=table(pitch),
        flat=flat,
        segments=segments.ravel(),
        segment_range=segment_range.ravel(),
        segment_step=plane if inner < 0 else splits[inner].pattern.tap_step * pitch_of[inner],
        strip_segment=layout.strips,
        class_strip=layout.class_strip,
        group_panel=layout.panels,
        panel_rows=layout.panel_rows * row_pitch,
        panel_results=direct,
        panel_start=layout.panel_start,
        run_pitch=run_pitch,
        row_pitch=row_pitch,
        row_place=layout.row_place * row_pitch,
        result_step=table(steps),
        result_group=result_strides[lead],
        results=results,
        group_row=layout.row_groups,
        widest=layout.stored,
        group_block=group_block,
        block_row=block_row,
        block_range=block_range.ravel(),
        block_ragged=block_ragged,
        block_filled=filled,
        row_result=row_start,
        row_range=row_range[:, -1].ravel(),
        row_channel=layout.row_channel,
        source_size=planes * plane,
        sample_size=(len(source_start) + 1) * plane if mixed else 0,
        result_size=(layout.widest + 1 + layout.zeros) * row_pitch,
        zeros=layout.zeros,
        stored_size=layout.stored * row_pitch if mixed else 0,
        channel_rows=layout.channel_rows,
        by_rows=by_rows,
        check=layout.combines_taps,
        streams=stream,
        line_size=line if whole and (stream or block_ragged.any()) else 0,
    )
    return Correlation(
        layout,
        kernel,
        tasks=pieces if by_rows else math.prod(counts) * pieces,
        work=work,
        packed=packed,
        covers=all(split.covers for split in splits),
        mixed=mixed,
    )


def panel_results(layout: Layout, row_start: Index, row_range: Index, extent: list[int]) -> Index:
    """Where in the result the rows of each panel begin, one after the other.

    Nothing if a row is spare, is not there at every position, or is summed in several strips.
    """
    whole = (row_range == [[[0, n] for n in extent]]).all()
    if not whole or (layout.panel_rows == layout.widest).any() or np.diff(layout.class_strip).max() > 1:
        return np.zeros(0, np.intp)
    groups, classes = layout.row_groups.size - 1, layout.class_strip.size - 1
    starts = np.zeros((groups, layout.widest), np.intp)
    starts[np.repeat(np.arange(groups), np.diff(layout.row_groups)), layout.row_place] = row_start
    group = np.repeat(np.arange(groups), np.diff(layout.panels[::classes]) * layout.tile)
    return starts[group, layout.panel_rows]


def share_met(axis: Axis, split: Split) -> float:
    """The share of the products of an axis that are not with zeros around the samples; 1 if that is most of them."""
    few = split.positions <= SHORT * split.halo and split.pattern.kernel is None
    return axis.products() / (split.positions * axis.taps) if few else 1.0


def channel_places(channel: Index, parts: int, step: int, part_step: int) -> Index:
    """Where channels begin in their array, the parts of complex numbers being channels, too."""
    return channel * step if parts == 1 else channel // parts * step + channel % parts * part_step


def is_wasteful(direction: Direction, axes: tuple[Axis, ...], results: int, channels: int) -> bool:
    """Whether a plan would compute far more than there is, for so many channels of results and of the source.

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
