"""The methods side by side on one geometry: what each costs to set up, to apply, and to keep.

`compare_methods` is the whole story.  A `_Contender` is one way to apply the operator: a method of this library, or
what one would write with scipy or PyTorch.  All meet the same random numbers; each must agree with method "direct"
before its times count.
"""

from __future__ import annotations

import importlib
import json
import math
import statistics
import textwrap
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex, TextIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _memory
from ._geometry import Geometry, Ints, Padding, integer, ints
from ._methods import METHODS
from ._operator import ConvTranspose
from ._runtime import resolve_workers
from ._sparse import conv_transpose_matrix, whole_shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Comparison", "MethodCost", "compare_methods", "progress_bar"]

Array = NDArray[Any]
Shape = tuple[int, ...]
Product = Callable[[Array], Array]
Progress = Callable[[int, int, str], object]

YARDSTICK = "direct"
APPLICATIONS = (1, 10, 100, 1000)  # how often an operator is applied, in what is said about the fastest
SPAN = 0.05  # seconds to repeat short products for, in each round
MOST_CALLS = 100  # in that time


# ---- the result ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MethodCost:
    """What one method costs on one geometry; None wherever it was not measured.

    Attributes
    ----------
    name : str
        The method, or the peer and its function.
    peer : bool
        Whether it is another library's way.
    setup, forward, adjoint : float or None
        Seconds to make the operator ready for its forward product, for one such product, and for one adjoint.
    kept, peak : int or None
        Bytes that the operator keeps, and the most that one forward product needs on top, its result included.
        Arrays of numpy alone are counted: None for a library with memory of its own.
    difference : float or None
        The largest difference of either product from method "direct", relative to the largest number.
    break_even : int or None
        From how many forward products on, set-up included, it is faster than "direct"; None if it never is.
    reason : str
        Why it was not measured; empty if it was.

    Examples
    --------
    >>> from cytconv import MethodCost
    >>> matrix = MethodCost("sparse", setup=3.0, forward=0.5)
    >>> matrix.total(10)
    8.0
    """

    name: str
    peer: bool = False
    setup: float | None = None
    forward: float | None = None
    adjoint: float | None = None
    kept: int | None = None
    peak: int | None = None
    difference: float | None = None
    break_even: int | None = None
    reason: str = ""

    def total(self, applications: int) -> float:
        """Seconds for the set-up and so many forward products.

        Parameters
        ----------
        applications : int
            How many products.

        Returns
        -------
        float
            Infinite if they were not measured.
        """
        if self.setup is None or self.forward is None:
            return math.inf
        return self.setup + applications * self.forward


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare_methods` measured: the geometry, and one `MethodCost` for each row.

    Attributes
    ----------
    input_shape, kernel_shape, output_shape, stride, dilation : tuple of int
        One entry per axis, without batch and channels.
    padding : tuple of (int, int)
        ``(low, high)`` per axis.
    channels_in, channels_out : int or None
        None for plain arrays.
    groups, workers, repeat : int
        As they were used.
    dtype : str
        Name of the type of the numbers.
    rows : tuple of MethodCost
        The methods, "direct" first, then the peers.

    Examples
    --------
    >>> from cytconv import compare_methods
    >>> comparison = compare_methods((32, 32), 3, methods=["sparse"], peers=False, repeat=1)
    >>> comparison.output_shape, [row.name for row in comparison.rows]
    ((34, 34), ['direct', 'sparse'])
    >>> comparison["sparse"].kept > comparison["direct"].kept
    True
    """

    input_shape: Shape
    kernel_shape: Shape
    output_shape: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    dilation: Shape
    channels_in: int | None
    channels_out: int | None
    groups: int
    dtype: str
    workers: int
    repeat: int
    rows: tuple[MethodCost, ...]

    def __getitem__(self, name: str) -> MethodCost:
        """The row of that name; KeyError if there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(row.name == name for row in self.rows)

    def __iter__(self) -> Iterator[MethodCost]:
        return iter(self.rows)

    def fastest(self, applications: int) -> str:
        """The method or peer that takes the least time for its set-up and so many forward products.

        Parameters
        ----------
        applications : int
            How many products.

        Returns
        -------
        str
            Its name.
        """
        return min(self.rows, key=lambda row: row.total(applications)).name

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain dicts, tuples, numbers and strings."""
        return asdict(self)

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def title(self) -> str:
        """The geometry in one line."""
        channels = "" if self.channels_in is None else f", channels {self.channels_in} -> {self.channels_out}"
        words = [
            f"input {_by(self.input_shape)} -> output {_by(self.output_shape)}{channels}",
            f"kernel {_by(self.kernel_shape)}",
            f"stride {_by(self.stride)}",
        ]
        if any(low or high for low, high in self.padding):
            words.append("padding " + " x ".join(str(p[0]) if p[0] == p[1] else f"{p[0]}:{p[1]}" for p in self.padding))
        if set(self.dilation) != {1}:
            words.append(f"dilation {_by(self.dilation)}")
        if self.groups > 1:
            words.append(f"groups {self.groups}")
        return ", ".join(words)

    def table(self) -> str:
        """All rows as text of at most 100 columns, with what is fastest for how many products below."""
        lines = [
            *_wrapped(self.title()),
            f"{self.dtype}, up to {self.workers} thread{'s' * (self.workers > 1)}, medians of {self.repeat}",
            "",
            f"{'':<18}{'set-up':>10}{'forward':>10}{'adjoint':>10}{'kept':>11}{'peak':>11}{'difference':>12}"
            f"{'break-even':>12}",
        ]
        for row in self.rows:
            if row.reason:
                first, *more = _wrapped(row.reason, 80)
                lines += [f"{row.name:<18}  {first}", *(f"{'':<20}{line}" for line in more)]
                continue
            difference = "-" if row.name == YARDSTICK else f"{row.difference:.1e}" if row.difference else "0"
            lines.append(
                f"{row.name:<18}{_seconds(row.setup):>10}{_seconds(row.forward):>10}{_seconds(row.adjoint):>10}"
                f"{_bytes(row.kept):>11}{_bytes(row.peak):>11}{difference:>12}{_break_even(row):>12}"
            )
        counts: dict[str, list[str]] = {}
        for n in APPLICATIONS:
            counts.setdefault(self.fastest(n), []).append(str(n))
        fastest = "; ".join(f"{name} for {', '.join(numbers)}" for name, numbers in counts.items())
        return "\n".join([*lines, "", *_wrapped(f"fastest in all, by number of forward products: {fastest}")])

    __str__ = table

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw bars of set-up, forward and adjoint, and beside them the time of many products.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw the bars, without what is beside them.  By default a new figure has both.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plot needs matplotlib: pip install matplotlib") from error
        if ax is not None:
            self._plot_bars(ax)
            return ax.get_figure(root=True) or Figure()
        figure = Figure(figsize=(13, 2.2 + 0.55 * len(self.rows)), layout="constrained")
        bars, lines = figure.subplots(1, 2, width_ratios=[1.25, 1])
        figure.suptitle(f"{self.title()}\n{self.dtype}, up to {self.workers} threads", fontsize=11)
        self._plot_bars(bars)
        self._plot_totals(lines)
        return figure

    def _plot_bars(self, ax: Axes) -> None:
        kinds = {"setup": ("set-up", "0.7"), "forward": ("forward", "tab:blue"), "adjoint": ("adjoint", "tab:orange")}
        known = [value for row in self.rows for kind in kinds if (value := getattr(row, kind))]
        left, right = 10.0 ** math.floor(math.log10(min(known)) - 0.3), max(known)
        for y, row in enumerate(self.rows):
            if row.reason:
                ax.text(
                    left * 1.1,
                    y,
                    textwrap.shorten(row.reason, 64, placeholder=" ..."),
                    va="center",
                    fontsize=8,
                    color="0.4",
                    style="italic",
                )
            for offset, (kind, (label, colour)) in zip((-0.27, 0, 0.27), kinds.items(), strict=True):
                seconds = getattr(row, kind)
                if seconds is None:
                    continue
                if seconds > left:
                    ax.barh(y + offset, seconds - left, 0.26, left=left, color=colour, label=label if y == 0 else "")
                ax.text(max(seconds, left) * 1.08, y + offset, _seconds(seconds), va="center", fontsize=7.5)
        ax.set_xscale("log")
        ax.set(xlim=(left, right * 4), ylim=(len(self.rows) - 0.5, -0.5), yticks=range(len(self.rows)))
        ax.set_yticklabels([f"{row.name}\n{_pays(row)}" for row in self.rows], fontsize=8.5)
        ax.xaxis.set_major_formatter(lambda value, _: _seconds(value, 1))
        ax.set_title("one set-up, one product", fontsize=10)
        ax.grid(axis="x", alpha=0.25)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        handles = [_patch(colour, label) for label, colour in kinds.values()]
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3, fontsize=8, frameon=False)

    def _plot_totals(self, ax: Axes) -> None:
        counts = np.unique(np.geomspace(1, 10 ** self._decades(), 200).round().astype(int))
        for number, row in enumerate(row for row in self.rows if not row.reason):
            style = {"linestyle": "--" if row.peer else "-", "linewidth": 2.4 if row.name == YARDSTICK else 1.6}
            colour = "black" if row.name == YARDSTICK else f"C{number + 1}"
            totals = [row.total(int(n)) for n in counts]
            ax.plot(counts, totals, color=colour, label=row.name, **style)  # type: ignore[arg-type]  # of each style
            if row.break_even is not None and 1 < row.break_even <= counts[-1]:
                at = (row.break_even, row.total(row.break_even))
                ax.plot(*at, "o", color=colour, markersize=7, markeredgecolor="white", zorder=3)
                ax.annotate(
                    f"{row.break_even}", at, xytext=(4, -11), textcoords="offset points", fontsize=8, color=colour
                )
        ax.set(xscale="log", yscale="log", xlabel="forward products", xlim=(1, counts[-1]))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.yaxis.set_major_formatter(lambda value, _: _seconds(value, 1))
        ax.set_title("set-up and that many products; dots where a method overtakes direct", fontsize=10)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=8, framealpha=0.9)

    def _decades(self) -> int:
        """Powers of ten of applications that show every break-even, within reason."""
        last = max((row.break_even or 1 for row in self.rows), default=1)
        return min(max(3, math.ceil(math.log10(last) + 0.3)), 6)


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def _by(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))


def _wrapped(text: str, width: int = 100) -> list[str]:
    return textwrap.wrap(text, width)


def _seconds(value: float | None, digits: int = 3) -> str:
    """A time to some significant digits, with its unit."""
    if not value:
        return "-" if value is None else "0"
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= 0.9995 * scale:
            return f"{_digits(value / scale, digits)} {unit}"
    return f"{_digits(value * 1e6, digits)} us"


def _digits(value: float, digits: int) -> str:
    """A number without exponent, to so many significant digits; whole digits are all kept."""
    decimals = digits - 1 - math.floor(math.log10(float(f"{value:.{digits - 1}e}")))  # of the rounded number
    return f"{value:.{max(0, min(decimals, digits - 1))}f}"


def _bytes(value: int | None) -> str:
    if value is None:
        return "-"
    size, units = float(value), iter(("B", "KiB", "MiB"))
    for unit in units:
        if size < 1000:
            return f"{size:.{0 if unit == 'B' else 1}f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _break_even(row: MethodCost) -> str:
    return "-" if row.name == YARDSTICK else "never" if row.break_even is None else str(row.break_even)


def _pays(row: MethodCost) -> str:
    """The break-even in words."""
    if row.reason or row.name == YARDSTICK:
        return ""
    if row.break_even is None:
        return "never beats direct"
    return "beats direct at once" if row.break_even == 1 else f"beats direct from {row.break_even}"


# ---- the contenders ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Operator:
    """Ready to apply: x of the geometry's `x_shape` to y of its `y_shape`, and back."""

    forward: Product
    adjoint: Product


@dataclass(frozen=True, slots=True)
class _Contender:
    name: str
    build: Callable[[], _Operator]
    peer: bool = False
    counted: bool = True  # whether its memory is numpy's
    refusal: str = ""  # why it cannot serve this geometry


def _own(method: str, geometry: Geometry, w: Array, workers: int) -> _Operator:
    operator = ConvTranspose(w, geometry.x_shape, **_keywords(geometry), method=method, workers=workers)
    return _Operator(operator, operator.H)


def _scipy_sparse(geometry: Geometry, w: Array, workers: int) -> _Operator:
    """scipy's product with the matrix, on one thread."""
    matrix = conv_transpose_matrix(w, geometry.x_shape, **_keywords(geometry))
    transposed = matrix.T  # the same memory

    def adjoint(y: Array) -> Array:
        flat = y.ravel()
        product = transposed @ flat if flat.dtype.kind == "f" else (transposed @ flat.conj()).conj()
        return np.asarray(product).reshape(geometry.x_shape)

    return _Operator(lambda x: np.asarray(matrix @ x.ravel()).reshape(geometry.y_shape), adjoint)


def _scipy_fft(function: str, geometry: Geometry, w: Array, workers: int) -> _Operator:
    """scipy's convolution of the input with zeros inserted, and of the output with the kernel turned around."""
    from scipy import fft, signal  # late, as both take long to import

    convolve = getattr(signal, function)
    axes = geometry.axes
    kernel = np.zeros([axis.dilation * (axis.taps - 1) + 1 for axis in axes], w.dtype)
    kernel[tuple(slice(None, None, axis.dilation) for axis in axes)] = w
    turned = np.flip(kernel).conj()
    spread = [(axis.n - 1) * axis.stride + 1 for axis in axes]
    full = [size + taps - 1 for size, taps in zip(spread, kernel.shape, strict=True)]
    samples = tuple(slice(None, None, axis.stride) for axis in axes)
    # The window on the full result: where both have elements, in the one and in the other.
    of_full = tuple(slice(max(a.low, 0), max(min(a.low + a.m, f), 0)) for a, f in zip(axes, full, strict=True))
    of_y = tuple(
        slice(part.start - a.low, part.start - a.low + max(part.stop - part.start, 0))
        for a, part in zip(axes, of_full, strict=True)
    )
    whole = all(part.stop - part.start == a.m for a, part in zip(axes, of_y, strict=True))

    def forward(x: Array) -> Array:
        zeros_inserted = np.zeros(spread, x.dtype)
        zeros_inserted[samples] = x
        with fft.set_workers(workers):
            result = convolve(zeros_inserted, kernel)
        if whole:
            return np.asarray(result[of_full])
        y = np.zeros(geometry.y_shape, x.dtype)
        y[of_y] = result[of_full]
        return y

    def adjoint(y: Array) -> Array:
        placed = np.zeros(full, y.dtype)
        placed[of_full] = y[of_y]
        with fft.set_workers(workers):
            return np.asarray(convolve(placed, turned, mode="valid")[samples])

    return _Operator(forward, adjoint)


def _torch(torch: Any, geometry: Geometry, w: Array, workers: int) -> _Operator:
    """PyTorch's transposed convolution and convolution, on the same memory."""
    ndim, plain = len(geometry.axes), geometry.channels is None
    functional = torch.nn.functional
    weights = torch.from_numpy(w[None, None] if plain else w)
    keywords = {
        "stride": tuple(axis.stride for axis in geometry.axes),
        "padding": tuple(axis.low for axis in geometry.axes),
        "dilation": tuple(axis.dilation for axis in geometry.axes),
        "groups": geometry.groups,
    }

    def product(function: Any, a: Array) -> Array:
        threads = torch.get_num_threads()
        torch.set_num_threads(workers)
        try:
            with torch.inference_mode():
                result = function(torch.from_numpy(a[None, None] if plain else a[None]), weights, **keywords).numpy()
        finally:
            torch.set_num_threads(threads)
        return np.asarray(result[0, 0] if plain else result[0])

    return _Operator(
        partial(product, getattr(functional, f"conv_transpose{ndim}d")),
        partial(product, getattr(functional, f"conv{ndim}d")),
    )


def _keywords(geometry: Geometry) -> dict[str, Any]:
    return {
        "stride": [axis.stride for axis in geometry.axes],
        "padding": [(axis.low, 0) for axis in geometry.axes],
        "output_shape": [axis.m for axis in geometry.axes],
        "dilation": [axis.dilation for axis in geometry.axes],
        "groups": geometry.groups,
        "channels": geometry.channels,
    }


def _peers(geometry: Geometry, highs: Shape, w: Array, workers: int) -> Iterator[_Contender]:
    """Other libraries' ways, with why they cannot serve where they cannot."""
    importlib.import_module("scipy.signal")  # for not to be counted as what its operators keep
    yield _Contender("scipy.sparse", partial(_scipy_sparse, geometry, w, workers), peer=True)
    refusal = "" if geometry.channels is None else "convolves plain arrays, without channels"
    for name in ("fftconvolve", "oaconvolve"):
        yield _Contender(f"scipy {name}", partial(_scipy_fft, name, geometry, w, workers), peer=True, refusal=refusal)
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError):  # not installed, or without a library that it needs
        return
    refusal = ""
    if len(geometry.axes) > 3:
        refusal = "convolves at most three axes"
    elif any(axis.low != high or high < 0 for axis, high in zip(geometry.axes, highs, strict=True)):
        refusal = "takes one padding for both ends of an axis, not below 0"
    elif w.dtype.kind == "c":
        refusal = "left out for complex numbers"
    yield _Contender("torch", partial(_torch, torch, geometry, w, workers), peer=True, counted=False, refusal=refusal)


# ---- measuring -----------------------------------------------------------------------------------------


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
    contenders = [_Contender(name, partial(_own, name, geometry, w, threads)) for name in names]
    if peers:
        contenders += _peers(geometry, tuple(high for _, high in ends), w, threads)
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


def _measure(contenders: list[_Contender], x: Array, y: Array, rounds: int, progress: Progress) -> list[MethodCost]:
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


def _turn(contender: _Contender, x: Array, y: Array) -> tuple[float, float, float]:
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


def _memory_of(contender: _Contender, x: Array, y: Array) -> tuple[int | None, int | None, tuple[Array, Array]]:
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
