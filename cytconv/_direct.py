"""Method "direct": plan tiles for a geometry, pack the weights, call the compiled kernels.

Both the forward operator and its adjoint are one *correlation* with unit stride (Shi et al. 2016, arXiv:1609.05158).
Along one axis write ``o + low = q*stride + r`` with ``0 <= r < stride``.  Tap ``k`` reaches the outputs of *phase*
``r = k*dilation mod stride`` only, and reads the input at the fixed *shift* ``t = k*dilation // stride``: ``i = q - t``.

    forward   positions are the q; each output channel has one row of results for each phase, and the store
              interleaves them (pixel shuffle)
    adjoint   positions are the i; each channel of y has one plane for each phase, and the load takes them
              apart (pixel unshuffle)

In a flat copy of a box of the source, padded with zeros, every tap is one constant offset, however many axes there
are.  What is left is a matrix product: rows of results times a sum over channels and taps times positions.

Rows whose taps sit at the same offsets form a *class*: they share one list of segments (see ``kernels/tile.pxi``), so
that no tap is ever filled up with zeros.  `_axis` takes one axis apart, `_Layout` multiplies the axes out into rows,
classes and segments, which fixes the order of the packed weights, and `_Correlation` adds strides and boxes.

The third direction sums the same products over positions instead: see `_WeightAdjoint`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _runtime, _taps
from ._geometry import Axis

__all__ = ["Direct"]

Array = NDArray[Any]
Index = NDArray[np.intp]
Direction = Literal["forward", "adjoint"]

# Numbers of rows that a register tile can have, with the vectors of positions beside them (kernels/tile.pxi), and
# how near to the peak each tile was seen to come.
TILES = {6: (2, 1.0), 4: (3, 1.0), 3: (4, 0.8), 2: (6, 0.7), 1: (8, 0.5)}

K_BLOCK = 320  # products that a tile sums up before it passes its sums on: one panel of weights stays in L1
ROWS = 144  # rows of results in one task: their packed weights for one K_BLOCK stay in L2
SOURCE_BYTES = 256 * 1024  # size of the padded copy of the source that a task works on
RESULT_BYTES = 128 * 1024  # size of the results that a task holds before it stores them
CHANNELS = 96  # of either side in one task of the adjoint in the weights
SUM_BYTES = 16 * 1024 * 1024  # size of the sums that the shares of the positions may take together
TASKS = 16  # split the work at least this fine where it can be


# ---- the method ------------------------------------------------------------------------------------------


class Direct:
    """Method "direct" (see `cytconv._methods.Method`): packs its weights once for each direction and layout."""

    def __init__(self, axes: tuple[Axis, ...], w: Array) -> None:
        self._axes = axes
        self._w = w
        self._packed: dict[_Layout, tuple[Array, bool]] = {}

    def forward(self, x: Array, bias: Array | None, y: Array, workers: int) -> None:
        """``y[o] = bias + sum x[i] * w[k]``."""
        if not self._correlate("forward", x, bias, y, workers):
            _taps.forward(self._axes, x, self._w, y)
            if bias is not None:
                y += bias.reshape(*bias.shape, *(1,) * len(self._axes))

    def adjoint(self, y: Array, x: Array, workers: int) -> None:
        """``x[i] = sum y[o] * conj(w[k])``."""
        if not self._correlate("adjoint", y, None, x, workers):
            _taps.adjoint(self._axes, y, self._w, x)

    @staticmethod
    def weight_adjoint(axes: tuple[Axis, ...], x: Array, y: Array, w: Array, workers: int) -> None:
        """``w[k] = sum conj(x[i]) * y[o]``."""
        module = _runtime.kernels(w.dtype)
        parts = _parts(w.dtype)
        plan = _weight_adjoint(
            module, axes, (*x.shape, parts), _strides(x), (*y.shape, parts), _strides(y), w.itemsize // parts
        )
        workers = _runtime.team(workers, plan.tasks, plan.work)
        scratch = _scratch(plan.kernel.scratch_size * workers, _real(w.dtype))
        sums = _scratch(math.prod(plan.shape), scratch.dtype)
        left, right = (x, y) if plan.x_is_left else (y, x)
        plan.kernel.run(*_flat(left), *_flat(right), sums, scratch, plan.tasks, workers)
        _unpack_weights(plan, sums.reshape(plan.shape), w)

    def _correlate(
        self, direction: Direction, source: Array, bias: Array | None, result: Array, workers: int
    ) -> bool:
        """Fill `result`, unless a weight is infinite or NaN: say so, and leave it to others."""
        module = _runtime.kernels(result.dtype)
        parts = _parts(result.dtype)
        shape, source_strides, result_strides = (*source.shape, parts), _strides(source), _strides(result)
        _, inputs, outputs = self._w.shape[:3]
        if direction == "adjoint":
            inputs, outputs = outputs, inputs
        itemsize = result.itemsize // parts
        plan = _correlation(
            module, direction, self._axes, inputs * parts, outputs * parts, shape, source_strides, result_strides, itemsize
        )
        workers = _runtime.team(workers, plan.tasks, plan.work)
        weights, finite = self._weights(module, plan.layout, workers)
        if finite:
            scratch = _scratch(plan.kernel.scratch_size * workers, _real(result.dtype))
            offsets = np.empty(0, scratch.dtype) if bias is None else _flat(np.ascontiguousarray(bias))[0]
            plan.kernel.run(*_flat(source), weights, offsets, *_flat(result), scratch, plan.tasks, workers)
        return finite

    def _weights(self, module: Any, layout: _Layout, workers: int) -> tuple[Array, bool]:
        """The weights in the order of `layout`, and whether all are finite."""
        if layout not in self._packed:
            w = _real_weights(self._w)
            groups, panels = w.shape[0], layout.panel_class.size
            products = np.cumsum([0, *(c.weights.size for c in layout.classes)])
            packed = _scratch(groups * int(layout.panel_start[-1]), w.dtype)
            finite = module.pack_weights(
                w.reshape(-1),
                groups,
                layout.tile,
                layout.panel_start,
                layout.panel_weights,
                products[layout.panel_class],
                np.concatenate([c.weights for c in layout.classes]),
                packed,
                min(workers, max(panels, 1)),
            )
            self._packed[layout] = packed, finite
        return self._packed[layout]


def _parts(dtype: np.dtype[Any]) -> int:
    return 2 if dtype.kind == "c" else 1


def _real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"f{dtype.itemsize // _parts(dtype)}")


def _strides(a: Array) -> tuple[int, ...]:
    """Strides of `a` as real numbers, those from the real to the imaginary part last; in numbers, not bytes."""
    size = a.itemsize // _parts(a.dtype)
    return (*(stride // size for stride in a.strides), 1)


def _flat(a: Array) -> tuple[Array, int]:
    """The memory that `a` lies in as one line of real numbers, and where on it ``a[0, ..., 0]`` is."""
    real = _real(a.dtype)
    if a.flags.c_contiguous:
        return a.reshape(-1).view(real), 0
    start = sum(-stride * (n - 1) for n, stride in zip(a.shape, a.strides, strict=True) if stride < 0)
    size = sum(abs(stride) * (n - 1) for n, stride in zip(a.shape, a.strides, strict=True)) // a.itemsize + 1
    lowest = a[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in a.strides)]
    line = np.lib.stride_tricks.as_strided(lowest, (size,), (a.itemsize,), writeable=a.flags.writeable)
    return line.view(real), start // real.itemsize


def _real_weights(w: Array) -> Array:
    """Complex weights as the real matrix that multiplies real and imaginary parts; contiguous."""
    if w.dtype.kind != "c":
        return np.ascontiguousarray(w)
    groups, inputs, outputs, *taps = w.shape
    real = np.empty((groups, inputs, 2, outputs, 2, *taps), _real(w.dtype))
    real[:, :, 0, :, 0] = real[:, :, 1, :, 1] = w.real
    real[:, :, 0, :, 1] = w.imag
    np.negative(w.imag, out=real[:, :, 1, :, 0])
    return real.reshape(groups, inputs * 2, outputs * 2, *taps)


def _unpack_weights(plan: WeightAdjoint, sums: Array, w: Array) -> None:
    """Add up the shares, take the panels apart, and put real and imaginary parts together."""
    total = sums[:, 0]
    for share in range(1, sums.shape[1]):
        total = total + sums[:, share]
    groups, taps, left, right, rows, columns = total.shape
    total = total.transpose(0, 2, 4, 3, 5, 1).reshape(groups, left * rows, right * columns, taps)
    if not plan.x_is_left:
        total = total.transpose(0, 2, 1, 3)
    _, inputs, outputs = w.shape[:3]
    if math.prod(w.shape[3:]) > taps:
        w[...] = 0  # some taps meet no sample
    where = (slice(None), slice(None), slice(None), *plan.taps)
    if w.dtype.kind == "c":  # conj(x)*y = (re x*re y + im x*im y) + 1j*(re x*im y - im x*re y)
        p = total[:, : inputs * 2, : outputs * 2].reshape(groups, inputs, 2, outputs, 2, taps)
        w.real[where] = p[:, :, 0, :, 0] + p[:, :, 1, :, 1]
        w.imag[where] = p[:, :, 0, :, 1] - p[:, :, 1, :, 0]
    else:
        w[where] = total[:, :inputs, :outputs]


def _scratch(size: int, dtype: np.dtype[Any]) -> Array:
    """Uninitialised memory that begins on a cache line."""
    memory = np.empty(size * dtype.itemsize + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size * dtype.itemsize].view(dtype)


# ---- one axis ------------------------------------------------------------------------------------------


class _Run(NamedTuple):
    """Taps ``k, k + kernel_step, ...`` that read phase `phase` of the source at ``offset, offset + tap_step, ...``."""

    phase: int
    k: int
    offset: int
    count: int


@dataclass(frozen=True)
class _Split:
    """One axis, taken apart into phases.  Position ``p`` of phase ``f`` is sample ``start[f] + p*step`` of its array."""

    positions: int
    halo: int  # a padded row of the source is this much longer than the row of positions
    source_step: int
    source_start: Index
    source_size: int
    result_step: int
    result_start: Index
    result_size: int
    kernel_step: int
    tap_step: int
    classes: tuple[tuple[_Run, ...], ...]
    class_of: Index  # for each phase of the result, its class ...
    tap_of: Index  # ... and the tap that the class counts from


@lru_cache(maxsize=512)
def _split(axis: Axis, direction: Direction) -> _Split:
    if axis.n == 1:  # with one sample the stride is of no account: let every tap be a phase of its own
        axis = Axis(1, axis.taps, axis.m, axis.taps * axis.dilation, axis.dilation, axis.low)
    n, taps, m, s, d, low = axis.n, axis.taps, axis.m, axis.stride, axis.dilation, axis.low
    common = math.gcd(s, d)
    kernel_step = s // common  # from one tap of a phase to the next,
    shift_step = d // common  # which reads this much earlier
    first, last = axis.reach()
    k = np.flatnonzero(first < last)  # taps that reach the output: of each phase, a contiguous run
    shift, phase = np.divmod(k * d, s)
    low_shift, high_shift = (int(shift.min()), int(shift.max())) if k.size else (0, 0)
    halo = high_shift - low_shift

    # Of each phase that has taps: its first tap, the shift of that, the number of taps.
    phases, start, count = np.unique(phase, return_index=True, return_counts=True)

    if direction == "adjoint":
        runs = tuple(
            _Run(f, int(k[start[f]]), int(shift[start[f]]) - low_shift, int(count[f])) for f in range(phases.size)
        )
        return _Split(
            positions=n,
            halo=halo,
            source_step=s,
            source_start=s * low_shift + phases - low,
            source_size=m,
            result_step=1,
            result_start=np.zeros(1, np.intp),
            result_size=n,
            kernel_step=kernel_step,
            tap_step=shift_step,
            classes=(runs,),
            class_of=np.zeros(1, np.intp),
            tap_of=np.zeros(1, np.intp),
        )

    q = low // s
    present = np.sort((low + np.arange(min(s, m))) % s)  # the phases that have outputs in the window
    classes: dict[tuple[_Run, ...], int] = {}
    class_of, tap_of = np.zeros(present.size, np.intp), np.zeros(present.size, np.intp)
    where = np.searchsorted(phases, present)
    for f, r in enumerate(present):
        key: tuple[_Run, ...] = ()  # no taps: nothing but the bias
        if where[f] < phases.size and phases[where[f]] == r:
            begin = start[where[f]]
            key = (_Run(0, 0, high_shift - int(shift[begin]), int(count[where[f]])),)
            tap_of[f] = k[begin]
        class_of[f] = classes.setdefault(key, len(classes))
    return _Split(
        positions=(low + m - 1) // s + 1 - q,
        halo=halo,
        source_step=1,
        source_start=np.array([q - high_shift]),
        source_size=n,
        result_step=s,
        result_start=q * s + present - low,
        result_size=m,
        kernel_step=kernel_step,
        tap_step=-shift_step,
        classes=tuple(classes),
        class_of=class_of,
        tap_of=tap_of,
    )


def _inside(start: Index, step: int, size: int, positions: int) -> tuple[Index, Index]:
    """First and past-the-last position whose sample ``start + p*step`` lies in ``[0, size)``."""
    low = np.clip(-(start // step), 0, positions)
    return low, np.clip(-((start - size) // step), low, positions)


# ---- all axes: rows, classes, segments -----------------------------------------------------------------


@dataclass(frozen=True)
class _Class:
    """The sum behind a class of rows: one entry for each segment, in the order of the packed weights."""

    channel: Index  # first channel
    phase: Index  # phase of the source, counted over all axes
    offset: Index  # offsets along the axes, one column for each
    length: Index
    blocks: Index  # segment at which each K_BLOCK begins, and the number of segments
    weights: Index  # where in w each of the products finds its weight, counted from the row's own


@dataclass(frozen=True, eq=False)
class _Layout:
    """Rows of results and the order in which their weights are packed; knows nothing of strides or batches."""

    splits: tuple[_Split, ...]
    tile: int  # rows in a register tile
    inner: int  # what a segment runs along: an axis, or -1 for channels
    classes: tuple[_Class, ...]
    row_channel: Index
    row_phase: Index  # one column for each axis
    groups: Index  # row at which each group of rows begins, and the number of rows
    panels: Index  # for each group and class, the first panel; and the number of panels
    panel_class: Index
    panel_rows: Index  # rows of each panel, counted within its group; the last row is a spare one
    panel_weights: Index  # where in w the rows of each panel begin
    panel_start: Index  # where each panel begins in the packed weights, and their size


@lru_cache(maxsize=256)
def _layout(
    direction: Direction, axes: tuple[Axis, ...], sources: int, results: int, channels_inside: bool
) -> _Layout:
    """Multiply the axes out, for `sources` channels summed over and `results` channels of results."""
    splits = tuple(_split(axis, direction) for axis in axes)
    ndim = len(axes)
    kernel = [axis.taps for axis in axes]
    strides = np.array([math.prod(kernel[a + 1 :]) for a in range(ndim)], np.intp)
    # w is (C_in, C_out, *kernel): its channel axes swap roles between the directions.
    size = math.prod(kernel)
    source_stride, result_stride = (results * size, size) if direction == "forward" else (size, sources * size)

    # Rows: every channel of results in every phase, in the order in which the result lies in memory.
    shape = [split.result_start.size for split in splits]
    shape = [*shape, results] if channels_inside else [results, *shape]
    grid = np.indices(shape, np.intp).reshape(ndim + 1, -1)
    row_channel, row_phase = (grid[-1], grid[:-1].T) if channels_inside else (grid[0], grid[1:].T)
    rows = row_channel.size
    row_class = np.zeros(rows, np.intp)
    row_weights = row_channel * result_stride
    for a, split in enumerate(splits):
        row_class = row_class * len(split.classes) + split.class_of[row_phase[:, a]]
        row_weights = row_weights + split.tap_of[row_phase[:, a]] * strides[a]

    # Segments run along whatever is longest: channels, or the taps of one axis.
    longest = [max((run.count for c in split.classes for run in c), default=0) for split in splits]
    inner = int(np.argmax(longest))
    inner = -1 if sources >= longest[inner] else inner
    used, row_class = np.unique(row_class, return_inverse=True)
    classes = []
    for code in used:
        choice = np.unravel_index(code, [len(split.classes) for split in splits])
        runs = [split.classes[c] for split, c in zip(splits, choice, strict=True)]
        classes.append(_class(splits, runs, inner, sources, strides, source_stride))

    # Tiles: the height that wastes least, weighed by the work of each class.
    work = np.array([c.weights.size for c in classes]) + 1
    count = np.bincount(row_class, minlength=len(classes))
    tile = min(TILES, key=lambda t: float((work * -(-count // t) * t).sum()) / TILES[t][1])

    # Groups of rows, of equal size and whole tiles.
    phases = rows // results
    unit = tile * (phases if phases * tile <= ROWS else 1)
    parts = 1 if rows <= ROWS * 4 // 3 else -(-rows // ROWS)
    step = rows if parts == 1 else -(-rows // (parts * unit)) * unit
    groups = np.append(np.arange(0, rows, step), rows)

    panels, panel_class, panel_rows, panel_weights = [0], [], [], []
    for begin, end in zip(groups[:-1], groups[1:], strict=True):
        for c in range(len(classes)):
            members = begin + np.flatnonzero(row_class[begin:end] == c)
            number = -(-members.size // tile)
            padded = np.full(number * tile, end)
            padded[: members.size] = members
            panel_rows.append(padded - begin)
            panel_weights.append(row_weights[np.minimum(padded, members[-1] if members.size else 0)])
            panel_class += [c] * number
            panels.append(panels[-1] + number)
    sizes = np.array([classes[c].weights.size * tile for c in panel_class], np.intp)
    return _Layout(
        splits=splits,
        tile=tile,
        inner=inner,
        classes=tuple(classes),
        row_channel=row_channel,
        row_phase=row_phase,
        groups=groups,
        panels=np.array(panels),
        panel_class=np.array(panel_class, np.intp),
        panel_rows=np.concatenate(panel_rows),
        panel_weights=np.concatenate(panel_weights),
        panel_start=np.append(0, np.cumsum(sizes)),
    )


def _class(
    splits: tuple[_Split, ...],
    runs: Sequence[tuple[_Run, ...]],
    inner: int,
    sources: int,
    strides: Index,
    source_stride: int,
) -> _Class:
    """List the segments of the rows that have `runs` of taps along the axes."""
    ndim = len(splits)
    # Along each axis: phase, tap, offset and length of every step of the outer loops.
    steps = []
    for a, (split, axis_runs) in enumerate(zip(splits, runs, strict=True)):
        table = [
            (run.phase, run.k + j * split.kernel_step, run.offset + j * split.tap_step, run.count if a == inner else 1)
            for run in axis_runs
            for j in range(1 if a == inner else run.count)
        ]
        steps.append(np.array(table, np.intp).reshape(-1, 4))
    grid = np.indices([len(t) for t in steps], np.intp).reshape(ndim, -1)
    phase = np.zeros(grid.shape[1], np.intp)
    tap = np.zeros(grid.shape[1], np.intp)
    length = np.ones(grid.shape[1], np.intp)
    offset = np.zeros((grid.shape[1], ndim), np.intp)
    for a, split in enumerate(splits):
        columns = steps[a][grid[a]]
        phase = phase * max(split.source_start.size, 1) + columns[:, 0]
        tap = tap + columns[:, 1] * strides[a]
        offset[:, a] = columns[:, 2]
        length = length * columns[:, 3]

    # Channels: one by one around runs of taps, or in blocks that the segments run along.
    block = 1 if inner >= 0 else min(sources, max(16, K_BLOCK // max(tap.size, 1)))
    first = np.arange(0, sources, block, dtype=np.intp)
    number = tap.size
    channel = np.repeat(first, number)
    phase, tap, offset = np.tile(phase, first.size), np.tile(tap, first.size), np.tile(offset, (first.size, 1))
    length = np.tile(length, first.size) if inner >= 0 else np.minimum(block, sources - channel)
    step = source_stride if inner < 0 else splits[inner].kernel_step * int(strides[inner])
    begin = np.append(0, np.cumsum(length))
    weights = np.repeat(tap + channel * source_stride - begin[:-1] * step, length) + np.arange(begin[-1]) * step

    # Blocks: as many whole segments as fit.
    blocks = [0]
    for s in range(channel.size):
        if begin[s + 1] - begin[blocks[-1]] > K_BLOCK and s > blocks[-1]:
            blocks.append(s)
    return _Class(channel, phase, offset, length, np.array([*blocks, channel.size], np.intp), weights)


# ---- strides and boxes -----------------------------------------------------------------------------------


class _Dim(NamedTuple):
    """One axis of positions: an axis of the kernel, or a batch axis, which is an axis with one tap."""

    split: _Split
    axis: int  # its number among the axes of the kernel; -1 for batch
    source_stride: int
    result_stride: int


@dataclass(frozen=True, eq=False)
class Correlation:
    """The tables of one call, in the terms of ``kernels/correlate.pxi``; strides and offsets count elements."""

    layout: _Layout
    kernel: Any  # the compiled counterpart, which holds the same tables
    tasks: int
    work: int  # multiplications, padding included


@lru_cache(maxsize=256)
def _correlation(
    module: Any,
    direction: Direction,
    axes: tuple[Axis, ...],
    sources: int,
    results: int,
    source_shape: tuple[int, ...],
    source_strides: tuple[int, ...],
    result_strides: tuple[int, ...],
    itemsize: int,
) -> Correlation:
    """Plan for split arrays ``(*batch, groups, channels, *spatial, parts)`` of these shapes and strides.

    The last axis holds the real and imaginary parts; it and the channels together are `sources` and `results` real
    channels.
    """
    ndim = len(axes)
    lanes = module.lanes
    lead = len(source_shape) - ndim - 3
    groups, parts = source_shape[lead], source_shape[-1]
    source_channel, result_channel = source_strides[lead + 1], result_strides[lead + 1]
    spatial = range(lead + 2, lead + 2 + ndim)

    nearest = min(abs(result_strides[a]) for a in spatial)
    layout = _layout(direction, axes, sources, results, 0 < result_channel < nearest)
    tile, (vectors, _) = layout.tile, TILES[layout.tile]

    # The axes of positions, outermost first.  Those that lie nearest in memory come last, whichever they are.
    dims = _batch_dims(source_shape[:lead], source_strides[:lead], result_strides[:lead])
    dims += [_Dim(layout.splits[a], a, source_strides[p], result_strides[p]) for a, p in enumerate(spatial)]
    dims.sort(key=lambda dim: -abs(dim.source_stride) - abs(dim.result_stride))
    keep = [dim for dim in dims if dim.axis >= 0 or dim.split.positions > 1]
    dims = keep or dims[-1:]
    extent = np.array([dim.split.positions for dim in dims], np.intp)
    halo = np.array([dim.split.halo for dim in dims], np.intp)

    # Phases of the source, counted over all axes of the kernel, and of the result, row by row.
    phase_shape = [split.source_start.size for split in layout.splits]
    phase_grid = np.indices(phase_shape, np.intp).reshape(ndim, -1)
    phases = phase_grid.shape[1]
    planes = sources * phases
    phase_source = np.zeros(phases, np.intp)
    phase_range = np.empty((phases, len(dims), 2), np.intp)
    rows = layout.row_channel.size
    row_result = layout.row_channel // parts * result_channel + layout.row_channel % parts * result_strides[-1]
    row_range = np.empty((rows, len(dims), 2), np.intp)
    for d, dim in enumerate(dims):
        s = dim.split
        low, high = _inside(s.source_start, s.source_step, s.source_size, s.positions + s.halo)
        which = phase_grid[dim.axis] if dim.axis >= 0 else np.zeros(phases, np.intp)
        phase_source += s.source_start[which] * dim.source_stride
        phase_range[:, d, 0], phase_range[:, d, 1] = low[which], high[which]
        low, high = _inside(s.result_start, s.result_step, s.result_size, s.positions)
        which = layout.row_phase[:, dim.axis] if dim.axis >= 0 else np.zeros(rows, np.intp)
        row_result = row_result + s.result_start[which] * dim.result_stride
        row_range[:, d, 0], row_range[:, d, 1] = low[which], high[which]

    widest = int(np.diff(layout.groups).max())
    splits = groups * (layout.groups.size - 1)
    box = _box(extent, halo, planes * itemsize, widest * itemsize, lanes * vectors, splits)
    padded = box + halo
    pitch = np.append(np.cumprod(padded[:0:-1])[::-1], 1).astype(np.intp)
    # Round up so that a tile may read past the end, and keep planes off each other's cache sets.
    plane = _pitch(int(padded[0] * pitch[0]) + lanes * vectors, itemsize)

    # The positions from axis `flat` on are computed as one run, junk between rows and all.
    def run(a: int, size: Index) -> int:
        return int(((size[a:] - 1) * pitch[a:]).sum()) + 1

    flat = min(range(len(dims)), key=lambda a: math.prod(box[:a].tolist()) * -(-run(a, box) // lanes))
    run_pitch = -(-run(flat, box) // (lanes * vectors)) * lanes * vectors
    row_pitch = _pitch(math.prod(box[:flat].tolist()) * run_pitch, itemsize)

    # Blocks of rows that lie next to each other in the result: same place along all axes but the last, one after
    # the other along that.
    same = (np.diff(row_range[:, :-1].reshape(rows, -1), axis=0) == 0).all(axis=1) & (np.diff(row_result) == 1)
    same[layout.groups[1:-1] - 1] = False
    blocks = np.append(np.flatnonzero(np.append(True, ~same)), rows)

    segments = [
        np.stack(
            [
                np.append(0, np.cumsum(c.length))[:-1] * tile,
                (c.channel * phases + c.phase) * plane
                + sum((c.offset[:, dim.axis] * pitch[d] for d, dim in enumerate(dims) if dim.axis >= 0), 0),
                c.length,
            ],
            axis=1,
        )
        for c in layout.classes
    ]
    if layout.inner < 0:
        step = phases * plane
    else:
        d = next(d for d, dim in enumerate(dims) if dim.axis == layout.inner)
        step = layout.splits[layout.inner].tap_step * int(pitch[d])

    counts = -(-extent // box)
    tasks = groups * math.prod(counts.tolist()) * (layout.groups.size - 1)
    class_segment = np.cumsum([0, *(len(s) for s in segments)])
    class_block = np.cumsum([0, *(c.blocks.size - 1 for c in layout.classes)])
    channel = np.arange(sources)
    kernel = module.Correlation(
        tile=tile,
        extent=extent,
        box=box,
        counts=counts,
        padded=padded,
        pitch=pitch,
        flat=flat,
        source_step=np.array([dim.split.source_step * dim.source_stride for dim in dims]),
        source_channel=channel // parts * source_channel + channel % parts * source_strides[-1],
        source_group=source_strides[lead],
        phase_source=phase_source,
        phase_range=phase_range.ravel(),
        plane=plane,
        segments=np.concatenate(segments).ravel(),
        segment_step=step,
        block_segment=np.concatenate(
            [c.blocks[:-1] + begin for c, begin in zip(layout.classes, class_segment, strict=False)]
            + [class_segment[-1:]]
        ),
        class_block=class_block,
        group_panel=layout.panels,
        panel_rows=layout.panel_rows * row_pitch,
        panel_start=layout.panel_start,
        run_pitch=run_pitch,
        row_pitch=row_pitch,
        result_step=np.array([dim.split.result_step * dim.result_stride for dim in dims]),
        result_group=result_strides[lead],
        results=results,
        group_row=layout.groups,
        widest=widest,
        group_rows_block=np.searchsorted(blocks, layout.groups),
        rows_block=blocks,
        row_result=row_result,
        row_range=row_range.ravel(),
        row_channel=layout.row_channel,
        source_size=planes * plane,
        result_size=(widest + 1) * row_pitch,
    )
    work = groups * math.prod(extent.tolist()) * int(layout.panel_start[-1])
    return Correlation(layout, kernel, tasks, work)


def _batch_dims(shape: Sequence[int], source: Sequence[int], result: Sequence[int]) -> list[_Dim]:
    """The batch axes, with neighbours merged where both arrays step through them evenly."""
    merged: list[tuple[int, int, int]] = []
    for n, s, r in zip(shape, source, result, strict=True):
        if n == 1:
            continue
        if merged and merged[-1][1] == n * s and merged[-1][2] == n * r:
            merged[-1] = (merged[-1][0] * n, s, r)
        else:
            merged.append((n, s, r))
    return [_Dim(_split(Axis(n, 1, n, 1, 1, 0), "adjoint"), -1, s, r) for n, s, r in merged or [(1, 0, 0)]]


def _box(extent: Index, halo: Index, source_bytes: int, result_bytes: int, tile: int, splits: int) -> Index:
    """How many positions along each axis make a task: as many as the caches hold, in a shape with little halo."""
    budget = min(SOURCE_BYTES // max(source_bytes, 1), RESULT_BYTES // max(result_bytes, 1))
    total = math.prod(extent.tolist())
    budget = min(budget, -(-total * splits // TASKS))
    budget = max(budget, 2 * tile)
    box = np.minimum(extent, np.append(np.ones(extent.size - 1, np.intp), 2 * tile))
    while (box < extent).any():
        # Grow where the halo weighs most; the innermost axis if none does.
        weight = np.where(box < extent, (halo + 1e-9 * np.arange(1, extent.size + 1)) / box, -1.0)
        a = int(weight.argmax())
        grown = box.copy()
        grown[a] = min(2 * box[a], extent[a])
        if math.prod(grown.tolist()) > budget:
            grown[a] = min(extent[a], budget // max(math.prod(np.delete(box, a).tolist()), 1))
            box = grown if grown[a] > box[a] else box
            break
        box = grown
    return -(-extent // -(-extent // box))


def _pitch(size: int, itemsize: int) -> int:
    """Round up to an odd number of cache lines, so that a column through many rows spreads over all cache sets."""
    line = 64 // itemsize
    return (-(-size // line) | 1) * line


# ---- the weights -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class WeightAdjoint:
    """The tables of the adjoint in the weights, in the terms of ``kernels/weights.pxi``."""

    kernel: Any
    tasks: int
    work: int
    shape: tuple[int, ...]  # of the sums: group, share, tap, panels and rows of either side
    taps: tuple[Index, ...]  # index of each of the taps along the axes of the kernel
    x_is_left: bool


@lru_cache(maxsize=256)
def _weight_adjoint(
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
    splits = [_split(axis, "adjoint") for axis in axes]

    # The side whose channels fill whole vectors goes right, the other one left, in tiles of the best height.
    def cost(left: int, right: int, tile: int) -> float:
        width = TILES[tile][0] * module.lanes
        return -(-left // tile) * tile * -(-right // width) * width / TILES[tile][1]

    tile, x_is_left = min(
        ((tile, x_is_left) for tile in TILES for x_is_left in (True, False)),
        key=lambda choice: cost(*(sizes if choice[1] else sizes[::-1]), choice[0]),
    )
    width = TILES[tile][0] * module.lanes

    dims = _batch_dims(x_shape[:lead], y_strides[:lead], x_strides[:lead])
    dims += [_Dim(splits[a], a, y_strides[p], x_strides[p]) for a, p in enumerate(spatial)]
    dims.sort(key=lambda dim: -abs(dim.source_stride) - abs(dim.result_stride))
    keep = [dim for dim in dims if dim.axis >= 0 or dim.split.positions > 1]
    dims = keep or dims[-1:]
    extent = np.array([dim.split.positions for dim in dims], np.intp)
    halo = np.array([dim.split.halo for dim in dims], np.intp)

    # Phases of y and taps, over all axes of the kernel; both sides' channels in panels.
    phase_grid = np.indices([split.source_start.size for split in splits], np.intp).reshape(ndim, -1)
    phases = phase_grid.shape[1]
    panels = tuple(-(-n // w) for n, w in zip(sizes if x_is_left else sizes[::-1], (tile, width), strict=True))
    task_panels = tuple(min(n, -(-CHANNELS // w)) for n, w in zip(panels, (tile, width), strict=True))
    channels_y = task_panels[1 if x_is_left else 0] * (width if x_is_left else tile)
    channels_x = task_panels[0 if x_is_left else 1] * (tile if x_is_left else width)
    box = _box(
        extent, halo, (channels_y * phases + channels_x) * itemsize, width * itemsize * 4, width, TASKS
    )
    padded = box + halo

    def pitches(size: Index) -> Index:
        return np.append(np.cumprod(size[:0:-1])[::-1], 1).astype(np.intp)

    x_pitch, y_pitch = pitches(box), pitches(padded)
    start = np.zeros(phases, np.intp)
    valid = np.empty((phases, len(dims), 2), np.intp)
    for d, dim in enumerate(dims):
        s = dim.split
        low, high = _inside(s.source_start, s.source_step, s.source_size, s.positions + s.halo)
        which = phase_grid[dim.axis] if dim.axis >= 0 else np.zeros(phases, np.intp)
        start += s.source_start[which] * dim.source_stride
        valid[:, d, 0], valid[:, d, 1] = low[which], high[which]

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
            step=np.array([dim.result_stride if is_x else dim.split.source_step * dim.source_stride for dim in dims]),
            start=np.zeros(1, np.intp) if is_x else start,
            valid=(whole if is_x else valid).ravel(),
            padded=box if is_x else padded,
            pitch=x_pitch if is_x else y_pitch,
            plane=math.prod((box if is_x else padded).tolist()) * (tile if left else width),
        )

    # One row for each tap: its phase, its offset and, along every axis, the positions that it meets.
    steps = [
        [(run.phase, run.k + j * s.kernel_step, run.offset + j * s.tap_step) for run in s.classes[0] for j in range(run.count)]
        for s in splits
    ]
    tables = [np.array(table, np.intp).reshape(-1, 3).T for table in steps]
    grid = np.indices([table.shape[1] for table in tables], np.intp).reshape(ndim, -1)
    taps = grid.shape[1]
    phase, offset = np.zeros(taps, np.intp), np.zeros(taps, np.intp)
    for a, split in enumerate(splits):
        phase = phase * split.source_start.size + tables[a][0][grid[a]]
    tap_range = np.empty((taps, len(dims), 2), np.intp)
    for d, dim in enumerate(dims):
        shift = tables[dim.axis][2][grid[dim.axis]] if dim.axis >= 0 else np.zeros(taps, np.intp)
        offset += shift * y_pitch[d]
        tap_range[:, d] = np.clip(valid[phase, d] - shift[:, None], 0, extent[d])
    width_y = width if x_is_left else tile
    plane_y = math.prod(padded.tolist()) * width_y

    counts = -(-extent // box)
    boxes = math.prod(counts.tolist())
    pieces = groups * math.prod(-(-n // m) for n, m in zip(panels, task_panels, strict=True))
    sums = groups * taps * math.prod(panels) * tile * width
    shares = max(1, min(boxes, -(-TASKS // pieces), SUM_BYTES // max(sums * itemsize, 1)))
    kernel = module.WeightAdjoint(
        side(x_is_left),
        side(not x_is_left),
        shift_left=not x_is_left,
        extent=extent,
        box=box,
        counts=counts,
        tap_offset=phase * plane_y + offset * width_y,
        tap_range=tap_range.ravel(),
        shares=shares,
        boxes=boxes,
        lines=math.prod(box[:-1].tolist()) + 1,
        left_panels=panels[0],
        right_panels=panels[1],
    )
    return WeightAdjoint(
        kernel,
        tasks=pieces * shares,
        work=sums * math.prod(extent.tolist()),
        shape=(groups, shares, taps, *panels, tile, width),
        taps=tuple(table[1][index] for table, index in zip(tables, grid, strict=True)),
        x_is_left=x_is_left,
    )
