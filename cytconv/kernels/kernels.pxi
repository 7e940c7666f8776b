# The source of every kernel module; the stub that includes it has named `real`.

from cython cimport final
from cython.parallel cimport prange
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

include "openmp.pxi"
include "odometer.pxi"
include "tile.pxi"
include "pack.pxi"
include "store.pxi"
include "correlate.pxi"
include "weights.pxi"

lanes = LANES  # how many numbers a vector holds


def openmp_threads():
    """Threads that OpenMP would use now; None if the build has no OpenMP."""
    return max_threads() if OPENMP else None
