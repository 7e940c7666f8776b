"""Plans of the adjoint in the weights: the products of the correlation, summed over positions instead of channels."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ._boxes import (
    BOX,
    SOURCE_BYTES,
    Dim,
    Sizes,
    all_phases,
    arranged,
    dims_of,
    grown,
    line_pitch,
    of_axes,
    pitches,
    planes_of,
    reach,
    result_places,
    round_up,
    sizes,
    source_places,
    table,
)
from ._machine import PER_CYCLE, WIDE
from ._phases import Index, Matrix, Pattern, Split, is_mixed, split_axis, spread
from ._problem import Problem
from ._runtime import workers_for
from ._ways import LITTLE, MIXED, MIXED_GAIN, MIXED_LEAST, WASTE, Means, pays_spread
from ._winograd import kron, mixing_cost, mixtures, plane_terms, read_places, result_terms, transposed
from .kernels.tables import best_box, run_times

__all__ = ["SHARES", "WeightAdjoint", "weight_adjoint"]

# Rough speeds of the register tiles relative to each other, by their number of rows (kernels/weights.pxi).
TILES = {6: 1.1, 3: 1.0, 2: 0.9, 1: 0.6}

STRIP_BYTES = 28 * 1024  # of both arrays, that a tile reads: in L1
SUM_BYTES = 16 * 1024 * 1024  # size of the sums that the shares of the positions may take together
SHARED_BYTES = 8 * 1024 * 1024  # size of the planes of x, that tasks may share
PLANES = 128  # of y in one task, at most where a channel has no more than these,
CHANNELS = 1024  # and planes of x
MIXED_PLANES = 1024  # of y, where they are sums
ADDING = 8  # vectors that are multiplied in the time that it takes to add up the lanes of a sum, in a box
BEGIN = 1  # vectors that are multiplied in the time that it takes to begin with a line
REDUCE = 100  # multiplications that take as long as to add up the lanes of a sum, of some 500 positions,
COMBINE = 200 * WIDE  # or to make weights of such sums where planes are sums, too
SHARES = 16  # of the positions, or less if there are several blocks of channels
FEW_TAPS = 64  # of a kernel, whose own order was seen to be faster; not so with 961 and 1024
FEW_TASKS = 4  # which split the channels of x, though each of them packs y anew,
PACKING = 6  # if it multiplies for so many cycles for each number, which take half as many (`NUMBER` in tables.pyx)


@dataclass(frozen=True, eq=False)
class WeightAdjoint:
    """A plan: the compiled kernel, which holds the tables, and what callers ask of it."""

    kernel: Any
    tasks: int
    work: int  # multiplications, padding included
    memory: int  # numbers, of scratch and sums


@lru_cache(maxsize=64)
def weight_adjoint(problem: Problem, means: Means) -> WeightAdjoint | None:
    """Plan the adjoint in the weights, which has the products of the data adjoint: that one is the `problem`.

    So its source is y, and its positions are those of x.  There is no plan if it would copy far more samples than it
    saves time.
    """
    splits = _cheapest(problem, means)
    products = _products(tuple(split.pattern for split in splits), problem.kernel_size)
    tile = _tile(problem)
    y_block = min(problem.sources, max(1, (MIXED_PLANES if products.mixed else PLANES) // products.y_planes))
    boxes = _choose_boxes(problem, products, tile, y_block, dims_of(splits, problem))
    work = problem.groups * problem.results * problem.sources * products.row.size * math.prod(boxes.extent)
    cut = _cut(problem, products, tile, y_block, boxes, work)
    if cut.packed > WASTE * work + LITTLE:
        return None
    kernel = problem.module.WeightAdjoint(
        parts=problem.parts,
        groups=problem.groups,
        taps=math.prod(problem.kernel_size),
        **_packs(problem, splits, products, boxes, cut),
        **_multiplies(problem, products, tile, boxes, cut),
    )
    return WeightAdjoint(
        kernel,
        tasks=cut.pieces * cut.shares,
        work=work,
        memory=kernel.scratch_size + cut.sums * cut.shares + (cut.x_size if cut.shared else 0),
    )


class _Tile(NamedTuple):
    """A register tile, whose rows are channels of x; its columns are taps of channels of y."""

    rows: int
    columns: int


def _tile(problem: Problem) -> _Tile:
    module, inputs = problem.module, problem.results
    tiles = [t for t in TILES if t < 6 or module.vector_bytes == 64]
    rows = min(tiles, key=lambda t: -(-inputs // t) * t / TILES[t])
    return _Tile(rows, module.dot_columns[rows])


class _Cut(NamedTuple):
    """The work cut into tasks: shares of the positions, whose sums take memory, and blocks of channels of each."""

    sums: int  # of a share, numbers of all groups
    shares: int
    x_block: int  # channels of x in a task,
    y_block: int  # and of y
    pieces: int  # pairs of blocks, of all groups
    x_size: int  # numbers of all planes of x, in all boxes,
    shared: bool  # and whether tasks share them
    packed: int  # samples copied, padding included, by as few tasks as there may be


def _cut(problem: Problem, products: _Products, tile: _Tile, y_block: int, boxes: _Boxes, work: int) -> _Cut:
    groups, inputs, outputs, itemsize = problem.groups, problem.results, problem.sources, problem.itemsize
    sums = groups * inputs * outputs * products.sums
    outer = groups * -(-outputs // y_block)
    most_shares = min(boxes.number, SUM_BYTES // max(sums * itemsize, 1))
    shares = max(1, min(most_shares, -(-SHARES // outer)))
    x_size = 0 if boxes.in_place else groups * boxes.number * inputs * products.x_planes * boxes.x_plane
    shared = outputs > y_block and 0 < x_size * itemsize <= SHARED_BYTES

    def block(parts: int) -> int:
        return round_up(-(-inputs // parts), tile.rows)

    # Where there are few shares, there are several blocks of x.
    parts = max(-(-inputs // max(1, CHANNELS // products.x_planes)), -(-FEW_TASKS // (outer * shares)))
    pieces = outer * -(-inputs // block(parts))
    packed = pieces * boxes.number * math.prod(boxes.padded) * products.y_planes * y_block
    if not boxes.in_place:
        packed += x_size if shared else pieces * boxes.number * boxes.x_plane * products.x_planes * block(parts)
    # More CPUs get more of them, which changes no sum, if each has more to multiply than to pack.
    copies = products.y_planes * math.prod(boxes.padded) / math.prod(boxes.box)
    enough = PACKING * problem.module.lanes * PER_CYCLE * copies / max(products.row.size, 1)
    more = min(-(-workers_for(work) // (outer * shares)), int(inputs // max(enough, 1)))
    x_block = block(max(parts, more))
    return _Cut(sums, shares, x_block, y_block, outer * -(-inputs // x_block), x_size, shared, packed)


def _packs(problem: Problem, splits: list[Split], products: _Products, boxes: _Boxes, cut: _Cut) -> dict[str, Any]:
    """Tables of how boxes of both arrays become planes."""
    dims, x_plane, y_plane = boxes.dims, boxes.x_plane, boxes.y_plane
    x_phase, y_phase = (problem.results if cut.shared else cut.x_block) * x_plane, cut.y_block * y_plane
    x_places = result_places(dims, all_phases(tuple(split.result_start.size for split in splits)))
    y_places = source_places(dims, splits)
    x_sums = y_sums = None
    if products.mixed:
        patterns = products.patterns
        x_terms, x_read = transposed(result_terms(patterns), products.x_planes), np.arange(len(x_places[0])) * x_plane
        x_sums = problem.module.Sums(*x_terms, x_read, x_plane, x_phase)
        y_read = read_places(splits, y_plane, of_axes(dims, boxes.y_pitch, len(splits)))
        y_sums = problem.module.Sums(*plane_terms(patterns), y_read, y_plane, y_phase)
    mixed = products.mixed  # then a channel at a time
    return {
        "x": planes_of(problem, 1, dims, x_places, boxes.x_pitch, x_plane, x_plane if mixed else x_phase),
        "y": planes_of(problem, 0, dims, y_places, boxes.y_pitch, y_plane, y_plane if mixed else y_phase),
        "x_sums": x_sums,
        "y_sums": y_sums,
        "box": table(boxes.box),
        "counts": table(boxes.counts),
        "boxes": boxes.number,
        "x_padded": table(boxes.x_padded),
        "y_padded": table(boxes.padded),
        "x_block": cut.x_block,
        "y_block": cut.y_block,
        "x_planes": products.x_planes,
        "y_planes": products.y_planes,
        "x_plane": x_plane,
        "y_plane": y_plane,
        "x_phase": x_phase,
        "shared": cut.shared,
        "x_in_place": boxes.in_place,
    }


def _multiplies(problem: Problem, products: _Products, tile: _Tile, boxes: _Boxes, cut: _Cut) -> dict[str, Any]:
    """Tables of which planes are multiplied, and where the sums go."""
    inputs, outputs, lanes = problem.results, problem.sources, problem.module.lanes
    w_sums = None
    channel_step, tap_step, row_step = products.sums, 1, outputs * products.sums
    if products.mixed:
        # Sums of taps become taps line by line, each line having a number for each channel of y.
        channel_step, tap_step, row_step = 1, inputs * outputs, outputs
        size = problem.kernel_size
        terms = transposed(kron(list(zip(products.kernels, size, strict=True))), math.prod(size))
        places = np.arange(products.sums) * tap_step
        w_sums = problem.module.Sums(*terms, places, outputs, round_up(outputs, lanes))
    channel = np.arange(cut.y_block)[:, None]
    offset = products.offset @ table(of_axes(boxes.dims, boxes.y_pitch, len(problem.axes)))
    begins = channel * boxes.y_plane + products.phase * (cut.y_block * boxes.y_plane) + offset
    places = channel * channel_step + products.tap * tap_step
    columns, column_places, consecutive = _columns(products.class_tap, begins, places, tile.columns)
    outer = slice(boxes.flat)
    return {
        "w_sums": w_sums,
        "rows": tile.rows,
        "sums": products.sums,
        "few": products.row.size < products.sums or not products.row.size,
        "runs": _runs(boxes.box[outer], boxes.x_pitch[outer], boxes.y_pitch[outer], -(-boxes.run // lanes)),
        "columns": np.concatenate(columns),
        "places": np.concatenate(column_places),
        "class_taps": np.diff(products.class_tap),
        "class_column": np.cumsum([0, *map(len, columns)]),
        "class_consecutive": consecutive,
        "row_step": row_step,
        "channel_step": channel_step,
        "shares": cut.shares,
    }


class _Boxes(NamedTuple):
    """Boxes of positions, and how they lie in the planes of both arrays."""

    dims: list[Dim]
    extent: Sizes  # of all positions,
    box: Sizes  # of those of a box at most,
    counts: Sizes  # and how many boxes there are along each axis
    flat: int  # the axis from which on positions are one run in both, junk between rows and all: there x is zero
    in_place: bool  # whether x is read where it lies
    run: int  # positions of a run
    x_padded: Sizes  # what is packed for a plane of x,
    x_pitch: Sizes  # how positions lie in it, or in the array if it is read there,
    x_plane: int  # and from one channel to the next
    padded: Sizes  # the same of y
    y_pitch: Sizes
    y_plane: int

    @property
    def number(self) -> int:
        return math.prod(self.counts)


def _choose_boxes(problem: Problem, products: _Products, tile: _Tile, y_block: int, dims: list[Dim]) -> _Boxes:
    """The boxes that take least time, with so many channels of y in a task."""
    inputs, outputs, lanes, itemsize = problem.results, problem.sources, problem.module.lanes, problem.itemsize
    rows, columns = tile
    # So many positions that the planes of y that a plane of x meets stay in L2, and in L1 the rows of a tile; and where
    # these are few, the columns that they meet, which were just packed.
    read_at_once = rows + (1 if rows == 6 else min(columns, y_block * products.y_planes))
    most = min(
        SOURCE_BYTES // (y_block * -(-products.y_planes // products.x_planes) * itemsize),
        STRIP_BYTES // (read_at_once * itemsize),
        math.prod(dim.split.positions for dim in dims),
    )
    most = max(most, 4 * lanes)
    cycles = inputs * outputs * products.row.size / PER_CYCLE
    planes = outputs * products.y_planes + inputs * products.x_planes
    blocks = problem.groups * -(-outputs // y_block)
    blocks *= FEW_TASKS if inputs * products.x_planes > 2 * y_block * products.y_planes else 1
    # Two shares at least, if what is packed is as much on either side and the sums of both may take memory; not as many
    # as there are CPUs, on which the bits of the result would depend.
    sums = problem.groups * inputs * outputs * products.sums
    workers = 2 if 2 * sums * itemsize <= SUM_BYTES else 1

    def vectors_of(box: Sizes, halo: Sizes) -> list[float]:
        return run_times(box, halo, lanes, [1.0] * len(box), 0, 0)

    def box_of(dims: list[Dim]) -> tuple[float, Sizes, int]:
        """Vectors of the runs of the best box for each position, that box, and the axis from which on they run."""
        extent, halo = sizes(dims)
        begin = ADDING * cycles + BOX
        box = best_box(extent, halo, most, lanes, cycles, begin, planes, 0, blocks, workers)
        vectors = vectors_of(box, halo)
        return min(vectors) / math.prod(box), box, vectors.index(min(vectors))

    dims, box, _ = arranged(dims, box_of)
    extent, halo = sizes(dims)
    padded = grown(box, halo)
    pitch, steps = pitches(padded), [dim.result_stride for dim in dims]

    def follows(a: int, pitch: Sizes) -> bool:
        return all(n == 1 or step == p for n, step, p in zip(box[a:], steps[a:], pitch[a:], strict=True))

    def run(a: int) -> int:
        return reach(box[a:], pitch[a:])

    # Boxes of x that are one piece of memory, or the cache sets would be far from even, and all of the same size.
    contiguous = not products.mixed and problem.parts == 1
    even = contiguous and follows(0, pitches(box)) and not any(map(operator.mod, extent, box))

    def is_in_place(a: int) -> bool:
        """Whether such runs are runs of x, too, and whole vectors."""
        return even and follows(a, pitch) and run(a) % lanes == 0

    vectors = vectors_of(box, halo)
    flat = min(range(len(dims)), key=lambda a: (vectors[a], not is_in_place(a)))
    x_pitch, x_plane = steps, problem.channel_steps[1]
    if not is_in_place(flat):
        run_pitch = round_up(max(run(flat), math.prod(padded[flat:])), lanes)
        x_pitch = [*(step * run_pitch for step in pitches(box[:flat])[:flat]), *pitch[flat:]]
        # One vector more than there are positions, where margins are written (`clear_margin` in kernels/pack.pxi).
        x_plane = line_pitch(math.prod(box[:flat]) * run_pitch + lanes, itemsize)
    return _Boxes(
        dims,
        extent,
        box,
        counts=[-(-size // part) for size, part in zip(extent, box, strict=True)],
        flat=flat,
        in_place=is_in_place(flat),
        run=run(flat),
        x_padded=[*box[:flat], *padded[flat:]],
        x_pitch=x_pitch,
        x_plane=x_plane,
        padded=padded,
        y_pitch=pitch,
        y_plane=line_pitch(math.prod(padded) + lanes, itemsize),
    )


def _columns(class_tap: Index, begins: Index, places: Index, most: int) -> tuple[list[Index], list[Index], Index]:
    """Class by class, a column for each tap of each channel of y in a task: a plane from the offset of the tap on.

    Of these, one row for each channel, it says where they begin, where their sums go, and whether these are one after
    the other.  The last tile may be short of columns, of which it has so many at `most`.
    """
    class_columns, class_places, consecutive = [], [], []
    for begin, end in pairwise(class_tap.tolist()):
        column, place = begins[:, begin:end].ravel(), places[:, begin:end].ravel()
        class_columns.append(np.pad(column, (0, most - 1), "edge" if end > begin else "constant"))
        class_places.append(np.pad(place, (0, most - 1)))
        consecutive.append(bool((np.diff(place) == 1).all()))
    return class_columns, class_places, table(consecutive)


def _cheapest(problem: Problem, means: Means) -> list[Split]:
    """The way to take the axes apart that takes least time."""
    axes, outputs, inputs, lanes = problem.axes, problem.sources, problem.results, problem.module.lanes
    batch = problem.images * problem.groups
    splits = [split_axis(axis, "adjoint") for axis in axes]

    def cost(splits: list[Split]) -> float:
        taps = math.prod(
            sum(run.length for row in split.pattern.class_of for run in split.pattern.classes[row]) for split in splits
        )
        patterns = tuple(split.pattern for split in splits)
        mixed = is_mixed(patterns)
        adding = mixing_cost(patterns, outputs, inputs) if mixed else 0.0
        positions = batch * math.prod(split.positions for split in splits)
        for_each_weight = positions + REDUCE * -(-positions // 512) + COMBINE * mixed
        return inputs * outputs * taps * for_each_weight + adding * positions

    plain = cost(splits)
    if means == "mixed" and min(inputs, outputs) >= MIXED and plain > MIXED_LEAST:
        # Blocks of two, and samples that are neighbours in memory left alone: the more sums, the shorter they are.
        ways = [way for way in mixtures(splits, 2) if len(axes) == 1 or way[-1].pattern.mix is None]
        cheapest = min(ways, key=cost, default=splits)
        if cost(cheapest) < MIXED_GAIN * plain:
            return cheapest
    channels = outputs * math.prod(split.source_start.size for split in splits[:-1])
    work = plain / batch / math.prod(split.positions for split in splits)
    alone = lanes * (-(-splits[-1].positions // lanes) + BEGIN)
    if pays_spread(splits[-1], channels, work, alone):
        splits[-1] = spread(splits[-1])
    return splits


@dataclass(frozen=True, eq=False)
class _Products:
    """What is multiplied, for each pair of channels: planes of x by planes of y from an offset on; by planes of x."""

    row: Index  # plane of x
    tap: Index  # of the kernel, or of the sums that its taps are made of
    phase: Index  # plane of y
    offset: Index  # in that plane, one column for each axis
    class_tap: Index  # for each plane of x the first product, and their number
    sums: int  # taps of the kernel, or sums
    kernels: list[Matrix | None]  # for each axis: the sums, of taps
    patterns: tuple[Pattern, ...]
    x_planes: int  # that are multiplied, of a channel: phases, or sums of them
    y_planes: int
    mixed: bool  # which this says


@lru_cache(maxsize=16)
def _products(patterns: tuple[Pattern, ...], taps: tuple[int, ...]) -> _Products:
    """The products of all axes, for a kernel of so many taps along each."""
    tables, kernels = zip(*map(_products_along, patterns), strict=True)
    sizes = [n if kernel is None else len(kernel) for n, kernel in zip(taps, kernels, strict=True)]
    grid = np.indices([len(each) for each in tables], np.intp).reshape(len(tables), -1)
    rows, planes, tap, offset = np.stack([each[which] for each, which in zip(tables, grid, strict=True)]).T
    row, sum_, phase = np.zeros((3, grid.shape[1]), np.intp)
    for a, (pattern, size) in enumerate(zip(patterns, sizes, strict=True)):
        row = row * len(pattern.class_of) + rows[:, a]
        sum_ = sum_ * size + tap[:, a]
        phase = phase * pattern.source_phases + planes[:, a]
    # Few taps in their own order, so that their sums lie side by side; many plane by plane, which are nearer in memory.
    order = np.lexsort((sum_, row)) if row.size <= FEW_TAPS else np.argsort(row, kind="stable")
    row = row[order]
    x_planes = math.prod(len(pattern.class_of) for pattern in patterns)
    return _Products(
        row,
        sum_[order],
        phase[order],
        offset[order],
        class_tap=np.searchsorted(row, np.arange(x_planes + 1)),
        sums=math.prod(sizes),
        kernels=list(kernels),
        patterns=patterns,
        x_planes=x_planes,
        y_planes=math.prod(pattern.source_phases for pattern in patterns),
        mixed=is_mixed(patterns),
    )


def _products_along(p: Pattern) -> tuple[Index, Matrix | None]:
    """The same of one axis: plane of x, plane of y, tap or sum, and offset; and the sums.

    Without a mix the sums are the taps.  With one, every product is summed by itself: several may be of one weight.
    """
    steps = [np.zeros((0, 4), np.intp)]
    for row, (number, base) in enumerate(zip(p.class_of, p.tap_of, strict=True)):
        for run in p.classes[number]:
            j = np.arange(run.length)
            tap, offset = base + run.k + j * p.kernel_step, run.offset + j * p.tap_step
            steps.append(np.stack(np.broadcast_arrays(row, run.phase, tap, offset), axis=1))
    each = np.concatenate(steps)
    if p.kernel is None:
        return each, None
    kernel = tuple(p.kernel[weight] for weight in each[:, 2])
    each[:, 2] = np.arange(len(each))
    return each, kernel


def _runs(box: Sizes, x_pitch: Sizes, y_pitch: Sizes, vectors: int) -> Index:
    """The runs of positions in a box: where in a plane of x, where in a plane of y, how many vectors."""
    at = np.indices(tuple(box), np.intp).reshape(len(box), math.prod(box))
    return np.stack([table(x_pitch) @ at, table(y_pitch) @ at, np.full(at.shape[1], vectors)], axis=1)
