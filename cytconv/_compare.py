"""The methods side by side on one geometry: what each costs to set up, to apply, and to keep.

`compare_methods` is the whole story.  All contenders (`cytconv._contenders`) meet the same random numbers; each must
agree with method "direct" before its times count.
"""

from __future__ import annotations

import math
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, SupportsIndex, TextIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _memory
from ._comparison import YARDSTICK, Comparison, MethodCost
from ._contenders import Contender, Product, others, own
from ._geometry import Geometry, Ints, Padding, integer, ints
from ._methods import METHODS
from ._runtime import resolve_workers
from ._sparse import whole_shape

__all__ = ["compare_methods", "progress_bar"]

Array = NDArray[Any]
Shape = tuple[int, ...]
Progress = Callable[[int, int, str], object]

SPAN = 0.05  # seconds to repeat short products for, in each round
MOST_CALLS = 100  # in that time


def compare_methods(
    input_shape: Ints,
    kernel_shape: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    channels_in: SupportsIndex | None = None,
    channels_out: SupportsIndex | None = None,
    groups: SupportsIndex = 1,
    dtype: DTypeLike = "float64",
    workers: SupportsIndex | None = None,
    repeat: SupportsIndex = 5,
    methods: Iterable[str] | None = None,
    peers: bool = True,
    progress: Progress | None = None,
) -> Comparison:
    """Measure every method on one geometry: set-up, forward, adjoint, memory, and how far the results differ.

    Parameters
    ----------
    input_shape : int or tuple of int
        Sizes of x along the convolved axes.
    kernel_shape : int or tuple of int
        Sizes of the kernel: one for each axis of x, or one for all.
    stride, padding, dilation, groups : optional
        The geometry, as in `conv_transpose`.
    channels_in, channels_out : int, optional
        Channels of x and of y; one given alone stands for both.  By default arrays are plain.
    dtype : data-type, optional
        float32, float64, complex64 or complex128.
    workers : int, optional
        Threads, as in `conv_transpose`; the peers get as many.
    repeat : int, optional
        Rounds, in each of which every method has its turn.  Times are medians over the rounds.
    methods : iterable of str, optional
        Which methods to compare, "auto" among them; "direct" takes part in any case.  By default all.
    peers : bool, optional
        Whether to measure scipy's and PyTorch's own way, too, as far as they are installed.
    progress : callable, optional
        Called as ``progress(steps done, steps in all, what comes next)``.

    Returns
    -------
    Comparison
        One row for each method and peer, with ``.table()``, ``.plot()``, ``.to_dict()`` and ``.to_json()``.

    Raises
    ------
    ValueError
        For shapes and values that do not fit, and for a geometry with an empty output.
    TypeError
        For arguments of the wrong type.

    See Also
    --------
    choose_method : the fastest for one call, predicted or timed.

    Notes
    -----
    The set-up of an operator is the time from its weights to its first forward product, less the time of a later
    one: methods prepare themselves when they are first needed.  What the process keeps for a geometry, such as
    plans of the work, is there from the first round on and not counted.  A method that refuses the geometry, runs
    out of memory or gives other numbers than "direct" is a row with the reason in place of times.

    The set-up of "scipy.sparse" is `conv_transpose_matrix`, and that of "sparse" much the same, without the indices
    where it needs none; for matrices of a GiB and more it is mostly the time in which the system hands out memory.

    Memory is what ``tracemalloc`` sees of it, in a round of its own without a clock: arrays, not the scratch that
    compiled code takes for itself.

    Examples
    --------
    >>> from cytconv import compare_methods
    >>> comparison = compare_methods((64, 64), 5, stride=2, methods=["direct", "sparse"], peers=False, repeat=3)
    >>> [row.name for row in comparison.rows]
    ['direct', 'sparse']
    >>> comparison.output_shape
    (131, 131)
    >>> comparison["sparse"].difference < 1e-14
    True
    >>> print(comparison.table())  # doctest: +SKIP
    """
    names = _methods(methods)
    threads, rounds = resolve_workers(workers), _at_least_one("repeat", repeat)
    if progress is not None and not callable(progress):
        raise TypeError(f"progress={progress!r} must be callable, or None")
    geometry, w, x, y = _problem(
        input_shape, kernel_shape, stride, padding, dilation, channels_in, channels_out, groups, _dtype(dtype)
    )
    ends = [
        (axis.low, (axis.n - 1) * axis.stride + axis.dilation * (axis.taps - 1) + 1 - axis.low - axis.m)
        for axis in geometry.axes
    ]
    contenders = [Contender(name, partial(own, name, geometry, w, threads)) for name in names]
    if peers:
        contenders += others(geometry, tuple(high for _, high in ends), w, threads)
    return Comparison(
        input_shape=tuple(axis.n for axis in geometry.axes),
        kernel_shape=tuple(axis.taps for axis in geometry.axes),
        output_shape=tuple(axis.m for axis in geometry.axes),
        stride=tuple(axis.stride for axis in geometry.axes),
        padding=tuple(ends),
        dilation=tuple(axis.dilation for axis in geometry.axes),
        channels_in=None if geometry.channels is None else geometry.channels_in,
        channels_out=None if geometry.channels is None else geometry.channels_out,
        groups=geometry.groups,
        dtype=str(w.dtype),
        workers=threads,
        repeat=rounds,
        rows=tuple(_measure(contenders, x, y, rounds, progress or (lambda *_: None))),
    )


def _methods(methods: Iterable[str] | None) -> list[str]:
    """Names of the methods, the yardstick first and none twice."""
    known = [*METHODS, "auto"]
    if isinstance(methods, str) or not isinstance(methods, Iterable | None):
        raise TypeError(f"methods={methods!r} must be a list of names")
    names = known if methods is None else list(methods)
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"methods={names!r} must be among {', '.join(map(repr, known))}")
    return list(dict.fromkeys([YARDSTICK, *names]))


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        known = np.dtype(dtype)
    except TypeError:
        known = np.dtype(object)
    if known.char not in "fdFD":
        raise TypeError(f"dtype={dtype!r} must be float32, float64, complex64 or complex128")
    return known.newbyteorder("=")


def _at_least_one(name: str, value: SupportsIndex) -> int:
    size = integer(name, value)
    if size < 1:
        raise ValueError(f"{name}={size} must be at least 1")
    return size


def _problem(
    input_shape: Ints,
    kernel_shape: Ints,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
    channels_in: SupportsIndex | None,
    channels_out: SupportsIndex | None,
    groups: SupportsIndex,
    dtype: np.dtype[Any],
) -> tuple[Geometry, Array, Array, Array]:
    """The geometry, and random w, x and y that fit it."""
    x_shape = whole_shape(input_shape)
    sizes = ints("kernel_shape", kernel_shape)
    w_shape = (sizes,) * len(x_shape) if isinstance(sizes, int) else sizes
    if len(w_shape) != len(x_shape):
        raise ValueError(f"kernel_shape={w_shape} must have one size for each of the {len(x_shape)} of input_shape")
    for name, shape in (("input_shape", x_shape), ("kernel_shape", w_shape)):
        if not shape or min(shape) < 1:
            raise ValueError(f"{name}={shape} must have one size or more, each at least 1")
    parts = _at_least_one("groups", groups)
    inputs = channels_in if channels_in is not None else channels_out
    outputs = channels_out if channels_out is not None else channels_in
    if inputs is not None and outputs is not None:
        inputs, outputs = _at_least_one("channels_in", inputs), _at_least_one("channels_out", outputs)
        if outputs % parts:
            raise ValueError(f"groups={parts} must divide channels_out={outputs}")
        x_shape, w_shape = (inputs, *x_shape), (inputs, outputs // parts, *w_shape)
    elif parts != 1:
        raise ValueError(f"groups={parts} must be 1 without channels_in or channels_out")
    geometry = Geometry.forward(
        x_shape,
        w_shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        channels=None if inputs is None else "first",
        x_name="input_shape",
    )
    if 0 in geometry.y_shape:
        raise ValueError(
            f"padding={padding!r} leaves an output of shape {geometry.y_shape}: there is nothing to compare"
        )
    rng = np.random.default_rng(0)

    def numbers(shape: Shape) -> Array:
        real = rng.standard_normal(shape)
        return (real + 1j * rng.standard_normal(shape) if dtype.kind == "c" else real).astype(dtype)

    return geometry, numbers(w_shape), numbers(x_shape), numbers(geometry.y_shape)


def _measure(contenders: list[Contender], x: Array, y: Array, rounds: int, progress: Progress) -> list[MethodCost]:
    """One round for results and memory, then the rounds with a clock, in each of which everyone has a turn."""
    rows = {c.name: MethodCost(c.name, c.peer, reason=c.refusal) for c in contenders}
    total, done = (rounds + 1) * sum(not c.refusal for c in contenders), 0

    reference: tuple[Array, Array] | None = None
    for contender in contenders:
        name = contender.name
        if rows[name].reason:
            continue
        progress(done, total, name)
        done += 1
        try:
            kept, peak, results = _memory_of(contender, x, y)
        except (MemoryError, ValueError, NotImplementedError, RuntimeError) as error:
            if reference is None:  # nobody can be compared
                raise
            rows[name] = replace(rows[name], reason=str(error) or type(error).__name__)
            continue
        reference = reference or results
        difference = max(_difference(a, b) for a, b in zip(results, reference, strict=True))
        if difference < math.sqrt(np.finfo(x.dtype).eps):
            rows[name] = replace(rows[name], kept=kept, peak=peak, difference=difference)
        else:
            rows[name] = replace(rows[name], reason=f"differs from {YARDSTICK} by {difference:.1e}: not timed")

    seconds: dict[str, list[tuple[float, float, float]]] = {name: [] for name, row in rows.items() if not row.reason}
    for _ in range(rounds):
        for contender in contenders:
            if contender.name in seconds:
                progress(done, total, contender.name)
                done += 1
                seconds[contender.name].append(_turn(contender, x, y))
    progress(total, total, "")

    for name, turns in seconds.items():
        setup, forward, adjoint = map(statistics.median, zip(*turns, strict=True))
        rows[name] = replace(rows[name], setup=max(setup, 0.0), forward=forward, adjoint=adjoint)
    yardstick = rows[YARDSTICK]
    return [row if row is yardstick else replace(row, break_even=_overtakes(row, yardstick)) for row in rows.values()]


def _turn(contender: Contender, x: Array, y: Array) -> tuple[float, float, float]:
    """Seconds of set-up, forward and adjoint, of an operator made for this turn and dropped after it."""
    start = time.perf_counter()
    operator = contender.build()
    operator.forward(x)
    first = time.perf_counter() - start
    forward = _seconds_of(operator.forward, x)
    operator.adjoint(y)
    return first - forward, forward, _seconds_of(operator.adjoint, y)


def _seconds_of(product: Product, a: Array) -> float:
    """Median of as many calls as fit the span, and of one at least.

    Threads that wait for each other on a busy machine can cost a call a slice of the scheduler: no mean would do.
    """
    times: list[float] = []
    while not times or (sum(times) < SPAN and len(times) < MOST_CALLS):
        start = time.perf_counter()
        product(a)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _memory_of(contender: Contender, x: Array, y: Array) -> tuple[int | None, int | None, tuple[Array, Array]]:
    """Bytes kept by the operator and needed by a forward product beyond them; the results of both products."""
    with _tracing() as traced:
        before = traced()[0]
        operator = contender.build()
        forward = operator.forward(x)
        del forward
        _memory.forget()  # memory that is used again would not be seen
        kept = traced()[0] - before
        tracemalloc.reset_peak()
        start = traced()[0]
        forward = operator.forward(x)
        peak = traced()[1] - start
        results = forward, operator.adjoint(y)
    return (max(kept, 0), peak, results) if contender.counted else (None, None, results)


@contextmanager
def _tracing() -> Iterator[Callable[[], tuple[int, int]]]:
    """tracemalloc switched on, and left as it was found."""
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start()
    try:
        yield tracemalloc.get_traced_memory
    finally:
        if not running:
            tracemalloc.stop()


def _difference(a: Array, b: Array) -> float:
    """The largest difference, relative to the largest number of `b`; infinite if it cannot be told."""
    if a.shape != b.shape:
        return math.inf
    difference = float(np.abs(a - b).max())
    scale = float(np.abs(b).max())
    return difference / (scale or 1.0) if math.isfinite(difference) else math.inf


def _overtakes(row: MethodCost, yardstick: MethodCost) -> int | None:
    """The least number of forward products from which on `row` takes less time in all."""
    if None in (row.setup, row.forward, yardstick.setup, yardstick.forward):
        return None
    assert row.setup is not None and row.forward is not None  # for the type checker
    assert yardstick.setup is not None and yardstick.forward is not None
    saved = yardstick.forward - row.forward
    if saved <= 0:
        return None
    return max(1, math.floor((row.setup - yardstick.setup) / saved) + 1)


# ---- while it runs -------------------------------------------------------------------------------------


def progress_bar(stream: TextIO, width: int = 40) -> Progress:
    """What shows the progress as a line on a terminal, and clears it in the end."""

    def show(done: int, total: int, name: str) -> None:
        filled = width * done // max(total, 1)
        line = f"[{'#' * filled}{'.' * (width - filled)}] {done}/{total} {name}"
        stream.write("\r\033[K" + (line if done < total else ""))
        stream.flush()

    return show
