"""Plans of the forward operator and its adjoint where few numbers are summed up: lines are read where they lie.

Where sums have few terms, to copy the source into planes, and results out of scratch memory, takes longer than to
multiply.  Then a line along the last axis is the unit of work (``kernels/stencil.pxi``).  Phases of that axis, and
channels that lie between its positions, are *streams*, S of them in the source and R in the result, which are taken
apart and put together in registers.  A *row* is a line of the result for each position of the outer axes, one for each
of their phases; it is a sum over lines of the source, one for each channel and for each tap of the outer axes, and over
*reads*, the offsets that taps of the last axis have ::

    result[p*R + r]  =  sum over lines, reads, streams f of   w[line, read, f, r] * line[(p + read)*S + f]

Where a stream of the result has no tap for a stream of the source at some offset, the weight is zero, and results are
checked like those of a folded kernel (`cytconv._correlation`).
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

from ._boxes import Dim, dims_of, table
from ._geometry import Axis
from ._machine import FETCHES
from ._phases import Direction, Index, Pattern, split_axis
from ._runtime import ISA

__all__ = ["Stencil", "stencil"]

MOST_LINES = 128  # that make up one of the result: as many as ``kernels/stencil.pxi`` has room for
MOST_PRODUCTS = 4096  # weights of all rows
MOST_CHANNELS = 3  # of which each has lines of its own: more may lie so that they drive each other from the cache
TASK = 2**13  # positions of all rows that make up a task
STREAM_BYTES = 4 * 1024 * 1024  # a result larger than this is written past the caches,
PIECE_BYTES = 4096  # so much of a line at a time
AHEAD_BYTES = 2**14  # how far ahead of what is read lines are fetched

# What takes as long as to multiply so many vectors of positions, measured with AVX-512 on an EPYC: here,
LOAD = 1.7  # to load one that begins anywhere,
SHUFFLE = 0.5 if ISA == "avx512" else 1.0  # to halve or double the streams of one,
NUMBER = 3  # to wait for one from memory or store it there,
ROW = 150  # to begin with a line of the result;
COPY = 6  # and in ``kernels/correlate.pxi``, to pack one or to store it,
LINE = 50  # to begin with one of its lines,
TILES = {4: 1.0, 2: 1.4, 1: 2.0}  # and to multiply one, by how many rows share its samples


class _Tap(NamedTuple):
    """A tap of one axis: its number, which phase of the source it reads, and at which offset."""

    k: int
    phase: int
    offset: int


@dataclass(frozen=True)
class _Rows:
    """What of a plan knows nothing of sizes."""

    reads: tuple[int, ...]  # offsets along the last axis
    places: Index  # where in w the weight lies for each line, read, stream of the source and of the result; or -1
    row_line: Index  # line at which each row begins, and the number of lines
    row_channel: Index  # outer channel of each row,
    row_phase: Index  # and its phase of each axis, one column for each
    line_channel: Index  # likewise
    line_phase: Index
    line_offset: Index  # along each axis


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


@lru_cache(maxsize=64)
def _rows(
    direction: Direction, patterns: tuple[Pattern, ...], last: int, sources: tuple[int, int], results: tuple[int, int]
) -> _Rows | None:
    """Multiply the axes out; `last` is that of the lines, -1 if it is batch.

    `sources` and `results` are numbers of channels, those with lines of their own and those that are streams.
    """
    axes = range(len(patterns))
    outer = [a for a in axes if a != last]
    taps = [_taps(pattern) for pattern in patterns]
    # w is (C_in, C_out, *kernel); the channel axes swap roles between the directions.
    strides = [math.prod(pattern.taps for pattern in patterns[a + 1 :]) for a in axes]
    size = math.prod(pattern.taps for pattern in patterns)
    if direction == "forward":
        source_stride, result_stride = math.prod(results) * size, size
    else:
        source_stride, result_stride = size, math.prod(sources) * size

    along = taps[last] if last >= 0 else [[_Tap(0, 0, 0)]]
    phases, stride = (patterns[last].source_phases, strides[last]) if last >= 0 else (1, 0)
    reads = sorted({tap.offset for each in along for tap in each})
    within = np.full((len(reads), phases * sources[1], len(along) * results[1]), -1, np.intp)
    for r, each in enumerate(along):
        for tap, c, d in itertools.product(each, range(sources[1]), range(results[1])):
            at = reads.index(tap.offset), tap.phase * sources[1] + c, r * results[1] + d
            within[at] = tap.k * stride + c * source_stride + d * result_stride

    rows = list(itertools.product(range(results[0]), *(range(len(taps[a])) for a in outer)))
    lines: list[tuple[int, list[_Tap]]] = []
    begin, places = [0], []
    for channel, *phase in rows:
        chosen = [taps[a][f] for a, f in zip(outer, phase, strict=True)]
        if math.prod(map(len, chosen)) * sources[0] > MOST_LINES:
            return None
        for c, terms in itertools.product(range(sources[0]), map(list, itertools.product(*chosen))):
            lines.append((c, terms))
            places.append(
                c * sources[1] * source_stride
                + channel * results[1] * result_stride
                + sum(tap.k * strides[a] for a, tap in zip(outer, terms, strict=True))
            )
        begin.append(len(lines))
        if len(lines) * within.size > MOST_PRODUCTS:
            return None
    if not lines or not reads:
        return None

    def columns(values: list[list[int]]) -> Index:
        """Those of the outer axes, in a table with one for each axis."""
        columns = np.zeros((len(values), len(patterns)), np.intp)
        columns[:, outer] = np.array(values, np.intp).reshape(len(values), len(outer))
        return columns

    return _Rows(
        reads=tuple(reads),
        places=np.where(within < 0, -1, within + np.array(places, np.intp)[:, None, None, None]).ravel(),
        row_line=np.array(begin, np.intp),
        row_channel=np.array([channel for channel, *_ in rows], np.intp),
        row_phase=columns([phase for _, *phase in rows]),
        line_channel=np.array([c for c, _ in lines], np.intp),
        line_phase=columns([[tap.phase for tap in terms] for _, terms in lines]),
        line_offset=columns([[tap.offset for tap in terms] for _, terms in lines]),
    )


@dataclass(frozen=True, eq=False)
class Stencil:
    """The tables of one call, in the terms of ``kernels/stencil.pxi``; strides and offsets count elements."""

    module: Any
    key: tuple[Any, ...]  # equal for equal orders of packed weights
    pairs: int  # of channels
    places: Index  # of the weights, in that order
    kernel: Any  # the compiled counterpart, which holds the tables
    tasks: int
    work: int  # multiplications, with the zeros
    covers: bool  # whether the rows make up all of the result
    packed = 0  # samples copied

    def packing(self, groups: int, taps: tuple[int, ...]) -> Any:
        """What packs the weights of so many groups of channels, each a contiguous array of real numbers."""
        return self.module.Gather(groups, self.pairs * math.prod(taps), self.places)


@lru_cache(maxsize=64)
def stencil(
    module: Any,
    direction: Direction,
    axes: tuple[Axis, ...],
    sources: int,
    results: int,
    source_shape: tuple[int, ...],
    source_strides: tuple[int, ...],
    result_strides: tuple[int, ...],
    itemsize: int,
    exact: bool,
) -> Stencil | None:
    """Plan for the arrays of `cytconv._correlation.correlation`, unless that would be faster.

    If it is to be `exact`, no zeros may be multiplied.
    """
    lead = len(source_shape) - len(axes) - 3
    groups, parts = source_shape[lead], source_shape[-1]
    axes_of = (*range(lead), *range(lead + 2, lead + 2 + len(axes)))
    splits = [split_axis(axis, direction, aligned=direction == "forward") for axis in axes]
    dims, extent, _ = dims_of(
        splits, source_shape[:lead], [source_strides[a] for a in axes_of], [result_strides[a] for a in axes_of]
    )
    *outer, last = dims
    split = last.split
    # Between neighbouring samples of one channel and phase lie those of others, or nothing.
    S, R = split.source_step * last.source_stride, split.result_step * last.result_stride
    inside = last.source_stride, last.result_stride
    if (S, R) not in module.stencils or (split.source_start.size * inside[0], split.result_start.size * inside[1]) != (
        S,
        R,
    ):
        return None
    steps = source_strides[lead + 1], result_strides[lead + 1]
    alone = [
        _channels_alone(channels, parts, step, n)
        for channels, step, n in zip((sources, results), steps, inside, strict=True)
    ]
    if not all(0 < n <= MOST_CHANNELS for n in alone):
        return None
    if any((np.diff(start) != 1).any() for start in (split.source_start, split.result_start)):
        return None
    key = direction, tuple(s.pattern for s in splits), last.axis, (alone[0], inside[0]), (alone[1], inside[1])
    rows = _rows(*key)
    if rows is None or not _pays(rows, key[1], S, R, extent[-1] / module.lanes, module.stencils[S, R]):
        return None
    check = bool((rows.places < 0).any())
    if check and exact:
        return None

    row_place, row_range = _lines(outer, "result", rows.row_phase, np.zeros_like(rows.row_phase))
    line_place, line_range = _lines(outer, "source", rows.line_phase, rows.line_offset)
    row_place += rows.row_channel * (steps[1] * max(1, inside[1] // parts))
    line_place += rows.line_channel * (steps[0] * max(1, inside[0] // parts))
    source_size, result_size = split.source_size * inside[0], split.result_size * inside[1]
    result_start = int(split.result_start[0]) * inside[1]
    reads = int(split.source_start[0]) * inside[0] + np.array(rows.reads, np.intp) * S
    # Lines that no row has read yet when the next position along the last of the outer axes begins.
    ahead = np.zeros_like(line_place)
    if FETCHES and outer:
        step = outer[-1].split.source_step * outer[-1].source_stride
        fresh = ~np.isin(line_place + table([step]), line_place)
        size = np.unique(line_place[fresh]).size * source_size * itemsize
        ahead[fresh] = table([step * -(-AHEAD_BYTES // max(size, 1))])
    positions = math.prod(extent)
    written = groups * rows.row_channel.size * R * positions * itemsize
    vectors = module.stencils[S, R] * module.lanes
    each = max(1, TASK // (extent[-1] * rows.row_channel.size))  # positions of the outer axes in a task,
    stretch = max(1, TASK // vectors)  # and steps along a line
    kernel = module.Stencil(
        streams=S,
        result_streams=R,
        extent=table(extent[:-1]),
        source_step=table(dim.split.source_step * dim.source_stride for dim in outer),
        result_step=table(dim.split.result_step * dim.result_stride for dim in outer),
        source_group=source_strides[lead],
        source_size=source_size,
        result_group=result_strides[lead],
        result_start=result_start,
        result_size=result_size,
        results=results,
        reads=reads,
        positions=extent[-1],
        low=max(0, -(int(reads.min()) // S), -(result_start // R)),
        high=min(extent[-1], (source_size - int(reads.max())) // S, (result_size - result_start) // R),
        each=each,
        stretch=stretch,
        piece=max(1, PIECE_BYTES // (R * itemsize * vectors)) if written > STREAM_BYTES else 0,
        row_place=row_place,
        row_range=row_range,
        row_channel=(rows.row_channel[:, None] * inside[1] + np.arange(R) % inside[1]).ravel(),
        row_line=rows.row_line,
        line_place=line_place,
        line_range=line_range,
        line_ahead=ahead,
        check=check,
    )
    return Stencil(
        module=module,
        key=(module, *key),
        pairs=sources * results,
        places=rows.places,
        kernel=kernel,
        tasks=groups * -(-math.prod(extent[:-1]) // each) * -(-extent[-1] // (stretch * vectors)),
        work=groups * positions * rows.places.size,
        covers=all(split.covers for split in splits),
    )


def _channels_alone(channels: int, parts: int, step: int, inside: int) -> int:
    """How many channels have lines of their own, if `inside` are streams; 0 if others than channels lie between."""
    if inside == parts:  # none, or the parts of one complex number
        return channels // parts
    return 1 if step == parts and inside == channels else 0


def _lines(dims: Sequence[Dim], side: str, phase: Index, offset: Index) -> tuple[Index, Index]:
    """Where each line starts, and for which positions of the outer axes it exists: ``[first, last)``."""
    place = np.zeros(len(phase), np.intp)
    ranges = np.empty((len(phase), len(dims), 2), np.intp)
    for d, dim in enumerate(dims):
        split, stride = dim.split, getattr(dim, f"{side}_stride")
        start, step, size = (getattr(split, f"{side}_{name}") for name in ("start", "step", "size"))
        at = start[phase[:, dim.axis]] + offset[:, dim.axis] * step if dim.axis >= 0 else start[0]
        place += at * stride
        ranges[:, d, 0] = np.clip(-(at // step), 0, split.positions)
        ranges[:, d, 1] = np.clip((size - 1 - at) // step + 1, 0, split.positions)
    return place, ranges.ravel()


def _pays(rows: _Rows, patterns: Sequence[Pattern], S: int, R: int, vectors: float, together: int) -> bool:
    """Whether this takes less time than to pack, multiply and store boxes: a model of a vector of positions."""
    lines, outer = int(rows.row_line[-1]), rows.row_channel.size
    loads = lines * len(rows.reads) * S
    shuffles = loads * _shuffles(S) + outer * R * _shuffles(R)
    numbers = len({*zip(rows.line_channel.tolist(), map(tuple, rows.line_phase.tolist()), strict=True)}) * S + outer * R
    taken = math.ceil(vectors / together) * together / vectors
    here = max(rows.places.size + shuffles, LOAD * loads) * taken + NUMBER * numbers + ROW * outer / vectors

    # Rows that have as many taps, at the same offsets, share a tile; a lone one is folded, which takes more taps.
    needed, multiplied = int((rows.places >= 0).sum()), 0.0
    along = [Counter(map(len, _taps(pattern))) for pattern in patterns]
    channels = outer * R // math.prod(phases.total() for phases in along)
    for counts in itertools.product(*(phases.items() for phases in along)):
        alike = channels * math.prod(number for _, number in counts)
        multiplied += alike * math.prod(taps for taps, _ in counts) * TILES[max(n for n in TILES if n <= alike)]
    multiplied *= needed / max(1, channels * math.prod(sum(n * taps for taps, n in phases.items()) for phases in along))
    if S == R == outer == 1:
        multiplied = min(multiplied, needed * (1 + 3 / len(rows.reads)))
    return here < multiplied + (COPY + LINE / vectors) * numbers


def _shuffles(streams: int) -> float:
    """What it takes to take a vector of so many streams apart, or to put it together."""
    return SHUFFLE * (4 if streams == 3 else math.log2(streams))
