# Rows of results to their places: interleave the phases, add the bias, crop.
#
#     phase 0   a b c d ...          y   a A b B c C d D ...      (pixel shuffle)
#     phase 1   A B C D ...

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
    cdef Py_ssize_t vectors = (n - head) // PER_LINE * LINE_VECTORS
    for j in range(head):  # one by one: vectors in part were seen to delay the lines that follow
        y[j] = line[j] + bias
    for j in range(vectors):
        STREAM_VECTOR(<vec*> (y + head) + j, (<const vec*> (line + head))[j] + bias)
    for j in range(head + vectors * LANES, n):
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
