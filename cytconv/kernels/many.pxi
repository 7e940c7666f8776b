# Products by a sparse matrix of many vectors side by side: of more than `FEW` numbers.
#
# A row of so many is long, and is taken whole before the next one, as memory has them: CPUs fetch by themselves what
# comes next.  As many numbers at a time as registers hold the sums of meet the entries of a row, then those after them:
#
#     y[row]    v0 ... v63 | v64 ... v127 | v128 ...          += a * x[column]  for each entry, once for each of these

cdef void multiply_many(
    Diagonals matrix, Py_ssize_t first, Py_ssize_t last, const real* x, Vectors of_x, real* y, Vectors of_y
) noexcept nogil:
    """Some blocks, forward; rows of blocks that alternate are taken in turns."""
    if matrix.parts == 1:  # literals: see `inlined`
        multiply_in_turns(matrix, first, last, 1, x, of_x, y, of_y)
    else:
        multiply_in_turns(matrix, first, last, 2, x, of_x, y, of_y)


cdef inline inlined multiply_in_turns(
    Diagonals matrix, Py_ssize_t first, Py_ssize_t last, int parts, const real* x, Vectors of_x, real* y, Vectors of_y
) noexcept nogil:
    cdef Block blocks[TURNS]
    cdef Spot at = matrix.spot(first)
    cdef Py_ssize_t t
    cdef int count, i
    while first < last:
        count = matrix.take(&at, last - first, blocks)
        first += count
        for t in range(MOST_ROWS):
            for i in range(count):
                if t < blocks[i].rows:
                    multiply_long_row(
                        parts, of_x.width, blocks + i, blocks[i].entries + parts * t,
                        x + of_x.pitch * (blocks[i].column + t), of_x.pitch, of_x.pitch * matrix.column_step,
                        y + of_y.pitch * (blocks[i].row + matrix.row_step * t),
                    )


cdef inline inlined multiply_long_row(
    int parts, Py_ssize_t numbers, const Block* b, const real* a, const real* x, Py_ssize_t x_pitch,
    Py_ssize_t x_step, real* y,
) noexcept nogil:
    cdef Py_ssize_t v = 0
    while v < numbers:
        if numbers - v >= widest(parts):
            multiply_row(parts, widest(parts), b.taps, b, a, x + v, x_pitch, x_step, y + v)
            v += widest(parts)
        elif numbers - v >= 16:
            multiply_row(parts, 16, b.taps, b, a, x + v, x_pitch, x_step, y + v)
            v += 16
        elif numbers - v >= 8:
            multiply_row(parts, 8, b.taps, b, a, x + v, x_pitch, x_step, y + v)
            v += 8
        elif numbers - v >= 4:
            multiply_row(parts, 4, b.taps, b, a, x + v, x_pitch, x_step, y + v)
            v += 4
        elif numbers - v >= 2:
            multiply_row(parts, 2, b.taps, b, a, x + v, x_pitch, x_step, y + v)
            v += 2
        else:
            multiply_row(parts, parts, b.taps, b, a, x + v, x_pitch, x_step, y + v)
            v += parts


cdef void add_many(
    Diagonals matrix, const Portion* portion, const real* x, Vectors of_x, real* y, Vectors of_y
) noexcept nogil:
    """What the blocks of a portion add to its columns.

    One after the other: a column that gathered from all blocks that alternate was faster for kernels as wide as the
    stride in float32 alone, and slower at stride 1.
    """
    cdef Py_ssize_t number
    cdef Spot at
    cdef Block b
    if portion.start == portion.stop:
        return
    y += of_y.pitch * portion.into
    zero_rows(y, of_y, portion.start, portion.stop)
    if portion.first == portion.last:
        return
    at = matrix.spot(portion.first)
    for number in range(portion.first, portion.last):
        b = matrix.block(at)
        matrix.advance(&at)
        if matrix.parts == 1:
            add_long_rows(matrix, &b, portion.start, portion.stop, 1, x, of_x, y, of_y)
        else:
            add_long_rows(matrix, &b, portion.start, portion.stop, 2, x, of_x, y, of_y)


cdef inline inlined add_long_rows(
    Diagonals matrix, const Block* b, Py_ssize_t start, Py_ssize_t stop, int parts, const real* x, Vectors of_x,
    real* y, Vectors of_y,
) noexcept nogil:
    """What a block adds to the columns from `start` to `stop`; at both ends of a path, they meet some taps only."""
    cdef Py_ssize_t step = matrix.column_step, span = (b.taps - 1) * step, x_step = of_x.pitch * matrix.row_step
    cdef Py_ssize_t a_step = parts * (b.rows - step), p, q, j, end, column
    cdef const real* a = b.entries
    x += of_x.pitch * b.row
    for p in range(b.count):
        column = b.column + b.paths[p].column
        for q in range(max(start - column, 0), min(stop - column, b.rows + span)):
            j, end = 0, b.taps
            if q < span:
                end = q // step + 1
            if q >= b.rows:
                j = (q - b.rows) // step + 1
            add_long_column(
                parts, of_x.width, end - j, a + parts * q + j * a_step, a_step, x + x_step * (q - j * step),
                -x_step * step, y + of_y.pitch * (column + q),
            )
        a += parts * b.taps * b.rows


cdef inline inlined add_long_column(
    int parts, Py_ssize_t numbers, Py_ssize_t taps, const real* a, Py_ssize_t a_step, const real* x, Py_ssize_t x_step,
    real* y,
) noexcept nogil:
    cdef Py_ssize_t v = 0
    while v < numbers:
        if numbers - v >= widest(parts):
            add_column(parts, widest(parts), taps, a, a_step, x + v, x_step, y + v)
            v += widest(parts)
        elif numbers - v >= 16:
            add_column(parts, 16, taps, a, a_step, x + v, x_step, y + v)
            v += 16
        elif numbers - v >= 8:
            add_column(parts, 8, taps, a, a_step, x + v, x_step, y + v)
            v += 8
        elif numbers - v >= 4:
            add_column(parts, 4, taps, a, a_step, x + v, x_step, y + v)
            v += 4
        elif numbers - v >= 2:
            add_column(parts, 2, taps, a, a_step, x + v, x_step, y + v)
            v += 2
        else:
            add_column(parts, parts, taps, a, a_step, x + v, x_step, y + v)
            v += parts


cdef void gather_many(
    Py_ssize_t first, Py_ssize_t last, int parts, Py_ssize_t numbers, const index* rows, const index* ends,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    """Rows from `first` to `last` gather what they meet."""
    cdef Py_ssize_t row
    for row in range(first, last):
        if parts == 1:
            gather_long_row(row, 1, numbers, rows, ends, columns, data, x, x_pitch, y, y_pitch)
        else:
            gather_long_row(row, 2, numbers, rows, ends, columns, data, x, x_pitch, y, y_pitch)


cdef inline inlined gather_long_row(
    Py_ssize_t row, int parts, Py_ssize_t numbers, const index* rows, const index* ends, const index* columns,
    const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    cdef Py_ssize_t v = 0
    while v < numbers:
        if numbers - v >= widest(parts):
            gather_some(row, row + 1, parts, widest(parts), rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += widest(parts)
        elif numbers - v >= 16:
            gather_some(row, row + 1, parts, 16, rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 16
        elif numbers - v >= 8:
            gather_some(row, row + 1, parts, 8, rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 8
        elif numbers - v >= 4:
            gather_some(row, row + 1, parts, 4, rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 4
        elif numbers - v >= 2:
            gather_some(row, row + 1, parts, 2, rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 2
        else:
            gather_some(row, row + 1, parts, parts, rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += parts


cdef void scatter_many(
    Py_ssize_t count, const index* rows, const index* starts, const index* stops, int parts, Py_ssize_t numbers,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    """So many rows are scattered over the results that they meet."""
    cdef Py_ssize_t i
    for i in range(count):
        if parts == 1:
            scatter_long_row(
                rows + i, starts + i, stops + i, 1, numbers, columns, data, x, x_pitch, y, y_pitch,
            )
        else:
            scatter_long_row(
                rows + i, starts + i, stops + i, 2, numbers, columns, data, x, x_pitch, y, y_pitch,
            )


cdef inline inlined scatter_long_row(
    const index* row, const index* start, const index* stop, int parts, Py_ssize_t numbers, const index* columns,
    const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    cdef Py_ssize_t v = 0
    while v < numbers:
        if numbers - v >= widest(parts):
            scatter_some(1, row, start, stop, parts, widest(parts), columns, data, x + v, x_pitch, y + v, y_pitch)
            v += widest(parts)
        elif numbers - v >= 16:
            scatter_some(1, row, start, stop, parts, 16, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 16
        elif numbers - v >= 8:
            scatter_some(1, row, start, stop, parts, 8, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 8
        elif numbers - v >= 4:
            scatter_some(1, row, start, stop, parts, 4, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 4
        elif numbers - v >= 2:
            scatter_some(1, row, start, stop, parts, 2, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 2
        else:
            scatter_some(1, row, start, stop, parts, parts, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += parts
