# The source of every kernel module; the stub that includes it has named `real`.

from cython cimport final, pymutex
from cython.parallel cimport prange
from cython.view cimport array as cvarray
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

include "openmp.pxi"
include "odometer.pxi"
include "arrays.pxi"
include "fetch.pxi"
include "tile.pxi"
include "masks.pxi"
include "shuffle.pxi"
include "pack.pxi"
include "store.pxi"
include "correlate.pxi"
include "pixels.pxi"
include "lines.pxi"
include "stencil.pxi"
include "weights.pxi"
include "weight_lines.pxi"
include "packs.pxi"
include "rows.pxi"
include "diagonals.pxi"
include "many.pxi"

lanes = LANES  # how many numbers a vector holds
vector_bytes = sizeof(vec)
past_caches = STREAMS  # whether results may be written so
pairs_together = PAIRS
widths = {rows: tile_width(rows) for rows in (6, 4, 3, 2, 1)}  # of the tiles there are, in vectors
dot_columns = {rows: dot_columns_of(rows) for rows in (6, 3, 2, 1)}  # of the tiles that sum over positions


def openmp_threads():
    """Threads that OpenMP would use now; None if the build has no OpenMP."""
    return max_threads() if OPENMP else None


def fused_multiply_add(Py_ssize_t rounds, int workers):
    """Multiply and add in registers only, to find out how fast the CPU can; returns the number of operations."""
    cdef Py_ssize_t t
    cdef real total = 0
    for t in prange(workers, nogil=True, schedule="static", num_threads=workers):
        total += spin(rounds)
    return 24 * rounds * LANES * workers if total != 1 else 0


cdef real spin(Py_ssize_t rounds) noexcept nogil:
    cdef vec acc[12]
    cdef vec x = ZEROS + <real> 0.999
    cdef Py_ssize_t r
    cdef int i
    for _ in range(1):  # within a loop, as in `tile`
        for i in range(12):
            acc[i] = x + <real> i
        for r in range(rounds):
            for i in range(12):
                acc[i] = acc[i] * x + x
        for i in range(12):
            x = x + acc[i]
    return (<real*> &x)[0]
