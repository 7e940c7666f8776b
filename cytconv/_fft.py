"""Method "fft": products of spectra, on `scipy.fft` and `numpy.fft`.

Along each axis, let ``g = gcd(stride, dilation)`` and ``L = stride*dilation/g``.  Samples ``i = p*dilation/g + v`` and
taps ``k = j*stride/g + c`` meet the outputs ::

    o = (p + j)*L + v*stride + c*dilation - low

and no other samples and taps do.  So for every v and c there is a plain convolution without stride and dilation, whose
sizes are those of the samples, on strided views of x, w and y: no zero is ever inserted.  With ``q = p + j`` ::

    forward          y[q] = sum of x[p] * w[q - p]            Y = X * W
    adjoint          x[p] = sum of y[p + j] * conj(w[j])      X = sum over c of Y * conj(W)
    weight adjoint   w[j] = sum of conj(x[p]) * y[p + j]      W = sum over v and tiles of conj(X) * Y

where the spectrum X is of use to all c, and sums are taken before the one inverse transform.

Results are cut into tiles, each of which reads its samples and a halo of one tap less than the kernel has
(overlap-save).  The transform wraps around; it is just long enough that what is kept does not meet what wraps.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, lru_cache, wraps
from itertools import pairwise, product
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from . import _taps
from ._direct import Direct
from ._geometry import Axis
from ._memory import Scratch, roomy, scratch
from ._phases import Reading
from ._runtime import available_cpus

__all__ = ["Fft", "least_steps", "plan_of"]

Array = NDArray[Any]
Index = tuple[Any, ...]
Sizes = tuple[int, ...]

# Work is counted in steps of butterflies, one for each number of a spectrum and doubling of its length.
PASSES = 6  # steps that copying a tile, multiplying spectra and storing results take together, for each number,
PAIR = 4  # and to multiply the spectra of a pair of channels beside that,
MATRIX = 28  # or to make a number of them an element of a matrix, once in each task, where they are multiplied so
CACHE = 3 * 2**17  # numbers of a tile that the caches hold with its spectrum;
SLOW = 0.2  # beyond that, every step takes longer by this power of the excess,
SLOW_CHANNELS = 0.45  # or this one where products are sums over channels, or there are several
ALONE = 1.4  # how many times longer one task takes than two side by side, whose threads need not wait for each other
ROWS = 2  # rows of the last axis that could be transformed in the time that it takes to prepare for their length
EACH = 120_000  # steps in the time that it takes to copy a tile from or to its place, beside the copying itself,
CALL = 500_000  # and to begin with a task, or with one of its classes
COPY = 1.5  # products of spectra in the time that a number takes to become an element of a matrix,
TINY = 8_000  # and that two calls take beside their work, with another thread at the interpreter
TASK = 2**18  # numbers to transform at once, if tiles are smaller: of several tiles and items of the batch
FEW = 64  # rows, or more, that scipy transforms in single precision, some side by side,
AT_ONCE, SIDE_BY_SIDE = 2**16, 16  # and how many numbers at a time, about, but so many rows at least
SOME = 2**16  # numbers of spectra that two threads transform faster than one
WASTE = 16  # how many steps may stand for one product of the definition,
LITTLE = 8 * 10**7  # and how many are no waste worth avoiding
MOST = 2**28  # bytes of the spectra of weights that are kept, and of those that are summed up at once
MOST_THREADS = 256  # however many are asked for: each has a part of every transform
THREAD = 10**7  # steps that must lie between one wait of threads for each other and the next


def _quietly(f: Callable[..., Any]) -> Callable[..., Any]:
    """The same without warnings of numbers that overflow; each thread has a state of its own."""

    @wraps(f)
    def quiet(*arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return f(*arguments)

    return quiet


class Fft:
    """Method "fft" (see `cytconv._methods.Method`): keeps the spectra of its weights for each size of tile.

    Errors are relative to norms, not to each result.  With eps of the precision computed in, N the numbers in a tile
    and norms over all samples and channels that meet, ``|error| <= eps * (6*log2(N) + C) * norm(x) * norm(w)`` for C
    channels that are summed; a worst case, of which a thousandth was seen on random numbers.

    Where the transforms would take far more steps than the definition has products (`plan_of`), and where a result is
    not finite, because a sample is not or sums of large numbers overflow, method "direct" computes all of it.
    """

    abreast: ClassVar[bool] = False

    def __init__(self, axes: tuple[Axis, ...], w: Array) -> None:
        self._axes, self._w, self._direct = axes, w, Direct(axes, w)
        self._spectra: dict[tuple[Any, ...], Array] = {}

    def forward(self, x: Array, bias: Array | None, y: Array, workers: int) -> None:
        """``y[o] = bias + sum x[i] * w[k]``."""
        plan = plan_of("forward", self._axes, x.shape, self._w.shape)
        if plan is None or not self._forward(plan, x, bias, y, workers):
            self._direct.forward(x, bias, y, workers)

    def adjoint(self, y: Array, bias: Array | None, x: Array, workers: int) -> None:
        """``x[i] = bias + sum y[o] * conj(w[k])``."""
        plan = plan_of("adjoint", self._axes, x.shape, self._w.shape)
        if plan is None or not self._adjoint(plan, y, bias, x, workers):
            self._direct.adjoint(y, bias, x, workers)

    @staticmethod
    def weight_adjoint(axes: tuple[Axis, ...], x: Array, y: Array, w: Array, workers: int) -> None:
        """``w[k] = sum conj(x[i]) * y[o]``."""
        plan = plan_of("weight_adjoint", axes, x.shape, w.shape)
        if plan is None or not _weight_adjoint(plan, x, y, w, workers):
            Direct.weight_adjoint(axes, x, y, w, workers)

    @staticmethod
    def repeat(*_: Any) -> None:
        """There is no short way."""

    def repeat_packed(self, *_: Any) -> None:
        """There is no short way."""

    @_quietly
    def _forward(self, plan: Plan, x: Array, bias: Array | None, y: Array, workers: int) -> bool:
        source, result = _flat(x, plan.d), _flat(y, plan.d)
        offset = None if bias is None else bias.reshape(*bias.shape, *(1,) * plan.d)
        if not plan.covers:
            result[...] = 0 if offset is None else offset

        team = Team(plan.threads(workers, len(source)))
        self._prepare(plan, team)

        def run(task: Task, team: Team) -> bool:
            single = len(plan.classes) == 1  # its product takes the place of the spectrum
            inside, side_by_side = (team, map) if single else (Team(), team.map)

            def phase(c: Index) -> bool:
                spans = [plan.results(task.v, c, tile) for tile in task.tiles]
                with scratch() as more:
                    part = _contract(spectrum, self._spectrum(plan, c, inside), more, in_place=single)
                    view = plan.y_view(result[task.items], task.v, c)
                    return _store(part, spans, view, offset, plan, more, inside)

            with scratch() as memory:
                spectrum = _spectrum(source, task, plan, None, memory, team)
                return all(list(side_by_side(phase, plan.classes)))

        return _finish(y, result, all(_each(run, plan, len(source), team)))

    @_quietly
    def _adjoint(self, plan: Plan, y: Array, bias: Array | None, x: Array, workers: int) -> bool:
        source, result = _flat(y, plan.d), _flat(x, plan.d)
        offset = None if bias is None else bias.reshape(*bias.shape, *(1,) * plan.d)
        team = Team(plan.threads(workers, len(source)))
        self._prepare(plan, team)

        def run(task: Task, team: Team) -> bool:
            with scratch() as memory:
                total: Array | None = None
                for c in plan.classes:
                    spectrum, w = _spectrum(source, task, plan, c, memory, team), self._spectrum(plan, c, team)
                    if total is None:
                        total = _contract(spectrum, w, memory, "total", in_place=len(plan.classes) == 1)
                    else:
                        total += _contract(spectrum, w, memory, in_place=True)
                assert total is not None
                spans = [[Span(start, stop - start, 0) for start, stop in tile] for tile in task.tiles]
                return _store(total, spans, plan.x_view(result[task.items], task.v), offset, plan, memory, team)

        return _finish(x, result, all(_each(run, plan, len(source), team)))

    def _prepare(self, plan: Plan, team: Team) -> None:
        """Have the spectra of all classes, before several threads ask for the same one."""
        if len(plan.classes) == 1:
            numbers = math.prod(self._w.shape[:3]) * math.prod(plan.sizes)
            self._spectrum(plan, plan.classes[0], team if numbers >= SOME else Team())
        elif len(plan.classes) * math.prod(self._w.shape[:3]) * math.prod(plan.sizes) * self._w.itemsize <= MOST:
            for _ in team.map(lambda c: self._spectrum(plan, c, Team()), plan.classes):
                pass

    def _spectrum(self, plan: Plan, c: Index, team: Team) -> Array:
        """What multiplies spectra, of the taps of one class: ``(groups, C of the source, C of the result, *sizes)``."""
        key = plan.reading, plan.sizes, c
        spectrum = self._spectra.get(key)  # two threads may both transform at first: no harm
        if spectrum is None:
            taps = plan.w_view(self._w, c)
            spectrum = roomy((*taps.shape[:3], *plan.frequencies(taps.dtype)), np.result_type(taps.dtype, np.complex64))
            with scratch() as memory:
                _transform([(taps, (0,) * plan.d)], spectrum[None], plan, memory, team)
            if plan.reading == "adjoint":
                spectrum = np.conjugate(spectrum, out=spectrum).swapaxes(1, 2)
            if sum(a.nbytes for a in list(self._spectra.values())) + spectrum.nbytes <= MOST:
                self._spectra[key] = spectrum
        return spectrum


@_quietly
def _weight_adjoint(plan: Plan, x: Array, y: Array, w: Array, workers: int) -> bool:
    samples, outputs = _flat(x, plan.d), _flat(y, plan.d)
    w[...] = 0
    size = w.shape[0] * w.shape[1] * w.shape[2] * math.prod(plan.sizes) * w.itemsize
    classes = plan.classes
    at_once, team = max(1, MOST // (4 * size)), Team(plan.threads(workers, len(samples)))
    for first in range(0, len(classes), at_once):
        chosen = classes[first : first + at_once]

        def run(task: Task, team: Team, chosen: Sequence[Index] = chosen) -> list[Array]:
            with scratch() as memory:
                spectrum = _spectrum(samples, task, plan, None, memory, team, "x")
                np.conjugate(spectrum, out=spectrum)
                return [_correlate(spectrum, _spectrum(outputs, task, plan, c, memory, team)) for c in chosen]

        totals: list[Array] | None = None
        for parts in _each(run, plan, len(samples), team):  # in one order, whatever the number of workers
            if totals is None:
                totals = parts
            else:
                for total, part in zip(totals, parts, strict=True):
                    total += part
        for c, total in zip(chosen, totals or [], strict=True):
            taps = plan.w_view(w, c)
            with scratch() as memory:
                _store(total[None], [[Span(0, n, 0) for n in taps.shape[3:]]], taps, None, plan, memory, team)
    return bool(np.isfinite(w).all())


# ---- the plan ----------------------------------------------------------------------------------------


class Span(NamedTuple):
    """A run of an array, and where in a tile it is."""

    start: int
    size: int
    at: int


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
    tiles: Sequence[Tile]
    items: slice


class Plan:
    """How a reading is cut into tiles of `sizes`, each with so many results along each axis as `blocks` says.

    It takes so many `steps`, and the definition so many `products`.
    """

    def __init__(
        self,
        reading: Reading,
        pieces: tuple[Pieces, ...],
        sizes: Sizes,
        blocks: Sizes,
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
        self.tasks, self.source, self.results = cache(self._tasks), cache(self._source), cache(self._results)

    def frequencies(self, dtype: np.dtype[Any]) -> Sizes:
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
            tiles = list(product(*(self._cuts(a, v[a]) for a in range(self.d))))
            items, together = _together(len(tiles), batch, math.prod(self.sizes) * self.channels)
            for first in range(0, batch, items):
                for start in range(0, len(tiles), together):
                    tasks.append(Task(v, tiles[start : start + together], slice(first, first + items)))
        return tasks

    def _cuts(self, a: int, v: int) -> list[tuple[int, int]]:
        first, last = self.pieces[a].extent(v) if self.reading == "forward" else (0, self.pieces[a].length(v))
        return [(start, min(start + self.blocks[a], last)) for start in range(first, last, self.blocks[a])]

    def _source(self, v: Index, c: Index | None, tile: Tile) -> list[Span]:
        """What a tile reads: of x if there is no class, else of y."""
        spans = []
        for a, (p, (start, stop)) in enumerate(zip(self.pieces, tile, strict=True)):
            if c is None and self.reading == "forward":
                begin = max(0, start - p.taps + 1)
                spans.append(Span(begin, min(p.length(v[a]), stop) - begin, 0))
            elif c is None:
                spans.append(Span(start, stop - start, 0))
            else:
                part = p.part(v[a], c[a])
                first, last = p.support(v[a], c[a])
                begin, end = max(first, start), min(last, stop + p.taps - 1)
                spans.append(Span(begin - part.low, end - begin, begin - start) if begin < end else Span(0, 0, 0))
        return spans

    def _results(self, v: Index, c: Index, tile: Tile) -> list[Span]:
        """What a tile of the forward reading gives of y."""
        spans = []
        for a, (p, (start, stop)) in enumerate(zip(self.pieces, tile, strict=True)):
            first, last = p.support(v[a], c[a])
            begin, end = max(first, start), min(last, stop)
            spans.append(Span(begin - p.part(v[a], c[a]).low, end - begin, begin - max(0, start - p.taps + 1)))
        return spans

    def x_view(self, x: Array, v: Index) -> Array:
        view: Array = x[_index(slice(r, None, p.x_step) for p, r in zip(self.pieces, v, strict=True))]
        return view

    def w_view(self, w: Array, c: Index) -> Array:
        view: Array = w[_index(slice(r, None, p.w_step) for p, r in zip(self.pieces, c, strict=True))]
        return view

    def y_view(self, y: Array, v: Index, c: Index) -> Array:
        starts = [p.part(v[a], c[a]).start for a, p in enumerate(self.pieces)]
        view: Array = y[_index(slice(r, None, p.y_step) for p, r in zip(self.pieces, starts, strict=True))]
        return view


def _together(tiles: int, batch: int, size: int) -> tuple[int, int]:
    """How many items of the batch make a task, and how many tiles of each: few enough, and as many in each task."""
    most = max(1, TASK // size)  # tiles of all items together
    items = min(most, max(batch, 1))
    tasks = _ceil(tiles, max(most // items, 1))
    return items, _ceil(tiles, tasks) if tasks else 1


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


@lru_cache(maxsize=64)
def plan_of(reading: Reading, axes: tuple[Axis, ...], x_shape: Sizes, w_shape: Sizes) -> Plan | None:
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
        if channels > groups and not _is_better_by_pairs(together * items, spectra, inputs * outputs):
            sums += MATRIX * pairs * tasks
        total = tiles * sources * steps + calls + groups * inputs * outputs * classes * steps / 2 + sums
        if tasks > 1 or total < THREAD:
            return total
        return (math.sqrt(ALONE) if reading == "forward" and classes > 1 else ALONE) * total

    candidates = [_lengths(p.taps, *whole[a], real=a == d - 1) for a, p in enumerate(pieces)]
    lengths = [each[-1] for each in candidates]
    for a in [*range(d), *range(d)]:
        lengths = min(([*lengths[:a], length, *lengths[a + 1 :]] for length in candidates[a]), key=cost)
    steps = cost(lengths)
    sizes, blocks = (tuple(v) for v in zip(*lengths, strict=True))
    if steps > allowed or groups * inputs * outputs * math.prod(sizes) * 16 > MOST:
        return None
    return Plan(reading, pieces, sizes, blocks, steps, products, channels)


def least_steps(axes: tuple[Axis, ...], w_shape: Sizes) -> int:
    """Of any plan, for each sample of all channels: transforms of 16 numbers and more, and products of spectra."""
    _, inputs, outputs = w_shape[:3]
    classes = math.prod(Pieces(axis).classes for axis in axes)
    shortest = int(math.log2(16)) + PASSES
    return shortest * (inputs + outputs * classes) + PAIR * inputs * outputs * classes


def _lengths(taps: int, longest: int, shortest: int, real: bool) -> list[tuple[int, int]]:
    """Lengths of a transform that may be good, with how many results each has; the last one takes them all."""
    lengths, count = [], longest // taps
    while count > 1:
        size = scipy.fft.next_fast_len(_ceil(longest, count) + taps - 1, real)
        if size < shortest:
            lengths.append((size, size - taps + 1))
        count = count * 4 // 5
    return [*lengths, (scipy.fft.next_fast_len(max(shortest, 1), real), max(longest, 1))]


# ---- carrying it out ---------------------------------------------------------------------------------


class Team(NamedTuple):
    """The threads that a task may use: inside of a transform, or side by side."""

    threads: int = 1

    def map(self, f: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """Results in order.  The thread that asks works too: others beside it find cores of their own sooner."""
        if self.threads == 1:
            yield from map(f, items)
            return

        @_quietly
        def work(queue: deque[tuple[int, Any]], results: list[Any]) -> None:
            while queue:
                try:
                    i, item = queue.popleft()
                except IndexError:  # another thread was faster
                    return
                results[i] = f(item)

        for first in range(0, len(items), 2 * self.threads):  # no more results than that wait at any time
            some = items[first : first + 2 * self.threads]
            queue, results = deque(enumerate(some)), [None] * len(some)  # every thread takes the next of one queue
            others = [_Pool.submit(work, queue, results) for _ in range(self.threads - 1)]
            work(queue, results)
            for other in others:
                if not other.cancel():  # it has begun
                    other.result()
            yield from results


class _Pool:
    """Threads that wait for work: to start one takes as long as a small transform."""

    threads: ClassVar[ThreadPoolExecutor | None] = None

    @classmethod
    def submit(cls, *work: Any) -> Future[Any]:
        pool = cls.threads
        if pool is None:  # two threads may both make one at first: no harm
            pool = cls.threads = ThreadPoolExecutor(max(available_cpus() - 1, 1), "cytconv")
        return pool.submit(*work)

    @classmethod
    def forget(cls) -> None:
        """A child that was forked has none of its parent's threads."""
        cls.threads = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Pool.forget)


def _each(run: Callable[[Task, Team], Any], plan: Plan, batch: int, team: Team) -> Iterator[Any]:
    """Run every task; what they return, in order.  Tasks side by side, and threads inside of those that are left."""
    tasks = plan.tasks(batch)
    even = len(tasks) - len(tasks) % team.threads
    yield from team.map(lambda task: run(task, Team()), tasks[:even])
    yield from (run(task, team) for task in tasks[even:])


def _flat(a: Array, d: int) -> Array:
    """All batch axes as one: a view if there can be one."""
    return a.reshape(-1, *a.shape[-d - 2 :])


def _finish(to: Array, result: Array, finite: bool) -> bool:
    if not np.may_share_memory(to, result):
        to[...] = result.reshape(to.shape)
    return finite


def _spectrum(
    a: Array, task: Task, plan: Plan, c: Index | None, memory: Scratch, team: Team, name: str = "tiles"
) -> Array:
    """Of the tiles of x, or those of y that meet the taps c: ``(tiles, items, groups, C, *frequencies)``."""
    view = plan.x_view(a[task.items], task.v) if c is None else plan.y_view(a[task.items], task.v, c)
    spans = [plan.source(task.v, c, tile) for tile in task.tiles]
    parts = [(view[_where(each)], tuple(span.at for span in each)) for each in spans]
    shape = (len(parts), *view.shape[:3], *plan.frequencies(a.dtype))
    return _transform(parts, memory.take(name, shape, np.result_type(a.dtype, np.complex64)), plan, memory, team)


def _index(slices: Iterable[slice]) -> Index:
    """Of the last axes."""
    return (..., *slices)


def _where(spans: Sequence[Span]) -> Index:
    return _index(slice(span.start, max(span.start + span.size, 0)) for span in spans)


def _crop(tiles: Sequence[Sequence[Span]]) -> list[tuple[int, int]] | None:
    """What of the tiles is kept of any of them; None if nothing is."""
    kept = [spans for spans in tiles if all(span.size > 0 for span in spans)]
    if not kept:
        return None
    return [(min(s.at for s in spans), max(s.at + s.size for s in spans)) for spans in zip(*kept, strict=True)]


def _relative(spans: Sequence[Span], crop: Sequence[tuple[int, int]]) -> Index:
    return _index(slice(s.at - first, s.at - first + s.size) for s, (first, _) in zip(spans, crop, strict=True))


def _transform(parts: Sequence[tuple[Array, Sizes]], to: Array, plan: Plan, memory: Scratch, team: Team) -> Array:
    """Spectra of tiles: along each axis, so many zeros, then a part, then zeros."""
    d, (first, at) = plan.d, parts[0]
    used = [max(1, *(at[a] + part.shape[a - d] for part, at in parts)) for a in range(d - 1)]
    rows = [slice(0, n) for n in used]
    spectra, real = to[_index([*rows, slice(None)])], first.dtype.kind == "f"
    if real and len(parts) == 1 and first.size and not any(at):
        samples = first[None]  # zeros are appended to it
    else:  # as one array: to transform one after the other would take longer than to copy them
        shape = (len(parts), *first.shape[:-d], *used, plan.sizes[-1])
        samples = memory.take("samples", shape, first.dtype) if real else spectra
        for tile, (part, at) in zip(samples, parts, strict=True):
            inside = [slice(n, n + size) for n, size in zip(at, part.shape[-d:], strict=True)]
            tile[_index(inside)] = part
            _clear_around(tile, inside)
    if real:
        single = first.itemsize == 4 and math.prod(samples.shape[:-1]) >= FEW
        _by_rows(_rfft_single if single else _rfft, samples, plan.sizes[-1], spectra, team, AT_ONCE if single else None)
    else:
        _in_place(scipy.fft.fft, spectra, -1, team)
    for axis in range(-2, -d - 1, -1):  # rows of zeros need no transform along the later axes
        view = to[_index([*rows[: d + axis], *[slice(None)] * -axis])]
        view[_index([slice(used[axis + 1], None), *[slice(None)] * (-axis - 1)])] = 0
        _in_place(scipy.fft.fft, view, axis, team)
    return to


def _clear_around(tile: Array, inside: Sequence[slice]) -> None:
    """Zeros where one of the last axes is not `inside`."""
    for axis, (here, size) in enumerate(zip(inside, tile.shape[-len(inside) :], strict=True)):
        for gap in (slice(0, here.start), slice(here.stop, size)):
            if gap.start < size and gap.stop > 0:
                tile[_index([*inside[:axis], gap, *[slice(None)] * (len(inside) - axis - 1)])] = 0


def _by_rows(
    transform: Callable[[Array, int, Array], object], a: Array, n: int, to: Array, team: Team, most: int | None = None
) -> None:
    """Along the last axis, to length n; about so many numbers at a time, at `most`, but some rows."""
    axis = a.shape.index(max(a.shape[:-1]))
    size, rows = a.shape[axis], math.prod(a.shape[:-1])
    step = size if most is None else max(1, max(SIDE_BY_SIDE, most // n) * size // rows)

    def some(cut: tuple[int, int]) -> None:
        for first in range(*cut, step):
            part = (*[slice(None)] * axis, slice(first, min(first + step, cut[1])))
            transform(a[part], n, to[part])

    cuts = [size * t // team.threads for t in range(team.threads + 1)]
    list(team.map(some, [cut for cut in pairwise(cuts) if cut[0] < cut[1]]))


def _rfft(a: Array, n: int, to: Array) -> None:
    """By numpy, which writes where it is told to."""
    np.fft.rfft(a, n, out=to)


def _rfft_single(a: Array, n: int, to: Array) -> None:
    """By scipy, as numpy computes in double; of so many rows that the new array is still near when it is copied."""
    to[...] = scipy.fft.rfft(a, n, workers=1)


def _irfft(a: Array, n: int, to: Array) -> None:
    np.fft.irfft(a, n, out=to)


def _in_place(transform: Callable[..., Array], a: Array, axis: int, team: Team) -> None:
    result = transform(a, axis=axis, workers=team.threads, overwrite_x=True)
    if not np.may_share_memory(result, a):  # it may, but need not
        a[...] = result


def _store(
    spectrum: Array,
    spans: Sequence[Sequence[Span]],
    to: Array,
    offset: Array | None,
    plan: Plan,
    memory: Scratch,
    team: Team,
) -> bool:
    """Transform back, in place, and store the spans of each tile; whether they are finite.

    It is done along one axis after the other: what is not kept of one need not be transformed along the next.
    """
    crop = _crop(spans)
    if crop is None:
        return True
    for axis, (first, last) in zip(range(-plan.d, -1), crop, strict=False):
        _in_place(scipy.fft.ifft, spectrum, axis, team)
        spectrum = spectrum[_index([slice(first, last), *[slice(None)] * (-1 - axis)])]
    if to.dtype.kind == "f":
        results = memory.take("results", (*spectrum.shape[:-1], plan.sizes[-1]), to.dtype)
        _by_rows(_irfft, spectrum, plan.sizes[-1], results, team)
    else:
        results = spectrum
        _in_place(scipy.fft.ifft, results, -1, team)
    for part, tile in zip(results[..., slice(*crop[-1])], spans, strict=True):
        if all(span.size > 0 for span in tile):
            kept, target = part[_relative(tile, crop)], to[_where(tile)]
            np.copyto(target, kept) if offset is None else np.add(kept, offset, out=target)
    return bool(np.isfinite(results.sum()))  # fastest of all that is contiguous


def _contract(a: Array, w: Array, memory: Scratch, name: str = "products", in_place: bool = False) -> Array:
    """Of each frequency, ``a @ w`` over channels: ``(tiles, items, groups, C, *frequencies)``."""
    shape = (*a.shape[:3], w.shape[2], *a.shape[4:])
    if w.shape[1] == 1:
        return np.multiply(a, w[:, 0], out=a if in_place and a.shape == shape else memory.take(name, shape, a.dtype))
    if _is_better_by_pairs(a.shape[0] * a.shape[1], w.shape, w.shape[1] * w.shape[2]):
        sums, term = memory.take(name, shape, a.dtype), memory.take("terms", a[:, :, :, 0].shape, a.dtype)
        for o in range(w.shape[2]):
            np.multiply(a[:, :, :, 0], w[:, 0, o], out=sums[:, :, :, o])
            for c in range(1, w.shape[1]):
                sums[:, :, :, o] += np.multiply(a[:, :, :, c], w[:, c, o], out=term)
        return sums
    by_frequency = _by_frequency(a.reshape(-1, *a.shape[2:])) @ np.ascontiguousarray(_frequency_first(w))
    product: Array = np.moveaxis(by_frequency, (2, 1), (0, 3)).reshape(shape)
    return product


def _correlate(x: Array, y: Array) -> Array:
    """Of each frequency, ``x^T @ y`` over tiles and items: ``(groups, channels of x, channels of y, *frequencies)``."""
    x, y = (a.reshape(-1, *a.shape[2:]) for a in (x, y))
    if x.shape[2] == y.shape[2] == 1:
        return np.multiply(x, y, out=y).sum(axis=0, out=roomy(y.shape[1:], y.dtype))[:, :, None]
    shape = (x.shape[1], x.shape[2], y.shape[2], *x.shape[3:])
    if _is_better_by_pairs(len(x), shape, len(x) * shape[2]):
        sums, term = roomy(shape, y.dtype), roomy(shape[:2] + shape[3:], y.dtype)
        for o in range(y.shape[2]):
            np.multiply(x[0], y[0, :, o, None], out=sums[:, :, o])
            for some_x, some_y in zip(x[1:], y[1:], strict=True):
                sums[:, :, o] += np.multiply(some_x, some_y[:, o, None], out=term)
        return sums
    by_frequency = _by_frequency(x).swapaxes(2, 3) @ _by_frequency(y)
    return np.moveaxis(by_frequency, 1, 3).reshape(shape)


def _is_better_by_pairs(rows: int, shape: Sizes, calls: int) -> bool:
    """Whether products for each pair of channels take less time than to bring the frequencies first, for matmul.

    Spectra of weights have the shape ``(groups, C, C, *frequencies)``, and each of so many `calls` stands for two: to
    multiply and to add up.
    """
    groups, inputs, outputs, *frequencies = shape
    pairs, size = inputs * outputs, groups * math.prod(frequencies)
    copied = rows * (inputs + outputs) + pairs
    return pairs * rows * size + calls * TINY <= COPY * copied * size


def _by_frequency(a: Array) -> Array:
    """``(items, groups, C, *frequencies)`` as matrices ``(groups, frequency, items, C)``."""
    return np.ascontiguousarray(_frequency_first(np.moveaxis(a, 0, 1)))


def _frequency_first(a: Array) -> Array:
    """``(groups, rows, columns, *frequencies)`` as ``(groups, frequency, rows, columns)``."""
    return np.moveaxis(a.reshape(*a.shape[:3], -1), 3, 1)
