# Products by a sparse matrix that is kept by its rows (CSR); see `cytconv._rows`.
#
# Several vectors are multiplied at a time, side by side, so that an entry meets neighbours:
#
#     a at (row, column)   *   x[column]   v0 v1 v2 v3    added to   y[row]   v0 v1 v2 v3

from libc.stdint cimport int32_t, int64_t

ctypedef fused index:
    int32_t
    int64_t

cdef enum:
    LONG = 16  # neighbours that are worth adding up as vectors: others wait for what the row before them has stored
    NEAR = 64  # rows that meet other vectors next, while the nearest cache still has them

cdef struct Share:  # one row of the table `shares`: of a matrix made of blocks of one structure, or without entries,
    Py_ssize_t width, height, columns, rows  # the size of a block, and of the matrix;
    Py_ssize_t blocks, block, past_block  # how many with entries are side by side, and which of them it takes;
    Py_ssize_t start, stop  # in each, the columns,
    Py_ssize_t first, last, whole_first, whole_last  # the rows that have entries there, and those that have no others


def multiply(
    const index[::1] ends, const index[::1] columns, const real[::1] data, int parts,
    const real[:, :] x, real[:, :] y, Py_ssize_t together, int workers,
):
    """``y = matrix @ x`` with vectors side by side; `ends` is the row pointer, so many rows `together` are a task."""
    cdef Py_ssize_t rows = y.shape[0], tasks = (rows + together - 1) // together, t
    cdef Py_ssize_t x_pitch = x.strides[0] // <Py_ssize_t> sizeof(real)
    cdef Py_ssize_t y_pitch = y.strides[0] // <Py_ssize_t> sizeof(real)
    if parts == y.shape[1] == x_pitch == y_pitch == 1:
        for t in prange(tasks, nogil=True, schedule="static", num_threads=workers):
            gather_one(
                t * together, min((t + 1) * together, rows), &ends[0], &columns[0], &data[0], &x[0, 0], &y[0, 0]
            )
        return
    for t in prange(tasks, nogil=True, schedule="static", num_threads=workers):
        if parts == 1:  # literals: see `inlined`
            gather_rows(
                t * together, min((t + 1) * together, rows), 1, y.shape[1], &ends[0], &columns[0], &data[0],
                &x[0, 0], x_pitch, &y[0, 0], y_pitch,
            )
        else:
            gather_rows(
                t * together, min((t + 1) * together, rows), 2, y.shape[1], &ends[0], &columns[0], &data[0],
                &x[0, 0], x_pitch, &y[0, 0], y_pitch,
            )


cdef inline inlined gather_rows(
    Py_ssize_t first, Py_ssize_t last, int parts, Py_ssize_t width, const index* ends, const index* columns,
    const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    """As many vectors at a time as there are: a literal number of sums stays in registers."""
    cdef Py_ssize_t v, start = first, stop
    while start < last:
        stop = min(start + NEAR, last)
        v = 0
        while v < width:
            if width - v >= 16:
                gather(start, stop, parts, 16, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 16
            elif width - v >= 8:
                gather(start, stop, parts, 8, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 8
            elif width - v >= 4:
                gather(start, stop, parts, 4, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 4
            elif parts == 2 or width - v >= 2:
                gather(start, stop, parts, 2, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 2
            else:
                gather(start, stop, parts, 1, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 1
        start = stop


cdef inline inlined gather(
    Py_ssize_t first, Py_ssize_t last, int parts, int width, const index* ends, const index* columns,
    const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    if are_packs(width):
        gather_packs(first, last, parts, width // PACK, ends, columns, data, x, x_pitch, y, y_pitch)
    else:
        gather_numbers(first, last, parts, width, ends, columns, data, x, x_pitch, y, y_pitch)


cdef inline inlined gather_packs(
    Py_ssize_t first, Py_ssize_t last, int parts, int packs, const index* ends, const index* columns,
    const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    cdef Py_ssize_t row, j, end
    cdef pack sums[SUMS]
    cdef pack turned[SUMS]
    cdef pack odd
    cdef const pack* at
    cdef int i
    for row in range(first, last):
        for i in range(packs):
            sums[i] = turned[i] = EMPTY_PACK
        j, end = ends[row], ends[row + 1]
        if parts * packs == 1:  # two sums, so that none has to wait for the one before
            odd = EMPTY_PACK
            while j + 2 <= end:
                sums[0] = sums[0] + data[j] * (<const pack*> (x + x_pitch * <Py_ssize_t> columns[j]))[0]
                odd = odd + data[j + 1] * (<const pack*> (x + x_pitch * <Py_ssize_t> columns[j + 1]))[0]
                j += 2
            sums[0] = sums[0] + odd
        while j < end:
            at = <const pack*> (x + x_pitch * <Py_ssize_t> columns[j])
            for i in range(packs):
                sums[i] = sums[i] + data[parts * j] * at[i]
            if parts == 2:
                for i in range(packs):
                    turned[i] = turned[i] + data[2 * j + 1] * at[i]
            j += 1
        for i in range(packs):
            if parts == 2:
                sums[i] = sums[i] + i_times(turned[i], 1)
            (<pack*> (y + y_pitch * row))[i] = sums[i]


cdef inline inlined gather_numbers(
    Py_ssize_t first, Py_ssize_t last, int parts, int width, const index* ends, const index* columns,
    const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    cdef Py_ssize_t row, j
    cdef real a
    cdef real sums[SUMS]
    cdef real turned[SUMS]
    cdef const real* at
    cdef int i
    for row in range(first, last):
        for i in range(width):
            sums[i] = turned[i] = 0
        for j in range(ends[row], ends[row + 1]):
            at = x + x_pitch * <Py_ssize_t> columns[j]
            a = data[parts * j]
            for i in range(width):
                sums[i] = sums[i] + a * at[i]
            if parts == 2:
                a = data[2 * j + 1]
                for i in range(width):
                    turned[i] = turned[i] + a * at[i]
        if parts == 2:
            for i in range(0, width, 2):
                sums[i] = sums[i] - turned[i + 1]
                sums[i + 1] = sums[i + 1] + turned[i]
        for i in range(width):
            y[y_pitch * row + i] = sums[i]


cdef void gather_one(
    Py_ssize_t first, Py_ssize_t last, const index* ends, const index* columns, const real* data,
    const real* x, real* y,
) noexcept nogil:
    """One vector by itself."""
    cdef Py_ssize_t middle = (first + last) // 2
    if are_neighbours(LONG, ends[middle], ends[middle + 1], columns):
        gather_alone(True, first, last, ends, columns, data, x, y)
    else:
        gather_alone(False, first, last, ends, columns, data, x, y)


cdef inline inlined gather_alone(
    bint long_rows, Py_ssize_t first, Py_ssize_t last, const index* ends, const index* columns, const real* data,
    const real* x, real* y,
) noexcept nogil:
    """Two sums, so that none has to wait for the one before; and sums side by side, of neighbours."""
    cdef Py_ssize_t row, j = ends[first], end
    cdef real even, odd
    cdef pack sums
    cdef int i
    for row in range(first, last):
        even = odd = 0
        end = ends[row + 1]
        if long_rows:
            sums = EMPTY_PACK
            while are_neighbours(PACK, j, end, columns):
                sums = sums + (<const pack*> (data + j))[0] * (<const pack*> (x + columns[j]))[0]
                j += PACK
            for i in range(PACK):
                even = even + (<real*> &sums)[i]
        while j + 2 <= end:
            even = even + data[j] * x[columns[j]]
            odd = odd + data[j + 1] * x[columns[j + 1]]
            j += 2
            KEEP_SCALAR(j)
        if j < end:
            even = even + data[j] * x[columns[j]]
            j += 1
        y[row] = even + odd


cdef inline bint are_neighbours(Py_ssize_t count, Py_ssize_t j, Py_ssize_t end, const index* columns) noexcept nogil:
    """Whether there are so many entries from `j` on, in columns one after the other: those of a row are sorted."""
    return PACK > 1 and j + count <= end and columns[j + count - 1] - columns[j] == count - 1


def multiply_adjoint(
    const index[::1] ends, const index[::1] columns, const real[::1] data, int parts, const Py_ssize_t[:, ::1] shares,
    const real[:, :] x, real[:, :] y, int workers,
):
    """``y = matrix^H @ x`` with vectors side by side: a row adds ``conj(a) * x[row]`` to the result of each entry a.

                 columns of  share 0  |  share 1
          row 0              a a .  . | .  . . .         A share is some of the results, and the rows that meet them.
          row 1              . a a  . | .  . . .         Most rows meet those of one share only, which takes them whole;
          row 2              . . a  a | a  . . .         others are visited by both, and each takes its own entries.
          row 3              . . .  . | a  a a .

    Each result is added up in the order of the rows, so it does not depend on how many shares there are.
    """
    cdef Py_ssize_t t
    cdef Py_ssize_t x_pitch = x.strides[0] // <Py_ssize_t> sizeof(real)
    cdef Py_ssize_t y_pitch = y.strides[0] // <Py_ssize_t> sizeof(real)
    for t in prange(shares.shape[0], nogil=True, schedule="dynamic", num_threads=workers):
        if parts == 1:
            scatter_share(
                <const Share*> &shares[t, 0], 1, y.shape[1], &ends[0], &columns[0], &data[0],
                &x[0, 0], x_pitch, &y[0, 0], y_pitch,
            )
        else:
            scatter_share(
                <const Share*> &shares[t, 0], 2, y.shape[1], &ends[0], &columns[0], &data[0],
                &x[0, 0], x_pitch, &y[0, 0], y_pitch,
            )


cdef inline inlined scatter_share(
    const Share* share, int parts, Py_ssize_t width, const index* ends, const index* columns, const real* data,
    const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    cdef Py_ssize_t block, column, row, stop
    cdef bint whole
    for block in range(share.columns // share.width):
        if not share.block <= block % share.blocks < share.past_block:
            continue
        column, stop = block * share.width + share.start, block * share.width + share.stop
        if y_pitch == width:
            memset(y + y_pitch * column, 0, (stop - column) * width * sizeof(real))
        else:
            for column in range(column, stop):
                memset(y + y_pitch * column, 0, width * sizeof(real))
    for block in range(share.rows // share.height):
        row = share.first
        while row < share.last:
            whole = share.whole_first <= row < share.whole_last
            stop = share.whole_last if whole else share.whole_first if row < share.whole_first else share.last
            stop = min(stop, share.last, row + NEAR)
            if whole:
                scatter_rows(
                    share, True, stop - row, parts, width, ends + block * share.height + row, columns, data,
                    x + x_pitch * (block * share.height + row), x_pitch, y, y_pitch,
                )
            else:
                scatter_rows(
                    share, False, stop - row, parts, width, ends + block * share.height + row, columns, data,
                    x + x_pitch * (block * share.height + row), x_pitch, y, y_pitch,
                )
            row = stop


cdef inline inlined scatter_rows(
    const Share* share, bint whole, Py_ssize_t rows, int parts, Py_ssize_t width, const index* ends,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    """Some `rows`: of their entries, of which each block has as many, those in the blocks of the share."""
    cdef index begin[NEAR]
    cdef index end[NEAR]
    cdef index each
    cdef Py_ssize_t row, v = 0
    cdef const index* starts = ends
    cdef const index* stops = ends + 1
    if share.block > 0 or share.past_block < share.blocks:
        starts, stops = begin, end
        for row in range(rows):
            each = (ends[row + 1] - ends[row]) // <index> share.blocks
            begin[row] = ends[row] + <index> share.block * each
            end[row] = ends[row] + <index> share.past_block * each
    while v < width:
        if width - v >= 16:
            scatter(share, whole, rows, starts, stops, parts, 16, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 16
        elif width - v >= 8:
            scatter(share, whole, rows, starts, stops, parts, 8, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 8
        elif width - v >= 4:
            scatter(share, whole, rows, starts, stops, parts, 4, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 4
        elif parts == 2 or width - v >= 2:
            scatter(share, whole, rows, starts, stops, parts, 2, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 2
        elif whole and y_pitch == 1:
            scatter_one(rows, starts, stops, columns, data, x, x_pitch, y)
            v += 1
        else:
            scatter(share, whole, rows, starts, stops, parts, 1, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 1


cdef inline inlined scatter(
    const Share* share, bint whole, Py_ssize_t rows, const index* starts, const index* stops, int parts, int width,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    if are_packs(width):
        scatter_packs(
            share, whole, rows, starts, stops, parts, width // PACK, columns, data, x, x_pitch, y, y_pitch
        )
    else:
        scatter_numbers(share, whole, rows, starts, stops, parts, width, columns, data, x, x_pitch, y, y_pitch)


cdef inline inlined scatter_packs(
    const Share* share, bint whole, Py_ssize_t rows, const index* starts, const index* stops, int parts, int packs,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    cdef Py_ssize_t row, j
    cdef pack* at
    cdef pack factors[SUMS]
    cdef pack turned[SUMS]
    cdef int i
    for row in range(rows):
        for i in range(packs):
            factors[i] = (<const pack*> (x + x_pitch * row))[i]
            turned[i] = i_times(factors[i], -1)  # conj(a + i*b) * x = a*x + b*(-i*x)
        for j in range(starts[row], stops[row]):
            if whole or has(share, columns[j]):
                at = <pack*> (y + y_pitch * <Py_ssize_t> columns[j])
                for i in range(packs):
                    if parts == 1:
                        at[i] = at[i] + data[j] * factors[i]
                    else:
                        at[i] = at[i] + data[2 * j] * factors[i] + data[2 * j + 1] * turned[i]


# Not `inlined`: then GCC's code for two and four numbers is half as fast.
cdef inline void scatter_numbers(
    const Share* share, bint whole, Py_ssize_t rows, const index* starts, const index* stops, int parts, int width,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    cdef Py_ssize_t row, j
    cdef real a, b
    cdef real* at
    cdef real factors[SUMS]
    cdef real turned[SUMS]
    cdef int i
    for row in range(rows):
        for i in range(width):
            factors[i] = x[x_pitch * row + i]
        if parts == 2:
            for i in range(0, width, 2):  # conj(a + i*b) * x = a*x + b*(-i*x)
                turned[i] = factors[i + 1]
                turned[i + 1] = -factors[i]
        for j in range(starts[row], stops[row]):
            if whole or has(share, columns[j]):
                at = y + y_pitch * <Py_ssize_t> columns[j]
                a = data[parts * j]
                if parts == 1:
                    for i in range(width):
                        at[i] = at[i] + a * factors[i]
                else:
                    b = data[2 * j + 1]
                    for i in range(width):
                        at[i] = at[i] + (a * factors[i] + b * turned[i])


cdef inline inlined scatter_one(
    Py_ssize_t rows, const index* starts, const index* stops, const index* columns, const real* data,
    const real* x, Py_ssize_t x_pitch, real* y,
) noexcept nogil:
    """One vector by itself."""
    if are_neighbours(LONG, starts[rows // 2], stops[rows // 2], columns):
        scatter_alone(True, rows, starts, stops, columns, data, x, x_pitch, y)
    else:
        scatter_alone(False, rows, starts, stops, columns, data, x, x_pitch, y)


cdef inline inlined scatter_alone(
    bint long_rows, Py_ssize_t rows, const index* starts, const index* stops, const index* columns, const real* data,
    const real* x, Py_ssize_t x_pitch, real* y,
) noexcept nogil:
    """A row has each column once: so two are read before either is written, or some that are neighbours."""
    cdef Py_ssize_t row, j, stop
    cdef real a, even, odd
    cdef pack* at
    for row in range(rows):
        j, stop, a = starts[row], stops[row], x[x_pitch * row]
        if long_rows:
            while are_neighbours(PACK, j, stop, columns):
                at = <pack*> (y + columns[j])
                at[0] = at[0] + (<const pack*> (data + j))[0] * a
                j += PACK
        while j + 2 <= stop:
            even = y[columns[j]] + data[j] * a
            odd = y[columns[j + 1]] + data[j + 1] * a
            y[columns[j]] = even
            y[columns[j + 1]] = odd
            j += 2
            KEEP_SCALAR(j)
        if j < stop:
            y[columns[j]] = y[columns[j]] + data[j] * a


cdef inline bint has(const Share* share, Py_ssize_t column) noexcept nogil:
    if share.width < share.columns:
        column %= share.width
    return share.start <= column < share.stop
