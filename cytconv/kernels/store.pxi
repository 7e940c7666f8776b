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
    """


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
