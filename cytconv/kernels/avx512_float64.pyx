"""Double-precision kernels for CPUs with AVX-512 (F, VL, DQ, BW)."""
include "float64.pxi"
include "kernels.pxi"
