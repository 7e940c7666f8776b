# Small pieces that bring numbers into the order in which `tile` reads them.

cdef inline void copy_line(const real* source, Py_ssize_t step, Py_ssize_t n, real* line) noexcept nogil:
    """``line[j] = source[j*step]``; the literal steps let the compiler load vectors and shuffle."""
    cdef Py_ssize_t j
    if step == 1:
        for j in range(n):
            line[j] = source[j]
    elif step == 2:
        for j in range(n):
            line[j] = source[j * 2]
    else:
        for j in range(n):
            line[j] = source[j * step]


cdef inline void pad_line(
    const real* source, Py_ssize_t step, Py_ssize_t low, Py_ssize_t high, Py_ssize_t n, real* line,
) noexcept nogil:
    """A line of n samples of which those from `low` to `high` exist, and the others are zero."""
    #      line   [ 0 0 0 | s s s s s s s | 0 0 ]
    #              0       low             high  n
    cdef Py_ssize_t j
    low = min(max(low, 0), n)
    high = min(max(high, low), n)
    for j in range(low):
        line[j] = 0
    copy_line(source + low * step, step, high - low, line + low)
    for j in range(high, n):
        line[j] = 0


cdef inline bint pack_panel(
    int rows, const real* w, const Py_ssize_t* row, const Py_ssize_t* product, Py_ssize_t n, real* panel,
) noexcept nogil:
    """``panel[k*rows + i] = w[row[i] + product[k]]``; tells whether all of them are finite."""
    cdef Py_ssize_t k
    cdef int i
    cdef real value, check = 0
    for k in range(n):
        for i in range(rows):
            value = w[row[i] + product[k]]
            panel[k * rows + i] = value
            check += value * 0  # inf and NaN times zero are NaN, and stay it
    return check == 0
