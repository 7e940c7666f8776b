"""Sums of few terms: lines are read where they lie, in all readings.

Where sums have few terms, to copy the source into planes, and results out of scratch memory, takes longer than to
multiply.  Then a line along the last axis is the unit of work (``kernels/lines.pxi``).  Phases of that axis, and
channels that lie between its positions, are *streams*, S of them in the source and R in the result, which are taken
apart and put together in registers.  A *row* is a line of the result for each position of the outer axes, one for each
of their phases; it is a sum over lines of the source, one for each channel and for each tap of the outer axes, and over
*reads*, the offsets that taps of the last axis have ::

    result[p*R + r]  =  sum over lines, reads, streams f of   w[line, read, f, r] * line[(p + read)*S + f]

(of which the kernel gets ``w[line, read, r, f]``: streams that lie side by side are multiplied side by side).

Rows that read the same lines make a *band*, so that what is loaded serves all of them: channels of the result, phases
of the axis before the last, and, where these are too few, neighbouring positions of it ::

    k = 3, stride 1     row  0   = line 0  1  2           k = 4, stride 2     row 0, 1 = line 0  1
                        row  1   =      1  2  3

There may be several numbers at each position of a line; `cytconv._pixels` says which, and how vectors hold them.

A row that has no part in a line of its band multiplies nothing, nor does a stream of the result that has no tap at some
offset.  Only where streams of the source are multiplied side by side, and some of them have a tap, the weights of the
others are zeros, and results are checked like those of a folded kernel (`cytconv._ways`).

`cytconv._stencil` and `cytconv._weight_lines` make plans of this.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ._boxes import Dim, dims_of, result_places, sizes, table
from ._machine import FETCHES, WIDEST
from ._phases import Direction, Index, Pattern, Split, split_axis
from ._pixels import Pixels, pixels, size_within
from ._problem import Problem
from .kernels.tables import places

__all__ = ["Lines", "halvings", "lines_of", "tables_of"]

MOST_PRODUCTS = 4096  # of lines, reads and pairs of streams; a band has as many weights for each of its rows
MOST_STREAMS = 8  # that can be taken apart
MOST_CHANNELS = 3  # of which each has lines of its own: more may lie so that they drive each other from the cache
ENOUGH = 3  # sums of one row that have a part in what is loaded: more rows would gain little
MOST_MASKS = 2**12  # of vectors at the ends of a line
AT_ONCE = 32  # lines of one step that are done at once,
MASKS_AT_ONCE = 2**10  # if all of them have no more than this

# One multiplication in boxes, by how many rows share its samples, in the time of one in lines; measured on an EPYC.
TILES = {4: 1.0, 2: 1.1 if WIDEST else 1.4, 1: 2.0}


class _Tap(NamedTuple):
    """A tap of one axis: its number, which phase of the source it reads, and at which offset."""

    k: int
    phase: int
    offset: int


@dataclass(frozen=True, eq=False)
class _Rows:
    """What of a plan knows nothing of sizes."""

    band: int  # rows of each
    neighbours: int  # positions along the axis before the last that are phases
    reads: tuple[int, ...]  # offsets along the last axis
    places: Index  # where in w the weight lies for each line, read, row, stream of the source and of the result; or -1
    row_line: Index  # line at which each band begins, and the number of lines
    line_meets: Index  # which sums of its band a line has a part in: bit row * R + stream; and
    read_meets: Index  # the same for each read: a sum gets what both have a part in
    row_channel: Index  # outer channel of each row,
    row_phase: Index  # and its phase of each axis, one column for each
    line_channel: Index  # likewise; along each axis it is one of
    line_step: Index
    steps: tuple[tuple[Index, Index], ...]  # so many phases and offsets
    fresh: Index  # lines that no band has read when the next position along the axis before the last begins,
    fresh_lines: int  # and how many these are
    stream_channel: Index  # channel of each stream of each row
    zeros: bool  # whether zeros take the place of weights in sums that have a part in a read,
    gaps: bool  # or in any sums
    weights: int  # that there are, without zeros
    # Of a vector of positions: vectors that are loaded, multiplied, and come from memory or go there,
    loads: int
    products: int
    numbers: int
    boxes: float  # and what the multiplications take in boxes
    most_lines: int  # of one band


def _taps(pattern: Pattern) -> list[list[_Tap]]:
    """Of each phase of the result, its taps."""
    return [
        [
            _Tap(tap + run.k + j * pattern.kernel_step, run.phase, run.offset + j * pattern.tap_step)
            for run in pattern.classes[c]
            for j in range(run.length)
        ]
        for c, tap in zip(pattern.class_of, pattern.tap_of, strict=True)
    ]


def _offsets(pattern: Pattern) -> set[int]:
    """At which the taps of an axis read."""
    return {run.offset + j * pattern.tap_step for runs in pattern.classes for run in runs for j in range(run.length)}


@lru_cache(maxsize=64)
def _rows(
    direction: Direction,
    patterns: tuple[Pattern, ...],
    before: int,
    last: int,
    sources: tuple[int, int],
    results: tuple[int, int],
    bands: tuple[int, ...],
) -> _Rows | None:
    """Multiply the axes out; `last` is that of the lines, `before` the next one in memory, either -1 if it is batch.

    `sources` and `results` are numbers of channels, those with lines of their own and those that are streams.  Bands
    may have so many rows.
    """
    axes = range(len(patterns))
    outer = [a for a in axes if a != last]
    size = math.prod(pattern.taps for pattern in patterns)
    if size * math.prod(sources) * math.prod(results) > MOST_PRODUCTS:
        return None
    taps = [_taps(pattern) for pattern in patterns]
    # w is (C_in, C_out, *kernel); the channel axes swap roles between the directions.
    strides = [math.prod(pattern.taps for pattern in patterns[a + 1 :]) for a in axes]
    if direction == "forward":
        source_stride, result_stride = math.prod(results) * size, size
    else:
        source_stride, result_stride = size, math.prod(sources) * size

    along = taps[last] if last >= 0 else [[_Tap(0, 0, 0)]]
    phases, stride = (patterns[last].source_phases, strides[last]) if last >= 0 else (1, 0)
    reads = sorted({tap.offset for each in along for tap in each})
    S, R = phases * sources[1], len(along) * results[1]
    within = np.full((len(reads), S, R), -1, np.intp)
    for r, each in enumerate(along):
        for tap, c, d in itertools.product(each, range(sources[1]), range(results[1])):
            at = reads.index(tap.offset), tap.phase * sources[1] + c, r * results[1] + d
            within[at] = tap.k * stride + c * source_stride + d * result_stride
    some: Any = (within >= 0).any(axis=1)  # whether a read has a part in a stream of the result

    # Bands: along the axis before the last, where rows have most lines in common, channels and phases come first.
    if some.sum() >= ENOUGH * len(reads):
        bands = (1,)
    band, neighbours = _band(bands, results[0], patterns[before] if before in outer else None)
    chosen = [  # for each phase of each outer axis, its taps; neighbours read further on
        [
            [tap._replace(offset=tap.offset + ahead) for tap in each]
            for ahead in range(neighbours if a == before else 1)
            for each in taps[a]
        ]
        for a in outer
    ]

    def order(row: tuple[int, ...]) -> tuple[Any, ...]:
        channel, *phase = row
        of = dict(zip(outer, phase, strict=True))
        return [f for a, f in of.items() if a != before], of.get(before), channel

    rows = sorted(itertools.product(range(results[0]), *(range(len(each)) for each in chosen)), key=order)
    lines: list[tuple[Any, ...]] = []  # channel; phase and offset along each outer axis
    bases: list[list[int]] = []  # where weights lie, for each row of the band; or -1
    begin = [0]
    for number in range(0, len(rows), band):
        found: dict[tuple[Any, ...], list[int]] = {}
        for b, (channel, *phase) in enumerate(rows[number : number + band]):
            of_axes = [chosen[d][f] for d, f in enumerate(phase)]
            for c, terms in itertools.product(range(sources[0]), itertools.product(*of_axes)):
                line = c, *((tap.phase, tap.offset) for tap in terms)
                found.setdefault(line, [-1] * band)[b] = (
                    c * sources[1] * source_stride
                    + channel * results[1] * result_stride
                    + sum(tap.k * strides[a] for a, tap in zip(outer, terms, strict=True))
                )
        lines += sorted(found)
        bases += [found[line] for line in sorted(found)]
        begin.append(len(lines))
    if not lines or not reads or len(lines) * within.size > MOST_PRODUCTS:
        return None

    # Every line by what it is along each axis.
    distinct = [sorted({line[1 + d] for line in lines}) for d in range(len(outer))]
    line_step, row_phase = (np.zeros((len(table), len(patterns)), np.intp) for table in (lines, rows))
    steps = [(np.zeros(1, np.intp), np.zeros(1, np.intp))] * len(patterns)
    for d, a in enumerate(outer):
        numbers = {step: number for number, step in enumerate(distinct[d])}
        line_step[:, a] = [numbers[line[1 + d]] for line in lines]
        row_phase[:, a] = [row[1 + d] for row in rows]
        phase, offset = np.array(distinct[d], np.intp).T
        steps[a] = phase, offset

    def later(line: tuple[Any, ...]) -> tuple[Any, ...]:
        """The line that takes its place at the next position."""
        d = 1 + outer.index(before)
        return (*line[:d], (line[d][0], line[d][1] + neighbours), *line[d + 1 :])

    known = set(lines)
    fresh = [before not in outer or later(line) not in known for line in lines]
    planes = {(line[0], *(phase for phase, _ in line[1:])) for line in lines}
    channels = np.array([channel for channel, *_ in rows], np.intp)
    base = np.array(bases, np.intp)[:, None, :, None, None]
    meets = within[:, None]  # lines, reads, rows of a band, streams of the source and of the result
    missing = (base < 0) | (meets < 0)
    bits = 1 << np.arange(band * R).reshape(band, R)
    return _Rows(
        band=band,
        neighbours=neighbours,
        reads=tuple(reads),
        places=np.where(missing, -1, base + meets),
        row_line=np.array(begin, np.intp),
        line_meets=((base[:, 0, :, :, 0] >= 0) * bits).sum(axis=(1, 2)),
        read_meets=(some[:, None] * bits).sum(axis=(1, 2)),
        row_channel=channels,
        row_phase=row_phase,
        line_channel=np.array([line[0] for line in lines], np.intp),
        line_step=line_step,
        steps=tuple(steps),
        fresh=np.array(fresh),
        fresh_lines=len({line for line, new in zip(lines, fresh, strict=True) if new}),
        stream_channel=(channels[:, None] * results[1] + np.arange(R) % results[1]).ravel(),
        zeros=bool(((within < 0) & some[:, None]).any()),
        gaps=bool(missing.any()),
        weights=int(np.count_nonzero(~missing)),
        loads=len(lines) * len(reads) * S,
        products=int(np.count_nonzero(base >= 0) * some.sum()) * S,
        numbers=len(planes) * S * neighbours + len(rows) * R,
        boxes=_boxed(taps, math.prod(sources), math.prod(results)) * neighbours,
        most_lines=int(np.diff(begin).max()),
    )


def _band(bands: tuple[int, ...], channels: int, pattern: Pattern | None) -> tuple[int, int]:
    """How many rows make a band, and how many neighbouring positions have a part in it.

    There are so many `channels` of results, and such a pattern along the axis of those positions, if it has one.
    """
    rows = channels * len(pattern.class_of) if pattern else channels
    if pattern and pattern.longest > 1:
        widest = max(bands)
        neighbours = widest // math.gcd(widest, rows)
        if neighbours == 1 or abs(pattern.tap_step) < neighbours:  # else they have no lines in common
            return widest, neighbours
    return max(b for b in bands if rows % b == 0), 1


class Lines(NamedTuple):
    """A problem as lines."""

    key: tuple[Any, ...]  # of the rows
    rows: _Rows
    groups: int
    splits: list[Split]
    dims: list[Dim]
    extent: list[int]
    streams: tuple[int, int]  # of the source and of the result
    pixels: Pixels
    source_size: int  # of a line
    result_size: int
    group_steps: tuple[int, int]
    channel_steps: tuple[int, int]


def lines_of(problem: Problem, bands: bool = False) -> Lines | None:
    """Take a problem apart, if the kernels can do that, into bands or into single rows.

    Single rows have the fewest reads: the lines of the result may begin before its first output.
    """
    module, direction, axes = problem.module, problem.direction, problem.axes
    groups, parts, sources, results = problem.groups, problem.parts, problem.sources, problem.results
    if max(sources, results) > max(MOST_CHANNELS * parts, MOST_STREAMS):
        return None
    splits = [split_axis(axis, direction, aligned=direction == "forward") for axis in axes]
    dims = dims_of(splits, problem)
    extent, _ = sizes(dims)
    size, own = 1, False  # of pixels
    if parts == 1 and groups > 1 and problem.group_steps == (1, 1) and sources == results == 1:
        size, own, groups = groups, True, 1
    elif parts == 1 and (size := size_within(dims, extent, module.lanes)) > 1:
        del dims[-1], extent[-1]
    *outer, last = dims
    split = last.split
    if not bands and last.axis >= 0:
        earlier = split_axis(axes[last.axis], direction)
        if len(_offsets(earlier.pattern)) < len(_offsets(split.pattern)):
            split = splits[last.axis] = earlier
            dims[-1], extent[-1] = last._replace(split=split), split.positions
    # Between neighbouring samples of one channel and phase lie those of others, or nothing; or the rest of a pixel.
    steps = last.source_stride, last.result_stride
    inside = (1, 1) if size > 1 else steps
    S, R = split.source_start.size * inside[0], split.result_start.size * inside[1]
    held = pixels(size, own, steps, (S, R), module.lanes)
    if held is None or (split.source_step * inside[0], split.result_step * inside[1]) != (S, R):
        return None
    kinds = module.pixel_bands if held.size else module.bands
    if (S, R) not in kinds or (held.size and not bands and (S, R) not in module.pixel_products):
        return None
    extent[-1] *= held.flat
    channel_steps = problem.channel_steps
    alone = [
        _channels_alone(channels, parts, step, n)
        for channels, step, n in zip((sources, results), channel_steps, inside, strict=True)
    ]
    if not all(0 < n <= MOST_CHANNELS for n in alone):
        return None
    before = outer[-1].axis if outer else -1
    if bands and before >= 0:  # phases that read the same lines
        splits[before] = split_axis(axes[before], direction)
        dims[-2], extent[-2] = outer[-1]._replace(split=splits[before]), splits[before].positions
    allowed: tuple[int, ...] = (1,)  # numbers of rows of a band, no more than there are
    if bands:
        most = alone[1] * (splits[before].result_start.size * splits[before].positions if before >= 0 else 1)
        allowed = tuple(b for b in kinds[S, R] if b <= max(1, most))
    key = (
        direction,
        tuple(s.pattern for s in splits),
        before,
        last.axis,
        (alone[0], inside[0]),
        (alone[1], inside[1]),
        allowed,
    )
    rows = _rows(*key)
    if rows is None:
        return None
    if rows.neighbours > 1:
        splits[before] = _with_neighbours(splits[before], rows.neighbours)
        dims[-2], extent[-2] = dims[-2]._replace(split=splits[before]), splits[before].positions
    return Lines(
        key=(*key, held),
        rows=rows,
        groups=groups,
        splits=splits,
        dims=dims,
        extent=extent,
        streams=(S, R),
        pixels=held,
        source_size=split.source_size * steps[0],
        result_size=split.result_size * steps[1],
        group_steps=problem.group_steps,
        channel_steps=channel_steps,
    )


def tables_of(
    lines: Lines, vectors: int, task: int, ahead: int, outer_each: int | None = None, several: bool = False
) -> dict[str, Any] | None:
    """Tables of the kernels for so many vectors at a time, unless that takes too many masks.

    A task has so many positions: whole lines if they are not too long, or parts of so many lines, `outer_each`.  What
    comes next is fetched so many positions of the outer axis `ahead`.  Lines of one step may be done `several` at once,
    across the outer axis.
    """
    outer_each = outer_each or max(1, task // lines.extent[-1])
    rows, (S, R), held = lines.rows, lines.streams, lines.pixels
    *outer, last = lines.dims
    phases = last.split.source_start.size
    reads = [(int(last.split.source_start[0]) + read * phases) * last.source_stride for read in rows.reads]
    first = int(last.split.result_start[0]) * last.result_stride  # may lie before the line
    # Steps along a line: those between `head` and `tail` reach beyond neither end.
    step_size = vectors * held.together
    steps = -(-lines.extent[-1] // step_size)
    read, written = vectors * S * held.steps[0], vectors * R * held.steps[1]  # numbers of a step
    head = min(steps, -min(reads[0] // read, first // written, 0))
    beyond = reads[-1] + held.beyond
    at_once = 1
    if several:
        at_once = max(1, min(AT_ONCE, MASKS_AT_ONCE // (vectors * (len(reads) * S + R))))
        head = 1  # where steps are in part, they need not follow each other along a line
    tail = max(head, min((lines.source_size - beyond) // read, (lines.result_size - first) // written))
    if (head + steps - tail) * vectors * (len(reads) * S + R) > MOST_MASKS:
        return None

    row_place, row_range = result_places(outer, rows.row_phase)
    sides = [_side(dim, rows.steps, rows.neighbours if d == len(outer) - 1 else 1) for d, dim in enumerate(outer)]
    line_place, line_range = places(rows.line_step, sides)
    row_place += rows.row_channel * lines.channel_steps[1] + first
    line_place += rows.line_channel * lines.channel_steps[0]
    ahead = ahead if FETCHES and outer else 0
    source_step, result_step = ([dim.steps[side] for dim in outer] for side in (0, 1))
    return {
        "streams": S,
        "result_streams": R,
        "extent": table(lines.extent[:-1]),
        "source_step": table(source_step),
        "result_step": table(result_step),
        "source_group": lines.group_steps[0],
        "source_size": lines.source_size,
        "result_group": lines.group_steps[1],
        "result_begin": -first,
        "result_end": lines.result_size - first,
        "reads": table(reads),
        "vectors": vectors,
        "steps": steps,
        "head": head,
        "tail": tail,
        "lines_at_once": at_once,
        "outer_each": outer_each,
        "steps_each": max(1, task // (outer_each * step_size)),
        "pixel_size": held.size,
        "lanes_stored": held.lanes,
        "source_width": held.steps[0],
        "result_width": held.steps[1],
        "columns": table(held.columns),
        "row_place": row_place,
        "row_range": row_range.ravel(),
        "row_line": rows.row_line,
        "line_place": line_place,
        "line_range": line_range.ravel(),
        "line_ahead": rows.fresh * table([ahead * source_step[-1] if outer else 0]),
    }


def _channels_alone(channels: int, parts: int, step: int, inside: int) -> int:
    """How many channels have lines of their own, if `inside` are streams; 0 if others than channels lie between."""
    if inside == parts:  # none, or the parts of one complex number
        return channels // parts
    return 1 if step == parts and inside == channels else 0


def _with_neighbours(split: Split, number: int) -> Split:
    """Make phases of so many neighbouring positions.

    The source keeps its own, and so does the pattern: it is `_rows` that lets the taps of neighbours read further on.
    """
    ahead = np.arange(number)[:, None] * split.result_step
    return split._replace(
        positions=-(-split.positions // number),
        source_step=split.source_step * number,
        result_step=split.result_step * number,
        result_start=(ahead + split.result_start).ravel(),
    )


def _side(dim: Dim, steps: Sequence[tuple[Index, Index]], neighbours: int) -> tuple[int, int, Index, int, int, int]:
    """What `cytconv.kernels.tables.places` is to know of one of the outer axes, of so many positions at a time."""
    split, starts = dim.split, dim.split.source_start
    if dim.axis >= 0:
        phase, offset = steps[dim.axis]
        starts = starts[phase] + offset * table([split.source_step // neighbours])
    return dim.axis, dim.source_stride, starts, split.source_step, split.source_size, split.positions


def _boxed(taps: Sequence[list[list[_Tap]]], sources: int, results: int) -> float:
    """What a tile takes for a vector of positions: rows share it that have as many taps, at the same offsets."""
    along = [Counter(map(len, phases)) for phases in taps]
    time = 0.0
    for counts in itertools.product(*(phases.items() for phases in along)):
        rows = results * math.prod(number for _, number in counts)
        terms = sources * math.prod(number for number, _ in counts)
        price = TILES[max(n for n in TILES if n <= rows)]
        if rows == results == sources == 1 and len(along[0]) == 1:  # folded, it has more taps
            price = min(price, 1 + 3 / max(1, counts[0][0]))
        time += rows * terms * price
    return time


def halvings(streams: int) -> float:
    """How often streams are halved until each is by itself; three take as long as four halvings."""
    return 4 if streams == 3 else math.log2(streams)
