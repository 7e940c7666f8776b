"""Spectra of tiles, on `scipy.fft`: transforms there and back, and products over channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from ._geometry import Shape
from ._memory import Scratch, scratch
from ._team import Team

__all__ = [
    "Index",
    "Kept",
    "Transform",
    "contract",
    "correlate",
    "is_better_by_pairs",
    "keep",
    "of_last",
    "store",
    "transform",
    "transform_back",
    "transform_columns_back",
]

Array = NDArray[Any]
Index = tuple[Any, ...]

AT_ONCE, SIDE_BY_SIDE = 2**16, 16  # numbers of rows to transform at a time, about, but so many rows at least
NARROW = 16  # frequencies of the last axis that a thread should have at least; numpy multiplies a single one otherwise
COPY = 1.5  # products of spectra in the time that a number takes to become an element of a matrix,
TINY = 8_000  # and that two calls take beside their work, with another thread at the interpreter


class Kept(NamedTuple):
    """What of the results of some tiles is of use, and where it goes."""

    rows: list[slice]  # of any of them, along all axes but the last
    places: list[tuple[int, Index, Index]]  # which tile, what of it along the last axes, starting from `rows`; where to


def keep(results: Sequence[tuple[int, list[slice], Index]]) -> Kept | None:
    """Of tiles by number, what is kept along each axis and where it goes; None if there is none."""
    if not results:
        return None
    along = list(zip(*(kept for _, kept, _ in results), strict=True))
    rows = [slice(min(kept.start for kept in each), max(kept.stop for kept in each)) for each in along[:-1]]
    places = []
    for tile, (*kept, last), where in results:
        within = [slice(k.start - r.start, k.stop - r.start) for k, r in zip(kept, rows, strict=True)]
        places.append((tile, of_last([*within, last]), where))
    return Kept(rows, places)


def of_last(slices: Iterable[slice]) -> Index:
    """An index of the last axes."""
    return (..., *slices)


class Transform:
    """Spectra of tiles: along each axis, so many zeros, then a part, then zeros.

    They are computed in two steps, some rows at a time and then some frequencies of the last axis at a time: none of
    these needs another.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Array, Shape]],
        spectra: Array,
        sizes: Shape,
        memory: Scratch,
        name: str,
        conjugate: bool = False,
    ) -> None:
        d, (first, at) = len(sizes), parts[0]
        self.spectra, self._n, self._conjugate = spectra, sizes[-1], conjugate
        self._used = [slice(0, max(1, *(at[a] + part.shape[a - d] for part, at in parts))) for a in range(d - 1)]
        self._by_row = scipy.fft.rfft if first.dtype.kind == "f" else scipy.fft.fft
        self._rows = spectra[of_last([*self._used, slice(None)])]
        if len(parts) == 1 and first.size and not any(at):
            self._samples = first[None]  # zeros are appended to it
            return
        # As one array: to transform one after the other would take longer than to copy them.
        self._samples = memory.take(f"samples of {name}", (*self._rows.shape[:-1], self._n), first.dtype)
        for tile, (part, at) in zip(self._samples, parts, strict=True):
            inside = [slice(n, n + size) for n, size in zip(at, part.shape[-d:], strict=True)]
            tile[of_last(inside)] = part
            _clear_around(tile, inside)

    def some_frequencies(self, team: Team) -> list[Index]:
        """A part for each thread, for `transform_columns`."""
        return _columns(self.spectra.shape[-1], team)

    def some_rows(self, team: Team) -> list[Index]:
        """Parts for `transform_rows`."""
        return _few_rows(self._rows.shape, self._n, team)

    def transform_rows(self, cut: Index) -> None:
        self._rows[cut] = self._by_row(self._samples[cut], self._n, workers=1)

    def transform_columns(self, cut: Index) -> None:
        some, used = self.spectra[cut], self._used
        for axis in range(-2, -len(used) - 2, -1):  # rows of zeros need no transform along the later axes
            view = some[of_last([*used[: axis + 1], *[slice(None)] * -axis])]
            view[of_last([slice(used[axis + 1].stop, None), *[slice(None)] * (-axis - 1)])] = 0
            _in_place(scipy.fft.fft, view, axis)
        if self._conjugate:
            np.conjugate(some, out=some)


def transform(transforms: Sequence[Transform], team: Team, then: Callable[[Index], object] | None = None) -> None:
    """All of these, which have the same sizes; then the threads go on, each with the frequencies that it has."""

    def transform_columns(cut: Index) -> None:
        for each in transforms:
            each.transform_columns(cut)
        if then is not None:
            then(cut)

    jobs = [(each, cut) for each in transforms for cut in each.some_rows(team)]
    team.map(lambda job: job[0].transform_rows(job[1]), jobs)
    team.map(transform_columns, transforms[0].some_frequencies(team))


def _clear_around(tile: Array, inside: Sequence[slice]) -> None:
    """Zeros where one of the last axes is not `inside`."""
    for axis, (here, size) in enumerate(zip(inside, tile.shape[-len(inside) :], strict=True)):
        for gap in (slice(0, here.start), slice(here.stop, size)):
            if gap.start < size and gap.stop > 0:
                tile[of_last([*inside[:axis], gap, *[slice(None)] * (len(inside) - axis - 1)])] = 0


def _in_place(transform: Callable[..., Array], a: Array, axis: int) -> None:
    result = transform(a, axis=axis, workers=1, overwrite_x=True)
    if not np.may_share_memory(result, a):  # it may, but need not
        a[...] = result


def _few_rows(shape: Shape, n: int, team: Team) -> list[Index]:
    """Of what is transformed along the last axis, to length n: little enough to be still near when it is copied."""
    parts = -(-math.prod(shape[:-1]) // max(SIDE_BY_SIDE, AT_ONCE // n))
    return _cuts(shape[:-1], -(-parts // team.threads) * team.threads)


def _columns(frequencies: int, team: Team) -> list[Index]:
    """Of the frequencies of the last axis, a part for each thread that is no less than a few cache lines wide."""
    return [(..., *cut) for cut in _cuts((frequencies,), min(team.threads, frequencies // NARROW))]


def _cuts(shape: Shape, parts: int) -> list[Index]:
    """Indices of so many parts at most, along the longest axis."""
    if parts < 2:
        return [()]
    axis = shape.index(max(shape))
    size, before = shape[axis], (slice(None),) * axis
    ends = [size * part // parts for part in range(parts + 1)]
    return [(*before, slice(*cut)) for cut in pairwise(ends) if cut[0] < cut[1]]


def transform_columns_back(spectra: Array, kept: Kept) -> None:
    """Transform back, in place, along all axes but the last: what is not kept of one need not be along the next."""
    for axis, rows in enumerate(kept.rows, -len(kept.rows) - 1):
        _in_place(scipy.fft.ifft, spectra, axis)
        spectra = spectra[of_last([rows, *[slice(None)] * (-1 - axis)])]


def transform_back(spectra: Array, kept: Kept, to: Array, n: int, team: Team) -> bool:
    """Transform back along all axes, and store what is kept; whether it is finite."""
    team.map(lambda cut: transform_columns_back(spectra[cut], kept), _columns(spectra.shape[-1], team))
    return store(spectra, kept, to, n, team)


def store(spectra: Array, kept: Kept, to: Array, n: int, team: Team) -> bool:
    """The same after `transform_columns_back`: rows, whose results have length n."""
    by_row = scipy.fft.irfft if to.dtype.kind == "f" else scipy.fft.ifft
    spectra = spectra[of_last([*kept.rows, slice(None)])]
    together = AT_ONCE // (math.prod(spectra.shape[1:-1]) * n)

    def store_rows(job: tuple[Array, list[tuple[int, Index, Array]]]) -> bool:
        some, places = job
        results = by_row(some, n, workers=1)
        for tile, part, place in places:
            place[...] = results[tile][part]
        # A sum is fastest of all that is contiguous.  That it overflows where no result does must decide nothing, as
        # sums are of other parts with other numbers of threads.
        return bool(np.isfinite(results.sum()) or np.isfinite(results).all())

    jobs = []
    if together > 1:  # small tiles
        for i, group in groupby(kept.places, lambda place: place[0] // together):
            some = spectra[i * together : (i + 1) * together]
            jobs.append((some, [(tile % together, part, to[where]) for tile, part, where in group]))
    else:
        for tile, (_, *rows, part), where in kept.places:
            some, place = spectra[tile][of_last([*rows, slice(None)])], to[where]
            for cut in _few_rows(place.shape, n, team):
                jobs.append((some[cut][None], [(0, (..., part), place[cut])]))
    return all(team.map(store_rows, jobs))


def contract(a: Array, w: Array, to: Array, all_frequencies: Shape) -> None:
    """Of some frequencies, ``a @ w`` over channels: ``(tiles, items, groups, C, *frequencies)``."""
    if w.shape[1] == 1:
        np.multiply(a, w[:, 0], out=to)
    # By all frequencies, so that sums are the same however many threads have a part.
    elif is_better_by_pairs(a.shape[0] * a.shape[1], (*w.shape[:3], *all_frequencies), w.shape[1] * w.shape[2]):
        with scratch() as memory:
            term = memory.take("terms", a[:, :, :, 0].shape, a.dtype)
            for o in range(w.shape[2]):
                np.multiply(a[:, :, :, 0], w[:, 0, o], out=to[:, :, :, o])
                for c in range(1, w.shape[1]):
                    to[:, :, :, o] += np.multiply(a[:, :, :, c], w[:, c, o], out=term)
    else:
        products = _by_frequency(a.reshape(-1, *a.shape[2:])) @ np.ascontiguousarray(_frequency_first(w))
        to[...] = np.moveaxis(products, (-2, -1), (0, 2)).reshape(to.shape)


def correlate(x: Array, y: Array, to: Array, all_frequencies: Shape) -> None:
    """Of some frequencies, ``x^T @ y`` over tiles and items: ``(groups, channels of x, those of y, *frequencies)``."""
    x, y = (a.reshape(-1, *a.shape[2:]) for a in (x, y))
    if x.shape[2] == y.shape[2] == 1:
        np.multiply(x, y, out=y).sum(axis=0, out=to[:, :, 0])
    elif is_better_by_pairs(len(x), (*to.shape[:3], *all_frequencies), len(x) * to.shape[2]):
        with scratch() as memory:
            term = memory.take("terms", to[:, :, 0].shape, to.dtype)
            for o in range(y.shape[2]):
                np.multiply(x[0], y[0, :, o, None], out=to[:, :, o])
                for some_x, some_y in zip(x[1:], y[1:], strict=True):
                    to[:, :, o] += np.multiply(some_x, some_y[:, o, None], out=term)
    else:
        products = _by_frequency(x).swapaxes(-2, -1) @ _by_frequency(y)
        to[...] = np.moveaxis(products, (-2, -1), (1, 2))


def is_better_by_pairs(rows: int, shape: Shape, calls: int) -> bool:
    """Whether products for each pair of channels take less time than to bring the frequencies first, for matmul.

    Spectra of weights have the shape ``(groups, C, C, *frequencies)``, and each of so many `calls` stands for two: to
    multiply and to add up.
    """
    groups, inputs, outputs, *frequencies = shape
    pairs, size = inputs * outputs, groups * math.prod(frequencies)
    copied = rows * (inputs + outputs) + pairs
    return pairs * rows * size + calls * TINY <= COPY * copied * size


def _by_frequency(a: Array) -> Array:
    """``(items, groups, C, *frequencies)`` as matrices ``(groups, *frequencies, items, C)``."""
    return np.ascontiguousarray(_frequency_first(np.moveaxis(a, 0, 1)))


def _frequency_first(a: Array) -> Array:
    """``(groups, rows, columns, *frequencies)`` as ``(groups, *frequencies, rows, columns)``."""
    return np.moveaxis(a, (1, 2), (-2, -1))
