"""Method "fft": products of spectra.

Along each axis, let ``g = gcd(stride, dilation)`` and ``L = stride*dilation/g``.  Samples ``i = p*dilation/g + v`` and
taps ``k = j*stride/g + c`` meet the outputs ::

    o = (p + j)*L + v*stride + c*dilation - low

and no other samples and taps do.  So for every v and c there is a plain convolution without stride and dilation, whose
sizes are those of the samples, on strided views of x, w and y: no zero is ever inserted.  With ``q = p + j`` ::

    forward          y[q] = sum of x[p] * w[q - p]            Y = X * W
    adjoint          x[p] = sum of y[p + j] * conj(w[j])      X = sum over c of Y * conj(W)
    weight adjoint   w[j] = sum of conj(x[p]) * y[p + j]      W = sum over v and tiles of conj(X) * Y

where the spectrum X is of use to all c, and sums are taken before the one inverse transform.

    _tiles         how results are cut into tiles, and what that costs
    _spectra       transforms of tiles and products over channels, on `scipy.fft`
    _team          the threads that do it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ._direct import Direct
from ._geometry import Axis
from ._memory import Scratch, empty, roomy, scratch
from ._spectra import (
    Index,
    Kept,
    Transform,
    contract,
    correlate,
    keep,
    store,
    transform,
    transform_back,
    transform_columns_back,
)
from ._team import Team, quietly
from ._tiles import MOST, Plan, Task, plan_of

__all__ = ["Fft"]

Array = NDArray[Any]


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
        self._in_place = w.shape[1:3] == (1, 1)  # a product takes the place of the spectrum
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

    @quietly
    def _forward(self, plan: Plan, x: Array, bias: Array | None, y: Array, workers: int) -> bool:
        source, result, n = _flat(x, plan.d), _flat(y, plan.d), plan.sizes[-1]
        if not plan.covers:
            result[...] = 0
        team = Team(plan.threads(workers, len(source)))
        self._prepare(plan, len(source), team)

        def of_class(task: Task, c: Index, spectra: Array) -> bool:
            """One of several classes, by one thread."""
            given, kept = result[task.items], plan.results(task.v, c, task.tiles)
            if kept is None:
                return True
            with scratch() as memory:
                products = _room(memory, "products", task, given, plan)
                _multiply(spectra, self._spectrum(plan, c, Team()), products, kept, ())
                return store(products, kept, given, n, Team())

        def run(task: Task, team: Team) -> bool:
            given = result[task.items]
            with scratch() as memory:
                of_x = _transform(source[task.items], task, None, plan, memory, "x")
                if len(plan.classes) > 1:
                    transform([of_x], team)
                    return all(team.map(lambda c: of_class(task, c, of_x.spectra), plan.classes))
                (c,) = plan.classes
                kept = plan.results(task.v, c, task.tiles)
                if kept is None:
                    return True
                w, of_w = self._weights(plan, c, memory)
                products = of_x.spectra if self._in_place else _room(memory, "products", task, given, plan)
                transform([*of_w, of_x], team, partial(_multiply, of_x.spectra, w, products, kept))
                if of_w:
                    self._keep(plan, c, w)
                return store(products, kept, given, n, team)

        return _finish(y, result, bias, all(_each(run, plan, len(source), team)))

    @quietly
    def _adjoint(self, plan: Plan, y: Array, bias: Array | None, x: Array, workers: int) -> bool:
        source, result, n = _flat(y, plan.d), _flat(x, plan.d), plan.sizes[-1]
        team = Team(plan.threads(workers, len(source)))
        self._prepare(plan, len(source), team)

        def run(task: Task, team: Team) -> bool:
            given, kept = result[task.items], plan.results(task.v, None, task.tiles)
            assert kept is not None

            def multiply(c: Index, w: Array, spectra: Array, products: Array, sums: Array, cut: Index) -> None:
                contract(spectra[cut], w[cut], products[cut], w.shape[3:])
                if products is not sums:
                    np.add(sums[cut], products[cut], out=sums[cut])
                if c == plan.classes[-1]:
                    transform_columns_back(sums[cut], kept)

            with scratch() as memory:
                sums: Array | None = None
                for c in plan.classes:
                    w, of_w = self._weights(plan, c, memory)
                    of_y = _transform(source[task.items], task, c, plan, memory, "y")
                    # The products of the first class are what others are added to: not where the next spectra will be.
                    if self._in_place and (sums is not None or len(plan.classes) == 1):
                        products = of_y.spectra
                    else:
                        products = _room(memory, "sums" if sums is None else "products", task, given, plan)
                    sums = products if sums is None else sums
                    transform([*of_w, of_y], team, partial(multiply, c, w, of_y.spectra, products, sums))
                    if of_w:
                        self._keep(plan, c, w)
                assert sums is not None
                return store(sums, kept, given, n, team)

        return _finish(x, result, bias, all(_each(run, plan, len(source), team)))

    def _prepare(self, plan: Plan, batch: int, team: Team) -> None:
        """Have the spectra of all classes, before several threads ask for the same one."""
        if len(plan.tasks(batch)) == 1 and (len(plan.classes) == 1 or plan.reading == "adjoint"):
            return  # it transforms them with those of the samples
        if len(plan.classes) == 1:
            self._spectrum(plan, plan.classes[0], team)
        elif len(plan.classes) * math.prod(self._w.shape[:3]) * math.prod(plan.sizes) * self._w.itemsize <= MOST:
            team.map(lambda c: self._spectrum(plan, c, Team()), plan.classes)

    def _spectrum(self, plan: Plan, c: Index, team: Team) -> Array:
        """What multiplies spectra, of the taps of one class: ``(groups, C of the source, C of the result, *sizes)``."""
        with scratch() as memory:
            spectrum, todo = self._weights(plan, c, memory)
            if todo:
                transform(todo, team)
                self._keep(plan, c, spectrum)
            return spectrum

    def _weights(self, plan: Plan, c: Index, memory: Scratch) -> tuple[Array, list[Transform]]:
        """The same, and what is still to be done for it."""
        spectrum = self._spectra.get((plan.reading, plan.sizes, c))  # two threads may both transform at first: no harm
        if spectrum is not None:
            return spectrum, []
        taps, adjoint = plan.w_view(self._w, c), plan.reading == "adjoint"
        shape, dtype = (*taps.shape[:3], *plan.frequencies(taps.dtype)), np.result_type(taps.dtype, np.complex64)
        spectrum = empty(shape, dtype, slow=True)
        todo = Transform([(taps, (0,) * plan.d)], spectrum[None], plan.sizes, memory, "w", adjoint)
        return spectrum.swapaxes(1, 2) if adjoint else spectrum, [todo]

    def _keep(self, plan: Plan, c: Index, spectrum: Array) -> None:
        if sum(a.nbytes for a in list(self._spectra.values())) + spectrum.nbytes <= MOST:
            self._spectra[plan.reading, plan.sizes, c] = spectrum


@quietly
def _weight_adjoint(plan: Plan, x: Array, y: Array, w: Array, workers: int) -> bool:
    samples, outputs = _flat(x, plan.d), _flat(y, plan.d)
    frequencies = plan.frequencies(w.dtype)
    shape, dtype = (*w.shape[:3], *frequencies), np.result_type(w.dtype, np.complex64)
    w[...] = 0
    team = Team(plan.threads(workers, len(samples)))
    at_once = max(1, MOST // (4 * math.prod(shape) * dtype.itemsize))
    for first in range(0, len(plan.classes), at_once):
        chosen = plan.classes[first : first + at_once]

        def run(task: Task, team: Team, chosen: Sequence[Index] = chosen) -> list[Array]:
            read, given = samples[task.items], outputs[task.items]
            with scratch() as memory:
                of_x = _transform(read, task, None, plan, memory, "x", conjugate=True)
                sums: list[Array] = []
                for c in chosen:
                    of_y, to = _transform(given, task, c, plan, memory, "y"), roomy(shape, dtype)

                    def some(cut: Index, of_y: Transform = of_y, to: Array = to) -> None:
                        correlate(of_x.spectra[cut], of_y.spectra[cut], to[cut], frequencies)

                    transform([of_y] if sums else [of_x, of_y], team, some)
                    sums.append(to)
                return sums

        totals: list[Array] | None = None
        for parts in _each(run, plan, len(samples), team):  # in one order, whatever the number of workers
            if totals is None:
                totals = parts
            else:
                for total, part in zip(totals, parts, strict=True):
                    total += part
        for c, total in zip(chosen, totals or [], strict=True):
            taps = plan.w_view(w, c)
            kept = keep([(0, [slice(0, n) for n in taps.shape[3:]], ())])
            assert kept is not None
            transform_back(total[None], kept, taps, plan.sizes[-1], team)
    return bool(np.isfinite(w).all())


def _multiply(spectra: Array, w: Array, products: Array, kept: Kept, cut: Index) -> None:
    """What some frequencies take between the transforms of rows there and back."""
    contract(spectra[cut], w[cut], products[cut], w.shape[3:])
    transform_columns_back(products[cut], kept)


def _each(run: Callable[[Task, Team], Any], plan: Plan, batch: int, team: Team) -> Iterator[Any]:
    """Run every task; what they return, in order.  Tasks side by side, and threads inside of those that are left."""
    tasks = plan.tasks(batch)
    even = len(tasks) - len(tasks) % team.threads
    for first in range(0, even, 2 * team.threads):  # no more results than that wait at any time
        some = tasks[first : min(first + 2 * team.threads, even)]
        yield from team.map(lambda task: run(task, Team()), some)
    yield from (run(task, team) for task in tasks[even:])


def _flat(a: Array, d: int) -> Array:
    """All batch axes as one: a view if there can be one."""
    return a.reshape(-1, *a.shape[-d - 2 :])


def _finish(to: Array, result: Array, bias: Array | None, finite: bool) -> bool:
    if bias is not None:
        result += bias.reshape(*bias.shape, *(1,) * (result.ndim - 3))
    if not np.may_share_memory(to, result):
        to[...] = result.reshape(to.shape)
    return finite


def _room(memory: Scratch, name: str, task: Task, items: Array, plan: Plan) -> Array:
    """For spectra of the tiles of a task: ``(tiles, items, groups, C, *frequencies)``."""
    shape = (len(task.tiles), *items.shape[:3], *plan.frequencies(items.dtype))
    return memory.take(name, shape, np.result_type(items.dtype, np.complex64))


def _transform(
    items: Array, task: Task, c: Index | None, plan: Plan, memory: Scratch, name: str, conjugate: bool = False
) -> Transform:
    """Of the tiles of x, or those of y that meet the taps c."""
    parts = [(items[index], at) for index, at in plan.sources(task.v, c, task.tiles)]
    return Transform(parts, _room(memory, f"spectra of {name}", task, items, plan), plan.sizes, memory, name, conjugate)
