"""The sparse matrix: its entries straight from the geometry, and products with it.

The matrix is a product over the axes of the arrays.  Along one of them, its *factor*, row ``phase + u*period`` has
entries j = 0, 1, ... with

    column   base[phase] + u*column_unit + j*column_step      where that is a column
    place    place[phase] + u*place_unit + j*place_step       in the flat weights

    stride 2, 3 taps     x  0 1 2 3
                   y  0  |  0                 phase 0: taps 2 and 0, one column after the other
                      1  |  1                 phase 1: tap 1
                      2  |  2 0               from here on a period repeats, one column further
                      3  |    1
                      4  |    2 0
                      5  |      1

so that nothing needs to be sorted or looked up.  On one of the axes, the *repeated* one, a period away from the edges
is copied from those before it, its columns shifted: most of a matrix is filled at the speed of memory.
"""

from cython.parallel cimport prange
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #ifdef __GNUC__
      /* GCC makes vectors of products that it then adds up one by one: slower than numbers all the way. */
      #define KEEP_SCALAR(j) __asm__("" : "+r"(j))
    #else
      #define KEEP_SCALAR(j)
    #endif
    """
    void KEEP_SCALAR(Py_ssize_t) noexcept nogil

include "openmp.pxi"

ctypedef fused index:
    int32_t
    int64_t

ctypedef fused bits:  # numbers of any type, to be copied
    uint32_t
    uint64_t
    double complex

ctypedef fused real:
    float
    double

cdef enum:
    SUMS = 8  # real numbers of vectors that meet an entry at a time, at most
    NEAR = 64  # rows that meet other vectors next, while the nearest cache still has them
    COPIED = 1024  # numbers to copy at a time, about: few enough for the nearest cache to still have them

cdef struct Factor:  # one row of the table `factors`
    Py_ssize_t rows, columns, period, column_unit, column_step, place_unit, place_step
    Py_ssize_t phases  # where base, place and count of its phases are, each together

cdef struct Share:  # one row of the table `shares`: of a matrix made of blocks of one structure, or without entries,
    Py_ssize_t width, height, columns, rows  # the size of a block, and of the matrix;
    Py_ssize_t blocks, block, past_block  # how many with entries are side by side, and which of them it takes;
    Py_ssize_t start, stop  # in each, the columns,
    Py_ssize_t first, last, whole_first, whole_last  # the rows that have entries there, and those that have no others

cdef struct Run:  # the entries of one row of a factor whose columns there are
    Py_ssize_t count, column, place


# ---- the entries -------------------------------------------------------------------------------------

def fill(
    const Py_ssize_t[:, ::1] factors, const Py_ssize_t[::1] phases, const Py_ssize_t[::1] repeated,
    const Py_ssize_t[:, ::1] tasks, Py_ssize_t[:, ::1] scratch, const bits[::1] w, Py_ssize_t block,
    index[::1] rows, bint coordinates, index[::1] columns, bits[::1] data, int workers,
):
    """Columns and numbers of all entries; and the row of each if `coordinates`, else where each row ends.

    A number is a `block` of neighbours in `w`, and its place counts blocks.  A task is ``(row, past the last, entries
    before)``.  `repeated` says in rows of the matrix how long the repeated axis and one of its periods are, between
    which rows of an axis they repeat, and by how many columns they move.
    """
    cdef Py_ssize_t t
    for t in prange(tasks.shape[0], nogil=True, schedule="dynamic", num_threads=workers):
        fill_rows(
            <const Factor*> &factors[0, 0], factors.shape[0], &phases[0], &repeated[0], &tasks[t, 0],
            &scratch[thread_number(), 0], &w[0], block, &rows[0], coordinates, &columns[0], &data[0],
        )


cdef void fill_rows(
    const Factor* factors, Py_ssize_t count, const Py_ssize_t* phases, const Py_ssize_t* repeated,
    const Py_ssize_t* task, Py_ssize_t* scratch, const bits* w, Py_ssize_t block, index* rows, bint coordinates,
    index* columns, bits* data,
) noexcept nogil:
    cdef Py_ssize_t row = task[0], at = task[2], line = repeated[0], period = repeated[1]
    cdef Py_ssize_t place, outer = -1, paths = 0, copied, n
    cdef Py_ssize_t behind = 0  # rows done of those that repeat, in this line and task
    cdef Py_ssize_t entries = 0  # of a period; before the first is whole, where it began
    while row < task[1]:
        place = row % line
        if repeated[2] <= place < repeated[3]:
            if place == repeated[2]:
                behind = 0
            if behind == 0:
                entries = at
            elif behind == period:
                entries = at - entries
            if behind >= period:
                n = min(behind, repeated[3] - place, task[1] - row) // period  # periods
                n = min(n, max(1, COPIED // max(entries * block, 1)))
                if n:
                    copied = n * entries
                    shift(columns + at - copied, copied, n * repeated[4], columns + at)
                    memcpy(data + at * block, data + (at - copied) * block, copied * block * sizeof(bits))
                    if coordinates:
                        shift(rows + at - copied, copied, n * period, rows + at)
                    else:
                        shift(rows + row - n * period, n * period, copied, rows + row)
                    at += copied
                    row += n * period
                    behind += n * period
                    continue
            behind += 1
        if row // factors[count - 1].rows != outer:
            outer = row // factors[count - 1].rows
            paths = multiply_out(factors, count - 1, phases, outer, factors[count - 1].columns, scratch)
        n = fill_row(
            factors[count - 1], run_of(factors + count - 1, phases, row % factors[count - 1].rows), paths, scratch,
            w, block, columns + at, data + at * block,
        )
        if coordinates:
            for place in range(at, at + n):
                rows[place] = <index> row
        at += n
        if not coordinates:
            rows[row] = <index> at
        row += 1


cdef Py_ssize_t multiply_out(
    const Factor* factors, Py_ssize_t count, const Py_ssize_t* phases, Py_ssize_t row, Py_ssize_t pitch,
    Py_ssize_t* paths,
) noexcept nogil:
    """Pairs of column and place, for one row of a product of factors; a column is `pitch` further than the one before.

    The last factor comes first and the list is repeated from its end, so that it grows in place.
    """
    cdef Py_ssize_t f, e, j, entries = 1, column, place
    cdef Run run
    paths[0] = paths[1] = 0
    for f in range(count - 1, -1, -1):
        run = run_of(factors + f, phases, row % factors[f].rows)
        row //= factors[f].rows
        for j in range(run.count - 1, -1, -1):
            column = (run.column + j * factors[f].column_step) * pitch
            place = run.place + j * factors[f].place_step
            for e in range(entries):
                paths[2 * (j * entries + e)] = paths[2 * e] + column
                paths[2 * (j * entries + e) + 1] = paths[2 * e + 1] + place
        entries *= run.count
        pitch *= factors[f].columns
    return entries


cdef inline Run run_of(const Factor* f, const Py_ssize_t* phases, Py_ssize_t row) noexcept nogil:
    cdef const Py_ssize_t* phase = phases + f.phases + 3 * (row % f.period)
    cdef Py_ssize_t u = row // f.period, skipped
    cdef Run run = Run(phase[2], phase[0] + u * f.column_unit, phase[1] + u * f.place_unit)
    if run.column < 0:
        skipped = (f.column_step - 1 - run.column) // f.column_step
        run.count -= skipped
        run.column += skipped * f.column_step
        run.place += skipped * f.place_step
    if run.column >= f.columns:
        run.count = 0
    run.count = max(0, min(run.count, (f.columns - 1 - run.column) // f.column_step + 1))
    return run


cdef Py_ssize_t fill_row(
    Factor last, Run run, Py_ssize_t paths, const Py_ssize_t* path, const bits* w, Py_ssize_t block,
    index* columns, bits* data,
) noexcept nogil:
    """One row of the matrix: along each path through the outer factors, all of the run through the last."""
    cdef Py_ssize_t p, j, at = 0, column, place
    for p in range(paths):
        column = path[2 * p] + run.column
        place = path[2 * p + 1] + run.place
        for j in range(run.count):
            columns[at] = <index> (column + j * last.column_step)
            if block == 1:
                data[at] = w[place + j * last.place_step]
            else:
                memcpy(data + at * block, w + (place + j * last.place_step) * block, block * sizeof(bits))
            at += 1
    return at


cdef inline void shift(const index* source, Py_ssize_t count, Py_ssize_t by, index* to) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(count):
        to[j] = <index> (source[j] + by)


# ---- products ----------------------------------------------------------------------------------------
#
# Several vectors are multiplied at a time, side by side, so that an entry meets neighbours:
#
#     a at (row, column)   *   x[column]   v0 v1 v2 v3    added to   y[row]   v0 v1 v2 v3
#
# A complex number is real ones in two `parts`.  Each part of an entry multiplies both of x, so that the loops are the
# same; the part i is turned afterwards:  (a + i*b) * x = a*x + i*(b*x).


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
        gather_rows(
            t * together, min((t + 1) * together, rows), parts, y.shape[1], &ends[0], &columns[0], &data[0],
            &x[0, 0], x_pitch, &y[0, 0], y_pitch,
        )


cdef void gather_rows(
    Py_ssize_t first, Py_ssize_t last, int parts, Py_ssize_t width, const index* ends, const index* columns,
    const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    """As many vectors at a time as there are: a literal number of sums stays in registers."""
    cdef Py_ssize_t v, start = first, stop
    while start < last:
        stop = min(start + NEAR, last)
        v = 0
        while v < width:
            if parts == 1 and width - v >= 8:
                gather(start, stop, 1, 8, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 8
            elif parts == 1 and width - v >= 4:
                gather(start, stop, 1, 4, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 4
            elif parts == 1 and width - v >= 2:
                gather(start, stop, 1, 2, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 2
            elif parts == 1:
                gather(start, stop, 1, 1, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 1
            elif width - v >= 8:
                gather(start, stop, 2, 8, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 8
            elif width - v >= 4:
                gather(start, stop, 2, 4, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 4
            else:
                gather(start, stop, 2, 2, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 2
        start = stop


cdef inline void gather(
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
    """One vector by itself: two sums, so that none has to wait for the one before."""
    cdef Py_ssize_t row, j = ends[first], end
    cdef real even, odd
    for row in range(first, last):
        even = odd = 0
        end = ends[row + 1]
        while j + 2 <= end:
            even = even + data[j] * x[columns[j]]
            odd = odd + data[j + 1] * x[columns[j + 1]]
            j += 2
            KEEP_SCALAR(j)
        if j < end:
            even = even + data[j] * x[columns[j]]
            j += 1
        y[row] = even + odd


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
    for t in prange(shares.shape[0], nogil=True, schedule="dynamic", num_threads=workers):
        scatter_share(
            <const Share*> &shares[t, 0], parts, y.shape[1], &ends[0], &columns[0], &data[0],
            &x[0, 0], x.strides[0] // <Py_ssize_t> sizeof(real), &y[0, 0], y.strides[0] // <Py_ssize_t> sizeof(real),
        )


cdef void scatter_share(
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


cdef inline void scatter_rows(
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
        if parts == 1 and width - v >= 8:
            scatter(share, whole, rows, starts, stops, 1, 8, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 8
        elif parts == 1 and width - v >= 4:
            scatter(share, whole, rows, starts, stops, 1, 4, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 4
        elif parts == 1 and width - v >= 2:
            scatter(share, whole, rows, starts, stops, 1, 2, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 2
        elif parts == 1 and whole and y_pitch == 1:
            scatter_one(rows, starts, stops, columns, data, x, x_pitch, y)
            v += 1
        elif parts == 1:
            scatter(share, whole, rows, starts, stops, 1, 1, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 1
        elif width - v >= 8:
            scatter(share, whole, rows, starts, stops, 2, 8, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 8
        elif width - v >= 4:
            scatter(share, whole, rows, starts, stops, 2, 4, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 4
        else:
            scatter(share, whole, rows, starts, stops, 2, 2, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 2


cdef inline void scatter(
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


cdef inline void scatter_one(
    Py_ssize_t rows, const index* starts, const index* stops, const index* columns, const real* data,
    const real* x, Py_ssize_t x_pitch, real* y,
) noexcept nogil:
    """One vector by itself.  A row has each column once: so two are read before either is written."""
    cdef Py_ssize_t row, j, stop
    cdef real a, even, odd
    for row in range(rows):
        j, stop, a = starts[row], stops[row], x[x_pitch * row]
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


def copyto(bits[:, :] to, const bits[:, :] source, Py_ssize_t together, int workers):
    """``numpy.copyto`` on all workers; so many rows `together` are a task."""
    cdef Py_ssize_t rows = to.shape[0], t, j, i
    for t in prange((rows + together - 1) // together, nogil=True, schedule="static", num_threads=workers):
        for j in range(t * together, min((t + 1) * together, rows)):
            for i in range(to.shape[1]):
                to[j, i] = source[j, i]
