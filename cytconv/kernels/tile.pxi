# The register tile of the forward operator and its adjoint; that of the adjoint in the weights is in weights.pxi.
#
#     c[rows[i] + j] (+)= sum over k of  a[k*MR + i] * b[k*ldb + j],     0 <= i < MR,  0 <= j < NV*LANES
#
#                     b   [ j ........ NV vectors ]      a holds MR numbers for each k, each of them
#              a      ->   one row for each k            multiplied with the same row of b.  The MR*NV
#           [ i ]   x  [ acc[i, v] += a[i] * b[v] ]      sums live in registers from the first k to
#           [ . ]      [                          ]      the last: k runs over the *segments*, stretches
#           [ MR]      [                          ]      of n steps that start anywhere in a and b.
#
# A segment is a run of channels under one tap, or of taps within one channel.
# A call does several *panels* of a, `panel` apart, with the same b, which stays in L1; where there are registers for
# their sums, two panels at a time, so that each row of b is loaded once for both.  For many panels the rows of b are
# first copied side by side: there they begin on cache lines, and do not lie on a page each.  With few rows the loads of
# b take longer than the multiplications.  Then long runs of taps are done two at a time: where rows of b begin one
# number after the other, that of tap k + LANES is that of tap k, one vector further on.
#
#     b    .  [ v0 ][ v1 ][ v2 ]          acc[v] += a[k] * b[k, v]  +  a[k + LANES] * b[k, v + 1]
#
# MR, NV and TWO_PANELS are literals wherever `tile` is called, so that the compiler unrolls the loops over them.

cdef extern from *:
    """
    #if defined(__GNUC__) && !defined(CYTCONV_NO_VECTORS)  /* clang too; the macro is there to test the other case */
      #define VECTORS 1
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
      #define VECTORS 0
      typedef real vec;  /* no vector types: vectors of one lane, which the compiler may widen */
    #endif
    #define ZEROS ((vec){0})
    #define LANES ((Py_ssize_t) (sizeof(vec) / sizeof(real)))

    typedef struct {
        Py_ssize_t a;  /* where it starts in a */
        Py_ssize_t b;  /* where it starts in b */
        Py_ssize_t n;  /* number of steps */
    } Segment;

    /* What a tile does with the numbers where its sums go: STREAM is SET past the caches, in whole cache lines that
       begin where those of memory do. */
    typedef enum { SET, ADD, STREAM } Store;

    #ifdef __GNUC__
      /* Literal arguments only become literals in a copy of the function at each call. */
      static inline __attribute__((always_inline)) void tile(
          int, int, int, Py_ssize_t, Py_ssize_t, const real *, const real *, const Segment *, Py_ssize_t, Py_ssize_t,
          real *, const Py_ssize_t *, Store, Ahead *);
      static inline __attribute__((always_inline)) void tiles(
          int, int, Py_ssize_t, Py_ssize_t, const real *, const real *, const Segment *, Py_ssize_t, Py_ssize_t,
          real *, const Py_ssize_t *, Store, Ahead *);
    #endif

    /* The next loop, of 16 rounds at most, becomes as many copies of its body. */
    #if defined(__clang__)
      #define UNROLLED _Pragma("clang loop unroll(full)")
    #elif defined(__GNUC__)
      #define UNROLLED _Pragma("GCC unroll 16")
    #else
      #define UNROLLED
    #endif

    #ifdef __GNUC__
      #define FETCH(p) __builtin_prefetch(p)
    #else
      #define FETCH(p)
    #endif

    /* A vector that is used several times is to be loaded once: GCC would rather load it again for each use.  Where
       registers are few, or nothing waits for loads, that is no loss. */
    #if VECTORS && defined(__AVX512F__)
      #define IN_REGISTER(v) __asm__("" : "+v"(v))
    #elif VECTORS && defined(__SSE2__)
      #define IN_REGISTER(v) __asm__("" : "+x"(v))
    #else
      #define IN_REGISTER(v)
    #endif

    /* Vectors may go past the caches: what is far larger than they are need not be read into them first.  Those of
       whole cache lines only: one that is written in part goes to memory byte by byte. */
    #if VECTORS && defined(__AVX__)
      #include <immintrin.h>
      #define STREAMS 1
      #ifdef __AVX512F__
        #define STREAM_VECTOR(p, v) _mm512_stream_si512((void *) (p), (__m512i) (v))
      #else
        #define STREAM_VECTOR(p, v) _mm256_stream_si256((__m256i *) (p), (__m256i) (v))
      #endif
      #define stream_fence() _mm_sfence()
    #else
      #define STREAMS 0
      #define STREAM_VECTOR(p, v) (*(p) = (v))
      #define stream_fence()
    #endif
    #define LINE_VECTORS ((int) (64 / sizeof(vec)))

    #if defined(__AVX512F__)
      #define REGISTERS 32
      #define ONCE_ROWS 3  /* tiles of so many rows, or fewer, have registers for the weights of a step, */
      #define TWO_TAPS 2  /* or of two */
    #elif defined(__AVX2__)
      #define REGISTERS 16
      #define ONCE_ROWS 2
      #define TWO_TAPS 2
    #else  /* products wait in registers to be added: what is loaded is better left in memory */
      #define REGISTERS 16
      #define ONCE_ROWS 0
      #define TWO_TAPS 0
    #endif
    """
    # Cython only needs to know that vectors add and multiply; it takes them for scalars.
    ctypedef real vec
    const Py_ssize_t LANES
    const bint STREAMS
    const int REGISTERS, ONCE_ROWS, TWO_TAPS, LINE_VECTORS
    const vec ZEROS
    void FETCH(const real* p) noexcept nogil
    void IN_REGISTER(vec v) noexcept nogil
    void STREAM_VECTOR(vec* p, vec v) noexcept nogil
    void stream_fence() noexcept nogil
    ctypedef struct Segment:
        Py_ssize_t a, b, n
    ctypedef enum Store:
        SET
        ADD
        STREAM


cdef inline void tile "tile" (
    int MR, int NV, bint TWO_PANELS, Py_ssize_t panels, Py_ssize_t panel, const real* a, const real* b,
    const Segment* segments, Py_ssize_t count, Py_ssize_t ldb, real* c, const Py_ssize_t* rows, Store how,
    Ahead* ahead,
) noexcept nogil:
    cdef vec acc[12]
    cdef vec second[12]
    cdef vec bv[8]
    cdef vec av[6]
    cdef vec row
    cdef const real* ak
    cdef const real* bk
    cdef vec* cv
    cdef Py_ssize_t s, k, n
    cdef int i, v
    for _ in range(panels):
        if ahead.lines > 0:
            fetch_ahead(ahead)
        # Each loop over the sums is flat and within another loop: only such loops are unrolled early enough for GCC
        # to keep all of `acc` in registers from beginning to end.
        for i in range(MR * NV):
            acc[i] = ZEROS
        if TWO_PANELS:
            for i in range(MR * NV):
                second[i] = ZEROS
        for s in range(count):
            ak = a + segments[s].a
            bk = b + segments[s].b
            n = segments[s].n
            if MR <= TWO_TAPS and not TWO_PANELS and ldb == 1:  # two taps at a time
                while n >= 2 * LANES:
                    for k in range(LANES):
                        for i in range(2 * MR):
                            av[i] = ZEROS + ak[i // MR * LANES * MR + i % MR]
                            IN_REGISTER(av[i])
                        for i in range(MR * (NV + 1)):
                            if i % MR == 0:
                                row = (<const vec*> bk)[i // MR]
                                IN_REGISTER(row)
                            if i < MR * NV:
                                acc[i % MR * NV + i // MR] = acc[i % MR * NV + i // MR] + av[i % MR] * row
                            if i >= MR:
                                acc[i % MR * NV + i // MR - 1] = acc[i % MR * NV + i // MR - 1] + av[MR + i % MR] * row
                        ak += MR
                        bk += 1
                    ak += LANES * MR
                    bk += LANES
                    n -= 2 * LANES
            for k in range(n):
                # What the next panels begin with is too far away for the CPU to expect it.
                FETCH(ak + (2 if TWO_PANELS else 1) * panel)
                if TWO_PANELS:
                    FETCH(ak + 3 * panel)
                if (2 * MR if TWO_PANELS else MR) > 1 and MR <= ONCE_ROWS:  # each vector is loaded once
                    for i in range(2 * MR if TWO_PANELS else MR):
                        av[i] = ZEROS + ak[i // MR * panel + i % MR]
                        IN_REGISTER(av[i])
                    for i in range(MR * NV):
                        if i % MR == 0:
                            row = (<const vec*> bk)[i // MR]
                            IN_REGISTER(row)
                        acc[i % MR * NV + i // MR] = acc[i % MR * NV + i // MR] + av[i % MR] * row
                        if TWO_PANELS:
                            second[i % MR * NV + i // MR] = second[i % MR * NV + i // MR] + av[MR + i % MR] * row
                else:
                    for v in range(NV):
                        bv[v] = (<const vec*> bk)[v]
                    for i in range(MR * NV):
                        acc[i] = acc[i] + ak[i // NV] * bv[i % NV]
                    if TWO_PANELS:
                        for i in range(MR * NV):
                            second[i] = second[i] + ak[panel + i // NV] * bv[i % NV]
                ak += MR
                bk += ldb
        if how == ADD:
            for i in range(MR * NV):
                cv = <vec*> (c + rows[i // NV]) + i % NV
                cv[0] = cv[0] + acc[i]
        elif how == STREAM:
            for i in range(MR * NV):
                STREAM_VECTOR(<vec*> (c + rows[i // NV]) + i % NV, acc[i])
        else:
            for i in range(MR * NV):
                cv = <vec*> (c + rows[i // NV]) + i % NV
                cv[0] = acc[i]
        a += panel
        rows += MR
        if TWO_PANELS:
            if how == ADD:
                for i in range(MR * NV):
                    cv = <vec*> (c + rows[i // NV]) + i % NV
                    cv[0] = cv[0] + second[i]
            elif how == STREAM:
                for i in range(MR * NV):
                    STREAM_VECTOR(<vec*> (c + rows[i // NV]) + i % NV, second[i])
            else:
                for i in range(MR * NV):
                    cv = <vec*> (c + rows[i // NV]) + i % NV
                    cv[0] = second[i]
            a += panel
            rows += MR


cdef inline void tiles "tiles" (
    int MR, int NV, Py_ssize_t panels, Py_ssize_t panel, const real* a, const real* b, const Segment* segments,
    Py_ssize_t count, Py_ssize_t ldb, real* c, const Py_ssize_t* rows, Store how,
    Ahead* ahead,
) noexcept nogil:
    """Pairs of panels where their sums fit the registers, and what is left."""
    cdef Py_ssize_t paired = 0
    if 2 * MR * NV + NV < REGISTERS:
        paired = panels // 2 * 2
        tile(MR, NV, True, panels // 2, panel, a, b, segments, count, ldb, c, rows, how, ahead)
    tile(
        MR, NV, False, panels - paired, panel, a + paired * panel, b, segments, count, ldb, c, rows + paired * MR,
        how, ahead,
    )


# The tiles there are, by their rows: of 12 sums at most, so that the 16 vector registers of AVX2 hold these and what a
# step needs of a and b.  The end of a run is done in narrower ones: half as wide, rounded up, again and again.

cdef inline int tile_width(int rows) noexcept nogil:
    return 2 if rows == 6 else 3 if rows == 4 else 4 if rows == 3 else 6 if rows == 2 else 8


cdef inline int next_width(int rows, Py_ssize_t vectors, Store how) noexcept nogil:
    """How many vectors to do next of so many that are left."""
    cdef int width = tile_width(rows)
    if vectors == width + 1:
        width = (width + 1) // 2
    while width > vectors:
        width = (width + 1) // 2
    if how == STREAM:  # whole cache lines, as there are (and none of vectors that never go past the caches)
        width -= width % LINE_VECTORS
    return width


cdef void multiply_panels(
    int rows, int width, Py_ssize_t panels, Py_ssize_t panel, const real* a, const real* b, const Segment* segments,
    Py_ssize_t count, Py_ssize_t ldb, real* c, const Py_ssize_t* places, Store how,
    Ahead* ahead,
) noexcept nogil:
    if rows == 6:
        if width == 2:
            tiles(6, 2, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
        else:
            tiles(6, 1, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
    elif rows == 4:
        if width == 3:
            tiles(4, 3, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
        elif width == 2:
            tiles(4, 2, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
        else:
            tiles(4, 1, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
    elif rows == 3:
        if width == 4:
            tiles(3, 4, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
        elif width == 2:
            tiles(3, 2, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
        else:
            tiles(3, 1, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
    elif rows == 2:
        if width == 6:
            tiles(2, 6, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
        elif width == 3:
            tiles(2, 3, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
        elif width == 2:
            tiles(2, 2, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
        else:
            tiles(2, 1, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
    elif width == 8:
        tiles(1, 8, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
    elif width == 4:
        tiles(1, 4, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
    elif width == 2:
        tiles(1, 2, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)
    else:
        tiles(1, 1, panels, panel, a, b, segments, count, ldb, c, places, how, ahead)


cdef Segment copy_strip(
    int width, const real* b, const Segment* segments, Py_ssize_t count, Py_ssize_t ldb, real* strip,
) noexcept nogil:
    """Copy the rows of b that a tile of this width reads, one after the other; returns the segment that they are."""
    cdef Segment copied = Segment(segments[0].a if count else 0, 0, 0)
    cdef Py_ssize_t s, k
    cdef const real* bk
    cdef int v
    for s in range(count):
        bk = b + segments[s].b
        for k in range(segments[s].n):
            for v in range(width):
                (<vec*> strip)[v] = (<const vec*> bk)[v]
            bk += ldb
            strip += width * LANES
        copied.n += segments[s].n
    return copied
