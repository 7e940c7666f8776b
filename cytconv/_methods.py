"""The methods by name, and what is common to them.

A method is a class.  ``Method(axes, w)`` prepares the weights, once: it packs them, or builds the matrix.
Its `forward` and `adjoint` then apply them, and `weight_adjoint` is the third reading, which has no weights
to prepare.  All arrays are as `Geometry` splits them, of one native dtype, with any strides and any number
of batch axes; the last array before `workers` is the one that gets written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, SupportsIndex

from numpy.typing import NDArray

from ._auto import Auto
from ._direct import Direct
from ._fft import Fft
from ._geometry import Axis
from ._phases import Direction, Reading
from ._sparse import Sparse

__all__ = ["METHODS", "Method", "choose"]

Array = NDArray[Any]


class Method(Protocol):
    """What `_api` and `_operator` ask of a method."""

    abreast: ClassVar[bool]  # whether it would rather have vectors side by side than one after the other

    def __init__(self, axes: tuple[Axis, ...], w: Array) -> None: ...

    def forward(self, x: Array, bias: Array | None, y: Array, workers: int) -> None:
        """``y[o] = bias + sum x[i] * w[k]``, with a bias of shape ``(groups, C_out // groups)``."""

    def adjoint(self, y: Array, bias: Array | None, x: Array, workers: int) -> None:
        """``x[i] = bias + sum y[o] * conj(w[k])``, with a bias of shape ``(groups, C_in // groups)``."""

    @staticmethod
    def weight_adjoint(axes: tuple[Axis, ...], x: Array, y: Array, w: Array, workers: int) -> None:
        """``w[k] = sum conj(x[i]) * y[o]``."""

    @staticmethod
    def repeat(
        reading: Reading,
        axes: tuple[Axis, ...],
        x: Array,
        w: Array,
        y: Array,
        shape: tuple[int, ...],
        workers: SupportsIndex | None,
        biased: bool,
    ) -> Callable[..., Array | None] | None:
        """What computes a result of this shape from other numbers in arrays like these, if there is a short way.

        It takes the two arrays that are known; one for the result, or None for a new one; and, if it is to be `biased`,
        a bias for each channel.  It returns None if the numbers need the long way after all.
        """

    def repeat_packed(
        self, direction: Direction, x: Array, y: Array, shape: tuple[int, ...], workers: SupportsIndex | None
    ) -> Callable[[Array], Array | None] | None:
        """The same for the weights of this instance, which it keeps as prepared."""


METHODS: dict[str, type[Method]] = {"direct": Direct, "sparse": Sparse, "fft": Fft}


def choose(method: str) -> type[Method]:
    """The method of that name."""
    if not isinstance(method, str):
        raise TypeError(f"method={method!r} must be a string")
    if method == "auto":
        return Auto
    if method not in METHODS:
        raise ValueError(f"method={method!r} must be one of {', '.join(map(repr, ['auto', *METHODS]))}")
    return METHODS[method]
