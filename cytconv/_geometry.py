"""The one relation behind transposed convolution, and every rule on shapes.

Along each axis, input sample ``i`` meets output sample ``o`` through tap ``k`` when ::

    o = i*stride + k*dilation - low

The forward operator, its adjoint, the adjoint in the weights and the sparse matrix are four ways to
walk the same triples ``(o, i, k)``.  `Axis` states the relation along one axis; `Geometry` is one axis
for each axis of the kernel, together with the layout of the arrays around them.  Both are immutable and
hashable, so that plans can be cached by them, and building one raises every `ValueError` that a shape
can cause: the code below this module holds no shape checks.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, SupportsIndex

import numpy as np
from numpy.exceptions import AxisError
from numpy.typing import NDArray

from .kernels.tables import products

__all__ = ["Axis", "Channels", "Geometry", "Ints", "Padding", "integer", "ints"]

Ints = SupportsIndex | Iterable[SupportsIndex]
Padding = SupportsIndex | Iterable[SupportsIndex | Iterable[SupportsIndex]]
Channels = Literal["first", "last"] | None
Shape = tuple[int, ...]
Array = NDArray[Any]

MAX_AXES = 59  # numpy has 64, of which channels and complex weights, taken apart, need up to five more
NUMBER = 16  # bytes of the largest that an array can hold


# ---- the relation ----------------------------------------------------------------------------------


class Axis(NamedTuple):
    """``o = i*stride + k*dilation - low`` for ``0 <= i < n``, ``0 <= k < taps``, ``0 <= o < m``."""

    n: int
    taps: int
    m: int
    stride: int = 1
    dilation: int = 1
    low: int = 0

    def reach(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and past-the-last sample ``i`` that each tap carries into the output.

        A tap that reaches no output gets the range from 0 to 0.
        """
        shift = np.arange(self.taps, dtype=np.int64) * self.dilation - self.low  # o = i*stride + shift
        first = np.maximum(-(shift // self.stride), 0)
        last = np.minimum((self.m - 1 - shift) // self.stride + 1, self.n)
        return first * (first < last), last * (first < last)

    def all_taps_reach(self) -> bool:
        """Whether every tap surely reaches the output; without looking at each."""
        return (
            self.stride <= self.m  # then no tap can step over the output,
            and (self.taps - 1) * self.dilation - self.low < self.m  # begin behind it,
            and (self.n - 1) * self.stride >= self.low  # or end before it
        )

    def products(self) -> int:
        """How many pairs of samples and taps meet in the output."""
        return products(*self)

    def swapped(self) -> Axis:
        """The same triples with samples and taps in each other's place: i moves at the stride as k at the dilation."""
        return Axis(self.taps, self.n, self.m, self.dilation, self.stride, self.low)

    def outputs(self, k: int, first: int, last: int) -> slice:
        """The outputs that samples ``first`` to ``last - 1``, all within `reach`, meet through tap `k`."""
        start = first * self.stride + k * self.dilation - self.low
        return slice(start, start + (last - first) * self.stride, self.stride)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Everything about a transposed convolution but its numbers.

    Build one with `forward`, `adjoint` or `weight_adjoint`: they differ in which of the three shapes is
    the unknown.  `x_shape`, `w_shape` and `y_shape` are the arrays as the caller sees them; `split_x`,
    `split_w` and `split_y` show any such array in the one layout that the methods work on, as a view ::

        x   (*batch, groups, C_in // groups, *n)
        w   (groups, C_in // groups, C_out // groups, *taps)
        y   (*batch, groups, C_out // groups, *m)

    Plain arrays are one group of one channel.
    """

    x_shape: Shape
    w_shape: Shape
    y_shape: Shape
    axes: tuple[Axis, ...]
    groups: int
    channels: Channels
    order: Shape  # how x and y are transposed by `split_x` and `split_y`: batch axes, channels if any, `axes`

    @property
    def batch(self) -> Shape:
        """Sizes of the batch axes."""
        lead = len(self.order) - len(self.axes) - (self.channels is not None)
        return tuple(self.x_shape[a] for a in self.order[:lead])

    @property
    def channels_in(self) -> int:
        """Channels of x; 1 for plain arrays."""
        return self.w_shape[0] if self.channels else 1

    @property
    def channels_out(self) -> int:
        """Channels of y; 1 for plain arrays."""
        return self.w_shape[1] * self.groups if self.channels else 1

    def split_x(self, x: Array) -> Array:
        """View an array of `x_shape` as ``(*batch, groups, C_in // groups, *n)``."""
        return self._split(x)

    def split_y(self, y: Array) -> Array:
        """View an array of `y_shape` as ``(*batch, groups, C_out // groups, *m)``."""
        return self._split(y)

    def split_w(self, w: Array) -> Array:
        """View an array of `w_shape` as ``(groups, C_in // groups, C_out // groups, *taps)``."""
        if self.channels is None:
            return w[None, None, None]
        return w.reshape(self.groups, self.channels_in // self.groups, *w.shape[1:])

    def _split(self, a: Array) -> Array:
        a = a.transpose(self.order)
        lead = a.ndim - len(self.axes)
        if self.channels is None:
            return a.reshape(*a.shape[:lead], 1, 1, *a.shape[lead:])
        c = a.shape[lead - 1]
        return a.reshape(*a.shape[: lead - 1], self.groups, c // self.groups, *a.shape[lead:])

    # ---- the readings that fix a shape ----

    @classmethod
    def forward(
        cls,
        x_shape: Shape,
        w_shape: Shape,
        *,
        stride: Ints = 1,
        padding: Padding = 0,
        output_padding: Ints = 0,
        output_shape: Ints | None = None,
        dilation: Ints = 1,
        groups: SupportsIndex = 1,
        channels: Channels = None,
        axes: Ints | None = None,
        x_name: str = "x",
    ) -> Geometry:
        """Fix the shape of y, given those of x and w."""
        layout = _layout(groups, channels, axes)
        ndim = _kernel_ndim(w_shape, channels)
        window = _window(ndim, stride, padding, output_padding, output_shape, dilation)
        return _forward(x_shape, w_shape, window, *layout, x_name)

    @classmethod
    def adjoint(
        cls,
        y_shape: Shape,
        w_shape: Shape,
        *,
        input_shape: Ints | None = None,
        stride: Ints = 1,
        padding: Padding = 0,
        output_padding: Ints = 0,
        output_shape: Ints | None = None,
        dilation: Ints = 1,
        groups: SupportsIndex = 1,
        channels: Channels = None,
        axes: Ints | None = None,
    ) -> Geometry:
        """Fix the shape of x, given those of y and w.  The window on the full result is y itself."""
        layout = _layout(groups, channels, axes)
        ndim = _kernel_ndim(w_shape, channels)
        window = _window(ndim, stride, padding, output_padding, output_shape, dilation)
        n = None if input_shape is None else _per_axis("input_shape", input_shape, ndim, 1)
        return _adjoint(y_shape, w_shape, window, n, *layout)

    @classmethod
    def weight_adjoint(
        cls,
        x_shape: Shape,
        y_shape: Shape,
        *,
        kernel_shape: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        output_padding: Ints = 0,
        output_shape: Ints | None = None,
        dilation: Ints = 1,
        groups: SupportsIndex = 1,
        channels: Channels = None,
        axes: Ints | None = None,
    ) -> Geometry:
        """Fix the shape of w, given those of x and y and the spatial sizes of the kernel."""
        layout = _layout(groups, channels, axes)
        sizes = ints("kernel_shape", kernel_shape)
        if isinstance(sizes, int) and channels is not None:
            raise ValueError(
                f"kernel_shape={sizes} must give one size per spatial axis when channels={channels!r}: "
                "any of the leading axes of x and y may be batch axes"
            )
        if isinstance(sizes, int):
            sizes = (sizes,) * (1 if layout.axes is None else len(layout.axes))
        if not sizes:
            raise ValueError("kernel_shape=() must name at least one axis")
        window = _window(len(sizes), stride, padding, output_padding, output_shape, dilation)
        return _weight_adjoint(x_shape, y_shape, _per_axis("kernel_shape", sizes, len(sizes), 1), window, *layout)


# ---- the cached readings: every argument normalised, so that equal keys mean equal geometries --------


class _Window(NamedTuple):
    """Stride, dilation, crop and size of the output, one entry per axis."""

    stride: Shape
    low: Shape
    high: Shape
    output_padding: Shape
    output_shape: Shape | None
    dilation: Shape


class _Layout(NamedTuple):
    groups: int
    channels: Channels
    axes: Shape | None


_cached = lru_cache(maxsize=512)


@_cached
def _forward(
    x_shape: Shape, w_shape: Shape, window: _Window, groups: int, channels: Channels, axes: Shape | None, x_name: str
) -> Geometry:
    kernel = _kernel(w_shape, groups, channels)
    order = _order(x_name, x_shape, kernel, channels, axes)
    n = _spatial(x_name, x_shape, order, len(kernel))
    if channels is not None:
        _match_channels(x_name, x_shape, order, len(kernel), "w.shape[0]", w_shape[0])
    m = []
    for a, (size, taps) in enumerate(zip(n, kernel, strict=True)):
        s, d, low, high, extra = (
            v[a] for v in (window.stride, window.dilation, window.low, window.high, window.output_padding)
        )
        full = (size - 1) * s + d * (taps - 1) + 1
        if window.output_shape is not None:
            m.append(window.output_shape[a])
            continue
        m.append(full - low - high + extra)
        if m[-1] < 0:
            raise ValueError(
                f"padding=({low}, {high}) crops the output of axis {a} to size {m[-1]}: it must leave at least 0 of "
                f"(n - 1)*stride + dilation*(k - 1) + 1 + output_padding = {full + extra}"
            )
    c_out = w_shape[1] * groups if channels else 1
    return _assemble(x_shape, w_shape, None, n, kernel, tuple(m), c_out, window, groups, channels, order)


@_cached
def _adjoint(
    y_shape: Shape,
    w_shape: Shape,
    window: _Window,
    input_shape: Shape | None,
    groups: int,
    channels: Channels,
    axes: Shape | None,
) -> Geometry:
    kernel = _kernel(w_shape, groups, channels)
    order = _order("y", y_shape, kernel, channels, axes)
    m = _spatial("y", y_shape, order, len(kernel), least=0)
    if channels is not None:
        _match_channels("y", y_shape, order, len(kernel), "w.shape[1]*groups", w_shape[1] * groups)
    _match_window(window, m)
    n = input_shape if input_shape is not None else _fit(m, kernel, window)
    c_in = w_shape[0] if channels else 1
    return _assemble(None, w_shape, y_shape, n, kernel, m, c_in, window, groups, channels, order)


@_cached
def _weight_adjoint(
    x_shape: Shape,
    y_shape: Shape,
    kernel: Shape,
    window: _Window,
    groups: int,
    channels: Channels,
    axes: Shape | None,
) -> Geometry:
    order = _order("x", x_shape, kernel, channels, axes)
    if len(y_shape) != len(x_shape):
        raise ValueError(f"y has {len(y_shape)} axes and x has {len(x_shape)}: they must have as many")
    n = _spatial("x", x_shape, order, len(kernel))
    m = _spatial("y", y_shape, order, len(kernel), least=0)
    _match_window(window, m)
    lead = order[: len(order) - len(kernel) - (channels is not None)]
    if any(x_shape[a] != y_shape[a] for a in lead):
        raise ValueError(f"x and y of shapes {x_shape} and {y_shape} must have equal batch axes {lead}")
    w_shape = kernel
    if channels is not None:
        where = order[len(lead)]
        c_in, c_out = x_shape[where], y_shape[where]
        for name, c in (("x", c_in), ("y", c_out)):
            if c % groups:
                raise ValueError(f"groups={groups} must divide the {c} channels of {name}")
        w_shape = (c_in, c_out // groups, *kernel)
    return _assemble(x_shape, w_shape, y_shape, n, kernel, m, 0, window, groups, channels, order)


def _assemble(
    x_shape: Shape | None,
    w_shape: Shape,
    y_shape: Shape | None,
    n: Shape,
    kernel: Shape,
    m: Shape,
    channels_of_unknown: int,
    window: _Window,
    groups: int,
    channels: Channels,
    order: Shape,
) -> Geometry:
    """Put the pieces together: the shape that is still None takes its batch from the one that is not."""
    ndim = len(kernel)

    def like(shape: Shape, spatial: Shape) -> Shape:
        new = list(shape)
        for axis, size in zip(order[-ndim:], spatial, strict=True):
            new[axis] = size
        if channels is not None:
            new[order[-ndim - 1]] = channels_of_unknown
        return tuple(new)

    if x_shape is None:
        assert y_shape is not None
        x_shape = like(y_shape, n)
    if y_shape is None:
        y_shape = like(x_shape, m)
    for name, shape in (("x", x_shape), ("w", w_shape), ("y", y_shape)):
        if NUMBER * math.prod(size for size in shape if size) > sys.maxsize:
            raise ValueError(f"{name} of shape {shape} must fit the address space, {sys.maxsize} bytes")
    axes = []
    for a in range(ndim):
        s, d, low = window.stride[a], window.dilation[a], window.low[a]
        if (n[a] - 1) * s + (kernel[a] - 1) * d + m[a] + s + d + abs(low) > sys.maxsize // 2:
            raise ValueError(
                f"stride={s}, dilation={d} and padding={low} on axis {a} of size {n[a]} with {kernel[a]} taps: "
                f"positions must stay within the address space, {sys.maxsize}"
            )
        axes.append(Axis(n[a], kernel[a], m[a], s, d, low))
    return Geometry(x_shape, w_shape, y_shape, tuple(axes), groups, channels, order)


def _fit(m: Shape, kernel: Shape, window: _Window) -> Shape:
    """As many samples as there are whole kernels in y."""
    n = []
    for a, (size, taps) in enumerate(zip(m, kernel, strict=True)):
        s, d, low, high, extra = (
            v[a] for v in (window.stride, window.dilation, window.low, window.high, window.output_padding)
        )
        room = size + low + high - extra
        span = d * (taps - 1) + 1
        if room < span:
            less = f" and output_padding={extra}" if extra else ""
            raise ValueError(
                f"y has {size} samples on axis {a}, {room} with padding=({low}, {high}){less}: "
                f"the kernel needs at least dilation*(k - 1) + 1 = {span}"
            )
        n.append((room - span) // s + 1)
    return tuple(n)


# ---- arguments ---------------------------------------------------------------------------------------


def integer(name: str, value: Any, or_more: str = "") -> int:
    """`value` as an int; TypeError if it is none."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r} must be an integer{or_more}") from None


def _index(name: str, value: Any) -> int:
    return integer(name, value, ", or one integer per axis")


def _is_scalar(value: Any) -> bool:
    try:
        iter(value)
    except TypeError:  # numpy's 0-d arrays among them
        return True
    return isinstance(value, (str, bytes, set, frozenset, dict))  # no sequences of integers, whatever they hold


def ints(name: str, value: Any) -> int | Shape:
    """An int stays an int, anything iterable becomes a tuple of ints."""
    if type(value) is int:
        return value
    if _is_scalar(value):
        return _index(name, value)
    return tuple(_index(name, v) for v in value)


def _per_axis(name: str, value: Any, ndim: int, least: int) -> Shape:
    numbers = ints(name, value)
    values = (numbers,) * ndim if isinstance(numbers, int) else numbers
    if len(values) != ndim:
        raise ValueError(f"{name}={value!r} must be an int or have one entry for each of the {ndim} axes of the kernel")
    for a, v in enumerate(values):
        if v < least:
            raise ValueError(f"{name}={v} on axis {a} must be at least {least}")
    return values


def _pairs(padding: Any, ndim: int) -> tuple[Shape, Shape]:
    """Expand an int, one int per axis or a ``(low, high)`` pair per axis, mixed at will."""
    if _is_scalar(padding):
        both = (_index("padding", padding),) * ndim
        return both, both
    entries = [ints("padding", p) for p in padding]
    if len(entries) != ndim:
        raise ValueError(
            f"padding={padding!r} must be an int or have an int or a (low, high) pair for each of the {ndim} axes "
            "of the kernel"
        )
    pairs = []
    for a, p in enumerate(entries):
        if not isinstance(p, int) and len(p) != 2:
            raise ValueError(f"padding={p} on axis {a} must be an int or a (low, high) pair")
        pairs.append((p, p) if isinstance(p, int) else p)
    return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)


def _window(ndim: int, stride: Any, padding: Any, output_padding: Any, output_shape: Any, dilation: Any) -> _Window:
    stride = _per_axis("stride", stride, ndim, 1)
    low, high = _pairs(padding, ndim)
    extra = _per_axis("output_padding", output_padding, ndim, 0)
    dilation = _per_axis("dilation", dilation, ndim, 1)
    for a, (e, s, d) in enumerate(zip(extra, stride, dilation, strict=True)):
        if e >= s and e >= d and e > 0:
            raise ValueError(
                f"output_padding={e} on axis {a} must be smaller than the stride {s} or the dilation {d} of that axis; "
                "output_shape can ask for any size"
            )
    if output_shape is not None:
        output_shape = _per_axis("output_shape", output_shape, ndim, 0)
        if any(extra):
            raise ValueError(
                f"output_padding={extra} must be 0 when output_shape={output_shape} sets the size outright"
            )
    return _Window(stride, low, high, extra, output_shape, dilation)


def _layout(groups: Any, channels: Any, axes: Any) -> _Layout:
    count = integer("groups", groups)
    if count < 1:
        raise ValueError(f"groups={count} must be at least 1")
    if channels is not None and (not isinstance(channels, str) or channels not in ("first", "last")):
        raise ValueError(f"channels={channels!r} must be None, 'first' or 'last'")
    if channels is None and count != 1:
        raise ValueError(f"groups={count} must be 1 for plain arrays: pass channels='first' or 'last'")
    if axes is not None:
        if channels is not None:
            raise ValueError(f"axes={axes!r} goes with plain arrays only, not with channels={channels!r}")
        axes = ints("axes", axes)
        axes = (axes,) if isinstance(axes, int) else axes
    return _Layout(count, channels, axes)


def _kernel_ndim(w_shape: Shape, channels: Channels) -> int:
    lead = 0 if channels is None else 2
    if len(w_shape) <= lead:
        layout = "(*K)" if channels is None else "(C_in, C_out // groups, *K)"
        raise ValueError(f"w of shape {w_shape} must be {layout} with at least one axis in K")
    return len(w_shape) - lead


def _kernel(w_shape: Shape, groups: int, channels: Channels) -> Shape:
    """Spatial sizes of w."""
    kernel = w_shape if channels is None else w_shape[2:]
    if not all(kernel):
        raise ValueError(f"w of shape {w_shape} must have at least one tap on every spatial axis")
    if channels is not None and w_shape[0] % groups:
        raise ValueError(f"groups={groups} must divide C_in = w.shape[0] = {w_shape[0]}")
    return kernel


def _order(name: str, shape: Shape, kernel: Shape, channels: Channels, axes: Shape | None) -> Shape:
    """The transposition that puts batch first, then channels, then the convolved axes."""
    ndim, k = len(shape), len(kernel)
    if ndim < k + (channels is not None):
        raise ValueError(
            f"{name} of shape {shape} must have at least {k + (channels is not None)} axes: "
            f"{'' if channels is None else 'channels and '}one for each of the {k} axes of the kernel"
        )
    if ndim > MAX_AXES:
        raise ValueError(f"{name} of shape {shape} must have at most {MAX_AXES} axes")
    if channels == "last":
        lead = ndim - k - 1
        return (*range(lead), ndim - 1, *range(lead, ndim - 1))
    if axes is None:
        return tuple(range(ndim))
    if len(axes) != k:
        raise ValueError(f"axes={axes} must name one axis for each of the {k} axes of the kernel")
    where = []
    for a in axes:
        if not -ndim <= a < ndim:
            raise AxisError(f"axes={axes}: axis {a} is out of bounds for {name} with {ndim} axes")
        where.append(a % ndim)
    if len(set(where)) != k:
        raise ValueError(f"axes={axes} must not name an axis of {name} twice")
    batch = tuple(a for a in range(ndim) if a not in where)
    return (*batch, *where)


def _spatial(name: str, shape: Shape, order: Shape, ndim: int, least: int = 1) -> Shape:
    sizes = tuple(shape[a] for a in order[-ndim:])
    if any(size < least for size in sizes):
        raise ValueError(f"{name} of shape {shape} must have at least one sample on every spatial axis")
    return sizes


def _match_channels(name: str, shape: Shape, order: Shape, ndim: int, rule: str, channels: int) -> None:
    axis = order[-ndim - 1]
    if shape[axis] != channels:
        raise ValueError(
            f"{name} of shape {shape} has {shape[axis]} channels on axis {axis}: it must have {rule} = {channels}"
        )


def _match_window(window: _Window, m: Shape) -> None:
    if window.output_shape is not None and window.output_shape != m:
        raise ValueError(f"output_shape={window.output_shape} must be the spatial sizes of y, {m}")
