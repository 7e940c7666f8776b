"""Plans of the adjoint in the weights: the products of the correlation, summed over positions instead of channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ._boxes import L2_BYTES, TASKS, Dim, box_shape, dims_of, line_pitch, offsets, pitches, source_phases
from ._correlation import pays_spread
from ._geometry import Axis
from ._phases import Index, Split, split_axis, spread

__all__ = ["WeightAdjoint", "weight_adjoint"]

# Rough speeds of the register tiles relative to each other, by their number of rows (kernels/weights.pxi).
TILES = {6: 1.1, 3: 1.0, 2: 0.9, 1: 0.6}

STRIP_BYTES = 28 * 1024  # of both arrays, that a tile reads: in L1
SUM_BYTES = 16 * 1024 * 1024  # size of the sums that the shares of the positions may take together
PLANES = 128  # of y in one task, at most where a channel has no more than these,
CHANNELS = 1024  # and channels of x
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
) -> WeightAdjoint:
    """Plan for split arrays ``(*batch, groups, channels, *spatial, parts)`` of these shapes and strides."""
    ndim, lanes = len(axes), module.lanes
    lead = len(x_shape) - ndim - 3
    groups, parts = x_shape[lead], x_shape[-1]
    inputs, outputs = x_shape[lead + 1] * parts, y_shape[lead + 1] * parts
    spatial = range(lead + 2, lead + 2 + ndim)
    splits = [split_axis(axis, "adjoint") for axis in axes]
    number = math.prod(sum(run.length for run in split.pattern.classes[0]) for split in splits)
    channels = outputs * math.prod(split.source_start.size for split in splits[:-1])
    if pays_spread(splits[-1], channels, inputs * outputs * number, lanes):
        splits[-1] = spread(splits[-1])

    # The plan is that of the correlation whose source is y and whose positions are those of x.
    axes_of = (*range(lead), *spatial)
    dims, extent, halo = dims_of(
        splits, x_shape[:lead], [y_strides[a] for a in axes_of], [x_strides[a] for a in axes_of]
    )
    start, valid = source_phases(splits, dims)
    phases = len(start)

    tiles = [t for t in TILES if t < 6 or module.vector_bytes == 64]
    rows = min(tiles, key=lambda t: -(-inputs // t) * t / TILES[t])
    columns = module.dot_columns[rows]
    y_block = min(outputs, max(1, PLANES // phases))

    # So many positions that the strips of a tile stay in L1.
    strips = rows + min(columns, y_block * phases)
    box = box_shape(
        extent,
        halo,
        (y_block * phases) * itemsize,
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

    channel_x, channel_y = np.arange(inputs), np.arange(outputs)
    x_plane = line_pitch(math.prod(box[:flat].tolist()) * run_pitch, itemsize)
    y_plane = line_pitch(math.prod(padded.tolist()), itemsize)
    planes_x = module.Planes(
        step=offsets(dim.result_stride for dim in dims),
        channel=channel_x // parts * x_strides[lead + 1] + channel_x % parts * x_strides[-1],
        group=x_strides[lead],
        start=np.zeros(1, np.intp),
        valid=np.stack([np.zeros_like(extent), extent], axis=1).ravel(),
        pitch=x_pitch,
        channel_pitch=x_plane,
        phase_pitch=0,
    )
    planes_y = module.Planes(
        step=offsets(dim.split.source_step * dim.source_stride for dim in dims),
        channel=channel_y // parts * y_strides[lead + 1] + channel_y % parts * y_strides[-1],
        group=y_strides[lead],
        start=start,
        valid=valid.ravel(),
        pitch=y_pitch,
        channel_pitch=phases * y_plane,
        phase_pitch=y_plane,
    )
    tap, phase, offset = _taps(axes, splits, dims, y_pitch)
    size = math.prod(axis.taps for axis in axes)
    channel = np.arange(y_block)[:, None]
    in_task = (channel * (phases * y_plane) + phase * y_plane + offset).ravel()
    in_task = np.append(in_task, np.full(columns - 1, in_task[-1]))  # the last tile may be short of columns
    counts = -(-extent // box)
    boxes = math.prod(counts.tolist())
    sums = groups * inputs * outputs * size
    # The work comes in shares of the positions, whose sums take memory, and where these are few in blocks of channels.
    outer = groups * -(-outputs // y_block)
    most = min(boxes, SUM_BYTES // max(sums * itemsize, 1))
    shares = max(1, min(most, -(-TASKS // outer)))
    parts_x = max(-(-inputs // CHANNELS), -(-FEW_TASKS // (outer * shares)))
    x_block = -(-inputs // (rows * parts_x)) * rows
    pieces = outer * -(-inputs // x_block)
    kernel = module.WeightAdjoint(
        planes_x,
        planes_y,
        parts=parts,
        groups=groups,
        rows=rows,
        taps=number,
        size=size,
        box=box,
        counts=counts,
        x_padded=x_padded,
        y_padded=padded,
        runs=runs,
        columns=in_task,
        places=(channel * size + tap).ravel(),
        shares=shares,
        boxes=boxes,
        x_block=x_block,
        y_block=y_block,
    )
    return WeightAdjoint(
        kernel,
        tasks=pieces * shares,
        work=groups * inputs * outputs * number * math.prod(extent.tolist()),
        packed=pieces * boxes * (math.prod(padded.tolist()) * phases * y_block + x_plane * x_block),
        memory=kernel.scratch_size + sums * shares,
    )


def _taps(
    axes: Sequence[Axis], splits: Sequence[Split], dims: Sequence[Dim], pitch: Index
) -> tuple[Index, Index, Index]:
    """For each tap: its place in the kernel, its phase of y, its offset there."""
    tables = []
    for s in splits:
        p = s.pattern
        (runs,) = p.classes
        steps = [(r.phase, r.k + j * p.kernel_step, r.offset + j * p.tap_step) for r in runs for j in range(r.length)]
        tables.append(np.array(steps, np.intp).reshape(-1, 3))
    grid = np.indices([len(table) for table in tables], np.intp).reshape(len(tables), -1)
    phases, taps, shifts = np.stack([table[which] for table, which in zip(tables, grid, strict=True)]).T
    tap, phase, offset = np.zeros((3, grid.shape[1]), np.intp)
    for a, (axis, s) in enumerate(zip(axes, splits, strict=True)):
        tap = tap * axis.taps + taps[:, a]
        phase = phase * s.source_start.size + phases[:, a]
    for d, dim in enumerate(dims):
        offset += dim.along(shifts) * pitch[d]
    return tap, phase, offset
