"""Double-precision kernels for any CPU of the architecture."""
include "float64.pxi"
include "kernels.pxi"
