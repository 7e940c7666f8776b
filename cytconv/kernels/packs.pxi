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
    /* Four numbers, where packs have as many or more: six are two of these that overlap.  Both begin at even numbers,
       so that pairs stay pairs; and where they overlap, the same comes out of either. */
    #if VECTORS && VECTOR_BYTES / REAL_BYTES >= 4
      typedef real quad __attribute__((vector_size(4 * sizeof(real)), aligned(sizeof(real)), may_alias));
    #else
      typedef pack quad;
    #endif
    #define EMPTY_PACK ((pack){0})
    #define EMPTY_QUAD ((quad){0})
    #define AHEAD (16 * PER_LINE) /* real numbers that are fetched before they are read */
    #define are_packs(width) (PACK > 1 && (width) % PACK == 0)
    #define are_quads(width) (PACK > 2 && (width) == 6)
    /* Of many numbers, how many meet an entry at a time: their sums, and those of products by the part i, are to take
       half of sixteen registers, or more if they are vectors of two numbers. */
    #define widest(parts) (8 * (int) PACK / (parts) > 16 ? 8 * (int) PACK / (parts) : 16)

    /* Of all pairs (a, b) of a pack: (a, a), (b, b) or (b, a), and i times a pair, (-b, a), or -i times. */
    #if SHUFFLES && !defined(__clang__)
      #define PICK_PAIRS(type) \\
          typedef lane_number type##_numbers __attribute__((vector_size(sizeof(type)))); \\
          type##_numbers which; \\
          for (int i = 0; i < (int) (sizeof(type) / sizeof(real)); i++) which[i] = i / 2 * 2 + (i % 2 ? odd : even); \\
          return __builtin_shuffle(v, which);
    #else
      #define PICK_PAIRS(type) \\
          type to = v; \\
          for (int i = 0; i < (int) (sizeof(type) / sizeof(real)); i++) \\
              ((real *) &to)[i] = ((real *) &v)[i / 2 * 2 + (i % 2 ? odd : even)]; \\
          return to;
    #endif
    #define OF_PAIRS(type, PAIRS_OF, I_TIMES) \\
        static inline type PAIRS_OF(type v, int even, int odd) { PICK_PAIRS(type) } \\
        static inline type I_TIMES(type v, int sign) { \\
            type signs = v; \\
            for (int i = 0; i < (int) (sizeof(type) / sizeof(real)); i++) \\
                ((real *) &signs)[i] = i % 2 ? sign : -sign; \\
            return PAIRS_OF(v, 1, 0) * signs; \\
        }
    OF_PAIRS(pack, pairs_of, i_times)
    OF_PAIRS(quad, quad_pairs_of, quad_i_times)

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
    ctypedef real quad
    const Py_ssize_t PACK, AHEAD
    const pack EMPTY_PACK
    const quad EMPTY_QUAD
    bint are_packs(int width) noexcept nogil
    bint are_quads(int width) noexcept nogil
    int widest(int parts) noexcept nogil
    pack pairs_of(pack, int even, int odd) noexcept nogil
    pack i_times(pack, int sign) noexcept nogil
    quad quad_i_times(quad, int sign) noexcept nogil

cdef enum:
    ALONE = 0  # in place of a width: one vector, whose numbers (x forward, y in the adjoint) are neighbours
    FEW = 16  # numbers side by side, at most, that are not many
    SUMS = 16  # numbers, or packs of them, that meet an entry at a time, at most

cdef struct Vectors:  # so many numbers side by side, and from one row to the next
    Py_ssize_t width, pitch


cdef inline void zero_rows(real* y, Vectors of_y, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    cdef Py_ssize_t row
    if of_y.pitch == of_y.width:
        memset(y + of_y.pitch * start, 0, of_y.width * (stop - start) * sizeof(real))
    else:
        for row in range(start, stop):
            memset(y + of_y.pitch * row, 0, of_y.width * sizeof(real))


# Sums of a row, or of a column, for several vectors: in packs, or in numbers where there are too few.

cdef inline inlined clear_sums(int width, pack* sums, pack* turned) noexcept nogil:
    cdef int i
    if are_packs(width):
        for i in range(width // PACK):
            sums[i] = turned[i] = EMPTY_PACK
    elif are_quads(width):  # of numbers from the first on, and up to the last
        for i in range(2):
            (<quad*> sums)[i] = (<quad*> turned)[i] = EMPTY_QUAD
    else:
        for i in range(width):
            (<real*> sums)[i] = (<real*> turned)[i] = 0


cdef inline inlined multiply_entries(
    int parts, int width, Py_ssize_t count, const real* a, Py_ssize_t a_step, const real* x, Py_ssize_t x_step,
    pack* sums, pack* turned,
) noexcept nogil:
    """``sums += a * x`` for each of so many entries, and the products by their part i in `turned`."""
    cdef Py_ssize_t j
    cdef int i
    for j in range(count):
        if are_packs(width):
            for i in range(width // PACK):
                sums[i] = sums[i] + a[0] * (<const pack*> x)[i]
            if parts == 2:
                for i in range(width // PACK):
                    turned[i] = turned[i] + a[1] * (<const pack*> x)[i]
        elif are_quads(width):
            for i in range(2):
                (<quad*> sums)[i] = (<quad*> sums)[i] + a[0] * (<const quad*> (x + i * (width - 4)))[0]
            if parts == 2:
                for i in range(2):
                    (<quad*> turned)[i] = (<quad*> turned)[i] + a[1] * (<const quad*> (x + i * (width - 4)))[0]
        else:
            for i in range(width):
                (<real*> sums)[i] = (<real*> sums)[i] + a[0] * x[i]
            if parts == 2:
                for i in range(width):
                    (<real*> turned)[i] = (<real*> turned)[i] + a[1] * x[i]
        a += a_step
        x += x_step
        KEEP_ADDRESS(a)
        KEEP_ADDRESS(x)


cdef inline inlined turn_sums(int parts, int width, int sign, pack* sums, const pack* turned) noexcept nogil:
    """``sums += sign * i * turned`` of complex numbers."""
    cdef int i
    if parts == 1:
        return
    if are_packs(width):
        for i in range(width // PACK):
            sums[i] = sums[i] + i_times(turned[i], sign)
    elif are_quads(width):
        for i in range(2):
            (<quad*> sums)[i] = (<quad*> sums)[i] + quad_i_times((<const quad*> turned)[i], sign)
    else:
        for i in range(0, width, 2):
            (<real*> sums)[i] = (<real*> sums)[i] - sign * (<const real*> turned)[i + 1]
            (<real*> sums)[i + 1] = (<real*> sums)[i + 1] + sign * (<const real*> turned)[i]


cdef inline inlined put_sums(int width, bint to_add, const pack* sums, real* y) noexcept nogil:
    cdef quad found[2]
    cdef int i
    if are_packs(width):
        for i in range(width // PACK):
            (<pack*> y)[i] = (<pack*> y)[i] + sums[i] if to_add else sums[i]
    elif are_quads(width):  # what both add to is read before either is written
        for i in range(2):
            found[i] = (<const quad*> sums)[i]
            if to_add:
                found[i] = (<const quad*> (y + i * (width - 4)))[0] + found[i]
        for i in range(2):
            (<quad*> (y + i * (width - 4)))[0] = found[i]
    else:
        for i in range(width):
            y[i] = y[i] + (<const real*> sums)[i] if to_add else (<const real*> sums)[i]
