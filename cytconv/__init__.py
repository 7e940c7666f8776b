"""N-dimensional transposed convolution, its adjoints and its matrix."""

from ._api import conv, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint

__all__ = ["conv", "conv_transpose", "conv_transpose_adjoint", "conv_transpose_weight_adjoint"]
__version__ = "0.1.0"
