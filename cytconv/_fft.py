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
    _spectra       transforms of tiles and products over channels, on `scipy.fft` and `numpy.fft`
    _team          the threads that do it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ._direct import Direct
from ._geometry import Axis
from ._memory import Scratch, roomy, scratch
from ._spectra import Index, Span, contract, correlate, store, transform, where
from ._team import Team, quietly
from ._tiles import MOST, Plan, Task, plan_of

__all__ = ["Fft"]

Array = NDArray[Any]

SOME = 2**16  # numbers of spectra that two threads transform faster than one


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

    @quietly
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
                    part = contract(spectrum, self._spectrum(plan, c, inside), more, in_place=single)
                    view = plan.y_view(result[task.items], task.v, c)
                    return store(part, spans, view, offset, plan.sizes, more, inside)

            with scratch() as memory:
                spectrum = _spectrum(source, task, plan, None, memory, team)
                return all(list(side_by_side(phase, plan.classes)))

        return _finish(y, result, all(_each(run, plan, len(source), team)))

    @quietly
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
                        total = contract(spectrum, w, memory, "total", in_place=len(plan.classes) == 1)
                    else:
                        total += contract(spectrum, w, memory, in_place=True)
                assert total is not None
                spans = [[Span(start, stop - start, 0) for start, stop in tile] for tile in task.tiles]
                return store(total, spans, plan.x_view(result[task.items], task.v), offset, plan.sizes, memory, team)

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
                transform([(taps, (0,) * plan.d)], spectrum[None], plan.sizes, memory, team)
            if plan.reading == "adjoint":
                spectrum = np.conjugate(spectrum, out=spectrum).swapaxes(1, 2)
            if sum(a.nbytes for a in list(self._spectra.values())) + spectrum.nbytes <= MOST:
                self._spectra[key] = spectrum
        return spectrum


@quietly
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
                return [correlate(spectrum, _spectrum(outputs, task, plan, c, memory, team)) for c in chosen]

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
                store(total[None], [[Span(0, n, 0) for n in taps.shape[3:]]], taps, None, plan.sizes, memory, team)
    return bool(np.isfinite(w).all())


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
    parts = [(view[where(each)], tuple(span.at for span in each)) for each in spans]
    shape = (len(parts), *view.shape[:3], *plan.frequencies(a.dtype))
    return transform(parts, memory.take(name, shape, np.result_type(a.dtype, np.complex64)), plan.sizes, memory, team)
