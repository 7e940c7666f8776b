# Numbers side by side, for products by the sparse matrix.
#
# A complex number is real ones in two `parts`.  Each part of an entry multiplies both of x, so that the loops are the
# same.  With several vectors the part i is turned after the sum is complete, (a + i*b) * x = a*x + i*(b*x); with one by
# itself, x is turned before:  a*x + b*(i*x).

cdef extern from *:
    """
    /* Numbers side by side: a vector of 32 bytes at most.  Wider ones were no faster. */
    #if VECTORS && VECTOR_BYTES > 32
      typedef real pack __attribute__((vector_size(32), aligned(sizeof(real)), may_alias));
    #else
      typedef vec pack;
    #endif
    #define PACK ((Py_ssize_t) (sizeof(pack) / sizeof(real)))
    /* And half as many, at the ends of lines. */
    #if VECTORS
      typedef real half __attribute__((vector_size(sizeof(pack) / 2), aligned(sizeof(real)), may_alias));
    #else
      typedef real half;
    #endif
    #define EMPTY_PACK ((pack){0})
    #define AHEAD (16 * PER_LINE) /* real numbers that are fetched before they are read */
    #define are_packs(width) (PACK > 1 && (width) % PACK == 0)

    /* Of all pairs (a, b) of a pack: (a, a), (b, b) or (b, a), and i times a pair, (-b, a), or -i times. */
    static inline pack pairs_of(pack v, int even, int odd) {
    #if SHUFFLES && !defined(__clang__)
      typedef lane_number pack_numbers __attribute__((vector_size(sizeof(pack))));
      pack_numbers which;
      for (int i = 0; i < (int) PACK; i++) which[i] = i / 2 * 2 + (i % 2 ? odd : even);
      return __builtin_shuffle(v, which);
    #else
      pack to = EMPTY_PACK;
      for (int i = 0; i < (int) PACK; i++) ((real *) &to)[i] = ((real *) &v)[i / 2 * 2 + (i % 2 ? odd : even)];
      return to;
    #endif
    }
    static inline pack i_times(pack v, int sign) {
      pack signs = EMPTY_PACK;
      for (int i = 0; i < (int) PACK; i++) ((real *) &signs)[i] = i % 2 ? sign : -sign;
      return pairs_of(v, 1, 0) * signs;
    }

    #ifdef __GNUC__
      /* For `void`: the body of such a function takes the place of each of its calls, with literals for arguments. */
      #define inlined __attribute__((always_inline)) void
      /* GCC makes vectors of products that it then adds up one by one: slower than numbers all the way. */
      #define KEEP_SCALAR(j) __asm__("" : "+r"(j))
      /* An address that GCC knows nothing of.  Of pairs of numbers, a step apart, GCC 12 reads those of the next step
         with those of this one, also where there is no next step: past the end of the array. */
      #define KEEP_ADDRESS(p) __asm__("" : "+r"(p))
    #else
      #define inlined void
      #define KEEP_SCALAR(j)
      #define KEEP_ADDRESS(p)
    #endif
    """
    ctypedef void inlined
    void KEEP_SCALAR(Py_ssize_t) noexcept nogil
    void KEEP_ADDRESS(const real*) noexcept nogil
    ctypedef real pack
    ctypedef real half
    const Py_ssize_t PACK, AHEAD
    const pack EMPTY_PACK
    bint are_packs(int width) noexcept nogil
    pack pairs_of(pack, int even, int odd) noexcept nogil
    pack i_times(pack, int sign) noexcept nogil

cdef enum:
    ALONE = 0  # in place of a width: one vector, whose numbers (x forward, y in the adjoint) are neighbours
    SUMS = 16  # numbers of vectors that meet an entry at a time, at most: `_sparse.ABREAST` real ones

cdef struct Vectors:  # so many numbers side by side, and from one row to the next
    Py_ssize_t width, pitch


cdef inline void zero_rows(real* y, Vectors of_y, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    cdef Py_ssize_t row
    if of_y.pitch == of_y.width:
        memset(y + of_y.pitch * start, 0, of_y.width * (stop - start) * sizeof(real))
    else:
        for row in range(start, stop):
            memset(y + of_y.pitch * row, 0, of_y.width * sizeof(real))
