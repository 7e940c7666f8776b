"""Plans of the forward operator and its adjoint, which are one correlation (see `cytconv._phases`).

In a flat copy of a box of the source, padded with zeros, every tap is one constant offset, however many axes there
are.  What is left is a matrix product: rows of results (channels and phases) times a sum over channels and taps times
positions.  `cytconv._ways` takes the axes apart and `cytconv._layout` multiplies them out into rows; this adds strides
and boxes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ._boxes import (
    BOX,
    RESULT_BYTES,
    Dim,
    Sizes,
    arranged,
    channel_places,
    dims_of,
    first_gapless,
    grown,
    line_pitch,
    of_axes,
    pitches,
    planes_of,
    positions_in_cache,
    reach,
    result_places,
    round_up,
    sizes,
    source_places,
    table,
)
from ._geometry import Axis
from ._layout import Layout
from ._machine import COPIED, KIB, L1_BYTES, L2_BYTES, PER_CYCLE, ROOM_BYTES, WIDE
from ._phases import Index, Split
from ._problem import Problem
from ._runtime import workers_for
from ._ways import LITTLE, MIXED_GAIN, WASTE, Means, best_way
from ._winograd import plane_terms, read_places, result_terms
from .kernels.tables import best_box, blocks, run_times

__all__ = ["Correlation", "correlation", "pays_mixed"]

CACHE_LINE = 64  # bytes
PLANES_BYTES = 8 * KIB**2  # that the planes of all boxes may take where tasks pack their weights
SHORT = 32  # positions along an axis, for each of its halo, of which a share worth counting meets only zeros

# What else takes time:
AGAIN = 2  # for another box all weights are read again, in the time in which they meet so many vectors of positions;
RUN = 0.3  # to begin with a run of vectors, in vectors, with many weights;
SUM = 10 * WIDE  # to copy and add up one sample of a box, in multiplications.

# A result that is larger, if rows are interleaved, or else has no room in the last cache, is written past the caches if
# its lines have so many bytes (sums by lines: see `_stencil`).
STREAM_BYTES, STREAM_LINE = 2 * KIB**2, 256
# Where tiles might write to it, what it takes
STORE = 8  # to hold and store a vector of results instead, in cycles,
UNALIGNED = 0.03  # or to end a run before the end of a vector, in shares of the time.


@dataclass(frozen=True, eq=False)
class Correlation:
    """A plan: the compiled kernel, which holds the tables, and what callers ask of it."""

    layout: Layout
    kernel: Any
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


class _Boxes(NamedTuple):
    """Boxes of positions that fit the caches, and the runs of positions that tiles go along in each."""

    dims: list[Dim]
    extent: Sizes  # of all positions,
    halo: Sizes
    box: Sizes  # of those of a box at most,
    padded: Sizes  # and of what is packed for it
    counts: Sizes  # of boxes along each axis
    flat: int  # the axis from which on positions are one run, junk between rows and all
    times: list[float]  # what all runs of a box take, by the axis from which on they run
    planes: int  # that are packed for a box,
    pitch: Sizes  # how positions lie in one,
    plane: int  # and from one to the next
    met: list[float]  # for each axis of the kernel, the share of its taps that read more than zeros

    @property
    def number(self) -> int:
        return math.prod(self.counts)

    def run(self, axis: int) -> int:
        """The length of runs of the axes from this one on."""
        return reach(self.box[axis:], self.pitch[axis:])


@lru_cache(maxsize=64)
def correlation(problem: Problem, means: Means, unpacked: bool = False) -> Correlation | None:
    """Plan it; tasks may pack weights that come `unpacked`.

    There is no plan if it would copy far more samples than it saves time.
    """
    groups, sources = problem.groups, problem.sources
    layout, splits, by_rows = best_way(problem, means, unpacked)
    planes = sources * math.prod(split.pattern.source_phases for split in splits)
    dims = dims_of(splits, problem)
    work = groups * math.prod(dim.split.positions for dim in dims) * int(layout.panel_start[-1])
    workers = 1 if by_rows else workers_for(work)  # which share the boxes
    met = [1.0 if layout.mixed else share_met(axis, split) for axis, split in zip(problem.axes, splits, strict=True)]
    boxes = _choose_boxes(problem, layout, dims, planes, met, workers)
    packed = groups * boxes.number * planes * math.prod(boxes.padded)
    if packed > WASTE * work + LITTLE:
        return None
    by_rows = by_rows and boxes.number * planes * boxes.plane * problem.itemsize <= PLANES_BYTES
    boxes, stores = _stores(problem, layout, boxes)
    kernel = problem.module.Correlation(
        by_rows=by_rows,
        check=layout.combines_taps,
        **_reads(problem, layout, splits, boxes),
        **_rows(problem, layout, boxes),
        **stores,
    )
    pieces = groups * (layout.row_groups.size - 1)
    return Correlation(
        layout,
        kernel,
        tasks=pieces if by_rows else boxes.number * pieces,
        work=work,
        packed=packed,
        covers=all(split.covers for split in splits),
        mixed=layout.mixed,
    )


def _reads(problem: Problem, layout: Layout, splits: list[Split], boxes: _Boxes) -> dict[str, Any]:
    """Tables of how a box of the source becomes planes, and which of these the rows of results read."""
    module, sources, dims, box, plane = problem.module, problem.sources, boxes.dims, boxes.box, boxes.plane
    pitch_of = of_axes(dims, boxes.pitch, len(splits))
    start, within = places = source_places(dims, splits)
    plane_sums = None
    if layout.mixed:
        read = read_places(splits, plane, pitch_of)
        plane_sums = module.Sums(*plane_terms(layout.patterns), read, reach(boxes.padded, boxes.pitch), sources * plane)
    segments = layout.segments.copy()
    segments[:, 1] = layout.segment_plane * plane + layout.segment_offset @ table(pitch_of)
    return {
        # Mixed, a channel at a time.
        "planes": planes_of(problem, 0, dims, places, boxes.pitch, plane, plane if layout.mixed else sources * plane),
        "plane_sums": plane_sums,
        "source_size": boxes.planes * plane,
        "sample_size": (start.size + 1) * plane if layout.mixed else 0,
        "extent": table(boxes.extent),
        "counts": table(boxes.counts),
        "unit": table([1] * (len(box) - 1) + [math.gcd(box[-1], CACHE_LINE // problem.itemsize)]),
        "halo": table(boxes.halo),
        "pitch": table(boxes.pitch),
        "flat": boxes.flat,
        "segments": segments.ravel(),
        "segment_range": _segment_range(layout, boxes, within, sources).ravel(),
        "segment_step": plane if layout.inner < 0 else splits[layout.inner].pattern.tap_step * pitch_of[layout.inner],
        "strip_segment": layout.strips,
        "class_strip": layout.class_strip,
        "copied": COPIED,
    }


def _rows(problem: Problem, layout: Layout, boxes: _Boxes) -> dict[str, Any]:
    """Tables of the rows that tiles write, and of their sums, in scratch memory."""
    module, number, run = problem.module, math.prod(boxes.box[: boxes.flat]), boxes.run(boxes.flat)
    run_pitch = round_up(run, module.lanes * module.widths[layout.tile])
    row_pitch = line_pitch(number * run_pitch, problem.itemsize)
    row_sums = None
    if layout.mixed:
        place = np.arange(layout.channel_rows) * row_pitch
        length = (number - 1) * run_pitch + run
        row_sums = module.Sums(*result_terms(layout.patterns), place, length, row_pitch)
    return {
        "row_sums": row_sums,
        "tile": layout.tile,
        "group_panel": layout.panels,
        "panel_start": layout.panel_start,
        "panel_rows": layout.panel_rows * row_pitch,
        "run_pitch": run_pitch,
        "row_pitch": row_pitch,
        "row_place": layout.row_place * row_pitch,
        "channel_rows": layout.channel_rows,
        "zeros": layout.zeros,
        "result_size": (layout.widest + 1 + layout.zeros) * row_pitch,
        "stored_size": layout.stored * row_pitch if layout.mixed else 0,
    }


def _stores(problem: Problem, layout: Layout, boxes: _Boxes) -> tuple[_Boxes, dict[str, Any]]:
    """Tables of where in the result rows go; and the boxes, whose runs may be shorter so that tiles write there."""
    dims, box, itemsize = boxes.dims, boxes.box, problem.itemsize
    steps = [dim.steps[1] for dim in dims]
    row_start, row_range = result_places(dims, layout.row_phase)
    row_start += channel_places(layout.row_channel, problem.parts, problem.channel_steps[1])
    block_row, block_range, block_ragged, group_block, widest = blocks(row_start, row_range, layout.row_groups)
    # A block that fills the step from one position to the next is stored in whole lines.
    whole = widest == steps[-1]
    line = box[-1] * widest
    written = problem.groups * layout.row_channel.size * math.prod(boxes.extent) * itemsize
    large = written > (ROOM_BYTES if widest == 1 else STREAM_BYTES)
    past_caches = whole and large and line * itemsize >= STREAM_LINE
    places = np.zeros(0, np.intp)
    if whole and widest == 1:
        places, flat = _panel_places(problem, layout, boxes, row_start, row_range, past_caches)
        boxes = boxes._replace(flat=flat)
    return boxes, {
        "panel_results": places,
        "result_step": table(steps),
        "result_group": problem.group_steps[1],
        "results": problem.results,
        "group_row": layout.row_groups,
        "most_stored": layout.stored,
        "row_result": row_start,
        "row_range": row_range[:, -1].ravel(),
        "row_channel": layout.row_channel,
        "group_block": group_block,
        "block_row": block_row,
        "block_range": block_range.ravel(),
        "block_ragged": block_ragged,
        "block_filled": _filled(layout, block_row, steps[-1]),
        "past_caches": past_caches,
        "line_size": line if whole and (past_caches or block_ragged.any()) else 0,
    }


def _choose_boxes(
    problem: Problem, layout: Layout, dims: list[Dim], planes: int, met: list[float], workers: int
) -> _Boxes:
    """The order of the axes and the boxes that take least time, shared by so many workers."""
    module, itemsize = problem.module, problem.itemsize
    lanes, vectors = module.lanes, module.widths[layout.tile]
    multiplied = int(layout.panel_start[-1])
    row_groups = layout.row_groups.size - 1
    held = layout.widest + layout.mixed * layout.stored
    most = min(positions_in_cache(planes * itemsize), RESULT_BYTES // (held * itemsize))
    most = max(most, 3 * lanes * vectors)
    near = L1_BYTES // (planes * itemsize)
    cycles = multiplied / PER_CYCLE
    begin = AGAIN * cycles + BOX
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
        taps = [max(dim.split.pattern.longest, 1) for dim in dims]
        pieces = problem.groups * row_groups
        box = best_box(extent, halo, most, lanes, cycles, begin, planes, held, pieces, workers, taps, near)
        times = times_of(dims, box)
        return min(times) / math.prod(box), box, times.index(min(times))

    dims, box, flat = arranged(dims, box_of)
    extent, halo = sizes(dims)
    padded = grown(box, halo)
    return _Boxes(
        dims,
        extent,
        halo,
        box,
        padded,
        counts=[-(-size // part) for size, part in zip(extent, box, strict=True)],
        flat=flat,
        times=times_of(dims, box),
        planes=planes,
        met=met,
        pitch=pitches(padded),
        # Room for a tile to read past the end, and for margins that are written there (`clear_margin` in
        # kernels/pack.pxi); and planes are off each other's cache sets.
        plane=line_pitch(math.prod(padded) + lanes * vectors, itemsize),
    )


def _panel_places(
    problem: Problem, layout: Layout, boxes: _Boxes, row_start: Index, row_range: Index, past_caches: bool
) -> tuple[Index, int]:
    """Where in the result tiles write their sums (see `panel_results`), and the axis from which on they run for that.

    They do where its lines are runs, or would be if these were shorter; if they go `past_caches`, only if cache lines
    begin with them.  Calls with a bias, or with an array that begins elsewhere, store as ever.
    """
    nowhere = np.zeros(0, np.intp), boxes.flat
    if layout.combines_taps or layout.zeros:
        return nowhere
    module, rows = layout.key.module, layout.row_channel.size
    lanes, vectors, cache_line = module.lanes, module.widths[layout.tile], CACHE_LINE // problem.itemsize
    box, extent, steps = boxes.box, boxes.extent, [dim.steps[1] for dim in boxes.dims]
    gapless = first_gapless(box, boxes.pitch, steps, boxes.flat)
    length = boxes.run(gapless)
    longer = boxes.times[gapless] / boxes.times[boxes.flat] - 1 + (UNALIGNED if length % lanes else 0)
    offsets = [*steps[:-1], problem.group_steps[1], extent[-1], box[-1] if boxes.counts[-1] > 1 else 0]
    aligned: bool = module.past_caches and not (any(n % cache_line for n in offsets) or (row_start % cache_line).any())
    fits = length % lanes == 0 or length >= lanes * vectors
    cycles = int(layout.panel_start[-1]) / PER_CYCLE
    if not fits or (past_caches and not aligned) or longer * cycles >= STORE * rows:
        return nowhere
    places = panel_results(layout, row_start, row_range, extent)
    return places, gapless if places.size else boxes.flat


def panel_results(layout: Layout, row_start: Index, row_range: Index, extent: Sizes) -> Index:
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


def _filled(layout: Layout, block_row: Index, step: int) -> Index:
    """Which blocks, of these rows, fill lines with nothing but the bias: all of one channel, and without a tap."""
    filled = np.zeros(block_row.size - 1, np.intp)
    if layout.zeros:
        begins, ends = block_row[:-1], block_row[1:] - 1
        filled |= np.minimum.reduceat(layout.row_place, begins) > layout.widest
        filled &= (ends - begins == step - 1) & (layout.row_channel[begins] == layout.row_channel[ends])
    return filled


def _segment_range(layout: Layout, boxes: _Boxes, source_range: Index, sources: int) -> Index:
    """The positions along the axes before a run at which each segment reads samples; nothing if all do."""
    dims = boxes.dims[: boxes.flat]
    if not any(dim.axis >= 0 and boxes.met[dim.axis] < 1 for dim in dims):
        return np.zeros((0, len(dims), 2), np.intp)
    ranges = source_range[layout.segment_plane // sources, : len(dims)]
    for d, dim in enumerate(dims):
        if dim.axis >= 0:
            first = layout.segment_offset[:, dim.axis]
            last = first
            if dim.axis == layout.inner:
                last = first + (layout.segments[:, 2] - 1) * layout.patterns[dim.axis].tap_step
            ranges[:, d, 0] -= np.maximum(first, last)
            ranges[:, d, 1] -= np.minimum(first, last)
    return ranges


def share_met(axis: Axis, split: Split) -> float:
    """The share of the products of an axis that are not with zeros around the samples; 1 if that is most of them."""
    few = split.positions <= SHORT * split.halo and split.pattern.kernel is None
    return axis.products() / (split.positions * axis.taps) if few else 1.0


def pays_mixed(mixed: Correlation, other: Correlation) -> bool:
    """Whether fewer multiplications take less time: small boxes with a wide halo copy many samples several times."""
    return mixed.work + SUM * mixed.packed < MIXED_GAIN * (other.work + SUM * other.packed)
