"""One axis taken apart into phases, for either direction of method "direct".

Write ``o + low = q*stride + r`` with ``0 <= r < stride``.  Tap ``k`` reaches the outputs of *phase*
``r = k*dilation mod stride`` only, and reads the input at the fixed *shift* ``t = k*dilation // stride``:
``i = q - t``.  With unit stride on both sides, what is left is a correlation:

    forward   positions are the q; each channel of y has one row of results for each phase, and the store interleaves
              them (pixel shuffle: Shi et al. 2016, arXiv:1609.05158)
    adjoint   positions are the i; each channel of y has one plane of samples for each phase, and the load takes them
              apart (pixel unshuffle)

Example, stride 2 and 3 taps::

    x        a     b     c             phase 0 has taps 0 and 2:   y[2q]   = x[q]*w[0] + x[q-1]*w[2]
    y     0  1  2  3  4  5  6          phase 1 has tap 1:          y[2q+1] = x[q]*w[1]

`split_axis` does this, for positions counted in either of two ways; `fold` makes phases of an axis that has no stride,
so that the tile has rows to work on; `spread` trades the halo of a split for copies of the samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._geometry import Axis

__all__ = [
    "Direction",
    "Index",
    "Matrix",
    "Mix",
    "Pattern",
    "Reading",
    "Run",
    "Split",
    "fold",
    "is_mixed",
    "split_axis",
    "spread",
    "spread_phases",
]

Index = NDArray[np.intp]
Matrix = tuple[tuple[tuple[int, float], ...], ...]  # sparse: for each row, columns and what is there
Direction = Literal["forward", "adjoint"]
Reading = Literal["forward", "adjoint", "weight_adjoint"]


class Run(NamedTuple):
    """Taps that read `phase` of the source at ``offset, offset + tap_step, ...``.

    They are ``k, k + kernel_step, ...``, counted from the tap of a phase of the result; for the steps see `Pattern`.
    """

    phase: int
    k: int
    offset: int
    length: int


class Mix(NamedTuple):
    """Sums of samples that are read in place of the samples, and results that are sums of rows; see `_winograd`."""

    reads: tuple[tuple[int, int], ...]  # phase of the source, and at which offset
    planes: Matrix  # what is read in place of the phases of the source, of the samples read
    results: Matrix  # the phases of the result, of the rows


@dataclass(frozen=True)
class Pattern:
    """What of a `Split` decides how weights are packed: nothing that depends on sizes, as long as all taps reach."""

    taps: int  # of the kernel, or as many as `kernel` makes of it
    source_phases: int  # or planes, if there is a mix
    kernel_step: int
    tap_step: int
    classes: tuple[tuple[Run, ...], ...]
    class_of: tuple[int, ...]  # for each phase of the result, its class ...
    tap_of: tuple[int, ...]  # ... and the tap that the class counts from
    kernel: Matrix | None = None  # taps as sums of those of the given kernel
    mix: Mix | None = None

    @cached_property
    def longest(self) -> int:
        """Taps in the longest run; 0 if there are none."""
        return max((run.length for runs in self.classes for run in runs), default=0)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # patterns are keys of caches, again and again
        return hash((self.taps, self.source_phases, self.kernel_step, self.tap_step, self.classes, self.tap_of))


def is_mixed(patterns: Iterable[Pattern]) -> bool:
    """Whether samples, and results, are added up along some axis (see `cytconv._winograd`)."""
    return any(pattern.mix for pattern in patterns)


class Split(NamedTuple):
    """One axis, taken apart.  Position ``p`` of phase ``f`` is sample ``start[f] + p*step`` of its array."""

    positions: int
    halo: int  # a padded row of the source is this much longer than the row of positions
    source_step: int
    source_start: Index
    source_size: int
    result_step: int
    result_start: Index
    result_size: int
    pattern: Pattern
    covers: bool  # whether the phases of the result make up all of it

    def is_identity(self) -> bool:
        """Whether each position is a sample and a result, and nothing else is."""
        if self.source_start.size != 1 or self.result_start.size != 1:
            return False
        ((run, *others),) = self.pattern.classes
        steps = self.source_step == self.result_step == 1 and run.length == 1 and not others
        sizes = self.source_size == self.result_size == self.positions
        return bool(steps and sizes and self.source_start[0] == self.result_start[0] == 0)


@lru_cache(maxsize=256)
def split_axis(axis: Axis, direction: Direction, aligned: bool = False) -> Split:
    """Take `axis` apart.

    The positions of the forward direction are counted from that of output ``-low``, so that all phases read the same
    samples and share their offsets; or, `aligned`, for each phase from its first output, so that none has a position
    outside of the result.
    """
    if axis.n == 1:  # with one sample the stride is of no account: let every tap be a phase of its own
        axis = Axis(1, axis.taps, axis.m, axis.taps * axis.dilation, axis.dilation, axis.low)
    n, m, s, low = axis.n, axis.m, axis.stride, axis.low
    reached = None
    if not axis.all_taps_reach():
        first, last = axis.reach()
        reached = tuple(np.flatnonzero(first < last).tolist())
    split = _split(axis.taps, reached, s, axis.dilation, low, direction, aligned)
    if direction == "adjoint":
        return split._replace(positions=n, source_size=m, result_size=n)
    positions = -(-m // s) if aligned else (low + m - 1) // s + 1 - low // s
    covers = split.result_start.size >= min(s, m)
    return split._replace(positions=positions, source_size=n, result_size=m, covers=covers)


@lru_cache(maxsize=64)
def _split(
    taps: int, reached: tuple[int, ...] | None, s: int, d: int, low: int, direction: Direction, aligned: bool
) -> Split:
    """The same for sizes yet unknown, but that all taps reach the output or those `reached` alone."""
    common = math.gcd(s, d)
    kernel_step = s // common  # from one tap of a phase to the next,
    shift_step = d // common  # which reads this much earlier
    k = np.arange(taps) if reached is None else np.array(reached, np.intp)  # of each phase, a contiguous run
    shift, phase = np.divmod(k * d, s)
    low_shift, high_shift = (int(shift.min()), int(shift.max())) if k.size else (0, 0)
    halo = high_shift - low_shift

    # Of each phase that has taps: its first tap, the shift of that, the number of taps.
    phases, start, count = np.unique(phase, return_index=True, return_counts=True)

    if direction == "adjoint":
        runs = tuple(
            Run(f, int(k[start[f]]), int(shift[start[f]]) - low_shift, int(count[f])) for f in range(phases.size)
        )
        return Split(
            positions=0,
            halo=halo,
            source_step=s,
            source_start=s * low_shift + phases - low,
            source_size=0,
            result_step=1,
            result_start=np.zeros(1, np.intp),
            result_size=0,
            pattern=Pattern(taps, phases.size, kernel_step, shift_step, (runs,), (0,), (0,)),
            covers=k.size > 0,
        )

    # Outputs of phases without a tap hold the bias alone.  Where most phases have taps, the others are rows too, and
    # lines are stored as a whole; else they are left out, see `Split.covers`.
    if phases.size < s < 2 * phases.size:
        every = np.arange(s)
        number = np.searchsorted(phases, every).clip(max=phases.size - 1)
        count = np.where(phases[number] == every, count[number], 0)
        phases, start = every, start[number]
    q = np.full(phases.size, low // s)
    result_start = q * s + phases - low
    if aligned:
        q += result_start < 0
        result_start %= s
        order = np.argsort(result_start)
        phases, start, count, q, result_start = (v[order] for v in (phases, start, count, q, result_start))
    first_read = q - shift[start]  # by the first tap of each phase at position 0; the others read before it
    some = count > 0
    earliest = int((first_read - (count - 1) * shift_step)[some].min()) if k.size else 0
    halo = int(first_read[some].max()) - earliest if k.size else 0
    keys = [(Run(0, 0, int(r) - earliest, int(c)),) if c else () for r, c in zip(first_read, count, strict=True)]
    classes = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return Split(
        positions=0,
        halo=halo,
        source_step=1,
        source_start=np.array([earliest]),
        source_size=0,
        result_step=s,
        result_start=result_start,
        result_size=0,
        pattern=Pattern(
            taps,
            1,
            kernel_step,
            -shift_step,
            tuple(classes),
            tuple(classes[key] for key in keys),
            tuple(k[start].tolist()),
        ),
        covers=False,
    )


def fold(axis: Axis, direction: Direction, rows: int) -> Split:
    """Take an axis with unit stride apart into `rows` phases of positions and of samples.

    Neighbouring results have most of their samples in common.  As phases they are rows of one tile, and every sample
    that is loaded serves them all::

        forward    x[q*rows + u + low]   meets tap   k = r - u   of result   q*rows + r,    -taps < u < rows
        adjoint    y[q*rows + u - low]   meets tap   k = u - r

    At the ends of that range k is no tap of some rows: the kernel gets ``rows - 1`` zeros at both ends.
    """
    n, m, taps, low = axis.n, axis.m, axis.taps, axis.low
    forward = direction == "forward"
    pad = rows - 1
    sources, results, first = (n, m, low - taps + 1) if forward else (m, n, -low)
    reads = first + np.arange(taps + pad)  # at position 0
    early = int(reads[0] // rows)
    offset, phase = np.divmod(reads - early * rows, rows)
    # Of the padded kernel, the taps that row 0 meets: row r meets those r places further on, or before.
    taps_met = np.arange(taps + pad)[::-1] if forward else pad + np.arange(taps + pad)
    step = -rows if forward else rows
    runs = []
    for f in range(rows):
        mine = np.flatnonzero(phase == f)
        if mine.size:
            runs.append(Run(f, int(taps_met[mine[0]]), int(offset[mine[0]]), int(mine.size)))
    return Split(
        positions=-(-results // rows),
        halo=int(offset.max()),
        source_step=rows,
        source_start=early * rows + np.arange(rows),
        source_size=sources,
        result_step=rows,
        result_start=np.arange(rows),
        result_size=results,
        pattern=Pattern(
            taps + 2 * pad,
            rows,
            step,
            1,
            (tuple(runs),),
            (0,) * rows,
            tuple(range(rows) if forward else range(0, -rows, -1)),
            kernel=((),) * pad + tuple(((k, 1.0),) for k in range(taps)) + ((),) * pad,
        ),
        covers=True,
    )


def spread(split: Split) -> Split:
    """Give every offset a phase of the source of its own: more copies of the samples, and no halo."""
    pattern, reads = _spread(split.pattern)
    starts = [int(split.source_start[phase]) + offset * split.source_step for phase, offset in reads]
    return split._replace(halo=0, source_start=np.array(starts, np.intp), pattern=pattern)


def spread_phases(pattern: Pattern) -> int:
    """How many phases of the source that makes."""
    return len(_spread(pattern)[1])


@lru_cache(maxsize=64)
def _spread(pattern: Pattern) -> tuple[Pattern, list[tuple[int, int]]]:
    """The new pattern; and for each of its phases, which one it was and from which offset on."""
    # For each class, the taps one by one: phase, tap, offset.
    taps = [
        [
            (run.phase, run.k + j * pattern.kernel_step, run.offset + j * pattern.tap_step)
            for run in runs
            for j in range(run.length)
        ]
        for runs in pattern.classes
    ]
    phases = {read: number for number, read in enumerate(dict.fromkeys((f, o) for each in taps for f, _, o in each))}
    classes = tuple(tuple(Run(phases[f, o], k, 0, 1) for f, k, o in each) for each in taps)
    return replace(pattern, source_phases=len(phases), classes=classes), list(phases)
