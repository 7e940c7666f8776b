"""The entries of the sparse matrix, straight from the geometry.

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

    Numbers alone, if there are no `columns`.

    A number is a `block` of neighbours in `w`, and its place counts blocks.  A task is ``(row, past the last, entries
    before)``.  `repeated` says in rows of the matrix how long the repeated axis and one of its periods are, between
    which rows of an axis they repeat, and by how many columns they move.
    """
    cdef Py_ssize_t t
    for t in prange(tasks.shape[0], nogil=True, schedule="dynamic", num_threads=workers):
        fill_rows(
            <const Factor*> &factors[0, 0], factors.shape[0], &phases[0], &repeated[0], &tasks[t, 0],
            &scratch[thread_number(), 0], &w[0], block, &rows[0], coordinates,
            &columns[0] if columns.shape[0] else NULL, &data[0],
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
                    memcpy(data + at * block, data + (at - copied) * block, copied * block * sizeof(bits))
                    if columns != NULL:
                        shift(columns + at - copied, copied, n * repeated[4], columns + at)
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
            w, block, columns + at if columns != NULL else NULL, data + at * block,
        )
        if coordinates:
            for place in range(at, at + n):
                rows[place] = <index> row
        at += n
        if columns != NULL and not coordinates:
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
            if columns != NULL:
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


def copyto(bits[:, :] to, const bits[:, :] source, Py_ssize_t together, int workers):
    """``numpy.copyto`` on all workers; so many rows `together` are a task."""
    cdef Py_ssize_t rows = to.shape[0], t, j, i
    for t in prange((rows + together - 1) // together, nogil=True, schedule="static", num_threads=workers):
        for j in range(t * together, min((t + 1) * together, rows)):
            for i in range(to.shape[1]):
                to[j, i] = source[j, i]
