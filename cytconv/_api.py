"""The public functions: coerce, fix the geometry, allocate, call a method, return."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

from ._geometry import Channels, Geometry, Ints, Padding
from ._memory import empty
from ._methods import Method, choose
from ._phases import Reading
from ._runtime import resolve_workers
from .kernels.recall import recall, remember

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
    """Transposed convolution along any number of axes.

    Each sample of `x` spreads over the output, weighted by the kernel: along every axis ::

        y[o] = bias + sum of x[i] * w[k] over all i, k with  o = i*stride + k*dilation - low

    It is what PyTorch calls ``ConvTranspose1d`` to ``ConvTranspose3d``, for any number of axes, real and complex.

    Parameters
    ----------
    x : array_like
        Samples.  Plain arrays (``channels=None``) are convolved along their last ``w.ndim`` axes, or along `axes`; all
        other axes are batch.  With ``channels="first"`` the shape is ``(..., C_in, *n)``, with ``channels="last"`` it
        is ``(..., *n, C_in)``, with any number of batch axes in front, none included.
    w : array_like
        Kernel of shape ``K``, or ``(C_in, C_out // groups, *K)`` with channels.
    stride, dilation : int or sequence of int, optional
        Outputs from one sample to the next, and from one tap to the next; one for all axes or one for each.
    padding : int or sequence of int or of (low, high), optional
        Outputs to crop at the two ends of each axis.  Negative values extend the output.
    output_padding : int or sequence of int, optional
        Outputs to add at the high end; smaller than the stride or the dilation of the axis.
    output_shape : int or sequence of int, optional
        Size of the output along each axis, outright: the high side of `padding` then plays no part.
    groups : int, optional
        Blocks of channels that do not see each other.  Must divide ``C_in``.
    bias : array_like, optional
        Shape ``(C_out,)``, a scalar for plain arrays: added to every element of the output.
    channels : {None, "first", "last"}, optional
        Layout of `x` and of the result.
    axes : int or sequence of int, optional
        For plain arrays, the axis of `x` along which each axis of `w` is convolved.
    method : {"auto", "direct", "sparse", "fft"}, optional
        "direct" computes the sums in compiled kernels.  "fft" multiplies spectra, which pays for large kernels; its
        errors are relative to the norms of `x` and `w`, not to each result, and where transforms would take far more
        work than the sums it is "direct".  "sparse" multiplies by the matrix of one batch item, which a function makes
        in every call and `ConvTranspose` once.  "auto" is "fft" where that takes far less work, for kernels of about
        30 x 30 to 60 x 60 taps and more, and else "direct"; but with many channels and several axes it may add samples
        up before it multiplies them, which takes fewer multiplications (Winograd's minimal filtering) and costs some
        precision: up to 2.1 times the error of "direct" was seen.  Infinity and NaN reach the same outputs with any of
        them.
    workers : int, optional
        Threads to use at most.  None is what OpenMP would use (so ``OMP_NUM_THREADS`` and threadpoolctl apply), -1 is
        every CPU, -2 all but one.  Results are bitwise equal for every number of workers.
    out : ndarray, optional
        Where to put the result: of its shape and dtype, with any strides, not overlapping an input.

    Returns
    -------
    y : ndarray
        Shape of `x` with the output channels in the place of its channels and, for each convolved axis of n samples and
        k taps, ``(n - 1)*stride + dilation*(k - 1) + 1 - low - high + output_padding`` outputs.  Its dtype is
        ``np.result_type(x, w)``; float16 is computed in float32.

    Raises
    ------
    ValueError
        If a shape or a value does not fit; the message names the argument and the rule.
    TypeError
        If the result would be neither float16, float32, float64, complex64 nor complex128, or an argument that must be
        an integer is not.
    numpy.exceptions.AxisError
        If `axes` names an axis that `x` does not have.
    MemoryError
        With method "sparse", if the matrix is larger than the memory of the machine.

    See Also
    --------
    conv_transpose_adjoint : the adjoint in `x`.
    conv_transpose_weight_adjoint : the adjoint in `w`.
    conv : the transpose, a strided convolution.
    ConvTranspose : the same as a LinearOperator that keeps the weights packed.
    conv_transpose_matrix : the same as a sparse matrix.
    choose_method : which method is the fastest.

    Notes
    -----
    With stride 1 and no padding this equals ``scipy.signal.convolve(x, w, "full")``.  Method "direct" splits the
    output into the phases of the stride, as in [1]_: no zero is inserted between samples.  Beyond the output it takes
    memory for the packed weights and, for each worker, for one box of samples with its halo and the results from it:
    less than a second-level cache, and more only where the channels or the halo of some tens of neighbouring samples
    need more.

    A result of 1 to 256 MiB, or of 128 KiB and more by methods that take longer, is written where an earlier one of
    about its size was, once that is gone: memory new from the operating system would take longer to come than to fill.
    So the memory of up to eight such results, and of 256 MiB together, is kept.  These results do not own their data
    (``y.resize`` refuses).

    Non-finite samples reach exactly the outputs whose windows hold them; padding never multiplies them.

    References
    ----------
    .. [1] W. Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016, arXiv:1609.07009.

    Examples
    --------
    With as many taps as the stride, each sample becomes a region of its own, the kernel times that sample:

    >>> import numpy as np
    >>> from cytconv import conv_transpose
    >>> x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> w = np.array([[1.0, 10.0], [100.0, 1000.0]])
    >>> conv_transpose(x, w, stride=2).astype(int)
    array([[   1,   10,    2,   20,    3,   30],
           [ 100, 1000,  200, 2000,  300, 3000],
           [   4,   40,    5,   50,    6,   60],
           [ 400, 4000,  500, 5000,  600, 6000]])

    A layer of a U-Net, from 8 channels to 4:

    >>> x, w = np.ones((1, 8, 16, 16), np.float32), np.ones((8, 4, 2, 2), np.float32)
    >>> conv_transpose(x, w, stride=2, channels="first").shape
    (1, 4, 32, 32)
    """
    asked = (stride, padding, output_padding, output_shape, dilation, groups, channels, axes, method, workers)
    known: Array | None = recall("conv_transpose", x, w, asked, bias, out)
    if known is not None:
        return known
    fix = partial(
        Geometry.forward,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        output_shape=output_shape,
        dilation=dilation,
        groups=groups,
        channels=channels,
        axes=axes,
    )
    return _compute("conv_transpose", "forward", {"x": x, "w": w}, fix, asked, bias, out)


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
    """Strided convolution as deep learning has it: the transpose of `conv_transpose`.

    Along every axis ``x[i] = bias + sum of y[i*stride + k*dilation - low] * w[k]`` over the taps k whose sample exists.
    The kernel is neither flipped nor conjugated.

    Parameters
    ----------
    y : array_like
        Samples, in the layouts of `conv_transpose`, with ``C_out`` channels.
    w : array_like
        The *same* kernel as that of the `conv_transpose` which this transposes: shape ``K``, or
        ``(C_in, C_out // groups, *K)`` with channels.  It is PyTorch's weight of ``conv2d``, which calls the first of
        its axes the output channels, as they are here.
    stride, dilation, groups : optional
        As for `conv_transpose`.
    padding : int or sequence of int or of (low, high), optional
        Zeros to add at the two ends of each axis of `y`; negative values crop.
    bias : array_like, optional
        Shape ``(C_in,)``, a scalar for plain arrays.
    channels, axes, method, workers, out : optional
        As for `conv_transpose`.

    Returns
    -------
    x : ndarray
        With ``(m + low + high - dilation*(k - 1) - 1)//stride + 1`` samples for each axis of m samples and k taps.
        Trailing samples of `y` that no window reaches are ignored.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        As for `conv_transpose`, and if the kernel does not fit into `y`.

    See Also
    --------
    conv_transpose_adjoint : the same with the conjugate of `w`, for any size of the result.

    Examples
    --------
    Halve a signal, taking the mean of two samples each:

    >>> from cytconv import conv
    >>> conv([1.0, 3.0, 5.0, 7.0], [0.5, 0.5], stride=2)
    array([2., 6.])
    """
    asked = (stride, padding, dilation, groups, channels, axes, method, workers)
    known: Array | None = recall("conv", y, w, asked, bias, out)
    if known is not None:
        return known
    fix = partial(
        Geometry.adjoint,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        channels=channels,
        axes=axes,
    )
    return _compute("conv", "adjoint", {"y": y, "w": w}, fix, asked, bias, out)


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
    """Adjoint of `conv_transpose` in its samples.

    For ``A(x) = conv_transpose(x, w, ...)`` this is the operator for which ``<A(x), y> = <x, adjoint(y)>``: along every
    axis ``x[i] = sum of y[i*stride + k*dilation - low] * conj(w[k])``.  In deep learning it is the gradient with
    respect to the input of the layer.

    Parameters
    ----------
    y : array_like
        An output of `conv_transpose`, whatever its size: it is the window on the full result.
    w : array_like
        The kernel of `conv_transpose`.
    input_shape : int or sequence of int, optional
        Spatial sizes of x.  By default ``(m + low + high - dilation*(k - 1) - 1 - output_padding)//stride + 1`` for
        each axis of m samples and k taps; several sizes of x can lead to one size of y.
    stride, padding, output_padding, output_shape, dilation, groups : optional
        As for `conv_transpose`.  An `output_shape` must be that of `y`.
    channels, axes, method, workers, out : optional
        As for `conv_transpose`.

    Returns
    -------
    x : ndarray
        Of dtype ``np.result_type(y, w)``.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        As for `conv_transpose`.

    See Also
    --------
    conv_transpose : the operator.
    conv : the same without conjugating `w`, for the smallest x.

    Notes
    -----
    With stride 1 and no padding this equals ``scipy.signal.correlate(y, w, "valid")``.

    Examples
    --------
    >>> import numpy as np
    >>> from cytconv import conv_transpose, conv_transpose_adjoint
    >>> rng = np.random.default_rng(0)
    >>> x, w = rng.standard_normal((5, 6)), rng.standard_normal((3, 3))
    >>> Ax = conv_transpose(x, w, stride=2, padding=1)
    >>> y = rng.standard_normal(Ax.shape)
    >>> bool(np.isclose(np.vdot(Ax, y), np.vdot(x, conv_transpose_adjoint(y, w, stride=2, padding=1))))
    True
    """
    window = (stride, padding, output_padding, output_shape, dilation)
    asked = (input_shape, window, groups, channels, axes, method, workers)
    known: Array | None = recall("conv_transpose_adjoint", y, w, asked, None, out)
    if known is not None:
        return known
    fix = partial(
        Geometry.adjoint,
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
    return _compute("conv_transpose_adjoint", "adjoint", {"y": y, "w": w}, fix, asked, None, out)


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
    """Adjoint of `conv_transpose` in its kernel.

    For ``B(w) = conv_transpose(x, w, ...)`` this is the operator for which ``<B(w), y> = <w, adjoint(y)>``: along every
    axis ``w[k] = sum of conj(x[i]) * y[i*stride + k*dilation - low]``.  In deep learning it is the gradient with
    respect to the weights of the layer.

    Parameters
    ----------
    x : array_like
        Samples, as for `conv_transpose`.
    y : array_like
        An output of `conv_transpose`, whatever its size: it is the window on the full result.
    kernel_shape : int or sequence of int
        Spatial sizes of w.  For plain arrays it sets the number of axes, and an int means one axis unless `axes` names
        more; with channels it must name every axis.
    stride, padding, output_padding, output_shape, dilation, groups : optional
        As for `conv_transpose`.  An `output_shape` must be that of `y`.
    channels, axes, method, workers, out : optional
        As for `conv_transpose`.

    Returns
    -------
    w : ndarray
        Shape ``kernel_shape``, or ``(C_in, C_out // groups, *kernel_shape)`` with channels; dtype
        ``np.result_type(x, y)``.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        As for `conv_transpose`, and if the batch axes of `x` and `y` differ.

    See Also
    --------
    conv_transpose : the operator.
    conv_transpose_adjoint : its adjoint in the samples.

    Examples
    --------
    >>> import numpy as np
    >>> from cytconv import conv_transpose_weight_adjoint
    >>> x, y = np.array([1.0, 2.0]), np.array([1.0, 0.0, 10.0, 0.0, 0.0])
    >>> conv_transpose_weight_adjoint(x, y, kernel_shape=3, stride=2)
    array([21.,  0., 10.])
    """
    window = (stride, padding, output_padding, output_shape, dilation)
    asked = (kernel_shape, window, groups, channels, axes, method, workers)
    known: Array | None = recall("conv_transpose_weight_adjoint", x, y, asked, None, out)
    if known is not None:
        return known
    fix = partial(
        Geometry.weight_adjoint,
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
    return _compute("conv_transpose_weight_adjoint", "weight_adjoint", {"x": x, "y": y}, fix, asked, None, out)


def _compute(
    function: str,
    reading: Reading,
    arrays: dict[str, ArrayLike],
    fix: Callable[..., Geometry],
    asked: tuple[Any, ...],
    bias: ArrayLike | None,
    out: Array | None,
) -> Array:
    """The one of x, w and y that is not among `arrays`; `asked` are the other arguments, method and workers last."""
    chosen = choose(asked[-2])
    resolve_workers(asked[-1])  # for its errors, before there is a result
    known, dtype, compute = coerce(**arrays)
    geometry = fix(*(a.shape for a in known))
    name, shape, size = {
        "forward": ("y", geometry.y_shape, geometry.channels_out),
        "adjoint": ("x", geometry.x_shape, geometry.channels_in),
        "weight_adjoint": ("w", geometry.w_shape, 1),
    }[reading]
    offset = _bias(bias, size, geometry.channels, dtype, compute, geometry.groups)
    result = _result(out, shape, dtype, **dict(zip(arrays, known, strict=True)), bias=bias)
    unknown = _working(result, compute)
    splits = {"x": geometry.split_x, "w": geometry.split_w, "y": geometry.split_y}
    if not unknown.size:
        return _finish(out, result, unknown)
    if not all(a.size for a in known):  # no channel, or no sample, to sum over
        fill = 0 if offset is None else offset.reshape(*offset.shape, *(1,) * len(geometry.axes))
        splits[name](unknown)[...] = fill
        return _finish(out, result, unknown)

    named = {**dict(zip(arrays, known, strict=True)), name: unknown}
    x, w, y = (named[each] for each in "xwy")
    if _settled(function, known, asked, chosen, reading, geometry, x, w, y, bias, out):
        return _finish(out, result, unknown)
    a, b = (native(each, compute) for each in known)
    b = b.conj() if function == "conv" else b  # the methods conjugate in the adjoint, which this is but for that
    _run(chosen, reading, geometry, unknown.shape, compute, asked[-1], a, b, unknown, offset)
    return _finish(out, result, unknown)


def _settled(
    function: str,
    known: list[Array],
    asked: tuple[Any, ...],
    method: type[Method],
    reading: Reading,
    geometry: Geometry,
    x: Array,
    w: Array,
    y: Array,
    bias: ArrayLike | None,
    out: Array | None,
) -> bool:
    """Compute the unknown one of x, w and y by a short way, if there is one; tells whether that was all.

    The next call with arguments like these takes it at once, see `cytconv.kernels.recall`.
    """
    unknown = {"forward": y, "adjoint": x, "weight_adjoint": w}[reading]
    given = [*known, *(a for a in (bias, out) if a is not None)]
    if not all(isinstance(a, np.ndarray) and a.dtype == unknown.dtype and a.flags.aligned for a in given):
        return False
    split = geometry.split_x(x), geometry.split_w(w), geometry.split_y(y)
    call = method.repeat(reading, geometry.axes, *split, unknown.shape, asked[-1], bias is not None)
    if call is None:
        call = partial(_run, method, reading, geometry, unknown.shape, unknown.dtype, asked[-1])
    if function == "conv" and unknown.dtype.kind == "c":
        call = partial(_with_conjugate, call)  # the methods conjugate in the adjoint, which this is but for that
    remember(function, known[0], known[1], asked, bias, out, call)
    return call(*known, unknown, bias) is not None


def _run(
    method: type[Method],
    reading: Reading,
    geometry: Geometry,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    workers: SupportsIndex | None,
    a: Array,
    b: Array,
    result: Array | None,
    bias: Array | None,
) -> Array:
    """What the method itself computes, of the two arrays that are known: the way where there is no short one."""
    if result is None:
        result = empty(shape, dtype, slow=True)
    x, w, y = {"forward": (a, b, result), "adjoint": (result, b, a), "weight_adjoint": (a, result, b)}[reading]
    x, w, y = geometry.split_x(x), geometry.split_w(w), geometry.split_y(y)
    offset = None if bias is None else bias.reshape(geometry.groups, -1)
    threads = resolve_workers(workers)
    if reading == "weight_adjoint":
        method.weight_adjoint(geometry.axes, x, y, w, threads)
    elif reading == "forward":
        method(geometry.axes, w).forward(x, offset, y, threads)
    else:
        method(geometry.axes, w).adjoint(y, offset, x, threads)
    return result


def _with_conjugate(
    call: Callable[..., Array | None], y: Array, w: Array, result: Array | None, bias: Array | None
) -> Array | None:
    return call(y, w.conj(), result, bias)


# ---- coercion ----------------------------------------------------------------------------------------


def coerce(**arrays: ArrayLike) -> tuple[list[Array], np.dtype[Any], np.dtype[Any]]:
    """The arguments as arrays, the dtype of the result, and the dtype to compute in."""
    coerced = [array_of(name, a) for name, a in arrays.items()]

    def given() -> str:
        return " and ".join(f"{name} of {a.dtype}" for name, a in zip(arrays, coerced, strict=True))

    try:
        dtype = np.result_type(*(a.dtype for a in coerced)).newbyteorder("=")
    except TypeError as error:
        raise TypeError(f"{given()} have no common type: {error}") from None
    if dtype.char not in "efdFD":
        raise TypeError(
            f"{given()} give a result of {dtype}: it must be float16, float32, float64, complex64 or complex128"
        )
    return coerced, dtype, np.dtype(np.float32) if dtype == np.float16 else dtype


def array_of(name: str, a: ArrayLike) -> Array:
    """`a` as an array; ValueError if it is a list of lists of different lengths, or too large."""
    if issparse(a):
        raise TypeError(f"{name} must be a dense array: pass {name}.toarray()")
    try:
        return np.asarray(a)
    except ValueError as error:
        raise ValueError(f"{name} must be an array: {error}") from None


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
    with np.errstate(all="ignore"):  # as in the result
        return array.astype(dtype).astype(compute).reshape(groups, size // groups)


def _result(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any], **inputs: Any) -> Array:
    """`out` after every check, or a new array."""
    if out is None:
        return empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out={out!r} must be a numpy array")
    if out.shape != shape:
        raise ValueError(f"out of shape {out.shape} must have the shape of the result, {shape}")
    if out.dtype != dtype:
        raise TypeError(f"out of {out.dtype} must have the dtype of the result, {dtype}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable")
    if _overlaps_itself(out):
        raise ValueError(f"out of shape {out.shape} with strides {out.strides} must not overlap itself")
    for name, a in inputs.items():
        if isinstance(a, np.ndarray) and _overlap(out, a):
            raise ValueError(f"out must not overlap {name}")
    return out.view(np.ndarray)


def _overlaps_itself(a: Array) -> bool:
    """Whether two elements share memory."""
    steps = sorted((abs(stride), size) for stride, size in zip(a.strides, a.shape, strict=True) if size > 1)
    reach, nested = a.itemsize, a.size > 0
    for stride, size in steps:
        nested = nested and stride >= reach
        reach += stride * (size - 1)
    if nested or not a.size:
        return False  # each axis steps over all that lies within the shorter steps
    offsets = sum(np.ix_(*(np.arange(size) * stride for stride, size in steps)), np.zeros((), np.intp)).ravel()
    return bool((np.diff(np.sort(offsets)) < a.itemsize).any())


def _overlap(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # the stubs know -1 and 0 only
    except np.exceptions.TooHardError:  # overlapping ranges: err on the safe side
        return True


def _working(result: Array, compute: np.dtype[Any]) -> Array:
    """Where to compute: `result` itself, or a stand-in that `_finish` copies from."""
    if result.dtype == compute and result.flags.aligned:
        return result
    return np.empty(result.shape, compute)


def _finish(out: Array | None, result: Array, computed: Array) -> Array:
    if computed is not result:
        with np.errstate(all="ignore"):  # float16 overflows to inf and underflows to 0: a result, and no error half way
            result[...] = computed
    return result if out is None else out
