"""`ConvTranspose`: a transposed convolution as scipy's linear operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from ._api import coerce, native
from ._geometry import Channels, Geometry, Ints, Padding
from ._matrix import matrix
from ._memory import empty
from ._methods import Method, choose
from ._phases import Direction
from ._runtime import resolve_workers
from ._sparse import check_format, whole_shape

__all__ = ["ConvTranspose"]

Array = NDArray[Any]
Shape = tuple[int, ...]

REPEATS = 16  # kinds of vectors that an operator remembers


class _Reading(LinearOperator):
    """The matrix of a `ConvTranspose`, transposed or not, conjugated or not; the weights stay in one place.

    scipy reaches the adjoint of what is at hand as `_rmatvec`: that is the reading with both reversed.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    dims: Shape
    dimsd: Shape
    name: str
    clinear = True
    explicit = False

    # Vectors that came before, by whether they were multiplied in reverse, shape, strides and dtype.
    _repeats: dict[tuple[bool | None, Shape, Shape, np.dtype[Any]], Callable[[Array], Array | None]]
    _transposed = _conjugated = False

    def __init__(self, owner: ConvTranspose, transposed: bool, conjugated: bool) -> None:
        self._base, self._transposed, self._conjugated = owner, transposed, conjugated
        turn = -1 if transposed else 1
        super().__init__(owner.dtype, owner.shape[::turn])
        self.dims, self.dimsd = (owner.dims, owner.dimsd)[::turn]
        # With the owner: ``A.H`` is another object each time.  The owner does not keep the reading, which holds it.
        self._repeats = owner._known.setdefault((transposed, conjugated), {})
        # scipy has no name for the conjugate alone, but reaches it as the transpose of the adjoint.
        self.name = owner.name + (".T" if not conjugated else ".H" if transposed else ".H.T")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_repeats": {}}  # compiled plans, which are soon made again

    def _owner(self) -> ConvTranspose:
        """The operator that holds the weights."""
        return self._base

    def _matvec(self, x: Array) -> Array:
        return self._apply(_vector(x, self.shape[1]), False)

    def _rmatvec(self, x: Array) -> Array:
        return self._apply(_vector(x, self.shape[0]), True)

    def _matmat(self, X: Array) -> Array:
        return self._apply(X.swapaxes(-1, -2), False).swapaxes(-1, -2)

    def _rmatmat(self, X: Array) -> Array:
        return self._apply(X.swapaxes(-1, -2), True).swapaxes(-1, -2)

    def _apply(self, x: Array, reverse: bool) -> Array:
        """The product with each vector along the last axis."""
        x = np.asarray(x)
        repeat = self._repeats.get((reverse, x.shape, x.strides, x.dtype))
        if repeat is not None:
            product = repeat(x) if x.flags.aligned else None
            if product is not None:  # else these numbers need the long way
                return product
        elif x.ndim == 1 or (x.ndim == 2 and self._owner()._method.abreast):
            self._remember(reverse, x, (*x.shape[:-1], self.shape[1 if reverse else 0]))
        return self._owner()._product(x, self._transposed ^ reverse, self._conjugated ^ reverse)

    def _remember(self, reverse: bool | None, v: Array, shape: Shape) -> None:
        """Have the next vectors like these take the short way, if there is one; `reverse` is None for `__call__`."""
        reading = self._transposed ^ bool(reverse), self._conjugated ^ bool(reverse)
        repeat = self._owner()._repeat(v, () if reverse is None else v.shape[:-1], *reading, shape)
        if repeat is not None:
            if len(self._repeats) >= REPEATS:
                self._repeats.clear()
            self._repeats[reverse, v.shape, v.strides, v.dtype] = repeat

    def _adjoint(self) -> _Reading:
        return self._owner()._reading(not self._transposed, not self._conjugated)

    def _transpose(self) -> _Reading:
        return self._owner()._reading(not self._transposed, self._conjugated)

    def __call__(self, x: Any) -> Any:
        """The operator applied.

        Parameters
        ----------
        x : array_like or LinearOperator
            An array of shape `dims`, or what else ``self @ x`` takes.

        Returns
        -------
        ndarray or LinearOperator
            Of shape `dimsd` for an array of shape `dims`, and otherwise ``self @ x``.
        """
        if type(x) is np.ndarray and x.shape == self.dims:
            repeat = self._repeats.get((None, x.shape, x.strides, x.dtype))
            if repeat is None:
                self._remember(None, x, self.dimsd)
            elif x.flags.aligned:
                product = repeat(x)
                if product is not None:  # else these numbers need the long way
                    return product
        if not hasattr(x, "matvec") and np.shape(x) == self.dims:
            return np.asarray(self.matvec(np.asarray(x).reshape(-1))).reshape(self.dimsd)
        return self @ x

    def tosparse(self, format: str = "csr", *, index_dtype: Any = None, drop_zeros: bool = False) -> Any:
        """The same matrix with its entries, as a scipy sparse array.

        Parameters
        ----------
        format : {"csr", "csc", "coo", "bsr"}
            Storage of the result, as in `conv_transpose_matrix`.
        index_dtype : {None, int32, int64}, optional
            Type of the indices.  None is int32 where it holds the number of rows, of columns and of entries.
        drop_zeros : bool, optional
            Leave out entries that are zero, or blocks of them.

        Returns
        -------
        scipy.sparse.sparray
            Of this operator's shape and dtype.
        """
        check_format(format)
        storage = {"format": format, "index_dtype": index_dtype, "drop_zeros": drop_zeros}
        return self._owner()._matrix(self._transposed, self._conjugated, storage)

    def __repr__(self) -> str:
        return f"<{self.name} {self.dims} -> {self.dimsd}, {self._owner()._description()}>"


class ConvTranspose(_Reading):
    """Transposed convolution by fixed weights, as a `scipy.sparse.linalg.LinearOperator`.

    It stands for the matrix ``conv_transpose_matrix(w, input_shape, ...)`` without forming it: any solver or
    composition of scipy takes it, ``pylops.aslinearoperator`` too.  The weights are copied and packed once.

    Parameters
    ----------
    w : array_like
        Weights, as in `conv_transpose`: ``(*K)`` for plain arrays, else ``(C_in, C_out // groups, *K)``.
        Half precision becomes single, as scipy's solvers have none.
    input_shape : int or tuple of int
        The whole shape of x, batch and channels included.
    stride, padding, output_padding, output_shape, dilation, groups, channels, axes, method, workers : optional
        As in `conv_transpose`.

    Attributes
    ----------
    shape : (int, int)
        ``(y.size, x.size)``.
    dtype : numpy.dtype
        The type of the weights.
    dims, dimsd : tuple of int
        The shapes of x and of y: ``A(x)`` takes the one and returns the other.
    T, H : LinearOperator
        The transpose, which does not conjugate the weights, and the adjoint, which does.  Both share the
        weights of this operator.
    name, clinear, explicit
        What PyLops asks for: a name, complex linear, and not a matrix.

    Raises
    ------
    ValueError
        For shapes and values that do not fit.
    TypeError
        For arguments of the wrong type, and for a vector that is not a number: integers and booleans are
        cast to `dtype`, objects are refused.

    See Also
    --------
    conv_transpose : the same in one call.
    conv_transpose_matrix : the matrix itself.

    Notes
    -----
    The kernel is taken apart into one for each phase of the stride, as in [1]_, and packed as it will be read.
    Products are computed in ``numpy.result_type`` of the weights and the vector; real weights meet the real
    and the imaginary part of a complex vector as two items of a batch, and so do the columns of a matrix.
    It may be called from several threads at once, and pickled.

    References
    ----------
    .. [1] W. Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016,
       arXiv:1609.07009.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse.linalg import lsqr
    >>> from cytconv import ConvTranspose
    >>> A = ConvTranspose(np.array([[1.0, 2.0], [3.0, 4.0]]), (3, 5), stride=2)
    >>> A
    <ConvTranspose (3, 5) -> (6, 10), w (2, 2) of float64, stride (2, 2), method 'auto'>
    >>> x = np.arange(15.0).reshape(3, 5)
    >>> y = A(x)
    >>> bool(np.vdot(y, A @ x.ravel()) == np.vdot(x, A.H(y)))
    True
    >>> np.allclose(lsqr(A, y.ravel())[0], x.ravel())
    True
    """

    def __init__(
        self,
        w: ArrayLike,
        input_shape: Ints,
        *,
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
    ) -> None:
        self._method = choose(method)
        resolve_workers(workers)  # for its errors: None is to mean what OpenMP would use at the time of the call
        (w,), _, dtype = coerce(w=w)
        self._w: Array = np.array(w, dtype, order="C")
        self._w.flags.writeable = False
        self._geometry = Geometry.forward(
            whole_shape(input_shape),
            self._w.shape,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            output_shape=output_shape,
            dilation=dilation,
            groups=groups,
            channels=channels,
            axes=axes,
            x_name="input_shape",
        )
        self.method, self.workers = method, workers
        self._prepared: dict[np.dtype[Any], Method] = {}
        self._repeats = {}
        self._known: dict[tuple[bool, bool], dict[Any, Any]] = {}  # the same of each other reading
        geometry = self._geometry
        super(_Reading, self).__init__(dtype, (math.prod(geometry.y_shape), math.prod(geometry.x_shape)))
        self.dims, self.dimsd, self.name = geometry.x_shape, geometry.y_shape, "ConvTranspose"

    def _owner(self) -> ConvTranspose:
        return self

    def _reading(self, transposed: bool, conjugated: bool) -> _Reading:
        conjugated = conjugated and self.dtype.kind == "c"
        return _Reading(self, transposed, conjugated) if transposed or conjugated else self

    def _product(self, v: Array, transposed: bool, conjugated: bool) -> Array:
        """One reading applied to each vector along the last axis of `v`."""
        v = self._typed(v)
        size = self.shape[1 if transposed else 0]
        # Columns of a matrix in C order are vectors side by side: so are those of the result, if the method likes it.
        if self._method.abreast and v.ndim == 2 and v.strides[0] < v.strides[1]:
            out = empty((size, len(v)), v.dtype).T
        else:
            out = empty((*v.shape[:-1], size), v.dtype)
        if self.dtype.kind != "c":  # no weight to conjugate
            parts = _parts if v.dtype.kind == "c" else np.asarray
            self._run(parts(v), parts(out), transposed)
        elif transposed == conjugated:
            self._run(v, out, transposed)
        else:  # the methods conjugate in the adjoint and only there
            self._run(v.conj(), out, transposed)
            np.conjugate(out, out=out)
        return out

    def _typed(self, v: Array) -> Array:
        """`v` in the type of its product with the weights."""
        if v.dtype.kind in "biu":
            return v.astype(self.dtype)
        if v.dtype.kind in "fc":
            dtype = np.result_type(self.dtype, v.dtype)
            if dtype.char in "fdFD":
                return native(v, dtype)
        raise TypeError(
            f"vector of {v.dtype} by w of {self.dtype}: the product must be float32, float64, complex64 or complex128"
        )

    def _run(self, v: Array, out: Array, adjoint: bool) -> None:
        """The method's own forward or adjoint, the leading axes of both arrays as batch; fills `out`."""
        if not v.size:  # no channel to sum over
            out[...] = 0
        elif out.size:
            geometry, threads = _batched(self._geometry, v.shape[:-1]), resolve_workers(self.workers)
            method = self._prepare(v.dtype)
            if adjoint:
                y, x = v.reshape(geometry.y_shape), out.reshape(geometry.x_shape)
                method.adjoint(geometry.split_y(y), None, geometry.split_x(x), threads)
            else:
                x, y = v.reshape(geometry.x_shape), out.reshape(geometry.y_shape)
                method.forward(geometry.split_x(x), None, geometry.split_y(y), threads)

    def _repeat(
        self, v: Array, lead: Shape, transposed: bool, conjugated: bool, shape: Shape
    ) -> Callable[[Array], Array | None] | None:
        """What multiplies other numbers in arrays like `v`, whose axes `lead` count vectors, if there is a way."""
        if v.dtype != self.dtype or not v.size or 0 in shape or (self.dtype.kind == "c" and transposed != conjugated):
            return None
        geometry, out = _batched(self._geometry, lead), np.empty(shape, v.dtype)
        x, y = (out, v) if transposed else (v, out)
        split = geometry.split_x(x.reshape(geometry.x_shape)), geometry.split_y(y.reshape(geometry.y_shape))
        if not np.may_share_memory(v, split[1 if transposed else 0]):  # reshape had to copy
            return None
        if self._method.abreast and geometry.order != tuple(range(len(geometry.order))):
            return None  # such a method takes the numbers in the order in which the arrays have them
        direction: Direction = "adjoint" if transposed else "forward"
        method = self._prepare(v.dtype)
        repeat = method.repeat_packed(direction, *split, shape, self.workers)
        if repeat is None and not method.abreast:  # else results are laid out as `_product` does
            return partial(_again, method, direction, geometry, shape, self.workers)
        return repeat

    def _prepare(self, dtype: np.dtype[Any]) -> Method:
        """The method with the weights packed in the type to compute in: once for each type that is met."""
        # Two threads may both prepare at first; one result is kept.  A lock could be held across a fork.
        if dtype not in self._prepared:
            w = self._geometry.split_w(self._w.astype(dtype, copy=False))
            self._prepared.setdefault(dtype, self._method(self._geometry.axes, w))
        return self._prepared[dtype]

    def _matrix(self, transposed: bool, conjugated: bool, storage: dict[str, Any]) -> Any:
        return matrix(self._geometry, self._w.conj() if conjugated else self._w, transposed=transposed, **storage)

    def _description(self) -> str:
        geometry = self._geometry
        words = [f"w {geometry.w_shape} of {self.dtype}", f"stride {tuple(axis.stride for axis in geometry.axes)}"]
        low = tuple(axis.low for axis in geometry.axes)
        if any(low):
            words.append(f"low padding {low}")
        dilation = tuple(axis.dilation for axis in geometry.axes)
        if any(d > 1 for d in dilation):
            words.append(f"dilation {dilation}")
        if geometry.channels is not None:
            words.append(f"channels {geometry.channels!r}")
        if geometry.groups > 1:
            words.append(f"groups {geometry.groups}")
        return ", ".join([*words, f"method {self.method!r}"])

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the weights and the geometry: packed weights are not carried along."""
        geometry = self._geometry
        rebuild = partial(
            type(self),
            stride=[axis.stride for axis in geometry.axes],
            padding=[(axis.low, 0) for axis in geometry.axes],
            output_shape=[axis.m for axis in geometry.axes],
            dilation=[axis.dilation for axis in geometry.axes],
            groups=geometry.groups,
            channels=geometry.channels,
            axes=geometry.order[-len(geometry.axes) :] if geometry.channels is None else None,
            method=self.method,
            workers=self.workers,
        )
        return rebuild, (self._w, geometry.x_shape)


def _again(
    method: Method, direction: Direction, geometry: Geometry, shape: Shape, workers: SupportsIndex | None, v: Array
) -> Array:
    """What a method computes that has no short way for vectors like these: at least, there is nothing left to check."""
    out = empty(shape, v.dtype, slow=True)
    x, y = (out, v) if direction == "adjoint" else (v, out)
    x, y = geometry.split_x(x.reshape(geometry.x_shape)), geometry.split_y(y.reshape(geometry.y_shape))
    if direction == "adjoint":
        method.adjoint(y, None, x, resolve_workers(workers))
    else:
        method.forward(x, None, y, resolve_workers(workers))
    return out


def _batched(geometry: Geometry, lead: Shape) -> Geometry:
    """The same convolution of arrays with the batch axes `lead` in front."""
    return replace(
        geometry,
        x_shape=(*lead, *geometry.x_shape),
        y_shape=(*lead, *geometry.y_shape),
        order=(*range(len(lead)), *(len(lead) + a for a in geometry.order)),
    )


def _vector(x: Array, size: int) -> Array:
    """`x`, or the one column that it is; a batch of vectors ends in the longer axis."""
    return np.asarray(x).reshape(-1) if x.shape == (size, 1) else x


def _parts(a: Array) -> Array:
    """View a complex array as real, its real and imaginary part along a new last axis but one."""
    return np.moveaxis(a[..., None].view(a.real.dtype), -1, -2)
