"""N-dimensional transposed convolution, its adjoints and its matrix."""

from typing import TYPE_CHECKING

from . import _checkout

__path__ = _checkout.compiled(__path__)  # an uncompiled checkout steps aside for the installed package

from ._api import conv, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint
from ._runtime import show_config
from ._sparse import conv_matrix, conv_transpose_matrix

if TYPE_CHECKING:
    from ._choice import choose_method
    from ._compare import compare_methods
    from ._comparison import Comparison, MethodCost
    from ._operator import ConvTranspose

__all__ = [
    "Comparison",
    "ConvTranspose",
    "MethodCost",
    "choose_method",
    "compare_methods",
    "conv",
    "conv_matrix",
    "conv_transpose",
    "conv_transpose_adjoint",
    "conv_transpose_matrix",
    "conv_transpose_weight_adjoint",
    "show_config",
]
__version__ = "0.1.0"


_LATE = {
    "Comparison": "_comparison",
    "ConvTranspose": "_operator",
    "MethodCost": "_comparison",
    "choose_method": "_choice",
    "compare_methods": "_compare",
}


def __getattr__(name: str) -> object:
    """Import what `_LATE` names when it is asked for: the operator's base class takes longer than all the rest."""
    if name in _LATE:
        from importlib import import_module

        value: object = getattr(import_module(f".{_LATE[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
