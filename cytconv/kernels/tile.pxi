# The register tile: the one place where numbers are multiplied.
#
#     c[rows[i] + j] (+)= sum over k of  a[k*MR + i] * b[k*ldb + j],     0 <= i < MR,  0 <= j < NV*LANES
#
#                     b   [ j ........ NV vectors ]      a holds MR numbers for each k, each of them
#              a      ->   one row for each k            multiplied with the same row of b.  The MR*NV
#           [ i ]   x  [ acc[i, v] += a[i] * b[v] ]      sums live in registers from the first k to
#           [ . ]      [                          ]      the last: k runs over the *segments*, stretches
#           [ MR]      [                          ]      of n steps that start anywhere in a and b.
#
# All three directions are this product: a segment is a run of channels under one tap, a run of taps within
# one channel, or a run of positions.  MR and NV are literals wherever `tile` is called, so that the compiler
# unrolls the loops over them and keeps `acc` in registers.

cdef extern from *:
    """
    #ifdef __GNUC__  /* clang too */
      #if defined(__AVX512F__)
        #define VECTOR_BYTES 64
      #elif defined(__AVX__)
        #define VECTOR_BYTES 32
      #else
        #define VECTOR_BYTES 16
      #endif
      /* aligned to its element only, and free to alias the arrays of scalars that it is laid over */
      typedef real vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
    #else
      typedef real vec;  /* no vector types: vectors of one lane, which the compiler may widen */
    #endif
    #define ZEROS ((vec){0})

    typedef struct {
        Py_ssize_t a;  /* where it starts in a */
        Py_ssize_t b;  /* where it starts in b */
        Py_ssize_t n;  /* number of steps */
    } Segment;

    #ifdef __GNUC__
      /* Literal arguments only become literals in a copy of the function at each call. */
      static inline __attribute__((always_inline)) void tile(
          int, int, const real *, const real *, const Segment *, Py_ssize_t, Py_ssize_t, real *, const Py_ssize_t *, int);
    #endif
    """
    # Cython only needs to know that vectors add and multiply; it takes them for scalars.
    ctypedef real vec
    const Py_ssize_t LANES "(Py_ssize_t) (sizeof(vec) / sizeof(real))"
    const vec ZEROS
    ctypedef struct Segment:
        Py_ssize_t a, b, n


cdef inline void tile "tile" (
    int MR, int NV, const real* a, const real* b, const Segment* segments, Py_ssize_t count, Py_ssize_t ldb,
    real* c, const Py_ssize_t* rows, bint accumulate,
) noexcept nogil:
    cdef vec acc[12]
    cdef vec bv[8]
    cdef const real* ak
    cdef const real* bk
    cdef vec* ci
    cdef Py_ssize_t s, k, n
    cdef int i, v
    for i in range(MR * NV):
        acc[i] = ZEROS
    for s in range(count):
        ak = a + segments[s].a
        bk = b + segments[s].b
        n = segments[s].n
        for k in range(n):
            for v in range(NV):
                bv[v] = (<const vec*> bk)[v]
            for i in range(MR):
                for v in range(NV):
                    acc[i * NV + v] = acc[i * NV + v] + ak[i] * bv[v]
            ak += MR
            bk += ldb
    for i in range(MR):
        ci = <vec*> (c + rows[i])
        for v in range(NV):
            ci[v] = ci[v] + acc[i * NV + v] if accumulate else acc[i * NV + v]


# The tiles there are: as many sums as the 16 vector registers of AVX2 hold beside one row of b.  The second
# column is the width of the tile in vectors; the tail of a run is done one vector at a time.

cdef inline int tile_width(int rows) noexcept nogil:
    return 2 if rows == 6 else 3 if rows == 4 else 4 if rows == 3 else 6 if rows == 2 else 8


cdef void multiply_tile(
    int rows, int width, const real* a, const real* b, const Segment* segments, Py_ssize_t count, Py_ssize_t ldb,
    real* c, const Py_ssize_t* places, bint accumulate,
) noexcept nogil:
    if rows == 6:
        if width == 2:
            tile(6, 2, a, b, segments, count, ldb, c, places, accumulate)
        else:
            tile(6, 1, a, b, segments, count, ldb, c, places, accumulate)
    elif rows == 4:
        if width == 3:
            tile(4, 3, a, b, segments, count, ldb, c, places, accumulate)
        else:
            tile(4, 1, a, b, segments, count, ldb, c, places, accumulate)
    elif rows == 3:
        if width == 4:
            tile(3, 4, a, b, segments, count, ldb, c, places, accumulate)
        else:
            tile(3, 1, a, b, segments, count, ldb, c, places, accumulate)
    elif rows == 2:
        if width == 6:
            tile(2, 6, a, b, segments, count, ldb, c, places, accumulate)
        else:
            tile(2, 1, a, b, segments, count, ldb, c, places, accumulate)
    elif width == 8:
        tile(1, 8, a, b, segments, count, ldb, c, places, accumulate)
    else:
        tile(1, 1, a, b, segments, count, ldb, c, places, accumulate)
