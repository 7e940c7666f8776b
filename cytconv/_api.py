"""The public functions: coerce, fix the geometry, allocate, call a method, return."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._geometry import Channels, Geometry, Ints, Padding
from ._methods import choose
from ._runtime import resolve_workers

__all__ = ["conv", "conv_transpose", "conv_transpose_adjoint", "conv_transpose_weight_adjoint"]

Array = NDArray[Any]


def conv_transpose(
    x: ArrayLike,
    w: ArrayLike,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    output_shape: Ints | None = None,
    dilation: Ints = 1,
    groups: SupportsIndex = 1,
    bias: ArrayLike | None = None,
    channels: Channels = None,
    axes: Ints | None = None,
    method: str = "auto",
    workers: SupportsIndex | None = None,
    out: Array | None = None,
) -> Array:
    """Transposed convolution."""
    chosen, threads = choose(method), resolve_workers(workers)
    (x, w), dtype, compute = coerce(x=x, w=w)
    geometry = Geometry.forward(
        x.shape,
        w.shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        output_shape=output_shape,
        dilation=dilation,
        groups=groups,
        channels=channels,
        axes=axes,
    )
    offset = _bias(bias, geometry.channels_out, channels, dtype, compute, geometry.groups)
    result = _result(out, geometry.y_shape, dtype, x=x, w=w, bias=bias)
    y = _working(result, compute)
    if y.size:
        split = geometry.split_y(y)
        if x.size:
            operator = chosen(geometry.axes, geometry.split_w(native(w, compute)))
            operator.forward(geometry.split_x(native(x, compute)), offset, split, threads)
        else:  # no channel to sum over
            split[...] = 0 if offset is None else offset.reshape(*offset.shape, *(1,) * len(geometry.axes))
    return _finish(result, y)


def conv(
    y: ArrayLike,
    w: ArrayLike,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: SupportsIndex = 1,
    bias: ArrayLike | None = None,
    channels: Channels = None,
    axes: Ints | None = None,
    method: str = "auto",
    workers: SupportsIndex | None = None,
    out: Array | None = None,
) -> Array:
    """Strided convolution as deep learning has it: the transpose of `conv_transpose`."""
    chosen, threads = choose(method), resolve_workers(workers)
    (y, w), dtype, compute = coerce(y=y, w=w)
    geometry = Geometry.adjoint(
        y.shape, w.shape, stride=stride, padding=padding, dilation=dilation, groups=groups, channels=channels, axes=axes
    )
    offset = _bias(bias, geometry.channels_in, channels, dtype, compute, geometry.groups)
    result = _result(out, geometry.x_shape, dtype, y=y, w=w, bias=bias)
    x = _working(result, compute)
    if x.size:
        split = geometry.split_x(x)
        if y.size:
            operator = chosen(geometry.axes, geometry.split_w(native(w, compute).conj()))
            operator.adjoint(geometry.split_y(native(y, compute)), split, threads)
        else:
            split[...] = 0
        if offset is not None:
            split += offset.reshape(*offset.shape, *(1,) * len(geometry.axes))
    return _finish(result, x)


def conv_transpose_adjoint(
    y: ArrayLike,
    w: ArrayLike,
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
    method: str = "auto",
    workers: SupportsIndex | None = None,
    out: Array | None = None,
) -> Array:
    """Adjoint of `conv_transpose` in x."""
    chosen, threads = choose(method), resolve_workers(workers)
    (y, w), dtype, compute = coerce(y=y, w=w)
    geometry = Geometry.adjoint(
        y.shape,
        w.shape,
        input_shape=input_shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        output_shape=output_shape,
        dilation=dilation,
        groups=groups,
        channels=channels,
        axes=axes,
    )
    result = _result(out, geometry.x_shape, dtype, y=y, w=w)
    x = _working(result, compute)
    if x.size:
        split = geometry.split_x(x)
        if y.size:
            operator = chosen(geometry.axes, geometry.split_w(native(w, compute)))
            operator.adjoint(geometry.split_y(native(y, compute)), split, threads)
        else:
            split[...] = 0
    return _finish(result, x)


def conv_transpose_weight_adjoint(
    x: ArrayLike,
    y: ArrayLike,
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
    method: str = "auto",
    workers: SupportsIndex | None = None,
    out: Array | None = None,
) -> Array:
    """Adjoint of `conv_transpose` in w."""
    chosen, threads = choose(method), resolve_workers(workers)
    (x, y), dtype, compute = coerce(x=x, y=y)
    geometry = Geometry.weight_adjoint(
        x.shape,
        y.shape,
        kernel_shape=kernel_shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        output_shape=output_shape,
        dilation=dilation,
        groups=groups,
        channels=channels,
        axes=axes,
    )
    result = _result(out, geometry.w_shape, dtype, x=x, y=y)
    w = _working(result, compute)
    if w.size:
        split = geometry.split_w(w)
        if x.size and y.size:
            split_x, split_y = geometry.split_x(native(x, compute)), geometry.split_y(native(y, compute))
            chosen.weight_adjoint(geometry.axes, split_x, split_y, split, threads)
        else:
            split[...] = 0
    return _finish(result, w)


# ---- coercion ----------------------------------------------------------------------------------------


def coerce(**arrays: ArrayLike) -> tuple[list[Array], np.dtype[Any], np.dtype[Any]]:
    """The arguments as arrays, the dtype of the result, and the dtype to compute in."""
    coerced = [np.asarray(a) for a in arrays.values()]
    dtype = np.result_type(*(a.dtype for a in coerced)).newbyteorder("=")
    if dtype.char not in "efdFD":
        given = " and ".join(f"{name} of {a.dtype}" for name, a in zip(arrays, coerced, strict=True))
        raise TypeError(
            f"{given} give a result of {dtype}: it must be float16, float32, float64, complex64 or complex128"
        )
    return coerced, dtype, np.dtype(np.float32) if dtype == np.float16 else dtype


def native(a: Array, dtype: np.dtype[Any]) -> Array:
    """`a` itself where the kernels can read it in place, else a converted copy."""
    if a.dtype == dtype and a.dtype.isnative and a.flags.aligned:
        return a
    return a.astype(dtype)


def _bias(
    bias: ArrayLike | None,
    size: int,
    channels: Channels,
    dtype: np.dtype[Any],
    compute: np.dtype[Any],
    groups: int,
) -> Array | None:
    """The bias as ``(groups, channels // groups)``."""
    if bias is None:
        return None
    array = np.asarray(bias)
    if array.dtype.kind not in "biufc" or (array.dtype.kind == "c" and dtype.kind != "c"):
        raise TypeError(f"bias of {array.dtype} must be of a type that casts to the result's, {dtype}")
    shape = () if channels is None else (size,)
    if array.shape != shape:
        raise ValueError(f"bias of shape {array.shape} must have shape {shape}")
    return array.astype(dtype).astype(compute).reshape(groups, size // groups)


def _result(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any], **inputs: Any) -> Array:
    """`out` after every check, or a new array."""
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out={out!r} must be a numpy array")
    if out.shape != shape:
        raise ValueError(f"out of shape {out.shape} must have the shape of the result, {shape}")
    if out.dtype != dtype:
        raise TypeError(f"out of {out.dtype} must have the dtype of the result, {dtype}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable")
    if any(stride == 0 and size > 1 for stride, size in zip(out.strides, shape, strict=True)):
        raise ValueError(f"out with strides {out.strides} must not overlap itself")
    for name, a in inputs.items():
        if isinstance(a, np.ndarray) and _overlap(out, a):
            raise ValueError(f"out must not overlap {name}")
    return out


def _overlap(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=10_000)
    except np.exceptions.TooHardError:  # overlapping ranges: err on the safe side
        return True


def _working(result: Array, compute: np.dtype[Any]) -> Array:
    """Where to compute: `result` itself, or a stand-in that `_finish` copies from."""
    if result.dtype == compute and result.flags.aligned:
        return result
    return np.empty(result.shape, compute)


def _finish(result: Array, computed: Array) -> Array:
    if computed is not result:
        with np.errstate(over="ignore"):  # float16 overflows to inf, as any float16 arithmetic
            result[...] = computed
    return result
