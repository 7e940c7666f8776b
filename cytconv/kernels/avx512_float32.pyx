"""Single-precision kernels for CPUs with AVX-512 (F, VL, DQ, BW)."""
include "float32.pxi"
include "kernels.pxi"
