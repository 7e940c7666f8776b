"""Plans for the adjoint in the weights where sums have few terms, in the terms of `cytconv._lines`.

It has the rows and lines of the forward operator, and sums over their positions instead ::

    w[line, read, f, r]  =  sum over p of   line[(p + read)*S + f] * result[p*R + r]

Here a band is not one of rows, but of taps: a line of x that is loaded meets several rows of y.
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import ModuleType

from ._boxes import table
from ._lines import Lines, halvings, lines_of, tables_of
from ._machine import FETCHES
from ._problem import Problem
from ._weights import SHARES, WeightAdjoint

__all__ = ["weight_lines"]

TASK_BYTES = 2**16  # of what a task reads,
BAND_BYTES = 2**18  # or if it has bands: then more lines meet all taps of one,
BAND_LINES = 8  # of at least so many lines, or parts of them,
BAND_TASKS = 8  # and as many tasks, if that leaves enough of them
FAR = 2  # positions between the taps of a band, at most: of taps further apart few are in one task

# Times, in multiplications of one vector, alike on all CPUs.  In lines:
LOAD = 1  # one vector,
SHUFFLE = 0.5  # to halve or double its streams,
STEP = 2  # whatever else there is to do for the reads that are done at once,
BEGIN = 30  # where their line begins and ends,
PART, BAND_PART = 1, 2  # and a step in part beyond any other, in steps; the same of a band
NUMBER = 1  # one vector that is read for the first time
# And in boxes, those of `cytconv._weights`:
COPY = 10  # one vector that is packed
LINE = 40  # one line of these
TILES = {3: 1.3, 2: 1.6, 1: 2.0}  # one multiplication, by how many channels of x share the samples of y
HALO = 1.2  # times as much with three axes and more, whose boxes overlap more


@lru_cache(maxsize=64)
def weight_lines(problem: Problem) -> WeightAdjoint | None:
    """Plan the adjoint in the weights of a forward operator, unless `cytconv._weights.weight_adjoint` would be faster.

    It has the rows of that operator: those take each line of y apart once, and x has fewer streams.
    """
    module, inputs = problem.module, problem.sources
    lines = lines_of(problem)
    if lines is None:
        return None
    rows, (S, R), held = lines.rows, lines.streams, lines.pixels
    band = _band(module, lines)
    if not (held.best_in_place or _pays(module, lines, inputs, band)):
        return None
    length = lines.extent[-1]
    read = (rows.fresh_lines * S + rows.row_channel.size * R) * problem.itemsize * held.numbers
    task = (BAND_BYTES if band > 1 else TASK_BYTES) // read
    positions = max(1, min(task // length, module.most_positions))  # of the outer axes in a task
    if band > 1:
        positions = max(min(positions, -(-math.prod(lines.extent[:-1]) // BAND_TASKS)), BAND_LINES)
    tables = tables_of(lines, 1, task, positions, positions)  # what the next task reads is fetched
    if tables is None:
        return None
    steps = tables["result_step"]
    kernel = module.WeightLines(
        band=band,
        row_ahead=int(table([positions * int(steps[-1])])[0]) if FETCHES and steps.size else 0,
        places=rows.places.ravel(),
        lane_sums=held.lane_sums(),
        sums=held.size if held.own else 1,
        groups=lines.groups,
        shares=max(1, SHARES // lines.groups),
        parts=problem.parts,
        inputs=inputs,
        outputs=problem.results,
        taps=math.prod(problem.kernel_size),
        **tables,
    )
    return WeightAdjoint(
        kernel,
        tasks=lines.groups * kernel.shares,
        work=lines.groups * math.prod(lines.extent) * held.numbers * rows.places.size,
        memory=kernel.scratch_size + lines.groups * kernel.shares * kernel.share_size,
    )


def _band(module: ModuleType, lines: Lines) -> int:
    """How many taps of the axis before the last meet a line of x that is loaded (``kernels/weight_lines.pxi``)."""
    before = lines.dims[-2].axis if len(lines.dims) > 1 else -1
    if lines.streams != (1, 1) or lines.pixels.size or before < 0:
        return 1
    pattern = lines.splits[before].pattern
    taps = max(pattern.longest, 1)
    return -(-taps // -(-taps // module.most_taps)) if abs(pattern.tap_step) <= FAR else 1


def _pays(module: ModuleType, lines: Lines, inputs: int, band: int) -> bool:
    """Whether this takes less time than boxes, for so many channels of x, and taps of a band."""
    rows, (S, R) = lines.rows, lines.streams
    reads = len(rows.reads)
    vectors: float = lines.extent[-1] / module.lanes
    times: int = -(-reads // min(module.most_reads, module.most_sums // (S * R * band)))  # that a line is gone through
    steps = math.ceil(vectors)
    taken = (steps + (BAND_PART if band > 1 else PART) * min(steps, 2)) / vectors
    shuffles = reads * S * halvings(S) + times * R * halvings(R)
    step = reads * S * R + SHUFFLE * shuffles + LOAD * (reads * S / band + times * R) + STEP * times / band
    here = rows.line_channel.size * (step * taken + BEGIN * times / band / vectors) + NUMBER * rows.numbers
    tiles = rows.weights * TILES[min(inputs, max(TILES))]
    boxes = tiles + (COPY + LINE / vectors) * rows.numbers
    return here < boxes * (HALO if len(lines.extent) > 2 else 1)
