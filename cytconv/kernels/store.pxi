# Rows of results to their places: interleave the phases, add the bias, crop.
#
#     phase 0   a b c d ...          y   a A b B c C d D ...      (pixel shuffle)
#     phase 1   A B C D ...

cdef extern from *:
    """
    /* Write n aligned cache lines past the caches: what is far larger than they are need not be read into them first.
       Whole lines only: one that is written in part goes to memory byte by byte. */
    #if VECTORS && defined(__AVX__)
      #include <immintrin.h>
      #define STREAMS 1
      static inline void stream_lines(const real *from, Py_ssize_t n, real bias, real *to) {
          for (Py_ssize_t j = 0; j < n; j++, from += PER_LINE, to += PER_LINE) {
    #ifdef __AVX512F__
              _mm512_stream_si512((void *) to, (__m512i) (*(const vec *) from + bias));
    #else
              __m256i low = (__m256i) (*(const vec *) from + bias);
              __m256i high = (__m256i) (*(const vec *) (from + LANES) + bias);
              _mm256_stream_si256((__m256i *) to, low);
              _mm256_stream_si256((__m256i *) to + 1, high);
    #endif
          }
      }
      #define stream_fence() _mm_sfence()
    #else
      #define STREAMS 0
      static inline void stream_lines(const real *from, Py_ssize_t n, real bias, real *to) {
          for (Py_ssize_t j = 0; j < n * PER_LINE; j++) to[j] = from[j] + bias;
      }
      #define stream_fence()
    #endif
    """
    const bint STREAMS
    void stream_lines(const real* source, Py_ssize_t n, real bias, real* to) noexcept nogil
    void stream_fence() noexcept nogil


cdef inline Py_ssize_t cache_lines(Py_ssize_t n) noexcept nogil:
    """Numbers in the cache lines that n of them begin."""
    return (n + PER_LINE - 1) // PER_LINE * PER_LINE


cdef inline void store_line(const real* c, Py_ssize_t n, real bias, real* y, Py_ssize_t step) noexcept nogil:
    """``y[j*step] = c[j] + bias``; c is scratch memory."""
    cdef Py_ssize_t j, place = 0
    if n <= 0 or step == 1 and zip_lines(1, c, &place, n, &bias, y):
        return
    for j in range(n):
        y[j * step] = c[j] + bias


cdef inline void fill_line(Py_ssize_t n, real value, real* y) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = value


cdef inline void stream(const real* line, Py_ssize_t n, real bias, real* y) noexcept nogil:
    """``y[j] = line[j] + bias`` past the caches, but for what shares a cache line with others."""
    cdef Py_ssize_t head = min(n, <Py_ssize_t> (-(<size_t> y) % 64 // sizeof(real))), j
    cdef Py_ssize_t lines = (n - head) // PER_LINE
    for j in range(head):  # one by one: vectors in part were seen to delay the lines that follow
        y[j] = line[j] + bias
    stream_lines(line + head, lines, bias, y + head)
    head += lines * PER_LINE
    for j in range(head, n):
        y[j] = line[j] + bias


cdef void store_block(
    Py_ssize_t rows, const real* c, const Py_ssize_t* place, Py_ssize_t n, const real* bias, real* y, Py_ssize_t step,
) noexcept nogil:
    """``y[j*step + i] = c[place[i] + j] + bias[i]``: `rows` neighbours at each of n places."""
    cdef Py_ssize_t i, j
    if rows == 1:
        store_line(c + place[0], n, bias[0], y, step)
    elif rows == step and zip_lines(rows, c, place, n, bias, y):
        return
    elif rows < TRANSPOSED or not zip_rows(rows, c, place, n, bias, y, step):
        for j in range(n):
            for i in range(rows):
                y[j * step + i] = c[place[i] + j] + bias[i]
