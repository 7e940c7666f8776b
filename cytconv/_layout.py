"""Rows of results and the order in which their weights are packed; knows nothing of sizes, or of strides of x and y.

Rows are the channels of results in each phase.  Those whose taps sit at the same offsets form a *class*: they share one
list of segments (see ``kernels/tile.pxi``), so that no tap is ever filled up with zeros.  `layout` multiplies the axes
out into rows, classes and segments, which fixes the order of the packed weights; `price` says what it takes to multiply
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._boxes import line_pitch, round_up
from ._machine import L1_BYTES, PER_CYCLE, WIDEST
from ._phases import Direction, Index, Pattern, Run, is_mixed
from ._winograd import mixing_cost, tap_terms

__all__ = ["Layout", "LayoutKey", "Price", "layout", "price"]

# How near to the peak each register tile was seen to come, by its number of rows (kernels/tile.pxi).
TILES = {6: 1.0, 4: 1.0, 3: 0.92, 2: 0.92, 1: 0.5} if WIDEST else {6: 1.0, 4: 1.0, 3: 0.8, 2: 0.8, 1: 0.5}

STRIP_BYTES = L1_BYTES * 3 // 4  # of the source, all taps of some channels, that a tile reads before other channels
STRIPS = PER_CYCLE == 2  # whether it then passes its sums on, so that all panels find them in L1: or L2 is near enough


class LayoutKey(NamedTuple):
    """All that a `Layout` depends on."""

    module: ModuleType
    direction: Direction
    patterns: tuple[Pattern, ...]
    sources: int  # channels that are summed over
    results: int  # channels of results,
    channels_inside: bool  # and whether they are neighbours in memory
    most: int  # rows of a group, or a third more; rounded up to whole tiles of every phase if these are that large


@dataclass(frozen=True, eq=False)
class Layout:
    """Rows of results and the order in which their weights are packed."""

    key: LayoutKey  # equal for equal layouts
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
    mixed: bool  # whether samples, and results, are added up
    combines_taps: bool  # whether taps are sums, or zeros are among them: then results are checked for infinity and NaN

    @lru_cache(maxsize=64)  # noqa: B019  # a layout is in a cache of that size itself
    def packing(self, groups: int, taps: tuple[int, ...]) -> Any:
        """What packs the weights of so many groups of channels, each a contiguous array of real numbers."""
        module, pairs = self.key.module, self.key.sources * self.key.results
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
        module = self.key.module
        span = (int(self.panel_weights.max(initial=0)) + 1) * module.vector_bytes // module.lanes
        return bool(span * self.tile < 64 * self.panel_weights.size)


class Price(NamedTuple):
    """What it takes to multiply, for each position."""

    tile: int  # rows in a register tile: the height that wastes least, weighed by the work of each class
    cost: float  # multiplications, weighed by how fast the tile is
    weights: int  # that are packed, but for what the tiles of several groups of rows lack
    rows: int  # of results,
    terms: int  # how many products one of them is the sum of, at most,
    unit: int  # and how many together fill their tiles


@lru_cache(maxsize=256)
def price(patterns: tuple[Pattern, ...], sources: int, results: int) -> Price:
    """Of `sources` channels summed over and `results` channels of results."""
    count, terms = _classes(patterns, sources, results)
    mixed = is_mixed(patterns)
    work = np.where((terms > 0) | mixed, 1 + terms, 0)

    def cost(tile: int) -> float:
        return float((work * -(-count // tile) * tile).sum()) / TILES[tile]

    tile = min(TILES, key=cost)
    # The terms of all sums, and the sums.
    mixing = mixing_cost(patterns, sources, results) if mixed else 0
    weights = int((terms * -(-count // tile) * tile).sum())
    unit = tile * (int(count.sum()) // results if count.size > 1 else 1)
    return Price(tile, cost(tile) + mixing, weights, int(count.sum()), int(terms.max()), unit)


def _classes(patterns: tuple[Pattern, ...], sources: int, results: int) -> tuple[Index, Index]:
    """How many rows there are of each class, and how many terms their sums have."""
    count, terms = np.array([results]), np.array([sources])
    for pattern in patterns:
        number = np.bincount(pattern.class_of, minlength=len(pattern.classes))
        length = [sum(run.length for run in runs) for runs in pattern.classes]
        count, terms = np.outer(count, number).ravel(), np.outer(terms, length).ravel()
    return count, terms


@dataclass(frozen=True, eq=False)
class _Class:
    """The sum behind a class of rows: one entry for each segment, in the order of the packed weights."""

    plane: Index  # which plane is read: of the first channel of the segment, of a phase of the source
    offset: Index  # offsets along the axes, one column for each
    length: Index
    strips: Index  # segment at which each strip begins, and the number of segments
    weights: Index  # where in w each of the products finds its weight, counted from the row's own


@lru_cache(maxsize=64)
def layout(key: LayoutKey) -> Layout:
    """Multiply the axes out."""
    module, direction, patterns, sources, results, channels_inside, most = key
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
    mixed = is_mixed(patterns)

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
    longest = [pattern.longest for pattern in patterns]
    inner = int(np.argmax(longest))
    inner = -1 if sources >= longest[inner] else inner
    used, row_class = np.unique(row_class, return_inverse=True)
    choices = [np.unravel_index(code, [len(pattern.classes) for pattern in patterns]) for code in used]
    runs = [[pattern.classes[c] for pattern, c in zip(patterns, choice, strict=True)] for choice in choices]
    computed = (_classes(patterns, sources, results)[1][used] > 0) | mixed  # the others are zeros
    tile = price(patterns, sources, results).tile
    strip = STRIP_BYTES // (module.widths[tile] * module.vector_bytes)
    classes = [_class(patterns, each, inner, sources, strides, source_stride, strip) for each in runs]

    # Groups of rows, of equal size and whole tiles.
    phases = rows // results
    unit = tile * phases if tile * phases <= most else phases if mixed else tile
    parts = 1 if rows <= most * 4 // 3 else -(-rows // most)
    step = rows if parts == 1 else round_up(-(-rows // parts), unit)
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
        key=key,
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
        mixed=mixed,
        combines_taps=combined,
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


def _pairs_pitch(module: ModuleType, pairs: int) -> int:
    """From one sum of taps to the next, for all pairs of channels."""
    together = module.pairs_together
    return line_pitch(round_up(pairs, together), module.vector_bytes // module.lanes)


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
