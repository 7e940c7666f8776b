"""Plans for sums of few terms, forward and data adjoint, in the terms of `cytconv._lines`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

from ._lines import Lines, halvings, lines_of, tables_of
from ._machine import KIB, L3_BYTES, ROOM_BYTES, WIDEST
from ._phases import Index
from ._problem import Problem

__all__ = ["Stencil", "stencil"]

TASK = 2**13  # positions of all rows that make up a task
# A result larger than this is written past the caches (boxes: see `_correlation`): these kernels are fast enough to
# notice what has no room there.
STREAM_BYTES = ROOM_BYTES
# The same where rows of a band, written by turns, share a page: there CPUs read the lines first that they write whole.
STREAM_TURNS_BYTES = max(4 * KIB**2, L3_BYTES * 3 // 8)
PAGE_BYTES = 4096
PIECE_BYTES = 4096  # of all rows of a band that are written past the caches at a time
AHEAD_BYTES = 2**14  # how far ahead of what is read lines are fetched

# Times, in multiplications of one vector; measured with AVX-512, and with AVX2 for all others, on an EPYC.  In lines:
LOAD = 2 if WIDEST else 1  # one vector that begins anywhere,
BEGIN = 4  # a line of the source in a step,
SHUFFLE = 0 if WIDEST else 1  # one vector, to halve or double its streams, beside the loads
STEP = 0.7  # what else there is to do in a step, for each of its sums,
PART = 0 if WIDEST else 0.3  # what a step at an end of a line takes beyond any other, in steps,
BAND = 200 if WIDEST else 150  # and in a band of rows, whatever its length,
SHORT_BAND = 80 if WIDEST else 60  # or where several lines are done at once; not measured with AVX2.
# And in boxes (``kernels/correlate.pxi``):
COPY = 11 if WIDEST else 7  # one vector that is packed or stored
LINE = 40  # one line of these
CALL = 1500  # what else there is to do in a call, before the first of them


@dataclass(frozen=True, eq=False)
class Stencil:
    """A plan: the compiled kernel, which holds the tables, and what callers ask of it."""

    module: ModuleType
    key: tuple[Any, ...]  # equal for equal orders of packed weights
    pairs: int  # of channels
    places: Index  # of the weights, in that order
    kernel: Any
    tasks: int
    work: int  # multiplications, with the zeros
    covers: bool  # whether the rows make up all of the result
    lane_groups: Index  # see `cytconv._pixels`
    packed = 0  # samples copied

    def packing(self, groups: int, taps: tuple[int, ...]) -> Any:
        """What packs the weights, a contiguous array of real numbers; arguments as those of `Layout.packing`."""
        return self.module.Gather(self.lane_groups, self.pairs * math.prod(taps), self.places)


@lru_cache(maxsize=64)
def stencil(problem: Problem, exact: bool) -> Stencil | None:
    """Plan it, unless `cytconv._correlation.correlation` would be faster.

    If it is to be `exact`, no zeros may be multiplied.
    """
    module, itemsize = problem.module, problem.itemsize
    lines = lines_of(problem, bands=True)
    if lines is None or lines.rows.most_lines > module.most_lines:
        return None
    rows, (S, R), held = lines.rows, lines.streams, lines.pixels
    length = -(-lines.extent[-1] // held.together)
    kinds = module.pixel_bands if held.size else module.bands
    vectors = min(kinds[S, R][rows.band], key=lambda n: -(-length // n) * (n + STEP))
    skips = held.size > 0 or (S, R, rows.band, vectors) in module.skipping
    zeros = rows.zeros or (rows.gaps and not skips)
    numbers = lines.groups * math.prod(lines.extent) * held.numbers
    written = numbers * rows.row_channel.size * R * itemsize
    turns = rows.band > 1 and lines.result_size * itemsize < PAGE_BYTES
    least = min(STREAM_BYTES, STREAM_TURNS_BYTES) if turns else STREAM_BYTES
    past_caches = held.consecutive and written > least
    several = length <= vectors and len(lines.dims) > 1 and not (held.size or past_caches)
    if (zeros and exact) or not (held.best_in_place or _pays(lines, module.lanes, vectors, skips, several)):
        return None
    fetched = max(1, rows.fresh_lines * lines.source_size * itemsize)
    task = TASK // (rows.row_channel.size * held.numbers)
    tables = tables_of(lines, vectors, task, ahead=-(-AHEAD_BYTES // fetched), several=several)
    if tables is None:
        return None
    lane_groups = held.lane_groups(lines.groups)
    kernel = module.Stencil(
        band=rows.band,
        line_meets=rows.line_meets,
        read_meets=rows.read_meets,
        results=problem.results,
        piece=max(1, PIECE_BYTES // (rows.band * R * itemsize * vectors * module.lanes)) if past_caches else 0,
        row_channel=rows.stream_channel,
        check=zeros,
        lane_groups=lane_groups,
        **tables,
    )
    return Stencil(
        module=module,
        key=(module, *lines.key),
        pairs=problem.sources * problem.results,
        places=rows.places.swapaxes(3, 4).ravel(),
        kernel=kernel,
        tasks=lines.groups * kernel.group_tasks,
        work=numbers * rows.products,
        covers=all(split.covers for split in lines.splits),
        lane_groups=lane_groups,
    )


def _pays(lines: Lines, lanes: int, step: int, skips: bool, several: bool) -> bool:
    """Whether this takes less time than boxes, with vectors of so many `lanes`, and so many vectors in a `step`.

    The kernel `skips` sums that have no part in a read, or multiplies zeros for them; and does `several` lines at once.
    """
    rows, (S, R), vectors = lines.rows, lines.streams, lines.extent[-1] / lanes
    others = lines.groups * math.prod(lines.extent[:-1])
    steps = math.ceil(vectors / step)
    results = rows.row_channel.size * R
    abreast = S > 1 and lanes % S == 0
    shuffles = (results * S if abreast else rows.loads) * halvings(S) + results * halvings(R)
    products = rows.products if skips else rows.places.size
    sums = max(products + SHUFFLE * shuffles, LOAD * rows.loads)
    bands = rows.row_line.size - 1
    band = SHORT_BAND if several else BAND
    here = (
        sums * (steps + PART * min(steps, 2)) * step + BEGIN * rows.line_channel.size * steps + band * bands
    ) / vectors
    return here < rows.boxes + (COPY + LINE / vectors) * rows.numbers + CALL / (others * vectors)
