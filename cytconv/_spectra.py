"""Spectra of tiles, on `scipy.fft` and `numpy.fft`: transforms there and back, and products over channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from ._geometry import Shape
from ._memory import Scratch, roomy, scratch
from ._team import Team

__all__ = [
    "Index",
    "Span",
    "contract",
    "correlate",
    "is_better_by_pairs",
    "of_last",
    "store",
    "transform",
    "where",
]

Array = NDArray[Any]
Index = tuple[Any, ...]

FEW = 64  # rows, or more, that scipy transforms in single precision, some side by side,
AT_ONCE, SIDE_BY_SIDE = 2**16, 16  # and how many numbers at a time, about, but so many rows at least
PADDED = 2**18  # numbers of rows that get zeros at a time: if fewer, threads wait for each other's interpreter
COPY = 1.5  # products of spectra in the time that a number takes to become an element of a matrix,
TINY = 8_000  # and that two calls take beside their work, with another thread at the interpreter


class Span(NamedTuple):
    """A run of an array, and where in a tile it is."""

    start: int
    size: int
    at: int


def of_last(slices: Iterable[slice]) -> Index:
    """An index of the last axes."""
    return (..., *slices)


def where(spans: Sequence[Span]) -> Index:
    """Where in an array these runs are, one along each of the last axes."""
    return of_last(slice(span.start, max(span.start + span.size, 0)) for span in spans)


def _crop(tiles: Sequence[Sequence[Span]]) -> list[tuple[int, int]] | None:
    """What of the tiles is kept of any of them; None if nothing is."""
    kept = [spans for spans in tiles if all(span.size > 0 for span in spans)]
    if not kept:
        return None
    return [(min(s.at for s in spans), max(s.at + s.size for s in spans)) for spans in zip(*kept, strict=True)]


def _relative(spans: Sequence[Span], crop: Sequence[tuple[int, int]]) -> Index:
    return of_last(slice(s.at - first, s.at - first + s.size) for s, (first, _) in zip(spans, crop, strict=True))


def transform(parts: Sequence[tuple[Array, Shape]], to: Array, sizes: Shape, memory: Scratch, team: Team) -> Array:
    """Spectra of tiles: along each axis, so many zeros, then a part, then zeros."""
    d, (first, at) = len(sizes), parts[0]
    used = [max(1, *(at[a] + part.shape[a - d] for part, at in parts)) for a in range(d - 1)]
    rows = [slice(0, n) for n in used]
    spectra, real = to[of_last([*rows, slice(None)])], first.dtype.kind == "f"
    if real and len(parts) == 1 and first.size and not any(at):
        samples = first[None]  # zeros are appended to it
    else:  # as one array: to transform one after the other would take longer than to copy them
        shape = (len(parts), *first.shape[:-d], *used, sizes[-1])
        samples = memory.take("samples", shape, first.dtype) if real else spectra
        for tile, (part, at) in zip(samples, parts, strict=True):
            inside = [slice(n, n + size) for n, size in zip(at, part.shape[-d:], strict=True)]
            tile[of_last(inside)] = part
            _clear_around(tile, inside)
    if real:
        single = first.itemsize == 4 and math.prod(samples.shape[:-1]) >= FEW
        _by_rows(_rfft_single if single else _rfft, samples, sizes[-1], spectra, team, AT_ONCE if single else PADDED)
    else:
        _in_place(scipy.fft.fft, spectra, -1, team)
    for axis in range(-2, -d - 1, -1):  # rows of zeros need no transform along the later axes
        view = to[of_last([*rows[: d + axis], *[slice(None)] * -axis])]
        view[of_last([slice(used[axis + 1], None), *[slice(None)] * (-axis - 1)])] = 0
        _in_place(scipy.fft.fft, view, axis, team)
    return to


def _clear_around(tile: Array, inside: Sequence[slice]) -> None:
    """Zeros where one of the last axes is not `inside`."""
    for axis, (here, size) in enumerate(zip(inside, tile.shape[-len(inside) :], strict=True)):
        for gap in (slice(0, here.start), slice(here.stop, size)):
            if gap.start < size and gap.stop > 0:
                tile[of_last([*inside[:axis], gap, *[slice(None)] * (len(inside) - axis - 1)])] = 0


def _by_rows(
    transform: Callable[[Array, int, Array], object], a: Array, n: int, to: Array, team: Team, most: int | None = None
) -> None:
    """Along the last axis, to length n; about so many numbers at a time, at `most`, but some rows."""
    axis = a.shape.index(max(a.shape[:-1]))
    size, rows = a.shape[axis], math.prod(a.shape[:-1])
    step = size if most is None else max(1, max(SIDE_BY_SIDE, most // n) * size // max(rows, 1))

    def some(cut: tuple[int, int]) -> None:
        for first in range(*cut, step):
            part = (*[slice(None)] * axis, slice(first, min(first + step, cut[1])))
            transform(a[part], n, to[part])

    cuts = [size * t // team.threads for t in range(team.threads + 1)]
    list(team.map(some, [cut for cut in pairwise(cuts) if cut[0] < cut[1]]))


def _rfft(a: Array, n: int, to: Array) -> None:
    """By numpy, which writes where it is told to, and takes its time to append zeros."""
    if a.shape[-1] == n:
        np.fft.rfft(a, n, out=to)
        return
    with scratch() as memory:
        padded = memory.take("padded", (*a.shape[:-1], n), a.dtype)
        padded[..., : a.shape[-1]], padded[..., a.shape[-1] :] = a, 0
        np.fft.rfft(padded, n, out=to)


def _rfft_single(a: Array, n: int, to: Array) -> None:
    """By scipy, as numpy computes in double; of so many rows that the new array is still near when it is copied."""
    to[...] = scipy.fft.rfft(a, n, workers=1)


def _irfft(a: Array, n: int, to: Array) -> None:
    np.fft.irfft(a, n, out=to)


def _in_place(transform: Callable[..., Array], a: Array, axis: int, team: Team) -> None:
    result = transform(a, axis=axis, workers=team.threads, overwrite_x=True)
    if not np.may_share_memory(result, a):  # it may, but need not
        a[...] = result


def store(
    spectrum: Array,
    spans: Sequence[Sequence[Span]],
    to: Array,
    offset: Array | None,
    sizes: Shape,
    memory: Scratch,
    team: Team,
) -> bool:
    """Transform back, in place, and store the spans of each tile; whether they are finite.

    It is done along one axis after the other: what is not kept of one need not be transformed along the next.
    """
    crop = _crop(spans)
    if crop is None:
        return True
    for axis, (first, last) in zip(range(-len(sizes), -1), crop, strict=False):
        _in_place(scipy.fft.ifft, spectrum, axis, team)
        spectrum = spectrum[of_last([slice(first, last), *[slice(None)] * (-1 - axis)])]
    if to.dtype.kind == "f":
        results = memory.take("results", (*spectrum.shape[:-1], sizes[-1]), to.dtype)
        _by_rows(_irfft, spectrum, sizes[-1], results, team)
    else:
        results = spectrum
        _in_place(scipy.fft.ifft, results, -1, team)
    for part, tile in zip(results[..., slice(*crop[-1])], spans, strict=True):
        if all(span.size > 0 for span in tile):
            kept, target = part[_relative(tile, crop)], to[where(tile)]
            np.copyto(target, kept) if offset is None else np.add(kept, offset, out=target)
    return bool(np.isfinite(results.sum()))  # fastest of all that is contiguous


def contract(a: Array, w: Array, memory: Scratch, name: str = "products", in_place: bool = False) -> Array:
    """Of each frequency, ``a @ w`` over channels: ``(tiles, items, groups, C, *frequencies)``."""
    shape = (*a.shape[:3], w.shape[2], *a.shape[4:])
    if w.shape[1] == 1:
        return np.multiply(a, w[:, 0], out=a if in_place and a.shape == shape else memory.take(name, shape, a.dtype))
    if is_better_by_pairs(a.shape[0] * a.shape[1], w.shape, w.shape[1] * w.shape[2]):
        sums, term = memory.take(name, shape, a.dtype), memory.take("terms", a[:, :, :, 0].shape, a.dtype)
        for o in range(w.shape[2]):
            np.multiply(a[:, :, :, 0], w[:, 0, o], out=sums[:, :, :, o])
            for c in range(1, w.shape[1]):
                sums[:, :, :, o] += np.multiply(a[:, :, :, c], w[:, c, o], out=term)
        return sums
    by_frequency = _by_frequency(a.reshape(-1, *a.shape[2:])) @ np.ascontiguousarray(_frequency_first(w))
    product: Array = np.moveaxis(by_frequency, (2, 1), (0, 3)).reshape(shape)
    return product


def correlate(x: Array, y: Array) -> Array:
    """Of each frequency, ``x^T @ y`` over tiles and items: ``(groups, channels of x, channels of y, *frequencies)``."""
    x, y = (a.reshape(-1, *a.shape[2:]) for a in (x, y))
    if x.shape[2] == y.shape[2] == 1:
        return np.multiply(x, y, out=y).sum(axis=0, out=roomy(y.shape[1:], y.dtype))[:, :, None]
    shape = (x.shape[1], x.shape[2], y.shape[2], *x.shape[3:])
    if is_better_by_pairs(len(x), shape, len(x) * shape[2]):
        sums, term = roomy(shape, y.dtype), roomy(shape[:2] + shape[3:], y.dtype)
        for o in range(y.shape[2]):
            np.multiply(x[0], y[0, :, o, None], out=sums[:, :, o])
            for some_x, some_y in zip(x[1:], y[1:], strict=True):
                sums[:, :, o] += np.multiply(some_x, some_y[:, o, None], out=term)
        return sums
    by_frequency = _by_frequency(x).swapaxes(2, 3) @ _by_frequency(y)
    return np.moveaxis(by_frequency, 1, 3).reshape(shape)


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
    """``(items, groups, C, *frequencies)`` as matrices ``(groups, frequency, items, C)``."""
    return np.ascontiguousarray(_frequency_first(np.moveaxis(a, 0, 1)))


def _frequency_first(a: Array) -> Array:
    """``(groups, rows, columns, *frequencies)`` as ``(groups, frequency, rows, columns)``."""
    return np.moveaxis(a.reshape(*a.shape[:3], -1), 3, 1)
