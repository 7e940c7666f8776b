"""N-dimensional transposed convolution, its adjoints and its matrix."""

from . import _checkout

__path__ = _checkout.compiled(__path__)  # an uncompiled checkout steps aside for the installed package

from ._api import conv, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint
from ._operator import ConvTranspose
from ._runtime import show_config
from ._sparse import conv_matrix, conv_transpose_matrix

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
