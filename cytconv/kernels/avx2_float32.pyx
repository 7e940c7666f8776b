"""Single-precision kernels for CPUs with AVX2 and FMA."""
include "float32.pxi"
include "kernels.pxi"
