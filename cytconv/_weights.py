"""Plans of the adjoint in the weights: the products of the correlation, summed over positions instead of channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ._boxes import TASKS, Dim, box_shape, dims_of, offsets, pitches, source_phases
from ._correlation import TILES
from ._geometry import Axis
from ._phases import Index, Split, split_axis

__all__ = ["WeightAdjoint", "weight_adjoint"]

NARROW = 3  # a tile one vector wide comes as near to the peak as if it had this many rows more to wait for
CHANNELS = 96  # of either side in one task
SUM_BYTES = 16 * 1024 * 1024  # size of the sums that the shares of the positions may take together


@dataclass(frozen=True, eq=False)
class WeightAdjoint:
    """The tables of the adjoint in the weights, in the terms of ``kernels/weights.pxi``."""

    kernel: Any
    tasks: int
    work: int  # multiplications, padding included
    packed: int  # samples copied, padding included
    shape: tuple[int, ...]  # of the sums: group, share, tap, panels and rows of either side
    taps: tuple[Index, ...]  # index of each of the taps along the axes of the kernel
    x_is_left: bool


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
    ndim = len(axes)
    lead = len(x_shape) - ndim - 3
    groups, parts = x_shape[lead], x_shape[-1]
    sizes = x_shape[lead + 1] * parts, y_shape[lead + 1] * parts
    spatial = range(lead + 2, lead + 2 + ndim)
    splits = [split_axis(axis, "adjoint") for axis in axes]

    # The side whose channels fill whole vectors goes right, the other one left, in the tile that does it fastest.
    def cost(choice: tuple[int, int, bool]) -> float:
        tile, vectors, x_is_left = choice
        left, right = sizes if x_is_left else sizes[::-1]
        width = vectors * module.lanes
        speed = TILES[tile] if vectors > 1 else tile / (tile + NARROW)
        return float(-(-left // tile) * tile * -(-right // width) * width) / speed

    choices = [
        (t, vectors, x_is_left) for t in TILES for vectors in (module.widths[t], 1) for x_is_left in (True, False)
    ]
    tile, vectors, x_is_left = min(choices, key=cost)
    width = vectors * module.lanes

    # The plan is that of the correlation whose source is y and whose positions are those of x.
    axes_of = (*range(lead), *spatial)
    dims, extent, halo = dims_of(
        splits, x_shape[:lead], [y_strides[a] for a in axes_of], [x_strides[a] for a in axes_of]
    )
    start, valid = source_phases(splits, dims)
    phases = len(start)

    # Both sides' channels come in panels, some of them in one task.
    panels = tuple(-(-n // w) for n, w in zip(sizes if x_is_left else sizes[::-1], (tile, width), strict=True))
    task_panels = tuple(min(n, -(-CHANNELS // w)) for n, w in zip(panels, (tile, width), strict=True))
    channels_y = task_panels[1 if x_is_left else 0] * (width if x_is_left else tile)
    channels_x = task_panels[0 if x_is_left else 1] * (tile if x_is_left else width)
    box = box_shape(extent, halo, (channels_y * phases + channels_x) * itemsize, width * itemsize * 4, 2 * width, TASKS)
    padded = box + halo
    x_pitch, y_pitch = pitches(box), pitches(padded)

    def side(is_x: bool) -> Any:
        strides, number = (x_strides, sizes[0]) if is_x else (y_strides, sizes[1])
        channel = np.arange(number)
        left = is_x == x_is_left
        whole = np.stack([np.zeros_like(extent), extent], axis=1)
        return module.Side(
            width=tile if left else width,
            panels=task_panels[0 if left else 1],
            channel=channel // parts * strides[lead + 1] + channel % parts * strides[-1],
            group=strides[lead],
            step=offsets(dim.result_stride if is_x else dim.split.source_step * dim.source_stride for dim in dims),
            start=np.zeros(1, np.intp) if is_x else start,
            valid=(whole if is_x else valid).ravel(),
            padded=box if is_x else padded,
            pitch=x_pitch if is_x else y_pitch,
            plane=math.prod((box if is_x else padded).tolist()) * (tile if left else width),
        )

    taps, phase, offset, tap_range = _taps(splits, dims, valid, y_pitch, extent)
    width_y = width if x_is_left else tile
    plane_y = math.prod(padded.tolist()) * width_y
    counts = -(-extent // box)
    boxes = math.prod(counts.tolist())
    pieces = groups * math.prod(-(-n // m) for n, m in zip(panels, task_panels, strict=True))
    sums = groups * phase.size * math.prod(panels) * tile * width
    shares = max(1, min(boxes, -(-TASKS // pieces), SUM_BYTES // max(sums * itemsize, 1)))
    kernel = module.WeightAdjoint(
        side(x_is_left),
        side(not x_is_left),
        wide=vectors > 1,
        shift_left=not x_is_left,
        extent=extent,
        box=box,
        counts=counts,
        tap_offset=phase * plane_y + offset * width_y,
        tap_range=tap_range.ravel(),
        shares=shares,
        boxes=boxes,
        places=np.add.outer(np.arange(task_panels[0]) * panels[1] * tile * width, np.arange(tile) * width).ravel(),
        lines=math.prod(box[:-1].tolist()) + 1,
        left_panels=panels[0],
        right_panels=panels[1],
    )
    return WeightAdjoint(
        kernel,
        tasks=pieces * shares,
        work=sums * math.prod(extent.tolist()),
        packed=pieces
        * boxes
        * (math.prod(padded.tolist()) * phases * channels_y + math.prod(box.tolist()) * channels_x),
        shape=(groups, shares, phase.size, *panels, tile, width),
        taps=taps,
        x_is_left=x_is_left,
    )


def _taps(
    splits: Sequence[Split], dims: Sequence[Dim], valid: Index, pitch: Index, extent: Index
) -> tuple[tuple[Index, ...], Index, Index, Index]:
    """For each tap: its index in the kernel, its phase of y, its offset there, and the positions that it meets."""
    tables = []
    for s in splits:
        (runs,) = s.classes
        steps = [(r.phase, r.k + j * s.kernel_step, r.offset + j * s.tap_step) for r in runs for j in range(r.length)]
        tables.append(np.array(steps, np.intp).reshape(-1, 3))
    grid = np.indices([len(table) for table in tables], np.intp).reshape(len(tables), -1)
    phases, taps, shifts = np.stack([table[which] for table, which in zip(tables, grid, strict=True)]).T
    phase = np.zeros(grid.shape[1], np.intp)
    for a, s in enumerate(splits):
        phase = phase * s.source_start.size + phases[:, a]
    met = np.empty((phase.size, len(dims), 2), np.intp)
    offset = np.zeros(phase.size, np.intp)
    for d, dim in enumerate(dims):
        shift = dim.along(shifts)
        offset += shift * pitch[d]
        met[:, d] = np.clip(valid[phase, d] - shift[:, None], 0, extent[d])
    return tuple(taps.T), phase, offset, met
