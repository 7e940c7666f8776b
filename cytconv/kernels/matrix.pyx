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
from libc.string cimport memcpy

include "openmp.pxi"

ctypedef fused index:
    int32_t
    int64_t

ctypedef fused bits:  # numbers of any type, to be copied
    uint32_t
    uint64_t
    double complex

ctypedef fused number:
    float
    double
    float complex
    double complex

cpdef enum:
    ABREAST = 8  # vectors that are multiplied at a time, at most
cdef enum:
    COPIED = 1024  # numbers to copy at a time, about: few enough for the nearest cache to still have them

cdef struct Factor:  # one row of the table `factors`
    Py_ssize_t rows, columns, period, column_unit, column_step, place_unit, place_step
    Py_ssize_t phases  # where base, place and count of its phases are, each together

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
# Several vectors are multiplied up to `ABREAST` at a time, interleaved, so that an entry meets neighbours:
#
#     a at (row, column)   *   x[column]   v0 v1 v2 v3    added to   y[row]   v0 v1 v2 v3


def multiply(
    const index[::1] ends, const index[::1] columns, const number[::1] data, const number[:, ::1] x,
    number[:, ::1] y, number[::1] scratch, Py_ssize_t together, int workers,
):
    """``y[v] = matrix @ x[v]`` for every vector v; `ends` is the row pointer.

    `scratch` holds up to `ABREAST` vectors like x; a task is so many rows `together`.
    """
    cdef Py_ssize_t rows = y.shape[1], width = x.shape[1], v = 0, t
    cdef Py_ssize_t tasks = (rows + together - 1) // together, parts = (width + together - 1) // together
    cdef int abreast
    while v < x.shape[0]:
        abreast = <int> min(x.shape[0] - v, ABREAST)
        if abreast == 1:
            for t in prange(tasks, nogil=True, schedule="static", num_threads=workers):
                multiply_one(
                    t * together, min((t + 1) * together, rows), &ends[0], &columns[0], &data[0], &x[v, 0], &y[v, 0],
                )
            break
        for t in prange(parts, nogil=True, schedule="static", num_threads=workers):
            interleave(t * together, min((t + 1) * together, width), abreast, &x[v, 0], width, &scratch[0])
        for t in prange(tasks, nogil=True, schedule="static", num_threads=workers):
            if abreast == ABREAST:  # a literal number of sums stays in registers
                multiply_abreast(
                    t * together, min((t + 1) * together, rows), ABREAST, &ends[0], &columns[0], &data[0], &scratch[0],
                    &y[v, 0], rows,
                )
            else:
                multiply_abreast(
                    t * together, min((t + 1) * together, rows), abreast, &ends[0], &columns[0], &data[0], &scratch[0],
                    &y[v, 0], rows,
                )
        v += abreast


cdef void interleave(
    Py_ssize_t first, Py_ssize_t last, int abreast, const number* x, Py_ssize_t pitch, number* to,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef int i
    for j in range(first, last):
        for i in range(abreast):
            to[abreast * j + i] = x[i * pitch + j]


cdef inline void multiply_abreast(
    Py_ssize_t first, Py_ssize_t last, int abreast, const index* ends, const index* columns, const number* data,
    const number* x, number* y, Py_ssize_t pitch,
) noexcept nogil:
    cdef Py_ssize_t row, j
    cdef number a
    cdef number sums[ABREAST]
    cdef const number* at
    cdef int i
    for row in range(first, last):
        for i in range(abreast):
            sums[i] = 0
        for j in range(ends[row], ends[row + 1]):
            a = data[j]
            at = x + abreast * <Py_ssize_t> columns[j]
            for i in range(abreast):
                sums[i] = sums[i] + a * at[i]
        for i in range(abreast):
            y[i * pitch + row] = sums[i]


cdef void multiply_one(
    Py_ssize_t first, Py_ssize_t last, const index* ends, const index* columns, const number* data, const number* x,
    number* y,
) noexcept nogil:
    cdef Py_ssize_t row, j
    cdef number total
    for row in range(first, last):
        total = 0
        for j in range(ends[row], ends[row + 1]):
            total = total + data[j] * x[columns[j]]
        y[row] = total


cdef inline number conjugate(number a) noexcept nogil:
    if number is float or number is double:
        return a
    else:
        return a.conjugate()


def multiply_adjoint(
    const index[::1] ends, const index[::1] columns, const number[::1] data, const Py_ssize_t[:, ::1] shares,
    const number[:, ::1] x, number[:, ::1] y, number[::1] sums, Py_ssize_t together, int workers,
):
    """``y[v] = matrix^H @ x[v]`` for every vector v, by rows in shares whose sums are added up in the end.

    A share is ``(row, past the last, column, past the last)``, with the columns that its entries have, and the place of
    its sums in `sums` for one vector; of up to `ABREAST` vectors they take as many times as much.
    """
    cdef Py_ssize_t width = y.shape[1], v = 0, t
    cdef Py_ssize_t tasks = (width + together - 1) // together
    cdef int abreast
    while v < x.shape[0]:
        abreast = <int> min(x.shape[0] - v, ABREAST)
        for t in prange(shares.shape[0], nogil=True, schedule="dynamic", num_threads=workers):
            if abreast == 1:
                scatter_one(&shares[t, 0], &ends[0], &columns[0], &data[0], &x[v, 0], &sums[0])
            else:
                scatter_abreast(
                    &shares[t, 0], abreast, &ends[0], &columns[0], &data[0], &x[v, 0], x.shape[1], &sums[0],
                )
        for t in prange(tasks, nogil=True, schedule="static", num_threads=workers):
            add_shares(
                t * together, min((t + 1) * together, width), abreast, &shares[0, 0], shares.shape[0], &sums[0],
                &y[v, 0], width,
            )
        v += abreast


cdef void scatter_abreast(
    const Py_ssize_t* share, int abreast, const index* ends, const index* columns, const number* data, const number* x,
    Py_ssize_t pitch, number* sums,
) noexcept nogil:
    cdef Py_ssize_t row, j
    cdef number a
    cdef number factors[ABREAST]
    cdef number* at
    cdef int i
    sums += abreast * share[4]
    for j in range(abreast * (share[3] - share[2])):
        sums[j] = 0
    sums -= abreast * share[2]
    for row in range(share[0], share[1]):
        for i in range(abreast):
            factors[i] = x[i * pitch + row]
        for j in range(ends[row], ends[row + 1]):
            a = conjugate(data[j])
            at = sums + abreast * <Py_ssize_t> columns[j]
            for i in range(abreast):
                at[i] = at[i] + a * factors[i]


cdef void scatter_one(
    const Py_ssize_t* share, const index* ends, const index* columns, const number* data, const number* x, number* sums,
) noexcept nogil:
    cdef Py_ssize_t row, j
    cdef number a
    sums += share[4]
    for j in range(share[3] - share[2]):
        sums[j] = 0
    sums -= share[2]
    for row in range(share[0], share[1]):
        a = x[row]
        for j in range(ends[row], ends[row + 1]):
            sums[columns[j]] = sums[columns[j]] + conjugate(data[j]) * a


cdef void add_shares(
    Py_ssize_t first, Py_ssize_t last, int abreast, const Py_ssize_t* shares, Py_ssize_t count, const number* sums,
    number* y, Py_ssize_t pitch,
) noexcept nogil:
    """Columns `first` to `last` of the vectors that lie `abreast`, one share after the other."""
    cdef Py_ssize_t s, j
    cdef const Py_ssize_t* share
    cdef const number* of_share
    cdef int i
    for i in range(abreast):
        for j in range(first, last):
            y[i * pitch + j] = 0
        for s in range(count):
            share = shares + 5 * s
            of_share = sums + abreast * (share[4] - share[2]) + i
            for j in range(max(first, share[2]), min(last, share[3])):
                y[i * pitch + j] = y[i * pitch + j] + of_share[abreast * j]
