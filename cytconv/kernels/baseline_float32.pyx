"""Single-precision kernels for any CPU of the architecture."""
include "float32.pxi"
include "kernels.pxi"
