"""N-dimensional transposed convolution, its adjoints and its matrix."""

from typing import TYPE_CHECKING

from . import _checkout

__path__ = _checkout.compiled(__path__)  # an uncompiled checkout steps aside for the installed package

from ._api import conv, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint
from ._runtime import show_config
from ._sparse import conv_matrix, conv_transpose_matrix

if TYPE_CHECKING:
    from ._operator import ConvTranspose

__all__ = [
    "ConvTranspose",
    "conv",
    "conv_matrix",
    "conv_transpose",
    "conv_transpose_adjoint",
    "conv_transpose_matrix",
    "conv_transpose_weight_adjoint",
    "show_config",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import `ConvTranspose` when it is asked for: its base class takes longer to import than all the rest."""
    if name == "ConvTranspose":
        from ._operator import ConvTranspose

        globals()[name] = ConvTranspose
        return ConvTranspose
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
