# Rows of results to their places: interleave the phases, add the bias, crop.
#
#     phase 0   a b c d ...          y   a A b B c C d D ...      (pixel shuffle)
#     phase 1   A B C D ...

cdef extern from *:
    """
    #ifdef __GNUC__
      static inline __attribute__((always_inline)) void interleave(
          int, const real *, Py_ssize_t, Py_ssize_t, const real *, real *);
    #endif

    /* Write n aligned vectors past the caches: what is far larger than they are need not be read into them first. */
    #if VECTORS && defined(__AVX__)
      #include <immintrin.h>
      #define STREAMS 1
      static inline void stream_vectors(const real *line, Py_ssize_t n, real *y) {
          for (Py_ssize_t j = 0; j < n; j++) {
    #ifdef __AVX512F__
              _mm512_stream_si512((void *) (y + j * LANES), _mm512_loadu_si512((const void *) (line + j * LANES)));
    #else
              __m256i v = _mm256_loadu_si256((const __m256i *) (line + j * LANES));
              _mm256_stream_si256((__m256i *) (y + j * LANES), v);
    #endif
          }
      }
      #define stream_fence() _mm_sfence()
    #else
      #define STREAMS 0
      static inline void stream_vectors(const real *line, Py_ssize_t n, real *y) {
          memcpy(y, line, n * sizeof(vec));
      }
      #define stream_fence()
    #endif
    """
    const bint STREAMS
    void stream_vectors(const real* line, Py_ssize_t n, real* y) noexcept nogil
    void stream_fence() noexcept nogil


cdef inline void stream_line(const real* line, Py_ssize_t n, real* y) noexcept nogil:
    """Copy a line past the caches."""
    cdef Py_ssize_t vector = sizeof(vec)
    cdef Py_ssize_t head = min(n, <Py_ssize_t> (-(<size_t> y) % vector) // <Py_ssize_t> sizeof(real))
    cdef Py_ssize_t whole = (n - head) // LANES
    memcpy(y, line, head * sizeof(real))
    stream_vectors(line + head, whole, y + head)
    head += whole * LANES
    memcpy(y + head, line + head, (n - head) * sizeof(real))


cdef inline void store_line(const real* c, Py_ssize_t n, real bias, real* y, Py_ssize_t step) noexcept nogil:
    """``y[j*step] = c[j] + bias``."""
    cdef Py_ssize_t j
    if step == 1:
        for j in range(n):
            y[j] = c[j] + bias
    else:
        for j in range(n):
            y[j * step] = c[j] + bias


cdef inline void interleave "interleave" (
    int rows, const real* c, Py_ssize_t pitch, Py_ssize_t n, const real* bias, real* y,
) noexcept nogil:
    """``y[j*rows + i] = c[i, j] + bias[i]``, for a literal number of rows: the compiler shuffles whole vectors."""
    cdef Py_ssize_t j
    cdef int i
    for j in range(n):
        for i in range(rows):
            y[j * rows + i] = c[i * pitch + j] + bias[i]


cdef void store_block(
    Py_ssize_t rows, const real* c, Py_ssize_t pitch, Py_ssize_t n, const real* bias, real* y, Py_ssize_t step,
) noexcept nogil:
    """``y[j*step + i] = c[i, j] + bias[i]``: `rows` neighbours at each of n places."""
    cdef Py_ssize_t i, j
    if rows == step and 2 <= rows <= 4:
        if rows == 2:
            interleave(2, c, pitch, n, bias, y)
        elif rows == 3:
            interleave(3, c, pitch, n, bias, y)
        else:
            interleave(4, c, pitch, n, bias, y)
    elif rows < 8:
        for i in range(rows):
            store_line(c + i * pitch, n, bias[i], y + i, step)
    else:
        for j in range(n):
            for i in range(rows):
                y[j * step + i] = c[i * pitch + j] + bias[i]
