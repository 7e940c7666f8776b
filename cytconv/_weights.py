"""Plans of the adjoint in the weights: the products of the correlation, summed over positions instead of channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ._boxes import (
    L2_BYTES,
    TASKS,
    Dim,
    all_phases,
    box_shape,
    dims_of,
    line_pitch,
    of_axes,
    offsets,
    pitches,
    result_places,
    source_places,
)
from ._correlation import MIXED, MIXED_GAIN, MIXED_LEAST, Means, pays_spread
from ._geometry import Axis
from ._phases import Index, Matrix, Split, split_axis, spread
from ._winograd import kron, mixing_cost, mixtures, plane_terms, read_places, result_terms, transposed

__all__ = ["WeightAdjoint", "weight_adjoint"]

# Rough speeds of the register tiles relative to each other, by their number of rows (kernels/weights.pxi).
TILES = {6: 1.1, 3: 1.0, 2: 0.9, 1: 0.6}

STRIP_BYTES = 28 * 1024  # of both arrays, that a tile reads: in L1
SUM_BYTES = 16 * 1024 * 1024  # size of the sums that the shares of the positions may take together
SHARED_BYTES = 8 * 1024 * 1024  # size of the planes of x, that tasks may share
PLANES = 128  # of y in one task, at most where a channel has no more than these,
CHANNELS = 1024  # and planes of x
MIXED_PLANES = 1024  # of y, where they are sums
REDUCE = 100  # multiplications that take as long as to add up the lanes of a sum, of some 500 positions
FEW_TASKS = 4  # which split the channels of x, though each of them packs y anew


@dataclass(frozen=True, eq=False)
class WeightAdjoint:
    """The tables of the adjoint in the weights, in the terms of ``kernels/weights.pxi``."""

    kernel: Any
    tasks: int
    work: int  # multiplications, padding included
    packed: int  # samples copied, padding included
    memory: int  # numbers, of scratch and sums


@lru_cache(maxsize=64)
def weight_adjoint(
    module: Any,
    axes: tuple[Axis, ...],
    x_shape: tuple[int, ...],
    x_strides: tuple[int, ...],
    y_shape: tuple[int, ...],
    y_strides: tuple[int, ...],
    itemsize: int,
    means: Means,
) -> WeightAdjoint:
    """Plan for split arrays ``(*batch, groups, channels, *spatial, parts)`` of these shapes and strides."""
    ndim, lanes = len(axes), module.lanes
    lead = len(x_shape) - ndim - 3
    groups, parts = x_shape[lead], x_shape[-1]
    inputs, outputs = x_shape[lead + 1] * parts, y_shape[lead + 1] * parts
    spatial = range(lead + 2, lead + 2 + ndim)

    # The plan is that of the correlation whose source is y and whose positions are those of x.
    splits = _best(axes, inputs, outputs, math.prod(x_shape[: lead + 1]), lanes, means)
    mixed = any(split.pattern.mix for split in splits)
    axes_of = (*range(lead), *spatial)
    dims, extent, halo = dims_of(
        splits, x_shape[:lead], [y_strides[a] for a in axes_of], [x_strides[a] for a in axes_of]
    )
    start_x, valid_x = result_places(dims, all_phases([split.result_start.size for split in splits]))
    start_y, valid_y = source_places(dims, all_phases([split.source_start.size for split in splits]))
    # Planes that are multiplied: phases, or sums of them.
    phases_x = math.prod(len(split.pattern.class_of) for split in splits)
    phases_y = math.prod(split.pattern.source_phases for split in splits)

    tiles = [t for t in TILES if t < 6 or module.vector_bytes == 64]
    rows = min(tiles, key=lambda t: -(-inputs // t) * t / TILES[t])
    columns = module.dot_columns[rows]
    y_block = min(outputs, max(1, (MIXED_PLANES if mixed else PLANES) // phases_y))

    # So many positions that the strips of a tile stay in L1, and in L2 the planes of y that a plane of x meets.
    strips = rows + min(columns, y_block * phases_y)
    box = box_shape(
        extent,
        halo,
        y_block * -(-phases_y // phases_x) * itemsize,
        strips * itemsize * L2_BYTES // 4 // STRIP_BYTES,
        4 * lanes,
        TASKS,
    )
    padded = box + halo
    y_pitch = pitches(padded)

    # The positions from axis `flat` on are one run in both arrays, junk between rows and all: there x is zero.
    def run(a: int) -> int:
        return int(((box[a:] - 1) * y_pitch[a:]).sum()) + 1

    flat = min(range(len(dims)), key=lambda a: math.prod(box[:a].tolist()) * -(-run(a) // lanes))
    run_pitch = -(-max(run(flat), math.prod(padded[flat:].tolist())) // lanes) * lanes
    x_padded = np.append(box[:flat], padded[flat:])
    x_pitch = np.append(pitches(box[:flat]) * run_pitch, y_pitch[flat:]) if flat else y_pitch
    run_start = np.indices(tuple(box[:flat]), np.intp).reshape(flat, math.prod(box[:flat].tolist()))
    runs = np.empty((run_start.shape[1], 3), np.intp)
    runs[:, 0] = x_pitch[:flat] @ run_start
    runs[:, 1] = y_pitch[:flat] @ run_start
    runs[:, 2] = -(-run(flat) // lanes)

    # The work comes in shares of the positions, whose sums take memory, and where these are few in blocks of channels.
    counts = -(-extent // box)
    boxes = math.prod(counts.tolist())
    tables = [_products(split) for split in splits]
    kernels = [kernel for _, kernel in tables]
    sizes = [axis.taps if kernel is None else len(kernel) for axis, kernel in zip(axes, kernels, strict=True)]
    row, tap, phase, offset = _taps([table for table, _ in tables], splits, sizes, dims, y_pitch)
    size = math.prod(sizes)
    sums = groups * inputs * outputs * size
    outer = groups * -(-outputs // y_block)
    most = min(boxes, SUM_BYTES // max(sums * itemsize, 1))
    shares = max(1, min(most, -(-TASKS // outer)))
    channels = max(1, CHANNELS // phases_x)
    parts_x = max(-(-inputs // channels), -(-FEW_TASKS // (outer * shares)))
    x_block = -(-inputs // (rows * parts_x)) * rows
    pieces = outer * -(-inputs // x_block)
    x_plane = line_pitch(math.prod(box[:flat].tolist()) * run_pitch, itemsize)
    x_size = groups * boxes * inputs * phases_x * x_plane
    shared = outputs > y_block and x_size * itemsize <= SHARED_BYTES
    x_phase = (inputs if shared else x_block) * x_plane

    channel_x, channel_y = np.arange(inputs), np.arange(outputs)
    y_plane = line_pitch(math.prod(padded.tolist()), itemsize)
    planes_x = module.Planes(
        step=offsets(dim.split.result_step * dim.result_stride for dim in dims),
        channel=channel_x // parts * x_strides[lead + 1] + channel_x % parts * x_strides[-1],
        group=x_strides[lead],
        start=start_x,
        valid=valid_x.ravel(),
        pitch=x_pitch,
        channel_pitch=x_plane,
        phase_pitch=x_plane if mixed else x_phase,
    )
    planes_y = module.Planes(
        step=offsets(dim.split.source_step * dim.source_stride for dim in dims),
        channel=channel_y // parts * y_strides[lead + 1] + channel_y % parts * y_strides[-1],
        group=y_strides[lead],
        start=start_y,
        valid=valid_y.ravel(),
        pitch=y_pitch,
        channel_pitch=y_plane,
        phase_pitch=y_plane if mixed else y_block * y_plane,
    )
    sums_x = sums_y = sums_w = None
    channel_step, tap_step, row_step = size, 1, outputs * size
    kernel_taps = math.prod(axis.taps for axis in axes)
    if mixed:
        patterns = tuple(split.pattern for split in splits)
        sums_x = module.Sums(
            *transposed(result_terms(patterns), phases_x), np.arange(len(start_x)) * x_plane, x_plane, x_phase
        )
        sums_y = module.Sums(
            *plane_terms(patterns),
            read_places(splits, y_plane, of_axes(dims, y_pitch, ndim)),
            y_plane,
            y_block * y_plane,
        )
        # Sums of taps become taps line by line, each line having a number for each channel of y.
        channel_step, tap_step, row_step = 1, inputs * outputs, outputs
        terms = transposed(kron(list(zip(kernels, [axis.taps for axis in axes], strict=True))), kernel_taps)
        pitch = -(-outputs // lanes) * lanes
        sums_w = module.Sums(*terms, np.arange(size) * tap_step, outputs, pitch)

    classes = np.searchsorted(row, np.arange(phases_x + 1))
    channel = np.arange(y_block)[:, None]
    in_task, places, class_column, consecutive = [], [], [0], []
    for begin, end in zip(classes[:-1], classes[1:], strict=True):
        each = slice(begin, end)
        in_class = (channel * y_plane + phase[each] * (y_block * y_plane) + offset[each]).ravel()
        # The last tile may be short of columns.
        in_task.append(np.append(in_class, np.full(columns - 1, in_class[-1] if in_class.size else 0)))
        places.append(
            np.append((channel * channel_step + tap[each] * tap_step).ravel(), np.zeros(columns - 1, np.intp))
        )
        class_column.append(class_column[-1] + in_task[-1].size)
        consecutive.append(bool((np.diff(places[-1][: in_class.size]) == 1).all()))
    kernel = module.WeightAdjoint(
        planes_x,
        planes_y,
        sums_x,
        sums_y,
        sums_w,
        parts=parts,
        groups=groups,
        rows=rows,
        sums=size,
        taps=kernel_taps,
        few=row.size < size or not row.size,
        box=box,
        counts=counts,
        x_padded=x_padded,
        y_padded=padded,
        runs=runs,
        columns=np.concatenate(in_task),
        places=np.concatenate(places),
        class_taps=np.diff(classes),
        class_column=np.array(class_column, np.intp),
        class_consecutive=np.array(consecutive, np.intp),
        row_step=row_step,
        channel_step=channel_step,
        shares=shares,
        boxes=boxes,
        x_block=x_block,
        y_block=y_block,
        x_planes=phases_x,
        y_planes=phases_y,
        x_plane=x_plane,
        x_phase=x_phase,
        shared=shared,
        y_plane=y_plane,
    )
    return WeightAdjoint(
        kernel,
        tasks=pieces * shares,
        work=groups * inputs * outputs * row.size * math.prod(extent.tolist()),
        packed=pieces * boxes * math.prod(padded.tolist()) * phases_y * y_block
        + (x_size if shared else pieces * boxes * x_plane * phases_x * x_block),
        memory=kernel.scratch_size + sums * shares + (x_size if shared else 0),
    )


def _best(axes: Sequence[Axis], inputs: int, outputs: int, batch: int, lanes: int, means: Means) -> list[Split]:
    """The way to take the axes apart that takes least time."""
    splits = [split_axis(axis, "adjoint") for axis in axes]

    def cost(splits: list[Split]) -> float:
        taps = math.prod(
            sum(run.length for row in split.pattern.class_of for run in split.pattern.classes[row]) for split in splits
        )
        patterns = tuple(split.pattern for split in splits)
        adding = mixing_cost(patterns, outputs, inputs) if any(p.mix for p in patterns) else 0.0
        positions = batch * math.prod(split.positions for split in splits)
        return inputs * outputs * taps * (positions + REDUCE * -(-positions // 512)) + adding * positions

    plain = cost(splits)
    if means == "mixed" and min(inputs, outputs) >= MIXED and plain > MIXED_LEAST:
        # Blocks of two, and samples that are neighbours in memory left alone: the more sums, the shorter they are.
        ways = [way for way in mixtures(splits, 2) if len(axes) == 1 or way[-1].pattern.mix is None]
        cheapest = min(ways, key=cost, default=splits)
        if cost(cheapest) < MIXED_GAIN * plain:
            return cheapest
    channels = outputs * math.prod(split.source_start.size for split in splits[:-1])
    work = plain / batch / math.prod(split.positions for split in splits)
    if pays_spread(splits[-1], channels, work, lanes):
        splits[-1] = spread(splits[-1])
    return splits


def _products(split: Split) -> tuple[Index, Matrix | None]:
    """What each row (a plane of x) is multiplied with: row, plane of y, sum, offset; and of which sums taps are made.

    Without a mix the sums are the taps.  With one, every product is summed by itself: several may be of one weight.
    """
    p = split.pattern
    steps = [np.zeros((0, 4), np.intp)]
    for row, (number, base) in enumerate(zip(p.class_of, p.tap_of, strict=True)):
        for run in p.classes[number]:
            j = np.arange(run.length)
            tap, offset = base + run.k + j * p.kernel_step, run.offset + j * p.tap_step
            steps.append(np.stack(np.broadcast_arrays(row, run.phase, tap, offset), axis=1))
    table = np.concatenate(steps)
    if p.kernel is None:
        return table, None
    kernel = tuple(p.kernel[weight] for weight in table[:, 2])
    table[:, 2] = np.arange(len(table))
    return table, kernel


def _taps(
    tables: Sequence[Index], splits: Sequence[Split], sizes: Sequence[int], dims: Sequence[Dim], pitch: Index
) -> tuple[Index, Index, Index, Index]:
    """The products of all axes: rows, sums, planes of y and the offsets there; by rows."""
    grid = np.indices([len(table) for table in tables], np.intp).reshape(len(tables), -1)
    rows, phases, taps, shifts = np.stack([table[which] for table, which in zip(tables, grid, strict=True)]).T
    row, tap, phase, offset = np.zeros((4, grid.shape[1]), np.intp)
    for a, (split, size) in enumerate(zip(splits, sizes, strict=True)):
        row = row * len(split.pattern.class_of) + rows[:, a]
        tap = tap * size + taps[:, a]
        phase = phase * split.pattern.source_phases + phases[:, a]
    for d, dim in enumerate(dims):
        offset += dim.along(shifts) * pitch[d]
    order = np.argsort(row, kind="stable")
    return row[order], tap[order], phase[order], offset[order]
