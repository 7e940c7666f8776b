"""Plans of method "fft": axes taken apart, results cut into tiles, and what that costs.

Results are cut into tiles, each of which reads its samples and a halo of one tap less than the kernel has
(overlap-save).  The transform wraps around; it is just long enough that what is kept does not meet what wraps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from . import _taps
from ._geometry import Axis, Shape
from ._phases import Reading
from ._spectra import Index, Kept, is_better_by_pairs, keep, of_last

__all__ = ["MOST", "Plan", "Task", "least_steps", "plan_of"]

Array = NDArray[Any]

# Work is counted in steps of butterflies, one for each number of a spectrum and doubling of its length.
PASSES = 6  # steps that copying a tile, multiplying spectra and storing results take together, for each number,
PAIR = 4  # and to multiply the spectra of a pair of channels beside that,
MATRIX = 28  # or to make a number of them an element of a matrix, once in each task, where they are multiplied so
CACHE = 3 * 2**17  # numbers of a tile that the caches hold with its spectrum;
SLOW = 0.2  # beyond that, every step takes longer by this power of the excess,
SLOW_CHANNELS = 0.45  # or this one where products are sums over channels, or there are several
ALONE = 1.2  # how many times longer than two side by side takes one task whose threads wait after each class
ROWS = 2  # rows of the last axis that could be transformed in the time that it takes to prepare for their length
EACH = 120_000  # steps in the time that it takes to copy a tile from or to its place, beside the copying itself,
CALL = 500_000  # and to begin with a task, or with one of its classes
TASK = 2**18  # numbers to transform at once, if tiles are smaller: of several tiles and items of the batch
WASTE = 16  # how many steps may stand for one product of the definition,
LITTLE = 8 * 10**7  # and how many are no waste worth avoiding
NEAR = 1.05  # lengths that are as fast as one with factors 7 or 11
MOST = 2**28  # bytes of the spectra of weights that are kept, and of those that are summed up at once
MOST_THREADS = 256  # however many are asked for: each has a part of every transform
THREAD = 10**7  # steps that must lie between one wait of threads for each other and the next


class Part(NamedTuple):
    """Of one axis, the outputs that samples v and taps c meet: ``start + L*(q - low)``, `m` of them."""

    start: int
    m: int
    low: int
    taps: int


class Pieces:
    """One axis taken apart: samples ``v, v + x_step, ...``, taps ``c, c + w_step, ...``."""

    def __init__(self, axis: Axis) -> None:
        stride = axis.dilation if axis.n == 1 else axis.stride  # of no account with one sample,
        dilation = stride if axis.taps == 1 else axis.dilation  # or with one tap
        common = math.gcd(stride, dilation)
        self.axis, self.stride, self.dilation = axis, stride, dilation
        self.x_step, self.w_step, self.y_step = dilation // common, stride // common, stride // common * dilation
        self.samples, self.classes = min(self.x_step, axis.n), min(self.w_step, axis.taps)
        self.taps = _ceil(axis.taps, self.w_step)  # of the largest class

    def length(self, v: int) -> int:
        return len(range(v, self.axis.n, self.x_step))

    def part(self, v: int, c: int) -> Part:
        quotient, start = divmod(v * self.stride + c * self.dilation - self.axis.low, self.y_step)
        m = len(range(start, self.axis.m, self.y_step))
        return Part(start, m, -quotient, len(range(c, self.axis.taps, self.w_step)))

    def support(self, v: int, c: int) -> tuple[int, int]:
        """The q of outputs that there are and that meet a sample."""
        part = self.part(v, c)
        first = max(part.low, 0)
        return first, max(first, min(part.low + part.m, self.length(v) + part.taps - 1))

    def extent(self, v: int) -> tuple[int, int]:
        """The same for all classes together."""
        spans = [span for c in range(self.classes) for span in [self.support(v, c)] if span[0] < span[1]]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else (0, 0)

    def whole(self, reading: Reading) -> tuple[int, int]:
        """Of the largest of the convolutions, how many results there are and the shortest transform for them all."""
        longest, shortest = 0, self.taps
        for v in range(self.samples):
            n, (first, last) = self.length(v), self.extent(v)
            if reading == "forward":
                begin, end = max(0, first - self.taps + 1), min(n, last)
                longest = max(longest, last - first)
                shortest = max(shortest, end - first + self.taps - 1, last - begin, end - begin)
            else:
                longest = max(longest, n)
                shortest = max(shortest, n, last, n + self.taps - 1 - min(first, n))
        return longest, shortest


Tile = tuple[tuple[int, int], ...]  # of each axis, the first and past-the-last result (or sample, for weights)


class Task(NamedTuple):
    """Some tiles of some items of the batch, for the samples v."""

    v: Index
    tiles: tuple[Tile, ...]
    items: slice


class Plan:
    """How a reading is cut into tiles of `sizes`, each with so many results along each axis as `blocks` says.

    It takes so many `steps`, and the definition so many `products`.
    """

    def __init__(
        self,
        reading: Reading,
        pieces: tuple[Pieces, ...],
        sizes: Shape,
        blocks: Shape,
        steps: float,
        products: int,
        channels: int,
    ) -> None:
        self.reading, self.pieces, self.sizes, self.blocks = reading, pieces, sizes, blocks
        self.steps, self.products, self.channels = steps, products, channels
        self.d = len(pieces)
        counts = [
            sum(last - first for v in range(p.samples) for c in range(p.classes) for first, last in [p.support(v, c)])
            for p in pieces
        ]
        self.covers = all(count == p.axis.m for count, p in zip(counts, pieces, strict=True))
        self.classes: list[Index] = list(product(*(range(p.classes) for p in pieces)))
        # To find these out takes as long as a small transform: they are kept for the next call.
        self.tasks, self.sources, self.results = cache(self._tasks), cache(self._sources), cache(self._results)

    def frequencies(self, dtype: np.dtype[Any]) -> Shape:
        """The shape of a spectrum: half of it, of real numbers."""
        return self.sizes if dtype.kind == "c" else (*self.sizes[:-1], self.sizes[-1] // 2 + 1)

    def threads(self, workers: int, batch: int) -> int:
        """How many are worth it: each call to numpy is one for the interpreter, too, which is for one at a time.

        Of tasks, and in the forward reading of classes, two run side by side between one wait and the next.
        """
        tasks = len(self.tasks(batch))
        side_by_side = tasks > 1 or self.reading == "forward"
        waits = (tasks if tasks > 1 else len(self.classes)) / (2 if side_by_side else 1)
        return min(workers, MOST_THREADS) if self.steps >= THREAD * max(waits, 1) else 1

    def _tasks(self, batch: int) -> list[Task]:
        tasks = []
        for v in product(*(range(p.samples) for p in self.pieces)):
            tiles = tuple(product(*(self._cuts(a, v[a]) for a in range(self.d))))
            items, together = _together(len(tiles), batch, math.prod(self.sizes) * self.channels)
            for first in range(0, batch, items):
                for start in range(0, len(tiles), together):
                    tasks.append(Task(v, tiles[start : start + together], slice(first, first + items)))
        return tasks

    def _cuts(self, a: int, v: int) -> list[tuple[int, int]]:
        first, last = self.pieces[a].extent(v) if self.reading == "forward" else (0, self.pieces[a].length(v))
        return [(start, min(start + self.blocks[a], last)) for start in range(first, last, self.blocks[a])]

    def _sources(self, v: Index, c: Index | None, tiles: tuple[Tile, ...]) -> list[tuple[Index, Shape]]:
        """What tiles read, and where in them it is: of x if there is no class, else of y."""
        sources = []
        for tile in tiles:
            index, at = [], []
            for p, r, q, (start, stop) in zip(self.pieces, v, c or v, tile, strict=True):
                if c is not None:
                    part = p.part(r, q)
                    first, last = p.support(r, q)
                    begin, end = max(first, start), min(last, stop + p.taps - 1)
                    index.append(_run(begin - part.low, end - part.low, part.start, p.y_step))
                    at.append(begin - start if begin < end else 0)
                elif self.reading == "forward":
                    index.append(_run(max(0, start - p.taps + 1), min(p.length(r), stop), r, p.x_step))
                    at.append(0)
                else:
                    index.append(_run(start, stop, r, p.x_step))
                    at.append(0)
            sources.append((of_last(index), tuple(at)))
        return sources

    def _results(self, v: Index, c: Index | None, tiles: tuple[Tile, ...]) -> Kept | None:
        """What tiles give: of y, in the forward reading, or of x, if there is no class."""
        results = []
        for number, tile in enumerate(tiles):
            kept, index = [], []
            for p, r, q, (start, stop) in zip(self.pieces, v, c or v, tile, strict=True):
                if c is None:
                    kept.append(slice(0, stop - start))
                    index.append(_run(start, stop, r, p.x_step))
                else:
                    part = p.part(r, q)
                    first, last = p.support(r, q)
                    begin, end, origin = max(first, start), min(last, stop), max(0, start - p.taps + 1)
                    kept.append(slice(begin - origin, end - origin))
                    index.append(_run(begin - part.low, end - part.low, part.start, p.y_step))
            if all(each.start < each.stop for each in kept):
                results.append((number, kept, of_last(index)))
        return keep(results)

    def w_view(self, w: Array, c: Index) -> Array:
        view: Array = w[of_last(slice(r, None, p.w_step) for p, r in zip(self.pieces, c, strict=True))]
        return view


def _run(begin: int, end: int, first: int, step: int) -> slice:
    """Of an axis, what is ``first + step*i`` for these i."""
    return slice(first + step * begin, first + step * end, step) if begin < end else slice(0, 0)


def _together(tiles: int, batch: int, size: int) -> tuple[int, int]:
    """How many items of the batch make a task, and how many tiles of each: few enough, and as many in each task."""
    most = max(1, TASK // size)  # tiles of all items together
    items = min(most, max(batch, 1))
    tasks = _ceil(tiles, max(most // items, 1))
    return items, _ceil(tiles, tasks) if tasks else 1


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


@lru_cache(maxsize=64)
def plan_of(reading: Reading, axes: tuple[Axis, ...], x_shape: Shape, w_shape: Shape) -> Plan | None:
    """The cheapest tiles; None if the definition is far cheaper, or the spectra of weights would be huge.

    Lengths along one axis after the other are set to the best, the others as they are: first all, then each again.
    """
    d = len(axes)
    batch = math.prod(x_shape[: -d - 2])
    groups, inputs, outputs = w_shape[:3]
    pieces = tuple(Pieces(axis) for axis in axes)
    classes = math.prod(p.classes for p in pieces)
    parts = classes * math.prod(p.samples for p in pieces)
    products = _taps.products(axes) * batch * groups * inputs * outputs
    allowed = WASTE * products + LITTLE
    if products == 0 or parts * CALL > allowed:
        return None
    channels = groups * max(inputs, outputs)
    slow = SLOW if channels == 1 else SLOW_CHANNELS
    sources = groups * batch * (inputs + outputs * classes)
    whole = [p.whole(reading) for p in pieces]

    def cost(lengths: Sequence[tuple[int, int]]) -> float:
        size = math.prod(n for n, _ in lengths)
        tiles = math.prod(_ceil(longest, block) for (longest, _), (_, block) in zip(whole, lengths, strict=True))
        items, together = _together(tiles, batch, size * channels)
        tasks = _ceil(tiles, together) * _ceil(batch, items)
        tiles = _ceil(tiles, together) * together * math.prod(p.samples for p in pieces)
        rows = together * items * channels * size // lengths[-1][0]
        steps = size * (math.log2(size) + PASSES) * math.pow(max(1, size * channels / CACHE), slow) * (1 + ROWS / rows)
        calls = tiles * (EACH * (1 + classes) + CALL * classes / together)
        pairs = groups * inputs * outputs * size * classes
        sums = PAIR * pairs * tiles * batch
        spectra = (groups, inputs, outputs, size // 2)
        if channels > groups and not is_better_by_pairs(together * items, spectra, inputs * outputs):
            sums += MATRIX * pairs * tasks
        total = tiles * sources * steps + calls + groups * inputs * outputs * classes * steps / 2 + sums
        if tasks > 1 or classes == 1 or total < THREAD:
            return total
        return (math.sqrt(ALONE) if reading == "forward" else ALONE) * total

    candidates = [_lengths(p.taps, *whole[a], real=a == d - 1) for a, p in enumerate(pieces)]
    lengths = [each[-1] for each in candidates]
    for a in [*range(d), *range(d)]:
        lengths = min(([*lengths[:a], length, *lengths[a + 1 :]] for length in candidates[a]), key=cost)
    steps = cost(lengths)
    sizes, blocks = (tuple(v) for v in zip(*lengths, strict=True))
    if steps > allowed or groups * inputs * outputs * math.prod(sizes) * 16 > MOST:
        return None
    return Plan(reading, pieces, sizes, blocks, steps, products, channels)


def least_steps(axes: tuple[Axis, ...], w_shape: Shape) -> int:
    """Of any plan, for each sample of all channels: transforms of 16 numbers and more, and products of spectra."""
    _, inputs, outputs = w_shape[:3]
    classes = math.prod(Pieces(axis).classes for axis in axes)
    shortest = int(math.log2(16)) + PASSES
    return shortest * (inputs + outputs * classes) + PAIR * inputs * outputs * classes


def _lengths(taps: int, longest: int, shortest: int, real: bool) -> list[tuple[int, int]]:
    """Lengths of a transform that may be good, with how many results each has; the last one takes them all."""
    lengths, count = [], longest // taps
    while count > 1:
        size = _fast(_ceil(longest, count) + taps - 1, real)
        if size < shortest:
            lengths.append((size, size - taps + 1))
        count = count * 4 // 5
    return [*lengths, (_fast(max(shortest, 1), real), max(longest, 1))]


def _fast(n: int, real: bool) -> int:
    """A length that is not less and transforms fast: with factors 2, 3 and 5 if one is near, else with 7 and 11 too."""
    size, near = (int(scipy.fft.next_fast_len(n, each)) for each in (False, True))
    return near if real or near <= NEAR * size else size
