"""One axis with fewer multiplications: minimal filtering, on what `cytconv._phases` has taken apart.

To correlate with r taps takes ``m*r`` multiplications for m neighbouring results; ``m + r - 1`` are enough (Winograd,
"Arithmetic complexity of computations", 1980; in neural networks Lavin & Gray 2015, arXiv:1509.09308).  For m = r = 2::

    y0 = d0*w0 + d1*w1  =  (d0 - d1)*w0 + d1*(w0 + w1)
    y1 = d1*w0 + d2*w1  =                 d1*(w0 + w1) - (d1 - d2)*w1

so that two results cost three multiplications instead of four, and on two axes nine instead of sixteen.  With many
channels the additions are of no account: those of samples serve all rows of results, those of results all channels.

The samples that are combined lie next to each other along the axis.  To combine them is to combine *planes* of them:
the axis gets `m` times as many phases, and its positions count blocks of m results::

    samples, phases apart  --add-->  planes  --tile-->  rows  --add-->  results, phases apart

Planes, rows and combined weights are what phases and taps are elsewhere: layouts, boxes and tiles need not know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ._machine import WIDE, WIDEST
from ._phases import Index, Matrix, Mix, Pattern, Run, Split

__all__ = [
    "BLOCKS",
    "kron",
    "mixing_cost",
    "mixtures",
    "plane_terms",
    "read_places",
    "result_terms",
    "tap_terms",
    "transposed",
    "winograd",
]

Terms = tuple[Index, Index, NDArray[np.float64]]  # a sparse matrix: where its rows start, columns, numbers

POINTS = 4  # 0, 1, -1 and infinity: with these alone every factor is 1, -1 or 1/2, and little precision is lost
BLOCKS = (2, 3)  # neighbouring results that can share their multiplications, with two or three taps
AXES = 3  # that can be: with more the sums have very many terms
SHORT = 16  # positions along the last axis: with fewer, lines are too short to add them up,
LINE = 32  # and with fewer blocks its samples, which are neighbours in memory, are better left alone
ADD = 2 * WIDE  # multiplications that take as long as to add one number to a sum,
WRITE = (8 if WIDEST else 12) * WIDE  # or to write or read one number of a line of sums


def toom_cook(results: int, taps: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Matrices A, G, B of the algorithm ``A.T @ ((G @ w) * (B @ d))`` for ``y[i] = sum over k of w[k] * d[i + k]``.

    It is the transpose of Toom and Cook's product of two polynomials, which evaluates both at some points, multiplies
    the values, and interpolates.
    """
    n = results + taps - 1
    if taps == 1:
        return np.eye(results), np.ones((results, 1)), np.eye(results)
    points = (0.0, 1.0, -1.0)[: n - 1]

    def evaluate(size: int) -> NDArray[np.float64]:
        return np.vstack([np.vander(points, size, increasing=True), np.eye(size)[-1]])

    interpolate = np.linalg.inv(evaluate(n)).T.round(1)
    # What is divided by comes with the weights: the samples are added and subtracted, no more.
    scale = np.abs(interpolate).max(axis=1, keepdims=True)
    return evaluate(results), scale * evaluate(taps), interpolate / scale


def winograd(split: Split, block: int, apart: bool) -> Split:
    """Compute `block` neighbouring results of each phase together.

    Results are neighbours if their distance is that of the taps.  `apart` gives every sample of a block a phase of its
    own, as `cytconv._phases.spread` does, and leaves no halo.
    """
    steps = split.source_step, split.result_step
    starts = tuple(split.source_start.tolist()), tuple(split.result_start.tolist())
    mixed = _mixed(split.pattern, *steps, *starts, block, apart)
    return mixed._replace(
        positions=-(-split.positions // (mixed.result_step // split.result_step)),
        source_size=split.source_size,
        result_size=split.result_size,
        covers=split.covers,
    )


@lru_cache(maxsize=64)
def _mixed(
    pattern: Pattern,
    source_step: int,
    result_step: int,
    source_start: tuple[int, ...],
    result_start: tuple[int, ...],
    block: int,
    apart: bool,
) -> Split:
    """The same for sizes yet unknown."""
    distance = max((abs(pattern.tap_step) for runs in pattern.classes for run in runs if run.length > 1), default=1)
    positions = block * distance  # in one block, of which every distance-th belong together
    reads: dict[tuple[int, int], int] = {}  # phase and offset -> its number
    planes: dict[tuple[tuple[int, float], ...], int] = {}
    weights: dict[tuple[tuple[int, float], ...], int] = {}
    rows: dict[tuple[int, int, tuple[float, ...]], list[tuple[int, int]]] = {}  # -> planes and the weights they meet

    def read(phase: int, sample: int) -> int:
        return reads.setdefault((phase, sample), len(reads))

    for result, (number, base) in enumerate(zip(pattern.class_of, pattern.tap_of, strict=True)):
        for run in pattern.classes[number]:
            for begin in range(0, run.length, POINTS + 1 - block):
                j = np.arange(begin, min(begin + POINTS + 1 - block, run.length))
                if pattern.tap_step < 0:
                    j = j[::-1]
                taps = base + run.k + j * pattern.kernel_step
                first = run.offset + int(j[0]) * pattern.tap_step
                a, g, b = toom_cook(block, j.size)
                for start in range(distance):
                    samples = first + start + distance * np.arange(b.shape[1])
                    for p in range(len(b)):
                        plane = tuple((read(run.phase, int(samples[f])), float(b[p, f])) for f in np.flatnonzero(b[p]))
                        weight = tuple((int(taps[k]), float(g[p, k])) for k in np.flatnonzero(g[p]))
                        meets = (
                            planes.setdefault(plane, len(planes)),
                            weights.setdefault(weight, len(weights)),
                        )
                        rows.setdefault((result, start, tuple(a[p].tolist())), []).append(meets)

    # Rows whose planes meet weights in the same order make a class.
    keys = [tuple((plane, weight - each[0][1]) for plane, weight in each) for each in rows.values()]
    classes = {key: number for number, key in enumerate(dict.fromkeys(keys))}

    # Results in the order in which they lie in memory.
    places = [
        (result_start[result] + (start + i * distance) * result_step, result, start, i)
        for result in range(len(pattern.class_of))
        for start in range(distance)
        for i in range(block)
    ]
    places.sort()
    results = tuple(
        tuple((row, column[i]) for row, (*of, column) in enumerate(rows) if of == [result, start] and column[i])
        for _, result, start, i in places
    )

    # Where the samples come from: phases of whole blocks, in the order in which they lie in memory, and which block.
    found = []
    for phase, sample in reads:
        ahead = 0 if apart else sample // positions
        start = source_start[phase] + (sample - ahead * positions) * source_step
        found.append((start, ahead))
    starts = sorted({start for start, _ in found})

    return Split(
        positions=0,
        halo=max((ahead for _, ahead in found), default=0),
        source_step=source_step * positions,
        source_start=np.array(starts, np.intp),
        source_size=0,
        result_step=result_step * positions,
        result_start=np.array([place for place, *_ in places], np.intp),
        result_size=0,
        covers=False,
        pattern=Pattern(
            taps=len(weights),
            source_phases=len(planes),
            kernel_step=1,
            tap_step=1,
            classes=tuple(tuple(Run(plane, weight, 0, 1) for plane, weight in key) for key in classes),
            class_of=tuple(classes[key] for key in keys),
            tap_of=tuple(each[0][1] for each in rows.values()),
            kernel=tuple(weights),
            mix=Mix(tuple((starts.index(start), ahead) for start, ahead in found), tuple(planes), results),
        ),
    )


# ---- all axes --------------------------------------------------------------------------------------------


def mixtures(splits: list[Split], block: int) -> list[list[Split]]:
    """Ways to save multiplications along the axes that have several taps."""
    several = [split.pattern.longest > 1 for split in splits]
    choices = {(*several[:-1], False)}
    if splits[-1].positions >= LINE * block:
        choices.add(tuple(several))
    return [
        [winograd(split, block, apart) if mix else split for split, mix in zip(splits, choice, strict=True)]
        for choice in sorted(choices)
        if any(choice) and len(splits) <= AXES and splits[-1].positions >= SHORT
        for apart in (False, True)
    ]


def mixing_cost(patterns: tuple[Pattern, ...], sources: int, results: int) -> float:
    """All the adding for one position, in multiplications."""
    cost = float(results * WRITE * math.prod(len(pattern.class_of) for pattern in patterns))
    for channels, factors in ((sources, _plane_factors(patterns)), (results, _result_factors(patterns))):
        lines = math.prod(columns if rows is None else len(rows) for rows, columns in factors)
        terms = math.prod(columns if rows is None else sum(map(len, rows)) for rows, columns in factors)
        cost += channels * (ADD * terms + WRITE * lines)
    return cost


def tap_terms(patterns: tuple[Pattern, ...], taps: Sequence[int]) -> Terms:
    """Taps as sums of those of the given kernel."""
    return kron([(p.kernel, n) for p, n in zip(patterns, taps, strict=True)])


@lru_cache(maxsize=64)
def plane_terms(patterns: tuple[Pattern, ...]) -> Terms:
    """Planes as sums of what is read."""
    return kron(_plane_factors(patterns))


@lru_cache(maxsize=64)
def result_terms(patterns: tuple[Pattern, ...]) -> Terms:
    """Phases of the result as sums of rows."""
    return kron(_result_factors(patterns))


def _plane_factors(patterns: tuple[Pattern, ...]) -> list[tuple[Matrix | None, int]]:
    return [(p.mix and p.mix.planes, len(p.mix.reads) if p.mix else p.source_phases) for p in patterns]


def _result_factors(patterns: tuple[Pattern, ...]) -> list[tuple[Matrix | None, int]]:
    return [(p.mix and p.mix.results, len(p.class_of)) for p in patterns]


def read_places(splits: Sequence[Split], plane: int, pitch: Sequence[int]) -> Index:
    """Where what is read begins, in planes one for each phase of the source."""
    place = np.zeros(1, np.intp)
    for a, (split, along) in enumerate(zip(splits, pitch, strict=True)):
        mix = split.pattern.mix
        reads = mix.reads if mix else [(phase, 0) for phase in range(split.source_start.size)]
        phase, ahead = np.array(reads, np.intp).reshape(-1, 2).T
        step = plane * math.prod(other.source_start.size for other in splits[a + 1 :])
        place = (place[:, None] + phase * step + ahead * along).ravel()
    return place


def transposed(terms: Terms, columns: int) -> Terms:
    """The transpose of a matrix with so many columns."""
    start, column, number = terms
    return _arrays(sparse.csr_array((number, column, start), (start.size - 1, columns)).T.tocsr())


def kron(factors: Sequence[tuple[Matrix | None, int]]) -> Terms:
    """The Kronecker product of matrices with so many columns, None being the identity."""
    product = sparse.eye_array(1, format="csr")
    for rows, columns in factors:
        if rows is None:
            matrix = sparse.eye_array(columns, format="csr")
        else:
            terms = np.array([term for row in rows for term in row]).reshape(-1, 2)
            start = np.cumsum([0, *map(len, rows)])
            matrix = sparse.csr_array((terms[:, 1], terms[:, 0].astype(np.intp), start), (len(rows), columns))
        product = sparse.kron(product, matrix, format="csr")
    return _arrays(product)


def _arrays(matrix: sparse.csr_array) -> Terms:
    return matrix.indptr.astype(np.intp), matrix.indices.astype(np.intp), matrix.data
