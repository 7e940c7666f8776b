"""Double-precision kernels for CPUs with AVX2 and FMA."""
include "float64.pxi"
include "kernels.pxi"
